//! A client's callback and what it wants to be called with.

#![allow(unsafe_code, reason = "calls into C")]

use std::ffi::c_void;

use vmtask_vix_abi::{EventProc, Handle};

/// A function of the client.
pub(crate) struct Callback {
    function: EventProc,
    client: *mut c_void,
}

// SAFETY: the pointer is never followed here, only given back to the client's function; that this happens on other
// threads is part of the interface.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Callback {
    /// # Safety
    /// `function` may be called from any thread, with `client`, for as long as the job lives and the host is connected.
    pub(crate) unsafe fn new(function: Option<EventProc>, client: *mut c_void) -> Option<Self> {
        function.map(|function| Self { function, client })
    }

    /// Calls it.
    pub(crate) fn call(&self, job: Handle, event: i32, more: Handle) {
        // SAFETY: whoever made this promised that it may be called.
        unsafe { (self.function)(job, event, more, self.client) }
    }
}
