//! The stories. Each is a function of a [`Subject`]; a test file calls all of them for its hypervisor.

use std::thread;
use std::time::Duration;

use vmtask_core::{
    Accepted, Base, Cause, CheckpointSpec, ExitStatus, FaultKind, FileIx, Generation, Notice, Op, OpKind, Outcome,
    Phase, Policy, Report, Span, TaskDraft,
};
use vmtask_driver::Ended;

use super::{Act, Stage, Subject};
use crate::wait::wall_ms;

/// A story.
pub type Story = fn(&dyn Subject);

/// All of them by name.
pub const ALL: [(&str, Story); 16] = [
    ("a_task_runs_to_completion", a_task_runs_to_completion),
    ("the_output_depends_on_the_input", the_output_depends_on_the_input),
    ("a_killed_machine_goes_on_from_its_checkpoint", a_killed_machine_goes_on_from_its_checkpoint),
    ("a_restored_machine_is_checkpointed_again", a_restored_machine_is_checkpointed_again),
    ("a_suspended_guest_stands_still", a_suspended_guest_stands_still),
    ("a_stopped_task_goes_on_where_it_stopped", a_stopped_task_goes_on_where_it_stopped),
    ("a_task_stopped_at_once_resumes", a_task_stopped_at_once_resumes),
    ("an_aborted_task_leaves_nothing", an_aborted_task_leaves_nothing),
    ("a_missing_output_is_named", a_missing_output_is_named),
    ("a_program_that_cannot_be_started_fails_the_task", a_program_that_cannot_be_started_fails_the_task),
    ("the_programs_end_is_told_as_it_was", the_programs_end_is_told_as_it_was),
    ("a_guest_that_ends_itself_is_given_up", a_guest_that_ends_itself_is_given_up),
    ("a_guest_that_hangs_is_given_up", a_guest_that_hangs_is_given_up),
    ("a_hypervisor_that_answers_nothing_is_fenced", a_hypervisor_that_answers_nothing_is_fenced),
    (
        "an_abort_does_not_wait_for_a_hypervisor_that_answers_nothing",
        an_abort_does_not_wait_for_a_hypervisor_that_answers_nothing,
    ),
    ("bad_checkpoints_are_passed_over", bad_checkpoints_are_passed_over),
];

/// A few seconds.
const STEPS: u32 = 100;
/// Long enough for a few checkpoints, on a slow computer too.
const LONG: u32 = 500;
const INPUT: &[u8] = b"3 1 4 1 5 9 2 6 5 3 5 8 9 7 9";
/// Enough for a checkpoint, on any computer.
const BUDGET: Duration = Duration::from_secs(200);

fn often(task: &mut TaskDraft) {
    task.checkpoint = Some(CheckpointSpec { every: Span::from_millis(300), keep: 2 });
}

fn compute(subject: &dyn Subject) -> Stage<'_> {
    Stage::new(subject, Act::Compute(STEPS), INPUT)
}

fn compute_long(subject: &dyn Subject) -> Stage<'_> {
    Stage::new(subject, Act::Compute(LONG), INPUT).with(often)
}

#[track_caller]
pub(super) fn assert_right(stage: &Stage<'_>, steps: u32, input: &[u8], ended: &Ended) {
    assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) }, "{}", ended.summary());
    assert_eq!(ended.leftover, None);
    let (found, expected) = (stage.output("result"), stage.subject.expected(steps, input, &stage.dir));
    assert!(found == expected, "{:?} is not {:?}", String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
    stage.assert_clean();
}

/// The task that went wrong, and the words for it.
#[track_caller]
fn assert_failed(ended: &Ended, like: impl Fn(Cause) -> bool, words: &str) {
    let summary = ended.summary();
    assert!(matches!(ended.outcome, Outcome::Failed { cause } if like(cause)), "{summary}");
    assert!(summary.contains(words), "{summary}");
}

/// A task runs to its end: the result is right, nothing is left.
pub fn a_task_runs_to_completion(subject: &dyn Subject) {
    let stage = compute(subject);
    let ended = stage.begin().end();
    assert_right(&stage, STEPS, INPUT, &ended);
}

