//! QEMU's command line, and nothing else: what a guest sees of its machine is decided here and by the platform.
//!
//! Saved states are loaded into machines that were described by the same line, so its order is part of their format:
//! raise [`LAYOUT`] whenever a device changes.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::host::Accel;
use crate::image::Image;
use crate::sockets::Channel;

/// Names the set of devices below. Templates and checkpoints of another layout are not loaded.
pub const LAYOUT: u32 = 1;

/// Where the guest's memory comes from.
#[derive(Clone, Copy, Debug)]
pub enum Memory {
    /// Its own.
    Anonymous,
    /// An inherited descriptor, mapped shared: what the guest writes is what the descriptor holds.
    Shared(RawFd),
    /// An inherited descriptor, mapped private: a copy is made of each page that is written.
    Private(RawFd),
}

/// How the machine comes to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It boots.
    Boot,
    /// It waits for a saved state.
    Incoming,
}

/// One layer of a disk, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name within QEMU.
    pub node: String,
    /// Its file, qcow2.
    pub file: PathBuf,
}

/// Where QEMU waits for connections to its [`Channel`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Listening sockets that it inherits, in the order of [`Channel::ALL`].
    Inherited([RawFd; 4]),
    /// It makes them, by the channels' names in the directory that it is started in. So they may be found by whoever
    /// finds the directory, and by the next one, too.
    Named,
}

/// All that varies.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The bootable image and its machine.
    pub image: &'a Image,
    /// A kernel in place of the image's, for machines that never boot.
    pub kernel: Option<PathBuf>,
    /// What executes the guest's instructions.
    pub accel: Accel,
    /// The guest's memory.
    pub bytes: u64,
    /// The guest's processors.
    pub cpus: u8,
    /// Where its memory comes from.
    pub memory: Memory,
    /// How it comes to life.
    pub start: Start,
    /// The disk's layers, lowest first; none for a task without a disk. The last is written to.
    pub disk: Vec<Layer>,
    /// Where it is reached.
    pub sockets: Listen,
}

/// Arguments in the making.
#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    /// An option whose whole value is a file's path, which QEMU does not take apart at commas.
    fn file(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }
}

