//! Synthetic packages, tiny and complete: what a lock names, so that everything but the network is tested in milliseconds.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::deb::tests::make_deb;
use crate::hash::sha256_hex;
use crate::kernel::tests::make_bz_image;
use crate::lock::{Lock, LockedPackage};
use crate::{BuildOptions, Platform, build, root};

/// A directory with packages, and a store beside it.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) lock: Lock,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_kernel(b"\x7fELF kernel")
    }

    pub(crate) fn with_kernel(kernel: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("debs")).unwrap();
        let mut fixture =
            Self { dir, lock: Lock { version: 1, distribution: "synthetic".to_owned(), packages: Vec::new() } };
        let image = make_bz_image(kernel);
        let mut files = vec![("boot/vmlinuz-6.1".to_owned(), image)];
        files.extend(
            root::MODULES.map(|module| (format!("lib/modules/6.1/kernel/drivers/{module}.ko"), b"ko".to_vec())),
        );
        files.push(("usr/share/doc/no".to_owned(), b"not taken".to_vec()));
        fixture.add("linux-image-6.1-test", "amd64", &files);
        for (name, architecture) in root::packages() {
            let files: Vec<_> = root::prefixes(name, architecture).map(|prefix| content(name, prefix)).collect();
            fixture.add(name, architecture, &files);
        }
        fixture
    }

    fn add(&mut self, name: &str, architecture: &str, files: &[(String, Vec<u8>)]) {
        let entries: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        self.put(name, architecture, &make_deb(&entries));
    }

    fn put(&mut self, name: &str, architecture: &str, deb: &[u8]) {
        let file = format!("{name}_1.0_{architecture}.deb");
        fs::write(self.debs().join(&file), deb).unwrap();
        self.lock.packages.retain(|package| package.name != name || package.architecture != architecture);
        self.lock.packages.push(LockedPackage {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            version: "1.0".to_owned(),
            pool: format!("debs/{file}"),
            size: deb.len() as u64,
            sha256: sha256_hex(deb),
        });
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn debs(&self) -> PathBuf {
        self.dir.path().join("debs")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("alt_platforms")
    }

    /// From the directory of packages.
    pub(crate) fn options(&self) -> BuildOptions {
        BuildOptions {
            lock: self.lock.clone(),
            debs: Some(self.debs()),
            cache: self.dir.path().join("cache"),
            mirrors: Vec::new(),
        }
    }

    pub(crate) fn build(&self, name: &str) -> Platform {
        build(name, &self.store(), &self.options(), &mut |_| {}).unwrap()
    }
}

fn content(package: &str, prefix: &str) -> (String, Vec<u8>) {
    let bytes = match package {
        "busybox-static" => b"code\0[\0[[\0sh\0mount\0insmod\0sha256sum\0time\0reboot\0\0more".to_vec(),
        _ => format!("{package} {prefix}").into_bytes(),
    };
    (prefix.to_owned(), bytes)
}
