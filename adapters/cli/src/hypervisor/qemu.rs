//! QEMU: which one, on which platform, for which task.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytesize::ByteSize;
use vmtask_core::TaskSpec;
use vmtask_driver::{Execution, Hypervisor, NewEntry, Reap, Registry};
use vmtask_platform::{self as platform, Platform};
use vmtask_qemu::host::{self, Accel, Choice, Qemu};
use vmtask_qemu::{Baseline, Image, Life, QemuVm, Setup};

use super::Place;
use crate::doctor::Check;
use crate::error::Error;
use crate::host::packages::{Need, System};

/// QEMU, and the platform of one task.
#[derive(Debug)]
pub(crate) struct Kind {
    qemu: Qemu,
    platform: Platform,
    /// In MiB: what the fingerprint counts in.
    memory: u32,
    cpus: u8,
}

const MIB: u64 = 1 << 20;

impl Kind {
    /// Finds QEMU and the task's platform.
    ///
    /// # Errors
    /// If either is not there, or not usable.
    pub(crate) fn find(spec: &TaskSpec) -> Result<Self, Error> {
        let platform = platform::find(&spec.platform, &[crate::platform::store()?])?;
        let qemu = find_qemu()?;
        // A task's memory is rounded up to what the fingerprint counts in, so that equal fingerprints mean equal machines.
        let asked = spec.limits.memory.map(|bytes| u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX));
        let memory = asked.unwrap_or(platform.definition().guest.memory_mib);
        Ok(Self { qemu, platform, memory, cpus: spec.limits.cpus })
    }

    pub(crate) fn describe(&self) -> String {
        format!("QEMU {} ({})", self.qemu.version, spoken(self.qemu.accel))
    }

    pub(crate) fn platform(&self) -> vmtask_driver::Platform {
        let fingerprint = self.platform.definition().compute_fingerprint(self.memory, self.cpus.into());
        vmtask_driver::Platform { name: self.platform.name().to_owned(), fingerprint }
    }

    pub(crate) fn execution(&self) -> Execution {
        Execution {
            hypervisor: "qemu".to_owned(),
            simulated: false,
            accelerator: Some(self.qemu.accel.name().to_owned()),
            build: Some(self.qemu.build.clone()),
        }
    }

    pub(crate) fn memory(&self) -> u64 {
        u64::from(self.memory) * MIB
    }

    pub(crate) fn make(&self, place: &Place<'_>) -> Result<Arc<dyn Hypervisor>, Error> {
        // QEMU works in another directory than we do.
        let dir = std::path::absolute(place.dir.root()).map_err(Error::io("find", place.dir.root()))?;
        let cache = cache()?;
        if place.file.spec().limits.disk.is_some() {
            // The template's disk is in the cache, and the task's is above it.
            [&dir, &cache].into_iter().try_for_each(|dir| speakable(dir))?;
        }
        let spec = place.file.spec().with(|task| task.limits.memory = Some(self.memory()));
        let spec = spec.map_err(|error| Error::Hypervisor(error.to_string()))?;
        let setup = Setup {
            on_life: Some(registered(&spec.name, place.dir.root())?),
            spec,
            image: Image::of(&self.platform, self.memory, self.cpus),
            qemu: self.qemu.clone(),
            dir,
            // Empty for a task file in the current directory: then inputs are relative to that, as they should be.
            inputs: place.file.path().parent().unwrap_or(Path::new("")).to_owned(),
            results: place.dir.results(),
            cache,
            baseline: Baseline::Warm,
            low_priority: true,
        };
        let vm = QemuVm::new(setup).map_err(|error| Error::Hypervisor(error.to_string()))?;
        Ok(Arc::new(vm))
    }
}

/// QEMU is told of a disk's files in JSON, whose text is Unicode.
fn speakable(dir: &Path) -> Result<(), Error> {
    match dir.to_str() {
        Some(_) => Ok(()),
        None => Err(Error::Directory(format!(
            "QEMU cannot have a disk (limits.disk) in {dir:?}, whose name is no UTF-8 text; name another directory with \
             --dir, or set VMTASK_DATA_DIR"
        ))),
    }
}

