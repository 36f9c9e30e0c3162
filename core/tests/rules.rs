//! One test for each promise that the machine makes to those who drive it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{ALL_IT_TAKES, EXIT_0, Hand, draft, generations, plan, spec};
use insta::assert_snapshot;
use rstest::rstest;
use vmtask_core::{
    Accepted, Back, Base, Capabilities, Cause, Denied, Event, ExitStatus, Fault, FaultKind, FileIx, Found, Generation,
    Ignored, Input, Instant, JournalSeq, Leftover, Op, OpKind, Outcome, Pause, Phase, Plan, PlanError, Policy, Power,
    Program, Record, Reply, Request, RestoreError, Snapshots, Span, Substitute, Task,
};

const DONE: Outcome = Outcome::Completed { exit: ExitStatus::Code(0) };

#[test]
fn a_life_without_faults_goes_through_every_step_in_order() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    assert_eq!(hand.event(EXIT_0), Accepted::Applied);
    assert_eq!(hand.until_ended(), DONE);
    assert_snapshot!(hand.log(), @r"
    persist 1
    command Probe
    command Register
    command Provision(baseline)
    command PowerOn
    command AwaitTools
    command MakeWorkdir
    command CopyIn(0)
    persist 2
    command Launch
    persist 3
    command CopyOut(0)
    command CopyOut(1)
    persist 4
    command PowerOff
    command Unregister
    persist 5
    completed
    ");
}

