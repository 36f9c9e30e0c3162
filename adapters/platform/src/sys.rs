//! What differs between operating systems: exchanging and flushing directories, who may read a new file, what tells one
//! file from another.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{exchange, identity, public, sync_dir};
#[cfg(windows)]
pub(crate) use windows::{exchange, identity, public, sync_dir};
