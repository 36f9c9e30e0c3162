//! Snapshots.
//!
//! ```text
//!   create:  guest saves into snapshots/ID (nobody knows it yet) --> state.json names it
//!   revert:  state.json says "reverting" --> guest loads --> state.json says what it is now
//!   remove:  state.json forgets it --> its directory goes
//! ```

use std::sync::Arc;

use vmtask_vix_abi::{Handle, INVALID_HANDLE, error_code, power_op, property, snapshot_option};

use super::power::check_options;
use super::state::{Power, Snapshot, State};
use super::{Locked, Result, Vm, make_directory, remove_directory};
use crate::failure::Failure;
use crate::handles::{self, Object};
use crate::job::{Context, Results};
use crate::property::{Properties, Value, unknown};

/// What a snapshot's handle names.
pub(crate) struct SnapshotRef {
    vm: Arc<Vm>,
    id: u64,
}

impl SnapshotRef {
    pub(crate) fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    fn record(&self) -> Result<(State, Snapshot)> {
        let state = self.vm.peek()?;
        let record = state.snapshot(self.id).cloned().ok_or_else(|| self.vm.no_snapshot("it has been removed"))?;
        Ok((state, record))
    }

    pub(crate) fn property(&self, id: i32) -> Result<Value> {
        let (_, record) = self.record()?;
        match id {
            property::SNAPSHOT_DISPLAYNAME => Ok(Value::Text(record.name)),
            property::SNAPSHOT_DESCRIPTION => Ok(Value::Text(record.description)),
            property::SNAPSHOT_POWERSTATE => Ok(Value::Integer(record.power.bits())),
            _ => Err(unknown(id)),
        }
    }

    pub(crate) fn children(&self) -> Result<usize> {
        Ok(self.record()?.0.children(Some(self.id)).count())
    }

    pub(crate) fn child(&self, index: i32) -> Result<Handle> {
        let (state, _) = self.record()?;
        self.vm.hand_out_snapshot(nth(state.children(Some(self.id)), index)?)
    }

    /// [`INVALID_HANDLE`] for a root.
    pub(crate) fn parent(&self) -> Result<Handle> {
        match self.record()?.1.parent {
            Some(parent) => self.vm.hand_out_snapshot(parent),
            None => Ok(INVALID_HANDLE),
        }
    }
}

/// The nth of some snapshots.
fn nth<'a>(mut snapshots: impl Iterator<Item = &'a Snapshot>, index: i32) -> Result<u64> {
    let found = usize::try_from(index).ok().and_then(|index| snapshots.nth(index));
    found
        .map(|snapshot| snapshot.id)
        .ok_or_else(|| Failure::new(error_code::INVALID_ARG, format!("there is no snapshot with the index {index}")))
}

impl Vm {
    fn no_snapshot(&self, why: &str) -> Failure {
        Failure::new(error_code::SNAPSHOT_NOTFOUND, format!("{}: there is no such snapshot: {why}", self.name))
    }

    /// Hands out a snapshot of this VM; the same one is the same handle.
    fn hand_out_snapshot(self: &Arc<Self>, id: u64) -> Result<Handle> {
        handles::hand_out_once(self.host.handle(), format!("{} snapshot {id}", self.vmx_path.display()), || {
            Ok(Object::Snapshot(Arc::new(SnapshotRef { vm: Arc::clone(self), id })))
        })
    }

    pub(crate) fn root_snapshots(&self) -> Result<usize> {
        Ok(self.peek()?.children(None).count())
    }

    pub(crate) fn root_snapshot(self: &Arc<Self>, index: i32) -> Result<Handle> {
        let state = self.peek()?;
        self.hand_out_snapshot(nth(state.children(None), index)?)
    }

    pub(crate) fn current_snapshot(self: &Arc<Self>) -> Result<Handle> {
        let state = self.peek()?;
        let id = state.current.ok_or_else(|| self.no_snapshot("the virtual machine comes from none"))?;
        self.hand_out_snapshot(id)
    }

