//! A fixed array of timers, indexed by what they are for.

use crate::time::{Instant, Span};

/// What a timer is for. In the order in which timers that are due together fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The command in flight must have been answered.
    Deadline,
    /// The fence must have been answered.
    Fence,
    /// The pause before the next attempt is over.
    Retry,
    /// The budget of a quit is spent.
    Quit,
    /// All slices of an op together.
    Overall,
    /// The program has run for as long as it may.
    RunLimit,
    /// A checkpoint is due.
    Checkpoint,
    /// The program has shown no sign of life for long.
    Watch,
    /// A record must have become durable.
    Journal,
    /// Not a timer that fires but a mark in the guest's time: what was computed until now is worth a checkpoint.
    AtStake,
}

impl Timer {
    const COUNT: usize = 10;
    /// Those that fire.
    pub(crate) const ALL: [Self; Self::COUNT - 1] = [
        Self::Deadline,
        Self::Fence,
        Self::Retry,
        Self::Quit,
        Self::Overall,
        Self::RunLimit,
        Self::Checkpoint,
        Self::Watch,
        Self::Journal,
    ];
    /// Those that measure what the guest does: they stand still while it is held.
    const GUEST: [Self; 5] = [Self::Overall, Self::RunLimit, Self::Checkpoint, Self::Watch, Self::AtStake];
    /// Those that mean nothing once the guest's life is over.
    const LIFE: [Self; 6] = [Self::Overall, Self::RunLimit, Self::Checkpoint, Self::Watch, Self::AtStake, Self::Retry];
}

/// When each timer fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Timers {
    /// [`UNARMED`](Self::UNARMED) if not armed. Plain numbers keep the search for the next one short.
    at: [u64; Timer::COUNT],
    /// Since when the guest's timers stand still.
    held_since: Option<Instant>,
}

impl Timers {
    /// 0 stands for "not armed", so that the default is right; instants are stored plus one.
    const UNARMED: u64 = 0;

    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.at[timer as usize] = at.as_millis().saturating_add(1);
    }

    /// Arms a timer to fire `span` after `now`; while it stands still, after it goes on.
    pub(crate) fn arm_in(&mut self, timer: Timer, now: Instant, span: Span) {
        let from = self.held_since.filter(|_| Timer::GUEST.contains(&timer)).unwrap_or(now);
        self.arm(timer, from + span);
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.at[timer as usize] = Self::UNARMED;
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.at[timer as usize] != Self::UNARMED
    }

    /// Whether `at` comes before `timer` would fire; any time does if it is not armed.
    pub(crate) fn is_before(&self, at: Instant, timer: Timer) -> bool {
        !self.is_armed(timer) || at.as_millis() < self.at[timer as usize] - 1
    }

    /// Whether the guest's time has come to this mark; it does not go on while the guest is held.
    pub(crate) fn has_passed(&self, mark: Timer, now: Instant) -> bool {
        let at = self.at[mark as usize];
        at != Self::UNARMED && at - 1 <= self.held_since.unwrap_or(now).as_millis()
    }

    /// The guest is gone, and what was timed of it.
    pub(crate) fn end_life(&mut self) {
        for timer in Timer::LIFE {
            self.disarm(timer);
        }
        self.held_since = None;
    }

    /// The next to fire. Timers that stand still do not.
    pub(crate) fn next(&self) -> Option<Instant> {
        let mut next = u64::MAX;
        for timer in Timer::ALL {
            let at = self.at[timer as usize].wrapping_sub(1);
            if at < next && !self.stands_still(timer) {
                next = at;
            }
        }
        (next != u64::MAX).then_some(Instant::from_millis(next))
    }

    /// Disarms `timer` if it is due, and says whether it was.
    pub(crate) fn take_due(&mut self, timer: Timer, now: Instant) -> bool {
        let at = self.at[timer as usize];
        let due = at != Self::UNARMED && at - 1 <= now.as_millis() && !self.stands_still(timer);
        if due {
            self.disarm(timer);
        }
        due
    }

    /// From `now` on the guest's timers stand still.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.held_since.get_or_insert(now);
    }

    /// The guest's timers go on, later by as long as they stood still.
    pub(crate) fn release(&mut self, now: Instant) {
        if let Some(since) = self.held_since.take() {
            let by = now.since(since);
            for timer in Timer::GUEST {
                self.delay(timer as usize, by);
            }
        }
    }

    /// Every timer fires later by `by`.
    pub(crate) fn shift(&mut self, by: Span) {
        for index in 0..Timer::COUNT {
            self.delay(index, by);
        }
        self.held_since = self.held_since.map(|since| since + by);
    }

    /// The same timers as seen at `now`, with nothing in them that depends on when that is.
    #[cfg(feature = "explore")]
    pub(crate) fn relative_to(mut self, now: Instant) -> Self {
        // A timer of the guest that stands still is as far off as it was when it began to.
        let held = self.held_since.take();
        for (index, at) in self.at.iter_mut().enumerate() {
            let guests = Timer::GUEST.iter().any(|&timer| timer as usize == index);
            let still = held.filter(|_| guests).unwrap_or(now);
            if *at != Self::UNARMED {
                *at = at.saturating_sub(still.as_millis()).max(1);
            }
        }
        self.held_since = held.map(|_| Instant::ZERO);
        self
    }

    fn stands_still(&self, timer: Timer) -> bool {
        self.held_since.is_some() && Timer::GUEST.contains(&timer)
    }

    fn delay(&mut self, index: usize, by: Span) {
        let at = &mut self.at[index];
        if *at != Self::UNARMED {
            *at = at.saturating_add(u64::from(by.as_millis()));
        }
    }
}
