//! The host-wide registry of virtual machines, so that every one of them can be found and none outlives its owner
//! unnoticed.
//!
//! ```text
//!   <data directory>/vms/
//!     3fa8...e1.json      one for each task directory: the manager's process, the VM's process
//!     .lock               held for the moment in which an entry is changed or removed
//! ```
//!
//! A process is known by its number *and* its start time: a number alone is given to others. Only a process that fits
//! both is ever killed, only if its manager is gone, and through a handle that cannot slip to another process between
//! the look and the blow.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;
use crate::storage::{RealStorage, replace_file};
use crate::sys;
pub use crate::sys::{Liveness, ProcessId};

const VERSION: u32 = 1;
/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The registry of one user's data directory.
#[derive(Clone, Debug)]
pub struct Registry<P = RealProcesses> {
    dir: PathBuf,
    processes: P,
}

/// How processes are looked at and killed.
pub trait Processes {
    /// Who has this number.
    fn identify(&self, pid: u32) -> Liveness;

    /// Kills exactly this process and waits until it is gone. If it is gone already, that is fine.
    ///
    /// # Errors
    /// If it is not certain that it is gone.
    fn kill(&self, process: &ProcessId) -> io::Result<()>;
}

/// The processes of this computer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealProcesses;

impl Processes for RealProcesses {
    fn identify(&self, pid: u32) -> Liveness {
        sys::identify(pid)
    }

    fn kill(&self, process: &ProcessId) -> io::Result<()> {
        sys::kill(process, PATIENCE)
    }
}

/// What the registry knows of one virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the entry.
    pub version: u32,
    /// The task's name.
    pub task: String,
    /// The task's directory.
    pub dir: PathBuf,
    /// What it runs on.
    pub hypervisor: String,
    /// Whether the VM is meant to outlive its manager and be adopted by the next.
    pub outlives_manager: bool,
    /// Who looks after it.
    pub manager: ProcessId,
    /// Its own process, once it has one.
    pub vm: Option<ProcessId>,
    /// Who has it while it may run, if it is no process of ours: the product's name, as "VMware Workstation".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
}

/// A virtual machine as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What is written about it.
    pub entry: Entry,
    /// Whether its manager is there.
    pub manager: Presence,
    /// Whether it is there itself.
    pub vm: Presence,
}

/// Whether a process that was written down is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It is gone, or there never was one.
    Gone,
    /// It cannot be told on this operating system.
    Unknown,
}

/// Everything in the registry.
#[derive(Debug, Default)]
pub struct Listing {
    /// The virtual machines, by task directory.
    pub vms: Vec<Listed>,
    /// Files that cannot be read or understood, with the reason. They are left alone.
    pub damaged: Vec<(PathBuf, String)>,
}

/// Which virtual machines without a manager are reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// Those that nobody will adopt.
    Orphans,
    /// Those too that the next manager of their task would adopt.
    All,
}

/// What a reaper did.
#[derive(Debug, Default)]
pub struct Reaped {
    /// Killed, with their entries removed.
    pub killed: Vec<Entry>,
    /// Entries removed of virtual machines that were gone.
    pub dropped: Vec<Entry>,
    /// Could not be killed, with the reason. Their entries stay.
    pub left: Vec<(Entry, String)>,
    /// As in [`Listing::damaged`].
    pub damaged: Vec<(PathBuf, String)>,
}

/// Why the registry cannot be used.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// An operation failed.
    #[error("cannot {what} {} in the registry of virtual machines: {source}; make sure that the data directory ($VMTASK_DATA_DIR) is there, writable and not full", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// There is a virtual machine of this task.
    #[error("the virtual machine of the task in {} still runs (process {pid}); run `vmtask vms --reap`, or end that process", dir.display())]
    StillRuns {
        /// The task's directory.
        dir: PathBuf,
        /// The process.
        pid: u32,
    },
    /// No such process.
    #[error("the virtual machine's process {pid} is gone before it could be registered; its log says why it ended")]
    NoProcess {
        /// Its number.
        pid: u32,
    },
}

/// What to write about a new virtual machine.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The task's directory, which must be there.
    pub dir: &'a Path,
    /// What it runs on.
    pub hypervisor: &'a str,
    /// Whether the VM is meant to outlive its manager.
    pub outlives_manager: bool,
}

impl Registry {
    /// The registry in `data_dir`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, RegistryError> {
        Self::with_processes(data_dir, RealProcesses)
    }
}