/// Another input gives another result, both right.
pub fn the_output_depends_on_the_input(subject: &dyn Subject) {
    let outputs = [&b"one"[..], b"another"].map(|input| {
        let stage = Stage::new(subject, Act::Compute(20), input);
        let ended = stage.begin().end();
        assert_right(&stage, 20, input, &ended);
        stage.output("result")
    });
    assert_ne!(outputs[0], outputs[1]);
}

/// A guest that dies goes on from its checkpoint, under the same manager.
pub fn a_killed_machine_goes_on_from_its_checkpoint(subject: &dyn Subject) {
    let stage = compute_long(subject);
    let going = stage.begin();
    going.await_checkpoints(1);
    let killed_at = wall_ms();
    subject.kill(&stage.dir);
    let ended = going.end();
    assert_right(&stage, LONG, INPUT, &ended);
    assert_eq!(ended.counters.losses, 1);
    assert_not_started_over(&stage, killed_at);
}

/// The first step was not made again after that moment.
fn assert_not_started_over(stage: &Stage<'_>, then: i64) {
    if let Some(steps) = stage.subject.steps(&stage.dir) {
        assert!(steps.first().is_some_and(|first| *first <= then), "it began anew: {steps:?}, {then}");
    }
}

/// A restored guest is checkpointed, dies and is restored again.
pub fn a_restored_machine_is_checkpointed_again(subject: &dyn Subject) {
    let stage = compute_long(subject);
    let going = stage.begin();
    going.await_checkpoints(1);
    subject.kill(&stage.dir);
    going.hear("rolled back", 1, |report| matches!(report, Report::Notice(Notice::RolledBack { .. })));
    let before = going.reports().iter().filter(|report| matches!(report, Report::Checkpoint { .. })).count();
    going.await_checkpoints(before + 1);
    let killed_at = wall_ms();
    subject.kill(&stage.dir);
    let ended = going.end();
    assert_right(&stage, LONG, INPUT, &ended);
    assert_eq!(ended.counters.losses, 2, "{} {:?} {:?}", ended.summary(), ended.notices, ended.errors);
    assert_not_started_over(&stage, killed_at);
}

/// A suspended guest makes no step until it is resumed.
pub fn a_suspended_guest_stands_still(subject: &dyn Subject) {
    let stage = compute(subject);
    let going = stage.begin();
    going.await_running();
    assert_eq!(going.handle.suspend(), Ok(Accepted::Applied));
    going.await_phase("paused", |phase| matches!(phase, Phase::Paused { .. }));
    let (from, late) = (wall_ms(), subject.clock_is_late().unwrap_or(1000));
    // Time is to pass without a step: there is nothing to wait for.
    thread::sleep(Duration::from_secs(1) + Duration::from_millis(late.into()));
    let to = wall_ms() - i64::from(late);
    assert_eq!(subject.machines(&stage.dir), 1, "it is only held");
    assert_eq!(going.handle.resume(), Ok(Accepted::Applied));
    let ended = going.end();
    assert_right(&stage, STEPS, INPUT, &ended);
    match (subject.steps(&stage.dir), subject.clock_is_late()) {
        (None, _) => {}
        (Some(steps), Some(_)) => {
            // A step's time is taken before its pause, and the guest's clock is set a moment after it runs again.
            let during: Vec<_> = steps.iter().filter(|time| (from + 50..to - 50).contains(time)).collect();
            assert!(during.is_empty(), "steps while suspended, {from} to {to}: {during:?}");
        }
        (Some(steps), None) => {
            // Whenever the clock is set, to whole seconds: it then leaps over what the guest has missed.
            let leap = steps.windows(2).map(|pair| pair[1] - pair[0]).max();
            assert!(leap > Some(500), "no leap among the steps, suspended {from} to {to}: {steps:?}");
        }
    }
}

