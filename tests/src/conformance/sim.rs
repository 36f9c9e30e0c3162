//! The simulator's world as the subject of the stories: ground truth in memory, behind the real port and driver.
//!
//! Its guest knows one kind of program, which computes; how a program may end otherwise is told by real guests only.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant as Now};

use vmtask_core::{
    Base, Boot, Capabilities, CheckpointSpec, Command, CommandId, Event, FaultKind, FileIn, FileIx, FileOut,
    Generation, Instant, Limits, Op, Power, ProgramSpec, Reply, Span, TaskDraft, TaskSpec,
};
use vmtask_driver::{EffectToken, EventSink, Fenced, Hypervisor, PortError};
use vmtask_sim::{Health, Misuse, Scenario, TICK, World};

use super::{Act, Subject};

/// The world's program makes a step each so often.
const STEP: Duration = Duration::from_millis(5);

/// Worlds, by the directory of their task.
#[derive(Debug, Default)]
pub struct Sim {
    worlds: Mutex<HashMap<PathBuf, Arc<Stand>>>,
}

/// One world, and who knows of it.
#[derive(Debug)]
struct Stand {
    scenario: Scenario,
    act: Act,
    truth: Mutex<Truth>,
    changed: Condvar,
}

#[derive(Debug)]
struct Truth {
    world: World,
    /// The hypervisor answers nothing.
    frozen: bool,
    misuse: Option<(Op, Misuse)>,
    sink: Option<EventSink>,
}

impl Stand {
    fn lock(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment of the guest's time.
    fn pass(&self) {
        let mut truth = self.lock();
        if truth.frozen || !truth.world.works() {
            return;
        }
        let event = match self.act {
            Act::Reboot => {
                truth.world.reboot(&self.scenario);
                Some(Event::GuestRebooted)
            }
            Act::PowerOff => {
                truth.world.power_off();
                Some(Event::GuestStopped)
            }
            Act::Hang => {
                if let Some(guest) = &mut truth.world.guest {
                    guest.hung = true;
                }
                None
            }
            _ => {
                truth.world.pass(TICK);
                truth.world.step(&self.scenario)
            }
        };
        truth.tell(event);
    }
}

impl Truth {
    fn tell(&self, event: Option<Event>) {
        if let (Some(event), Some(sink)) = (event, &self.sink) {
            sink.send(self.world.boot, event);
        }
    }
}

/// A manager's hypervisor. The machine dies with it.
struct Adapter {
    stand: Arc<Stand>,
    spec: TaskSpec,
    results: PathBuf,
    capabilities: Capabilities,
    alive: OnceLock<Arc<()>>,
}

impl Adapter {
    fn act(&self, command: &Command, truth: &mut Truth) -> Option<Result<Reply, PortError>> {
        if let Some(misuse) = truth.world.misuse(&self.stand.scenario, command.op) {
            truth.misuse.get_or_insert((command.op, misuse));
        }
        let answer = truth.world.carry_out(&self.stand.scenario, command)?;
        if let (Op::CopyOut(ix), Ok(Reply::Done)) = (command.op, &answer) {
            let file = self.spec.files_out.get(ix.index()).map(|file| self.results.join(&file.host));
            let content = truth.world.results.get(ix.index()).copied().flatten();
            if let (Some(file), Some(content)) = (file, content)
                && let Err(error) = fs::write(&file, render(content))
            {
                return Some(Err(PortError::new(FaultKind::Refused, format!("{}: {error}", file.display()))));
            }
        }
        Some(answer.map_err(|fault| PortError { fault, message: format!("{command}: {fault}") }))
    }
}

impl Hypervisor for Adapter {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        Ok(self.capabilities)
    }

    fn watch(&self, events: EventSink) {
        self.stand.lock().sink = Some(events);
        let alive = Arc::downgrade(self.alive.get_or_init(Arc::default));
        let stand = Arc::clone(&self.stand);
        thread::spawn(move || {
            while Weak::strong_count(&alive) > 0 {
                // The world's time passes as ours does.
                thread::sleep(STEP);
                stand.pass();
            }
        });
    }

