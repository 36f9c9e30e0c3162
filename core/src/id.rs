//! Names of things that must never be mistaken for one another: commands, boots, checkpoints, records, files.

use core::fmt;

/// The name of one command, never used twice.
///
/// The epoch is a nonce that the driver draws for each machine it makes, so that an answer that belongs to an earlier
/// manager never looks like one to us; the sequence number counts within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CommandId {
    /// The manager's nonce.
    pub epoch: u64,
    /// Counts commands within the epoch, from 1.
    pub seq: u32,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}#{}", self.epoch, self.seq)
    }
}

/// The name of one life of the guest: from being provisioned to being powered off or rolled back.
///
/// Every command says which boot it acts on, and every event which boot it comes from. An event of an earlier boot (a
/// `ProgramExited` that was still queued when the machine rolled back) is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Boot {
    /// The manager's nonce, as in [`CommandId::epoch`].
    pub epoch: u64,
    /// Counts boots within the epoch. Boot 0 is the one that a manager finds at its start.
    pub seq: u32,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.epoch, self.seq)
    }
}

/// The number of a checkpoint: later ones have larger numbers, and none is used twice, not even one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Generation(pub u32);

impl Generation {
    /// The first checkpoint of a task.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in the task's list of input or output files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct FileIx(pub u16);

impl FileIx {
    /// As an index into `files_in` or `files_out`.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for FileIx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a journal record; a later record has a larger one, across restarts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct JournalSeq(pub u64);

impl fmt::Display for JournalSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How many checkpoints a [`Generations`] can hold.
pub const MAX_GENERATIONS: usize = 8;

/// A small set of checkpoint numbers, newest first, without a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "alloc::vec::Vec<Generation>", into = "alloc::vec::Vec<Generation>"))]
pub struct Generations {
    /// Descending; 0 marks a free place, and free places are last.
    numbers: [u32; MAX_GENERATIONS],
}

impl Generations {
    /// The empty set.
    pub const NONE: Self = Self { numbers: [0; MAX_GENERATIONS] };

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.iter().take_while(|&&n| n != 0).count()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.numbers[0] == 0
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Option<Generation> {
        self.iter().next()
    }

    /// The oldest.
    #[must_use]
    pub fn oldest(&self) -> Option<Generation> {
        self.iter().last()
    }

    /// Whether `generation` is one of them.
    #[must_use]
    pub fn contains(&self, generation: Generation) -> bool {
        generation.0 != 0 && self.numbers.contains(&generation.0)
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = Generation> + '_ {
        self.numbers.iter().take_while(|&&n| n != 0).map(|&n| Generation(n))
    }

    /// Adds one. If there is no room, the oldest of all (it may be this one) is left out and handed back.
    pub fn insert(&mut self, generation: Generation) -> Option<Generation> {
        if generation.0 == 0 || self.contains(generation) {
            return None;
        }
        let mut carried = generation.0;
        for place in &mut self.numbers {
            if carried > *place {
                core::mem::swap(place, &mut carried);
            }
        }
        (carried != 0).then_some(Generation(carried))
    }

    /// Takes one out; whether it was there.
    pub fn remove(&mut self, generation: Generation) -> bool {
        let Some(at) = self.numbers.iter().position(|&n| n == generation.0 && n != 0) else {
            return false;
        };
        self.numbers.copy_within(at + 1.., at);
        self.numbers[MAX_GENERATIONS - 1] = 0;
        true
    }
}

impl FromIterator<Generation> for Generations {
    /// Keeps the newest [`MAX_GENERATIONS`].
    fn from_iter<I: IntoIterator<Item = Generation>>(iter: I) -> Self {
        let mut set = Self::NONE;
        for generation in iter {
            set.insert(generation);
        }
        set
    }
}

impl From<Generations> for alloc::vec::Vec<Generation> {
    fn from(set: Generations) -> Self {
        set.iter().collect()
    }
}

/// A list that is no set of checkpoint numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list of checkpoint numbers must be strictly descending, above 0 and at most {MAX_GENERATIONS} long")]
pub struct BadGenerations;

impl TryFrom<alloc::vec::Vec<Generation>> for Generations {
    type Error = BadGenerations;

    fn try_from(list: alloc::vec::Vec<Generation>) -> Result<Self, BadGenerations> {
        let descending = list.windows(2).all(|pair| pair[0] > pair[1]);
        if !descending || list.len() > MAX_GENERATIONS || list.iter().any(|g| g.0 == 0) {
            return Err(BadGenerations);
        }
        Ok(list.into_iter().collect())
    }
}
