//! The commands up to the program's launch, and around it: probing, starting, holding, ending.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vmtask_core::{Base, Boot, FaultKind, Found, Generation, Keep, Power, Program, Reply, Snapshots};
use vmtask_driver::{EffectToken, PortError, RealStorage, kit};
use vmtask_vix_abi::{Function, error_code};

use crate::api::Call;
use crate::checkpoint::{Content, Machine, snapshot_name};
use crate::error::Error;
use crate::fault::{Fault, during, of_its_vm, of_restoring};
use crate::guest::{Guest, GuestError, State, exit};
use crate::home::{self, BASELINE, Origin, tree_fault};
use crate::host::Host;
use crate::live::{Live, Work};
use crate::machine::{PowerState, Vm};
use crate::snapshot::Snapshot;
use crate::vm::{self, VixVm, is_there};
use crate::wait::{Stop, Wait};
use crate::{tree, watch};

/// How long a slice of a long command may take, if its deadline is not before that.
pub(crate) const SLICE: Duration = Duration::from_millis(400);
/// For how long VIX itself waits for Tools before it is asked again: a fence may have to wait for that.
const TOOLS_SECONDS: i32 = 3;

impl VixVm {
    // ---- finding and making ----

    /// Whether there is a VM of this task's.
    pub(crate) fn is_made(&self) -> Result<bool, PortError> {
        // The platform's VM is always there; it is ours from its registration to its end.
        is_there(&self.home.file().unwrap_or_else(|| self.paths.notes().join("ours")))
    }

    pub(crate) fn probe(&self, boot: Boot, token: &EffectToken, wait: Wait<'_>) -> Result<Found, PortError> {
        let listing = self.store.list().map_err(|error| {
            let look_failed = error.during("looking at the checkpoints");
            kit::with_ways_out(look_failed)
        })?;
        let mut found = Found { snapshots: listing.whole, damaged: listing.damaged, ..Found::default() };
        if !self.is_made()? {
            return Ok(found);
        }
        let vm = match self.vm(&wait) {
            Err(error) if error.fault.kind == FaultKind::NotFound => return Ok(found),
            vm => vm?,
        };
        found.registered = true;
        let state = self.steady_state(&vm, &wait)?;
        if state.is_running() {
            found.power = Power::On;
        } else if state.is_paused() || self.is_held(state)? {
            found.power = Power::Paused;
        } else {
            // Suspended by somebody else is as good as off: it is not gone on with.
            return Ok(found);
        }
        let live = match self.any_live() {
            Some(live) => live,
            // A VM that has outlived its manager.
            None => {
                let live = Arc::new(Live::new(boot));
                live.wish().running = found.power == Power::On;
                self.adopt(&live, token)?;
                self.watch_over(&live, &vm);
                live
            }
        };
        if found.power == Power::On {
            found.program = self.look_at_program(&live, &vm, &wait);
        }
        Ok(found)
    }

    /// What the program does, if we are logged in and can tell.
    fn look_at_program(&self, live: &Live, vm: &Vm, wait: &Wait<'_>) -> Program {
        let Ok(work) = live.work(wait) else { return Program::Unknown };
        if !work.logged_in {
            return Program::Unknown;
        }
        let fetched = self.paths.fetched();
        let looked = self.guest(vm, &fetched).look(wait);
        drop(work);
        match looked.map(|status| status.state) {
            Err(error) => {
                tracing::debug!(%error, "the program could not be looked at");
                Program::Unknown
            }
            // A program whose supervisor is gone will never be heard of again: to the core it is not there.
            Ok(State::NotStarted | State::Lost) => Program::NotStarted,
            Ok(State::Running) => {
                live.launched.store(true, Ordering::SeqCst);
                Program::Running
            }
            Ok(State::Exited(status)) => Program::Exited(status),
        }
    }

    /// The power state, once it is no longer changing.
    fn steady_state(&self, vm: &Vm, wait: &Wait<'_>) -> Result<PowerState, PortError> {
        let what = format!("looking at {}", vm.path());
        loop {
            let state = vm.power_state().map_err(during(&what))?;
            if !state.is_changing() {
                return Ok(state);
            }
            wait.sleep(Duration::from_millis(50)).map_err(during(&what))?;
        }
    }

