//! A virtual machine: everything that VIX can do with one.
//!
//! Paths in the guest are absolute: VIX promises no working directory. Every method is one call, waited for within the
//! limit that it is given, and says in its error what was attempted.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vmtask_driver::Credentials;
use vmtask_vix_abi::{Function, INVALID_HANDLE, clone_type, file_attribute, power_state, property, snapshot_option};
use vmtask_vix_abi::{capture, power_op, variable, vm_delete};

use crate::api::{Call, Hidden, Look, Value, Vix};
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
    strays: Strays,
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

/// What came of a program in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 0 for a program that was only started.
    pub exit_code: i32,
    /// For how long it ran, in seconds. Tools look once in a second.
    pub seconds: i32,
    /// Its number in the guest; old Tools do not tell.
    pub pid: Option<u64>,
}

/// A process in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u64,
    /// Its command's name.
    pub name: String,
    /// Its user.
    pub owner: String,
    /// Its command line.
    pub command: String,
    /// When it was started, in seconds since 1970.
    pub started: i64,
}

/// A file in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// Its name, without a directory; empty where one file was asked for.
    pub name: String,
    /// Its size in bytes.
    pub size: i64,
    /// When it was changed last, in seconds since 1970.
    pub modified: i64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Whether it is a symbolic link.
    pub is_link: bool,
}

/// A directory of the host that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFolder {
    /// What the guest calls it.
    pub name: String,
    /// Where it is on the host.
    pub path: String,
    /// Bits of [`vmtask_vix_abi::shared_folder`].
    pub flags: i32,
}

/// Whose variable is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// One that Tools keep for the VM (`guestinfo.*`); no login needed.
    Guest,
    /// A setting of the running VM's configuration; no login needed.
    Config,
    /// An environment variable in the guest. Writing one needs root there.
    Environment,
}

