//! [`Task`]: machine and plan in one place, for the embedder who has one of each.

use crate::error::{Accepted, Denied, RestoreError};
use crate::id::Generation;
use crate::input::{Input, Request};
use crate::journal::Record;
use crate::machine::{Machine, WaitsFor};
use crate::output::{Leftover, Outcome, Output};
use crate::phase::{Intent, Phase};
use crate::policy::Plan;
use crate::time::Instant;

/// A [`Machine`] with its [`Plan`]: the same methods, without the plan in each call.
#[derive(Debug, PartialEq, Eq)]
pub struct Task {
    plan: Plan,
    machine: Machine,
}

impl Task {
    /// See [`Machine::new`].
    #[must_use]
    pub fn new(plan: Plan, epoch: u64) -> Self {
        Self { plan, machine: Machine::new(epoch) }
    }

    /// See [`Machine::restore`].
    ///
    /// # Errors
    /// If the record is of a later version or contradicts itself.
    pub fn restore(record: Record, plan: Plan, epoch: u64) -> Result<Self, RestoreError> {
        let machine = Machine::restore(record, &plan, epoch)?;
        Ok(Self { plan, machine })
    }

    /// See [`Machine::handle_request`].
    ///
    /// # Errors
    /// If it cannot be met now; the task goes on as before.
    pub fn handle_request(&mut self, now: Instant, request: Request) -> Result<Accepted, Denied> {
        self.machine.handle_request(&self.plan, now, request)
    }

    /// See [`Machine::handle_input`].
    pub fn handle_input(&mut self, now: Instant, input: Input) -> Accepted {
        self.machine.handle_input(&self.plan, now, input)
    }

    /// See [`Machine::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(&self.plan, now);
    }

    /// See [`Machine::poll_output`].
    #[must_use = "an output that is dropped is a hang"]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.machine.poll_output(&self.plan)
    }

    /// See [`Machine::poll_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// See [`Machine::waits_for`].
    #[must_use]
    pub fn waits_for(&self) -> WaitsFor {
        self.machine.waits_for()
    }

    /// See [`Machine::phase`].
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.machine.phase()
    }

    /// See [`Machine::intent`].
    #[must_use]
    pub const fn intent(&self) -> Intent {
        self.machine.intent()
    }

    /// See [`Machine::outcome`].
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.machine.outcome()
    }

    /// See [`Machine::leftover`].
    #[must_use]
    pub const fn leftover(&self) -> Option<Leftover> {
        self.machine.leftover()
    }

    /// See [`Machine::newest_checkpoint`].
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<Generation> {
        self.machine.newest_checkpoint()
    }

    /// See [`Machine::record`].
    #[must_use]
    pub fn record(&self) -> Record {
        self.machine.record()
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }
}
