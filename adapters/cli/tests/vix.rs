//! `vmtask run --hypervisor vix` from outside, on the stand-in that plays VMware's products.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::Value;

const PASSWORD: &str = "correct horse";
/// What the test's guest is: programs of the host in a root of their own, where that is possible.
const GUEST: &str = if cfg!(target_os = "linux") { "root" } else { "world" };
const PROGRAM: &str = if cfg!(target_os = "linux") {
    "#!/bin/sh\n# Reads its input, says so, and fails.\nread -r word <input && echo \"$word\" && echo so long >&2\nexit 42\n"
} else {
    "#!vmtask-world\nsay three\nexit 42\n"
};

/// A directory with a task, and a virtual machine as its platform.
struct Den(tempfile::TempDir);

impl Den {
    fn new() -> Self {
        let den = Self(tempfile::tempdir().unwrap());
        fs::create_dir(den.path("platform")).unwrap();
        let vmx = format!(
            "displayName = \"platform\"\nguestOS = \"other\"\nmemsize = \"64\"\nvmtask.guest = \"{GUEST}\"\n\
             vmtask.guest.user = \"user\"\nvmtask.guest.password = \"{PASSWORD}\"\n"
        );
        fs::write(den.path("platform/p.vmx"), vmx).unwrap();
        fs::write(den.path("program"), PROGRAM).unwrap();
        fs::write(den.path("input"), "three\n").unwrap();
        let task = "name = \"t\"\nplatform = \"x86_64-pc-linux-gnu\"\n[program]\npath = \"program\"\n\
                    [[files_in]]\nhost = \"program\"\nexecutable = true\n[[files_in]]\nhost = \"input\"\n\
                    [checkpoint]\nevery = \"off\"\n";
        fs::write(den.path("t.toml"), task).unwrap();
        den
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmtask"));
        command.args(args).current_dir(self.0.path());
        command.env("VMTASK_DATA_DIR", self.path("data")).env("VMTASK_ACCEL", "tcg");
        command.env("VMTASK_VIX_LIBRARY", library()).env("VMTASK_VIX_PASSWORD", PASSWORD);
        command.env("VMTASK_STANDIN_HOME", self.path("standin"));
        command.env("VMTASK_STANDIN_COUNTERS", self.path("counters")).env("VMTASK_STANDIN_FAULTS", self.path("faults"));
        for unset in ["VMTASK_STANDIN", "VMTASK_STANDIN_PRODUCT", "VMTASK_VIX_HOST_PASSWORD"] {
            command.env_remove(unset);
        }
        command
    }

    /// `vmtask run` of the task, with what every run under VIX needs.
    fn task(&self, more: &[&str]) -> Command {
        let run = ["run", "t.toml", "--hypervisor", "vix", "--vix-vm", "platform/p.vmx", "--vix-user", "user"];
        self.command(&[&run, more].concat())
    }
}

