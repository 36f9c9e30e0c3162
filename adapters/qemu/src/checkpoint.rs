//! Checkpoints on disk: a migration stream each, and a manifest that makes it count.
//!
//! ```text
//!   vm/checkpoints/7.part       being written
//!   vm/checkpoints/7.ram        written, flushed, renamed
//!   vm/checkpoints/7.json       the manifest: only with it is the checkpoint whole
//! ```
//! QEMU's exit code never tells a partial stream from a whole one; size and SHA-256 in the manifest do. A manifest's
//! first line is the SHA-256 of the rest, so that a torn one is known for what it is. What has to survive a loss of power
//! goes through [`Storage`], so that the tests can take away whatever was not flushed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vmtask_core::{Generation, Generations};
use vmtask_driver::{Access, EffectToken, PortError, RealStorage, Storage};

use crate::cmdline::LAYOUT;
use crate::durable;
use crate::fault::during;
use crate::setup::Setup;

/// The version of the manifest's own form.
const FORMAT: u32 = 1;
/// More than any manifest needs.
const MANIFEST: u64 = 64 << 10;

/// What a checkpoint is, and what can load it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) generation: u32,
    /// The stream.
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    /// What must be the same again.
    pub(crate) machine: Machine,
    /// The disk's layers by file name, lowest first, as they were at the same instant.
    pub(crate) disk: Vec<String>,
}

/// What must be the same where a checkpoint is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    layout: u32,
    qemu: String,
    accel: String,
    platform: String,
    memory: u64,
    cpus: u8,
}

impl Machine {
    pub(crate) fn of(setup: &Setup) -> Self {
        Self {
            layout: LAYOUT,
            qemu: setup.qemu.build.clone(),
            accel: setup.qemu.accel.to_string(),
            platform: setup.image.fingerprint.clone(),
            memory: setup.memory(),
            cpus: setup.spec.limits.cpus,
        }
    }
}

impl Manifest {
    pub(crate) fn new(generation: Generation, stream: Stream, machine: Machine, disk: Vec<String>) -> Self {
        Self { format: FORMAT, generation: generation.0, bytes: stream.bytes, sha256: stream.sha256, machine, disk }
    }

    fn to_text(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        Ok(format!("{}\n{json}\n", durable::sha256(json.as_bytes())).into_bytes())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let (sum, json) = text.split_once('\n').ok_or("it is cut off")?;
        let json = json.trim_end();
        if durable::sha256(json.as_bytes()) != sum {
            return Err("its checksum differs".into());
        }
        let manifest: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("it has format {}, and this program knows {FORMAT}", manifest.format));
        }
        Ok(manifest)
    }
}

