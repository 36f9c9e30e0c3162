//! The grid: what its figures must show, and that they are the same wherever they are made.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::LazyLock;

use quick_xml::events::Event;
use rstest::rstest;
use vmtask_sim::grid::{Arm, CLASSES, Figures, Grid, GridError, MAX_COPIES, QUORUM, Report};

/// One grid for all tests here.
static REPORT: LazyLock<Report> = LazyLock::new(|| Grid::new(300, 400, 11).unwrap().run(2).unwrap());

fn arm(vm: bool, checkpoints: bool) -> &'static Figures {
    REPORT.arms.iter().find(|figures| figures.arm == Arm { vm, checkpoints }).unwrap()
}

#[test]
fn the_table_of_a_small_grid() {
    insta::assert_snapshot!(REPORT.table());
}

#[test]
fn a_seed_means_the_same_figures_on_any_number_of_threads() {
    let report = |seed, threads| Grid::new(50, 50, seed).unwrap().run(threads).unwrap();
    assert_eq!(report(5, 1), report(5, 4));
    assert_ne!(report(5, 1).table(), report(6, 1).table());
}

#[test]
fn every_copy_is_accounted_for() {
    for figures in &REPORT.arms {
        let copies = figures.copies;
        assert_eq!(copies.sent, copies.counted + copies.surplus + copies.outvoted + copies.lost, "{figures:?}");
        assert_eq!(copies.counted, QUORUM as u64 * u64::from(figures.decided));
        assert_eq!(figures.values.iter().sum::<u64>(), copies.counted + copies.surplus + copies.outvoted);
        assert_eq!(u64::from(figures.decided + figures.failed), 400);
        assert!(figures.copies_per_workunit() <= MAX_COPIES as f64);
    }
}

#[rstest]
#[case::no_checkpoints(false)]
#[case::checkpoints(true)]
fn with_virtual_machines_all_results_are_the_papers(#[case] checkpoints: bool) {
    let figures = arm(true, checkpoints);
    assert_eq!((figures.different_values(), CLASSES[0].value), (1, "3.140592860"));
    assert!(figures.values[0] > 0);
    assert_eq!((figures.copies.outvoted, figures.failed), (0, 0));
    // More than the redundancy only in place of copies that were lost or late.
    assert!(figures.copies.sent <= QUORUM as u64 * 400 + figures.copies.lost + figures.copies.overdue);
}

#[rstest]
#[case::no_checkpoints(false)]
#[case::checkpoints(true)]
fn without_virtual_machines_the_classes_disagree_and_copies_go_up(#[case] checkpoints: bool) {
    let (without, with) = (arm(false, checkpoints), arm(true, checkpoints));
    assert_eq!(without.different_values(), CLASSES.len());
    assert!(without.copies_per_workunit() > with.copies_per_workunit() + 0.5);
    assert!(without.wasted_percent() > 20.0 && with.wasted_percent() < 5.0);
    assert!(without.hours_per_workunit() > with.hours_per_workunit());
}

#[rstest]
#[case::without_vm(false)]
#[case::with_vm(true)]
fn checkpoints_leave_a_tenth_of_the_loss_or_less(#[case] vm: bool) {
    let (without, with) = (arm(vm, false), arm(vm, true));
    assert_eq!(without.checkpoints, 0);
    assert!(with.checkpoints > 0 && with.crashes > 0 && without.crashes > 0);
    assert!(with.done_again_percent() * 10.0 < without.done_again_percent());
    assert!(with.minutes_per_crash() < without.minutes_per_crash());
    assert!(with.computed_ms < without.computed_ms);
}

#[test]
fn a_host_takes_less_than_a_kibibyte_and_a_half() {
    let bytes = Grid::bytes_per_host();
    assert!((size_of::<vmtask_core::Machine>()..1536).contains(&bytes), "{bytes}");
}

#[rstest]
#[case::no_hosts(0, 10, "0 hosts: ask for 10 (each copy of a workunit goes to another host) to 4000000")]
#[case::too_few_hosts(9, 10, "9 hosts: ask for 10 (each copy of a workunit goes to another host) to 4000000")]
#[case::too_many_hosts(
    4_000_001,
    10,
    "4000001 hosts: ask for 10 (each copy of a workunit goes to another host) to 4000000"
)]
#[case::no_work(10, 0, "0 workunits: ask for 1 to 20000000")]
#[case::too_much_work(10, 20_000_001, "20000001 workunits: ask for 1 to 20000000")]
fn a_grid_that_makes_no_sense_is_refused(#[case] hosts: u32, #[case] workunits: u32, #[case] message: &str) {
    let error: GridError = Grid::new(hosts, workunits, 1).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert!(!error.is_broken_promise());
}

#[test]
fn as_few_hosts_as_a_workunit_may_have_copies_get_everything_done() {
    let report = Grid::new(10, 200, 3).unwrap().run(2).unwrap();
    assert!(report.arms.iter().all(|figures| figures.decided + figures.failed == 200));
}

#[test]
fn the_chart_is_well_formed_and_has_four_bars_a_panel() {
    let svg = REPORT.svg();
    let mut reader = quick_xml::Reader::from_str(&svg);
    let (mut depth, mut bars, mut texts) = (0, 0, vec![]);
    loop {
        match reader.read_event().unwrap() {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            Event::Empty(tag) if tag.name().as_ref() == "rect" => {
                bars += usize::from(tag.attributes().any(|a| a.unwrap().value.as_ref() == "52"));
            }
            Event::Text(text) => texts.push(String::from(&*text)),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!((depth, bars), (0, 12));
    for wanted in ["Copies per workunit", "Days for a workunit", "Work done again", "with VM, checkpoints"] {
        assert!(texts.iter().any(|text| text == wanted), "{wanted} is not in {texts:?}");
    }
}

#[test]
fn json_says_the_same_as_the_table() {
    let json = REPORT.json();
    assert_eq!(json["arms"].as_array().unwrap().len(), 4);
    assert_eq!(json["arms"][3]["copies"]["sent"], arm(true, true).copies.sent);
    assert_eq!(json["arms"][0]["values"][0]["value"], "3.140592860");
    assert_eq!(json["simulated"], true);
}
