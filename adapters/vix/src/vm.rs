//! The port: one task's virtual machine under VIX.
//!
//! ```text
//!   carry_out (one thread) --> Op --> a function of `ops`, `files`, `snapshots` --> Vm --> VIX
//!   fence (another thread) --> `fence`: jobs that were given up: wait for them, power off, wait again
//!   watcher (a thread)     --> power state, the supervisor's status file --> events
//! ```
//! At most one boot is alive. Nothing can cancel a job of VIX, so no command starts while an earlier one's job may still
//! act; only a fence powers off meanwhile.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use vmtask_core::{Capabilities, Command, CommandId, FaultKind, Op, OpKind, Reply};
use vmtask_driver::{EffectToken, EventSink, Fenced, Hypervisor, PortError, RealStorage, Storage, kit};
use vmtask_vix_abi::{Function, error_code};

use crate::checkpoint::Store;
use crate::error::Error;
use crate::fault::{Fault, during, lost_connection};
use crate::fence::{self, Fencing};
use crate::guest::Guest;
use crate::home::{self, Home};
use crate::host::Host;
use crate::live::Live;
use crate::machine::Vm;
use crate::setup::{Paths, Setup, SetupError};
use crate::wait::{Busy, Part, Stop, Wait};

/// How long VIX may take to say what a product can do, before anything is begun.
const CONNECT: Duration = Duration::from_secs(20);

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
        let host = self.setup.library.connect(&self.setup.connection, wait).map_err(during("connecting"))?;
        self.link().host = Some(host.clone());
        Ok(host)
    }

    /// The task's VM, opened if it is not open.
    pub(crate) fn vm(&self, wait: &Wait<'_>) -> Result<Vm, PortError> {
        if let Some(vm) = self.open_vm() {
            return Ok(vm);
        }
        let host = self.host(wait)?;
        let vm = host.open(&self.home.vmx, wait).map_err(during("opening the virtual machine"))?;
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
            if let Ok(mut work) = live.work(&wait.share(20)) {
                work.give_up(vm.strays());
            }
        }
        power_off(vm, wait)
    }

    fn dispatch(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        let wait = Wait::command(token, deadline);
        match command.op {
            Op::PowerOff => {}
            // What an earlier command has begun must be over before anything else begins.
            _ => self.settle(&wait.share(33))?,
        }
        match command.op {
            Op::Probe => self.probe(command.boot, token, wait).map(Reply::Found),
            Op::Register => self.register(token, wait).map(|()| Reply::Done),
            Op::Provision(base) => {
                self.provision(command.boot, base, token, wait).map(|running| Reply::Provisioned { running })
            }
            Op::PowerOn => self.power_on(&self.live(command)?, token, wait).map(|()| Reply::Done),
            Op::AwaitTools => self.await_tools(&*self.live(command)?, token, wait),
            Op::LogIn => self.log_in(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::MakeWorkdir => self.make_workdir(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::CopyIn(ix) => self.copy_in(&*self.live(command)?, ix, wait),
            Op::Launch => self.launch(&*self.live(command)?, wait).map(|()| Reply::Done),
            Op::Pause => self.pause(&*self.live(command)?, token, wait).map(|()| Reply::Done),
            Op::Unpause => self.unpause(&*self.live(command)?, token, wait).map(|()| Reply::Done),
            Op::BeginSnapshot(g) => self.begin_snapshot(&*self.live(command)?, g, wait).map(|()| Reply::Done),
            Op::CommitSnapshot(g) => self.commit_snapshot(&*self.live(command)?, g, token, wait),
            Op::RemoveSnapshot(g) => self.remove_snapshot(g, wait).map(|()| Reply::Done),
            Op::CopyOut(ix) => self.copy_out(&*self.live(command)?, ix, token, wait),
            Op::PowerOff => self.switch_off(token, wait).map(|()| Reply::Done),
            Op::Unregister(keep) => self.unregister(keep, token, wait).map(|()| Reply::Done),
        }
    }

    fn settle(&self, wait: &Wait<'_>) -> Result<(), PortError> {
        let Some(vm) = self.open_vm() else { return Ok(()) };
        vm.strays().settle(wait).map_err(|(stop, pending)| {
            let text = format!("{} of an earlier command is not over: {stop}", names(&pending));
            // This command has not begun, but the other may still act.
            PortError::new(FaultKind::Unknown, text)
        })
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

    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        self.busy.carry_out(command, token, || {
            let result = self.dispatch(command, deadline, token);
            if let Err(error) = &result
                && lost_connection(error.fault.code)
            {
                // The next command connects again.
                self.disconnect();
            }
            result
        })
    }

    fn fence(&self, id: CommandId, deadline: Instant) -> Result<Fenced, PortError> {
        let parts = fence::SHARES.of(Instant::now(), deadline);
        fence::fence(&Fence { machine: self, id, kind: self.busy.kind() }, parts)
    }
}

/// A fence about a command and all before it. Everything that they wait for is waited for by leave of their tokens, which
/// are revoked by now.
struct Fence<'a> {
    machine: &'a VixVm,
    id: CommandId,
    /// What was being carried out when it began.
    kind: Option<OpKind>,
}

