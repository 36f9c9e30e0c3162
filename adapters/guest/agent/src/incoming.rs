//! A file on its way in: written beside where it is to be, and put in its place by one rename when it is whole.

use core::ffi::CStr;

use crate::files::{Refusal, Work};
use crate::sys::{self, Errno, Fd, Open};
use crate::text::Path;

/// One at a time. In the working directory itself: a rename stays in one file system.
const PART: &CStr = c".vmtask-incoming";

/// Why a file cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutError {
    /// Something is wrong with the name.
    Name(Refusal),
    /// There are only so many bytes free.
    NoSpace(u64),
    Kernel(Errno),
}

impl From<Refusal> for PutError {
    fn from(refusal: Refusal) -> Self {
        Self::Name(refusal)
    }
}

impl From<Errno> for PutError {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

/// The file, until it is put in place. Dropped before that, it is gone.
#[derive(Debug)]
pub struct Incoming {
    work: Fd,
    part: Fd,
    dir: Fd,
    name: Path,
    mode: u32,
    in_place: bool,
}

impl Incoming {
    /// Begins a file of `size` bytes; the directories on the way to it are made.
    ///
    /// # Errors
    /// See [`PutError`]. Room is looked for before any byte is asked for: a host that is still sending does not hear.
    pub fn new(work: &Work, name: &[u8], size: u64, mode: u32) -> Result<Self, PutError> {
        let (dir, name) = work.parent_of(name)?;
        let free = work.free()?;
        if size > free {
            return Err(PutError::NoSpace(free));
        }
        let work = work.open()?;
        // Of a boot before, on a disk.
        let _ = sys::unlink(*work, PART);
        let part = sys::open_at(*work, PART, Open::WRITE | Open::NEW | Open::NO_FOLLOW, 0o600)?;
        Ok(Self { work, part, dir, name, mode: mode & 0o7777, in_place: false })
    }

    /// Adds bytes at its end.
    ///
    /// # Errors
    /// [`PutError::NoSpace`] where the program has taken the room meanwhile, and what else the kernel says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        sys::write_all(*self.part, bytes).map_err(|error| match error {
            Errno::NOSPC => PutError::NoSpace(0),
            error => PutError::Kernel(error),
        })
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// As the kernel's: a directory has that name.
    pub fn finish(mut self) -> Result<(), PutError> {
        sys::change_mode(*self.part, self.mode)?;
        sys::rename(*self.work, PART, *self.dir, self.name.as_c())?;
        self.in_place = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.in_place {
            let _ = sys::unlink(*self.work, PART);
        }
    }
}
