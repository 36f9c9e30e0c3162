//! Reading what is too large to be read without looking up, and hashing what is written while it is.

use std::fmt;
use std::io::{self, Read, Write};

use sha2::Digest as _;

use crate::digest::Digest;

/// A reader that goes on only as long as `go_on` says so, which is asked before each read.
#[derive(Debug)]
pub struct Stoppable<R, F> {
    reader: R,
    go_on: F,
}

impl<R, F: FnMut() -> bool> Stoppable<R, F> {
    /// Reads from `reader`. Told to stop, it fails with [`io::ErrorKind::TimedOut`].
    pub fn new(reader: R, go_on: F) -> Self {
        Self { reader, go_on }
    }
}

impl<R: Read, F: FnMut() -> bool> Read for Stoppable<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.go_on)() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "there was no time to read it all"));
        }
        self.reader.read(buffer)
    }
}

/// A writer that makes the SHA-256 of what it passes on.
pub struct Hashing<W> {
    writer: W,
    hasher: sha2::Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    /// Passes on to `writer`.
    pub fn new(writer: W) -> Self {
        Self { writer, hasher: sha2::Sha256::new(), bytes: 0 }
    }

    /// How many bytes were passed on, and their digest. It is of what the writer has taken, and so of what was meant: what
    /// the disk makes of it is not read back.
    #[must_use]
    pub fn finish(self) -> (u64, Digest) {
        (self.bytes, Digest::from(<[u8; 32]>::from(self.hasher.finalize())))
    }
}

impl<W> fmt::Debug for Hashing<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashing").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
