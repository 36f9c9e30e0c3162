//! A client that others wrote for VMware's library works with the stand-in.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

#[test]
#[ignore = "needs VMTASK_PYTHON_WITH_VIX: a Python with the package vix 1.0.8 (pip install vix==1.0.8)"]
fn the_python_package_vix_goes_through_a_vms_life() {
    let python =
        std::env::var("VMTASK_PYTHON_WITH_VIX").expect("VMTASK_PYTHON_WITH_VIX names a Python that has vix 1.0.8");
    let dir = tempfile::tempdir().unwrap();
    common::make_vm(&dir.path().join("vm"), "vm", "");
    let counters = dir.path().join("counters.json");
    let output = Command::new(python)
        .arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/other_client.py"))
        .args([common::library().canonicalize().unwrap(), dir.path().to_owned()])
        .env("VMTASK_STANDIN_HOME", dir.path().join("home"))
        .env("VMTASK_STANDIN_COUNTERS", &counters)
        .env_remove("VMTASK_STANDIN")
        .env_remove("VMTASK_STANDIN_PRODUCT")
        .env_remove("VMTASK_STANDIN_FAULTS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "passed\n");
    // Its texts are never freed, and its objects release their handles after the disconnect: both are its own doing.
    let counted = common::counters(&counters);
    for kind in ["hosts", "vms", "snapshots", "jobs", "property_lists"] {
        assert_eq!(counted[kind], 0, "{kind} in {counted}");
    }
}