/// A stream that was written and flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// It is not there, or was never finished.
    #[error("checkpoint {0} is not there")]
    Missing(Generation),
    /// It is not what was written.
    #[error("checkpoint {generation} is damaged: {what}")]
    Damaged {
        /// Which.
        generation: Generation,
        /// What is wrong.
        what: String,
    },
    /// Another QEMU, platform or machine made it.
    #[error("checkpoint {generation} was made by {made}, and this is {here}; only the same can load it")]
    Foreign {
        /// Which.
        generation: Generation,
        /// What made it.
        made: String,
        /// What we are.
        here: String,
    },
    /// It could not be read.
    #[error("cannot read checkpoint {generation}: {source}")]
    Io {
        /// Which.
        generation: Generation,
        /// What the system said.
        source: io::Error,
    },
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

    /// Those that are whole by their manifest and size. What is in them is checked when they are used.
    pub(crate) fn list(&self) -> Generations {
        self.names().filter(|&generation| self.read(generation).is_ok()).collect()
    }

    /// The manifests of all that are whole.
    pub(crate) fn manifests(&self) -> Vec<Manifest> {
        self.names().filter_map(|generation| self.read(generation).ok()).collect()
    }

    fn names(&self) -> impl Iterator<Item = Generation> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_suffix(".json")?.parse().ok()?;
            Some(Generation(number))
        })
    }

    /// The manifest of a checkpoint whose stream is there in full length.
    pub(crate) fn read(&self, generation: Generation) -> Result<Manifest, CheckpointError> {
        let io_error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CheckpointError::Missing(generation),
            _ => CheckpointError::Io { generation, source },
        };
        let damaged = |what| CheckpointError::Damaged { generation, what };
        let text = std::fs::read(self.file(generation, "json")).map_err(io_error)?;
        let text = String::from_utf8(text).map_err(|_| damaged("its manifest is no text".into()))?;
        let manifest = Manifest::from_text(&text).map_err(|what| damaged(format!("its manifest: {what}")))?;
        if manifest.generation != generation.0 {
            return Err(damaged(format!("it says that it is checkpoint {}", manifest.generation)));
        }
        let found = std::fs::metadata(self.file(generation, "ram")).map_err(io_error)?;
        if found.len() != manifest.bytes {
            return Err(damaged(format!("it has {} of {} bytes", found.len(), manifest.bytes)));
        }
        Ok(manifest)
    }

    /// The stream of a checkpoint, if this machine can load it.
    pub(crate) fn open(&self, generation: Generation, here: &Machine) -> Result<(Manifest, File), CheckpointError> {
        let manifest = self.read(generation)?;
        if manifest.machine != *here {
            let describe = |machine: &Machine| {
                format!(
                    "{} ({}, {} MiB, {} cpus, platform {}, layout {})",
                    machine.qemu,
                    machine.accel,
                    machine.memory >> 20,
                    machine.cpus,
                    machine.platform,
                    machine.layout
                )
            };
            return Err(CheckpointError::Foreign {
                generation,
                made: describe(&manifest.machine),
                here: describe(here),
            });
        }
        let file =
            File::open(self.file(generation, "ram")).map_err(|source| CheckpointError::Io { generation, source })?;
        Ok((manifest, file))
    }

    /// Compares a stream with its manifest. `go_on` is asked between blocks.
    pub(crate) fn verify(manifest: &Manifest, file: &File, go_on: impl FnMut() -> bool) -> Result<(), CheckpointError> {
        let generation = Generation(manifest.generation);
        let stream = measure(file, go_on).map_err(|source| CheckpointError::Io { generation, source })?;
        if stream.sha256 != manifest.sha256 || stream.bytes != manifest.bytes {
            return Err(CheckpointError::Damaged { generation, what: "its SHA-256 differs".into() });
        }
        Ok(())
    }

    /// An empty file for the stream of a new checkpoint, with its space reserved: a stream that finds the disk full
    /// half-way can kill the guest.
    pub(crate) fn begin(&self, generation: Generation, reserve: u64) -> io::Result<File> {
        self.make_dir()?;
        self.sweep();
        // The manifest's space as well: a disk that is filled meanwhile must not spoil a stream that is whole.
        let manifest = File::create(self.file(generation, "manifest"))?;
        match rustix::fs::fallocate(&manifest, FallocateFlags::empty(), 0, MANIFEST) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let path = self.file(generation, "part");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, reserve) {
            Ok(()) => Ok(file),
            // A file system that cannot reserve: better than nothing is to look whether there is room now.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let free = rustix::fs::fstatvfs(&file)?;
                if free.f_bavail.saturating_mul(free.f_frsize) < reserve {
                    let _ = std::fs::remove_file(&path);
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(file)
            }
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error.into())
            }
        }
    }

    /// The directory, and the one that it is in, by names that are durable: without them everything below is lost.
    fn make_dir(&self) -> io::Result<()> {
        let vm = parent(&self.dir);
        for dir in [vm, &self.dir] {
            match self.storage.create_dir(dir, Access::Owner) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            self.storage.sync_dir(parent(dir))?;
        }
        Ok(())
    }

    /// Writes a manifest beside its place. What remains is to rename it.
    fn write_manifest(&self, manifest: &Manifest) -> io::Result<PathBuf> {
        let part = self.file(Generation(manifest.generation), "manifest");
        durable::write_part(&part, &manifest.to_text()?)?;
        self.storage.sync_file(&part)?;
        Ok(part)
    }

    /// Makes a checkpoint count, whose stream was written by [`Store::begin`]'s file and flushed.
    pub(crate) fn commit(&self, manifest: &Manifest, token: &EffectToken) -> Result<(), PortError> {
        let generation = Generation(manifest.generation);
        let what = format!("writing the manifest of checkpoint {generation}");
        let stream = self.file(generation, "part");
        self.storage.sync_file(&stream).map_err(during(&what))?;
        let part = self.write_manifest(manifest).map_err(during(&what))?;
        token
            .act(|| {
                self.storage.rename(&stream, &self.file(generation, "ram"))?;
                // The manifest must not be there before what it speaks of.
                self.storage.sync_dir(&self.dir)?;
                self.storage.rename(&part, &self.file(generation, "json"))?;
                self.storage.sync_dir(&self.dir)
            })?
            .map_err(during(&what))
    }

    /// Replaces a manifest, for a disk whose layers were merged.
    pub(crate) fn rewrite(&self, manifest: &Manifest, token: &EffectToken) -> Result<(), PortError> {
        let generation = Generation(manifest.generation);
        let what = format!("rewriting the manifest of checkpoint {generation}");
        let part = self.write_manifest(manifest).map_err(during(&what))?;
        token
            .act(|| {
                self.storage.rename(&part, &self.file(generation, "json"))?;
                self.storage.sync_dir(&self.dir)
            })?
            .map_err(during(&what))
    }

    /// Deletes a checkpoint: first it stops to count, then it goes.
    pub(crate) fn remove(&self, generation: Generation, token: &EffectToken) -> Result<(), PortError> {
        token
            .act(|| {
                durable::gone(self.storage.unlink(&self.file(generation, "json")))?;
                durable::gone(self.storage.sync_dir(&self.dir))?;
                for kind in ["ram", "part", "manifest"] {
                    durable::gone(self.storage.unlink(&self.file(generation, kind)))?;
                }
                Ok::<(), io::Error>(())
            })?
            .map_err(during(format!("removing checkpoint {generation}")))
    }

    /// Removes what an interrupted checkpoint left behind.
    pub(crate) fn sweep(&self) {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let kind = path.extension().and_then(|kind| kind.to_str());
            let orphan = kind == Some("ram") && !path.with_extension("json").exists();
            if orphan || matches!(kind, Some("part" | "manifest")) {
                let _ = self.storage.unlink(&path);
            }
        }
    }
}

