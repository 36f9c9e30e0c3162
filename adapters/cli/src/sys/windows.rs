//! On Windows: Ctrl-C and Ctrl-Break, which the system tells on a thread of its own, to a handler that stays for good.
//!
//! Closing the console's window, logging off and shutting down arrive the same way, but leave no time: the process is
//! ended at once, as if it had been killed, and the task goes on from its newest checkpoint the next time.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::Wish;

/// Who is told, if anybody listens.
static LISTENER: Mutex<Option<Sender<Wish>>> = Mutex::new(None);

fn set_listener(listener: Option<Sender<Wish>>) {
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = listener;
}

fn tell(wish: Wish) {
    match &*LISTENER.lock().unwrap_or_else(PoisonError::into_inner) {
        // Whoever has just stopped listening is about to end the process.
        Some(listener) => drop(listener.send(wish)),
        None => std::process::exit(INTERRUPTED),
    }
}

/// As the system itself ends a process by Ctrl-C (STATUS_CONTROL_C_EXIT).
const INTERRUPTED: i32 = 0xC000_013A_u32 as i32;

/// Ctrl-C and Ctrl-Break, from when it is made.
pub(crate) struct Wishes(Receiver<Wish>);

/// Ends the wait for the next wish.
pub(crate) struct Closer;

impl Wishes {
    /// From now on the keys no longer do what they usually do.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        static HANDLER: OnceLock<Result<(), String>> = OnceLock::new();
        let (sender, receiver) = channel();
        set_listener(Some(sender));
        let handler = || ctrlc::set_handler(|| tell(Wish::Quit)).map_err(|error| error.to_string());
        HANDLER.get_or_init(handler).clone().map_err(io::Error::other)?;
        Ok(Self(receiver))
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer
    }

    /// The next one; none once it is closed.
    pub(crate) fn next(&mut self) -> Option<Wish> {
        self.0.recv().ok()
    }
}

impl Closer {
    pub(crate) fn close(&self) {
        set_listener(None);
    }
}

/// There is no such limit.
pub(crate) fn survive_size_limit() -> io::Result<()> {
    Ok(())
}

/// A console has no way to ask for that.
pub(crate) fn stop_this_process() {}

pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Whether we may install packages without being anyone else: there are none that we could install.
pub(crate) fn is_root() -> bool {
    false
}

/// How many bytes we may still write there.
pub(crate) fn free(dir: &Path) -> Option<u64> {
    let mut free = 0;
    // The name of a share must end like that.
    let dir = format!("{}\\", dir.to_str()?.trim_end_matches('\\'));
    winsafe::GetDiskFreeSpaceEx(Some(&dir), Some(&mut free), None, None).ok()?;
    Some(free)
}
