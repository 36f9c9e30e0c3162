//! Where outputs go on the host: below one directory, never through a link, whole or not at all.
//!
//! VIX writes a file by its path, so nothing can be held open against swapping. But nobody else writes to a task's results:
//! what is looked for here is what an earlier output could have left.

use std::io;
use std::path::{Path, PathBuf};

use crate::tree;

/// A place for one file.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    name: String,
}

impl Place {
    /// The place `path` below `root`. Missing directories are made.
    ///
    /// # Errors
    /// If a directory cannot be made, or something on the way is no directory, or a link.
    pub(crate) fn below(root: &Path, path: &str) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let mut dir = root.to_owned();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            // The spec was checked; this holds whoever forgets to.
            if matches!(part, "" | "." | "..") {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain relative path"));
            }
            if parts.peek().is_none() {
                return Ok(Self { dir, name: part.to_owned() });
            }
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            if !std::fs::symlink_metadata(&dir)?.is_dir() {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no directory", dir.display())));
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty path"))
    }

    /// A name beside the place that nothing has.
    pub(crate) fn begin(&self) -> io::Result<PathBuf> {
        // Names may be as long as the file system allows, so ours does not contain it.
        let short: String = self.name.chars().take(40).collect();
        let part = self.dir.join(format!(".{short}.vmtask-part"));
        tree::unlink(&part)?;
        Ok(part)
    }

    /// Puts a file, which the caller has flushed, in its place. [`Place::settle`] makes that durable.
    pub(crate) fn finish(&self, part: &Path) -> io::Result<()> {
        std::fs::rename(part, self.dir.join(&self.name))
    }

    /// Makes durable what is in its place.
    pub(crate) fn settle(&self) -> io::Result<()> {
        tree::sync_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("results");
        let place = Place::below(&root, "a/b/out.txt").unwrap();
        let part = place.begin().unwrap();
        std::fs::write(&part, "half").unwrap();
        assert!(!root.join("a/b/out.txt").exists());
        let part = place.begin().unwrap();
        assert!(!part.exists(), "a new attempt begins with nothing");
        std::fs::write(&part, "whole").unwrap();
        place.finish(&part).unwrap();
        assert_eq!(std::fs::read(root.join("a/b/out.txt")).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(root.join("a/b")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("results"), dir.path().join("outside"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        symlink(&outside, root.join("way-out")).unwrap();
        assert!(Place::below(&root, "way-out/x").is_err());
        // A link in the file's own place is replaced, not followed.
        std::fs::write(outside.join("precious"), "precious").unwrap();
        symlink(outside.join("precious"), root.join("x")).unwrap();
        let place = Place::below(&root, "x").unwrap();
        let part = place.begin().unwrap();
        std::fs::write(&part, "output").unwrap();
        place.finish(&part).unwrap();
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