    pub(crate) fn register(&self, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        // Whatever can be known to be wrong is said before anything is started.
        for file in &self.setup.spec.files_in {
            let path = self.setup.inputs.join(&file.host);
            crate::files::open_input(&path).map_err(|error| {
                PortError::new(FaultKind::Fatal, format!("the input file {}: {error}", path.display()))
            })?;
        }
        self.make_dirs()?;
        let host = self.host(&wait)?;
        if self.home.origin == Origin::InPlace {
            let note = self.paths.notes().join("ours");
            let part = note.with_extension("part");
            std::fs::write(&part, &self.home.vmx).map_err(during("noting the virtual machine"))?;
            token.act(|| std::fs::rename(&part, &note))?.map_err(during("noting the virtual machine"))?;
        } else if !self.is_made()? {
            // It is made when it is provisioned.
            return Ok(());
        }
        host.register(&self.home.vmx, &wait).map_err(during("registering the virtual machine"))?;
        self.vm(&wait).map(drop)
    }

    fn make_dirs(&self) -> Result<(), PortError> {
        self.store.make_dir().map_err(during(format!("making {}", self.paths.checkpoints().display())))?;
        let notes = self.paths.notes();
        std::fs::create_dir_all(&notes).map_err(during(format!("making {}", notes.display())))
    }

    /// Brings the guest into its first state; whether it runs then.
    pub(crate) fn provision(
        &self,
        boot: Boot,
        base: Base,
        token: &EffectToken,
        wait: Wait<'_>,
    ) -> Result<bool, PortError> {
        let provisioned = self.bring_up(boot, base, token, wait);
        if base == Base::Baseline { provisioned } else { provisioned.map_err(kit::with_ways_out) }
    }

    fn bring_up(&self, boot: Boot, base: Base, token: &EffectToken, wait: Wait<'_>) -> Result<bool, PortError> {
        self.make_dirs()?;
        let host = self.host(&wait)?;
        // What there is belongs to an earlier boot, or to an earlier try.
        if self.is_made()?
            && let Ok(vm) = self.vm(&wait)
        {
            self.put_out(&vm, &wait.share(20))?;
        }
        token.act(|| tree::unlink(&self.note_held()))?.map_err(during("forgetting an earlier boot"))?;
        let state = match (base, self.home.snapshots) {
            (Base::Baseline, Snapshots::ByCopy) => {
                self.make_anew(&host, &wait)?;
                self.steady_state(&self.vm(&wait)?, &wait)?
            }
            (Base::Baseline, _) => self.revert_to_baseline(&host, &wait)?,
            (Base::Checkpoint(generation), _) => self.restore(&host, generation, &wait)?,
        };
        let live = Arc::new(Live::new(boot));
        if base != Base::Baseline {
            // A checkpoint is taken of a program that runs.
            live.launched.store(true, Ordering::SeqCst);
            live.work(&wait).map_err(during("restoring"))?.clock_is_late = true;
        }
        live.wish().running = state.is_running();
        self.adopt(&live, token)?;
        if state.is_running() {
            self.watch_over(&live, &self.vm(&wait)?);
        }
        Ok(state.is_running())
    }

    /// The task's VM, made from the platform's and known to the product.
    fn make_anew(&self, host: &Host, wait: &Wait<'_>) -> Result<Vm, PortError> {
        self.close_vm();
        let vmx = &self.home.vmx;
        forget(host, vmx, wait).map_err(during(format!("unregistering {vmx}")))?;
        home::make(&self.setup, &self.home, host, wait)?;
        host.register(vmx, wait).map_err(during(format!("registering {vmx}")))?;
        self.vm(wait)
    }

