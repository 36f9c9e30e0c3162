//! From what went wrong here to what the machine may do next.
//!
//! The core trusts three promises: *refused* and *no space* did nothing, *unknown* may have acted, *fatal* will not
//! succeed however often it is tried.

use std::io;

use vmtask_core::FaultKind;
use vmtask_driver::PortError;
use vmtask_driver::kit::{self, CheckpointError};
use vmtask_vix_abi::{Function, error_code as code};

use crate::error::Error;
use crate::guest::GuestError;
use crate::wait::Stop;

/// What a fault of this kind means for the core.
pub(crate) trait Fault: std::fmt::Display {
    fn kind(&self) -> FaultKind;

    /// The hypervisor's own number, if it has one.
    fn number(&self) -> u32 {
        0
    }

    /// With what was attempted before it.
    fn during(&self, what: &str) -> PortError {
        PortError::new(self.kind(), format!("{what}: {self}")).with_code(self.number())
    }
}

impl Fault for Stop {
    fn kind(&self) -> FaultKind {
        FaultKind::Unknown
    }
}

impl Fault for io::Error {
    fn kind(&self) -> FaultKind {
        kit::io_kind(self)
    }
}

impl Fault for Error {
    fn kind(&self) -> FaultKind {
        match self {
            Self::Failed { function, code, .. } => of_code(function.0, code.code()),
            Self::Stopped { started: true, .. } => FaultKind::Unknown,
            Self::Stopped { started: false, .. } => FaultKind::Refused,
            Self::Nul { .. } | Self::Type { .. } => FaultKind::Fatal,
        }
    }

    fn number(&self) -> u32 {
        self.code().unwrap_or(0).into()
    }
}

impl Fault for GuestError {
    fn kind(&self) -> FaultKind {
        use crate::guest::exit;
        match self {
            Self::Vix(error) => error.kind(),
            Self::Script { code: exit::NO_SPACE, .. } => FaultKind::NoSpace,
            // What arrived is not what was sent: the next time it may be.
            Self::Script { code: exit::SIZE | exit::HASH, .. } | Self::Host(_) => FaultKind::Refused,
            // The script's other refusals are about what it was given: that does not change by asking again.
            Self::Script { .. } | Self::Nonsense { .. } | Self::TooLong { .. } => FaultKind::Fatal,
        }
    }

    fn number(&self) -> u32 {
        match self {
            Self::Vix(error) => error.number(),
            _ => 0,
        }
    }
}

impl Fault for CheckpointError {
    fn kind(&self) -> FaultKind {
        Self::kind(self)
    }
}

/// The fault of a checkpoint that does not come back: whether the product itself says that it is the checkpoint's.
///
/// Only what it says of the snapshot, of the suspended state or of their disks counts as its refusal. A virtual machine
/// that does not start for another reason, or for none that is told, says nothing about the checkpoint.
pub(crate) fn of_restoring(error: &Error, what: &str) -> PortError {
    let mut fault = error.during(what);
    match error.code() {
        Some(
            code::SNAPSHOT_INVAL
            | code::SNAPSHOT_DISKLIB
            | code::SNAPSHOT_CONFIG
            | code::SNAPSHOT_CHECKPOINT
            | code::SNAPSHOT_INCONSISTENT
            | code::SNAPSHOT_DUPLICATEDDISK
            | code::SNAPSHOT_NOT_REVERTABLE
            | code::INVALID_SERIALIZED_DATA
            | code::DISK_INVAL
            | code::DISK_NEEDSREPAIR,
        ) => fault.fault.kind = FaultKind::Rejected,
        // Something that the checkpoint stands on is not there now, or another is: the platform's own VM, of which the task's
        // is a linked clone, may be on a share that is away.
        Some(
            code::FILE_NOT_FOUND
            | code::DISK_PARTIALCHAIN
            | code::DISK_OPENPARENT
            | code::DISK_CID_MISMATCH
            | code::OBJECT_NOT_FOUND
            | code::NOT_FOUND
            | code::VM_NOT_FOUND,
        ) => fault.fault.kind = FaultKind::Refused,
        Some(code::SNAPSHOT_VERSION | code::SNAPSHOT_VIXFILE | code::DISK_UNSUPPORTEDDISKVERSION) => {
            fault.fault.kind = FaultKind::Incompatible;
            fault.message.push_str("; install the version that made it, or begin anew with `vmtask run --start-over`");
        }
        _ => {}
    }
    fault
}

/// An error about what a checkpoint is in, or is to be put into. That this cannot be found says nothing about the
/// checkpoint: only its manifest, or its name in the product's list, can be missing.
pub(crate) fn of_its_vm(mut error: PortError) -> PortError {
    if error.fault.kind == FaultKind::NotFound {
        error.fault.kind = FaultKind::Refused;
    }
    error
}