/// The stand-in: Cargo puts it beside the tests, or one directory up.
fn library() -> PathBuf {
    let name = if cfg!(windows) { "vixAllProducts.dll" } else { "libvixAllProducts.so" };
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let found = [beside.join(name), beside.join("..").join(name)].into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not near {}", beside.display()))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Nowhere below, not in any file.
fn assert_not_in_files(dir: &Path, secret: &str) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            assert_not_in_files(&path, secret);
        }
        if !kind.is_file() {
            continue;
        }
        match fs::read(&path) {
            Ok(content) => {
                let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "the password is in {}", path.display());
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

#[test]
fn a_task_runs_to_its_result_and_says_finished_the_next_time() {
    let den = Den::new();
    let output = den.task(&[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(42), "the program's own: {said}");
    assert_eq!(fs::read_to_string(den.path("t.vmtask/results/stdout.txt")).unwrap(), "three\n");
    let result = json(&den.path("t.vmtask/results/result.json"));
    assert_eq!((&result["execution"]["hypervisor"], &result["exit"]["code"]), (&"vix".into(), &42.into()));
    let build = result["execution"]["build"].as_str().unwrap();
    assert!(build.starts_with("VMware Workstation (vmtask stand-in "), "product and version: {build}");
    // Nobody takes the stand-in for VMware's.
    assert_eq!(result["execution"]["simulated"], true);
    assert!(said.contains("SIMULATED: vmtask's stand-in"), "{said}");

    assert!(!den.path("t.vmtask/vm").exists(), "nothing is left of the virtual machine");
    let counted = json(&den.path("counters"));
    for kind in ["hosts", "vms", "snapshots", "jobs", "property_lists", "buffers", "leaked"] {
        assert_eq!(counted[kind], 0, "{kind} in {counted}");
    }
    assert!(stderr(&den.command(&["vms"]).output().unwrap()).contains("no virtual machines"));
    assert_not_in_files(&den.path("t.vmtask"), PASSWORD);

    let again = den.task(&[]).output().unwrap();
    assert_eq!(again.status.code(), Some(42));
    assert!(stderr(&again).contains("finished already"), "{}", stderr(&again));
}

#[test]
fn a_server_is_connected_to_with_its_account_and_its_datastore() {
    let den = Den::new();
    let store = den.0.path().display().to_string();
    let run = ["run", "t.toml", "--hypervisor", "vix", "--vix-product", "server2", "--vix-user", "user"];
    let server = ["--vix-vm", "[standard] platform/p.vmx", "--vix-host", "https://localhost:8333/sdk"];
    let datastore = format!("standard={store}");
    let own = ["--vix-host-user", "me", "--vix-datastore", &datastore];
    let mut command = den.command(&[&run[..], &server[..], &own[..]].concat());
    command.env("VMTASK_STANDIN_DATASTORES", &datastore).env("VMTASK_VIX_HOST_PASSWORD", "mine");
    command.env("VMTASK_STANDIN_HOST_USER", "me").env("VMTASK_STANDIN_HOST_PASSWORD", "mine");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(42), "{}", stderr(&output));
    assert!(stderr(&output).contains("no linked clones: the image is copied"), "{}", stderr(&output));
    let result = json(&den.path("t.vmtask/results/result.json"));
    assert!(result["execution"]["build"].as_str().unwrap().starts_with("VMware Server 2"), "{result}");

    let output = command.env("VMTASK_VIX_HOST_PASSWORD", "yours").output().unwrap();
    assert_eq!(output.status.code(), Some(213), "{}", stderr(&output));
    assert!(!stderr(&output).contains("yours"), "{}", stderr(&output));
}

#[rstest]
#[case::no_virtual_machine(&["--hypervisor", "vix", "--vix-user", "user"], 210, "--vix-vm <VMX>")]
#[case::no_user(&["--hypervisor", "vix", "--vix-vm", "platform/p.vmx"], 210, "--vix-user <USER>")]
#[case::another_hypervisor(&["--hypervisor", "sim", "--vix-user", "me"], 210, "--vix-user is for --hypervisor vix")]
#[case::no_hypervisor(&["--vix-product", "player"], 210, "--vix-product is for --hypervisor vix")]
#[case::unknown_product(&["--vix-product", "bochs"], 210, "workstation")]
fn flags_that_make_no_sense_are_refused(#[case] flags: &[&str], #[case] code: i32, #[case] words: &str) {
    let den = Den::new();
    let output = den.command(&[&["run", "t.toml"], flags].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(!den.path("t.vmtask").exists(), "nothing was made");
}

#[rstest]
#[case::library(&["--vix-library", "nowhere.so"], 213, "nowhere.so")]
#[case::datastore_path(&["--vix-vm", "[standard] p.vmx"], 210, "only servers have")]
#[case::file(&["--vix-vm", "nowhere/p.vmx"], 213, "name its .vmx file with --vix-vm")]
#[case::account(&["--vix-product", "server2", "--vix-vm", "[s] p.vmx"], 210, "needs --vix-host-user")]
#[case::datastore(
    &["--vix-product", "server2", "--vix-vm", "[s] p.vmx", "--vix-datastore", "t=."],
    210,
    "is not the datastore of [s] p.vmx"
)]
#[case::host(&["--vix-product", "vsphere", "--vix-vm", "[s] p.vmx"], 210, "needs --vix-host")]
#[case::password_file(&["--vix-password-file", "nowhere"], 220, "cannot read the password file nowhere")]
fn what_is_missing_is_said_with_the_way_out(#[case] flags: &[&str], #[case] code: i32, #[case] words: &str) {
    let den = Den::new();
    // Later flags of the same name would be refused: leave out those that the case has.
    let mut all = vec!["run", "t.toml", "--hypervisor", "vix", "--vix-user", "user"];
    if !flags.contains(&"--vix-vm") {
        all.extend(["--vix-vm", "platform/p.vmx"]);
    }
    let output = den.command(&[&all, flags].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(!den.path("t.vmtask").exists(), "nothing was made");
}

#[test]
#[cfg(unix)]
fn a_password_file_is_used_only_if_nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let den = Den::new();
    let file = den.path("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let mut command = den.task(&["--vix-password-file", "password"]);
    // The file comes first.
    command.env("VMTASK_VIX_PASSWORD", "wrong");
    for (mode, code) in [(0o644, 220), (0o640, 220), (0o600, 42)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{mode:o}: {}", stderr(&output));
        if code == 220 {
            assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
            assert!(!den.path("t.vmtask").exists(), "nothing was made");
        }
    }
}

#[test]
fn a_wrong_password_fails_the_task_without_telling_it() {
    let den = Den::new();
    let output = den.task(&["--json"]).env("VMTASK_VIX_PASSWORD", "battery staple").output().unwrap();
    assert_eq!(output.status.code(), Some(218), "{}", stderr(&output));
    let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("VixVM_LoginInGuest"), "{said}");
    assert!(!said.contains("battery staple"), "{said}");
    assert_not_in_files(&den.path("t.vmtask"), "battery staple");
    assert_not_in_files(&den.path("data"), "battery staple");
}

