//! A clock that goes when it is told to, or when nothing else can happen.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vmtask_core::{Instant, Span};

use crate::clock::{Busy, Clock, Inbox, Letter, Waker};

/// A clock set by hand. Its clones show the same time.
///
/// While the driver is busy (a command, a fence or a record is under way), time stands still unless the test moves it: a
/// worker that hangs runs into its deadline when the test says so. While it is not, nothing can happen before its next
/// timer, so time goes there at once.
#[derive(Debug, Default)]
pub struct ManualClock {
    shared: Arc<Shared>,
    /// Held by the loop's own.
    attached: Option<Attached>,
}

/// Says so when the loop has let go of its clock.
#[derive(Debug)]
struct Attached(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    now: Instant,
    waker: Option<Waker>,
    /// What the loop waits for, while it waits.
    waits: Option<Option<Instant>>,
    over: bool,
    journal_is_stuck: bool,
}

impl ManualClock {
    /// A clock that shows zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time on, whatever the loop does.
    pub fn advance(&self, by: Span) {
        let mut state = self.lock();
        state.now = state.now + by;
        state.waits = None;
        if let Some(waker) = &state.waker {
            waker.wake();
        }
    }

    /// Waits until the loop waits for a timer, and moves the time there. `false` once the loop has ended.
    #[must_use = "false: there is no loop any more"]
    pub fn advance_to_timer(&self) -> bool {
        let no_timer = |state: &mut State| state.waits.flatten().is_none() && !state.over;
        let mut state = self.shared.changed.wait_while(self.lock(), no_timer).unwrap_or_else(PoisonError::into_inner);
        let Some(until) = state.waits.take().flatten() else { return false };
        state.now = state.now.max(until);
        if let Some(waker) = &state.waker {
            waker.wake();
        }
        true
    }

    /// From now on time does not wait for the journal.
    pub fn journal_is_stuck(&self) {
        let mut state = self.lock();
        state.journal_is_stuck = true;
        if let Some(waker) = &state.waker {
            waker.wake();
        }
    }

    /// Waits until the loop has nothing to do but wait, and what it has said has been heard.
    pub fn settle(&self) {
        let works = |state: &mut State| state.waits.is_none() && !state.over;
        drop(self.shared.changed.wait_while(self.lock(), works));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Clone for ManualClock {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), attached: None }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn wait(&self, inbox: &Inbox, until: Option<Instant>, busy: Busy) -> Option<Letter> {
        if let Some(letter) = inbox.try_next() {
            return Some(letter);
        }
        {
            let mut state = self.lock();
            if until.is_some_and(|until| until <= state.now) {
                return None;
            }
            let busy = busy.crew || (busy.journal && !state.journal_is_stuck);
            if let (Some(until), false) = (until, busy) {
                state.now = until;
                return None;
            }
            state.waits = Some(until);
            self.shared.changed.notify_all();
        }
        let letter = inbox.next();
        self.lock().waits = None;
        letter
    }

    fn attach(&mut self, wake: Waker) {
        self.lock().waker = Some(wake);
        self.attached = Some(Attached(Arc::clone(&self.shared)));
    }
}
