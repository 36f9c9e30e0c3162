//! The three forms of content: a file, a directory, a name.

use std::fmt;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vmtask_core::Generation;

use super::patience;
use crate::digest::Digest;
use crate::kit::{Checkpoints, Flaw, Kept, Machine, Manifest};
use crate::storage::{Access, Storage};

/// A machine with one trait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Maker(String);

impl Maker {
    pub(super) fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Machine for Maker {
    fn may_load(&self, maker: &Self) -> Result<(), String> {
        if self == maker { Ok(()) } else { Err(format!("install {maker}")) }
    }
}

/// Content that a test can write and read back.
pub(super) trait Sample: Kept<Machine = Maker> + Clone + fmt::Debug {
    fn write(storage: &dyn Storage, part: &Path, generation: u32) -> Self;
    /// What was written, or what is wrong with it.
    fn restored(&self, state: &Path) -> Result<String, String>;
}

pub(super) fn text(generation: u32) -> String {
    format!("the memory of a guest at checkpoint {generation}").repeat(generation as usize)
}

pub(super) fn save<K: Sample>(store: &Checkpoints<K>, storage: &dyn Storage, generation: u32) {
    store.make_dir().unwrap();
    let kept = K::write(storage, &store.part(Generation(generation)), generation);
    store.commit(&Manifest::new(Generation(generation), Maker::new("A"), kept), &patience()).unwrap();
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    bytes: u64,
    sha256: Digest,
}

impl Kept for Stream {
    type Machine = Maker;
    const STATE: Option<&'static str> = Some("ram");

    fn is_here(&self) -> bool {
        true
    }

    fn inspect(&self, storage: &dyn Storage, state: &Path) -> Result<(), Flaw> {
        same_size(storage, state, self.bytes)
    }
}

fn same_size(storage: &dyn Storage, path: &Path, bytes: u64) -> Result<(), Flaw> {
    let found = storage.look(path).map_err(|source| Flaw::Unreadable { path: path.into(), source })?;
    if found.bytes == bytes { Ok(()) } else { Err(Flaw::Damaged(format!("it has {} of {bytes} bytes", found.bytes))) }
}

fn write(storage: &dyn Storage, path: &Path, text: &str) {
    let mut file = storage.create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync().unwrap();
}

fn read(path: &Path, sha256: &Digest) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if Digest::of(text.as_bytes()) == *sha256 { Ok(text) } else { Err(format!("{} differs", path.display())) }
}

impl Sample for Stream {
    fn write(storage: &dyn Storage, part: &Path, generation: u32) -> Self {
        let text = text(generation);
        write(storage, part, &text);
        Self { bytes: text.len() as u64, sha256: Digest::of(text.as_bytes()) }
    }

    fn restored(&self, state: &Path) -> Result<String, String> {
        read(state, &self.sha256)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    files: Vec<(String, u64, Digest)>,
}

impl Kept for Content {
    type Machine = Maker;
    const STATE: Option<&'static str> = None;

    fn is_here(&self) -> bool {
        true
    }

    fn inspect(&self, storage: &dyn Storage, state: &Path) -> Result<(), Flaw> {
        self.files.iter().try_for_each(|(name, bytes, _)| same_size(storage, &state.join(name), *bytes))
    }
}

impl Sample for Content {
    fn write(storage: &dyn Storage, part: &Path, generation: u32) -> Self {
        let text = text(generation);
        let (a, b) = text.split_at(text.len() / 2);
        storage.create_dir(part, Access::Owner).unwrap();
        storage.create_dir(&part.join("sub"), Access::Owner).unwrap();
        let files = [("a", a), ("sub/b", b)].map(|(name, half)| {
            write(storage, &part.join(name), half);
            (name.to_owned(), half.len() as u64, Digest::of(half.as_bytes()))
        });
        storage.sync_dir(&part.join("sub")).unwrap();
        storage.sync_dir(part).unwrap();
        Self { files: files.into() }
    }

    fn restored(&self, state: &Path) -> Result<String, String> {
        self.files.iter().map(|(name, _, sha256)| read(&state.join(name), sha256)).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    name: String,
}

impl Kept for Named {
    type Machine = Maker;
    const STATE: Option<&'static str> = None;

    fn is_here(&self) -> bool {
        false
    }

    fn inspect(&self, _: &dyn Storage, state: &Path) -> Result<(), Flaw> {
        unreachable!("nothing of it is at {}", state.display())
    }
}

impl Sample for Named {
    fn write(_: &dyn Storage, _: &Path, generation: u32) -> Self {
        Self { name: text(generation) }
    }

    fn restored(&self, _: &Path) -> Result<String, String> {
        Ok(self.name.clone())
    }
}
