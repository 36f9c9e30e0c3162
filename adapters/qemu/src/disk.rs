//! A task's disk: layers of qcow2 files, each holding what was written since the one below was frozen.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::Qemu;

/// Why a disk could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// `qemu-img` is not there.
    #[error(
        "the task has a disk (limits.disk), for which qemu-img is needed; install it (Debian: apt-get install qemu-utils)"
    )]
    NoImg,
    /// `qemu-img` did not do it.
    #[error("qemu-img cannot make {path:?}: {what}")]
    Img {
        /// Which file.
        path: PathBuf,
        /// What it said.
        what: String,
    },
    /// The file system did not do it.
    #[error("cannot {what} {path:?}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// Whether it is for want of space.
    #[must_use]
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::NoImg => false,
            // It has no better way to tell.
            Self::Img { what, .. } => says_no_space(what),
            Self::Io { source, .. } => vmtask_driver::is_no_space(source),
        }
    }
}

/// Whether that is what QEMU or `qemu-img` says of a write without room, in no language but English; or what is said of
/// `qemu-img` if the limit on the size of files has ended it.
pub(crate) fn says_no_space(text: &str) -> bool {
    ["No space left", "Disk quota exceeded", "File too large", "SIGXFSZ"].iter().any(|words| text.contains(words))
}

/// Makes an empty layer of `size` bytes above `backing`, or a disk of its own.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn create(qemu: &Qemu, file: &Path, backing: Option<&Path>, size: u64) -> Result<(), DiskError> {
    let img = qemu.img.as_ref().ok_or(DiskError::NoImg)?;
    let mut command = Command::new(img);
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(backing) = backing {
        // Unchecked (-u): the layer below is in use by QEMU, and its size is known.
        command.args(["-u", "-F", "qcow2", "-b"]).arg(backing);
    }
    command.arg(file).arg(size.to_string());
    let output = command.stdin(Stdio::null()).output().map_err(|source| DiskError::Io {
        what: "start qemu-img for",
        path: file.to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let _ = std::fs::remove_file(file);
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DiskError::Img { path: file.to_owned(), what: if said.is_empty() { output.status.to_string() } else { said } })
}

/// Flushes the directory that a file is in.
pub(crate) fn sync_dir_of(file: &Path) -> io::Result<()> {
    crate::durable::sync_dir(file.parent().unwrap_or(Path::new("/")))
}

/// A name that no layer in `dir` has.
///
/// # Errors
/// If the directory could not be listed: then any name may be that of a layer that a checkpoint stands on.
pub(crate) fn next_file(dir: &Path) -> io::Result<PathBuf> {
    let mut newest = 0;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".qcow2")?.parse::<u64>().ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(dir.join(format!("{}.qcow2", newest + 1)))
}
