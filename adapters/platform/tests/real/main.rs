//! The real thing: the locked packages from the distribution's mirrors, and the guest they make, under QEMU.
//!
//! Needs a network, QEMU and gcc with both widths (gcc, g++, g++-multilib), so it runs where `VMTASK_TEST_REAL=1` says
//! that they are there, as `tests/run` and CI do; elsewhere each test says that it was skipped.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

mod agent;
mod build;
mod guest;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use vmtask_platform::{BUILDABLE, BuildOptions, Lock, Platform, build};

/// Whether to skip, said aloud.
pub fn skip(test: &str) -> bool {
    let skip = std::env::var_os("VMTASK_TEST_REAL").is_none_or(|value| value != "1");
    if skip {
        eprintln!("SKIPPED {test}: set VMTASK_TEST_REAL=1 where network, QEMU and g++-multilib are there");
    }
    skip
}

pub fn options() -> BuildOptions {
    BuildOptions { lock: Lock::built_in().unwrap(), debs: None, cache: scratch().join("packages"), mirrors: Vec::new() }
}

/// Kept between runs: packages and compiled programs.
pub fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

pub fn build_in(store: &Path, name: &str) -> Platform {
    build(name, store, &options(), &mut |_| {}).unwrap()
}

/// Both platforms, built once for all tests.
pub fn platforms() -> &'static [Platform] {
    static PLATFORMS: OnceLock<(tempfile::TempDir, Vec<Platform>)> = OnceLock::new();
    &PLATFORMS
        .get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let platforms = BUILDABLE.iter().map(|name| build_in(dir.path(), name)).collect();
            (dir, platforms)
        })
        .1
}
