//! A virtual machine that is none, to see and to test what `vmtask run` does: nothing is started and nothing computed.
//!
//! Its program only lets time pass, and its outputs say so. Checkpoints are real in one respect: they are files in the
//! task's directory, from which a later run goes on. What can go wrong with virtual machines is the simulator's subject,
//! not this one's.
//!
//! ```text
//!   off --PowerOn--> on --Launch--> running --(time passes, unless paused)--> exited
//!    ^---- PowerOff ---+---------------+-----------------------------------------'
//! ```

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use vmtask_core::{
    Base, Boot, Capabilities, Command, CommandId, Event, ExitStatus, FaultKind, Found, Generation, Generations, Keep,
    Op, Pause, Power, Program, Reply, Snapshots,
};
use vmtask_driver::{
    EffectToken, EventSink, Fenced, Hypervisor, PortError, RealStorage, Storage, kit, naming_the_limit, wait::Wait,
};

use super::Place;
use crate::error::Error;

/// How often the program says how far it is.
const TICK: Duration = Duration::from_millis(100);
const OUTPUT: &str = "simulated: nothing was computed\n";

/// See the module.
pub(crate) struct Simulated {
    machine: Arc<Machine>,
    vm: PathBuf,
    /// Where each output goes.
    outputs: Vec<PathBuf>,
}

struct Machine {
    state: Mutex<State>,
    changed: Condvar,
    sink: OnceLock<EventSink>,
    /// How many ticks the program runs.
    length: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    boot: Option<Boot>,
    paused: bool,
    program: Guest,
    begun: Option<(Generation, Guest)>,
}

/// What a checkpoint saves.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Guest {
    launched: bool,
    ticks: u32,
}

impl Simulated {
    pub(crate) fn new(place: &Place<'_>) -> Result<Self, Error> {
        let seconds = env::var("VMTASK_SIM_SECONDS").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(5.0);
        let machine = Arc::new(Machine {
            state: Mutex::default(),
            changed: Condvar::new(),
            sink: OnceLock::new(),
            // The cast saturates, also for what is no number.
            length: ((seconds / TICK.as_secs_f64()) as u32).max(1),
        });
        let theirs = Arc::downgrade(&machine);
        let spawned = thread::Builder::new().name("vmtask-simulated".to_owned()).spawn(move || pass_time(&theirs));
        spawned.map_err(Error::system("start a thread"))?;
        let results = place.dir.results();
        let outputs = place.file.spec().files_out.iter().map(|file| results.join(&file.host)).collect();
        Ok(Self { machine, vm: place.dir.vm(), outputs })
    }

    fn checkpoint(&self, generation: Generation) -> PathBuf {
        self.vm.join(format!("checkpoint-{generation}.json"))
    }

    fn checkpoints(&self) -> io::Result<Generations> {
        if !kit::is_there(&RealStorage, &self.vm)? {
            return Ok(Generations::NONE);
        }
        let number = |name: &str| name.strip_prefix("checkpoint-")?.strip_suffix(".json")?.parse().ok();
        let names = RealStorage.entries(&self.vm)?;
        Ok(names.iter().filter_map(|name| number(name.to_str()?).map(Generation)).collect())
    }

    fn provision(&self, boot: Boot, base: Base) -> Result<Reply, PortError> {
        let program = match base {
            Base::Baseline => Guest::default(),
            Base::Checkpoint(generation) => {
                let path = self.checkpoint(generation);
                if !kit::is_there(&RealStorage, &path).map_err(failed("look for", &path))? {
                    return Err(PortError::new(FaultKind::NotFound, format!("{} is not there", path.display())));
                }
                let text = fs::read(&path).map_err(failed("read", &path))?;
                serde_json::from_slice(&text).map_err(|error| {
                    PortError::new(FaultKind::Damaged, format!("{} is no checkpoint: {error}", path.display()))
                })?
            }
        };
        // It runs from here on, warm or restored, but time passes for it only once it is powered on.
        *self.machine.lock() = State { boot: Some(boot), paused: true, program, begun: None };
        Ok(Reply::Provisioned { running: false })
    }

    fn commit(&self, generation: Generation, token: &EffectToken) -> Result<Reply, PortError> {
        let begun = self.machine.lock().begun.take().filter(|(begun, _)| *begun == generation);
        let Some((_, guest)) = begun else {
            return Err(PortError::new(FaultKind::Fatal, format!("checkpoint {generation} was not begun")));
        };
        let path = self.checkpoint(generation);
        let text = serde_json::to_vec(&guest).map_err(io::Error::from).map_err(failed("write", &path))?;
        put(&path, &text, token)?;
        Ok(Reply::Done)
    }

