//! Platforms of vmtask: the pinned guest image, its XML definition, building and verifying it.
//!
//! A **platform** is a directory named as BOINC names platforms, with a definition (`platform.xml`) and the files that it
//! names: a kernel and a root file system. Everything in it that can change what a program computes goes into its
//! **fingerprint**, so that two results with one fingerprint came from one machine, wherever it ran.
//!
//! ```text
//!  platform.lock          distribution's packages          alt_platforms/NAME/
//!  (which bytes)  ------> fetch -> unpack -> root, kernel ----> platform.xml, vmlinux, root.cpio
//!                                                               |  find, list, verify      -> run tasks
//!                                                               +- export -> one .tar.xz -> import elsewhere
//! ```
//!
//! - [`build`] makes a platform from the packages of a [`Lock`], unprivileged, the same bytes each time;
//! - [`find`], [`list`], [`Platform::verify`] read what is there;
//! - [`export`] and [`import`] hand a build around, for distributions drop old packages;
//! - [`data_dir`] and [`platforms_dir`] say where all of it lies by default.
//!
//! What runs in the guest is in `guest/`; the protocol between host and guest is specified at the head of
//! `guest/guest`, and [`GUEST_PROTOCOL`] is its version.
//!
//! ```
//! # fn main() -> Result<(), vmtask_platform::PlatformError> {
//! # let data_dir = std::env::temp_dir().join("vmtask-doc-none");
//! use vmtask_platform::{PlatformError, find, platforms_dir};
//!
//! match find("i686-pc-linux-gnu", &[platforms_dir(&data_dir)]) {
//!     Ok(platform) => println!("{} boots {}", platform.fingerprint(), platform.kernel().display()),
//!     Err(PlatformError::NotFound { .. }) => println!("to be built first"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```

mod apt;
mod archive;
mod build;
mod deb;
mod definition;
mod error;
mod fetch;
mod hash;
mod kernel;
mod lock;
mod root;
mod staging;
mod stamp;
mod store;
mod sys;
#[cfg(test)]
mod testing;

pub use apt::current_lock;
pub use archive::{export, import};
pub use build::{BUILDABLE, BuildOptions, Progress, build};
pub use definition::{
    DEFINITION_FILE, DEFINITION_VERSION, Definition, FileEntry, Files, GUEST_PROTOCOL, Guest, Manager, PackageEntry,
    Packages, Personality, Qemu, Role,
};
pub use error::PlatformError;
pub use hash::Sha256Hex;
pub use lock::{Lock, LockedPackage};
pub use store::{Listed, Platform, data_dir, find, list, platforms_dir};
