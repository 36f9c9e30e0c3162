//! What is known of a VM, as it lies on disk: `vmtask-standin/state.json` beside the `.vmx` file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmtask_vix_abi::power_state;

use crate::guest::Share;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) power: Power,
    /// Rises whenever the guest's life is another one: power on, resume, reset, revert. A log-in counts for one life.
    pub(crate) boot: u64,
    pub(crate) snapshots: Vec<Snapshot>,
    /// The snapshot that the VM's present state comes from.
    pub(crate) current: Option<u64>,
    pub(crate) next_snapshot: u64,
    /// A snapshot has been taken since the VM was suspended.
    pub(crate) suspension_kept: bool,
    /// A revert to this snapshot was begun and not finished: its client died, or the snapshot is damaged. It must be
    /// finished, or another one be made, before the guest's files are used.
    pub(crate) reverting: Option<u64>,
    pub(crate) sharing: bool,
    pub(crate) shares: Vec<Share>,
    pub(crate) guest_variables: BTreeMap<String, String>,
    pub(crate) config_variables: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<String, String>,
    /// For a linked clone: what it lives on.
    pub(crate) parent: Option<Parent>,
    /// The version of the virtual hardware, once it has been upgraded.
    pub(crate) hardware: Option<i32>,
}

/// A VM's power, and what it was doing when its client died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Power {
    #[default]
    Off,
    PoweringOn,
    On,
    Paused,
    Suspending,
    Suspended,
    Resuming,
}

impl Power {
    /// The bits of the power state, without those about Tools.
    pub(crate) fn bits(self) -> i32 {
        match self {
            Self::Off => power_state::POWERED_OFF,
            Self::PoweringOn => power_state::POWERING_ON,
            Self::On => power_state::POWERED_ON,
            Self::Paused => power_state::POWERED_ON | power_state::PAUSED,
            Self::Suspending => power_state::SUSPENDING,
            Self::Suspended => power_state::SUSPENDED,
            Self::Resuming => power_state::RESUMING,
        }
    }

    /// Whether the guest exists in the host's memory.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::On | Self::Paused)
    }
}

/// A snapshot of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Unique in its VM, and the name of its directory.
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) name: String,
    pub(crate) description: String,
    /// What a revert brings back: [`Power::Off`] if memory was not kept.
    pub(crate) power: Power,
}

/// The VM and snapshot that a linked clone was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parent {
    pub(crate) vmx: PathBuf,
    pub(crate) snapshot: u64,
}

impl State {
    pub(crate) fn snapshot(&self, id: u64) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }

    /// The snapshots below one, or at the root, oldest first.
    pub(crate) fn children(&self, parent: Option<u64>) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.iter().filter(move |snapshot| snapshot.parent == parent)
    }
}
