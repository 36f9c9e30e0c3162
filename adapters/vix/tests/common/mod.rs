//! The stand-in, found and set up as a user would, in a process of its own for each test: what it is to be is told by the
//! environment, of which a process has only one.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vmtask_core::{FileIn, FileOut, Limits, ProgramSpec, TaskDraft, TaskSpec};
use vmtask_driver::{Credentials, Secret};
use vmtask_vix::{Connection, Library, Product, Setup, Wait};

const CHILD: &str = "VMTASK_VIX_TEST_CHILD";

/// The library as a client finds it. Cargo puts it beside the tests, or one directory up.
pub(crate) fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let name = if cfg!(windows) { "vixAllProducts.dll" } else { "libvixAllProducts.so" };
    let found = [beside.join(name), beside.join("..").join(name)].into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is neither in {} nor above it", beside.display()))
}

/// A product profile of the stand-in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) product: Product,
}

pub(crate) const PROFILES: [Profile; 4] = [
    Profile { name: "workstation", product: Product::Workstation },
    Profile { name: "fusion", product: Product::Fusion },
    Profile { name: "player", product: Product::Player },
    Profile { name: "server2", product: Product::Server2 },
];

/// A directory with a platform's VM in it, and a task's.
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    pub(crate) profile: Profile,
}

/// Runs `body` in a process of its own, in which the stand-in is this product with that guest. At its end nothing of the
/// library may be alive. `name` is the test's.
pub(crate) fn on_standin(name: &str, profile: Profile, guest: &str, faults: &str, body: fn(&Stage)) {
    in_acts(name, profile, guest, faults, &[body]);
}

/// The same in several processes, one after the other, on the same stage. A process that ends early ends its act.
pub(crate) fn in_acts(name: &str, profile: Profile, guest: &str, faults: &str, acts: &[fn(&Stage)]) {
    let key = format!("{name} {}", profile.name);
    match std::env::var(CHILD) {
        Ok(child) if child == key => {
            let act: usize = std::env::var("VMTASK_VIX_TEST_ACT").unwrap().parse().unwrap();
            return acts[act](&Stage { dir: std::env::var_os("VMTASK_VIX_TEST_DIR").unwrap().into(), profile });
        }
        // This process is for another of the test's products.
        Ok(_) => return,
        Err(_) => {}
    }
    let dir = tempfile::Builder::new().prefix("vmtask-vix-").tempdir().unwrap();
    let stage = Stage { dir: dir.path().to_owned(), profile };
    stage.make_platform(guest);
    std::fs::write(dir.path().join("faults"), faults).unwrap();
    let counters = dir.path().join("counters.json");
    let mut said = String::new();
    for act in 0..acts.len() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, &key)
            .env("VMTASK_VIX_TEST_ACT", act.to_string())
            .env("VMTASK_VIX_TEST_DIR", dir.path())
            .env("VMTASK_STANDIN_HOME", dir.path().join("home"))
            .env("VMTASK_STANDIN_COUNTERS", &counters)
            .env("VMTASK_STANDIN_DATASTORES", format!("standard={}", dir.path().join("vms").display()))
            .env("VMTASK_STANDIN_PRODUCT", profile.name)
            .env("VMTASK_STANDIN_FAULTS", dir.path().join("faults"))
            .env_remove("VMTASK_STANDIN")
            .output()
            .unwrap();
        said += &String::from_utf8_lossy(&output.stdout);
        said += &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{key}: {}\n{said}", output.status);
    }
    let counted: serde_json::Value = serde_json::from_slice(&std::fs::read(&counters).unwrap()).unwrap();
    for kind in ["hosts", "vms", "snapshots", "jobs", "property_lists", "buffers", "leaked"] {
        assert_eq!(counted[kind], 0, "{key}: {kind} in {counted}\n{said}");
    }
    if std::env::var_os("VMTASK_VIX_TEST_SHOW").is_some() {
        #[allow(clippy::print_stderr, reason = "it was asked for")]
        {
            eprintln!("{said}");
        }
    }
}

