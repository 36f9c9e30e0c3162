//! The way to the host: one stream of bytes in both directions, that never makes the agent wait.
//!
//! A virtio-serial port whose host is away reads as an end and refuses what is written; when somebody connects, both change
//! and there is an event. So neither state is an error, and an end is the end only of a pipe.

use crate::sys::{self, Borrowed, Errno, Poll};

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing until the next event.
    Nothing,
    /// The other side is away, or has gone for good.
    End,
}

/// Both directions, with what is known of them since the last event.
#[derive(Debug)]
pub struct Port {
    input: Borrowed,
    output: Borrowed,
    readable: bool,
    writable: bool,
}

impl Port {
    /// The port over these two descriptors, which may be one. Its events come under the number `which`.
    ///
    /// # Errors
    /// As the kernel's: a regular file is refused with `EPERM`.
    pub fn new(input: Borrowed, output: Borrowed, poll: &Poll, which: u64) -> sys::Result<Self> {
        for end in [Some(input), (output != input).then_some(output)].into_iter().flatten() {
            sys::set_nonblocking(end)?;
            poll.add(end, which)?;
        }
        Ok(Self { input, output, readable: true, writable: true })
    }

    /// An event has come: both directions are worth another try.
    pub fn wake(&mut self) {
        self.readable = true;
        self.writable = true;
    }

    /// Reads what there is, into the room that there is.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn read(&mut self, room: &mut [u8]) -> sys::Result<Got> {
        if !self.readable || room.is_empty() {
            return Ok(Got::Nothing);
        }
        match sys::read(self.input, room) {
            Ok(0) => {
                self.readable = false;
                Ok(Got::End)
            }
            Ok(got) => Ok(Got::Bytes(got)),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(Got::Nothing)
            }
            Err(Errno::INTR) => Ok(Got::Bytes(0)),
            Err(error) => Err(error),
        }
    }

    /// Writes as much as is taken now: how much that was. None of it is lost where the host is away.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn write(&mut self, bytes: &[u8]) -> sys::Result<usize> {
        if !self.writable || bytes.is_empty() {
            return Ok(0);
        }
        match sys::write(self.output, bytes) {
            Ok(took) => Ok(took),
            Err(Errno::AGAIN) => {
                self.writable = false;
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }
}
