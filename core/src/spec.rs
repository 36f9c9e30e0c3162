//! What a task is: a program, its files, its limits. Plain data, checked before use.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use thiserror::Error;

use crate::time::Span;

/// A task that has been checked: a program to run in a guest, with its files.
///
/// It is made by [`TaskDraft::check`] alone and cannot be changed afterwards, so that whoever is handed one (a plan, an
/// adapter) need not ask whether a name in it leaves the directory that it belongs to. Its parts are read as those of the
/// draft.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "TaskDraft", into = "TaskDraft"))]
pub struct TaskSpec(TaskDraft);

impl Deref for TaskSpec {
    type Target = TaskDraft;

    fn deref(&self) -> &TaskDraft {
        &self.0
    }
}

impl TryFrom<TaskDraft> for TaskSpec {
    type Error = SpecError;

    fn try_from(draft: TaskDraft) -> Result<Self, SpecError> {
        draft.check()
    }
}

impl From<TaskSpec> for TaskDraft {
    /// The draft, to be changed and checked again.
    fn from(spec: TaskSpec) -> Self {
        spec.0
    }
}

/// What somebody wants to run, as plain data that has not been checked.
///
/// Paths on the host are the embedder's business; paths in the guest are checked, because a name that leaves the working
/// directory would be followed on a volunteer's computer as well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TaskDraft {
    /// The task's name: letters, digits, `-`, `_` and `.`, at most 64, not starting with a dot.
    pub name: String,
    /// The platform that it runs on, named as BOINC names platforms.
    pub platform: String,
    /// The program.
    pub program: ProgramSpec,
    /// Copied into the guest before the program starts, in this order.
    pub files_in: Vec<FileIn>,
    /// Copied out of the guest after the program ended, in this order.
    pub files_out: Vec<FileOut>,
    /// When to take checkpoints; `None` for never.
    pub checkpoint: Option<CheckpointSpec>,
    /// What the guest may use.
    pub limits: Limits,
}

/// The program and what it is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ProgramSpec {
    /// Relative to the working directory, or absolute in the guest.
    pub path: String,
    /// Its arguments, without the program's own name.
    pub args: Vec<String>,
    /// Added to the guest's environment.
    pub env: BTreeMap<String, String>,
    /// Where its standard output goes, relative to the working directory.
    pub stdout: String,
    /// Where its standard error goes, relative to the working directory.
    pub stderr: String,
    /// A file in which the program keeps a number from 0 to 1, relative to the working directory.
    pub progress: Option<String>,
}

/// A file that goes into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FileIn {
    /// Where it is on the host.
    pub host: String,
    /// What it is called in the guest, relative to the working directory.
    pub guest: String,
    /// Whether it can be run.
    pub executable: bool,
}

/// A file that comes out of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FileOut {
    /// What it is called in the guest, relative to the working directory.
    pub guest: String,
    /// What it is called among the results, relative to their directory.
    pub host: String,
    /// Whether it may be missing. If it is, the adapter answers as if it had copied it.
    pub optional: bool,
}

/// When to take checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CheckpointSpec {
    /// How long the guest runs between two.
    pub every: Span,
    /// How many to keep.
    pub keep: u8,
}

/// What the guest may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limits {
    /// Its memory, in bytes. `None`: what the platform says.
    pub memory: Option<u64>,
    /// Its processors.
    pub cpus: u8,
    /// A writable disk for the working directory, in bytes. `None`: the working directory is in memory.
    pub disk: Option<u64>,
    /// How long the program may run, in milliseconds, pauses excluded. `None`: for ever.
    pub run_ms: Option<u64>,
    /// The largest output file that is copied, in bytes.
    pub output: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: None, cpus: 1, disk: None, run_ms: None, output: 1 << 30 }
    }
}

