//! The journal's file: one record, one line, replaced as a whole, with the one before kept.
//!
//! ```text
//!   {"format":"vmtask-journal","version":1,"task":"<the directory's nonce>","record":{...},"sum":"<16 digits>"}
//!
//!   write:  journal.tmp <- line, flush      a loss of power here leaves: journal = A, journal.prev = Z
//!           journal     -> journal.prev                                  journal.prev = A
//!           journal.tmp -> journal                                       journal = B, journal.prev = A
//!           flush the directory             ... and from here on B, whatever happens
//! ```
//!
//! What is read is the newest whole line of the two files. A line that is torn or altered in any byte is not whole. One
//! of another task or of a later version is an error that says so: it was put there by somebody, and guessing what was
//! meant could run a task twice.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;
use vmtask_core::{RECORD_VERSION, Record};

use crate::digest::Digest;
use crate::storage::{Storage, ignore_missing, write_beside};
use crate::task_dir::TaskId;

const FORMAT: &str = "vmtask-journal";
/// The version of the line around the record. Its fields and how its sum is made stay the same in all later versions, so
/// that a later one is told from a damaged one.
const VERSION: u32 = 1;

/// A task's journal, ready for the next record.
#[derive(Debug)]
pub struct JournalFile {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    task: TaskId,
    /// Whether `journal` is worth to become `journal.prev`. One that is damaged must not replace a good one.
    current_is_whole: bool,
}

/// What was found in a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The newest whole record.
    pub record: Record,
    /// Why that is not the last one that was written, if so: tell the user.
    pub notice: Option<String>,
}

/// Why a journal cannot be read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Nothing in it is whole.
    #[error("the journal {} is damaged ({why}) and so is what it keeps of the record before ({why_prev}); nothing is known for sure about this task. Remove its directory to start it anew, or name another with --dir", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What is wrong with the older one.
        why_prev: String,
    },
    /// There is none, although the task was begun.
    #[error("the journal {} is gone, although the task was begun: without it nothing is known for sure about its checkpoints. Put it back, or remove the directory (or name another with --dir) to start the task anew", .0.display())]
    Lost(PathBuf),
    /// It is another task's.
    #[error("the journal {} belongs to another task's directory (on this or another computer); put back the one that belongs here, or remove this directory (or name another with --dir) to start the task anew", .0.display())]
    Foreign(PathBuf),
    /// It is of a later version.
    #[error("the journal {} was written by a later version of vmtask (format {found}, this one reads up to {known}); continue with that version", path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest that we read.
        known: u64,
    },
    /// Somebody has removed the directory that it is in.
    #[error("the task's directory {} was removed while the task ran", .0.display())]
    Gone(PathBuf),
    /// An operation failed.
    #[error("cannot {what} the journal {}: {source}; make sure that its file system is there, writable and not full", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

/// Where records are made durable.
pub trait RecordStore: Send {
    /// Makes a record durable; when this returns, the record survives a loss of power, or it is an error.
    ///
    /// # Errors
    /// If that is not certain. It may be tried again.
    fn write(&mut self, record: &Record) -> Result<(), JournalError>;
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    format: &'a str,
    version: u32,
    task: TaskId,
    #[serde(borrow)]
    record: &'a RawValue,
    sum: &'a str,
}

/// The part of a record that every version has.
#[derive(Deserialize)]
struct AnyRecord {
    version: u64,
}

/// What one of the two files holds.
enum Content {
    Missing,
    Whole(Box<Record>),
    Damaged(String),
}

impl JournalFile {
    /// Everything that it may be kept in, with what a write that was cut short leaves.
    pub(crate) const NAMES: [&str; 3] = ["journal", "journal.prev", "journal.tmp"];

