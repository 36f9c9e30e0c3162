//! The binary with real virtual machines under software emulation. Run with `VMTASK_TEST_REAL=1`, QEMU installed, and
//! platforms in `VMTASK_DATA_DIR` (or they are built).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn vmtask(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmtask"));
    command.args(args).current_dir(dir).env("VMTASK_ACCEL", "tcg").output().unwrap()
}

/// Whether to; says so if not.
fn wanted(test: &str) -> bool {
    let wanted = std::env::var_os("VMTASK_TEST_REAL").is_some_and(|value| value == "1");
    if wanted {
        let built = vmtask(&["setup"], Path::new("/"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    } else {
        eprintln!("skipped {test}: it starts virtual machines; set VMTASK_TEST_REAL=1");
    }
    wanted
}

#[test]
fn the_demonstration_reads_the_papers_value_from_the_virtual_machine() {
    if !wanted("the demonstration") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = vmtask(&["demo", "--dir", "demo"], dir.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let retrieved = fs::read_to_string(dir.path().join("demo/leibniz.vmtask/results/pi.txt")).unwrap();
    assert!(retrieved.starts_with("pi 3.140592860 error 0.000999793 "), "{retrieved}");
    for step in ["register", "revert", "agent", "directory", "set permissions", "pause", "unpause", "copy pi.txt out"] {
        assert!(text.contains(step), "{step} in {text}");
    }
}

#[test]
fn a_task_runs_from_its_file_to_its_result_and_says_finished_the_next_time() {
    if !wanted("a task") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let task =
        "name = \"t\"\nplatform = \"i686-pc-linux-gnu\"\n[program]\npath = \"sh.sh\"\n[[files_in]]\nhost = \"sh.sh\"\n";
    fs::write(dir.path().join("t.toml"), task).unwrap();
    fs::write(dir.path().join("sh.sh"), "#!/bin/sh\nuname -m\necho so long >&2\nexit 42\n").unwrap();
    let first = vmtask(&["run", "t.toml"], dir.path());
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(42), "the program's own: {said}");
    assert!(said.contains("so long"), "its last words: {said}");
    let results = dir.path().join("t.vmtask/results");
    assert_eq!(fs::read_to_string(results.join("stdout.txt")).unwrap(), "i686\n");
    let result: serde_json::Value = serde_json::from_slice(&fs::read(results.join("result.json")).unwrap()).unwrap();
    assert_eq!((&result["outcome"], &result["exit"]["code"]), (&"completed".into(), &42.into()));
    assert_eq!(
        (&result["execution"]["simulated"], &result["execution"]["accelerator"]),
        (&false.into(), &"tcg".into())
    );

    let again = vmtask(&["run", "t.toml"], dir.path());
    assert_eq!(again.status.code(), Some(42));
    assert!(String::from_utf8_lossy(&again.stderr).contains("finished already"));
}
