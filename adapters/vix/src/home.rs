//! Where the task's own virtual machine is, and how it comes to be.
//!
//! ```text
//!   Workstation              linked clone of the platform's VM (snapshot vmtask-baseline)  --> vm/machine/x.vmx
//!   Player, Fusion           copy of its files                                             --> vm/machine/x.vmx
//!   Server 2, local store    copy of its files in the datastore, registered                --> [store] vmtask-.../x.vmx
//!   Server 2 elsewhere       the platform's own VM, reverted to its root snapshot, as in the paper
//! ```

use std::io;
use std::path::{Path, PathBuf};

use vmtask_core::{Capabilities, FaultKind, Pause, Snapshots, TaskSpec};
use vmtask_driver::{Digest, PortError, RealStorage, kit};
use vmtask_vix_abi::{Function, Product, error_code};

use crate::error::Error;
use crate::fault::{Fault, during};
use crate::host::Host;
use crate::machine::{CloneKind, Vm};
use crate::setup::{Paths, Setup, datastore_path, file_name};
use crate::snapshot::Snapshot;
use crate::tree::{self, TreeError};
use crate::wait::Wait;

/// The snapshot that every task begins with.
pub(crate) const BASELINE: &str = "vmtask-baseline";
const DESCRIPTION: &str = "The platform as if no task had ever run in it (vmtask)";

/// Where the task's VM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// As VIX names it.
    pub(crate) vmx: String,
    /// Its own directory; `None` if it is the platform's VM itself.
    pub(crate) dir: Option<PathBuf>,
    /// How checkpoints are kept.
    pub(crate) snapshots: Snapshots,
    /// How it is made.
    pub(crate) origin: Origin,
}

/// How a task's VM comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    LinkedClone,
    Copy,
    InPlace,
}

impl Home {
    pub(crate) fn of(setup: &Setup, paths: &Paths) -> Self {
        let product = setup.connection.product;
        let name = file_name(&setup.vm);
        let (vmx, dir) = match (datastore_path(&setup.vm), &setup.datastore) {
            (None, _) => {
                let dir = paths.vm().join("machine");
                (dir.join(name).to_string_lossy().into_owned(), Some(dir))
            }
            (Some((store, _)), Some(local)) => {
                let own = unique_name(&setup.spec, paths.dir());
                (format!("[{store}] {own}/{name}"), Some(local.join(own)))
            }
            (Some(_), None) => (setup.vm.clone(), None),
        };
        let origin = match dir {
            None => Origin::InPlace,
            Some(_) if product.has(Function::VmClone) => Origin::LinkedClone,
            Some(_) => Origin::Copy,
        };
        let snapshots = capabilities_of(product, dir.is_some()).snapshots;
        Self { vmx, dir, snapshots, origin }
    }

    /// Its configuration file on this computer, if it has one of its own.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(file_name(&self.vmx)))
    }

    /// The platform's directory on this computer.
    pub(crate) fn platform_dir(setup: &Setup) -> Option<PathBuf> {
        let file = match (datastore_path(&setup.vm), &setup.datastore) {
            (None, _) => PathBuf::from(&setup.vm),
            (Some((_, path)), Some(local)) => local.join(path),
            (Some(_), None) => return None,
        };
        file.parent().map(Path::to_owned)
    }
}

/// A directory in a datastore, which all tasks of this computer share.
fn unique_name(spec: &TaskSpec, dir: &Path) -> String {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let short: String = Digest::of(dir.to_string_lossy().as_bytes()).to_string().chars().take(8).collect();
    format!("vmtask-{}-{short}", spec.name)
}

/// Makes the task's VM anew, from the platform's. Nothing of it is open.
pub(crate) fn make(setup: &Setup, home: &Home, host: &Host, wait: &Wait<'_>) -> Result<(), PortError> {
    let Some(dir) = &home.dir else { return Ok(()) };
    kit::remove_tree(&RealStorage, dir, wait)?;
    let platform = host.open(&setup.vm, wait).or_else(|error| {
        // An inventory knows only what was registered.
        if !host.product().has_inventory() {
            return Err(error);
        }
        host.register(&setup.vm, wait)?;
        host.open(&setup.vm, wait)
    });
    let platform = platform.map_err(|error| platform_fault(setup, &error))?;
    match home.origin {
        Origin::LinkedClone => clone(setup, &platform, home, wait)?,
        Origin::Copy => copy(setup, &platform, dir, wait)?,
        Origin::InPlace => {}
    }
    drop(platform);
    if let Some(file) = home.file() {
        configure(&file, &setup.spec).map_err(during(format!("writing {}", file.display())))?;
    }
    Ok(())
}

fn platform_fault(setup: &Setup, error: &Error) -> PortError {
    let mut fault = error.during(&format!("preparing a virtual machine from {}", setup.vm));
    if fault.fault.kind == FaultKind::NotFound {
        // To the core this would mean something else.
        fault.fault.kind = FaultKind::Fatal;
    }
    fault
}

fn clone(setup: &Setup, platform: &Vm, home: &Home, wait: &Wait<'_>) -> Result<(), PortError> {
    let baseline = baseline_of(setup, platform, wait)?;
    if let Some(dir) = &home.dir {
        // The directory itself is the clone's to make.
        let _ = std::fs::create_dir_all(dir.parent().unwrap_or(dir));
    }
    let cloned = platform.clone_to(Some(&baseline), CloneKind::Linked, &home.vmx, wait);
    cloned.map(drop).map_err(|error| platform_fault(setup, &error))
}

