//! A task's checkpoints on disk: what makes one count is its manifest.
//!
//! ```text
//!   7.part        the state being written, a file or a directory       7.manifest   the manifest being written
//!   7.ram, or 7   the state, flushed, then renamed                     7.json       the manifest, last of all
//! ```
//! What has to survive a loss of power goes through [`Storage`], so that a test can take away whatever was not flushed.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmtask_core::{FaultKind, Generation, Generations};

use crate::kit::error::{CheckpointError, Flaw, io_kind};
use crate::kit::manifest::{Kept, Manifest};
use crate::kit::remove::remove_tree;
use crate::port::PortError;
use crate::storage::{Access, RealStorage, Storage, ignore_missing, parent};
use crate::wait::Wait;

const MANIFEST: &str = "json";
const MANIFEST_PART: &str = "manifest";
const PART: &str = "part";

/// The checkpoints of one task, each with what a hypervisor keeps of it.
///
/// All that changes files may be called from one thread at a time, as the commands of a task are.
#[derive(Clone, Debug)]
pub struct Checkpoints<K> {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    kept: PhantomData<fn() -> K>,
}

/// What a look at all checkpoints has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those that are whole by their manifest and the size of their state; the newest, if there are many.
    pub whole: Generations,
    /// Those that are proven not to be what was written.
    pub damaged: Generations,
}

/// What a name in the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Manifest,
    State,
    /// Something that was being written.
    Part,
}

impl<K: Kept> Checkpoints<K> {
    /// The checkpoints in this directory, which need not be there yet.
    pub fn new(dir: PathBuf) -> Self {
        Self::on(dir, Arc::new(RealStorage))
    }

    /// The same, on storage that a test has in hand.
    pub fn on(dir: PathBuf, storage: Arc<dyn Storage>) -> Self {
        Self { dir, storage, kept: PhantomData }
    }

    fn file(&self, generation: Generation, kind: &str) -> PathBuf {
        self.dir.join(format!("{generation}.{kind}"))
    }

    /// Where a checkpoint's state is.
    pub fn state(&self, generation: Generation) -> PathBuf {
        K::STATE.map_or_else(|| self.dir.join(generation.to_string()), |kind| self.file(generation, kind))
    }

    /// Where a checkpoint's state is while it is being written.
    pub fn part(&self, generation: Generation) -> PathBuf {
        self.file(generation, PART)
    }

    /// Where a checkpoint's manifest is while it is being written. Space that is reserved there is kept for it.
    pub fn manifest_part(&self, generation: Generation) -> PathBuf {
        self.file(generation, MANIFEST_PART)
    }

    // ---- looking ----

