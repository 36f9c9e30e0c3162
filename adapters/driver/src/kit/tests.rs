//! One store, tried with every form of content that hypervisors keep.

#![allow(clippy::unwrap_used)]

mod power;
mod samples;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rstest::rstest;
use vmtask_core::{FaultKind, Generation};

use super::*;
use crate::port::EffectToken;
use crate::storage::{Access, Look, RealStorage, Storage, StorageFile};
use crate::testing::FaultyStorage;
use crate::wait::Wait;
use samples::{Content, Maker, Named, Sample, Stream, save};

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;

fn patience() -> Wait<'static> {
    Wait::most(Duration::from_secs(3600))
}

struct Bench<K> {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    storage: FaultyStorage,
    store: Checkpoints<K>,
}

impl<K: Sample> Bench<K> {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("vm/checkpoints");
        let storage = FaultyStorage::new(Arc::new(RealStorage));
        let store = Checkpoints::on(dir.clone(), Arc::new(storage.clone()));
        Self { _temp: temp, dir, storage, store }
    }

    fn with(generations: &[u32]) -> Self {
        let bench = Self::new();
        generations.iter().for_each(|&generation| save(&bench.store, &bench.storage, generation));
        bench
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn manifest(&self, generation: u32) -> PathBuf {
        self.dir.join(format!("{generation}.json"))
    }

    fn listed(&self) -> (Vec<u32>, Vec<u32>) {
        let Listing { whole, damaged } = self.store.list().unwrap();
        (whole.iter().map(|g| g.0).collect(), damaged.iter().map(|g| g.0).collect())
    }
}

fn comes_back<K: Sample>() {
    let bench = Bench::<K>::new();
    assert_eq!(bench.listed(), (vec![], vec![]), "no directory, no checkpoints");
    let bench = Bench::<K>::with(&[3, 4]);
    assert_eq!(bench.listed(), (vec![4, 3], vec![]));
    let manifest = bench.store.open(Generation(4), &Maker::new("A")).unwrap();
    assert_eq!(manifest.kept.restored(&bench.store.state(Generation(4))).unwrap(), samples::text(4));
    for _ in 0..2 {
        bench.store.remove(Generation(4), &patience()).unwrap();
    }
    assert_eq!(bench.listed(), (vec![3], vec![]));
    assert!(matches!(bench.store.read(Generation(4)), Err(CheckpointError::Missing(Generation(4)))));
    bench.store.remove_all(&patience()).unwrap();
    assert!(!bench.dir.exists());
}

#[test]
fn a_checkpoint_of_any_form_counts_once_it_is_committed_and_until_it_is_removed() {
    comes_back::<Stream>();
    comes_back::<Content>();
    comes_back::<Named>();
}

#[test]
fn the_newest_eight_are_listed_and_the_manifests_of_all() {
    let bench = Bench::<Stream>::with(&(1..=11).collect::<Vec<_>>());
    assert_eq!(bench.listed().0, (4..=11).rev().collect::<Vec<_>>());
    assert_eq!(bench.store.manifests().unwrap().len(), 11);
}

type Damage = fn(&Bench<Stream>);

#[rstest]
#[case::torn_manifest(|b: &Bench<Stream>| { let t = std::fs::read(b.manifest(1)).unwrap(); std::fs::write(b.manifest(1), &t[..t.len() / 2]).unwrap(); }, "checksum differs")]
#[case::flipped_manifest(|b: &Bench<Stream>| { let mut t = std::fs::read(b.manifest(1)).unwrap(); t[90] ^= 1; std::fs::write(b.manifest(1), t).unwrap(); }, "checksum differs")]
#[case::empty_manifest(|b: &Bench<Stream>| std::fs::write(b.manifest(1), "").unwrap(), "cut off")]
#[case::binary_manifest(|b: &Bench<Stream>| std::fs::write(b.manifest(1), [0xff, 0xfe]).unwrap(), "no text")]
#[case::another_ones_manifest(|b: &Bench<Stream>| assert!(std::fs::copy(b.manifest(2), b.manifest(1)).is_ok()), "it is checkpoint 2")]
#[case::truncated_state(|b: &Bench<Stream>| std::fs::write(b.store.state(Generation(1)), "on").unwrap(), "it has 2 of")]
#[case::state_that_is_gone(|b: &Bench<Stream>| std::fs::remove_file(b.store.state(Generation(1))).unwrap(), "1.ram is not there")]
fn what_is_proven_damaged_is_told_with_its_reason_and_stays_until_it_is_removed(
    #[case] damage: Damage,
    #[case] words: &str,
) {
    let bench = Bench::with(&[1, 2]);
    damage(&bench);
    assert_eq!(bench.listed(), (vec![2], vec![1]));
    let error = bench.store.open(Generation(1), &Maker::new("A")).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Damaged);
    assert!(error.to_string().contains(words), "{error}");
    let before = bench.names();
    bench.store.sweep(&patience());
    assert_eq!(bench.names(), before);
    bench.store.remove(Generation(1), &patience()).unwrap();
    assert_eq!(bench.names(), ["2.json", "2.ram"]);
}

