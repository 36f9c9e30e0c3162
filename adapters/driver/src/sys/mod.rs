//! What differs between operating systems, in one place: identities of processes and of the host, locks, modes of files,
//! what makes a directory's entries durable.
//!
//! ```text
//!   linux     processes by /proc and pidfd
//!   unix      files, locks, the host's name, on Linux and elsewhere
//!   windows   the same two by the Windows API
//!   other     what is neither tells nothing of processes, so that nothing is ever killed there
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(any(target_os = "linux", windows)))]
mod other;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use linux::{identify, kill};
#[cfg(not(any(target_os = "linux", windows)))]
pub(crate) use other::{identify, kill};
#[cfg(unix)]
pub(crate) use unix::{
    create_private_dir, file_size_limit, host_name_for_binding, open_to_others, open_up, sync_dir, try_own,
};
#[cfg(windows)]
pub(crate) use windows::{
    create_private_dir, file_size_limit, host_name_for_binding, identify, kill, open_to_others, open_up, sync_dir,
    try_own,
};

/// One life of one process: its number alone is given to others once it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in the operating system's own unit (Linux: clock ticks since boot; Windows: 100 ns since 1601).
    pub started: u64,
    /// Which boot of the host that counts from, where the unit needs it.
    pub boot: String,
}

impl ProcessId {
    /// A process on an operating system that does not tell start times.
    pub(crate) const fn nameless(pid: u32) -> Self {
        Self { pid, started: 0, boot: String::new() }
    }

    /// Whether all that is known of it is its number.
    pub(crate) fn is_nameless(&self) -> bool {
        *self == Self::nameless(self.pid)
    }
}

/// What is known of a process number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// This process has it now.
    Alive(ProcessId),
    /// No process has it, or one that has ended and only waits for its parent to notice.
    Dead,
    /// This operating system does not tell us.
    Unknown,
}

/// Whose a file is that one process at a time may own.
#[derive(Debug)]
pub(crate) enum Owned {
    /// Ours, until it is closed, by whatever end of this process.
    Ours(File),
    /// Another process's.
    Theirs {
        /// What that has written into it, as far as it may be read.
        says: String,
    },
}

/// What the owner of a file has written into it: best effort, since one that has written nothing yet is as much of an
/// owner.
fn said(mut file: impl Read) -> String {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    text
}

#[cfg(test)]
mod tests;