impl Fencing for Fence<'_> {
    type Vm = Vm;

    fn comes_back(&self, part: Part) -> Result<(), PortError> {
        self.machine.busy.wait_idle(self.id, part.own(Instant::now())).map_err(stuck)
    }

    fn vm(&self, part: Part) -> Result<Option<Vm>, PortError> {
        if let Some(vm) = self.machine.open_vm() {
            return Ok(Some(vm));
        }
        if !self.machine.is_made()? {
            return Ok(None);
        }
        match self.machine.vm(&Wait::until(part.end())) {
            Ok(vm) => Ok(Some(vm)),
            Err(error) if error.fault.kind == FaultKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn settle(&self, part: Part) -> Vec<Function> {
        let Some(host) = self.machine.link().host.clone() else { return Vec::new() };
        host.strays().settle(&Wait::until(part.own(Instant::now()))).err().map_or_else(Vec::new, |(_, pending)| pending)
    }

    fn survives(&self, vm: &Vm, part: Part) -> bool {
        let wait = Wait::until(part.own(Instant::now()));
        let Some(live) = self.machine.any_live() else { return false };
        // Half-done, and not to be undone.
        if matches!(self.kind, Some(OpKind::Provision | OpKind::PowerOn)) {
            return false;
        }
        let Ok(mut work) = live.work(&wait) else { return false };
        // Half-made transfers and checkpoints are given up; a job of theirs is waited for with the strays.
        work.give_up(vm.strays());
        if vm.strays().settle(&wait).is_err() {
            return false;
        }
        let Ok(state) = vm.power_state() else { return false };
        let mut wish = live.wish();
        if matches!(self.kind, Some(OpKind::Pause | OpKind::Unpause)) {
            // Whether it acted shows in the state; its answer was lost before it could be noted.
            wish.running = state.is_running();
        }
        // A login that was good before may not be after whatever happened.
        work.logged_in = false;
        if wish.running {
            state.is_running()
        } else {
            state.is_paused() || self.machine.is_held(state).unwrap_or(false)
        }
    }

    fn put_out(&self, vm: &Vm, part: Part) -> Result<(), PortError> {
        self.machine.put_out(vm, &Wait::until(part.end()))
    }

    fn cut(&self, vm: Option<Vm>, pending: &[Function], part: Part) -> Result<(), PortError> {
        let what = ending(pending);
        tracing::warn!(%what, "a job of VIX does not end, although its virtual machine is off: the connection is cut");
        let open = std::mem::take(&mut *self.machine.link());
        // On a thread of its own: nobody has written down that it cannot hang.
        let (done, is_done) = std::sync::mpsc::channel();
        let cutting = std::thread::Builder::new().name("vix-cut".into()).spawn(move || {
            if let Some(host) = &open.host {
                host.cut();
            }
            drop((open, vm));
            let _ = done.send(());
        });
        cutting.map_err(during(&what))?;
        if is_done.recv_timeout(part.end().saturating_duration_since(Instant::now())).is_err() {
            let text = format!("{what}: it does not end, and neither does the connection; nothing else can cancel it");
            return Err(PortError::new(FaultKind::Unknown, text));
        }
        Ok(())
    }

    fn is_off(&self, pending: &[Function], part: Part) -> Result<(), PortError> {
        let what = ending(pending);
        let state = match self.machine.vm(&Wait::until(part.end())) {
            Err(error) if error.fault.kind == FaultKind::NotFound => return Ok(()),
            vm => vm?.power_state().map_err(during(&what))?,
        };
        if state.is_off() || state.is_suspended() {
            return Ok(());
        }
        Err(PortError::new(FaultKind::Unknown, format!("{what}: the virtual machine is {state} again")))
    }
}

fn ending(pending: &[Function]) -> String {
    format!("ending {}", if pending.is_empty() { "a call".to_owned() } else { names(pending) })
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