    /// By name, or by a path of names from a root: `a/b/c`.
    pub(crate) fn named_snapshot(self: &Arc<Self>, name: &str) -> Result<Handle> {
        let state = self.peek()?;
        let by_name: Vec<u64> = state.snapshots.iter().filter(|s| s.name == name).map(|s| s.id).collect();
        let found = if by_name.is_empty() && name.contains('/') { by_path(&state, name) } else { by_name };
        match found[..] {
            [id] => self.hand_out_snapshot(id),
            [] => Err(self.no_snapshot(&format!("none is called {name:?}"))),
            _ => {
                let why = format!("{}: {} snapshots are called {name:?}", self.name, found.len());
                Err(Failure::new(error_code::SNAPSHOT_NONUNIQUE_NAME, why))
            }
        }
    }

    /// Takes one.
    pub(crate) fn create_snapshot(
        self: &Arc<Self>,
        context: &Context<'_>,
        name: &str,
        description: &str,
        options: i32,
    ) -> Result<Results> {
        check_options(options, snapshot_option::INCLUDE_MEMORY)?;
        let mut vm = self.lock()?;
        let memory = options & snapshot_option::INCLUDE_MEMORY != 0;
        let id = self.take_snapshot(&mut vm, context, name, description, memory)?;
        drop(vm);
        let handle = self.hand_out_snapshot(id)?;
        Ok(vec![Properties::default().with(property::JOB_RESULT_HANDLE, Value::Handle(handle))])
    }

    /// Takes a snapshot of a locked VM and returns its number.
    pub(super) fn take_snapshot(
        &self,
        vm: &mut Locked<'_>,
        context: &Context<'_>,
        name: &str,
        description: &str,
        memory: bool,
    ) -> Result<u64> {
        self.finish_revert(vm)?;
        match vm.power {
            // The reference is silent about it, so a client had better not rely on it.
            Power::Paused => {
                let why = format!("{} is paused: let it run on, or suspend it, before a snapshot", self.name);
                return Err(Failure::new(error_code::SNAPSHOT_CHECKPOINT, why));
            }
            Power::Suspended if vm.suspension_kept => {
                let why = format!("{} is suspended and has a snapshot of that", self.name);
                return Err(Failure::new(error_code::SNAPSHOT_NOCHANGE, why));
            }
            _ => {}
        }
        // A suspended guest's memory is on its disk, so it is always kept.
        let memory = vm.power == Power::Suspended || memory && vm.power == Power::On;
        let (id, dir) = (vm.next_snapshot, self.snapshot_dir(vm.next_snapshot));
        // Left by a client that died in here.
        remove_directory(&dir)?;
        make_directory(&dir)?;
        if let Err(failure) = self.guest.save(memory, &dir) {
            remove_directory(&dir)?;
            return Err(failure);
        }
        context.act.halfway();
        let overwritten =
            if self.host.product().many_snapshots() { Vec::new() } else { std::mem::take(&mut vm.snapshots) };
        let parent = if overwritten.is_empty() { vm.current } else { None };
        let power = if memory { vm.power } else { Power::Off };
        vm.snapshots.push(Snapshot { id, parent, name: name.to_owned(), description: description.to_owned(), power });
        vm.current = Some(id);
        vm.next_snapshot += 1;
        vm.suspension_kept = vm.power == Power::Suspended;
        vm.commit()?;
        for old in overwritten {
            remove_directory(&self.snapshot_dir(old.id))?;
        }
        Ok(id)
    }

    /// Brings the VM into a snapshot's state.
    pub(crate) fn revert(&self, context: &Context<'_>, snapshot: &SnapshotRef, options: i32) -> Result<Results> {
        self.check_own(snapshot)?;
        let suppress = options & power_op::SUPPRESS_SNAPSHOT_POWERON != 0;
        check_options(options, if suppress { power_op::SUPPRESS_SNAPSHOT_POWERON } else { power_op::LAUNCH_GUI })?;
        self.check_window(options)?;
        let mut vm = self.lock()?;
        let record = vm.snapshot(snapshot.id).cloned();
        let record = record.ok_or_else(|| self.no_snapshot("it has been removed"))?;
        self.check_parent(&vm)?;
        vm.reverting = Some(record.id);
        vm.power = Power::Off;
        vm.state.forget_run();
        vm.commit()?;
        self.guest.power_off()?;
        context.act.halfway();
        self.load_snapshot(&mut vm, record.id)?;
        vm.commit()?;
        if record.power == Power::On && !suppress {
            vm.power = Power::Resuming;
            vm.commit()?;
            self.guest.resume()?;
            vm.power = Power::On;
            vm.commit()?;
            drop(vm);
            crate::host::note_powered_on(&self.vmx_path);
        }
        Ok(Vec::new())
    }

