//! A hypervisor whose virtual machines are none of our processes: they are announced in the registry when they may begin
//! to run, and taken out when they are off, so that `vmtask vms` knows of them after their manager has been killed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vmtask_core::{Capabilities, Command, CommandId, Op, Reply};
use vmtask_driver::{EffectToken, EventSink, Fenced, Hypervisor, NewEntry, PortError, Reap, Registration, Registry};

use crate::error::Error;

pub(super) struct Registered {
    inner: Arc<dyn Hypervisor>,
    /// Who knows the virtual machine.
    keeper: String,
    registration: Mutex<Registration>,
}

impl Registered {
    /// Puts `inner` behind an entry for the task in `dir`. `keeper` is the product that has the virtual machine.
    ///
    /// # Errors
    /// If the registry cannot be used.
    pub(super) fn new(inner: Arc<dyn Hypervisor>, task: &str, dir: &Path, keeper: String) -> Result<Self, Error> {
        let registry = Registry::open(&vmtask_platform::data_dir()?)?;
        let reaped = registry.reap(Reap::Orphans)?;
        for (entry, why) in &reaped.left {
            tracing::warn!(task = entry.task, dir = %entry.dir.display(), why, "a virtual machine without a manager stays");
        }
        let new = NewEntry { task, dir, hypervisor: inner.name(), outlives_manager: true };
        let registration = Mutex::new(registry.register(&new)?);
        Ok(Self { inner, keeper, registration })
    }

    fn note(&self, runs: bool) {
        let mut registration = self.registration.lock().unwrap_or_else(PoisonError::into_inner);
        if registration.entry().keeper.is_some() == runs {
            return;
        }
        let done = if runs { registration.set_keeper(&self.keeper) } else { registration.clear_vm() };
        if let Err(error) = done {
            tracing::warn!(%error, "the registry of virtual machines");
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
        // Beforehand: an entry too many does less harm than a virtual machine that nobody finds. Reverting to a snapshot
        // with memory powers on, too.
        if matches!(command.op, Op::Provision(_) | Op::PowerOn) {
            self.note(true);
        }
        let done = self.inner.carry_out(command, deadline, token);
        if done.is_ok() && matches!(command.op, Op::PowerOff | Op::Unregister(_)) {
            self.note(false);
        }
        done
    }

    fn fence(&self, id: CommandId, deadline: Instant) -> Result<Fenced, PortError> {
        let fenced = self.inner.fence(id, deadline)?;
        if fenced == Fenced::PoweredOff {
            self.note(false);
        }
        Ok(fenced)
    }
}
