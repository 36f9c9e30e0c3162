//! Building a platform from the locked packages.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use crate::definition::{
    DEFINITION_VERSION, Definition, FileEntry, Files, GUEST_PROTOCOL, Guest, Manager, Packages, Personality, Qemu, Role,
};
use crate::error::PlatformError;
use crate::fetch::{self, Sources};
use crate::hash::sha256_hex;
use crate::lock::Lock;
use crate::root::{self, Root};
use crate::staging::Staging;
use crate::store::{Platform, find};
use crate::{deb, definition};

/// The platforms that there is a recipe for. They share one image: its kernel runs programs of both widths.
pub const BUILDABLE: [&str; 2] = ["x86_64-pc-linux-gnu", "i686-pc-linux-gnu"];

/// Machine type with its version: a later QEMU offers the same machine under it.
const MACHINE: &str = "pc-q35-7.2";

/// The newest Intel model without AVX and FMA that software emulation can give in full (`enforce`: or not start at all).
/// libm takes other paths, and gives other last digits, where it finds FMA.
const CPU: &str = "Nehalem,enforce";

/// - quiet, loglevel: what matters to a task is not in the kernel's log, and a serial port is slow.
/// - panic, oops: a guest whose kernel is damaged ends at once (with -no-reboot so does QEMU) and is rolled back.
/// - norandmaps: a program that prints or sorts by addresses gives the same result everywhere.
/// - mitigations: there is one user and one task in the guest; nobody to protect from anybody.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic norandmaps mitigations=off";

const MEMORY_MIB: u32 = 256;

/// Where packages come from.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Which packages. [`Lock::built_in`] makes the platform that every user of this release has; any other lock makes
    /// another one, with another fingerprint.
    pub lock: Lock,
    /// A directory with the .deb files: nothing is downloaded then.
    pub debs: Option<PathBuf>,
    /// Where downloads are kept; `cache/packages` in the data directory is the custom.
    pub cache: PathBuf,
    /// Roots of mirrors; empty: those that this host's apt uses.
    pub mirrors: Vec<String>,
}

/// What a build is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Package `index` of `count` is being fetched, or found in the cache.
    Fetching {
        /// `name:architecture`
        package: &'a str,
        /// From 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// Its size in bytes.
        size: u64,
    },
    /// Package `index` of `count` is being unpacked.
    Unpacking {
        /// `name:architecture`
        package: &'a str,
        /// From 0.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A file of the platform is being written, or linked to the same one of another platform.
    Writing {
        /// Its name.
        file: &'a str,
        /// Its size in bytes.
        size: u64,
    },
}

/// Builds the platform `name` in `store` (an `alt_platforms` directory, made if need be) and puts it in place of one of
/// that name, in one step: whoever is interrupted leaves what was there. If the platform that is there is already this
/// one and is sound, it stays.
///
/// # Errors
/// [`PlatformError::NoRecipe`] for another name; [`PlatformError::NotServed`], [`PlatformError::WrongPackage`],
/// [`PlatformError::BadPackage`] for packages; [`PlatformError::Io`].
pub fn build(
    name: &str,
    store: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Platform, PlatformError> {
    let personality = recipe(name)?;
    let (kernel, archive) = make_image(options, progress)?;
    let files = vec![entry(Role::Kernel, "vmlinux", &kernel), entry(Role::Root, "root.cpio", &archive)];
    let definition = define(name, personality, files, &options.lock);

    if let Ok(present) = find(name, &[store.to_owned()])
        && *present.definition() == definition
        && present.verify().is_ok()
    {
        return Ok(present);
    }
    let staging = Staging::new(store)?;
    for (file, bytes) in definition.files.entries.iter().zip([&kernel, &archive]) {
        progress(Progress::Writing { file: &file.name, size: file.size });
        if !staging.link_from_sibling(file) {
            staging.write(&file.name, bytes)?;
        }
    }
    staging.publish(&definition)
}

fn recipe(name: &str) -> Result<Personality, PlatformError> {
    definition::check_platform_name(name)?;
    match name {
        "x86_64-pc-linux-gnu" => Ok(Personality::Linux64),
        "i686-pc-linux-gnu" => Ok(Personality::Linux32),
        _ => Err(PlatformError::NoRecipe { name: name.to_owned() }),
    }
}

fn make_image(
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(Vec<u8>, Vec<u8>), PlatformError> {
    let mirrors = if options.mirrors.is_empty() { fetch::host_mirrors() } else { options.mirrors.clone() };
    let sources = Sources { debs: options.debs.as_deref(), cache: &options.cache, mirrors: &mirrors };
    let packages = &options.lock.packages;
    let count = packages.len();

    // All of them before any work: a version that is gone is then known within seconds.
    let mut paths = Vec::with_capacity(count);
    for (index, package) in packages.iter().enumerate() {
        progress(Progress::Fetching { package: &package.label(), index, count, size: package.size });
        paths.push(sources.fetch(package)?);
    }
    check_complete(&options.lock)?;
    let mut root = Root::default();
    for (index, (package, path)) in packages.iter().zip(&paths).enumerate() {
        progress(Progress::Unpacking { package: &package.label(), index, count });
        let file = File::open(path).map_err(PlatformError::io("open", path))?;
        let items = deb::read(&package.label(), BufReader::new(file), |path| {
            root::wanted(&package.name, &package.architecture, path)
        })?;
        root.add_package(&package.name, &package.architecture, items)?;
    }
    root.finish()
}

/// A lock without one of the packages would make a root that does not boot.
fn check_complete(lock: &Lock) -> Result<(), PlatformError> {
    let has = |name: &str, architecture: &str| {
        lock.packages.iter().any(|package| package.name == name && package.architecture == architecture)
    };
    for (name, architecture) in root::packages() {
        if !has(name, architecture) {
            let cause = format!("no {name}:{architecture} in it, and the recipe needs it");
            return Err(PlatformError::Lock { path: PathBuf::from("the lock"), cause });
        }
    }
    Ok(())
}

fn entry(role: Role, name: &str, bytes: &[u8]) -> FileEntry {
    FileEntry { role, name: name.to_owned(), size: bytes.len() as u64, sha256: sha256_hex(bytes) }
}

fn define(name: &str, personality: Personality, files: Vec<FileEntry>, lock: &Lock) -> Definition {
    let mut definition = Definition {
        version: DEFINITION_VERSION,
        name: name.to_owned(),
        fingerprint: String::new(),
        manager: Manager { application: "vmtask".to_owned(), minimum_version: MANAGER_MINIMUM.to_owned() },
        guest: Guest { protocol: GUEST_PROTOCOL, personality, memory_mib: MEMORY_MIB },
        files: Files { entries: files },
        qemu: Qemu { machine: MACHINE.to_owned(), cpu: CPU.to_owned(), command_line: COMMAND_LINE.to_owned() },
        packages: Packages { distribution: lock.distribution.clone(), entries: lock.entries() },
    };
    definition.fingerprint = definition.compute_fingerprint(MEMORY_MIB, 1);
    definition
}

/// The first release that speaks [`GUEST_PROTOCOL`]; not the version at hand, which must not change the definition.
const MANAGER_MINIMUM: &str = "0.1.0";

#[cfg(test)]
mod tests;
