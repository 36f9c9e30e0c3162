//! Every run with one fault and one request, on every kind of hypervisor.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::num::NonZeroUsize;
use std::sync::Mutex;

use rstest::rstest;
use vmtask_sim::{Budget, ByNumber, Cell, Exploration, Explorer, GivenUp, Odometer, Profile, Scenario, Status, System};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

fn explore(profile: Profile, faults: u8, requests: u8) -> Exploration {
    let explorer = Explorer { workers: TWO, ..Explorer::new(profile, Budget::of(faults, requests)) };
    let found = explorer.explore(|_| {});
    if let Some(finding) = found.findings.first() {
        panic!("{}: {}\n{}\n{}", profile.name(), finding.violation, finding.plan, finding.trace.join("\n"));
    }
    assert_eq!(found.given_up, None, "after {} states", found.states);
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
    assert_eq!(explorer.explore(|_| {}).given_up, Some(GivenUp::States));
    let explorer = Explorer { memory: 1 << 20, ..Explorer::new(Profile::Qemu, Budget::of(2, 2)) };
    assert_eq!(explorer.explore(|_| {}).given_up, Some(GivenUp::Memory));
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

/// Nothing is missed by storing less: every state that a full search stores is passed, and so checked, by a sparse one.
#[rstest]
fn a_search_that_stores_some_states_passes_all(
    #[values(Profile::Qemu, Profile::Warm, Profile::Vix, Profile::Plain)] profile: Profile,
    #[values(Budget::of(1, 1), Budget::of(0, 2))] budget: Budget,
) {
    let passed = |every_state| {
        let passed = Mutex::new(HashSet::new());
        let explorer = Explorer { every_state, ..Explorer::new(profile, budget) };
        let found = explorer.explore_each(|_| {}, &|system| {
            passed.lock().unwrap().insert(system.fingerprint());
        });
        (found, passed.into_inner().unwrap())
    };
    let (full, all) = passed(true);
    let (sparse, same) = passed(false);
    assert_eq!(full.states, all.len());
    assert!(2 * sparse.states < full.states, "{} of {}", sparse.states, full.states);
    assert!(same == all, "{} of {}", same.len(), all.len());
    assert_eq!(sparse.longest_way_home, full.longest_way_home);
    assert_eq!((full.longest_stride, sparse.longest_stride > 1), (1, true));
    let met =
        |found: &Exploration| found.coverage.cells().map(|cell| matches!(cell.2, Cell::Met(_))).collect::<Vec<_>>();
    assert_eq!(met(&sparse), met(&full));
    assert!(full.findings.is_empty() && sparse.findings.is_empty());
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
///
/// Looks at one state in `one_in`, each time that it is reached.
fn go_on_alike(profile: Profile, budget: Budget, one_in: u128) {
    let scenario = Scenario::of(profile);
    let beyond = |system: &System| successors(&scenario, system).into_iter().map(|(fingerprint, _)| fingerprint);
    let mut known: HashMap<u128, u64> = HashMap::new();
    let mut waiting = vec![System::new(&scenario, budget)];
    while let Some(system) = waiting.pop() {
        for (fingerprint, next) in successors(&scenario, &system) {
            let Some(fingerprint) = fingerprint else { continue };
            let digest = || match fingerprint % one_in {
                0 => BuildHasherDefault::<DefaultHasher>::new().hash_one(beyond(&next).collect::<Vec<_>>()),
                _ => 0,
            };
            match known.entry(fingerprint) {
                Entry::Occupied(seen) => assert_eq!(*seen.get(), digest(), "{next:?}"),
                Entry::Vacant(place) => {
                    place.insert(digest());
                    waiting.push(next);
                }
            }
        }
    }
    assert!(known.len() > 1000);
}

#[rstest]
#[case::qemu(Profile::Qemu, Budget::of(1, 0))]
#[case::warm(Profile::Warm, Budget::of(0, 1))]
#[case::vix(Profile::Vix, Budget::of(1, 0))]
#[case::plain(Profile::Plain, Budget::of(1, 1))]
fn states_with_the_same_fingerprint_go_on_alike(#[case] profile: Profile, #[case] budget: Budget) {
    go_on_alike(profile, budget, 1);
}

/// The last takes minutes and 3 GB; `tests/run --all` takes them in.
#[rstest]
#[case::qemu_2(Profile::Qemu, Budget::of(2, 2).at_most(2), 1)]
#[case::warm_2(Profile::Warm, Budget::of(2, 2).at_most(2), 1)]
#[case::vix_2(Profile::Vix, Budget::of(2, 2).at_most(2), 1)]
#[case::plain_2(Profile::Plain, Budget::of(2, 2).at_most(2), 1)]
#[case::qemu_3(Profile::Qemu, Budget::of(3, 2).at_most(3), 8)]
#[ignore = "minutes each"]
fn states_with_the_same_fingerprint_go_on_alike_in_the_deep(
    #[case] profile: Profile,
    #[case] budget: Budget,
    #[case] one_in: u128,
) {
    go_on_alike(profile, budget, one_in);
}
