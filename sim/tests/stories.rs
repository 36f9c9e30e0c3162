//! What happens, line by line, in the runs that everybody should have read once.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use insta::assert_snapshot;
use vmtask_sim::{Plan, Run};

/// The trace of a plan that must keep every promise.
fn trace(plan: &str) -> String {
    let plan: Plan = plan.parse().unwrap();
    let run = Run::of(&plan);
    assert_eq!((run.violation, &run.complaints[..]), (None, &[][..]), "{}", run.trace.join("\n"));
    run.trace.join("\n")
}

#[test]
fn a_life_without_faults() {
    assert_snapshot!(trace("expect Completed exit=0 restarts<=0"));
}

#[test]
fn the_tools_never_answer_and_the_vm_is_started_anew() {
    assert_snapshot!(trace("at AwaitTools#1 tools timeout\nexpect Completed exit=0"));
}

#[test]
fn a_manager_killed_in_mid_snapshot_goes_on_from_the_one_before() {
    assert_snapshot!(trace("at CommitSnapshot#3 crash after-effect before-reply\nexpect Completed exit=0 restarts<=1"));
}

#[test]
fn a_power_cut_with_a_checkpoint_costs_what_came_after_it() {
    assert_snapshot!(trace("at Step#5 power-loss\nexpect Completed exit=0 restarts<=1"));
}

#[test]
fn a_launch_that_acts_late_starts_the_program_once() {
    assert_snapshot!(trace("at Launch#1 hang, acts after 4 steps\nexpect Completed exit=0 restarts<=0"));
}

#[test]
fn a_suspend_during_copy_in_holds_the_guest_and_goes_on_where_it_was() {
    assert_snapshot!(trace("request Suspend at CopyingIn(1)\nexpect Completed exit=0 restarts<=0"));
}

#[test]
fn a_quit_saves_and_another_manager_goes_on_from_there() {
    assert_snapshot!(trace("request Quit(60s) when Running +1s\nexpect Stopped checkpoint=1\nexpect Completed exit=0"));
}

#[test]
fn a_quit_without_a_budget_powers_off_at_once() {
    assert_snapshot!(trace("request Quit(0ms) at CommitSnapshot#1\nexpect Stopped\nexpect Completed exit=0"));
}

#[test]
fn an_abort_in_mid_snapshot_leaves_nothing_behind() {
    assert_snapshot!(trace("request Abort at CommitSnapshot#3\nexpect Aborted"));
}

#[test]
fn a_torn_journal_is_as_good_as_the_record_before_it() {
    assert_snapshot!(trace("at Persist#4 tear record\nexpect Completed exit=0"));
}

#[test]
fn a_newest_checkpoint_that_does_not_restore_makes_way_for_the_one_before() {
    assert_snapshot!(trace(
        "at CommitSnapshot#4 spoil checkpoint\nat CommitSnapshot#4 crash after-reply\nexpect Completed exit=0"
    ));
}

#[test]
fn a_vm_that_outlives_its_manager_is_adopted() {
    assert_snapshot!(trace("scenario vix\nat Step#3 crash\nexpect Completed exit=0 restarts<=0"));
}

#[test]
fn a_computer_that_slept_for_two_hours_takes_no_deadline_for_missed() {
    assert_snapshot!(trace("at CopyIn#2 clock +7200s before-effect\nexpect Completed exit=0 restarts<=0"));
}
