//! The seam: VIX's 67 functions as safe Rust, without any policy. [`ffi`](crate::ffi) implements it for a loaded library;
//! tests implement it with a mock, and see what is asked call by call.
//!
//! ```text
//!   Host, Vm, Snapshot --> trait Vix --+--> ffi::Loaded --> C
//!                                      +--> MockVix
//! ```
//! Functions that start a job are one method, [`Vix::start`], with a [`Call`] each; those that look something up at once
//! are [`Vix::look`] with a [`Look`] each.

use std::fmt;

use vmtask_vix_abi::property::{self, Type};
use vmtask_vix_abi::{Function, Handle};

use crate::bell::Ticket;
use crate::error::Code;

/// A string with a NUL inside: C cannot have it. Nothing was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasNul;

/// VIX, safe to call: strings and properties are converted, nothing is waited for.
#[cfg_attr(test, mockall::automock)]
#[allow(clippy::needless_lifetimes, reason = "mockall wants them named")]
pub trait Vix: Send + Sync {
    /// Starts a job and returns its handle. `done`, if given, rings when it is over, possibly before this returns.
    ///
    /// # Errors
    /// If a string cannot be given to C; then nothing was started.
    fn start<'a>(&self, call: &Call<'a>, done: Option<Ticket>) -> Result<Handle, HasNul>;

    /// Whether a job is over (`VixJob_CheckCompletion`).
    ///
    /// # Errors
    /// What VIX says about the handle.
    fn is_complete(&self, job: Handle) -> Result<bool, Code>;

    /// How a job that is over went (`VixJob_GetError`).
    fn job_error(&self, job: Handle) -> Code;

    /// How many results a job has (`VixJob_GetNumProperties`).
    fn count(&self, job: Handle, id: i32) -> i32;

    /// One property of one of many results (`VixJob_GetNthProperties`).
    ///
    /// # Errors
    /// What VIX says; [`UNRECOGNIZED_PROPERTY`](vmtask_vix_abi::error_code::UNRECOGNIZED_PROPERTY) also for a property
    /// whose type is not known here.
    fn nth(&self, job: Handle, index: i32, id: i32) -> Result<Value, Code>;

    /// One property (`Vix_GetProperties`).
    ///
    /// # Errors
    /// As [`Vix::nth`].
    fn property(&self, of: Handle, id: i32) -> Result<Value, Code>;

    /// What type a property has: one of [`vmtask_vix_abi::property_type`] (`Vix_GetPropertyType`).
    ///
    /// # Errors
    /// What VIX says.
    fn property_type(&self, of: Handle, id: i32) -> Result<i32, Code>;

    /// What a handle is: one of [`vmtask_vix_abi::handle_type`] (`Vix_GetHandleType`).
    fn handle_type(&self, handle: Handle) -> i32;

    /// Looks something up at once.
    ///
    /// # Errors
    /// If a string cannot be given to C, or what VIX says.
    fn look<'a>(&self, look: &Look<'a>) -> Result<i32, Code>;

    /// Makes a list of properties (`VixPropertyList_AllocPropertyList`) with one string, which is a secret.
    ///
    /// # Errors
    /// What VIX says; [`INVALID_ARG`](vmtask_vix_abi::error_code::INVALID_ARG) for a string with a NUL.
    fn property_list<'a>(&self, host: Handle, id: i32, value: Hidden<'a>) -> Result<Handle, Code>;

    /// The library's words for an error (`Vix_GetErrorText`).
    fn text(&self, error: Code) -> String;

    /// Counts one reference more (`Vix_AddRefHandle`). Old libraries lack it: then nothing happens, and the answer is no.
    fn add_ref(&self, handle: Handle) -> bool;

    /// Counts one reference less (`Vix_ReleaseHandle`).
    fn release(&self, handle: Handle);

    /// Ends a connection, and with it every handle that came from it (`VixHost_Disconnect`).
    fn disconnect(&self, host: Handle);
}

