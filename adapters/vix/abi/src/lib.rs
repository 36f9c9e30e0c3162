//! VIX's C interface as types, constants and tables, without code that calls it.
//!
//! ```text
//!   vmtask-vix (loads a library, calls it) ---.
//!                                             +--> vmtask-vix-abi: one truth about numbers, names and products
//!   vmtask-vix-standin (is such a library) ---'
//! ```
//!
//! Numbers and names are those of `vix.h` of open-vm-tools (LGPL-2.1; interface facts only, no text of it); which
//! product has which function is from the VIX 1.13 reference's support matrix. Constants drop their C prefix and keep
//! the rest of their name: `VIX_POWERSTATE_PAUSED` is [`power_state::PAUSED`].
//!
//! ```
//! use vmtask_vix_abi::{Function, Product, error_code};
//!
//! assert_eq!(error_code::of(0x0000_0002_0400_0BC7), error_code::GUEST_USER_PERMISSIONS);
//! assert!(!Product::Server2.has(Function::VmClone));
//! assert_eq!(Function::VmClone.name(), "VixVM_Clone");
//! ```
#![no_std]

pub mod error_code;
mod function;
mod options;
mod product;
pub mod property;

use core::ffi::c_void;

pub use function::{Function, REMOVED_IN_1_11};
pub use options::*;
pub use product::Product;

/// `VixHandle`: names an object of the library within one process.
pub type Handle = i32;

/// `VixError`: see [`error_code`] for its parts. 0 is success.
pub type Error = u64;

/// `Bool` of `vix.h`: one byte, not an `int`.
pub type Bool = i8;

/// `VixEventProc`: `(job, event type, more event info, client data)`. The library may call it from any thread, and
/// before the call that named it has returned.
pub type EventProc = unsafe extern "C" fn(job: Handle, event: i32, more: Handle, client: *mut c_void);

/// `VIX_INVALID_HANDLE`.
pub const INVALID_HANDLE: Handle = 0;

/// `VIX_API_VERSION`: "the newest that the library knows".
pub const API_VERSION: i32 = -1;
