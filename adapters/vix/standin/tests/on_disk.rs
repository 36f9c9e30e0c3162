//! What one client leaves on disk is what the next one finds, even if the first was killed halfway.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::Stage;
use rstest::rstest;

const OFF: &str = "=2 ";
const SUSPENDED: &str = "=32 ";
/// On, with Tools.
const ON: &str = "=72 ";

/// A file `F` that the guest has, and one that runs for ever.
fn prepare(stage: &Stage) -> String {
    let idle = stage.file("idle", "#!vmtask-world\nidle\n");
    let idle = idle.display();
    let told = stage.does(&format!("on\ntools 10\nlogin user secret\nput {idle} /tmp/idle\nstart /bin/sh /tmp/idle\n"));
    assert_eq!(told, "on: 0\ntools: 0\nlogin: 0\nput: 0\nstart: 0\n");
    idle.to_string()
}

#[test]
fn a_vm_outlives_its_client() {
    let stage = Stage::new();
    prepare(&stage);
    let told = stage.does("state\nprocesses\nlogin user secret\nprocesses\noff\nstate\n");
    assert_eq!(told, format!("{ON}state: 0\nprocesses: 3018\nlogin: 0\n=1 processes: 0\noff: 0\n{OFF}state: 0\n"));
}

#[rstest]
// Without memory: off, with the files of then. With memory: as it was, the program included.
#[case("0", OFF, "on\ntools 10\nlogin user secret\nprocesses\n", "on: 0\ntools: 0\nlogin: 0\n=0 processes: 0\n")]
#[case("2", ON, "tools 10\nlogin user secret\nprocesses\n", "tools: 0\nlogin: 0\n=1 processes: 0\n")]
fn a_snapshot_brings_back_what_it_kept(
    #[case] options: &str,
    #[case] power: &str,
    #[case] lines: &str,
    #[case] outcome: &str,
) {
    let stage = Stage::new();
    let idle = prepare(&stage);
    stage.does(&format!("snapshot s {options}\nlogin user secret\nput {idle} /tmp/later\nreset\n"));
    let told = stage.does(&format!("revert s 0\nstate\n{lines}exists /tmp/later\nexists /tmp/idle\n"));
    let files = "=0 exists: 0\n=1 exists: 0\n";
    assert_eq!(told, format!("revert: 0\n{power}state: 0\n{outcome}{files}"));
}

#[test]
fn a_revert_that_may_not_power_on_leaves_the_vm_suspended() {
    let stage = Stage::new();
    prepare(&stage);
    let told = stage.does("snapshot s 2\nrevert s 128\nstate\non\nstate\n");
    assert_eq!(told, format!("snapshot: 0\nrevert: 0\n{SUSPENDED}state: 0\non: 0\n{ON}state: 0\n"));
}

#[test]
fn a_copy_of_a_suspended_vm_is_a_vm_of_its_own() {
    let stage = Stage::new();
    prepare(&stage);
    stage.does("suspend\n");
    let (from, to) = (stage.vmx.parent().unwrap(), stage.dir.path().join("copy"));
    assert!(Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap().success());
    let lines = "on\ntools 10\nlogin user secret\nprocesses\nstate\n";
    let told = stage.client(&to.join("vm.vmx"), "3", lines, "");
    assert_eq!(told, format!("on: 0\ntools: 0\nlogin: 0\n=1 processes: 0\n{ON}state: 0\n"));
    assert_eq!(stage.does("state\n"), format!("{SUSPENDED}state: 0\n"));
}

#[rstest]
#[case::power_on("off\non\n", "VixVM_PowerOn half then die", OFF)]
#[case::suspend("suspend\n", "VixVM_Suspend half then die", OFF)]
#[case::create("snapshot s 2\n", "VixVM_CreateSnapshot half then die", ON)]
#[case::create_done("snapshot s 2\n", "VixVM_CreateSnapshot act then die", ON)]
#[case::pause("pause\n", "VixVM_Pause half then die", ON)]
#[case::reset("reset\n", "VixVM_Reset half then die", ON)]
fn a_client_that_is_killed_halfway_leaves_a_vm_that_can_be_used(
    #[case] lines: &str,
    #[case] faults: &str,
    #[case] power: &str,
) {
    let stage = Stage::new();
    prepare(&stage);
    let told = stage.dies(&format!("{lines}state\n"), faults);
    assert!(!told.contains("state"), "it was not killed: {told}");
    // Whatever looks first puts it in order.
    let told = stage.does("roots\nsnapshot after 0\nstate\n");
    assert!(told.ends_with(&format!("snapshot: 0\n{power}state: 0\n")), "{told}");
    let again = stage.does("revert after 0\non\ntools 10\nlogin user secret\nrun /bin/true\n");
    assert_eq!(again, "revert: 0\non: 0\ntools: 0\nlogin: 0\n=0 run: 0\n");
}

