//! Files, names and processes on Windows.
//!
//! A process handle stays with one process whoever gets its number next, and the time of its creation (100 ns since
//! 1601) tells two owners of a number apart, over boots too.

use std::fs::{File, Metadata};
use std::os::windows::fs::OpenOptionsExt;
use std::time::Duration;

use winsafe::{HKEY, HPROCESS, RegistryValue, co};

use super::*;

/// Makes the entries of a directory durable, which NTFS does by flushing its log.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // To flush takes the right to add a file or a directory, and no other: whoever may do only one of the two has
    // done only that.
    const ADD_FILE: u32 = 0x2;
    const ADD_SUBDIRECTORY: u32 = 0x4;
    // Without it a directory cannot be opened at all.
    const BACKUP_SEMANTICS: u32 = 0x0200_0000;
    let open = |right| File::options().access_mode(right).custom_flags(BACKUP_SEMANTICS).open(dir);
    let handle = match open(ADD_FILE) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(ADD_SUBDIRECTORY),
        other => other,
    };
    handle?.sync_all()
}

/// Makes a directory with the access list that the one above it hands down: below a user's profile that keeps others
/// out; elsewhere it is for the user to see to. Its parent must be there.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    std::fs::create_dir(dir)
}

/// Nothing to do: who may list a directory is in its access list, which is the one above it hands down.
#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(crate) fn open_up(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Nothing: a file has an access list there, and no bits that could be looked at.
pub(crate) fn open_to_others(_metadata: &Metadata) -> Option<u32> {
    None
}

/// Opens a file, made if need be, that one process at a time may own.
///
/// Not by a lock: what is locked cannot be read by others there, and they are to be told who the owner is. The owner
/// lets others read, and nobody else write.
pub(crate) fn try_own(path: &Path) -> io::Result<Owned> {
    const SHARE_READ: u32 = 0x1;
    const SHARING_VIOLATION: i32 = 32;
    let ours = File::options().read(true).write(true).create(true).truncate(false).share_mode(SHARE_READ).open(path);
    match ours {
        Ok(file) => Ok(Owned::Ours(file)),
        Err(error) if error.raw_os_error() == Some(SHARING_VIOLATION) => {
            let says = File::open(path).map(said).unwrap_or_default();
            Ok(Owned::Theirs { says })
        }
        Err(error) => Err(error),
    }
}

/// Nothing: a process has no such limit there.
pub(crate) fn file_size_limit() -> Option<u64> {
    None
}

/// What tells this host from others, as the operating system has it: its machine GUID, made when it was installed.
pub(crate) fn host_name_for_binding() -> Option<String> {
    let guid = HKEY::LOCAL_MACHINE.RegGetValue(
        Some(r"SOFTWARE\Microsoft\Cryptography"),
        Some("MachineGuid"),
        co::RRF::RT_REG_SZ | co::RRF::SUBKEY_WOW6464KEY,
    );
    match guid {
        Ok(RegistryValue::Sz(guid)) if guid.len() >= 16 => Some(guid),
        _ => std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty()),
    }
}

/// Who has this number now.
pub(crate) fn identify(pid: u32) -> Liveness {
    match HPROCESS::OpenProcess(looking(), false, pid) {
        Ok(process) => who(&process, pid),
        // That is what comes back for a number that nobody has.
        Err(co::ERROR::INVALID_PARAMETER) => Liveness::Dead,
        // Somebody has it at whom we may not even look.
        Err(_) => Liveness::Unknown,
    }
}

/// Kills exactly this process, and waits until it is gone.
pub(crate) fn kill(process: &ProcessId, patience: Duration) -> io::Result<()> {
    let handle = match HPROCESS::OpenProcess(looking() | co::PROCESS::TERMINATE, false, process.pid) {
        Ok(handle) => handle,
        Err(refused) => {
            return match identify(process.pid) {
                Liveness::Dead => Ok(()),
                Liveness::Alive(now) if now != *process => Ok(()),
                Liveness::Alive(_) | Liveness::Unknown => Err(failed(refused)),
            };
        }
    };
    // The handle stays with whoever has the number now; only then is it looked at who that is.
    if who(&handle, process.pid) != Liveness::Alive(process.clone()) {
        return Ok(());
    }
    // With the right to do it, it is refused only for one that is ending already, so that the wait is what counts.
    let refused = handle.TerminateProcess(KILLED).err();
    // The largest number means for ever.
    let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1);
    match (handle.WaitForSingleObject(Some(patience)).map_err(failed)?, refused) {
        (co::WAIT::OBJECT_0, _) => Ok(()),
        (_, Some(refused)) => Err(failed(refused)),
        (_, None) => Err(io::Error::new(io::ErrorKind::TimedOut, "it was terminated and has not ended yet")),
    }
}

/// What a killed process leaves as its exit code: there are no signals that could be told apart from codes.
const KILLED: u32 = 1;

/// The rights that it takes to see who a process is and whether it has ended.
fn looking() -> co::PROCESS {
    co::PROCESS::QUERY_LIMITED_INFORMATION | co::PROCESS::SYNCHRONIZE
}

/// Who is behind a handle that was opened for the number `pid`.
fn who(process: &HPROCESS, pid: u32) -> Liveness {
    // A handle outlives its process, and the two lowest bits of a number are ignored when one is opened.
    if process.GetProcessId() != Ok(pid) || process.WaitForSingleObject(Some(0)) == Ok(co::WAIT::OBJECT_0) {
        return Liveness::Dead;
    }
    let Ok((created, ..)) = process.GetProcessTimes() else { return Liveness::Unknown };
    match u64::from(created.dwHighDateTime) << 32 | u64::from(created.dwLowDateTime) {
        0 => Liveness::Unknown,
        started => Liveness::Alive(ProcessId { pid, started, boot: String::new() }),
    }
}

fn failed(error: co::ERROR) -> io::Error {
    io::Error::from_raw_os_error(error.raw() as i32)
}
