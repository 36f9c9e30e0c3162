//! What is at the other end of the descriptors that QEMU writes its state to and reads it from.
//!
//! **Nothing here waits for longer than QEMU lives.** The packing thread reads until QEMU closes its end, which it does when
//! it is done, when it fails, and when it dies. The feeding thread writes until QEMU has read all or closes its end. A
//! command that waits for either has its deadline: then it is fenced, which kills QEMU, and both threads come to their end.
//!
//! **QEMU waits for the packing thread, and so may the guest:** a page that it is about to change is first written. If
//! anything fails here, the thread goes on to read and throws away what comes, since a stream that cannot be written to has
//! killed the guest: a full disk costs the checkpoint, and not the machine. A disk that hangs holds the guest until the
//! command's deadline, as it would if QEMU wrote to it. A thread that is gone closes its end: QEMU's stream fails, and the
//! machine is given up as one whose stream has failed.
//!
//! Each direction holds less than 2 MB, whatever the guest's memory: a block of 256 KiB before and after packing, a buffer
//! of as much, the pipe's megabyte. Saving also holds two bits for each page, and the devices' state (0.1 MB, 64 MiB at most).

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use vmtask_core::FaultKind;
use vmtask_driver::kit::{Hashing, io_kind};

use super::template::BaseMemory;
use super::thin::{Counts, Template, ThinError, thin};
use crate::checkpoint::Packed;

const BUFFER: usize = 256 << 10;
/// What a user without privileges may ask for. With less, QEMU and the thread take turns more often.
const PIPE: usize = 1 << 20;

/// Why a stream was not packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// It was not thinned, or not written.
    #[error(transparent)]
    Thin(#[from] ThinError),
    /// It was not flushed.
    #[error("flushing it: {0}")]
    Flush(io::Error),
    /// The thread is gone.
    #[error("the thread that packed it has panicked; please report it")]
    Gone,
}

impl PackError {
    /// What it means for the core. The guest is as well as before in any case.
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Self::Thin(ThinError::Write(error)) | Self::Flush(error) => io_kind(error),
            _ => FaultKind::Refused,
        }
    }
}

/// A stream that is being packed.
pub(crate) enum Packing {
    /// By a thread that reads what QEMU writes, while it does. Nothing else is written.
    Beside(JoinHandle<Result<Packed, PackError>>),
    /// Once QEMU has written it. A guest that stands still meanwhile is held for no longer than the plain stream takes.
    After(File, Option<Arc<BaseMemory>>),
}

impl Packing {
    /// Packs into `file`, which is written from its beginning, cut off behind its last byte and flushed. Returned with it
    /// is the end that QEMU writes to. It must be closed here once QEMU has it.
    ///
    /// # Errors
    /// If the system gives no pipe or no thread.
    pub(crate) fn beside(file: File, base: Option<Arc<BaseMemory>>) -> io::Result<(Self, File)> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Only faster.
        let _ = rustix::pipe::fcntl_setpipe_size(&ours, PIPE);
        let run = move || {
            let mut stream = BufReader::with_capacity(BUFFER, File::from(ours));
            let packed = pack(&mut stream, &file, base.as_deref().map(BaseMemory::template));
            let packed = packed.and_then(|packed| settle(&file, packed));
            if let Err(error) = &packed {
                tracing::warn!(%error, "the checkpoint comes to nothing; reading what QEMU still writes of it");
                let _ = io::copy(&mut stream, &mut io::sink());
            }
            packed
        };
        let thread = thread::Builder::new().name("qemu-pack".into()).spawn(run)?;
        Ok((Self::Beside(thread), File::from(theirs)))
    }

    /// The same, but that `file` itself is for QEMU to write to, and is packed in its place afterwards.
    ///
    /// # Errors
    /// If the system gives no descriptor.
    pub(crate) fn after(file: File, base: Option<Arc<BaseMemory>>) -> io::Result<(Self, File)> {
        let theirs = file.try_clone()?;
        Ok((Self::After(file, base), theirs))
    }

    /// Waits until all of it is flushed. QEMU is done, or dead.
    ///
    /// # Errors
    /// Why there is no checkpoint.
    pub(crate) fn finish(self) -> Result<Packed, PackError> {
        match self {
            Self::Beside(thread) => thread.join().unwrap_or(Err(PackError::Gone)),
            Self::After(file, base) => pack_in_place(&file, base.as_deref().map(BaseMemory::template)),
        }
    }
}

