//! The log in the task's directory.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::error::Error;

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
        .with_writer(Mutex::new(log))
        // A disk that is full is told where everything is told, not beside it.
        .log_internal_errors(false)
        .try_init();
    log.map_err(|error| Error::Setup(format!("there is a log already: {error}")))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "vmtask begins");
    Ok(())
}
