//! What QEMU keeps of a checkpoint: a migration stream, the template that it is relative to, and the layers of the disk
//! below it.
//!
//! ```text
//!   vm/checkpoints/7.part       the stream being written, packed (see `relative`)
//!   vm/checkpoints/7.ram        written, flushed, renamed
//!   vm/checkpoints/7.json       the manifest: only with it is the checkpoint whole
//!   vm/checkpoints/*.template   the templates that the manifests name, if the guest was cloned from one
//!   vm/disk/*.qcow2             the layers that the manifest names, if the task has a disk
//! ```
//! QEMU's exit code never tells a partial stream from a whole one; size and SHA-256 in the manifest do. The store itself
//! is [`vmtask_driver::kit`]'s.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};
use vmtask_core::Generation;
use vmtask_driver::kit::{self, CheckpointError, Checkpoints, Flaw, Kept, Stoppable};
use vmtask_driver::{Digest, Storage};

use crate::cmdline::LAYOUT;
use crate::relative;
use crate::setup::Setup;
use crate::wait::Wait;

/// More than any manifest needs.
const MANIFEST: u64 = 64 << 10;

/// A task's checkpoints.
pub(crate) type Store = Checkpoints<Stream>;
/// What a checkpoint is, and what may load it.
pub(crate) type Manifest = kit::Manifest<Stream>;

/// A file that was written and flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
}

/// A stream that was written and flushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Of the file. Its name is not that of the time when all streams were plain, so that a vmtask of that time says that
    /// it cannot read the manifest, and does not hand QEMU a packed one.
    #[serde(rename = "file_bytes", alias = "bytes")]
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
    #[serde(default)]
    pub(crate) form: Form,
    /// The disk's layers by file name, lowest first, as they were at the same instant.
    pub(crate) disk: Vec<String>,
}

/// What is in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// The migration stream as QEMU wrote it: version 0.1's.
    #[default]
    Plain,
    /// The whole stream, as an LZ4 frame.
    Packed,
    /// An LZ4 frame with a stream that is to be loaded over the memory of the template with this hash.
    RelativeTo(Digest),
}

impl Form {
    /// The template that is needed to load it.
    pub(crate) fn template(self) -> Option<Digest> {
        match self {
            Self::Plain | Self::Packed => None,
            Self::RelativeTo(template) => Some(template),
        }
    }
}

impl Kept for Stream {
    type Machine = Machine;
    const STATE: Option<&'static str> = Some("ram");

    fn is_here(&self) -> bool {
        true
    }

    fn inspect(&self, storage: &dyn Storage, state: &Path) -> Result<(), Flaw> {
        let found = storage.look(state).map_err(|source| Flaw::Unreadable { path: state.to_owned(), source })?;
        if !found.is_file {
            // Somebody has put it elsewhere, and what is there now may be whole.
            let source = io::Error::other("it is no regular file; put the file itself back");
            return Err(Flaw::Unreadable { path: state.to_owned(), source });
        }
        if found.bytes != self.bytes {
            return Err(Flaw::Damaged(format!("{} has {} of {} bytes", state.display(), found.bytes, self.bytes)));
        }
        if let (Some(template), Some(dir)) = (self.form.template(), state.parent()) {
            // What is in it shows when it is loaded.
            let path = relative::place(dir, template);
            storage.look(&path).map_err(|source| Flaw::Unreadable { path, source })?;
        }
        Ok(())
    }
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

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layout, qemu, accel, platform, memory, cpus } = self;
        write!(f, "{qemu} ({accel}, {} MiB, {cpus} cpus, platform {platform}, layout {layout})", memory >> 20)
    }
}

impl kit::Machine for Machine {
    fn may_load(&self, maker: &Self) -> Result<(), String> {
        if self == maker {
            return Ok(());
        }
        let mut ways = Vec::new();
        if self.qemu != maker.qemu {
            ways.push(format!("install QEMU {}", maker.qemu.trim_start_matches("QEMU emulator version ")));
        }
        if self.accel != maker.accel {
            ways.push(format!("run it with VMTASK_ACCEL={}", maker.accel));
        }
        if self.platform != maker.platform {
            ways.push(format!("bring back the platform {}", maker.platform));
        }
        if (self.memory, self.cpus) != (maker.memory, maker.cpus) {
            ways.push(format!("set limits.memory to {} MiB and limits.cpus to {}", maker.memory >> 20, maker.cpus));
        }
        if self.layout != maker.layout {
            ways.push("install the vmtask that made it".into());
        }
        Err(ways.join(" and "))
    }
}

