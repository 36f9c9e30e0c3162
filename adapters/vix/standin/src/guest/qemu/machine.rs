//! The machine: a QEMU of its own that outlives its client, and is found again by the directory that it works in.
//!
//! ```text
//!   VM's directory/run/   the QEMU's working directory, with its sockets: qmp, agent, files, events
//!                  disk.qcow2
//!                  memory the state of a suspended machine, written once and never changed, so that it can be linked
//!                  kept.json   what it is the state of
//! ```

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmtask_platform::Platform;
use vmtask_qemu::Image;
use vmtask_qemu::cmdline::{LAYOUT, Layer, Line, Listen, Memory, Start};
use vmtask_qemu::host::{Choice, Qemu};
use vmtask_qemu::process::{ProcessName, spawn_detached};
use vmtask_qemu::qmp::{Qmp, QmpError};
use vmtask_qemu::sockets::{Channel, Sockets};
use vmtask_qemu::wait::Wait;
use vmtask_vix_abi::error_code;

use crate::failure::Failure;
use crate::guest::host::{self, Tie};
use crate::guest::{Home, Result};
use crate::store::Lock;

/// How long QEMU may take for anything that is no transfer of memory, on a computer that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// And for that.
const TRANSFER: Duration = Duration::from_secs(600);
/// Whose name a `.vmx` file need not say.
const PLATFORM: &str = "x86_64-pc-linux-gnu";

/// See the module.
pub(super) struct Machine {
    home: Home,
    run: PathBuf,
}

/// The disk's file.
pub(super) const DISK: &str = "disk.qcow2";

/// What a state in a file belongs to: it is loaded only into the same machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// QEMU's build, in its own words.
    build: String,
    /// The platform's, with the machine's size.
    fingerprint: String,
    layout: u32,
    /// Whether it has a disk.
    disk: bool,
}

/// A machine that may be started.
struct Model {
    qemu: Qemu,
    image: Image,
    cpus: u8,
    /// In MiB; 0 for none.
    disk: u32,
}

impl Model {
    fn kept(&self) -> Kept {
        let fingerprint = self.image.fingerprint.clone();
        Kept { build: self.qemu.build.clone(), fingerprint, layout: LAYOUT, disk: self.disk > 0 }
    }
}

/// The control connection. QEMU talks to one client at a time, so it goes with a lock.
struct Control {
    qmp: Qmp,
    _lock: Lock,
}

impl Machine {
    pub(super) fn new(home: Home) -> Self {
        let run = home.dir.join("run");
        Self { home, run }
    }

    pub(super) fn memory_file(&self) -> PathBuf {
        self.home.dir.join("memory")
    }

    /// Where the control connection's lock and the agent's are.
    pub(super) fn lock_file(&self, channel: Channel) -> PathBuf {
        self.home.dir.join(format!("{}.lock", channel.name()))
    }

    pub(super) fn sockets(&self) -> Result<Sockets> {
        Sockets::of(&self.run).map_err(|e| Failure::host_io("cannot open", &self.run, &e))
    }

    /// The QEMU, if it is there.
    pub(super) fn process(&self) -> Option<ProcessName> {
        let record = self.home.dir.join("process.json");
        let known: Option<ProcessName> = crate::store::read(&record).ok().flatten();
        if let Some(process) = known.filter(|process| host::lives_in(*process, Tie::Qemu, &self.run)) {
            return Some(process);
        }
        let found = host::all_in(Tie::Qemu, &self.run).into_iter().next()?;
        // Only a shortcut: without it the next look searches again.
        let _ = crate::store::write(&record, &found);
        Some(found)
    }

    pub(super) fn end(&self) -> Result<()> {
        host::end_all_in(Tie::Qemu, &self.run)
    }

    /// The platform and the QEMU for it.
    fn model(&self) -> Result<Model> {
        let cannot = |e: &dyn std::fmt::Display| Failure::new(error_code::CANNOT_POWER_ON_VM, e.to_string());
        let platform = self.platform()?;
        let cpus = u8::try_from(self.home.vmx.number("numvcpus", 1).clamp(1, 64)).unwrap_or(1);
        let memory = self.home.vmx.number("memsize", 256).clamp(64, 1 << 20).unsigned_abs();
        let image = Image::of(&platform, memory, cpus);
        let choice = Choice::from_env().map_err(|e| cannot(&e))?;
        let qemu = Qemu::find(choice, None).map_err(|e| cannot(&e))?;
        let disk = self.home.vmx.number("vmtask.disk_mib", 256).clamp(0, 1 << 20).unsigned_abs();
        Ok(Model { qemu, image, cpus, disk })
    }

