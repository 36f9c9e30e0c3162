#![allow(clippy::unwrap_used)]

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use vmtask_core::FaultKind;
use vmtask_driver::testing::FaultyStorage;

use super::*;
use crate::checkpoint::{Form, Manifest, Stream};

const SIZE: u64 = 1 << 20;
const FIRST: Generation = Generation(1);

fn patience() -> Wait<'static> {
    Wait::most(Duration::from_secs(3600))
}

/// A cache and a task's checkpoints.
struct Bench {
    _temp: tempfile::TempDir,
    cache: PathBuf,
    dir: PathBuf,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (cache, dir) = (temp.path().join("ram"), temp.path().join("vm/checkpoints"));
        std::fs::create_dir_all(&dir).unwrap();
        Self { cache, store: Store::new(dir.clone()), dir, _temp: temp }
    }

    /// Makes a template in the cache, and a guest of it.
    fn guest(&self, content: u8) -> BaseMemory {
        let memory = ram::new_memory(SIZE).unwrap();
        memory.write_all_at(&[content; 5000], 8192).unwrap();
        durable::gone(std::fs::remove_file(&self.cache)).unwrap();
        let mut image = File::options().read(true).write(true).create_new(true).open(&self.cache).unwrap();
        ram::save(&memory, &mut image).unwrap();
        let memory = ram::new_memory(SIZE).unwrap();
        let loaded = ram::load(&mut image, &memory).unwrap();
        BaseMemory::new(memory, image, loaded, self.dir.clone()).unwrap()
    }

    fn commit(&self, generation: Generation, form: Form) {
        let text = b"a stream";
        std::fs::write(self.store.part(generation), text).unwrap();
        let stream = Stream { bytes: text.len() as u64, sha256: Digest::of(text), form, disk: Vec::new() };
        let machine = crate::checkpoint::tests::machine();
        self.store.commit(&Manifest::new(generation, machine, stream), &patience()).unwrap();
    }

    fn restore(&self, digest: Digest) -> Result<BaseMemory, CheckpointError> {
        Pinned::open(&self.dir, FIRST, digest)?.load(ram::new_memory(SIZE).unwrap())
    }

    fn templates(&self) -> usize {
        let names = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().contains(TEMPLATE)).count()
    }
}

fn content(base: &BaseMemory) -> u8 {
    let mut byte = [0];
    base.memory.read_exact_at(&mut byte, 8192).unwrap();
    byte[0]
}

#[test]
fn a_pinned_template_outlives_the_cache_and_takes_no_room() {
    let bench = Bench::new();
    let guest = bench.guest(7);
    for _ in 0..2 {
        guest.pin().unwrap();
    }
    let pinned = std::fs::metadata(place(&bench.dir, guest.digest())).unwrap();
    assert_eq!(pinned.ino(), std::fs::metadata(&bench.cache).unwrap().ino());
    // Made anew, under the same name.
    let another = bench.guest(8);
    assert_ne!(another.digest(), guest.digest());
    assert_eq!(content(&bench.restore(guest.digest()).unwrap()), 7);
    // A restored guest's checkpoints need the same one, and it is there.
    bench.restore(guest.digest()).unwrap().pin().unwrap();
    assert_eq!(bench.templates(), 1);
}

#[test]
fn a_template_that_the_cache_has_lost_meanwhile_is_pinned_all_the_same() {
    let bench = Bench::new();
    let guest = bench.guest(7);
    std::fs::remove_file(&bench.cache).unwrap();
    guest.pin().unwrap();
    assert_eq!(content(&bench.restore(guest.digest()).unwrap()), 7);
}

#[test]
fn where_links_do_not_reach_it_is_copied_once() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let bench = Bench::new();
    let mut guest = bench.guest(7);
    if std::fs::metadata(elsewhere.path()).unwrap().dev() == std::fs::metadata(&bench.dir).unwrap().dev() {
        return;
    }
    guest.dir = elsewhere.path().to_owned();
    guest.pin().unwrap();
    let copied = std::fs::metadata(place(&guest.dir, guest.digest())).unwrap().ino();
    guest.pin().unwrap();
    assert_eq!(std::fs::metadata(place(&guest.dir, guest.digest())).unwrap().ino(), copied);
    let pinned = Pinned::open(&guest.dir, FIRST, guest.digest()).unwrap();
    assert_eq!(content(&pinned.load(ram::new_memory(SIZE).unwrap()).unwrap()), 7);
}

