//! Requests to a running driver, from any thread.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use thiserror::Error;
use vmtask_core::{Accepted, Denied, Request};

use crate::clock::{Letter, Message};

/// A way to the driver's loop. Clone it as often as you like.
#[derive(Clone, Debug)]
pub struct Handle {
    outbox: Sender<Letter>,
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The machine said no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no driver any more.
    #[error("the task is over")]
    Over,
}

impl Handle {
    pub(crate) const fn new(outbox: Sender<Letter>) -> Self {
        Self { outbox }
    }

    /// Makes a request and waits for the verdict, which comes at once, whatever the hypervisor does. What follows from it
    /// is told to the observer.
    ///
    /// Waits for the driver to be run if it is not yet. Not to be called from the observer.
    ///
    /// # Errors
    /// If it is denied, or the task is over.
    pub fn request(&self, request: Request) -> Result<Accepted, RequestError> {
        let (verdict, answer) = channel();
        self.send(request, Some(verdict))?;
        Ok(answer.recv().map_err(|_| RequestError::Over)??)
    }

    /// Makes a request and waits for nothing; whether there still is a driver.
    pub fn post(&self, request: Request) -> bool {
        self.send(request, None).is_ok()
    }

    /// Holds the guest.
    ///
    /// # Errors
    /// As [`Handle::request`]; so for all of these.
    pub fn suspend(&self) -> Result<Accepted, RequestError> {
        self.request(Request::Suspend)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// As [`Handle::request`].
    pub fn resume(&self) -> Result<Accepted, RequestError> {
        self.request(Request::Resume)
    }

    /// Takes a checkpoint now.
    ///
    /// # Errors
    /// As [`Handle::request`].
    pub fn checkpoint(&self) -> Result<Accepted, RequestError> {
        self.request(Request::Checkpoint)
    }

    /// Saves what can be saved within `budget` (at most 49 days) and ends, resumable. No budget: powers off now.
    ///
    /// # Errors
    /// As [`Handle::request`].
    pub fn quit(&self, budget: Duration) -> Result<Accepted, RequestError> {
        let budget_ms = u32::try_from(budget.as_millis()).unwrap_or(u32::MAX);
        self.request(Request::Quit { budget_ms })
    }

    /// Ends and throws everything away.
    ///
    /// # Errors
    /// As [`Handle::request`].
    pub fn abort(&self) -> Result<Accepted, RequestError> {
        self.request(Request::Abort)
    }

    fn send(&self, request: Request, verdict: Option<Sender<Result<Accepted, Denied>>>) -> Result<(), RequestError> {
        self.outbox.send(Letter(Message::Request { request, verdict })).map_err(|_| RequestError::Over)
    }
}