#[test]
fn a_revert_that_was_cut_off_is_finished_by_the_next_client() {
    let stage = Stage::new();
    let idle = prepare(&stage);
    stage.does(&format!("snapshot s 2\nlogin user secret\nput {idle} /tmp/later\n"));
    stage.dies("revert s 0\n", "VixVM_RevertToSnapshot half then die");
    // Powering on would otherwise start with the files of neither state.
    let told = stage.does("on\ntools 10\nlogin user secret\nprocesses\nexists /tmp/later\n");
    assert_eq!(told, "on: 0\ntools: 0\nlogin: 0\n=1 processes: 0\n=0 exists: 0\n");
}

#[test]
fn a_damaged_snapshot_is_refused_and_another_one_helps() {
    let stage = Stage::new();
    prepare(&stage);
    stage.does("snapshot good 2\nsnapshot bad 2\n");
    let world = stage.vmx.with_file_name("vmtask-standin").join("snapshots/1/world.json");
    let mut content = std::fs::read(&world).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&world, content).unwrap();
    let told = stage.does("revert good/bad 0\nstate\non\nrevert good 0\nstate\n");
    assert_eq!(told, format!("revert: 13000\n{OFF}state: 0\non: 0\nrevert: 0\n{ON}state: 0\n"));
}

#[rstest]
#[case::full("0", "revert: 0\noff: 0\non: 0\n")]
// It lives on the snapshot that was made for it.
#[case::linked("1", "revert: 16003\noff: 3006\non: 16003\n")]
fn only_a_linked_clone_needs_its_parent(#[case] kind: &str, #[case] told: &str) {
    let stage = Stage::new();
    prepare(&stage);
    let clone = stage.dir.path().join("clone/clone.vmx");
    let lines = format!("off\nclone {} {kind}\n", clone.display());
    assert_eq!(stage.does(&lines), "off: 0\nclone: 0\n");
    assert_eq!(stage.client(&clone, "3", "on\nsnapshot s 2\noff\n", ""), "on: 0\nsnapshot: 0\noff: 0\n");
    let (parent, away) = (stage.vmx.parent().unwrap(), stage.dir.path().join("away"));
    std::fs::rename(parent, &away).unwrap();
    assert_eq!(stage.client(&clone, "3", "revert s 0\noff\non\n", ""), told);
    std::fs::rename(&away, parent).unwrap();
    // Nothing that it had was lost, and it runs: what does not cannot be powered off.
    assert_eq!(stage.client(&clone, "3", "revert s 0\noff\n", ""), "revert: 0\noff: 0\n");
}

#[test]
fn a_snapshot_that_was_cut_off_is_none() {
    let stage = Stage::new();
    prepare(&stage);
    stage.dies("snapshot s 2\n", "VixVM_CreateSnapshot half then die");
    assert_eq!(stage.does("roots\nrevert s 0\n"), "=0 roots: 0\nrevert: 13003\n");
}

#[rstest]
#[case("VixVM_WaitForToolsInGuest never", "tools 1\n", "tools: 3000\n")]
#[case(
    "VixVM_CopyFileFromHostToGuest fail VIX_E_DISK_FULL",
    "login user secret\nput /etc/passwd /tmp/p\n",
    "login: 0\nput: 8\n"
)]
#[case("VixVM_PowerOff act then fail 36", "off\nstate\n", "off: 36\n=2 state: 0\n")]
#[case("VixVM_Reset#2 fail 13", "reset\nreset\nreset\n", "reset: 0\nreset: 13\nreset: 0\n")]
#[case("VixVM_PowerOf fail 13", "off\n", "cannot begin: 3\n")]
fn a_fault_is_what_the_client_sees(#[case] faults: &str, #[case] lines: &str, #[case] told: &str) {
    let stage = Stage::new();
    prepare(&stage);
    assert_eq!(stage.dies(lines, faults), told);
}

#[rstest]
#[case("4", "snapshot s 0\npause\nroots\n", "snapshot: 6\npause: 6\nroots: 6\n")]
#[case(
    "3",
    "pause\npause\nsnapshot s 0\nunpause\nsnapshot s 0\n",
    "pause: 0\npause: 0\nsnapshot: 13009\nunpause: 0\nsnapshot: 0\n"
)]
#[case("3", "suspend\nsuspend\nreset\noff\n", "suspend: 0\nsuspend: 3006\nreset: 3006\noff: 3006\n")]
#[case("3", "suspend\nsnapshot a 0\nsnapshot b 0\n", "suspend: 0\nsnapshot: 0\nsnapshot: 13008\n")]
#[case("3", "pause\nlogin user secret\n", "pause: 0\nlogin: 3016\n")]
#[case(
    "3",
    "snapshot a 0\nsnapshot a 0\nrevert a 0\nremove a/a 0\nrevert a 0\n",
    "snapshot: 0\nsnapshot: 0\nrevert: 13017\nremove: 0\nrevert: 0\n"
)]
#[case("3", "snapshot a 0\nsnapshot b 0\nremove a 1\nroots\n", "snapshot: 0\nsnapshot: 0\nremove: 0\n=0 roots: 0\n")]
fn a_product_says_what_it_cannot_do_and_when(#[case] provider: &str, #[case] lines: &str, #[case] told: &str) {
    let stage = Stage::new();
    prepare(&stage);
    assert_eq!(stage.client(&stage.vmx, provider, lines, ""), told);
}