impl Variable {
    const fn kind(self) -> i32 {
        match self {
            Self::Guest => variable::VM_GUEST_VARIABLE,
            Self::Config => variable::VM_CONFIG_RUNTIME_ONLY,
            Self::Environment => variable::GUEST_ENVIRONMENT_VARIABLE,
        }
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
        Self(Arc::new(Inner { handle, path: path.to_owned(), strays: Strays::default(), host: host.clone() }))
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

    /// Jobs that were given up and may still act.
    pub(crate) fn strays(&self) -> &Strays {
        &self.0.strays
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

    fn run(&self, call: &Call<'_>, detail: &str, wait: &Wait<'_>) -> Result<Over, Error> {
        self.start(call, detail, wait)?.wait(detail, wait, &self.0.strays)
    }

    fn just(&self, call: &Call<'_>, wait: &Wait<'_>) -> Result<(), Error> {
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

    // ---- the guest ----

    /// Waits until Tools answer. VIX itself gives up after so many seconds (at least 1).
    ///
    /// # Errors
    /// `VIX_E_TIMEOUT_WAITING_FOR_TOOLS`.
    pub fn wait_for_tools(&self, seconds: i32, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::WaitForTools { vm: self.raw(), seconds: seconds.max(1) }, wait)
    }

    /// Logs in to the guest: what follows is done as this user.
    ///
    /// # Errors
    /// `VIX_E_GUEST_USER_PERMISSIONS` for a wrong password.
    pub fn log_in(&self, account: &Credentials, wait: &Wait<'_>) -> Result<(), Error> {
        let password = Hidden(account.password.expose());
        let call = Call::LogIn { vm: self.raw(), user: &account.user, password, options: 0 };
        self.run(&call, &self.with(&account.user), wait).map(drop)
    }

    /// Logs out of the guest. Without a login there is nothing to do.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn log_out(&self, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::LogOut { vm: self.raw() }, wait)
    }

    /// Runs a program to its end. A shell in the guest splits `args`: quote them ([`quote`](crate::quote)). What it
    /// writes is lost unless it is redirected to a file.
    ///
    /// # Errors
    /// `VIX_E_FILE_NOT_FOUND` if there is no such program, `VIX_E_GUEST_USER_PERMISSIONS` if it may not be executed.
    pub fn run_program(&self, program: &str, args: &str, wait: &Wait<'_>) -> Result<Ran, Error> {
        self.program(program, args, 0, wait)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// As [`Vm::run_program`].
    pub fn start_program(&self, program: &str, args: &str, wait: &Wait<'_>) -> Result<Ran, Error> {
        self.program(program, args, vmtask_vix_abi::run_program::RETURN_IMMEDIATELY, wait)
    }

    fn program(&self, program: &str, args: &str, options: i32, wait: &Wait<'_>) -> Result<Ran, Error> {
        let call = Call::RunProgram { vm: self.raw(), program, args, options };
        ran(&self.run(&call, &self.with(program), wait)?)
    }

    /// Runs a script, at most 60 kB of it. The interpreter is `/bin/sh` unless another is named.
    ///
    /// # Errors
    /// As [`Vm::run_program`].
    pub fn run_script(&self, interpreter: Option<&str>, script: &str, wait: &Wait<'_>) -> Result<Ran, Error> {
        let call = Call::RunScript { vm: self.raw(), interpreter, script, options: 0 };
        ran(&self.run(&call, &self.with("a script"), wait)?)
    }

    /// The guest's processes.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn processes(&self, wait: &Wait<'_>) -> Result<Vec<Process>, Error> {
        let over = self.run(&Call::ListProcesses { vm: self.raw() }, &self.0.path, wait)?;
        let text = |index, id| over.nth(index, id).and_then(|value| over.text(id, value));
        let number = |index, id| over.nth(index, id).and_then(|value| over.number(id, &value));
        (0..over.count(property::JOB_RESULT_ITEM_NAME))
            .map(|index| {
                Ok(Process {
                    pid: number(index, property::JOB_RESULT_PROCESS_ID)?.cast_unsigned(),
                    name: text(index, property::JOB_RESULT_ITEM_NAME)?,
                    owner: text(index, property::JOB_RESULT_PROCESS_OWNER)?,
                    command: text(index, property::JOB_RESULT_PROCESS_COMMAND)?,
                    started: number(index, property::JOB_RESULT_PROCESS_START_TIME)?,
                })
            })
            .collect()
    }

    /// Ends a process of the guest.
    ///
    /// # Errors
    /// `VIX_E_NO_SUCH_PROCESS` (older: `VIX_E_INVALID_ARG`) if there is none.
    pub fn kill_process(&self, pid: u64, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(&Call::KillProcess { vm: self.raw(), pid }, &self.with(&pid.to_string()), wait).map(drop)
    }

    /// Copies a file, or a directory with all that is in it, into the guest. Existing files are overwritten; whether a
    /// file may be executed does not come along.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn copy_in(&self, from: &Path, to: &str, wait: &Wait<'_>) -> Result<(), Error> {
        let from = from.to_string_lossy();
        self.run(&Call::CopyToGuest { vm: self.raw(), from: &from, to }, &from_to(&from, to), wait).map(drop)
    }

    /// Copies a file, or a directory, out of the guest.
    ///
    /// # Errors
    /// `VIX_E_FILE_NOT_FOUND` if it is not there.
    pub fn copy_out(&self, from: &str, to: &Path, wait: &Wait<'_>) -> Result<(), Error> {
        let to = to.to_string_lossy();
        self.run(&Call::CopyToHost { vm: self.raw(), from, to: &to }, &from_to(from, &to), wait).map(drop)
    }

    /// Makes a directory in the guest, and those above it.
    ///
    /// # Errors
    /// `VIX_E_FILE_ALREADY_EXISTS` if it is there.
    pub fn create_directory(&self, path: &str, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(&Call::CreateDirectory { vm: self.raw(), path }, path, wait).map(drop)
    }

