//! No client, however wrong, makes the library crash, hang or grow.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use vmtask_vix_abi::Function;

/// Runs one mode of the client; its counters must show that nothing is alive at its end.
fn abuse(mode: &str, more: &[&str], faults: &str) {
    let dir = tempfile::tempdir().unwrap();
    let client = common::compile("abuse.c", dir.path());
    let vmx = common::make_vm(&dir.path().join("vm"), "vm", "");
    let counters = dir.path().join("counters.json");
    std::fs::write(dir.path().join("faults"), faults).unwrap();
    let output = Command::new(client)
        .arg(mode)
        .args([common::library(), vmx])
        .args(more)
        .env("VMTASK_STANDIN_HOME", dir.path().join("home"))
        .env("VMTASK_STANDIN_COUNTERS", &counters)
        .env("VMTASK_STANDIN_FAULTS", dir.path().join("faults"))
        .env_remove("VMTASK_STANDIN")
        .env_remove("VMTASK_STANDIN_PRODUCT")
        .output()
        .unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "survived\n");
    if mode == "unload" {
        // It never says goodbye, so what it holds stays.
        return;
    }
    let counted = common::counters(&counters);
    for kind in ["hosts", "vms", "snapshots", "property_lists", "buffers"] {
        assert_eq!(counted[kind], 0, "{kind} in {counted}");
    }
    if mode == "threads" {
        assert_eq!(counted["leaked"], 0, "{counted}");
    }
}

#[test]
fn every_function_survives_every_kind_of_handle_and_no_pointers() {
    let names: Vec<&str> = Function::ALL.iter().map(|function| function.name()).collect();
    abuse("every", &names, "");
}

#[test]
fn many_threads_share_one_vm_and_each_callback_fires_once() {
    abuse("threads", &[], "");
}

#[test]
fn a_disconnect_from_a_callback_ends_a_job_that_hangs() {
    abuse("hang", &[], "VixVM_PowerOn hang\nVixVM_PowerOff delay 20ms\n");
}

#[test]
fn a_library_that_is_unloaded_while_a_job_is_under_way_stays_until_the_end() {
    abuse("unload", &[], "VixVM_PowerOn delay 50ms\n");
}