impl<P: Processes + Clone> Registry<P> {
    /// With processes of the caller's making.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn with_processes(data_dir: &Path, processes: P) -> Result<Self, RegistryError> {
        let dir = data_dir.join("vms");
        fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        Ok(Self { dir, processes })
    }

    /// Announces the virtual machine of a task, before it is started. What is left in the registry of an earlier one is
    /// replaced, unless that still runs.
    ///
    /// # Errors
    /// [`RegistryError::StillRuns`] if it does and is not meant to be adopted.
    pub fn register(&self, new: &NewEntry<'_>) -> Result<Registration<P>, RegistryError> {
        let dir = fs::canonicalize(new.dir).map_err(io_error("find", new.dir))?;
        let path = self.dir.join(Digest::of(dir.as_os_str().as_encoded_bytes()).short() + ".json");
        let _lock = self.lock()?;
        // A damaged entry of our own directory is ours to replace: its lock is held by our caller.
        let (earlier, keeper) = read(&path).map_or((None, None), |entry| (entry.vm, entry.keeper));
        let earlier = earlier.filter(|vm| self.presence(vm) != Presence::Gone);
        if let Some(vm) = earlier.as_ref().filter(|_| !new.outlives_manager) {
            return Err(RegistryError::StillRuns { dir, pid: vm.pid });
        }
        let pid = std::process::id();
        let manager = match self.processes.identify(pid) {
            Liveness::Alive(me) => me,
            Liveness::Dead | Liveness::Unknown => ProcessId::nameless(pid),
        };
        let registration = Registration {
            registry: self.clone(),
            path,
            entry: Entry {
                version: VERSION,
                task: new.task.to_owned(),
                dir,
                hypervisor: new.hypervisor.to_owned(),
                outlives_manager: new.outlives_manager,
                manager,
                vm: earlier,
                keeper: keeper.filter(|_| new.outlives_manager),
            },
        };
        registration.write()?;
        Ok(registration)
    }

    /// Everything in the registry, as it is now.
    ///
    /// # Errors
    /// If the directory cannot be read. A damaged entry is no error.
    pub fn list(&self) -> Result<Listing, RegistryError> {
        let mut listing = Listing::default();
        for path in self.files("json")? {
            match read(&path) {
                Ok(entry) => listing.vms.push(Listed {
                    manager: self.presence(&entry.manager),
                    vm: self.presence_of_vm(&entry),
                    entry,
                }),
                Err(why) if !path.exists() => drop(why),
                Err(why) => listing.damaged.push((path, why)),
            }
        }
        listing.vms.sort_by(|a, b| a.entry.dir.cmp(&b.entry.dir));
        Ok(listing)
    }

    /// Kills virtual machines whose managers are gone, and forgets those that are gone themselves.
    ///
    /// # Errors
    /// If the directory cannot be read. What could not be killed is reported, not an error.
    pub fn reap(&self, which: Reap) -> Result<Reaped, RegistryError> {
        let mut reaped = Reaped::default();
        self.sweep()?;
        for path in self.files("json")? {
            // One at a time, so that nobody waits for all of them.
            let _lock = self.lock()?;
            match read(&path) {
                Ok(entry) => self.reap_one(&path, entry, which, &mut reaped),
                Err(why) if !path.exists() => drop(why),
                Err(why) => reaped.damaged.push((path, why)),
            }
        }
        Ok(reaped)
    }

    fn reap_one(&self, path: &Path, entry: Entry, which: Reap, reaped: &mut Reaped) {
        if self.presence(&entry.manager) != Presence::Gone {
            return;
        }
        let forget = || fs::remove_file(path).map_err(|error| format!("its entry stays: {error}"));
        let vm = match (self.presence_of_vm(&entry), &entry.vm) {
            (Presence::Here, Some(vm)) => vm,
            (Presence::Unknown, Some(vm)) => {
                let why = format!("cannot tell whether process {} is still the one", vm.pid);
                reaped.left.push((entry, why));
                return;
            }
            (Presence::Unknown, None) => {
                // The next manager of its task will adopt it.
                if which == Reap::All {
                    let keeper = entry.keeper.as_deref().unwrap_or_default();
                    let why = format!(
                        "{keeper} has it: run its task again, or power it off there and remove the task's directory"
                    );
                    reaped.left.push((entry, why));
                }
                return;
            }
            _ => {
                match forget() {
                    Ok(()) => reaped.dropped.push(entry),
                    Err(why) => reaped.left.push((entry, why)),
                }
                return;
            }
        };
        if entry.outlives_manager && which == Reap::Orphans {
            return;
        }
        let killed = self.processes.kill(vm).map_err(|error| format!("process {} cannot be killed: {error}", vm.pid));
        match killed.and_then(|()| forget()) {
            Ok(()) => reaped.killed.push(entry),
            Err(why) => reaped.left.push((entry, why)),
        }
    }

    /// Entries that a manager was killed over writing. Whoever writes one holds the lock, so that none is of use.
    fn sweep(&self) -> Result<(), RegistryError> {
        let _lock = self.lock()?;
        for path in self.files("tmp")? {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    fn files(&self, kind: &str) -> Result<Vec<PathBuf>, RegistryError> {
        let failed = || io_error("look into", &self.dir);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if path.extension().is_some_and(|extension| extension == kind) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn presence(&self, process: &ProcessId) -> Presence {
        match self.processes.identify(process.pid) {
            Liveness::Alive(now) if now == *process => Presence::Here,
            // Registered where start times are unknown, and now something has the number.
            Liveness::Alive(_) if process.is_nameless() => Presence::Unknown,
            Liveness::Alive(_) | Liveness::Dead => Presence::Gone,
            Liveness::Unknown => Presence::Unknown,
        }
    }

    fn presence_of_vm(&self, entry: &Entry) -> Presence {
        match &entry.vm {
            Some(vm) => self.presence(vm),
            // We cannot ask who has it, but without the task's directory it is nobody's.
            None if entry.keeper.is_some() && entry.dir.is_dir() => Presence::Unknown,
            None => Presence::Gone,
        }
    }

    fn lock(&self) -> Result<File, RegistryError> {
        let path = self.dir.join(".lock");
        let failed = |what| io_error(what, &path);
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed("open"))?;
        file.lock().map_err(failed("lock"))?;
        Ok(file)
    }
}

/// An entry in the registry, for as long as a manager looks after the virtual machine.
///
/// Dropping it removes the entry only if no virtual machine is written in it: one that may still run must be found.
#[derive(Debug)]
pub struct Registration<P: Processes + Clone = RealProcesses> {
    registry: Registry<P>,
    path: PathBuf,
    entry: Entry,
}

impl<P: Processes + Clone> Registration<P> {
    /// What is written.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The virtual machine runs as this process. Call it as soon as there is one, before anything is done with it.
    ///
    /// # Errors
    /// If there is no such process, or it could not be written down.
    pub fn set_vm(&mut self, pid: u32) -> Result<(), RegistryError> {
        let vm = match self.registry.processes.identify(pid) {
            Liveness::Alive(vm) => vm,
            Liveness::Unknown => ProcessId::nameless(pid),
            Liveness::Dead => return Err(RegistryError::NoProcess { pid }),
        };
        self.entry.vm = Some(vm);
        self.write_locked()
    }

    /// The virtual machine may run from now on, and `keeper` has it. Call it before anything is done with it.
    ///
    /// # Errors
    /// If it could not be written down.
    pub fn set_keeper(&mut self, keeper: &str) -> Result<(), RegistryError> {
        self.entry.keeper = Some(keeper.to_owned());
        self.write_locked()
    }

    /// The virtual machine is off.
    ///
    /// # Errors
    /// If that could not be written down.
    pub fn clear_vm(&mut self) -> Result<(), RegistryError> {
        self.entry.vm = None;
        self.entry.keeper = None;
        self.write_locked()
    }

    fn write_locked(&self) -> Result<(), RegistryError> {
        let _lock = self.registry.lock()?;
        self.write()
    }

    fn write(&self) -> Result<(), RegistryError> {
        let failed = |source| io_error("write", &self.path)(source);
        let mut text = serde_json::to_vec_pretty(&self.entry).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        replace_file(&RealStorage, &self.path, &text).map_err(failed)
    }
}

impl<P: Processes + Clone> Drop for Registration<P> {
    fn drop(&mut self) {
        if self.entry.vm.is_some() || self.entry.keeper.is_some() {
            return;
        }
        let removed =
            self.registry.lock().and_then(|_lock| fs::remove_file(&self.path).map_err(io_error("remove", &self.path)));
        if let Err(error) = removed {
            // The next reaper finds that the manager is gone and does it.
            tracing::warn!(%error, "the entry in the registry stays");
        }
    }
}

fn read(path: &Path) -> Result<Entry, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let entry: Entry = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if entry.version > VERSION {
        return Err(format!(
            "it was written by a later version of vmtask (format {}, this one reads up to {VERSION})",
            entry.version
        ));
    }
    Ok(entry)
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RegistryError + 'a {
    move |source| RegistryError::Io { what, path: path.to_owned(), source }
}
