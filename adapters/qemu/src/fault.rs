//! From what went wrong here to what the machine may do next.
//!
//! The core trusts three promises: *refused* and *no space* did nothing, *unknown* may have acted, *fatal* will not
//! succeed however often it is tried.

use std::io;

use vmtask_core::FaultKind;
use vmtask_driver::{PortError, is_no_space, naming_the_limit};

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
        if is_no_space(self) { FaultKind::NoSpace } else { FaultKind::Refused }
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

/// `map_err(during("..."))`
pub(crate) fn during<E: Fault>(what: impl AsRef<str>) -> impl FnOnce(E) -> PortError {
    move |error| error.during(what.as_ref())
}
