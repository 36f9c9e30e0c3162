//! Platforms on disk: where they lie, finding, opening and verifying them.
//!
//! ```text
//! alt_platforms/
//!   .lock                        taken for the moments in which directories come and go
//!   .new-XXXXXX/                 a build or import under way, or what a killed one left (swept by the next)
//!   x86_64-pc-linux-gnu/
//!     platform.xml  vmlinux  root.cpio
//!     .verified                  what the files looked like when they were last hashed
//!   i686-pc-linux-gnu/
//!     platform.xml  vmlinux  root.cpio      hard links to the same files: one image, two platforms
//! ```

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::definition::{self, DEFINITION_FILE, Definition, FileEntry, Role};
use crate::error::PlatformError;
use crate::hash::sha256_of_file;
use crate::stamp::Stamp;

/// Definitions are a page of text; anything larger is something else.
pub(crate) const DEFINITION_MAX: u64 = 1 << 20;

/// A platform whose definition holds and whose files are there with the pinned bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    dir: PathBuf,
    definition: Definition,
}

impl Platform {
    /// Opens the platform in `dir`.
    ///
    /// Hashing its 70 MB at every start of a task would cost as much as the start, so a file that has the size, times
    /// and inode that it had when it was last hashed is taken at its word (`.verified` beside it). That guards against
    /// accidents, not against someone who may write there. [`Self::verify`] always hashes.
    ///
    /// # Errors
    /// [`PlatformError::Definition`], [`PlatformError::BadFile`] or [`PlatformError::Corrupt`] for what is wrong with
    /// it, [`PlatformError::Io`] where it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, PlatformError> {
        let platform = Self::read(dir)?;
        let files = platform.stat_files()?;
        if Stamp::load(dir).as_ref() != Some(&files) {
            platform.verify()?;
        }
        Ok(platform)
    }

    /// Hashes every file again, whatever was noted about it before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn verify(&self) -> Result<(), PlatformError> {
        // Looked at before hashing: a change during it then leaves a stamp that does not match.
        let stamp = self.stat_files()?;
        for file in &self.definition.files.entries {
            let path = self.dir.join(&file.name);
            let found = sha256_of_file(&path).map_err(PlatformError::io("read", &path))?;
            if found != file.sha256 {
                return Err(PlatformError::Corrupt {
                    path,
                    expected: file.sha256.to_string(),
                    found: found.to_string(),
                });
            }
        }
        // A platform in a directory that we may not write is hashed at each opening; that is no error.
        if let Err(error) = stamp.save(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), %error, "cannot note that the platform was verified");
        }
        Ok(())
    }

    /// Its name, as BOINC names platforms.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything that `platform.xml` says.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The fingerprint with the platform's own memory and one processor. A task that asks for others has another one:
    /// [`Definition::compute_fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.definition.fingerprint
    }

    /// The kernel's path.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.path_of(Role::Kernel)
    }

    /// The root archive's path.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path_of(Role::Root)
    }

    fn path_of(&self, role: Role) -> PathBuf {
        // A definition that was read has one file of each role.
        self.dir.join(self.definition.file(role).map_or("", |file| file.name.as_str()))
    }

    /// The definition alone, its files not looked at.
    pub(crate) fn read(dir: &Path) -> Result<Self, PlatformError> {
        let path = dir.join(DEFINITION_FILE);
        let metadata = fs::symlink_metadata(&path).map_err(PlatformError::io("read", &path))?;
        let bad = |cause: String| PlatformError::Definition { path: path.clone(), cause };
        if !metadata.is_file() || metadata.len() > DEFINITION_MAX {
            return Err(bad(format!("not a regular file of at most {DEFINITION_MAX} bytes")));
        }
        let xml = fs::read_to_string(&path).map_err(PlatformError::io("read", &path))?;
        let definition = Definition::parse(&xml).map_err(bad)?;
        Ok(Self { dir: dir.to_owned(), definition })
    }

    fn stat_files(&self) -> Result<Stamp, PlatformError> {
        let mut stamp = Stamp::default();
        for file in &self.definition.files.entries {
            let path = self.dir.join(&file.name);
            let metadata = self.stat(&path, file)?;
            stamp.add(file, &metadata);
        }
        Ok(stamp)
    }

    fn stat(&self, path: &Path, file: &FileEntry) -> Result<fs::Metadata, PlatformError> {
        let bad = |cause: String| PlatformError::BadFile { path: path.to_owned(), cause };
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(bad(format!("missing, and {DEFINITION_FILE} beside it names it")));
            }
            Err(error) => return Err(PlatformError::io("look at", path)(error)),
        };
        // A link could lead anywhere.
        if !metadata.is_file() {
            return Err(bad("not a regular file".to_owned()));
        }
        if metadata.len() != file.size {
            return Err(bad(format!("{} bytes, not {}", metadata.len(), file.size)));
        }
        Ok(metadata)
    }
}