    fn copy_out(&self, index: usize, token: &EffectToken) -> Result<Reply, PortError> {
        let Some(path) = self.outputs.get(index) else {
            return Err(PortError::new(FaultKind::NotFound, format!("the task has no output {index}")));
        };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed("make the directory of", path))?;
        put(path, OUTPUT.as_bytes(), token)?;
        Ok(Reply::Done)
    }

    fn unregister(&self, keep: Keep, wait: &Wait<'_>) -> Result<Reply, PortError> {
        if keep == Keep::Nothing {
            kit::remove_tree(&RealStorage, &self.vm, wait)?;
        }
        Ok(Reply::Done)
    }

    fn probe(&self) -> io::Result<Found> {
        let state = *self.machine.lock();
        let program = match state.program {
            _ if state.boot.is_none() || state.paused => Program::Unknown,
            Guest { launched: false, .. } => Program::NotStarted,
            Guest { ticks, .. } if ticks >= self.machine.length => Program::Exited(ExitStatus::Code(0)),
            _ => Program::Running,
        };
        let power = match state.boot {
            None => Power::Off,
            Some(_) if state.paused => Power::Paused,
            Some(_) => Power::On,
        };
        let (registered, snapshots) = (kit::is_there(&RealStorage, &self.vm)?, self.checkpoints()?);
        Ok(Found { registered, power, program, snapshots, ..Found::default() })
    }
}

impl Hypervisor for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        Ok(Capabilities {
            linked_clones: true,
            snapshots: Snapshots::Many,
            pause: Pause::Native,
            guest_login: false,
            outlives_manager: false,
            disk: true,
        })
    }

    fn watch(&self, events: EventSink) {
        // Called once.
        let _ = self.machine.sink.set(events);
    }

    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        let change = |change: &dyn Fn(&mut State)| {
            change(&mut self.machine.lock());
            self.machine.changed.notify_all();
            Ok(Reply::Done)
        };
        match command.op {
            Op::Probe => self.probe().map(Reply::Found).map_err(failed("look into", &self.vm)),
            Op::Register => fs::create_dir_all(&self.vm).map(|()| Reply::Done).map_err(failed("make", &self.vm)),
            Op::Provision(base) => self.provision(command.boot, base),
            Op::PowerOn | Op::Unpause => change(&|state| state.paused = false),
            Op::AwaitTools | Op::LogIn | Op::MakeWorkdir | Op::CopyIn(_) => Ok(Reply::Done),
            Op::Launch => change(&|state| state.program.launched = true),
            Op::Pause => change(&|state| state.paused = true),
            Op::BeginSnapshot(generation) => change(&|state| state.begun = Some((generation, state.program))),
            Op::CommitSnapshot(generation) => self.commit(generation, token),
            Op::RemoveSnapshot(generation) => {
                let path = self.checkpoint(generation);
                token.act(|| ignore_missing(fs::remove_file(&path)))?.map_err(failed("remove", &path))?;
                Ok(Reply::Done)
            }
            Op::CopyOut(ix) => self.copy_out(ix.index(), token),
            Op::PowerOff => change(&|state| *state = State::default()),
            Op::Unregister(keep) => self.unregister(keep, &Wait::command(token, deadline)),
        }
    }

    fn fence(&self, _: CommandId, _: Instant) -> Result<Fenced, PortError> {
        // No command waits for anything, and the files that it changes are behind its token.
        self.machine.lock().begun = None;
        Ok(Fenced::Survived)
    }
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one tick pass, if the program runs.
    fn tick(&self) {
        let mut state = self.lock();
        let Some(boot) = state.boot.filter(|_| state.program.launched && !state.paused) else {
            // Until something changes; now and then to see whether we are still wanted.
            drop(self.changed.wait_timeout(state, TICK));
            return;
        };
        if state.program.ticks >= self.length {
            state.program.ticks = self.length;
            drop(self.changed.wait_timeout(state, TICK));
            return;
        }
        state.program.ticks += 1;
        let ticks = state.program.ticks;
        drop(state);
        thread::sleep(TICK);
        let Some(sink) = self.sink.get() else { return };
        let permille = u64::from(ticks) * 1000 / u64::from(self.length.max(1));
        let cpu_ms = u64::from(ticks) * TICK.as_millis() as u64;
        sink.send(boot, Event::Progress { permille: Some(u16::try_from(permille).unwrap_or(1000)), cpu_ms });
        if ticks >= self.length {
            sink.send(boot, Event::ProgramExited(ExitStatus::Code(0)));
        }
    }
}

/// Until the machine is gone.
fn pass_time(machine: &Weak<Machine>) {
    while let Some(machine) = machine.upgrade() {
        machine.tick();
    }
}

/// Whole or not at all; only its name is given by leave of the command.
fn put(path: &Path, content: &[u8], token: &EffectToken) -> Result<(), PortError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    fs::write(&part, content).map_err(failed("write", &part))?;
    token.act(|| fs::rename(&part, path))?.map_err(failed("write", path))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PortError + 'a {
    move |error| {
        PortError::new(kit::io_kind(&error), naming_the_limit(format!("cannot {what} {}: {error}", path.display())))
    }
}
