//! Verdicts on inputs, and why a plan or a record is not accepted.

use thiserror::Error;

/// What became of an input, or of a request that was not denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accepted {
    /// It changed something: drain the outputs.
    Applied,
    /// It changed nothing, and that is in order.
    Ignored(Ignored),
}

/// Why an input changed nothing. Late, duplicate and foreign messages are a fact of life, not errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// A request for what is so already.
    AlreadySo,
    /// A request to a task that is over, or about to be.
    Ending,
    /// An answer to a command of another manager.
    ForeignEpoch,
    /// An answer to a command that is not in flight: late or duplicate.
    NotInFlight,
    /// A fence that is not awaited: late or duplicate.
    NotFencing,
    /// An event of another boot.
    OtherBoot,
    /// An event that means nothing in this phase.
    NotNow,
    /// A record that was made durable before, or was never emitted.
    NotAwaited,
}

/// Why a request was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Denied {
    /// It needs a task that has been started.
    #[error("the task has not been started; request Start first")]
    NotStarted,
    /// The task is being stopped.
    #[error("the task is being stopped; restore it from its record to go on")]
    Stopping,
    /// The task is over.
    #[error("the task has ended")]
    Ended,
    /// The hypervisor can neither pause nor suspend.
    #[error("this hypervisor can neither pause nor suspend a virtual machine; quit instead")]
    CannotPause,
    /// The task or the hypervisor has no checkpoints.
    #[error("this task takes no checkpoints")]
    NoCheckpoints,
    /// There is nothing to save: the program is not running.
    #[error("the program is not running, so there is nothing to save")]
    NotRunning,
}

/// Why a task cannot be carried out on this hypervisor. Nothing has been touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum PlanError {
    /// Too many files.
    #[error("the task has {count} {direction} files and at most {max} are possible; pack them into an archive")]
    TooManyFiles {
        /// "input" or "output".
        direction: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// The number of generations to keep is out of range.
    #[error("checkpoint.keep is {keep}; it must be from 1 to {max}")]
    Keep {
        /// What was asked.
        keep: u8,
        /// The most that is possible.
        max: u8,
    },
    /// An interval of nothing.
    #[error("checkpoint.every is 0; give an interval, or \"off\" for none")]
    CheckpointInterval,
    /// A run limit of nothing.
    #[error("limits.run is 0; give a duration, or leave it out for none")]
    RunLimit,
    /// The hypervisor cannot give the task a disk.
    #[error(
        "the task asks for a disk (limits.disk) and this hypervisor adapter offers none; leave limits.disk out, \
             or use one that does"
    )]
    NoDisk,
    /// A policy whose loop would never see a timer fire.
    #[error(
        "the policy's clock_jump is {given}; it must be at least {}, or a loop that is late would take each delay for a computer that slept",
        crate::Policy::MIN_CLOCK_JUMP
    )]
    ClockJump {
        /// What was given.
        given: crate::Span,
    },
    /// A policy with a time in which nothing can be answered.
    #[error("the policy's {what} is {given}; it must be at least {}", crate::Policy::MIN_DEADLINE)]
    TooShort {
        /// Which time.
        what: &'static str,
        /// What was given.
        given: crate::Span,
    },
    /// A policy with an attempt count of 0.
    #[error("the policy allows no attempt for {op:?}; it needs at least one")]
    NoAttempts {
        /// Which operation.
        op: crate::OpKind,
    },
}

/// Why a record is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum RestoreError {
    /// Written by a later version.
    #[error("the record has version {found} and this program reads up to {known}; use the version that wrote it")]
    Newer {
        /// The record's version.
        found: u16,
        /// The newest that we read.
        known: u16,
    },
    /// A record that no machine can have written.
    #[error("the record contradicts itself: {what}")]
    Contradiction {
        /// In what way.
        what: &'static str,
    },
}
