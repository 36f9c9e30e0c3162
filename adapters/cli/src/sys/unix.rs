//! On Unix: signals, `access` and `statvfs`.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};

use super::Wish;

/// Signals, from when it is made.
pub(crate) struct Wishes(Signals);

/// Ends the wait for the next wish.
pub(crate) struct Closer(Handle);

impl Wishes {
    /// From now on the signals no longer do what they usually do.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Signals::new([SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT]).map(Self)
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer(self.0.handle())
    }

    /// The next one; none once it is closed.
    pub(crate) fn next(&mut self) -> Option<Wish> {
        self.0.forever().next().map(|signal| match signal {
            SIGTSTP => Wish::Hold,
            SIGCONT => Wish::GoOn,
            _ => Wish::Quit,
        })
    }
}

impl Closer {
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Stops this process until SIGCONT. The VM's own process is in a group of its own and stays.
pub(crate) fn stop_this_process() {
    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
}

pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Whether we may install packages without being anyone else.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How many bytes we may still write there.
pub(crate) fn free(dir: &Path) -> Option<u64> {
    let there = rustix::fs::statvfs(dir).ok()?;
    there.f_bavail.checked_mul(there.f_frsize)
}
