//! What went wrong, as VIX says it and as people say it.

use std::fmt;
use std::io;
use std::path::Path;

use vmtask_vix_abi::{Error, error_code};

/// A `VixError` with its story.
///
/// The client gets the number; the text is the job's
/// [`JOB_RESULT_EXTRA_ERROR_INFO`](vmtask_vix_abi::property::JOB_RESULT_EXTRA_ERROR_INFO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Never 0.
    pub error: Error,
    /// What was attempted, on what, what came back. Never a password.
    pub text: String,
}

impl Failure {
    /// A failure on the host.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self { error: Error::from(code), text: text.into() }
    }

    /// A failure that the guest reports.
    pub fn in_guest(code: u16, text: impl Into<String>) -> Self {
        Self { error: error_code::with_parts(code, error_code::FLAG_GUEST, 0, 0), text: text.into() }
    }

    /// The code alone, without flags and extra error.
    #[must_use]
    pub fn code(&self) -> u16 {
        error_code::of(self.error)
    }

    /// The host's file system refused.
    pub fn host_io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::from_io(0, what, &path.display().to_string(), error)
    }

    /// The guest's file system refused.
    pub fn guest_io(what: &str, path: &str, error: &io::Error) -> Self {
        Self::from_io(error_code::FLAG_GUEST, what, path, error)
    }

    fn from_io(flags: u8, what: &str, path: &str, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => error_code::FILE_NOT_FOUND,
            io::ErrorKind::PermissionDenied => error_code::FILE_ACCESS_ERROR,
            io::ErrorKind::AlreadyExists => error_code::FILE_ALREADY_EXISTS,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error_code::DISK_FULL,
            io::ErrorKind::IsADirectory => error_code::NOT_A_FILE,
            io::ErrorKind::NotADirectory => error_code::NOT_A_DIRECTORY,
            io::ErrorKind::ReadOnlyFilesystem => error_code::FILE_READ_ONLY,
            io::ErrorKind::FileTooLarge => error_code::FILE_TOO_BIG,
            io::ErrorKind::InvalidFilename => error_code::FILE_NAME_INVALID,
            _ => error_code::FILE_ERROR,
        };
        let (kind, extra) = match error.raw_os_error() {
            Some(number) if cfg!(windows) => (error_code::EXTRA_WINDOWS, number as u32),
            Some(number) => (error_code::EXTRA_LINUX, number as u32),
            None => (0, 0),
        };
        Self { error: error_code::with_parts(code, flags, kind, extra), text: format!("{what} {path}: {error}") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = error_code::name(self.code()).unwrap_or("unknown error");
        write!(f, "{} ({name}, {})", self.text, self.code())
    }
}

impl std::error::Error for Failure {}
