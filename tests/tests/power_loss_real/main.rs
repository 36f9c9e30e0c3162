//! A loss of power at any moment of a real run: with everything dropped that was not flushed, the task goes on from a
//! checkpoint, or its results are there.
//!
//! ```text
//!   strace vmtask run --> what vmtask and QEMU did to files --> RecordingStorage --> every state that a loss of power
//!                                                                                    could have left behind
//! ```
//! A checkpoint's stream is too large to be kept in hundreds of versions; a line that tells its length stands for it.
//! The journal, the manifests and the results are what was really written.
#![cfg(target_os = "linux")]

mod strace;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use vmtask_core::{Outcome, Record};
use vmtask_driver::testing::{Crash, RecordingStorage};
use vmtask_driver::{Access, Digest, JournalFile, RealStorage, Storage, StorageFile, TaskId};
use vmtask_tests::guest::{self, Bits};
use vmtask_tests::real::{self, Den};
use vmtask_tests::run::{Run, TaskToml};

use strace::Did;

/// The promise that the task is over.
const OVER: u64 = u64::MAX;

#[test]
fn a_loss_of_power_at_any_moment_loses_no_checkpoint_that_was_promised_and_no_result() {
    if !real::wanted() {
        return;
    }
    let den = Den::new();
    let input = den.path().join("input");
    fs::write(&input, "1 1 2 3 5 8 13").expect("write the input");
    let program = guest::program("counter", Bits::B64);
    // Long enough for the third checkpoint, with which the first one goes.
    let task = TaskToml::new("power", &program, &["input", "400", "20", "result", "steps"])
        .input(&input, "input")
        .output("result")
        .checkpoints("300ms")
        .write(&den);
    let (dir, log) = (den.path().join("task"), den.path().join("strace"));
    let vmtask = den.vmtask();
    // Its arguments are added by the run.
    let done = Run::start_by(strace::watch(&vmtask, &log), &task, &dir).finish().expect(0);
    let story = fs::read(&log).expect("strace's log");
    let did = strace::read(&String::from_utf8_lossy(&story));

    let replayed = tempfile::tempdir().expect("make a temporary directory");
    let root = fs::canonicalize(replayed.path()).expect("its path");
    let storage = replay(&did, &dir, &root);
    let result = done.output("result");
    let crashes = storage.crashes();
    let promised =
        |least: u64| crashes.iter().filter(|crash| crash.last_mark().is_some_and(|mark| mark >= least)).count();
    assert!(promised(3) > 100 && promised(OVER) > 1, "{} states are too few to show anything", crashes.len());
    let mut broken = Vec::new();
    for crash in &crashes {
        let left = tempfile::tempdir().expect("make a temporary directory");
        crash.lay_out(left.path()).expect("lay out what was left");
        if let Err(why) = holds(crash, &left.path().join("task"), &result) {
            broken.push(format!("{why}: {}", crash.story));
        }
    }
    broken.truncate(5);
    assert!(broken.is_empty(), "of {} states:\n{}", crashes.len(), broken.join("\n"));
}

/// Does again below `root` what was done below `dir`, through a storage that remembers it.
fn replay(did: &[Did], dir: &Path, root: &Path) -> RecordingStorage {
    let storage = RecordingStorage::new(root).expect("a recording");
    let mut again = Replay { storage: &storage, open: HashMap::new() };
    let above = dir.parent().expect("a directory above");
    let place = |path: &Path| {
        if path == above {
            return Some(root.to_owned());
        }
        let below = path.strip_prefix(dir).ok()?;
        // For people, for the next manager on a computer that still runs, and sockets: none of it must survive.
        let passing = ["lock", "log", "qemu.log", "vm/run", "vm/process.json", "vm/process.part"];
        (!passing.iter().any(|passing| below.starts_with(passing))).then(|| root.join("task").join(below))
    };
    for did in did {
        again.step(did, &place).unwrap_or_else(|error| panic!("{did:?} cannot be done again: {error}"));
    }
    storage
}

struct Replay<'a> {
    storage: &'a RecordingStorage,
    open: HashMap<PathBuf, Box<dyn StorageFile>>,
}

