//! A walk: one machine that is told whatever a source of numbers says, also what no hypervisor would say.
//!
//! After each input the verdict is compared with the table's, what is ignored must change nothing, no two commands are
//! in flight, and each drain ends. Random numbers drive it in `walk.rs`, a fuzzer's bytes in the workspace's `fuzz`.

use std::collections::{BTreeMap, BTreeSet};

use vmtask_core::table::{PhaseKind, Trigger, Verdict, expected};
use vmtask_core::{
    CheckpointSpec, CommandId, Event, ExitStatus, Fault, FaultKind, FileIn, FileOut, Found, Generations, Input,
    Instant, Intent, JournalSeq, Limits, Machine, Op, Output, Phase, Plan, Power, Program, ProgramSpec, Record, Reply,
    Request, Span, Stimulus, TaskDraft,
};

/// More outputs than this in one drain, and the machine's outbox is not bounded.
const MAX_OUTBOX: usize = 24;

/// How many kinds of fault there are.
const KINDS: u64 = FaultKind::ALL.len() as u64;

/// Where the numbers come from.
pub(crate) trait Dice {
    /// One of the numbers below `sides`, which is at least 1.
    fn roll(&mut self, sides: u64) -> u64;

    /// Whether there are no more.
    fn are_spent(&self) -> bool {
        false
    }

    /// Whether something happens that happens once in `n` times.
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

/// A task with two files in, one out, checkpoints and a limit.
pub(crate) fn spec() -> TaskDraft {
    let file = |name: &str| FileIn { host: name.into(), guest: name.into(), executable: false };
    TaskDraft {
        name: "walk".into(),
        platform: "x86_64-pc-linux-gnu".into(),
        program: ProgramSpec {
            path: "program".into(),
            args: vec![],
            env: BTreeMap::new(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: vec![file("program"), file("input")],
        files_out: vec![FileOut { guest: "out".into(), host: "out".into(), optional: false }],
        checkpoint: Some(CheckpointSpec { every: Span::from_secs(60), keep: 2 }),
        limits: Limits { run_ms: Some(1000 * 3600), ..Limits::default() },
    }
}

/// What has been met.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every cell of the table, and the verdict.
    pub(crate) cells: BTreeSet<(PhaseKind, Intent, Trigger, Verdict)>,
    /// Every step from one phase to another, and what was the first to cause it.
    pub(crate) steps: BTreeMap<(PhaseKind, PhaseKind), String>,
}

/// What a walk is like. Drawn anew for each: faults that are rare everywhere never meet.
pub(crate) struct Mood {
    fault_in: u64,
    request_in: u64,
    restart_in: u64,
    undrained_in: u64,
    event_in: u64,
    journal_lost_in: u64,
    /// Requests only suspend and resume: others end a walk before much could happen in it.
    flaps: bool,
}

impl Mood {
    /// Any.
    pub(crate) fn any(dice: &mut impl Dice) -> Self {
        let flaps = dice.one_in(4);
        let mut of = |choices: [u64; 3]| choices[usize::try_from(dice.roll(3)).unwrap()];
        Self {
            fault_in: of([3, 15, 200]),
            request_in: of([3, 10, 60]),
            restart_in: of([30, 200, 1000]),
            undrained_in: of([2, 6, 1000]),
            event_in: of([8, 25, 100]),
            journal_lost_in: of([300, 3000, 1_000_000]),
            flaps,
        }
    }
}

/// A machine, and what its world remembers.
pub(crate) struct Walk<'a, D> {
    dice: D,
    mood: Mood,
    plan: Plan,
    machine: Machine,
    now: u64,
    epoch: u64,
    durable: Option<Record>,
    written: Option<Record>,
    last: CommandId,
    begun: Generations,
    seen: &'a mut Seen,
}

impl<'a, D: Dice> Walk<'a, D> {
    /// A machine that has not been started.
    pub(crate) fn new(mut dice: D, plan: Plan, seen: &'a mut Seen) -> Self {
        let epoch = 1 << 32;
        Self {
            mood: Mood::any(&mut dice),
            dice,
            machine: Machine::new(epoch),
            plan,
            now: 0,
            epoch,
            durable: None,
            written: None,
            last: CommandId { epoch: 0, seq: 0 },
            begun: Generations::NONE,
            seen,
        }
    }

