//! Builds only if `vmtask-core` and all it depends on do without std: a crate that brought std along would define a
//! second panic handler, and the compiler refuses that.

#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

use vmtask_core::{Instant, Plan, Task};

/// Never called: the library is compiled and linked, not run.
struct NoMemory;

// SAFETY: returning null means that the allocation failed, which is always allowed; nothing is ever deallocated.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _ptr: *mut u8, _layout: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Pulls the machine into the library.
#[unsafe(no_mangle)]
pub extern "C" fn step(task: &mut Task) -> bool {
    task.handle_timeout(Instant::ZERO);
    task.poll_output().is_some()
}

/// Pulls the plan in.
#[unsafe(no_mangle)]
pub extern "C" fn is_bounded(plan: &Plan) -> bool {
    plan.takes_checkpoints()
}
