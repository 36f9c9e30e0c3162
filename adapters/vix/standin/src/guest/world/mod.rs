//! A simulated guest for any computer: its files are real, its programs are a small language's, its time is the
//! computer's clock.
//!
//! ```text
//!   observation (any method) --> lock --> read world.json --> advance to now --> act --> write by rename --> unlock
//! ```
//!
//! A file `frozen` in its directory, put there by a test, lets it answer nothing until its power is cut.
//!
//! Nothing runs between two observations. What should have happened by now is worked out when somebody looks
//! ([`program`]), so a world goes on while no client lives, and a saved one (with memory) goes on where it was.

mod compute;
mod files;
mod machine;
mod program;
mod supervisor;
#[cfg(test)]
mod tests;

use std::path::Path;

use vmtask_vix_abi::error_code;

use super::{FileInfo, Guest, Home, Process, Program, Result, Share};
use crate::failure::Failure;
use files::Files;
use machine::{Machine, Power};

/// Where a world says that it is: in a network that is for documentation (RFC 5737), so nothing answers there.
const ADDRESS: &str = "192.0.2.1";

/// See the module.
pub(super) struct World {
    home: Home,
    files: Files,
}

impl World {
    pub(super) fn new(home: Home) -> Self {
        let files = Files::new(home.dir.join("fs"));
        Self { home, files }
    }

    /// One observation: everything that should have happened has happened, then `act`, then what it left is kept.
    fn observe<T>(&self, act: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        let _lock = crate::store::lock(&self.home.dir.join("world.lock"))?;
        let path = self.home.dir.join("world.json");
        let mut machine: Machine = crate::store::read(&path)?.unwrap_or_default();
        let before = machine.clone();
        machine.advance(crate::store::now_ms(), &self.files);
        let result = act(&mut machine);
        if machine != before {
            crate::store::write(&path, &machine)?;
        }
        result
    }

    /// Waits while the world is frozen: until its power is cut.
    fn await_thaw(&self) {
        let frozen = self.home.dir.join("frozen");
        while frozen.exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// An observation that needs a guest that runs: the power may have been cut since the model looked.
    fn in_guest<T>(&self, act: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        self.await_thaw();
        self.observe(|machine| match machine.power {
            Power::On => act(machine),
            _ => Err(Failure::new(error_code::VM_NOT_RUNNING, "the guest is not running")),
        })
    }
}

impl Guest for World {
    fn name(&self) -> &'static str {
        "world"
    }

    fn power_on(&self) -> Result<()> {
        program::install(&self.files)?;
        let tools_after = self.home.vmx.number("vmtask.world.tools_ms", 20).max(0) as u64;
        self.observe(|machine| {
            machine.tools_after_ms = tools_after;
            machine.boot();
            Ok(())
        })
    }

    fn give_up_waiting(&self) {
        // Usually there is none.
        drop(std::fs::remove_file(self.home.dir.join("frozen")));
    }

    fn power_off(&self) -> Result<()> {
        self.give_up_waiting();
        self.observe(|machine| {
            machine.halt();
            Ok(())
        })
    }

    fn suspend(&self) -> Result<()> {
        self.await_thaw();
        self.observe(|machine| {
            if machine.power == Power::On {
                machine.power = Power::Held;
            }
            Ok(())
        })
    }

    fn resume(&self) -> Result<()> {
        self.await_thaw();
        self.observe(|machine| match machine.power {
            Power::Held => {
                machine.power = Power::On;
                Ok(())
            }
            // A client that died in between may have left it running already.
            Power::On => Ok(()),
            Power::Off => {
                Err(Failure::new(error_code::CANNOT_POWER_ON_VM, "there is no suspended guest to go on with"))
            }
        })
    }

    fn pause(&self) -> Result<()> {
        self.suspend()
    }

    fn unpause(&self) -> Result<()> {
        self.resume()
    }

    fn is_up(&self) -> bool {
        self.observe(|machine| Ok(machine.power != Power::Off)).unwrap_or(false)
    }