    fn platform(&self) -> Result<Platform> {
        let cannot = |e: &dyn std::fmt::Display| {
            let why = format!(
                "{e}; a guest of the kind qemu needs a platform of vmtask: name its directory in VMTASK_STANDIN_PLATFORM \
                 or in the .vmx file (vmtask.platform), or build one (vmtask platform build {PLATFORM})"
            );
            Failure::new(error_code::CANNOT_POWER_ON_VM, why)
        };
        let asked = std::env::var_os("VMTASK_STANDIN_PLATFORM").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let beside = self.home.vmx_path.parent().unwrap_or(Path::new("/"));
        let named = asked.or_else(|| self.home.vmx.get("vmtask.platform").map(|dir| beside.join(dir)));
        match named {
            Some(dir) => Platform::open(&dir).map_err(|e| cannot(&e)),
            None => {
                let data = vmtask_platform::data_dir().map_err(|e| cannot(&e))?;
                let dirs = [vmtask_platform::platforms_dir(&data)];
                vmtask_platform::find(PLATFORM, &dirs).map_err(|e| cannot(&e))
            }
        }
    }

    /// Boots.
    pub(super) fn boot(&self) -> Result<()> {
        self.end()?;
        let model = self.model()?;
        self.make_disk(&model)?;
        self.start(&model, Start::Boot)?;
        self.with_control(cont)
    }

