//! Losses of power.

use std::sync::Arc;

use vmtask_core::Generation;

use super::samples::{Content, Maker, Named, Sample, Stream, save, text};
use super::{Checkpoints, Manifest, patience};
use crate::testing::{Crash, FaultyStorage, RecordingStorage};

/// What is wrong with the checkpoints that a loss of power has left, if anything.
fn broken_promise<K: Sample>(crash: &Crash) -> Option<String> {
    let disk = tempfile::tempdir().unwrap();
    crash.lay_out(disk.path()).unwrap();
    let store = Checkpoints::<K>::new(disk.path().join("vm/checkpoints"));
    let listing = store.list().unwrap();
    if !listing.damaged.is_empty() {
        return Some(format!("{}: {:?} are damaged", crash.story, listing.damaged));
    }
    for generation in listing.whole.iter() {
        // What is listed is what a restore will rely on: it has to be what was written.
        let manifest = store.open(generation, &Maker::new("A")).unwrap();
        match manifest.kept.restored(&store.state(generation)) {
            Ok(restored) if restored == text(generation.0) => {}
            other => return Some(format!("{}: checkpoint {generation}: {other:?}", crash.story)),
        }
    }
    let newest = listing.whole.newest().map(|generation| u64::from(generation.0));
    (newest < crash.last_mark())
        .then(|| format!("{}: promised {:?}, found {listing:?}", crash.story, crash.last_mark()))
}

fn survives_losses_of_power<K: Sample>() {
    let disk = tempfile::tempdir().unwrap();
    let storage = RecordingStorage::new(disk.path()).unwrap();
    let faulty = FaultyStorage::new(Arc::new(storage.clone()));
    let store = Checkpoints::<K>::on(disk.path().join("vm/checkpoints"), Arc::new(faulty.clone()));
    for generation in 1..=3 {
        save(&store, &faulty, generation);
        storage.mark(generation.into());
        if generation > 2 {
            store.remove(Generation(generation - 2), &patience()).unwrap();
        }
    }
    for manifest in store.manifests().unwrap() {
        store.rewrite(&manifest, &patience()).unwrap();
    }
    // A commit that was cut off behind its last rename. Whoever looks sees the checkpoint, and drops what it replaces.
    let kept = K::write(&faulty, &store.part(Generation(4)), 4);
    let manifest = Manifest::new(Generation(4), Maker::new("A"), kept.clone());
    faulty.fail_after(if kept.is_here() { 4 } else { 2 });
    assert!(store.commit(&manifest, &patience()).is_err());
    faulty.heal();
    assert_eq!(store.list().unwrap().whole.newest(), Some(Generation(4)), "{:?}", store.list());
    // The newest first: nothing else is left then.
    for generation in [3, 2] {
        store.remove(Generation(generation), &patience()).unwrap();
    }
    storage.mark(4);
    let crashes = storage.crashes();
    assert!(crashes.len() >= 30, "only {} states: the recording misses something", crashes.len());
    let broken: Vec<_> = crashes.iter().filter_map(broken_promise::<K>).collect();
    assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), crashes.len(), broken.join("\n"));
}

#[test]
fn a_loss_of_power_at_any_point_leaves_the_newest_file_that_was_committed() {
    survives_losses_of_power::<Stream>();
}

#[test]
fn a_loss_of_power_at_any_point_leaves_the_newest_directory_that_was_committed() {
    survives_losses_of_power::<Content>();
}

#[test]
fn a_loss_of_power_at_any_point_leaves_the_newest_name_that_was_committed() {
    survives_losses_of_power::<Named>();
}
