//! vmtask's adapter for QEMU: one task's virtual machine as a child process.
//!
//! ```text
//!                 QMP (control) -------------+
//!   manager       guest agent (commands) ----+---- QEMU, sandboxed, no network,   guest: /usr/lib/vmtask/guest,
//!   [`QemuVm`]    byte stream (files) -------+     dies with its manager                 the task's program
//!                 events (the program ended) +
//! ```
//!
//! # What it does differently from a script around `qemu-system-x86_64`
//! - **Warm starts.** A guest that has booted once is kept on disk as a template. Each start maps its memory privately and
//!   loads its devices: a tenth of a boot. Templates make themselves, and make themselves anew when damaged.
//! - **Checkpoints in two steps.** [`Op::BeginSnapshot`] holds the guest for milliseconds (userfaultfd), and the program
//!   runs on while [`Op::CommitSnapshot`] streams, packs, hashes, flushes and names it in a manifest. Only what differs from
//!   the template is kept: a megabyte for an idle guest. Where userfaultfd is not allowed, the guest is held while its memory is written (copied live under a hardware accelerator). A task's disk is
//!   frozen at the same instant.
//! - **Nothing is believed.** Restored streams are compared with their SHA-256, files with theirs at both ends; no path of
//!   a guest leads out of the results directory; answers that are lost are asked for again, since everything that is
//!   asked of the guest may be repeated.
//! - **Nothing hangs.** Every wait has a limit and ends when its command is fenced. A QEMU that does not answer is killed,
//!   by a descriptor that can hit no other process.
//!
//! # Using it
//! ```no_run
//! use std::sync::Arc;
//! use vmtask_driver::Hypervisor;
//! use vmtask_qemu::host::{Choice, Qemu};
//! use vmtask_qemu::{Baseline, Image, QemuVm, Setup};
//!
//! # fn get() -> (vmtask_core::TaskSpec, vmtask_platform::Platform) { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (spec, platform) = get();
//! let cache = std::path::Path::new("/var/cache/example");
//! let vm = QemuVm::new(Setup {
//!     image: Image::of(&platform, 256, spec.limits.cpus),
//!     qemu: Qemu::find(Choice::from_env()?, Some(cache))?,
//!     dir: "/srv/tasks/leibniz".into(),
//!     inputs: "/srv/tasks".into(),
//!     results: "/srv/tasks/leibniz/results".into(),
//!     cache: cache.into(),
//!     baseline: Baseline::Warm,
//!     low_priority: true,
//!     on_life: None,
//!     spec,
//! })?;
//! let port: Arc<dyn Hypervisor> = Arc::new(vm); // for the driver
//! # Ok(())
//! # }
//! ```
//!
//! # Where it runs
//! On Linux: parent-death signals, sealed memory and descriptors handed over sockets have no equal elsewhere. On other
//! systems this crate is empty, so that a workspace with it in builds there.
//!
//! [`Op::BeginSnapshot`]: vmtask_core::Op::BeginSnapshot
//! [`Op::CommitSnapshot`]: vmtask_core::Op::CommitSnapshot
#![cfg(target_os = "linux")]

pub mod agent;
mod checkpoint;
pub mod cmdline;
mod disk;
mod durable;
mod fault;
mod fence;
mod files;
pub mod guest;
pub mod host;
mod image;
mod instance;
mod live;
mod merge;
mod ops;
pub mod process;
pub mod qmp;
mod ram;
mod relative;
mod results;
mod setup;
mod snapshot;
pub mod sockets;
mod stream;
mod stub;
mod sys;
mod template;
#[cfg(test)]
mod tests;
mod vm;
mod watch;

pub use image::{Image, UnpinnedError};
pub use process::Life;
pub use setup::{Baseline, Setup};
pub use vm::QemuVm;
pub use vmtask_driver::wait;