    /// An empty disk, unless there is one.
    fn make_disk(&self, model: &Model) -> Result<()> {
        let path = self.home.dir.join(DISK);
        if model.disk == 0 || path.exists() {
            return Ok(());
        }
        let cannot = |why: String| Failure::new(error_code::CANNOT_POWER_ON_VM, format!("cannot make a disk: {why}"));
        let img = model.qemu.img.as_ref().ok_or_else(|| {
            cannot("qemu-img is not in PATH; install it (Debian: apt-get install qemu-utils), or set vmtask.disk_mib = \"0\"".into())
        })?;
        let part = path.with_extension("part");
        let mut command = Command::new(img);
        command.args(["create", "-q", "-f", "qcow2"]).arg(&part).arg(format!("{}M", model.disk));
        let done = command.stdin(Stdio::null()).output().map_err(|e| cannot(e.to_string()))?;
        if !done.status.success() {
            return Err(cannot(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
        }
        fs::rename(&part, &path).map_err(|e| Failure::host_io("cannot rename to", &path, &e))
    }

    /// Starts QEMU, and waits until it can be talked to. The machine stands still.
    fn start(&self, model: &Model, start: Start) -> Result<()> {
        let failed = |e: std::io::Error| Failure::host_io("cannot prepare", &self.run, &e);
        let _ = fs::remove_dir_all(&self.run);
        // Whoever may talk to these sockets owns the machine.
        fs::DirBuilder::new().mode(0o700).create(&self.run).map_err(failed)?;
        let line = Line {
            image: &model.image,
            kernel: None,
            accel: model.qemu.accel,
            bytes: model.image.memory,
            cpus: model.cpus,
            memory: Memory::Anonymous,
            start,
            // Found from where it works, so that a copy of the VM finds its own.
            disk: match model.disk {
                0 => Vec::new(),
                _ => vec![Layer { node: "disk0".into(), file: Path::new("..").join(DISK) }],
            },
            sockets: Listen::Named,
        };
        let log = self.home.dir.join("qemu.log");
        let stderr = File::create(&log).map_err(failed)?;
        let mut command = Command::new(&model.qemu.program);
        command.args(line.args()).current_dir(&self.run).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = spawn_detached(&mut command).map_err(failed)?;
        let wait = Wait::most(PATIENCE);
        while self.sockets()?.connect(Channel::Qmp).is_err() {
            if !matches!(child.try_wait(), Ok(None)) || wait.sleep(Duration::from_millis(2)).is_err() {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(&log).unwrap_or_default();
                let why = format!("QEMU does not start: {}", said.trim());
                return Err(Failure::new(error_code::CANNOT_POWER_ON_VM, why));
            }
        }
        host::adopt(child);
        Ok(())
    }

    fn control(&self) -> Result<Control> {
        let lock = crate::store::lock(&self.lock_file(Channel::Qmp))?;
        let stream = self.sockets()?.connect(Channel::Qmp);
        let stream = stream.map_err(|_| Failure::new(error_code::VM_NOT_RUNNING, "the guest is not running"))?;
        let qmp = Qmp::start(stream, |_, _| (), &Wait::most(PATIENCE)).map_err(|e| qmp_failed(&e))?;
        Ok(Control { qmp, _lock: lock })
    }

    fn with_control<T>(&self, act: impl FnOnce(&Qmp) -> Result<T>) -> Result<T> {
        let control = self.control()?;
        act(&control.qmp)
    }

    /// Lets them run on.
    pub(super) fn go_on(&self) -> Result<()> {
        self.with_control(cont)
    }

    /// Stops the processors, which writes everything that is on its way to the disk; whether they ran.
    pub(super) fn stand_still(&self) -> Result<bool> {
        self.with_control(|qmp| {
            let ran = call(qmp, "query-status", json!({}))?.get("running").and_then(Value::as_bool) == Some(true);
            call(qmp, "stop", json!({})).map(|_| ran)
        })
    }

    /// Writes the memory and devices of a machine that stands still to `dir`.
    pub(super) fn write_memory(&self, dir: &Path) -> Result<()> {
        let kept = self.model()?.kept();
        let part = dir.join("memory.part");
        let io = |e: std::io::Error| Failure::host_io("cannot write", &part, &e);
        let file = File::create(&part).map_err(io)?;
        let written = self.with_control(|qmp| {
            // As fast as the disk takes it: nobody shares a line here.
            call(qmp, "migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 40 }))?;
            qmp.give_fd("state", file.as_fd(), &Wait::most(PATIENCE)).map_err(|e| qmp_failed(&e))?;
            call(qmp, "migrate", json!({ "uri": "fd:state" }))?;
            finish(qmp)
        });
        written.inspect_err(|_| drop(fs::remove_file(&part)))?;
        crate::store::write(&dir.join("kept.json"), &kept)?;
        fs::rename(&part, dir.join("memory")).map_err(io)
    }

    /// Brings the machine in [`Machine::memory_file`] back, running.
    pub(super) fn load_state(&self) -> Result<()> {
        let path = self.memory_file();
        let cannot = |why: String| Failure::new(error_code::CANNOT_POWER_ON_VM, why);
        let file = File::open(&path)
            .map_err(|e| cannot(format!("there is no suspended guest to go on with: {}: {e}", path.display())))?;
        let model = self.model()?;
        let kept: Option<Kept> = crate::store::read(&self.home.dir.join("kept.json"))?;
        if kept.as_ref() != Some(&model.kept()) {
            let why = format!(
                "the guest was suspended by another QEMU, with another platform, or with another size of memory \
                 ({kept:?}) than this one ({:?}); power it off to boot it anew",
                model.kept()
            );
            return Err(cannot(why));
        }
        self.end()?;
        self.start(&model, Start::Incoming)?;
        let loaded = self.with_control(|qmp| {
            qmp.give_fd("state", file.as_fd(), &Wait::most(PATIENCE)).map_err(|e| qmp_failed(&e))?;
            call(qmp, "migrate-incoming", json!({ "uri": "fd:state" }))?;
            finish(qmp)?;
            cont(qmp)
        });
        loaded.map_err(|failure| {
            drop(self.end());
            if failure.code() != error_code::VM_NOT_RUNNING {
                return failure;
            }
            // QEMU ends over a stream that it cannot make sense of.
            let why = format!("QEMU did not take the state in {}: {}", path.display(), failure.text);
            Failure::new(error_code::SNAPSHOT_INVAL, why)
        })
    }
}

fn qmp_failed(error: &QmpError) -> Failure {
    match error {
        QmpError::Cut { .. } => Failure::new(error_code::VM_NOT_RUNNING, error.to_string()),
        _ => Failure::new(error_code::FAIL, error.to_string()),
    }
}

fn call(qmp: &Qmp, command: &'static str, arguments: Value) -> Result<Value> {
    qmp.call(command, arguments, &Wait::most(PATIENCE)).map_err(|e| qmp_failed(&e))
}

/// Waits for a transfer of memory, in either direction.
fn finish(qmp: &Qmp) -> Result<()> {
    let wait = Wait::most(TRANSFER);
    loop {
        let answer = call(qmp, "query-migrate", json!({}))?;
        let text = |key| answer.get(key).and_then(Value::as_str);
        match text("status") {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let why =
                    format!("QEMU could not transfer the memory: {}", text("error-desc").unwrap_or("no reason given"));
                return Err(Failure::new(error_code::SUSPEND_ERROR, why));
            }
            _ => wait
                .sleep(Duration::from_millis(1))
                .map_err(|_| Failure::new(error_code::SUSPEND_ERROR, "QEMU did not transfer the memory in time"))?,
        }
    }
}

fn cont(qmp: &Qmp) -> Result<()> {
    let wait = Wait::most(PATIENCE);
    loop {
        match qmp.call("cont", json!({}), &wait) {
            // A stream is said to be complete a moment before the guest may run again.
            Err(QmpError::Refused { desc, .. })
                if desc.contains("not finalized") && wait.sleep(Duration::from_millis(1)).is_ok() => {}
            other => return other.map(drop).map_err(|e| qmp_failed(&e)),
        }
    }
}
