//! A guest that is a real virtual machine: QEMU with a platform of vmtask.
//!
//! ```text
//!   client --> qmp   (stop, go on, memory to and from files) --> QEMU, in the VM's directory, nobody's child
//!          --> agent (files, programs, processes, kill) -------> its guest
//! ```
//!
//! The platform's guest lives in its memory alone: it has no disk. So a snapshot without memory keeps nothing, and what
//! was copied into the guest is gone after a power-off, as on a computer that was started from a CD.
//!
//! A machine's memory is kept as QEMU's migration stream, in a file that is written once: snapshots, clones of them and
//! the suspended VM share it by hard links.

mod hand;
mod machine;

use std::fs;
use std::path::Path;
use std::time::Duration;

use vmtask_vix_abi::error_code;

use super::{FileInfo, Guest, Home, Process, Program, Result, Share};
use crate::failure::Failure;
use hand::Hand;
use machine::Machine;

/// How long an operation waits for an agent that does not answer at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// What belongs to a machine's memory, in the order in which it is put in place: the second says that all is there.
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

impl Guest for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn power_on(&self) -> Result<()> {
        self.forget_memory()?;
        self.machine.boot()
    }

    fn power_off(&self) -> Result<()> {
        self.machine.end()?;
        self.forget_memory()
    }

    fn suspend(&self) -> Result<()> {
        self.forget_memory()?;
        self.machine.write_state(&self.home.dir)?;
        self.machine.end()
    }

    fn resume(&self) -> Result<()> {
        self.machine.load_state()?;
        self.forget_memory()?;
        // A guest whose Tools are not up yet sees to its clock itself when it has booted.
        let _ = Hand::reach(&self.machine, Duration::from_secs(1)).and_then(|mut hand| hand.wake());
        Ok(())
    }

    fn pause(&self) -> Result<()> {
        self.machine.stop()
    }

    fn unpause(&self) -> Result<()> {
        self.machine.go_on()
    }

    fn is_up(&self) -> bool {
        super::host::reap();
        self.machine.process().is_some() || self.machine.memory_file().exists()
    }

    fn save(&self, memory: bool, into: &Path) -> Result<()> {
        if !memory {
            // There is no disk.
            return Ok(());
        }
        if self.machine.process().is_none() {
            return link_state(&self.home.dir, into);
        }
        match self.machine.write_state(into) {
            Ok(true) => self.machine.go_on(),
            Ok(false) => Ok(()),
            Err(error) => {
                // It may have been stopped for the attempt, and a guest that stands still for ever is worse than one
                // that was paused and runs.
                let _ = self.machine.go_on();
                Err(error)
            }
        }
    }

    fn load(&self, from: &Path) -> Result<()> {
        self.power_off()?;
        if from.join("memory").exists() {
            link_state(from, &self.home.dir)?;
        }
        Ok(())
    }

    fn clone_to(&self, _from: &Path, to: &Home, _linked: bool) -> Result<()> {
        // Without memory there is nothing to a guest but its platform, which a clone's configuration names as well.
        Qemu { machine: Machine::new(to.clone()), home: to.clone() }.forget_memory()
    }

    fn tools_running(&self) -> bool {
        Hand::answers(&self.machine)
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
