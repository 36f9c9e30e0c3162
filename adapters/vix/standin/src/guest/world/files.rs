//! A world's files: a directory tree of the host.
//!
//! Whether a file is executable is kept apart (`Machine::executable`), because not every host knows such a thing. Names
//! that some host cannot have (`a:b`, `con`) are escaped on their way to the disk, on every host alike, so that a VM's
//! directory can be carried from one to another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use vmtask_vix_abi::error_code;

use super::machine::Machine;
use super::program;
use crate::failure::Failure;
use crate::guest::{FileInfo, Result};

/// Where shared folders are in the guest.
const SHARES: &str = "/mnt/hgfs";

/// See the module.
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a file there unless there is one.
    pub(super) fn install(&self, path: &str, text: &str) -> Result<()> {
        let at = self.root.join(path.trim_start_matches('/'));
        if at.exists() {
            return Ok(());
        }
        make_parents(&at)?;
        fs::create_dir_all(self.root.join("tmp")).map_err(|e| Failure::host_io("cannot make", &self.root, &e))?;
        fs::write(&at, text).map_err(|e| Failure::host_io("cannot write", &at, &e))
    }

    /// Where a guest's path lies on the host.
    fn on_host(&self, machine: &Machine, path: &str) -> Result<PathBuf> {
        let path = normal(path)?;
        if let Some(shared) = path.strip_prefix(SHARES).and_then(|rest| rest.strip_prefix('/')) {
            let (name, rest) = shared.split_once('/').unwrap_or((shared, ""));
            if let Some(share) = machine.shares.iter().find(|share| share.name == name) {
                return Ok(rest.split('/').filter(|part| !part.is_empty()).fold(share.host.clone(), |p, s| p.join(s)));
            }
        }
        let parts = path.split('/').filter(|part| !part.is_empty());
        Ok(parts.fold(self.root.clone(), |host, part| host.join(escape(part))))
    }

    pub(super) fn read(&self, machine: &Machine, path: &str) -> Result<Vec<u8>> {
        let at = self.on_host(machine, path)?;
        fs::read(&at).map_err(|e| Failure::guest_io("cannot read", path, &e))
    }

    /// Writes a whole file, making its directory.
    pub(super) fn write(&self, machine: &Machine, path: &str, content: &[u8]) -> Result<()> {
        let at = self.on_host(machine, path)?;
        make_parents(&at)?;
        fs::write(&at, content).map_err(|e| Failure::guest_io("cannot write", path, &e))
    }

    /// Writes to a file's end.
    pub(super) fn append(&self, machine: &Machine, path: &str, content: &[u8]) -> Result<()> {
        use std::io::Write;
        let at = self.on_host(machine, path)?;
        let file = fs::File::options().create(true).append(true).open(&at);
        let written = file.and_then(|mut file| file.write_all(content));
        written.map_err(|e| Failure::guest_io("cannot write to", path, &e))
    }

    /// Puts a file in another's place, making its directory.
    pub(super) fn replace(&self, machine: &mut Machine, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.on_host(machine, from)?, self.on_host(machine, to)?);
        make_parents(&target)?;
        if source != target {
            fs::rename(&source, &target).map_err(|e| Failure::guest_io("cannot rename", from, &e))?;
            machine.executable.remove(&normal(from)?);
            machine.executable.remove(&normal(to)?);
        }
        Ok(())
    }

    pub(super) fn make_directory(&self, machine: &Machine, path: &str) -> Result<()> {
        let at = self.on_host(machine, path)?;
        if at.exists() {
            let why = format!("{path} exists in the guest");
            return Err(Failure::in_guest(error_code::FILE_ALREADY_EXISTS, why));
        }
        fs::create_dir_all(&at).map_err(|e| Failure::guest_io("cannot make the directory", path, &e))
    }

    pub(super) fn remove_directory(&self, machine: &mut Machine, path: &str) -> Result<()> {
        let at = self.on_host(machine, path)?;
        if !self.info(machine, path)?.directory {
            let why = format!("{path} is not a directory in the guest");
            return Err(Failure::in_guest(error_code::NOT_A_DIRECTORY, why));
        }
        fs::remove_dir_all(&at).map_err(|e| Failure::guest_io("cannot remove the directory", path, &e))?;
        let below = format!("{}/", normal(path)?);
        machine.executable.retain(|file| !file.starts_with(&below));
        Ok(())
    }

    pub(super) fn remove_file(&self, machine: &mut Machine, path: &str) -> Result<()> {
        let at = self.on_host(machine, path)?;
        if self.info(machine, path)?.directory {
            return Err(Failure::in_guest(error_code::NOT_A_FILE, format!("{path} is a directory in the guest")));
        }
        fs::remove_file(&at).map_err(|e| Failure::guest_io("cannot remove", path, &e))?;
        machine.executable.remove(&normal(path)?);
        Ok(())
    }

    pub(super) fn rename(&self, machine: &mut Machine, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.on_host(machine, from)?, self.on_host(machine, to)?);
        self.info(machine, from)?;
        if target.exists() {
            let why = format!("{to} exists in the guest");
            return Err(Failure::in_guest(error_code::FILE_ALREADY_EXISTS, why));
        }
        fs::rename(&source, &target).map_err(|e| Failure::guest_io("cannot rename", from, &e))?;
        let (from, to) = (normal(from)?, normal(to)?);
        let moved = |file: String| match file.strip_prefix(&from) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
            _ => file,
        };
        machine.executable = std::mem::take(&mut machine.executable).into_iter().map(moved).collect();
        Ok(())
    }

    pub(super) fn temp_file(&self, machine: &mut Machine) -> Result<String> {
        // Process numbers are never used twice in a boot, so neither are these names; older boots' files may be there.
        for _ in 0..1000 {
            let path = format!("/tmp/vmware-standin-{}", machine.next_pid);
            machine.next_pid += 1;
            let at = self.on_host(machine, &path)?;
            make_parents(&at)?;
            match fs::File::create_new(&at) {
                Ok(_) => return Ok(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::guest_io("cannot make", &path, &e)),
            }
        }
        Err(Failure::in_guest(error_code::FILE_ERROR, "there is no free name for a temporary file"))
    }

    pub(super) fn info(&self, machine: &Machine, path: &str) -> Result<FileInfo> {
        let at = self.on_host(machine, path)?;
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        describe(&at, name).map_err(|e| Failure::guest_io("cannot look at", path, &e))
    }

    pub(super) fn list(&self, machine: &Machine, path: &str) -> Result<Vec<FileInfo>> {
        let at = self.on_host(machine, path)?;
        if !self.info(machine, path)?.directory {
            let why = format!("{path} is not a directory in the guest");
            return Err(Failure::in_guest(error_code::NOT_A_DIRECTORY, why));
        }
        let failed = |e: &std::io::Error| Failure::guest_io("cannot list", path, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&at).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let name = unescape(&entry.file_name().to_string_lossy());
            found.push(describe(&entry.path(), &name).map_err(|e| failed(&e))?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn copy_in(&self, machine: &mut Machine, host: &Path, guest: &str) -> Result<()> {
        let at = self.on_host(machine, guest)?;
        if at.parent().is_some_and(|parent| !parent.is_dir()) {
            let why = format!("the directory of {guest} does not exist in the guest");
            return Err(Failure::in_guest(error_code::FILE_NOT_FOUND, why));
        }
        // What arrives is not executable, whatever was there before.
        let (file, below) = (normal(guest)?, format!("{}/", normal(guest)?));
        machine.executable.retain(|path| *path != file && !path.starts_with(&below));
        copy(host, &at, &escape, &mut |path, e| Failure::host_io("cannot copy into the guest", path, e))
    }

    pub(super) fn copy_out(&self, machine: &Machine, guest: &str, host: &Path) -> Result<()> {
        let at = self.on_host(machine, guest)?;
        self.info(machine, guest)?;
        copy(&at, host, &unescape, &mut |path, e| Failure::host_io("cannot copy out of the guest", path, e))
    }
}

/// A guest's path with neither `.` nor `..` nor doubled slashes.
pub(super) fn normal(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        let why = format!("{path:?} is not an absolute path in the guest");
        return Err(Failure::in_guest(error_code::FILE_NAME_INVALID, why));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Copies a file or a tree, merging directories; names go through `rename`.
fn copy(
    from: &Path,
    to: &Path,
    rename: &dyn Fn(&str) -> String,
    failed: &mut dyn FnMut(&Path, &std::io::Error) -> Failure,
) -> Result<()> {
    if !from.is_dir() {
        let mut source = fs::File::open(from).map_err(|e| failed(from, &e))?;
        let mut target = fs::File::create(to).map_err(|e| failed(to, &e))?;
        return std::io::copy(&mut source, &mut target).map(drop).map_err(|e| failed(to, &e));
    }
    fs::create_dir_all(to).map_err(|e| failed(to, &e))?;
    for entry in fs::read_dir(from).map_err(|e| failed(from, &e))? {
        let entry = entry.map_err(|e| failed(from, &e))?;
        let name = rename(&entry.file_name().to_string_lossy());
        copy(&entry.path(), &to.join(name), rename, failed)?;
    }
    Ok(())
}

/// Copies a tree as it is.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    copy(from, to, &str::to_owned, &mut |path, e| Failure::host_io("cannot copy", path, e))
}

/// SHA-256 of a saved state: `world.json`, and every name and every byte below `fs`.
pub(super) fn sum(saved: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    add_to_sum(&mut hash, &saved.join("world.json"))?;
    // A world that has never been powered on has no files.
    let files = saved.join("fs");
    if files.is_dir() {
        add_to_sum(&mut hash, &files)?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add_to_sum(hash: &mut Sha256, path: &Path) -> Result<()> {
    let failed = |e: &std::io::Error| Failure::host_io("cannot read", path, e);
    // Lengths before contents, so that nothing can be shifted from one into the next.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| failed(&e))?;
        let mut entries = entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|e| failed(&e))?;
        entries.sort();
        hash.update((entries.len() as u64).to_le_bytes());
        return entries.iter().try_for_each(|entry| add_to_sum(hash, entry));
    }
    let content = fs::read(path).map_err(|e| failed(&e))?;
    hash.update((content.len() as u64).to_le_bytes());
    hash.update(&content);
    Ok(())
}

/// Removes a tree; none there is as good.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::host_io("cannot remove", path, &e)),
        _ => Ok(()),
    }
}

