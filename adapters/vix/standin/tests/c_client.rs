//! A program in C that knows nothing of us but VIX's documentation goes through a VM's life.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::{Command, Output};

use rstest::rstest;

/// What one run needs.
struct Stage {
    dir: tempfile::TempDir,
    client: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = common::compile("client.c", dir.path());
        Self { dir, client }
    }

    fn counters(&self) -> PathBuf {
        self.dir.path().join("counters.json")
    }

    /// Runs the client, with some words before its name (a tool that watches it, say).
    fn run(&self, before: &[&str], product: &str, guest: &str) -> Output {
        let dir = self.dir.path();
        let vms = dir.join("vms");
        let vmx = common::make_vm(&vms.join("vm"), "vm", "");
        let program = dir.join("program");
        let text = match guest {
            "world" => "#!vmtask-world\nsleep 20ms\nexit 3\n",
            _ => "#!/bin/sh\nexit 3\n",
        };
        std::fs::write(&program, text).unwrap();
        let clone = if product == "fusion" { "-".into() } else { vms.join("clone").join("clone.vmx") };
        let (provider, host, user, password, name) = match product {
            "server2" => ("10", "https://localhost:8333/sdk", "me", "mine", "[standard] vm/vm.vmx".to_owned()),
            "player" => ("4", "-", "-", "-", vmx.display().to_string()),
            _ => ("3", "-", "-", "-", vmx.display().to_string()),
        };
        let mut words = before.iter().map(ToString::to_string).collect::<Vec<_>>();
        words.push(self.client.display().to_string());
        Command::new(&words[0])
            .args(&words[1..])
            .args([provider, host, user, password, &name])
            .args([clone.as_path(), dir].map(|path| path.display().to_string()))
            .args(["user", "secret"])
            .args([program.display().to_string(), "3".to_owned()])
            .env("VMTASK_STANDIN_HOME", dir.join("home"))
            .env("VMTASK_STANDIN_COUNTERS", self.counters())
            .env("VMTASK_STANDIN_DATASTORES", format!("standard={}", vms.display()))
            .env("VMTASK_STANDIN_HOST_USER", "me")
            .env("VMTASK_STANDIN_HOST_PASSWORD", "mine")
            .env("VMTASK_STANDIN_PRODUCT", product)
            .env("VMTASK_STANDIN", guest)
            .env_remove("VMTASK_STANDIN_FAULTS")
            .output()
            .unwrap()
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[rstest]
#[case("workstation", "world")]
#[case("fusion", "world")]
#[case("server2", "world")]
#[case("player", "world")]
#[case("workstation", "root")]
#[case("server2", "root")]
fn a_client_in_c_goes_through_a_vms_life_and_leaves_nothing_behind(#[case] product: &str, #[case] guest: &str) {
    let stage = Stage::new();
    let output = stage.run(&[], product, guest);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("passed"), "{}", told(&output));
    common::assert_nothing_left(&stage.counters());
    let back = std::fs::read(stage.dir.path().join("back")).unwrap();
    assert_eq!(back, std::fs::read(stage.dir.path().join("program")).unwrap());
}

#[test]
#[ignore = "slow: run by the full test run where valgrind is installed"]
fn valgrind_finds_no_fault_and_no_leak_in_the_clients_life() {
    let stage = Stage::new();
    let valgrind = ["valgrind", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite", "-q"];
    let output = stage.run(&valgrind, "workstation", "world");
    assert!(output.status.success(), "{}", told(&output));
    common::assert_nothing_left(&stage.counters());
}