/// What a code means for whoever called that function.
fn of_code(function: Function, error: u16) -> FaultKind {
    let logging_in = matches!(function, Function::VmLoginInGuest | Function::HostConnect);
    let reverting = function == Function::VmRevertToSnapshot;
    match error {
        // A snapshot that is damaged, or of another version, stays so.
        code::SNAPSHOT_INVAL
        | code::SNAPSHOT_DUMPER
        | code::SNAPSHOT_DISKLIB
        | code::SNAPSHOT_VERSION
        | code::SNAPSHOT_CONFIG
        | code::SNAPSHOT_INCONSISTENT
        | code::SNAPSHOT_VIXFILE
        | code::SNAPSHOT_NOT_REVERTABLE
        | code::INVALID_SERIALIZED_DATA
        | code::FILE_ERROR
            if reverting =>
        {
            FaultKind::Fatal
        }
        code::NOT_SUPPORTED
        | code::NOT_SUPPORTED_ON_REMOTE_OBJECT
        | code::NOT_SUPPORTED_ON_HANDLE_TYPE
        | code::OP_NOT_SUPPORTED_ON_GUEST
        | code::NOT_SUPPORTED_FOR_VM_VERSION
        | code::LICENSE => FaultKind::Unsupported,
        code::DISK_FULL | code::SNAPSHOT_MIN_FREE_SPACE => FaultKind::NoSpace,
        code::FILE_NOT_FOUND
        | code::OBJECT_NOT_FOUND
        | code::NOT_FOUND
        | code::VM_NOT_FOUND
        | code::SNAPSHOT_NOTFOUND
            // A product that is not found has not said that there is no VM.
            if function != Function::HostConnect =>
        {
            FaultKind::NotFound
        }
        code::FILE_ALREADY_EXISTS | code::ALREADY_EXISTS | code::SNAPSHOT_EXISTS => FaultKind::AlreadyExists,
        // The same number says "not executable" and "not yours" where a program is run.
        code::GUEST_USER_PERMISSIONS if !logging_in => FaultKind::Fatal,
        code::AUTHENTICATION_FAIL
        | code::GUEST_USER_PERMISSIONS
        | code::HOST_USER_PERMISSIONS
        | code::CANNOT_AUTHENTICATE_WITH_GUEST
        | code::EMPTY_PASSWORD_NOT_ALLOWED_IN_GUEST
        | INVALID_LOGIN_CREDENTIALS
        | GUEST_AUTHTYPE_DISABLED => FaultKind::AuthRejected,
        // The guest that it was started in is gone, and what it did with it.
        code::NO_SUCH_PROCESS if function == Function::VmRunProgramInGuest => FaultKind::Unknown,
        // Nobody knows what came of it.
        code::FAIL
        | code::VMDB
        | code::HOST_CONNECTION_LOST
        | code::VM_HOST_DISCONNECTED
        | code::HOST_TCP_CONN_LOST => FaultKind::Unknown,
        code::WRAPPER_WORKSTATION_NOT_INSTALLED..=code::WRAPPER_MULTIPLE_SERVICEPROVIDERS
        | code::GUEST_OPERATIONS_PROHIBITED
        | code::CANNOT_READ_VM_CONFIG
        | code::FILE_NAME_INVALID
        | code::ARGUMENT_TOO_BIG
        | code::INVALID_ARG => FaultKind::Fatal,
        _ => FaultKind::Refused,
    }
}

/// Of newer hosts, not in the public header; from open-vm-tools' private one.
const INVALID_LOGIN_CREDENTIALS: u16 = 3050;
const GUEST_AUTHTYPE_DISABLED: u16 = 3051;

/// Whether a fault's number says that the connection to the host is of no use any more.
pub(crate) fn lost_connection(number: u32) -> bool {
    const LOST: [u16; 5] = [
        code::HOST_NOT_CONNECTED,
        code::VM_HOST_DISCONNECTED,
        code::HOST_CONNECTION_LOST,
        code::HOST_TCP_CONN_LOST,
        code::INVALID_HANDLE,
    ];
    LOST.iter().any(|&lost| u32::from(lost) == number)
}

/// `map_err(during("..."))`
pub(crate) fn during<E: Fault>(what: impl AsRef<str>) -> impl FnOnce(E) -> PortError {
    move |error| error.during(what.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Function::VmPause, 6, FaultKind::Unsupported)]
    #[case(Function::VmLoginInGuest, 3015, FaultKind::AuthRejected)]
    #[case(Function::VmLoginInGuest, 3050, FaultKind::AuthRejected)]
    #[case(Function::VmRunProgramInGuest, 3015, FaultKind::Fatal)]
    #[case(Function::HostConnect, 35, FaultKind::AuthRejected)]
    #[case(Function::HostConnect, 22002, FaultKind::Fatal)]
    #[case(Function::HostConnect, 25, FaultKind::Refused)]
    #[case(Function::VmCreateSnapshot, 8, FaultKind::NoSpace)]
    #[case(Function::VmCreateSnapshot, 5, FaultKind::Refused)]
    #[case(Function::VmPowerOn, 1, FaultKind::Unknown)]
    #[case(Function::VmPowerOn, 36, FaultKind::Unknown)]
    #[case(Function::VmPowerOn, 26, FaultKind::Refused)]
    #[case(Function::HostOpenVm, 4000, FaultKind::NotFound)]
    #[case(Function::VmRevertToSnapshot, 13003, FaultKind::NotFound)]
    #[case(Function::VmCreateDirectoryInGuest, 12, FaultKind::AlreadyExists)]
    #[case(Function::VmWaitForToolsInGuest, 3000, FaultKind::Refused)]
    fn a_code_means_what_the_core_may_rely_on(
        #[case] function: Function,
        #[case] code: u16,
        #[case] expected: FaultKind,
    ) {
        assert_eq!(of_code(function, code), expected);
    }
}