impl Replay<'_> {
    fn step(&mut self, did: &Did, place: &dyn Fn(&Path) -> Option<PathBuf>) -> io::Result<()> {
        match did {
            Did::Say(text) => self.hear(text),
            Did::MakeDir(path) => match place(path).map(|path| self.storage.create_dir(&path, Access::Usual)) {
                // It was removed while it was empty; what matters is whether it is durable in the end.
                Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            },
            Did::Create(path) => {
                if let Some(path) = place(path) {
                    let file = self.storage.create(&path)?;
                    self.open.insert(path, file);
                }
            }
            Did::Link(path) => {
                if let Some(path) = place(path) {
                    let mut file = self.storage.create(&path)?;
                    file.write_all(b"a template")?;
                    file.sync()?;
                }
            }
            // A stream is not followed byte by byte: `Cut` tells how much it was.
            Did::Write(path, _) if is_stream(path) => {}
            Did::Write(path, bytes) => {
                if let Some(file) = place(path).and_then(|path| self.open.get_mut(&path)) {
                    file.write_all(bytes)?;
                }
            }
            Did::Cut(path, bytes) => {
                if let Some(path) = place(path).filter(|path| is_stream(path))
                    && let Some(file) = self.open.get_mut(&path)
                {
                    file.write_all(stream(*bytes).as_bytes())?;
                }
            }
            Did::Sync(path) => {
                if let Some(path) = place(path) {
                    match self.open.get_mut(&path) {
                        Some(file) => file.sync()?,
                        None if path.is_dir() => self.storage.sync_dir(&path)?,
                        None => {}
                    }
                }
            }
            Did::Rename(from, to) => {
                if let (Some(from), Some(to)) = (place(from), place(to)) {
                    self.open.remove(&from);
                    self.storage.rename(&from, &to)?;
                }
            }
            Did::Unlink(path) => {
                if let Some(path) = place(path).filter(|path| path.is_file()) {
                    self.open.remove(&path);
                    self.storage.unlink(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Promises: what `vmtask run --json` says to whoever reads it.
    fn hear(&self, text: &[u8]) {
        for line in text.split(|&byte| byte == b'\n') {
            let Ok(said) = serde_json::from_slice::<Value>(line) else { continue };
            if let Some(generation) = said["report"]["checkpoint"]["generation"].as_u64() {
                self.storage.mark(generation);
            }
            if said["report"]["ended"].is_object() {
                self.storage.mark(OVER);
            }
        }
    }
}

fn is_stream(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "part")
}

/// What stands for a checkpoint's stream of this length.
fn stream(bytes: u64) -> String {
    format!("a stream of {bytes} bytes\n")
}

/// Whether everything that was promised before the loss of power is still there.
fn holds(crash: &Crash, left: &Path, result: &[u8]) -> Result<(), String> {
    let Some(promised) = crash.last_mark() else { return Ok(()) };
    let record = record(left)?;
    let over = matches!(record.ending, Some(Outcome::Completed { .. }));
    if promised == OVER && !(over && record.ended) {
        return Err("the end was told, and the journal knows nothing of it".to_owned());
    }
    if over {
        // The checkpoints may go as soon as this is durable, so the results must be.
        return match fs::read(left.join("results/result")) {
            Ok(found) if found == result => Ok(()),
            Ok(_) => Err("the result is damaged".to_owned()),
            Err(error) => Err(format!("the result is gone: {error}")),
        };
    }
    let wanted = record.generations.iter().chain(record.pending);
    let newest = wanted.map(|generation| u64::from(generation.0)).filter(|&number| is_whole(left, number)).max();
    match newest {
        Some(newest) if newest >= promised => Ok(()),
        newest => Err(format!("checkpoint {promised} was promised, and the newest that is whole is {newest:?}")),
    }
}

fn record(left: &Path) -> Result<Record, String> {
    let marker = fs::read(left.join("task.json")).map_err(|error| format!("task.json: {error}"))?;
    let marker: Value = serde_json::from_slice(&marker).map_err(|error| format!("task.json: {error}"))?;
    let id = TaskId::new(marker["id"].as_str().unwrap_or_default());
    let (_, loaded) = JournalFile::open(Arc::new(RealStorage), left, id).map_err(|error| error.to_string())?;
    loaded.map(|loaded| loaded.record).ok_or_else(|| "there is no journal".to_owned())
}

/// Whether a checkpoint's manifest is what it says that it is, its stream as long as that says, and its template there.
fn is_whole(left: &Path, generation: u64) -> bool {
    let file = |kind: &str| fs::read_to_string(left.join(format!("vm/checkpoints/{generation}.{kind}"))).ok();
    let (Some(manifest), Some(found)) = (file("json"), file("ram")) else { return false };
    let Some((sum, json)) = manifest.split_once('\n') else { return false };
    let Ok(said) = serde_json::from_str::<Value>(json) else { return false };
    Digest::of(json.trim_end().as_bytes()).to_string() == sum
        && said["file_bytes"].as_u64().is_some_and(|bytes| found == stream(bytes))
        && said["form"]["relative_to"].as_str().is_none_or(|template| {
            let name = format!("vm/checkpoints/{}.template", &template[..16]);
            fs::read(left.join(name)).is_ok_and(|content| content == b"a template")
        })
}
