//! `result.json`: what became of a task, for programs. Written beside the outputs, as a whole or not at all.
//!
//! Its format is `vmtask-result`, version 1. Later versions add fields; a field never changes its meaning.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmtask_core::{ExitStatus, Leftover, Notice, Outcome, Substitute, TaskSpec};

use crate::digest::Digest;
use crate::ended::{Dropped, Ended};
use crate::storage::{Storage, replace_file};

/// What it is called among the results. No output may have that name.
pub const RESULT_FILE: &str = "result.json";

const FORMAT: &str = "vmtask-result";
const VERSION: u32 = 1;

/// The content of `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// "vmtask-result".
    pub format: String,
    /// The version of this format.
    pub version: u32,
    /// The task's name.
    pub task: String,
    /// In a word. Three say that the task is over and was carried out: "completed" if the program ended with exit code 0,
    /// "program_failed" if it ended with another one, "crashed" if a signal ended it. "aborted" says that it is over and
    /// was not; "stopped" and "failed", that the same command goes on with it.
    pub outcome: String,
    /// In a sentence, with cause and way out if it failed.
    pub summary: String,
    /// How the program ended; null if it did not.
    pub exit: Option<ExitStatus>,
    /// What could not be cleaned up; null if nothing.
    pub leftover: Option<Leftover>,
    /// What the program ran on.
    pub platform: Platform,
    /// How it ran. Results of different classes need not agree to the last bit.
    pub execution: Execution,
    /// When and how long.
    pub times: Times,
    /// What it took to get there.
    pub history: History,
    /// The files beside this one.
    pub outputs: Vec<OutputFile>,
    /// The outputs that could not be collected, and why. One that is optional and was not written is not among them.
    #[serde(default)]
    pub missing: Vec<MissingFile>,
    /// The checkpoints that the last manager found to be no good, and why: every one.
    #[serde(default)]
    pub dropped: Vec<Dropped>,
    /// What was done instead of what the hypervisor lacks.
    pub substitutes: Vec<Substitute>,
    /// What went differently than it should under the last manager, and was dealt with: the first
    /// [`Driver::MAX_NOTICES`](crate::Driver::MAX_NOTICES).
    pub notices: Vec<Notice>,
    /// What the hypervisor said when something went wrong, whether it was mended or not: the newest of each operation.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// The platform of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Its name, as BOINC names platforms.
    pub name: String,
    /// Its fingerprint: equal fingerprints promise equal machines. Empty if it has none.
    pub fingerprint: String,
}

/// The execution class of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// [`Hypervisor::name`](crate::Hypervisor::name).
    pub hypervisor: String,
    /// Whether nothing real happened.
    pub simulated: bool,
    /// How the guest's processor was made: "tcg", "kvm", ...
    pub accelerator: Option<String>,
    /// The hypervisor's own version.
    pub build: Option<String>,
}

/// When the last manager worked, and for how long the program ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// When the last manager began, as RFC 3339 in UTC.
    pub started: String,
    /// When it ended, likewise.
    pub ended: String,
    /// For how long it worked, in milliseconds of a clock that nobody sets.
    pub manager_ms: u64,
    /// For how long the program ran under all managers, in milliseconds, pauses excluded, lost runs included.
    pub program_ms: u64,
}

/// What it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many checkpoints the last manager made.
    pub checkpoints: u32,
    /// The number of the newest checkpoint that any manager began; failed ones count.
    pub newest_checkpoint: u32,
    /// How often the program went on from an earlier state, under all managers.
    pub restarts: u32,
    /// How often the last manager lost the guest.
    pub losses: u32,
}

/// One output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its path below the results directory.
    pub name: String,
    /// Its path in the guest's working directory.
    pub guest: String,
    /// What is there; null if it is not.
    pub content: Option<Content>,
}

/// What an output holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its size in bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: Digest,
}

/// An output that could not be collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingFile {
    /// Its path below the results directory.
    pub name: String,
    /// Its path in the guest's working directory.
    pub guest: String,
    /// What the hypervisor said.
    pub why: String,
}

/// Why `result.json` could not be written or read.
#[derive(Debug, Error)]
pub enum ResultError {
    /// An output could not be read.
    #[error("cannot read the output {}: {source}", path.display())]
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The report itself.
    #[error("cannot {what} {}: {source}; make sure that its file system is there, writable and not full", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// An output is no longer what it was when the task finished.
    #[error("the task is finished, but its output {} was {what} since; put it back, or remove the task's directory to run the task anew", path.display())]
    Lost {
        /// Which.
        path: PathBuf,
        /// What happened to it.
        what: &'static str,
    },
    /// It is something else.
    #[error("{} is no result of a task: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// In what way.
        why: String,
    },
}

impl ResultError {
    /// Whether there is no result: one that could not be looked for is another matter.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What the driver cannot know about a run.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// What the program ran on.
    pub platform: Platform,
    /// How.
    pub execution: Execution,
    /// When the manager began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub ended: Option<SystemTime>,
}