impl Stage {
    fn make_platform(&self, guest: &str) {
        let dir = self.dir.join("vms/platform");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(self.dir.join("task")).unwrap();
        std::fs::write(
            dir.join("platform.vmx"),
            format!(
                "displayName = \"platform\"\nmemsize = \"64\"\nguestOS = \"other\"\nvmtask.guest = \"{guest}\"\n\
                 vmtask.guest.user = \"user\"\nvmtask.guest.password = \"secret\"\n"
            ),
        )
        .unwrap();
    }

    pub(crate) fn has_inventory(&self) -> bool {
        self.profile.product.has_inventory()
    }

    pub(crate) fn platform(&self) -> String {
        if self.has_inventory() {
            "[standard] platform/platform.vmx".into()
        } else {
            self.dir.join("vms/platform/platform.vmx").display().to_string()
        }
    }

    pub(crate) fn connection(&self) -> Connection {
        let mut connection = Connection::local(self.profile.product);
        if self.has_inventory() {
            connection.host = Some("https://localhost:8333/sdk".into());
            connection.credentials = Some(account("me", "mine"));
        }
        connection
    }

    pub(crate) fn task_dir(&self) -> PathBuf {
        self.dir.join("task")
    }

    pub(crate) fn setup(&self, spec: TaskSpec) -> Setup {
        Setup {
            spec,
            library: Library::load(&library()).unwrap(),
            connection: self.connection(),
            vm: self.platform(),
            datastore: self.has_inventory().then(|| self.dir.join("vms")),
            guest: account("user", "secret"),
            guest_dir: Setup::GUEST_DIR.into(),
            dir: self.task_dir(),
            inputs: self.dir.clone(),
            results: self.task_dir().join("results"),
        }
    }

    /// A task that runs this script on an input, and brings `result` out.
    pub(crate) fn script_task(&self, script: &str, input: &[u8]) -> TaskSpec {
        std::fs::write(self.dir.join("program"), script).unwrap();
        std::fs::write(self.dir.join("input"), input).unwrap();
        let file = |name: &str, executable| FileIn { host: name.into(), guest: name.into(), executable };
        TaskDraft {
            name: "story".into(),
            platform: "x86_64-pc-linux-gnu".into(),
            program: ProgramSpec {
                path: "program".into(),
                args: vec!["it's".into(), "two words".into()],
                env: [("COLOUR".to_owned(), "dark \"red\"".to_owned())].into(),
                stdout: "stdout.txt".into(),
                stderr: "logs/stderr.txt".into(),
                progress: Some("progress".into()),
            },
            files_in: vec![file("program", true), file("input", false)],
            files_out: ["result", "stdout.txt"]
                .map(|name| FileOut { guest: name.into(), host: name.into(), optional: false })
                .to_vec(),
            checkpoint: None,
            limits: Limits::default(),
        }
        .check()
        .unwrap()
    }

    pub(crate) fn result(&self, name: &str) -> String {
        let path = self.task_dir().join("results").join(name);
        String::from_utf8(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
    }

    /// Everything that is left of the task's VM.
    pub(crate) fn remains(&self) -> Vec<PathBuf> {
        let mut left: Vec<PathBuf> = [self.task_dir().join("vm")].into_iter().filter(|path| path.exists()).collect();
        let stores = std::fs::read_dir(self.dir.join("vms")).unwrap().map(|entry| entry.unwrap().path());
        left.extend(stores);
        // The platform, and the stand-in's own inventory, which is not the task's.
        let ours = |path: &PathBuf| !path.ends_with("platform") && !path_of(path).contains("vmtask-standin-inventory");
        left.into_iter().filter(ours).collect()
    }
}

pub(crate) fn account(user: &str, password: &str) -> Credentials {
    Credentials { user: user.into(), password: Secret::from_value(password.into()) }
}

/// Longer than anything takes here.
pub(crate) fn patience() -> Wait<'static> {
    Wait::most(Duration::from_secs(60))
}

pub(crate) fn path_of(path: &Path) -> String {
    path.display().to_string()
}
