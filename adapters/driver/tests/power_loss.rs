//! Loss of power at every point of making a task's directory and keeping its journal.
//!
//! The promise: whatever was not flushed when the power went, a record that was said to be durable, or a newer one, is
//! read afterwards, and the directory is opened without a complaint.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use common::{binding, spec};
use vmtask_core::{JournalSeq, Record};
use vmtask_driver::testing::{Crash, FaultyStorage, RecordingStorage};
use vmtask_driver::{JournalFile, RealStorage, RecordStore, Storage, TaskDir, TaskId, replace_file};

fn record(seq: u64) -> Record {
    Record { seq: JournalSeq(seq), ..Record::new() }
}

fn open(storage: Arc<dyn Storage>, root: &Path) -> Result<(JournalFile, Option<u64>), String> {
    let dir = TaskDir::open(storage.as_ref(), root, &spec(), &[], &binding()).map_err(|error| error.to_string())?;
    let (journal, loaded) = JournalFile::open(storage, root, dir.id().clone()).map_err(|error| error.to_string())?;
    match loaded {
        // A loss of power alone damages nothing, so there is nothing to be said.
        Some(loaded) if loaded.notice.is_some() => Err(format!("{loaded:?}")),
        loaded => Ok((journal, loaded.map(|loaded| loaded.record.seq.0))),
    }
}

/// Lays out a crash, and opens what is left as the next manager would.
fn recover(crash: &Crash) -> Result<Option<u64>, String> {
    let disk = tempfile::tempdir().unwrap();
    crash.lay_out(disk.path()).unwrap();
    open(Arc::new(RealStorage), &disk.path().join("task")).map(|(_, seq)| seq)
}

/// What is wrong with what a crash leaves, if anything.
fn broken_promise(crash: &Crash, newest_ever: u64) -> Option<String> {
    let promised = crash.last_mark();
    match recover(crash) {
        Err(error) => Some(format!("{}: {error}", crash.story)),
        Ok(found) if found < promised => Some(format!("{}: promised {promised:?}, found {found:?}", crash.story)),
        Ok(Some(found)) if found > newest_ever => Some(format!("{}: {found} was never written", crash.story)),
        Ok(_) => None,
    }
}

fn write_some(storage: &RecordingStorage, root: &Path, seqs: std::ops::RangeInclusive<u64>) {
    let (mut journal, _) = open(Arc::new(storage.clone()), root).unwrap();
    for seq in seqs {
        journal.write(&record(seq)).unwrap();
        storage.mark(seq);
    }
}

#[test]
fn the_last_durable_record_or_a_newer_one_is_read_after_a_loss_of_power_at_any_point() {
    let disk = tempfile::tempdir().unwrap();
    let root = disk.path().join("task");
    let storage = RecordingStorage::new(disk.path()).unwrap();
    write_some(&storage, &root, 1..=3);
    // The next manager.
    write_some(&storage, &root, 4..=5);

    let crashes = storage.crashes();
    assert!(crashes.len() >= 50, "only {} states: the recording misses something", crashes.len());
    let broken: Vec<_> = crashes.iter().filter_map(|crash| broken_promise(crash, 5)).collect();
    assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), crashes.len(), broken.join("\n"));
}

#[test]
fn a_second_loss_of_power_right_after_the_first_loses_nothing_either() {
    let disk = tempfile::tempdir().unwrap();
    let root = disk.path().join("task");
    let storage = RecordingStorage::new(disk.path()).unwrap();
    write_some(&storage, &root, 1..=2);
    let mut states = 0;
    for crash in storage.crashes().into_iter().filter(|crash| crash.last_mark().is_some()) {
        let disk = tempfile::tempdir().unwrap();
        crash.lay_out(disk.path()).unwrap();
        let root = disk.path().join("task");
        let storage = RecordingStorage::new(disk.path()).unwrap();
        // What the first loss left is what is promised from here on.
        let (mut journal, found) = open(Arc::new(storage.clone()), &root).unwrap();
        storage.mark(found.unwrap());
        journal.write(&record(3)).unwrap();
        storage.mark(3);
        for second in storage.crashes() {
            states += 1;
            let broken = broken_promise(&second, 3);
            assert_eq!(broken, None, "after: {}", crash.story);
        }
    }
    assert!(states >= 100, "only {states} states");
}

