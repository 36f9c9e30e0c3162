//! The adapter with a real QEMU, always under software emulation.
//!
//! Commands go straight to the port, as the driver would send them, and what is asserted is what can be seen from
//! outside: files on the host, processes, the guest's own account. `tests/run` sets `VMTASK_TEST_REAL=1`, and runs all
//! of this once more as a user without privileges.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod real_faults;
mod real_files;
mod real_life;
mod real_relative;
mod rig;
