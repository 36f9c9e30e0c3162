//! Files in memory: a run of a target leaves nothing behind, and costs no system call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmtask_driver::{Access, Look, Storage, StorageFile};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Storage that cannot fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Files>>);

impl Memory {
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        self.lock().insert(path.to_owned(), bytes.to_vec());
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Memory {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.put(path, b"");
        Ok(Box::new(Open { memory: self.clone(), path: path.to_owned() }))
    }

    fn create_dir(&self, _: &Path, _: Access) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let files = self.lock();
        let inside = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        let bytes = self.lock().get(path).ok_or(io::ErrorKind::NotFound)?.len() as u64;
        Ok(Look { is_dir: false, is_file: true, bytes })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.lock();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct Open {
    memory: Memory,
    path: PathBuf,
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.memory.lock().entry(self.path.clone()).or_default().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for Open {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
