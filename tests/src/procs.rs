//! What `/proc` says: the outside view that no adapter can colour.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A process, named so that no later one is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proc {
    /// Its number.
    pub pid: u32,
    started: u64,
}

/// What the kernel says of a process in one line.
struct Stat {
    name: String,
    state: char,
    parent: u32,
    ticks: u64,
    started: u64,
}

impl Proc {
    /// The one with this number, if it is there and no zombie.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        (!matches!(stat.state, 'Z' | 'X')).then_some(Self { pid, started: stat.started })
    }

    /// Whether it still is.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if it still is.
    pub fn signal(self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), i32::try_from(self.pid).ok().and_then(Pid::from_raw)) {
            // It may be gone by now: then there is nobody to tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// Processor time that it has used, in seconds.
    #[must_use]
    pub fn cpu_seconds(self) -> f64 {
        Stat::of(self.pid).map_or(0.0, |stat| stat.ticks as f64) / rustix::param::clock_ticks_per_second() as f64
    }

    /// A line of `/proc/PID/status` in KiB: `VmRSS`, `VmHWM`.
    #[must_use]
    pub fn memory_kib(self, key: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    }
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may itself contain brackets and spaces.
        let (name, rest) = (stat.get(stat.find('(')? + 1..stat.rfind(')')?)?, stat.get(stat.rfind(')')? + 2..)?);
        let fields: Vec<_> = rest.split(' ').collect();
        let number = |ix: usize| fields.get(ix)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            started: number(19)?,
        })
    }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_qemu(pid: u32) -> bool {
    // The name is cut after 15 letters.
    Stat::of(pid).is_some_and(|stat| stat.name.starts_with("qemu-system-x86"))
}

/// The emulators that are children of this process.
#[must_use]
pub fn qemus_of_manager(manager: u32) -> Vec<Proc> {
    all()
        .filter(|&pid| is_qemu(pid) && Stat::of(pid).is_some_and(|s| s.parent == manager))
        .filter_map(Proc::of)
        .collect()
}

/// The emulators that have to do with this directory: named in their command line or environment, or with a file in it
/// open.
#[must_use]
pub fn qemus_of_dir(dir: &Path) -> Vec<Proc> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mentions = |pid: u32| {
        let needle = dir.as_os_str().as_encoded_bytes();
        let in_file = |name: &str| {
            let text = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            text.windows(needle.len()).any(|window| window == needle)
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        in_file("cmdline") || in_file("environ") || open.any(|target| target.starts_with(&dir))
    };
    all().filter(|&pid| is_qemu(pid) && mentions(pid)).filter_map(Proc::of).collect()
}

/// What plays the stand-in's virtual machine in this directory: processes that have a directory in there as their root,
/// everything that these have started, and emulators.
#[must_use]
pub fn of_machine(machine: &Path) -> Vec<Proc> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let root = identity(&machine.join("vmtask-standin/guest/root"));
    let lives_there = |pid: u32| root.is_some() && identity(Path::new(&format!("/proc/{pid}/root"))) == root;
    let rooted = all().filter(|&pid| lives_there(pid)).filter_map(Proc::of);
    rooted.chain(qemus_of_dir(machine)).collect()
}

/// Waits until no emulator has to do with this directory: the kernel takes a moment to end a process of 300 MB.
///
/// # Panics
/// If one stays.
pub fn await_no_qemu(dir: &Path) {
    wait::until(&format!("the emulators of {} to be gone", dir.display()), || {
        qemus_of_dir(dir).is_empty().then_some(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_uses_memory() {
        let me = Proc::of(std::process::id()).unwrap_or_else(|| panic!("this process is not there"));
        assert!(me.is_alive() && me.memory_kib("VmRSS").is_some_and(|kib| kib > 100));
        assert!(!Proc { started: me.started + 1, ..me }.is_alive(), "another with the same number");
        assert!(qemus_of_manager(me.pid).is_empty());
    }
}
