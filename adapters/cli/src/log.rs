//! The log in the task's directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use vmtask_driver::naming_the_limit;

use crate::error::Error;
use crate::out;

/// The file, which says on standard error when it cannot be written any more: once, and again only if it could meanwhile.
struct Log {
    file: File,
    path: PathBuf,
    failed: bool,
}

impl Log {
    fn told<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        if let (Err(error), false) = (&done, self.failed) {
            let path = self.path.display();
            out::note(naming_the_limit(format!(
                "vmtask: the log {path} cannot be written, and lines are missing: {error}"
            )));
        }
        self.failed = done.is_err();
        done
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.file.write(bytes);
        self.told(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.file.flush();
        self.told(done)
    }
}

/// Checks a filter before anything is done.
///
/// # Errors
/// If it is none.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(text).map_err(|error| Error::Filter { filter: text.into(), why: error.to_string() })
}

/// Logs to the end of `file` from now on.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn start(filter: EnvFilter, file: &Path) -> Result<(), Error> {
    let log = File::options().append(true).create(true).open(file).map_err(Error::io("open the log", file))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Mutex::new(Log { file: log, path: file.to_owned(), failed: false }))
        // Said by the log itself, once.
        .log_internal_errors(false)
        .try_init();
    log.map_err(|error| Error::Setup(format!("there is a log already: {error}")))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "vmtask begins");
    Ok(())
}
