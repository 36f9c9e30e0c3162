//! How a run ended, in numbers and in words.

use std::fmt;

use vmtask_core::{
    Base, Cause, ExitStatus, FaultKind, FileIx, Generation, Leftover, Notice, Op, Outcome, Record, Substitute, Unfit,
};

use crate::port::PortError;
use crate::signal;

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
    /// The outputs that were not collected, in the order in which that was found out.
    pub missing: Vec<Missing>,
    /// The checkpoints that are no longer gone by, in the order in which they were dropped: every one.
    pub dropped: Vec<Dropped>,
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

/// An output that was not collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which of the task's outputs.
    pub file: FileIx,
    /// What the hypervisor said.
    pub why: String,
}

/// A checkpoint that is no longer gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dropped {
    /// Which.
    pub generation: Generation,
    /// What is wrong with it.
    pub why: Unfit,
}

impl Ended {
    /// The end that a record tells of, when nothing else is known of the run.
    #[must_use]
    pub fn of_record(outcome: Outcome, record: Record) -> Self {
        Self {
            outcome,
            leftover: record.leftover,
            record,
            journal_error: None,
            errors: Vec::new(),
            missing: Vec::new(),
            dropped: Vec::new(),
            notices: Vec::new(),
            substitutes: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// What became of the task, for people: the outcome; if it failed, what the hypervisor said about that, and the way
    /// out; what is left behind.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = match self.outcome {
            Outcome::Completed { exit: ExitStatus::Signal(number) } => {
                format!("the program crashed: {}", signal::told(number))
            }
            outcome => outcome.to_string(),
        };
        if let Some(error) = self.explanation() {
            text = format!("{text}: {}", error.error);
        }
        if let Some(error) = &self.journal_error {
            text = format!("{text}: {error}; mend that and run the task again");
        }
        if let Some(way_out) = self.way_out() {
            text = format!("{text}; {way_out}");
        }
        match (self.outcome, self.record.exit) {
            (Outcome::Failed { .. }, Some(ExitStatus::Signal(number))) => {
                text = format!("{text}; the program itself had ended: {}", signal::told(number));
            }
            (Outcome::Failed { .. }, Some(exit)) => text = format!("{text}; the program itself had ended: {exit}"),
            (Outcome::Completed { .. }, _) if !self.missing.is_empty() => {
                let said: Vec<_> = self.missing.iter().map(|missing| missing.why.as_str()).collect();
                text = format!("{text}; {}", said.join("; "));
            }
            _ => {}
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

    /// What to do about a failure, where that follows from its cause.
    fn way_out(&self) -> Option<String> {
        const START_OVER: &str = "--start-over";
        let Outcome::Failed { cause } = self.outcome else { return None };
        match cause {
            Cause::RunLimit => {
                let goes_on = match self.record.generations.newest() {
                    Some(generation) => format!("goes on from checkpoint {generation}"),
                    None => "starts over".to_owned(),
                };
                Some(format!("raise limits.run and run the task again: it {goes_on}"))
            }
            Cause::Op { op: Op::Provision(Base::Checkpoint(generation)), fault } => {
                // An adapter that knows what has to be installed or mended says both ways out itself.
                if self.explanation().is_some_and(|said| said.error.message.contains(START_OVER)) {
                    return None;
                }
                let mend = match fault.kind {
                    FaultKind::Incompatible => "install what it was made with",
                    _ => "mend the cause",
                };
                Some(format!(
                    "checkpoint {generation} is kept: {mend} and run the task again, or begin anew with `vmtask run \
                     {START_OVER}`"
                ))
            }
            _ => None,
        }
    }
}
