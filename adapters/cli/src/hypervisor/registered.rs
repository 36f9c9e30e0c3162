//! A hypervisor whose virtual machines are none of our processes: they are announced in the registry before they may
//! begin to run or are put into an inventory, and taken out when they are off and in none, so that `vmtask vms` knows of
//! them after their manager has been killed, whatever has become of the task's directory.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vmtask_core::{Capabilities, Command, CommandId, FaultKind, Op, Reply};
use vmtask_driver::{
    EffectToken, EventSink, Fenced, Hypervisor, Keeper, NewEntry, PortError, Reap, Registration, Registry,
    RegistryError,
};

use crate::error::Error;

pub(super) struct Registered {
    inner: Arc<dyn Hypervisor>,
    /// Who has the virtual machine, and under which name.
    keeper: Keeper,
    registration: Mutex<Registration>,
}

impl Registered {
    /// Puts `inner` behind an entry for the task in `dir`. `keeper` is who has the virtual machine.
    ///
    /// # Errors
    /// If the registry cannot be used.
    pub(super) fn new(inner: Arc<dyn Hypervisor>, task: &str, dir: &Path, keeper: Keeper) -> Result<Self, Error> {
        let registry = Registry::open(&vmtask_platform::data_dir()?)?;
        let reaped = registry.reap(Reap::Orphans)?;
        for (entry, why) in &reaped.left {
            tracing::warn!(task = entry.task, dir = %entry.dir.display(), why, "a virtual machine without a manager stays");
        }
        let new = NewEntry { task, dir, hypervisor: inner.name(), outlives_manager: true, keeper: Some(&keeper) };
        let registration = Mutex::new(registry.register(&new)?);
        Ok(Self { inner, keeper, registration })
    }

    fn announce(&self) -> Result<(), RegistryError> {
        let mut registration = self.lock();
        if registration.entry().keeper.is_some() {
            return Ok(());
        }
        registration.set_keeper(&self.keeper)
    }

    /// The virtual machine is off and in no inventory. An entry too many does no harm.
    fn take_out(&self) {
        let mut registration = self.lock();
        if registration.entry().keeper.is_some()
            && let Err(error) = registration.clear_vm()
        {
            tracing::warn!(%error, "the registry of virtual machines");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registration> {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this may start the virtual machine, or put it into an inventory.
    const fn begins(&self, op: Op) -> bool {
        match op {
            // Reverting to a snapshot with memory powers on, too.
            Op::Provision(_) | Op::PowerOn => true,
            Op::Register => self.keeper.inventory,
            _ => false,
        }
    }

    /// Whether nobody has it any more once this is done.
    const fn ends(&self, op: Op) -> bool {
        match op {
            Op::Unregister(_) => true,
            Op::PowerOff => !self.keeper.inventory,
            _ => false,
        }
    }
}

impl Hypervisor for Registered {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn is_simulated(&self) -> bool {
        self.inner.is_simulated()
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        self.inner.capabilities()
    }

    fn watch(&self, events: EventSink) {
        self.inner.watch(events);
    }

    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        // Beforehand: an entry too many does less harm than a virtual machine that nobody finds.
        if self.begins(command.op)
            && let Err(error) = self.announce()
        {
            let kind = if error.is_no_space() { FaultKind::NoSpace } else { FaultKind::Refused };
            return Err(PortError::new(kind, error.to_string()));
        }
        let done = self.inner.carry_out(command, deadline, token);
        if done.is_ok() && self.ends(command.op) {
            self.take_out();
        }
        done
    }

    fn fence(&self, id: CommandId, deadline: Instant) -> Result<Fenced, PortError> {
        // Its entry goes with the power-off that follows: the registry's lock is not to be waited for here.
        self.inner.fence(id, deadline)
    }
}
