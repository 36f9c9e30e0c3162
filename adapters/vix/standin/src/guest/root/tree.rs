//! Files below a root that somebody hostile may arrange: every path is resolved as a program in there would resolve it.
//!
//! The kernel does it (`openat2` with `RESOLVE_IN_ROOT`): `..` stops at the root, absolute links start there, and no
//! link, however quickly it is changed, leads out. What is opened may still be a pipe that blocks or a device that never
//! ends, so only regular files are copied.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use vmtask_vix_abi::error_code;

use crate::failure::Failure;
use crate::guest::{FileInfo, Result};

/// See the module.
pub(super) struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens a root: a directory, or the link `/proc/PID/root`.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens what a path leads to.
    pub(super) fn open_file(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        // The kernel may ask to try again when something is moved while it resolves `..`.
        for _ in 0..100 {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT) {
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// The directory that holds what a path names, and its name in there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a Path)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let fd = self.open_file(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((fd, Path::new(name)))
    }

    /// What a path names, without following it if it is a link.
    pub(super) fn stat_link(&self, path: &Path) -> io::Result<Stat> {
        if path.file_name().is_none() {
            return self.stat(path);
        }
        let (dir, name) = self.parent(path)?;
        Ok(rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// What a path leads to.
    pub(super) fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.open_file(path, OFlags::PATH, Mode::empty())?)?)
    }

    /// The content of a small file.
    pub(super) fn read(&self, path: &Path) -> io::Result<String> {
        let file = self.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        if !is(&rustix::fs::fstat(&file)?, FileType::RegularFile) {
            return Err(Errno::INVAL.into());
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(File::from(file), 1 << 20), &mut text)?;
        Ok(text)
    }

    /// Makes one directory.
    pub(super) fn make_one(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
        Ok(())
    }

    /// Writes a new file.
    pub(super) fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(path, flags, Mode::from_raw_mode(0o600))?;
        io::Write::write_all(&mut File::from(file), content)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The guest's file operations: see [`crate::guest::Guest`].