    /// Lets one thing happen; false once the task has ended, or the numbers are spent.
    pub(crate) fn step(&mut self) -> bool {
        if !self.dice.one_in(self.mood.undrained_in) {
            self.drain();
        }
        if self.machine.outcome().is_some() || self.dice.are_spent() {
            return false;
        }
        self.now += self.dice.roll(50);
        // While the program runs and nothing is in flight, timers are what makes things happen.
        let rests = self.machine.phase() == Phase::Running && self.machine.in_flight().is_none();
        if self.dice.one_in(if rests { 3 } else { 12 }) {
            self.time_passes();
        } else if self.dice.one_in(self.mood.restart_in) && self.durable.is_some() {
            self.restart();
        } else {
            let stimulus = self.any_stimulus();
            self.feed(stimulus);
        }
        true
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.machine.poll_output(&self.plan) {
            outputs += 1;
            assert!(outputs <= MAX_OUTBOX, "{outputs} outputs in one drain, the last of them {output:?}");
            match output {
                Output::Persist(record) => self.written = Some(record),
                Output::Command(command) => {
                    assert_eq!(self.machine.in_flight(), Some((command.id, command.op)));
                    assert!(self.machine.awaited_fence().is_none(), "a command beside a fence");
                    assert!(command.id.seq > self.last.seq || command.id.epoch != self.last.epoch, "an id twice");
                    self.last = command.id;
                    if let Op::BeginSnapshot(generation) = command.op {
                        self.begun.insert(generation);
                    }
                }
                Output::Fence(_) | Output::Report(_) => {}
            }
        }
    }

    fn restart(&mut self) {
        self.epoch += 1;
        // A record that nobody knows to be durable may be found on the disk all the same.
        let found = if self.dice.one_in(2) { self.written.or(self.durable) } else { self.durable };
        self.machine = Machine::restore(found.unwrap(), &self.plan, self.epoch).unwrap();
        self.durable = found;
        self.written = None;
    }

    fn time_passes(&mut self) {
        if let Some(at) = self.machine.poll_timeout() {
            self.now = self.now.max(at.as_millis()) + if self.dice.one_in(10) { 1_000_000 } else { 0 };
        }
        let before = self.machine.phase();
        self.machine.handle_timeout(&self.plan, Instant::from_millis(self.now));
        self.check_step(before.into(), || "a timer".to_owned());
    }

    fn feed(&mut self, stimulus: Stimulus) {
        let now = Instant::from_millis(self.now);
        let (phase, intent) = (PhaseKind::from(self.machine.phase()), self.machine.intent());
        let trigger = Trigger::of(&self.machine, &stimulus);
        // The clock may move in a call that is ignored otherwise: let it move first.
        let _ = self.machine.handle_input(&self.plan, now, Input::Persisted(JournalSeq(0)));
        let before = self.machine.canonical(now);
        let result = stimulus.tell(&mut self.machine, &self.plan, now);
        let verdict = Verdict::from(result);
        let cell = expected(phase, intent, trigger);
        assert!(cell.allows(verdict), "{phase:?} {intent:?} {trigger:?}: {result:?}, but the table says {cell}");
        if verdict != Verdict::Applied {
            assert_eq!(before, self.machine.canonical(now), "{phase:?} {intent:?} {trigger:?} was {result:?}");
        }
        if let (Stimulus::Input(Input::Persisted(_)), Verdict::Applied) = (stimulus, verdict) {
            self.durable = self.written;
        }
        self.seen.cells.insert((phase, intent, trigger, verdict));
        self.check_step(phase, || format!("{intent:?} {stimulus:?}"));
    }

    fn check_step(&mut self, from: PhaseKind, by: impl FnOnce() -> String) {
        let to = PhaseKind::from(self.machine.phase());
        if from != to {
            self.seen.steps.entry((from, to)).or_insert_with(by);
        }
    }

    fn any_stimulus(&mut self) -> Stimulus {
        if self.machine.phase() == Phase::Created && !self.dice.one_in(50) {
            return Request::Start.into();
        }
        if self.dice.one_in(self.mood.request_in) {
            return self.any_request().into();
        }
        self.any_input().into()
    }

