//! Getting the locked packages: from a directory, from the cache, from the mirrors that this host's apt uses.
//!
//! Wherever bytes come from, only those with the locked SHA-256 are used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::PlatformError;
use crate::hash::sha256_of_file;
use crate::lock::LockedPackage;

/// Where packages may come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources<'a> {
    /// A directory with the .deb files, instead of any download.
    pub(crate) debs: Option<&'a Path>,
    /// Where downloads are kept, by hash.
    pub(crate) cache: &'a Path,
    /// Roots of mirrors, tried in this order.
    pub(crate) mirrors: &'a [String],
}

impl Sources<'_> {
    /// A path to the package's bytes, checked.
    pub(crate) fn fetch(&self, package: &LockedPackage) -> Result<PathBuf, PlatformError> {
        match self.debs {
            Some(dir) => from_dir(dir, package),
            None => self.download(package),
        }
    }

    fn download(&self, package: &LockedPackage) -> Result<PathBuf, PlatformError> {
        let cached = self.cache.join(format!("{}.deb", package.sha256));
        if sha256_of_file(&cached).is_ok_and(|found| found == package.sha256) {
            return Ok(cached);
        }
        if self.mirrors.is_empty() {
            let cause = "this host's apt names no mirror (no sources in /etc/apt)".to_owned();
            return Err(package.not_served(Vec::new(), cause));
        }
        fs::create_dir_all(self.cache).map_err(PlatformError::io("make the directory", self.cache))?;
        // Under a name of its own: two builds may fetch the same package at once.
        let dir = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(self.cache)
            .map_err(PlatformError::io("make a directory in", self.cache))?;
        let target = dir.path().join("package.deb");
        let mut cause = String::new();
        for mirror in self.mirrors {
            let address = format!("{}/{}", mirror.trim_end_matches('/'), package.pool);
            if let Err(error) = download(&address, &target, package) {
                cause = error;
                continue;
            }
            let found = sha256_of_file(&target).map_err(PlatformError::io("read", &target))?;
            if found == package.sha256 {
                fs::rename(&target, &cached).map_err(PlatformError::io("put in place", &cached))?;
                return Ok(cached);
            }
            cause = format!("{mirror} serves other bytes (SHA-256 {found})");
        }
        Err(package.not_served(self.mirrors.to_vec(), cause))
    }
}

/// The file may have the name that it has on a mirror or, by apt's custom, with its epoch (`1%3a...`), so look at what
/// starts with the package's name.
fn from_dir(dir: &Path, package: &LockedPackage) -> Result<PathBuf, PlatformError> {
    let start = format!("{}_", package.name);
    let end = format!("_{}.deb", package.architecture);
    let mut other = None;
    for entry in fs::read_dir(dir).map_err(PlatformError::io("list", dir))?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(&start) || !name.ends_with(&end) {
            continue;
        }
        let found = sha256_of_file(&entry.path()).map_err(PlatformError::io("read", &entry.path()))?;
        if found == package.sha256 {
            return Ok(entry.path());
        }
        other = Some((entry.path(), found));
    }
    match other {
        Some((path, found)) => Err(PlatformError::WrongPackage { package: Box::new(package.clone()), path, found }),
        None => Err(package.not_served(vec![dir.display().to_string()], "no such file".to_owned())),
    }
}

/// apt's own downloader knows the host's proxies and certificates; elsewhere curl or wget will do.
fn download(address: &str, target: &Path, package: &LockedPackage) -> Result<(), String> {
    if let Some(path) = address.strip_prefix("file:") {
        // apt would take it where it lies.
        let copied = fs::copy(path.strip_prefix("//").unwrap_or(path), target);
        return copied.map(drop).map_err(|error| format!("{address}: {error}"));
    }
    let path = target.display().to_string();
    let hash = format!("SHA256:{}", package.sha256);
    let tools: [(&str, Vec<&str>); 3] = [
        // Else it gives up its privileges, and with them the directory, when run as root.
        ("/usr/lib/apt/apt-helper", vec!["-o", "APT::Sandbox::User=root", "download-file", address, &path, &hash]),
        (
            "curl",
            vec!["-fsSL", "--connect-timeout", "20", "--speed-limit", "1", "--speed-time", "60", "-o", &path, address],
        ),
        ("wget", vec!["-q", "--timeout=60", "--tries=2", "-O", &path, address]),
    ];
    for (tool, arguments) in tools {
        match Command::new(tool).args(&arguments).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                return Err(format!("{address}: {}", said.join("; ")));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{tool}: {error}")),
        }
    }
    Err("none of apt-helper, curl and wget is installed".to_owned())
}

/// The mirrors that this host's apt uses. Read from its files rather than asked from apt, which names only those whose
/// lists it has downloaded.
pub(crate) fn host_mirrors() -> Vec<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut mirrors = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => mirrors_of_sources(&text),
            Some("list") => mirrors_of_list(&text),
            _ => continue,
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    mirrors
}

/// deb822: `URIs: A B`.
fn mirrors_of_sources(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case("URIs")))
        .flat_map(|(_, value)| value.split_whitespace())
        .filter(|address| is_fetchable(address))
        .map(str::to_owned)
        .collect()
}

/// `deb [options] ADDRESS SUITE ...`
fn mirrors_of_list(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("deb "))
        .filter_map(|line| {
            let line = line.trim_start();
            let line = if line.starts_with('[') { line.split_once(']')?.1 } else { line };
            line.split_whitespace().next()
        })
        .filter(|address| is_fetchable(address))
        .map(str::to_owned)
        .collect()
}

fn is_fetchable(address: &str) -> bool {
    ["http://", "https://", "file:/"].iter().any(|scheme| address.starts_with(scheme))
}

#[cfg(test)]
mod tests;
