//! Time and letters: what the driver's loop waits for, so that a test can own both.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use vmtask_core::{Accepted, Boot, CommandId, Denied, Event, Instant, JournalSeq, Reply, Request};

use crate::journal::JournalError;
use crate::port::{Fenced, PortError};

/// Tells the time and waits.
pub trait Clock: Send {
    /// Milliseconds since some point of its own; never goes back.
    fn now(&self) -> Instant;

    /// Waits for the next letter, until `until` at most (for ever, if there is none). May come back early with nothing.
    ///
    /// `busy` says of whom a letter is sure to come, unless they hang. When it is nobody, a clock for tests can go to
    /// `until` at once.
    fn wait(&self, inbox: &Inbox, until: Option<Instant>, busy: Busy) -> Option<Letter>;

    /// Called once, before the first wait, with something that makes a wait come back early.
    fn attach(&mut self, wake: Waker) {
        let _ = wake;
    }
}

/// Of whom a letter is sure to come, unless they hang.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// The hypervisor's: a command or a fence is under way.
    pub crew: bool,
    /// The journal's: a record is not durable yet.
    pub journal: bool,
}

/// The computer's own clock, from zero at its making.
#[derive(Clone, Copy, Debug)]
pub struct RealClock(std::time::Instant);

impl RealClock {
    /// A clock that shows zero now.
    #[must_use]
    pub fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn wait(&self, inbox: &Inbox, until: Option<Instant>, _busy: Busy) -> Option<Letter> {
        match until {
            None => inbox.next(),
            Some(until) => {
                // Rounded up: to come back just before would only mean to wait again.
                let millis = until.as_millis().saturating_sub(self.now().as_millis());
                inbox.next_within(Duration::from_millis(millis.saturating_add(1)))
            }
        }
    }
}

/// Where letters for the loop arrive.
#[derive(Debug)]
pub struct Inbox(Receiver<Letter>);

/// Something for the loop. Only the loop opens it.
#[derive(Debug)]
pub struct Letter(pub(crate) Message);

#[derive(Debug)]
pub(crate) enum Message {
    Request {
        request: Request,
        verdict: Option<Sender<Result<Accepted, Denied>>>,
    },
    Completed {
        worker: u32,
        id: CommandId,
        result: Result<Reply, PortError>,
    },
    Fenced {
        id: CommandId,
        result: Result<Fenced, PortError>,
    },
    Observed {
        boot: Boot,
        event: Event,
    },
    Durable(JournalSeq),
    JournalTrouble(JournalError),
    /// Nothing: look at the clock.
    Wake,
}

/// Makes the loop look at its clock.
#[derive(Clone, Debug)]
pub struct Waker(Sender<Letter>);

impl Waker {
    pub(crate) const fn new(outbox: Sender<Letter>) -> Self {
        Self(outbox)
    }

    /// Does so, if there still is a loop.
    pub fn wake(&self) {
        let _ = self.0.send(Letter(Message::Wake));
    }
}

impl Inbox {
    pub(crate) fn new() -> (Sender<Letter>, Self) {
        let (outbox, inbox) = channel();
        (outbox, Self(inbox))
    }

    /// The next letter, if one is there.
    #[must_use]
    pub fn try_next(&self) -> Option<Letter> {
        self.0.try_recv().ok()
    }

    /// The next letter, however long it takes.
    #[must_use]
    pub fn next(&self) -> Option<Letter> {
        self.0.recv().ok()
    }

    /// The next letter, unless it takes longer than `patience`.
    #[must_use]
    pub fn next_within(&self, patience: Duration) -> Option<Letter> {
        self.0.recv_timeout(patience).ok()
    }
}
