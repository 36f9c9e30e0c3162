//! Deleting what is too large to be deleted in one act.

use std::io;
use std::path::Path;

use vmtask_core::FaultKind;

use crate::kit::error::io_kind;
use crate::port::PortError;
use crate::storage::{Storage, ignore_missing};
use crate::sys;
use crate::wait::Wait;

/// Deletes what is at `path`, with everything below it; links are deleted, not followed, and directories that may not be
/// written to are opened up first. What is not there is no error.
///
/// Each name goes in an act of its own, so that a fence never waits for more than one of them, and nothing goes any more
/// once the command was fenced. Whatever must stop to count before it is half gone has to be renamed or unlinked before.
///
/// # Errors
/// [`FaultKind::Unknown`] if the wait was over before everything was gone; otherwise what the system said.
pub fn remove_tree(storage: &dyn Storage, path: &Path, wait: &Wait<'_>) -> Result<(), PortError> {
    match storage.look(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, &error)),
        Ok(found) if !found.is_dir => return piece(path, wait, || storage.unlink(path)),
        Ok(_) => {}
    }
    piece(path, wait, || sys::open_up(path))?;
    for name in storage.entries(path).map_err(|error| failed(path, &error))? {
        remove_tree(storage, &path.join(name), wait)?;
    }
    piece(path, wait, || storage.remove_dir(path))
}

fn piece(path: &Path, wait: &Wait<'_>, remove: impl Fn() -> io::Result<()>) -> Result<(), PortError> {
    let stopped = |stop| PortError::new(FaultKind::Unknown, format!("removing {}: {stop}", path.display()));
    wait.tick().map_err(stopped)?;
    ignore_missing(wait.act(remove).map_err(stopped)?).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> PortError {
    PortError::new(io_kind(error), format!("removing {}: {error}", path.display()))
}
