//! The states that a search has stored, and how they hang together.
//!
//! ```text
//!   fingerprint --> id --> from, branch   which stored state it was reached from, and by which answers
//!                          calm, steps    where it goes if nothing more goes wrong, and how far that is
//!                          before         the longest way into it through states that are not stored
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hash::AsIs;

/// A state's shard and its place in it.
pub(super) type StateId = u32;

/// Where the first state was reached from.
pub(super) const NOWHERE: StateId = StateId::MAX;
/// The calm successor of a state after which the task is over.
pub(super) const HOME: StateId = StateId::MAX - 1;
/// The calm successor of a state in which a promise is broken: reported already.
pub(super) const BROKEN: StateId = StateId::MAX - 2;

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

/// As many states as a shard can name.
const MOST_IN_SHARD: u32 = (1 << (32 - SHARD_BITS)) - 4;

/// An entry of a table that is between half and seven eighths full, and a way.
pub(super) const BYTES_PER_STATE: usize = 52;

/// A fingerprint in halves: a u128 would be aligned to 16 bytes, and the table a third larger.
#[derive(PartialEq, Eq)]
struct Key(u64, u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // The other half names the shard.
        hasher.write_u64(self.1);
    }
}

/// How a state was reached, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// The stored state before.
    pub(super) from: StateId,
    /// Which of the ways to go on from there: by its number, and calmly after its first step.
    pub(super) branch: u32,
    calm: StateId,
    calm_steps: u16,
    before: u16,
}

/// Whether a state was stored before.
#[derive(Clone, Copy)]
pub(super) enum Visit {
    New(StateId),
    Known(StateId),
}

/// The states whose fingerprints begin with the same bits.
#[derive(Default)]
struct Shard {
    known: HashMap<Key, u32, BuildHasherDefault<AsIs>>,
    ways: Vec<Way>,
}

/// All of them, for any number of threads.
pub(super) struct Known {
    shards: Vec<Mutex<Shard>>,
    states: AtomicUsize,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), states: AtomicUsize::new(0) }
    }

    /// How many.
    pub(super) fn states(&self) -> usize {
        self.states.load(Ordering::Relaxed)
    }

    /// Stores a state that was reached in so many steps, of which the last leads to it and the others to states that are
    /// not stored.
    ///
    /// # Errors
    /// If there are more states than have a number.
    pub(super) fn visit(&self, fingerprint: u128, from: StateId, branch: u32, steps: u16) -> Result<Visit, Full> {
        let key = Key((fingerprint >> 64) as u64, fingerprint as u64);
        let at = (key.0 >> (64 - SHARD_BITS)) as usize;
        let before = steps.saturating_sub(1);
        let mut shard = self.shard(at);
        let place = shard.ways.len() as u32;
        let known = *shard.known.entry(key).or_insert(place);
        if known != place {
            let way = &mut shard.ways[known as usize];
            way.before = way.before.max(before);
            return Ok(Visit::Known(state_id(at, known)));
        }
        if place >= MOST_IN_SHARD {
            return Err(Full);
        }
        shard.ways.push(Way { from, branch, calm: NOWHERE, calm_steps: 0, before });
        drop(shard);
        self.states.fetch_add(1, Ordering::Relaxed);
        Ok(Visit::New(state_id(at, place)))
    }

    /// Where a state goes if nothing more goes wrong, in how many steps.
    pub(super) fn set_calm(&self, id: StateId, calm: StateId, steps: u16) {
        let (shard, place) = place_of(id);
        let way = &mut self.shard(shard).ways[place];
        (way.calm, way.calm_steps) = (calm, steps);
    }

    pub(super) fn way(&self, id: StateId) -> Way {
        let (shard, place) = place_of(id);
        self.shard(shard).ways[place]
    }

    fn shard(&self, at: usize) -> MutexGuard<'_, Shard> {
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From every state, if nothing more goes wrong, the task must come to its end. The calm successors make a graph in
    /// which each state has one way out, so it is enough to follow each way once. The longest, in steps, and one state
    /// of each circle.
    pub(super) fn walk_home(&self) -> (u32, Vec<StateId>) {
        const UNKNOWN: u32 = u32::MAX;
        const HERE: u32 = u32::MAX - 1;
        const NEVER: u32 = u32::MAX - 2;
        let shards: Vec<_> = (0..SHARDS).map(|at| self.shard(at)).collect();
        let mut steps: Vec<Vec<u32>> = shards.iter().map(|shard| vec![UNKNOWN; shard.ways.len()]).collect();
        let mut longest = 0;
        let mut circles = vec![];
        let mut walk = vec![];
        for (shard, own) in shards.iter().enumerate() {
            for place in 0..own.ways.len() {
                let mut at = state_id(shard, place as u32);
                let mut home = loop {
                    match at {
                        HOME => break 0,
                        BROKEN | NOWHERE => break NEVER,
                        _ => {}
                    }
                    let (shard, place) = place_of(at);
                    match steps[shard][place] {
                        UNKNOWN => {
                            steps[shard][place] = HERE;
                            walk.push((shard, place));
                            at = shards[shard].ways[place].calm;
                        }
                        HERE => {
                            circles.push(at);
                            break NEVER;
                        }
                        known => break known,
                    }
                };
                for (shard, place) in walk.drain(..).rev() {
                    let way = shards[shard].ways[place];
                    if home != NEVER {
                        home += u32::from(way.calm_steps);
                        longest = longest.max(home + u32::from(way.before));
                    }
                    steps[shard][place] = home;
                }
            }
        }
        (longest, circles)
    }
}

/// There are more states than have a number.
pub(super) struct Full;

const fn state_id(shard: usize, place: u32) -> StateId {
    (shard as u32) << (32 - SHARD_BITS) | place
}

const fn place_of(id: StateId) -> (usize, usize) {
    ((id >> (32 - SHARD_BITS)) as usize, (id & (u32::MAX >> SHARD_BITS)) as usize)
}
