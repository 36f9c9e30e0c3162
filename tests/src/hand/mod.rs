//! QEMU driven by hand: what somebody would type who knows the commands, with nothing of ours in it but the platform's
//! image. The measure that our own figures are held against.

mod agent;
mod qmp;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use vmtask_platform::Platform;

pub use agent::Agent;
pub use qmp::Qmp;

use crate::wait;

/// The image and machine of a platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// `-append`
    pub cmdline: String,
    /// `-machine`
    pub machine: String,
    /// `-cpu`
    pub cpu: String,
    /// `-m`, in MiB
    pub memory_mib: u32,
}

impl Image {
    /// Of the platform with this name in a data directory.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn of(data: &Path, name: &str) -> Self {
        let dirs = [vmtask_platform::platforms_dir(data)];
        let platform: Platform = vmtask_platform::find(name, &dirs).expect("the platform");
        let definition = platform.definition();
        Self {
            kernel: platform.kernel(),
            initrd: platform.root(),
            cmdline: definition.qemu.command_line.clone(),
            machine: definition.qemu.machine.clone(),
            cpu: definition.qemu.cpu.clone(),
            memory_mib: definition.guest.memory_mib,
        }
    }
}

/// Where the guest's memory is.
#[derive(Clone, Debug)]
pub enum Memory {
    /// QEMU's own.
    Own,
    /// This file, written to.
    Shared(PathBuf),
    /// This file, copied where written to.
    Private(PathBuf),
}

/// A QEMU started by hand. It is killed when dropped.
#[derive(Debug)]
pub struct Hand {
    child: Child,
    dir: PathBuf,
}

impl Hand {
    /// Starts QEMU with its sockets in `dir`, which is made.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(image: &Image, dir: &Path, memory: &Memory, more: &[&str]) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut qemu = qemu(image);
        let qmp = dir.join("qmp");
        let mib = image.memory_mib;
        match memory {
            Memory::Own => qemu.arg("-machine").arg(&image.machine),
            Memory::Shared(file) | Memory::Private(file) => {
                let share = if matches!(memory, Memory::Shared(_)) { "on" } else { "off" };
                let object = format!("memory-backend-file,id=m0,size={mib}M,mem-path={},share={share}", file.display());
                qemu.args(["-object", &object]).arg("-machine").arg(format!("{},memory-backend=m0", image.machine))
            }
        };
        qemu.args(["-device", "virtio-serial-pci,id=vs0"]);
        // The guest's first process waits for all three.
        for (number, id, name) in [
            (1, "ga", "org.qemu.guest_agent.0"),
            (2, "files", "org.vmtask.files.0"),
            (3, "events", "org.vmtask.events.0"),
        ] {
            qemu.arg("-chardev").arg(format!("socket,id={id},path={},server=on,wait=off", dir.join(id).display()));
            qemu.arg("-device").arg(format!("virtserialport,bus=vs0.0,nr={number},chardev={id},name={name}"));
        }
        qemu.arg("-chardev").arg(format!("socket,id=qmp,path={},server=on,wait=off", qmp.display()));
        qemu.args(["-mon", "chardev=qmp,mode=control", "-serial", "null"]).args(more);
        let child = qemu.stdin(Stdio::null()).stderr(File::create(dir.join("stderr"))?).spawn()?;
        Ok(Self { child, dir: dir.to_owned() })
    }

    /// Connects to QEMU.
    ///
    /// # Errors
    /// If it does not greet.
    pub fn qmp(&self) -> io::Result<Qmp> {
        Qmp::connect(&self.dir.join("qmp"))
    }

    /// Connects to the agent, and waits until it answers.
    ///
    /// # Errors
    /// If it does not.
    pub fn agent(&self) -> io::Result<Agent> {
        Agent::connect(&self.dir.join("ga"))
    }

    /// The socket of the byte stream for files.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait(&mut self) {
        wait::until("QEMU to end", || self.child.try_wait().ok().flatten());
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What every machine has.
fn qemu(image: &Image) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg", "-smp", "1"])
        .args(["-rtc", "base=utc"])
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny"])
        .args(["-cpu", &image.cpu, "-m", &format!("{}M", image.memory_mib)])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", &image.cmdline]);
    qemu
}

/// The floor of a cold start: the same kernel boots, a script of one `echo` runs as its init, the machine powers off.
///
/// # Errors
/// If QEMU does not start, or the guest does not say what it should.
pub fn boot_echo_poweroff(image: &Image) -> io::Result<()> {
    let mut image = image.clone();
    // The same root file system with another first program: its shell says a word and powers off by itself. Without
    // proc and a console of its own there is nothing else to wait for.
    image.cmdline.push_str(" rdinit=/bin/sh -- -c \"echo floor-reached;/bin/busybox.poweroff\"");
    let mut child = qemu(&image)
        .args(["-machine", &image.machine, "-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut console = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut console)?;
    }
    child.wait()?;
    if console.contains("floor-reached") {
        Ok(())
    } else {
        Err(io::Error::other(format!("the guest said {console:?}")))
    }
}

/// A guest that was booted once and saved by hand, to be cloned.
#[derive(Debug)]
pub struct Template {
    image: Image,
    dir: PathBuf,
}

impl Template {
    /// Boots a guest and saves its memory and devices in `dir`.
    ///
    /// # Errors
    /// If that does not work.
    pub fn make(image: &Image, dir: &Path) -> io::Result<Self> {
        let run = dir.join("template");
        let ram = dir.join("ram.img");
        let hand = Hand::start(image, &run, &Memory::Shared(ram), &[])?;
        hand.agent()?.run("/usr/lib/vmtask/guest", &["workdir"])?;
        let mut qmp = hand.qmp()?;
        qmp.call("stop", json!({}))?;
        qmp.ignore_shared_memory()?;
        qmp.call("migrate", json!({ "uri": format!("exec:cat >{}", dir.join("state").display()) }))?;
        qmp.await_migration()?;
        Ok(Self { image: image.clone(), dir: dir.to_owned() })
    }

    /// A running clone.
    ///
    /// # Errors
    /// If that does not work.
    pub fn clone_guest(&self, run: &Path) -> io::Result<Hand> {
        let ram = self.dir.join("ram.img");
        let hand = Hand::start(&self.image, run, &Memory::Private(ram), &["-incoming", "defer"])?;
        let mut qmp = hand.qmp()?;
        qmp.ignore_shared_memory()?;
        qmp.call("migrate-incoming", json!({ "uri": format!("exec:cat {}", self.dir.join("state").display()) }))?;
        qmp.await_migration()?;
        qmp.call("cont", json!({}))?;
        Ok(hand)
    }
}