    fn revert_to_baseline(&self, host: &Host, wait: &Wait<'_>) -> Result<PowerState, PortError> {
        let what = "reverting to the baseline";
        if !self.is_made()? {
            self.must_hold_no_checkpoint(what, "is gone")?;
            let vm = self.make_anew(host, wait)?;
            let state = self.steady_state(&vm, wait)?;
            if self.home.snapshots == Snapshots::Many {
                vm.snapshot(BASELINE, "As it was made", false, wait).map_err(during(what))?;
            }
            return Ok(state);
        }
        let vm = self.vm(wait)?;
        let baseline = match self.home.origin {
            // As in the paper: the snapshot that was taken when the image was made.
            Origin::InPlace => vm.root_snapshot(0),
            _ => vm.named_snapshot(BASELINE),
        };
        let baseline = match baseline {
            // Nobody has written down what a VM without snapshots answers.
            Err(error)
                if self.home.origin == Origin::InPlace
                    && (error.is(error_code::SNAPSHOT_NOTFOUND) || error.is(error_code::INVALID_ARG)) =>
            {
                let text = format!(
                    "{what}: {} has no snapshot to begin every task with; shut its guest down and take one",
                    vm.path()
                );
                return Err(PortError::new(FaultKind::Fatal, text));
            }
            // Half-made: once more from the platform's.
            Err(error) if error.is(error_code::SNAPSHOT_NOTFOUND) => {
                self.must_hold_no_checkpoint(what, &format!("has no snapshot {BASELINE}"))?;
                drop(vm);
                self.discard(wait)?;
                return self.revert_to_baseline(host, wait);
            }
            found => found.map_err(during(what))?,
        };
        vm.revert(&baseline, wait).map_err(during(what))?;
        self.steady_state(&vm, wait)
    }

    /// What is left of a VM is deleted when it is made anew, with the snapshots in it.
    fn must_hold_no_checkpoint(&self, what: &str, why: &str) -> Result<(), PortError> {
        let manifests = self.store.manifests().map_err(during(what))?;
        let held = manifests.iter().find(|manifest| matches!(manifest.kept.content, Content::Snapshot(_)));
        held.map_or(Ok(()), |manifest| {
            let text = format!(
                "{what}: {} {why}, and the virtual machine cannot be made anew while checkpoint {} is in it; put back what \
                 is missing, or begin anew with `vmtask run --start-over`",
                self.home.vmx,
                manifest.generation()
            );
            Err(PortError::new(FaultKind::Refused, text))
        })
    }

    fn restore(&self, host: &Host, generation: Generation, wait: &Wait<'_>) -> Result<PowerState, PortError> {
        let what = format!("restoring checkpoint {generation}");
        let manifest = self.store.open(generation, &Machine::of(&self.setup)).map_err(during(&what))?;
        match manifest.kept.content {
            Content::Snapshot(name) => {
                let vm = self.vm(wait).map_err(of_its_vm)?;
                let snapshot = vm.named_snapshot(&name).map_err(|error| of_restoring(&error, &what))?;
                vm.revert(&snapshot, wait).map_err(|error| of_its_vm(of_restoring(&error, &what)))?;
                self.steady_state(&vm, wait).map_err(of_its_vm)
            }
            Content::Copy(entries) => {
                let Some(dir) = &self.home.dir else {
                    return Err(PortError::new(FaultKind::Fatal, format!("{what}: the task has no VM of its own")));
                };
                let vmx = &self.home.vmx;
                self.close_vm();
                forget(host, vmx, wait).map_err(during(&what)).map_err(of_its_vm)?;
                tree::restore(&self.store.state(generation), &entries, dir, wait)
                    .map_err(|error| tree_fault(&what, &error, wait))?;
                host.register(vmx, wait).map_err(during(&what)).map_err(of_its_vm)?;
                let vm = self.vm(wait).map_err(of_its_vm)?;
                self.steady_state(&vm, wait).map_err(of_its_vm)
            }
        }
    }

    // ---- power ----