/// The snapshot of the platform's VM that clones are made from. Made once, while it is off.
fn baseline_of(setup: &Setup, platform: &Vm, wait: &Wait<'_>) -> Result<Snapshot, PortError> {
    let found = match platform.named_snapshot(BASELINE) {
        Err(error) if error.is(error_code::SNAPSHOT_NOTFOUND) => {
            must_be_off(platform, &format!("taking the snapshot {BASELINE} of {}", setup.vm))?;
            platform.snapshot(BASELINE, DESCRIPTION, false, wait)
        }
        // Two tasks have made it at the same time: they are equal.
        Err(error) if error.is(error_code::SNAPSHOT_NONUNIQUE_NAME) => {
            let named = |snapshot: &Snapshot| snapshot.name().is_ok_and(|name| name == BASELINE);
            platform.snapshots().and_then(|all| all.into_iter().find(named).ok_or(error))
        }
        found => found,
    };
    found.map_err(|error| platform_fault(setup, &error))
}

/// Whoever uses it goes on changing what is on its disks.
fn must_be_off(platform: &Vm, what: &str) -> Result<(), PortError> {
    let state = platform.power_state().map_err(during(what))?;
    if state.is_off() {
        return Ok(());
    }
    Err(PortError::new(FaultKind::Fatal, format!("{what}: it is {state}; shut it down, and run the task again")))
}

fn copy(setup: &Setup, platform: &Vm, dir: &Path, wait: &Wait<'_>) -> Result<(), PortError> {
    let what = format!("copying {}", setup.vm);
    must_be_off(platform, &what)?;
    let from = Home::platform_dir(setup)
        .ok_or_else(|| PortError::new(FaultKind::Fatal, format!("{what}: its files are not on this computer")))?;
    tree::copy(&from, dir, wait).map_err(|error| tree_fault(&what, &error, wait))
}

/// What it means that a tree could not be copied or restored.
pub(crate) fn tree_fault(what: &str, error: &TreeError, wait: &Wait<'_>) -> PortError {
    let kind = match error {
        TreeError::Io { source, .. } => Fault::kind(source),
        TreeError::Damaged { .. } => FaultKind::Damaged,
        TreeError::Remove(error) => error.fault.kind,
        TreeError::Stopped => {
            return wait.tick().err().map_or_else(
                || PortError::new(FaultKind::Unknown, format!("{what}: {error}")),
                |stop| stop.during(what),
            );
        }
    };
    PortError::new(kind, format!("{what}: {error}"))
}

/// Settings of a task's VM: its own identity, the task's limits, and nobody there to answer questions.
fn configure(file: &Path, spec: &TaskSpec) -> io::Result<()> {
    let text = std::fs::read(file)?;
    let text = String::from_utf8_lossy(&text);
    let mut settings = vec![
        ("uuid.action", "create".to_owned()),
        ("msg.autoAnswer", "TRUE".to_owned()),
        ("displayName", format!("vmtask {}", spec.name)),
        ("numvcpus", spec.limits.cpus.to_string()),
    ];
    if let Some(memory) = spec.limits.memory {
        // In MiB, and a multiple of 4, or the product refuses.
        settings.push(("memsize", (memory >> 20).next_multiple_of(4).to_string()));
    }
    std::fs::write(file, with_settings(&text, &settings))
}

/// A `.vmx` file with these settings instead of those of the same name.
fn with_settings(text: &str, settings: &[(&str, String)]) -> String {
    let is_set = |line: &&str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        settings.iter().any(|(name, _)| name.eq_ignore_ascii_case(key))
    };
    let mut lines: Vec<String> = text.lines().filter(|line| !is_set(line)).map(str::to_owned).collect();
    lines.extend(settings.iter().map(|(name, value)| format!("{name} = \"{value}\"")));
    lines.join("\n") + "\n"
}

/// What a product can do for tasks. `local`: its virtual machines' files are on this computer, as they always are but for
/// a server's without [`Setup::datastore`]. Needs no library.
#[must_use]
pub const fn capabilities_of(product: Product, local: bool) -> Capabilities {
    Capabilities {
        linked_clones: local && product.has(Function::VmClone),
        // A VM whose files are not here is the platform's own, which other tasks use as well.
        snapshots: if !local {
            Snapshots::None
        } else if product.many_snapshots() {
            Snapshots::Many
        } else {
            Snapshots::ByCopy
        },
        pause: if product.has(Function::VmPause) { Pause::Native } else { Pause::BySuspend },
        guest_login: true,
        outlives_manager: true,
        // The working directory is on the VM's own disk, whose size is the platform's.
        disk: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Product::Workstation, Snapshots::Many)]
    #[case(Product::WorkstationShared, Snapshots::Many)]
    #[case(Product::VSphere, Snapshots::Many)]
    #[case(Product::Server2, Snapshots::ByCopy)]
    fn in_a_machine_that_others_use_as_well_there_are_no_checkpoints(#[case] product: Product, #[case] own: Snapshots) {
        assert_eq!(capabilities_of(product, true).snapshots, own);
        assert_eq!(capabilities_of(product, false).snapshots, Snapshots::None);
    }

    #[test]
    fn settings_replace_those_of_the_same_name_whatever_their_case() {
        let text = ".encoding = \"UTF-8\"\nDisplayName = \"linux\"\nmemsize=\"128\"\nscsi0.present = \"TRUE\"\n";
        let settings = [("displayName", "vmtask a".to_owned()), ("memsize", "256".to_owned())];
        assert_eq!(
            with_settings(text, &settings),
            ".encoding = \"UTF-8\"\nscsi0.present = \"TRUE\"\ndisplayName = \"vmtask a\"\nmemsize = \"256\"\n"
        );
    }
}
