//! Every run with one fault and one request, on every kind of hypervisor.

#![allow(missing_docs, reason = "tests")]

use rstest::rstest;
use vmtask_sim::{Breadth, Budget, Exploration, Explorer, Profile};

fn explore(profile: Profile, faults: u8, requests: u8) -> Exploration {
    let budget = Budget { faults, requests };
    let explorer = Explorer { profile, budget, breadth: Breadth::default(), max_states: 2_000_000, max_findings: 20 };
    let found = explorer.explore(|_, _| {});
    if let Some(finding) = found.findings.first() {
        panic!("{}: {}\n{}\n{}", profile.name(), finding.violation, finding.plan, finding.trace.join("\n"));
    }
    assert!(found.complete, "given up after {} states", found.states);
    found
}

#[rstest]
#[case::one_fault(1, 0)]
#[case::one_request(0, 1)]
#[case::one_of_each(1, 1)]
#[case::two_requests(0, 2)]
fn every_promise_is_kept_in_every_run(
    #[values(Profile::Qemu, Profile::Warm, Profile::Vix, Profile::Plain)] profile: Profile,
    #[case] faults: u8,
    #[case] requests: u8,
) {
    let found = explore(profile, faults, requests);
    // Aborts are among the requests, and every other run completes.
    assert!(found.ends[0] > 0);
    assert_eq!(found.ends[1] > 0, requests > 0);
}

#[test]
fn a_larger_budget_visits_more_and_the_same_budget_the_same() {
    let small = explore(Profile::Qemu, 1, 0);
    let again = explore(Profile::Qemu, 1, 0);
    let large = explore(Profile::Qemu, 1, 1);
    assert_eq!((small.states, small.transitions), (again.states, again.transitions));
    assert!(large.states > 10 * small.states);
}

#[test]
fn a_search_that_is_given_up_says_so() {
    let budget = Budget { faults: 2, requests: 2 };
    let explorer =
        Explorer { profile: Profile::Qemu, budget, breadth: Breadth::default(), max_states: 1000, max_findings: 1 };
    assert!(!explorer.explore(|_, _| {}).complete);
}