impl Tree {
    pub(super) fn make_directory(&self, path: &str) -> Result<()> {
        let failed = |e: io::Error| Failure::guest_io("cannot make the directory", path, &e);
        let at = absolute(path)?;
        if self.stat_link(at).is_ok() {
            return Err(failed(Errno::EXIST.into()));
        }
        for above in at.ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
            match self.make_one(above) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && above != at => {}
                other => other.map_err(failed)?,
            }
        }
        Ok(())
    }

    pub(super) fn remove_directory(&self, path: &str) -> Result<()> {
        let failed = |e: io::Error| Failure::guest_io("cannot remove the directory", path, &e);
        let at = absolute(path)?;
        if !is(&self.stat_link(at).map_err(failed)?, FileType::Directory) {
            return Err(failed(Errno::NOTDIR.into()));
        }
        let (dir, name) = self.parent(at).map_err(failed)?;
        // The first step is a descriptor of ours; from there std follows no link.
        let through = format!("/proc/self/fd/{}", dir.as_raw_fd());
        fs::remove_dir_all(Path::new(&through).join(name)).map_err(failed)
    }

    pub(super) fn remove_file(&self, path: &str) -> Result<()> {
        let failed = |e: io::Error| Failure::guest_io("cannot remove", path, &e);
        let at = absolute(path)?;
        if is(&self.stat_link(at).map_err(failed)?, FileType::Directory) {
            return Err(failed(Errno::ISDIR.into()));
        }
        let (dir, name) = self.parent(at).map_err(failed)?;
        rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(|e| failed(e.into()))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let failed = |e: io::Error| Failure::guest_io("cannot rename", from, &e);
        let (source, target) = (absolute(from)?, absolute(to)?);
        let ((dir, name), (to_dir, to_name)) =
            (self.parent(source).map_err(failed)?, self.parent(target).map_err(failed)?);
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(&dir, name, &to_dir, to_name, flags).map_err(|e| failed(e.into()))
    }

    pub(super) fn info(&self, path: &str) -> Result<FileInfo> {
        let at = absolute(path)?;
        let name = at.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A link that leads nowhere is no file.
        let found = self.stat(at).and_then(|_| self.describe(at, name));
        found.map_err(|e| Failure::guest_io("cannot look at", path, &e))
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        let failed = |e: io::Error| Failure::guest_io("cannot list", path, &e);
        let at = absolute(path)?;
        let mut found = Vec::new();
        for name in self.names(at).map_err(failed)? {
            match self.describe(&at.join(&name), name.to_string_lossy().into_owned()) {
                // It went away meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => found.push(other.map_err(failed)?),
            }
        }
        Ok(found)
    }

    fn describe(&self, at: &Path, name: String) -> io::Result<FileInfo> {
        let link = self.stat_link(at)?;
        let symlink = is(&link, FileType::Symlink);
        let stat = if symlink { self.stat(at).unwrap_or(link) } else { link };
        let directory = is(&stat, FileType::Directory);
        let size = if directory { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
        Ok(FileInfo { name, size, modified: stat.st_mtime, directory, symlink })
    }

    pub(super) fn copy_in(&self, host: &Path, guest: &str) -> Result<()> {
        self.copy_in_at(host, absolute(guest)?)
    }

    fn copy_in_at(&self, host: &Path, guest: &Path) -> Result<()> {
        let reading = |e: io::Error| Failure::host_io("cannot copy into the guest", host, &e);
        let writing = |e: io::Error| Failure::guest_io("cannot write", &guest.to_string_lossy(), &e);
        if fs::metadata(host).map_err(reading)?.is_dir() {
            match self.make_one(guest) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(writing)?,
            }
            for entry in fs::read_dir(host).map_err(reading)? {
                let name = entry.map_err(reading)?.file_name();
                self.copy_in_at(&host.join(&name), &guest.join(&name))?;
            }
            return Ok(());
        }
        let mut source = File::open(host).map_err(reading)?;
        let mut target = self.create(guest).map_err(writing)?;
        io::copy(&mut source, &mut target).map(drop).map_err(writing)
    }

    /// A file to write to: new or emptied, and not executable whatever it was before.
    fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(0o644);
        let file = match self.open_file(path, flags, mode) {
            // It is being executed: the program keeps the old one.
            Err(e) if e.raw_os_error() == Some(Errno::TXTBSY.raw_os_error()) => {
                let (dir, name) = self.parent(path)?;
                rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
                self.open_file(path, flags, mode)?
            }
            other => other?,
        };
        if !is(&rustix::fs::fstat(&file)?, FileType::RegularFile) {
            return Err(Errno::ISDIR.into());
        }
        rustix::fs::fchmod(&file, mode)?;
        rustix::fs::ftruncate(&file, 0)?;
        Ok(File::from(file))
    }

    pub(super) fn copy_out(&self, guest: &str, host: &Path) -> Result<()> {
        let at = absolute(guest)?;
        let failed = |e: io::Error| Failure::guest_io("cannot copy out of the guest", guest, &e);
        let directory = is(&self.stat(at).map_err(failed)?, FileType::Directory);
        if directory { self.copy_out_directory(at, host) } else { self.copy_out_file(at, host) }
    }

    fn copy_out_file(&self, guest: &Path, host: &Path) -> Result<()> {
        let reading = |e: io::Error| Failure::guest_io("cannot copy out of the guest", &guest.to_string_lossy(), &e);
        let writing = |e: io::Error| Failure::host_io("cannot write", host, &e);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let source = self.open_file(guest, flags, Mode::empty()).map_err(reading)?;
        if !is(&rustix::fs::fstat(&source).map_err(|e| reading(e.into()))?, FileType::RegularFile) {
            return Err(reading(Errno::ISDIR.into()));
        }
        let mut target = File::create(host).map_err(writing)?;
        io::copy(&mut File::from(source), &mut target).map(drop).map_err(writing)
    }

    /// Links to directories are left out: two that lead upwards would make a tree without end.
    fn copy_out_directory(&self, guest: &Path, host: &Path) -> Result<()> {
        let reading = |e: io::Error| Failure::guest_io("cannot copy out of the guest", &guest.to_string_lossy(), &e);
        fs::create_dir_all(host).map_err(|e| Failure::host_io("cannot make", host, &e))?;
        for name in self.names(guest).map_err(reading)? {
            let (from, to) = (guest.join(&name), host.join(&name));
            let link = self.stat_link(&from).map_err(reading)?;
            if is(&link, FileType::Directory) {
                self.copy_out_directory(&from, &to)?;
            } else if self.stat(&from).is_ok_and(|stat| is(&stat, FileType::RegularFile)) {
                self.copy_out_file(&from, &to)?;
            }
        }
        Ok(())
    }
}

