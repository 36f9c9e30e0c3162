//! A task's whole life with a real QEMU, under software emulation.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Rig, real, shell};
use vmtask_core::{ExitStatus, FileIx, Keep, Op, Power};
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
