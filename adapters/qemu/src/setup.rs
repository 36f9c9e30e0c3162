//! What an adapter is made of: the task, the image, the computer, the directories.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmtask_core::TaskSpec;

use crate::host::Qemu;
use crate::image::Image;
use crate::process::Life;

/// Whether a guest is cloned from a running one or boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// Cloned from a template, which is made first if there is none. Boots if that is not possible.
    #[default]
    Warm,
    /// Boots.
    Cold,
}

/// Everything that a [`QemuVm`](crate::QemuVm) needs to know.
#[derive(Clone)]
pub struct Setup {
    /// The task.
    pub spec: TaskSpec,
    /// What the guest is made of.
    pub image: Image,
    /// The QEMU to use.
    pub qemu: Qemu,
    /// The task's directory. The adapter keeps the machine's files in `vm/` below it, and QEMU's log in `qemu.log`.
    pub dir: PathBuf,
    /// What `files_in.host` is relative to.
    pub inputs: PathBuf,
    /// What `files_out.host` is relative to.
    pub results: PathBuf,
    /// A directory of the user's for what can be made again: templates.
    pub cache: PathBuf,
    /// How guests start.
    pub baseline: Baseline,
    /// Nice 19 and idle I/O, as a guest on somebody's computer should run.
    pub low_priority: bool,
    /// Told of every process started and ended, from any thread. A start and an end are over only once it returns.
    pub on_life: Option<Arc<dyn Fn(Life) + Send + Sync>>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("task", &self.spec.name)
            .field("image", &self.image)
            .field("qemu", &self.qemu)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Setup {
    /// The guest's memory in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        // QEMU and the page-wise formats here want whole pages.
        self.spec.limits.memory.unwrap_or(self.image.memory).next_multiple_of(4096)
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths { dir: self.dir.clone() }
    }
}

/// Where the machine's files are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    dir: PathBuf,
}

impl Paths {
    /// All of the machine's files; [`vmtask_core::Op::Unregister`] removes it.
    pub(crate) fn vm(&self) -> PathBuf {
        self.dir.join("vm")
    }

    /// Sockets, and the name of the process.
    pub(crate) fn run(&self) -> PathBuf {
        self.vm().join("run")
    }

    /// Which process runs, for the next manager.
    pub(crate) fn process(&self) -> PathBuf {
        self.vm().join("process.json")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.vm().join("checkpoints")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.vm().join("disk")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("qemu.log")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}
