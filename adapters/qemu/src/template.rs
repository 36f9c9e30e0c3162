//! Warm baselines: a guest that has booted once, kept on disk, from which every task's guest is cloned.
//!
//! ```text
//!   cache/templates/KEY/            KEY: hash over all that shows in the guest, the QEMU build,
//!                                   and the form of the image
//!       ram                         its memory (see `ram`)
//!       state                       its devices, a migration stream without the memory
//!       disk.qcow2                  its disk, if it has one: formatted, and frozen at the same instant
//!       template.json               names, sizes and checksums; the directory is renamed into place when whole
//!   cache/templates/KEY.lock        held while one is made or thrown away
//! ```
//! A template that is absent or damaged is made anew. Makers exclude each other by the lock, and whoever is killed
//! half-way leaves a directory under another name, which the next maker clears away.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::cmdline::{LAYOUT, Layer, Start};
use crate::durable;
use crate::guest::{self, GuestError};
use crate::host::Qemu;
use crate::image::Image;
use crate::instance::{Instance, InstanceError, Migration, Source, Wanted, lock_within};
use crate::qmp::QmpError;
use crate::ram::{self, RamError};
use crate::relative::BaseMemory;
use crate::sockets::Channel;
use crate::stub;
use crate::wait::{Stop, Wait};

/// What distinguishes one template from another.
#[derive(Clone, Debug)]
pub(crate) struct Kind<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) image: &'a Image,
    pub(crate) bytes: u64,
    pub(crate) cpus: u8,
    pub(crate) disk: Option<u64>,
}

