//! What the computer that we run on has: programs, packages, and how to get more.

pub(crate) mod apt;
pub(crate) mod packages;
pub(crate) mod process;

use std::env;
use std::path::PathBuf;

/// Where a program is on the search path, if it is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(&file)).find(|path| is_program(path))
}

#[cfg(unix)]
fn is_program(path: &std::path::Path) -> bool {
    use rustix::fs::{Access, access};
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_program(path: &std::path::Path) -> bool {
    path.is_file()
}

/// Whether we may install packages without being anyone else.
#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether we may install packages without being anyone else.
#[cfg(not(unix))]
pub(crate) fn is_root() -> bool {
    false
}
