//! `result.json`: what is in it, and that it can be read again.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use common::spec;
use rstest::rstest;
use vmtask_core::{
    Base, Cause, ExitStatus, Fault, FaultKind, FileIx, Generation, Generations, JournalSeq, Loss, Notice, Op, Outcome,
    Record, Substitute, TaskDraft, Unfit,
};
use vmtask_driver::testing::FaultyStorage;
use vmtask_driver::{
    Circumstances, Counters, Digest, Dropped, Ended, Execution, Missing, OpError, Platform, PortError, RealStorage,
    ResultError, TaskResult,
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
        missing: Vec::new(),
        dropped: vec![Dropped { generation: Generation(3), why: Unfit::Damaged }],
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

fn completed(exit: ExitStatus) -> Ended {
    let ended = ended(Outcome::Completed { exit });
    Ended { record: Record { exit: Some(exit), ..ended.record }, ..ended }
}

#[rstest]
#[case::success(ExitStatus::Code(0), "completed", "completed")]
#[case::failure(ExitStatus::Code(3), "program_failed", "the program failed: exit code 3")]
#[case::crash(
    ExitStatus::Signal(11),
    "crashed",
    "the program crashed: SIGSEGV (signal 11: access to memory that is not its own)"
)]
fn how_the_program_ended_is_the_outcomes_word(#[case] exit: ExitStatus, #[case] word: &str, #[case] summary: &str) {
    let results = tempfile::tempdir().unwrap();
    let result = TaskResult::new(&spec(), &completed(exit), circumstances(), results.path()).unwrap();
    assert_eq!((result.outcome.as_str(), result.summary.as_str(), result.exit), (word, summary, Some(exit)));
}

#[test]
fn what_a_failed_program_did_not_write_is_listed_and_no_loss_afterwards() {
    let results = tempfile::tempdir().unwrap();
    let mut ended = completed(ExitStatus::Code(3));
    let why = "the program did not write the output \"stdout.txt\"".to_owned();
    ended.missing = vec![Missing { file: FileIx(0), why: why.clone() }];
    fs::write(results.path().join("result.txt"), "of an earlier run\n").unwrap();
    let result = TaskResult::new(&spec(), &ended, circumstances(), results.path()).unwrap();
    let listed: Vec<_> = result.missing.iter().map(|missing| (&*missing.name, &*missing.guest, &missing.why)).collect();
    assert_eq!(listed, [("result.txt", "stdout.txt", &why)]);
    assert_eq!(result.outputs[0].content, None, "what an earlier run left is not this one's");
    assert_eq!(result.summary, format!("the program failed: exit code 3; {why}"));
    result.check_outputs(&spec(), results.path()).unwrap();
}

#[test]
fn an_output_of_a_failed_program_that_was_there_is_still_checked() {
    let results = tempfile::tempdir().unwrap();
    fs::write(results.path().join("result.txt"), "half\n").unwrap();
    let ended = completed(ExitStatus::Signal(9));
    let result = TaskResult::new(&spec(), &ended, circumstances(), results.path()).unwrap();
    fs::remove_file(results.path().join("result.txt")).unwrap();
    assert!(matches!(result.check_outputs(&spec(), results.path()), Err(ResultError::Lost { what: "removed", .. })));
}

#[rstest]
#[case::with_a_checkpoint(&[2], "it goes on from checkpoint 2")]
#[case::without(&[], "it starts over")]
fn a_run_limit_promises_no_checkpoint_that_is_not_there(#[case] generations: &[u32], #[case] goes_on: &str) {
    let mut ended = ended(Outcome::Failed { cause: Cause::RunLimit });
    ended.record.exit = None;
    ended.record.generations = generations.iter().copied().map(Generation).collect::<Generations>();
    assert_eq!(
        ended.summary(),
        format!(
            "failed: the program ran for as long as limits.run allows; raise limits.run and run the task again: {goes_on}"
        )
    );
}

#[rstest]
#[case::another_build(FaultKind::Incompatible, "made by QEMU 9", "install what it was made with")]
#[case::no_permission(FaultKind::Refused, "cannot read it: no permission", "mend the cause")]
fn a_checkpoint_that_cannot_be_used_here_is_told_with_both_ways_out(
    #[case] kind: FaultKind,
    #[case] said: &str,
    #[case] mend: &str,
) {
    let op = Op::Provision(Base::Checkpoint(Generation(2)));
    let fault = Fault::new(kind);
    let mut ended = ended(Outcome::Failed { cause: Cause::Op { op, fault } });
    ended.record.exit = None;
    ended.errors = vec![OpError { op: Some(op), error: PortError::new(kind, said) }];
    let both =
        format!("; checkpoint 2 is kept: {mend} and run the task again, or begin anew with `vmtask run --start-over`");
    let summary = ended.summary();
    assert!(summary.contains(said) && summary.ends_with(&both), "{summary}");

    let all = "install QEMU 9, or begin anew with `vmtask run --start-over`";
    ended.errors[0].error.message = all.to_owned();
    let summary = ended.summary();
    assert!(summary.ends_with(all) && summary.matches("--start-over").count() == 1, "said once: {summary}");
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
