//! vmtask's adapter for QEMU: warm clones, checkpoints by migration streams, the guest agent.
#![cfg(target_os = "linux")]

pub mod agent;
mod checkpoint;
mod cmdline;
mod disk;
mod durable;
mod fault;
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
mod results;
mod setup;
mod snapshot;
mod sockets;
mod stream;
mod stub;
mod sys;
mod template;
mod vm;
pub mod wait;
mod watch;

pub use image::{Image, UnpinnedError};
pub use setup::{Baseline, Life, Setup};
pub use vm::QemuVm;
