//! What is fuzzed, as plain functions: each takes any bytes whatever and panics if a promise is broken.
//!
//! | target | what the bytes are | what must hold |
//! |---|---|---|
//! | [`machine`] | choices: a plan, then inputs, time, restarts | each verdict is the table's; what is ignored changes nothing; each drain ends |
//! | [`system`] | choices: a hypervisor, a budget, then faults and requests | every promise of the simulator |
//! | [`journal`] | files, a record, and damage to files that were written | an error in words, or a record that was written |
//! | [`task_toml`] | a task file | an error with its place, or a task that stays in its directories |
//! | [`platform_xml`] | a platform's definition | an error in words, or a definition that survives being written |
//! | [`plan`] | a simulator's plan | an error with its place, or a plan that survives being printed |
//! | `agent`, `qmp` (Linux) | what a hostile guest agent or QEMU says | errors in words, no panic, no hang |
//!
//! Nothing in here needs libFuzzer or nightly: `fuzz_targets/` wraps each function for cargo-fuzz, and the smoke test
//! runs the corpora, and mutations of them, through the same functions on stable.

#[cfg(target_os = "linux")]
mod hostile;
mod journal;
mod machine;
mod memory;
#[cfg(target_os = "linux")]
mod peer;
mod system;
mod text;

#[cfg(target_os = "linux")]
pub use hostile::{agent, qmp};
pub use journal::journal;
pub use machine::{Cell, cells_of_machine, machine};
pub use system::{record as record_system, system};
pub use text::{plan, platform_xml, task_toml};

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by name: a target's corpus is in `corpus/NAME`, its wrapper for cargo-fuzz in `fuzz_targets/NAME.rs`.
pub const TARGETS: &[(&str, Target)] = &[
    ("machine", machine),
    ("system", system),
    ("journal", journal),
    ("task_toml", task_toml),
    ("platform_xml", platform_xml),
    ("plan", plan),
    #[cfg(target_os = "linux")]
    ("agent", agent),
    #[cfg(target_os = "linux")]
    ("qmp", qmp),
];
