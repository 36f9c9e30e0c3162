//! The table of everything that a client holds.
//!
//! ```text
//!   handed out: +1 reference ----> Vix_ReleaseHandle: -1 ----> 0: gone
//!                    |                                           ^
//!                    +------- VixHost_Disconnect ----------------+  (with everything obtained from that host)
//! ```
//!
//! Numbers are not used again, so a handle used after its release names nothing, and releasing it does nothing.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use vmtask_vix_abi::{Handle, INVALID_HANDLE, error_code, handle_type};

use crate::counters;
use crate::failure::Failure;
use crate::host::Host;
use crate::job::Job;
use crate::property::Properties;
use crate::vm::{SnapshotRef, Vm};

/// What a handle names.
#[derive(Clone)]
pub(crate) enum Object {
    Host(Arc<Host>),
    Vm(Arc<Vm>),
    Snapshot(Arc<SnapshotRef>),
    Job(Arc<Job>),
    Properties(Arc<Properties>),
}

impl Object {
    /// One of [`handle_type`].
    pub(crate) fn kind(&self) -> i32 {
        match self {
            Self::Host(_) => handle_type::HOST,
            Self::Vm(_) => handle_type::VM,
            Self::Snapshot(_) => handle_type::SNAPSHOT,
            Self::Job(_) => handle_type::JOB,
            Self::Properties(_) => handle_type::PROPERTY_LIST,
        }
    }
}

struct Entry {
    object: Object,
    references: u64,
    /// How many of them are the library's own.
    held: u64,
    /// The connection it was obtained from; [`INVALID_HANDLE`] if from none.
    host: Handle,
    /// Equal keys of one connection are one handle.
    key: Option<String>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Handle, Entry>,
    by_key: HashMap<(Handle, String), Handle>,
    last: Handle,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many handles are alive.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Live {
    hosts: usize,
    vms: usize,
    snapshots: usize,
    jobs: usize,
    property_lists: usize,
}

/// Counts them.
pub(crate) fn live() -> Live {
    let mut live = Live::default();
    for entry in table().entries.values() {
        match entry.object {
            Object::Host(_) => live.hosts += 1,
            Object::Vm(_) => live.vms += 1,
            Object::Snapshot(_) => live.snapshots += 1,
            Object::Job(_) => live.jobs += 1,
            Object::Properties(_) => live.property_lists += 1,
        }
    }
    live
}

/// Hands an object out, with one reference for the receiver.
///
/// # Errors
/// `HOST_NOT_CONNECTED` if the connection that it belongs to has ended.
pub(crate) fn hand_out(host: Handle, object: Object) -> Result<Handle, Failure> {
    let handle = table().insert(host, None, object)?;
    counters::changed();
    Ok(handle)
}

/// Hands out the object of this connection with this key, made by `make` if there is none yet.
pub(crate) fn hand_out_once(
    host: Handle,
    key: String,
    make: impl FnOnce() -> Result<Object, Failure>,
) -> Result<Handle, Failure> {
    if let Some(handle) = table().again(host, &key) {
        return Ok(handle);
    }
    // Made without the lock, since it may take long: two threads may both have made one, and the first wins.
    let object = make()?;
    let mut table = table();
    if let Some(handle) = table.again(host, &key) {
        return Ok(handle);
    }
    let handle = table.insert(host, Some(key), object)?;
    drop(table);
    counters::changed();
    Ok(handle)
}

impl Table {
    fn again(&mut self, host: Handle, key: &str) -> Option<Handle> {
        let handle = *self.by_key.get(&(host, key.to_owned()))?;
        self.entries.get_mut(&handle)?.references += 1;
        Some(handle)
    }

    fn insert(&mut self, host: Handle, key: Option<String>, object: Object) -> Result<Handle, Failure> {
        if host != INVALID_HANDLE && !self.entries.contains_key(&host) {
            return Err(Failure::new(error_code::HOST_NOT_CONNECTED, "the connection to the host has ended"));
        }
        let handle = self.last.checked_add(1).ok_or_else(|| {
            Failure::new(error_code::TOO_MANY_HANDLES, "this process has used every handle that there is")
        })?;
        self.last = handle;
        if let Some(key) = &key {
            self.by_key.insert((host, key.clone()), handle);
        }
        self.entries.insert(handle, Entry { object, references: 1, held: 0, host, key });
        Ok(handle)
    }

