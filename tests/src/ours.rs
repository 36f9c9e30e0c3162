//! Our own adapter and driver within a test's process: what `vmtask run` puts together, with a hand on every part.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmtask_core::TaskSpec;
use vmtask_driver::{Driver, JournalFile, Loaded, RealStorage, Setup as DriverSetup, TaskId};
use vmtask_platform::Personality;
use vmtask_qemu::host::{Accel, Choice, Qemu};
use vmtask_qemu::{Baseline, Image, QemuVm, Setup};

/// A task's directories.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory with platforms and templates.
    pub data: PathBuf,
    /// The task's own.
    pub dir: PathBuf,
}

impl Place {
    /// A place in this directory, with platforms and templates from that data directory.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(data: &Path, dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("results")).expect("make a task's directory");
        Self { data: data.to_owned(), dir: dir.to_owned() }
    }

    /// Our adapter for this task. Inputs are named by absolute paths.
    ///
    /// # Panics
    /// If the platform or QEMU is not there.
    #[must_use]
    pub fn qemu(&self, spec: &TaskSpec, baseline: Baseline) -> Arc<QemuVm> {
        let cache = self.data.join("cache");
        self.with_qemu(Qemu::find(Choice::Forced(Accel::Tcg), Some(&cache)).expect("QEMU"), spec, baseline)
    }

    /// The same under this QEMU.
    ///
    /// # Panics
    /// If the platform is not there.
    #[must_use]
    pub fn with_qemu(&self, qemu: Qemu, spec: &TaskSpec, baseline: Baseline) -> Arc<QemuVm> {
        let dirs = [vmtask_platform::platforms_dir(&self.data)];
        let platform = vmtask_platform::find(&spec.platform, &dirs).expect("the platform");
        let definition = platform.definition();
        let image = Image {
            kernel: platform.kernel(),
            initrd: platform.root(),
            cmdline: definition.qemu.command_line.clone(),
            machine: definition.qemu.machine.clone(),
            cpu: definition.qemu.cpu.clone(),
            memory: u64::from(definition.guest.memory_mib) << 20,
            linux32: definition.guest.personality == Personality::Linux32,
            fingerprint: definition.compute_fingerprint(definition.guest.memory_mib, spec.limits.cpus.into()),
        };
        let cache = self.data.join("cache");
        let setup = Setup {
            spec: spec.clone(),
            image,
            qemu,
            dir: self.dir.clone(),
            inputs: PathBuf::new(),
            results: self.dir.join("results"),
            cache,
            baseline,
            low_priority: false,
            on_life: None,
        };
        Arc::new(QemuVm::new(setup).expect("a pinned machine"))
    }

    /// The task's journal.
    ///
    /// # Panics
    /// If it is damaged.
    #[must_use]
    pub fn journal(&self) -> (JournalFile, Option<Loaded>) {
        JournalFile::open(Arc::new(RealStorage), &self.dir, TaskId::new("test")).expect("the journal")
    }

    /// A driver that goes on from what the journal says.
    ///
    /// # Panics
    /// If the task cannot be driven.
    #[must_use]
    pub fn driver(&self, vm: Arc<dyn vmtask_driver::Hypervisor>, spec: &TaskSpec) -> Driver {
        let (journal, loaded) = self.journal();
        let setup = DriverSetup::new(vm, spec, Box::new(journal)).with_record(loaded.map(|loaded| loaded.record));
        setup.build().expect("a driver")
    }
}
