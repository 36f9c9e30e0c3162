//! `vmtask setup` on a Debian whose two halves of QEMU come from different places, played by scripts.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn script(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn where_the_newest_halves_of_qemu_do_not_fit_a_version_is_installed_that_both_have() {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !os.contains("debian") && !os.contains("ubuntu") {
        eprintln!("skipped: this is no Debian, where vmtask would install nothing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (bin, log) = (dir.path().join("bin"), dir.path().join("log"));
    fs::create_dir(&bin).unwrap();
    script(&bin, "sudo", "shift; exec /usr/bin/env PATH=\"$PATH\" \"$@\"");
    // Fails like apt does there, unless versions are named.
    let apt_get = format!(
        "echo \"$@\" >>{}; case \"$*\" in *install*=*|*update*) ;; *) echo 'E: Unable to correct problems' >&2; exit 100 ;; esac",
        log.display()
    );
    script(&bin, "apt-get", &apt_get);
    let madison =
        "case $2 in qemu-utils) echo ' qemu-utils | 1:10.0-2~bpo12 | x' ;; esac; echo \" $2 | 1:7.2-7+u18 | y\"";
    script(&bin, "apt-cache", madison);
    // No platform can be built where there are files instead of directories, so it ends there.
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("alt_platforms"), "").unwrap();
    fs::write(data.join("cache"), "").unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_vmtask"))
        .arg("setup")
        .env("PATH", &bin)
        .env("VMTASK_DATA_DIR", &data)
        .env("VMTASK_ACCEL", "tcg")
        .output()
        .unwrap();

    let lines = fs::read_to_string(&log).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let asked: Vec<_> =
        lines.lines().filter_map(|line| line.split_once("Timeout=120 ").map(|(_, args)| args)).collect();
    assert_eq!(
        asked,
        [
            "update",
            "install -y --no-install-recommends qemu-system-x86 qemu-utils",
            "install -y --no-install-recommends --allow-downgrades qemu-system-x86=1:7.2-7+u18 qemu-utils=1:7.2-7+u18",
        ],
        "{stderr}"
    );
    assert!(stderr.contains("E: Unable to correct problems"), "apt's own words: {stderr}");
    assert!(!output.status.success(), "the platform could not be built: {stderr}");
}
