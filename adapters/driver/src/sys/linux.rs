//! Processes on Linux: `/proc` says who has a number, a pidfd stays with one process whoever gets its number next.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Liveness, ProcessId};

/// Who has this number now.
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