    /// Finishes a revert that was cut off.
    pub(super) fn finish_revert(&self, vm: &mut Locked<'_>) -> Result<()> {
        if let Some(id) = vm.reverting {
            self.load_snapshot(vm, id)?;
            vm.commit()?;
        }
        Ok(())
    }

    /// Loads a snapshot into a guest that is off; afterwards the state must be committed.
    fn load_snapshot(&self, vm: &mut Locked<'_>, id: u64) -> Result<()> {
        let kept = vm.snapshot(id).map(|snapshot| snapshot.power);
        let kept = kept.ok_or_else(|| self.no_snapshot("it has been removed"))?;
        if let Err(failure) = self.guest.load(&self.snapshot_dir(id)) {
            // It cannot be finished, now or later: but another snapshot can be gone back to.
            vm.reverting = None;
            vm.power = Power::Off;
            vm.commit()?;
            return Err(failure);
        }
        vm.power = if kept == Power::Off { Power::Off } else { Power::Suspended };
        vm.suspension_kept = vm.power == Power::Suspended;
        vm.current = Some(id);
        vm.boot += 1;
        vm.reverting = None;
        Ok(())
    }

    /// Removes one, alone (what is below it moves up) or with everything below it.
    pub(crate) fn remove_snapshot(
        &self,
        context: &Context<'_>,
        snapshot: &SnapshotRef,
        options: i32,
    ) -> Result<Results> {
        self.check_own(snapshot)?;
        check_options(options, snapshot_option::REMOVE_CHILDREN)?;
        let mut vm = self.lock()?;
        let record = vm.snapshot(snapshot.id).cloned();
        let record = record.ok_or_else(|| self.no_snapshot("it has been removed already"))?;
        let mut doomed = vec![record.id];
        if options & snapshot_option::REMOVE_CHILDREN != 0 {
            let mut next = 0;
            while let Some(parent) = doomed.get(next).copied() {
                doomed.extend(vm.children(Some(parent)).map(|child| child.id));
                next += 1;
            }
        }
        vm.snapshots.retain(|snapshot| !doomed.contains(&snapshot.id));
        for child in &mut vm.snapshots {
            if child.parent == Some(record.id) {
                child.parent = record.parent;
            }
        }
        if vm.current.is_some_and(|current| doomed.contains(&current)) {
            vm.current = record.parent;
        }
        vm.commit()?;
        context.act.halfway();
        for id in doomed {
            remove_directory(&self.snapshot_dir(id))?;
        }
        Ok(Vec::new())
    }

    /// A snapshot of one VM is no snapshot of another.
    pub(super) fn check_own(&self, snapshot: &SnapshotRef) -> Result<()> {
        match snapshot.vm.vmx_path == self.vmx_path {
            true => Ok(()),
            false => Err(Failure::new(error_code::INVALID_ARG, format!("the snapshot is not one of {}", self.name))),
        }
    }
}

/// The snapshots that a path leads to: more than one if names repeat.
fn by_path(state: &State, path: &str) -> Vec<u64> {
    let mut level: Vec<Option<u64>> = vec![None];
    for name in path.trim_start_matches('/').split('/') {
        let below = level.iter().flat_map(|parent| state.children(*parent));
        level = below.filter(|snapshot| snapshot.name == name).map(|snapshot| Some(snapshot.id)).collect();
    }
    level.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_from_a_root_down() {
        let snapshot = |id, parent, name: &str| Snapshot {
            id,
            parent,
            name: name.to_owned(),
            description: String::new(),
            power: Power::Off,
        };
        let snapshots = vec![
            snapshot(1, None, "a"),
            snapshot(2, Some(1), "b"),
            snapshot(3, Some(2), "c"),
            snapshot(4, Some(1), "c"),
            snapshot(5, Some(2), "c"),
        ];
        let state = State { snapshots, ..State::default() };
        assert_eq!(by_path(&state, "a/b"), [2]);
        assert_eq!(by_path(&state, "/a/c"), [4]);
        assert_eq!(by_path(&state, "a/b/c"), [3, 5]);
        assert!(by_path(&state, "b/c").is_empty());
    }
}
