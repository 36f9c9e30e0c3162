//! A library with VIX's C interface and no VMware behind it.
//!
//! ```text
//!   C client --> exports (67 functions) --> handles, jobs, properties --> Vm (power, login, snapshots) --> trait Guest
//!                                                                          |                                | world
//!                                                                          state in the VM's directory      | root
//!                                                                                                           | qemu
//! ```
//!
//! It is for tests of programs that use VIX, and says that it is no VMware product wherever it can say something.

#![allow(non_snake_case, reason = "the file must be called what clients look for, and its functions too")]

mod buffers;
mod callback;
mod counters;
mod exports;
mod failure;
mod fault;
pub mod guest;
mod handles;
mod host;
mod job;
mod property;
mod store;
mod vm;
mod vmx;

pub use failure::Failure;
pub use vmx::Vmx;
