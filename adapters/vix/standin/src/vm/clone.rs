//! Clones: whole ones, and linked ones, which live on a snapshot of their parent.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use vmtask_vix_abi::{clone_type, error_code, property};

use super::guest_files::absolute;
use super::power::check_options;
use super::state::{Parent, Power, State};
use super::{Locked, Result, SnapshotRef, Vm, home, make_directory, remove_directory};
use crate::failure::Failure;
use crate::job::{Context, Results};
use crate::property::{Properties, Value};
use crate::store;
use crate::vmx::Vmx;

impl Vm {
    /// Makes a VM at `destination`, opens it, and hands it out.
    pub(crate) fn clone_vm(
        &self,
        context: &Context<'_>,
        snapshot: Option<&SnapshotRef>,
        kind: i32,
        destination: &str,
        options: i32,
    ) -> Result<Results> {
        check_options(options, 0)?;
        let linked = match kind {
            clone_type::LINKED => true,
            clone_type::FULL => false,
            _ => return Err(Failure::new(error_code::INVALID_ARG, format!("there is no clone of the type {kind}"))),
        };
        let target = absolute(destination)?;
        if target.exists() {
            return Err(Failure::new(error_code::FILE_ALREADY_EXISTS, format!("{destination} is there already")));
        }
        snapshot.map(|snapshot| self.check_own(snapshot)).transpose()?;
        let mut vm = self.lock()?;
        self.finish_revert(&mut vm)?;
        match (vm.power, linked, snapshot) {
            (Power::On | Power::Paused, false, _) | (Power::On | Power::Paused, true, None) => {
                return Err(Failure::new(error_code::VM_IS_RUNNING, format!("{} is running", self.name)));
            }
            (Power::Suspended, true, _) => {
                let why = format!("{} is suspended: there are no linked clones of that", self.name);
                return Err(Failure::new(error_code::VM_IS_RUNNING, why));
            }
            _ => {}
        }
        let source = match snapshot {
            Some(snapshot) if vm.snapshot(snapshot.id()).is_some() => snapshot.id(),
            Some(_) => return Err(Failure::new(error_code::SNAPSHOT_NOTFOUND, "the snapshot has been removed")),
            // A linked clone needs something that stays as it is, so it leaves a snapshot behind.
            None if linked => self.take_snapshot(&mut vm, context, "clone", "made for a linked clone", false)?,
            None => return self.clone_present(&vm, context, target, destination),
        };
        let parent = linked.then(|| Parent { vmx: self.vmx_path.clone(), snapshot: source });
        self.make_clone(context, &self.snapshot_dir(source), parent, target, destination)
    }

    /// A full clone of the state that the VM is in.
    fn clone_present(
        &self,
        _vm: &Locked<'_>,
        context: &Context<'_>,
        target: &Path,
        destination: &str,
    ) -> Result<Results> {
        // Under the VM's lock, so one at a time.
        let present = self.dir.join("clone");
        remove_directory(&present)?;
        make_directory(&present)?;
        let saved = self.guest.save(false, &present);
        let made = saved.and_then(|()| self.make_clone(context, &present, None, target, destination));
        remove_directory(&present)?;
        made
    }

    /// Makes the clone's directory; the `.vmx` file comes last, so that half a clone is no VM.
    fn make_clone(
        &self,
        context: &Context<'_>,
        source: &Path,
        parent: Option<Parent>,
        target: &Path,
        destination: &str,
    ) -> Result<Results> {
        let text =
            fs::read_to_string(&self.vmx_path).map_err(|e| Failure::host_io("cannot read", &self.vmx_path, &e))?;
        let text = renamed(&text, target);
        let vmx = Vmx::parse(&text).map_err(|line| {
            Failure::new(error_code::CANNOT_READ_VM_CONFIG, format!("{}, line {line}", self.vmx_path.display()))
        })?;
        let dir = target.with_file_name("vmtask-standin");
        if dir.exists() {
            let why = format!("{} belongs to another virtual machine", dir.display());
            return Err(Failure::new(error_code::FILE_ALREADY_EXISTS, why));
        }
        let linked = parent.is_some();
        let clone = home(&dir, target, &Arc::new(vmx))?;
        context.act.halfway();
        let made = self.guest.clone_to(source, &clone, linked).and_then(|()| {
            store::write(&dir.join("state.json"), &State { parent, ..State::default() })?;
            store::replace(target, text.as_bytes())
        });
        if let Err(failure) = made {
            remove_directory(&dir)?;
            return Err(failure);
        }
        let handle = Self::open(&self.host, destination, self.vmx.get("vmtask.encryption.password"))?;
        Ok(vec![Properties::default().with(property::JOB_RESULT_HANDLE, Value::Handle(handle))])
    }

    /// A linked clone cannot live without what it was made of.
    pub(super) fn check_parent(&self, vm: &Locked<'_>) -> Result<()> {
        let Some(parent) = &vm.parent else { return Ok(()) };
        let beside = parent.vmx.with_file_name("vmtask-standin");
        let state: State = store::read(&beside.join("state.json"))?.unwrap_or_default();
        if parent.vmx.is_file() && state.snapshot(parent.snapshot).is_some() {
            return Ok(());
        }
        let why = format!(
            "{}: the virtual machine it was cloned from, {}, or its snapshot is gone",
            self.name,
            parent.vmx.display()
        );
        Err(Failure::new(error_code::DISK_PARTIALCHAIN, why))
    }
}

/// A configuration for a VM with another name.
fn renamed(text: &str, target: &Path) -> String {
    let stem = target.file_stem().unwrap_or_default().to_string_lossy();
    let is_name =
        |line: &&str| line.split('=').next().is_some_and(|key| key.trim().eq_ignore_ascii_case("displayName"));
    let mut out: String = text.lines().filter(|line| !is_name(line)).map(|line| format!("{line}\n")).collect();
    out.push_str(&format!("displayName = \"{stem}\"\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_has_its_own_name_and_everything_else_of_its_parent() {
        let text = renamed("memsize = \"64\"\nDisplayName=\"old\"\n", Path::new("/vms/new one.vmx"));
        assert_eq!(text, "memsize = \"64\"\ndisplayName = \"new one\"\n");
    }
}
