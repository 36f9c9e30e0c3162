//! Beginning a task anew in its own directory: its journal, checkpoints and VM files are given up, its results stay.
//!
//! ```text
//!   starting-over <- create, flush, flush DIR     the task is the old one until here, and a new one from here on
//!   journal, journal.prev, vm/ removed            in any order: whoever opens the directory goes on with it
//!   flush DIR
//!   starting-over removed, flush DIR
//! ```
//!
//! No record is written before the mark is gone, so that what is removed is always the old task's.

use std::io;
use std::path::Path;

use crate::journal::JournalFile;
use crate::storage::{Storage, ignore_missing};
use crate::task_dir::{TaskDir, TaskDirError, io_error};

const MARK: &str = "starting-over";

impl TaskDir {
    /// Gives up the task's journal, checkpoints and VM files, so that it begins anew. What is in [`results`](Self::results)
    /// stays. The VM must be off, and no [`JournalFile`] of this directory may be written afterwards that was opened before.
    ///
    /// # Errors
    /// If something could not be removed. The task is then the old one, or whoever opens the directory next goes on with
    /// giving it up: never a mixture.
    pub fn start_over(&self, storage: &dyn Storage) -> Result<(), TaskDirError> {
        let mark = self.root().join(MARK);
        let made = storage.create(&mark).and_then(|mut file| file.sync());
        made.and_then(|()| storage.sync_dir(self.root())).map_err(io_error("write", &mark))?;
        give_up(storage, self.root())
    }
}

/// Goes on with a start-over that was cut short, if one was; whether so.
pub(crate) fn go_on(storage: &dyn Storage, root: &Path) -> Result<bool, TaskDirError> {
    let mark = root.join(MARK);
    match storage.look(&mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look at", &mark)(error)),
        Ok(_) => {
            // Its name may have been seen without being durable. What is removed below must not come before it.
            storage.sync_dir(root).map_err(io_error("flush", root))?;
            give_up(storage, root).map(|()| true)
        }
    }
}

fn give_up(storage: &dyn Storage, root: &Path) -> Result<(), TaskDirError> {
    for name in JournalFile::NAMES.into_iter().chain([TaskDir::VM]) {
        let path = root.join(name);
        remove(storage, &path).map_err(io_error("remove", &path))?;
    }
    storage.sync_dir(root).map_err(io_error("flush", root))?;
    let mark = root.join(MARK);
    ignore_missing(storage.unlink(&mark)).map_err(io_error("remove", &mark))?;
    storage.sync_dir(root).map_err(io_error("flush", root))
}

/// Removes what is there under this name, if something is. Links are not followed.
fn remove(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.look(path) {
        Err(error) => ignore_missing(Err(error)),
        Ok(look) if look.is_dir => {
            for name in storage.entries(path)? {
                remove(storage, &path.join(name))?;
            }
            ignore_missing(storage.remove_dir(path))
        }
        Ok(_) => ignore_missing(storage.unlink(path)),
    }
}
