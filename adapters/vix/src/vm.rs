//! The port: one task's virtual machine under VIX.
//!
//! ```text
//!   carry_out (one thread) --> Op --> a function of `ops`, `files`, `snapshots` --> Vm --> VIX
//!   fence (another thread) --> jobs that were given up: wait for them, power off, wait again
//!   watcher (a thread)     --> power state, the supervisor's status file --> events
//! ```
//! At most one boot is alive. Nothing can cancel a job of VIX, so no command starts while an earlier one's job may still
//! act; only a fence powers off meanwhile.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use vmtask_core::{Capabilities, Command, CommandId, FaultKind, Op, OpKind, Reply};
use vmtask_driver::{EffectToken, EventSink, Hypervisor, PortError, RealStorage, Storage, kit};
use vmtask_vix_abi::{Function, error_code};

use crate::checkpoint::Store;
use crate::error::Error;
use crate::fault::{Fault, during, lost_connection};
use crate::guest::Guest;
use crate::home::{self, Home};
use crate::host::Host;
use crate::live::Live;
use crate::machine::Vm;
use crate::setup::{Paths, Setup, SetupError};
use crate::wait::{Busy, Stop, Wait};

/// How long VIX may take to connect, or to open a VM.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a command waits for an earlier one's job before it says that it could not begin.
const EARLIER: Duration = Duration::from_secs(10);
/// How long a fence waits for a command to come back, and for its jobs to end by themselves.
const GENTLE: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(3) };
/// How long a power-off waits for somebody who is just asking the guest something.
const LOOK: Duration = Duration::from_secs(2);
/// How long a power-off waits for the VM to be off.
pub(crate) const OFF: Duration = Duration::from_secs(12);
/// The same in a fence, whose parts together must stay below the core's half a minute for it.
const OFF_IN_FENCE: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(8) };

/// One virtual machine for one task, under VIX.
pub struct VixVm {
    pub(crate) setup: Setup,
    pub(crate) paths: Paths,
    pub(crate) home: Home,
    pub(crate) store: Store,
    workdir: String,
    sink: OnceLock<EventSink>,
    link: Mutex<Link>,
    live: Mutex<Option<Arc<Live>>>,
    busy: Busy,
}

/// What is open.
#[derive(Default)]
struct Link {
    // First, so that it is closed before its host.
    vm: Option<Vm>,
    host: Option<Host>,
}

impl fmt::Debug for VixVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VixVm").field("setup", &self.setup).field("home", &self.home).finish_non_exhaustive()
    }
}

