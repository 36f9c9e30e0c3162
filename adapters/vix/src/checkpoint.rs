//! Checkpoints on disk: what makes one count is its manifest.
//!
//! ```text
//!   snapshots   the product keeps `vmtask-7`      vm/checkpoints/7.json   the manifest
//!   copies      vm/checkpoints/7.part/  being written
//!               vm/checkpoints/7/       flushed, renamed                  vm/checkpoints/7.json
//! ```
//! A manifest's first line is the SHA-256 of the rest, so that a torn one is known for what it is. What has to survive a
//! loss of power goes through [`Storage`], so that a test can take away whatever was not flushed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmtask_core::{Generation, Generations};
use vmtask_driver::{Access, Digest, EffectToken, PortError, RealStorage, Storage};

use crate::fault::during;
use crate::setup::Setup;
use crate::tree::{self, Entry};
use crate::wait::Stop;

/// The version of the manifest's own form.
const FORMAT: u32 = 1;

/// What a checkpoint is, and what can load it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) generation: u32,
    pub(crate) machine: Machine,
    pub(crate) content: Content,
}

/// Where its state is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// A snapshot of this name, with the product.
    Snapshot(String),
    /// A copy of the suspended VM's files.
    Copy(Vec<Entry>),
}

/// What must be the same where a checkpoint is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    product: String,
    vm: String,
    memory: Option<u64>,
    cpus: u8,
}

impl Machine {
    pub(crate) fn of(setup: &Setup) -> Self {
        Self {
            product: setup.connection.product.to_string(),
            vm: setup.vm.clone(),
            memory: setup.spec.limits.memory,
            cpus: setup.spec.limits.cpus,
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} ({} cpus", self.product, self.vm, self.cpus)?;
        self.memory.map_or(Ok(()), |memory| write!(f, ", {} MiB", memory >> 20))?;
        f.write_str(")")
    }
}

impl Manifest {
    pub(crate) const fn new(generation: Generation, machine: Machine, content: Content) -> Self {
        Self { format: FORMAT, generation: generation.0, machine, content }
    }

    fn to_text(&self) -> io::Result<String> {
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        Ok(format!("{}\n{json}\n", Digest::of(json.as_bytes())))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let (sum, json) = text.split_once('\n').ok_or("it is cut off")?;
        let json = json.trim_end();
        if Digest::of(json.as_bytes()).to_string() != sum {
            return Err("its checksum differs".into());
        }
        let manifest: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("it has format {}, and this program knows {FORMAT}", manifest.format));
        }
        Ok(manifest)
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("checkpoint {0} is not there")]
    Missing(Generation),
    #[error("checkpoint {generation} is damaged: {what}")]
    Damaged { generation: Generation, what: String },
    #[error("checkpoint {generation} was made on {made}, and this is {here}; only the same can load it")]
    Foreign { generation: Generation, made: String, here: String },
    #[error("checkpoint {generation}: {source}")]
    Io { generation: Generation, source: io::Error },
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// A task's checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
}

