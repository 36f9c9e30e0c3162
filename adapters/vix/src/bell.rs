//! How a callback of VIX wakes the thread that waits for a job.
//!
//! ```text
//!   caller: take a bell -- its number is the client data --> VixVM_...(..., callback, number)
//!      |                                                        |
//!      wait (bounded)  <------------- ring(number) -------- callback, on any thread, maybe before the call returned,
//!      |                                                     maybe twice, maybe never, maybe after the caller has gone
//!   put the bell back
//! ```
//! The client data is a number, never a pointer, so whatever VIX does with it, and however late, no memory is touched that
//! is not ours any more. A callback does nothing but ring: it never blocks for long and never asks VIX anything, except
//! for the location of an item that was found, which is only valid while the callback runs.
//!
//! Bells are kept and used again: in the long run a call allocates nothing for its callback.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmtask_vix_abi::Handle;

/// How many jobs can be waited for with a callback at the same time. Further ones are only polled.
const MOST: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 12;

/// The number of a bell, for one use: what a callback gets as its client data. Never 0, and 32 bits everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u32);

impl Ticket {
    /// As client data.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// From client data.
    #[must_use]
    pub const fn from_number(number: usize) -> Self {
        Self(number as u32)
    }

    const fn index(self) -> usize {
        (self.0 as usize) & (MOST - 1)
    }
}

#[derive(Default)]
struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    /// For which use.
    ticket: u32,
    rung: bool,
    found: Vec<String>,
    ask: Option<Arc<Ask>>,
}

/// Asks VIX where an item is that was found.
type Ask = dyn Fn(Handle) -> Option<String> + Send + Sync;

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Rack {
    bells: Vec<Arc<Bell>>,
    free: Vec<usize>,
}

static RACK: Mutex<Rack> = Mutex::new(Rack { bells: Vec::new(), free: Vec::new() });

fn rack() -> MutexGuard<'static, Rack> {
    RACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bell in use by one job. Put back when dropped.
pub(crate) struct Held {
    bell: Arc<Bell>,
    ticket: Ticket,
}

impl Held {
    /// Takes a bell, if there is one left.
    pub(crate) fn take() -> Option<Self> {
        let mut rack = rack();
        let index = match rack.free.pop() {
            Some(index) => index,
            None if rack.bells.len() < MOST => {
                rack.bells.push(Arc::default());
                rack.bells.len() - 1
            }
            None => return None,
        };
        let bell = Arc::clone(&rack.bells[index]);
        drop(rack);
        let mut state = bell.lock();
        // Another number each time, so that a late callback of an earlier job rings nothing.
        let uses = (state.ticket >> INDEX_BITS).wrapping_add(1) & (u32::MAX >> INDEX_BITS);
        *state = State { ticket: uses.max(1) << INDEX_BITS | index as u32, ..State::default() };
        let ticket = Ticket(state.ticket);
        drop(state);
        Some(Self { bell, ticket })
    }

    /// What the callback is to be given.
    pub(crate) const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Waits until it rings, at most so long; whether it has.
    pub(crate) fn wait(&self, most: Duration) -> bool {
        let (state, _) = self
            .bell
            .rung
            .wait_timeout_while(self.bell.lock(), most, |state| !state.rung)
            .unwrap_or_else(PoisonError::into_inner);
        state.rung
    }

    /// Whether it has rung.
    pub(crate) fn has_rung(&self) -> bool {
        self.bell.lock().rung
    }

    /// What was found while the job ran.
    pub(crate) fn found(&self) -> Vec<String> {
        std::mem::take(&mut self.bell.lock().found)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What comes now rings nobody.
        let mut state = self.bell.lock();
        state.rung = true;
        state.found = Vec::new();
        state.ask = None;
        drop(state);
        rack().free.push(self.ticket.index());
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bell {:x}", self.ticket.0)
    }
}

fn with(ticket: Ticket, what: impl FnOnce(&Bell, &mut State)) {
    let bell = rack().bells.get(ticket.index()).map(Arc::clone);
    if let Some(bell) = bell {
        let mut state = bell.lock();
        if state.ticket == ticket.0 {
            what(&bell, &mut state);
        }
    }
}

/// The job with this ticket is over.
pub(crate) fn ring(ticket: Ticket) {
    with(ticket, |bell, state| {
        state.rung = true;
        bell.rung.notify_all();
    });
}

/// How the job with this ticket learns where an item is.
pub(crate) fn ask(ticket: Ticket, ask: impl Fn(Handle) -> Option<String> + Send + Sync + 'static) {
    with(ticket, |_, state| state.ask = Some(Arc::new(ask)));
}

/// The job with this ticket has found something.
pub(crate) fn found(ticket: Ticket, item: Handle) {
    let mut asker = None;
    with(ticket, |_, state| asker = state.ask.clone().filter(|_| !state.rung));
    // Without a lock: it is VIX that is asked.
    if let Some(location) = asker.and_then(|ask| ask(item)) {
        with(ticket, |_, state| state.found.push(location));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_bell_that_rings_before_it_is_waited_for_is_heard() {
        let held = Held::take().unwrap();
        assert!(!held.has_rung());
        ring(held.ticket());
        assert!(held.wait(Duration::ZERO));
    }

    #[test]
    fn a_ring_from_another_thread_ends_the_wait() {
        let held = Held::take().unwrap();
        let ticket = held.ticket();
        let ringer = std::thread::spawn(move || ring(Ticket::from_number(ticket.number())));
        assert!(held.wait(Duration::from_secs(60)));
        ringer.join().unwrap();
    }

    #[test]
    fn late_double_and_foreign_rings_ring_nobody_else() {
        let first = Held::take().unwrap();
        let (early, index) = (first.ticket(), first.ticket().index());
        ring(early);
        ring(early);
        drop(first);
        // The same bell comes back at some time, under another number.
        let again: Vec<Held> = std::iter::repeat_with(|| Held::take().unwrap()).take(64).collect();
        let same = again.iter().find(|held| held.ticket().index() == index);
        ring(early);
        found(early, 1);
        ring(Ticket::from_number(0));
        ring(Ticket::from_number(usize::MAX));
        if let Some(same) = same {
            assert_ne!(same.ticket(), early);
            assert!(!same.has_rung());
            assert_eq!(same.found(), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_found_is_kept_until_the_end() {
        let held = Held::take().unwrap();
        found(held.ticket(), 1);
        ask(held.ticket(), |item| (item != 3).then(|| format!("item {item}")));
        (2..5).for_each(|item| found(held.ticket(), item));
        ring(held.ticket());
        found(held.ticket(), 5);
        assert_eq!(held.found(), ["item 2", "item 4"], "none before it could be asked, none after the end");
    }
}
