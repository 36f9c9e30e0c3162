//! Files in the working directory, by names that come from the host.
//!
//! A link is followed as long as it leads to something in the working directory. That is asked of what was opened, and not of
//! the name: the program may change the one for the other at any moment. Nothing that is no regular file is ever opened
//! beyond naming it, so no FIFO makes the agent wait and no device notices.

use core::ffi::CStr;

use crate::sys::{self, Borrowed, Errno, Fd, Open, Stat};
use crate::text::{self, Path};

/// Why a name is not a file that can be read or put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such name.
    Nothing,
    /// It is there, and is this.
    Not(Kind),
    /// It leads out of the working directory.
    Outside,
    /// The kernel's word.
    Kernel(Errno),
}

/// What a name can stand for besides a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Whose target is not there, or which leads in a circle.
    DeadLink,
    Fifo,
    Socket,
    Device,
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Nothing,
            error => Self::Kernel(error),
        }
    }
}

/// A file that was found in the working directory.
#[derive(Debug)]
pub struct Found {
    /// Names it, and does not read it: [`reopen`].
    pub file: Fd,
    pub size: u64,
    pub mode: u32,
}

/// Finds a regular file in the working directory.
///
/// # Errors
/// What is wrong with the name.
pub fn find(work: &Work, name: &[u8]) -> Result<Found, Refusal> {
    let file = open_path(work.join(name)?.as_c())?;
    if work.contains(*file)? { found(file) } else { Err(Refusal::Outside) }
}

/// Finds a regular file by an absolute name.
///
/// # Errors
/// What is wrong with the name.
pub fn find_anywhere(path: &CStr) -> Result<Found, Refusal> {
    found(open_path(path)?)
}

fn open_path(path: &CStr) -> Result<Fd, Refusal> {
    match sys::open(path, Open::PATH) {
        Ok(file) => Ok(file),
        Err(Errno::LOOP) => Err(Refusal::Not(Kind::DeadLink)),
        // A name that is there all the same is a link without a target.
        Err(Errno::NOENT) if sys::open(path, Open::PATH | Open::NO_FOLLOW).is_ok() => Err(Refusal::Not(Kind::DeadLink)),
        Err(error) => Err(error.into()),
    }
}

fn found(file: Fd) -> Result<Found, Refusal> {
    let stat = sys::stat(*file)?;
    check_regular(&stat)?;
    Ok(Found { file, size: stat.size.cast_unsigned(), mode: stat.mode })
}

fn check_regular(stat: &Stat) -> Result<(), Refusal> {
    let kind = match stat.kind() {
        0o100_000 => return Ok(()),
        0o040_000 => Kind::Directory,
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        _ => Kind::Device,
    };
    Err(Refusal::Not(kind))
}

/// Opens what was found for reading.
///
/// # Errors
/// As the kernel's.
pub fn reopen(found: &Found) -> sys::Result<Fd> {
    sys::open(text::path_of(*found.file)?.as_c(), Open::READ | Open::NO_TERMINAL)
}

/// The working directory.
#[derive(Debug)]
pub struct Work {
    path: Path,
}

impl Work {
    /// The directory of this absolute name.
    ///
    /// # Errors
    /// A name that is too long.
    pub fn new(name: &CStr) -> sys::Result<Self> {
        Ok(Self { path: Path::new(&[name.to_bytes()])? })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of something in it.
    ///
    /// # Errors
    /// A name that is too long.
    pub fn join(&self, name: &[u8]) -> sys::Result<Path> {
        Path::new(&[self.path.as_bytes(), b"/", name])
    }

    /// The directory itself.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn open(&self) -> sys::Result<Fd> {
        sys::open(self.path.as_c(), Open::READ | Open::DIRECTORY)
    }

    /// Whether an open file, or a directory, is in it by now, or is the directory itself.
    fn contains(&self, fd: Borrowed) -> sys::Result<bool> {
        let mut room = [0; 4096];
        let used = sys::read_link(sys::HERE, text::path_of(fd)?.as_c(), &mut room)?;
        let real = room.get(..used).unwrap_or_default();
        Ok(match real.strip_prefix(self.path.as_bytes()) {
            Some([]) => true,
            Some([first, ..]) => *first == b'/',
            None => false,
        })
    }

    /// The directory that a file of this name is to be in, made if need be, and the rest of the name.
    ///
    /// # Errors
    /// Where something is in the way, it leads out of the working directory, or there is no room.
    pub fn parent_of(&self, name: &[u8]) -> Result<(Fd, Path), Refusal> {
        let mut dir = sys::open(self.path.as_c(), Open::PATH | Open::DIRECTORY)?;
        let mut words = name.split(|byte| *byte == b'/').peekable();
        while let Some(word) = words.next() {
            let word = Path::new(&[word])?;
            if words.peek().is_none() {
                return if self.contains(*dir)? { Ok((dir, word)) } else { Err(Refusal::Outside) };
            }
            // Made only in what is inside: a link on the way may lead anywhere.
            if !self.contains(*dir)? {
                return Err(Refusal::Outside);
            }
            match sys::make_dir(*dir, word.as_c(), 0o755) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Refusal::Kernel(error)),
            }
            dir = sys::open_at(*dir, word.as_c(), Open::PATH | Open::DIRECTORY, 0)?;
        }
        Err(Refusal::Nothing)
    }

    /// Bytes of room on its file system.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn free(&self) -> sys::Result<u64> {
        let stat = sys::stat_fs(*self.open()?)?;
        Ok(stat.available.saturating_mul(stat.block.cast_unsigned()))
    }
}
