//! The binary from outside: what it says and how it exits, as far as no virtual machine is needed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;

/// A directory of its own for tasks, with an empty data directory.
struct Den(tempfile::TempDir);

impl Den {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn vmtask(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmtask"));
        command.args(args).current_dir(self.0.path());
        command.env("VMTASK_DATA_DIR", self.path("data")).env("VMTASK_ACCEL", "tcg").env("COLUMNS", "100");
        command
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How a run without `--hypervisor` ends where nothing is installed: on Linux it is the platform that is missed first.
const NOTHING_INSTALLED: (i32, &str) = if cfg!(target_os = "linux") {
    (212, "vmtask platform build x86_64-pc-linux-gnu")
} else {
    (213, "use `--hypervisor vix` with a product of VMware's")
};

const GOOD: &str = "name = \"good\"\nplatform = \"x86_64-pc-linux-gnu\"\n[program]\npath = \"/bin/true\"\n";

#[rstest]
#[case::malformed("name = \n", "bad.toml:1:8: ")]
#[case::no_program("name = \"a\"\nplatform = \"p\"\n", "bad.toml:1:1: ")]
#[case::unknown_key("name = \"a\"\nplatform = \"p\"\nspeed = 3\n[program]\npath = \"/bin/true\"\n", "bad.toml:3:1: ")]
#[case::leaves_the_directory(
    "name = \"a\"\nplatform = \"p\"\n[program]\npath = \"/bin/true\"\n[[files_out]]\nguest = \"../x\"\n",
    "bad.toml:6:9: "
)]
#[case::missing_input(
    "name = \"a\"\nplatform = \"p\"\n[program]\npath = \"in\"\n[[files_in]]\nhost = \"in\"\n",
    "bad.toml:6:8: "
)]
fn a_bad_task_file_is_refused_with_line_and_column(#[case] text: &str, #[case] place: &str) {
    let den = Den::new();
    den.write("bad.toml", text);
    let output = den.vmtask(&["run", "bad.toml"]);
    assert_eq!(output.status.code(), Some(211), "{}", stderr(&output));
    assert!(stderr(&output).starts_with(&format!("vmtask: {place}")), "{}", stderr(&output));
    assert_eq!(fs::read_dir(den.0.path()).unwrap().count(), 1, "nothing was made");
}

#[rstest]
#[case::no_task_file(&["run", "none.toml"], 211, "cannot read the task file none.toml")]
#[case::nothing_installed(&["run", "good.toml"], NOTHING_INSTALLED.0, NOTHING_INSTALLED.1)]
#[case::no_filter(&["run", "good.toml", "--log", "vmtask=loud"], 210, "--log \"vmtask=loud\" is no filter")]
#[case::no_command(&["fly"], 210, "unrecognized subcommand 'fly'")]
#[case::no_platform_name(&["platform", "verify", "../x"], 212, "is no platform name")]
#[case::no_recipe(&["platform", "build", "sparc-sun-solaris"], 212, "there are recipes for")]
#[case::no_archive(&["platform", "import", "none"], 220, "none")]
fn what_is_wrong_is_said_and_has_its_exit_code(#[case] args: &[&str], #[case] code: i32, #[case] words: &str) {
    let den = Den::new();
    den.write("good.toml", GOOD);
    let output = den.vmtask(args);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(!den.path("good.vmtask").exists(), "nothing was made");
}

#[test]
fn an_error_is_an_object_for_programs_too() {
    let den = Den::new();
    den.write("good.toml", GOOD);
    let output = den.vmtask(&["run", "good.toml", "--json"]);
    let last: serde_json::Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    assert_eq!((&last["kind"], &last["exit"]), (&"error".into(), &NOTHING_INSTALLED.0.into()));
    assert!(last["text"].as_str().unwrap().contains(NOTHING_INSTALLED.1), "{last}");
}

#[test]
#[cfg(target_os = "linux")]
fn doctor_says_no_where_there_is_no_platform_and_names_the_line() {
    let den = Den::new();
    let output = den.vmtask(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(223));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ready"], false);
    let checks = report["checks"].as_array().unwrap();
    let platform = checks.iter().find(|check| check["what"] == "platform").unwrap();
    assert_eq!((&platform["state"], &platform["mend"]), (&"missing".into(), &"vmtask platform build".into()));
}

#[test]
#[cfg(target_os = "linux")]
fn doctor_without_qemu_names_the_package() {
    let den = Den::new();
    let output = den.command(&["doctor"]).env("PATH", den.path("bin")).output().unwrap();
    assert_eq!(output.status.code(), Some(223));
    assert!(stdout(&output).contains("MISSING  QEMU: qemu-system-x86_64 is not in PATH"), "{}", stdout(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn nonsense_in_the_environment_is_named() {
    let den = Den::new();
    let output = den.command(&["doctor"]).env("VMTASK_ACCEL", "warp").output().unwrap();
    assert_eq!(output.status.code(), Some(223));
    assert!(stdout(&output).contains("VMTASK_ACCEL is \"warp\""), "{}", stdout(&output));
}

#[test]
fn nothing_runs_where_nothing_was_started() {
    let den = Den::new();
    for args in [&["vms"][..], &["vms", "--reap"]] {
        let output = den.vmtask(args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""));
        assert!(stderr(&output).contains("no virtual machine"), "{}", stderr(&output));
    }
}

#[rstest]
#[case::bash("bash")]
#[case::zsh("zsh")]
#[case::fish("fish")]
fn completions_know_the_subcommands(#[case] shell: &str) {
    let output = Den::new().vmtask(&["completions", shell]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("platform") && stdout(&output).contains("hypervisor"));
}

#[test]
fn a_reader_who_leaves_early_is_no_reason_to_panic() {
    let den = Den::new();
    let mut command = den.command(&["completions", "bash"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn help_tells_the_exit_codes_and_the_signals() {
    let output = Den::new().vmtask(&["run", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    // They have other names on Windows, and so has the program.
    let suffix = if cfg!(windows) { "windows" } else { "" };
    insta::with_settings!({ snapshot_suffix => suffix }, { insta::assert_snapshot!(stdout(&output)) });
}

/// The README's example and the demonstration's own task: a task file that does not parse would be embarrassing.
#[test]
fn the_task_of_the_demonstration_is_in_order() {
    let den = Den::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["leibniz.toml", "run.sh"] {
        fs::copy(demo.join(name), den.path(name)).unwrap();
    }
    den.write("leibniz", "not needed to be a program here");
    let output = den.vmtask(&["run", "leibniz.toml"]);
    assert_eq!(output.status.code(), Some(NOTHING_INSTALLED.0), "the task itself is in order: {}", stderr(&output));
}
