//! What is alive, for whoever looks for leaks: a file of JSON named by `VMTASK_STANDIN_COUNTERS`, replaced at each
//! change. Without that variable nothing is written.
//!
//! `leaked` counts what a client had not released when it disconnected, since disconnecting ends everything.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::{buffers, handles, store};

static LEAKED: AtomicU64 = AtomicU64::new(0);
static CHANGES: AtomicU64 = AtomicU64::new(0);
static WRITING: Mutex<()> = Mutex::new(());

/// What the file says.
#[derive(Debug, Serialize)]
struct Counters {
    #[serde(flatten)]
    handles: handles::Live,
    buffers: usize,
    leaked: u64,
    changes: u64,
    process: u32,
}

/// Something has been handed out or taken back. Call it without holding a lock of the tables.
pub(crate) fn changed() {
    let changes = CHANGES.fetch_add(1, Ordering::Relaxed) + 1;
    let Some(path) = std::env::var_os("VMTASK_STANDIN_COUNTERS").map(PathBuf::from) else { return };
    // One at a time: the last to write has seen everything that changed before.
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let counters = Counters {
        handles: handles::live(),
        buffers: buffers::live(),
        leaked: LEAKED.load(Ordering::Relaxed),
        changes,
        process: std::process::id(),
    };
    // A file that cannot be written is for the reader to notice: he finds none.
    drop(store::write(&path, &counters));
}

/// Something was still held at the end of its connection.
pub(crate) fn leaked(objects: usize) {
    LEAKED.fetch_add(objects as u64, Ordering::Relaxed);
}
