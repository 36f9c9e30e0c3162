//! Every run with one fault and one request, on every kind of hypervisor.

#![allow(missing_docs, reason = "tests")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;

use rstest::rstest;
use vmtask_sim::{Budget, ByNumber, Exploration, Explorer, Odometer, Profile, Scenario, Status, System};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

fn explore(profile: Profile, faults: u8, requests: u8) -> Exploration {
    let explorer = Explorer { workers: TWO, ..Explorer::new(profile, Budget::of(faults, requests)) };
    let found = explorer.explore(|_| {});
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
    let explorer = Explorer { max_states: 1000, ..Explorer::new(Profile::Qemu, Budget::of(2, 2)) };
    assert!(!explorer.explore(|_| {}).complete);
}

#[test]
fn as_many_workers_as_you_like_find_the_same() {
    let count = |workers| {
        let budget = Budget::of(1, 1);
        let found = Explorer { workers, ..Explorer::new(Profile::Plain, budget) }.explore(|_| {});
        (found.states, found.transitions, found.longest_way_home, found.ends, found.coverage)
    };
    assert_eq!(count(NonZeroUsize::MIN), count(TWO));
}

/// Where each answer to each question leads from here.
fn successors(scenario: &Scenario, system: &System) -> Vec<(Option<u128>, System)> {
    let mut odometer = Odometer::default();
    let mut found = vec![];
    loop {
        let mut next = system.clone();
        let status = next.step(scenario, &mut ByNumber(&mut odometer));
        found.push((matches!(status, Ok(Status::Going)).then(|| next.fingerprint()), next));
        if !odometer.advance() {
            return found;
        }
    }
}

/// If they did not, a search would miss what only one of them leads to.
#[rstest]
#[case::qemu(Profile::Qemu, Budget::of(1, 0))]
#[case::warm(Profile::Warm, Budget::of(0, 1))]
#[case::vix(Profile::Vix, Budget::of(1, 0))]
#[case::plain(Profile::Plain, Budget::of(1, 1))]
fn states_with_the_same_fingerprint_go_on_alike(#[case] profile: Profile, #[case] budget: Budget) {
    let scenario = Scenario::of(profile);
    let mut known: HashMap<u128, Vec<Option<u128>>> = HashMap::new();
    let mut waiting = vec![System::new(&scenario, budget)];
    while let Some(system) = waiting.pop() {
        for (fingerprint, next) in successors(&scenario, &system) {
            let Some(fingerprint) = fingerprint else { continue };
            let beyond = successors(&scenario, &next).into_iter().map(|(fingerprint, _)| fingerprint).collect();
            match known.entry(fingerprint) {
                Entry::Occupied(seen) => assert_eq!(*seen.get(), beyond, "{next:?}"),
                Entry::Vacant(place) => {
                    place.insert(beyond);
                    waiting.push(next);
                }
            }
        }
    }
    assert!(known.len() > 1000);
}