    pub(crate) fn power_on(&self, live: &Arc<Live>, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "powering on";
        let vm = self.vm(&wait)?;
        let state = self.steady_state(&vm, &wait)?;
        if !state.is_running() {
            let started = if state.is_paused() { vm.unpause(&wait) } else { vm.power_on(&wait) };
            match started {
                Err(error) if error.is(error_code::VM_IS_RUNNING) => {}
                Err(error) if vm.power_state().is_ok_and(PowerState::is_asking) => {
                    let text = format!(
                        "{what}: {error}; {} waits for an answer in the product's window. Start it there once and \
                         answer, then shut it down",
                        vm.path()
                    );
                    return Err(PortError::new(error.kind(), text));
                }
                // What was suspended is a checkpoint that was copied back.
                Err(error) if state.is_suspended() => return Err(kit::with_ways_out(of_restoring(&error, what))),
                started => started.map_err(during(what))?,
            }
            live.work(&wait).map_err(during(what))?.logged_in = false;
        }
        live.wish().running = true;
        token.act(|| tree::unlink(&self.note_held()))?.map_err(during(what))?;
        self.watch_over(live, &vm);
        Ok(())
    }

    pub(crate) fn switch_off(&self, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        if !self.is_made()? {
            return Ok(());
        }
        let vm = match self.vm(&wait) {
            Err(error) if error.fault.kind == FaultKind::NotFound => return Ok(()),
            vm => vm?,
        };
        self.put_out(&vm, &wait)?;
        // What is suspended now will not be resumed.
        token.act(|| tree::unlink(&self.note_held()))?.map_err(during("powering off"))
    }

    pub(crate) fn pause(&self, live: &Live, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "pausing the guest";
        let vm = self.vm(&wait)?;
        // Nothing may be asked of the guest meanwhile.
        let mut work = live.work(&wait).map_err(during(what))?;
        let state = self.steady_state(&vm, &wait)?;
        if state.is_running() {
            self.hold(&vm, token, &wait).map_err(|error| error_of(error, what))?;
        } else if !(state.is_paused() || self.is_held(state)?) {
            return Err(PortError::new(FaultKind::Unknown, format!("{what}: it is {state}")));
        }
        if !self.is_native() {
            work.logged_in = false;
        }
        work.clock_is_late = true;
        live.wish().running = false;
        Ok(())
    }

    fn is_native(&self) -> bool {
        self.setup.connection.product.has(Function::VmPause)
    }

    fn hold(&self, vm: &Vm, token: &EffectToken, wait: &Wait<'_>) -> Result<(), HoldError> {
        if self.is_native() {
            return Ok(vm.pause(wait)?);
        }
        // First the note: a manager that finds it suspended is to know that it is to go on.
        token.act(|| std::fs::write(self.note_held(), ""))??;
        Ok(vm.suspend(wait)?)
    }

