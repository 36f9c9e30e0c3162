//! A guest that is a real virtual machine: QEMU with a platform of vmtask.
//!
//! ```text
//!   client --> qmp   (stop, go on, memory to and from files) --> QEMU, in the VM's directory, nobody's child
//!          --> agent (files, programs, processes, kill) -------> its guest
//! ```
//!
//! The platform's system lives in memory, so the first thing that is done in a guest that has booted is to mount its
//! disk: what lies in /tmp, /home, /root, /mnt, /opt, /srv and /var stays, everything else is as new after each
//! boot.
//!
//! A machine's memory is kept as QEMU's migration stream, in a file that is written once: snapshots, clones of them and
//! the suspended VM share it by hard links. Its disk is copied.

mod copying;
mod hand;
mod machine;

use std::fs;
use std::path::Path;
use std::time::Duration;

use vmtask_vix_abi::error_code;

use super::{FileInfo, Guest, Home, Process, Program, Result, Share};
use crate::failure::Failure;
use hand::Hand;
use machine::{DISK, Machine};

/// How long an operation waits for an agent that does not answer at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// What belongs to a machine's memory, in the order in which it is put in place: the last says that all is there.
const STATE: [&str; 2] = ["kept.json", "memory"];

/// Opens a guest.
pub(super) fn open(home: Home) -> Result<Box<dyn Guest>> {
    Ok(Box::new(Qemu { machine: Machine::new(home.clone()), home }))
}

/// See the module.
struct Qemu {
    home: Home,
    machine: Machine,
}

impl Qemu {
    fn hand(&self) -> Result<Hand<'_>> {
        Hand::reach(&self.machine, PATIENCE)
    }

    /// Removes what a suspended guest would go on with.
    fn forget_memory(&self) -> Result<()> {
        for name in STATE.iter().rev() {
            let path = self.home.dir.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::host_io("cannot remove", &path, &e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Another name for the same files, or a copy where a file system has no such thing. None of them is ever changed.
fn link_state(from: &Path, to: &Path) -> Result<()> {
    for name in STATE {
        let (source, target) = (from.join(name), to.join(name));
        let linked = fs::hard_link(&source, &target).or_else(|_| fs::copy(&source, &target).map(drop));
        linked.map_err(|e| Failure::host_io("cannot copy", &source, &e))?;
    }
    Ok(())
}

/// A disk of one's own, by rename; none there is none here.
fn copy_disk(from: &Path, to: &Path) -> Result<()> {
    let (source, target, part) = (from.join(DISK), to.join(DISK), to.join("disk.part"));
    let copied = match fs::copy(&source, &part) {
        Ok(_) => fs::rename(&part, &target),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !source.exists() => match fs::remove_file(&target) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        },
        Err(e) => Err(e),
    };
    copied.map_err(|e| Failure::host_io("cannot copy", &source, &e))
}

impl Guest for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn power_on(&self) -> Result<()> {
        self.forget_memory()?;
        self.machine.boot()
    }

    fn give_up_waiting(&self) {
        // What cannot be ended now is told by the power-off that follows.
        drop(self.machine.end());
    }

    fn power_off(&self) -> Result<()> {
        self.machine.end()?;
        self.forget_memory()
    }

    fn suspend(&self) -> Result<()> {
        self.forget_memory()?;
        let ran = self.machine.stand_still()?;
        if let Err(error) = self.machine.write_memory(&self.home.dir) {
            if ran {
                self.machine.go_on()?;
            }
            return Err(error);
        }
        self.machine.end()
    }

    fn resume(&self) -> Result<()> {
        self.machine.load_state()?;
        // Whoever fails to resume leaves it suspended.
        self.forget_memory().inspect_err(|_| drop(self.machine.end()))?;
        // A guest whose Tools are not up yet sees to its clock itself when it has booted.
        let _ = Hand::reach(&self.machine, Duration::from_secs(1)).and_then(|mut hand| hand.wake());
        Ok(())
    }

    fn pause(&self) -> Result<()> {
        self.machine.stand_still().map(drop)
    }

    fn unpause(&self) -> Result<()> {
        self.machine.go_on()
    }

    fn is_up(&self) -> bool {
        super::host::reap();
        self.machine.process().is_some() || self.machine.memory_file().exists()
    }

    fn save(&self, memory: bool, into: &Path) -> Result<()> {
        if self.machine.process().is_none() {
            copy_disk(&self.home.dir, into)?;
            return if memory { link_state(&self.home.dir, into) } else { Ok(()) };
        }
        if !memory {
            // As Tools do for a snapshot without memory: what programs have written should be on the disk. A guest that
            // is paused, or whose Tools are not up, has what it has.
            let _ = Hand::reach(&self.machine, Duration::from_millis(500)).and_then(|mut hand| hand.sync());
        }
        let ran = self.machine.stand_still()?;
        let saved = copy_disk(&self.home.dir, into).and_then(|()| match memory {
            true => self.machine.write_memory(into),
            false => Ok(()),
        });
        if ran {
            self.machine.go_on()?;
        }
        saved
    }

    fn load(&self, from: &Path) -> Result<()> {
        self.power_off()?;
        copy_disk(from, &self.home.dir)?;
        if from.join("memory").exists() {
            link_state(from, &self.home.dir)?;
        }
        Ok(())
    }

    fn clone_to(&self, from: &Path, to: &Home, _linked: bool) -> Result<()> {
        copy_disk(from, &to.dir)
    }

    fn tools_running(&self) -> bool {
        Hand::answers(&self.machine)
    }

    fn environment(&self, user: &str) -> Vec<(String, String)> {
        // Whoever logs in, programs run as root.
        super::usual_environment(user, "/root")
    }

    fn share(&self, shares: &[Share]) -> Result<()> {
        if shares.is_empty() {
            return Ok(());
        }
        let why = "the platform's guest has no driver for shared folders";
        Err(Failure::new(error_code::OP_NOT_SUPPORTED_ON_GUEST, why))
    }

    fn make_directory(&self, path: &str) -> Result<()> {
        self.hand()?.make_directory(path)
    }

    fn remove_directory(&self, path: &str) -> Result<()> {
        self.hand()?.remove_directory(path)
    }

    fn remove_file(&self, path: &str) -> Result<()> {
        self.hand()?.remove_file(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.hand()?.rename(from, to)
    }

    fn temp_file(&self) -> Result<String> {
        self.hand()?.temp_file()
    }

    fn info(&self, path: &str) -> Result<FileInfo> {
        self.hand()?.info(path)
    }

    fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        self.hand()?.list(path)
    }

    fn copy_in(&self, host: &Path, guest: &str) -> Result<()> {
        self.hand()?.copy_in(host, guest)
    }

    fn copy_out(&self, guest: &str, host: &Path) -> Result<()> {
        self.hand()?.copy_out(guest, host)
    }

    fn start(&self, program: &Program<'_>) -> Result<u64> {
        self.hand()?.start(program)
    }

    fn exit_status(&self, pid: u64) -> Result<Option<i32>> {
        self.hand()?.exit_status(pid)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        self.hand()?.processes()
    }

    fn kill(&self, pid: u64) -> Result<()> {
        self.hand()?.kill(pid)
    }
}