impl Store {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self::on(dir, Arc::new(RealStorage))
    }

    fn on(dir: PathBuf, storage: Arc<dyn Storage>) -> Self {
        Self { dir, storage }
    }

    fn file(&self, generation: Generation, kind: &str) -> PathBuf {
        self.dir.join(format!("{generation}.{kind}"))
    }

    /// Where a checkpoint's copy is.
    pub(crate) fn copy(&self, generation: Generation) -> PathBuf {
        self.dir.join(generation.to_string())
    }

    /// Where a checkpoint's copy is while it is being written.
    pub(crate) fn part(&self, generation: Generation) -> PathBuf {
        self.file(generation, "part")
    }

    /// What a checkpoint's snapshot is called.
    pub(crate) fn snapshot_name(generation: Generation) -> String {
        format!("vmtask-{generation}")
    }

    /// Those that are whole by their manifest and their files' sizes. What is in them is checked when they are used.
    pub(crate) fn list(&self) -> Generations {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let generation = Generation(name.to_str()?.strip_suffix(".json")?.parse().ok()?);
                self.read(generation).is_ok().then_some(generation)
            })
            .collect()
    }

    /// The manifest of a checkpoint that looks whole.
    pub(crate) fn read(&self, generation: Generation) -> Result<Manifest, CheckpointError> {
        let damaged = |what| CheckpointError::Damaged { generation, what };
        let text = std::fs::read(self.file(generation, "json")).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CheckpointError::Missing(generation),
            _ => CheckpointError::Io { generation, source },
        })?;
        let text = String::from_utf8(text).map_err(|_| damaged("its manifest is no text".into()))?;
        let manifest = Manifest::from_text(&text).map_err(|what| damaged(format!("its manifest: {what}")))?;
        if manifest.generation != generation.0 {
            return Err(damaged(format!("it says that it is checkpoint {}", manifest.generation)));
        }
        if let Content::Copy(entries) = &manifest.content {
            tree::looks_whole(&self.copy(generation), entries).map_err(damaged)?;
        }
        Ok(manifest)
    }

    /// The manifest of a checkpoint that this machine can load.
    pub(crate) fn open(&self, generation: Generation, here: &Machine) -> Result<Manifest, CheckpointError> {
        let manifest = self.read(generation)?;
        if manifest.machine != *here {
            let (made, here) = (manifest.machine.to_string(), here.to_string());
            return Err(CheckpointError::Foreign { generation, made, here });
        }
        Ok(manifest)
    }

    /// The directory, and the one that it is in, by names that are durable: without them everything below is lost.
    pub(crate) fn make_dir(&self) -> io::Result<()> {
        for dir in [parent(&self.dir), &self.dir] {
            match self.storage.create_dir(dir, Access::Owner) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            self.storage.sync_dir(parent(dir))?;
        }
        Ok(())
    }

    /// Makes a checkpoint count. Its state lies with the product, or was flushed to [`Store::part`].
    pub(crate) fn commit(&self, manifest: &Manifest, token: &EffectToken) -> Result<(), PortError> {
        let generation = Generation(manifest.generation);
        let what = format!("writing the manifest of checkpoint {generation}");
        let part = self.write_part(manifest).map_err(during(&what))?;
        let copied = matches!(manifest.content, Content::Copy(_));
        token
            .act(|| {
                if copied {
                    self.storage.rename(&self.part(generation), &self.copy(generation))?;
                    // The manifest must not be there before what it speaks of.
                    self.storage.sync_dir(&self.dir)?;
                }
                self.storage.rename(&part, &self.file(generation, "json"))?;
                self.storage.sync_dir(&self.dir)
            })?
            .map_err(during(&what))
    }

    fn write_part(&self, manifest: &Manifest) -> io::Result<PathBuf> {
        self.make_dir()?;
        let part = self.file(Generation(manifest.generation), "manifest");
        let mut file = self.storage.create(&part)?;
        file.write_all(manifest.to_text()?.as_bytes())?;
        file.sync()?;
        Ok(part)
    }

    /// Deletes a checkpoint's files: first it stops to count, then it goes.
    pub(crate) fn remove(&self, generation: Generation, token: &EffectToken) -> Result<(), PortError> {
        let what = format!("removing checkpoint {generation}");
        token
            .act(|| {
                gone(self.storage.unlink(&self.file(generation, "json")))?;
                gone(self.storage.sync_dir(&self.dir))?;
                gone(self.storage.unlink(&self.file(generation, "manifest")))
            })?
            .map_err(during(&what))?;
        for dir in [self.copy(generation), self.part(generation)] {
            token.act(|| tree::remove(&dir))?.map_err(during(&what))?;
        }
        Ok(())
    }

    /// Removes what interrupted checkpoints have left behind.
    pub(crate) fn sweep(&self) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let kind = path.extension().and_then(|kind| kind.to_str());
            let orphan = kind.is_none() && !path.with_extension("json").exists();
            if orphan || matches!(kind, Some("part" | "manifest")) {
                let _ = tree::remove(&path);
            }
        }
    }
}

