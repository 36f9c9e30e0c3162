//! The one place with unsafe code: what a child does between fork and exec.
//!
//! QEMU must die with its manager, even if that is killed with SIGKILL. The kernel offers a parent-death signal for it,
//! which the child has to ask for itself, and std's only way to run code in the child is an unsafe function.
#![allow(unsafe_code, reason = "CommandExt::pre_exec, and ioprio_set, which no safe crate wraps")]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fd::BorrowedFd;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};

/// What the child inherits and what becomes of it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// Stay open across exec, under the same numbers. The caller keeps them open until the child was spawned.
    pub(crate) inherit: Vec<RawFd>,
    /// Nice 19 and the idle class of I/O: a volunteer's own work comes first.
    pub(crate) low_priority: bool,
}

/// Arranges that `command`'s process is killed when *the thread that spawns it* ends (that is how the kernel defines a
/// parent here), in a process group of its own, so that the terminal's Ctrl-C does not reach it.
pub(crate) fn prepare(command: &mut Command, child: Child) {
    command.process_group(0);
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe work is allowed. It
    // makes system calls and allocates nothing, takes no lock and cannot panic: `child` was moved in and is only read.
    unsafe {
        command.pre_exec(move || in_child(parent, &child));
    }
}

/// Makes the next child of `command` inherit no descriptor but its three standard streams.
pub(crate) fn close_others(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec and makes one system call without pointers, on
    // descriptors of the child's alone. It marks them, so std's own pipe lives until exec has worked.
    unsafe {
        command.pre_exec(|| {
            const FIRST: libc::c_uint = 3;
            match libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

fn in_child(parent: Pid, child: &Child) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the signal was armed; whoever adopted us is not our parent.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // QEMU does not handle it, and would end where a write that fails is an error that it tells us.
    // SAFETY: SIG_IGN is no function of ours, and nothing else runs in this process.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    for &fd in &child.inherit {
        // SAFETY: the caller of `prepare` keeps these open, and fork has copied them.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    if child.low_priority {
        // Neither is worth failing for.
        let _ = rustix::process::setpriority_process(None, 19);
        const IOPRIO_WHO_PROCESS: libc::c_int = 1;
        const IOPRIO_IDLE: libc::c_int = 3 << 13;
        // SAFETY: no pointers; the process named 0 is the caller.
        unsafe {
            libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
        }
    }
    Ok(())
}
