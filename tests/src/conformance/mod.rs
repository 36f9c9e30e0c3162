//! The same stories for every hypervisor adapter, driven by the real driver.
//!
//! ```text
//!   story --> driver --> port --> adapter --> virtual machine
//!     |                                          |
//!     +--- Subject: what is there really? -------+    files, processes, what the guest's program wrote down
//! ```
//! A story asserts what can be seen from outside the adapter. What the adapter says is believed only where it must be
//! told to the user: the outcome and its words.

mod going;
#[cfg(target_os = "linux")]
pub mod qemu;
#[cfg(target_os = "linux")]
pub mod sim;
pub mod stories;
pub mod vix;
pub mod vix_faults;

use std::path::Path;
use std::sync::Arc;

use vmtask_core::TaskSpec;
use vmtask_driver::Hypervisor;

pub use going::{Going, Stage};

/// What the program in the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Computes a result that depends on its input and on each of so many steps, and writes it to `result`.
    Compute(u32),
    /// Ends with this code.
    Exit(u8),
    /// Ends by this signal.
    Signal(u8),
    /// Ends well, without the output that the task names.
    ForgetOutput,
    /// The file is not there.
    Missing,
    /// The file may not be executed.
    NotExecutable,
    /// Makes the guest boot again.
    Reboot,
    /// Powers the guest off.
    PowerOff,
    /// Lets nothing in the guest run any more.
    Hang,
}

/// A kind of hypervisor, and what can be seen and done to it from outside.
pub trait Subject: Sync {
    /// A task that does this with that input, its files put into `dir`. Outputs: `result` unless it computes nothing.
    fn task(&self, act: Act, input: &[u8], dir: &Path) -> TaskSpec;

    /// What `result` must be, computed without any virtual machine.
    fn expected(&self, steps: u32, input: &[u8], dir: &Path) -> Vec<u8>;

    /// A new adapter for the task in `dir`, as a new manager would make it.
    fn adapter(&self, spec: &TaskSpec, dir: &Path) -> Arc<dyn Hypervisor>;

    /// How many virtual machines run for the task in `dir`.
    fn machines(&self, dir: &Path) -> usize;

    /// Ends the task's virtual machine behind its adapter's back.
    fn kill(&self, dir: &Path);

    /// Lets the task's virtual machine and its hypervisor answer nothing any more.
    fn freeze(&self, dir: &Path);

    /// Damages this checkpoint, so that it looks whole and is not; one that is no longer there stays away.
    fn damage(&self, dir: &Path, generation: u32);

    /// What is left of the virtual machine in `dir`: files, sockets.
    fn remains(&self, dir: &Path) -> Vec<String>;

    /// For each step of the computation when it was made for the last time, in milliseconds since 1970, as the program
    /// wrote it down; nothing if time is not real here.
    fn steps(&self, dir: &Path) -> Option<Vec<i64>>;

    /// How far the guest's clock may be behind when it runs again after it was held, in milliseconds: some set it to whole
    /// seconds. `None`: a second at most, and it runs for a while before it is set.
    fn clock_is_late(&self) -> Option<u16> {
        Some(0)
    }
}