    fn save(&self, memory: bool, into: &Path) -> Result<()> {
        self.await_thaw();
        self.observe(|machine| {
            let mut kept = machine.clone();
            if memory {
                kept.power = Power::Held;
            } else {
                kept.halt();
            }
            files::copy_tree(self.files.root(), &into.join("fs"))?;
            crate::store::write(&into.join("world.json"), &kept)?;
            crate::store::write(&into.join("sum.json"), &files::sum(into)?)
        })
    }

    fn load(&self, from: &Path) -> Result<()> {
        // Before anything is lost for it: bits may have changed on disk.
        let sum: Option<String> = crate::store::read(&from.join("sum.json"))?;
        if sum != Some(files::sum(from)?) {
            let why = format!("what {} keeps is damaged", from.display());
            return Err(Failure::new(error_code::SNAPSHOT_INVAL, why));
        }
        let kept: Option<Machine> = crate::store::read(&from.join("world.json"))?;
        let mut kept = kept.ok_or_else(|| {
            Failure::new(error_code::SNAPSHOT_INVAL, format!("{} holds no state of a world", from.display()))
        })?;
        self.observe(|machine| {
            files::remove_tree(self.files.root())?;
            files::copy_tree(&from.join("fs"), self.files.root())?;
            kept.seen_ms = crate::store::now_ms();
            *machine = kept;
            Ok(())
        })
    }

    fn clone_to(&self, from: &Path, to: &Home, _linked: bool) -> Result<()> {
        let clone = Self::new(to.clone());
        clone.load(from)?;
        clone.power_off()
    }

    fn tools_running(&self) -> bool {
        self.observe(|machine| Ok(machine.tools_running())).unwrap_or(false)
    }

    fn address(&self) -> Option<String> {
        let named = self.home.vmx.get("vmtask.world.ip").unwrap_or(ADDRESS);
        Some(named.to_owned()).filter(|address| !address.is_empty())
    }

    fn share(&self, shares: &[Share]) -> Result<()> {
        self.observe(|machine| {
            machine.shares = shares.to_vec();
            Ok(())
        })
    }

    fn make_directory(&self, path: &str) -> Result<()> {
        self.in_guest(|machine| self.files.make_directory(machine, path))
    }

    fn remove_directory(&self, path: &str) -> Result<()> {
        self.in_guest(|machine| self.files.remove_directory(machine, path))
    }

    fn remove_file(&self, path: &str) -> Result<()> {
        self.in_guest(|machine| self.files.remove_file(machine, path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.in_guest(|machine| self.files.rename(machine, from, to))
    }

    fn temp_file(&self) -> Result<String> {
        self.in_guest(|machine| self.files.temp_file(machine))
    }

    fn info(&self, path: &str) -> Result<FileInfo> {
        self.in_guest(|machine| self.files.info(machine, path))
    }

    fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        self.in_guest(|machine| self.files.list(machine, path))
    }

    fn copy_in(&self, host: &Path, guest: &str) -> Result<()> {
        self.in_guest(|machine| self.files.copy_in(machine, host, guest))
    }

    fn copy_out(&self, guest: &str, host: &Path) -> Result<()> {
        self.in_guest(|machine| self.files.copy_out(machine, guest, host))
    }

    fn start(&self, program: &Program<'_>) -> Result<u64> {
        self.in_guest(|machine| machine.start(&self.files, program))
    }

    fn exit_status(&self, pid: u64) -> Result<Option<i32>> {
        self.in_guest(|machine| machine.exit_status(pid))
    }

    fn processes(&self) -> Result<Vec<Process>> {
        self.in_guest(|machine| Ok(machine.running()))
    }

    fn kill(&self, pid: u64) -> Result<()> {
        self.in_guest(|machine| machine.kill(pid, 9))
    }

    fn screen(&self) -> Result<Vec<u8>> {
        Ok(crate::screen::simulated())
    }
}
