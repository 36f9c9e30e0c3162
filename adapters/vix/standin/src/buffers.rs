//! Memory that a client owns and gives back with `Vix_FreeBuffer`.
//!
//! Every buffer is in a table, so that giving back NULL, a buffer twice, or what was never handed out does nothing.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::counters;

static BUFFERS: LazyLock<Mutex<HashMap<usize, Box<[u8]>>>> = LazyLock::new(Mutex::default);

fn table() -> MutexGuard<'static, HashMap<usize, Box<[u8]>>> {
    BUFFERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands out a copy of `bytes`; never null, even for none.
pub(crate) fn hand_out(bytes: &[u8]) -> *mut c_char {
    // One byte more: an empty allocation has no address of its own, and a blob that is printed by mistake ends.
    let mut copy = Vec::with_capacity(bytes.len() + 1);
    copy.extend_from_slice(bytes);
    copy.push(0);
    let mut copy = copy.into_boxed_slice();
    let address = copy.as_mut_ptr();
    table().insert(address as usize, copy);
    counters::changed();
    address.cast()
}

/// Hands out a text, up to its first NUL.
pub(crate) fn hand_out_text(text: &str) -> *mut c_char {
    hand_out(text.split('\0').next().unwrap_or_default().as_bytes())
}

/// Takes a buffer back.
pub(crate) fn take_back(buffer: *mut c_void) {
    if table().remove(&(buffer as usize)).is_some() {
        counters::changed();
    }
}

/// How many are out.
pub(crate) fn live() -> usize {
    table().len()
}