fn make_parents(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| Failure::host_io("cannot make", parent, &e))
}

fn describe(at: &Path, name: &str) -> std::io::Result<FileInfo> {
    let meta = fs::metadata(at)?;
    let modified = meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64);
    let directory = meta.is_dir();
    Ok(FileInfo {
        name: name.to_owned(),
        size: if directory { 0 } else { meta.len() },
        modified,
        directory,
        symlink: false,
    })
}

/// A guest's file name as every host can have it: `%` and two hexadecimal digits for what some host cannot.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let last = name.len().saturating_sub(1);
    for (at, c) in name.char_indices() {
        let bad = matches!(c, '%' | '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\\') || c.is_ascii_control();
        // Windows drops dots and spaces at the end of a name, and its devices are reserved with any extension.
        let bad = bad || (at == last && matches!(c, '.' | ' ')) || (at == 0 && is_device(name));
        if bad { out.push_str(&format!("%{:02X}", c as u32)) } else { out.push(c) }
    }
    out
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    let numbered = |prefix: &str| stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n != "0");
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

impl Machine {
    /// Whether a program may be started.
    pub(super) fn may_execute(&self, path: &str) -> bool {
        program::is_installed(path) || self.executable.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_host_cannot_have_come_back_whole() {
        for name in ["plain.txt", "a:b", "con", "COM1.txt", "dot.", "50%", "%41", "a\\b", "tab\there", "ümlaut "] {
            let escaped = escape(name);
            assert_eq!(unescape(&escaped), name);
            assert!(!escaped.contains([':', '\\', '\t']), "{escaped}");
        }
        assert_eq!(escape("plain.txt"), "plain.txt");
    }

    #[test]
    fn paths_cannot_leave_the_guest() {
        assert_eq!(normal("/../../etc//./passwd"), Ok("/etc/passwd".to_owned()));
        assert!(normal("relative").is_err());
    }
}
