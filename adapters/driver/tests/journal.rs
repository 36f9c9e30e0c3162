//! The journal's file: what is read back is the newest whole record, or an error that says why not.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{names_below, told};
use proptest::prelude::*;
use rstest::rstest;
use vmtask_core::{Cause, ExitStatus, Generation, Generations, Intent, JournalSeq, Loss, Outcome, Record};
use vmtask_driver::testing::FaultyStorage;
use vmtask_driver::{Digest, JournalError, JournalFile, Loaded, RealStorage, RecordStore, TaskId};

fn open(dir: &Path) -> Result<(JournalFile, Option<Loaded>), JournalError> {
    JournalFile::open(Arc::new(RealStorage), dir, TaskId::new("task"))
}

fn load(dir: &Path) -> Option<Loaded> {
    open(dir).unwrap().1
}

fn record(seq: u64) -> Record {
    Record { seq: JournalSeq(seq), elapsed_ms: seq * 1000, ..Record::new() }
}

/// A directory whose journal holds record 2, and before it record 1.
fn two_records() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, none) = open(dir.path()).unwrap();
    assert_eq!(none, None);
    journal.write(&record(1)).unwrap();
    journal.write(&record(2)).unwrap();
    dir
}

#[test]
fn the_newest_record_is_read_back_and_the_one_before_is_kept() {
    let dir = two_records();
    assert_eq!(load(dir.path()), Some(Loaded { record: record(2), notice: None }));
    assert_eq!(names_below(dir.path()), ["journal", "journal.prev"]);
    let line = fs::read_to_string(dir.path().join("journal")).unwrap();
    insta::assert_snapshot!(line);
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn a_journal_torn_at_any_byte_gives_the_record_before_and_says_so() {
    let dir = two_records();
    let path = dir.path().join("journal");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.record, record(1), "torn after {length} bytes");
        assert!(loaded.notice.unwrap().contains("is damaged"), "torn after {length} bytes");
    }
}

#[test]
fn a_journal_with_any_bit_turned_over_never_gives_another_record() {
    let dir = two_records();
    let path = dir.path().join("journal");
    let whole = fs::read(&path).unwrap();
    for ix in 0..whole.len() * 8 {
        let mut altered = whole.clone();
        altered[ix / 8] ^= 1 << (ix % 8);
        fs::write(&path, &altered).unwrap();
        assert_eq!(load(dir.path()).unwrap().record, record(1), "bit {ix}");
    }
}

#[test]
fn what_follows_a_record_makes_it_damaged() {
    let dir = two_records();
    let path = dir.path().join("journal");
    let mut twice = fs::read(&path).unwrap();
    twice.extend_from_within(..);
    fs::write(&path, &twice).unwrap();
    assert_eq!(load(dir.path()).unwrap().record, record(1));
}

#[test]
fn a_damaged_journal_does_not_replace_the_good_record_before_it() {
    let dir = two_records();
    fs::write(dir.path().join("journal"), "garbage").unwrap();
    let storage = FaultyStorage::new(Arc::new(RealStorage));
    // However far the next write comes, there is a record to be read.
    for steps in 0..10 {
        fs::write(dir.path().join("journal"), "garbage").unwrap();
        let (mut journal, loaded) =
            JournalFile::open(Arc::new(storage.clone()), dir.path(), TaskId::new("task")).unwrap();
        assert_eq!(loaded.unwrap().record, record(1));
        storage.fail_after(steps);
        let written = journal.write(&record(3));
        storage.heal();
        let expected = if load(dir.path()).unwrap().record == record(3) { record(3) } else { record(1) };
        assert_eq!(load(dir.path()).unwrap().record, expected);
        if written.is_ok() {
            assert_eq!(expected, record(3));
            return;
        }
    }
    panic!("the write never succeeded");
}

