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
    assert_eq!((&result["outcome"], &result["exit"]["code"]), (&"program_failed".into(), &42.into()));
    assert_eq!(
        (&result["execution"]["simulated"], &result["execution"]["accelerator"]),
        (&false.into(), &"tcg".into())
    );

    let again = vmtask(&["run", "t.toml"], dir.path());
    assert_eq!(again.status.code(), Some(42));
    assert!(String::from_utf8_lossy(&again.stderr).contains("finished already"));
}

/// Runs a shell script with the output `out`, and no checkpoints; what came of it.
fn run_script(dir: &Path, script: &str, more: &str) -> (Option<i32>, serde_json::Value) {
    let task = format!(
        "name = \"t\"\nplatform = \"x86_64-pc-linux-gnu\"\n[program]\npath = \"/bin/sh\"\nargs = [\"-c\", \"{script}\"]\n\
         [[files_out]]\nguest = \"out\"\n[checkpoint]\nevery = \"off\"\n{more}"
    );
    fs::write(dir.join("t.toml"), task).unwrap();
    let run = vmtask(&["run", "t.toml"], dir);
    let result = fs::read(dir.join("t.vmtask/results/result.json"));
    let result = result.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&run.stderr)));
    (run.status.code(), serde_json::from_slice(&result).unwrap())
}

#[test]
fn what_a_program_writes_all_the_time_comes_back_when_its_time_is_over() {
    if !wanted("a run limit") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "i=0; while :; do i=$((i+1)); echo iteration $i; echo part $i >>out; done";
    let (code, result) = run_script(dir.path(), script, "[limits]\nrun = \"3s\"\n");
    let summary = result["summary"].as_str().unwrap();
    assert_eq!((code, &result["missing"]), (Some(218), &serde_json::json!([])), "{summary}");
    assert!(summary.contains("raise limits.run") && summary.ends_with("it starts over"), "{summary}");
    for (name, begins) in [("stdout.txt", "iteration 1\niteration 2\n"), ("out", "part 1\npart 2\n")] {
        let text = fs::read_to_string(dir.path().join("t.vmtask/results").join(name)).unwrap();
        assert!(text.starts_with(begins) && text.ends_with('\n'), "{name} has {} bytes", text.len());
    }
}

#[test]
fn a_programs_own_end_wins_over_an_output_that_it_did_not_write() {
    if !wanted("a program that fails") {
        return;
    }
    for (script, code, outcome, word) in [
        ("echo cannot open input.nc >&2; exit 3", 3, "program_failed", "exit code 3"),
        ("kill -SEGV $$", 139, "crashed", "SIGSEGV"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (exit, result) = run_script(dir.path(), script, "");
        assert_eq!(
            (exit, &result["outcome"], &result["missing"][0]["name"]),
            (Some(code), &outcome.into(), &"out".into())
        );
        assert!(result["summary"].as_str().unwrap().contains(word), "{result}");
        let again = vmtask(&["run", "t.toml"], dir.path());
        assert_eq!(again.status.code(), Some(code), "{}", String::from_utf8_lossy(&again.stderr));
    }
}
