//! `result.json`: what is in it, and that it can be read again.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use common::spec;
use rstest::rstest;
use vmtask_core::{
    Base, Cause, ExitStatus, Fault, FaultKind, FileIx, Generation, JournalSeq, Loss, Notice, Op, Outcome, Record,
    Substitute, TaskDraft,
};
use vmtask_driver::testing::FaultyStorage;
use vmtask_driver::{
    Circumstances, Counters, Digest, Ended, Execution, OpError, Platform, PortError, RealStorage, ResultError,
    TaskResult,
};

fn ended(outcome: Outcome) -> Ended {
    let error = PortError::new(FaultKind::NotFound, "the program left no file \"stdout.txt\"");
    Ended {
        outcome,
        leftover: None,
        record: Record {
            seq: JournalSeq(30),
            next_generation: Generation(4),
            elapsed_ms: 150_000,
            restarts: 1,
            exit: Some(ExitStatus::Code(0)),
            ..Record::new()
        },
        journal_error: None,
        errors: vec![OpError { op: Some(Op::CopyOut(FileIx(0))), error }],
        notices: vec![Notice::RolledBack { to: Base::Checkpoint(Generation(2)), why: Loss::Stopped }],
        substitutes: vec![Substitute::CopyForClone],
        counters: Counters { checkpoints: 2, losses: 1, manager_ms: 160_000 },
    }
}

fn circumstances() -> Circumstances {
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_300_000_000_123);
    Circumstances {
        platform: Platform { name: "x86_64-pc-linux-gnu".to_owned(), fingerprint: "f00d".to_owned() },
        execution: Execution {
            hypervisor: "qemu".to_owned(),
            simulated: false,
            accelerator: Some("tcg".to_owned()),
            build: Some("7.2.22".to_owned()),
        },
        started: Some(started),
        ended: Some(started + Duration::from_secs(160)),
    }
}

#[test]
fn a_result_tells_what_became_of_the_task_and_is_read_again() {
    let results = tempfile::tempdir().unwrap();
    fs::write(results.path().join("result.txt"), "3.140592860\n").unwrap();
    let completed = Outcome::Completed { exit: ExitStatus::Code(0) };
    let result = TaskResult::new(&spec(), &ended(completed), circumstances(), results.path()).unwrap();
    let path = result.write(&RealStorage, results.path()).unwrap();
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    assert_eq!(TaskResult::read(&path).unwrap(), result);
    assert_eq!(TaskResult::read(results.path()).unwrap(), result, "by its directory");
    let content = result.outputs[0].content.as_ref().unwrap();
    assert_eq!((content.size, content.sha256), (12, Digest::of(b"3.140592860\n")));
}

#[rstest]
#[case::removed(None, "removed")]
#[case::changed(Some("3.14\n"), "changed")]
fn an_output_that_was_touched_after_the_end_is_told(#[case] now: Option<&str>, #[case] what: &str) {
    let results = tempfile::tempdir().unwrap();
    let output = results.path().join("result.txt");
    fs::write(&output, "3.140592860\n").unwrap();
    let completed = Outcome::Completed { exit: ExitStatus::Code(0) };
    let result = TaskResult::new(&spec(), &ended(completed), circumstances(), results.path()).unwrap();
    result.check_outputs(&spec(), results.path()).unwrap();
    match now {
        Some(text) => fs::write(&output, text).unwrap(),
        None => fs::remove_file(&output).unwrap(),
    }
    let error = result.check_outputs(&spec(), results.path()).unwrap_err().to_string();
    assert!(error.contains("result.txt") && error.contains(what), "{error}");
}

#[test]
fn a_failure_says_why_and_a_missing_output_is_null() {
    let results = tempfile::tempdir().unwrap();
    let cause = Cause::Op { op: Op::CopyOut(FileIx(0)), fault: Fault::new(FaultKind::NotFound) };
    let failed = ended(Outcome::Failed { cause });
    let result = TaskResult::new(&spec(), &failed, circumstances(), results.path()).unwrap();
    assert_eq!(result.outputs[0].content, None);
    insta::assert_snapshot!(result.summary);
}

#[test]
#[cfg(unix)]
fn a_link_among_the_results_is_not_followed() {
    let results = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", results.path().join("result.txt")).unwrap();
    let spec = TaskDraft {
        files_out: vec![vmtask_core::FileOut { guest: "x".to_owned(), host: "result.txt".to_owned(), optional: true }],
        ..TaskDraft::from(spec())
    }
    .check()
    .unwrap();
    let result = TaskResult::new(&spec, &ended(Outcome::Aborted), circumstances(), results.path()).unwrap();
    assert_eq!(result.outputs[0].content, None);
}

#[test]
fn a_result_that_cannot_be_written_leaves_the_one_before() {
    let results = tempfile::tempdir().unwrap();
    let result = TaskResult::new(&spec(), &ended(Outcome::Aborted), circumstances(), results.path()).unwrap();
    let path = result.write(&RealStorage, results.path()).unwrap();
    let before = fs::read(&path).unwrap();
    let full = FaultyStorage::new(std::sync::Arc::new(RealStorage));
    full.fail_after(2);
    let error = result.write(&full, results.path()).unwrap_err();
    assert!(matches!(error, ResultError::Io { what: "write", .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[rstest]
#[case::something_else("{\"format\":\"vmtask-task\"}", "is no result of a task")]
#[case::torn("{\"for", "is no result of a task")]
fn what_is_no_result_is_told(#[case] text: &str, #[case] word: &str) {
    let results = tempfile::tempdir().unwrap();
    fs::write(results.path().join("result.json"), text).unwrap();
    let error = TaskResult::read(results.path()).unwrap_err().to_string();
    assert!(error.contains(word), "{error}");
}
