//! States per second and memory: this crate's explorer, or stateright on the same system.
//!
//! `cargo run --release -p vmtask-sim --features stateright --example peer -- ours|stateright [FAULTS REQUESTS]`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::process::ExitCode;
use std::time::Instant;

use stateright::{Checker, Model};
use vmtask_sim::model::Everything;
use vmtask_sim::{Budget, Explorer, Profile};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: u8| args.get(at).map_or(Some(or), |text| text.parse().ok());
    let (Some(who), Some(faults), Some(requests)) = (args.first(), number(1, 1), number(2, 1)) else {
        eprintln!("peer: ours|stateright [FAULTS REQUESTS]");
        return ExitCode::from(2);
    };
    let budget = Budget::of(faults, requests);
    let started = Instant::now();
    let states = match who.as_str() {
        "ours" => Explorer { every_state: true, ..Explorer::new(Profile::Qemu, budget) }.explore(|_| {}).states,
        "stateright" => Everything::new(Profile::Qemu, budget).checker().spawn_bfs().join().unique_state_count(),
        _ => {
            eprintln!("peer: ours or stateright, not {who}");
            return ExitCode::from(2);
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("unknown", str::trim);
    println!(
        "{who}: {states} states in {seconds:.2} s, {:.0} a second on one thread, {peak} at most",
        states as f64 / seconds
    );
    ExitCode::SUCCESS
}
