//! The journal: bytes as its files, bytes as a record in it, bytes as damage to what was written.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use vmtask_core::{
    Capabilities, ExitStatus, Generation, Instant, Intent, JournalSeq, Machine, Pause, Plan, Policy, Record, Snapshots,
};
use vmtask_driver::{JournalError, JournalFile, Loaded, RecordStore, Storage, TaskFile, TaskId};

use crate::memory::Memory;

/// Opens journals that were never ours, one with any record, and one that was damaged.
///
/// # Panics
/// If an error says nothing, a record comes out other than it went in, one comes out that was never written, or the
/// machine cannot be restored from a record and does not say so.
pub fn journal(bytes: &[u8]) {
    as_files(bytes);
    as_record(bytes);
    as_damage(bytes);
}

/// The first part is `journal`; `journal.prev` follows after a byte 0xff, which no text has.
fn as_files(bytes: &[u8]) {
    let memory = Memory::default();
    let mut parts = bytes.splitn(2, |&byte| byte == 0xff);
    for (name, part) in ["journal", "journal.prev"].into_iter().zip(&mut parts) {
        memory.put(&Path::new(DIR).join(name), part);
    }
    let Some((mut journal, Some(loaded))) = open(&memory) else { return };
    restore(&loaded.record);
    // Whatever was accepted is written as it was read.
    assert_written(&mut journal, &memory, &loaded.record);
}

/// Any record that can be read at all can be written and read again, and a machine makes of it what it can.
fn as_record(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else { return };
    let memory = Memory::default();
    if let Some((mut journal, None)) = open(&memory) {
        // One of a later version is not read again, and this version does not write it.
        if record.version <= vmtask_core::RECORD_VERSION {
            assert_written(&mut journal, &memory, &record);
        }
    }
    restore(&record);
}

/// Two files that were written, then at most eight bytes altered, inserted or removed, and files torn, swapped or put
/// back from before. To pass off another record would take the sixteen digits of its checksum.
fn as_damage(bytes: &[u8]) {
    const EDITS: usize = 8;
    let written = &*WRITTEN;
    let mut files = [written[2].1.clone(), written[1].1.clone()];
    for edit in bytes.chunks_exact(4).take(EDITS) {
        let [kind, high, low, value] = [edit[0], edit[1], edit[2], edit[3]];
        if kind & 0x80 != 0 {
            files.swap(0, 1);
        }
        let at = (usize::from(high) << 8 | usize::from(low)) % (files[0].len() + 1);
        match kind % 6 {
            0 if at < files[0].len() => files[0][at] = value,
            1 => files[0].truncate(at),
            2 => files[0].insert(at, value),
            3 if at < files[0].len() => drop(files[0].remove(at)),
            4 => files[0].clone_from(&written[usize::from(value) % written.len()].1),
            _ => {}
        }
    }
    let memory = Memory::default();
    memory.put(&Path::new(DIR).join("journal"), &files[0]);
    memory.put(&Path::new(DIR).join("journal.prev"), &files[1]);
    if let Some((_, Some(loaded))) = open(&memory) {
        let known = written.iter().any(|(record, _)| *record == loaded.record);
        assert!(known, "a record that was never written: {:?}", loaded.record);
    }
}

const DIR: &str = "/task";

/// Some records, each with the file that it was written as.
static WRITTEN: LazyLock<[(Record, Vec<u8>); 3]> = LazyLock::new(|| {
    let first = Record { seq: JournalSeq(1), ..Record::new() };
    let second = Record {
        seq: JournalSeq(17),
        launched: true,
        generations: [Generation(3), Generation(4)].into_iter().collect(),
        next_generation: Generation(6),
        pending: Some(Generation(5)),
        elapsed_ms: 123_456,
        ..first
    };
    let third = Record { seq: JournalSeq(18), intent: Intent::Quit, exit: Some(ExitStatus::Signal(9)), ..second };
    [first, second, third].map(|record| {
        let memory = Memory::default();
        let (mut journal, _) = open(&memory).unwrap_or_else(|| panic!("nothing is wrong with nothing"));
        assert_written(&mut journal, &memory, &record);
        let line = memory.read(&PathBuf::from(DIR).join("journal"));
        (record, line.unwrap_or_else(|error| panic!("it was just written: {error}")))
    })
});

/// What can be read; `None` for an error, which must say something.
fn open(memory: &Memory) -> Option<(JournalFile, Option<Loaded>)> {
    // The task of the records in `tests/records`.
    match JournalFile::open(Arc::new(memory.clone()), Path::new(DIR), TaskId::new("task")) {
        Ok((journal, loaded)) => {
            let notice = loaded.as_ref().and_then(|loaded| loaded.notice.as_ref());
            assert!(notice.is_none_or(|notice| !notice.is_empty()), "a notice without words");
            Some((journal, loaded))
        }
        Err(error) => {
            assert!(!matches!(error, JournalError::Io { .. } | JournalError::Gone(_)), "files in memory: {error}");
            assert!(error.to_string().len() > 20, "an error without words: {error}");
            None
        }
    }
}

fn assert_written(journal: &mut JournalFile, memory: &Memory, record: &Record) {
    journal.write(record).unwrap_or_else(|error| panic!("{record:?} cannot be written: {error}"));
    let Some((_, Some(again))) = open(memory) else { panic!("{record:?} cannot be read again") };
    // A journal of later writes that was put back from before may hold a larger number than the one just written.
    assert!(again.record == *record || again.record.seq > record.seq, "{record:?} became {:?}", again.record);
    assert_eq!(again.notice, None);
}

/// A machine is restored or says why not; it asks for something, or the task is over.
fn restore(record: &Record) {
    let plan = &*PLAN;
    match Machine::restore(*record, plan, 1, Instant::ZERO) {
        Ok(mut machine) => {
            machine.handle_timeout(plan, Instant::from_millis(1));
            let outputs = std::iter::from_fn(|| machine.poll_output(plan)).take(100).count();
            assert!((1..100).contains(&outputs), "{outputs} outputs of a machine that was restored from {record:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let capabilities = Capabilities {
        linked_clones: true,
        snapshots: Snapshots::Many,
        pause: Pause::Native,
        guest_login: false,
        outlives_manager: true,
        disk: false,
    };
    let text = "name = \"task\"\nplatform = \"x86_64-pc-linux-gnu\"\n[program]\npath = \"/bin/true\"\n";
    let file = TaskFile::parse(Path::new("task.toml"), text).unwrap_or_else(|error| panic!("{error}"));
    Plan::new(file.spec(), Policy::default(), capabilities).unwrap_or_else(|error| panic!("{error}"))
});
