//! What a platform's files looked like when they were last hashed: the `.verified` file.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::path::Path;

use crate::definition::FileEntry;
use crate::staging::public_temporary;

const STAMP_FILE: &str = ".verified";

/// One line a file: the pinned hash, size, inode, time of modification and of change, name. Equal stamps mean that no file
/// was written, replaced or pinned anew since. (The time of change cannot be set back by a program, and where the
/// system has none, the rest must do.)
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(String);

impl Stamp {
    pub(crate) fn add(&mut self, file: &FileEntry, metadata: &Metadata) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{} {} {} {}", file.sha256, file.size, identity(metadata), file.name);
    }

    pub(crate) fn load(dir: &Path) -> Option<Self> {
        fs::read_to_string(dir.join(STAMP_FILE)).ok().map(Self)
    }

    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let mut file = public_temporary(STAMP_FILE, dir)?;
        file.write_all(self.0.as_bytes())?;
        file.persist(dir.join(STAMP_FILE)).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!(
        "{} {}.{:09} {}.{:09}",
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    format!("- {:?} -", modified.unwrap_or_default())
}
