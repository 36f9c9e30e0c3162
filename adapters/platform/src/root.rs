//! The guest's root file system: which files of which package it takes, what is put beside them, and the archive.
//!
//! The archive is an initramfs: cpio in its "newc" form, uncompressed (the guest would spend seconds on unpacking under
//! software emulation; an exported platform is compressed as a whole). Sorted, without times and owners, it is the same
//! bytes wherever it is made.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::deb::Item;
use crate::error::PlatformError;

/// Files to take from a package: everything that starts with `prefix` (whatever version a library's name ends in).
struct Take {
    package: &'static str,
    architecture: &'static str,
    prefix: &'static str,
}

const fn take(package: &'static str, architecture: &'static str, prefix: &'static str) -> Take {
    Take { package, architecture, prefix }
}

/// What programs link to in one width. `lib` is a macro parameter so that the prefixes stay constants.
macro_rules! runtime {
    ($architecture:literal, $lib:literal) => {
        [
            take("libc6", $architecture, concat!($lib, "ld-linux")),
            take("libc6", $architecture, concat!($lib, "libc.so.6")),
            take("libc6", $architecture, concat!($lib, "libm.so.6")),
            take("libc6", $architecture, concat!($lib, "libdl.so.2")),
            take("libc6", $architecture, concat!($lib, "libpthread.so.0")),
            take("libc6", $architecture, concat!($lib, "librt.so.1")),
            take("libc6", $architecture, concat!($lib, "libresolv.so.2")),
            take("libc6", $architecture, concat!($lib, "libutil.so.1")),
            take("libc6", $architecture, concat!($lib, "libanl.so.1")),
            take("libc6", $architecture, concat!($lib, "libnss_files.so.2")),
            take("libstdc++6", $architecture, concat!($lib, "libstdc++.so.6")),
            take("libgcc-s1", $architecture, concat!($lib, "libgcc_s.so.1")),
        ]
    };
}

const RUNTIMES: [[Take; 12]; 2] =
    [runtime!("amd64", "usr/lib/x86_64-linux-gnu/"), runtime!("i386", "usr/lib/i386-linux-gnu/")];

/// The vector functions that gcc calls under -ffast-math, the shell, and the guest agent with what it links to.
const OTHERS: [Take; 9] = [
    take("libc6", "amd64", "usr/lib/x86_64-linux-gnu/libmvec.so.1"),
    take("busybox-static", "amd64", "usr/bin/busybox"),
    take("qemu-guest-agent", "amd64", "usr/sbin/qemu-ga"),
    take("libglib2.0-0", "amd64", "usr/lib/x86_64-linux-gnu/libglib-2.0.so.0"),
    take("libglib2.0-0", "amd64", "usr/lib/x86_64-linux-gnu/libgmodule-2.0.so.0"),
    take("libnuma1", "amd64", "usr/lib/x86_64-linux-gnu/libnuma.so.1"),
    take("libudev1", "amd64", "usr/lib/x86_64-linux-gnu/libudev.so.1"),
    take("liburing2", "amd64", "usr/lib/x86_64-linux-gnu/liburing.so.2"),
    take("libpcre2-8-0", "amd64", "usr/lib/x86_64-linux-gnu/libpcre2-8.so.0"),
];

/// The kernel modules that `guest/init` loads, below `kernel/drivers` in the kernel's package.
pub(crate) const MODULES: [&str; 7] = [
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci",
    "char/virtio_console",
    "block/virtio_blk",
];

/// The kernel's package has its version in its name: the newest one is found through the package that depends on it.
pub(crate) const KERNEL_META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Whether a locked package is the kernel's.
pub(crate) fn is_kernel_package(name: &str) -> bool {
    name.starts_with("linux-image-")
}