    pub(crate) fn unpause(&self, live: &Live, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "letting the guest run on";
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(what))?;
        let state = self.steady_state(&vm, &wait)?;
        if !state.is_running() {
            let let_go = if state.is_paused() { vm.unpause(&wait) } else { vm.power_on(&wait) };
            match let_go {
                Err(error) if error.is(error_code::VM_IS_RUNNING) => {}
                let_go => let_go.map_err(during(what))?,
            }
        }
        live.wish().running = true;
        token.act(|| tree::unlink(&self.note_held()))?.map_err(during(what))?;
        // Its clock stood still. Where Tools have to be waited for first, the watcher sees to that.
        if work.logged_in
            && let Err(error) = self.session(&mut work, &vm, &wait)
        {
            tracing::debug!(%error, "the guest does not answer yet");
        }
        Ok(())
    }

    // ---- the guest ----

    fn watch_over(&self, live: &Arc<Live>, vm: &Vm) {
        let Some(sink) = self.sink().cloned() else { return };
        let watched = watch::Watched {
            workdir: self.setup.workdir(),
            fetched: self.paths.vm().join("watched"),
            account: self.setup.guest.clone(),
        };
        if let Err(error) = watch::start(live, vm, watched, sink) {
            // The machine probes by itself when it hears nothing.
            tracing::warn!(%error, "no thread to watch the guest");
        }
    }

    pub(crate) fn await_tools(&self, live: &Live, token: &EffectToken, wait: Wait<'_>) -> Result<Reply, PortError> {
        let what = "waiting for Tools";
        let slice = wait.at_most(SLICE);
        let vm = self.vm(&slice)?;
        let Ok(mut work) = live.work(&slice) else {
            return pending_unless_fenced(token, what);
        };
        let job = match work.tools.take() {
            Some(job) => job,
            None => {
                let call = Call::WaitForTools { vm: vm.raw(), seconds: TOOLS_SECONDS };
                vm.start(&call, vm.path(), &slice).map_err(during(what))?
            }
        };
        match job.finish(vm.path(), &slice) {
            Ok(Ok(_)) => Ok(Reply::Done),
            // Not yet.
            Ok(Err(error)) if error.is(error_code::TIMEOUT_WAITING_FOR_TOOLS) => Ok(Reply::Pending),
            Ok(Err(error)) => Err(error.during(what)),
            Err((job, Stop::Timeout)) => {
                work.tools = Some(job);
                Ok(Reply::Pending)
            }
            Err((job, stop)) => {
                vm.strays().keep(job);
                Err(stop.during(what))
            }
        }
    }

    pub(crate) fn log_in(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let what = format!("logging in to the guest as {}", self.setup.guest.user);
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(&what))?;
        vm.log_in(&self.setup.guest, &wait).map_err(during(&what))?;
        work.logged_in = true;
        self.session(&mut work, &vm, &wait).map_err(during(&what))
    }

    /// Makes sure that we are logged in, and that the guest's clock is right.
    pub(crate) fn session(&self, work: &mut Work, vm: &Vm, wait: &Wait<'_>) -> Result<(), Error> {
        let fetched = self.paths.fetched();
        session(work, &self.guest(vm, &fetched), &self.setup.guest, wait)
    }

    pub(crate) fn make_workdir(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "making the working directory in the guest";
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(what))?;
        self.session(&mut work, &vm, &wait).map_err(during(what))?;
        let fetched = self.paths.fetched();
        self.guest(&vm, &fetched).settle_in(&wait).map_err(during(what))
    }

    pub(crate) fn launch(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let program = &self.setup.spec.program;
        let what = format!("launching the program {:?}", program.path);
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(&what))?;
        self.session(&mut work, &vm, &wait).map_err(during(&what))?;
        let fetched = self.paths.fetched();
        self.guest(&vm, &fetched).launch(program, &wait).map_err(|error| {
            let mut fault = error.during(&what);
            if matches!(error.script_code(), Some(exit::NO_FILE)) {
                fault.fault.kind = FaultKind::NotFound;
            } else if matches!(error, GuestError::Vix(_)) && fault.fault.kind == FaultKind::NotFound {
                // It is the shell or the script that is not there, not the program.
                fault.fault.kind = FaultKind::Fatal;
            }
            fault
        })?;
        live.launched.store(true, Ordering::SeqCst);
        Ok(())
    }

    // ---- the end ----

    /// Removes a checkpoint, from the product first of all from our own list.
    pub(crate) fn remove_snapshot(&self, generation: Generation, wait: Wait<'_>) -> Result<(), PortError> {
        self.store.remove(generation, &wait)?;
        if self.home.snapshots != Snapshots::Many || !self.is_made()? {
            return Ok(());
        }
        let what = format!("removing checkpoint {generation}");
        let vm = self.vm(&wait)?;
        let name = snapshot_name(generation);
        remove_named(&vm, &name, &wait).map_err(during(what))
    }

    pub(crate) fn unregister(&self, keep: Keep, token: &EffectToken, wait: Wait<'_>) -> Result<(), PortError> {
        self.switch_off(token, wait.share(40))?;
        if self.is_made()? {
            let host = self.host(&wait)?;
            if keep == Keep::Nothing {
                self.discard(&wait)?;
            }
            self.close_vm();
            let vmx = &self.home.vmx;
            forget(&host, vmx, &wait).map_err(during(format!("unregistering {vmx}")))?;
        }
        self.disconnect();
        let gone = match keep {
            Keep::Nothing => {
                self.store.remove_all(&wait)?;
                vec![self.paths.vm()]
            }
            Keep::Checkpoints => vec![self.paths.notes(), self.paths.fetched(), self.paths.vm().join("watched")],
        };
        gone.iter().try_for_each(|path| kit::remove_tree(&RealStorage, path, &wait))?;
        if keep == Keep::Checkpoints {
            self.store.sweep(&wait);
        }
        Ok(())
    }

    /// Deletes the task's own VM. In the platform's there is nothing of ours.
    fn discard(&self, wait: &Wait<'_>) -> Result<(), PortError> {
        let what = format!("deleting {}", self.home.vmx);
        if self.home.dir.is_some()
            && let Ok(vm) = self.vm(wait)
        {
            match vm.delete(wait) {
                Err(error) if vm::is_gone(&error) => {}
                deleted => deleted.map_err(during(&what))?,
            }
        }
        self.close_vm();
        // What the product has not made itself: it deletes only its own.
        match &self.home.dir {
            Some(dir) => kit::remove_tree(&RealStorage, dir, wait),
            None => Ok(()),
        }
    }
}

