//! Power. The state on disk is changed before and after the guest's own change, so that a client's death in between is
//! seen by the next one.

use std::time::Duration;

use vmtask_vix_abi::{Function, error_code, power_op};

use super::state::Power;
use super::{Locked, Result, Vm};
use crate::failure::Failure;
use crate::job::{Context, Results};

impl Vm {
    /// Starts or resumes. If it fails, nothing runs: the VM is off, or suspended again.
    pub(crate) fn power_on(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        let legal = power_op::LAUNCH_GUI | power_op::SUPPRESS_SNAPSHOT_POWERON | power_op::START_VM_PAUSED;
        check_options(options, legal)?;
        self.check_window(options)?;
        if options & power_op::START_VM_PAUSED != 0 && !self.host.product().has(Function::VmUnpause) {
            let why = format!("{} pauses no VM, and starts none paused", self.host.product());
            return Err(Failure::new(error_code::NOT_SUPPORTED, why));
        }
        let mut vm = self.lock()?;
        if vm.power.is_running() {
            return Err(Failure::new(error_code::VM_IS_RUNNING, format!("{} is running", self.name)));
        }
        self.finish_revert(&mut vm)?;
        self.check_parent(&vm)?;
        let resumed = vm.power == Power::Suspended;
        vm.power = if resumed { Power::Resuming } else { Power::PoweringOn };
        vm.boot += 1;
        vm.commit()?;
        context.act.halfway();
        let kept = vm.suspension_kept;
        if let Err(failure) = self.begin(&mut vm, resumed, options) {
            self.take_back(&mut vm, resumed)?;
            vm.suspension_kept = kept && vm.power == Power::Suspended;
            vm.commit()?;
            return Err(failure);
        }
        drop(vm);
        crate::host::note_powered_on(&self.vmx_path);
        Ok(Vec::new())
    }

    /// What makes a VM run that is said to be powering on, or resuming.
    fn begin(&self, vm: &mut Locked<'_>, resumed: bool, options: i32) -> Result<()> {
        let begun = if resumed { self.guest.resume() } else { self.guest.power_on() };
        begun?;
        vm.power = Power::On;
        vm.suspension_kept = false;
        vm.commit()?;
        if vm.sharing {
            self.guest.share(&vm.shares)?;
        }
        if options & power_op::START_VM_PAUSED != 0 {
            self.hold(vm)?;
        }
        Ok(())
    }

    /// Undoes a beginning that failed. A guest that was suspended, and does run, is suspended again: only where that
    /// fails too is its memory given up.
    fn take_back(&self, vm: &mut Locked<'_>, resumed: bool) -> Result<()> {
        // A resume that failed in the guest has left what it would have gone on with.
        let is_up = vm.power.is_running();
        vm.power = match resumed && (!is_up || self.guest.suspend().is_ok()) {
            true => Power::Suspended,
            false => {
                self.guest.power_off()?;
                vm.state.forget_run();
                Power::Off
            }
        };
        Ok(())
    }

    /// A window that shows an encrypted VM is not supported (VIX 1.13 reference, `VixVM_PowerOn`).
    pub(super) fn check_window(&self, options: i32) -> Result<()> {
        if options & power_op::LAUNCH_GUI == 0 || self.vmx.get("vmtask.encryption.password").is_none() {
            return Ok(());
        }
        let why = format!("{} is encrypted: it is powered on without VIX_VMPOWEROP_LAUNCH_GUI", self.name);
        Err(Failure::new(error_code::NOT_SUPPORTED, why))
    }

    /// Cuts the power, or (`FROM_GUEST`) shuts the guest down.
    pub(crate) fn power_off(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        check_options(options, power_op::FROM_GUEST)?;
        if matches!(self.peek()?.power, Power::Off | Power::Suspended) {
            return Err(self.not_running());
        }
        if options & power_op::FROM_GUEST == 0 {
            // A guest that answers nothing can be switched off all the same.
            self.guest.give_up_waiting();
        }
        let mut vm = self.lock()?;
        context.act.halfway();
        if options & power_op::FROM_GUEST != 0 {
            self.check_tools(&vm)?;
            self.guest.shut_down()?;
        } else {
            self.guest.power_off()?;
        }
        vm.power = Power::Off;
        vm.state.forget_run();
        vm.commit()?;
        Ok(Vec::new())
    }