/// A task that is told to stop saves itself, and goes on there under the next manager.
pub fn a_stopped_task_goes_on_where_it_stopped(subject: &dyn Subject) {
    let stage = compute_long(subject);
    let going = stage.begin();
    going.await_checkpoints(1);
    assert_eq!(going.handle.quit(BUDGET), Ok(Accepted::Applied));
    let stopped = going.end();
    assert!(matches!(stopped.outcome, Outcome::Stopped { checkpoint: Some(_) }), "{}", stopped.summary());
    stage.assert_no_machine();
    let stopped_at = wall_ms();

    let ended = stage.begin().end();
    assert_right(&stage, LONG, INPUT, &ended);
    assert_not_started_over(&stage, stopped_at);
}

/// A task that is told to stop at once goes on from its last checkpoint; before the first, from its beginning.
pub fn a_task_stopped_at_once_resumes(subject: &dyn Subject) {
    let stage = compute(subject);
    let going = stage.begin();
    going.await_running();
    assert_eq!(going.handle.quit(Duration::ZERO), Ok(Accepted::Applied));
    assert_eq!(going.end().outcome, Outcome::Stopped { checkpoint: None });
    stage.assert_no_machine();

    let ended = stage.begin().end();
    assert_right(&stage, STEPS, INPUT, &ended);
}

