//! Keeps the library in memory until the process ends: a client may unload it while a thread of a job is still on its way
//! out. On ELF systems the linker is told so (`build.rs`); elsewhere it has to be asked for.

#![allow(unsafe_code, reason = "asks Windows")]

/// See the module. Calling it again does nothing.
#[cfg(windows)]
pub(crate) fn pin() {
    use std::ffi::c_void;

    const PIN: u32 = 0x1;
    const FROM_ADDRESS: u32 = 0x4;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleExW(flags: u32, name: *const c_void, module: *mut *mut c_void) -> i32;
    }

    let mut module = std::ptr::null_mut();
    // SAFETY: with FROM_ADDRESS the name is any address inside the module; the handle goes into our own variable. If it
    // fails, the library can be unloaded as any other.
    unsafe { GetModuleHandleExW(PIN | FROM_ADDRESS, pin as *const c_void, &raw mut module) };
}

/// See the module.
#[cfg(not(windows))]
pub(crate) fn pin() {}
