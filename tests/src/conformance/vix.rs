//! VIX on the stand-in as the subject of the stories: each product's profile, on each kind of guest.
//!
//! ```text
//!   HOME/store/platform/platform.vmx       the platform's virtual machine, and the server's datastore around it
//!   HOME/faults, HOME/counters             the stand-in's control file, and what is alive in it
//!   DIR/vm/machine/, HOME/store/vmtask-*/  a task's virtual machine; in it vmtask-standin/state.json
//! ```
//! The stand-in is set up by environment variables, and a process cannot safely change its own: so each story is told by
//! a process of its own (bin `vix-story`), whose environment its parent has made with [`Place::environment`].
//!
//! What is seen and done here goes by the files that the stand-in keeps and by the processes of its guests, never through
//! VIX: the adapter and the library that it talks to are both what is being judged.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use vmtask_core::{FileIn, FileOut, Limits, ProgramSpec, TaskDraft, TaskSpec};
use vmtask_driver::{Credentials, Hypervisor, Secret};
use vmtask_vix::{Connection, Library, Product, Setup, VixVm};

use super::{Act, Subject};

/// Who may log in to the guests, and to the server.
const USER: &str = "user";
const PASSWORD: &str = "correct horse";

/// What plays the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Simulated; on any computer.
    World,
    /// Programs of the host in a root of their own.
    Root,
    /// A virtual machine under QEMU.
    Qemu,
}

impl Guest {
    /// By its name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::World, Self::Root, Self::Qemu].into_iter().find(|guest| guest.name() == name)
    }

    /// As the stand-in knows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Root => "root",
            Self::Qemu => "qemu",
        }
    }
}

/// The products whose profiles the stand-in has, by its names for them.
pub const PRODUCTS: [(&str, Product); 4] = [
    ("workstation", Product::Workstation),
    ("player", Product::Player),
    ("fusion", Product::Fusion),
    ("server2", Product::Server2),
];

/// Where a story's virtual machines are.
#[derive(Clone, Debug)]
pub struct Place {
    home: PathBuf,
    product: &'static str,
}

impl Place {
    /// A place in this directory for one of [`PRODUCTS`].
    ///
    /// # Panics
    /// If there is no such product.
    #[must_use]
    pub fn new(home: &Path, product: &str) -> Self {
        let known = PRODUCTS.iter().find(|(name, _)| *name == product);
        let (product, _) = known.unwrap_or_else(|| panic!("no product {product:?}"));
        Self { home: home.to_owned(), product }
    }

    fn product(&self) -> Product {
        PRODUCTS.iter().find(|(name, _)| *name == self.product).map_or(Product::Workstation, |(_, product)| *product)
    }

    /// Where the server's virtual machines are, and everybody's platform.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// The stand-in's control file, read anew at each call.
    #[must_use]
    pub fn faults(&self) -> PathBuf {
        self.home.join("faults")
    }

