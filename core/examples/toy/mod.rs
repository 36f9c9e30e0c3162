//! What the three examples share: a task, and a toy hypervisor that takes a few milliseconds for everything.
//!
//! Nothing real is run here. The examples show the loop; `vmtask-driver` has the rest.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant as Clock};

use vmtask_core::{
    Capabilities, CheckpointSpec, Command, Event, ExitStatus, Fault, FileIn, FileOut, Found, Generations, Input,
    Instant, Limits, Op, Pause, Plan, Policy, ProgramSpec, Reply, Snapshots, Span, Stimulus, Task, TaskDraft,
};

pub(crate) fn plan() -> Plan {
    let draft = TaskDraft {
        name: "leibniz".into(),
        platform: "x86_64-pc-linux-gnu".into(),
        program: ProgramSpec {
            path: "leibniz".into(),
            args: vec!["1000".into()],
            env: [("LC_ALL".into(), "C".into())].into(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: vec![FileIn { host: "leibniz".into(), guest: "leibniz".into(), executable: true }],
        files_out: vec![FileOut { guest: "stdout.txt".into(), host: "result.txt".into(), optional: false }],
        checkpoint: Some(CheckpointSpec { every: Span::from_millis(100), keep: 2 }),
        limits: Limits::default(),
    };
    let spec = draft.check().expect("its names are plain");
    let capabilities = Capabilities {
        linked_clones: true,
        snapshots: Snapshots::Many,
        pause: Pause::Native,
        guest_login: false,
        outlives_manager: false,
        disk: false,
    };
    Plan::new(&spec, Policy::default(), capabilities).expect("the toy can carry out this task")
}

/// Hands a message to the machine. A request that is denied is for whoever made it; the task goes on as before.
pub(crate) fn hand(task: &mut Task, now: Instant, message: Stimulus) {
    match message {
        Stimulus::Input(input) => drop(task.handle_input(now, input)),
        Stimulus::Request(request) => {
            if let Err(denied) = task.handle_request(now, request) {
                println!("{request}: {denied}");
            }
        }
    }
}

/// Milliseconds since the program started: the machine's notion of time.
pub(crate) struct Since(Clock);

impl Since {
    pub(crate) fn start() -> Self {
        Self(Clock::now())
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How long to wait for a timer of the machine; an hour if there is none, because any wait may end early.
    pub(crate) fn until(&self, timeout: Option<Instant>) -> Duration {
        timeout.map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.since(self.now()).as_millis().into()))
    }
}

/// A hypervisor that remembers its checkpoints and nothing else.
#[derive(Default)]
pub(crate) struct Toy {
    snapshots: Mutex<Generations>,
}

impl Toy {
    /// Blocks for a while, as real ones do: call it from a worker.
    pub(crate) fn carry_out(&self, command: &Command) -> Result<Reply, Fault> {
        thread::sleep(Duration::from_millis(5));
        let mut snapshots = self.snapshots.lock().expect("no holder panics");
        match command.op {
            Op::Probe => return Ok(Reply::Found(Found { snapshots: *snapshots, ..Found::default() })),
            Op::Provision(_) => return Ok(Reply::Provisioned { running: false }),
            Op::CommitSnapshot(generation) => {
                snapshots.insert(generation);
            }
            Op::RemoveSnapshot(generation) => {
                snapshots.remove(generation);
            }
            _ => {}
        }
        Ok(Reply::Done)
    }

    /// What the guest does by itself after `command`: the program ends half a second after its launch.
    pub(crate) fn afterwards(command: &Command) -> Option<(Duration, Stimulus)> {
        let event = Event::ProgramExited(ExitStatus::Code(0));
        (command.op == Op::Launch)
            .then_some((Duration::from_millis(500), Input::Observed { boot: command.boot, event }.into()))
    }
}
