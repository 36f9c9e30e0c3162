//! Finished work is safe: the program's end is saved before its outputs are copied, and told as it is.

#![allow(clippy::unwrap_used)]

mod common;

use common::{EXIT_0, Hand, draft};
use insta::assert_snapshot;
use rstest::rstest;
use vmtask_core::{
    Base, Cause, Event, ExitStatus, Fault, FaultKind, FileIx, Generation, Loss, Op, OpKind, Outcome, Phase, Plan,
    Policy, Program, Request, Span, Task,
};

/// A task whose program has run for so long and then ended.
fn ended_after(span: Span) -> Hand {
    let mut hand = Hand::running();
    hand.pass(span);
    hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    hand.log();
    let _ = hand.event(EXIT_0);
    hand.found.program = Program::Exited(ExitStatus::Code(0));
    hand
}

#[test]
fn the_end_is_saved_before_outputs_are_copied_if_much_would_be_computed_again() {
    let mut hand = ended_after(Span::from_secs(20));
    hand.until_flying(OpKind::CopyOut);
    assert_snapshot!(hand.log(), @r"
    persist 4
    command BeginSnapshot(1)
    command CommitSnapshot(1)
    persist 5
    command CopyOut(0)
    checkpoint 1
    ");
}

#[test]
fn little_computing_is_not_worth_a_checkpoint() {
    let mut hand = ended_after(Span::from_secs(5));
    hand.until_flying(OpKind::CopyOut);
    assert!(!hand.log().contains("Snapshot"));
}

#[test]
fn time_in_which_the_guest_was_held_is_no_computing() {
    let mut hand = Hand::running();
    hand.pass(Span::from_secs(5));
    hand.request(Request::Suspend).unwrap();
    hand.answer_until(|hand| matches!(hand.task.phase(), Phase::Paused { .. }));
    hand.pass(Span::from_secs(3600));
    hand.request(Request::Resume).unwrap();
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    let _ = hand.event(EXIT_0);
    hand.until_flying(OpKind::CopyOut);
    assert!(!hand.log().contains("Snapshot"));
}

#[test]
fn a_stop_while_outputs_are_copied_is_a_stop_at_once_and_nothing_is_computed_again() {
    let mut hand = ended_after(Span::from_secs(20));
    hand.until_flying(OpKind::CopyOut);
    hand.request(Request::Quit { budget_ms: 80_000 }).unwrap();
    let _ = hand.answer(Ok(vmtask_core::Reply::Pending));
    assert_eq!(hand.until_ended(), Outcome::Stopped { checkpoint: Some(Generation(1)) });
    let mut next = hand.restarted(2);
    next.found.program = Program::Exited(ExitStatus::Code(0));
    next.until_flying(OpKind::Provision);
    assert_eq!(next.command.unwrap().op, Op::Provision(Base::Checkpoint(Generation(1))));
    let reply = vmtask_core::Reply::Provisioned { running: false };
    let _ = next.answer(Ok(reply));
    next.until_flying(OpKind::CopyOut);
    let log = next.log();
    assert!(!log.contains("Launch") && !log.contains("BeginSnapshot"), "{log}");
}

#[test]
fn a_stop_before_the_end_is_saved_saves_it_first() {
    let mut hand = ended_after(Span::from_secs(20));
    hand.request(Request::Quit { budget_ms: 80_000 }).unwrap();
    assert_eq!(hand.until_ended(), Outcome::Stopped { checkpoint: Some(Generation(1)) });
}

#[test]
fn rounds_of_copying_are_bounded_although_checkpoints_are_made_in_between() {
    let mut hand = ended_after(Span::from_secs(400));
    for _ in 0..2000 {
        if hand.task.outcome().is_some() {
            break;
        }
        match hand.command.map(|command| command.op) {
            Some(Op::CopyOut(_)) => {
                let _ = hand.event(Event::GuestStopped);
                let _ = hand.fail(FaultKind::Refused);
                hand.found.program = Program::Running;
            }
            // The checkpoint of the end fails, so that it is computed anew from the one before, past another checkpoint.
            Some(Op::BeginSnapshot(_)) if matches!(hand.found.program, Program::Exited(_)) => {
                let _ = hand.fail(FaultKind::NoSpace);
            }
            None if hand.task.phase() == Phase::Running => {
                hand.pass(Span::from_secs(310));
                hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
                hand.found.program = Program::Exited(ExitStatus::Code(0));
                let _ = hand.event(EXIT_0);
            }
            _ => hand.succeed_or_wait(),
        }
    }
    assert_eq!(hand.task.outcome(), Some(Outcome::Failed { cause: Cause::Outputs { loss: Loss::Stopped } }));
}

#[rstest]
#[case::its_own_code(ExitStatus::Code(3), FaultKind::NotFound, true)]
#[case::a_crash(ExitStatus::Signal(11), FaultKind::NotFound, true)]
#[case::it_said_that_all_is_well(ExitStatus::Code(0), FaultKind::NotFound, false)]
#[case::what_was_written_could_not_be_copied(ExitStatus::Code(3), FaultKind::NoSpace, false)]
fn the_programs_own_word_wins_over_an_output_that_it_did_not_write(
    #[case] exit: ExitStatus,
    #[case] kind: FaultKind,
    #[case] is_the_end: bool,
) {
    let mut hand = Hand::running();
    let _ = hand.event(Event::ProgramExited(exit));
    // The first output is missing for this reason; the second is there.
    hand.until_flying(OpKind::CopyOut);
    while hand.command.is_some_and(|command| command.op == Op::CopyOut(FileIx(0))) {
        let _ = hand.fail(kind);
        hand.pass(Span::from_secs(2));
    }
    let outcome = hand.until_ended();
    if is_the_end {
        assert_eq!(outcome, Outcome::Completed { exit });
    } else {
        let cause = Cause::Op { op: Op::CopyOut(FileIx(0)), fault: Fault::new(kind) };
        assert_eq!(outcome, Outcome::Failed { cause });
    }
}

#[test]
fn an_output_that_could_not_be_copied_counts_more_than_one_that_was_not_written() {
    let mut hand = Hand::running();
    let _ = hand.event(Event::ProgramExited(ExitStatus::Code(3)));
    hand.until_flying(OpKind::CopyOut);
    let _ = hand.fail(FaultKind::NotFound);
    while hand.command.is_some_and(|command| command.op == Op::CopyOut(FileIx(1))) {
        let _ = hand.fail(FaultKind::NoSpace);
        hand.pass(Span::from_secs(2));
    }
    let cause = Cause::Op { op: Op::CopyOut(FileIx(1)), fault: Fault::new(FaultKind::NoSpace) };
    assert_eq!(hand.until_ended(), Outcome::Failed { cause });
}

#[rstest]
#[case::without_checkpoints(false)]
#[case::with_checkpoints(true)]
fn what_a_program_has_written_when_its_time_is_up_comes_back(#[case] checkpoints: bool) {
    let mut draft = draft();
    draft.limits.run_ms = Some(30_000);
    draft.checkpoint = draft.checkpoint.filter(|_| checkpoints);
    let plan = Plan::new(&draft.check().unwrap(), Policy::default(), common::ALL_IT_TAKES).unwrap();
    let mut hand = Hand::with(Task::new(plan, 1));
    hand.request(Request::Start).unwrap();
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    hand.log();
    hand.pass(Span::from_secs(30));
    hand.until_flying(OpKind::CopyOut);
    // It has not written this one yet.
    let _ = hand.fail(FaultKind::NotFound);
    assert_eq!(hand.until_ended(), Outcome::Failed { cause: Cause::RunLimit });
    let log = hand.log();
    assert!(log.contains("command CopyOut(1)"), "{log}");
    assert_eq!(log.contains("checkpoint 1"), checkpoints, "raising the limit goes on from there: {log}");
}
