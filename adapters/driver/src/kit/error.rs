//! Why a checkpoint cannot be used, and what that means for the core and for people.

use std::io;
use std::path::PathBuf;

use vmtask_core::{FaultKind, Generation};

use crate::port::PortError;
use crate::room::is_no_space;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Somebody looked, and it is not there, or was never finished.
    #[error("checkpoint {0} is not there")]
    Missing(Generation),
    /// It is proven that it is not what was written.
    #[error("checkpoint {generation} is damaged: {what}")]
    Damaged {
        /// Which.
        generation: Generation,
        /// What is wrong.
        what: String,
    },
    /// It is whole, and this program on this host may not load it.
    #[error("checkpoint {generation} {what}; {way_out}, or begin anew with `vmtask run --start-over`")]
    Incompatible {
        /// Which.
        generation: Generation,
        /// What it is and what is here: "was made by X, and this is Y".
        what: String,
        /// What would have to be done so that it can be loaded: "install X".
        way_out: String,
    },
    /// It could not be looked at, which says nothing about it.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// What was looked at.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CheckpointError {
    /// What it means for the core.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Missing(_) => FaultKind::NotFound,
            Self::Damaged { .. } => FaultKind::Damaged,
            Self::Incompatible { .. } => FaultKind::Incompatible,
            Self::Unreadable { source, .. } => io_kind(source),
        }
    }

    /// With what was attempted before it.
    #[must_use]
    pub fn during(&self, what: &str) -> PortError {
        PortError::new(self.kind(), format!("{what}: {self}"))
    }
}

/// What is wrong with the state that a checkpoint's manifest speaks of.
#[derive(Debug)]
pub enum Flaw {
    /// It is proven to be something else than what was written: how it differs.
    Damaged(String),
    /// It could not be looked at.
    Unreadable {
        /// What was looked at.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What an error of the operating system means for the core: it did nothing, and a later attempt may succeed.
#[must_use]
pub fn io_kind(error: &io::Error) -> FaultKind {
    if is_no_space(error) { FaultKind::NoSpace } else { FaultKind::Refused }
}

/// The fault of a restore, or of a look at the checkpoints, with both ways out if it says nothing about a checkpoint:
/// the cause can be mended, or the task can begin anew. The other kinds tell their own.
#[must_use]
pub fn with_ways_out(mut error: PortError) -> PortError {
    match error.fault.kind {
        FaultKind::Damaged | FaultKind::Rejected | FaultKind::Incompatible | FaultKind::NotFound => {}
        _ => {
            let ways_out = "; the checkpoint is kept: mend the cause and run the task again, or begin anew with \
                            `vmtask run --start-over`";
            error.message.push_str(ways_out);
        }
    }
    error
}
