//! Logging in to the guest.
//!
//! A log-in is kept in the VM's handle: it ends when the handle does, when the client logs out or logs in as somebody
//! else, and with the guest's life. (The 1.13 reference says both that a reboot ends it and that it does not; the
//! stand-in takes the stricter reading, so that a client that works here works with either.)

use std::sync::{Mutex, MutexGuard, PoisonError};

use vmtask_vix_abi::{error_code, login};

use super::power::check_options;
use super::state::{Power, State};
use super::{Result, Vm};
use crate::failure::Failure;
use crate::job::Results;

/// Somebody is logged in.
pub(super) struct Session {
    user: String,
    boot: u64,
}

/// What a mutex guards, whatever became of those who held it.
pub(super) fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vm {
    /// Logs in: `vmtask.guest.user` and `vmtask.guest.password` of the `.vmx` file say who may.
    pub(crate) fn log_in(&self, user: &str, password: &str, options: i32) -> Result<Results> {
        check_options(options, login::REQUIRE_INTERACTIVE_ENVIRONMENT)?;
        let state = self.check_guest()?;
        // A log-in that fails ends the one before.
        *open(&self.session) = None;
        if options & login::REQUIRE_INTERACTIVE_ENVIRONMENT != 0 {
            let why = "nobody sits before the guest's screen".to_owned();
            return Err(Failure::in_guest(error_code::INTERACTIVE_SESSION_NOT_PRESENT, why));
        }
        if password.is_empty() {
            let why = format!("{} lets nobody in without a password", self.name);
            return Err(Failure::in_guest(error_code::EMPTY_PASSWORD_NOT_ALLOWED_IN_GUEST, why));
        }
        let known = self.vmx.get("vmtask.guest.user").zip(self.vmx.get("vmtask.guest.password"));
        if known != Some((user, password)) {
            let why = format!("{} does not let {user:?} in with this password", self.name);
            return Err(Failure::in_guest(error_code::GUEST_USER_PERMISSIONS, why));
        }
        *open(&self.session) = Some(Session { user: user.to_owned(), boot: state.boot });
        Ok(Vec::new())
    }

    /// Logs out. Nobody there: done.
    pub(crate) fn log_out(&self) -> Result<Results> {
        *open(&self.session) = None;
        Ok(Vec::new())
    }

    /// The state of a VM whose guest can be talked to.
    pub(super) fn check_guest(&self) -> Result<State> {
        let state = self.peek()?;
        if !self.vmx_path.is_file() {
            return Err(Failure::new(error_code::VM_NOT_FOUND, format!("{} has been deleted", self.name)));
        }
        match state.power {
            Power::On => {}
            // Nothing in a paused guest can answer.
            Power::Paused => {
                let why = format!("{} is paused", self.name);
                return Err(Failure::new(error_code::TOOLS_NOT_RUNNING, why));
            }
            _ => return Err(self.not_running()),
        }
        if !self.vmx.flag("guest.commands.enabled", true) {
            let why = format!("guest.commands.enabled is FALSE in {}", self.name);
            return Err(Failure::new(error_code::GUEST_OPERATIONS_PROHIBITED, why));
        }
        if !self.has_tools() || !self.guest.tools_running() {
            return Err(Failure::new(error_code::TOOLS_NOT_RUNNING, format!("Tools do not run in {}", self.name)));
        }
        Ok(state)
    }

    /// Who is logged in.
    ///
    /// # Errors
    /// If nobody is, or nobody can be.
    pub(super) fn check_user(&self) -> Result<(String, State)> {
        let state = self.check_guest()?;
        match &*open(&self.session) {
            Some(session) if session.boot == state.boot => Ok((session.user.clone(), state)),
            _ => {
                let why = format!("nobody is logged in to the guest of {}", self.name);
                Err(Failure::new(error_code::ANON_GUEST_OPERATIONS_PROHIBITED, why))
            }
        }
    }
}
