//! Making a new lock: what the distribution serves today, asked from apt.
//!
//! apt runs with state of its own in a temporary directory, so it needs no privileges and leaves the host's lists alone.
//! Each architecture has its own: a mirror that is just being updated in one does not spoil the other.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::PlatformError;
use crate::hash::Sha256Hex;
use crate::lock::{Lock, LockedPackage};
use crate::root;

/// A lock over the versions that this host's mirrors serve now. **Another lock is another platform**: its fingerprint
/// differs, and with it what its results may be compared with.
///
/// # Errors
/// [`PlatformError::Tool`] where apt is missing or fails, [`PlatformError::BadPackage`] for a package that it does not
/// know.
pub fn current_lock() -> Result<Lock, PlatformError> {
    let dir = tempfile::Builder::new()
        .prefix("vmtask-apt-")
        .tempdir()
        .map_err(PlatformError::io("make a directory in", Path::new("the temporary directory")))?;
    let mut packages = Vec::new();
    for architecture in ["amd64", "i386"] {
        let apt = Apt::new(&dir.path().join(architecture), architecture)?;
        if architecture == "amd64" {
            let meta = apt.show(root::KERNEL_META_PACKAGE)?;
            packages.push(apt.lock(&kernel_of(&meta)?)?);
        }
        for (name, _) in root::packages().into_iter().filter(|(_, theirs)| *theirs == architecture) {
            packages.push(apt.lock(name)?);
        }
    }
    Ok(Lock { version: 1, distribution: "Debian 12".to_owned(), packages })
}

struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(dir: &Path, architecture: &str) -> Result<Self, PlatformError> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).map_err(PlatformError::io("make the directory", &part))?;
        }
        let status = dir.join("state/status");
        fs::write(&status, "").map_err(PlatformError::io("write", &status))?;
        let options = [
            format!("Dir::State={}", dir.join("state").display()),
            format!("Dir::State::status={}", status.display()),
            format!("Dir::Cache={}", dir.join("cache").display()),
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        let apt = Self { options: options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect() };
        // It fails as a whole if one of the host's sources does; what it got may still be all that is needed.
        if let Err(error) = apt.run("apt-get", &["-q", "update"]) {
            tracing::warn!(%error, architecture, "not every package list could be had");
        }
        Ok(apt)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, PlatformError> {
        let command = || format!("{program} {}", arguments.join(" "));
        let output = Command::new(program)
            .args(&self.options)
            .args(arguments)
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .output()
            .map_err(|error| PlatformError::Tool {
                command: command(),
                cause: format!("{error} (a new lock can only be made on Debian or a derivative)"),
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(PlatformError::Tool { command: command(), cause })
    }

    fn show(&self, package: &str) -> Result<String, PlatformError> {
        self.run("apt-cache", &["show", "--no-all-versions", package])
    }

    fn lock(&self, package: &str) -> Result<LockedPackage, PlatformError> {
        parse_stanza(package, &self.show(package)?)
    }
}

fn kernel_of(meta: &str) -> Result<String, PlatformError> {
    field(meta, "Depends")
        .and_then(|depends| depends.split(',').map(str::trim).find(|depends| depends.starts_with("linux-image-")))
        .and_then(|depends| depends.split_whitespace().next())
        .map(str::to_owned)
        .ok_or_else(|| PlatformError::BadPackage {
            package: root::KERNEL_META_PACKAGE.to_owned(),
            cause: "it depends on no kernel".to_owned(),
        })
}

fn parse_stanza(package: &str, stanza: &str) -> Result<LockedPackage, PlatformError> {
    let bad = |cause: String| PlatformError::BadPackage { package: package.to_owned(), cause };
    let get = |name: &str| {
        field(stanza, name).map(str::to_owned).ok_or_else(|| bad(format!("apt-cache show gives it no {name}")))
    };
    Ok(LockedPackage {
        name: get("Package")?,
        architecture: get("Architecture")?,
        version: get("Version")?,
        pool: get("Filename")?,
        size: get("Size")?.parse().map_err(|_| bad("apt-cache show gives it no size".to_owned()))?,
        sha256: Sha256Hex::try_from(get("SHA256")?).map_err(bad)?,
    })
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STANZA: &str = "\
Package: libx
Version: 1:2.3-4
Architecture: i386
Depends: libc6 (>= 2.36)
Size: 1234
Filename: pool/main/libx/libx_2.3-4_i386.deb
SHA256: 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
";

    #[test]
    fn what_apt_says_of_a_package_becomes_its_lock() {
        let package = parse_stanza("libx", STANZA).unwrap();
        assert_eq!((package.version.as_str(), package.size), ("1:2.3-4", 1234));
        assert_eq!(package.file_name(), "libx_2.3-4_i386.deb");
    }

    #[test]
    fn a_package_that_apt_does_not_know_well_is_an_error() {
        let error = parse_stanza("libx", &STANZA.replace("SHA256", "MD5sum")).unwrap_err();
        assert!(error.to_string().contains("libx") && error.to_string().contains("SHA256"), "{error}");
    }

    #[test]
    fn the_kernel_is_what_its_meta_package_depends_on() {
        let meta = "Package: m\nDepends: libc6, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(kernel_of(meta).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert!(kernel_of("Package: m\n").is_err());
    }
}
