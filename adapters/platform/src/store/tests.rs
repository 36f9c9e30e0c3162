#![allow(clippy::unwrap_used)]
use std::fs;

use super::*;
use crate::testing::Fixture;

const NAME: &str = "x86_64-pc-linux-gnu";

/// A platform, and its definition with one text replaced by another.
fn edited(from: &str, to: &str) -> (Fixture, PathBuf) {
    let fixture = Fixture::new();
    let dir = fixture.build(NAME).dir().to_owned();
    let path = dir.join(DEFINITION_FILE);
    let xml = fs::read_to_string(&path).unwrap();
    assert!(xml.contains(from), "{xml}");
    fs::write(&path, xml.replacen(from, to, 1)).unwrap();
    (fixture, dir)
}

#[rstest::rstest]
#[case::not_xml("<platform ", "<<platform ", "not a platform definition")]
#[case::newer("version=\"1\"", "version=\"2\"", "definition version 2")]
#[case::other_protocol("protocol=\"1\"", "protocol=\"7\"", "protocol 7")]
#[case::no_kernel("role=\"kernel\"", "role=\"root\"", "role kernel")]
#[case::unknown_role("role=\"kernel\"", "role=\"initrd\"", "initrd")]
#[case::way_out("name=\"vmlinux\"", "name=\"../vmlinux\"", "would lead out")]
#[case::absolute("name=\"vmlinux\"", "name=\"/boot/vmlinux\"", "would lead out")]
#[case::hidden("name=\"vmlinux\"", "name=\".verified\"", "would lead out")]
#[case::no_hash("sha256=\"", "sha256=\"z", "SHA-256")]
#[case::host_cpu("cpu=\"Nehalem,enforce\"", "cpu=\"host\"", "differs from host to host")]
#[case::max_cpu("cpu=\"Nehalem,enforce\"", "cpu=\"max,enforce\"", "differs from host to host")]
#[case::edited("machine=\"pc-q35-7.2\"", "machine=\"pc-q35-8.0\"", "edited")]
#[case::more_memory("memory-mib=\"256\"", "memory-mib=\"512\"", "edited")]
fn a_definition_that_does_not_hold_says_which_file_why_and_the_way_out(
    #[case] from: &str,
    #[case] to: &str,
    #[case] cause: &str,
) {
    let (_fixture, dir) = edited(from, to);
    let error = Platform::open(&dir).unwrap_err().to_string();
    assert!(error.contains(cause), "{error}");
    assert!(
        error.contains(dir.join(DEFINITION_FILE).to_str().unwrap()) && error.contains("build or import"),
        "{error}"
    );
}

#[test]
fn a_definition_keeps_all_its_fields_and_skips_sections_of_others() {
    let (_fixture, dir) = edited("</platform>", "  <vmx hardware=\"19\"><disk/></vmx>\n</platform>");
    let platform = Platform::open(&dir).unwrap();
    let again = Definition::parse(&platform.definition().to_xml().unwrap()).unwrap();
    assert_eq!(again, *platform.definition());
}

#[test]
fn a_missing_short_or_linked_file_is_found_without_hashing() {
    let fixture = Fixture::new();
    let platform = fixture.build(NAME);
    let kernel = platform.kernel();
    let bytes = fs::read(&kernel).unwrap();

    fs::remove_file(&kernel).unwrap();
    assert!(Platform::open(platform.dir()).unwrap_err().to_string().contains("missing"));
    fs::write(&kernel, &bytes[1..]).unwrap();
    assert!(Platform::open(platform.dir()).unwrap_err().to_string().contains("bytes, not"));
    #[cfg(unix)]
    {
        fs::remove_file(&kernel).unwrap();
        fs::write(platform.dir().join("elsewhere"), &bytes).unwrap();
        std::os::unix::fs::symlink("elsewhere", &kernel).unwrap();
        assert!(Platform::open(platform.dir()).unwrap_err().to_string().contains("not a regular file"));
    }
}

#[test]
fn a_changed_file_is_found_at_the_next_opening() {
    let fixture = Fixture::new();
    let platform = fixture.build(NAME);
    Platform::open(platform.dir()).unwrap();
    let mut bytes = fs::read(platform.root()).unwrap();
    bytes[0] ^= 1;
    // Replaced, so that the inode tells even where the clock is coarse.
    fs::remove_file(platform.root()).unwrap();
    fs::write(platform.root(), bytes).unwrap();
    for outcome in [Platform::open(platform.dir()).map(drop), platform.verify()] {
        assert!(matches!(outcome, Err(PlatformError::Corrupt { path, .. }) if path == platform.root()));
    }
}

