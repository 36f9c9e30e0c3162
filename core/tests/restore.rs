//! What becomes of a checkpoint that does not restore: only proof that it is damaged makes a task fall back.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{EXIT_0, Hand, generations, plan};
use insta::assert_snapshot;
use rstest::rstest;
use vmtask_core::{
    Base, Cause, Event, Fault, FaultKind, Generation, Instant, Loss, Op, OpKind, Outcome, Phase, Program, Span, Task,
};

/// A task whose guest was lost after two checkpoints, about to restore the newer one.
fn restoring() -> Hand {
    let mut hand = Hand::running();
    for _ in 0..2 {
        hand.pass(Span::from_secs(300));
        hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    }
    let _ = hand.event(Event::GuestStopped);
    hand.until_flying(OpKind::Provision);
    hand.log();
    hand
}

#[test]
fn proven_damage_makes_it_fall_back_and_nothing_is_deleted_but_told() {
    let mut hand = restoring();
    for _ in 0..2 {
        hand.until_flying(OpKind::Provision);
        let _ = hand.fail(FaultKind::Damaged);
    }
    hand.until_flying(OpKind::Provision);
    assert_snapshot!(hand.log(), @r"
    persist 8
    command PowerOff
    notice: checkpoint 2 is damaged: it is not what was written; going back to what is before it
    notice: a checkpoint was dropped; going on from checkpoint 1
    command Probe
    command Provision(checkpoint 1)
    persist 9
    command PowerOff
    notice: checkpoint 1 is damaged: it is not what was written; going back to what is before it
    notice: a checkpoint was dropped; starting over from the baseline
    command Probe
    persist 10
    command Provision(baseline)
    ");
    assert_eq!(hand.task.record().next_generation, Generation(3), "numbers are not used again");
    assert_eq!(hand.task.record().aside, generations(&[2, 1]), "what is damaged is set aside");
    assert_eq!(hand.task.record().restarts, 3, "starting over is a restart too");
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
}

#[test]
fn what_the_build_that_made_it_refuses_twice_is_damaged() {
    let mut hand = restoring();
    let _ = hand.fail(FaultKind::Rejected);
    hand.until_flying(OpKind::Provision);
    assert_eq!(hand.command.unwrap().op, Op::Provision(Base::Checkpoint(Generation(2))), "once proves nothing");
    let _ = hand.fail(FaultKind::Rejected);
    hand.until_flying(OpKind::Provision);
    assert_eq!(hand.command.unwrap().op, Op::Provision(Base::Checkpoint(Generation(1))));
    assert!(hand.log().contains("notice: checkpoint 2 is refused by the very hypervisor that made it"));
}

#[test]
fn restores_that_failed_before_one_that_succeeded_do_not_count() {
    let mut hand = restoring();
    let _ = hand.fail(FaultKind::Rejected);
    hand.answer_until(|hand| hand.task.phase() == Phase::Running);
    let _ = hand.event(Event::GuestStopped);
    hand.until_flying(OpKind::Provision);
    let _ = hand.fail(FaultKind::Rejected);
    assert_eq!(hand.task.record().generations, generations(&[2, 1]), "once proves nothing");
    assert!(!hand.log().contains("is refused"));
}

#[rstest]
#[case::another_build(FaultKind::Incompatible)]
#[case::no_permission_or_an_io_error(FaultKind::Refused)]
#[case::no_space(FaultKind::NoSpace)]
#[case::something_else(FaultKind::Fatal)]
#[case::unsupported(FaultKind::Unsupported)]
fn a_host_that_cannot_load_it_now_ends_the_run_and_loses_nothing(#[case] kind: FaultKind) {
    let mut hand = restoring();
    while hand.command.is_some_and(|command| command.op.kind() == OpKind::Provision) {
        let _ = hand.fail(kind);
        hand.pass(Span::from_secs(2));
    }
    let op = Op::Provision(Base::Checkpoint(Generation(2)));
    assert_eq!(hand.until_ended(), Outcome::Failed { cause: Cause::Op { op, fault: Fault::new(kind) } });
    assert_eq!(hand.task.record().generations, generations(&[2, 1]));
    assert!(!hand.log().contains("RemoveSnapshot"));
    // Once the cause is mended it goes on from there.
    let mut next = hand.restarted(2);
    next.until_flying(OpKind::Provision);
    assert_eq!(next.command.unwrap().op, op);
}

#[test]
fn a_hypervisor_that_never_answers_a_restore_says_nothing_about_the_checkpoint() {
    let mut hand = restoring();
    for _ in 0..100 {
        if hand.task.outcome().is_some() {
            break;
        }
        if hand.command.is_some_and(|command| command.op.kind() == OpKind::Provision) {
            hand.now = hand.task.poll_timeout().unwrap().as_millis();
            hand.timeout();
            if hand.task.machine().awaited_fence().is_some() {
                let _ = hand.fenced(true);
            }
        } else {
            hand.succeed_or_wait();
        }
    }
    assert_eq!(hand.task.outcome(), Some(Outcome::Failed { cause: Cause::Guest { loss: Loss::Unresponsive } }));
    assert_eq!(hand.task.record().generations, generations(&[2, 1]));
}

/// Lets the guest die whenever it should come up.
fn die_until_ended(hand: &mut Hand) {
    for _ in 0..200 {
        if hand.task.outcome().is_some() {
            return;
        }
        if hand.command.is_some_and(|command| command.op == Op::AwaitTools) {
            let _ = hand.event(Event::GuestStopped);
            let _ = hand.fail(FaultKind::Refused);
        } else {
            hand.succeed_or_wait();
        }
    }
    panic!("it never ends: {}", hand.log());
}

#[test]
fn a_guest_that_does_not_come_to_life_costs_all_of_the_work_only_after_another_manager_has_tried() {
    let mut hand = restoring();
    die_until_ended(&mut hand);
    let log = hand.log();
    assert!(log.contains("checkpoint 2 restored a guest that did not answer"), "{log}");
    assert!(!log.contains("Provision(baseline)"), "{log}");
    assert_eq!(hand.task.record().generations, generations(&[1]));
    assert_eq!(hand.task.record().aside, generations(&[2]), "it may be intact, and stays");
    assert!(matches!(hand.task.outcome(), Some(Outcome::Failed { cause: Cause::Guest { .. } })));
    // The next manager tries it as well, and then begins anew.
    let mut next = hand.restarted(2);
    die_until_ended(&mut next);
    let log = next.log();
    assert!(log.contains("Provision(checkpoint 1)") && log.contains("Provision(baseline)"), "{log}");
    assert_eq!(next.task.record().aside, generations(&[2, 1]));
}

#[test]
fn a_checkpoint_of_something_else_is_given_up_and_a_guest_that_rebooted_once_is_not() {
    let mut hand = restoring();
    for newest in [2, 2, 1] {
        hand.until_flying(OpKind::Provision);
        assert_eq!(hand.command.unwrap().op, Op::Provision(Base::Checkpoint(Generation(newest))));
        hand.succeed();
        hand.until_flying(OpKind::Probe);
        hand.found.program = Program::NotStarted;
        hand.succeed();
    }
    assert!(hand.log().contains("checkpoint 2 restored a guest in which the program was never started"));
}

#[test]
fn every_checkpoint_that_a_look_finds_unfit_is_told_with_its_reason() {
    let mut hand = Hand::running();
    for _ in 0..2 {
        hand.pass(Span::from_secs(300));
        hand.answer_until(|hand| hand.command.is_none() && hand.task.phase() == Phase::Running);
    }
    hand.request(vmtask_core::Request::Quit { budget_ms: 0 }).unwrap();
    while hand.task.outcome().is_none() {
        if hand.task.machine().awaited_fence().is_some() {
            let _ = hand.fenced(true);
        } else {
            hand.succeed_or_wait();
        }
    }
    hand.found.snapshots = generations(&[]);
    hand.found.damaged = generations(&[2]);
    let mut next = hand.restarted(2);
    next.log();
    next.until_flying(OpKind::Provision);
    assert_snapshot!(next.log(), @r"
    persist 14
    command Provision(baseline)
    notice: checkpoint 2 is damaged: it is not what was written; going back to what is before it
    notice: checkpoint 1 is no longer there; going back to what is before it
    notice: a checkpoint was dropped; starting over from the baseline
    ");
    assert_eq!(next.task.record().restarts, 1);
    assert_eq!(next.task.record().aside, generations(&[2, 1]));
    // Neither is deleted until the task is over, not even one that is not there: it may be seen again.
    next.answer_until(|hand| hand.task.phase() == Phase::Running);
    let _ = next.event(EXIT_0);
    next.until_ended();
    assert!(!next.log().contains("RemoveSnapshot"));
}

#[test]
fn an_older_checkpoint_is_not_missing_because_there_are_more_than_can_be_listed() {
    let mut hand = restoring();
    let _ = hand.fail(FaultKind::Refused);
    // Eight newer ones, which nobody wants, are all that fits.
    let mut record = hand.durable.unwrap();
    record.next_generation = Generation(20);
    hand.found.snapshots = generations(&[19, 18, 17, 16, 15, 14, 13, 12]);
    let mut next = Hand::with(Task::restore(record, plan(), 2, Instant::ZERO).unwrap());
    next.found = hand.found;
    next.drain();
    next.until_flying(OpKind::Provision);
    assert_eq!(next.command.unwrap().op, Op::Provision(Base::Checkpoint(Generation(2))));
    assert!(!next.log().contains("no longer there"));
}
