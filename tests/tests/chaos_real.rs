//! A few kill trials of the kind that the tool `chaos` makes by the hundred.
#![cfg(target_os = "linux")]

use vmtask_tests::{chaos, real};

#[test]
fn kills_at_random_moments_lose_nothing() {
    if !real::wanted() {
        return;
    }
    // Always the same: whoever looks for new ones takes the tool.
    for seed in chaos::seeds(2, 3) {
        if let Err(broken) = chaos::trial(seed) {
            panic!("trial {}: {}; kept in {}", broken.seed, broken.why, broken.dir.display());
        }
    }
}
