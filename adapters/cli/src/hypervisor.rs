//! Which hypervisor runs a task, and making it.
//!
//! ```text
//!   auto, qemu --> QEMU of this computer + a platform --> qemu::QemuVm, its process in the registry
//!   sim        --> neither                            --> Simulated
//! ```

#[cfg(target_os = "linux")]
mod qemu;
mod simulated;

use std::sync::Arc;

use vmtask_core::TaskSpec;
use vmtask_driver::{Execution, Hypervisor, Platform, TaskDir, TaskFile};

use crate::args::HypervisorChoice;
use crate::doctor::Check;
use crate::error::Error;

/// A hypervisor that has been found, with what it needs to know of the platform.
#[derive(Debug)]
pub(crate) enum Kind {
    #[cfg(target_os = "linux")]
    Qemu(Box<qemu::Kind>),
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
    pub(crate) fn choose(choice: HypervisorChoice, spec: &TaskSpec) -> Result<Self, Error> {
        match choice {
            HypervisorChoice::Sim => Ok(Self::Sim(spec.platform.clone())),
            #[cfg(target_os = "linux")]
            HypervisorChoice::Auto | HypervisorChoice::Qemu => Ok(Self::Qemu(Box::new(qemu::Kind::find(spec)?))),
            #[cfg(not(target_os = "linux"))]
            HypervisorChoice::Auto | HypervisorChoice::Qemu => Err(Error::Hypervisor(
                "there is no hypervisor that vmtask can drive on this operating system yet; `--hypervisor sim` shows a \
                 simulated run"
                    .into(),
            )),
        }
    }

    /// As the adapter calls itself.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(_) => "qemu",
            Self::Sim(_) => "simulated",
        }
    }

    pub(crate) const fn is_simulated(&self) -> bool {
        matches!(self, Self::Sim(_))
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.describe(),
            Self::Sim(_) => "the simulator".to_owned(),
        }
    }

    /// What the program runs on.
    pub(crate) fn platform(&self) -> Platform {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.platform(),
            Self::Sim(name) => Platform { name: name.clone(), fingerprint: String::new() },
        }
    }

    /// How it runs.
    pub(crate) fn execution(&self) -> Execution {
        match self {
            #[cfg(target_os = "linux")]
            Self::Qemu(kind) => kind.execution(),
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
            Self::Sim(_) => Ok(Arc::new(simulated::Simulated::new(place)?)),
        }
    }
}

/// What this computer has to run virtual machines with.
pub(crate) fn examine() -> Vec<Check> {
    #[cfg(target_os = "linux")]
    return qemu::examine();
    #[cfg(not(target_os = "linux"))]
    return vec![Check::missing("hypervisor", "none that vmtask can drive on this operating system", "use Linux")];
}
