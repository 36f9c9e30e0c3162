//! What the tests share: the library's file, VMs, counters.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The library as a client finds it. Cargo puts it beside the tests, or one directory up.
pub(crate) fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let name = if cfg!(windows) {
        "vixAllProducts.dll"
    } else if cfg!(target_os = "macos") {
        "libvixAllProducts.dylib"
    } else {
        "libvixAllProducts.so"
    };
    let found = [beside.join(name), beside.join("..").join(name)].into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is neither in {} nor above it", beside.display()))
}

/// A VM whose guest is simulated.
pub(crate) fn make_vm(dir: &Path, name: &str, more: &str) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let vmx = dir.join(format!("{name}.vmx"));
    let text = format!(
        "displayName = \"{name}\"\nmemsize = \"64\"\nguestOS = \"other\"\nvmtask.guest = \"world\"\n\
         vmtask.guest.user = \"user\"\nvmtask.guest.password = \"secret\"\n{more}"
    );
    std::fs::write(&vmx, text).unwrap();
    vmx
}

/// A counters file.
pub(crate) fn counters(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Nothing is alive, nothing was left for the disconnect to clean up, and something has been counted at all.
pub(crate) fn assert_nothing_left(path: &Path) {
    let counted = counters(path);
    for kind in ["hosts", "vms", "snapshots", "jobs", "property_lists", "buffers", "leaked"] {
        assert_eq!(counted[kind], 0, "{kind} in {counted}");
    }
    assert!(counted["changes"].as_u64().unwrap() > 10, "{counted}");
}

/// Compiles one of the clients in C against nothing but the library's file.
#[cfg(target_os = "linux")]
pub(crate) fn compile(source: &str, dir: &Path) -> PathBuf {
    let library = library().canonicalize().unwrap();
    let client = dir.join(source.trim_end_matches(".c"));
    let output = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-pthread", "-o"])
        .arg(&client)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .output()
        .expect("gcc is needed to compile the clients");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    client
}

/// A VM, and a client in C that does what its lines say (`script.c`).
#[cfg(target_os = "linux")]
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    client: PathBuf,
    pub(crate) vmx: PathBuf,
}

#[cfg(target_os = "linux")]
impl Stage {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// `more`: lines of the VM's configuration.
    pub(crate) fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = compile("script.c", dir.path());
        let vmx = make_vm(&dir.path().join("vm"), "vm", more);
        Self { dir, client, vmx }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What a client prints that does these lines to a VM, with these faults.
    pub(crate) fn client(&self, vmx: &Path, provider: &str, lines: &str, faults: &str) -> String {
        let mut client = Command::new(&self.client)
            .arg(provider)
            .arg(vmx)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("VMTASK_STANDIN_HOME", self.dir.path().join("home"))
            .env("VMTASK_STANDIN_FAULTS", self.file("faults", faults))
            .env_remove("VMTASK_STANDIN")
            .env_remove("VMTASK_STANDIN_PRODUCT")
            .spawn()
            .unwrap();
        // A client that is killed reads no further.
        drop(client.stdin.take().unwrap().write_all(lines.as_bytes()));
        String::from_utf8(client.wait_with_output().unwrap().stdout).unwrap()
    }

    pub(crate) fn does(&self, lines: &str) -> String {
        self.client(&self.vmx, "3", lines, "")
    }

    pub(crate) fn dies(&self, lines: &str, faults: &str) -> String {
        self.client(&self.vmx, "3", lines, faults)
    }
}