    /// What the stand-in must find in its process's environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut datastores = OsString::from("standard=");
        datastores.push(self.store());
        vec![
            ("VMTASK_STANDIN_PRODUCT", self.product.into()),
            ("VMTASK_STANDIN_DATASTORES", datastores),
            ("VMTASK_STANDIN_HOST_USER", USER.into()),
            ("VMTASK_STANDIN_HOST_PASSWORD", PASSWORD.into()),
            ("VMTASK_STANDIN_HOME", self.home.join("standin").into()),
            ("VMTASK_STANDIN_FAULTS", self.faults().into()),
            ("VMTASK_STANDIN_COUNTERS", self.home.join("counters").into()),
            ("VMTASK_VIX_LIBRARY", library().into()),
            ("VMTASK_VIX_PASSWORD", PASSWORD.into()),
            ("VMTASK_VIX_HOST_PASSWORD", PASSWORD.into()),
            // The guest is the virtual machine's choice.
            ("VMTASK_STANDIN", OsString::new()),
        ]
    }

    /// The flags of `vmtask run` for it.
    #[must_use]
    pub fn flags(&self) -> Vec<OsString> {
        let mut flags = ["--hypervisor", "vix", "--vix-product", self.product, "--vix-user", USER, "--vix-vm"]
            .map(OsString::from)
            .to_vec();
        flags.push(self.platform().into());
        if self.product().has_inventory() {
            let mut datastore = OsString::from("standard=");
            datastore.push(self.store());
            flags.extend(["--vix-host", "https://localhost:8333/sdk", "--vix-host-user", USER].map(OsString::from));
            flags.extend(["--vix-datastore".into(), datastore]);
        }
        flags
    }

    /// The platform's virtual machine, as the product names it.
    #[must_use]
    pub fn platform(&self) -> String {
        if self.product().has_inventory() {
            return "[standard] platform/platform.vmx".into();
        }
        self.platform_file().to_string_lossy().into_owned()
    }

    fn platform_file(&self) -> PathBuf {
        self.store().join("platform").join("platform.vmx")
    }

    /// Makes the platform's virtual machine.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn make_platform(&self, guest: Guest, more: &str) {
        let file = self.platform_file();
        fs::create_dir_all(self.store().join("platform")).expect("make the platform's directory");
        fs::create_dir_all(self.home.join("standin")).expect("make the stand-in's directory");
        let text = format!(
            "displayName = \"platform\"\nguestOS = \"other26xlinux-64\"\nmemsize = \"128\"\nnumvcpus = \"1\"\n\
             vmtask.guest = \"{}\"\nvmtask.guest.user = \"{USER}\"\nvmtask.guest.password = \"{PASSWORD}\"\n{more}",
            guest.name()
        );
        fs::write(&file, text).expect("write the platform's configuration");
    }

    /// The directories of the task's virtual machines: those that have a state.
    fn machines(&self, dir: &Path) -> Vec<PathBuf> {
        let in_task = dir.join("vm").join("machine");
        let in_store = entries(&self.store()).into_iter().filter(|path| is_task(path));
        in_store.chain([in_task]).filter(|machine| state(machine).is_some()).collect()
    }

    /// What is alive in the stand-in, by its own count: empty if nothing is.
    ///
    /// # Panics
    /// If it did not count.
    #[must_use]
    pub fn alive(&self) -> Vec<String> {
        let text = fs::read(self.home.join("counters")).expect("the stand-in's counters");
        let counted: Value = serde_json::from_slice(&text).expect("counters");
        let counted = counted.as_object().expect("counters");
        assert!(counted["changes"].as_u64().is_some_and(|changes| changes > 10), "it was not used: {counted:?}");
        let kinds = counted.iter().filter(|(kind, _)| !matches!(kind.as_str(), "changes" | "process"));
        kinds.filter(|(_, count)| count.as_u64() != Some(0)).map(|(kind, count)| format!("{kind}: {count}")).collect()
    }

    /// What is left besides the platform's own virtual machine, which must be off: empty if all is well.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> =
            entries(&self.store()).iter().filter(|path| is_task(path)).map(|path| path.display().to_string()).collect();
        if let Some(state) = state(&self.store().join("platform")).filter(|state| state["power"] != "off") {
            left.push(format!("the platform is {}", state["power"]));
        }
        let inventory = fs::read(self.store().join("vmtask-standin-inventory.json")).unwrap_or_else(|_| b"[]".to_vec());
        let inventory: Vec<String> = serde_json::from_slice(&inventory).expect("the inventory");
        left.extend(inventory.into_iter().filter(|name| *name != self.platform()));
        left
    }
}

/// The stand-in's file: Cargo puts it beside the tests, or one directory up.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn library() -> PathBuf {
    let name = if cfg!(windows) {
        "vixAllProducts.dll"
    } else if cfg!(target_os = "macos") {
        "libvixAllProducts.dylib"
    } else {
        "libvixAllProducts.so"
    };
    let me = std::env::current_exe().expect("know this program's own path");
    let beside = me.parent().expect("a directory").to_owned();
    // One that lies beside `deps` may be of an earlier build.
    let found = [beside.join("deps").join(name), beside.join(name), beside.join("..").join(name)];
    let found = found.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not near {}", beside.display()))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