/// An empty file for the stream of a new checkpoint, with `reserve` bytes of space reserved, the most that it can need: a
/// disk that fills up half-way would cost the checkpoint, and be full for everybody else meanwhile.
pub(crate) fn begin(store: &Store, generation: Generation, reserve: u64, wait: &Wait<'_>) -> io::Result<File> {
    store.make_dir()?;
    store.sweep(wait);
    // The manifest's space as well: a disk that is filled meanwhile must not spoil a stream that is whole.
    let manifest = File::create(store.manifest_part(generation))?;
    match rustix::fs::fallocate(&manifest, FallocateFlags::empty(), 0, MANIFEST) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let path = store.part(generation);
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

/// The stream of a checkpoint that the machine `here` may load.
pub(crate) fn open(store: &Store, generation: Generation, here: &Machine) -> Result<(Manifest, File), CheckpointError> {
    let manifest = store.open(generation, here)?;
    let path = store.state(generation);
    match File::open(&path) {
        Ok(file) => Ok((manifest, file)),
        Err(source) => Err(CheckpointError::Unreadable { path, source }),
    }
}

/// Compares a stream with its manifest. `go_on` is asked between blocks; whether it said no tells a read that was given
/// up from one that failed.
pub(crate) fn verify(
    store: &Store,
    manifest: &Manifest,
    file: &File,
    go_on: impl FnMut() -> bool,
) -> Result<(), CheckpointError> {
    let (generation, kept) = (manifest.generation(), &manifest.kept);
    let (bytes, sha256) =
        measure(file, go_on).map_err(|source| CheckpointError::Unreadable { path: store.state(generation), source })?;
    if (bytes, sha256) == (kept.bytes, kept.sha256) {
        return Ok(());
    }
    let path = store.state(generation);
    let what = format!("{} has the SHA-256 {sha256}, and {} was written", path.display(), kept.sha256);
    Err(CheckpointError::Damaged { generation, what })
}

/// Size and SHA-256 of a file, from its beginning. The file's position is left alone.
pub(crate) fn measure(file: &File, go_on: impl FnMut() -> bool) -> io::Result<(u64, Digest)> {
    Digest::of_reader(Stoppable::new(FromStart { file, at: 0 }, go_on))
}

struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;
    use std::io::Write;
    use std::time::Duration;
    use vmtask_core::FaultKind;

    pub(crate) fn machine() -> Machine {
        Machine {
            layout: 1,
            qemu: "QEMU emulator version 7.2.22".into(),
            accel: "tcg".into(),
            platform: "f".into(),
            memory: 256 << 20,
            cpus: 1,
        }
    }

    fn patience() -> Wait<'static> {
        Wait::most(Duration::from_secs(3600))
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("vm/checkpoints"));
        (dir, store)
    }

    fn make(store: &Store, generation: u32, text: &[u8]) {
        let generation = Generation(generation);
        let mut file = begin(store, generation, 1 << 20, &patience()).unwrap();
        file.write_all(text).unwrap();
        file.set_len(text.len() as u64).unwrap();
        let (bytes, sha256) = measure(&file, || true).unwrap();
        let stream = Stream { bytes, sha256, form: Form::Packed, disk: vec!["1.qcow2".into()] };
        store.commit(&Manifest::new(generation, machine(), stream), &patience()).unwrap();
    }

    /// It may be whole where it has been put, so that nothing is proven.
    #[test]
    fn a_stream_that_is_a_link_or_a_directory_is_kept() {
        let (dir, store) = store();
        make(&store, 1, b"abc");
        let stream = store.state(Generation(1));
        let elsewhere = dir.path().join("elsewhere");
        std::fs::rename(&stream, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &stream).unwrap();
        assert!(matches!(store.list(), Err(CheckpointError::Unreadable { .. })));
        std::fs::remove_file(&stream).unwrap();
        std::fs::create_dir(&stream).unwrap();
        assert!(matches!(store.list(), Err(CheckpointError::Unreadable { .. })));
        std::fs::remove_dir(&stream).unwrap();
        std::fs::rename(&elsewhere, &stream).unwrap();
        assert!(store.list().unwrap().whole.contains(Generation(1)));
    }

    #[test]
    fn a_stream_comes_back_as_it_was_written() {
        let (_dir, store) = store();
        make(&store, 3, b"three");
        make(&store, 4, b"four");
        begin(&store, Generation(5), 10, &patience()).unwrap();
        let listing = store.list().unwrap();
        assert_eq!(listing.whole.iter().map(|g| g.0).collect::<Vec<_>>(), [4, 3]);
        let (manifest, mut file) = open(&store, Generation(4), &machine()).unwrap();
        verify(&store, &manifest, &file, || true).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "four", "verifying leaves the position alone");
    }

    #[rstest]
    #[case::flipped("onf", Some("SHA-256"))]
    #[case::truncated("on", None)]
    fn a_stream_that_is_not_what_was_written_is_found_out_before_it_is_used(
        #[case] stream: &str,
        #[case] found_by_reading: Option<&str>,
    ) {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        std::fs::write(store.state(Generation(1)), stream).unwrap();
        let opened = open(&store, Generation(1), &machine());
        let error = match found_by_reading {
            None => opened.unwrap_err(),
            Some(words) => {
                let (manifest, file) = opened.unwrap();
                let error = verify(&store, &manifest, &file, || true).unwrap_err();
                assert!(error.to_string().contains(words), "{error}");
                error
            }
        };
        assert_eq!(error.kind(), FaultKind::Damaged, "{error}");
    }

    #[test]
    fn a_comparison_that_is_given_up_proves_nothing() {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        let (manifest, file) = open(&store, Generation(1), &machine()).unwrap();
        assert_eq!(verify(&store, &manifest, &file, || false).unwrap_err().kind(), FaultKind::Refused);
    }

    /// Without a double: an error that no user is spared.
    #[test]
    fn a_stream_that_cannot_be_read_proves_nothing() {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        let (manifest, _) = open(&store, Generation(1), &machine()).unwrap();
        let directory = File::open(store.state(Generation(1)).parent().unwrap()).unwrap();
        let error = verify(&store, &manifest, &directory, || true).unwrap_err();
        assert_eq!(error.kind(), FaultKind::Refused, "{error}");
    }

    #[rstest]
    #[case::build(|m: &mut Machine| m.qemu = "QEMU emulator version 9.0.0".into(), "install QEMU 7.2.22, or")]
    #[case::accelerator(|m: &mut Machine| m.accel = "kvm".into(), "run it with VMTASK_ACCEL=tcg, or")]
    #[case::platform(|m: &mut Machine| m.platform = "g".into(), "bring back the platform f, or")]
    #[case::limits(|m: &mut Machine| m.cpus = 2, "limits.cpus to 1, or")]
    #[case::layout(|m: &mut Machine| m.layout = 2, "install the vmtask that made it, or")]
    fn only_the_same_machine_may_load_it_and_another_is_told_both_ways_out(
        #[case] change: fn(&mut Machine),
        #[case] words: &str,
    ) {
        let (_dir, store) = store();
        make(&store, 1, b"one");
        let mut here = machine();
        change(&mut here);
        let error = open(&store, Generation(1), &here).unwrap_err();
        assert_eq!(error.kind(), FaultKind::Incompatible);
        let text = error.to_string();
        assert!(text.contains(words) && text.ends_with("or begin anew with `vmtask run --start-over`"), "{text}");
    }

    #[test]
    fn no_space_is_known_before_anything_is_written() {
        let (_dir, store) = store();
        let error = begin(&store, Generation(1), 1 << 60, &patience()).unwrap_err();
        assert!(!store.part(Generation(1)).exists(), "{error}");
    }

    #[test]
    fn a_manifest_that_version_0_1_has_written_loads() {
        let (_dir, store) = store();
        store.make_dir().unwrap();
        let state = store.state(Generation(7));
        std::fs::write(&state, "seven").unwrap();
        let json = state.with_extension("json");
        std::fs::write(json, include_bytes!("../tests/records/v1-checkpoint.json")).unwrap();
        let (manifest, file) = open(&store, Generation(7), &machine()).unwrap();
        verify(&store, &manifest, &file, || true).unwrap();
        assert_eq!(manifest.kept.disk, ["base.qcow2", "1.qcow2"]);
    }
}
