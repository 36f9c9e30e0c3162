//! The port: one task's virtual machine under QEMU.
//!
//! ```text
//!   carry_out (one thread) --> Op --> a function of `ops` ---> Live (QMP, agent, streams)
//!   fence (another thread) --> `fence` ---> looks at QMP and agent, kills if in doubt
//! ```
//! At most one boot is alive. It is shared by the thread that carries out commands, the fence, the streaming thread of a
//! checkpoint and the watcher; none of them waits for another without a limit.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use vmtask_core::{Boot, Capabilities, Command, CommandId, FaultKind, Op, OpKind, Pause, Reply, Snapshots};
use vmtask_driver::{EffectToken, EventSink, Fenced, Hypervisor, PortError};

use crate::checkpoint::Store;
use crate::fault::during;
use crate::fence::{self, Fencing};
use crate::image::UnpinnedError;
use crate::instance::lock_within;
use crate::live::Live;
use crate::process::ProcessName;
use crate::setup::{Paths, Setup};
use crate::template::Cache;
use crate::wait::{Busy, Part, Wait};

/// One virtual machine for one task, under QEMU.
pub struct QemuVm {
    pub(crate) setup: Setup,
    pub(crate) paths: Paths,
    pub(crate) cache: Cache,
    pub(crate) store: Store,
    sink: OnceLock<EventSink>,
    live: Mutex<Option<Arc<Live>>>,
    busy: Busy,
}

impl fmt::Debug for QemuVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QemuVm").field("setup", &self.setup).finish_non_exhaustive()
    }
}

impl QemuVm {
    /// An adapter for one task. Nothing is touched or started yet.
    ///
    /// # Errors
    /// If the platform's machine is not pinned, so that results would differ from computer to computer.
    pub fn new(setup: Setup) -> Result<Self, UnpinnedError> {
        setup.image.check()?;
        let paths = setup.paths();
        Ok(Self {
            cache: Cache::new(&setup.cache),
            store: Store::new(paths.checkpoints()),
            paths,
            setup,
            sink: OnceLock::new(),
            live: Mutex::new(None),
            busy: Busy::default(),
        })
    }

    /// The process that runs the guest, if there is one.
    #[must_use]
    pub fn process(&self) -> Option<ProcessName> {
        let live = self.slot();
        live.as_ref().filter(|l| l.is_alive()).map(|l| l.instance.process.name())
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sink(&self) -> Option<&EventSink> {
        self.sink.get()
    }

    /// The boot that is alive, whichever it is.
    pub(crate) fn any_live(&self) -> Option<Arc<Live>> {
        self.slot().as_ref().map(Arc::clone)
    }

    /// The boot that a command acts on.
    pub(crate) fn live(&self, command: &Command) -> Result<Arc<Live>, PortError> {
        let live = self.slot().as_ref().filter(|live| live.boot == command.boot).map(Arc::clone);
        live.ok_or_else(|| PortError::new(FaultKind::Unknown, format!("{command}: no virtual machine runs")))
    }

    /// Puts a new boot in place, by leave of its command's token.
    pub(crate) fn adopt(&self, live: &Arc<Live>, token: &EffectToken) -> Result<(), PortError> {
        token.act(|| *self.slot() = Some(Arc::clone(live)))
    }

    /// Ends the boot that is alive, if there is one, by then.
    pub(crate) fn put_out(&self, until: Instant) -> Result<(), PortError> {
        self.any_live().map_or(Ok(()), |live| self.end(&live, until))
    }

    /// Ends this boot, and no later one: a command that was abandoned and comes back must not hit its successor's.
    pub(crate) fn put_out_boot(&self, boot: Boot, until: Instant) -> Result<(), PortError> {
        let live = self.any_live().filter(|live| live.boot == boot);
        live.map_or(Ok(()), |live| self.end(&live, until))
    }

    fn end(&self, live: &Arc<Live>, until: Instant) -> Result<(), PortError> {
        let name = live.instance.process.name();
        live.kill(until).map_err(|_| {
            PortError::new(
                FaultKind::Unknown,
                format!("QEMU (process {}) does not die; it hangs in the kernel", name.pid),
            )
        })?;
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, live)) {
            *slot = None;
        }
        Ok(())
    }

    fn dispatch(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        let wait = Wait::command(token, deadline);
        match command.op {
            Op::Probe => self.probe(wait).map(Reply::Found),
            Op::Register => self.register().map(|()| Reply::Done),
            Op::Provision(base) => {
                self.provision(command.boot, base, token, wait).map(|running| Reply::Provisioned { running })
            }
            Op::PowerOn => self.power_on(&self.live(command)?, wait).map(|()| Reply::Done),
            Op::AwaitTools => self.await_tools(&*self.live(command)?, token, wait),
            // The guest agent asks for no password.
            Op::LogIn => Ok(Reply::Done),
            Op::MakeWorkdir => self.make_workdir(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::CopyIn(ix) => self.copy_in(&*self.live(command)?, ix, wait),
            Op::Launch => self.launch(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::Pause => self.pause(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::Unpause => self.unpause(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::BeginSnapshot(g) => self.begin_snapshot(&self.live(command)?, g, wait).map(|()| Reply::Done),
            Op::CommitSnapshot(g) => self.commit_snapshot(&*self.live(command)?, g, token, wait),
            Op::RemoveSnapshot(g) => self.remove_snapshot(g, token, wait).map(|()| Reply::Done),
            Op::CopyOut(ix) => self.copy_out(&*self.live(command)?, ix, token, wait),
            Op::PowerOff => self.put_out(deadline).map(|()| Reply::Done),
            Op::Unregister(keep) => self.unregister(keep, wait).map(|()| Reply::Done),
        }
    }
}

impl Hypervisor for QemuVm {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        if self.setup.spec.limits.disk.is_some() && self.setup.qemu.img.is_none() {
            let error = crate::disk::DiskError::NoImg;
            return Err(PortError::new(FaultKind::Unsupported, error.to_string()));
        }
        Ok(Capabilities {
            linked_clones: true,
            snapshots: Snapshots::Many,
            pause: Pause::Native,
            guest_login: false,
            outlives_manager: false,
            disk: true,
        })
    }

    fn watch(&self, events: EventSink) {
        // Called once; a second sink would split the story between two listeners.
        let _ = self.sink.set(events);
    }

    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        self.busy.carry_out(command, token, || self.dispatch(command, deadline, token))
    }

    fn fence(&self, id: CommandId, deadline: Instant) -> Result<Fenced, PortError> {
        let parts = fence::SHARES.of(Instant::now(), deadline);
        fence::fence(&Fence { vm: self, id, kind: self.busy.kind() }, parts)
    }
}

/// A fence about a command and all before it. Everything that they wait for is waited for by leave of their tokens, which
/// are revoked by now.
struct Fence<'a> {
    vm: &'a QemuVm,
    id: CommandId,
    /// What was being carried out when it began.
    kind: Option<OpKind>,
}

