//! Where outputs go on the host: below one directory, never through a link, whole or not at all.
//!
//! The names come from the task, and what was in the directory may come from an earlier, hostile guest's output. So every
//! component is opened relative to the one before with O_NOFOLLOW, and what is written gets its name last.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

/// A place for one file.
#[derive(Debug)]
pub(crate) struct Place {
    dir: OwnedFd,
    name: String,
}

impl Place {
    /// The place `path` below `root`. Missing directories are made.
    ///
    /// # Errors
    /// If a directory cannot be made, or something on the way is no directory, or a link.
    pub(crate) fn below(root: &Path, path: &str) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut dir = rustix::fs::open(root, flags, Mode::empty())?;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            // The spec was checked; this holds whoever forgets to.
            if matches!(part, "" | "." | "..") {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain relative path"));
            }
            if parts.peek().is_none() {
                return Ok(Self { dir, name: part.to_owned() });
            }
            match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            dir = rustix::fs::openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty path"))
    }

    fn part(&self) -> String {
        // Names may be as long as the file system allows, so ours does not contain it.
        let short: String = self.name.chars().take(40).collect();
        format!(".{short}.vmtask-part")
    }

    /// An empty file beside the place.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn begin(&self) -> io::Result<File> {
        let _ = rustix::fs::unlinkat(&self.dir, self.part(), AtFlags::empty());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.dir, self.part(), flags, Mode::from_raw_mode(0o666))?;
        Ok(File::from(file))
    }

    /// Puts what was begun, and flushed by the caller, in its place. [`Place::settle`] makes that durable.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(crate) fn finish(&self) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.dir, self.part(), &self.dir, self.name.as_str())?)
    }

    /// Makes durable what is in its place.
    ///
    /// # Errors
    /// If it is not certain that it is.
    pub(crate) fn settle(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    /// Drops what was begun.
    pub(crate) fn abandon(&self) {
        let _ = rustix::fs::unlinkat(&self.dir, self.part(), AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("results");
        let place = Place::below(&root, "a/b/out.txt").unwrap();
        place.begin().unwrap().write_all(b"half").unwrap();
        assert!(!root.join("a/b/out.txt").exists());
        place.begin().unwrap().write_all(b"whole").unwrap();
        place.finish().unwrap();
        assert_eq!(std::fs::read(root.join("a/b/out.txt")).unwrap(), b"whole");
        place.begin().unwrap();
        place.abandon();
        assert_eq!(std::fs::read_dir(root.join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("results");
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        symlink(&outside, root.join("way-out")).unwrap();
        assert!(Place::below(&root, "way-out/x").is_err());
        // A link in the file's own place is replaced, not followed.
        std::fs::write(outside.join("precious"), "precious").unwrap();
        symlink(outside.join("precious"), root.join("x")).unwrap();
        let place = Place::below(&root, "x").unwrap();
        place.begin().unwrap().write_all(b"output").unwrap();
        place.finish().unwrap();
        assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"precious");
        assert_eq!(std::fs::read(root.join("x")).unwrap(), b"output");
    }

    #[rstest]
    #[case("../x")]
    #[case("a/../../x")]
    #[case("/etc/x")]
    #[case("")]
    #[case("a/")]
    fn no_path_leaves_the_directory(#[case] path: &str) {
        let dir = tempfile::tempdir().unwrap();
        assert!(Place::below(&dir.path().join("results"), path).is_err());
    }
}