#[test]
fn a_copy_of_which_a_file_is_short_or_gone_is_damaged() {
    let bench = Bench::<Content>::with(&[1, 2]);
    std::fs::write(bench.store.state(Generation(1)).join("sub/b"), "").unwrap();
    std::fs::remove_dir_all(bench.store.state(Generation(2))).unwrap();
    assert_eq!(bench.listed(), (vec![], vec![2, 1]));
}

#[rstest]
#[case::no_permission(EACCES)]
#[case::an_io_error(EIO)]
#[case::no_descriptor(EMFILE)]
#[case::not_found_although_it_is_listed(ENOENT)]
fn what_could_not_be_looked_at_is_never_taken_for_missing_or_damaged_and_stays(
    #[case] os_error: i32,
    #[values("", "1.json", "1.ram")] barred: &str,
) {
    let bench = Bench::<Stream>::with(&[1, 2]);
    let before = bench.names();
    bench.storage.bar(&bench.dir.join(barred), os_error);
    let error = bench.store.list().unwrap_err();
    assert_eq!(error.kind(), FaultKind::Refused);
    assert!(error.to_string().contains(&format!("os error {os_error}")), "{error}");
    let error = bench.store.open(Generation(1), &Maker::new("A")).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Refused, "{error}");
    bench.store.sweep(&patience());
    if barred != "1.ram" {
        assert!(bench.store.manifests().is_err(), "what it needs is not known");
    }
    bench.storage.heal();
    assert_eq!(bench.names(), before);
    assert_eq!(bench.listed(), (vec![2, 1], vec![]));
}

/// Without a double: an error that no user is spared.
#[test]
fn a_manifest_that_is_no_file_makes_the_look_fail() {
    let bench = Bench::<Stream>::with(&[1, 2]);
    std::fs::remove_file(bench.manifest(1)).unwrap();
    std::fs::create_dir(bench.manifest(1)).unwrap();
    assert!(matches!(bench.store.list(), Err(CheckpointError::Unreadable { .. })));
    bench.store.sweep(&patience());
    assert_eq!(bench.names(), ["1.json", "1.ram", "2.json", "2.ram"]);
}

#[test]
fn what_another_machine_has_made_is_whole_and_told_with_both_ways_out() {
    let bench = Bench::<Stream>::with(&[1]);
    let error = bench.store.open(Generation(1), &Maker::new("B")).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Incompatible);
    assert_eq!(
        error.to_string(),
        "checkpoint 1 was made by A, and this is B; install A, or begin anew with `vmtask run --start-over`"
    );
    assert_eq!(bench.listed(), (vec![1], vec![]));
}

#[rstest]
#[case::of_a_later_form("{\"format\": 2, \"rooms\": []}", "format 2, and 1 is known here")]
#[case::with_fields_missing("{\"format\": 1}", "missing field")]
fn a_manifest_of_another_vmtask_is_whole_and_not_for_this_one(#[case] json: &str, #[case] words: &str) {
    let bench = Bench::<Stream>::with(&[1]);
    std::fs::write(bench.manifest(1), format!("{}\n{json}\n", crate::Digest::of(json.as_bytes()))).unwrap();
    let error = bench.store.open(Generation(1), &Maker::new("A")).unwrap_err();
    assert_eq!(error.kind(), FaultKind::Incompatible);
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(bench.listed(), (vec![1], vec![]));
    assert!(bench.store.manifests().is_err(), "what it needs is not known");
}

fn is_swept<K: Sample>(left: &[&str]) {
    let bench = Bench::<K>::with(&[1]);
    std::fs::create_dir(bench.store.part(Generation(2))).unwrap();
    std::fs::write(bench.store.state(Generation(3)), "").unwrap();
    std::fs::write(bench.store.manifest_part(Generation(4)), "").unwrap();
    std::fs::write(bench.dir.join("of somebody else"), "").unwrap();
    bench.store.sweep(&patience());
    assert_eq!(bench.names(), left);
}

