//! Long random walks with answers that no hypervisor would give: whatever comes, the verdict is the table's, what is
//! ignored changes nothing, and no two commands are in flight.

#![allow(clippy::unwrap_used)]

mod walker;

use std::collections::BTreeSet;

use vmtask_core::table::{Expected, PhaseKind, Trigger, expected, successors};
use vmtask_core::{Capabilities, Intent, Pause, Plan, Policy, Snapshots, Span};

use walker::{Dice, Seen, Walk, spec};

/// splitmix64: the same walk for a seed on every computer.
struct SplitMix(u64);

impl Dice for SplitMix {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn plan(seed: u64) -> Plan {
    let [guest_login, no_files, hasty] = [3, 5, 7].map(|n| seed.is_multiple_of(n));
    let capabilities = Capabilities {
        linked_clones: true,
        snapshots: Snapshots::Many,
        pause: Pause::Native,
        guest_login,
        outlives_manager: true,
        disk: false,
    };
    let mut spec = spec();
    if no_files {
        spec.files_in.clear();
        spec.files_out.clear();
    }
    // A walk is in no hurry to say that a record is durable, and lets much time pass: most would end before the outputs.
    let patient = Policy { journal: Span::MAX, at_stake: Span::MAX, ..Policy::default() };
    let policy = if hasty { Policy::default() } else { patient };
    Plan::new(&spec.check().unwrap(), policy, capabilities).unwrap()
}

/// So many walks at least; as many again, up to ten times, while there are steps or cells that no walk has met.
const WALKS: u64 = 100_000;

#[test]
fn every_verdict_of_a_random_walk_is_the_tables_and_every_step_is_in_the_diagram() {
    let mut seen = Seen::default();
    for round in 0..10 {
        for seed in round * WALKS..(round + 1) * WALKS {
            let plan = plan(seed);
            let mut walk = Walk::new(SplitMix(seed), plan, &mut seen);
            for _ in 0..600 {
                if !walk.step() {
                    break;
                }
            }
        }
        if unseen(&seen).is_empty() && unmet(&seen).is_empty() {
            break;
        }
    }
    let unexpected: Vec<_> = seen.steps.iter().filter(|((from, to), _)| !successors(*from).contains(to)).collect();
    assert!(unexpected.is_empty(), "steps that the diagram does not have: {unexpected:#?}");
    let (unseen, unmet) = (unseen(&seen), unmet(&seen));
    assert!(unseen.is_empty(), "steps of the diagram that were not seen: {unseen:?}");
    assert!(unmet.is_empty(), "phases in which a trigger that is possible was not met: {unmet:?}");
}

/// Steps of the diagram that no walk has made.
fn unseen(seen: &Seen) -> Vec<(PhaseKind, PhaseKind)> {
    let steps = PhaseKind::ALL.into_iter().flat_map(|from| successors(from).iter().map(move |&to| (from, to)));
    steps.filter(|step| !seen.steps.contains_key(step)).collect()
}

/// Cells of the table that are possible and no walk has met.
fn unmet(seen: &Seen) -> Vec<(PhaseKind, Trigger)> {
    let met: BTreeSet<_> = seen.cells.iter().map(|&(phase, _, trigger, _)| (phase, trigger)).collect();
    possible().filter(|cell| !met.contains(cell)).collect()
}

/// Every phase and trigger that the table calls possible under some intent.
fn possible() -> impl Iterator<Item = (PhaseKind, Trigger)> {
    PhaseKind::ALL.into_iter().flat_map(|phase| {
        Trigger::ALL.into_iter().map(move |trigger| (phase, trigger)).filter(|&(phase, trigger)| {
            Intent::ALL.iter().any(|&intent| !matches!(expected(phase, intent, trigger), Expected::Impossible(_)))
        })
    })
}
