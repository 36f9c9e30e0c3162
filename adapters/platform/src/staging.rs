//! A platform's directory in the making, and putting it in place in one step.
//!
//! Whoever is killed leaves a `.new-XXXXXX` directory whose lock nobody holds; the next build or import sweeps it away.
//! Directories come and go only under the store's own lock, so two builds cannot trip over each other: the later one wins
//! and both are whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::definition::{DEFINITION_FILE, Definition, FileEntry};
use crate::error::PlatformError;
use crate::hash::sha256_of_file;
use crate::store::Platform;
use crate::sys;

const PREFIX: &str = ".new-";
const LOCK_FILE: &str = ".lock";

/// A directory that becomes a platform, or vanishes when dropped.
pub(crate) struct Staging {
    store: PathBuf,
    dir: TempDir,
    /// Held as long as the directory is in use; see the module's head.
    lock: Option<File>,
}

impl Staging {
    /// Makes the store if need be, and a fresh directory in it.
    pub(crate) fn new(store: &Path) -> Result<Self, PlatformError> {
        fs::create_dir_all(store).map_err(PlatformError::io("make the directory", store))?;
        let _store_lock = lock_store(store)?;
        sweep(store)?;
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(store)
            .map_err(PlatformError::io("make a directory in", store))?;
        let lock = open_lock(&dir.path().join(LOCK_FILE))?;
        lock.lock().map_err(PlatformError::io("lock", dir.path()))?;
        Ok(Self { store: store.to_owned(), dir, lock: Some(lock) })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a file in, on disk when this returns.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PlatformError> {
        let path = self.path().join(name);
        let mut file = File::create(&path).map_err(PlatformError::io("create", &path))?;
        file.write_all(bytes).map_err(PlatformError::io("write", &path))?;
        file.sync_all().map_err(PlatformError::io("write", &path))
    }

    /// Takes a file from another platform of the store that has the same bytes, as a hard link: one image, stored once, and
    /// either platform may be deleted. False where there is none, or where links are not to be had.
    pub(crate) fn link_from_sibling(&self, file: &FileEntry) -> bool {
        let Ok(entries) = fs::read_dir(&self.store) else { return false };
        for dir in entries.flatten().map(|entry| entry.path()) {
            let Ok(sibling) = Platform::read(&dir) else { continue };
            for theirs in &sibling.definition().files.entries {
                let path = dir.join(&theirs.name);
                // Hashed, not believed: a sibling's damage must not spread.
                if theirs.sha256 == file.sha256
                    && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file())
                    && sha256_of_file(&path).is_ok_and(|found| found == file.sha256)
                    && fs::hard_link(&path, self.path().join(&file.name)).is_ok()
                {
                    return true;
                }
            }
        }
        false
    }

    /// Writes the definition and puts the directory in its place, whatever stood there.
    pub(crate) fn publish(mut self, definition: &Definition) -> Result<Platform, PlatformError> {
        let target = self.store.join(&definition.name);
        let xml = definition
            .to_xml()
            .map_err(|cause| PlatformError::Definition { path: target.join(DEFINITION_FILE), cause })?;
        self.write(DEFINITION_FILE, xml.as_bytes())?;
        sync_dir(self.path())?;

        let _store_lock = lock_store(&self.store)?;
        // Closed first: Windows moves no directory in which a file is open. Nobody sweeps it away, under the store's lock.
        self.lock = None;
        let lock_path = self.path().join(LOCK_FILE);
        fs::remove_file(&lock_path).map_err(PlatformError::io("remove", &lock_path))?;
        if fs::symlink_metadata(&target).is_ok() {
            swap(self.path(), &target)?;
            sync_dir(&self.store)?;
            // What is dropped with `self` from here on is the old platform. Whoever runs on it keeps its open files.
        } else {
            fs::rename(self.path(), &target).map_err(PlatformError::io("put in place", &target))?;
            sync_dir(&self.store)?;
        }
        let platform = Platform::read(&target)?;
        // Writes the stamp too; what came out of here is then known to be good on disk, not only in memory.
        platform.verify()?;
        Ok(platform)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Whoever sweeps the store meanwhile waits: to them, a directory that nobody holds is one to remove.
        let _store_lock = self.lock.is_some().then(|| lock_store(&self.store));
        // Closed first: Windows removes no directory in which a file is open.
        self.lock = None;
        // What cannot be removed now, the next sweep removes.
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

/// Exchanges two directories.
fn swap(new: &Path, old: &Path) -> Result<(), PlatformError> {
    match sys::exchange(new, old) {
        Ok(true) => Ok(()),
        Ok(false) => swap_in_steps(new, old),
        Err(error) => Err(PlatformError::io("put in place", old)(error)),
    }
}

/// The same where the system has no exchange: for a moment there is no platform of that name.
fn swap_in_steps(new: &Path, old: &Path) -> Result<(), PlatformError> {
    let mut aside = new.as_os_str().to_owned();
    aside.push("-old");
    let aside = PathBuf::from(aside);
    fs::rename(old, &aside).map_err(PlatformError::io("move aside", old))?;
    if let Err(error) = fs::rename(new, old) {
        // Best effort back; the error that is reported is the one that matters.
        let _ = fs::rename(&aside, old);
        return Err(PlatformError::io("put in place", old)(error));
    }
    fs::rename(&aside, new).map_err(PlatformError::io("move", &aside))
}

/// Removes what killed builds left. Only under the store's lock: a directory without its own lock file is then one whose
/// maker is gone, not one that is just being made.
fn sweep(store: &Path) -> Result<(), PlatformError> {
    for entry in fs::read_dir(store).map_err(PlatformError::io("list", store))?.flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let abandoned = match OpenOptions::new().write(true).open(path.join(LOCK_FILE)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if abandoned {
            fs::remove_dir_all(&path).map_err(PlatformError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn lock_store(store: &Path) -> Result<File, PlatformError> {
    let path = store.join(LOCK_FILE);
    let file = open_lock(&path)?;
    file.lock().map_err(PlatformError::io("lock", &path))?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<File, PlatformError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(PlatformError::io("open the lock", path))
}

/// A temporary file that others may read once it has its name, as far as the umask lets them: a store can be shared.
pub(crate) fn public_temporary(prefix: &str, dir: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    sys::public(&mut builder);
    builder.tempfile_in(dir)
}

/// A rename is on disk once its directory is.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), PlatformError> {
    sys::sync_dir(dir).map_err(PlatformError::io("write", dir))
}