fn is_task(machine: &Path) -> bool {
    machine.is_dir() && machine.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmtask-"))
}

/// What the stand-in keeps of a virtual machine.
fn state(machine: &Path) -> Option<Value> {
    let text = fs::read(machine.join("vmtask-standin").join("state.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// All regular files below a directory.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let below = entries(dir).into_iter().flat_map(|path| match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => files_below(&path),
        Ok(meta) if meta.is_file() => vec![path],
        _ => Vec::new(),
    });
    below.collect()
}

/// VIX on the stand-in.
#[derive(Clone, Debug)]
pub struct Vix {
    /// Where.
    pub place: Place,
    /// On what.
    pub guest: Guest,
}

impl Vix {
    /// For a process whose environment is [`Place::environment`].
    ///
    /// # Panics
    /// If the platform's virtual machine cannot be made.
    #[must_use]
    pub fn new(place: Place, guest: Guest) -> Self {
        place.make_platform(guest, &image(guest));
        Self { place, guest }
    }

    fn program(&self, act: Act, dir: &Path) -> (PathBuf, Vec<String>) {
        match self.guest {
            Guest::World => {
                let path = dir.join("world-program");
                fs::write(&path, world_program(act)).expect("write the program");
                (path, Vec::new())
            }
            #[cfg(target_os = "linux")]
            Guest::Root | Guest::Qemu => super::qemu::program(act),
            #[cfg(not(target_os = "linux"))]
            Guest::Root | Guest::Qemu => panic!("{:?} guests need Linux", self.guest),
        }
    }
}

/// How long a step of the computation takes.
const STEP_MS: u32 = 20;

/// A program in the language of worlds.
fn world_program(act: Act) -> String {
    let body = match act {
        Act::Compute(steps) => format!("compute input {steps} {STEP_MS} result steps\n"),
        Act::Exit(code) => format!("exit {code}\n"),
        Act::Signal(signal) => format!("signal {signal}\n"),
        Act::ForgetOutput | Act::Missing | Act::NotExecutable => "exit 0\n".to_owned(),
        Act::Reboot => "reboot\n".to_owned(),
        Act::PowerOff => "poweroff\n".to_owned(),
        Act::Hang => "hang\n".to_owned(),
    };
    format!("#!vmtask-world\n{body}")
}

/// What the computation comes to: as `guest/counter.c` makes it, which a world's `compute` is to agree with.
#[must_use]
pub fn result(steps: u32, input: &[u8]) -> Vec<u8> {
    let mut text = format!("steps {steps}\ninput {} bytes\n", input.len());
    let mut state = 0_u64;
    for step in 0..=steps {
        if step % (1 + steps / 64) == 0 {
            text.push_str(&format!("{step} {state:016x}\n"));
        }
        if step < steps {
            let at = state ^ u64::from(step);
            let byte = (input.len() as u64 > 0).then(|| input[(at % input.len() as u64) as usize]);
            state = mix(mix(state, step.into()), byte.map_or(256, u64::from));
        }
    }
    text.push_str(&format!("result {state:016x}\n"));
    text.into_bytes()
}

