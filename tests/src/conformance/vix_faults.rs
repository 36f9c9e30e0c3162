//! Stories of what goes wrong with VIX in particular: each writes the stand-in's control file, and asserts what becomes
//! of the task.

use std::fs;

use vmtask_core::{CheckpointSpec, Notice, OpKind, Outcome, Phase, Policy, Report, Span, TaskDraft};

use super::stories::assert_right;
use super::vix::Vix;
use super::{Act, Stage, Subject};

/// A story.
pub type FaultStory = fn(&Vix);

/// All of them by name.
pub const ALL: [(&str, FaultStory); 6] = [
    ("tools_that_never_come_fail_the_task_and_the_next_run_completes_it", tools_that_never_come),
    ("a_job_that_never_completes_is_bounded_by_its_deadline_and_fenced", a_job_that_never_completes),
    ("a_connection_that_is_lost_is_made_again", a_lost_connection),
    ("a_power_on_whose_answer_is_lost_is_looked_after", a_lost_answer),
    ("a_checkpoint_without_room_is_skipped", no_room_for_a_checkpoint),
    ("a_checkpoint_that_completes_late_counts", a_late_checkpoint),
];

const STEPS: u32 = 100;
const LONG: u32 = 300;
const INPUT: &[u8] = b"2 7 1 8 2 8 1 8 2 8 4 5 9 0 4 5";

fn often(task: &mut TaskDraft) {
    task.checkpoint = Some(CheckpointSpec { every: Span::from_millis(300), keep: 2 });
}

fn ask_for(vix: &Vix, faults: &str) {
    fs::write(vix.place.faults(), faults).expect("write the stand-in's control file");
}

/// The second manager finds nothing in its way.
fn assert_completed_later(vix: &Vix, stage: &Stage<'_>, steps: u32) {
    ask_for(vix, "");
    let ended = stage.begin().end();
    assert_right(stage, steps, INPUT, &ended);
}

fn tools_that_never_come(vix: &Vix) {
    ask_for(vix, "VixVM_WaitForToolsInGuest never\n");
    let patience = |policy: Policy| {
        policy.with_overall(OpKind::AwaitTools, Span::from_secs(8)).with_attempts(OpKind::AwaitTools, 1)
    };
    let stage =
        Stage::new(vix, Act::Compute(STEPS), INPUT).with_policy(|policy| Policy { max_losses: 1, ..patience(policy) });
    let ended = stage.begin().end();
    assert!(matches!(ended.outcome, Outcome::Failed { .. }), "{}", ended.summary());
    stage.assert_no_machine();
    assert_completed_later(vix, &stage, STEPS);
}

/// Nothing can cancel a job of VIX. What can be done is done: nobody waits for it beyond its deadline, the virtual machine
/// that it may act on is powered off, and if it is not over then, the connection is closed under it.
fn a_job_that_never_completes(vix: &Vix) {
    ask_for(vix, "VixVM_RunProgramInGuest hang\n");
    let patience = |policy: Policy| {
        let bounded = [OpKind::CopyIn, OpKind::Launch, OpKind::MakeWorkdir, OpKind::LogIn];
        bounded.iter().fold(policy, |policy, op| policy.with_deadline(*op, Span::from_secs(5)).with_attempts(*op, 1))
    };
    let stage =
        Stage::new(vix, Act::Compute(STEPS), INPUT).with_policy(|policy| Policy { max_losses: 1, ..patience(policy) });
    let ended = stage.begin().end();
    assert!(matches!(ended.outcome, Outcome::Failed { .. }), "{}", ended.summary());
    assert_eq!(ended.leftover, None, "{}", ended.summary());
    assert!(ended.summary().contains("no answer in time"), "{}", ended.summary());
    stage.assert_no_machine();
    assert_completed_later(vix, &stage, STEPS);
}

fn a_lost_connection(vix: &Vix) {
    ask_for(vix, "VixVM_CopyFileFromGuestToHost#3 fail VIX_E_HOST_CONNECTION_LOST\n");
    let stage = Stage::new(vix, Act::Compute(STEPS), INPUT);
    let ended = stage.begin().end();
    assert_right(&stage, STEPS, INPUT, &ended);
}

fn a_lost_answer(vix: &Vix) {
    ask_for(vix, "VixVM_PowerOn#1 act then fail VIX_E_HOST_CONNECTION_LOST\n");
    let stage = Stage::new(vix, Act::Compute(STEPS), INPUT);
    let ended = stage.begin().end();
    assert_right(&stage, STEPS, INPUT, &ended);
}

fn no_room_for_a_checkpoint(vix: &Vix) {
    // The second of the task: by a snapshot or by a suspension. The platform's own is the very first.
    let stage = Stage::new(vix, Act::Compute(LONG), INPUT).with(often);
    let going = stage.begin();
    going.await_checkpoints(1);
    ask_for(vix, "VixVM_CreateSnapshot fail VIX_E_DISK_FULL\nVixVM_Suspend fail VIX_E_DISK_FULL\n");
    going.hear("told that one is skipped", 1, |report| {
        matches!(report, Report::Notice(Notice::CheckpointSkipped { .. }))
    });
    ask_for(vix, "");
    let ended = going.end();
    assert_right(&stage, LONG, INPUT, &ended);
    assert_eq!(ended.counters.losses, 0, "{}", ended.summary());
}

fn a_late_checkpoint(vix: &Vix) {
    ask_for(vix, "VixVM_CreateSnapshot late 1s\nVixVM_Suspend late 1s\n");
    let stage = Stage::new(vix, Act::Compute(LONG), INPUT).with(often);
    let going = stage.begin();
    going.await_checkpoints(2);
    vix.kill(&stage.dir);
    going.await_phase("restoring", |phase| matches!(phase, Phase::Provisioning(vmtask_core::Base::Checkpoint(_))));
    let ended = going.end();
    assert_right(&stage, LONG, INPUT, &ended);
    assert_eq!(ended.counters.losses, 1);
}
