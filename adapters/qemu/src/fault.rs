//! From what went wrong here to what the machine may do next.
//!
//! The core trusts three promises: *refused* and *no space* did nothing, *unknown* may have acted, *fatal* will not
//! succeed however often it is tried.

use std::io;
use std::process::ExitStatus;

use vmtask_core::FaultKind;
use vmtask_driver::kit::{self, CheckpointError};
use vmtask_driver::{PortError, naming_the_limit};

use crate::agent::AgentError;
use crate::disk::DiskError;
use crate::guest::{self, GuestError};
use crate::instance::InstanceError;
use crate::qmp::QmpError;
use crate::stream::StreamError;
use crate::template::TemplateError;
use crate::wait::Stop;

/// What a fault of this kind means for the core.
pub(crate) trait Fault: std::fmt::Display {
    fn kind(&self) -> FaultKind;

    /// With what was attempted before it.
    fn during(&self, what: &str) -> PortError {
        PortError::new(self.kind(), naming_the_limit(format!("{what}: {self}")))
    }
}

impl Fault for Stop {
    fn kind(&self) -> FaultKind {
        FaultKind::Unknown
    }
}

impl Fault for io::Error {
    fn kind(&self) -> FaultKind {
        kit::io_kind(self)
    }
}

impl Fault for CheckpointError {
    fn kind(&self) -> FaultKind {
        Self::kind(self)
    }
}

impl Fault for QmpError {
    fn kind(&self) -> FaultKind {
        if self.did_nothing() { FaultKind::Refused } else { FaultKind::Unknown }
    }
}

impl Fault for InstanceError {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Qmp(error) => error.kind(),
            Self::Sockets { source, .. } => Fault::kind(source),
            Self::Spawn(_) | Self::Incoming(_) => FaultKind::Refused,
            // Whatever was asked of it, it may have done before.
            Self::Died { .. } => FaultKind::Unknown,
        }
    }
}

impl Fault for AgentError {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Refused { .. } => FaultKind::Refused,
            Self::Silent { .. } | Self::Cut { .. } | Self::Forgot { .. } => FaultKind::Unknown,
        }
    }
}

impl Fault for GuestError {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Agent(error) => error.kind(),
            Self::Failed { code: Some(guest::NO_SPACE), .. } => FaultKind::NoSpace,
            // The script's other refusals are about what it was given: that does not change by asking again.
            Self::Failed { code: Some(_), .. } | Self::Nonsense { .. } => FaultKind::Fatal,
            Self::Failed { code: None, .. } => FaultKind::Unknown,
        }
    }
}

impl Fault for StreamError {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Host { source, .. } => Fault::kind(source),
            Self::Guest(error) => error.kind(),
            Self::TooLarge { .. } => FaultKind::Fatal,
            Self::Hash | Self::Broken(_) | Self::Stop(_) => FaultKind::Unknown,
        }
    }
}

impl Fault for DiskError {
    fn kind(&self) -> FaultKind {
        match self {
            _ if self.is_no_space() => FaultKind::NoSpace,
            Self::NoImg => FaultKind::Unsupported,
            _ => FaultKind::Refused,
        }
    }
}

impl Fault for TemplateError {
    fn kind(&self) -> FaultKind {
        match self {
            _ if self.is_no_space() => FaultKind::NoSpace,
            Self::Guest { source, .. } => source.kind(),
            Self::Qemu(error) => error.kind(),
            Self::Disk(error) => error.kind(),
            Self::Stop(_) => FaultKind::Unknown,
            Self::Cache { .. } | Self::Ram { .. } | Self::Damaged { .. } => FaultKind::Refused,
        }
    }
}

/// What it means that a stream, whose files are what was written, was not loaded. `ended` is how QEMU ended, if it has.
///
/// Only QEMU's own word on the stream counts as its refusal: one that was killed (by whoever needed its memory) or that
/// lacked something of the host's says nothing about the checkpoint.
pub(crate) fn of_loading(error: &InstanceError, ended: Option<ExitStatus>) -> FaultKind {
    /// The system's words for what a host lacks, as QEMU passes them on.
    const HOST: [&str; 12] = [
        "Cannot allocate memory",
        "cannot set up guest memory",
        "Too many open files",
        "Resource temporarily unavailable",
        "Input/output error",
        "Permission denied",
        "No space left",
        "File too large",
        "Disk quota exceeded",
        "Read-only file system",
        "Operation not permitted",
        "Stale file handle",
    ];
    let (words, by_itself) = match error {
        InstanceError::Incoming(words) => (words, true),
        InstanceError::Died { last_words } => {
            (last_words, ended.and_then(|status| status.code()).is_some_and(|code| code != 0))
        }
        error => return error.kind(),
    };
    let of_the_host = HOST.iter().any(|lack| words.contains(lack));
    if by_itself && !of_the_host { FaultKind::Rejected } else { FaultKind::Refused }
}

/// `map_err(during("..."))`
pub(crate) fn during<E: Fault>(what: impl AsRef<str>) -> impl FnOnce(E) -> PortError {
    move |error| error.during(what.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::process::ExitStatusExt;

    /// As `wait` reports them: an exit code of 1, and two signals.
    const EXIT_1: Option<i32> = Some(1 << 8);
    const KILLED: Option<i32> = Some(9);
    const ABORTED: Option<i32> = Some(6);

    #[rstest]
    #[case::it_says_no("load of migration failed: Invalid argument", EXIT_1, FaultKind::Rejected)]
    #[case::no_memory("load of migration failed: Cannot allocate memory", EXIT_1, FaultKind::Refused)]
    #[case::no_descriptors("Could not open '1.qcow2': Too many open files", EXIT_1, FaultKind::Refused)]
    #[case::disk("load of migration failed: Input/output error", EXIT_1, FaultKind::Refused)]
    #[case::out_of_memory_killer("nothing", KILLED, FaultKind::Refused)]
    #[case::abort_for_want_of_memory("failed to allocate", ABORTED, FaultKind::Refused)]
    #[case::nobody_knows_how_it_ended("", None, FaultKind::Refused)]
    fn only_a_qemu_that_says_no_to_a_stream_has_refused_it(
        #[case] words: &str,
        #[case] ended: Option<i32>,
        #[case] expected: FaultKind,
    ) {
        let error = InstanceError::Died { last_words: words.into() };
        assert_eq!(of_loading(&error, ended.map(ExitStatus::from_raw)), expected);
    }

    #[rstest]
    #[case::it_says_no("unknown section", FaultKind::Rejected)]
    #[case::no_memory("Cannot allocate memory", FaultKind::Refused)]
    fn a_qemu_that_lives_on_refuses_in_its_answer(#[case] words: &str, #[case] expected: FaultKind) {
        assert_eq!(of_loading(&InstanceError::Incoming(words.into()), None), expected);
    }
}
