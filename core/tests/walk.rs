//! Long random walks with answers that no hypervisor would give: whatever comes, the verdict is the table's, what is
//! ignored changes nothing, and no two commands are in flight.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use vmtask_core::table::{Expected, PhaseKind, Trigger, Verdict, expected, successors};
use vmtask_core::{
    Capabilities, CheckpointSpec, CommandId, Event, ExitStatus, Fault, FaultKind, FileIn, FileOut, Found, Generations,
    Input, Instant, Intent, JournalSeq, Limits, Machine, Op, Output, Pause, Phase, Plan, Policy, Power, Program,
    ProgramSpec, Record, Reply, Request, Snapshots, Span, TaskSpec,
};

/// splitmix64: the same walk for a seed on every computer.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

fn spec() -> TaskSpec {
    let file = |name: &str| FileIn { host: name.into(), guest: name.into(), executable: false };
    TaskSpec {
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

fn plan(guest_login: bool, no_files: bool) -> Plan {
    let capabilities = Capabilities {
        linked_clones: true,
        snapshots: Snapshots::Many,
        pause: Pause::Native,
        guest_login,
        outlives_manager: true,
        disk: false,
    };
    let mut spec = spec();
    if no_files {
        spec.files_in.clear();
        spec.files_out.clear();
    }
    Plan::new(&spec, Policy::default(), capabilities).unwrap()
}

const WALKS: u64 = 100_000;

#[derive(Default)]
struct Seen {
    cells: BTreeSet<(PhaseKind, Intent, Trigger, Verdict)>,
    steps: BTreeMap<(PhaseKind, PhaseKind), String>,
}

/// What a walk is like. Drawn anew for each: faults that are rare everywhere never meet.
struct Mood {
    fault_in: u64,
    request_in: u64,
    restart_in: u64,
    undrained_in: u64,
    event_in: u64,
    /// Requests only suspend and resume: others end a walk before much could happen in it.
    flaps: bool,
}

impl Mood {
    fn any(dice: &mut Dice) -> Self {
        let flaps = dice.one_in(4);
        let mut of = |choices: [u64; 3]| choices[usize::try_from(dice.roll(3)).unwrap()];
        Self {
            fault_in: of([3, 15, 200]),
            request_in: of([3, 10, 60]),
            restart_in: of([30, 200, 1000]),
            undrained_in: of([2, 6, 1000]),
            event_in: of([8, 25, 100]),
            flaps,
        }
    }
}

struct Walk<'a> {
    dice: Dice,
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

impl Walk<'_> {
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.dice.one_in(self.mood.undrained_in) {
                self.drain();
            }
            if self.machine.outcome().is_some() {
                return;
            }
            self.now += self.dice.roll(50);
            // While the program runs and nothing is in flight, timers are what makes things happen.
            let rests = self.machine.phase() == Phase::Running && self.machine.in_flight().is_none();
            if self.dice.one_in(if rests { 3 } else { 12 }) {
                self.time_passes();
            } else if self.dice.one_in(self.mood.restart_in) && self.durable.is_some() {
                self.restart();
            } else {
                let input = self.any_input();
                self.feed(input);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output(&self.plan) {
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
        self.machine = Machine::restore(self.durable.unwrap(), &self.plan, self.epoch).unwrap();
        self.written = None;
    }

    fn time_passes(&mut self) {
        if let Some(at) = self.machine.poll_timeout() {
            self.now = self.now.max(at.as_millis()) + if self.dice.one_in(10) { 1_000_000 } else { 0 };
        }
        let before = self.machine.phase();
        self.machine.handle_timeout(&self.plan, Instant::from_millis(self.now));
        self.check_step(before.into(), "a timer");
    }

    fn feed(&mut self, input: Input) {
        let now = Instant::from_millis(self.now);
        let (phase, intent) = (PhaseKind::from(self.machine.phase()), self.machine.intent());
        let trigger = Trigger::of(&self.machine, &input);
        // The clock may move in a call that is ignored otherwise: let it move first.
        let _ = self.machine.handle_input(&self.plan, now, Input::Persisted(JournalSeq(0)));
        let before = self.machine.canonical(now);
        let result = self.machine.handle_input(&self.plan, now, input);
        let verdict = Verdict::from(result);
        let cell = expected(phase, intent, trigger);
        assert!(cell.allows(verdict), "{phase:?} {intent:?} {trigger:?}: {result:?}, but the table says {cell}");
        if verdict != Verdict::Applied {
            assert_eq!(before, self.machine.canonical(now), "{phase:?} {intent:?} {trigger:?} was {result:?}");
        }
        if let (Input::Persisted(_), Verdict::Applied) = (input, verdict) {
            self.durable = self.written;
        }
        self.seen.cells.insert((phase, intent, trigger, verdict));
        self.check_step(phase, &format!("{intent:?} {input:?}"));
    }

    fn check_step(&mut self, from: PhaseKind, by: &str) {
        let to = PhaseKind::from(self.machine.phase());
        if from != to {
            self.seen.steps.entry((from, to)).or_insert_with(|| by.to_owned());
        }
    }

    fn any_input(&mut self) -> Input {
        let flight = self.machine.in_flight();
        if self.machine.phase() == Phase::Created && !self.dice.one_in(50) {
            return Input::Request(Request::Start);
        }
        if self.dice.one_in(self.mood.request_in) {
            return Input::Request(self.any_request());
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
            _ => Event::Progress { permille: 500, cpu_ms: self.now },
        };
        Input::Observed { boot, event }
    }

    fn any_answer(&mut self, op: Op) -> Result<Reply, Fault> {
        // What fails at first leaves room for a request to be taken back.
        if matches!(op, Op::Pause | Op::RemoveSnapshot(_) | Op::BeginSnapshot(_)) && self.dice.one_in(2) {
            let kind = FaultKind::ALL[usize::try_from(self.dice.roll(16).saturating_sub(8)).unwrap()];
            return Err(Fault::new(kind));
        }
        if self.dice.one_in(self.mood.fault_in) {
            let kind = FaultKind::ALL[usize::try_from(self.dice.roll(8)).unwrap()];
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
        let snapshots = self.begun.iter().filter(|_| !self.dice.0.is_multiple_of(3)).collect();
        Found { registered: self.dice.one_in(2), power, program, snapshots }
    }
}

#[test]
fn every_verdict_of_a_random_walk_is_the_tables_and_every_step_is_in_the_diagram() {
    let mut seen = Seen::default();
    for seed in 0..WALKS {
        let plan = plan(seed % 3 == 0, seed % 5 == 0);
        let mut dice = Dice(seed);
        let machine = Machine::new(&plan, 1 << 32);
        Walk {
            mood: Mood::any(&mut dice),
            dice,
            plan,
            machine,
            now: 0,
            epoch: 1 << 32,
            durable: None,
            written: None,
            last: CommandId { epoch: 0, seq: 0 },
            begun: Generations::NONE,
            seen: &mut seen,
        }
        .run(600);
    }
    let unexpected: Vec<_> = seen.steps.iter().filter(|((from, to), _)| !successors(*from).contains(to)).collect();
    assert!(unexpected.is_empty(), "steps that the diagram does not have: {unexpected:#?}");
    let mut unseen = Vec::new();
    for from in PhaseKind::ALL {
        unseen.extend(successors(from).iter().map(|&to| (from, to)).filter(|step| !seen.steps.contains_key(step)));
    }
    assert!(unseen.is_empty(), "steps of the diagram that were not seen: {unseen:?}");
    let met: BTreeSet<_> = seen.cells.iter().map(|&(phase, _, trigger, _)| (phase, trigger)).collect();
    let unmet: Vec<_> = possible().filter(|cell| !met.contains(cell)).collect();
    assert!(unmet.is_empty(), "phases in which a trigger that is possible was not met: {unmet:?}");
}

/// Every phase and trigger that the table calls possible under some intent.
fn possible() -> impl Iterator<Item = (PhaseKind, Trigger)> {
    PhaseKind::ALL.into_iter().flat_map(|phase| {
        Trigger::ALL.into_iter().map(move |trigger| (phase, trigger)).filter(|&(phase, trigger)| {
            Intent::ALL.iter().any(|&intent| !matches!(expected(phase, intent, trigger), Expected::Impossible(_)))
        })
    })
}
