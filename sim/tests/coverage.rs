//! Every cell of the core's table is met by random runs, or cannot be, for a reason that is written down.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use vmtask_sim::{Cell, Plan, Profile, Run, Swarm, matrix_svg, shrink, states_svg, why_never};

#[test]
fn every_cell_of_the_table_is_met_or_impossible_for_a_reason() {
    let mut swarm = Swarm::new(6, &Profile::ALL);
    swarm.cover(3_000_000);
    if let Some(finding) = swarm.findings.first() {
        panic!("{}\n{}\n{}", finding.violation, finding.plan, finding.trace.join("\n"));
    }
    insta::assert_snapshot!(swarm.coverage);
    for (phase, trigger, cell) in swarm.coverage.cells() {
        match cell {
            Cell::Met(_) => assert_eq!(why_never(phase, trigger), None, "{phase:?}, {trigger:?} was met"),
            Cell::Impossible(_) => {}
            Cell::Missed => panic!("{phase:?}, {trigger:?} was not met, and there is no reason why"),
        }
    }
    let drawn = matrix_svg(&swarm.coverage);
    assert_eq!(drawn.matches("<title>").count(), swarm.coverage.cells().count(), "every cell is drawn");
}

#[test]
fn a_seed_means_the_same_runs() {
    let series = || {
        let mut swarm = Swarm::new(7, &[Profile::Vix]);
        (0..500).for_each(|_| swarm.run());
        swarm
    };
    let (one, other) = (series(), series());
    assert_eq!((one.steps, one.acts, one.coverage), (other.steps, other.acts, other.coverage));
}

/// `vmsim coverage --states core/states.svg` draws it anew.
#[test]
fn the_drawn_states_are_those_of_the_table() {
    let drawn = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/states.svg");
    assert_eq!(fs::read_to_string(drawn).unwrap(), states_svg());
}

#[test]
fn a_plan_is_shrunk_to_what_breaks_the_promise() {
    let plan: Plan = "\
        scenario qemu\n\
        at CopyIn#1 slow\n\
        request Checkpoint at Launch#1 after-reply\n\
        at CommitSnapshot#1 delay reply\n\
        at CopyOut#1 duplicate reply\n\
        expect Aborted\n"
        .parse()
        .unwrap();
    // What was expected does not come about, whatever is left out.
    let unexpected = Run::of(&plan).violation.unwrap();
    assert_eq!(shrink(&plan, &unexpected).lines, []);
    // A promise that is kept cannot be shrunk.
    let kept = vmtask_sim::Violation::AbortEndedOtherwise(vmtask_core::Outcome::Aborted);
    assert_eq!(shrink(&plan, &kept), plan);
}