fn pack(stream: impl Read, to: impl Write, template: Option<Template<'_>>) -> Result<Packed, PackError> {
    let info = FrameInfo::new().block_size(BlockSize::Max256KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Hashing::new(to));
    let Counts { kept, dropped } = thin(stream, &mut encoder, template)?;
    let hashing = encoder.finish().map_err(|error| ThinError::Write(error.into()))?;
    let (bytes, sha256) = hashing.finish();
    tracing::debug!(kept, dropped, bytes, "a stream is packed");
    Ok(Packed { bytes, sha256 })
}

/// Cuts off what was reserved and not used, and flushes.
fn settle(file: &File, packed: Packed) -> Result<Packed, PackError> {
    file.set_len(packed.bytes).and_then(|()| file.sync_all()).map_err(PackError::Flush)?;
    Ok(packed)
}

/// Packs what QEMU has written to a file into the same file, from its beginning.
fn pack_in_place(file: &File, template: Option<Template<'_>>) -> Result<Packed, PackError> {
    // QEMU had a copy of the descriptor, and copies share their position: it stands behind the stream's last byte.
    let end = rustix::fs::tell(file).map_err(|error| ThinError::Read(error.into()))?;
    let read = Cell::new(0);
    let stream = BufReader::with_capacity(BUFFER, Ahead { file, read: &read, end });
    let mut behind = Behind { file, read: &read, written: 0, waiting: Vec::new() };
    let packed = pack(stream, &mut behind, template)?;
    behind.write_up_to(u64::MAX).map_err(ThinError::Write)?;
    settle(file, packed)
}

/// Reads a file whose beginning is written anew.
struct Ahead<'a> {
    file: &'a File,
    read: &'a Cell<u64>,
    end: u64,
}

impl Read for Ahead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.read.get();
        let most = buffer.len().min(usize::try_from(self.end - at).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..most], at)?;
        self.read.set(at + got as u64);
        Ok(got)
    }
}

/// Writes to it, never beyond what was read. What does not pack at all grows by a few bytes a block, and so has to wait: for
/// less than a block, since what was not read yet is mostly further away than that.
struct Behind<'a> {
    file: &'a File,
    read: &'a Cell<u64>,
    written: u64,
    waiting: Vec<u8>,
}

impl Behind<'_> {
    fn write_up_to(&mut self, limit: u64) -> io::Result<()> {
        let room = usize::try_from(limit - self.written).unwrap_or(usize::MAX);
        let ready = self.waiting.len().min(room);
        self.file.write_all_at(&self.waiting[..ready], self.written)?;
        self.written += ready as u64;
        self.waiting.drain(..ready);
        Ok(())
    }
}

impl Write for Behind<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        self.write_up_to(self.read.get())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A thread that unpacks what QEMU reads.
pub(crate) struct Feed {
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Feed {
    /// Unpacks `file` from its beginning. Returned with it is the end that QEMU reads from. It must be closed here once
    /// QEMU has it.
    ///
    /// # Errors
    /// If the system gives no socket or no thread.
    pub(crate) fn start(file: File) -> io::Result<(Self, UnixStream)> {
        // A socket, since a write to it cannot raise SIGPIPE: not every program that we are part of ignores that.
        let (mut ours, theirs) = UnixStream::pair()?;
        let failure = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&failure);
        let run = move || {
            let mut decoder = FrameDecoder::new(BufReader::with_capacity(BUFFER, file));
            if let Err(error) = unpack(&mut decoder, &mut ours) {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            // Only now is the end closed: whoever hears of it from QEMU finds the reason.
            drop(ours);
        };
        thread::Builder::new().name("qemu-feed".into()).spawn(run)?;
        Ok((Self { failure }, theirs))
    }

    /// Why less than the whole was sent, if it was for a reason of its own and not because QEMU hung up.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }
}

fn unpack(decoder: &mut impl io::BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let block = decoder.fill_buf()?;
        let length = block.len();
        if length == 0 {
            return Ok(());
        }
        to.write_all(block)?;
        decoder.consume(length);
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