impl Kind<'_> {
    /// A name for everything that must be equal.
    fn key(&self) -> String {
        let image = self.image;
        let all = [
            LAYOUT.to_string(),
            // Another version's would look damaged, and ours to it.
            String::from_utf8_lossy(ram::MAGIC).into_owned(),
            self.qemu.build.clone(),
            self.qemu.accel.to_string(),
            image.fingerprint.clone(),
            image.machine.clone(),
            image.cpu.clone(),
            image.cmdline.clone(),
            self.bytes.to_string(),
            self.cpus.to_string(),
            format!("{:?}", self.disk),
        ];
        durable::sha256(all.join("\0").as_bytes())[..32].to_owned()
    }
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The cache cannot be used.
    #[error("cannot {what} {path:?} in the template cache: {source}")]
    Cache {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The memory image cannot be written or read.
    #[error("the template {path:?}: {source}")]
    Ram {
        /// Which.
        path: PathBuf,
        /// Why.
        source: RamError,
    },
    /// The template's files are not what was written.
    #[error("the template {path:?} is damaged: {what}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// QEMU does not do it.
    #[error("making a warm template: {0}")]
    Qemu(#[from] InstanceError),
    /// The guest does not come up.
    #[error("making a warm template: {source}; the guest's console ends with: {console}")]
    Guest {
        /// Why.
        source: GuestError,
        /// The last lines of its console.
        console: String,
    },
    /// The disk image could not be made.
    #[error("making a warm template: {0}")]
    Disk(#[from] crate::disk::DiskError),
    /// Time is up, or the command was fenced.
    #[error("making a warm template: {0}")]
    Stop(#[from] Stop),
}

impl TemplateError {
    /// Whether it is for want of space.
    #[must_use]
    pub(crate) fn is_no_space(&self) -> bool {
        let source = match self {
            Self::Cache { source, .. } => source,
            Self::Ram { source: RamError::Io { source, .. }, .. } => source,
            Self::Disk(error) => return error.is_no_space(),
            _ => return false,
        };
        vmtask_driver::is_no_space(source)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// For people.
    fingerprint: String,
    qemu: String,
    memory: u64,
    cpus: u8,
    /// Checked when loaded.
    state: Sum,
    disk: Option<Sum>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    crc32: u32,
}

/// A template that is there and looks whole. Its memory is checked while it is loaded.
pub(crate) struct Template {
    dir: PathBuf,
    /// The devices' state, at its beginning.
    pub(crate) state: File,
    ram: File,
    /// The disk that clones write above.
    pub(crate) disk: Option<PathBuf>,
}

impl Template {
    /// Fills `memory` and seals it, for the guest of a task with its checkpoints in `checkpoints`.
    pub(crate) fn load(mut self, memory: File, checkpoints: PathBuf) -> Result<BaseMemory, TemplateError> {
        let ram_error = |source| match source {
            RamError::Damaged(what) => TemplateError::Damaged { path: self.dir.clone(), what: what.to_owned() },
            source => TemplateError::Ram { path: self.dir.clone(), source },
        };
        let loaded = ram::load(&mut self.ram, &memory).map_err(ram_error)?;
        BaseMemory::new(memory, self.ram, loaded, checkpoints).map_err(cache_error("seal the memory of", &self.dir))
    }
}

/// The cache of templates.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache in this directory of the user's.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.join("templates") }
    }

    /// A kernel that never runs, for machines that take over a saved state.
    pub(crate) fn stub(&self) -> Result<PathBuf, TemplateError> {
        let path = self.dir.join("stub.elf");
        let elf = stub::kernel();
        if !std::fs::metadata(&path).is_ok_and(|meta| meta.len() == elf.len() as u64) {
            self.make_dir(&self.dir)?;
            let part = self.dir.join(format!("stub.{}", std::process::id()));
            std::fs::write(&part, elf)
                .and_then(|()| std::fs::rename(&part, &path))
                .map_err(cache_error("write", &path))?;
        }
        Ok(path)
    }

    /// The template of this kind; made first if there is none.
    pub(crate) fn get(&self, kind: &Kind<'_>, low_priority: bool, wait: &Wait<'_>) -> Result<Template, TemplateError> {
        let place = self.dir.join(kind.key());
        match open(&place) {
            Ok(template) => return Ok(template),
            Err(TemplateError::Damaged { path, what }) => {
                tracing::warn!(?path, what, "a damaged template is made anew");
            }
            Err(_absent) => {}
        }
        self.make_dir(&self.dir)?;
        let _lock = self.lock(&place, wait)?;
        // Another manager may have made it while we waited.
        if let Ok(template) = open(&place) {
            return Ok(template);
        }
        self.clear(&place)?;
        let part = place.with_extension("part");
        self.make_dir(&part)?;
        make(kind, &part, low_priority, wait)?;
        std::fs::rename(&part, &place).map_err(cache_error("put in place", &place))?;
        durable::sync_dir(&self.dir).map_err(cache_error("flush", &self.dir))?;
        open(&place)
    }

    /// Throws one away that turned out to be damaged.
    pub(crate) fn discard(&self, kind: &Kind<'_>, wait: &Wait<'_>) -> Result<(), TemplateError> {
        let place = self.dir.join(kind.key());
        let _lock = self.lock(&place, wait)?;
        self.clear(&place)
    }

    /// Removes what is there under this name, whole or half-made. To be called under its lock.
    fn clear(&self, place: &Path) -> Result<(), TemplateError> {
        for dir in [place.to_owned(), place.with_extension("part")] {
            durable::gone(std::fs::remove_dir_all(&dir)).map_err(cache_error("remove", &dir))?;
        }
        Ok(())
    }

    fn make_dir(&self, dir: &Path) -> Result<(), TemplateError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cache_error("make", dir))
    }

    fn lock(&self, place: &Path, wait: &Wait<'_>) -> Result<File, TemplateError> {
        let path = place.with_extension("lock");
        let file = File::create(&path).map_err(cache_error("open", &path))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) => wait.sleep(Duration::from_millis(20))?,
                Err(error) => return Err(cache_error("lock", &path)(error.into())),
            }
        }
    }
}

fn cache_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TemplateError {
    let path = path.to_owned();
    move |source| TemplateError::Cache { what, path, source }
}

fn open(place: &Path) -> Result<Template, TemplateError> {
    let damaged = |what: String| TemplateError::Damaged { path: place.to_owned(), what };
    let manifest_path = place.join("template.json");
    let text = std::fs::read(&manifest_path).map_err(cache_error("read", &manifest_path))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("template.json: {error}")))?;
    let whole = |name: &str, expected: &Sum| {
        let path = place.join(name);
        let found = sum(&path).map_err(cache_error("read", &path))?;
        if found == *expected { Ok(path) } else { Err(damaged(format!("{name} differs from what was written"))) }
    };
    let state = whole("state", &manifest.state)?;
    let disk = manifest.disk.as_ref().map(|disk| whole("disk.qcow2", disk)).transpose()?;
    let ram = place.join("ram");
    Ok(Template {
        dir: place.to_owned(),
        state: File::open(&state).map_err(cache_error("open", &state))?,
        ram: File::open(&ram).map_err(cache_error("open", &ram))?,
        disk,
    })
}

fn sum(path: &Path) -> io::Result<Sum> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut block = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let got = file.read(&mut block)?;
        if got == 0 {
            return Ok(Sum { bytes, crc32: hasher.finalize() });
        }
        bytes += got as u64;
        hasher.update(&block[..got]);
    }
}

