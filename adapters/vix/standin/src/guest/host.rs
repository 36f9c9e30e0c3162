//! Processes of the host that play a guest: started so that they outlive their client, found again by the directory
//! that they live in.
//!
//! A number in a file is not enough to find a process again: the directory may be a copy of another VM's, and numbers are
//! used again. So what counts is what the kernel says of a process: that its root (or its working directory) IS the VM's
//! directory. A recorded number only saves the search.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use vmtask_qemu::process::ProcessName;

use super::Result;
use crate::failure::Failure;

/// How long the kernel may take to end a process that was killed.
const DEATH: Duration = Duration::from_secs(20);

/// Children of this client that it does not wait for: asked for now and then, so that they do not stay zombies.
static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Takes charge of a child that nobody will wait for.
pub(super) fn adopt(child: Child) {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    children.push(child);
    reap_all(&mut children);
}

/// Buries the children that have ended.
pub(super) fn reap() {
    reap_all(&mut CHILDREN.lock().unwrap_or_else(PoisonError::into_inner));
}

fn reap_all(children: &mut Vec<Child>) {
    // An error says that there is nothing to wait for any more.
    children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// What ties a process to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// The directory is its root.
    Root,
    /// The directory is where it works, and it is a QEMU: somebody's shell may be there too.
    Qemu,
}

impl Tie {
    /// What a process is tied to.
    fn place(self, pid: u32) -> Option<(u64, u64)> {
        match self {
            Self::Root => identity(Path::new(&format!("/proc/{pid}/root"))),
            Self::Qemu => {
                let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
                let is_qemu = program.file_name()?.to_string_lossy().starts_with("qemu-system-");
                is_qemu.then(|| identity(Path::new(&format!("/proc/{pid}/cwd"))))?
            }
        }
    }
}

/// The identity of a directory.
pub(super) fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether a process is alive and lives in a directory.
pub(super) fn lives_in(process: ProcessName, tie: Tie, dir: &Path) -> bool {
    let there = tie.place(process.pid);
    there.is_some() && there == identity(dir) && process.is_alive()
}

/// Every process that lives in a directory.
pub(super) fn all_in(tie: Tie, dir: &Path) -> Vec<ProcessName> {
    let Some(wanted) = identity(dir) else { return Vec::new() };
    let lives = |pid: &u32| tie.place(*pid) == Some(wanted);
    pids().into_iter().filter(lives).filter_map(|pid| ProcessName::of(pid).ok()).filter(|p| p.is_alive()).collect()
}

/// The numbers of all processes.
pub(super) fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Kills every process that lives in a directory, and waits until all are gone.
///
/// # Errors
/// If one does not go.
pub(super) fn end_all_in(tie: Tie, dir: &Path) -> Result<()> {
    // More than once, for one that is being killed may start another.
    for _ in 0..100 {
        let found = all_in(tie, dir);
        if found.is_empty() {
            break;
        }
        for process in found {
            process.kill(DEATH).map_err(|e| Failure::host_io("cannot end a process that lives in", dir, &e))?;
        }
    }
    reap();
    Ok(())
}
