//! A task's directory: where everything of one task is, and to whom it belongs.
//!
//! ```text
//!   DIR/
//!     lock            held by the manager that works here, with its process number
//!     task.json       the marker: which task this is, on which host, platform and hypervisor it was begun
//!     journal         the newest record (see the journal module); journal.prev: the one before
//!     log             for people
//!     starting-over   only while the task is being begun anew (see the start_over module)
//!     vm/             the hypervisor adapter's: overlay, checkpoints, sockets; nobody else can look into it
//!     results/        the outputs and result.json
//! ```
//!
//! Nothing outside of DIR is touched. A directory that is not empty and has no marker is somebody else's and refused.
//!
//! What was begun with one program, input or platform is never continued with another: a checkpoint contains all of
//! them. What only concerns the manager may change between two runs: when to take checkpoints, how long the program may
//! run, which outputs are collected and how large they may be.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use vmtask_core::TaskSpec;

use crate::digest::Digest;
use crate::kit;
use crate::room::explained;
use crate::start_over;
use crate::storage::{Access, Storage, parent, replace_file};
use crate::sys::{self, Owned};
use crate::task_file::InputFile;

const LOCK: &str = "lock";
const MARKER: &str = "task.json";
/// What a directory may contain that a manager began to make when the power went.
const BEFORE_MARKER: [&str; 2] = [LOCK, "task.json.tmp"];
const FORMAT: &str = "vmtask-task";
/// The version of the marker that we write.
const VERSION: u32 = 1;

/// A task's directory, locked for as long as this lives.
#[derive(Debug)]
pub struct TaskDir {
    root: PathBuf,
    id: TaskId,
    is_new: bool,
    started_over: bool,
    /// Ours until it is closed.
    _lock: File,
}

/// The name that a task gets when its directory is made: a nonce, which every journal line repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(String);

impl TaskId {
    /// A task with this name, for tests and for whoever keeps markers elsewhere.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn random() -> Result<Self, getrandom::Error> {
        let (high, low) = (getrandom::u64()?, getrandom::u64()?);
        Ok(Self(format!("{high:016x}{low:016x}")))
    }
}

/// Which host this is: a digest of what the operating system calls it, because the name itself is to be kept private.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(String);

impl HostId {
    /// This host: by its machine-id, where there is none by its host name.
    ///
    /// # Errors
    /// If it has neither.
    pub fn of_this_host() -> Result<Self, TaskDirError> {
        sys::host_name_for_binding().map(|name| Self::of(&name)).ok_or(TaskDirError::NamelessHost)
    }

    /// The host that the operating system calls `name`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Digest::of(format!("vmtask host {name}").as_bytes()).short())
    }
}

/// What a task is begun with and must be continued with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The host.
    pub host: HostId,
    /// [`Hypervisor::name`](crate::Hypervisor::name).
    pub hypervisor: String,
    /// The platform's fingerprint; empty if it has none.
    pub fingerprint: String,
}

/// The content of the marker.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: String,
    version: u32,
    id: TaskId,
    host: HostId,
    /// What may not change: compared as data, so that the first difference can be named.
    task: Value,
}

