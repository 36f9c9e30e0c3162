#![allow(clippy::unwrap_used)]
use super::*;

#[cfg(any(target_os = "linux", windows))]
#[test]
fn this_process_is_alive_and_always_the_same() {
    let me = identify(std::process::id());
    assert!(matches!(&me, Liveness::Alive(id) if id.pid == std::process::id() && !id.is_nameless()), "{me:?}");
    assert_eq!(me, identify(std::process::id()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_name_cannot_forge_the_fields_after_it() {
    use super::linux::state_and_start;
    let name = "1 (a) R 1 (x) S 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 4242 23";
    assert_eq!(state_and_start(name), Some(('S', 4242)));
    assert_eq!(state_and_start("1 (a"), None);
    assert_eq!(state_and_start("1 (a) S 2"), None);
}

#[cfg(windows)]
#[test]
fn a_number_that_only_opens_the_same_process_is_nobodys() {
    // Numbers are multiples of four there, and the system rounds what it is given.
    assert_eq!(identify(std::process::id() + 1), Liveness::Dead);
}

#[test]
fn a_file_has_one_owner_who_is_named_until_it_is_closed() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let Owned::Ours(mut ours) = try_own(&path).unwrap() else { panic!("nobody has it") };
    ours.write_all(b"us\n").unwrap();
    assert!(matches!(try_own(&path).unwrap(), Owned::Theirs { says } if says == "us\n"));
    drop(ours);
    assert!(matches!(try_own(&path).unwrap(), Owned::Ours(_)));
}

#[test]
fn a_directory_is_flushed_or_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    sync_dir(dir.path()).unwrap();
    assert_eq!(sync_dir(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
}
