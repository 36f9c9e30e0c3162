//! A few kill trials of the kind that the tool `chaos` makes by the hundred.
#![cfg(target_os = "linux")]

use rstest::rstest;
use vmtask_tests::chaos::{self, Builds};
use vmtask_tests::real;

#[rstest]
#[case::under_one_build(Builds::One)]
#[case::under_two_builds_in_turn(Builds::Switched)]
fn kills_at_random_moments_lose_nothing(#[case] builds: Builds) {
    if !real::wanted() {
        return;
    }
    // Always the same: whoever looks for new ones takes the tool.
    for seed in chaos::seeds(2, 3) {
        if let Err(broken) = chaos::trial(seed, builds) {
            panic!("trial {}: {}; kept in {}", broken.seed, broken.why, broken.dir.display());
        }
    }
}