    /// Deletes a directory in the guest with all that is in it.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn delete_directory(&self, path: &str, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(&Call::DeleteDirectory { vm: self.raw(), path }, path, wait).map(drop)
    }

    /// Deletes a file in the guest.
    ///
    /// # Errors
    /// `VIX_E_FILE_NOT_FOUND` if it is not there.
    pub fn delete_file(&self, path: &str, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(&Call::DeleteFile { vm: self.raw(), path }, path, wait).map(drop)
    }

    /// Gives a file of the guest another name.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn rename_file(&self, from: &str, to: &str, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(&Call::RenameFile { vm: self.raw(), from, to }, &from_to(from, to), wait).map(drop)
    }

    /// Makes an empty file in the guest, and says what it is called.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn create_temp_file(&self, wait: &Wait<'_>) -> Result<String, Error> {
        let over = self.run(&Call::CreateTempFile { vm: self.raw() }, &self.0.path, wait)?;
        let id = property::JOB_RESULT_ITEM_NAME;
        over.value(id).and_then(|value| over.text(id, value))
    }

    /// Whether there is a file of this name in the guest. For a directory the answer is no.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn file_exists(&self, path: &str, wait: &Wait<'_>) -> Result<bool, Error> {
        self.exists(&Call::FileExists { vm: self.raw(), path }, path, wait)
    }

    /// Whether there is a directory of this name in the guest.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn directory_exists(&self, path: &str, wait: &Wait<'_>) -> Result<bool, Error> {
        self.exists(&Call::DirectoryExists { vm: self.raw(), path }, path, wait)
    }

    fn exists(&self, call: &Call<'_>, path: &str, wait: &Wait<'_>) -> Result<bool, Error> {
        let over = self.run(call, path, wait)?;
        let id = property::JOB_RESULT_GUEST_OBJECT_EXISTS;
        over.value(id).and_then(|value| over.number(id, &value)).map(|number| number != 0)
    }

    /// Size, time and kind of a file in the guest.
    ///
    /// # Errors
    /// `VIX_E_FILE_NOT_FOUND` if it is not there.
    pub fn file_info(&self, path: &str, wait: &Wait<'_>) -> Result<GuestFile, Error> {
        let over = self.run(&Call::FileInfo { vm: self.raw(), path }, path, wait)?;
        let number = |id| over.value(id).and_then(|value| over.number(id, &value));
        let flags = number(property::JOB_RESULT_FILE_FLAGS)? as i32;
        Ok(GuestFile {
            name: String::new(),
            size: number(property::JOB_RESULT_FILE_SIZE)?,
            modified: number(property::JOB_RESULT_FILE_MOD_TIME)?,
            is_directory: flags & file_attribute::DIRECTORY != 0,
            is_link: flags & file_attribute::SYMLINK != 0,
        })
    }

    /// What is in a directory of the guest.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn list_directory(&self, path: &str, wait: &Wait<'_>) -> Result<Vec<GuestFile>, Error> {
        let over = self.run(&Call::ListDirectory { vm: self.raw(), path }, path, wait)?;
        let number = |index, id| over.nth(index, id).and_then(|value| over.number(id, &value));
        (0..over.count(property::JOB_RESULT_ITEM_NAME))
            .map(|index| {
                let id = property::JOB_RESULT_ITEM_NAME;
                let flags = number(index, property::JOB_RESULT_FILE_FLAGS)? as i32;
                Ok(GuestFile {
                    name: over.nth(index, id).and_then(|value| over.text(id, value))?,
                    // Products that list more than names are few.
                    size: number(index, property::JOB_RESULT_FILE_SIZE).unwrap_or(0),
                    modified: number(index, property::JOB_RESULT_FILE_MOD_TIME).unwrap_or(0),
                    is_directory: flags & file_attribute::DIRECTORY != 0,
                    is_link: flags & file_attribute::SYMLINK != 0,
                })
            })
            .collect()
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn read_variable(&self, which: Variable, name: &str, wait: &Wait<'_>) -> Result<String, Error> {
        let over =
            self.run(&Call::ReadVariable { vm: self.raw(), kind: which.kind(), name }, &self.with(name), wait)?;
        let id = property::JOB_RESULT_VM_VARIABLE_STRING;
        over.value(id).and_then(|value| over.text(id, value))
    }

    /// Sets a variable.
    ///
    /// # Errors
    /// As [`Vm::power_state`].
    pub fn write_variable(&self, which: Variable, name: &str, value: &str, wait: &Wait<'_>) -> Result<(), Error> {
        let call = Call::WriteVariable { vm: self.raw(), kind: which.kind(), name, value };
        self.run(&call, &self.with(name), wait).map(drop)
    }

    // ---- shared folders ----

    /// Switches all shared folders on or off.
    ///
    /// # Errors
    /// `VIX_E_NOT_SUPPORTED` on Server; so for all that follow.
    pub fn enable_shared_folders(&self, enabled: bool, wait: &Wait<'_>) -> Result<(), Error> {
        self.just(&Call::EnableSharedFolders { vm: self.raw(), enabled }, wait)
    }

    /// The shared folders.
    ///
    /// # Errors
    /// As [`Vm::enable_shared_folders`].
    pub fn shared_folders(&self, wait: &Wait<'_>) -> Result<Vec<SharedFolder>, Error> {
        let over = self.run(&Call::CountSharedFolders { vm: self.raw() }, &self.0.path, wait)?;
        let id = property::JOB_RESULT_SHARED_FOLDER_COUNT;
        let count = over.value(id).and_then(|value| over.number(id, &value))?;
        (0..count)
            .map(|index| {
                let call = Call::SharedFolder { vm: self.raw(), index: index as i32 };
                let over = self.run(&call, &self.0.path, wait)?;
                let text = |id| over.value(id).and_then(|value| over.text(id, value));
                let flags = property::JOB_RESULT_SHARED_FOLDER_FLAGS;
                Ok(SharedFolder {
                    name: text(property::JOB_RESULT_ITEM_NAME)?,
                    path: text(property::JOB_RESULT_SHARED_FOLDER_HOST)?,
                    flags: over.value(flags).and_then(|value| over.number(flags, &value))? as i32,
                })
            })
            .collect()
    }

    /// Shares a directory of the host with the guest.
    ///
    /// # Errors
    /// As [`Vm::enable_shared_folders`].
    pub fn add_shared_folder(&self, folder: &SharedFolder, wait: &Wait<'_>) -> Result<(), Error> {
        let SharedFolder { name, path, flags } = folder;
        let call = Call::AddSharedFolder { vm: self.raw(), name, path, flags: *flags };
        self.run(&call, &self.with(name), wait).map(drop)
    }

    /// Changes a shared folder.
    ///
    /// # Errors
    /// As [`Vm::enable_shared_folders`].
    pub fn set_shared_folder(&self, folder: &SharedFolder, wait: &Wait<'_>) -> Result<(), Error> {
        let SharedFolder { name, path, flags } = folder;
        let call = Call::SetSharedFolder { vm: self.raw(), name, path, flags: *flags };
        self.run(&call, &self.with(name), wait).map(drop)
    }

    /// Stops sharing a directory.
    ///
    /// # Errors
    /// As [`Vm::enable_shared_folders`].
    pub fn remove_shared_folder(&self, name: &str, wait: &Wait<'_>) -> Result<(), Error> {
        self.run(&Call::RemoveSharedFolder { vm: self.raw(), name }, &self.with(name), wait).map(drop)
    }

    fn with(&self, detail: &str) -> String {
        format!("{}, {detail}", self.0.path)
    }
}

fn from_to(from: &str, to: &str) -> String {
    format!("{from} to {to}")
}

pub(crate) fn ran(over: &Over) -> Result<Ran, Error> {
    let number = |id| over.value(id).and_then(|value| over.number(id, &value));
    Ok(Ran {
        exit_code: number(property::JOB_RESULT_GUEST_PROGRAM_EXIT_CODE)? as i32,
        // Of no use to anybody who fails for it.
        seconds: number(property::JOB_RESULT_GUEST_PROGRAM_ELAPSED_TIME).unwrap_or(0) as i32,
        pid: number(property::JOB_RESULT_PROCESS_ID).ok().map(i64::cast_unsigned),
    })
}
