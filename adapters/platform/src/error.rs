//! What can go wrong with a platform: what was attempted, on which file, what came back, and the way out.

use std::io;
use std::path::{Path, PathBuf};

use crate::hash::Sha256Hex;
use crate::lock::LockedPackage;

/// A platform could not be found, read, trusted, built, exported or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The operating system refused something.
    #[error("cannot {attempt} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb phrase.
        attempt: &'static str,
        /// On which path.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// Neither `VMTASK_DATA_DIR` nor a home directory is set.
    #[error("no place for platforms: set VMTASK_DATA_DIR, XDG_DATA_HOME or HOME to an absolute path")]
    NoDataDir,
    /// Not a name in the manner of BOINC's platform names.
    #[error(
        "'{name}' is no platform name: it takes letters, digits, '.', '_' and '-', as in x86_64-pc-linux-gnu, and starts \
         with a letter or digit"
    )]
    BadName {
        /// The name given.
        name: String,
    },
    /// No directory of that name where platforms are looked for.
    #[error(
        "no platform '{name}' in {}: {}, or take a build from elsewhere with `vmtask platform import FILE`",
        show(searched),
        way_to_have(name)
    )]
    NotFound {
        /// The platform asked for.
        name: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// The recipe knows two platforms only.
    #[error("cannot build a platform '{name}': there are recipes for {}", crate::BUILDABLE.join(" and "))]
    NoRecipe {
        /// The platform asked for.
        name: String,
    },
    /// `platform.xml` is not what this version understands.
    #[error("{}: {cause}; build or import the platform again", path.display())]
    Definition {
        /// The definition's path.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file that the definition names is not there, or is no regular file.
    #[error("{}: {cause}; build or import the platform again", path.display())]
    BadFile {
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file's bytes are not those that the definition pins.
    #[error(
        "{} is not the file that the platform pins: SHA-256 {found}, not {expected}; build or import the platform again",
        path.display()
    )]
    Corrupt {
        /// The file's path.
        path: PathBuf,
        /// What the definition says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A lock file that cannot be used.
    #[error("{}: {cause}", path.display())]
    Lock {
        /// The lock's path, or a name for the built-in one.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The distribution does not serve the pinned version (any more).
    #[error(
        "{} {} ({}) could not be had from {}: {cause}. Distributions drop versions as they update. Ways out: give a \
         directory that has {} with `--debs DIR`; import a platform that someone else built with `vmtask platform import \
         FILE`; or build with today's versions with `--update-lock FILE`, which makes ANOTHER platform, whose results \
         count as different",
        package.name, package.version, package.architecture, show_text(tried), package.file_name()
    )]
    NotServed {
        /// The pinned package.
        package: Box<LockedPackage>,
        /// Where it was looked for.
        tried: Vec<String>,
        /// What came back last.
        cause: String,
    },
    /// A package's bytes are not those that the lock pins.
    #[error(
        "{} is not {} {} as the lock pins it: SHA-256 {found}, not {}",
        path.display(), package.name, package.version, package.sha256
    )]
    WrongPackage {
        /// The pinned package.
        package: Box<LockedPackage>,
        /// The file that was offered.
        path: PathBuf,
        /// What the file has.
        found: Sha256Hex,
    },
    /// A package does not hold what the recipe takes from it.
    #[error("package {package}: {cause}")]
    BadPackage {
        /// Package name.
        package: String,
        /// What is wrong with it.
        cause: String,
    },
    /// An outside program failed.
    #[error("`{command}` failed: {cause}")]
    Tool {
        /// The command line.
        command: String,
        /// Its standard error or exit status.
        cause: String,
    },
    /// An exported platform that cannot be taken in.
    #[error("{} is no usable platform archive: {cause}; nothing was imported", path.display())]
    Archive {
        /// The archive's path.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

impl PlatformError {
    /// For `map_err`: an I/O error, with what was attempted and on what.
    pub(crate) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }
}

/// How to come by a platform of this name.
fn way_to_have(name: &str) -> String {
    if crate::BUILDABLE.contains(&name) {
        format!("make it with `vmtask platform build {name}`")
    } else {
        format!("those that vmtask can build are {}; name one of them", crate::BUILDABLE.join(" and "))
    }
}

fn show(paths: &[PathBuf]) -> String {
    show_text(&paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
}

fn show_text(places: &[String]) -> String {
    if places.is_empty() { "nowhere".to_owned() } else { places.join(", ") }
}
