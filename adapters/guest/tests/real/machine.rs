//! A QEMU with the platform's kernel and the agent, whose sockets are the test's: QEMU connects to them, so nothing is waited
//! for that could not be there.

use std::io::{BufRead, BufReader, Cursor, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vmtask_guest::{AGENT, Client, State};
use vmtask_platform::{BuildOptions, Lock, Platform};

const NAME: &str = "x86_64-pc-linux-gnu";

/// The kernel's modules in the order of dependence.
const MODULES: &str = "virtio_ring\nvirtio\nvirtio_pci_modern_dev\nvirtio_pci_legacy_dev\nvirtio_pci\nvirtio_console\n";

/// Answers take seconds at most; a machine that is this much slower is broken.
const PATIENCE: Duration = Duration::from_secs(300);

type Patience = fn() -> bool;

/// A guest that has booted, and is saved.
pub(crate) struct Image {
    platform: Platform,
    dir: tempfile::TempDir,
}

impl Image {
    pub(crate) fn new() -> Self {
        let image = Self { platform: platform(), dir: tempfile::tempdir().unwrap() };
        std::fs::write(image.root(), root(&image.platform)).unwrap();
        let mut guest = image.start(None);
        assert!(guest.client.make_workdir(false).unwrap() > 0);
        assert!(guest.client.settle().unwrap() > 0);
        guest.saving().1.save_to(&image.saved());
        image
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root.cpio")
    }

    fn saved(&self) -> PathBuf {
        self.dir.path().join("saved")
    }

    /// As it was saved.
    pub(crate) fn restored(&self) -> Guest {
        self.start(Some(&self.saved()))
    }

    fn start(&self, saved: Option<&Path>) -> Guest {
        let qemu = &self.platform.definition().qemu;
        let mut args: Vec<std::ffi::OsString> = Vec::new();
        args.extend(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"].map(Into::into));
        args.extend(["-machine", &qemu.machine, "-accel", "tcg", "-cpu", &qemu.cpu, "-m", "256M"].map(Into::into));
        args.extend(["-append", &qemu.command_line].map(Into::into));
        args.extend(["-kernel".into(), self.platform.kernel().into(), "-initrd".into(), self.root().into()]);
        Guest::start(args, saved)
    }
}

/// The reference platform, built by whoever comes first.
fn platform() -> Platform {
    let dir = std::env::var_os("VMTASK_TEST_DATA_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join(".platforms.lock")).unwrap();
    lock.lock().unwrap();
    let store = vmtask_platform::platforms_dir(&dir);
    vmtask_platform::find(NAME, std::slice::from_ref(&store)).unwrap_or_else(|_| {
        let cache = dir.join("cache/packages");
        let options = BuildOptions { lock: Lock::built_in().unwrap(), debs: None, cache, mirrors: Vec::new() };
        vmtask_platform::build(NAME, &store, &options, &mut |_| ()).unwrap()
    })
}

/// The platform's root, and behind it what takes the place of files in there.
fn root(platform: &Platform) -> Vec<u8> {
    let mut root = std::fs::read(platform.root()).unwrap();
    root.resize(root.len().next_multiple_of(4), 0);
    let files = [("init", 0o100_755, AGENT), ("lib/modules/order", 0o100_644, MODULES.as_bytes())];
    let entries = files.map(|(name, mode, content)| (cpio::NewcBuilder::new(name).mode(mode), Cursor::new(content)));
    root.extend(cpio::write_cpio(entries.into_iter(), Vec::new()).unwrap());
    root
}

/// QEMU's control socket.
struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Self { stream: BufReader::new(stream) };
        assert!(qmp.next().get("QMP").is_some());
        qmp.run("qmp_capabilities", json!({}));
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        qmp.run("migrate-set-capabilities", events);
        // As fast as it can.
        qmp.run("migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 40 }));
        qmp
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn run(&mut self, command: &str, arguments: Value) {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}").unwrap();
        loop {
            let answer = self.next();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if answer.get("return").is_some() {
                return;
            }
        }
    }

    /// Moves the state out or in, and waits for its end.
    fn migrate(&mut self, command: &str, uri: &str) {
        self.run(command, json!({ "uri": uri }));
        loop {
            let event = self.next();
            if event["event"] == "MIGRATION" {
                match event["data"]["status"].as_str() {
                    Some("completed") => return,
                    Some("failed") => panic!("{command} {uri} failed"),
                    _ => {}
                }
            }
        }
    }
}

/// A running guest. Dropped, it is killed as by a power loss.
pub(crate) struct Guest {
    pub(crate) client: Client<UnixStream, Patience>,
    /// What its greeting said.
    pub(crate) state: State,
    qmp: Qmp,
    qemu: Child,
    args: Vec<std::ffi::OsString>,
    dir: tempfile::TempDir,
}

impl Guest {
    fn start(args: Vec<std::ffi::OsString>, saved: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = |name| UnixListener::bind(dir.path().join(name)).unwrap();
        let (qmp, agent) = (listen("qmp"), listen("agent"));
        let mut command = Command::new("qemu-system-x86_64");
        command.args(&args).current_dir(dir.path()).stdin(Stdio::null());
        command.args([
            "-serial",
            "file:console",
            "-chardev",
            "socket,id=qmp,path=qmp",
            "-mon",
            "chardev=qmp,mode=control",
        ]);
        command.args(["-chardev", "socket,id=agent,path=agent", "-device", "virtio-serial-pci,id=vs0"]);
        command.args(["-device", "virtserialport,bus=vs0.0,nr=1,chardev=agent,name=org.vmtask.agent.0"]);
        if saved.is_some() {
            command.args(["-incoming", "defer"]);
        }
        let qemu = command.spawn().unwrap();
        // Both ends are connected before any state is loaded.
        let mut qmp = Qmp::new(qmp.accept().unwrap().0);
        let agent = agent.accept().unwrap().0;
        agent.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        if let Some(saved) = saved {
            qmp.migrate("migrate-incoming", &format!("exec:cat <'{}'", saved.display()));
        }
        qmp.run("cont", json!({}));
        let mut client = Client::new(agent, (|| true) as Patience);
        let state = client.greet(u64::from(qemu.id())).unwrap();
        Self { client, state, qmp, qemu, args, dir }
    }

    fn checkpoint(&self) -> PathBuf {
        self.dir.path().join("checkpoint")
    }

    /// The client, and the way to save the guest while that one is busy.
    pub(crate) fn saving(&mut self) -> (&mut Client<UnixStream, Patience>, Saving<'_>) {
        let to = self.checkpoint();
        (&mut self.client, Saving { qmp: &mut self.qmp, to })
    }

    /// Killed, and restored from where it was saved.
    pub(crate) fn reborn(mut self) -> Self {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
        Self::start(self.args.clone(), Some(&self.checkpoint()))
    }

    /// Whether QEMU ends by itself, and as it should.
    pub(crate) fn ended(&mut self) -> bool {
        self.qemu.wait().unwrap().success()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = std::fs::read(self.dir.path().join("console")).unwrap_or_default();
            eprintln!("console: {}", String::from_utf8_lossy(&console));
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Stops a guest where it is, and saves its state.
pub(crate) struct Saving<'a> {
    qmp: &'a mut Qmp,
    to: PathBuf,
}

impl Saving<'_> {
    pub(crate) fn save(self) {
        let to = self.to.clone();
        self.save_to(&to);
    }

    pub(crate) fn save_to(self, to: &Path) {
        self.qmp.run("stop", json!({}));
        self.qmp.migrate("migrate", &format!("exec:cat >'{}'", to.display()));
    }
}
