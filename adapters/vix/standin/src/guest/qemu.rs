//! Placeholder of the kind "qemu": says that it is not in this build.

use vmtask_vix_abi::error_code;

use super::{Guest, Home, Result};
use crate::failure::Failure;

/// Never: see the module.
pub(super) fn open(home: Home) -> Result<Box<dyn Guest>> {
    let why = format!("{}: guests of the kind qemu are not in this build", home.vmx_path.display());
    Err(Failure::new(error_code::NOT_SUPPORTED, why))
}