/// What is not there is no error.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The directory that a path of ours is in.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs;

    fn machine() -> Machine {
        Machine { product: "VMware Player".into(), vm: "/vms/x.vmx".into(), memory: None, cpus: 1 }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("vm/checkpoints"));
        store.make_dir().unwrap();
        (dir, store)
    }

    fn save_copy(store: &Store, generation: Generation) {
        let part = store.part(generation);
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("x.vmss"), "the state").unwrap();
        let entries = tree::measure(&part, &|| true).unwrap();
        let manifest = Manifest::new(generation, machine(), Content::Copy(entries));
        store.commit(&manifest, &EffectToken::new()).unwrap();
    }

    fn save_name(store: &Store, generation: Generation, token: &EffectToken) -> Result<(), PortError> {
        let content = Content::Snapshot(Store::snapshot_name(generation));
        store.commit(&Manifest::new(generation, machine(), content), token)
    }

    #[test]
    fn a_checkpoint_counts_once_it_is_committed_and_until_it_is_removed() {
        let (_dir, store) = store();
        assert!(store.list().is_empty());
        save_copy(&store, Generation(1));
        save_name(&store, Generation(2), &EffectToken::new()).unwrap();
        assert_eq!(store.list().iter().map(|g| g.0).collect::<Vec<_>>(), [2, 1]);
        let token = EffectToken::new();
        store.remove(Generation(1), &token).unwrap();
        store.remove(Generation(1), &token).unwrap();
        assert!(!store.copy(Generation(1)).exists());
        assert_eq!(store.list().iter().map(|g| g.0).collect::<Vec<_>>(), [2]);
        assert!(matches!(store.read(Generation(1)), Err(CheckpointError::Missing(_))));
    }

    #[test]
    fn a_fenced_commit_leaves_no_checkpoint() {
        let (_dir, store) = store();
        let token = EffectToken::new();
        token.revoke();
        assert!(save_name(&store, Generation(1), &token).is_err());
        assert!(store.list().is_empty());
        store.sweep();
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
    }

    #[test]
    fn what_is_torn_short_renumbered_or_foreign_is_refused() {
        let (_dir, store) = store();
        save_copy(&store, Generation(1));
        save_name(&store, Generation(2), &EffectToken::new()).unwrap();
        let here = machine();
        assert!(store.open(Generation(1), &here).is_ok());
        let other = Machine { cpus: 2, ..machine() };
        assert!(matches!(store.open(Generation(1), &other), Err(CheckpointError::Foreign { .. })));
        fs::write(store.copy(Generation(1)).join("x.vmss"), "the stat").unwrap();
        assert!(matches!(store.open(Generation(1), &here), Err(CheckpointError::Damaged { .. })));
        let json = store.file(Generation(2), "json");
        fs::copy(&json, store.file(Generation(3), "json")).unwrap();
        let text = store.open(Generation(3), &here).unwrap_err().to_string();
        assert!(text.contains("says that it is checkpoint 2"), "{text}");
        let whole = fs::read(&json).unwrap();
        for length in [0, 10, 64, 65, whole.len() - 3] {
            fs::write(&json, &whole[..length]).unwrap();
            assert!(matches!(store.read(Generation(2)), Err(CheckpointError::Damaged { .. })), "{length} bytes");
        }
    }

    #[test]
    fn what_was_interrupted_is_swept_and_what_counts_is_not() {
        let (_dir, store) = store();
        save_copy(&store, Generation(1));
        fs::create_dir_all(store.part(Generation(2))).unwrap();
        fs::create_dir_all(store.copy(Generation(3))).unwrap();
        fs::write(store.file(Generation(4), "manifest"), "").unwrap();
        store.sweep();
        let mut left: Vec<_> = fs::read_dir(&store.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["1", "1.json"]);
    }
}
