//! What differs between operating systems: who we are, which files are programs, free space, and how people tell a
//! program to stop.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{Closer, Wishes, free, is_program, is_root, stop_this_process, survive_size_limit};
#[cfg(windows)]
pub(crate) use windows::{Closer, Wishes, free, is_program, is_root, stop_this_process, survive_size_limit};

/// What somebody at the terminal, or the system, wants of this process.
#[cfg_attr(windows, expect(dead_code, reason = "a Windows console knows only how to end a program"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To end.
    Quit,
    /// To end before the system ends it: said again and again, and still only once.
    QuitSoon,
    /// To hold until it is told otherwise.
    Hold,
    /// To go on.
    GoOn,
}

/// How to say it here, for `--help`.
pub(crate) const HOW: &str = if cfg!(windows) {
    "Stopping it:\n    Ctrl-C, Ctrl-Break  once: save a checkpoint and stop; twice: stop at once\n"
} else {
    "Signals:\n    SIGINT, SIGTERM  once: save a checkpoint and stop; twice: stop at once\n    \
     SIGXCPU          save a checkpoint and stop: no more processor time is allowed\n    \
     SIGTSTP          hold the virtual machine, then stop; SIGCONT: go on\n"
};