fn find_qemu() -> Result<Qemu, Error> {
    let cache = cache()?;
    std::fs::create_dir_all(&cache).map_err(Error::io("make", &cache))?;
    let choice = Choice::from_env().map_err(|error| Error::Hypervisor(error.to_string()))?;
    Qemu::find(choice, Some(&cache)).map_err(|error| Error::Hypervisor(error.to_string()))
}

fn cache() -> Result<PathBuf, Error> {
    Ok(platform::data_dir()?.join("cache"))
}

/// Announces the task in the registry, clears up behind managers that are gone, and keeps the entry up to date.
fn registered(task: &str, dir: &Path) -> Result<Arc<dyn Fn(Life) + Send + Sync>, Error> {
    let registry = Registry::open(&platform::data_dir()?)?;
    let reaped = registry.reap(Reap::Orphans)?;
    for (entry, why) in &reaped.left {
        tracing::warn!(task = entry.task, dir = %entry.dir.display(), why, "a virtual machine without a manager stays");
    }
    let new = NewEntry { task, dir, hypervisor: "qemu", outlives_manager: false, keeper: None };
    let registration = Mutex::new(registry.register(&new)?);
    Ok(Arc::new(move |life| {
        let mut registration = registration.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match life {
            Life::Started(process) => registration.set_vm(process.pid),
            Life::Ended(_) => registration.clear_vm(),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the registry of virtual machines");
        }
    }))
}

const fn spoken(accel: Accel) -> &'static str {
    match accel {
        Accel::Tcg => "software emulation",
        Accel::Kvm => "KVM",
    }
}

/// What this computer has to run virtual machines with.
pub(crate) fn examine() -> Vec<Check> {
    let choice = match Choice::from_env() {
        Ok(choice) => choice,
        Err(error) => return vec![Check::missing("accelerator", error.to_string(), "unset VMTASK_ACCEL")],
    };
    let findings = host::examine(choice);
    let system = System::here();
    let mut checks = Vec::new();
    match &findings.qemu {
        Ok(qemu) => {
            checks.push(Check::good("QEMU", format!("{} ({})", qemu.build, qemu.program.display())));
            checks.push(accelerator(choice, qemu.accel));
            checks.push(match &qemu.img {
                Some(img) => Check::good("qemu-img", img.display().to_string()),
                None => {
                    Check::lacking("qemu-img", "not there; tasks with a disk need it", system.line(&[Need::QemuImg]))
                }
            });
        }
        Err(error) => checks.push(Check::missing("QEMU", error.to_string(), system.line(&[Need::Qemu, Need::QemuImg]))),
    }
    checks.push(match findings.background_snapshots {
        Ok(()) => Check::good("checkpoints", "hold the guest for milliseconds (userfaultfd is allowed)"),
        Err(error) => Check::lacking("checkpoints", error.to_string(), "sudo sysctl vm.unprivileged_userfaultfd=1"),
    });
    checks.extend(findings.memory_available.map(memory));
    checks
}

/// What the smallest guest and its QEMU need.
const MEMORY: u64 = 384 * MIB;

fn memory(available: u64) -> Check {
    let found = format!("{} available", ByteSize(available));
    if available >= MEMORY {
        Check::good("memory", found)
    } else {
        Check::missing("memory", found, format!("end other programs; {} are needed", ByteSize(MEMORY)))
    }
}

fn accelerator(choice: Choice, accel: Accel) -> Check {
    const WHAT: &str = "accelerator";
    match (choice, accel) {
        (_, Accel::Kvm) => Check::good(WHAT, spoken(accel)),
        (Choice::Forced(_), Accel::Tcg) => {
            Check::lacking(WHAT, "software emulation, as VMTASK_ACCEL says", "unset VMTASK_ACCEL to use what there is")
        }
        (Choice::Auto, Accel::Tcg) if !Path::new("/dev/kvm").exists() => Check::lacking(
            WHAT,
            "software emulation: there is no /dev/kvm",
            "switch hardware virtualisation on in the firmware (or, in a virtual machine, nesting), then modprobe kvm",
        ),
        (Choice::Auto, Accel::Tcg) => Check::lacking(
            WHAT,
            "software emulation: /dev/kvm is there, but QEMU does not start with it",
            "sudo usermod -aG kvm $USER, then log in again",
        ),
    }
}
