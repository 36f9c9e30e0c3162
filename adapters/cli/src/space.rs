//! Whether there is room for a task before it is started: to find out hours later would be unkind.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use vmtask_core::TaskSpec;

use crate::error::Error;
use crate::hypervisor::Kind;
use crate::sys;

/// Room for journal, log, and what else is small.
const SMALL: u64 = 16 << 20;

/// Checks that one checkpoint, the largest that there can be, and the disk fit where the task's directory is or will be.
/// More may be needed for all that are kept: running short of that only means that a checkpoint is skipped.
///
/// # Errors
/// If they do not, or if files may not be as large. What cannot be told is no error.
pub(crate) fn check(dir: &Path, spec: &TaskSpec, kind: &Kind) -> Result<(), Error> {
    check_file_size(spec, kind)?;
    let Some(memory) = spec.limits.memory.or(kind.memory()) else { return Ok(()) };
    let checkpoint = if spec.checkpoint.is_some() { memory } else { 0 };
    let needed = checkpoint + spec.limits.disk.unwrap_or(0) + SMALL;
    match nearest(dir).and_then(|there| sys::free(&there)) {
        Some(free) if free < needed => {
            Err(Error::Space { dir: dir.to_owned(), needed: ByteSize(needed), free: ByteSize(free) })
        }
        _ => Ok(()),
    }
}

/// Checks that files may be as large as QEMU's largest: the guest's memory is one, in the kernel's memory, and a disk grows
/// to its size. VMware's products write their own.
fn check_file_size(spec: &TaskSpec, kind: &Kind) -> Result<(), Error> {
    let Some(memory) = kind.memory().filter(|_| kind.name() == "qemu") else { return Ok(()) };
    let needed = memory.max(spec.limits.disk.unwrap_or(0));
    match vmtask_driver::file_size_limit() {
        Some(limit) if limit < needed => Err(Error::FileSize { limit: ByteSize(limit), needed: ByteSize(needed) }),
        _ => Ok(()),
    }
}

/// The directory, or what is there of the way to it.
fn nearest(dir: &Path) -> Option<PathBuf> {
    std::path::absolute(dir).ok()?.ancestors().find(|path| path.is_dir()).map(Path::to_owned)
}
