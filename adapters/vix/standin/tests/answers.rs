//! What a client may ask for that not every product or guest has is answered as VMware's library answers it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::Stage;
use rstest::rstest;

/// `VIX_VMPOWEROP_START_VM_PAUSED`.
const PAUSED: &str = "4096";
/// `VIX_VMPOWEROP_LAUNCH_GUI`.
const WINDOW: &str = "512";
/// A guest that cannot show shared folders, and has neither network nor screen.
const ROOT: &str = "vmtask.guest = \"root\"\n";

#[test]
fn a_power_on_that_fails_leaves_the_vm_off() {
    let stage = Stage::with(ROOT);
    let told = stage.does(&format!("share work {}\non\nstate\n", stage.dir.path().display()));
    assert_eq!(told, "share: 0\non: 3003\n=2 state: 0\n");
    assert_eq!(
        stage.does("state\nunshare work\non\ntools 60\nstate\noff\n").lines().collect::<Vec<_>>(),
        ["=2 state: 0", "unshare: 0", "on: 0", "tools: 0", "=72 state: 0", "off: 0",]
    );
}

#[test]
fn a_resume_that_fails_leaves_the_vm_suspended_and_what_ran_in_it_is_not_lost() {
    let stage = Stage::with(ROOT);
    let sleep = "on\ntools 60\nlogin user secret\nstart /bin/sleep 1000\nsuspend\n";
    assert_eq!(stage.does(sleep), "on: 0\ntools: 0\nlogin: 0\nstart: 0\nsuspend: 0\n");
    let told = stage.does(&format!("share work {}\non\nstate\n", stage.dir.path().display()));
    assert_eq!(told, "share: 0\non: 3003\n=32 state: 0\n");
    let told = stage.does("unshare work\non\ntools 60\nlogin user secret\nprocesses\noff\n");
    let processes = told.lines().find_map(|line| line.strip_suffix(" processes: 0")).unwrap();
    assert_eq!(told.replace(processes, "=N"), "unshare: 0\non: 0\ntools: 0\nlogin: 0\n=N processes: 0\noff: 0\n");
    // PID 1, what serves, what supervises, and the program.
    assert!(processes[1..].parse::<u32>().unwrap() >= 4, "{told}");
}

#[rstest]
#[case::workstation("3", "on: 0\n=520 state: 0\nunpause: 0\noff: 0\n")]
#[case::player("4", "on: 6\n=2 state: 0\nunpause: 6\noff: 3006\n")]
fn a_vm_starts_paused_where_it_can_be_unpaused(#[case] provider: &str, #[case] answers: &str) {
    let stage = Stage::new();
    let told = stage.client(&stage.vmx, provider, &format!("on {PAUSED}\nstate\nunpause\noff\n"), "");
    assert_eq!(told, answers);
}

#[test]
fn an_encrypted_vm_has_no_window() {
    let plain = Stage::new();
    assert_eq!(plain.does(&format!("on {WINDOW}\noff\n")), "on: 0\noff: 0\n");
    let encrypted = Stage::with("vmtask.encryption.password = \"key\"\n");
    let told = encrypted.does(&format!("on {WINDOW}\nstate\non\nsnapshot s 2\nrevert s {WINDOW}\nrevert s 0\noff\n"));
    assert_eq!(told, "on: 6\n=2 state: 0\non: 0\nsnapshot: 0\nrevert: 6\nrevert: 0\noff: 0\n");
}

#[rstest]
#[case::one_with_a_screen("", "screen: 0\n")]
#[case::one_without(ROOT, "screen: 3003\n")]
fn a_guest_without_a_screen_is_not_a_product_without_the_call(#[case] more: &str, #[case] answer: &str) {
    let stage = Stage::with(more);
    let told = stage.does("on\ntools 60\nlogin user secret\nscreen\noff\n");
    assert_eq!(told, format!("on: 0\ntools: 0\nlogin: 0\n{answer}off: 0\n"));
}

#[rstest]
#[case::with_a_network("", "192.0.2.1")]
#[case::elsewhere("vmtask.world.ip = \"198.51.100.7\"\n", "198.51.100.7")]
#[case::without_a_network(ROOT, "")]
fn a_guests_address_is_known_while_tools_run(#[case] more: &str, #[case] address: &str) {
    let stage = Stage::with(more);
    let told = stage.does("on\ntools 60\nvariable 1 ip\nvariable 1 other\noff\nvariable 1 ip\n");
    let known = format!("=\"{address}\" variable: 0\n=\"\" variable: 0\n");
    assert_eq!(told, format!("on: 0\ntools: 0\n{known}off: 0\nvariable: 3006\n"));
}

#[rstest]
#[case::plain("guestinfo.word", "set: 0\n=\"said\" variable: 0\n")]
#[case::with_a_slash("guestinfo/word", "set: 3\n=\"\" variable: 0\n")]
#[case::with_an_equals_sign("word=", "set: 3\n=\"\" variable: 0\n")]
fn a_guest_variable_is_written_under_a_name_that_is_one(#[case] name: &str, #[case] answers: &str) {
    let stage = Stage::new();
    let told = stage.does(&format!("on\nset {name} said\nvariable 1 {name}\noff\n"));
    assert_eq!(told, format!("on: 0\n{answers}off: 0\n"));
}

#[test]
fn nobody_reports_an_address_without_tools() {
    let stage = Stage::with("vmtask.tools = \"FALSE\"\n");
    assert_eq!(stage.does("on\nvariable 1 ip\noff\n"), "on: 0\n=\"\" variable: 0\noff: 0\n");
}

#[test]
fn a_variable_of_the_environment_is_what_programs_find_in_it() {
    let stage = Stage::with(ROOT);
    let there = stage.dir.path().join("there");
    let told = stage.does(&format!(
        "on\ntools 60\nlogin user secret\nvariable 3 PATH\nvariable 3 NONE\n\
         run /bin/sh -c 'echo \"=\\\"$PATH\\\"\" >/tmp/path'\nget /tmp/path {}\noff\n",
        there.display()
    ));
    let path = std::fs::read_to_string(there).unwrap_or_else(|e| panic!("{e}: {told}"));
    let path = path.trim();
    assert!(path.contains("/bin"), "{path}");
    let variables = format!("{path} variable: 0\n=\"\" variable: 0\n");
    assert_eq!(told, format!("on: 0\ntools: 0\nlogin: 0\n{variables}=0 run: 0\nget: 0\noff: 0\n"));
}
