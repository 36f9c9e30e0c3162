//! vmtask's adapter for VIX, the C interface of VMware Workstation, Player, Fusion and Server.
//!
//! ```text
//!   a task:     VixVm (the port `Hypervisor`) ----+
//!                                                 v
//!   a program:  Library --> Host --> Vm --> Snapshot      safe, every wait bounded, handles released by themselves
//!                                     |
//!                                     v
//!                               trait Vix                 the 67 functions, safe: mocked in the tests
//!                                     |
//!                                     v
//!                               ffi --> libvixAllProducts.so / .dylib / Vix64AllProductsDyn.dll, loaded while running
//! ```
//!
//! # Using VIX directly
//! ```no_run
//! use std::time::Duration;
//! use vmtask_vix::{Connection, Library, Product, Wait};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let library = Library::find(None)?; // or name the file; VMTASK_VIX_LIBRARY does, too
//! let wait = Wait::most(Duration::from_secs(60));
//! let host = library.connect(&Connection::local(Product::Workstation), &wait)?;
//! let vm = host.open("/srv/vms/linux/linux.vmx", &wait)?;
//! vm.power_on(&wait)?;
//! vm.wait_for_tools(60, &wait)?;
//! println!("{}", vm.power_state()?);
//! vm.power_off(&wait)?;
//! # Ok(())
//! # } // everything is released here, and the connection closed
//! ```
//! `examples/paper.rs` is the whole cycle of a task in this manner.
//!
//! # What differs between products
//! | | Workstation | Fusion | Player | Server 2 |
//! |---|---|---|---|---|
//! | the task's VM | linked clone | copy | copy | copy in the datastore, or the platform's VM itself |
//! | checkpoints | snapshots with memory | snapshots with memory | copies of the suspended VM | copies, or none |
//! | pause | native | native | suspended to disk | suspended to disk |
//!
//! What a product lacks is told by [`Hypervisor::capabilities`](vmtask_driver::Hypervisor::capabilities) before anything
//! is touched; the table behind it is [`abi::Function::is_in`]. The facts are from the VIX 1.13 reference and from
//! `vix.h` of open-vm-tools.
//!
//! # What is done about VIX's traps
//! - **A job cannot be cancelled**, and `VixJob_Wait` has no limit. Jobs are waited for with a callback and a limit; one
//!   that is given up is kept and released when it is over, and nothing else is begun before that. A fence waits, then
//!   powers the VM off, then cuts the connection and looks through a new one whether the VM is off; if that fails, the
//!   task ends and the VM is named.
//! - **A callback may come early, late, twice or never.** It rings a bell by number: no pointer of ours is ever with VIX.
//! - **Programs in the guest have no working directory, no output, no exec bit**, and their arguments go through a shell.
//!   A script ([`SUPERVISOR`]) that is copied in does what is needed; everything is quoted, absolute, and compared by
//!   size and SHA-256.
//! - **A login does not survive** what the VM goes through: it is made again after each resume and revert.
//! - **Virtual machines outlive their managers**: the next one finds the task's VM by its path, and adopts it.
//!
//! Credentials are in no message, log or command line. Guests need Tools, a POSIX shell and `setsid`.

mod api;
mod bell;
mod checkpoint;
mod discover;
mod error;
mod fault;
mod fence;
mod ffi;
mod files;
mod guest;
mod home;
mod host;
mod inside;
mod job;
mod library;
mod live;
mod machine;
mod ops;
mod place;
mod setup;
mod snapshot;
mod snapshots;
#[cfg(test)]
mod tests;
mod tree;
mod vm;
mod watch;

pub use api::*;
pub use bell::Ticket;
pub use discover::*;
pub use error::*;
pub use guest::{SUPERVISOR, quote};
pub use home::capabilities_of;
pub use host::*;
pub use inside::*;
pub use library::*;
pub use machine::*;
pub use setup::*;
pub use snapshot::*;
pub use vm::VixVm;
pub use vmtask_driver::wait::{self, Stop, TICK, Wait};
pub use vmtask_vix_abi::{self as abi, Product};
