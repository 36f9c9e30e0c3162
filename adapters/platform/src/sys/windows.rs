//! On Windows.

use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes the entries of a directory durable, which NTFS does by flushing its log.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // To flush takes the right to add to the directory, and whoever calls this has just done that.
    const ADD_FILE: u32 = 0x2;
    // Without it a directory cannot be opened at all.
    const BACKUP_SEMANTICS: u32 = 0x0200_0000;
    File::options().access_mode(ADD_FILE).custom_flags(BACKUP_SEMANTICS).open(dir)?.sync_all()
}

/// There is no such thing.
pub(crate) fn exchange(_new: &Path, _old: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Who may read a file is handed down by its directory.
pub(crate) fn public(_builder: &mut tempfile::Builder<'_, '_>) {}

/// What is another after a file was written or replaced; in units of 100 ns.
pub(crate) fn identity(metadata: &Metadata) -> String {
    format!("{} {}", metadata.creation_time(), metadata.last_write_time())
}