impl Fencing for Fence<'_> {
    fn comes_back(&self, part: Part) -> bool {
        self.vm.busy.wait_idle(self.id, part.own(Instant::now())).is_ok()
    }

    fn survives(&self, qemu: Part, agent: Part) -> bool {
        let Some(live) = self.vm.any_live().filter(|live| live.is_alive()) else {
            return false;
        };
        // Half-done, and not to be undone: a machine in the making, a snapshot that must not be cancelled.
        if matches!(self.kind, Some(OpKind::Provision | OpKind::PowerOn)) {
            return false;
        }
        let wait = Wait::until(qemu.own(Instant::now()));
        let Ok(mut work) = lock_within(&live.work, &wait) else {
            return false;
        };
        if work.snapshot.is_some() {
            return false;
        }
        // A transfer that was under way ends with its connection.
        work.copy_in = None;
        work.copy_out = None;
        drop(work);
        // QEMU answers in order: with this answer, everything asked before is done or will never be.
        let Ok(state) = live.instance.run_state(&wait) else {
            return false;
        };
        let running = state == "running";
        let Ok(mut wish) = live.wish(&wait) else {
            return false;
        };
        if matches!(self.kind, Some(OpKind::Pause | OpKind::Unpause)) {
            // Whether it acted shows in the state; its answer was lost before it could be noted.
            wish.running = running;
        }
        if !running {
            // Held because we wished it, or for a reason that nobody knows.
            return !wish.running;
        }
        drop(wish);
        // The agent too works in order.
        let wait = Wait::until(agent.own(Instant::now()));
        lock_within(&live.instance.agent, &wait).is_ok_and(|mut agent| {
            agent.disconnect();
            agent.sync(&wait).is_ok()
        })
    }

    fn put_out(&self, part: Part) -> Result<(), PortError> {
        self.vm.put_out(part.end())
    }
}

/// Writes down which process runs the guest, for the next manager, beside the place for it. What remains is to rename it.
pub(crate) fn write_process(paths: &Paths, name: ProcessName) -> io::Result<PathBuf> {
    let text = serde_json::to_vec(&name).map_err(io::Error::other)?;
    let part = paths.process().with_extension("part");
    std::fs::write(&part, text)?;
    Ok(part)
}

/// Kills a process that an earlier manager started and that has survived it, if there is one. Nobody else is ever
/// killed: number and start time must both be what was written down.
pub(crate) fn kill_orphan(paths: &Paths, until: Instant) -> Result<(), PortError> {
    let path = paths.process();
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(during(format!("looking in {} for a QEMU of an earlier run", path.display())))?,
    };
    let Ok(name) = serde_json::from_slice::<ProcessName>(&text) else {
        // Torn when the computer went down: then the process is gone too.
        return Ok(());
    };
    if name.is_alive() {
        tracing::warn!(pid = name.pid, "a QEMU has survived its manager; killing it");
    }
    name.kill(until.saturating_duration_since(Instant::now())).map_err(|error| {
        PortError::new(
            FaultKind::Refused,
            format!("QEMU (process {}) of an earlier run is still there and cannot be killed: {error}", name.pid),
        )
    })
}
