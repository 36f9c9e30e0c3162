//! Real machines: whether they are wanted, and what they need.
//!
//! All tests of a run share one data directory (`VMTASK_TEST_DATA_DIR`), in which the platforms are built once, by
//! whoever comes first; the others wait for its lock. Each test's own directories are temporary, with a data directory
//! of its own that borrows platforms and templates from the shared one, so that its list of virtual machines is its own.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// The platform that the tests use.
pub const PLATFORM: &str = "x86_64-pc-linux-gnu";
/// The other one, of the same image.
pub const PLATFORM_32: &str = "i686-pc-linux-gnu";

/// Whether real machines are wanted; says so if not.
#[must_use]
pub fn wanted() -> bool {
    let wanted = std::env::var_os("VMTASK_TEST_REAL").is_some_and(|value| value == "1");
    if !wanted {
        note("skipped: set VMTASK_TEST_REAL=1");
    }
    wanted
}

/// Says why a test does not do what it is for, so that it does not look like one that passed.
#[allow(clippy::print_stderr, reason = "whoever runs the tests must see it")]
pub fn note(why: &str) {
    eprintln!("{why}");
}

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    // At run time first: the archive of a test run is unpacked elsewhere.
    let manifest_dir =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), Into::into);
    manifest_dir.parent().map(Path::to_owned).unwrap_or(manifest_dir)
}

/// What all tests of a run share.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn home() -> PathBuf {
    let dir = std::env::var_os("VMTASK_TEST_DATA_DIR").map_or_else(
        || std::env::temp_dir().join(format!("vmtask-tests-{}", rustix::process::getuid().as_raw())),
        PathBuf::from,
    );
    fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
    fs::canonicalize(&dir).unwrap_or(dir)
}

/// Held until dropped; other processes wait for it.
///
/// # Panics
/// If the lock file cannot be made.
#[must_use]
pub fn lock(name: &str) -> File {
    let path = home().join(format!(".{name}.lock"));
    let file = File::create(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    file.lock().unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()));
    file
}

/// The `vmtask` binary of this build: `VMTASK_BIN`, or built now. Under nextest it was built with the tests.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn vmtask() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find_vmtask).clone()
}

fn find_vmtask() -> PathBuf {
    if let Some(named) = std::env::var_os("VMTASK_BIN") {
        return named.into();
    }
    let me = std::env::current_exe().expect("know this program's own path");
    let dir = me.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).expect("a directory above");
    let binary = dir.join("vmtask");
    if std::env::var_os("NEXTEST").is_some() && binary.exists() {
        return binary;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "-q", "-p", "vmtask", "--bin", "vmtask"]).current_dir(repository());
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = dir.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let status = cargo.status().expect("run cargo to build vmtask");
    assert!(status.success(), "vmtask could not be built: {cargo:?}");
    binary
}

/// The shared data directory with both platforms in it.
///
/// # Panics
/// If they cannot be built.
#[must_use]
pub fn shared_data() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build_platforms).clone()
}

fn build_platforms() -> PathBuf {
    let data = home();
    let _lock = lock("platforms");
    // A guest of yesterday's sources and an adapter of today's may not understand each other.
    let (stamp, sources) = (data.join(".platforms-of"), sources_of_platforms());
    if fs::read_to_string(&stamp).is_ok_and(|built| built == sources) {
        return data;
    }
    for name in [PLATFORM, PLATFORM_32] {
        let built = Command::new(vmtask())
            .args(["platform", "build", name])
            .env("VMTASK_DATA_DIR", &data)
            .output()
            .expect("run vmtask platform build");
        assert!(built.status.success(), "vmtask platform build {name}: {}", String::from_utf8_lossy(&built.stderr));
    }
    fs::write(&stamp, sources).expect("note what the platforms were built from");
    data
}

/// A digest of everything that platforms are made from.
fn sources_of_platforms() -> String {
    let dir = repository().join("adapters/platform");
    let parts = [dir.join("guest"), dir.join("src"), dir.join("platform.lock")];
    let files = parts.iter().flat_map(|part| if part.is_dir() { files_below(part) } else { vec![part.clone()] });
    let contents: Vec<u8> = files.flat_map(|file| fs::read(file).unwrap_or_default()).collect();
    vmtask_driver::Digest::of(&contents).to_string()
}

/// A temporary directory for one test, with everything that `vmtask` writes below it.
#[derive(Debug)]
pub struct Den {
    dir: TempDir,
}

impl Den {
    /// A fresh one.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vmtask-test-").tempdir().expect("make a temporary directory");
        let shared = shared_data();
        for made in ["data", "tmp", "home"] {
            fs::create_dir(dir.path().join(made)).expect("make a directory");
        }
        for borrowed in ["alt_platforms", "cache"] {
            fs::create_dir_all(shared.join(borrowed)).expect("make a shared directory");
            symlink(shared.join(borrowed), dir.path().join("data").join(borrowed))
                .expect("borrow from the shared data");
        }
        Self { dir }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `VMTASK_DATA_DIR` of what runs here.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// `vmtask` with this directory as its whole world.
    #[must_use]
    pub fn vmtask(&self) -> Command {
        self.vmtask_at(&vmtask())
    }

    /// The same with another build's binary.
    #[must_use]
    pub fn vmtask_at(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command
            .current_dir(self.path())
            .env("VMTASK_DATA_DIR", self.data())
            .env("VMTASK_ACCEL", "tcg")
            .env("HOME", self.path().join("home"))
            .env("TMPDIR", self.path().join("tmp"))
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Keeps it for whoever looks into a failure.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// What `vmtask vms` lists here: nothing, if all is well.
    ///
    /// # Panics
    /// If it cannot be asked.
    #[must_use]
    pub fn vms(&self) -> String {
        let asked = self.vmtask().arg("vms").output().expect("run vmtask vms");
        assert!(asked.status.success(), "vmtask vms: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    }

    /// Everything of a machine that should be gone once its task is over, and is still there.
    #[must_use]
    pub fn leftovers(&self, task_dir: &Path) -> Vec<String> {
        let mut left = Vec::new();
        let vms = self.vms();
        if !vms.is_empty() {
            left.push(format!("vmtask vms lists {vms}"));
        }
        for qemu in crate::procs::qemus_of_dir(self.path()) {
            left.push(format!("process {} runs", qemu.pid));
        }
        for dir in [task_dir.join("vm"), self.path().join("tmp")] {
            left.extend(files_below(&dir).into_iter().map(|path| path.display().to_string()));
        }
        let known = ["lock", "task.json", "journal", "journal.prev", "log", "qemu.log", "vm", "results"];
        for entry in fs::read_dir(task_dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !known.iter().any(|known| name == *known) {
                left.push(entry.path().display().to_string());
            }
        }
        left
    }
}

impl Default for Den {
    fn default() -> Self {
        Self::new()
    }
}

/// Every file, socket and link below a directory.
#[must_use]
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