/// What is wrong with a task.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A name that cannot be a directory or a VM.
    #[error("the {what} {name:?} must be 1 to 64 letters, digits, '-', '_' or '.', and not start with a dot")]
    Name {
        /// "name" or "platform".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A path that could leave the directory it belongs to.
    #[error("{what} {path:?} {why}; use a plain relative path below the {below}")]
    Path {
        /// Which setting it is.
        what: &'static str,
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
        /// What it must be below.
        below: &'static str,
    },
    /// Two files of the same name.
    #[error("{what} {path:?} is named twice; every file needs a name of its own")]
    Twice {
        /// Which setting it is.
        what: &'static str,
        /// The path.
        path: String,
    },
    /// No program.
    #[error("program.path is empty; name the program to run")]
    NoProgram,
    /// Something that a process cannot be given.
    #[error("{what} {value:?} {why}")]
    Argument {
        /// Which setting it is.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A limit out of range.
    #[error("limits.{what} is {}; it must be from {} to {}", Amount(what, *value), Amount(what, *min), Amount(what, *max))]
    Limit {
        /// Which.
        what: &'static str,
        /// What was asked.
        value: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
}

impl TaskSpec {
    /// The name of the adapters' own files in the guest's working directory: tasks may not use it.
    pub const RESERVED: &'static str = ".vmtask";

    /// The same task with something changed, checked again.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn with(&self, change: impl FnOnce(&mut TaskDraft)) -> Result<Self, SpecError> {
        let mut draft = self.0.clone();
        change(&mut draft);
        draft.check()
    }
}

impl TaskDraft {
    /// Checks everything that can be checked without a hypervisor or a file system.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self) -> Result<TaskSpec, SpecError> {
        self.find_fault()?;
        Ok(TaskSpec(self))
    }

    fn find_fault(&self) -> Result<(), SpecError> {
        check_name("name", &self.name)?;
        check_name("platform", &self.platform)?;
        self.check_program()?;
        let mut seen = Vec::new();
        for file in &self.files_in {
            check_path("files_in.guest", &file.guest, "working directory")?;
            check_argument("files_in.host", &file.host)?;
            once("files_in.guest", &file.guest, &mut seen)?;
        }
        seen.clear();
        for file in &self.files_out {
            check_path("files_out.guest", &file.guest, "working directory")?;
            check_path("files_out.host", &file.host, "results directory")?;
            once("files_out.host", &file.host, &mut seen)?;
        }
        self.limits.check()
    }

    fn check_program(&self) -> Result<(), SpecError> {
        let program = &self.program;
        if program.path.is_empty() {
            return Err(SpecError::NoProgram);
        }
        check_argument("program.path", &program.path)?;
        if !program.path.starts_with('/') {
            check_path("program.path", &program.path, "working directory")?;
        }
        for arg in &program.args {
            check_argument("program.args", arg)?;
        }
        for (name, value) in &program.env {
            let valid = |c: char| c == '_' || c.is_ascii_alphanumeric();
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(valid) {
                return Err(SpecError::Argument {
                    what: "program.env",
                    value: name.clone(),
                    why: "is no name of an environment variable: use letters, digits and '_'",
                });
            }
            check_argument("program.env", value)?;
        }
        check_path("program.stdout", &program.stdout, "working directory")?;
        check_path("program.stderr", &program.stderr, "working directory")?;
        if let Some(progress) = &program.progress {
            check_path("program.progress", progress, "working directory")?;
        }
        Ok(())
    }
}

impl Limits {
    const MIB: u64 = 1 << 20;

    fn check(&self) -> Result<(), SpecError> {
        let within = |what, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(SpecError::Limit { what, value, min, max }) }
        };
        if let Some(memory) = self.memory {
            within("memory", memory, 128 * Self::MIB, 1 << 40)?;
        }
        if let Some(disk) = self.disk {
            within("disk", disk, Self::MIB, 1 << 43)?;
        }
        within("cpus", self.cpus.into(), 1, 64)?;
        within("output", self.output, 1, 1 << 43)
    }
}

/// A limit as people write it: bytes in the largest unit that divides them, anything else as it is.
struct Amount(&'static str, u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(what, value) = *self;
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(bits, _)| value != 0 && value.trailing_zeros() >= *bits) {
            Some((bits, unit)) if what != "cpus" => write!(f, "{}{unit}", value >> bits),
            _ => write!(f, "{value}"),
        }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), SpecError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(valid) {
        return Err(SpecError::Name { what, name: name.into() });
    }
    Ok(())
}

/// A path that stays below its directory whoever follows it, on any host: Windows' separators and drives included.
fn check_path(what: &'static str, path: &str, below: &'static str) -> Result<(), SpecError> {
    let why = if path.is_empty() {
        "is empty"
    } else if path.len() > 1024 {
        "is longer than 1024 bytes"
    } else if path.starts_with('/') {
        "is absolute"
    } else if path.chars().any(|c| c.is_control()) {
        "contains a control character"
    } else if path.contains(['\\', ':']) {
        "contains '\\' or ':', which mean other things on other hosts"
    } else if path.split('/').any(|part| part == "..") {
        "contains '..'"
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        "contains an empty or '.' component"
    } else if path.split('/').any(|part| part.len() > 255) {
        "has a component longer than 255 bytes"
    } else if path.split('/').next() == Some(TaskSpec::RESERVED) {
        "uses a name that vmtask keeps for itself"
    } else {
        return Ok(());
    };
    Err(SpecError::Path { what, path: path.into(), why, below })
}

fn check_argument(what: &'static str, value: &str) -> Result<(), SpecError> {
    let why = if value.contains('\0') {
        "contains a NUL, which no process can be given"
    } else if value.len() > 64 * 1024 {
        "is longer than 64 KiB"
    } else {
        return Ok(());
    };
    Err(SpecError::Argument { what, value: value.into(), why })
}

fn once<'a>(what: &'static str, path: &'a str, seen: &mut Vec<&'a str>) -> Result<(), SpecError> {
    if seen.contains(&path) {
        return Err(SpecError::Twice { what, path: path.into() });
    }
    seen.push(path);
    Ok(())
}