/// The packages that a root is made from besides the kernel, with their architectures.
pub(crate) fn packages() -> Vec<(&'static str, &'static str)> {
    let mut packages: Vec<_> = takes().map(|take| (take.package, take.architecture)).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// What is taken from one package, for making one in a test.
#[cfg(test)]
pub(crate) fn prefixes(package: &str, architecture: &str) -> impl Iterator<Item = &'static str> {
    takes().filter(move |take| take.package == package && take.architecture == architecture).map(|take| take.prefix)
}

fn takes() -> impl Iterator<Item = &'static Take> {
    RUNTIMES.iter().flatten().chain(&OTHERS)
}

/// Whether a path in a package is one that the platform takes.
pub(crate) fn wanted(package: &str, architecture: &str, path: &str) -> bool {
    if is_kernel_package(package) {
        return path.starts_with("boot/vmlinuz-") || module_of(path).is_some();
    }
    takes().any(|take| take.package == package && take.architecture == architecture && path.starts_with(take.prefix))
}

fn module_of(path: &str) -> Option<&'static str> {
    let (_, path) = path.split_once("/kernel/drivers/")?;
    MODULES.iter().copied().find(|module| path.strip_prefix(module) == Some(".ko"))
}

/// Something in the root.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir(u32),
    File(u32, Vec<u8>),
    Link(String),
    /// The console's device node: the kernel opens it for PID 1 before there is a devtmpfs, and no one unprivileged could
    /// make one in a directory.
    Console,
}

/// A root in the making.
#[derive(Debug, Default)]
pub(crate) struct Root {
    nodes: BTreeMap<String, Node>,
    kernel: Option<Vec<u8>>,
}

impl Root {
    /// Adds what was read from a package.
    pub(crate) fn add_package(
        &mut self,
        name: &str,
        architecture: &str,
        items: BTreeMap<String, Item>,
    ) -> Result<(), PlatformError> {
        let bad = |cause: String| PlatformError::BadPackage { package: name.to_owned(), cause };
        if is_kernel_package(name) {
            return self.add_kernel(items).map_err(bad);
        }
        for take in takes().filter(|take| take.package == name && take.architecture == architecture) {
            let found = items.iter().any(|(path, item)| path.starts_with(take.prefix) && matches!(item, Item::File(_)));
            if !found {
                return Err(bad(format!("no file {}* in it", take.prefix)));
            }
        }
        for (path, item) in items {
            match item {
                Item::File(bytes) => self.nodes.insert(path, Node::File(0o755, bytes)),
                Item::Link(target) => self.nodes.insert(path, Node::Link(target)),
            };
        }
        Ok(())
    }

    fn add_kernel(&mut self, items: BTreeMap<String, Item>) -> Result<(), String> {
        let mut modules = 0;
        for (path, item) in items {
            let Item::File(bytes) = item else { continue };
            if let Some(module) = module_of(&path) {
                let name = module.rsplit('/').next().unwrap_or(module);
                self.nodes.insert(format!("usr/lib/modules/{name}.ko"), Node::File(0o644, bytes));
                modules += 1;
            } else {
                self.kernel = Some(crate::kernel::vmlinux(&bytes).map_err(|cause| format!("{path}: {cause}"))?);
            }
        }
        if modules == MODULES.len() { Ok(()) } else { Err(format!("{modules} of {} modules in it", MODULES.len())) }
    }

