//! `vmsim` as a command: what it refuses, what it says when it stops early, and its exit codes.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

use rstest::rstest;

fn vmsim(args: &[&str]) -> Command {
    let mut vmsim = Command::new(env!("CARGO_BIN_EXE_vmsim"));
    vmsim.args(args);
    vmsim
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[rstest]
#[case::more_steps_than_there_is_room_for(&["explore", "--latest", "21"], "21 is not in 0..=20")]
#[case::faults_of_no_seed(&["run", "--faults", "5"], "--seed <SEED>")]
#[case::no_time(&["swarm", "--seconds", "0"], "0 is not in 1..")]
#[case::no_time_for_a_frontier(&["frontier", "--seconds", "0"], "0 is not in 1..")]
#[case::a_frontier_that_does_not_move(&["frontier", "--deviations", "0"], "0 is not in 1..=64")]
#[case::no_runs(&["swarm", "--runs", "0"], "0 is not in 1..")]
#[case::one_file_for_two(&["coverage", "--svg", "same.svg", "--states", "same.svg"], "name the same file")]
#[case::no_such_plan(&["replay", "no-such.plan"], "cannot read the plan no-such.plan")]
fn what_makes_no_sense_is_refused(#[case] args: &[&str], #[case] reason: &str) {
    let output = vmsim(args).output().unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(code(&output), Some(2), "{said}");
    assert!(said.contains(reason), "{said}");
}

#[test]
fn the_largest_number_of_steps_is_searched() {
    let args = ["explore", "--latest", "20", "--faults", "1", "--requests", "0", "--scenario", "plain"];
    assert_eq!(code(&vmsim(&args).output().unwrap()), Some(0));
}

#[test]
fn a_search_that_is_given_up_says_what_it_has_looked_at() {
    let args = ["explore", "--faults", "1", "--requests", "1", "--max-states", "100"];
    let output = vmsim(&args).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), Some(3), "{said}");
    assert!(said.contains("complete, by deviations from a calm run: 0 (qemu, warm, vix, plain)\n"), "{said}");
    assert!(said.contains("given up: 1 (qemu), because so many states were allowed\n"), "{said}");
    assert!(said.contains("not looked at: 1 (warm, vix, plain), 2 (qemu, warm, vix, plain)\n"), "{said}");

    let output = vmsim(&args).arg("--json").output().unwrap();
    let last = String::from_utf8(output.stdout).unwrap().lines().next_back().unwrap().to_owned();
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["searches"]["complete"].as_array().unwrap().len(), 4, "{last}");
    assert_eq!(last["searches"]["given_up"][0]["scenario"], "qemu");
    assert_eq!(last["searches"]["not_looked_at"].as_array().unwrap().len(), 7);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::OpenOptions;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::{Command, Stdio};

    use rstest::rstest;

    use super::vmsim;

    #[test]
    fn what_cannot_be_written_was_not_told() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = vmsim(&["run", "--quiet"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("vmsim: cannot write to standard output: ") && said.lines().count() == 1, "{said}");
    }

    #[test]
    fn whoever_has_read_enough_is_no_error() {
        let mut child = vmsim(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    }

    #[rstest]
    #[case::explore(&["explore", "--faults", "9", "--requests", "9"], "because it was interrupted")]
    #[case::swarm(&["swarm", "--seconds", "600"], "interrupted: this is what there was so far")]
    #[case::frontier(&["frontier", "--seconds", "600"], "interrupted: this is what there was so far")]
    fn an_interrupt_ends_it_with_what_was_found_so_far(#[case] args: &[&str], #[case] told: &str) {
        let mut child = vmsim(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        // From its first line on, it listens.
        out.read_line(&mut said).unwrap();
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        out.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        assert!(said.contains(told), "{said}");
    }
}
