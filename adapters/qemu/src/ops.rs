//! The commands up to the program's launch, and around it: probing, starting, holding, ending.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use vmtask_core::{Base, Boot, FaultKind, Found, Generation, Keep, Power, Program, Reply};
use vmtask_driver::{EffectToken, PortError, RealStorage, Storage, kit};

use crate::checkpoint::{self, Form, Machine, Manifest};
use crate::cmdline::{Layer, Start};
use crate::durable;
use crate::fault::{Fault, during, of_loading};
use crate::guest::{self, State};
use crate::instance::{Instance, InstanceError, Source, Wanted, lock_within};
use crate::live::{Live, Signs, Wish, Work};
use crate::process::Life;
use crate::qmp::QmpError;
use crate::ram;
use crate::relative::{self, Feed, Pinned};
use crate::setup::Baseline;
use crate::template::{Kind, Template, TemplateError};
use crate::vm::{self, QemuVm};
use crate::wait::{Stop, Wait};
use crate::{disk, watch};

/// How long a slice of a long command may take, if its deadline is not before that.
pub(crate) const SLICE: Duration = Duration::from_millis(300);

impl QemuVm {
    pub(crate) fn probe(&self, wait: Wait<'_>) -> Result<Found, PortError> {
        let listing = self.store.list().map_err(|error| {
            let look_failed = error.during("looking at the checkpoints");
            kit::with_ways_out(look_failed)
        })?;
        let mut found = Found {
            registered: self.is_registered()?,
            snapshots: listing.whole,
            damaged: listing.damaged,
            ..Found::default()
        };
        let Some(live) = self.any_live().filter(|live| live.is_alive()) else {
            vm::kill_orphan(&self.paths, wait.deadline())?;
            return Ok(found);
        };
        let state = live.instance.run_state(&wait).map_err(during("probing"))?;
        if state != "running" {
            found.power = Power::Paused;
            return Ok(found);
        }
        found.power = Power::On;
        // An agent that is silent is no reason not to answer.
        let wait = wait.share(35);
        let status = lock_within(&live.instance.agent, &wait)
            .ok()
            .and_then(|mut agent| guest::status(&mut agent, None, &wait).ok());
        found.program = match status.map(|status| status.state) {
            None => Program::Unknown,
            // A program whose supervisor is gone will never be heard of again: to the core it is not there.
            Some(State::NotStarted | State::Lost) => Program::NotStarted,
            Some(State::Running) => Program::Running,
            Some(State::Exited(status)) => Program::Exited(status),
        };
        if found.program == Program::Running {
            live.signs.launched.store(true, Ordering::SeqCst);
        }
        Ok(found)
    }

    fn is_registered(&self) -> Result<bool, PortError> {
        let dir = self.paths.vm();
        kit::is_there(&RealStorage, &dir).map_err(during(format!("looking for {}", dir.display())))
    }

    pub(crate) fn register(&self) -> Result<(), PortError> {
        // Whatever can be known to be wrong is said before anything is started.
        for file in &self.setup.spec.files_in {
            let path = self.setup.inputs.join(&file.host);
            open_input(&path).map_err(|error| {
                PortError::new(FaultKind::Fatal, format!("the input file {}: {error}", path.display()))
            })?;
        }
        self.make_dir()
    }