const fn mix(state: u64, with: u64) -> u64 {
    let salted = with.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(state << 6).wrapping_add(state >> 2);
    let mut state = state ^ salted;
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// What a guest's configuration needs besides.
fn image(guest: Guest) -> String {
    match guest {
        Guest::World | Guest::Root => String::new(),
        #[cfg(target_os = "linux")]
        Guest::Qemu => {
            let platform = crate::real::shared_data().join("alt_platforms").join(crate::real::PLATFORM);
            format!("vmtask.platform = \"{}\"\n", platform.display())
        }
        #[cfg(not(target_os = "linux"))]
        Guest::Qemu => panic!("QEMU guests need Linux"),
    }
}

impl Subject for Vix {
    fn task(&self, act: Act, input: &[u8], dir: &Path) -> TaskSpec {
        let input_path = dir.join("input");
        fs::write(&input_path, input).expect("write the input");
        let (program, args) = self.program(act, dir);
        let file = |host: &Path, guest: &str, executable| FileIn {
            host: host.to_string_lossy().into_owned(),
            guest: guest.into(),
            executable,
        };
        let outputs: &[&str] = match act {
            Act::Compute(_) => &["result", "steps", "stdout.txt"],
            Act::ForgetOutput => &["result", "stdout.txt"],
            _ => &["stdout.txt"],
        };
        let output = |&name: &&str| FileOut { guest: name.into(), host: name.into(), optional: false };
        TaskDraft {
            name: "story".into(),
            platform: "x86_64-pc-linux-gnu".into(),
            program: ProgramSpec {
                path: if act == Act::Missing { "nowhere".into() } else { "program".into() },
                args,
                env: std::collections::BTreeMap::new(),
                stdout: "stdout.txt".into(),
                stderr: "stderr.txt".into(),
                progress: None,
            },
            files_in: vec![file(&program, "program", act != Act::NotExecutable), file(&input_path, "input", false)],
            files_out: outputs.iter().map(output).collect(),
            checkpoint: None,
            limits: Limits::default(),
        }
        .check()
        .expect("the story\'s task is in order")
    }

    fn expected(&self, steps: u32, input: &[u8], dir: &Path) -> Vec<u8> {
        match self.guest {
            Guest::World => result(steps, input),
            #[cfg(target_os = "linux")]
            Guest::Root | Guest::Qemu => super::qemu::run_by_itself(steps, dir),
            #[cfg(not(target_os = "linux"))]
            Guest::Root | Guest::Qemu => panic!("{:?} guests need Linux: {}", self.guest, dir.display()),
        }
    }

    fn adapter(&self, spec: &TaskSpec, dir: &Path) -> Arc<dyn Hypervisor> {
        let product = self.place.product();
        let account = || Credentials { user: USER.into(), password: Secret::from_value(PASSWORD.into()) };
        let mut connection = Connection::local(product);
        if product.has_inventory() {
            connection.host = Some("https://localhost:8333/sdk".into());
            connection.credentials = Some(account());
        }
        let setup = Setup {
            spec: spec.clone(),
            library: Library::find(Some(&library())).expect("the stand-in"),
            connection,
            vm: self.place.platform(),
            datastore: product.has_inventory().then(|| self.place.store()),
            guest: account(),
            guest_dir: Setup::GUEST_DIR.into(),
            dir: dir.to_owned(),
            inputs: PathBuf::new(),
            results: dir.join("results"),
        };
        Arc::new(VixVm::new(setup).expect("an adapter"))
    }

    fn machines(&self, dir: &Path) -> usize {
        let machines = self.place.machines(dir);
        let is_there = |machine: &&PathBuf| {
            let power = state(machine).unwrap_or_default()["power"].clone();
            if power == "suspended" {
                // Where a product cannot pause, it is held by that. Without a note of it, it is as good as off.
                return dir.join("vm").join("notes").join("held").exists();
            }
            match self.guest {
                // Nothing of it runs anywhere: it is on if its files say so.
                Guest::World => power != "off" && power.is_string() && is_on(machine),
                Guest::Root | Guest::Qemu => has_processes(machine),
            }
        };
        machines.iter().filter(is_there).count()
    }

    fn kill(&self, dir: &Path) {
        self.place.machines(dir).iter().for_each(|machine| match self.guest {
            Guest::World => end_world(&world(machine)),
            Guest::Root | Guest::Qemu => signal(machine, Blow::Kill),
        });
    }

    fn freeze(&self, dir: &Path) {
        self.place.machines(dir).iter().for_each(|machine| match self.guest {
            Guest::World => fs::write(world(machine).join("frozen"), "").expect("freeze a world"),
            Guest::Root | Guest::Qemu => signal(machine, Blow::Stop),
        });
    }

    fn damage(&self, dir: &Path, generation: u32) {
        let copy = dir.join("vm").join("checkpoints").join(generation.to_string());
        if copy.is_dir() {
            return flip_a_bit(&copy);
        }
        // A product's own snapshot: that it is damaged is the product's to notice.
        let name = format!("vmtask-{generation}");
        for machine in self.place.machines(dir) {
            let state = state(&machine).expect("its state");
            let snapshots = state["snapshots"].as_array().cloned().unwrap_or_default();
            for snapshot in snapshots.iter().filter(|snapshot| snapshot["name"] == name.as_str()) {
                let kept = machine.join("vmtask-standin").join("snapshots").join(snapshot["id"].to_string());
                cut_short(&kept);
            }
        }
    }

    fn remains(&self, dir: &Path) -> Vec<String> {
        let in_task = files_below(&dir.join("vm")).into_iter().map(|path| path.display().to_string());
        in_task.chain(self.place.leftovers()).collect()
    }

    fn clock_is_late(&self) -> Option<u16> {
        match self.guest {
            // They have the host's clock.
            Guest::World | Guest::Root => Some(0),
            // A program has to be started in the guest to set its clock, sometimes Tools and a login come first.
            Guest::Qemu => None,
        }
    }

    fn steps(&self, dir: &Path) -> Option<Vec<i64>> {
        let log = fs::read_to_string(dir.join("results").join("steps")).ok()?;
        Some(log.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect())
    }
}

/// Whether a world's own file says that it is on: it may have powered itself off without anybody having noticed.
fn is_on(machine: &Path) -> bool {
    let text = fs::read(world(machine).join("world.json")).unwrap_or_default();
    let world: Value = serde_json::from_slice(&text).unwrap_or_default();
    world["power"].is_string() && world["power"] != "off"
}

fn world(machine: &Path) -> PathBuf {
    machine.join("vmtask-standin").join("guest")
}

/// Not between a look at it and what came of that.
fn end_world(world: &Path) {
    let lock = fs::File::options().create(true).truncate(false).write(true).open(world.join("world.lock"));
    let lock = lock.expect("open a world's lock");
    lock.lock().expect("lock a world");
    fs::remove_file(world.join("world.json")).expect("end a world");
}

/// The largest file, where its state is.
fn largest(dir: &Path) -> PathBuf {
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    files_below(dir).into_iter().max_by_key(size).expect("a checkpoint has files")
}

fn flip_a_bit(dir: &Path) {
    let path = largest(dir);
    let mut content = fs::read(&path).expect("read a checkpoint");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, content).expect("damage a checkpoint");
}

fn cut_short(dir: &Path) {
    let world = dir.join("world.json");
    let path = if world.is_file() { world } else { largest(dir) };
    let length = fs::metadata(&path).expect("a snapshot's state").len();
    let file = fs::File::options().write(true).open(&path).expect("open a snapshot's state");
    file.set_len(length / 2).expect("damage a snapshot");
}

enum Blow {
    Kill,
    Stop,
}

#[cfg(target_os = "linux")]
fn signal(machine: &Path, blow: Blow) {
    use rustix::process::Signal;
    let signal = match blow {
        Blow::Kill => Signal::KILL,
        Blow::Stop => Signal::STOP,
    };
    crate::procs::of_machine(machine).iter().for_each(|process| process.signal(signal));
}

#[cfg(not(target_os = "linux"))]
fn signal(machine: &Path, _: Blow) {
    panic!("{} has no processes here", machine.display());
}

#[cfg(target_os = "linux")]
fn has_processes(machine: &Path) -> bool {
    !crate::procs::of_machine(machine).is_empty()
}

#[cfg(not(target_os = "linux"))]
fn has_processes(_: &Path) -> bool {
    false
}
