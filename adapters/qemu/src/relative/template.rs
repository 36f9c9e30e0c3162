//! The template's memory that a guest was cloned from: what its checkpoints are relative to.
//!
//! ```text
//!   cache/templates/KEY/ram  ----hard link---->  vm/checkpoints/0123456789abcdef.template     the first digits of its hash
//! ```
//! The cache may be cleared, and a template made anew is another one. So before the first checkpoint that needs it, the
//! template gets a second name in the task's own directory (or is copied there, if that is on another file system), and
//! keeps it as long as there is a manifest that names its hash.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD};
use vmtask_core::Generation;
use vmtask_driver::kit::{self, CheckpointError};
use vmtask_driver::{Digest, RealStorage, Storage};

use super::thin::Template;
use crate::checkpoint::Store;
use crate::durable;
use crate::ram::{self, Loaded, RamError};
use crate::wait::Wait;

const TEMPLATE: &str = ".template";
const PART: &str = ".template-part";

/// The memory that a running guest was cloned from.
pub(crate) struct BaseMemory {
    /// As it was before the guest ran. Sealed: nobody can change it.
    memory: File,
    /// What it was loaded from.
    image: File,
    loaded: Loaded,
    /// Where the task's checkpoints are.
    dir: PathBuf,
    pinned: AtomicBool,
}

impl BaseMemory {
    /// `memory`, which was `loaded` from `image`, for a task with its checkpoints in `dir`.
    ///
    /// # Errors
    /// If the memory cannot be sealed.
    pub(crate) fn new(memory: File, image: File, loaded: Loaded, dir: PathBuf) -> io::Result<Self> {
        ram::seal(&memory)?;
        Ok(Self { memory, image, loaded, dir, pinned: AtomicBool::new(false) })
    }

    pub(super) fn template(&self) -> Template<'_> {
        Template { memory: &self.memory, held: &self.loaded.held }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.loaded.digest
    }

    /// Makes sure that checkpoints which name the template find it, even after a loss of power. Their directory is there.
    ///
    /// # Errors
    /// If the template cannot be linked or copied there.
    pub(crate) fn pin(&self) -> io::Result<()> {
        if self.pinned.load(Ordering::Relaxed) {
            return Ok(());
        }
        let place = place(&self.dir, self.digest());
        // A file of that name which is not the very one was not looked into, as this one was: it is replaced.
        if !self.is_at(&place)? {
            let part = place.with_extension(&PART[1..]);
            durable::gone(std::fs::remove_file(&part))?;
            self.link(&part).or_else(|_| self.copy(&part))?;
            std::fs::rename(&part, &place)?;
        }
        // The one that is there may have got its name a moment before the power failed.
        durable::sync_dir(&self.dir)?;
        self.pinned.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn is_at(&self, place: &Path) -> io::Result<bool> {
        let here = self.image.metadata()?;
        match std::fs::symlink_metadata(place) {
            Ok(there) => Ok((there.dev(), there.ino()) == (here.dev(), here.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refused from one file system to another, and by those that know no links. The template was flushed when it was made.
    fn link(&self, to: &Path) -> io::Result<()> {
        // Not by its name in the cache, where there may be another one by now.
        let open = format!("/proc/self/fd/{}", self.image.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, open, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn copy(&self, to: &Path) -> io::Result<()> {
        let mut copy = File::create_new(to)?;
        // With a position of its own.
        let mut image = File::open(format!("/proc/self/fd/{}", self.image.as_raw_fd()))?;
        io::copy(&mut image, &mut copy)?;
        copy.sync_all()
    }
}

/// Where the template of this hash is, for checkpoints in `dir`.
pub(crate) fn place(dir: &Path, template: Digest) -> PathBuf {
    dir.join(format!("{}{TEMPLATE}", template.short()))
}

/// The template of a checkpoint, not looked into yet.
pub(crate) struct Pinned {
    image: File,
    path: PathBuf,
    generation: Generation,
    digest: Digest,
    dir: PathBuf,
}

impl Pinned {
    /// The template that checkpoint `generation` in `dir` names.
    ///
    /// # Errors
    /// If it is not there or cannot be opened.
    pub(crate) fn open(dir: &Path, generation: Generation, digest: Digest) -> Result<Self, CheckpointError> {
        let path = place(dir, digest);
        match File::open(&path) {
            Ok(image) => Ok(Self { image, path, generation, digest, dir: dir.to_owned() }),
            Err(error) => match kit::prove_absent(&RealStorage, &path, error) {
                Ok(()) => {
                    let what = format!("its template {} is not there", path.display());
                    Err(CheckpointError::Damaged { generation, what })
                }
                Err(source) => Err(CheckpointError::Unreadable { path, source }),
            },
        }
    }

    /// Fills `memory`, which is empty, with it.
    ///
    /// # Errors
    /// If it cannot be read, is not what was written, or is another one.
    pub(crate) fn load(mut self, memory: File) -> Result<BaseMemory, CheckpointError> {
        let damaged = |what: String| {
            let what = format!("its template {}: {what}", self.path.display());
            CheckpointError::Damaged { generation: self.generation, what }
        };
        let unreadable = |source| CheckpointError::Unreadable { path: self.path.clone(), source };
        let loaded = ram::load(&mut self.image, &memory).map_err(|error| match error {
            RamError::Damaged(_) => damaged(error.to_string()),
            RamError::Io { source, .. } => unreadable(source),
        })?;
        if loaded.digest != self.digest {
            let found = loaded.digest;
            return Err(damaged(format!("it is {found}, and the checkpoint was made with {}", self.digest)));
        }
        BaseMemory::new(memory, self.image, loaded, self.dir)
            .map_err(|source| CheckpointError::Unreadable { path: self.path, source })
    }
}

/// Removes the templates in `dir` that neither a checkpoint there nor the guest (`in_use`) needs. None goes as long as a
/// manifest cannot be read.
pub(crate) fn sweep(store: &Store, dir: &Path, in_use: Option<Digest>, wait: &Wait<'_>) {
    let Ok(names) = RealStorage.entries(dir) else { return };
    let is_ours =
        |name: &&std::ffi::OsString| name.to_str().is_some_and(|name| name.ends_with(TEMPLATE) || name.ends_with(PART));
    let mut found = names.iter().filter(is_ours).map(|name| dir.join(name)).peekable();
    if found.peek().is_none() {
        return;
    }
    let manifests = match store.manifests() {
        Ok(manifests) => manifests,
        Err(error) => {
            tracing::warn!(%error, "no template is removed");
            return;
        }
    };
    let needed = manifests.iter().filter_map(|manifest| manifest.kept.form.template()).chain(in_use);
    let needed: Vec<PathBuf> = needed.map(|digest| place(dir, digest)).collect();
    for path in found.filter(|path| !needed.contains(path)) {
        if let Err(error) = kit::remove_tree(&RealStorage, &path, wait) {
            tracing::warn!(%error, "a template that no checkpoint needs stays for now");
        }
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