#[test]
fn a_write_that_fails_at_any_step_leaves_a_whole_record_and_can_be_repeated() {
    for steps in 0.. {
        let dir = two_records();
        let storage = FaultyStorage::new(Arc::new(RealStorage));
        let (mut journal, _) = JournalFile::open(Arc::new(storage.clone()), dir.path(), TaskId::new("task")).unwrap();
        storage.fail_after(steps);
        let failed = journal.write(&record(3)).is_err();
        storage.heal();
        let loaded = load(dir.path()).unwrap();
        assert!(loaded.record == record(2) || loaded.record == record(3), "after {steps} steps: {loaded:?}");
        assert_eq!(loaded.notice, None, "after {steps} steps");
        journal.write(&record(3)).unwrap();
        assert_eq!(load(dir.path()).unwrap().record, record(3));
        if !failed {
            assert!(steps >= 6, "unlink, create, write, flush, two renames, flush");
            return;
        }
    }
}

#[test]
fn a_full_disk_is_told_with_the_file_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FaultyStorage::new(Arc::new(RealStorage));
    let (mut journal, _) = JournalFile::open(Arc::new(storage.clone()), dir.path(), TaskId::new("task")).unwrap();
    storage.fail_after(2);
    let error = journal.write(&record(1)).unwrap_err();
    insta::assert_snapshot!(told(&error, dir.path()));
}

#[test]
fn a_missing_journal_is_the_moment_between_two_renames() {
    let dir = two_records();
    fs::remove_file(dir.path().join("journal")).unwrap();
    assert_eq!(load(dir.path()), Some(Loaded { record: record(1), notice: None }));
}

#[test]
fn of_two_whole_records_the_newer_is_read() {
    let dir = two_records();
    fs::rename(dir.path().join("journal"), dir.path().join("x")).unwrap();
    fs::rename(dir.path().join("journal.prev"), dir.path().join("journal")).unwrap();
    fs::rename(dir.path().join("x"), dir.path().join("journal.prev")).unwrap();
    assert_eq!(load(dir.path()).unwrap().record, record(2));
}

#[test]
fn a_journal_without_anything_whole_is_an_error() {
    let dir = two_records();
    fs::write(dir.path().join("journal"), "{}\n").unwrap();
    fs::write(dir.path().join("journal.prev"), "").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }));
    insta::assert_snapshot!(told(&error, dir.path()));
}

#[rstest]
#[case("journal")]
#[case("journal.prev")]
fn a_journal_of_another_task_is_refused(#[case] name: &str) {
    let (theirs, ours) = (two_records(), tempfile::tempdir().unwrap());
    let (mut journal, _) = JournalFile::open(Arc::new(RealStorage), ours.path(), TaskId::new("another task")).unwrap();
    journal.write(&record(1)).unwrap();
    journal.write(&record(2)).unwrap();
    fs::copy(theirs.path().join(name), ours.path().join(name)).unwrap();
    let error = JournalFile::open(Arc::new(RealStorage), ours.path(), TaskId::new("another task")).unwrap_err();
    assert!(matches!(&error, JournalError::Foreign(path) if path.ends_with(name)), "{error:?}");
    insta::assert_snapshot!(format!("foreign_{name}"), told(&error, ours.path()));
}

/// A line as a later version might write it: the same fields, the same sum.
fn line(version: u32, record: &str) -> String {
    let sum = Digest::of(format!("vmtask-journal\0{version}\0task\0{record}").as_bytes()).short();
    format!(
        "{{\"format\":\"vmtask-journal\",\"version\":{version},\"task\":\"task\",\"record\":{record},\"sum\":\"{sum}\"}}\n"
    )
}

#[rstest]
#[case::line(2, r#"{"version":1}"#, (2, 1))]
#[case::record(1, r#"{"version":3,"everything":"is different"}"#, (3, 2))]
fn a_newer_journal_is_refused_and_the_older_record_not_used(
    #[case] version: u32,
    #[case] record: &str,
    #[case] versions: (u64, u64),
) {
    let dir = two_records();
    fs::write(dir.path().join("journal"), line(version, record)).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found, known, .. } if (found, known) == versions), "{error:?}");
}

