//! Storage and journals that fail when they are told to.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vmtask_core::Record;

use crate::journal::{JournalError, RecordStore};
use crate::storage::{Access, Look, Storage, StorageFile};

/// Storage whose changing operations fail from some point on, as on a disk that is full or was taken away. A write that
/// fails has written the first half. And storage of which a part cannot be used at all, whoever the user is.
#[derive(Clone, Debug)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    done: usize,
    fail_from: Option<usize>,
    /// What cannot be used, and the system's number for why.
    barred: Option<(PathBuf, i32)>,
}

impl FaultyStorage {
    /// Storage that does what `inner` does, for now.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Lets the next `more` operations succeed and all after them fail.
    pub fn fail_after(&self, more: usize) {
        self.with(|state| state.fail_from = Some(state.done + more));
    }

    /// Lets every operation fail, looking and reading too, on what is at `path` or below it, with this number of the
    /// operating system: no permission, an I/O error, no descriptor left.
    pub fn bar(&self, path: &Path, os_error: i32) {
        self.with(|state| state.barred = Some((path.to_owned(), os_error)));
    }

    /// Lets operations succeed again.
    pub fn heal(&self) {
        self.with(|state| (state.fail_from, state.barred) = (None, None));
    }

    /// How many operations have been asked for.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.with(|state| state.done)
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn may(&self, path: &Path) -> io::Result<()> {
        let barred = |state: &mut State| state.barred.as_ref().filter(|(at, _)| path.starts_with(at)).map(|at| at.1);
        self.with(barred).map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))
    }

    fn step(&self, path: &Path) -> io::Result<()> {
        self.may(path)?;
        let fails = self.with(|state| {
            let fails = state.fail_from.is_some_and(|from| state.done >= from);
            state.done += 1;
            fails
        });
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Storage for FaultyStorage {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.step(path)?;
        Ok(Box::new(FaultyFile { inner: self.inner.create(path)?, path: path.to_owned(), storage: self.clone() }))
    }

    fn create_dir(&self, path: &Path, access: Access) -> io::Result<()> {
        self.step(path)?;
        self.inner.create_dir(path, access)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.may(path)?;
        self.inner.read(path)
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.may(dir)?;
        self.inner.entries(dir)
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        self.may(path)?;
        self.inner.look(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may(from)?;
        self.step(to)?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step(path)?;
        self.inner.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(path)?;
        self.inner.remove_dir(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step(path)?;
        self.inner.sync_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(dir)?;
        self.inner.sync_dir(dir)
    }
}

struct FaultyFile {
    inner: Box<dyn StorageFile>,
    path: PathBuf,
    storage: FaultyStorage,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.storage.step(&self.path) {
            self.inner.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl StorageFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.storage.step(&self.path)?;
        self.inner.sync()
    }
}

/// A journal in memory. Its clones are the same journal.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<Vec<Record>>>,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written, oldest first. Records that were replaced before they were written are not in it.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RecordStore for MemoryStore {
    fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(*record);
        Ok(())
    }
}