#[test]
fn a_product_that_the_library_does_not_know_ends_in_words_that_help() {
    let den = Den::new();
    fs::write(den.path("faults"), "VixHost_Connect fail 22002\n").unwrap();
    let output = den.task(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(213), "{}", stderr(&output));
    assert!(stderr(&output).contains("vixwrapper-config.txt"), "{}", stderr(&output));
    assert!(!den.path("t.vmtask").exists(), "nothing was made");
}

#[test]
fn doctor_tells_the_library_its_table_and_the_substitutes() {
    let den = Den::new();
    // A copy, with a table beside it as VMware's has.
    let installed = den.path("installed");
    fs::create_dir(&installed).unwrap();
    let copy = installed.join("libvixAllProducts.so");
    fs::copy(library(), &copy).unwrap();
    let rows = "ws 19 vmdb 17.0.0 Workstation-17.0.0\nplayer 19 vmdb 17.0.0 Workstation-17.0.0\n";
    fs::write(installed.join("vixwrapper-config.txt"), rows).unwrap();
    let output = den.command(&["doctor", "--json"]).env("VMTASK_VIX_LIBRARY", &copy).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = |what: &str| {
        let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["what"] == what);
        checks.map(|check| check["found"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("VIX"), [format!("{} (VMTASK_VIX_LIBRARY)", copy.display())]);
    assert_eq!(found("VIX products"), ["ws 17.0.0 (Workstation-17.0.0); player 17.0.0 (Workstation-17.0.0)"]);
    let substitutes = found("VIX substitutes");
    assert!(substitutes.contains(&"workstation: none".to_owned()), "{substitutes:?}");
    assert!(substitutes.iter().any(|row| row.starts_with("player: no linked clones")), "{substitutes:?}");

    let output = den.command(&["doctor", "--json"]).env("VMTASK_VIX_LIBRARY", den.path("nowhere")).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["what"] == "VIX").unwrap();
    assert_eq!(check["state"], if cfg!(target_os = "linux") { "lacking" } else { "missing" });
}

/// A task of some seconds with checkpoints, in a simulated guest, which keeps its memory.
#[cfg(unix)]
fn long_task() -> Den {
    let den = Den::new();
    let vmx = fs::read_to_string(den.path("platform/p.vmx")).unwrap().replace(GUEST, "world");
    fs::write(den.path("platform/p.vmx"), vmx).unwrap();
    fs::write(den.path("program"), "#!vmtask-world\ncompute input 250 20 result steps\n").unwrap();
    let task = fs::read_to_string(den.path("t.toml")).unwrap().replace("\"off\"", "\"300ms\"");
    fs::write(den.path("t.toml"), task + "[[files_out]]\nguest = \"result\"\n").unwrap();
    den
}

