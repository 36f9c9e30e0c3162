//! What can be asked of the guest of a virtual machine: files, programs, variables, shared folders.
//!
//! Paths in the guest are absolute: VIX promises no working directory. All but Tools, variables of the VM and shared
//! folders needs a login.

use std::path::Path;

use vmtask_driver::Credentials;
use vmtask_vix_abi::{file_attribute, property, variable};

use crate::api::{Call, Hidden};
use crate::error::Error;
use crate::job::Over;
use crate::machine::Vm;
use crate::wait::Wait;

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

impl Vm {
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
        let over = self.run(&Call::ListProcesses { vm: self.raw() }, self.path(), wait)?;
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
        let over = self.run(&Call::CreateTempFile { vm: self.raw() }, self.path(), wait)?;
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
        let over = self.run(&Call::CountSharedFolders { vm: self.raw() }, self.path(), wait)?;
        let id = property::JOB_RESULT_SHARED_FOLDER_COUNT;
        let count = over.value(id).and_then(|value| over.number(id, &value))?;
        (0..count)
            .map(|index| {
                let call = Call::SharedFolder { vm: self.raw(), index: index as i32 };
                let over = self.run(&call, self.path(), wait)?;
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
