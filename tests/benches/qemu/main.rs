//! What `vmtask` costs under QEMU, beside the same done by hand and by libvirt, in one run on one computer.
//!
//! `cargo bench -p vmtask-tests --bench qemu [-- SECTION...]`, with the sections `starts`, `pauses`, `copies`, `manager`.
//! `VMTASK_BENCH_BEFORE` names the binary of another build, which `pauses` compares with this one.
//! `VMTASK_BENCH_ROUNDS` (default 9) says how often each is measured; what is compared is measured in turns, so that
//! noise hits all alike. Everything is software-emulated (TCG), and /dev/kvm is never opened.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[cfg(target_os = "linux")]
mod copies;
#[cfg(target_os = "linux")]
mod manager;
#[cfg(target_os = "linux")]
mod pauses;
#[cfg(target_os = "linux")]
mod starts;
#[cfg(target_os = "linux")]
mod virsh;

#[cfg(target_os = "linux")]
fn main() {
    // Also called by `cargo test --benches`, which wants no measurements.
    let mut args: Vec<_> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    args.retain(|arg| !arg.starts_with('-'));
    if std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        println!("skipped: qemu-system-x86_64 is not installed");
        return;
    }
    let rounds = std::env::var("VMTASK_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let wanted = |section: &str| args.is_empty() || args.iter().any(|arg| arg == section);
    println!("QEMU under software emulation; medians of {rounds} rounds with (smallest-largest)");
    if wanted("starts") {
        starts::measure(rounds);
    }
    if wanted("pauses") {
        pauses::measure(rounds);
    }
    if wanted("copies") {
        copies::measure(rounds.min(5));
    }
    if wanted("manager") {
        manager::measure();
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: these measurements need Linux");
}