#[test]
fn writes_that_fail_halfway_and_are_repeated_keep_the_promise() {
    // At each step of a write the disk fails, then heals, then the power goes.
    for steps in 0..8 {
        let disk = tempfile::tempdir().unwrap();
        let root = disk.path().join("task");
        let recording = RecordingStorage::new(disk.path()).unwrap();
        write_some(&recording, &root, 1..=2);
        let faulty = FaultyStorage::new(Arc::new(recording.clone()));
        let (mut journal, _) = open(Arc::new(faulty.clone()), &root).unwrap();
        faulty.fail_after(steps);
        let first = journal.write(&record(3));
        faulty.heal();
        if first.is_err() {
            journal.write(&record(4)).unwrap();
            recording.mark(4);
        }
        for crash in recording.crashes() {
            assert_eq!(broken_promise(&crash, 4), None, "failed after {steps} steps");
        }
    }
}

/// The ways to write a file that are not good enough. The replay must find out each.
#[derive(Clone, Copy, Debug)]
enum Careless {
    InPlace,
    NoFlush,
    NoDirectoryFlush,
}

fn write_carelessly(storage: &dyn Storage, path: &Path, content: &[u8], how: Careless) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let to = if matches!(how, Careless::InPlace) { path } else { &temporary };
    let mut file = storage.create(to)?;
    file.write_all(content)?;
    if !matches!(how, Careless::NoFlush) {
        file.sync()?;
    }
    if !matches!(how, Careless::InPlace) {
        storage.rename(&temporary, path)?;
    }
    if !matches!(how, Careless::NoDirectoryFlush) {
        storage.sync_dir(path.parent().unwrap())?;
    }
    Ok(())
}

fn losses(write: impl Fn(&dyn Storage, &Path, &[u8]) -> io::Result<()>) -> usize {
    let disk = tempfile::tempdir().unwrap();
    let storage = RecordingStorage::new(disk.path()).unwrap();
    for number in 1..=2_u64 {
        write(&storage, &disk.path().join("file"), format!("content {number}").as_bytes()).unwrap();
        storage.mark(number);
    }
    let lost = |crash: &&Crash| {
        let disk = tempfile::tempdir().unwrap();
        crash.lay_out(disk.path()).unwrap();
        let found = std::fs::read_to_string(disk.path().join("file")).ok();
        let number = found.as_deref().and_then(|text| text.strip_prefix("content ")).and_then(|n| n.parse().ok());
        number < crash.last_mark()
    };
    storage.crashes().iter().filter(lost).count()
}

#[test]
fn the_replay_finds_out_every_careless_way_to_write_a_file() {
    for how in [Careless::InPlace, Careless::NoFlush, Careless::NoDirectoryFlush] {
        let lost = losses(|storage, path, content| write_carelessly(storage, path, content, how));
        assert!(lost > 0, "{how:?} went unnoticed");
    }
    assert_eq!(losses(replace_file), 0);
}

#[test]
fn a_file_written_by_somebody_else_counts_from_its_flush_on() {
    let disk = tempfile::tempdir().unwrap();
    let storage = RecordingStorage::new(disk.path()).unwrap();
    let path = disk.path().join("stream");
    std::fs::write(&path, "by a child process").unwrap();
    storage.sync_file(&path).unwrap();
    storage.mark(1);
    storage.sync_dir(disk.path()).unwrap();
    storage.mark(2);
    let states: Vec<_> = storage
        .crashes()
        .iter()
        .map(|crash| {
            let disk = tempfile::tempdir().unwrap();
            crash.lay_out(disk.path()).unwrap();
            (crash.last_mark(), std::fs::read_to_string(disk.path().join("stream")).ok())
        })
        .collect();
    assert!(states.contains(&(Some(1), None)), "flushed, but its name was not: {states:?}");
    let after: Vec<_> = states.iter().filter(|(mark, _)| *mark == Some(2)).collect();
    assert_eq!(after, [&(Some(2), Some("by a child process".to_owned()))]);
}

#[test]
fn a_whole_directory_can_be_renamed_into_place() {
    let disk = tempfile::tempdir().unwrap();
    let storage = RecordingStorage::new(disk.path()).unwrap();
    let (new, old) = (disk.path().join("new"), disk.path().join("old"));
    storage.create_dir(&new, vmtask_driver::Access::Owner).unwrap();
    replace_file(&storage, &new.join("part"), b"x").unwrap();
    storage.rename(&new, &old).unwrap();
    storage.sync_dir(disk.path()).unwrap();
    storage.mark(1);
    for crash in storage.crashes().iter().filter(|crash| crash.last_mark() == Some(1)) {
        let disk = tempfile::tempdir().unwrap();
        crash.lay_out(disk.path()).unwrap();
        assert_eq!(std::fs::read(disk.path().join("old/part")).unwrap(), b"x", "{}", crash.story);
    }
}

