//! On Unix: signals, `access` and `statvfs`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Access, access};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGXCPU, SIGXFSZ};
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
        Signals::new([SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGTSTP, SIGCONT]).map(Self)
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer(self.0.handle())
    }

    /// The next one; none once it is closed.
    pub(crate) fn next(&mut self) -> Option<Wish> {
        self.0.forever().next().map(|signal| match signal {
            SIGTSTP => Wish::Hold,
            SIGCONT => Wish::GoOn,
            SIGXCPU => Wish::QuitSoon,
            _ => Wish::Quit,
        })
    }
}

impl Closer {
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// From now on a write that would make a file larger than this process may (`ulimit -f`) is an error, as every other
/// write that fails, instead of this process's end by SIGXFSZ. A handler and not "ignore", which programs that we start
/// would inherit; the QEMU adapter decides that for QEMU.
///
/// # Errors
/// If the operating system refuses.
pub(crate) fn survive_size_limit() -> io::Result<()> {
    // Nobody asks whether it came: the write says so.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
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
