//! The seeded bugs are up to date. Whether each is found, the `seeded-bugs` tool tells; that takes minutes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;

use vmtask_tests::real::repository;
use vmtask_tests::seeded::{Copy, bugs};

#[test]
fn every_bug_can_be_put_into_a_copy_of_the_sources_and_taken_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let copy = Copy::make(dir.path()).unwrap();
    for bug in bugs().unwrap() {
        copy.put_in(&bug).unwrap_or_else(|why| panic!("bug {}: {why}", bug.number));
        assert!(copy.put_in(&bug).is_err(), "bug {} changes nothing", bug.number);
        copy.take_out(&bug).unwrap();
    }
    for file in ["core/src/step.rs", "core/src/choose.rs", "core/src/machine.rs", "core/src/recover.rs"] {
        let now = fs::read_to_string(dir.path().join("sources").join(file)).unwrap();
        assert!(now == fs::read_to_string(repository().join(file)).unwrap(), "{file} is not as it was");
    }
}

#[test]
fn the_list_of_bugs_is_whole_and_the_report_names_each() {
    let bugs = bugs().unwrap();
    let numbers: BTreeSet<u32> =
        bugs.iter().map(|bug| bug.number.trim_end_matches(char::is_alphabetic).parse().unwrap()).collect();
    assert_eq!(numbers, (1..=57).collect());
    let report = fs::read_to_string(repository().join("tests/seeded/README.md")).unwrap();
    for bug in bugs {
        assert!(report.contains(&bug.what), "the report does not know of bug {}: {}", bug.number, bug.what);
    }
    assert!(!report.contains("**"), "the report tells of a bug that was not found");
}
