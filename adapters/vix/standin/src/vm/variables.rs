//! Variables: of the guest (`guestinfo`), of the configuration while the VM runs, of the guest's environment.

use std::collections::BTreeMap;

use vmtask_vix_abi::{error_code, property, variable};

use super::guest_files::done;
use super::power::check_options;
use super::{Power, Result, State, Vm};
use crate::failure::Failure;
use crate::job::Results;
use crate::property::Properties;

impl Vm {
    /// What was written; else what the guest's Tools report as `ip`, what its programs begin with, or what the `.vmx`
    /// file says. What nobody knows is empty.
    pub(crate) fn read_variable(&self, kind: i32, name: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let value = match kind {
            variable::VM_GUEST_VARIABLE => {
                let written = self.lock_on()?.guest_variables.get(name).cloned();
                if written.is_none() && name == "ip" { self.address()? } else { written }
            }
            variable::VM_CONFIG_RUNTIME_ONLY => {
                let written = self.lock_on()?.config_variables.get(name).cloned();
                written.or_else(|| self.vmx.get(name).filter(|_| !is_secret(name)).map(str::to_owned))
            }
            variable::GUEST_ENVIRONMENT_VARIABLE => {
                let (user, state) = self.check_user()?;
                self.environment(&user, state).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
            }
            _ => return Err(no_kind(kind)),
        };
        let value = value.unwrap_or_default();
        Ok(vec![Properties::default().text(property::JOB_RESULT_VM_VARIABLE_STRING, value)])
    }

    pub(crate) fn write_variable(&self, kind: i32, name: &str, value: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        // VIX 1.13 reference, `VixVM_WriteVariable`.
        let has_slash = kind == variable::VM_GUEST_VARIABLE && name.contains('/');
        if name.is_empty() || name.contains('=') || has_slash {
            return Err(Failure::new(error_code::INVALID_ARG, format!("{name:?} is no name for a variable")));
        }
        if kind == variable::GUEST_ENVIRONMENT_VARIABLE {
            let (user, _) = self.check_user()?;
            if user != "root" {
                let why = format!("{user:?} may not change the guest's environment: only root may");
                return Err(Failure::in_guest(error_code::GUEST_USER_PERMISSIONS, why));
            }
        }
        let mut vm = self.lock_on()?;
        let variables = match kind {
            variable::VM_GUEST_VARIABLE => &mut vm.guest_variables,
            variable::VM_CONFIG_RUNTIME_ONLY => &mut vm.config_variables,
            variable::GUEST_ENVIRONMENT_VARIABLE => &mut vm.environment,
            _ => return Err(no_kind(kind)),
        };
        variables.insert(name.to_owned(), value.to_owned());
        vm.commit().map(done)
    }

    /// A user's environment in the guest: what programs begin with, and what was written over that.
    pub(super) fn environment(&self, user: &str, state: State) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> = self.guest.environment(user).into_iter().collect();
        all.extend(state.environment);
        all.into_iter().collect()
    }

    /// Known while Tools run.
    fn address(&self) -> Result<Option<String>> {
        let reports = self.peek()?.power == Power::On && self.has_tools() && self.guest.tools_running();
        Ok(if reports { self.guest.address() } else { None })
    }

    /// Variables live while the VM runs.
    fn lock_on(&self) -> Result<super::Locked<'_>> {
        let vm = self.lock()?;
        match vm.power.is_running() {
            true => Ok(vm),
            false => Err(self.not_running()),
        }
    }
}

/// The stand-in keeps the guest's password where VMware keeps none: it is not for reading.
fn is_secret(name: &str) -> bool {
    name.to_ascii_lowercase().contains("password")
}

fn no_kind(kind: i32) -> Failure {
    Failure::new(error_code::INVALID_ARG, format!("there is no variable of the type {kind}"))
}