impl VixVm {
    /// An adapter for one task. Nothing is touched or connected to yet.
    ///
    /// # Errors
    /// If the setup cannot be meant.
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        setup.check()?;
        let paths = Paths::new(&setup.dir);
        Ok(Self {
            home: Home::of(&setup, &paths),
            store: Store::new(paths.checkpoints()),
            workdir: setup.workdir(),
            paths,
            setup,
            sink: OnceLock::new(),
            link: Mutex::default(),
            live: Mutex::new(None),
            busy: Busy::default(),
        })
    }

    /// The path of the task's VM, as VIX names it. For people who look for a VM that was left behind.
    #[must_use]
    pub fn vmx(&self) -> &str {
        &self.home.vmx
    }

    // ---- what is open ----

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, made if there is none.
    pub(crate) fn host(&self, wait: &Wait<'_>) -> Result<Host, PortError> {
        // Not under the lock: the fence must not wait for a host that does not answer.
        if let Some(host) = self.link().host.clone() {
            return Ok(host);
        }
        let wait = wait.at_most(CONNECT);
        let host = self.setup.library.connect(&self.setup.connection, &wait).map_err(during("connecting"))?;
        self.link().host = Some(host.clone());
        Ok(host)
    }

    /// The task's VM, opened if it is not open.
    pub(crate) fn vm(&self, wait: &Wait<'_>) -> Result<Vm, PortError> {
        if let Some(vm) = self.open_vm() {
            return Ok(vm);
        }
        let host = self.host(wait)?;
        let vm = host.open(&self.home.vmx, &wait.at_most(CONNECT)).map_err(during("opening the virtual machine"))?;
        self.link().vm = Some(vm.clone());
        if let Some(live) = self.any_live() {
            live.is_open_as(&vm);
        }
        Ok(vm)
    }

    /// The task's VM, if it is open.
    pub(crate) fn open_vm(&self) -> Option<Vm> {
        self.link().vm.clone()
    }

    /// Closes the VM, so that its files can be replaced.
    pub(crate) fn close_vm(&self) {
        let closed = self.link().vm.take();
        drop(closed);
    }

    /// Closes everything.
    pub(crate) fn disconnect(&self) {
        let closed = std::mem::take(&mut *self.link());
        drop(closed);
    }

    pub(crate) fn guest<'a>(&'a self, vm: &'a Vm, fetched: &'a std::path::Path) -> Guest<'a> {
        Guest { vm, workdir: &self.workdir, fetched }
    }

    // ---- the boot ----

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
    fn live(&self, command: &Command) -> Result<Arc<Live>, PortError> {
        let live = self.slot().as_ref().filter(|live| live.boot == command.boot).map(Arc::clone);
        live.ok_or_else(|| PortError::new(FaultKind::Unknown, format!("{command}: no virtual machine runs")))
    }

    /// Puts a new boot in place, by leave of its command's token.
    pub(crate) fn adopt(&self, live: &Arc<Live>, token: &EffectToken) -> Result<(), PortError> {
        token.act(|| *self.slot() = Some(Arc::clone(live)))
    }

    /// Ends the boot that is alive, and whatever runs of the VM.
    pub(crate) fn put_out(&self, vm: &Vm, wait: &Wait<'_>) -> Result<(), PortError> {
        if let Some(live) = self.slot().take() {
            live.ended.store(true, Ordering::SeqCst);
            // The watcher's look is soon over. A command that was abandoned keeps its own job, and gives it up itself.
            if let Ok(mut work) = live.work(&wait.at_most(LOOK)) {
                work.give_up(vm.strays());
            }
        }
        power_off(vm, wait)
    }

    fn dispatch(&self, command: &Command, token: &EffectToken) -> Result<Reply, PortError> {
        match command.op {
            Op::PowerOff => {}
            // What an earlier command has begun must be over before anything else begins.
            _ => self.settle(token)?,
        }
        match command.op {
            Op::Probe => self.probe(command.boot, token).map(Reply::Found),
            Op::Register => self.register(token).map(|()| Reply::Done),
            Op::Provision(base) => {
                self.provision(command.boot, base, token).map(|running| Reply::Provisioned { running })
            }
            Op::PowerOn => self.power_on(&self.live(command)?, token).map(|()| Reply::Done),
            Op::AwaitTools => self.await_tools(&*self.live(command)?, token),
            Op::LogIn => self.log_in(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::MakeWorkdir => self.make_workdir(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::CopyIn(ix) => self.copy_in(&*self.live(command)?, ix, token),
            Op::Launch => self.launch(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::Pause => self.pause(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::Unpause => self.unpause(&*self.live(command)?, token).map(|()| Reply::Done),
            Op::BeginSnapshot(g) => self.begin_snapshot(&*self.live(command)?, g, token).map(|()| Reply::Done),
            Op::CommitSnapshot(g) => self.commit_snapshot(&*self.live(command)?, g, token),
            Op::RemoveSnapshot(g) => self.remove_snapshot(g, token).map(|()| Reply::Done),
            Op::CopyOut(ix) => self.copy_out(&*self.live(command)?, ix, token),
            Op::PowerOff => self.switch_off(token).map(|()| Reply::Done),
            Op::Unregister(keep) => self.unregister(keep, token).map(|()| Reply::Done),
        }
    }

    fn settle(&self, token: &EffectToken) -> Result<(), PortError> {
        let Some(vm) = self.open_vm() else { return Ok(()) };
        vm.strays().settle(&Wait::command(token, EARLIER)).map_err(|(stop, pending)| {
            let text = format!("{} of an earlier command is not over: {stop}", names(&pending));
            // This command has not begun, but the other may still act.
            PortError::new(FaultKind::Unknown, text)
        })
    }

    // ---- fencing ----

    /// Ends the connection under jobs that nothing else ends (`VixHost_Disconnect` makes all handles of it invalid), and
    /// looks through a new one whether the VM is off.
    fn cut_off(&self, pending: &[Function]) -> Result<(), PortError> {
        let what = format!("ending {}", if pending.is_empty() { "a call".to_owned() } else { names(pending) });
        tracing::warn!(%what, "a job of VIX does not end, although its virtual machine is off: the connection is cut");
        let Link { vm, host } = std::mem::take(&mut *self.link());
        let Some(host) = host else { return Ok(()) };
        // On a thread of its own: nobody has written down that it cannot hang.
        let (done, is_done) = std::sync::mpsc::channel();
        let cutting = std::thread::Builder::new().name("vix-cut".into()).spawn(move || {
            host.cut();
            drop((vm, host));
            let _ = done.send(());
        });
        cutting.map_err(during(&what))?;
        if is_done.recv_timeout(GENTLE).is_err() {
            let text = format!("{what}: it does not end, and neither does the connection; nothing else can cancel it");
            return Err(PortError::new(FaultKind::Unknown, text));
        }
        let state = match self.vm(&Wait::most(GENTLE)) {
            Err(error) if error.fault.kind == FaultKind::NotFound => return Ok(()),
            vm => vm?.power_state().map_err(during(&what))?,
        };
        if state.is_off() || state.is_suspended() {
            return Ok(());
        }
        Err(PortError::new(FaultKind::Unknown, format!("{what}: the virtual machine is {state} again")))
    }

    /// The VM that a command may have acted on, if there is one. A connection that was lost is made again for this.
    fn vm_to_fence(&self) -> Result<Option<Vm>, PortError> {
        if let Some(vm) = self.open_vm() {
            return Ok(Some(vm));
        }
        if !self.is_made()? {
            return Ok(None);
        }
        match self.vm(&Wait::most(GENTLE)) {
            Ok(vm) => Ok(Some(vm)),
            Err(error) if error.fault.kind == FaultKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the VM is as good as before: nothing that was asked of it is still to come.
    fn survives(&self, vm: &Vm, kind: Option<OpKind>) -> bool {
        let Some(live) = self.any_live() else { return false };
        // Half-done, and not to be undone.
        if matches!(kind, Some(OpKind::Provision | OpKind::PowerOn)) {
            return false;
        }
        let Ok(mut work) = live.work(&Wait::most(GENTLE)) else { return false };
        // Half-made transfers and checkpoints are given up; a job of theirs is waited for with the strays.
        work.give_up(vm.strays());
        if vm.strays().settle(&Wait::most(GENTLE)).is_err() {
            return false;
        }
        let Ok(state) = vm.power_state() else { return false };
        let mut wish = live.wish();
        if matches!(kind, Some(OpKind::Pause | OpKind::Unpause)) {
            // Whether it acted shows in the state; its answer was lost before it could be noted.
            wish.running = state.is_running();
        }
        // A login that was good before may not be after whatever happened.
        work.logged_in = false;
        if wish.running { state.is_running() } else { state.is_paused() || self.is_held(state).unwrap_or(false) }
    }

    /// Whether a suspended VM is one that we hold by suspending it.
    pub(crate) fn is_held(&self, state: crate::machine::PowerState) -> Result<bool, PortError> {
        Ok(state.is_suspended() && is_there(&self.note_held())?)
    }

    pub(crate) fn note_held(&self) -> std::path::PathBuf {
        self.paths.notes().join("held")
    }
}

/// Whether there is something of this name, by a look that worked.
pub(crate) fn is_there(path: &std::path::Path) -> Result<bool, PortError> {
    match RealStorage.look(path) {
        Ok(_) => Ok(true),
        Err(error) => kit::prove_absent(&RealStorage, path, error)
            .map(|()| false)
            .map_err(during(format!("looking for {}", path.display()))),
    }
}

impl Hypervisor for VixVm {
    fn name(&self) -> &'static str {
        "vix"
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        let product = self.setup.connection.product;
        // Whatever would keep it from working at all is found out now.
        self.host(&Wait::most(CONNECT))?;
        Ok(home::capabilities_of(product, self.home.dir.is_some()))
    }

    fn watch(&self, events: EventSink) {
        // Called once; a second sink would split the story between two listeners.
        let _ = self.sink.set(events);
    }

    fn carry_out(&self, command: &Command, token: &EffectToken) -> Result<Reply, PortError> {
        self.busy.carry_out(command, token, || {
            let result = self.dispatch(command, token);
            if let Err(error) = &result
                && lost_connection(error.fault.code)
            {
                // The next command connects again.
                self.disconnect();
            }
            result
        })
    }

    fn fence(&self, id: CommandId) -> Result<bool, PortError> {
        let kind = self.busy.kind();
        // Everything here waits by leave of the token, which is revoked by now.
        let idle = self.busy.wait_idle(id, GENTLE);
        let Some(vm) = self.vm_to_fence()? else {
            // There is no VM that it could act on.
            return idle.map(|()| false).map_err(stuck);
        };
        let settled = vm.strays().settle(&Wait::most(GENTLE)).is_ok();
        if idle.is_ok() && settled && self.survives(&vm, kind) {
            return Ok(true);
        }
        // What hangs on the guest ends with it.
        self.put_out(&vm, &Wait::most(OFF_IN_FENCE))?;
        let idle = self.busy.wait_idle(id, GENTLE);
        let pending = match vm.strays().settle(&Wait::most(GENTLE)) {
            Ok(()) => Vec::new(),
            Err((_, pending)) => pending,
        };
        if idle.is_ok() && pending.is_empty() {
            return Ok(false);
        }
        // It is off, and something is still to come: from nobody, once its connection is gone.
        drop(vm);
        self.cut_off(&pending)?;
        self.busy.wait_idle(id, GENTLE).map_err(stuck)?;
        Ok(false)
    }
}

fn stuck(kind: OpKind) -> PortError {
    PortError::new(FaultKind::Unknown, format!("{kind:?} has not come back from VIX, and may still act"))
}

fn names(functions: &[Function]) -> String {
    functions.iter().map(|function| function.name()).collect::<Vec<_>>().join(", ")
}

/// Powers a VM off, whatever it is doing. One that is suspended is off already: nothing of it is in memory.
pub(crate) fn power_off(vm: &Vm, wait: &Wait<'_>) -> Result<(), PortError> {
    let what = format!("powering off {}", vm.path());
    loop {
        // Told even if it seems to be off: a product may still hold a VM whose guest has ended by itself.
        let told = vm.power_off(wait);
        match told {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return Ok(()),
            // It has just gone by itself, or is about to change its state.
            Err(error)
                if error.is(error_code::VM_NOT_RUNNING)
                    || error.is(error_code::OBJECT_IS_BUSY)
                    || error.is(error_code::OPERATION_ALREADY_IN_PROGRESS) => {}
            Err(error) => return Err(error.during(&what)),
        }
        // It takes until its state says so.
        let state = match vm.power_state() {
            Err(error) if is_gone(&error) => return Ok(()),
            state => state.map_err(during(&what))?,
        };
        if (state.is_off() || state.is_suspended()) && !state.is_changing() {
            return Ok(());
        }
        wait.sleep(Duration::from_millis(100)).map_err(|stop: Stop| stop.during(&what))?;
    }
}

/// Whether VIX says that there is no such VM.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(
            error_code::VM_NOT_FOUND
                | error_code::FILE_NOT_FOUND
                | error_code::NOT_FOUND
                | error_code::OBJECT_NOT_FOUND
        )
    )
}
