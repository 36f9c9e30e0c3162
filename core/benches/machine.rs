//! What the machine costs: time per input, bytes per machine, allocations per life (none).
//!
//! `cargo bench -p vmtask-core`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::alloc::System;
use std::hint::black_box;
use std::mem::size_of;

use criterion::{BatchSize, Criterion, Throughput};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use vmtask_core::{
    Capabilities, CheckpointSpec, Event, ExitStatus, FileIn, FileOut, Found, Input, Instant, Limits, Machine, Op,
    Output, Pause, Plan, Policy, ProgramSpec, Record, Reply, Request, Snapshots, Span, TaskDraft, TaskSpec,
};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn plan() -> Plan {
    let file = |name: &str| FileIn { host: name.into(), guest: name.into(), executable: true };
    let out = |name: &str| FileOut { guest: name.into(), host: name.into(), optional: false };
    let spec = TaskDraft {
        name: "bench".into(),
        platform: "x86_64-pc-linux-gnu".into(),
        program: ProgramSpec {
            path: "program".into(),
            args: vec![],
            env: Default::default(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: vec![file("program"), file("input")],
        files_out: vec![out("stdout.txt"), out("stderr.txt")],
        checkpoint: Some(CheckpointSpec { every: Span::from_secs(300), keep: 2 }),
        limits: Limits::default(),
    }
    .check()
    .unwrap();
    let capabilities = Capabilities {
        linked_clones: true,
        snapshots: Snapshots::Many,
        pause: Pause::Native,
        guest_login: false,
        outlives_manager: false,
        disk: false,
    };
    Plan::new(&spec, Policy::default(), capabilities).unwrap()
}

/// A whole life without a fault, with `checkpoints` checkpoints. Returns how many inputs and timeouts it took.
fn life(plan: &Plan, checkpoints: u32) -> u32 {
    let mut machine = Machine::new(plan, 1);
    let mut now = 0;
    let mut inputs = 0;
    let mut taken = 0;
    let mut exited = false;
    let mut next = Some(Input::Request(Request::Start));
    loop {
        now += 1;
        inputs += 1;
        let at = Instant::from_millis(now);
        match next.take() {
            Some(input) => {
                let _ = black_box(machine.handle_input(plan, at, input));
            }
            None if machine.outcome().is_some() => return inputs,
            None if taken == checkpoints && !exited => {
                exited = true;
                let event = Event::ProgramExited(ExitStatus::Code(0));
                let _ = machine.handle_input(plan, at, Input::Observed { boot: machine.boot(), event });
            }
            None => {
                now = machine.poll_timeout().unwrap().as_millis();
                machine.handle_timeout(plan, Instant::from_millis(now));
            }
        }
        while let Some(output) = machine.poll_output(plan) {
            match output {
                // Handed back at once: a record always comes before the commands that wait for it.
                Output::Persist(Record { seq, .. }) => {
                    inputs += 1;
                    let _ = machine.handle_input(plan, at, Input::Persisted(seq));
                }
                Output::Command(command) => {
                    let reply = match command.op {
                        Op::Probe => Reply::Found(Found::default()),
                        Op::Provision(_) => Reply::Provisioned { running: true },
                        Op::CommitSnapshot(_) => {
                            taken += 1;
                            Reply::Done
                        }
                        _ => Reply::Done,
                    };
                    next = Some(Input::Completed { id: command.id, result: Ok(reply) });
                }
                Output::Fence(_) => unreachable!("nothing fails here"),
                Output::Report(report) => {
                    black_box(report);
                }
            }
        }
    }
}

fn main() {
    let plan = plan();
    let region = Region::new(COUNTING);
    let inputs = life(&plan, 3);
    let change = region.change();
    println!("bytes a machine: {} (and {} of plan, shared)", size_of::<Machine>(), size_of::<Plan>());
    println!("allocations in a life of {inputs} inputs: {}", change.allocations + change.reallocations);
    assert_eq!(change.allocations, 0, "the machine allocates");

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(inputs.into()));
    group.bench_function("life with 3 checkpoints, per input", |b| b.iter(|| life(&plan, black_box(3))));
    group.throughput(Throughput::Elements(1));
    group.bench_function("life without a checkpoint, per life", |b| b.iter(|| life(&plan, black_box(0))));
    group.bench_function("progress event", |b| {
        let mut machine = running(&plan);
        let event = Event::Progress { permille: 1, cpu_ms: 1 };
        let boot = machine.boot();
        b.iter(|| black_box(machine.handle_input(&plan, Instant::ZERO, Input::Observed { boot, event })));
    });
    group.bench_function("restore", |b| {
        let record = running(&plan).record();
        b.iter_batched(|| record, |record| Machine::restore(record, &plan, 2), BatchSize::SmallInput);
    });
    group.finish();
    criterion.final_summary();
}

/// A machine whose program runs.
fn running(plan: &Plan) -> Machine {
    let mut machine = Machine::new(plan, 1);
    let mut next = Some(Input::Request(Request::Start));
    while let Some(input) = next.take() {
        let _ = machine.handle_input(plan, Instant::ZERO, input);
        while let Some(output) = machine.poll_output(plan) {
            match output {
                Output::Persist(record) => next = Some(Input::Persisted(record.seq)),
                Output::Command(command) => {
                    let reply = match command.op {
                        Op::Probe => Reply::Found(Found::default()),
                        Op::Provision(_) => Reply::Provisioned { running: true },
                        _ => Reply::Done,
                    };
                    next = Some(Input::Completed { id: command.id, result: Ok(reply) });
                }
                _ => {}
            }
        }
    }
    machine
}