/// Runs it until it has a checkpoint, sends a signal, and waits for its end.
#[cfg(unix)]
fn run_until_a_checkpoint(den: &Den, signal: rustix::process::Signal) -> std::process::ExitStatus {
    use std::io::{BufRead, BufReader};
    let mut child = den.task(&["--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let checkpoint = |line: &std::io::Result<String>| {
        let line: Value = serde_json::from_str(line.as_ref().unwrap()).unwrap();
        line["report"]["checkpoint"].is_object()
    };
    assert!(lines.any(|line| checkpoint(&line)), "no checkpoint");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    lines.for_each(drop);
    child.wait().unwrap()
}

#[test]
#[cfg(unix)]
fn one_signal_saves_and_stops_and_the_next_run_goes_on_from_there() {
    let den = long_task();
    assert_eq!(run_until_a_checkpoint(&den, rustix::process::Signal::INT).code(), Some(217));
    assert!(stderr(&den.command(&["vms"]).output().unwrap()).contains("no virtual machines"), "it is off");
    let output = den.task(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("goes on from checkpoint"), "{}", stderr(&output));
    assert!(den.path("t.vmtask/results/result").exists() && !den.path("t.vmtask/vm").exists());
}

#[test]
#[cfg(unix)]
fn a_machine_outlives_its_manager_is_listed_and_gone_on_with() {
    let den = long_task();
    assert_eq!(run_until_a_checkpoint(&den, rustix::process::Signal::KILL).code(), None);
    let vms = den.command(&["vms"]).output().unwrap();
    let listed = String::from_utf8_lossy(&vms.stdout).into_owned();
    assert!(listed.contains("VMware Workstation's") && listed.contains("(gone)"), "{listed}");
    let output = den.task(&[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("launching") && !said.contains("preparing"), "it was adopted as it was: {said}");
    assert!(stderr(&den.command(&["vms"]).output().unwrap()).contains("no virtual machines"));
}

/// Somebody kills vmtask and removes the task's directory.
#[cfg(unix)]
fn leave_without_a_directory(den: &Den) {
    fs::remove_dir_all(den.path("t.vmtask")).unwrap();
    for args in [&["vms"][..], &["vms", "--reap"], &["vms"]] {
        let output = den.command(args).output().unwrap();
        let code = if args.len() > 1 { 220 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("forgot") && !said.contains("no virtual machine"), "{args:?}: {said}");
    }
}

#[test]
#[cfg(unix)]
fn a_machine_is_listed_with_the_way_out_when_its_tasks_directory_is_gone() {
    let den = long_task();
    assert_eq!(run_until_a_checkpoint(&den, rustix::process::Signal::KILL).code(), None);
    leave_without_a_directory(&den);
    let said = stderr(&den.command(&["vms"]).output().unwrap());
    let entry = fs::read_dir(den.path("data/vms")).unwrap().flatten().map(|entry| entry.path());
    let entry = entry.filter(|path| path.extension().is_some_and(|kind| kind == "json")).last().unwrap();
    let machine = fs::canonicalize(den.0.path()).unwrap().join("t.vmtask/vm/machine/p.vmx");
    for words in ["VMware Workstation has it", &machine.display().to_string(), &entry.display().to_string()] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Who looks after it there says so.
    fs::remove_file(entry).unwrap();
    assert!(stderr(&den.command(&["vms"]).output().unwrap()).contains("no virtual machines"));
}

#[test]
#[cfg(unix)]
fn a_copy_in_a_servers_inventory_is_listed_until_it_is_taken_out() {
    use std::io::{BufRead, BufReader};
    let den = long_task();
    let datastore = format!("standard={}", den.0.path().display());
    let run = ["run", "t.toml", "--json", "--hypervisor", "vix", "--vix-product", "server2", "--vix-user", "user"];
    let server = ["--vix-vm", "[standard] platform/p.vmx", "--vix-host", "https://localhost:8333/sdk"];
    let own = ["--vix-host-user", "me", "--vix-datastore", &datastore];
    let mut command = den.command(&[&run[..], &server[..], &own[..]].concat());
    command.env("VMTASK_STANDIN_DATASTORES", &datastore).env("VMTASK_VIX_HOST_PASSWORD", "mine");
    command.env("VMTASK_STANDIN_HOST_USER", "me").env("VMTASK_STANDIN_HOST_PASSWORD", "mine");
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let running = |line: &std::io::Result<String>| line.as_ref().unwrap().contains("\"phase\":\"running\"");
    assert!(lines.any(|line| running(&line)), "it does not run");
    child.kill().unwrap();
    child.wait().unwrap();
    leave_without_a_directory(&den);
    let said = stderr(&den.command(&["vms"]).output().unwrap());
    for words in ["VMware Server 2 has it as [standard] vmtask-t-", "remove it from the inventory"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_list_of_machines_that_cannot_be_written_ends_a_run_before_anything_is_started() {
    let den = Den::new();
    let dir = fs::canonicalize(den.0.path()).unwrap().join("t.vmtask");
    let entry = vmtask_driver::Digest::of(dir.as_os_str().as_encoded_bytes()).short();
    // A link to nowhere instead of the list's directory would be found before; this is in the way of this entry alone.
    fs::create_dir_all(den.path("data/vms").join(format!("{entry}.json"))).unwrap();
    let output = den.task(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(220), "{}", stderr(&output));
    assert!(stderr(&output).contains(&entry) && !stderr(&output).contains("preparing"), "{}", stderr(&output));
    fs::remove_dir(den.path("data/vms").join(format!("{entry}.json"))).unwrap();
    assert_eq!(den.task(&[]).output().unwrap().status.code(), Some(42));
}