#[test]
fn a_task_id_is_drawn_anew_for_each_directory() {
    let disk = tempfile::tempdir().unwrap();
    let id = |name: &str| -> TaskId {
        TaskDir::open(&RealStorage, &disk.path().join(name), &spec(), &[], &binding()).unwrap().id().clone()
    };
    assert_ne!(id("a"), id("b"));
    assert_eq!(id("a"), id("a"));
}

/// A task that has been worked on: a journal with the record before, a VM, a checkpoint, a result.
fn lay_out_old_task(root: &Path) {
    let storage: Arc<dyn Storage> = Arc::new(RealStorage);
    let (mut journal, _) = open(Arc::clone(&storage), root).unwrap();
    journal.write(&record(7)).unwrap();
    journal.write(&record(8)).unwrap();
    fs::create_dir_all(root.join("vm/checkpoints/1")).unwrap();
    fs::write(root.join("vm/checkpoints/1/state"), "state").unwrap();
    fs::write(root.join("vm/disk"), "disk").unwrap();
    fs::write(root.join("results/result.txt"), "half").unwrap();
}

/// Opens what is left as the next manager would, twice; whether it is the old task, or what is wrong.
fn old_or_new(root: &Path) -> Result<bool, String> {
    let mut is_old = Vec::new();
    for _ in 0..2 {
        let (_, seq) = open(Arc::new(RealStorage), root)?;
        let files = ["vm/checkpoints/1/state", "vm/disk"].map(|name| root.join(name).exists());
        is_old.push(match (seq, files, root.join("vm").exists()) {
            (Some(8), [true, true], _) => true,
            (None, [false, false], false) => false,
            mixture => return Err(format!("a mixture: {mixture:?}")),
        });
        if root.join("starting-over").exists() {
            return Err("the mark is still there".to_owned());
        }
    }
    let result = fs::read_to_string(root.join("results/result.txt")).map_err(|error| error.to_string())?;
    if result != "half" || is_old[0] != is_old[1] {
        return Err(format!("{is_old:?} with the result {result:?}"));
    }
    Ok(is_old[0])
}

#[test]
fn a_start_over_that_is_cut_anywhere_leaves_the_old_task_or_the_new_one() {
    let disk = tempfile::tempdir().unwrap();
    let root = disk.path().join("task");
    lay_out_old_task(&root);
    let storage = RecordingStorage::new(disk.path()).unwrap();
    let dir = TaskDir::open(&storage, &root, &spec(), &[], &binding()).unwrap();
    assert!(!dir.has_started_over());
    dir.start_over(&storage).unwrap();
    storage.mark(1);
    drop(dir);
    assert!(!old_or_new(&root).unwrap());

    let crashes = storage.crashes();
    let (mut old, mut new, mut broken) = (0, 0, Vec::new());
    for crash in &crashes {
        let disk = tempfile::tempdir().unwrap();
        crash.lay_out(disk.path()).unwrap();
        match old_or_new(&disk.path().join("task")) {
            Ok(true) if crash.last_mark().is_some() => broken.push(format!("{}: not given up", crash.story)),
            Ok(true) => old += 1,
            Ok(false) => new += 1,
            Err(error) => broken.push(format!("{}: {error}", crash.story)),
        }
    }
    assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), crashes.len(), broken.join("\n"));
    assert!(old >= 1 && new >= 10, "{old} old, {new} new: the recording misses something");
}

#[test]
fn a_start_over_that_fails_anywhere_leaves_the_old_task_or_is_gone_on_with() {
    for good in 0.. {
        let disk = tempfile::tempdir().unwrap();
        let root = disk.path().join("task");
        lay_out_old_task(&root);
        let storage = FaultyStorage::new(Arc::new(RealStorage));
        let dir = TaskDir::open(&storage, &root, &spec(), &[], &binding()).unwrap();
        storage.fail_after(good);
        let done = dir.start_over(&storage);
        drop(dir);
        let is_old = old_or_new(&root).unwrap_or_else(|error| panic!("failing after {good}: {error}"));
        match done {
            Ok(()) => {
                assert!(!is_old && good > 5, "after {good}");
                return;
            }
            // What was not made is not begun.
            Err(_) => assert_eq!(is_old, good == 0, "after {good}"),
        }
    }
}