/// Why a task's directory cannot be used.
#[derive(Debug, Error)]
pub enum TaskDirError {
    /// An operation failed.
    #[error("cannot {what} {}: {source}; make sure that its file system is there, writable and not full", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The directory that it should be made in is not there.
    #[error("cannot make the task directory {}: the directory above it does not exist; make it first, or name another with --dir", .0.display())]
    NoParent(PathBuf),
    /// Something else is there.
    #[error("{} is not a task directory: it is not empty and has no {MARKER}; name another with --dir", .0.display())]
    NotOurs(PathBuf),
    /// Another manager works here.
    #[error("{} is in use by another vmtask{}; wait until it ends, or stop it with Ctrl-C (SIGINT)", dir.display(), holder(*pid))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Its process, as far as it says.
        pid: Option<u32>,
    },
    /// The marker is damaged.
    #[error("{} is damaged ({why}), so it cannot be told what this directory belongs to; remove the directory to start the task anew, or name another with --dir", path.display())]
    Damaged {
        /// The marker.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// The marker is of a later version.
    #[error("{} was made by a later version of vmtask (format {found}, this one reads up to {VERSION}); continue it with that version, or name another directory with --dir", path.display())]
    Newer {
        /// The marker.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It was begun on another host.
    #[error("{} was begun on another computer, and checkpoints do not move between computers; continue it there, or remove the directory (or name another with --dir) to start the task anew here", .0.display())]
    OtherHost(PathBuf),
    /// The task was another.
    #[error("{} was begun with another task: {field} was {was} and is {is}; a checkpoint cannot be continued with that. Change it back, or remove the directory (or name another with --dir) to start the task anew", dir.display())]
    Changed {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        field: String,
        /// What it was, shortened.
        was: String,
        /// What it is, shortened.
        is: String,
    },
    /// The host cannot be told from others.
    #[error(
        "this computer has neither a machine-id nor a host name, so that a task's directory cannot be tied to it; run `systemd-machine-id-setup`, or give it a host name"
    )]
    NamelessHost,
    /// No random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl TaskDir {
    pub(crate) const VM: &str = "vm";

    /// Makes the directory, or opens it again, and locks it.
    ///
    /// # Errors
    /// If it is somebody else's, in use, or was begun with something that differs from `spec`, `inputs` and `binding`:
    /// nothing has been changed then. If a start-over that was cut short cannot be gone on with.
    pub fn open(
        storage: &dyn Storage,
        root: &Path,
        spec: &TaskSpec,
        inputs: &[InputFile],
        binding: &Binding,
    ) -> Result<Self, TaskDirError> {
        make_root(storage, root)?;
        let lock = lock(root)?;
        let task = identity(spec, inputs, binding);
        let path = root.join(MARKER);
        let (id, is_new) = match read_marker(storage, &path)? {
            Some(marker) => {
                if marker.host != binding.host {
                    return Err(TaskDirError::OtherHost(root.to_owned()));
                }
                if let Some((field, was, is)) = difference("", &marker.task, &task) {
                    let dir = root.to_owned();
                    return Err(TaskDirError::Changed { dir, field, was, is });
                }
                (marker.id, false)
            }
            None => {
                let id = TaskId::random().map_err(TaskDirError::Random)?;
                let marker = Marker {
                    format: FORMAT.to_owned(),
                    version: VERSION,
                    id: id.clone(),
                    host: binding.host.clone(),
                    task,
                };
                write_marker(storage, &path, &marker)?;
                (id, true)
            }
        };
        let started_over = start_over::go_on(storage, root)?;
        let dir = Self { root: root.to_owned(), id, is_new, started_over, _lock: lock };
        let results = dir.results();
        match storage.create_dir(&results, Access::Usual) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && results.is_dir() => {}
            other => other.map_err(io_error("make the directory", &results))?,
        }
        storage.sync_dir(root).map_err(io_error("flush", root))?;
        Ok(dir)
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The name that its journal lines carry.
    #[must_use]
    pub const fn id(&self) -> &TaskId {
        &self.id
    }

    /// Whether it was made just now.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether [`start_over`](Self::start_over) was cut short under an earlier manager and has been completed just now.
    #[must_use]
    pub const fn has_started_over(&self) -> bool {
        self.started_over
    }

    /// Where the log goes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The hypervisor adapter's own directory. The adapter makes it, and removes it with the VM.
    #[must_use]
    pub fn vm(&self) -> PathBuf {
        self.root.join(Self::VM)
    }

    /// Whether the adapter has made it.
    ///
    /// # Errors
    /// If that cannot be told: a look that fails has not found nothing.
    pub fn has_vm(&self, storage: &dyn Storage) -> Result<bool, TaskDirError> {
        let vm = self.vm();
        kit::is_there(storage, &vm).map_err(io_error("look for", &vm))
    }

    /// Where outputs and the report go.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }
}

pub(crate) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TaskDirError + 'a {
    move |source| TaskDirError::Io { what, path: path.to_owned(), source }
}