    /// Boots anew.
    pub(crate) fn reset(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        check_options(options, power_op::FROM_GUEST)?;
        let mut vm = self.lock_running()?;
        if options & power_op::FROM_GUEST != 0 {
            self.check_tools(&vm)?;
        }
        vm.power = Power::PoweringOn;
        vm.boot += 1;
        vm.state.forget_run();
        vm.commit()?;
        context.act.halfway();
        self.guest.reset()?;
        vm.power = Power::On;
        vm.commit()?;
        Ok(Vec::new())
    }

    /// Keeps the guest on disk.
    pub(crate) fn suspend(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        check_options(options, power_op::FROM_GUEST)?;
        let mut vm = self.lock_running()?;
        let before = vm.power;
        vm.power = Power::Suspending;
        vm.commit()?;
        context.act.halfway();
        if let Err(failure) = self.guest.suspend() {
            vm.power = before;
            vm.commit()?;
            return Err(failure);
        }
        vm.power = Power::Suspended;
        vm.suspension_kept = false;
        vm.commit()?;
        Ok(Vec::new())
    }

    /// Stops the guest where it is. Twice is as good as once.
    pub(crate) fn pause(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let mut vm = self.lock_running()?;
        context.act.halfway();
        self.hold(&mut vm)?;
        Ok(Vec::new())
    }

    /// Lets the guest run on.
    pub(crate) fn unpause(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let mut vm = self.lock_running()?;
        context.act.halfway();
        if vm.power == Power::Paused {
            self.guest.unpause()?;
            vm.power = Power::On;
            vm.commit()?;
        }
        Ok(Vec::new())
    }

    /// The state first: a guest that runs though it is said to be paused does less harm than one that stands still
    /// though it is said to run.
    fn hold(&self, vm: &mut Locked<'_>) -> Result<()> {
        if vm.power == Power::On {
            vm.power = Power::Paused;
            vm.commit()?;
            if let Err(failure) = self.guest.pause() {
                vm.power = Power::On;
                vm.commit()?;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// The state of a VM that is on or paused.
    fn lock_running(&self) -> Result<Locked<'_>> {
        let vm = self.lock()?;
        match vm.power.is_running() {
            true => Ok(vm),
            false => Err(self.not_running()),
        }
    }

    pub(super) fn not_running(&self) -> Failure {
        Failure::new(error_code::VM_NOT_RUNNING, format!("{} is not running", self.name))
    }

    /// Tools carry out what is asked of the guest's operating system.
    fn check_tools(&self, vm: &Locked<'_>) -> Result<()> {
        if vm.power == Power::On && self.has_tools() && self.guest.tools_running() {
            return Ok(());
        }
        let why = format!("Tools do not run (yet) in {}", self.name);
        Err(Failure::new(error_code::POWEROP_SCRIPTS_NOT_AVAILABLE, why))
    }

    pub(super) fn has_tools(&self) -> bool {
        self.vmx.flag("vmtask.tools", true)
    }

    /// Waits until Tools run. `seconds` of 0 or less: for as long as it takes.
    pub(crate) fn wait_for_tools(&self, context: &Context<'_>, seconds: i32) -> Result<Results> {
        let limit = u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs);
        let found = context.poll(limit, || {
            let state = self.peek()?;
            if !state.power.is_running() {
                return Err(self.not_running());
            }
            let here = self.has_tools() && !context.act.never();
            Ok((here && state.power == Power::On && self.guest.tools_running()).then_some(state.boot))
        })?;
        let boot = found.ok_or_else(|| {
            let why = format!("Tools did not come up in {} within {seconds} s", self.name);
            Failure::new(error_code::TIMEOUT_WAITING_FOR_TOOLS, why)
        })?;
        *super::session::open(&self.tools_seen) = Some(boot);
        Ok(Vec::new())
    }
}

/// Bits that have no meaning for a call are a mistake of the client.
pub(super) fn check_options(options: i32, legal: i32) -> Result<()> {
    match options & !legal {
        0 => Ok(()),
        bad => Err(Failure::new(error_code::INVALID_ARG, format!("the option {bad:#x} has no meaning here"))),
    }
}