impl TaskResult {
    /// Puts together what became of a task, and looks at the outputs in `results`.
    ///
    /// # Errors
    /// If an output is there and cannot be read.
    pub fn new(
        spec: &TaskSpec,
        ended: &Ended,
        circumstances: Circumstances,
        results: &Path,
    ) -> Result<Self, ResultError> {
        let time = |time: Option<SystemTime>| {
            time.map(|time| humantime::format_rfc3339_millis(time).to_string()).unwrap_or_default()
        };
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            task: spec.name.clone(),
            outcome: word(ended.outcome).to_owned(),
            summary: ended.summary(),
            exit: ended.record.exit,
            leftover: ended.leftover,
            platform: circumstances.platform,
            execution: circumstances.execution,
            times: Times {
                started: time(circumstances.started),
                ended: time(circumstances.ended),
                manager_ms: ended.counters.manager_ms,
                program_ms: ended.record.elapsed_ms,
            },
            history: History {
                checkpoints: ended.counters.checkpoints,
                newest_checkpoint: ended.record.next_generation.0.saturating_sub(1),
                restarts: ended.record.restarts,
                losses: ended.counters.losses,
            },
            outputs: collected(spec, ended, results)?,
            missing: missing(spec, ended),
            dropped: ended.dropped.clone(),
            substitutes: ended.substitutes.clone(),
            notices: ended.notices.clone(),
            errors: ended.errors.iter().map(ToString::to_string).collect(),
        })
    }

    /// Writes it into the results directory, durably. What was there is replaced.
    ///
    /// # Errors
    /// If it could not be written; what was there is still there then.
    pub fn write(&self, storage: &dyn Storage, results: &Path) -> Result<PathBuf, ResultError> {
        let path = results.join(RESULT_FILE);
        let failed = |source| ResultError::Io { what: "write", path: path.clone(), source };
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        text.push('\n');
        replace_file(storage, &path, text.as_bytes()).map_err(failed)?;
        Ok(path)
    }

    /// Reads one, from a file or from the results directory it is in.
    ///
    /// # Errors
    /// If it is not there, no result, or of a later version.
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        let path = if path.is_dir() { path.join(RESULT_FILE) } else { path.to_owned() };
        let text = fs::read(&path).map_err(|source| ResultError::Io { what: "read", path: path.clone(), source })?;
        let malformed = |why: String| ResultError::Malformed { path: path.clone(), why };
        let result: Self = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if result.format != FORMAT || result.version > VERSION {
            return Err(malformed(format!(
                "its format is {:?} version {}, and this vmtask reads {FORMAT:?} up to version {VERSION}",
                result.format, result.version
            )));
        }
        Ok(result)
    }

    /// Whether it tells of this outcome, and not of an earlier run's.
    #[must_use]
    pub fn is_of(&self, outcome: Outcome) -> bool {
        self.outcome == word(outcome)
    }

    /// Whether the outputs of a task that was carried out are still what they were. A program that failed or crashed need
    /// not have written each of them.
    ///
    /// # Errors
    /// [`ResultError::Lost`] for the first that is not.
    pub fn check_outputs(&self, spec: &TaskSpec, results: &Path) -> Result<(), ResultError> {
        if !CARRIED_OUT.contains(&self.outcome.as_str()) {
            return Ok(());
        }
        let all_were_there = self.outcome == COMPLETED && self.exit.is_none_or(ExitStatus::is_success);
        let recorded = |name: &str| self.outputs.iter().find(|output| output.name == name)?.content.as_ref();
        for (file, now) in spec.files_out.iter().zip(outputs(spec, results)?) {
            let what = match (recorded(&now.name), &now.content) {
                (Some(_), None) => "removed",
                (None, None) if all_were_there && !file.optional => "removed",
                (Some(then), Some(now)) if then != now => "changed",
                _ => continue,
            };
            return Err(ResultError::Lost { path: results.join(now.name), what });
        }
        Ok(())
    }
}

const COMPLETED: &str = "completed";
const PROGRAM_FAILED: &str = "program_failed";
const CRASHED: &str = "crashed";
/// The program has ended by itself, and what it has written was collected.
const CARRIED_OUT: [&str; 3] = [COMPLETED, PROGRAM_FAILED, CRASHED];

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed { exit: ExitStatus::Code(0) } => COMPLETED,
        Outcome::Completed { exit: ExitStatus::Code(_) } => PROGRAM_FAILED,
        Outcome::Completed { exit: ExitStatus::Signal(_) } => CRASHED,
        Outcome::Stopped { .. } => "stopped",
        Outcome::Aborted => "aborted",
        Outcome::Failed { .. } => "failed",
    }
}

fn missing(spec: &TaskSpec, ended: &Ended) -> Vec<MissingFile> {
    let told = ended.missing.iter().filter_map(|missing| {
        let file = spec.files_out.get(missing.file.index())?;
        Some(MissingFile { name: file.host.clone(), guest: file.guest.clone(), why: missing.why.clone() })
    });
    told.collect()
}

/// The outputs, but for those that did not come: what lies there in their place is an earlier run's.
fn collected(spec: &TaskSpec, ended: &Ended, results: &Path) -> Result<Vec<OutputFile>, ResultError> {
    let mut files = outputs(spec, results)?;
    for missing in &ended.missing {
        if let Some(file) = files.get_mut(missing.file.index()) {
            file.content = None;
        }
    }
    Ok(files)
}

fn outputs(spec: &TaskSpec, results: &Path) -> Result<Vec<OutputFile>, ResultError> {
    let mut files = Vec::new();
    for file in &spec.files_out {
        let path = results.join(&file.host);
        // Links are not followed: what is not a plain file was not put there by us.
        let content = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                let (size, sha256) = Digest::of_file(&path).map_err(|source| ResultError::Output { path, source })?;
                Some(Content { size, sha256 })
            }
            _ => None,
        };
        files.push(OutputFile { name: file.host.clone(), guest: file.guest.clone(), content });
    }
    Ok(files)
}
