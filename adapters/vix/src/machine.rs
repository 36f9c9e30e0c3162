//! A virtual machine: everything that VIX can do with one. What concerns its guest is in the module `inside`.
//!
//! Every method is one call, waited for within the
//! limit that it is given, and says in its error what was attempted.

use std::fmt;
use std::sync::Arc;

use vmtask_vix_abi::{
    Function, INVALID_HANDLE, capture, clone_type, power_op, power_state, property, snapshot_option, vm_delete,
};

use crate::api::{Call, Look, Value, Vix};
use crate::error::Error;
use crate::host::Host;
use crate::job::{Job, Over, Owned, Strays, failed};
use crate::snapshot::Snapshot;
use crate::wait::Wait;

/// A virtual machine that has been opened. Clones are the same one, with the same session in the guest.
#[derive(Clone)]
pub struct Vm(Arc<Inner>);

struct Inner {
    // First, so that it is released before the connection can close.
    handle: Owned,
    path: String,
    host: Host,
}

/// A VM that may have been closed.
pub(crate) struct WeakVm(std::sync::Weak<Inner>);

impl WeakVm {
    /// The VM, if it is still open.
    pub(crate) fn upgrade(&self) -> Option<Vm> {
        self.0.upgrade().map(Vm)
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vm({}, {:?})", self.0.path, self.0.handle)
    }
}

/// The bits of a VM's power state.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PowerState(pub i32);

impl PowerState {
    const fn has(self, bits: i32) -> bool {
        self.0 & bits != 0
    }

    /// It is off, and nothing of it is kept.
    #[must_use]
    pub const fn is_off(self) -> bool {
        self.has(power_state::POWERED_OFF)
    }

    /// Its state lies on disk.
    #[must_use]
    pub const fn is_suspended(self) -> bool {
        self.has(power_state::SUSPENDED)
    }

    /// It is in memory, and its processors stand still.
    #[must_use]
    pub const fn is_paused(self) -> bool {
        self.has(power_state::PAUSED)
    }

    /// It runs.
    #[must_use]
    pub const fn is_running(self) -> bool {
        self.has(power_state::POWERED_ON) && !self.is_paused()
    }

    /// It waits for somebody to answer a question in the product's window.
    #[must_use]
    pub const fn is_asking(self) -> bool {
        self.has(power_state::BLOCKED_ON_MSG)
    }

    /// It is between two states.
    #[must_use]
    pub const fn is_changing(self) -> bool {
        self.has(
            power_state::POWERING_OFF
                | power_state::POWERING_ON
                | power_state::SUSPENDING
                | power_state::RESETTING
                | power_state::RESUMING,
        )
    }
}

impl fmt::Debug for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            state if state.is_asking() => "waiting for an answer in the product's window",
            state if state.is_changing() => "changing its state",
            state if state.is_paused() => "paused",
            state if state.is_running() => "running",
            state if state.is_suspended() => "suspended",
            state if state.is_off() => "off",
            _ => "in an unknown state",
        })
    }
}

/// How a clone stands to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneKind {
    /// A copy; the parent must be off or suspended.
    Full,
    /// It keeps only what it changes. Deleting the parent breaks it.
    Linked,
}

impl Vm {
    pub(crate) fn new(host: &Host, handle: Owned, path: &str) -> Self {
        Self(Arc::new(Inner { handle, path: path.to_owned(), host: host.clone() }))
    }

