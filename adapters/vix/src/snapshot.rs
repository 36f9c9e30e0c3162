//! Snapshots, and the tree that they form.

use vmtask_vix_abi::{Handle, property};

use crate::api::{Look, Value};
use crate::error::Error;
use crate::job::Owned;
use crate::machine::{PowerState, Vm};

/// A snapshot of a VM.
#[derive(Clone, Debug)]
pub struct Snapshot {
    // First, so that it is released before its VM.
    handle: std::sync::Arc<Owned>,
    vm: Vm,
}

impl Snapshot {
    pub(crate) fn new(vm: &Vm, handle: Owned) -> Self {
        Self { handle: std::sync::Arc::new(handle), vm: vm.clone() }
    }

    pub(crate) fn raw(&self) -> Handle {
        self.handle.raw()
    }

    /// Its name.
    ///
    /// # Errors
    /// What VIX says; old products do not tell.
    pub fn name(&self) -> Result<String, Error> {
        self.text(property::SNAPSHOT_DISPLAYNAME)
    }

    /// Its description.
    ///
    /// # Errors
    /// As [`Snapshot::name`].
    pub fn description(&self) -> Result<String, Error> {
        self.text(property::SNAPSHOT_DESCRIPTION)
    }

    /// The power state that reverting to it brings back.
    ///
    /// # Errors
    /// As [`Snapshot::name`].
    pub fn power_state(&self) -> Result<PowerState, Error> {
        match self.handle.property("a snapshot", property::SNAPSHOT_POWERSTATE)? {
            Value::Int(bits) => Ok(PowerState(bits)),
            _ => Ok(PowerState(0)),
        }
    }

    fn text(&self, id: i32) -> Result<String, Error> {
        match self.handle.property("a snapshot", id)? {
            Value::Text(text) => Ok(text),
            _ => Ok(String::new()),
        }
    }

    /// Those that were made right after it.
    ///
    /// # Errors
    /// What VIX says.
    pub fn children(&self) -> Result<Vec<Self>, Error> {
        let count = self.vm.look(&Look::CountChildren { snapshot: self.raw() })?;
        (0..count)
            .map(|index| self.vm.look(&Look::Child { snapshot: self.raw(), index }).map(|raw| self.vm.found(raw)))
            .collect()
    }

    /// The one before it; none if it is a root.
    ///
    /// # Errors
    /// What VIX says.
    pub fn parent(&self) -> Result<Option<Self>, Error> {
        let raw = self.vm.look(&Look::Parent { snapshot: self.raw() })?;
        Ok((raw != vmtask_vix_abi::INVALID_HANDLE).then(|| self.vm.found(raw)))
    }
}

impl Vm {
    /// All snapshots, each after its parent.
    ///
    /// # Errors
    /// What VIX says.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let roots = self.root_snapshots()?;
        let mut all = (0..roots).map(|index| self.root_snapshot(index)).collect::<Result<Vec<_>, _>>()?;
        let mut next = 0;
        while let Some(snapshot) = all.get(next) {
            all.extend(snapshot.children()?);
            next += 1;
        }
        Ok(all)
    }
}