fn make_root(storage: &dyn Storage, root: &Path) -> Result<(), TaskDirError> {
    match storage.create_dir(root, Access::Usual) {
        Ok(()) => storage.sync_dir(parent(root)).map_err(io_error("flush", parent(root))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(TaskDirError::NoParent(root.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let entries = fs::read_dir(root).map_err(io_error("look into", root))?;
            let mut foreign = false;
            for entry in entries {
                let name = entry.map_err(io_error("look into", root))?.file_name();
                if name == MARKER {
                    return Ok(());
                }
                foreign |= !BEFORE_MARKER.iter().any(|ours| name == *ours);
            }
            if foreign {
                return Err(TaskDirError::NotOurs(root.to_owned()));
            }
            Ok(())
        }
        Err(error) => Err(io_error("make the task directory", root)(error)),
    }
}

/// The lock's file stays for good: removing it would let two managers lock two files of the same name.
fn lock(root: &Path) -> Result<File, TaskDirError> {
    let path = root.join(LOCK);
    let failed = |what| io_error(what, &path);
    let mut file = match sys::try_own(&path).map_err(failed("lock"))? {
        Owned::Ours(file) => file,
        Owned::Theirs { says } => {
            return Err(TaskDirError::InUse { dir: root.to_owned(), pid: says.trim().parse().ok() });
        }
    };
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(explained).map_err(failed("write"))?;
    Ok(file)
}

fn read_marker(storage: &dyn Storage, path: &Path) -> Result<Option<Marker>, TaskDirError> {
    let bytes = match storage.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_error("read", path))?,
    };
    let damaged = |why: &dyn ToString| TaskDirError::Damaged { path: path.to_owned(), why: why.to_string() };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(&error))?;
    if value["format"] != FORMAT {
        return Err(damaged(&"it is not a task's marker"));
    }
    // Looked at first: of a later version nothing else can be relied on.
    match value["version"].as_u64() {
        Some(version) if version > u64::from(VERSION) => {
            Err(TaskDirError::Newer { path: path.to_owned(), found: u32::try_from(version).unwrap_or(u32::MAX) })
        }
        _ => serde_json::from_value(value).map(Some).map_err(|error| damaged(&error)),
    }
}

fn write_marker(storage: &dyn Storage, path: &Path, marker: &Marker) -> Result<(), TaskDirError> {
    let failed = |source| io_error("write", path)(source);
    let mut text = serde_json::to_string_pretty(marker).map_err(|e| failed(e.into()))?;
    text.push('\n');
    replace_file(storage, path, text.as_bytes()).map_err(failed)
}

/// What a checkpoint contains, or the running program relies on.
fn identity(spec: &TaskSpec, inputs: &[InputFile], binding: &Binding) -> Value {
    let files_in: Vec<_> = spec
        .files_in
        .iter()
        .enumerate()
        .map(|(ix, file)| {
            serde_json::json!({
                "guest": file.guest,
                "executable": file.executable,
                "sha256": inputs.get(ix).map(|input| input.sha256.to_string()),
            })
        })
        .collect();
    serde_json::json!({
        "name": spec.name,
        "platform": spec.platform,
        "platform_fingerprint": binding.fingerprint,
        "hypervisor": binding.hypervisor,
        "program": {
            "path": spec.program.path,
            "args": spec.program.args,
            "env": spec.program.env,
            "stdout": spec.program.stdout,
            "stderr": spec.program.stderr,
            "progress": spec.program.progress,
        },
        "files_in": files_in,
        "limits": {
            "memory": spec.limits.memory,
            "cpus": spec.limits.cpus,
            "disk": spec.limits.disk,
        },
    })
}

/// The first place in which two values differ, with what is in it.
fn difference(at: &str, was: &Value, is: &Value) -> Option<(String, String, String)> {
    let below = |key: &str| {
        if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
    };
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            was.keys().chain(is.keys().filter(|key| !was.contains_key(*key))).find_map(|key| {
                let get = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or_default();
                difference(&below(key), &get(was), &get(is))
            })
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            was.iter().zip(is).enumerate().find_map(|(ix, (was, is))| difference(&format!("{at}[{ix}]"), was, is))
        }
        _ if was == is => None,
        _ => Some((at.to_owned(), excerpt(was), excerpt(is))),
    }
}

fn excerpt(value: &Value) -> String {
    const LONGEST: usize = 80;
    match value {
        Value::Null => "not given".to_owned(),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}