    /// The kernel and the root's archive.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Vec<u8>), PlatformError> {
        let bad = |package: &str, cause: &str| PlatformError::BadPackage {
            package: package.to_owned(),
            cause: cause.to_owned(),
        };
        let kernel = self.kernel.take().ok_or_else(|| bad("linux-image", "no kernel in it"))?;
        self.add_own_files();
        self.add_applets().map_err(|cause| bad("busybox-static", cause))?;
        let archive = self.archive().map_err(|error| bad("root", &error.to_string()))?;
        Ok((kernel, archive))
    }

    fn add_own_files(&mut self) {
        for dir in DIRS {
            self.nodes.insert(dir.to_owned(), Node::Dir(if dir == "tmp" { 0o1777 } else { 0o755 }));
        }
        for (path, target) in LINKS {
            self.nodes.insert(path.to_owned(), Node::Link(target.to_owned()));
        }
        for (path, mode, text) in FILES {
            self.nodes.insert(path.to_owned(), Node::File(mode, text.as_bytes().to_vec()));
        }
        self.nodes.insert("dev/console".to_owned(), Node::Console);
    }

    /// A link to busybox for each of its applets. The list is read from the binary itself, where it stands as one string
    /// with NULs between the names: running it would need a host of its kind.
    fn add_applets(&mut self) -> Result<(), &'static str> {
        const LIST_START: &[u8] = b"\0[\0[[\0";
        let Some(Node::File(_, busybox)) = self.nodes.get("usr/bin/busybox") else {
            return Err("no busybox in it");
        };
        let start = busybox.windows(LIST_START.len()).position(|window| window == LIST_START);
        let names: Vec<String> = start
            .map(|start| &busybox[start + 1..])
            .unwrap_or_default()
            .split(|byte| *byte == 0)
            .map_while(|name| std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned))
            .collect();
        if !["sh", "mount", "insmod", "sha256sum", "time"].iter().all(|needed| names.iter().any(|name| name == needed))
        {
            return Err("its list of applets was not found in it");
        }
        for name in names.iter().filter(|name| !NOT_APPLETS.contains(&name.as_str())) {
            self.nodes.entry(format!("usr/bin/{name}")).or_insert_with(|| Node::Link("busybox".to_owned()));
        }
        Ok(())
    }

    fn archive(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        // Sorted, a directory comes before what is in it.
        for (index, (path, node)) in self.nodes.iter().enumerate() {
            let number = u32::try_from(index + 1).map_err(io::Error::other)?;
            let entry = cpio::NewcBuilder::new(path).ino(number).nlink(1).mtime(0).uid(0).gid(0);
            let (entry, bytes) = match node {
                Node::Dir(mode) => (entry.mode(0o040_000 | mode), &[] as &[u8]),
                Node::File(mode, bytes) => (entry.mode(0o100_000 | mode), bytes.as_slice()),
                Node::Link(target) => (entry.mode(0o120_777), target.as_bytes()),
                Node::Console => (entry.mode(0o020_600).rdev_major(5).rdev_minor(1), &[] as &[u8]),
            };
            let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let mut writer = entry.write(&mut out, size);
            writer.write_all(bytes)?;
            writer.finish()?;
        }
        cpio::newc::trailer(&mut out)?;
        Ok(out)
    }
}

const DIRS: [&str; 18] = [
    "dev",
    "etc",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/i386-linux-gnu",
    "usr/lib/modules",
    "usr/lib/vmtask",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "usr/sbin",
    "var",
    "work",
];

const LINKS: [(&str, &str); 11] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("var/run", "../run"),
    ("var/tmp", "../tmp"),
    // Where programs look for their loader.
    ("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    ("usr/lib/ld-linux.so.2", "i386-linux-gnu/ld-linux.so.2"),
    ("usr/sbin/poweroff", "shutdown"),
    ("usr/sbin/halt", "shutdown"),
    ("usr/sbin/reboot", "shutdown"),
];

const FILES: [(&str, u32, &str); 8] = [
    ("init", 0o755, include_str!("../guest/init")),
    ("usr/lib/vmtask/guest", 0o755, include_str!("../guest/guest")),
    ("usr/sbin/shutdown", 0o755, include_str!("../guest/shutdown")),
    ("usr/sbin/hwclock", 0o755, include_str!("../guest/hwclock")),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost vmtask\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n"),
];

/// In busybox's list, and not to be called by that name here: itself, its own PID 1, and what we have scripts for.
const NOT_APPLETS: [&str; 7] = ["busybox", "init", "linuxrc", "hwclock", "poweroff", "halt", "reboot"];

#[cfg(test)]
mod tests;