#[test]
fn an_unchanged_file_is_hashed_once() {
    let fixture = Fixture::new();
    let platform = fixture.build(NAME);
    // A stamp that claims what is not so is believed by `open`, and not by `verify`.
    let mut definition = platform.definition().clone();
    definition.files.entries[0].sha256 = crate::hash::sha256_hex(b"other");
    definition.fingerprint = definition.compute_fingerprint(definition.guest.memory_mib, 1);
    fs::write(platform.dir().join(DEFINITION_FILE), definition.to_xml().unwrap()).unwrap();
    assert!(Platform::open(platform.dir()).is_err(), "the stamp names the hash that was checked");
    let claimed = Platform::read(platform.dir()).unwrap();
    claimed.stat_files().unwrap().save(platform.dir()).unwrap();
    Platform::open(platform.dir()).unwrap();
    assert!(claimed.verify().is_err());
}

#[test]
fn find_takes_the_first_directory_that_has_it_and_names_all_that_have_not() {
    let fixture = Fixture::new();
    fixture.build(NAME);
    let dirs = [fixture.path().join("empty"), fixture.store()];
    assert_eq!(find(NAME, &dirs).unwrap().dir(), fixture.store().join(NAME));
    let error = find("i686-pc-linux-gnu", &dirs).unwrap_err().to_string();
    for expected in [dirs[0].to_str().unwrap(), dirs[1].to_str().unwrap(), "platform build i686-pc-linux-gnu", "import"]
    {
        assert!(error.contains(expected), "{error}");
    }
    for name in ["", ".", "..", ".new-x", "a/b", "/etc", "a\nb"] {
        assert!(matches!(find(name, &dirs), Err(PlatformError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn find_refuses_a_directory_that_holds_another_platform() {
    let fixture = Fixture::new();
    fixture.build(NAME);
    fs::rename(fixture.store().join(NAME), fixture.store().join("renamed")).unwrap();
    assert!(matches!(find("renamed", &[fixture.store()]), Err(PlatformError::Definition { .. })));
}

#[test]
fn list_shows_the_broken_ones_too() {
    let fixture = Fixture::new();
    fixture.build(NAME);
    let broken = fixture.build("i686-pc-linux-gnu");
    fs::remove_file(broken.root()).unwrap();
    fs::create_dir(fixture.store().join("no-platform")).unwrap();
    let listed = list(&[fixture.path().join("absent"), fixture.store()]).unwrap();
    let seen: Vec<_> = listed.iter().map(|entry| (entry.dir.clone(), entry.platform.is_ok())).collect();
    assert_eq!(seen, [(broken.dir().to_owned(), false), (fixture.store().join(NAME), true)]);
}

#[test]
fn the_fingerprint_is_over_what_counts_and_nothing_else() {
    let fixture = Fixture::new();
    let platform = fixture.build(NAME);
    let base = platform.definition();
    let same = |definition: &Definition| definition.compute_fingerprint(256, 1) == base.fingerprint;
    let changed = |change: fn(&mut Definition)| {
        let mut definition = base.clone();
        change(&mut definition);
        definition
    };
    assert!(same(&changed(|definition| definition.name = "other".to_owned())));
    assert!(same(&changed(|definition| definition.files.entries[0].name = "kernel".to_owned())));
    assert!(same(&changed(|definition| definition.packages.entries.clear())));
    assert!(!same(&changed(|definition| definition.files.entries[0].sha256 = crate::hash::sha256_hex(b""))));
    assert!(!same(&changed(|definition| definition.qemu.cpu = "Westmere,enforce".to_owned())));
    assert!(!same(&changed(|definition| definition.qemu.machine = "pc-q35-7.1".to_owned())));
    assert!(!same(&changed(|definition| definition.qemu.command_line.push('x'))));
    assert!(!same(&changed(|definition| definition.guest.personality = definition::Personality::Linux32)));
    assert_ne!(base.compute_fingerprint(512, 1), base.fingerprint);
    assert_ne!(base.compute_fingerprint(256, 2), base.fingerprint);
}

#[cfg(unix)]
#[rstest::rstest]
#[case::ours_first(&[("VMTASK_DATA_DIR", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")], Some("/a"))]
#[case::then_xdg(&[("VMTASK_DATA_DIR", ""), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")], Some("/b/vmtask"))]
#[case::relative_xdg_is_void(&[("XDG_DATA_HOME", "b"), ("HOME", "/c")], Some("/c/.local/share/vmtask"))]
#[case::home(&[("HOME", "/c")], Some("/c/.local/share/vmtask"))]
#[case::nothing(&[], None)]
fn the_data_directory_follows_the_environment(#[case] environment: &[(&str, &str)], #[case] expected: Option<&str>) {
    let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    assert_eq!(data_dir_from(variable).ok(), expected.map(PathBuf::from));
}