    fn remove(&mut self, handle: Handle) -> Option<Entry> {
        let entry = self.entries.remove(&handle)?;
        if let Some(key) = &entry.key {
            self.by_key.remove(&(entry.host, key.clone()));
        }
        Some(entry)
    }
}

/// One more reference; whether there is such a handle.
pub(crate) fn add_reference(handle: Handle) -> bool {
    table().entries.get_mut(&handle).map(|entry| entry.references += 1).is_some()
}

/// One more reference, which is not the client's and no leak of his if he disconnects now. [`let_go`] ends it.
pub(crate) fn hold(handle: Handle) {
    if let Some(entry) = table().entries.get_mut(&handle) {
        entry.references += 1;
        entry.held += 1;
    }
}

/// Ends what [`hold`] began; nothing happens if a disconnect has ended it.
pub(crate) fn let_go(handle: Handle) {
    // In one step: a disconnect in between would take the reference for the client's, and count a leak.
    drop_reference(handle, |entry| entry.held -= 1);
}

/// One reference less. A handle that is no more, or never was: nothing happens.
pub(crate) fn release(handle: Handle) {
    drop_reference(handle, |_| {});
}

fn drop_reference(handle: Handle, note: impl FnOnce(&mut Entry)) {
    let removed = {
        let mut table = table();
        match table.entries.get_mut(&handle) {
            // A host ends by disconnecting only.
            Some(Entry { object: Object::Host(_), .. }) | None => return,
            Some(entry) => {
                note(entry);
                if entry.references > 1 {
                    entry.references -= 1;
                    return;
                }
                table.remove(handle)
            }
        }
    };
    // Dropped without the lock: an object may hold others, which it releases.
    drop(removed);
    counters::changed();
}

/// Ends a connection: its host and everything that was obtained from it. Returns the jobs among them.
pub(crate) fn disconnect(host: Handle) -> Vec<Arc<Job>> {
    let removed = {
        let mut table = table();
        let of_host = |(handle, entry): (&Handle, &Entry)| (entry.host == host || *handle == host).then_some(*handle);
        let doomed: Vec<Handle> = table.entries.iter().filter_map(of_host).collect();
        doomed.into_iter().filter_map(|handle| table.remove(handle)).collect::<Vec<_>>()
    };
    let is_leak = |entry: &&Entry| !matches!(entry.object, Object::Host(_)) && entry.references > entry.held;
    counters::leaked(removed.iter().filter(is_leak).count());
    let job = |entry: &Entry| match &entry.object {
        Object::Job(job) => Some(Arc::clone(job)),
        _ => None,
    };
    let jobs = removed.iter().filter_map(job).collect();
    drop(removed);
    counters::changed();
    jobs
}

/// What a handle names.
///
/// # Errors
/// `INVALID_HANDLE` if nothing.
pub(crate) fn get(handle: Handle) -> Result<Object, Failure> {
    let object = table().entries.get(&handle).map(|entry| entry.object.clone());
    object.ok_or_else(|| Failure::new(error_code::INVALID_HANDLE, format!("{handle} is not a handle")))
}

fn wrong_type(handle: Handle, wanted: &str) -> Failure {
    Failure::new(error_code::NOT_SUPPORTED_ON_HANDLE_TYPE, format!("the handle {handle} is not {wanted}"))
}

/// The host that a handle names.
pub(crate) fn host(handle: Handle) -> Result<Arc<Host>, Failure> {
    match get(handle)? {
        Object::Host(host) => Ok(host),
        _ => Err(wrong_type(handle, "a host")),
    }
}

/// The VM that a handle names.
pub(crate) fn vm(handle: Handle) -> Result<Arc<Vm>, Failure> {
    match get(handle)? {
        Object::Vm(vm) => Ok(vm),
        _ => Err(wrong_type(handle, "a virtual machine")),
    }
}

/// The snapshot that a handle names.
pub(crate) fn snapshot(handle: Handle) -> Result<Arc<SnapshotRef>, Failure> {
    match get(handle)? {
        Object::Snapshot(snapshot) => Ok(snapshot),
        _ => Err(wrong_type(handle, "a snapshot")),
    }
}

/// The job that a handle names.
pub(crate) fn job(handle: Handle) -> Result<Arc<Job>, Failure> {
    match get(handle)? {
        Object::Job(job) => Ok(job),
        _ => Err(wrong_type(handle, "a job")),
    }
}

/// The property list that a handle names; none for [`INVALID_HANDLE`].
pub(crate) fn properties(handle: Handle) -> Result<Option<Arc<Properties>>, Failure> {
    if handle == INVALID_HANDLE {
        return Ok(None);
    }
    match get(handle)? {
        Object::Properties(list) => Ok(Some(list)),
        _ => Err(wrong_type(handle, "a property list")),
    }
}
