//! Tests across the crates of vmtask, with real components, and what they have in common.
//!
//! ```text
//!   tests/*.rs, benches/qemu.rs, bins chaos, seeded-bugs and vix-story
//!      |-- real       whether real machines are wanted; one platform built for all; the `vmtask` binary
//!      |-- run        a `vmtask run` as a child process: its reports, signals, result
//!      |-- guest      the programs in guest/, compiled when they are needed
//!      |-- procs      what /proc says: the outside view that no adapter can colour
//!      |-- ours       our adapter and driver within the test's own process
//!      |-- hand       QEMU driven by hand with plain commands, to compare with
//!      |-- conformance   the same stories for every hypervisor adapter
//!      |-- chaos      SIGKILL at random moments
//!      |-- builds     a second QEMU build beside the installed one
//!      |-- seeded     bugs put in on purpose: bin seeded-bugs
//!      `-- stats      medians with their spread
//! ```
//!
//! Whatever starts a real machine runs only with `VMTASK_TEST_REAL=1`; then anything that is missing is a failure.
//! Without it such a test says that it was skipped. Nothing here opens /dev/kvm: everything is software-emulated. VIX's
//! stories run without it too, as far as their guests are simulated.

#[cfg(target_os = "linux")]
pub mod builds;
#[cfg(target_os = "linux")]
pub mod chaos;
pub mod conformance;
#[cfg(target_os = "linux")]
pub mod guest;
#[cfg(target_os = "linux")]
pub mod hand;
#[cfg(target_os = "linux")]
pub mod ours;
#[cfg(target_os = "linux")]
pub mod procs;
#[cfg(target_os = "linux")]
pub mod real;
#[cfg(target_os = "linux")]
pub mod run;
#[cfg(target_os = "linux")]
pub mod seeded;
#[cfg(target_os = "linux")]
pub mod stats;
pub mod wait;
