//! `fuzz/run` says what came of it: nothing that did not run is called clean, and none of it a finding.
//!
//! A `cargo` of the test's own stands in for cargo-fuzz. It has two targets, `one` and `two`; a file `TARGET` beside it
//! says in shell what fuzzing that target does, and by default it goes well.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

const CARGO: &str = r#"#!/bin/bash
[ "$1" = +nightly ] || exit 101
case "$2 ${3-}" in
"--version ") test ! -e "$TEST/no-nightly" ;;
"fuzz --version") test ! -e "$TEST/no-cargo-fuzz" ;;
"fuzz list") test ! -e "$TEST/no-list" && printf 'one\ntwo\n' ;;
"fuzz build") test ! -e "$TEST/${!#}-does-not-build" ;;
"fuzz run")
    target=$8
    if [ -e "$TEST/$target" ]; then . "$TEST/$target"; fi
    echo "stat::number_of_executed_units: 17" >&2
    ;;
*) echo "the test's cargo knows no $*" >&2; exit 101 ;;
esac
"#;

/// An input that libFuzzer keeps, and how cargo-fuzz then ends.
const CRASH: &str =
    "mkdir -p fuzz/fuzz_targets/artifacts/one; echo x >fuzz/fuzz_targets/artifacts/one/crash-1; exit 1\n";

/// A copy of the script in a tree of its own, with the test's cargo.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for below in ["bin", "tree/fuzz/fuzz_targets"] {
            fs::create_dir_all(dir.path().join(below)).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run");
        fs::copy(script, dir.path().join("tree/fuzz/run")).unwrap();
        let stage = Self(dir);
        for program in ["cargo", "rustup"] {
            let path =
                stage.write(&format!("bin/{program}"), if program == "cargo" { CARGO } else { "#!/bin/sh\nexit 1\n" });
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (name, text) in files {
            stage.write(name, text);
        }
        stage
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The exit code, and all that was said.
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let path = format!("{}:/usr/bin:/bin", self.0.path().join("bin").display());
        let output = Command::new(self.0.path().join("tree/fuzz/run"))
            .args(words)
            .env("PATH", path)
            .env("TEST", self.0.path())
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    }
}

#[rstest]
#[case::clean(&[], 0, &["clean: one, 17 inputs", "clean: two, 17 inputs"])]
#[case::no_nightly(&[("no-nightly", "")], 3, &["nothing was fuzzed", "nightly toolchain is missing"])]
#[case::no_cargo_fuzz(&[("no-cargo-fuzz", "")], 3, &["nothing was fuzzed", "cargo-fuzz is missing"])]
#[case::no_list(&[("no-list", "")], 3, &["nothing was fuzzed", "cannot list"])]
#[case::no_build(&[("one-does-not-build", "")], 4, &["does not build: one", "clean: two"])]
#[case::crash(&[("one", CRASH)], 1, &["found: one: fuzz/fuzz_targets/artifacts/one/crash-1", "clean: two"])]
#[case::crash_and_no_build(&[("one", CRASH), ("two-does-not-build", "")], 1, &["found: one", "does not build: two"])]
#[case::ended_otherwise(&[("one", "exit 1\n")], 3, &["did not run: one", "status 1", "clean: two"])]
#[case::tried_nothing(&[("one", "exit 0\n")], 3, &["did not run: one", "it tried no input"])]
#[case::slow(
    &[("one", "mkdir -p fuzz/fuzz_targets/artifacts/one; echo x >fuzz/fuzz_targets/artifacts/one/slow-unit-1\n")],
    0,
    &["clean: one"]
)]
fn what_came_of_it_is_told_and_is_the_exit_code(
    #[case] files: &[(&str, &str)],
    #[case] code: i32,
    #[case] words: &[&str],
) {
    let (ended, told) = Stage::new(files).run(&[]);
    assert_eq!(ended, Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "no {word:?} in: {told}");
    }
    assert_eq!(told.contains("found: "), code == 1, "{told}");
}

#[test]
fn a_finding_of_an_earlier_run_is_not_found_again_unless_it_is() {
    let stage = Stage::new(&[("one", CRASH)]);
    assert_eq!(stage.run(&["one"]).0, Some(1));
    stage.write("one", "");
    let (code, told) = stage.run(&["one"]);
    assert_eq!(code, Some(0), "{told}");
    stage.write("one", CRASH);
    let (code, told) = stage.run(&["one"]);
    assert_eq!(code, Some(1), "{told}");
}

#[rstest]
#[case::unknown(&["three"], 2, "there are: one two")]
#[case::two_in_one_word(&["one two"], 2, "there is no target one two")]
#[case::no_seconds(&["--seconds"], 2, "--seconds wants a number")]
#[case::no_option(&["--second"], 2, "usage")]
#[case::named(&["two"], 0, "clean: two")]
fn the_command_line_says_which(#[case] words: &[&str], #[case] code: i32, #[case] said: &str) {
    let (ended, told) = Stage::new(&[("one", "exit 1\n")]).run(words);
    assert_eq!(ended, Some(code), "{told}");
    assert!(told.contains(said), "{told}");
}

#[rstest]
#[case::there(&[], 0, "")]
#[case::no_nightly(&[("no-nightly", "")], 3, "nightly toolchain is missing")]
#[case::no_cargo_fuzz(&[("no-cargo-fuzz", "")], 3, "cargo-fuzz is missing")]
fn an_installation_that_leaves_something_missing_fails(
    #[case] files: &[(&str, &str)],
    #[case] code: i32,
    #[case] said: &str,
) {
    let (ended, told) = Stage::new(files).run(&["--install"]);
    assert_eq!(ended, Some(code), "{told}");
    assert!(told.contains(said), "{told}");
}
