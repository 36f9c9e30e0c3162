//! Writes that fail for want of room, and what to do about the one kind whose cause nobody sees: the limit on the size of
//! files that a shell or a batch system has set for this process (`ulimit -f`).
//!
//! Whoever writes for this crate must not be ended by SIGXFSZ, which the system sends on such a write: a program ignores
//! it or handles it, and then has the error.

use std::io;

use crate::sys;

/// Whether a write failed for want of room: a full disk, a quota, or the limit on the size of files.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The largest file that this process may write, in bytes; `None` if there is no limit.
#[must_use]
pub fn file_size_limit() -> Option<u64> {
    sys::file_size_limit()
}

/// What an operating system says of a write that would make a file too large, in the words that a child process passes on.
const TOO_LARGE: &str = "File too large";

/// A message about a write that failed, with the limit on the size of files named if that is why.
#[must_use]
pub fn naming_the_limit(message: String) -> String {
    match file_size_limit() {
        Some(limit) if message.contains(TOO_LARGE) => {
            format!("{message}; no file may be larger than {limit} bytes here: raise the limit (`ulimit -f unlimited`)")
        }
        _ => message,
    }
}

/// The error of a write, of the same kind, with the limit on the size of files named if that is why.
pub(crate) fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge => io::Error::new(error.kind(), naming_the_limit(error.to_string())),
        _ => error,
    }
}
