//! A checker that knows nothing of ours finds the same states and the same verdict.

#![allow(missing_docs, reason = "tests")]

use rstest::rstest;
use stateright::{Checker, Model};
use vmtask_sim::model::Everything;
use vmtask_sim::{Budget, Explorer, Profile};

#[rstest]
fn another_checker_finds_as_many_states_and_nothing_broken(
    #[values(Profile::Qemu, Profile::Warm, Profile::Vix, Profile::Plain)] profile: Profile,
    #[values(Budget::of(1, 0), Budget::of(0, 1))] budget: Budget,
) {
    let ours = Explorer { every_state: true, ..Explorer::new(profile, budget) }.explore(|_| {});
    let theirs = Everything::new(profile, budget).checker().spawn_bfs().join();
    theirs.assert_properties();
    assert!(ours.given_up.is_none() && ours.findings.is_empty());
    // To them, a task that is over is a state of its own.
    assert_eq!(theirs.unique_state_count(), ours.states + 1);
}
