//! `VixJob_...` without variable arguments.

use vmtask_vix_abi::{Bool, Error, Handle};

use super::put;
use crate::handles;

#[unsafe(no_mangle)]
unsafe extern "C" fn VixJob_CheckCompletion(job: Handle, complete: *mut Bool) -> Error {
    // SAFETY: the caller's pointer.
    let told = handles::job(job).and_then(|job| unsafe { put(complete, Bool::from(job.is_completed())) });
    told.map_or_else(|failure| failure.error, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn VixJob_GetError(job: Handle) -> Error {
    handles::job(job).map_or_else(|failure| failure.error, |job| job.error())
}

/// 0 for what is no job, or has not finished.
#[unsafe(no_mangle)]
extern "C" fn VixJob_GetNumProperties(job: Handle, id: i32) -> i32 {
    handles::job(job).map_or(0, |job| job.count(id) as i32)
}
