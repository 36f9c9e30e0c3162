//! Which hypervisor runs a task, and making it.
//!
//! ```text
//!   auto, qemu --> QEMU of this computer + a platform --> qemu::QemuVm, its process in the registry
//!   vix        --> VMware's library and a product, a prepared virtual machine as the platform --> VixVm
//!   sim        --> neither                            --> Simulated
//! ```

#[cfg(target_os = "linux")]
mod qemu;
mod registered;
mod simulated;
mod vix;

use std::sync::Arc;

use vmtask_core::TaskSpec;
use vmtask_driver::{Execution, Hypervisor, Platform, TaskDir, TaskFile};

use crate::args::HypervisorChoice;
use crate::args::vix::VixArgs;
use crate::doctor::Check;
use crate::error::Error;

/// A hypervisor that has been found, with what it needs to know of the platform.
#[derive(Debug)]
pub(crate) enum Kind {
    #[cfg(target_os = "linux")]
    Qemu(Box<qemu::Kind>),
    Vix(Box<vix::Kind>),
    /// The platform's name; it need not be there.
    Sim(String),
}

/// A task and where it is.
pub(crate) struct Place<'a> {
    pub(crate) file: &'a TaskFile,
    pub(crate) dir: &'a TaskDir,
}

impl Kind {
    /// Finds what was asked for. `auto` never means the simulator.
    ///
    /// # Errors
    /// If it, or the platform, is not there.
    pub(crate) fn choose(choice: HypervisorChoice, vix: &VixArgs, spec: &TaskSpec) -> Result<Self, Error> {
        if choice != HypervisorChoice::Vix
            && let Some(flag) = vix.given()
        {
            return Err(Error::Usage(format!("{flag} is for --hypervisor vix; add that, or leave {flag} away")));
        }
        match choice {
            HypervisorChoice::Vix => Ok(Self::Vix(Box::new(vix::Kind::find(vix, spec)?))),
            HypervisorChoice::Sim => Ok(Self::Sim(spec.platform.clone())),
            #[cfg(target_os = "linux")]
            HypervisorChoice::Auto | HypervisorChoice::Qemu => Ok(Self::Qemu(Box::new(qemu::Kind::find(spec)?))),
            #[cfg(not(target_os = "linux"))]
            HypervisorChoice::Auto | HypervisorChoice::Qemu => Err(Error::Hypervisor(
                "vmtask cannot drive QEMU on this operating system; use `--hypervisor vix` with a product of VMware's, or \
                 `--hypervisor sim` to see a simulated run"
                    .into(),
            )),
        }
    }

    /// As the adapter calls itself.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(_) => "qemu",
            Self::Vix(_) => "vix",
            Self::Sim(_) => "simulated",
        }
    }

    /// What is not real about it, if it is not: said in the first and the last line of a run.
    pub(crate) fn simulated(&self) -> Option<&'static str> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(_) => None,
            Self::Vix(kind) => kind.simulated(),
            Self::Sim(_) => Some("there is no virtual machine and nothing is computed"),
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.describe(),
            Self::Vix(kind) => kind.describe(),
            Self::Sim(_) => "the simulator".to_owned(),
        }
    }

    /// What the program runs on.
    pub(crate) fn platform(&self) -> Platform {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.platform(),
            Self::Vix(kind) => kind.platform(),
            Self::Sim(name) => Platform { name: name.clone(), fingerprint: String::new() },
        }
    }

    /// How it runs.
    pub(crate) fn execution(&self) -> Execution {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.execution(),
            Self::Vix(kind) => kind.execution(),
            Self::Sim(_) => {
                Execution { hypervisor: self.name().to_owned(), simulated: true, accelerator: None, build: None }
            }
        }
    }

    /// The guest's memory in bytes, if there is a guest.
    pub(crate) fn memory(&self) -> Option<u64> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => Some(kind.memory()),
            Self::Vix(kind) => kind.memory(),
            Self::Sim(_) => None,
        }
    }

    /// The hypervisor for one task.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn make(&self, place: &Place<'_>) -> Result<Arc<dyn Hypervisor>, Error> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.make(place),
            Self::Vix(kind) => kind.make(place),
            Self::Sim(_) => Ok(Arc::new(simulated::Simulated::new(place)?)),
        }
    }
}

/// What this computer has to run virtual machines with.
pub(crate) fn examine() -> Vec<Check> {
    #[cfg(target_os = "linux")]
    let mut checks = qemu::examine();
    #[cfg(not(target_os = "linux"))]
    let mut checks = Vec::new();
    checks.extend(vix::examine());
    checks
}
