//! Copies of a guest's files, for snapshots and clones. Nothing runs in them meanwhile.
//!
//! Where the file system can, a copy shares its blocks with the original until either is written to (std copies by
//! `copy_file_range`). Links stay links. Several names of one file become several files.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode};

use crate::failure::Failure;
use crate::guest::Result;

/// Copies a tree to a place where nothing is.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: &io::Error| Failure::host_io("cannot copy", from, e);
    fs::create_dir(to).map_err(|e| failed(&e))?;
    for entry in fs::read_dir(from).map_err(|e| failed(&e))? {
        let name = entry.map_err(|e| failed(&e))?.file_name();
        let (source, target) = (from.join(&name), to.join(&name));
        let meta = fs::symlink_metadata(&source).map_err(|e| Failure::host_io("cannot copy", &source, &e))?;
        if meta.is_dir() {
            copy(&source, &target)?;
        } else {
            copy_one(&source, &target, &meta).map_err(|e| Failure::host_io("cannot copy", &source, &e))?;
        }
    }
    // Last, for it may forbid writing.
    let permissions = fs::metadata(from).map_err(|e| failed(&e))?.permissions();
    fs::set_permissions(to, permissions).map_err(|e| Failure::host_io("cannot copy to", to, &e))
}

fn copy_one(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if meta.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if meta.file_type().is_fifo() {
        return Ok(rustix::fs::mknodat(rustix::fs::CWD, to, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?);
    }
    if !meta.is_file() {
        // Sockets: worth nothing without the process that listens. A guest cannot make devices.
        return Ok(());
    }
    fs::copy(from, to)?;
    // A file without write permission can be opened for reading, and that is enough to set its times.
    let _ = File::open(to).and_then(|file| file.set_modified(meta.modified()?));
    Ok(())
}

/// Removes a tree, even if the guest has forbidden it; none there is as good.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            permit(path);
            fs::remove_dir_all(path).map_err(|e| Failure::host_io("cannot remove", path, &e))
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::host_io("cannot remove", path, &e)),
        _ => Ok(()),
    }
}

fn permit(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            permit(&entry.path());
        }
    }
}