#[test]
fn a_checkpoint_is_made_committed_journaled_and_only_then_the_oldest_goes() {
    let mut hand = Hand::running();
    for _ in 0..3 {
        hand.pass(Span::from_secs(300));
        hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    }
    hand.log();
    hand.pass(Span::from_secs(300));
    hand.fast_disk = false;
    hand.answer_until(|hand| hand.command.is_none());
    // The commit is not durable in the journal, so nothing may be deleted on the strength of it.
    hand.log();
    hand.pass(Span::from_secs(1));
    assert_snapshot!(hand.log(), @"");
    hand.disk_is_done();
    assert_snapshot!(hand.log(), @r"
    command RemoveSnapshot(2)
    checkpoint 4
    ");
    assert_eq!(hand.task.record().generations, generations(&[4, 3]));
}

#[rstest]
#[case::launch(OpKind::CopyIn, "command Launch")]
fn a_gated_command_waits_until_the_newest_record_is_durable(#[case] before: OpKind, #[case] gated: &str) {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.until_flying(before);
    hand.fast_disk = false;
    hand.log();
    hand.succeed();
    assert!(!hand.log().contains(gated));
    // An earlier record being durable does not open the gate, and neither does one that was never written.
    let seq = hand.written.unwrap().seq;
    assert_eq!(hand.feed(Input::Persisted(JournalSeq(seq.0 - 1))), Accepted::Ignored(Ignored::NotAwaited));
    assert_eq!(hand.feed(Input::Persisted(JournalSeq(seq.0 + 1))), Accepted::Ignored(Ignored::NotAwaited));
    assert_snapshot!(hand.log(), @"");
    hand.disk_is_done();
    assert_eq!(hand.log(), gated);
}

#[test]
fn pausing_and_powering_off_never_wait_for_the_disk() {
    let mut hand = Hand::running();
    hand.fast_disk = false;
    hand.request(Request::Suspend).unwrap();
    assert_snapshot!(hand.log(), @r"
    persist 3
    command Pause
    ");
    hand.succeed();
    hand.request(Request::Quit { budget_ms: 0 }).unwrap();
    assert_snapshot!(hand.log(), @r"
    persist 5
    command PowerOff
    ");
}

#[test]
fn late_duplicate_and_foreign_answers_change_nothing() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    let probe = hand.command.unwrap();
    hand.succeed();
    let before = hand.task.machine().canonical(Instant::from_millis(hand.now));
    let result = Ok(Reply::Done);
    let foreign = vmtask_core::CommandId { epoch: 99, seq: probe.id.seq };
    assert_eq!(hand.feed(Input::Completed { id: probe.id, result }), Accepted::Ignored(Ignored::NotInFlight));
    assert_eq!(hand.feed(Input::Completed { id: foreign, result }), Accepted::Ignored(Ignored::ForeignEpoch));
    assert_eq!(hand.feed(Input::Fenced { id: probe.id, survived: false }), Accepted::Ignored(Ignored::NotFencing));
    assert_eq!(hand.task.machine().canonical(Instant::from_millis(hand.now)), before);
}

#[test]
fn an_exit_from_before_a_roll_back_is_ignored() {
    let mut hand = Hand::running();
    let boot = hand.task.machine().boot();
    let _ = hand.event(Event::GuestStopped);
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    assert_eq!(hand.feed(Input::Observed { boot, event: EXIT_0 }), Accepted::Ignored(Ignored::OtherBoot));
    assert_eq!(hand.task.phase(), Phase::Running);
}

#[test]
fn after_an_unknown_outcome_the_same_op_is_repeated_and_fenced_before_anything_else() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.until_flying(OpKind::CopyIn);
    hand.log();
    let _ = hand.fail(FaultKind::Unknown);
    hand.pass(Span::from_secs(1));
    hand.succeed();
    assert_snapshot!(hand.log(), @r"
    notice: copying input file 1 in: outcome unknown; trying again
    command CopyIn(0) (attempt 2)
    fence
    ");
    // The copy that was given up can no longer act; what else is true is looked at first.
    let _ = hand.fenced(true);
    hand.succeed();
    assert_snapshot!(hand.log(), @r"
    command Probe
    persist 2
    command Launch
    ");
}

#[test]
fn a_launch_whose_reply_is_lost_is_looked_at_and_not_repeated() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.until_flying(OpKind::Launch);
    hand.found.program = Program::Running;
    hand.log();
    let _ = hand.fail(FaultKind::Unknown);
    hand.succeed();
    assert_snapshot!(hand.log(), @r"
    command Probe
    notice: launching: outcome unknown; trying again
    fence
    ");
    let _ = hand.fenced(true);
    hand.succeed();
    assert_eq!(hand.task.phase(), Phase::Running);
    assert_snapshot!(hand.log(), @"command Probe");
}

#[test]
fn a_guest_that_does_not_survive_the_fence_is_powered_off_probed_and_restored() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    let _ = hand.event(EXIT_0);
    hand.log();
    for _ in 0..3 {
        hand.pass(Span::from_secs(40));
    }
    let _ = hand.fenced(false);
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    assert_snapshot!(hand.log(), @r"
    notice: copying output file 1 out: outcome unknown; trying again
    command CopyOut(0) (attempt 2)
    notice: copying output file 1 out: outcome unknown; trying again
    command CopyOut(0) (attempt 3)
    fence
    persist 6
    command PowerOff
    notice: the guest no longer answered; going on from checkpoint 1
    command Probe
    command Register
    command Provision(checkpoint 1)
    command PowerOn
    command AwaitTools
    command Probe
    ");
}

/// A task whose guest was lost, with a checkpoint; `kind` is in flight on the way back.
fn on_the_way_back(kind: OpKind) -> Hand {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    let _ = hand.event(Event::GuestStopped);
    hand.until_flying(kind);
    hand
}

/// Suspended while an answer is lost, so that the fence comes before the pause; then resumed.
fn suspended_in_doubt_and_resumed(hand: &mut Hand, program: Program) -> Op {
    hand.request(Request::Suspend).unwrap();
    let _ = hand.fail(FaultKind::Unknown);
    let _ = hand.fenced(true);
    hand.found.program = program;
    hand.succeed();
    assert_eq!(hand.command.unwrap().op, Op::Pause, "one look is enough");
    hand.succeed();
    hand.request(Request::Resume).unwrap();
    hand.succeed();
    hand.command.unwrap().op
}

#[rstest]
#[case::nobody_can_tell(Program::Unknown)]
#[case::it_runs(Program::Running)]
fn a_restored_guest_is_waited_for_after_a_fence_whatever_its_program_does(#[case] program: Program) {
    let mut hand = on_the_way_back(OpKind::AwaitTools);
    // Its clock is not set before its tools have answered.
    assert_eq!(suspended_in_doubt_and_resumed(&mut hand, program), Op::AwaitTools);
}

#[test]
fn outputs_that_were_collected_before_a_fence_are_not_collected_again() {
    let mut hand = Hand::running();
    let _ = hand.event(EXIT_0);
    hand.succeed();
    let exited = Program::Exited(ExitStatus::Code(0));
    assert_eq!(suspended_in_doubt_and_resumed(&mut hand, exited), Op::CopyOut(FileIx(1)));
    assert_eq!(hand.until_ended(), DONE);
}

#[test]
fn a_fence_that_is_not_answered_ends_failed_with_a_leftover() {
    let mut hand = Hand::running();
    hand.request(Request::Suspend).unwrap();
    hand.request(Request::Abort).unwrap();
    hand.pass(Span::from_secs(31));
    assert_eq!(hand.task.outcome(), Some(Outcome::Aborted));
    assert_eq!(hand.task.leftover(), Some(Leftover::MayRun));

    let mut hand = Hand::running();
    hand.request(Request::Suspend).unwrap();
    hand.pass(Span::from_secs(100));
    assert_eq!(hand.task.outcome(), Some(Outcome::Failed { cause: Cause::Fence { op: Op::Pause } }));
    assert_eq!(hand.task.leftover(), Some(Leftover::MayRun));
}

#[test]
fn an_abort_fences_at_once_and_discards() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.until_flying(OpKind::CopyIn);
    hand.log();
    hand.request(Request::Abort).unwrap();
    let _ = hand.fenced(true);
    assert_eq!(hand.until_ended(), Outcome::Aborted);
    assert_snapshot!(hand.log(), @r"
    persist 2
    fence
    persist 3
    command PowerOff
    command Unregister
    persist 4
    aborted
    ");
    assert_eq!(hand.request(Request::Abort), Ok(Accepted::Ignored(Ignored::Ending)));
}

#[test]
fn an_abort_that_was_journaled_is_taken_up_by_the_next_manager() {
    let mut hand = Hand::running();
    hand.request(Request::Abort).unwrap();
    let mut next = hand.restarted(2);
    assert_eq!(next.until_ended(), Outcome::Aborted);
}

#[test]
fn a_quit_pauses_saves_and_stops_and_the_next_manager_goes_on_from_there() {
    let mut hand = Hand::running();
    hand.request(Request::Quit { budget_ms: 20_000 }).unwrap();
    assert_eq!(hand.until_ended(), Outcome::Stopped { checkpoint: Some(Generation(1)) });
    assert_snapshot!(hand.log(), @r"
    persist 3
    command Pause
    persist 4
    command BeginSnapshot(1)
    command CommitSnapshot(1)
    persist 6
    command PowerOff
    checkpoint 1
    command Unregister(keep checkpoints)
    persist 7
    stopped; resumes from checkpoint 1
    ");
    hand.found.registered = false;
    let mut next = hand.restarted(2);
    next.answer_until(|hand| hand.task.phase() == Phase::Running);
    assert_snapshot!(next.log(), @r"
    persist 8
    command Probe
    command Register
    command Provision(checkpoint 1)
    command PowerOn
    command AwaitTools
    command Probe
    ");
    assert_eq!(next.task.record().restarts, 0, "nothing was lost");
}

#[test]
fn a_quit_that_runs_out_of_time_fences_and_reports_only_what_was_committed() {
    let mut hand = Hand::running();
    hand.request(Request::Quit { budget_ms: 2000 }).unwrap();
    hand.until_flying(OpKind::CommitSnapshot);
    hand.log();
    hand.pass(Span::from_secs(2));
    let _ = hand.fenced(false);
    assert_eq!(hand.until_ended(), Outcome::Stopped { checkpoint: None });
    assert_snapshot!(hand.log(), @r"
    fence
    persist 7
    command PowerOff
    notice: checkpoint 1 was not taken: outcome unknown; the next one is when it is due
    command Unregister(keep checkpoints)
    persist 8
    stopped before the first checkpoint; starts over when resumed
    ");
}

#[rstest]
#[case::then_a_shorter_one(60_000, 2000, Accepted::Applied)]
#[case::then_a_longer_one(2000, 60_000, Accepted::Ignored(Ignored::AlreadySo))]
fn of_two_quits_the_shorter_budget_counts(#[case] first: u32, #[case] second: u32, #[case] verdict: Accepted) {
    let mut hand = Hand::running();
    assert_eq!(hand.request(Request::Quit { budget_ms: first }), Ok(Accepted::Applied));
    assert_eq!(hand.request(Request::Quit { budget_ms: second }), Ok(verdict));
    hand.until_flying(OpKind::BeginSnapshot);
    hand.log();
    hand.pass(Span::from_millis(1999));
    assert_eq!(hand.log(), "");
    hand.pass(Span::from_millis(1));
    assert_eq!(hand.log(), "fence");
}

#[test]
fn losses_in_a_row_are_counted_anew_after_a_checkpoint() {
    let mut hand = Hand::running();
    let most = Policy::default().max_losses;
    for _ in 0..3 {
        for nth in 1..=most {
            let _ = hand.event(Event::GuestStopped);
            assert_eq!(hand.task.record().losses, nth);
            hand.found.power = Power::Off;
            hand.answer_until(|hand| hand.task.phase() == Phase::Running);
        }
        // One more in a row, and the task would have failed.
        hand.request(Request::Checkpoint).unwrap();
        hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
        assert_eq!(hand.task.record().losses, 0);
    }
    assert_eq!(hand.task.outcome(), None);
}

#[test]
fn a_crash_before_the_program_is_launched_again_loses_nothing() {
    let mut hand = Hand::running();
    let _ = hand.event(Event::GuestStopped);
    hand.found.power = Power::Off;
    hand.until_flying(OpKind::CopyIn);
    hand.found = Found::default();
    let mut next = hand.restarted(2);
    next.answer_until(|hand| hand.task.phase() == Phase::Running);
    // The roll-back of the first manager, and none of the second: there was no program that could have been lost.
    assert_eq!(next.task.record().restarts, 1);
}

#[test]
fn a_checkpoint_that_was_begun_before_the_programs_end_does_not_hold_it() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    hand.until_flying(OpKind::BeginSnapshot);
    let _ = hand.event(EXIT_0);
    hand.succeed();
    hand.until_flying(OpKind::CommitSnapshot);
    hand.succeed();
    hand.until_flying(OpKind::BeginSnapshot);
    assert!(!hand.log().contains("CopyOut"), "the end is saved before anything is copied");
}

#[test]
fn a_quit_after_the_programs_end_saves_it_and_collects_its_results_if_that_fails() {
    for fails in [false, true] {
        let mut hand = Hand::running();
        let _ = hand.event(EXIT_0);
        hand.request(Request::Quit { budget_ms: 60_000 }).unwrap();
        hand.until_flying(OpKind::CommitSnapshot);
        if fails {
            let _ = hand.fail(FaultKind::NoSpace);
        }
        let saved = Outcome::Stopped { checkpoint: Some(Generation(1)) };
        assert_eq!(hand.until_ended(), if fails { DONE } else { saved });
    }
}

#[test]
fn a_quit_whose_checkpoint_has_no_room_does_not_try_a_second_one() {
    let mut hand = Hand::running();
    hand.request(Request::Quit { budget_ms: 60_000 }).unwrap();
    hand.until_flying(OpKind::CommitSnapshot);
    let _ = hand.fail(FaultKind::NoSpace);
    assert_eq!(hand.command.unwrap().op, Op::PowerOff);
    assert_eq!(hand.until_ended(), Outcome::Stopped { checkpoint: None });
}

#[test]
fn every_output_that_is_missing_is_passed_over() {
    let mut hand = Hand::running();
    let _ = hand.event(EXIT_0);
    for ix in 0..2 {
        assert_eq!(hand.command.unwrap().op, Op::CopyOut(FileIx(ix)));
        let _ = hand.fail(FaultKind::NotFound);
    }
    let fault = Fault::new(FaultKind::NotFound);
    assert_eq!(hand.until_ended(), Outcome::Failed { cause: Cause::Op { op: Op::CopyOut(FileIx(0)), fault } });
}

#[test]
fn a_suspend_during_copy_in_is_kept_and_the_guests_deadlines_stand_still() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.until_flying(OpKind::CopyIn);
    hand.request(Request::Suspend).unwrap();
    let _ = hand.answer(Ok(Reply::Pending));
    hand.until_flying(OpKind::Pause);
    hand.succeed();
    assert_eq!(hand.task.phase(), Phase::Paused { back: Back::CopyingIn });
    assert_eq!(hand.task.poll_timeout(), None, "nothing is due while the guest stands still");
    hand.now += 40 * 24 * 3600 * 1000;
    hand.request(Request::Resume).unwrap();
    hand.until_flying(OpKind::CopyIn);
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
}

/// The next checkpoint begins then, and not a millisecond before.
#[track_caller]
fn assert_checkpoint_due_at(hand: &mut Hand, due: u64) {
    hand.answer_until(|hand| hand.command.is_none());
    hand.log();
    hand.pass(Span::from_millis(u32::try_from(due - hand.now - 1).unwrap()));
    hand.answer_until(|hand| hand.command.is_none());
    assert!(!hand.log().contains("BeginSnapshot"), "too early");
    hand.pass(Span::from_millis(1));
    hand.until_flying(OpKind::BeginSnapshot);
}

#[test]
fn a_checkpoint_is_due_an_interval_after_the_last_one_was_begun() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    let begun = hand.now;
    hand.until_flying(OpKind::CommitSnapshot);
    hand.pass(Span::from_secs(100));
    assert_checkpoint_due_at(&mut hand, begun + 300_000);
}

#[test]
fn a_checkpoint_that_took_longer_than_the_interval_is_followed_by_the_next_and_junk_goes_first() {
    let mut hand = Hand::running();
    for _ in 0..2 {
        hand.pass(Span::from_secs(300));
        hand.answer_until(|hand| hand.command.is_none());
    }
    hand.pass(Span::from_secs(300));
    hand.until_flying(OpKind::CommitSnapshot);
    for _ in 0..10 {
        hand.pass(Span::from_secs(40));
        let _ = hand.answer(Ok(Reply::Pending));
    }
    hand.log();
    hand.until_flying(OpKind::BeginSnapshot);
    assert_snapshot!(hand.log(), @r"
    persist 8
    checkpoint 3
    command RemoveSnapshot(1)
    persist 9
    command BeginSnapshot(4)
    ");
}

#[test]
fn a_checkpoint_of_a_suspended_task_counts_the_interval_in_the_guests_time() {
    let mut hand = Hand::running();
    hand.request(Request::Suspend).unwrap();
    hand.succeed();
    hand.pass(Span::from_secs(1000));
    hand.request(Request::Checkpoint).unwrap();
    hand.answer_until(|hand| hand.command.is_none());
    hand.pass(Span::from_secs(1000));
    hand.request(Request::Resume).unwrap();
    hand.until_flying(OpKind::Unpause);
    let resumed = hand.now;
    assert_checkpoint_due_at(&mut hand, resumed + 300_000);
}

#[test]
fn a_suspended_task_whose_guest_dies_stays_off_until_it_is_resumed() {
    let mut hand = Hand::running();
    hand.request(Request::Suspend).unwrap();
    hand.succeed();
    let _ = hand.event(Event::GuestStopped);
    hand.found.power = Power::Off;
    hand.answer_until(|hand| hand.command.is_none());
    assert_eq!(hand.task.phase(), Phase::Paused { back: Back::Off });
    hand.request(Request::Resume).unwrap();
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
}

#[test]
fn an_exit_while_pausing_is_kept() {
    let mut hand = Hand::running();
    hand.request(Request::Suspend).unwrap();
    let _ = hand.event(Event::ProgramExited(ExitStatus::Signal(11)));
    hand.succeed();
    assert_eq!(hand.task.phase(), Phase::Paused { back: Back::CopyingOut });
    hand.request(Request::Resume).unwrap();
    assert_eq!(hand.until_ended(), Outcome::Completed { exit: ExitStatus::Signal(11) });
}

#[test]
fn a_clock_jump_arms_deadlines_anew_instead_of_firing_them() {
    let mut hand = Hand::new();
    hand.request(Request::Start).unwrap();
    hand.until_flying(OpKind::AwaitTools);
    hand.log();
    hand.now += 8 * 3600 * 1000;
    hand.timeout();
    assert_snapshot!(hand.log(), @"notice: 28800.000s passed at once (did the computer sleep?); deadlines armed anew");
    assert!(hand.command.is_some());
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
}

#[test]
fn a_host_that_cannot_start_the_vm_just_now_does_not_cost_a_checkpoint() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    let _ = hand.event(Event::GuestStopped);
    hand.until_flying(OpKind::PowerOn);
    for _ in 0..3 {
        let _ = hand.fail(FaultKind::Refused);
        hand.pass(Span::from_secs(2));
    }
    let fault = Fault::new(FaultKind::Refused);
    assert_eq!(hand.until_ended(), Outcome::Failed { cause: Cause::Op { op: Op::PowerOn, fault } });
    assert_eq!(hand.task.record().generations, generations(&[1]));
}

#[test]
fn a_checkpoint_that_was_committed_but_not_journaled_counts_after_a_crash() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    hand.until_flying(OpKind::CommitSnapshot);
    hand.found.snapshots = generations(&[1]);
    hand.found.power = Power::Off;
    let mut next = hand.restarted(2);
    next.until_flying(OpKind::Provision);
    assert_eq!(next.command.unwrap().op, Op::Provision(Base::Checkpoint(Generation(1))));
}

#[test]
fn a_vm_that_outlived_its_manager_is_adopted() {
    let hand = Hand::running();
    let mut next = hand.restarted(2);
    next.answer_until(|hand| hand.task.phase() == Phase::Running);
    assert_snapshot!(next.log(), @r"
    persist 3
    command Probe
    command AwaitTools
    command Probe
    ");
    assert_eq!(next.event(EXIT_0), Accepted::Applied);
    assert_eq!(next.until_ended(), DONE);
}

#[test]
fn a_full_disk_skips_a_checkpoint_and_the_next_is_tried_in_its_turn() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(300));
    hand.until_flying(OpKind::BeginSnapshot);
    hand.log();
    let _ = hand.fail(FaultKind::NoSpace);
    hand.answer_until(|hand| hand.command.is_none());
    assert_snapshot!(hand.log(), @r"
    persist 4
    command RemoveSnapshot(1)
    notice: checkpoint 1 was not taken: no space left; the next one is when it is due
    ");
    hand.pass(Span::from_secs(300));
    hand.until_flying(OpKind::BeginSnapshot);
    assert_eq!(hand.command.unwrap().op, Op::BeginSnapshot(Generation(2)));
}

#[test]
fn a_missing_output_fails_the_task_after_the_others_were_collected() {
    let mut hand = Hand::running();
    let _ = hand.event(EXIT_0);
    hand.log();
    let _ = hand.fail(FaultKind::NotFound);
    let fault = Fault::new(FaultKind::NotFound);
    let op = Op::CopyOut(vmtask_core::FileIx(0));
    assert_eq!(hand.until_ended(), Outcome::Failed { cause: Cause::Op { op, fault } });
    assert!(hand.log().contains("command CopyOut(1)"));
}

#[test]
fn a_guest_that_is_lost_again_and_again_fails_the_task() {
    let mut hand = Hand::running();
    for _ in 0..6 {
        hand.answer_until(|hand| hand.task.phase() == Phase::Running);
        let _ = hand.event(Event::GuestRebooted);
    }
    let cause = Cause::Guest { loss: vmtask_core::Loss::Rebooted };
    assert_eq!(hand.until_ended(), Outcome::Failed { cause });
}

#[test]
fn a_program_that_runs_too_long_fails_the_task() {
    let mut hand = Hand::running();
    for _ in 0..24 * 12 {
        hand.pass(Span::from_secs(300));
        hand.answer_until(|hand| hand.command.is_none());
    }
    assert_eq!(hand.until_ended(), Outcome::Failed { cause: Cause::RunLimit });
}

#[rstest]
#[case::suspend(Request::Suspend, Denied::NotStarted)]
#[case::resume(Request::Resume, Denied::NotStarted)]
#[case::checkpoint(Request::Checkpoint, Denied::NotStarted)]
fn before_the_start_there_is_nothing_to_hold_or_save(#[case] request: Request, #[case] why: Denied) {
    assert_eq!(Hand::new().request(request), Err(why));
}

#[rstest]
#[case::quit(Request::Quit { budget_ms: 0 }, Outcome::Stopped { checkpoint: None })]
#[case::abort(Request::Abort, Outcome::Aborted)]
fn before_the_start_a_task_ends_without_touching_anything(#[case] request: Request, #[case] outcome: Outcome) {
    let mut hand = Hand::new();
    hand.request(request).unwrap();
    assert_eq!(hand.task.outcome(), Some(outcome));
    assert!(!hand.log().contains("command"));
}

#[test]
fn a_pause_that_writes_to_disk_gets_the_time_for_that() {
    let by_suspend = Capabilities { pause: Pause::BySuspend, ..ALL_IT_TAKES };
    let deadline = |capabilities, policy: Policy, op: OpKind| {
        Plan::new(&spec(), policy, capabilities).unwrap().policy().deadline[op.index()]
    };
    let policy = Policy::default().with_deadline(OpKind::Unpause, Span::from_secs(500));
    let [pause, begin] = [OpKind::Pause, OpKind::BeginSnapshot].map(|op| policy.deadline[op.index()]);
    assert_eq!(deadline(ALL_IT_TAKES, policy, OpKind::Pause), pause);
    assert_eq!(deadline(by_suspend, policy, OpKind::Pause), begin);
    assert_eq!(deadline(by_suspend, policy, OpKind::Unpause), Span::from_secs(500), "what is longer stays");
}

#[test]
fn what_a_hypervisor_lacks_is_substituted_and_told_or_denied_before_anything_is_touched() {
    let poor = Capabilities {
        linked_clones: false,
        snapshots: Snapshots::None,
        pause: Pause::None,
        guest_login: true,
        outlives_manager: false,
        disk: false,
    };
    let plan = Plan::new(&spec(), Policy::default(), poor).unwrap();
    let substitutes: Vec<_> = plan.substitutes(&spec()).collect();
    assert_eq!(substitutes, [Substitute::CopyForClone, Substitute::NoPause, Substitute::NoCheckpoints]);
    let mut hand = Hand::with(Task::new(plan, 1));
    hand.request(Request::Start).unwrap();
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    assert!(hand.log().contains("command LogIn"));
    assert_eq!(hand.request(Request::Suspend), Err(Denied::CannotPause));
    assert_eq!(hand.request(Request::Checkpoint), Err(Denied::NoCheckpoints));

    let mut draft = draft();
    draft.limits.disk = Some(1 << 30);
    assert_eq!(Plan::new(&draft.clone().check().unwrap(), Policy::default(), poor), Err(PlanError::NoDisk));
    draft.checkpoint.as_mut().unwrap().keep = 9;
    let too_many = Plan::new(&draft.check().unwrap(), Policy::default(), ALL_IT_TAKES);
    assert_eq!(too_many, Err(PlanError::Keep { keep: 9, max: Plan::MAX_KEEP }));
}

#[test]
fn a_finished_task_is_over_at_once_and_a_failed_one_runs_again() {
    let mut hand = Hand::running();
    let _ = hand.event(EXIT_0);
    hand.until_ended();
    assert_eq!(Task::restore(hand.durable.unwrap(), plan(), 2, Instant::ZERO).unwrap().outcome(), Some(DONE));

    let failed = Record {
        seq: JournalSeq(9),
        ending: Some(Outcome::Failed { cause: Cause::RunLimit }),
        ended: true,
        ..Record::new()
    };
    assert_eq!(Task::restore(failed, plan(), 2, Instant::ZERO).unwrap().phase(), Phase::Probing);
}

#[rstest]
#[case::newer(Record { version: 99, seq: JournalSeq(1), ..Record::new() }, RestoreError::Newer { found: 99, known: 2 })]
#[case::no_number(Record::new(), RestoreError::Contradiction { what: "its number is 0, which no record has" })]
#[case::ended(
    Record { seq: JournalSeq(1), ended: true, ..Record::new() },
    RestoreError::Contradiction { what: "the task has ended, but not how" }
)]
#[case::no_checkpoint(
    Record { seq: JournalSeq(1), next_generation: Generation(0), ..Record::new() },
    RestoreError::Contradiction { what: "it has a checkpoint with number 0, and they count from 1" }
)]
#[case::the_largest_number(
    Record { seq: JournalSeq(u64::MAX), ..Record::new() },
    RestoreError::Contradiction { what: "it has a number or a time that no machine lives to see" }
)]
fn a_record_that_no_machine_has_written_is_refused(#[case] record: Record, #[case] why: RestoreError) {
    assert_eq!(Task::restore(record, plan(), 1, Instant::ZERO).map(|_| ()), Err(why));
}
