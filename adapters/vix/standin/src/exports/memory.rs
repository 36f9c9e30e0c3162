//! `Vix_...`: errors' texts, references, buffers.

use std::ffi::{c_char, c_void};

use vmtask_vix_abi::{Error, Handle, error_code, handle_type};

use super::put;
use crate::{buffers, counters, handles, property};

/// A text that lives for ever. There is one language, so the locale is ignored.
#[unsafe(no_mangle)]
extern "C" fn Vix_GetErrorText(error: Error, _locale: *const c_char) -> *const c_char {
    let text = error_code::text(error_code::of(error));
    text.or(error_code::text(error_code::FAIL)).unwrap_or_default().as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn Vix_ReleaseHandle(handle: Handle) {
    handles::release(handle);
}

#[unsafe(no_mangle)]
extern "C" fn Vix_AddRefHandle(handle: Handle) {
    handles::add_reference(handle);
    counters::changed();
}

#[unsafe(no_mangle)]
extern "C" fn Vix_GetHandleType(handle: Handle) -> i32 {
    handles::get(handle).map_or(handle_type::NONE, |object| object.kind())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn Vix_GetPropertyType(handle: Handle, id: i32, kind: *mut i32) -> Error {
    let found = handles::get(handle).and_then(|object| {
        super::variadic::read(&object, id)?;
        property::type_number(id)
    });
    // SAFETY: the caller's pointer.
    found.and_then(|number| unsafe { put(kind, number) }).map_or_else(|failure| failure.error, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn Vix_FreeBuffer(buffer: *mut c_void) {
    buffers::take_back(buffer);
}