    fn carry_out(&self, command: &Command, _deadline: Now, token: &EffectToken) -> Result<Reply, PortError> {
        let mut truth = self.stand.lock();
        loop {
            if token.is_revoked() {
                return Err(PortError::new(FaultKind::Unknown, format!("{command}: fenced")));
            }
            // Whoever answers nothing can still be ended.
            truth.frozen &= command.op != Op::PowerOff;
            if !truth.frozen
                && let Some(answer) = self.act(command, &mut truth)
            {
                return answer;
            }
            // No answer, whatever the deadline: so does a worker hang that a driver has to abandon. The fence ends it.
            let waited = self.stand.changed.wait_timeout(truth, Duration::from_millis(20));
            truth = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fence(&self, _id: CommandId, _deadline: Now) -> Result<Fenced, PortError> {
        let mut truth = self.stand.lock();
        let hung = truth.world.guest.is_some_and(|guest| guest.hung);
        let dies = std::mem::take(&mut truth.frozen) || hung;
        let survived = truth.world.fence(dies);
        self.stand.changed.notify_all();
        Ok(if survived { Fenced::Survived } else { Fenced::PoweredOff })
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let mut truth = self.stand.lock();
        truth.sink = None;
        truth.world.lose_manager(&self.stand.scenario);
    }
}

fn render(content: u64) -> String {
    format!("{content:016x}\n")
}

fn steps_of(act: Act) -> u32 {
    match act {
        Act::Compute(steps) => steps,
        _ => 100,
    }
}

fn spec() -> TaskSpec {
    TaskDraft {
        name: "story".into(),
        platform: "simulated".into(),
        program: ProgramSpec {
            path: "input".into(),
            args: Vec::new(),
            env: std::collections::BTreeMap::new(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: vec![FileIn { host: "input".into(), guest: "input".into(), executable: true }],
        files_out: vec![FileOut { guest: "result".into(), host: "result".into(), optional: false }],
        checkpoint: None,
        limits: Limits::default(),
    }
    .check()
    .expect("the story\'s task is in order")
}

impl Sim {
    fn stand(&self, dir: &Path) -> Arc<Stand> {
        let worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(worlds.get(dir).expect("a task in this directory"))
    }

    fn scenario(steps: u32, input: &[u8]) -> Scenario {
        // Whether and how often checkpoints are taken is the driver's plan, not the world's; but that they can be is.
        let spec = TaskDraft {
            checkpoint: Some(CheckpointSpec { every: Span::from_secs(1), keep: 2 }),
            ..TaskDraft::from(spec())
        }
        .check()
        .expect("the story\'s task is in order");
        Scenario::for_task(&spec, vec![input.to_vec()], steps).expect("a task that the world can carry out")
    }
}

impl Subject for Sim {
    fn task(&self, act: Act, input: &[u8], dir: &Path) -> TaskSpec {
        let truth = Truth { world: World::new(), frozen: false, misuse: None, sink: None };
        let scenario = Self::scenario(steps_of(act), input);
        let stand = Stand { scenario, act, truth: Mutex::new(truth), changed: Condvar::new() };
        self.worlds.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), Arc::new(stand));
        spec()
    }

    /// One command after the other in a world of its own, in which nothing goes wrong.
    fn expected(&self, steps: u32, input: &[u8], _dir: &Path) -> Vec<u8> {
        let scenario = Self::scenario(steps, input);
        let mut world = World::new();
        let mut number = 0;
        let mut until_done = |world: &mut World, op: Op| loop {
            number += 1;
            let command = Command {
                id: CommandId { epoch: 1, seq: number },
                boot: Boot { epoch: 1, seq: 1 },
                op,
                deadline: Instant::from_millis(0),
                attempt: std::num::NonZeroU8::MIN,
            };
            match world.carry_out(&scenario, &command) {
                Some(Ok(Reply::Pending)) => {}
                Some(Ok(_)) => break,
                other => panic!("{op} in a world without faults: {other:?}"),
            }
        };
        let start = [Op::Register, Op::Provision(Base::Baseline), Op::PowerOn, Op::AwaitTools, Op::MakeWorkdir];
        for op in start.into_iter().chain([Op::CopyIn(FileIx(0)), Op::Launch]) {
            until_done(&mut world, op);
        }
        while world.works() {
            world.pass(TICK);
            world.step(&scenario);
        }
        until_done(&mut world, Op::CopyOut(FileIx(0)));
        render(world.results[0].expect("a result")).into_bytes()
    }

    fn adapter(&self, spec: &TaskSpec, dir: &Path) -> Arc<dyn Hypervisor> {
        let stand = self.stand(dir);
        let capabilities = *stand.scenario.plan().capabilities();
        Arc::new(Adapter {
            stand,
            spec: spec.clone(),
            results: dir.join("results"),
            capabilities,
            alive: OnceLock::new(),
        })
    }

    fn machines(&self, dir: &Path) -> usize {
        usize::from(self.stand(dir).lock().world.power != Power::Off)
    }

    fn kill(&self, dir: &Path) {
        let stand = self.stand(dir);
        let mut truth = stand.lock();
        truth.world.power_off();
        truth.tell(Some(Event::GuestStopped));
    }

    fn freeze(&self, dir: &Path) {
        self.stand(dir).lock().frozen = true;
    }

    fn damage(&self, dir: &Path, generation: u32) {
        self.stand(dir).lock().world.spoil(Generation(generation), Health::BadAtProvision);
    }

    fn remains(&self, dir: &Path) -> Vec<String> {
        let stand = self.stand(dir);
        let truth = stand.lock();
        let mut left: Vec<_> = truth.world.snapshots.iter().flatten().map(|s| format!("checkpoint {s:?}")).collect();
        left.extend(truth.world.registered.then(|| "the registration".to_owned()));
        left.extend(truth.misuse.map(|(op, misuse)| format!("asked for {op}, which must not be: {misuse:?}")));
        left
    }

    fn steps(&self, _dir: &Path) -> Option<Vec<i64>> {
        None
    }
}
