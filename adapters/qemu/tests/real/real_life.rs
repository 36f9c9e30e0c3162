//! A task's whole life with a real QEMU, under software emulation.

use std::time::Duration;

use crate::rig::{Rig, input, real, shell};
use vmtask_core::{Base, Event, ExitStatus, FileIx, Generation, Keep, Op, Power, Program, TaskDraft};
use vmtask_qemu::Baseline;

#[test]
fn a_program_runs_from_a_cold_boot_and_its_output_comes_back() {
    if !real() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("task");
    let rig = Rig::with(shell("echo hello from $(uname -m); exit 7"), &dir, Some(temp), |setup| {
        setup.baseline = Baseline::Cold;
    });
    rig.start();
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(7));
    rig.op(Op::CopyOut(FileIx(0)));
    assert_eq!(rig.result_text("stdout.txt"), "hello from x86_64\n");
    rig.op(Op::PowerOff);
    assert_eq!(rig.found().power, Power::Off);
    rig.op(Op::Unregister(Keep::Nothing));
    assert!(!rig.found().registered);
    assert!(!rig.dir.join("vm").exists());
}

#[test]
fn a_program_runs_in_a_warm_clone() {
    if !real() {
        return;
    }
    let rig = Rig::new(shell("echo hello"));
    rig.start();
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    assert_eq!(rig.result_text("stdout.txt"), "hello\n");
}

/// Counts until a file appears: a number that is skipped or told twice shows in the output.
const COUNTER: &str = "n=0; until [ -e go ]; do echo $n; n=$((n + 1)); usleep 10000; done; echo end $n";

fn counter() -> TaskDraft {
    let mut spec = shell(COUNTER);
    spec.files_in.push(input("go", "go", false));
    spec
}

/// Lets the counter end, and checks its account.
fn finish_counting(rig: &Rig) {
    rig.op(Op::CopyIn(FileIx(0)));
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    let text = rig.result_text("stdout.txt");
    let mut lines: Vec<&str> = text.lines().collect();
    let end = lines.pop().unwrap();
    assert!(!lines.is_empty());
    for (expected, line) in lines.iter().enumerate() {
        assert_eq!(*line, expected.to_string());
    }
    assert_eq!(end, format!("end {}", lines.len()));
}

/// How many files the guest's disk consists of.
fn layers(rig: &Rig) -> usize {
    std::fs::read_dir(rig.dir.join("vm/disk")).into_iter().flatten().count()
}

fn checkpoint_story(disk: Option<u64>) {
    let mut spec = counter();
    spec.limits.disk = disk;
    let rig = Rig::new(spec);
    std::fs::write(rig.dir.join("in/go"), "").unwrap();
    rig.start();
    rig.op(Op::Launch);
    for generation in 1..=3 {
        rig.snapshot(generation).unwrap();
        if generation > 1 {
            rig.op(Op::RemoveSnapshot(Generation(generation - 1)));
        }
    }
    // The template's base, what checkpoint 3 stands on, and what is written to: all else was merged away.
    assert_eq!(layers(&rig), if disk.is_some() { 3 } else { 0 });
    let found = rig.found();
    assert_eq!(found.program, Program::Running);
    assert_eq!(found.snapshots.iter().collect::<Vec<_>>(), [Generation(3)]);
    rig.vm.process().unwrap().kill(Duration::from_secs(10)).unwrap();
    rig.until(|event| *event == Event::GuestStopped);
    assert_eq!(rig.found().power, Power::Off);

    rig.provision(Base::Checkpoint(Generation(3)));
    assert_eq!(rig.found().program, Program::Running);
    // A restored guest can be saved again, and the earlier state is still good.
    rig.snapshot(4).unwrap();
    finish_counting(&rig);
    rig.op(Op::PowerOff);

    for generation in [3, 4] {
        rig.provision(Base::Checkpoint(Generation(generation)));
        assert_eq!(rig.found().program, Program::Running);
        finish_counting(&rig);
    }
    rig.op(Op::Unregister(Keep::Nothing));
    assert!(!rig.dir.join("vm").exists());
}

#[test]
fn a_guest_killed_after_a_checkpoint_goes_on_from_it_and_gives_the_right_result() {
    if real() {
        checkpoint_story(None);
    }
}

#[test]
fn a_guest_with_a_disk_killed_after_a_checkpoint_goes_on_from_it_and_gives_the_right_result() {
    if real() {
        checkpoint_story(Some(64 << 20));
    }
}
