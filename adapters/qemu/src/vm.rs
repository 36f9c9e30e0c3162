//! The port: one task's virtual machine under QEMU.
//!
//! ```text
//!   carry_out (one thread) --> Op --> a function of `ops` ---> Live (QMP, agent, streams)
//!   fence (another thread) --> looks at QMP and agent, kills if in doubt
//! ```
//! At most one boot is alive. It is shared by the thread that carries out commands, the fence, the streaming thread of a
//! checkpoint and the watcher; none of them waits for another without a limit.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vmtask_core::{Boot, Capabilities, Command, CommandId, FaultKind, Op, OpKind, Pause, Reply, Snapshots};
use vmtask_driver::{EffectToken, EventSink, Hypervisor, PortError};

use crate::checkpoint::Store;
use crate::fault::during;
use crate::image::UnpinnedError;
use crate::instance::lock_within;
use crate::live::Live;
use crate::process::ProcessName;
use crate::setup::{Paths, Setup};
use crate::template::Cache;
use crate::wait::{Busy, Wait};

/// How long a process may take to die. Longer means that it hangs in the kernel.
pub(crate) const DEATH: Duration = Duration::from_secs(10);
/// How long a fence waits for a command to come back before it stops being gentle.
const GENTLE: Duration = Duration::from_secs(3);
/// How long a fence waits for the guest agent.
const REVIVAL: Duration = Duration::from_secs(12);
/// How long a fence waits for QMP.
const LIVENESS: Duration = Duration::from_secs(3);

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

    /// Ends the boot that is alive, if there is one.
    pub(crate) fn put_out(&self) -> Result<(), PortError> {
        self.any_live().map_or(Ok(()), |live| self.end(&live))
    }

    /// Ends this boot, and no later one: a command that was abandoned and comes back must not hit its successor's.
    pub(crate) fn put_out_boot(&self, boot: Boot) -> Result<(), PortError> {
        let live = self.any_live().filter(|live| live.boot == boot);
        live.map_or(Ok(()), |live| self.end(&live))
    }

    fn end(&self, live: &Arc<Live>) -> Result<(), PortError> {
        let name = live.instance.process.name();
        live.kill(DEATH).map_err(|_| {
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

    fn dispatch(&self, command: &Command, token: &EffectToken) -> Result<Reply, PortError> {
        match command.op {
            Op::Probe => self.probe(token).map(Reply::Found),
            Op::Register => self.register().map(|()| Reply::Done),
            Op::Provision(base) => {
                self.provision(command.boot, base, token).map(|running| Reply::Provisioned { running })
            }
            Op::PowerOn => self.power_on(&self.live(command)?, token).map(|()| Reply::Done),
            Op::AwaitTools => self.await_tools(&*self.live(command)?, token),
            // The guest agent asks for no password.
            Op::LogIn => Ok(Reply::Done),
            Op::MakeWorkdir => self.make_workdir(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::CopyIn(ix) => self.copy_in(&*self.live(command)?, ix, token),
            Op::Launch => self.launch(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::Pause => self.pause(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::Unpause => self.unpause(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::BeginSnapshot(g) => self.begin_snapshot(&self.live(command)?, g, token).map(|()| Reply::Done),
            Op::CommitSnapshot(g) => self.commit_snapshot(&*self.live(command)?, g, token),
            Op::RemoveSnapshot(g) => self.remove_snapshot(g, token).map(|()| Reply::Done),
            Op::CopyOut(ix) => self.copy_out(&*self.live(command)?, ix, token),
            Op::PowerOff => self.put_out().map(|()| Reply::Done),
            Op::Unregister(keep) => self.unregister(keep, token).map(|()| Reply::Done),
        }
    }

    /// Whether the machine is as good as before: nothing that was asked of it is still to come.
    fn survives(&self, kind: Option<OpKind>) -> bool {
        let Some(live) = self.any_live().filter(|live| live.is_alive()) else {
            return false;
        };
        // Half-done, and not to be undone: a machine in the making, a snapshot that must not be cancelled.
        if matches!(kind, Some(OpKind::Provision | OpKind::PowerOn)) {
            return false;
        }
        let wait = Wait::most(LIVENESS);
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
        let mut wish = live.wish();
        if matches!(kind, Some(OpKind::Pause | OpKind::Unpause)) {
            // Whether it acted shows in the state; its answer was lost before it could be noted.
            wish.running = running;
        }
        if !running {
            // Held because we wished it, or for a reason that nobody knows.
            return !wish.running;
        }
        drop(wish);
        // The agent too works in order.
        let wait = Wait::most(REVIVAL);
        lock_within(&live.instance.agent, &wait).is_ok_and(|mut agent| {
            agent.disconnect();
            agent.sync(&wait).is_ok()
        })
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

    fn carry_out(&self, command: &Command, token: &EffectToken) -> Result<Reply, PortError> {
        self.busy.carry_out(command, token, || self.dispatch(command, token))
    }

    fn fence(&self, id: CommandId) -> Result<bool, PortError> {
        let kind = self.busy.kind();
        // Everything here waits by leave of the token, which is revoked by now.
        let idle = self.busy.wait_idle(id, GENTLE).is_ok();
        if idle && self.survives(kind) {
            return Ok(true);
        }
        self.put_out()?;
        // What hung on QEMU comes back now. What hangs in the kernel does not, but acts only by leave of its token, and
        // has lost its machine.
        let _ = self.busy.wait_idle(id, GENTLE);
        // A machine that was still in the making when we looked.
        self.put_out()?;
        Ok(false)
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
pub(crate) fn kill_orphan(paths: &Paths) -> Result<(), PortError> {
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
    name.kill(DEATH).map_err(|error| {
        PortError::new(
            FaultKind::Refused,
            format!("QEMU (process {}) of an earlier run is still there and cannot be killed: {error}", name.pid),
        )
    })
}
