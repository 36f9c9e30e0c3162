//! Reading what is too large to be read without looking up.

use std::io::{self, Read};

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