#[test]
fn a_newer_version_with_a_wrong_sum_is_damage() {
    let dir = two_records();
    let altered = line(1, r#"{"version":1}"#).replace("\"version\":1,\"task\"", "\"version\":9,\"task\"");
    fs::write(dir.path().join("journal"), altered).unwrap();
    assert_eq!(load(dir.path()).unwrap().record, record(1));
}

/// Records as released versions wrote them. They are never changed; a new version adds its own.
fn samples() -> Vec<(PathBuf, Record)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/records");
    let fresh = Record { version: 1, seq: JournalSeq(1), ..Record::new() };
    let running = Record {
        version: 1,
        seq: JournalSeq(17),
        launched: true,
        generations: [Generation(4), Generation(3)].into_iter().collect(),
        next_generation: Generation(6),
        pending: Some(Generation(5)),
        elapsed_ms: 123_456,
        checkpointed_cpu_ms: 100_000,
        restarts: 2,
        losses: 1,
        ..Record::new()
    };
    let ended = Record {
        intent: Intent::Suspend,
        seq: JournalSeq(40),
        generations: Generations::NONE,
        pending: None,
        exit: Some(ExitStatus::Signal(9)),
        ending: Some(Outcome::Failed { cause: Cause::Guest { loss: Loss::Unresponsive } }),
        ended: true,
        leftover: Some(vmtask_core::Leftover::StillRegistered),
        ..running
    };
    let restoring = Record {
        version: 2,
        generations: [Generation(3)].into_iter().collect(),
        aside: [Generation(4), Generation(2)].into_iter().collect(),
        failed_restores: 1,
        ..running
    };
    vec![
        (dir.join("v2-restoring.journal"), restoring),
        (dir.join("v1-fresh.journal"), fresh),
        (dir.join("v1-running.journal"), running),
        (dir.join("v1-ended.journal"), ended),
    ]
}

#[test]
fn records_of_all_released_versions_are_read() {
    for (sample, expected) in samples() {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(&sample, dir.path().join("journal")).unwrap();
        assert_eq!(load(dir.path()), Some(Loaded { record: expected, notice: None }), "{}", sample.display());
    }
}

/// Writes the samples of a new version, once: `cargo test -p vmtask-driver --test journal -- --ignored`.
#[test]
#[ignore = "writes samples that are not there yet"]
fn write_missing_samples() {
    for (sample, record) in samples().into_iter().filter(|(path, _)| !path.exists()) {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().0.write(&record).unwrap();
        fs::copy(dir.path().join("journal"), sample).unwrap();
    }
}

#[test]
fn every_sample_on_disk_is_in_the_list() {
    let mut listed: Vec<_> = samples().into_iter().map(|(path, _)| path).collect();
    listed.sort();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/records");
    let found: Vec<_> = names_below(&dir).into_iter().map(|name| dir.join(name)).collect();
    assert_eq!(found, listed);
}

fn any_record() -> impl Strategy<Value = Record> {
    let generation = (1_u32..9).prop_map(Generation);
    let exit = prop_oneof![any::<u8>().prop_map(ExitStatus::Code), any::<u8>().prop_map(ExitStatus::Signal)];
    (
        any::<(u64, bool, u64, u64, u32, u16, bool)>(),
        proptest::collection::vec(generation.clone(), 0..8),
        proptest::option::of(generation),
        proptest::option::of(exit),
    )
        .prop_map(|((seq, launched, elapsed_ms, cpu, restarts, losses, ended), generations, pending, exit)| {
            Record {
                seq: JournalSeq(seq),
                launched,
                elapsed_ms,
                checkpointed_cpu_ms: cpu,
                restarts,
                losses,
                ended,
                generations: generations.into_iter().collect(),
                pending,
                ending: exit.map(|exit| Outcome::Completed { exit }),
                exit,
                ..Record::new()
            }
        })
}

proptest! {
    #[test]
    fn every_record_is_read_back_as_it_was_written(record in any_record()) {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().0.write(&record).unwrap();
        prop_assert_eq!(load(dir.path()), Some(Loaded { record, notice: None }));
    }
}
