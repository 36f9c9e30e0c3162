//! The few file operations on which durability rests, behind a trait, so that a loss of power can be rehearsed.
//!
//! Whoever writes something that must survive (the journal here, manifests and checkpoints in the hypervisor adapters)
//! goes through [`Storage`]. Real runs use [`RealStorage`]; with the feature `test-support` there is a storage that
//! records what was written and flushed, and lays out every state that a loss of power could leave behind.
//!
//! ```text
//!   create -> write -> sync      the content is durable, the name may not be
//!   rename, unlink, create_dir   happen at once for everyone who looks, but are durable only after
//!   sync_dir(parent)
//! ```

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::room::explained;
use crate::sys;

/// A place to keep files.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Makes an empty file, or empties the one that is there.
    ///
    /// # Errors
    /// Whatever the file system says; so for all the others.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Makes a directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something of that name is there, [`io::ErrorKind::NotFound`] if the directory
    /// above it is not.
    fn create_dir(&self, path: &Path, access: Access) -> io::Result<()>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there, [`io::ErrorKind::NotADirectory`] if it is something else.
    fn entries(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// What is there under this name. A link is not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if nothing is.
    fn look(&self, path: &Path) -> io::Result<Look>;

    /// Gives a file or a directory another name. A file replaces what has that name: whoever looks sees the old file or
    /// the new one.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there, [`io::ErrorKind::DirectoryNotEmpty`] if there is something in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the content of a file durable that somebody else has written: a child process, say, which has closed it.
    ///
    /// # Errors
    /// If it is not certain that the content is durable.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes durable which names a directory has, and for what.
    ///
    /// # Errors
    /// If it is not certain that they are.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// What is there under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is a regular file: no directory, no link, no device.
    pub is_file: bool,
    /// Its size in bytes; of a directory, whatever the file system says.
    pub bytes: u64,
}

/// Who may look into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever the user lets look into new directories.
    Usual,
    /// Only the user.
    Owner,
}

/// A file being written.
pub trait StorageFile: Write + Send {
    /// Makes what was written durable. After an error nothing is known about the content, and a later success does not
    /// mend that (the kernel reports a failed write once, then forgets it): start over with a new file.
    ///
    /// # Errors
    /// If it is not certain that the content is durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealStorage;

impl Storage for RealStorage {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn create_dir(&self, path: &Path, access: Access) -> io::Result<()> {
        match access {
            Access::Usual => std::fs::create_dir(path),
            Access::Owner => sys::create_private_dir(path),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Look { is_dir: found.is_dir(), is_file: found.is_file(), bytes: found.len() })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        // Windows flushes only what is open for writing.
        File::options().write(true).open(path)?.sync_all()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sys::sync_dir(dir)
    }
}

impl StorageFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Puts `bytes` under the name `path` so that after a loss of power it has the old content or the new one, and the new
/// one if this returned.
///
/// # Errors
/// The first operation that failed. The old content is then still there, or the new one.
pub fn replace_file(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(storage, path, bytes)?;
    storage.rename(&temporary, path)?;
    storage.sync_dir(parent(path))
}

/// Writes `bytes` durably into a file beside `path`, and says where that is. Its name is not durable.
pub(crate) fn write_beside(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    // A file of its own each time: one whose flush has failed before cannot be trusted again.
    ignore_missing(storage.unlink(&temporary))?;
    let mut file = storage.create(&temporary)?;
    file.write_all(bytes).map_err(explained)?;
    file.sync()?;
    Ok(temporary)
}

pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