/// Nothing is left of an aborted task, wherever it was.
pub fn an_aborted_task_leaves_nothing(subject: &dyn Subject) {
    type Moment = (&'static str, fn(Phase) -> bool);
    let moments: [Moment; 4] = [
        ("provisioning", |phase| matches!(phase, Phase::Provisioning(_))),
        ("copying in", |phase| matches!(phase, Phase::CopyingIn(_))),
        ("running", |phase| phase == Phase::Running),
        ("committing", |phase| matches!(phase, Phase::Committing(_))),
    ];
    for (what, moment) in moments {
        let stage = compute_long(subject);
        let going = stage.begin();
        going.await_phase(what, moment);
        assert_eq!(going.handle.abort(), Ok(Accepted::Applied));
        let ended = going.end();
        assert_eq!((ended.outcome, ended.leftover), (Outcome::Aborted, None), "{what}: {}", ended.summary());
        stage.assert_clean();
        assert!(!stage.result_path("result").exists(), "{what}: a result of a task that was aborted");
    }
}

/// A named output that is not there fails the task in words, and what there is is collected.
pub fn a_missing_output_is_named(subject: &dyn Subject) {
    let stage = Stage::new(subject, Act::ForgetOutput, INPUT);
    let ended = stage.begin().end();
    let missing =
        |cause| matches!(cause, Cause::Op { op: Op::CopyOut(FileIx(0)), fault } if fault.kind == FaultKind::NotFound);
    assert_failed(&ended, missing, "result");
    assert!(!stage.result_path("result").exists());
    assert!(stage.result_path("stdout.txt").exists(), "the other output is collected");
    stage.assert_no_machine();
}

/// A program that is not there, or may not be run, fails the task.
pub fn a_program_that_cannot_be_started_fails_the_task(subject: &dyn Subject) {
    for act in [Act::Missing, Act::NotExecutable] {
        let stage = Stage::new(subject, act, INPUT);
        let ended = stage.begin().end();
        assert_failed(&ended, |cause| matches!(cause, Cause::Op { op: Op::Launch, .. }), "program");
        stage.assert_no_machine();
    }
}

/// How a program ends is told as it was.
pub fn the_programs_end_is_told_as_it_was(subject: &dyn Subject) {
    let ends = [
        (Act::Exit(3), ExitStatus::Code(3)),
        (Act::Exit(139), ExitStatus::Code(139)),
        (Act::Signal(11), ExitStatus::Signal(11)),
        (Act::Signal(9), ExitStatus::Signal(9)),
    ];
    for (act, exit) in ends {
        let stage = Stage::new(subject, act, INPUT);
        let ended = stage.begin().end();
        assert_eq!(ended.outcome, Outcome::Completed { exit }, "{}", ended.summary());
        stage.assert_clean();
    }
}

/// A guest that ends itself again and again is not tried for ever.
pub fn a_guest_that_ends_itself_is_given_up(subject: &dyn Subject) {
    for act in [Act::Reboot, Act::PowerOff] {
        let stage = Stage::new(subject, act, INPUT).with_policy(|policy| Policy { max_losses: 2, ..policy });
        let ended = stage.begin().end();
        assert_failed(&ended, |cause| matches!(cause, Cause::Guest { .. }), "again and again");
        assert_eq!(ended.counters.losses, 2, "{}", ended.summary());
        stage.assert_no_machine();
    }
}

/// A guest that hangs is noticed and given up.
pub fn a_guest_that_hangs_is_given_up(subject: &dyn Subject) {
    let stage = Stage::new(subject, Act::Hang, INPUT).with_policy(impatient);
    let ended = stage.begin().end();
    assert!(matches!(ended.outcome, Outcome::Failed { .. }), "{}", ended.summary());
    stage.assert_no_machine();
}

/// Deadlines that a computer under load still keeps, and a hang reaches within a minute.
fn impatient(policy: Policy) -> Policy {
    let mut policy = Policy { max_losses: 1, watch: Span::from_secs(5), ..policy };
    for op in
        [OpKind::Probe, OpKind::Pause, OpKind::CopyIn, OpKind::Launch, OpKind::CommitSnapshot, OpKind::BeginSnapshot]
    {
        policy = policy.with_deadline(op, Span::from_secs(8)).with_attempts(op, 1);
    }
    Policy { max_losses: 3, ..policy }
}

/// A hypervisor that answers nothing any more is fenced: the task goes on from its checkpoint in another one.
pub fn a_hypervisor_that_answers_nothing_is_fenced(subject: &dyn Subject) {
    let stage = compute_long(subject).with_policy(impatient);
    let going = stage.begin();
    going.await_checkpoints(1);
    let frozen_at = wall_ms();
    subject.freeze(&stage.dir);
    let ended = going.end();
    assert_right(&stage, LONG, INPUT, &ended);
    assert!(ended.counters.losses >= 1);
    assert_not_started_over(&stage, frozen_at);
}

/// An abort does not wait for a hypervisor that answers nothing any more.
pub fn an_abort_does_not_wait_for_a_hypervisor_that_answers_nothing(subject: &dyn Subject) {
    let stage = compute_long(subject);
    let going = stage.begin();
    going.await_checkpoints(1);
    subject.freeze(&stage.dir);
    // The next checkpoint hangs.
    going.hear("a checkpoint begun", 2, |report| matches!(report, Report::Phase(Phase::BeginningSnapshot(_))));
    assert_eq!(going.handle.abort(), Ok(Accepted::Applied));
    let ended = going.end();
    assert_eq!((ended.outcome, ended.leftover), (Outcome::Aborted, None), "{}", ended.summary());
    stage.assert_clean();
}

/// If the newest checkpoint is bad, the one before it is used, and that is said; if all are, the task starts over.
pub fn bad_checkpoints_are_passed_over(subject: &dyn Subject) {
    for all in [false, true] {
        let stage = compute_long(subject);
        let going = stage.begin();
        going.await_checkpoints(2);
        assert_eq!(going.handle.quit(BUDGET), Ok(Accepted::Applied));
        let stopped = going.end();
        let generations: Vec<Generation> = stopped.record.generations.iter().collect();
        assert_eq!(generations.len(), 2, "{}", stopped.summary());
        let stopped_at = wall_ms();
        if all {
            // One that was to be deleted may still be there, and would be used.
            (1..=generations[0].0).for_each(|generation| subject.damage(&stage.dir, generation));
        } else {
            subject.damage(&stage.dir, generations[0].0);
        }

        let going = stage.begin();
        going.await_phase("provisioning from the right state", |phase| {
            phase == Phase::Provisioning(if all { Base::Baseline } else { Base::Checkpoint(generations[1]) })
        });
        going.hear("told of the bad one", 1, |report| {
            matches!(report, Report::Notice(Notice::CheckpointDropped { .. }))
        });
        let ended = going.end();
        assert_right(&stage, LONG, INPUT, &ended);
        if !all {
            assert_not_started_over(&stage, stopped_at);
        }
    }
}
