//! The manifest: a small text that makes a checkpoint count.
//!
//! ```text
//!   5f0c...e1     SHA-256 of everything below, so that a torn manifest is known for what it is
//!   { "format": 1, "generation": 7, "machine": {...}, ...what the hypervisor keeps... }
//! ```

use std::fmt;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vmtask_core::Generation;

use crate::digest::Digest;
use crate::kit::error::{CheckpointError, Flaw};
use crate::storage::Storage;

/// The version of the manifest's own form.
const FORMAT: u32 = 1;

/// What must agree between the host that made a checkpoint and the one that loads it. Displayed as "X with Y".
pub trait Machine: Serialize + DeserializeOwned + fmt::Display {
    /// Whether this machine may load what `maker` has made: the one place that decides it.
    ///
    /// # Errors
    /// If not: what to do so that it may, as in "install QEMU 7.2.22".
    fn may_load(&self, maker: &Self) -> Result<(), String>;
}

/// What a hypervisor keeps for a checkpoint. Its fields are in the manifest beside the common ones.
pub trait Kept: Serialize + DeserializeOwned {
    /// What made it.
    type Machine: Machine;

    /// The extension of the file or directory beside the manifest that holds the state: with `Some("ram")` it is
    /// `7.ram`, with `None` it is `7`.
    const STATE: Option<&'static str>;

    /// Whether this one's state is in that place. If not, the hypervisor keeps it by itself.
    fn is_here(&self) -> bool;

    /// Compares what is at `state` with what was written, by what can be told without reading it all. Called only if
    /// [`Kept::is_here`].
    ///
    /// # Errors
    /// What differs, or what could not be looked at. Something that is missing is told as
    /// [`io::ErrorKind::NotFound`] of its path: the store looks whether that is proof.
    fn inspect(&self, storage: &dyn Storage, state: &Path) -> Result<(), Flaw>;
}

/// What a checkpoint is, and what may load it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Manifest<K: Kept> {
    format: u32,
    generation: Generation,
    machine: K::Machine,
    /// What the hypervisor keeps.
    #[serde(flatten)]
    pub kept: K,
}

#[derive(Deserialize)]
struct OnlyFormat {
    format: u32,
}

impl<K: Kept> Manifest<K> {
    /// Of a checkpoint that `machine` has made.
    pub const fn new(generation: Generation, machine: K::Machine, kept: K) -> Self {
        Self { format: FORMAT, generation, machine, kept }
    }

    /// Whose it is.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// What made it.
    pub const fn machine(&self) -> &K::Machine {
        &self.machine
    }

    pub(super) fn to_text(&self) -> io::Result<String> {
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        Ok(format!("{}\n{json}\n", Digest::of(json.as_bytes())))
    }

    /// Reads what [`Manifest::to_text`] has written for `generation`.
    pub(super) fn from_text(generation: Generation, text: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = |what: String| CheckpointError::Damaged { generation, what };
        let text = std::str::from_utf8(text).map_err(|_| damaged("its manifest is no text".into()))?;
        let (sum, json) = text.split_once('\n').ok_or_else(|| damaged("its manifest is cut off".into()))?;
        let json = json.trim_end();
        if Digest::of(json.as_bytes()).to_string() != sum {
            return Err(damaged("its manifest's checksum differs".into()));
        }
        // From here on it is what was written, though perhaps by another version of this program.
        let foreign = |what: String| CheckpointError::Incompatible {
            generation,
            what: format!("has a manifest that this vmtask cannot read ({what})"),
            way_out: "install the vmtask that made it".into(),
        };
        let unreadable = |error: serde_json::Error| foreign(error.to_string());
        let OnlyFormat { format } = serde_json::from_str(json).map_err(unreadable)?;
        if format != FORMAT {
            return Err(foreign(format!("format {format}, and {FORMAT} is known here")));
        }
        let manifest: Self = serde_json::from_str(json).map_err(unreadable)?;
        if manifest.generation != generation {
            return Err(damaged(format!("its manifest says that it is checkpoint {}", manifest.generation)));
        }
        Ok(manifest)
    }

    pub(super) fn check_machine(&self, here: &K::Machine) -> Result<(), CheckpointError> {
        here.may_load(&self.machine).map_err(|way_out| CheckpointError::Incompatible {
            generation: self.generation,
            what: format!("was made by {}, and this is {here}", self.machine),
            way_out,
        })
    }
}