    fn make_dir(&self) -> Result<(), PortError> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = self.paths.vm();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(during(format!("making {}", dir.display())))
    }

    pub(crate) fn unregister(&self, keep: Keep, wait: Wait<'_>) -> Result<(), PortError> {
        self.put_out(wait.deadline())?;
        vm::kill_orphan(&self.paths, wait.deadline())?;
        let what = match keep {
            Keep::Nothing => {
                self.store.remove_all(&wait)?;
                vec![self.paths.vm()]
            }
            Keep::Checkpoints => vec![self.paths.run(), self.paths.process()],
        };
        what.iter().try_for_each(|path| kit::remove_tree(&RealStorage, path, &wait))?;
        if keep == Keep::Checkpoints {
            self.store.sweep(&wait);
        }
        Ok(())
    }

    /// Brings the guest into its first state; whether it runs then.
    pub(crate) fn provision(
        &self,
        boot: Boot,
        base: Base,
        token: &EffectToken,
        whole: Wait<'_>,
    ) -> Result<bool, PortError> {
        // What there is belongs to an earlier boot, or to an earlier try.
        self.put_out(whole.deadline())?;
        vm::kill_orphan(&self.paths, whole.deadline())?;
        self.make_dir()?;
        // The rest is for killing what is half-made.
        let wait = whole.share(90);
        let result = match base {
            Base::Baseline => self.provision_baseline(boot, token, &wait),
            Base::Checkpoint(generation) => {
                let restored = self.provision_checkpoint(boot, generation, token, &wait);
                restored.map(|()| false).map_err(kit::with_ways_out)
            }
        };
        result.map_err(|mut error| {
            // With the half-made machine gone it is certain that nothing was done.
            let gone = self.put_out_boot(boot, whole.deadline()).is_ok();
            if gone && error.fault.kind == FaultKind::Unknown && !token.is_revoked() {
                error.fault.kind = FaultKind::Refused;
            }
            error
        })
    }

    fn kind(&self) -> Kind<'_> {
        Kind {
            qemu: &self.setup.qemu,
            image: &self.setup.image,
            bytes: self.setup.memory(),
            cpus: self.setup.spec.limits.cpus,
            disk: self.setup.spec.limits.disk,
        }
    }

    fn provision_baseline(&self, boot: Boot, token: &EffectToken, wait: &Wait<'_>) -> Result<bool, PortError> {
        // What lies there belongs to a life that is over, but for the layers that checkpoints stand on.
        self.sweep_disk(None, wait);
        self.sweep_templates(None, wait);
        // Once more with a new template, if the old one turns out to be damaged.
        for _try in 0..2 {
            if self.setup.baseline == Baseline::Cold {
                break;
            }
            let template = match self.cache.get(&self.kind(), self.setup.low_priority, wait) {
                Ok(template) => template,
                Err(error @ (TemplateError::Qemu(_) | TemplateError::Guest { .. } | TemplateError::Stop(_))) => {
                    return Err(error.during("preparing the virtual machine"));
                }
                Err(error) => {
                    tracing::warn!(%error, "no warm template; the guest boots instead");
                    break;
                }
            };
            match self.clone_of(boot, template, token, wait) {
                Ok(()) => return Ok(true),
                Err(Warm::Damaged(error)) => {
                    tracing::warn!(%error, "a damaged template is made anew");
                    self.put_out_boot(boot, wait.deadline())?;
                    self.cache.discard(&self.kind(), wait).map_err(during("throwing a damaged template away"))?;
                }
                Err(Warm::Failed(error)) => return Err(error),
            }
        }
        self.boot(boot, token, wait)?;
        Ok(false)
    }

    /// A guest like the template's, running.
    fn clone_of(&self, boot: Boot, template: Template, token: &EffectToken, wait: &Wait<'_>) -> Result<(), Warm> {
        let what = "cloning the warm template";
        let memory = ram::new_memory(self.setup.memory()).map_err(during(what))?;
        let layers = self.new_disk(template.disk.as_deref())?;
        let state = template.state.try_clone().map_err(during(what))?;
        let live = self.spawn(boot, Start::Incoming, Source::Private(&memory), layers, token, wait)?;
        // Filled while QEMU loads its libraries. It maps the memory meanwhile, but writes nothing before it loads the
        // devices' state.
        let base = match template.load(memory, self.paths.checkpoints()) {
            Err(error @ TemplateError::Damaged { .. }) => return Err(Warm::Damaged(error)),
            other => Arc::new(other.map_err(during(what))?),
        };
        live.base.get_or_init(|| base);
        live.connect_early(wait);
        live.instance
            .migration_capabilities(&[("x-ignore-shared", true)], wait)
            .and_then(|()| live.instance.load_from(&state, wait))
            .map_err(during(what))?;
        lock_within(&live.work, wait).map_err(during(what))?.workdir = true;
        self.run(&live, wait).map_err(during(what))?;
        self.watch(&live);
        Ok(())
    }

    /// A guest that is about to boot.
    fn boot(&self, boot: Boot, token: &EffectToken, wait: &Wait<'_>) -> Result<(), PortError> {
        let mut layers = Vec::new();
        if let Some(size) = self.setup.spec.limits.disk {
            let what = "making the task's disk";
            let file = self.new_layer().map_err(during(what))?;
            disk::create(&self.setup.qemu, &file, None, size).map_err(during(what))?;
            layers.push(layer(&file));
        }
        let live = self.spawn(boot, Start::Boot, Source::Anonymous, layers, token, wait)?;
        live.instance.greet(wait).map_err(during("starting QEMU"))
    }

    fn provision_checkpoint(
        &self,
        boot: Boot,
        generation: Generation,
        token: &EffectToken,
        wait: &Wait<'_>,
    ) -> Result<(), PortError> {
        let what = format!("restoring checkpoint {generation}");
        let (manifest, file) =
            checkpoint::open(&self.store, generation, &Machine::of(&self.setup)).map_err(during(&what))?;
        let form = manifest.kept.form;
        let pinned = form.template().map(|digest| Pinned::open(&self.paths.checkpoints(), generation, digest));
        let pinned = pinned.transpose().map_err(during(&what))?;
        let layers = self.disk_of(&manifest, &what)?;
        let memory =
            pinned.as_ref().map(|_| ram::new_memory(self.setup.memory())).transpose().map_err(during(&what))?;
        let source = memory.as_ref().map_or(Source::Anonymous, Source::Private);
        let live = self.spawn(boot, Start::Incoming, source, layers, token, wait)?;
        // Filled and compared while QEMU loads its libraries.
        if let (Some(pinned), Some(memory)) = (pinned, memory) {
            let base = Arc::new(pinned.load(memory).map_err(during(&what))?);
            live.base.get_or_init(|| base);
        }
        checkpoint::verify(&self.store, &manifest, &file, || wait.tick().is_ok()).map_err(|error| {
            match wait.tick() {
                Ok(_) => error.during(&what),
                Err(stop) => stop.during(&what),
            }
        })?;
        live.instance.greet(wait).map_err(during(&what))?;
        live.connect_early(wait);
        load_checkpoint(&live, file, form, wait)
            .map_err(|error| PortError::new(error.fault.kind, format!("{what}: {}", error.message)))?;
        self.sweep_disk(Some(&live), wait);
        self.sweep_templates(Some(&live), wait);
        // A checkpoint is taken of a program that runs.
        live.signs.launched.store(true, Ordering::SeqCst);
        let mut work = lock_within(&live.work, wait).map_err(during(&what))?;
        work.restored = true;
        work.workdir = true;
        Ok(())
    }

    /// Starts QEMU and puts it in place, so that a fence finds it from the first moment on.
    fn spawn(
        &self,
        boot: Boot,
        start: Start,
        memory: Source<'_>,
        layers: Vec<Layer>,
        token: &EffectToken,
        wait: &Wait<'_>,
    ) -> Result<Arc<Live>, PortError> {
        let what = "starting QEMU";
        let kernel = match start {
            Start::Boot => None,
            Start::Incoming => Some(self.stub()?),
        };
        let signs = Arc::new(Signs::default());
        let (noting, ending) = (Arc::clone(&signs), Arc::clone(&signs));
        let (sink, on_life) = (self.sink().cloned(), self.setup.on_life.clone());
        let instance = Instance::spawn(
            Wanted {
                qemu: &self.setup.qemu,
                image: &self.setup.image,
                kernel,
                bytes: self.setup.memory(),
                cpus: self.setup.spec.limits.cpus,
                memory,
                start,
                disk: layers.clone(),
                run_dir: &self.paths.run(),
                log: &self.paths.log(),
                low_priority: self.setup.low_priority,
            },
            Arc::new(move |name, data| noting.note(name, data)),
            move |life| {
                if let Some(tell) = &on_life {
                    tell(life);
                }
                if matches!(life, Life::Ended(_)) {
                    ending.ended(boot, sink.as_ref());
                }
            },
        )
        .map_err(during(what))?;
        let name = instance.process.name();
        let live = Arc::new(Live {
            boot,
            instance,
            signs,
            work: Mutex::new(Work::default()),
            wish: Mutex::new(Wish::default()),
            events: Mutex::default(),
            memory: self.setup.memory(),
            base: OnceLock::new(),
            layers: Mutex::new(layers),
        });
        if let Err(error) = self.adopt(&live, token) {
            let _ = live.kill(wait.deadline());
            return Err(error);
        }
        let note = vm::write_process(&self.paths, name).map_err(during(what))?;
        token.act(|| std::fs::rename(&note, self.paths.process()))?.map_err(during(what))?;
        Ok(live)
    }

    fn sweep_templates(&self, live: Option<&Live>, wait: &Wait<'_>) {
        let in_use = live.and_then(|live| live.base.get()).map(|base| base.digest());
        relative::sweep(&self.store, &self.paths.checkpoints(), in_use, wait);
    }

    fn stub(&self) -> Result<PathBuf, PortError> {
        self.cache.stub().map_err(during("writing to the cache"))
    }

    fn watch(&self, live: &Arc<Live>) {
        let Some(sink) = self.sink().cloned() else {
            return;
        };
        let progress = self.setup.spec.program.progress.clone();
        if let Err(error) = watch::start(live, progress, sink) {
            // The machine probes by itself when it hears nothing.
            tracing::warn!(%error, "no thread to watch the guest");
        }
    }

    /// Lets the guest run.
    fn run(&self, live: &Live, wait: &Wait<'_>) -> Result<(), InstanceError> {
        let mut wish = live.wish(wait).map_err(|stop| QmpError::Silent { command: "cont", stop })?;
        live.instance.cont(wait)?;
        wish.running = true;
        Ok(())
    }

    pub(crate) fn power_on(&self, live: &Arc<Live>, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "starting the guest";
        let ran = live.wish(&wait).map_err(during(what))?.running;
        self.run(live, &wait).map_err(during(what))?;
        if !ran {
            self.watch(live);
        }
        Ok(())
    }

    pub(crate) fn await_tools(&self, live: &Live, token: &EffectToken, wait: Wait<'_>) -> Result<Reply, PortError> {
        let what = "waiting for the guest agent";
        let slice = wait.at_most(SLICE);
        let Ok(mut agent) = lock_within(&live.instance.agent, &slice) else {
            return pending_unless_fenced(token, what);
        };
        if agent.sync(&slice).is_err() {
            if !live.is_alive() {
                let error = InstanceError::Died { last_words: live.instance.process.last_words() };
                return Err(error.during(what));
            }
            return pending_unless_fenced(token, what);
        }
        let mut work = lock_within(&live.work, &wait).map_err(during(what))?;
        if work.restored {
            // Its program runs already: its clock cannot wait.
            agent.set_clock(&wait).map_err(during("setting the guest's clock"))?;
        } else if !work.greeted {
            // Clones share their random state. Seeded from the task's name, the same task sees the same everywhere. That,
            // and the clock, goes with whatever is the first to run in the guest.
            agent.seed = Some(durable::sha256(self.setup.spec.name.as_bytes()));
            if !work.workdir {
                guest::check_version(&mut agent, &wait).map_err(during(what))?;
            }
        }
        work.greeted = true;
        Ok(Reply::Done)
    }

    pub(crate) fn make_workdir(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "making the working directory in the guest";
        let mut work = lock_within(&live.work, &wait).map_err(during(what))?;
        if work.workdir {
            // It came with the template.
            return Ok(());
        }
        let mut agent = lock_within(&live.instance.agent, &wait).map_err(during(what))?;
        let on_disk = self.setup.spec.limits.disk.is_some();
        guest::make_workdir(&mut agent, on_disk, &wait).map_err(during(what))?;
        work.workdir = true;
        Ok(())
    }

    pub(crate) fn launch(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let program = &self.setup.spec.program;
        let what = format!("launching {:?}", program.path);
        // From before it can end.
        live.signs.launched.store(true, Ordering::SeqCst);
        let mut agent = lock_within(&live.instance.agent, &wait).map_err(during(&what))?;
        guest::launch(&mut agent, program, self.setup.image.linux32, &wait).map_err(|error| {
            let kind = match error.code() {
                Some(guest::NO_FILE) => FaultKind::NotFound,
                _ => error.kind(),
            };
            PortError::new(kind, format!("{what}: {error}"))
        })
    }

    pub(crate) fn pause(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "pausing the guest";
        let mut wish = live.wish(&wait).map_err(during(what))?;
        live.instance.stop(&wait).map_err(during(what))?;
        wish.running = false;
        Ok(())
    }

    pub(crate) fn unpause(&self, live: &Live, wait: Wait<'_>) -> Result<(), PortError> {
        let what = "letting the guest run on";
        // A stream that holds the guest, or ends by holding it, must be through first: what runs on before that would
        // be part of the checkpoint, without its disk.
        if let Some(snapshot) = &lock_within(&live.work, &wait).map_err(during(what))?.snapshot {
            snapshot.wait_if_holding(&wait).map_err(during(what))?;
        }
        self.run(live, &wait).map_err(during(what))?;
        // Its clock stood still. An agent that does not answer now is somebody else's trouble.
        if let Ok(mut agent) = lock_within(&live.instance.agent, &wait)
            && let Err(error) = agent.set_clock(&wait.at_most(Duration::from_secs(5)))
        {
            tracing::debug!(%error, "the guest's clock could not be set");
        }
        Ok(())
    }

    /// The task's disk above a template's.
    fn new_disk(&self, base: Option<&Path>) -> Result<Vec<Layer>, PortError> {
        let (Some(base), Some(size)) = (base, self.setup.spec.limits.disk) else {
            return Ok(Vec::new());
        };
        let what = "making the task's disk";
        let own = self.new_layer().map_err(during(what))?;
        // The cache may be cleared while checkpoints still stand on it, so the task has its own name for it.
        let named = std::fs::hard_link(base, &own).or_else(|_| {
            let mut copy = File::create_new(&own)?;
            std::io::copy(&mut File::open(base)?, &mut copy).map(drop)
        });
        named.map_err(during(what))?;
        let top = self.new_layer().map_err(during(what))?;
        disk::create(&self.setup.qemu, &top, Some(&own), size).map_err(during(what))?;
        Ok(vec![layer(&own), layer(&top)])
    }

    /// A fresh layer above those of a checkpoint.
    fn disk_of(&self, manifest: &Manifest, what: &str) -> Result<Vec<Layer>, PortError> {
        let Some(size) = self.setup.spec.limits.disk else {
            return Ok(Vec::new());
        };
        let mut layers: Vec<Layer> = Vec::new();
        for name in &manifest.kept.disk {
            let file = self.paths.disk().join(name);
            if let Err(error) = RealStorage.look(&file) {
                kit::prove_absent(&RealStorage, &file, error)
                    .map_err(during(format!("{what}: looking at its disk {}", file.display())))?;
                let text = format!("{what}: its disk {} is not there", file.display());
                return Err(PortError::new(FaultKind::Damaged, text));
            }
            layers.push(layer(&file));
        }
        let Some(below) = layers.last().map(|layer| layer.file.clone()) else {
            let text = format!(
                "{what}: it was made without a disk, and the task has one; remove limits.disk, or begin anew with \
                 `vmtask run --start-over`"
            );
            return Err(PortError::new(FaultKind::Incompatible, text));
        };
        let top = self.new_layer().map_err(during(what))?;
        disk::create(&self.setup.qemu, &top, Some(&below), size).map_err(during(what))?;
        layers.push(layer(&top));
        Ok(layers)
    }

    /// A name for a new layer of the disk, in a directory that is there. Never that of a layer that is: a checkpoint may
    /// stand on it.
    fn new_layer(&self) -> std::io::Result<PathBuf> {
        let dir = self.paths.disk();
        std::fs::create_dir_all(&dir)?;
        disk::next_file(&dir)
    }
}

