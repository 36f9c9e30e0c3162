//! A hand on the machine: answers what the test does not want to answer itself.

#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::collections::BTreeMap;

use vmtask_core::{
    Accepted, Base, Capabilities, CheckpointSpec, Command, Denied, Event, ExitStatus, Fault, FaultKind, FileIn,
    FileOut, Found, Generations, Input, Instant, Limits, Op, OpKind, Outcome, Output, Pause, Phase, Plan, Policy,
    Power, Program, ProgramSpec, Record, Reply, Report, Request, Snapshots, Span, Task, TaskDraft, TaskSpec,
};

pub(crate) fn draft() -> TaskDraft {
    TaskDraft {
        name: "leibniz".into(),
        platform: "x86_64-pc-linux-gnu".into(),
        program: ProgramSpec {
            path: "leibniz".into(),
            args: vec!["1000".into()],
            env: BTreeMap::new(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: vec![FileIn { host: "leibniz".into(), guest: "leibniz".into(), executable: true }],
        files_out: vec![
            FileOut { guest: "stdout.txt".into(), host: "stdout.txt".into(), optional: false },
            FileOut { guest: "more.txt".into(), host: "more.txt".into(), optional: false },
        ],
        checkpoint: Some(CheckpointSpec { every: Span::from_secs(300), keep: 2 }),
        limits: Limits { run_ms: Some(24 * 3600 * 1000), ..Limits::default() },
    }
}

pub(crate) fn spec() -> TaskSpec {
    draft().check().unwrap()
}

pub(crate) const ALL_IT_TAKES: Capabilities = Capabilities {
    linked_clones: true,
    snapshots: Snapshots::Many,
    pause: Pause::Native,
    guest_login: false,
    outlives_manager: true,
    disk: true,
};

pub(crate) fn plan() -> Plan {
    Plan::new(&spec(), Policy { jitter_percent: 0, ..Policy::default() }, ALL_IT_TAKES).unwrap()
}

/// A task, a clock that only the test moves, and a journal that is as fast as the test wants.
pub(crate) struct Hand {
    pub(crate) task: Task,
    pub(crate) now: u64,
    /// Whether records become durable at once.
    pub(crate) fast_disk: bool,
    pub(crate) written: Option<Record>,
    pub(crate) durable: Option<Record>,
    pub(crate) command: Option<Command>,
    /// Everything that was handed out since the last [`Hand::log`].
    log: Vec<String>,
    /// What a probe finds.
    pub(crate) found: Found,
}

impl Hand {
    pub(crate) fn new() -> Self {
        Self::with(Task::new(plan(), 1))
    }

    pub(crate) fn with(task: Task) -> Self {
        Self {
            task,
            now: 0,
            fast_disk: true,
            written: None,
            durable: None,
            command: None,
            log: vec![],
            found: Found::default(),
        }
    }

    /// A task whose program has just been launched.
    pub(crate) fn running() -> Self {
        let mut hand = Self::new();
        hand.request(Request::Start).unwrap();
        hand.answer_until(|hand| hand.task.phase() == Phase::Running);
        hand.log();
        hand
    }

    /// The next manager, on what is durable.
    pub(crate) fn restarted(&self, epoch: u64) -> Self {
        let task = Task::restore(self.durable.unwrap(), plan(), epoch).unwrap();
        let mut hand = Self { durable: self.durable, found: self.found, ..Self::with(task) };
        hand.drain();
        hand
    }

    pub(crate) fn feed(&mut self, input: Input) -> Accepted {
        let accepted = self.task.handle_input(Instant::from_millis(self.now), input);
        self.drain();
        accepted
    }

    pub(crate) fn request(&mut self, request: Request) -> Result<Accepted, Denied> {
        let verdict = self.task.handle_request(Instant::from_millis(self.now), request);
        self.drain();
        verdict
    }

    pub(crate) fn event(&mut self, event: Event) -> Accepted {
        let boot = self.task.machine().boot();
        self.feed(Input::Observed { boot, event })
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.task.poll_output() {
            match output {
                Output::Persist(record) => {
                    self.log.push(format!("persist {}", record.seq));
                    self.written = Some(record);
                    if self.fast_disk {
                        self.disk_is_done();
                    }
                }
                Output::Command(command) => {
                    if !(command.op == Op::Probe && self.task.phase() == Phase::Running) {
                        self.log.push(format!("command {command}"));
                    }
                    self.command = Some(command);
                }
                Output::Fence(_) => self.log.push("fence".into()),
                Output::Report(Report::Phase(_)) => {}
                Output::Report(Report::Notice(notice)) => self.log.push(format!("notice: {notice}")),
                Output::Report(Report::Checkpoint { generation, .. }) => {
                    self.log.push(format!("checkpoint {generation}"));
                }
                Output::Report(Report::Ended { outcome, leftover }) => {
                    let leftover = leftover.map_or(String::new(), |leftover| format!("; {leftover}"));
                    self.log.push(format!("{outcome}{leftover}"));
                }
                Output::Report(Report::Progress { .. }) => {}
            }
        }
    }

    /// The last record that was written is durable now.
    pub(crate) fn disk_is_done(&mut self) {
        let Some(record) = self.written.take() else { return };
        self.durable = Some(record);
        let _ = self.feed(Input::Persisted(record.seq));
    }

    /// Answers the command in flight.
    pub(crate) fn answer(&mut self, result: Result<Reply, Fault>) -> Accepted {
        let command = self.command.take().unwrap_or_else(|| panic!("nothing in flight in {:?}", self.task.phase()));
        if result == Ok(Reply::Done) {
            self.take_effect(command.op);
        }
        self.feed(Input::Completed { id: command.id, result })
    }

    /// What the world looks like to a later probe.
    fn take_effect(&mut self, op: Op) {
        match op {
            Op::Register => self.found.registered = true,
            Op::PowerOn => self.found.power = Power::On,
            Op::Launch => self.found.program = Program::Running,
            Op::Pause => self.found.power = Power::Paused,
            Op::Unpause => self.found.power = Power::On,
            Op::CommitSnapshot(generation) => {
                self.found.snapshots.insert(generation);
            }
            Op::RemoveSnapshot(generation) => {
                self.found.snapshots.remove(generation);
            }
            Op::PowerOff => (self.found.power, self.found.program) = (Power::Off, Program::Unknown),
            _ => {}
        }
    }

    pub(crate) fn fail(&mut self, kind: FaultKind) -> Accepted {
        self.answer(Err(Fault::new(kind)))
    }

    /// Answers as a hypervisor would that does what it is told.
    pub(crate) fn succeed(&mut self) {
        let op = self.command.unwrap_or_else(|| panic!("nothing in flight in {:?}", self.task.phase())).op;
        let reply = match op {
            Op::Probe => Reply::Found(self.found),
            Op::Provision(base) => {
                // The program is part of a checkpoint.
                let restored = base != Base::Baseline;
                self.found.program = if restored { Program::Running } else { Program::NotStarted };
                Reply::Provisioned { running: false }
            }
            _ => Reply::Done,
        };
        let _ = self.answer(Ok(reply));
    }

    /// Answers what is in flight, or lets time pass until the next timer.
    pub(crate) fn succeed_or_wait(&mut self) {
        if self.command.is_some() {
            self.succeed();
        } else if let Some(at) = self.task.poll_timeout() {
            self.now = self.now.max(at.as_millis());
            self.timeout();
        }
    }

    pub(crate) fn answer_until(&mut self, there: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            if there(self) {
                return;
            }
            self.succeed_or_wait();
        }
        panic!("never came there; now in {:?}: {:#?}", self.task.phase(), self.log);
    }

    pub(crate) fn until_flying(&mut self, kind: OpKind) {
        self.answer_until(|hand| hand.command.is_some_and(|command| command.op.kind() == kind));
    }

    pub(crate) fn until_ended(&mut self) -> Outcome {
        self.answer_until(|hand| hand.task.outcome().is_some());
        self.task.outcome().unwrap()
    }

    pub(crate) fn timeout(&mut self) {
        self.task.handle_timeout(Instant::from_millis(self.now));
        self.drain();
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = self.now + u64::from(span.as_millis());
        while let Some(at) = self.task.poll_timeout().filter(|at| at.as_millis() <= end) {
            self.now = self.now.max(at.as_millis());
            self.timeout();
            // The machine looks after a program that is silent for long.
            if self.task.phase() == Phase::Running && self.command.is_some_and(|command| command.op == Op::Probe) {
                self.succeed();
            }
        }
        self.now = end;
    }

    pub(crate) fn fenced(&mut self, survived: bool) -> Accepted {
        let id = self.task.machine().awaited_fence().unwrap();
        if !survived {
            self.found = Found { snapshots: self.found.snapshots, ..Found::default() };
        }
        self.command = None;
        self.feed(Input::Fenced { id, survived })
    }

    /// What was handed out since the last call, a line each.
    pub(crate) fn log(&mut self) -> String {
        std::mem::take(&mut self.log).join("\n")
    }
}

pub(crate) const EXIT_0: Event = Event::ProgramExited(ExitStatus::Code(0));

pub(crate) fn generations(numbers: &[u32]) -> Generations {
    numbers.iter().map(|&n| vmtask_core::Generation(n)).collect()
}
