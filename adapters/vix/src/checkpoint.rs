//! What is kept of a checkpoint under VIX: a snapshot with the product, or a copy of the suspended VM's files.
//!
//! ```text
//!   snapshots   the product keeps `vmtask-7`      vm/checkpoints/7.json   the manifest
//!   copies      vm/checkpoints/7.part/  being written
//!               vm/checkpoints/7/       flushed, renamed                  vm/checkpoints/7.json
//! ```
//! The store itself is [`vmtask_driver::kit`]'s.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vmtask_core::Generation;
use vmtask_driver::Storage;
use vmtask_driver::kit::{self, Checkpoints, Flaw, Kept};

use crate::setup::Setup;
use crate::tree::{self, Entry};

/// A task's checkpoints.
pub(crate) type Store = Checkpoints<Saved>;
/// What a checkpoint is, and what may load it.
pub(crate) type Manifest = kit::Manifest<Saved>;

/// What is in a manifest beside what all have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
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

impl Kept for Saved {
    type Machine = Machine;
    const STATE: Option<&'static str> = None;

    fn is_here(&self) -> bool {
        matches!(self.content, Content::Copy(_))
    }

    fn inspect(&self, storage: &dyn Storage, state: &Path) -> Result<(), Flaw> {
        match &self.content {
            Content::Snapshot(_) => Ok(()),
            Content::Copy(entries) => tree::looks_whole(storage, state, entries),
        }
    }
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

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} ({} cpus", self.product, self.vm, self.cpus)?;
        self.memory.map_or(Ok(()), |memory| write!(f, ", {} MiB", memory >> 20))?;
        f.write_str(")")
    }
}

impl kit::Machine for Machine {
    fn may_load(&self, maker: &Self) -> Result<(), String> {
        if self == maker {
            return Ok(());
        }
        let mut ways = Vec::new();
        if self.product != maker.product {
            ways.push(format!("run it on {}", maker.product));
        }
        if self.vm != maker.vm {
            ways.push(format!("name the virtual machine {}", maker.vm));
        }
        if (self.memory, self.cpus) != (maker.memory, maker.cpus) {
            let memory = maker.memory.map_or("unset".into(), |memory| format!("to {} MiB", memory >> 20));
            ways.push(format!("set limits.memory {memory} and limits.cpus to {}", maker.cpus));
        }
        Err(ways.join(" and "))
    }
}

/// What a checkpoint's snapshot is called.
pub(crate) fn snapshot_name(generation: Generation) -> String {
    format!("vmtask-{generation}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wait::Wait;
    use rstest::rstest;
    use std::fs;
    use std::time::Duration;
    use vmtask_core::FaultKind;

    fn machine() -> Machine {
        Machine { product: "VMware Player".into(), vm: "/vms/x.vmx".into(), memory: None, cpus: 1 }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("vm/checkpoints"));
        store.make_dir().unwrap();
        (dir, store)
    }

    fn save(store: &Store, generation: Generation, content: Content) {
        let manifest = Manifest::new(generation, machine(), Saved { content });
        store.commit(&manifest, &Wait::most(Duration::from_secs(3600))).unwrap();
    }

    fn save_copy(store: &Store, generation: Generation) {
        let part = store.part(generation);
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join("x.vmss"), "the state").unwrap();
        save(store, generation, Content::Copy(tree::measure(&part, &|| true).unwrap()));
    }

    #[test]
    fn a_copy_of_which_a_file_is_short_is_damaged_and_a_snapshot_lies_with_the_product() {
        let (_dir, store) = store();
        save_copy(&store, Generation(1));
        save_copy(&store, Generation(2));
        save(&store, Generation(3), Content::Snapshot(snapshot_name(Generation(3))));
        fs::write(store.state(Generation(1)).join("x.vmss"), "the stat").unwrap();
        let listing = store.list().unwrap();
        assert_eq!(listing.whole.iter().collect::<Vec<_>>(), [Generation(3), Generation(2)]);
        assert_eq!(listing.damaged.iter().collect::<Vec<_>>(), [Generation(1)]);
    }

    #[rstest]
    #[case::product(|m: &mut Machine| m.product = "VMware Fusion".into(), "run it on VMware Player, or")]
    #[case::vm(|m: &mut Machine| m.vm = "/vms/y.vmx".into(), "name the virtual machine /vms/x.vmx, or")]
    #[case::limits(|m: &mut Machine| m.cpus = 2, "set limits.memory unset and limits.cpus to 1, or")]
    fn only_the_same_machine_may_load_it_and_another_is_told_both_ways_out(
        #[case] change: fn(&mut Machine),
        #[case] words: &str,
    ) {
        let (_dir, store) = store();
        save_copy(&store, Generation(1));
        let mut here = machine();
        change(&mut here);
        let error = store.open(Generation(1), &here).unwrap_err();
        assert_eq!(error.kind(), FaultKind::Incompatible);
        let text = error.to_string();
        assert!(text.contains(words) && text.ends_with("or begin anew with `vmtask run --start-over`"), "{text}");
    }

    #[test]
    fn manifests_that_version_0_1_has_written_load() {
        let (dir, store) = store();
        let checkpoints = dir.path().join("vm/checkpoints");
        fs::write(checkpoints.join("2.json"), include_bytes!("../tests/records/v1-snapshot.json")).unwrap();
        fs::write(checkpoints.join("7.json"), include_bytes!("../tests/records/v1-copy.json")).unwrap();
        let state = store.state(Generation(7));
        fs::create_dir_all(state.join("guest")).unwrap();
        for (name, text) in [("guest/disk", "the disk"), ("guest/link", ""), ("x.vmss", "the state")] {
            fs::write(state.join(name), text).unwrap();
        }
        let snapshot = store.open(Generation(2), &machine()).unwrap();
        assert_eq!(snapshot.kept.content, Content::Snapshot("vmtask-2".into()));
        let Content::Copy(entries) = store.open(Generation(7), &machine()).unwrap().kept.content else {
            panic!("it is a copy");
        };
        assert_eq!(entries.len(), 4);
    }
}