/// What a property can be.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `VIX_PROPERTYTYPE_INTEGER`.
    Int(i32),
    /// `VIX_PROPERTYTYPE_STRING`; what is no UTF-8 in it has been replaced.
    Text(String),
    /// `VIX_PROPERTYTYPE_BOOL`.
    Bool(bool),
    /// `VIX_PROPERTYTYPE_HANDLE`, with a reference that is the receiver's.
    Handle(Handle),
    /// `VIX_PROPERTYTYPE_INT64`.
    Int64(i64),
    /// `VIX_PROPERTYTYPE_BLOB`.
    Blob(Vec<u8>),
}

impl Value {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Type {
        match self {
            Self::Int(_) => Type::Integer,
            Self::Text(_) => Type::String,
            Self::Bool(_) => Type::Bool,
            Self::Handle(_) => Type::Handle,
            Self::Int64(_) => Type::Int64,
            Self::Blob(_) => Type::Blob,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            // May be the password of an encrypted VM.
            Self::Text(_) => f.write_str("a string"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Handle(handle) => write!(f, "handle {handle}"),
            Self::Int64(value) => write!(f, "{value}"),
            Self::Blob(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// A secret on its way to C: never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hidden<'a>(pub &'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

macro_rules! calls {
    ($life:lifetime; $($call:ident $function:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        /// A function that starts a job, with what it is given, in the header's words and order. Callbacks and property
        /// lists are left out where this crate has no use for them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is the function of the same name in vix.h, with its parameters")]
        pub enum Call<$life> {
            $($call { $($field: $type),* },)*
        }

        impl Call<'_> {
            /// Which function it is.
            #[must_use]
            pub const fn function(&self) -> Function {
                match self {
                    $(Self::$call { .. } => Function::$function,)*
                }
            }
        }

        impl fmt::Display for Call<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$call { $($field),* } => {
                        f.write_str(Function::$function.name())?;
                        f.write_str("(")?;
                        let _comma = "";
                        $(let _comma = {
                            write!(f, concat!("{}", stringify!($field), "={:?}"), _comma, $field)?;
                            ", "
                        };)*
                        f.write_str(")")
                    })*
                }
            }
        }
    };
}

calls! { 'a;
    Connect HostConnect {
        provider: i32, host: Option<&'a str>, port: i32, user: Option<&'a str>, password: Option<Hidden<'a>>, options: i32,
    }
    Register HostRegisterVm { host: Handle, vmx: &'a str }
    Unregister HostUnregisterVm { host: Handle, vmx: &'a str }
    FindItems HostFindItems { host: Handle, search: i32, timeout: i32 }
    HostOpen HostOpenVm { host: Handle, vmx: &'a str, options: i32, properties: Handle }
    Open VmOpen { host: Handle, vmx: &'a str }
    PowerOn VmPowerOn { vm: Handle, options: i32 }
    PowerOff VmPowerOff { vm: Handle, options: i32 }
    Reset VmReset { vm: Handle, options: i32 }
    Suspend VmSuspend { vm: Handle }
    Pause VmPause { vm: Handle }
    Unpause VmUnpause { vm: Handle }
    Delete VmDelete { vm: Handle, options: i32 }
    WaitForTools VmWaitForToolsInGuest { vm: Handle, seconds: i32 }
    LogIn VmLoginInGuest { vm: Handle, user: &'a str, password: Hidden<'a>, options: i32 }
    LogOut VmLogoutFromGuest { vm: Handle }
    RunProgram VmRunProgramInGuest { vm: Handle, program: &'a str, args: &'a str, options: i32 }
    ListProcesses VmListProcessesInGuest { vm: Handle }
    KillProcess VmKillProcessInGuest { vm: Handle, pid: u64 }
    RunScript VmRunScriptInGuest { vm: Handle, interpreter: Option<&'a str>, script: &'a str, options: i32 }
    CopyToGuest VmCopyFileFromHostToGuest { vm: Handle, from: &'a str, to: &'a str }
    CopyToHost VmCopyFileFromGuestToHost { vm: Handle, from: &'a str, to: &'a str }
    DeleteFile VmDeleteFileInGuest { vm: Handle, path: &'a str }
    FileExists VmFileExistsInGuest { vm: Handle, path: &'a str }
    RenameFile VmRenameFileInGuest { vm: Handle, from: &'a str, to: &'a str }
    CreateTempFile VmCreateTempFileInGuest { vm: Handle }
    FileInfo VmGetFileInfoInGuest { vm: Handle, path: &'a str }
    ListDirectory VmListDirectoryInGuest { vm: Handle, path: &'a str }
    CreateDirectory VmCreateDirectoryInGuest { vm: Handle, path: &'a str }
    DeleteDirectory VmDeleteDirectoryInGuest { vm: Handle, path: &'a str }
    DirectoryExists VmDirectoryExistsInGuest { vm: Handle, path: &'a str }
    ReadVariable VmReadVariable { vm: Handle, kind: i32, name: &'a str }
    WriteVariable VmWriteVariable { vm: Handle, kind: i32, name: &'a str, value: &'a str }
    RemoveSnapshot VmRemoveSnapshot { vm: Handle, snapshot: Handle, options: i32 }
    Revert VmRevertToSnapshot { vm: Handle, snapshot: Handle, options: i32 }
    CreateSnapshot VmCreateSnapshot { vm: Handle, name: &'a str, description: &'a str, options: i32 }
    EnableSharedFolders VmEnableSharedFolders { vm: Handle, enabled: bool }
    CountSharedFolders VmGetNumSharedFolders { vm: Handle }
    SharedFolder VmGetSharedFolderState { vm: Handle, index: i32 }
    SetSharedFolder VmSetSharedFolderState { vm: Handle, name: &'a str, path: &'a str, flags: i32 }
    AddSharedFolder VmAddSharedFolder { vm: Handle, name: &'a str, path: &'a str, flags: i32 }
    RemoveSharedFolder VmRemoveSharedFolder { vm: Handle, name: &'a str }
    CaptureScreen VmCaptureScreenImage { vm: Handle, format: i32 }
    Clone VmClone { vm: Handle, snapshot: Handle, kind: i32, to: &'a str }
    UpgradeHardware VmUpgradeVirtualHardware { vm: Handle }
    InstallTools VmInstallTools { vm: Handle, options: i32 }
}

/// A function that looks something up at once, without a job. Handles in the answer are the receiver's to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the function of the same name in vix.h")]
pub enum Look<'a> {
    CountRootSnapshots {
        vm: Handle,
    },
    RootSnapshot {
        vm: Handle,
        index: i32,
    },
    CurrentSnapshot {
        vm: Handle,
    },
    NamedSnapshot {
        vm: Handle,
        name: &'a str,
    },
    CountChildren {
        snapshot: Handle,
    },
    Child {
        snapshot: Handle,
        index: i32,
    },
    /// 0 if it is a root.
    Parent {
        snapshot: Handle,
    },
}

impl Look<'_> {
    /// Which function it is.
    #[must_use]
    pub const fn function(&self) -> Function {
        match self {
            Self::CountRootSnapshots { .. } => Function::VmGetNumRootSnapshots,
            Self::RootSnapshot { .. } => Function::VmGetRootSnapshot,
            Self::CurrentSnapshot { .. } => Function::VmGetCurrentSnapshot,
            Self::NamedSnapshot { .. } => Function::VmGetNamedSnapshot,
            Self::CountChildren { .. } => Function::SnapshotGetNumChildren,
            Self::Child { .. } => Function::SnapshotGetChild,
            Self::Parent { .. } => Function::SnapshotGetParent,
        }
    }
}

/// What a property is called in messages.
pub(crate) fn property_name(id: i32) -> String {
    property::name(id).map_or_else(|| id.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_shows_everything_but_passwords() {
        let call = Call::LogIn { vm: 3, user: "worker", password: Hidden("s3cret"), options: 0 };
        assert_eq!(call.to_string(), r#"VixVM_LoginInGuest(vm=3, user="worker", password=[REDACTED], options=0)"#);
        assert_eq!(Call::Pause { vm: 3 }.to_string(), "VixVM_Pause(vm=3)");
        assert!(!format!("{call:?}").contains("s3cret"));
    }
}
