//! The registry's lock. Whatever changes an entry is given the lock by reference, so that nothing takes it twice.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{RegistryError, io_error};

/// How long the lock is waited for. It is held for one small file; whoever holds it longer hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the registry in `dir`, or gives up after `patience`.
    ///
    /// # Errors
    /// [`RegistryError::Locked`] if another process has it all that time; [`RegistryError::Io`] if it cannot be opened.
    pub(super) fn take(dir: &Path, patience: Duration) -> Result<Self, RegistryError> {
        let path = dir.join(".lock");
        let failed = |what| io_error(what, &path);
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed("open"))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                    return Err(RegistryError::Locked { path, patience });
                }
                // No operating system waits for a lock with a limit.
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            }
        }
    }
}