/// A directory under `alt_platforms/`, and what it holds.
#[derive(Debug)]
pub struct Listed {
    /// The directory.
    pub dir: PathBuf,
    /// The platform, or what is wrong with it.
    pub platform: Result<Platform, PlatformError>,
}

/// The platform of that name in the first directory that has one.
///
/// # Errors
/// [`PlatformError::NotFound`], or what [`Platform::open`] says of the one that was found.
pub fn find(name: &str, dirs: &[PathBuf]) -> Result<Platform, PlatformError> {
    definition::check_platform_name(name)?;
    for dir in dirs {
        let dir = dir.join(name);
        if !dir.join(DEFINITION_FILE).is_file() {
            continue;
        }
        let platform = Platform::open(&dir)?;
        if platform.name() != name {
            let cause = format!("it defines platform '{}' in a directory named '{name}'", platform.name());
            return Err(PlatformError::Definition { path: dir.join(DEFINITION_FILE), cause });
        }
        return Ok(platform);
    }
    Err(PlatformError::NotFound { name: name.to_owned(), searched: dirs.to_vec() })
}

/// Every platform in these directories, sorted by path; broken ones too.
///
/// # Errors
/// [`PlatformError::Io`] where a directory exists and cannot be read.
pub fn list(dirs: &[PathBuf]) -> Result<Vec<Listed>, PlatformError> {
    let mut found = Vec::new();
    for dir in dirs {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(PlatformError::io("list", dir)(error)),
        };
        for entry in entries {
            let path = entry.map_err(PlatformError::io("list", dir))?.path();
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.join(DEFINITION_FILE).exists() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|dir| Listed { platform: Platform::open(&dir), dir }).collect())
}

/// Where vmtask keeps what belongs to the user: `$VMTASK_DATA_DIR`, else `vmtask` in the XDG data directory (on Windows,
/// in `%LOCALAPPDATA%`). It need not exist.
///
/// # Errors
/// [`PlatformError::NoDataDir`] where the environment names no absolute path.
pub fn data_dir() -> Result<PathBuf, PlatformError> {
    data_dir_from(|name| env::var_os(name))
}

/// `alt_platforms` in a data directory: the name that a BOINC client's data directory has for it, too.
#[must_use]
pub fn platforms_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("alt_platforms")
}

fn data_dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, PlatformError> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A relative VMTASK_DATA_DIR is made absolute: the user asked for this very place. XDG says to ignore relative ones.
    if let Some(dir) = variable("VMTASK_DATA_DIR").filter(|dir| !dir.is_empty()) {
        return std::path::absolute(&dir).map_err(PlatformError::io("resolve", Path::new(&dir)));
    }
    absolute("XDG_DATA_HOME")
        .or_else(|| if cfg!(windows) { absolute("LOCALAPPDATA") } else { None })
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("vmtask"))
        .ok_or(PlatformError::NoDataDir)
}

#[cfg(test)]
mod tests;
