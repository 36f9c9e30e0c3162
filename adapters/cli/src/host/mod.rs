//! What the computer that we run on has: programs, packages, and how to get more.

pub(crate) mod apt;
pub(crate) mod packages;
pub(crate) mod process;

use std::env;
use std::path::PathBuf;

use crate::sys;

/// Where a program is on the search path, if it is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(&file)).find(|path| sys::is_program(path))
}