/// Boots a guest, brings it to the point from which tasks start, and saves it to `dir`.
fn make(kind: &Kind<'_>, dir: &Path, low_priority: bool, wait: &Wait<'_>) -> Result<(), TemplateError> {
    tracing::info!(?dir, "making a warm template");
    let memory = ram::new_memory(kind.bytes).map_err(cache_error("get memory for", dir))?;
    let mut disk = Vec::new();
    if let Some(size) = kind.disk {
        let file = dir.join("disk.qcow2");
        crate::disk::create(kind.qemu, &file, None, size)?;
        disk.push(Layer { node: "base".into(), file });
    }
    let instance = Instance::spawn(
        Wanted {
            qemu: kind.qemu,
            image: kind.image,
            kernel: None,
            bytes: kind.bytes,
            cpus: kind.cpus,
            memory: Source::Shared(&memory),
            start: Start::Boot,
            disk,
            run_dir: &dir.join("run"),
            log: &dir.join("qemu.log"),
            low_priority,
        },
        Arc::new(|_, _| ()),
        |_| (),
    )?;
    instance.greet(wait)?;
    // Connected while it is saved, so that in a clone nothing has changed: an agent whose host comes back looks for it
    // ten times a second only.
    let _events = instance.connect(Channel::Events);
    instance.cont(wait)?;
    prepare(&instance, kind.disk.is_some(), wait)?;
    freeze(&instance, &memory, dir, wait)?;
    instance.kill(wait.deadline())?;
    durable::gone(std::fs::remove_dir_all(dir.join("run"))).map_err(cache_error("remove", dir))?;
    let describe = |name: &str| {
        let path = dir.join(name);
        let file = File::open(&path).map_err(cache_error("open", &path))?;
        file.sync_all().map_err(cache_error("flush", &path))?;
        sum(&path).map_err(cache_error("read", &path))
    };
    let manifest = Manifest {
        fingerprint: kind.image.fingerprint.clone(),
        qemu: kind.qemu.build.clone(),
        memory: kind.bytes,
        cpus: kind.cpus,
        state: describe("state")?,
        disk: kind.disk.map(|_| describe("disk.qcow2")).transpose()?,
    };
    let text =
        serde_json::to_vec_pretty(&manifest).map_err(|error| cache_error("describe", dir)(io::Error::other(error)))?;
    let path = dir.join("template.json");
    durable::write_part(&path, &text).map_err(cache_error("write", &path))?;
    durable::sync_dir(dir).map_err(cache_error("flush", dir))
}

/// Everything that all tasks' guests have in common.
fn prepare(instance: &Instance, disk: bool, whole: &Wait<'_>) -> Result<(), TemplateError> {
    // The rest is for asking QEMU what the guest has written to its console, if it does not come to life.
    let wait = &whole.share(95);
    let result = (|| {
        let mut agent = lock_within(&instance.agent, wait)
            .map_err(|stop| crate::agent::AgentError::Silent { command: "guest-sync-delimited", stop })?;
        agent.sync(wait)?;
        guest::check_version(&mut agent, wait)?;
        guest::make_workdir(&mut agent, disk, wait)?;
        guest::ask(&mut agent, "settle", &[], wait)?;
        // What a task needs first is then in memory, and translated code apart nothing is left to warm up.
        guest::status(&mut agent, None, wait)?;
        Ok(())
    })();
    result.map_err(|source| match instance.process.ended() {
        Some(_) => TemplateError::Qemu(InstanceError::Died { last_words: instance.process.last_words() }),
        None => TemplateError::Guest { source, console: instance.console(whole) },
    })
}

fn freeze(instance: &Instance, memory: &File, dir: &Path, wait: &Wait<'_>) -> Result<(), TemplateError> {
    instance.stop(wait)?;
    instance.migration_capabilities(&[("x-ignore-shared", true)], wait)?;
    let state = dir.join("state");
    let file = File::create(&state).map_err(cache_error("make", &state))?;
    instance.migrate_to(&file, wait)?;
    loop {
        match instance.migration(wait)? {
            Migration::Completed => break,
            Migration::Failed(why) => {
                return Err(cache_error("save the devices to", &state)(io::Error::other(why)));
            }
            Migration::None | Migration::Active(_) => {}
        }
        wait.sleep(Duration::from_millis(2))
            .map_err(|stop| InstanceError::from(QmpError::Silent { command: "migrate", stop }))?;
    }
    let path = dir.join("ram");
    let mut out = File::create(&path).map_err(cache_error("make", &path))?;
    ram::save(memory, &mut out).map_err(|source| TemplateError::Ram { path: path.clone(), source })?;
    out.sync_all().map_err(cache_error("flush", &path))
}
