//! The C boundary: the 67 functions of the public header, and nothing else that a linker can see.
//!
//! Each function takes its arguments apart on the caller's thread and leaves the rest to safe code. A function that
//! starts a job always returns one; what is wrong with its arguments is the job's error.

#![allow(unsafe_code, reason = "functions that C calls, with C's pointers")]

mod guest;
mod host;
mod job;
mod memory;
mod shares;
mod snapshot;
mod variadic;
mod vm;

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{Error, EventProc, Function, Handle, error_code};

use crate::callback::Callback;
use crate::failure::Failure;
use crate::fault::Act;
use crate::handles;
use crate::job::{Context, Results, start};
use crate::vm::Vm;

/// A text that a client has given, or not.
pub(crate) struct Text(Result<Option<String>, Failure>);

impl Text {
    /// Copies it, since it need not outlive the call.
    ///
    /// # Safety
    /// `pointer` is null or leads to bytes that end with a 0 and do not change during the call.
    unsafe fn copy(pointer: *const c_char) -> Self {
        if pointer.is_null() {
            return Self(Ok(None));
        }
        // SAFETY: it is not null, and the caller promises the rest.
        let bytes = unsafe { CStr::from_ptr(pointer) };
        let bad = |_| Failure::new(error_code::INVALID_UTF8_STRING, "a text that was given is not UTF-8");
        Self(bytes.to_str().map(|text| Some(text.to_owned())).map_err(bad))
    }

    /// A text that must be there and hold something.
    fn needed(self, what: &str) -> Result<String, Failure> {
        let missing = || Failure::new(error_code::INVALID_ARG, format!("{what} is missing"));
        self.0?.filter(|text| !text.is_empty()).ok_or_else(missing)
    }

    /// A text that is as good as empty if it is not there.
    fn or_empty(self) -> Result<String, Failure> {
        self.0.map(Option::unwrap_or_default)
    }
}

/// Starts a job on a VM.
///
/// # Safety
/// See [`Callback::new`].
unsafe fn vm_job(
    function: Function,
    vm: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
    work: impl FnOnce(&Arc<Vm>, &Context<'_>) -> Result<Results, Failure> + Send + 'static,
) -> Handle {
    // SAFETY: passed on.
    let callback = unsafe { Callback::new(callback, client) };
    let vm = handles::vm(vm);
    let host = vm.as_ref().map(|vm| Some(Arc::clone(vm.host()))).map_err(Clone::clone);
    start(function, host, callback, move |context| work(&vm?, context))
}

/// Does what a function without a job does, with the faults that were asked for, and returns its error.
fn directly(
    function: Function,
    vm: impl FnOnce() -> Result<Arc<Vm>, Failure>,
    work: impl FnOnce(&Arc<Vm>) -> Result<(), Failure>,
) -> Error {
    let rest = |limit: Option<std::time::Duration>| loop {
        match limit {
            Some(limit) => {
                std::thread::sleep(limit);
                return false;
            }
            None => std::thread::park(),
        }
    };
    let result = vm().and_then(|vm| {
        if !vm.host().product().has(function) {
            return Err(crate::job::not_in_product(function, vm.host()));
        }
        Act::of(function)?.carry_out(&rest, || work(&vm))
    });
    result.map_or_else(|failure| failure.error, |()| 0)
}

/// Writes through a client's pointer.
///
/// # Safety
/// `place` is null or may be written.
unsafe fn put<T>(place: *mut T, value: T) -> Result<(), Failure> {
    if place.is_null() {
        return Err(Failure::new(error_code::INVALID_ARG, "a pointer for the result is missing"));
    }
    // SAFETY: it is not null, and the caller promises the rest. Clients need not align what they were not told to.
    unsafe { place.write_unaligned(value) };
    Ok(())
}