#[test]
fn what_lies_in_its_place_is_replaced() {
    let bench = Bench::new();
    let guest = bench.guest(7);
    std::fs::write(place(&bench.dir, guest.digest()), "rotten").unwrap();
    std::fs::write(place(&bench.dir, guest.digest()).with_extension(&PART[1..]), "half").unwrap();
    guest.pin().unwrap();
    assert_eq!(content(&bench.restore(guest.digest()).unwrap()), 7);
    assert_eq!(bench.templates(), 1);
}

#[rstest]
#[case::gone(|path: &Path| std::fs::remove_file(path).unwrap(), FaultKind::Damaged, "is not there")]
#[case::flipped(|path: &Path| { let mut b = std::fs::read(path).unwrap(); b[200] ^= 1; std::fs::write(path, b).unwrap(); }, FaultKind::Damaged, "checksum differs")]
#[case::renamed_by_a_flipped_hash(|path: &Path| { let mut b = std::fs::read(path).unwrap(); b[DIGEST_AT] ^= 1; std::fs::write(path, b).unwrap(); }, FaultKind::Damaged, "checksum differs")]
#[case::cut_off(|path: &Path| { let b = std::fs::read(path).unwrap(); std::fs::write(path, &b[..b.len() / 2]).unwrap(); }, FaultKind::Damaged, "damaged")]
#[case::no_file(|path: &Path| { std::fs::remove_file(path).unwrap(); std::fs::create_dir(path).unwrap(); }, FaultKind::Refused, "cannot read")]
fn only_what_is_proven_of_a_template_damages_its_checkpoints(
    #[case] change: fn(&Path),
    #[case] expected: FaultKind,
    #[case] words: &str,
) {
    let bench = Bench::new();
    let guest = bench.guest(7);
    guest.pin().unwrap();
    let path = place(&bench.dir, guest.digest());
    // Not the cache's, which has the same content.
    let own = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, own).unwrap();
    change(&path);
    let error = bench.restore(guest.digest()).err().unwrap();
    assert_eq!(error.kind(), expected, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_listing_tells_checkpoints_without_their_template_from_those_whose_template_it_could_not_look_at() {
    let mut bench = Bench::new();
    let storage = FaultyStorage::new(Arc::new(RealStorage));
    bench.store = Store::on(bench.dir.clone(), Arc::new(storage.clone()));
    let guest = bench.guest(7);
    guest.pin().unwrap();
    bench.commit(FIRST, Form::RelativeTo(guest.digest()));
    let place = place(&bench.dir, guest.digest());
    assert!(bench.store.list().unwrap().whole.contains(FIRST));
    storage.bar(&place, 5);
    assert_eq!(bench.store.list().unwrap_err().kind(), FaultKind::Refused);
    storage.heal();
    std::fs::remove_file(place).unwrap();
    let listing = bench.store.list().unwrap();
    assert!(listing.damaged.contains(FIRST) && listing.whole.is_empty());
}

/// Where the hash is in an image.
const DIGEST_AT: usize = 40;

#[test]
fn another_template_under_the_same_name_is_found_out() {
    let bench = Bench::new();
    let (first, second) = (bench.guest(7), bench.guest(8));
    std::fs::copy(&bench.cache, place(&bench.dir, first.digest())).unwrap();
    let error = bench.restore(first.digest()).err().unwrap();
    assert_eq!(error.kind(), FaultKind::Damaged, "{error}");
    assert!(error.to_string().contains(&format!("it is {}", second.digest())), "{error}");
}

#[test]
fn templates_go_only_if_every_manifest_was_read_and_none_names_them() {
    let bench = Bench::new();
    let guests: Vec<BaseMemory> = (1..=4).map(|content| bench.guest(content)).collect();
    guests.iter().for_each(|guest| guest.pin().unwrap());
    bench.commit(Generation(1), Form::RelativeTo(guests[0].digest()));
    bench.commit(Generation(2), Form::RelativeTo(guests[1].digest()));
    bench.commit(Generation(3), Form::Packed);
    let manifest = bench.dir.join("2.json");
    let text = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    std::fs::create_dir(&manifest).unwrap();
    sweep(&bench.store, &bench.dir, None, &patience());
    assert_eq!(bench.templates(), 4, "nobody knows what the second one needs");
    std::fs::remove_dir(&manifest).unwrap();
    std::fs::write(&manifest, text).unwrap();
    sweep(&bench.store, &bench.dir, Some(guests[2].digest()), &patience());
    assert_eq!(bench.templates(), 3);
    assert!(!place(&bench.dir, guests[3].digest()).exists());
    bench.store.remove(Generation(2), &patience()).unwrap();
    sweep(&bench.store, &bench.dir, None, &patience());
    assert_eq!(bench.templates(), 1);
    assert_eq!(content(&bench.restore(guests[0].digest()).unwrap()), 1);
}
