//! The stories of every hypervisor adapter, in the simulator's world.
#![cfg(target_os = "linux")]

use rstest::rstest;
use vmtask_tests::conformance::sim::Sim;
use vmtask_tests::conformance::{Subject, stories};

type Story = fn(&dyn Subject);

#[rstest]
#[case::a_task_runs_to_completion(stories::a_task_runs_to_completion)]
#[case::the_output_depends_on_the_input(stories::the_output_depends_on_the_input)]
#[case::a_killed_machine_goes_on_from_its_checkpoint(stories::a_killed_machine_goes_on_from_its_checkpoint)]
#[case::a_restored_machine_is_checkpointed_again(stories::a_restored_machine_is_checkpointed_again)]
#[case::a_suspended_guest_stands_still(stories::a_suspended_guest_stands_still)]
#[case::a_stopped_task_goes_on_where_it_stopped(stories::a_stopped_task_goes_on_where_it_stopped)]
#[case::a_task_stopped_at_once_resumes(stories::a_task_stopped_at_once_resumes)]
#[case::an_aborted_task_leaves_nothing(stories::an_aborted_task_leaves_nothing)]
#[case::a_guest_that_ends_itself_is_given_up(stories::a_guest_that_ends_itself_is_given_up)]
#[case::a_guest_that_hangs_is_given_up(stories::a_guest_that_hangs_is_given_up)]
#[case::a_hypervisor_that_answers_nothing_is_fenced(stories::a_hypervisor_that_answers_nothing_is_fenced)]
#[case::an_abort_does_not_wait(stories::an_abort_does_not_wait_for_a_hypervisor_that_answers_nothing)]
#[case::bad_checkpoints_are_passed_over(stories::bad_checkpoints_are_passed_over)]
fn simulated(#[case] story: Story) {
    story(&Sim::default());
}
