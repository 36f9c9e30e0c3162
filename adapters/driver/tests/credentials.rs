//! Credentials: where they may come from, and that nothing shows them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;
use vmtask_driver::{Credentials, Secret, SecretError, SecretSource};

fn file(dir: &Path, content: &[u8], mode: u32) -> PathBuf {
    let path = dir.join("password");
    fs::write(&path, content).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let _ = mode;
    path
}

#[rstest]
#[case::plain(b"s3cret", "s3cret")]
#[case::with_a_newline(b"s3cret\n", "s3cret")]
#[case::of_windows(b"s3cret\r\n", "s3cret")]
#[case::with_blanks(b" s3 cret \nsecond line\n", " s3 cret ")]
fn the_first_line_of_a_private_file_is_the_secret(#[case] content: &[u8], #[case] expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let secret = SecretSource::File(file(dir.path(), content, 0o600)).read().unwrap();
    assert_eq!(secret.expose(), expected);
}

#[rstest]
#[case(0o644)]
#[case(0o640)]
#[case(0o602)]
#[cfg(unix)]
fn a_file_that_others_may_read_is_refused_unread(#[case] mode: u32) {
    let dir = tempfile::tempdir().unwrap();
    let error = SecretSource::File(file(dir.path(), b"s3cret", mode)).read().unwrap_err();
    assert!(matches!(error, SecretError::OpenToOthers { mode: found, .. } if found == mode), "{error:?}");
    let told = format!("{error} {error:?}");
    assert!(told.contains("chmod 600") && !told.contains("s3cret"), "{told}");
}

#[rstest]
#[case::empty(b"")]
#[case::empty_line(b"\ns3cret\n")]
#[case::no_text(b"s3cret\xff\n")]
#[case::endless(&[b'x'; 5000])]
fn a_file_without_a_secret_is_refused_and_not_quoted(#[case] content: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let error = SecretSource::File(file(dir.path(), content, 0o600)).read().unwrap_err();
    assert!(matches!(error, SecretError::Content { .. }), "{error:?}");
    let told = format!("{error} {error:?}");
    assert!(!told.contains("s3cret") && !told.contains("xxx"), "{told}");
}

#[test]
fn a_missing_file_and_a_directory_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = SecretSource::File(dir.path().join("no")).read().unwrap_err();
    assert!(matches!(error, SecretError::Read { .. }), "{error:?}");
    assert!(SecretSource::File(dir.path().to_owned()).read().is_err());
}

#[test]
fn the_environment_is_read_by_name() {
    // Cargo sets it for every test.
    let secret = SecretSource::Env("CARGO_PKG_NAME".to_owned()).read().unwrap();
    assert_eq!(secret.expose(), "vmtask-driver");
    let error = SecretSource::Env("VMTASK_NO_SUCH_VARIABLE".to_owned()).read().unwrap_err();
    insta::assert_snapshot!(error.to_string());
}

#[test]
fn no_secret_is_shown_when_printed() {
    let credentials = Credentials { user: "guest".to_owned(), password: Secret::from_value("s3cret".to_owned()) };
    assert_eq!(format!("{:?}", credentials.clone()), "Credentials { user: \"guest\", password: [REDACTED] }");
}

#[cfg(target_os = "linux")]
mod wiped {
    use vmtask_driver::testing::TestSecret;

    use super::*;

    /// The bytes of a file, wiped when the test is over.
    fn written(secret: &TestSecret, more: &[u8]) -> secrecy::zeroize::Zeroizing<Vec<u8>> {
        let mut content = secret.text(more.len()).into_bytes();
        content.extend_from_slice(more);
        content.into()
    }

    #[rstest]
    #[case::just_its_length(0)]
    #[case::room_to_spare(5_000)]
    #[case::memory_of_its_own(5_000_000)]
    fn a_secret_lies_in_memory_once_and_not_at_all_when_it_is_dropped(#[case] room: usize) {
        let known = TestSecret::new(80);
        let secret = Secret::from_value(known.text(room));
        assert!(known.is(secret.expose().as_bytes()));
        assert_eq!(known.copies_in_memory(), 1);
        let another = secret.clone();
        // What moves is not the secret.
        let moved = vec![Credentials { user: "guest".into(), password: secret }];
        assert_eq!(known.copies_in_memory(), 2);
        drop((another, moved));
        assert_eq!(known.copies_in_memory(), 0);
    }

    #[rstest]
    #[case::good(b"\n", true)]
    #[case::with_a_second_line(b"\nsecond\n", true)]
    #[case::no_text(b"\xff\n", false)]
    #[case::too_long(&[b'x'; 5000], false)]
    fn a_file_leaves_nothing_but_its_secret_in_memory(#[case] more: &[u8], #[case] is_good: bool) {
        let known = TestSecret::new(80);
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), &written(&known, more), 0o600);
        let read = SecretSource::File(path).read();
        assert_eq!(read.is_ok(), is_good);
        assert_eq!(known.copies_in_memory(), usize::from(is_good));
        drop(read);
        assert_eq!(known.copies_in_memory(), 0);
    }
}
