//! The random frontier: what it counts, what it gives up, and how far it reaches.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroUsize;

use rstest::rstest;
use vmtask_sim::{Breadth, Budget, Explorer, Frontier, Profile, Reach, Seen};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

fn keeps_its_promises(seen: &Seen) {
    if let Some(finding) = seen.findings.first() {
        panic!("{}\n{}\n{}", finding.violation, finding.plan, finding.trace.join("\n"));
    }
}

/// In any order, and with as many workers as you like.
#[rstest]
fn a_frontier_that_is_exhausted_has_seen_what_an_explorer_visits(
    #[values(Profile::Qemu, Profile::Warm, Profile::Vix, Profile::Plain)] profile: Profile,
    #[values(NonZeroUsize::MIN, TWO)] workers: NonZeroUsize,
) {
    let seen = Frontier { deviations: 1, workers, ..Frontier::new(3, &[profile]) }.search(|_| {});
    keeps_its_promises(&seen);
    let explorer = Explorer {
        breadth: Breadth { all_kinds: true, ..Breadth::default() },
        ..Explorer::new(profile, Budget::of(1, 1).at_most(1))
    };
    let visited = explorer.explore(|_| {});
    assert!(seen.exhausted && seen.given_up == 0 && seen.forgotten == 0);
    assert_eq!(seen.states, visited.states as u64);
    assert_eq!(seen.states, seen.by_deviations.iter().sum::<u64>());
    let met = |counts: [usize; 3]| counts[0];
    assert_eq!(met(seen.coverage.counts()), met(visited.coverage.counts()));
}

#[test]
fn a_seed_means_the_same_search() {
    let search = |seed| {
        let seen = Frontier { max_steps: 100_000, ..Frontier::new(seed, &Profile::ALL) }.search(|_| {});
        keeps_its_promises(&seen);
        (seen.by_deviations, seen.steps, seen.expanded, seen.coverage)
    };
    assert_eq!(search(5), search(5));
    assert_ne!(search(5).0, search(6).0);
}

#[test]
fn a_search_with_little_memory_gives_something_up_and_goes_on() {
    let seen = Frontier { memory: 1 << 20, max_steps: 200_000, ..Frontier::new(1, &[Profile::Qemu]) }.search(|_| {});
    keeps_its_promises(&seen);
    assert!(seen.given_up > 0 && seen.forgotten > 0 && !seen.exhausted);
    assert!(seen.by_deviations.iter().all(|states| *states > 0), "{:?}", seen.by_deviations);
}

#[test]
fn searches_by_chance_reach_most_of_a_small_space() {
    let reach = Reach::measure(Profile::Plain, Budget::of(1, 0), 1_000_000, 1).unwrap();
    for reached in &reach.reached {
        assert!(reached.shallow * 2 > reach.shallow, "{reached:?} of {}", reach.shallow);
        assert!(reached.shallow < reached.states && reached.steps >= 1_000_000);
    }
}
