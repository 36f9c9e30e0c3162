//! `platform.lock`: which packages the platforms are made from, to the byte.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::definition::PackageEntry;
use crate::error::PlatformError;
use crate::hash::Sha256Hex;

/// The pinned packages of one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The version of this form: 1.
    pub version: u32,
    /// The distribution, for people.
    pub distribution: String,
    /// In the order in which they are unpacked.
    #[serde(rename = "package")]
    pub packages: Vec<LockedPackage>,
}

/// One package, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// `amd64` or `i386`.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// Its path below a mirror's root.
    pub pool: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha256Hex,
}

const VERSION: u32 = 1;
const BUILT_IN: &str = include_str!("../platform.lock");

impl Lock {
    /// The lock of this release: the platform that every user of it shares.
    ///
    /// # Errors
    /// None in a released crate (a test reads it).
    pub fn built_in() -> Result<Self, PlatformError> {
        Self::parse(BUILT_IN, Path::new("the built-in platform.lock"))
    }

    /// Reads a lock from a file.
    ///
    /// # Errors
    /// [`PlatformError::Io`], or [`PlatformError::Lock`] with line and column.
    pub fn load(path: &Path) -> Result<Self, PlatformError> {
        let text = fs::read_to_string(path).map_err(PlatformError::io("read", path))?;
        Self::parse(&text, path)
    }

    /// Writes a lock for [`Self::load`], replacing what was there.
    ///
    /// # Errors
    /// [`PlatformError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), PlatformError> {
        let bad = |error: toml::ser::Error| PlatformError::Lock { path: path.to_owned(), cause: error.to_string() };
        let body = toml::to_string(self).map_err(bad)?;
        fs::write(path, format!("{HEADER}{body}")).map_err(PlatformError::io("write", path))
    }

    fn parse(text: &str, path: &Path) -> Result<Self, PlatformError> {
        let bad = |cause: String| PlatformError::Lock { path: path.to_owned(), cause };
        let lock: Self = toml::from_str(text).map_err(|error| bad(error.to_string()))?;
        if lock.version != VERSION {
            return Err(bad(format!("lock version {}, and this program knows version {VERSION}", lock.version)));
        }
        for package in &lock.packages {
            // It becomes part of an address and of a file name.
            let parts_good = package.pool.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !parts_good || package.pool.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(bad(format!("'{}' is no path below a mirror's root", package.pool)));
            }
        }
        Ok(lock)
    }

    /// As a definition lists them.
    pub(crate) fn entries(&self) -> Vec<PackageEntry> {
        self.packages
            .iter()
            .map(|package| PackageEntry {
                name: package.name.clone(),
                architecture: package.architecture.clone(),
                version: package.version.clone(),
                sha256: package.sha256.clone(),
            })
            .collect()
    }
}

impl LockedPackage {
    /// The last component of [`Self::pool`].
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.pool.rsplit('/').next().unwrap_or(&self.pool)
    }

    /// For messages and progress: `libc6:i386`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}:{}", self.name, self.architecture)
    }

    pub(crate) fn not_served(&self, tried: Vec<String>, cause: String) -> PlatformError {
        PlatformError::NotServed { package: Box::new(self.clone()), tried, cause }
    }
}

const HEADER: &str = "\
# The packages that the platforms are built from. Other bytes are refused: they would make another platform, with another
# fingerprint, whose results could differ. Written by the builder; not for editing by hand.
";