/// Makes sure that we are logged in, for a login ends with the power state that it was made in; and sets the guest's clock
/// if it stood still.
pub(crate) fn session(
    work: &mut Work,
    guest: &Guest<'_>,
    account: &vmtask_driver::Credentials,
    wait: &Wait<'_>,
) -> Result<(), Error> {
    let vm = guest.vm;
    while !work.logged_in {
        match vm.wait_for_tools(TOOLS_SECONDS, wait) {
            Err(error) if error.is(error_code::TIMEOUT_WAITING_FOR_TOOLS) && wait.tick().is_ok() => continue,
            came => came?,
        }
        vm.log_in(account, wait)?;
        work.logged_in = true;
    }
    // If it cannot be set now, that is somebody else's trouble: Tools set it, too.
    if std::mem::take(&mut work.clock_is_late)
        && let Err(error) = guest.set_clock(&wait.share(20))
    {
        tracing::debug!(%error, "the guest's clock could not be set");
    }
    Ok(())
}

/// Takes a VM, which is off, out of the inventory. An inventory may still take one for running whose guest has ended by
/// itself; telling it to power off puts that right.
fn forget(host: &Host, vmx: &str, wait: &Wait<'_>) -> Result<(), Error> {
    match host.unregister(vmx, wait) {
        Err(error) if error.is(error_code::VM_IS_RUNNING) => {
            match host.open(vmx, wait)?.power_off(wait) {
                Err(error) if error.is(error_code::VM_NOT_RUNNING) => {}
                told => told?,
            }
            host.unregister(vmx, wait)
        }
        forgotten => forgotten,
    }
}

/// Why a guest could not be held.
enum HoldError {
    Vix(Error),
    Io(std::io::Error),
    Port(PortError),
}

impl From<Error> for HoldError {
    fn from(error: Error) -> Self {
        Self::Vix(error)
    }
}

impl From<std::io::Error> for HoldError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<PortError> for HoldError {
    fn from(error: PortError) -> Self {
        Self::Port(error)
    }
}

fn error_of(error: HoldError, what: &str) -> PortError {
    match error {
        HoldError::Vix(error) => error.during(what),
        HoldError::Io(error) => error.during(what),
        HoldError::Port(error) => error,
    }
}

/// Every snapshot of this name. Names need not be unique, and one that is gone is no error.
pub(crate) fn remove_named(vm: &Vm, name: &str, wait: &Wait<'_>) -> Result<(), Error> {
    let found = match vm.named_snapshot(name) {
        Err(error) if error.is(error_code::SNAPSHOT_NOTFOUND) => return Ok(()),
        Err(error) if error.is(error_code::SNAPSHOT_NONUNIQUE_NAME) => {
            let is_it = |snapshot: &Snapshot| snapshot.name().is_ok_and(|found| found == name);
            vm.snapshots()?.into_iter().filter(is_it).collect()
        }
        found => vec![found?],
    };
    for snapshot in found {
        match vm.remove_snapshot(&snapshot, false, wait) {
            Err(error) if error.is(error_code::SNAPSHOT_NOTFOUND) => {}
            removed => removed?,
        }
    }
    Ok(())
}

pub(crate) fn pending_unless_fenced(token: &EffectToken, what: &str) -> Result<Reply, PortError> {
    if token.is_revoked() {
        return Err(Stop::Fenced.during(what));
    }
    Ok(Reply::Pending)
}
