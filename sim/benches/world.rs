//! What a simulated run costs.
//!
//! `cargo bench -p vmtask-sim`

#![allow(clippy::print_stdout, missing_docs)]

use std::alloc::System as Allocator;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use vmtask_sim::{Budget, ByNumber, Calm, Drive, Profile, Scenario, Seldom, Swarm, System};

#[global_allocator]
static COUNTING: &StatsAlloc<Allocator> = &INSTRUMENTED_SYSTEM;

/// A life in which nothing goes wrong; how many steps it took.
fn calm(scenario: &Scenario) -> u32 {
    let mut drive = Drive { scenario, steps: 0 };
    let _ = black_box(drive.to_the_end(&mut System::new(scenario, Budget::default()), &mut ByNumber(Calm)));
    drive.steps
}

/// A life with up to five faults and two requests, by a seed.
fn stormy(scenario: &Scenario, seed: u64) -> u32 {
    let mut drive = Drive { scenario, steps: 0 };
    let mut system = System::new(scenario, Budget::of(5, 2));
    let _ = black_box(drive.to_the_end(&mut system, &mut ByNumber(Seldom::new(seed, 20))));
    drive.steps
}

fn main() {
    let scenario = Scenario::of(Profile::Qemu);
    let region = Region::new(COUNTING);
    let steps = calm(&scenario) + (0..100).map(|seed| stormy(&scenario, seed)).sum::<u32>();
    let change = region.change();
    println!("allocations in 101 lives of {steps} steps: {}", change.allocations + change.reallocations);
    assert_eq!(change.allocations, 0, "a step allocates");

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("world");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a life without faults", |b| b.iter(|| calm(&scenario)));
    let mut seed = 0;
    group.bench_function("a life with faults, by a seed", |b| {
        b.iter(|| {
            seed += 1;
            stormy(&scenario, seed)
        });
    });
    let mut swarm = Swarm::new(1, &Profile::ALL);
    group.bench_function("a run of the swarm", |b| b.iter(|| swarm.run()));
    group.finish();
    criterion.final_summary();
}