/// Whether something is of a kind.
pub(super) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// A guest's path, which must be absolute and name something.
pub(super) fn absolute(path: &str) -> Result<&Path> {
    let named = path == "/" || Path::new(path).file_name().is_some();
    if path.starts_with('/') && named && !path.contains('\0') {
        return Ok(Path::new(path));
    }
    let why = format!("{path:?} is not the absolute path of a file in the guest");
    Err(Failure::in_guest(error_code::FILE_NAME_INVALID, why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A root with links out of it in every form, beside a file that must stay as it is and unread.
    fn trap() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("d")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink(outside.join("secret"), root.join("file")).unwrap();
        symlink("..", root.join("d/up")).unwrap();
        let tree = Tree::open(&root).unwrap();
        (dir, tree)
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        let (dir, tree) = trap();
        let to = dir.path().join("copy");
        for path in ["/absolute/secret", "/relative/secret", "/file", "/../outside/secret", "/d/up/../outside/secret"] {
            assert!(tree.copy_out(path, &to).is_err(), "{path} was read");
            assert!(tree.info(path).is_err(), "{path} was seen");
            assert!(!to.exists());
        }
        let source = dir.path().join("source");
        fs::write(&source, "new").unwrap();
        for path in ["/absolute/secret", "/relative/secret", "/file", "/../outside/secret"] {
            let _ = tree.copy_in(&source, path);
            let _ = tree.remove_file(path);
            let _ = tree.rename(path, "/stolen");
            let _ = tree.make_directory(&format!("{path}.d"));
            let _ = tree.remove_directory(Path::new(path).parent().unwrap().to_str().unwrap());
        }
        let left: Vec<_> = fs::read_dir(dir.path().join("outside")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"]);
        assert_eq!(fs::read_to_string(dir.path().join("outside/secret")).unwrap(), "secret");
    }

    #[test]
    fn a_tree_that_links_to_itself_is_copied_once() {
        let (dir, tree) = trap();
        fs::write(dir.path().join("root/d/x"), "x").unwrap();
        let to = dir.path().join("copy");
        tree.copy_out("/d", &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("x")).unwrap(), "x");
        assert!(!to.join("up").exists());
    }

    #[test]
    fn links_within_the_root_are_followed_as_a_program_would() {
        let (dir, tree) = trap();
        let root = dir.path().join("root");
        fs::write(root.join("d/x"), "x").unwrap();
        symlink("/d/x", root.join("to-x")).unwrap();
        let info = tree.info("/to-x").unwrap();
        assert!(info.symlink && info.size == 1);
        tree.copy_out("/to-x", &dir.path().join("copy")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("copy")).unwrap(), "x");
    }

    #[test]
    fn a_copy_is_not_executable_even_over_a_program() {
        let (dir, tree) = trap();
        let (source, target) = (dir.path().join("source"), dir.path().join("root/d/prog"));
        fs::write(&source, "#!/bin/sh").unwrap();
        fs::write(&target, "a longer one before").unwrap();
        for file in [&source, &target] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree.copy_in(&source, "/d/prog").unwrap();
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_to_string(&target).unwrap(), "#!/bin/sh");
    }

    #[test]
    fn a_pipe_does_not_block_a_copy() {
        let (dir, tree) = trap();
        let root = rustix::fs::open(dir.path().join("root"), OFlags::DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::mknodat(&root, "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(tree.copy_out("/pipe", &dir.path().join("copy")).is_err());
        assert!(tree.copy_in(&dir.path().join("outside/secret"), "/pipe").is_err());
    }

    #[test]
    fn what_must_not_be_there_and_what_must_are_told_apart() {
        let (_dir, tree) = trap();
        let code = |result: Result<()>| result.unwrap_err().code();
        tree.make_directory("/a/b/c").unwrap();
        assert_eq!(code(tree.make_directory("/a/b")), error_code::FILE_ALREADY_EXISTS);
        assert_eq!(code(tree.rename("/a/b", "/d")), error_code::FILE_ALREADY_EXISTS);
        assert_eq!(code(tree.remove_file("/a")), error_code::NOT_A_FILE);
        assert_eq!(code(tree.remove_directory("/file")), error_code::NOT_A_DIRECTORY);
        assert_eq!(code(tree.remove_file("/none")), error_code::FILE_NOT_FOUND);
        assert_eq!(code(tree.list("/none").map(drop)), error_code::FILE_NOT_FOUND);
        assert_eq!(code(tree.info("relative").map(drop)), error_code::FILE_NAME_INVALID);
        tree.remove_directory("/a").unwrap();
    }
}
