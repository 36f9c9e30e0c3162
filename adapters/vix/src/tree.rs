//! A virtual machine's directory as a tree of files: copied, measured, compared.
//!
//! Copying is how products without clones and snapshots get both. Only a VM that is off or suspended is copied: then its
//! files are all there is of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmtask_driver::kit::{self, Flaw, Stoppable};
use vmtask_driver::{Digest, PortError, RealStorage, Storage};

use crate::wait::Wait;

/// How much is copied between two looks whether to go on.
const BLOCK: u64 = 8 << 20;

/// One name in a tree. Directories come before what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Below the tree's root, with `/` between components.
    pub(crate) path: String,
    #[serde(flatten)]
    pub(crate) kind: Kind,
}

/// What has that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Kind {
    Dir { mode: u32 },
    File { bytes: u64, sha256: Digest, mode: u32 },
    Link { target: String },
}

/// What goes wrong with a tree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("{path:?}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path:?} is not what was saved: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error(transparent)]
    Remove(#[from] PortError),
    #[error("given up")]
    Stopped,
}

impl TreeError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Whether a name belongs to a running product, not to the VM: its locks and logs.
fn is_of_no_use(name: &str) -> bool {
    name.ends_with(".lck") || name.ends_with(".log")
}

/// Everything below a directory, in an order that is always the same.
fn walk(root: &Path) -> Result<Vec<(String, fs::Metadata)>, TreeError> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(dir) = open.pop() {
        let path = root.join(&dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(TreeError::io(&path))? {
            let name = entry.map_err(TreeError::io(&path))?.file_name();
            // A name that is no text is nothing that a product has made, but it may be a guest's, where those are files.
            names.push(name.into_string().map_err(|name| TreeError::Io {
                path: path.join(name),
                source: io::Error::new(io::ErrorKind::InvalidData, "its name is no UTF-8"),
            })?);
        }
        names.sort();
        for name in names.into_iter().filter(|name| !is_of_no_use(name)) {
            let below = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let path = root.join(&below);
            let meta = fs::symlink_metadata(&path).map_err(TreeError::io(&path))?;
            if meta.is_dir() {
                open.push(below.clone());
            }
            // Sockets and pipes belong to processes that are gone.
            if meta.is_dir() || meta.is_file() || meta.is_symlink() {
                found.push((below, meta));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Copies what is below `from` to below `to`, which is made anew.
pub(crate) fn copy(from: &Path, to: &Path, wait: &Wait<'_>) -> Result<(), TreeError> {
    kit::remove_tree(&RealStorage, to, wait)?;
    fs::create_dir_all(to).map_err(TreeError::io(to))?;
    let entries = walk(from)?;
    for (below, meta) in &entries {
        let (source, target) = (from.join(below), to.join(below));
        if meta.is_dir() {
            fs::create_dir(&target).map_err(TreeError::io(&target))?;
        } else if meta.is_symlink() {
            let points_to = fs::read_link(&source).map_err(TreeError::io(&source))?;
            link(&points_to, &target).map_err(TreeError::io(&target))?;
        } else {
            copy_file(&source, &target, wait)?;
            set_mode(&target, mode_of(meta)).map_err(TreeError::io(&target))?;
        }
    }
    set_dir_modes(to, entries.iter().filter(|(_, meta)| meta.is_dir()).map(|(below, meta)| (below, mode_of(meta))))
}

/// Directories last, and the innermost first: one that may not be written to could not be filled.
fn set_dir_modes<'a>(root: &Path, dirs: impl DoubleEndedIterator<Item = (&'a String, u32)>) -> Result<(), TreeError> {
    for (below, mode) in dirs.rev() {
        let path = root.join(below);
        set_mode(&path, mode).map_err(TreeError::io(&path))?;
    }
    Ok(())
}

/// Flushes everything below `root` and says what it is.
pub(crate) fn measure(root: &Path, go_on: &dyn Fn() -> bool) -> Result<Vec<Entry>, TreeError> {
    let mut entries = Vec::new();
    for (path, meta) in walk(root)? {
        let full = root.join(&path);
        let mode = mode_of(&meta);
        let kind = if meta.is_dir() {
            Kind::Dir { mode }
        } else if meta.is_symlink() {
            let target = fs::read_link(&full).map_err(TreeError::io(&full))?;
            Kind::Link { target: target.to_string_lossy().into_owned() }
        } else {
            let (bytes, sha256) = hash(&full, go_on)?;
            Kind::File { bytes, sha256, mode }
        };
        entries.push(Entry { path, kind });
    }
    // Names after contents, and the innermost directories first.
    for entry in entries.iter().rev().filter(|entry| matches!(entry.kind, Kind::Dir { .. })) {
        let dir = root.join(&entry.path);
        sync_dir(&dir).map_err(TreeError::io(&dir))?;
    }
    sync_dir(root).map_err(TreeError::io(root))?;
    Ok(entries)
}

/// Makes `to` what the entries say, from the files below `from`, each compared while it is copied.
pub(crate) fn restore(from: &Path, entries: &[Entry], to: &Path, wait: &Wait<'_>) -> Result<(), TreeError> {
    kit::remove_tree(&RealStorage, to, wait)?;
    fs::create_dir_all(to).map_err(TreeError::io(to))?;
    for entry in entries {
        let (source, target) = (from.join(&entry.path), to.join(&entry.path));
        match &entry.kind {
            Kind::Dir { .. } => fs::create_dir(&target).map_err(TreeError::io(&target))?,
            Kind::Link { target: points_to } => {
                link(Path::new(points_to), &target).map_err(TreeError::io(&target))?;
            }
            Kind::File { bytes, sha256, mode } => {
                let (copied, sum) = copy_and_hash(&source, &target, wait)?;
                let damaged = |what: String| TreeError::Damaged { path: source.clone(), what };
                if copied != *bytes {
                    return Err(damaged(format!("it has {copied} of {bytes} bytes")));
                }
                if sum != *sha256 {
                    return Err(damaged("its SHA-256 differs".into()));
                }
                set_mode(&target, *mode).map_err(TreeError::io(&target))?;
            }
        }
    }
    set_dir_modes(
        to,
        entries.iter().filter_map(|entry| match entry.kind {
            Kind::Dir { mode } => Some((&entry.path, mode)),
            _ => None,
        }),
    )
}

/// Whether everything is there in its full length, without reading it.
pub(crate) fn looks_whole(storage: &dyn Storage, root: &Path, entries: &[Entry]) -> Result<(), Flaw> {
    for entry in entries {
        let path = root.join(&entry.path);
        let found = storage.look(&path).map_err(|source| Flaw::Unreadable { path: path.clone(), source })?;
        match entry.kind {
            Kind::File { .. } if !found.is_file => {
                // Somebody has put it elsewhere, and what is there now may be whole.
                let source = io::Error::other("it is no regular file; put the file itself back");
                return Err(Flaw::Unreadable { path, source });
            }
            Kind::File { bytes, .. } if found.bytes != bytes => {
                return Err(Flaw::Damaged(format!("{} has {} of {bytes} bytes", path.display(), found.bytes)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, wait: &Wait<'_>) -> Result<(), TreeError> {
    let source = File::open(from).map_err(TreeError::io(from))?;
    let mut target = File::create(to).map_err(TreeError::io(to))?;
    loop {
        wait.tick().map_err(|_| TreeError::Stopped)?;
        // The kernel copies, and on file systems that can, shares.
        if io::copy(&mut (&source).take(BLOCK), &mut target).map_err(TreeError::io(to))? == 0 {
            return Ok(());
        }
    }
}

/// Copies a file, and tells size and SHA-256 of what was copied.
fn copy_and_hash(from: &Path, to: &Path, wait: &Wait<'_>) -> Result<(u64, Digest), TreeError> {
    let source = File::open(from).map_err(TreeError::io(from))?;
    let target = File::create(to).map_err(TreeError::io(to))?;
    let mut copying = Copying { source, target, failed: None };
    let sum = Digest::of_reader(Stoppable::new(&mut copying, || wait.tick().is_ok()));
    match (copying.failed, sum) {
        (Some(source), _) => Err(TreeError::io(to)(source)),
        (None, Ok(sum)) => Ok(sum),
        (None, Err(_)) if wait.tick().is_err() => Err(TreeError::Stopped),
        (None, Err(source)) => Err(TreeError::io(from)(source)),
    }
}

/// A file that is copied as it is read.
struct Copying {
    source: File,
    target: File,
    /// Why it could not be written.
    failed: Option<io::Error>,
}

impl Read for Copying {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buffer)?;
        self.target.write_all(&buffer[..got]).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the copy could not be written")
        })?;
        Ok(got)
    }
}

fn hash(path: &Path, go_on: &dyn Fn() -> bool) -> Result<(u64, Digest), TreeError> {
    let file = File::open(path).map_err(TreeError::io(path))?;
    let sum = hash_reader(file, go_on).map_err(TreeError::io(path))?.ok_or(TreeError::Stopped)?;
    sync_file(path).map_err(TreeError::io(path))?;
    Ok(sum)
}

/// Size and SHA-256 of everything that can be read; nothing if it was told to stop.
pub(crate) fn hash_reader(from: impl Read, go_on: &dyn Fn() -> bool) -> io::Result<Option<(u64, Digest)>> {
    match Digest::of_reader(Stoppable::new(from, go_on)) {
        Err(error) if go_on() => Err(error),
        sum => Ok(sum.ok()),
    }
}

/// A file goes; one that is not there is no error.
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(unix)]
fn mode_of(meta: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777
}

#[cfg(not(unix))]
fn mode_of(_meta: &fs::Metadata) -> u32 {
    0
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn link(points_to: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(points_to, path)
}

#[cfg(not(unix))]
fn link(_points_to: &Path, _path: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "links in a virtual machine's directory are not copied here"))
}

/// Makes a file's content durable, whoever has written it.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    // Linux flushes through any descriptor, and the mode may forbid to open it for writing.
    #[cfg(unix)]
    return File::open(path)?.sync_all();
    #[cfg(not(unix))]
    return File::options().write(true).open(path)?.sync_all();
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return File::open(dir)?.sync_all();
    // NTFS journals its directories itself.
    #[cfg(not(unix))]
    return dir.metadata().map(drop);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    use std::time::Duration;

    const ON: &dyn Fn() -> bool = &|| true;

    fn patience() -> Wait<'static> {
        Wait::most(Duration::from_secs(3600))
    }

    fn short_of(root: &Path, entries: &[Entry]) -> Option<String> {
        match looks_whole(&RealStorage, root, entries) {
            Ok(()) => None,
            Err(Flaw::Damaged(what)) => Some(what),
            Err(Flaw::Unreadable { path, source }) => panic!("{path:?}: {source}"),
        }
    }

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("vm");
        fs::create_dir_all(root.join("guest/empty")).unwrap();
        fs::create_dir_all(root.join("x.vmx.lck")).unwrap();
        fs::write(root.join("x.vmx"), "memsize = \"256\"").unwrap();
        fs::write(root.join("guest/disk"), vec![7; (BLOCK + 5) as usize]).unwrap();
        fs::write(root.join("vmware.log"), "talk").unwrap();
        (dir, root)
    }

    #[test]
    fn a_copy_has_everything_but_locks_and_logs() {
        let (dir, root) = tree();
        let copy_dir = dir.path().join("copy");
        copy(&root, &copy_dir, &patience()).unwrap();
        let names: Vec<String> = walk(&copy_dir).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["guest", "guest/disk", "guest/empty", "x.vmx"]);
        assert_eq!(fs::read(copy_dir.join("guest/disk")).unwrap(), fs::read(root.join("guest/disk")).unwrap());
        // Again, over what is there: the old content is gone.
        fs::write(copy_dir.join("old"), "").unwrap();
        copy(&root, &copy_dir, &patience()).unwrap();
        assert!(!copy_dir.join("old").exists());
    }

    #[test]
    fn what_was_measured_is_restored_and_what_was_damaged_is_not() {
        let (dir, root) = tree();
        let (saved, back) = (dir.path().join("saved"), dir.path().join("back"));
        copy(&root, &saved, &patience()).unwrap();
        let entries = measure(&saved, ON).unwrap();
        restore(&saved, &entries, &back, &patience()).unwrap();
        assert_eq!(measure(&back, ON).unwrap(), entries);
        assert_eq!(short_of(&saved, &entries), None);

        let mut bytes = fs::read(saved.join("guest/disk")).unwrap();
        bytes[3] ^= 1;
        fs::write(saved.join("guest/disk"), &bytes).unwrap();
        assert_eq!(short_of(&saved, &entries), None, "it looks whole");
        let error = restore(&saved, &entries, &back, &patience()).unwrap_err().to_string();
        assert!(error.contains("SHA-256 differs"), "{error}");

        fs::write(saved.join("guest/disk"), "short").unwrap();
        assert!(short_of(&saved, &entries).unwrap().contains("has 5 of"));
    }

    #[test]
    fn whoever_is_told_to_stop_stops() {
        let (dir, root) = tree();
        let copied = copy(&root, &dir.path().join("copy"), &Wait::most(Duration::ZERO));
        assert!(matches!(copied, Err(TreeError::Stopped)));
        assert!(matches!(measure(&root, &|| false), Err(TreeError::Stopped)));
    }

    #[cfg(unix)]
    #[test]
    fn modes_and_links_come_along() {
        let (dir, root) = tree();
        link(Path::new("nowhere"), &root.join("guest/link")).unwrap();
        set_mode(&root.join("guest/disk"), 0o400).unwrap();
        set_mode(&root.join("guest/empty"), 0o500).unwrap();
        let copied = dir.path().join("copy");
        copy(&root, &copied, &patience()).unwrap();
        assert_eq!(mode_of(&fs::metadata(copied.join("guest/disk")).unwrap()), 0o400);
        assert_eq!(mode_of(&fs::metadata(copied.join("guest/empty")).unwrap()), 0o500);
        assert_eq!(fs::read_link(copied.join("guest/link")).unwrap(), Path::new("nowhere"));
    }
}
