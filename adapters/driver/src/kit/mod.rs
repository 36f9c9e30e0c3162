//! What adapters have in common that keep checkpoints in a task's directory.
//!
//! | what | for |
//! |---|---|
//! | [`Checkpoints`] | the store: which checkpoints there are, committing one, removing one |
//! | [`Manifest`], [`Kept`], [`Machine`] | what a checkpoint is, and what of it differs between hypervisors |
//! | [`CheckpointError`], [`Flaw`] | why one cannot be used: not there, damaged, made elsewhere, or not readable now |
//! | [`is_there`], [`prove_absent`] | telling what is not there from what could not be looked at |
//! | [`Stoppable`] | hashing something large and giving up when the command is fenced |
//! | [`Hashing`] | hashing what is being written, so that it need not be read again |
//! | [`remove_tree`] | deleting something large by leave of a command, piece by piece |
//! | [`io_kind`], [`with_ways_out`] | what an error means for the core, and what people can do about it |
//!
//! A checkpoint that cannot be used *now* is not a bad checkpoint. Only what is proven (a size, a hash or a checksum that
//! differs, a name that a listing which worked does not show) is [`FaultKind::Damaged`](vmtask_core::FaultKind::Damaged);
//! everything that only kept somebody from looking is the error that it was.

mod checkpoints;
mod digest;
mod error;
mod manifest;
mod remove;

pub use checkpoints::{Checkpoints, Listing, is_there, prove_absent};
pub use digest::{Hashing, Stoppable};
pub use error::{CheckpointError, Flaw, io_kind, with_ways_out};
pub use manifest::{Kept, Machine, Manifest};
pub use remove::remove_tree;

#[cfg(test)]
mod tests;