#[test]
fn what_was_interrupted_is_swept_and_what_counts_is_not() {
    is_swept::<Stream>(&["1.json", "1.ram", "of somebody else"]);
    is_swept::<Content>(&["1", "1.json", "of somebody else"]);
}

#[test]
fn a_fenced_command_commits_and_removes_nothing() {
    let bench = Bench::<Content>::with(&[1]);
    let token = EffectToken::new();
    token.revoke();
    let fenced = Wait::command(&token, Instant::now() + Duration::from_secs(3600));
    assert!(bench.store.remove(Generation(1), &fenced).is_err());
    let kept = Content::write(&bench.storage, &bench.store.part(Generation(2)), 2);
    let manifest = Manifest::new(Generation(2), Maker::new("A"), kept);
    assert!(bench.store.commit(&manifest, &fenced).is_err());
    assert_eq!(bench.listed(), (vec![1], vec![]));
    bench.store.sweep(&patience());
    assert_eq!(bench.names(), ["1", "1.json"]);
}

/// Storage on which everything that may take long looks whether its command was fenced, as a fence would: inside of an
/// act that would wait for itself.
#[derive(Debug)]
struct Fencing {
    token: EffectToken,
    /// After so many looks it is fenced.
    left: Mutex<Option<usize>>,
}

impl Fencing {
    fn note(&self) {
        assert!(self.token.act(|| ()).is_ok() || self.token.is_revoked());
        let mut left = self.left.lock().unwrap();
        if let Some(more) = &mut *left {
            *more = more.saturating_sub(1);
            if *more == 0 {
                self.token.revoke();
            }
        }
    }
}

impl Storage for Fencing {
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn StorageFile>> {
        RealStorage.create(path)
    }
    fn create_dir(&self, path: &Path, access: Access) -> std::io::Result<()> {
        RealStorage.create_dir(path, access)
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.note();
        RealStorage.read(path)
    }
    fn entries(&self, dir: &Path) -> std::io::Result<Vec<OsString>> {
        self.note();
        RealStorage.entries(dir)
    }
    fn look(&self, path: &Path) -> std::io::Result<Look> {
        self.note();
        RealStorage.look(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealStorage.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> std::io::Result<()> {
        RealStorage.unlink(path)
    }
    fn remove_dir(&self, path: &Path) -> std::io::Result<()> {
        RealStorage.remove_dir(path)
    }
    fn sync_file(&self, path: &Path) -> std::io::Result<()> {
        self.note();
        RealStorage.sync_file(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.note();
        RealStorage.sync_dir(dir)
    }
}

#[test]
fn a_fence_waits_for_one_name_at_most_and_what_was_not_gone_by_then_stays() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("vm/checkpoints");
    let token = EffectToken::new();
    let storage = Arc::new(Fencing { token: token.clone(), left: Mutex::new(None) });
    let store = Checkpoints::<Content>::on(dir.clone(), Arc::clone(&storage) as _);
    save(&store, &*storage, 1);
    save(&store, &*storage, 2);
    let big = store.state(Generation(1));
    (0..100).for_each(|ix| std::fs::write(big.join(format!("block-{ix}")), "").unwrap());
    *storage.left.lock().unwrap() = Some(50);
    let error =
        store.remove(Generation(1), &Wait::command(&token, Instant::now() + Duration::from_secs(3600))).unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Unknown);
    let left = std::fs::read_dir(&big).unwrap().count();
    assert!((20..100).contains(&left), "{left}");
    *storage.left.lock().unwrap() = None;
    assert_eq!(store.list().unwrap().whole.newest(), Some(Generation(2)));
    assert!(!store.list().unwrap().whole.contains(Generation(1)), "it had stopped to count");
}

#[cfg(unix)]
#[test]
fn a_tree_goes_with_its_links_and_whatever_its_modes() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let temp = tempfile::tempdir().unwrap();
    let (tree, outside) = (temp.path().join("tree"), temp.path().join("outside"));
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "").unwrap();
    std::fs::write(tree.join("a/b/file"), "").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    symlink("nowhere", tree.join("a/dangling")).unwrap();
    std::fs::set_permissions(tree.join("a/b"), PermissionsExt::from_mode(0o500)).unwrap();
    std::fs::set_permissions(tree.join("a"), PermissionsExt::from_mode(0o000)).unwrap();
    remove_tree(&RealStorage, &tree, &patience()).unwrap();
    assert_eq!(std::fs::symlink_metadata(&tree).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(outside.join("precious").exists());
    remove_tree(&RealStorage, &tree, &patience()).unwrap();
}