    /// What there is. What is in a state is compared with its manifest only when it is used.
    ///
    /// # Errors
    /// [`CheckpointError::Unreadable`] if anything could not be looked at: then nothing is known of any of them.
    pub fn list(&self) -> Result<Listing, CheckpointError> {
        let mut listing = Listing::default();
        for generation in self.generations()? {
            match self.read(generation) {
                // What cannot be loaded here is whole all the same.
                Ok(_) | Err(CheckpointError::Incompatible { .. }) => drop(listing.whole.insert(generation)),
                // Removed since the directory was listed.
                Err(CheckpointError::Missing(_)) => {}
                Err(error @ CheckpointError::Damaged { .. }) => {
                    tracing::warn!(%error, "it is set aside");
                    listing.damaged.insert(generation);
                }
                Err(error @ CheckpointError::Unreadable { .. }) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// The manifests of all checkpoints but those whose manifest is itself proven damaged: what they speak of must stay,
    /// whether their state is whole or not.
    ///
    /// # Errors
    /// If any other could not be read. What is not known to be superfluous must then be taken for needed.
    pub fn manifests(&self) -> Result<Vec<Manifest<K>>, CheckpointError> {
        let mut manifests = Vec::new();
        for generation in self.generations()? {
            match self.read_manifest(generation) {
                Ok(manifest) => manifests.push(manifest),
                Err(CheckpointError::Missing(_) | CheckpointError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(manifests)
    }

    /// All that have a manifest, whatever it says.
    ///
    /// # Errors
    /// If the directory could not be listed. One that is not there has no checkpoints.
    pub fn generations(&self) -> Result<Vec<Generation>, CheckpointError> {
        let manifest_of = |(generation, role)| (role == Role::Manifest).then_some(generation);
        Ok(self.names()?.into_iter().filter_map(manifest_of).collect())
    }

    fn names(&self) -> Result<Vec<(Generation, Role)>, CheckpointError> {
        match self.storage.entries(&self.dir) {
            Ok(names) => Ok(names.iter().filter_map(|name| role_of::<K>(name.to_str()?)).collect()),
            Err(error) => self.absent(&self.dir, error).map(|()| Vec::new()),
        }
    }

    /// Makes sure that `error`, which came of `path`, says that nothing is there.
    fn absent(&self, path: &Path, error: io::Error) -> Result<(), CheckpointError> {
        prove_absent(&*self.storage, path, error)
            .map_err(|source| CheckpointError::Unreadable { path: path.to_owned(), source })
    }

    fn read_manifest(&self, generation: Generation) -> Result<Manifest<K>, CheckpointError> {
        let path = self.file(generation, MANIFEST);
        match self.storage.read(&path) {
            Ok(text) => Manifest::from_text(generation, &text),
            Err(error) => self.absent(&path, error).and(Err(CheckpointError::Missing(generation))),
        }
    }

    /// The manifest of a checkpoint that looks whole.
    ///
    /// # Errors
    /// Why it cannot be used, whatever machine this is.
    pub fn read(&self, generation: Generation) -> Result<Manifest<K>, CheckpointError> {
        let manifest = self.read_manifest(generation)?;
        if !manifest.kept.is_here() {
            return Ok(manifest);
        }
        let damaged = |what| CheckpointError::Damaged { generation, what };
        match manifest.kept.inspect(&*self.storage, &self.state(generation)) {
            Ok(()) => Ok(manifest),
            Err(Flaw::Damaged(what)) => Err(damaged(what)),
            Err(Flaw::Unreadable { path, source }) => {
                self.absent(&path, source)?;
                Err(damaged(format!("{} is not there", path.display())))
            }
        }
    }

    /// The manifest of a checkpoint that looks whole, and that the machine `here` may load.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(&self, generation: Generation, here: &K::Machine) -> Result<Manifest<K>, CheckpointError> {
        let manifest = self.read(generation)?;
        manifest.check_machine(here)?;
        Ok(manifest)
    }

    // ---- changing ----

    /// Makes the directory, and the one that it is in, by names that are durable: without them everything below is lost.
    /// The one above both must be there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn make_dir(&self) -> io::Result<()> {
        for dir in [parent(&self.dir), &self.dir] {
            match self.storage.create_dir(dir, Access::Owner) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            self.storage.sync_dir(parent(dir))?;
        }
        Ok(())
    }

    /// Makes a checkpoint count, whose state was written to [`Checkpoints::part`] and flushed, or is kept by the
    /// hypervisor. Its number must not have been used before.
    ///
    /// # Errors
    /// [`FaultKind::Unknown`] if it may count nevertheless. Otherwise it does not.
    pub fn commit(&self, manifest: &Manifest<K>, wait: &Wait<'_>) -> Result<(), PortError> {
        let generation = manifest.generation();
        let what = format!("writing checkpoint {generation}");
        let part = self.write_manifest(manifest, &what)?;
        if manifest.kept.is_here() {
            self.rename(&self.part(generation), &self.state(generation), &what, wait)?;
            // The manifest must not be there before what it speaks of.
            self.storage.sync_dir(&self.dir).map_err(failed(&what))?;
        }
        self.put_manifest(generation, &part, &what, wait)
    }

    /// Replaces the manifest of a checkpoint that counts.
    ///
    /// # Errors
    /// [`FaultKind::Unknown`] if the new one may be there; otherwise the old one is.
    pub fn rewrite(&self, manifest: &Manifest<K>, wait: &Wait<'_>) -> Result<(), PortError> {
        let what = format!("rewriting the manifest of checkpoint {}", manifest.generation());
        let part = self.write_manifest(manifest, &what)?;
        self.put_manifest(manifest.generation(), &part, &what, wait)
    }

    fn write_manifest(&self, manifest: &Manifest<K>, what: &str) -> Result<PathBuf, PortError> {
        let part = self.manifest_part(manifest.generation());
        let write = || {
            let text = manifest.to_text()?;
            // What was reserved for it is cut off only afterwards.
            let mut file = File::options().write(true).create(true).truncate(false).open(&part)?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            drop(file);
            self.storage.sync_file(&part)
        };
        write().map_err(failed(what))?;
        Ok(part)
    }

    fn put_manifest(&self, of: Generation, part: &Path, what: &str, wait: &Wait<'_>) -> Result<(), PortError> {
        self.rename(part, &self.file(of, MANIFEST), what, wait)?;
        self.storage.sync_dir(&self.dir).map_err(|error| {
            // It counts for everyone who looks, and may not after a loss of power.
            PortError::new(FaultKind::Unknown, format!("{what}: {error}"))
        })
    }

    fn rename(&self, from: &Path, to: &Path, what: &str, wait: &Wait<'_>) -> Result<(), PortError> {
        wait.act(|| self.storage.rename(from, to))
            .map_err(|stop| PortError::new(FaultKind::Refused, format!("{what}: {stop}")))?
            .map_err(failed(what))
    }

    /// Deletes a checkpoint: first it stops to count, then it goes, piece by piece. One that is not there is no error.
    ///
    /// # Errors
    /// If something of it may still be there.
    pub fn remove(&self, generation: Generation, wait: &Wait<'_>) -> Result<(), PortError> {
        let what = format!("removing checkpoint {generation}");
        let sync = || ignore_missing(self.storage.sync_dir(&self.dir)).map_err(failed(&what));
        // A newer one that somebody has seen here takes its place: that one's name must be as durable as this one's end.
        sync()?;
        remove_tree(&*self.storage, &self.file(generation, MANIFEST), wait)?;
        sync()?;
        for path in [self.state(generation), self.part(generation), self.manifest_part(generation)] {
            remove_tree(&*self.storage, &path, wait)?;
        }
        Ok(())
    }

    /// Deletes all of them, and the directory.
    ///
    /// # Errors
    /// If something may still be there.
    pub fn remove_all(&self, wait: &Wait<'_>) -> Result<(), PortError> {
        // None is to look damaged because another program was ended half-way.
        for generation in self.generations().map_err(|error| error.during("removing the checkpoints"))? {
            self.remove(generation, wait)?;
        }
        remove_tree(&*self.storage, &self.dir, wait)
    }

    /// Removes what interrupted commands have left behind: what was being written, and states without a manifest. As long
    /// as there is a manifest, readable or not, damaged or not, its state stays.
    pub fn sweep(&self, wait: &Wait<'_>) {
        // One listing decides: a file that cannot be looked at is in it.
        let Ok(names) = self.names() else { return };
        let counts = |generation| names.contains(&(generation, Role::Manifest));
        for &(generation, role) in &names {
            let left_behind = match role {
                Role::Manifest => continue,
                Role::Part => vec![self.part(generation), self.manifest_part(generation)],
                Role::State if counts(generation) => continue,
                Role::State => vec![self.state(generation)],
            };
            for path in left_behind {
                if let Err(error) = remove_tree(&*self.storage, &path, wait) {
                    tracing::warn!(%error, "what an interrupted checkpoint has left behind stays for now");
                }
            }
        }
    }
}

/// Makes sure that an error which came of looking at `path` says that nothing is there: by a listing that worked and does
/// not show it. A file system in trouble has answered "not found" of what was there.
///
/// # Errors
/// Whatever kept somebody from looking.
pub fn prove_absent(storage: &dyn Storage, path: &Path, error: io::Error) -> io::Result<()> {
    let (io::ErrorKind::NotFound, Some(name)) = (error.kind(), path.file_name()) else { return Err(error) };
    match storage.entries(parent(path)) {
        Ok(names) if names.iter().any(|found| found == name) => Err(error),
        Ok(_) => Ok(()),
        Err(error) => prove_absent(storage, parent(path), error),
    }
}

/// Whether there is something at `path`.
///
/// # Errors
/// Whatever kept somebody from looking.
pub fn is_there(storage: &dyn Storage, path: &Path) -> io::Result<bool> {
    match storage.look(path) {
        Ok(_) => Ok(true),
        Err(error) => prove_absent(storage, path, error).map(|()| false),
    }
}

/// Whose name it is, if it is one of ours.
fn role_of<K: Kept>(name: &str) -> Option<(Generation, Role)> {
    let (number, kind) = name.split_once('.').map_or((name, None), |(number, kind)| (number, Some(kind)));
    let generation = Generation(number.parse().ok()?);
    let role = match kind {
        _ if generation.to_string() != number => return None,
        Some(MANIFEST) => Role::Manifest,
        Some(PART | MANIFEST_PART) => Role::Part,
        kind if kind == K::STATE => Role::State,
        _ => return None,
    };
    Some((generation, role))
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> PortError {
    move |error| PortError::new(io_kind(&error), format!("{what}: {error}"))
}