/// The directory that a path of ours is in.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Size and SHA-256 of a file, from its beginning. The file's position is left alone.
pub(crate) fn measure(file: &File, mut go_on: impl FnMut() -> bool) -> io::Result<Stream> {
    use std::os::unix::fs::FileExt;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match file.read_at(&mut block, bytes)? {
            0 => break,
            got => {
                hasher.update(&block[..got]);
                bytes += got as u64;
            }
        }
    }
    Ok(Stream { bytes, sha256: durable::hex(&hasher.finalize()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;
    use std::io::{Read, Write};
    use vmtask_driver::testing::{Crash, RecordingStorage};

    fn machine() -> Machine {
        Machine {
            layout: 1,
            qemu: "QEMU emulator version 7.2.22".into(),
            accel: "tcg".into(),
            platform: "f".into(),
            memory: 256 << 20,
            cpus: 1,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("vm/checkpoints"));
        (dir, store)
    }

    fn make(store: &Store, generation: u32, text: &[u8]) {
        let generation = Generation(generation);
        let mut file = store.begin(generation, 1 << 20).unwrap();
        file.write_all(text).unwrap();
        file.set_len(text.len() as u64).unwrap();
        let stream = measure(&file, || true).unwrap();
        let manifest = Manifest::new(generation, stream, machine(), vec!["1.qcow2".into()]);
        store.commit(&manifest, &EffectToken::new()).unwrap();
    }

    #[test]
    fn only_committed_checkpoints_are_listed_and_they_come_back_as_written() {
        let (_dir, store) = store();
        make(&store, 3, b"three");
        make(&store, 4, b"four");
        store.begin(Generation(5), 10).unwrap();
        let listed: Vec<u32> = store.list().iter().map(|g| g.0).collect();
        assert_eq!(listed, [4, 3]);
        let (manifest, mut file) = store.open(Generation(4), &machine()).unwrap();
        Store::verify(&manifest, &file, || true).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "four", "verifying leaves the position alone");
    }

    #[test]
    fn a_revoked_token_commits_and_removes_nothing() {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        let token = EffectToken::new();
        token.revoke();
        assert!(store.remove(Generation(1), &token).is_err());
        let manifest = store.read(Generation(1)).unwrap();
        store.begin(Generation(2), 10).unwrap();
        assert!(store.commit(&Manifest { generation: 2, ..manifest }, &token).is_err());
        assert_eq!(store.list().len(), 1);
    }

    #[test]
    fn removing_twice_is_no_error() {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        for _ in 0..2 {
            store.remove(Generation(1), &EffectToken::new()).unwrap();
        }
        assert!(store.list().is_empty());
        assert!(matches!(store.read(Generation(1)), Err(CheckpointError::Missing(_))));
    }

    #[rstest]
    #[case::torn_manifest(|s: &Store| { let p = s.file(Generation(1), "json"); let t = std::fs::read(&p).unwrap(); std::fs::write(p, &t[..t.len() / 2]).unwrap(); }, "checksum")]
    #[case::empty_manifest(|s: &Store| std::fs::write(s.file(Generation(1), "json"), "").unwrap(), "cut off")]
    #[case::binary_manifest(|s: &Store| std::fs::write(s.file(Generation(1), "json"), [0xff, 0xfe]).unwrap(), "no text")]
    #[case::short_stream(|s: &Store| std::fs::write(s.file(Generation(1), "ram"), "on").unwrap(), "2 of 3 bytes")]
    #[case::another_ones_manifest(|s: &Store| { make(s, 2, b"two"); std::fs::copy(s.file(Generation(2), "json"), s.file(Generation(1), "json")).unwrap(); }, "it is checkpoint 2")]
    fn a_damaged_checkpoint_is_not_listed_and_says_why(#[case] damage: fn(&Store), #[case] words: &str) {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        damage(&store);
        assert!(!store.list().contains(Generation(1)));
        let error = store.read(Generation(1)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_stream_with_one_changed_byte_is_found_out_before_it_is_used() {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        std::fs::write(store.file(Generation(1), "ram"), "onf").unwrap();
        let (manifest, file) = store.open(Generation(1), &machine()).unwrap();
        let error = Store::verify(&manifest, &file, || true).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
    }

    #[test]
    fn another_qemus_checkpoint_is_refused_in_clear_words() {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        let mut here = machine();
        here.qemu = "QEMU emulator version 9.0.0".into();
        let error = store.open(Generation(1), &here).unwrap_err().to_string();
        assert!(error.contains("7.2.22") && error.contains("9.0.0"), "{error}");
    }

    #[test]
    fn no_space_is_known_before_anything_is_written() {
        let (_dir, store) = store();
        let error = store.begin(Generation(1), 1 << 60).unwrap_err();
        assert!(!store.file(Generation(1), "part").exists(), "{error}");
    }

    /// What is wrong with the checkpoints that a loss of power has left, if anything.
    fn broken_promise(crash: &Crash) -> Option<String> {
        let disk = tempfile::tempdir().unwrap();
        crash.lay_out(disk.path()).unwrap();
        let store = Store::new(disk.path().join("vm/checkpoints"));
        let listed = store.list();
        for generation in listed.iter() {
            // What is listed is what a restore will rely on: it has to be what was written.
            let restored = store.open(generation, &machine()).and_then(|(manifest, mut file)| {
                Store::verify(&manifest, &file, || true)?;
                let mut text = String::new();
                file.read_to_string(&mut text)
                    .map(|_| text)
                    .map_err(|source| CheckpointError::Io { generation, source })
            });
            match restored {
                Ok(text) if text == stream_of(generation.0) => {}
                other => return Some(format!("{}: checkpoint {generation}: {other:?}", crash.story)),
            }
        }
        let newest = listed.newest().map(|generation| u64::from(generation.0));
        (newest < crash.last_mark())
            .then(|| format!("{}: promised {:?}, found {listed:?}", crash.story, crash.last_mark()))
    }

    fn stream_of(generation: u32) -> String {
        format!("the memory of a guest at checkpoint {generation}").repeat(generation as usize)
    }

    #[test]
    fn a_loss_of_power_at_any_point_leaves_the_newest_checkpoint_that_was_committed() {
        let disk = tempfile::tempdir().unwrap();
        let storage = RecordingStorage::new(disk.path()).unwrap();
        let store = Store::on(disk.path().join("vm/checkpoints"), Arc::new(storage.clone()));
        for generation in 1..=4 {
            make(&store, generation, stream_of(generation).as_bytes());
            storage.mark(generation.into());
            if generation > 2 {
                store.remove(Generation(generation - 2), &EffectToken::new()).unwrap();
            }
        }
        // The disk's layers were merged: the manifests are written anew.
        for manifest in store.manifests() {
            store.rewrite(&Manifest { disk: vec!["merged.qcow2".into()], ..manifest }, &EffectToken::new()).unwrap();
        }
        let crashes = storage.crashes();
        assert!(crashes.len() >= 100, "only {} states: the recording misses something", crashes.len());
        let broken: Vec<_> = crashes.iter().filter_map(broken_promise).collect();
        assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), crashes.len(), broken.join("\n"));
    }
}
