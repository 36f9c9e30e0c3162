//! The processes of a guest, as the host sees them: all descendants of its PID 1.
//!
//! Orphans in a PID namespace are adopted by its first process, so nothing that began in there is ever anybody else's
//! child, and nothing else ever becomes its descendant.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use vmtask_qemu::process::ProcessName;
use vmtask_vix_abi::error_code;

use crate::failure::Failure;
use crate::guest::{Process, Result, host};

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: ProcessName,
    /// `R`, `S`, `T` and so on: see proc(5).
    state: char,
    parent: u32,
}

/// A line of `/proc/PID/stat`, as far as it is wanted.
struct StatLine {
    state: char,
    parent: u32,
}

fn stat_line(pid: u32) -> Option<StatLine> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything, brackets too.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    Some(StatLine { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

/// PID 1 and everything below it, but for the dead.
pub(super) fn members(init: ProcessName) -> Vec<Member> {
    let lines: HashMap<u32, StatLine> =
        host::pids().into_iter().filter_map(|pid| Some((pid, stat_line(pid)?))).collect();
    let belongs = |mut pid: u32| {
        // Longer chains than there are processes are loops of numbers that were used again meanwhile.
        for _ in 0..lines.len() {
            if pid == init.pid {
                return true;
            }
            match lines.get(&pid) {
                Some(line) => pid = line.parent,
                None => return false,
            }
        }
        false
    };
    let alive = lines.iter().filter(|(_, line)| !matches!(line.state, 'Z' | 'X'));
    let ours = alive.filter(|(pid, _)| belongs(**pid));
    ours.filter_map(|(pid, line)| {
        Some(Member { name: ProcessName::of(*pid).ok()?, state: line.state, parent: line.parent })
    })
    .collect()
}

/// How many do not stand still.
fn moving(all: &[Member]) -> usize {
    let stopped: HashSet<u32> = all.iter().filter(|member| member.is_stopped()).map(|member| member.parent).collect();
    // After vfork a parent sleeps uninterruptibly until its child has called exec. With the child stopped it sleeps on,
    // and a signal that has been sent to it will stop it before it does anything else.
    let waits_for_child = |member: &Member| member.state == 'D' && stopped.contains(&member.name.pid);
    all.iter().filter(|member| !member.is_stopped() && !waits_for_child(member)).count()
}

impl Member {
    /// For reading more of it.
    const fn of(name: ProcessName) -> Self {
        Self { name, state: 'S', parent: 0 }
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Sends it a signal, unless its number is somebody else's by now.
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.name.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            && self.name.is_alive()
        {
            // One that has just ended need not be signalled.
            let _ = rustix::process::pidfd_send_signal(&handle, signal);
        }
    }

    fn file(&self, name: &str) -> Option<String> {
        let bytes = fs::read(format!("/proc/{}/{name}", self.name.pid)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its numbers, from the host's to that in its innermost namespace.
    fn numbers(&self) -> Vec<u64> {
        let status = self.file("status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
    }

    /// Its command line, its words parted by spaces.
    pub(super) fn command(&self) -> String {
        let line = self.file("cmdline").unwrap_or_default().replace('\0', " ");
        line.trim_end().to_owned()
    }
}

/// How deep PID 1's namespace is, which is where to look for a member's number in it.
fn depth(init: ProcessName) -> usize {
    Member::of(init).numbers().len().saturating_sub(1)
}

/// Whether a process is the first of its namespace.
pub(super) fn is_first(process: ProcessName) -> bool {
    let numbers = Member::of(process).numbers();
    numbers.len() > 1 && numbers.last() == Some(&1)
}

/// Stops everything, PID 1 included. Returns those that were stopped already, by the guest's own doing.
pub(super) fn freeze(init: ProcessName) -> Result<Vec<ProcessName>> {
    let mut already: Option<Vec<ProcessName>> = None;
    // A stopped process starts no other, so this ends; but one in the middle of some device's work stops only after it.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let all = members(init);
        let stopped = || all.iter().filter(|member| member.is_stopped());
        already.get_or_insert_with(|| stopped().map(|member| member.name).collect());
        if moving(&all) == 0 {
            return Ok(already.unwrap_or_default());
        }
        all.iter().filter(|member| !member.is_stopped()).for_each(|member| member.signal(Signal::STOP));
        if Instant::now() > until {
            let why = "a process of the guest does not stop, though SIGSTOP was sent for 20 s";
            return Err(Failure::new(error_code::SUSPEND_ERROR, why));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether all is stopped.
pub(super) fn is_frozen(init: ProcessName) -> bool {
    moving(&members(init)) == 0
}

/// Lets everything go on but what was stopped before.
pub(super) fn thaw(init: ProcessName, but: &[ProcessName]) {
    for member in members(init).iter().filter(|member| !but.contains(&member.name)) {
        member.signal(Signal::CONT);
    }
}

/// The list for a client.
pub(super) fn list(init: ProcessName, owner: &str) -> Vec<Process> {
    let depth = depth(init);
    let boot = boot_time();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let describe = |member: &Member| {
        Some(Process {
            pid: *member.numbers().get(depth)?,
            owner: owner.to_owned(),
            command: member.command(),
            started: boot + i64::try_from(member.name.start_time / ticks).ok()?,
        })
    };
    let mut found: Vec<Process> = members(init).iter().filter_map(describe).collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// When the host booted, in seconds since 1970.
fn boot_time() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0)
}

/// The process with a number in the guest.
pub(super) fn find(init: ProcessName, pid: u64) -> Option<ProcessName> {
    let depth = depth(init);
    let found = members(init).into_iter().find(|member| member.numbers().get(depth) == Some(&pid));
    found.map(|member| member.name)
}