    /// Reads the journal of the task directory `dir`; `None` if no record was ever made durable there.
    ///
    /// # Errors
    /// If there is something that cannot be relied on.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path, task: TaskId) -> Result<(Self, Option<Loaded>), JournalError> {
        let mut journal = Self { storage, dir: dir.to_owned(), task, current_is_whole: false };
        let current = journal.read(&journal.path())?;
        let previous = journal.read(&journal.previous())?;
        journal.current_is_whole = matches!(current, Content::Whole(_));
        let path = journal.path();
        let loaded = match (current, previous) {
            (Content::Missing, Content::Missing) => None,
            // Several writes, none of them flushed to the end: of their renames any may have survived.
            (Content::Whole(current), Content::Whole(previous)) if previous.seq > current.seq => {
                journal.current_is_whole = false;
                Some(Loaded { record: *previous, notice: None })
            }
            (Content::Whole(record), _) => Some(Loaded { record: *record, notice: None }),
            // Between the two renames of a write: nothing was lost.
            (Content::Missing, Content::Whole(record)) => Some(Loaded { record: *record, notice: None }),
            (Content::Damaged(why), Content::Whole(record)) => Some(Loaded {
                record: *record,
                notice: Some(format!(
                    "the journal {} is damaged ({why}); going on from the record before it",
                    path.display()
                )),
            }),
            (Content::Damaged(why), previous) => {
                let why_prev = previous.why();
                return Err(JournalError::Damaged { path, why, why_prev });
            }
            (Content::Missing, Content::Damaged(why_prev)) => {
                return Err(JournalError::Damaged { path, why: Content::Missing.why(), why_prev });
            }
        };
        Ok((journal, loaded))
    }

    /// Where the newest record is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(Self::NAMES[0])
    }

    /// Where the one before is.
    #[must_use]
    pub fn previous(&self) -> PathBuf {
        self.dir.join(Self::NAMES[1])
    }

    fn read(&self, path: &Path) -> Result<Content, JournalError> {
        match self.storage.read(path) {
            Ok(bytes) => parse(path, &bytes, &self.task),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::Missing),
            Err(source) => Err(JournalError::Io { what: "read", path: path.to_owned(), source }),
        }
    }
}

impl RecordStore for JournalFile {
    fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        let path = self.path();
        let failed = |what| {
            let path = path.clone();
            move |source| JournalError::Io { what, path, source }
        };
        let line = compose(record, &self.task).map_err(|error| failed("compose a line for")(error.into()))?;
        let temporary =
            write_beside(self.storage.as_ref(), &path, line.as_bytes()).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => JournalError::Gone(self.dir.clone()),
                _ => failed("write")(source),
            })?;
        if self.current_is_whole {
            // Missing: an earlier attempt came as far as this.
            ignore_missing(self.storage.rename(&path, &self.previous())).map_err(failed("keep the older record of"))?;
        }
        self.storage.rename(&temporary, &path).map_err(failed("replace"))?;
        self.current_is_whole = true;
        self.storage.sync_dir(&self.dir).map_err(failed("flush the directory of"))
    }
}

fn compose(record: &Record, task: &TaskId) -> Result<String, serde_json::Error> {
    let record = serde_json::value::to_raw_value(record)?;
    let sum = sum(VERSION, task, &record);
    let mut line = serde_json::to_string(&Line {
        format: FORMAT,
        version: VERSION,
        task: task.clone(),
        record: &record,
        sum: &sum,
    })?;
    line.push('\n');
    Ok(line)
}

fn sum(version: u32, task: &TaskId, record: &RawValue) -> String {
    Digest::of(format!("{FORMAT}\0{version}\0{}\0{}", task.as_str(), record.get()).as_bytes()).short()
}

fn parse(path: &Path, bytes: &[u8], task: &TaskId) -> Result<Content, JournalError> {
    let damaged = |why: &str| Ok(Content::Damaged(why.to_owned()));
    let Some(text) = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n')) else {
        return damaged(if bytes.is_empty() { "it is empty" } else { "it is torn" });
    };
    let Ok(line) = serde_json::from_str::<Line<'_>>(text) else {
        return damaged("it is no line of a journal");
    };
    if line.format != FORMAT {
        return damaged("it is no line of a journal");
    }
    if line.sum != sum(line.version, &line.task, line.record) {
        return damaged("its checksum does not fit");
    }
    let newer = |found, known| Err(JournalError::Newer { path: path.to_owned(), found, known });
    if line.version > VERSION {
        return newer(line.version.into(), VERSION.into());
    }
    if line.task != *task {
        return Err(JournalError::Foreign(path.to_owned()));
    }
    match serde_json::from_str::<AnyRecord>(line.record.get()) {
        Ok(record) if record.version > u64::from(RECORD_VERSION) => {
            return newer(record.version, RECORD_VERSION.into());
        }
        Ok(_) => {}
        Err(error) => return damaged(&format!("its record cannot be read: {error}")),
    }
    match serde_json::from_str(line.record.get()) {
        Ok(record) => Ok(Content::Whole(Box::new(record))),
        Err(error) => damaged(&format!("its record cannot be read: {error}")),
    }
}

impl Content {
    fn why(self) -> String {
        match self {
            Self::Missing => "it is missing".to_owned(),
            Self::Damaged(why) => why,
            Self::Whole(record) => format!("it is whole, number {}", record.seq),
        }
    }
}
