//! The host-wide registry of virtual machines, so that every one of them can be found and none outlives its owner
//! unnoticed.
//!
//! ```text
//!   <data directory>/vms/
//!     3fa8...e1.json      one for each task directory: the manager's process; the VM's process, or the product that has it
//!     .lock               held for the moment in which an entry is changed or removed
//! ```
//!
//! What is registered is ended or listed, never forgotten: an entry goes when its virtual machine is known to be gone,
//! whatever became of the task's directory.
//!
//! A process is known by its number *and* its start time: a number alone is given to others. Only a process that fits
//! both is ever killed, only if its manager is gone, and through a handle that cannot slip to another process between
//! the look and the blow.

mod entry;
mod lock;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::digest::Digest;
use crate::room::is_no_space;
use crate::sys;
pub use crate::sys::{Liveness, ProcessId};
pub use entry::{Entry, Keeper};
use entry::{Unreadable, VERSION};
use lock::Lock;

/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The registry of one user's data directory.
#[derive(Clone, Debug)]
pub struct Registry<P = RealProcesses> {
    dir: PathBuf,
    processes: P,
    /// How long the lock is waited for.
    patience: Duration,
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

/// A virtual machine as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What is written about it.
    pub entry: Entry,
    /// Where that is written.
    pub file: PathBuf,
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
    /// Another process holds the lock and does not let go.
    #[error("another process has held the lock {} for more than {} s; end the vmtask that hangs (`fuser` with that file names it) and try again", path.display(), patience.as_secs())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// What is written of an earlier virtual machine of this task directory cannot be read, so it could run unnoticed.
    #[error("{} tells of an earlier virtual machine of this task directory and cannot be used: {why}; make sure that none runs (`vmtask vms`, and the product's own list), then remove that file", path.display())]
    Entry {
        /// The entry's file.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// A product has a virtual machine of an earlier task in this directory, and this task would not look after it.
    #[error("there is a virtual machine of an earlier task in {}: {way_out}", dir.display())]
    Kept {
        /// The task's directory.
        dir: PathBuf,
        /// Who has it, and how to end it.
        way_out: String,
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

impl RegistryError {
    /// Whether it is for want of room.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }
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
    /// Who will have it once it may run, if it will be no process of ours.
    pub keeper: Option<&'a Keeper>,
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
        Ok(Self { dir, processes, patience: lock::PATIENCE })
    }

    /// With another limit on how long the lock is waited for, which is 10 s otherwise.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Announces the virtual machine of a task, before it is started. What is left in the registry of an earlier one is
    /// replaced, unless that still runs or may run: then it is taken over if it is to be adopted and has the same keeper.
    ///
    /// # Errors
    /// [`RegistryError::StillRuns`] or [`RegistryError::Kept`] if it would not be taken over; the others if the registry
    /// cannot be read or written. There is no entry of ours then, or one that the next reaper removes.
    pub fn register(&self, new: &NewEntry<'_>) -> Result<Registration<P>, RegistryError> {
        let (dir, path) = self.place_of(new.dir)?;
        let pid = std::process::id();
        let manager = match self.processes.identify(pid) {
            Liveness::Alive(me) => me,
            Liveness::Dead | Liveness::Unknown => ProcessId::nameless(pid),
        };
        let mut entry = Entry {
            version: VERSION,
            task: new.task.to_owned(),
            dir,
            hypervisor: new.hypervisor.to_owned(),
            outlives_manager: new.outlives_manager,
            manager,
            vm: None,
            keeper: None,
            machine: None,
            inventory: false,
        };
        let lock = self.lock()?;
        match Entry::read(&path) {
            Ok(earlier) => self.take_over(earlier, &path, new, &mut entry)?,
            // A damaged entry of our own directory is ours to replace: its lock is held by our caller.
            Err(Unreadable::Missing | Unreadable::Damaged(_)) => {}
            Err(why) => return Err(RegistryError::Entry { path, why: why.to_string() }),
        }
        entry.write(&path, &lock)?;
        // Only now, with the entry written and the lock given back: whoever drops a registration takes the lock.
        drop(lock);
        Ok(Registration { registry: self.clone(), path, entry })
    }

    /// Carries what may still run from an earlier entry into the new one.
    fn take_over(
        &self,
        earlier: Entry,
        path: &Path,
        new: &NewEntry<'_>,
        entry: &mut Entry,
    ) -> Result<(), RegistryError> {
        if let Some(way_out) = earlier.way_out(path) {
            let Some(keeper) = new.keeper.filter(|keeper| earlier.is_kept_by(keeper)) else {
                return Err(RegistryError::Kept { dir: earlier.dir, way_out });
            };
            entry.keep(Some(keeper));
        }
        if let Some(vm) = earlier.vm.filter(|vm| self.presence(vm) != Presence::Gone) {
            if !new.outlives_manager {
                return Err(RegistryError::StillRuns { dir: earlier.dir, pid: vm.pid });
            }
            entry.vm = Some(vm);
        }
        Ok(())
    }

    /// What is written about the virtual machine of the task in `dir`, which must be there.
    ///
    /// # Errors
    /// If it cannot be read or understood: then the machine may run.
    pub fn find(&self, dir: &Path) -> Result<Option<Listed>, RegistryError> {
        let (_, path) = self.place_of(dir)?;
        match Entry::read(&path) {
            Ok(entry) => Ok(Some(self.listed(entry, path))),
            Err(Unreadable::Missing) => Ok(None),
            Err(why) => Err(RegistryError::Entry { path, why: why.to_string() }),
        }
    }

    /// The true name of a task's directory, and where its entry is.
    fn place_of(&self, dir: &Path) -> Result<(PathBuf, PathBuf), RegistryError> {
        let dir = fs::canonicalize(dir).map_err(io_error("find", dir))?;
        let path = self.dir.join(Digest::of(dir.as_os_str().as_encoded_bytes()).short() + ".json");
        Ok((dir, path))
    }

    fn listed(&self, entry: Entry, file: PathBuf) -> Listed {
        Listed { manager: self.presence(&entry.manager), vm: self.presence_of_vm(&entry), entry, file }
    }

    /// Everything in the registry, as it is now.
    ///
    /// # Errors
    /// If the directory cannot be read. A damaged entry is no error.
    pub fn list(&self) -> Result<Listing, RegistryError> {
        let mut listing = Listing::default();
        for path in self.files("json")? {
            match Entry::read(&path) {
                Ok(entry) => listing.vms.push(self.listed(entry, path)),
                Err(Unreadable::Missing) => {}
                Err(why) => listing.damaged.push((path, why.to_string())),
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
            match Entry::read(&path) {
                Ok(entry) => self.reap_one(&path, entry, which, &mut reaped)?,
                Err(Unreadable::Missing) => {}
                Err(why) => reaped.damaged.push((path, why.to_string())),
            }
        }
        Ok(reaped)
    }

    /// Removes an entry that is still what it was: a manager may have registered anew meanwhile.
    fn forget(&self, path: &Path, entry: &Entry) -> Result<Result<(), String>, RegistryError> {
        let _lock = self.lock()?;
        match Entry::read(path) {
            Ok(now) if now == *entry => Ok(fs::remove_file(path).map_err(|error| format!("its entry stays: {error}"))),
            _ => Ok(Ok(())),
        }
    }

    /// Without the lock, which others need while a process takes its time to end.
    fn reap_one(&self, path: &Path, entry: Entry, which: Reap, reaped: &mut Reaped) -> Result<(), RegistryError> {
        if self.presence(&entry.manager) != Presence::Gone {
            return Ok(());
        }
        if let Some(way_out) = entry.way_out(path) {
            // The next manager of its task will adopt it, if there can be one.
            if which == Reap::All || entry.has_lost_its_directory() {
                reaped.left.push((entry, way_out));
            }
            return Ok(());
        }
        let vm = match (self.presence_of_vm(&entry), &entry.vm) {
            (Presence::Here, Some(vm)) => vm,
            (Presence::Unknown, Some(vm)) => {
                let why = format!("cannot tell whether process {} is still the one", vm.pid);
                reaped.left.push((entry, why));
                return Ok(());
            }
            _ => {
                match self.forget(path, &entry)? {
                    Ok(()) => reaped.dropped.push(entry),
                    Err(why) => reaped.left.push((entry, why)),
                }
                return Ok(());
            }
        };
        if entry.outlives_manager && which == Reap::Orphans {
            return Ok(());
        }
        let killed = self.processes.kill(vm).map_err(|error| format!("process {} cannot be killed: {error}", vm.pid));
        let gone = match killed {
            Ok(()) => self.forget(path, &entry)?,
            Err(why) => Err(why),
        };
        match gone {
            Ok(()) => reaped.killed.push(entry),
            Err(why) => reaped.left.push((entry, why)),
        }
        Ok(())
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
            // We cannot ask who has it.
            None if entry.keeper.is_some() => Presence::Unknown,
            None => Presence::Gone,
        }
    }

    fn lock(&self) -> Result<Lock, RegistryError> {
        Lock::take(&self.dir, self.patience)
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
        self.write()
    }

    /// The virtual machine may run from now on, and `keeper` has it. Call it before anything is done with it.
    ///
    /// # Errors
    /// If it could not be written down: then nothing may be done with it.
    pub fn set_keeper(&mut self, keeper: &Keeper) -> Result<(), RegistryError> {
        self.entry.keep(Some(keeper));
        self.write()
    }

    /// The virtual machine is off, and in no inventory.
    ///
    /// # Errors
    /// If that could not be written down.
    pub fn clear_vm(&mut self) -> Result<(), RegistryError> {
        self.entry.vm = None;
        self.entry.keep(None);
        self.write()
    }

    fn write(&self) -> Result<(), RegistryError> {
        let lock = self.registry.lock()?;
        self.entry.write(&self.path, &lock)
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

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RegistryError + 'a {
    move |source| RegistryError::Io { what, path: path.to_owned(), source }
}