    /// Its path, as it was opened by.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The connection that it came from.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    pub(crate) fn vix(&self) -> &Arc<dyn Vix> {
        self.0.handle.vix()
    }

    /// Jobs that were given up and may still act, on this or another VM of the connection: a clone is made by the one that
    /// it is made from.
    pub(crate) fn strays(&self) -> &Strays {
        self.0.host.strays()
    }

    /// For threads that must not keep it open.
    pub(crate) fn downgrade(&self) -> WeakVm {
        WeakVm(Arc::downgrade(&self.0))
    }

    pub(crate) fn raw(&self) -> i32 {
        self.0.handle.raw()
    }

    /// Starts a job without waiting for it. `detail` is told with the VM's path in messages.
    pub(crate) fn start(&self, call: &Call<'_>, detail: &str, wait: &Wait<'_>) -> Result<Job, Error> {
        Job::start(self.vix(), call, detail, wait)
    }

    pub(crate) fn run(&self, call: &Call<'_>, detail: &str, wait: &Wait<'_>) -> Result<Over, Error> {
        self.start(call, detail, wait)?.wait(detail, wait, self.strays())
    }

    pub(crate) fn just(&self, call: &Call<'_>, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(call, &self.0.path, wait).map(drop)
    }

    fn number(&self, id: i32) -> Result<i64, Error> {
        match self.0.handle.property(&self.0.path, id)? {
            Value::Int(number) => Ok(number.into()),
            Value::Int64(number) => Ok(number),
            Value::Bool(flag) => Ok(flag.into()),
            _ => Ok(0),
        }
    }

    // ---- the machine ----

    /// Its power state.
    ///
    /// # Errors
    /// What VIX says; as for all methods here.
    pub fn power_state(&self) -> Result<PowerState, Error> {
        self.number(property::VM_POWER_STATE).map(|bits| PowerState(bits as i32))
    }

    /// What Tools do: bits of [`vmtask_vix_abi::tools_state`]. Undefined before [`Vm::wait_for_tools`] has returned.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn tools_state(&self) -> Result<i32, Error> {
        self.number(property::VM_TOOLS_STATE).map(|bits| bits as i32)
    }

    /// One property of [`vmtask_vix_abi::property`], as text for people.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn property(&self, id: i32) -> Result<String, Error> {
        Ok(match self.0.handle.property(&self.0.path, id)? {
            Value::Text(text) => text,
            Value::Bool(flag) => flag.to_string(),
            other => format!("{other:?}"),
        })
    }

    /// Starts it, or resumes it if it is suspended. Returns when it begins to boot.
    ///
    /// # Errors
    /// As [`Vm::power_state`]; so for all that follow.
    pub fn power_on(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::PowerOn { vm: self.raw(), options: power_op::NORMAL }, wait)
    }

    /// Pulls its plug.
    ///
    /// # Errors
    /// `VIX_E_VM_NOT_RUNNING` if it is off or suspended.
    pub fn power_off(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::PowerOff { vm: self.raw(), options: power_op::NORMAL }, wait)
    }

    /// Asks the guest to shut down. Just after Tools have started it may refuse
    /// (`VIX_E_POWEROP_SCRIPTS_NOT_AVAILABLE`).
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn shut_down(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::PowerOff { vm: self.raw(), options: power_op::FROM_GUEST }, wait)
    }

    /// Presses its reset button.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn reset(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::Reset { vm: self.raw(), options: power_op::NORMAL }, wait)
    }

    /// Writes its state to disk and stops it.
    ///
    /// # Errors
    /// `VIX_E_VM_NOT_RUNNING` if it does not run.
    pub fn suspend(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::Suspend { vm: self.raw() }, wait)
    }

    /// Stops its processors. Until [`Vm::unpause`] nothing may be asked of its guest.
    ///
    /// # Errors
    /// `VIX_E_NOT_SUPPORTED` on Server and Player.
    pub fn pause(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::Pause { vm: self.raw() }, wait)
    }

    /// Lets its processors go on.
    ///
    /// # Errors
    /// As [`Vm::pause`].
    pub fn unpause(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::Unpause { vm: self.raw() }, wait)
    }

    /// Deletes it with its files. The handle remains, and is of no use any more.
    ///
    /// # Errors
    /// `VIX_E_VM_IS_RUNNING` unless it is off or suspended.
    pub fn delete(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::Delete { vm: self.raw(), options: vm_delete::DISK_FILES }, wait)
    }

    /// Makes a clone at `to`, an absolute path, from a snapshot or (`None`) from what it is now.
    ///
    /// # Errors
    /// `VIX_E_NOT_SUPPORTED` on every product but Workstation.
    pub fn clone_to(
        &self,
        snapshot: Option<&Snapshot>,
        kind: CloneKind,
        to: &str,
        wait: &Wait<'_>,
    ) -> Result<Self, Error> {
        let kind = match kind {
            CloneKind::Full => clone_type::FULL,
            CloneKind::Linked => clone_type::LINKED,
        };
        let snapshot = snapshot.map_or(INVALID_HANDLE, Snapshot::raw);
        let call = Call::Clone { vm: self.raw(), snapshot, kind, to };
        let detail = format!("{} to {to}", self.0.path);
        let handle = self.run(&call, &detail, wait)?.handle()?;
        Ok(Self::new(&self.0.host, handle, to))
    }

    /// Gives it the newest virtual hardware. It must be off.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn upgrade_hardware(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::UpgradeHardware { vm: self.raw() }, wait)
    }

    /// Begins to install Tools: bits of [`vmtask_vix_abi::install_tools`].
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn install_tools(&self, options: i32, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::InstallTools { vm: self.raw(), options }, wait)
    }

    /// Its screen as a PNG file's bytes. Needs a login.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn screen(&self, wait: &Wait<'_>) -> Result<Vec<u8>, Error> {
        let over = self.run(&Call::CaptureScreen { vm: self.raw(), format: capture::PNG }, &self.0.path, wait)?;
        match over.value(property::JOB_RESULT_SCREEN_IMAGE_DATA)? {
            Value::Blob(bytes) => Ok(bytes),
            _ => Ok(Vec::new()),
        }
    }

    // ---- snapshots ----

    /// Saves its state under a name, which need not be the only one of that name. Without `memory`, a VM that runs now
    /// is off when it is reverted. On Server a second snapshot overwrites the first.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn snapshot(&self, name: &str, description: &str, memory: bool, wait: &Wait<'_>) -> Result<Snapshot, Error> {
        let options = if memory { snapshot_option::INCLUDE_MEMORY } else { 0 };
        let call = Call::CreateSnapshot { vm: self.raw(), name, description, options };
        let handle = self.run(&call, &self.with(name), wait)?.handle()?;
        Ok(Snapshot::new(self, handle))
    }

    /// Brings it back to a snapshot, and into the power state that it had then. Tools are to be waited for again, and
    /// the login is to be made again.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn revert(&self, to: &Snapshot, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::Revert { vm: self.raw(), snapshot: to.raw(), options: power_op::NORMAL }, wait)
    }

    /// Deletes a snapshot; with `children`, all that were made after it as well.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn remove_snapshot(&self, snapshot: &Snapshot, children: bool, wait: &Wait<'_>) -> Result<(), Error> {
        let options = if children { snapshot_option::REMOVE_CHILDREN } else { 0 };
        self.just(&Call::RemoveSnapshot { vm: self.raw(), snapshot: snapshot.raw(), options }, wait)
    }

    pub(crate) fn look(&self, look: &Look<'_>) -> Result<i32, Error> {
        self.vix().look(look).map_err(|code| failed(&**self.vix(), look.function(), &self.0.path, code))
    }

    /// How many snapshots have no parent.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn root_snapshots(&self) -> Result<i32, Error> {
        self.look(&Look::CountRootSnapshots { vm: self.raw() })
    }

    /// A snapshot without a parent. On Server there is only number 0.
    ///
    /// # Errors
    /// `VIX_E_SNAPSHOT_NOTFOUND` if there is none.
    pub fn root_snapshot(&self, index: i32) -> Result<Snapshot, Error> {
        self.look(&Look::RootSnapshot { vm: self.raw(), index }).map(|raw| self.found(raw))
    }

    /// The snapshot that its present state is based on.
    ///
    /// # Errors
    /// `VIX_E_SNAPSHOT_NOTFOUND` if there is none.
    pub fn current_snapshot(&self) -> Result<Snapshot, Error> {
        self.look(&Look::CurrentSnapshot { vm: self.raw() }).map(|raw| self.found(raw))
    }

    /// The snapshot of this name.
    ///
    /// # Errors
    /// `VIX_E_SNAPSHOT_NOTFOUND`; `VIX_E_SNAPSHOT_NONUNIQUE_NAME` if there are several.
    pub fn named_snapshot(&self, name: &str) -> Result<Snapshot, Error> {
        let raw = self
            .vix()
            .look(&Look::NamedSnapshot { vm: self.raw(), name })
            .map_err(|code| failed(&**self.vix(), Function::VmGetNamedSnapshot, &self.with(name), code))?;
        Ok(self.found(raw))
    }

    pub(crate) fn found(&self, raw: i32) -> Snapshot {
        Snapshot::new(self, Owned::new(self.vix(), raw))
    }

    pub(crate) fn with(&self, detail: &str) -> String {
        format!("{}, {detail}", self.0.path)
    }
}
