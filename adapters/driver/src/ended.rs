//! How a run ended, in numbers and in words.

use std::fmt;

use vmtask_core::{Cause, Leftover, Notice, Op, Outcome, Record, Substitute};

use crate::port::PortError;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// In a word.
    pub outcome: Outcome,
    /// What could not be cleaned up.
    pub leftover: Option<Leftover>,
    /// The last record. It is durable, unless there is a [`journal_error`](Self::journal_error).
    pub record: Record,
    /// Why the last record is not durable, if it is not: the task goes on from an earlier one.
    pub journal_error: Option<String>,
    /// What the hypervisor said when something went wrong: the newest of each operation, newest last.
    pub errors: Vec<OpError>,
    /// What went differently than it should; the first [`Driver::MAX_NOTICES`](crate::Driver::MAX_NOTICES).
    pub notices: Vec<Notice>,
    /// What was done instead of what the hypervisor lacks.
    pub substitutes: Vec<Substitute>,
    /// What happened under this manager.
    pub counters: Counters,
}

/// What happened under one manager. What all managers together did is in the [`Record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Checkpoints made.
    pub checkpoints: u32,
    /// How often the guest was lost.
    pub losses: u32,
    /// How long the manager worked, in milliseconds.
    pub manager_ms: u64,
}

/// What the hypervisor said about an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// The operation; `None` if it was none.
    pub op: Option<Op>,
    /// What it said.
    pub error: PortError,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op {
            Some(op) => write!(f, "{op}: {}", self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

impl Ended {
    /// What became of the task, for people: the outcome; if it failed, what the hypervisor said about that; what is left
    /// behind.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = self.outcome.to_string();
        if let Some(error) = self.explanation() {
            text = format!("{text}: {}", error.error);
        }
        if let Some(error) = &self.journal_error {
            text = format!("{text}: {error}; mend that and run the task again");
        }
        if let (Outcome::Failed { .. }, Some(exit)) = (self.outcome, self.record.exit) {
            text = format!("{text}; the program itself had ended: {exit}");
        }
        if let Some(leftover) = self.leftover {
            text = format!("{text}; {leftover}");
        }
        text
    }

    /// What the hypervisor said about what the task failed of.
    #[must_use]
    pub fn explanation(&self) -> Option<&OpError> {
        let Outcome::Failed { cause } = self.outcome else { return None };
        match cause {
            Cause::Op { op, fault } => {
                self.errors.iter().find(|said| said.op == Some(op) && said.error.fault.kind == fault.kind)
            }
            // The last thing that went wrong before it was lost for the last time.
            Cause::Guest { .. } | Cause::Fence { .. } | Cause::Outputs { .. } => self.errors.last(),
            Cause::RunLimit | Cause::Journal => None,
        }
    }
}
