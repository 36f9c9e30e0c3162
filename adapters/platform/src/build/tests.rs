#![allow(clippy::unwrap_used)]
use std::fs;

use super::*;
use crate::testing::Fixture;

#[test]
fn the_same_packages_give_the_same_definition_in_any_place() {
    let fixture = Fixture::new();
    let first = fixture.build("x86_64-pc-linux-gnu");
    let elsewhere = fixture.path().join("elsewhere");
    let second = build("x86_64-pc-linux-gnu", &elsewhere, &fixture.options(), &mut |_| {}).unwrap();
    assert_eq!(first.definition(), second.definition());
    assert_eq!(fs::read(first.kernel()).unwrap(), b"\x7fELF kernel");
    assert_eq!(fs::read(first.root()).unwrap(), fs::read(second.root()).unwrap());
}

#[test]
fn other_packages_give_another_fingerprint() {
    let (one, other) = (Fixture::new(), Fixture::with_kernel(b"\x7fELF newer kernel"));
    let fingerprints = [&one, &other].map(|f| f.build("x86_64-pc-linux-gnu").fingerprint().to_owned());
    assert_ne!(fingerprints[0], fingerprints[1]);
}

#[test]
fn one_image_serves_both_platforms_and_outlives_either() {
    let fixture = Fixture::new();
    let [wide, narrow] = BUILDABLE.map(|name| fixture.build(name));
    assert_eq!(wide.definition().files, narrow.definition().files);
    assert_ne!(wide.fingerprint(), narrow.fingerprint());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(wide.root()).unwrap().ino(), fs::metadata(narrow.root()).unwrap().ino());
    }
    fs::remove_dir_all(wide.dir()).unwrap();
    narrow.verify().unwrap();
}

#[test]
fn a_damaged_sibling_is_not_linked_and_a_damaged_platform_is_mended() {
    let fixture = Fixture::new();
    let [wide_name, narrow_name] = BUILDABLE;
    let wide = fixture.build(wide_name);
    let kernel = fs::read(wide.kernel()).unwrap();
    fs::write(wide.kernel(), vec![0; kernel.len()]).unwrap();
    fixture.build(narrow_name).verify().unwrap();
    assert!(wide.verify().is_err());
    fixture.build(wide_name).verify().unwrap();
}

#[test]
fn a_build_that_fails_leaves_the_platform_that_was_there_and_nothing_else() {
    let fixture = Fixture::new();
    let before = fixture.build("x86_64-pc-linux-gnu");
    let mut options = fixture.options();
    options.lock.packages.pop();
    let error = build("x86_64-pc-linux-gnu", &fixture.store(), &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, PlatformError::Lock { .. }), "{error}");
    before.verify().unwrap();
    let names: Vec<_> = fs::read_dir(fixture.store()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.iter().filter(|name| !name.to_str().unwrap().starts_with(".lock")).count(), 1, "{names:?}");
}

#[test]
fn what_a_killed_build_left_is_swept_and_what_another_is_making_is_not() {
    let fixture = Fixture::new();
    let abandoned = fixture.store().join(".new-abandoned");
    fs::create_dir_all(&abandoned).unwrap();
    fs::write(abandoned.join("vmlinux"), "half").unwrap();
    let other = Staging::new(&fixture.store()).unwrap();
    assert!(!abandoned.exists());
    fixture.build("x86_64-pc-linux-gnu");
    assert!(other.path().exists());
}

#[test]
fn builds_at_the_same_time_all_succeed_with_the_same_platform() {
    let fixture = Fixture::new();
    let platforms: Vec<Platform> = std::thread::scope(|scope| {
        let names = [BUILDABLE[0], BUILDABLE[1], BUILDABLE[0], BUILDABLE[1]];
        let threads = names.map(|name| scope.spawn(|| fixture.build(name)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(platforms[0], platforms[2]);
    for platform in platforms {
        platform.verify().unwrap();
    }
}

#[test]
fn a_name_without_a_recipe_says_which_there_are() {
    let fixture = Fixture::new();
    let error = build("sparc-sun-solaris", &fixture.store(), &fixture.options(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("i686-pc-linux-gnu"), "{error}");
    let error = build("../x", &fixture.store(), &fixture.options(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, PlatformError::BadName { .. }));
}

#[test]
fn progress_names_every_package_twice_and_every_file() {
    let fixture = Fixture::new();
    let (mut fetched, mut unpacked, mut written) = (0, 0, Vec::new());
    build("x86_64-pc-linux-gnu", &fixture.store(), &fixture.options(), &mut |step| match step {
        Progress::Fetching { .. } => fetched += 1,
        Progress::Unpacking { .. } => unpacked += 1,
        Progress::Writing { file, .. } => written.push(file.to_owned()),
    })
    .unwrap();
    let count = fixture.lock.packages.len();
    assert_eq!((fetched, unpacked, written), (count, count, vec!["vmlinux".to_owned(), "root.cpio".to_owned()]));
}

#[test]
fn the_built_in_lock_has_all_that_the_recipe_needs() {
    let lock = Lock::built_in().unwrap();
    check_complete(&lock).unwrap();
    assert!(lock.packages.iter().any(|package| root::is_kernel_package(&package.name)));
    let copy = tempfile::NamedTempFile::new().unwrap();
    lock.save(copy.path()).unwrap();
    assert_eq!(Lock::load(copy.path()).unwrap(), lock);
    assert_eq!(fs::read_to_string(copy.path()).unwrap(), include_str!("../../platform.lock"), "written by the builder");
}

#[rstest::rstest]
#[case::not_toml("version = [", "line 1")]
#[case::newer("version = 2\ndistribution = \"x\"\npackage = []", "lock version 2")]
#[case::unknown_key("version = 1\ndistribution = \"x\"\npackage = []\nodd = 1", "odd")]
#[case::bad_hash(&locked("pool/x.deb", "123"), "SHA-256")]
#[case::way_out(&locked("pool/../../x.deb", &"0".repeat(64)), "no path below")]
#[case::absolute(&locked("/x.deb", &"0".repeat(64)), "no path below")]
fn a_lock_that_cannot_be_used_says_why(#[case] text: &str, #[case] cause: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let error = Lock::load(file.path()).unwrap_err().to_string();
    assert!(error.contains(cause) && error.contains(file.path().to_str().unwrap()), "{error}");
}

fn locked(pool: &str, sha256: &str) -> String {
    format!(
        "version = 1\ndistribution = \"x\"\n[[package]]\nname = \"x\"\narchitecture = \"amd64\"\nversion = \"1\"\n\
         pool = \"{pool}\"\nsize = 1\nsha256 = \"{sha256}\"\n"
    )
}
