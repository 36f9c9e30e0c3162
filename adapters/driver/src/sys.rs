//! What differs between operating systems, in one place: identities of processes and of the host, modes of files.

use std::fs::Metadata;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One life of one process: its number alone is given to others once it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in the operating system's own unit (Linux: clock ticks since boot).
    pub started: u64,
    /// Which boot of the host that counts from, where the unit needs it.
    pub boot: String,
}

/// What is known of a process number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// This process has it now.
    Alive(ProcessId),
    /// No process has it, or one that has ended and only waits for its parent to notice.
    Dead,
    /// This operating system does not tell us.
    Unknown,
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::fs::File::open(dir)?.sync_all();
    // NTFS journals its directories itself, and a directory handle cannot be flushed without special rights.
    #[cfg(not(unix))]
    return dir.metadata().map(|_| ());
}

/// Makes a directory that nobody else can look into. Its parent must be there.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(dir);
    // A user's directories are private there by inheritance.
    #[cfg(not(unix))]
    return std::fs::create_dir(dir);
}

/// The permission bits of a file if anyone but its owner may read or write it.
pub(crate) fn open_to_others(metadata: &Metadata) -> Option<u32> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }
    // Access lists are inherited from the user's profile there; they have no bits to check.
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

/// What tells this host from others, as the operating system has it.
pub(crate) fn host_name_for_binding() -> Option<String> {
    #[cfg(unix)]
    {
        let id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .map(|id| id.trim().to_owned())
            .find(|id| id.len() >= 16 && id != "uninitialized");
        // Slim containers have no machine-id; their host name is their own too.
        id.or_else(|| {
            let name = rustix::system::uname();
            let name = name.nodename().to_string_lossy().into_owned();
            (!name.is_empty()).then_some(name)
        })
    }
    #[cfg(not(unix))]
    {
        std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty())
    }
}

#[cfg(target_os = "linux")]
mod processes {
    use std::io;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::retry_on_intr;
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    use super::{Liveness, ProcessId};

    pub(crate) fn identify(pid: u32) -> Liveness {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return Liveness::Dead;
        };
        let Some((state, started)) = state_and_start(&stat) else {
            return Liveness::Unknown;
        };
        if matches!(state, 'Z' | 'X' | 'x') {
            return Liveness::Dead;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Liveness::Alive(ProcessId { pid, started, boot: boot.trim().to_owned() })
    }

    /// Fields 3 and 22 of `/proc/PID/stat`. The second is the command's name in brackets, and may contain any of
    /// blanks and brackets itself.
    pub(super) fn state_and_start(stat: &str) -> Option<(char, u64)> {
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some((state, started))
    }

    /// Kills exactly this process, and waits until it is gone.
    pub(crate) fn kill(process: &ProcessId, patience: Duration) -> io::Result<()> {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other?,
        };
        // The handle stays with whoever has the number now; only then is it looked at who that is.
        if identify(process.pid) != Liveness::Alive(process.clone()) {
            return Ok(());
        }
        match pidfd_send_signal(&handle, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other?,
        }
        let patience = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ended = retry_on_intr(|| poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&patience)))?;
        if ended == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it was sent SIGKILL and has not ended yet"));
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod processes {
    use std::io;
    use std::time::Duration;

    use super::{Liveness, ProcessId};

    /// Without a start time a number says nothing about who has it: nothing is ever killed on its word.
    pub(crate) fn identify(_pid: u32) -> Liveness {
        Liveness::Unknown
    }

    pub(crate) fn kill(_process: &ProcessId, _patience: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(crate) use processes::{identify, kill};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::processes::state_and_start;
    use super::*;

    #[test]
    fn this_process_is_alive_and_always_the_same() {
        let me = identify(std::process::id());
        assert!(matches!(&me, Liveness::Alive(id) if id.pid == std::process::id()), "{me:?}");
        assert_eq!(me, identify(std::process::id()));
    }

    #[test]
    fn a_command_name_cannot_forge_the_fields_after_it() {
        let name = "1 (a) R 1 (x) S 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 4242 23";
        assert_eq!(state_and_start(name), Some(('S', 4242)));
        assert_eq!(state_and_start("1 (a"), None);
        assert_eq!(state_and_start("1 (a) S 2"), None);
    }
}