impl Line<'_> {
    /// The arguments. Paths are whole, whatever bytes they consist of, but for those of the disk's layers: QEMU knows these
    /// as JSON, so they must be UTF-8.
    #[must_use]
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Args::default();
        args.add(&["-nodefaults", "-no-user-config", "-display", "none"]);
        args.add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        // A guest that resets has lost its program: QEMU ends, and says why.
        args.add(&["-no-reboot", "-rtc", "base=utc"]);
        args.add(&["-machine", &format!("{},memory-backend=m0", self.image.machine)]);
        args.add(&["-accel", self.accel.name(), "-cpu", &self.image.cpu]);
        args.add(&["-m", &format!("{}k", self.bytes / 1024), "-smp", &self.cpus.to_string()]);
        let size = self.bytes;
        let memory = match self.memory {
            Memory::Anonymous => json!({ "qom-type": "memory-backend-ram", "id": "m0", "size": size }),
            Memory::Shared(fd) | Memory::Private(fd) => json!({
                "qom-type": "memory-backend-file", "id": "m0", "size": size,
                "mem-path": format!("/proc/self/fd/{fd}"),
                "share": matches!(self.memory, Memory::Shared(_)),
            }),
        };
        args.add(&["-object", &memory.to_string()]);
        match &self.kernel {
            Some(kernel) => args.file("-kernel", kernel),
            None => {
                args.file("-kernel", &self.image.kernel);
                args.file("-initrd", &self.image.initrd);
                args.add(&["-append", &self.image.cmdline]);
            }
        }
        if self.start == Start::Incoming {
            args.add(&["-incoming", "defer"]);
        }
        // Whatever starts, starts when we say so.
        args.add(&["-S"]);
        self.channels(&mut args);
        self.disk(&mut args);
        args.0
    }

    fn channels(&self, args: &mut Args) {
        // A ring in QEMU's memory: a program may flood the console, and only its end is of use to anybody.
        args.add(&["-chardev", "ringbuf,id=console,size=65536", "-serial", "chardev:console"]);
        args.add(&["-device", "virtio-serial-pci,id=vs0,max_ports=4,addr=0x3"]);
        for (index, channel) in Channel::ALL.into_iter().enumerate() {
            let (id, port) = match channel {
                Channel::Qmp => ("qmp", None),
                Channel::Agent => ("agent", Some((1, "org.qemu.guest_agent.0"))),
                Channel::Files => ("files", Some((2, "org.vmtask.files.0"))),
                Channel::Events => ("events", Some((3, "org.vmtask.events.0"))),
            };
            let place = match self.sockets {
                Listen::Inherited(fds) => format!("fd={}", fds[index]),
                Listen::Named => format!("path={}", channel.name()),
            };
            args.add(&["-chardev", &format!("socket,id={id},{place},server=on,wait=off")]);
            match port {
                None => args.add(&["-mon", "chardev=qmp,mode=control"]),
                Some((number, name)) => {
                    args.add(&["-device", &format!("virtserialport,bus=vs0.0,nr={number},chardev={id},name={name}")])
                }
            }
        }
    }

    fn disk(&self, args: &mut Args) {
        let mut below: Option<&str> = None;
        for (index, layer) in self.disk.iter().enumerate() {
            let node = json!({
                "driver": "qcow2",
                "node-name": layer.node,
                "read-only": index + 1 < self.disk.len(),
                "backing": below,
                "file": { "driver": "file", "filename": layer.file.to_string_lossy() },
            });
            args.add(&["-blockdev", &node.to_string()]);
            below = Some(&layer.node);
        }
        if let Some(top) = below {
            args.add(&["-device", &format!("virtio-blk-pci,id=disk,drive={top},addr=0x4")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn image() -> Image {
        Image {
            kernel: "/p/vmlinux".into(),
            initrd: "/p/root,1.cpio".into(),
            cmdline: "console=ttyS0 quiet".into(),
            machine: "pc-q35-7.2,hpet=off".into(),
            cpu: "Nehalem,enforce".into(),
            memory: 256 << 20,
            linux32: false,
            fingerprint: "f".into(),
        }
    }

    #[test]
    fn a_cold_boot() {
        let image = image();
        let line = Line {
            image: &image,
            kernel: None,
            accel: Accel::Tcg,
            bytes: 256 << 20,
            cpus: 1,
            memory: Memory::Anonymous,
            start: Start::Boot,
            disk: Vec::new(),
            sockets: Listen::Inherited([10, 11, 12, 13]),
        };
        insta::assert_snapshot!(line.args().join(OsStr::new("\n")).to_str().unwrap_or_default());
    }

    #[test]
    fn a_warm_clone_with_a_disk() {
        let image = image();
        let layer = |node: &str| Layer { node: node.into(), file: format!("/t/a,b \"c\"/{node}.qcow2").into() };
        let line = Line {
            image: &image,
            kernel: Some("/cache/stub".into()),
            accel: Accel::Kvm,
            bytes: 512 << 20,
            cpus: 2,
            memory: Memory::Private(9),
            start: Start::Incoming,
            disk: vec![layer("base"), layer("d1")],
            sockets: Listen::Inherited([10, 11, 12, 13]),
        };
        insta::assert_snapshot!(line.args().join(OsStr::new("\n")).to_str().unwrap_or_default());
    }

    #[test]
    fn paths_of_any_bytes_are_whole() {
        use std::os::unix::ffi::OsStringExt;
        let kernel = OsString::from_vec(b"/caf\xe9/a,b\n c".to_vec());
        let image = Image { kernel: kernel.clone().into(), initrd: kernel.clone().into(), ..image() };
        let line = Line {
            image: &image,
            kernel: None,
            accel: Accel::Tcg,
            bytes: 256 << 20,
            cpus: 1,
            memory: Memory::Anonymous,
            start: Start::Boot,
            disk: Vec::new(),
            sockets: Listen::Inherited([10, 11, 12, 13]),
        };
        assert_eq!(line.args().iter().filter(|arg| **arg == kernel).count(), 2);
        assert!(Line { kernel: Some(kernel.clone().into()), ..line }.args().contains(&kernel));
    }
}
