//! What a platform's files looked like when they were last hashed: the `.verified` file.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::path::Path;

use crate::definition::FileEntry;
use crate::staging::public_temporary;
use crate::sys;

const STAMP_FILE: &str = ".verified";

/// One line a file: the pinned hash, size, inode, time of modification and of change, name. Equal stamps mean that no file
/// was written, replaced or pinned anew since. (The time of change cannot be set back by a program, and where the
/// system has none, the rest must do.)
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(String);

impl Stamp {
    pub(crate) fn add(&mut self, file: &FileEntry, metadata: &Metadata) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{} {} {} {}", file.sha256, file.size, sys::identity(metadata), file.name);
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