/// Loads a checkpoint's stream, which is as it was written, into a machine that has its template's memory, if it has one.
fn load_checkpoint(live: &Live, file: File, form: Form, wait: &Wait<'_>) -> Result<(), PortError> {
    let refused =
        |error: InstanceError| PortError::new(of_loading(&error, live.instance.process.ended()), error.to_string());
    if form == Form::Plain {
        return live.instance.load_from(&file, wait).map_err(refused);
    }
    let (feed, end) = Feed::start(file).map_err(during("unpacking it"))?;
    live.instance.load_from(end, wait).map_err(|error| match feed.failure() {
        None => refused(error),
        Some(failure) if failure.kind() == std::io::ErrorKind::InvalidData => {
            PortError::new(FaultKind::Rejected, format!("it cannot be unpacked: {failure}"))
        }
        Some(failure) => failure.during("unpacking it"),
    })
}

/// Why a clone did not come to life.
enum Warm {
    Damaged(TemplateError),
    Failed(PortError),
}

impl From<PortError> for Warm {
    fn from(error: PortError) -> Self {
        Self::Failed(error)
    }
}

/// A layer, named within QEMU after its file.
pub(crate) fn layer(file: &Path) -> Layer {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    Layer { node: format!("disk-{stem}"), file: file.to_owned() }
}

fn pending_unless_fenced(token: &EffectToken, what: &str) -> Result<Reply, PortError> {
    if token.is_revoked() {
        return Err(Stop::Fenced.during(what));
    }
    Ok(Reply::Pending)
}

/// An input file that can be read from front to back.
pub(crate) fn open_input(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO without a writer would be waited for.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::File::options().read(true).custom_flags(nonblock).open(path)?;
    let kind = file.metadata()?;
    if kind.is_dir() {
        return Err(std::io::Error::other("it is a directory; name a file, or pack it into an archive"));
    }
    if !kind.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    Ok(file)
}