    fn any_input(&mut self) -> Input {
        let flight = self.machine.in_flight();
        if self.dice.one_in(self.mood.journal_lost_in) {
            return Input::JournalLost;
        }
        if self.dice.one_in(self.mood.event_in) {
            return self.any_event();
        }
        match self.dice.roll(40) {
            0 => self.any_event(),
            1 => Input::Completed { id: CommandId { epoch: self.epoch, seq: 999_999 }, result: Ok(Reply::Done) },
            2 => Input::Completed { id: CommandId { epoch: 7, seq: 1 }, result: Ok(Reply::Done) },
            3 => Input::Fenced { id: CommandId { epoch: self.epoch, seq: 999_999 }, survived: true },
            4 => Input::Persisted(JournalSeq(1_000_000)),
            5..=14 => Input::Persisted(self.written.map_or(JournalSeq(0), |r| r.seq)),
            _ => match (flight, self.machine.awaited_fence()) {
                (Some((id, op)), _) => Input::Completed { id, result: self.any_answer(op) },
                (None, Some(id)) => Input::Fenced { id, survived: self.dice.one_in(2) },
                (None, None) => Input::Persisted(self.written.map_or(JournalSeq(0), |r| r.seq)),
            },
        }
    }

    fn any_request(&mut self) -> Request {
        match self.dice.roll(if self.mood.flaps { 8 } else { 14 }) {
            0..=3 => Request::Suspend,
            4..=7 => Request::Resume,
            8..=9 => Request::Checkpoint,
            10 => Request::Start,
            11 => Request::Abort,
            _ => Request::Quit { budget_ms: u32::try_from(self.dice.roll(3) * 20_000).unwrap() },
        }
    }

    fn any_event(&mut self) -> Input {
        let mut boot = self.machine.boot();
        if self.dice.one_in(4) {
            boot.seq = boot.seq.wrapping_sub(1);
        }
        let event = match self.dice.roll(8) {
            0 => Event::ProgramExited(ExitStatus::Code(0)),
            1 => Event::GuestStopped,
            2 => Event::GuestRebooted,
            _ => Event::Progress { permille: Some(500), cpu_ms: self.now },
        };
        Input::Observed { boot, event }
    }

    fn any_answer(&mut self, op: Op) -> Result<Reply, Fault> {
        // What fails at first leaves room for a request to be taken back.
        if matches!(op, Op::Pause | Op::RemoveSnapshot(_) | Op::BeginSnapshot(_)) && self.dice.one_in(2) {
            let kind = FaultKind::ALL[usize::try_from(self.dice.roll(2 * KINDS).saturating_sub(KINDS)).unwrap()];
            return Err(Fault::new(kind));
        }
        if self.dice.one_in(self.mood.fault_in) {
            let kind = FaultKind::ALL[usize::try_from(self.dice.roll(KINDS)).unwrap()];
            return Err(Fault::new(kind));
        }
        // Now and then a reply that the op cannot have: a broken adapter must not break the machine.
        if self.dice.one_in(60) {
            return Ok(if self.dice.one_in(2) { Reply::Pending } else { Reply::Provisioned { running: true } });
        }
        Ok(match op {
            Op::Probe => Reply::Found(self.any_finding()),
            Op::Provision(_) => Reply::Provisioned { running: self.dice.one_in(2) },
            _ if op.kind().is_sliced() && self.dice.one_in(2) => Reply::Pending,
            _ => Reply::Done,
        })
    }

    fn any_finding(&mut self) -> Found {
        let program = match self.dice.roll(6) {
            0 => Program::Unknown,
            1 => Program::NotStarted,
            2 => Program::Exited(ExitStatus::Code(3)),
            _ => Program::Running,
        };
        let power = match self.dice.roll(8) {
            0..=2 => Power::Off,
            3 => Power::Paused,
            _ => Power::On,
        };
        let lost = self.dice.one_in(3);
        let snapshots = self.begun.iter().filter(|_| !lost).collect();
        let damaged = self.begun.iter().filter(|_| self.dice.one_in(8)).collect();
        Found { registered: self.dice.one_in(2), power, program, snapshots, damaged }
    }
}
