//! One machine in its world: commands being carried out, messages on their way, a journal on disk, and a clock.
//!
//! ```text
//!            +---------+  commands   worker ---> World ---> replies --+
//!            |         | ----------> fencer ---> World --------------->|
//!      +---> | Machine |  records                                      |  at most one of these happens in a step
//!      |     |         | ----------> writer ---> Disk  --------------->|
//!      |     +---------+             World: steps, exits ---> events ->|
//!      +---------------------------------------------------------------+
//! ```
//!
//! A step lets the machine hand out what it has, asks the [`Director`] whether something special happens now, and if
//! not, lets the next thing happen that is due. A system is a plain value: clone it to try both ways.

mod due;
mod equal;
mod will;

use vmtask_core::{
    Accepted, Boot, Cause, Command, CommandId, Event, Fault, FaultKind, Input, Instant, JournalSeq, Machine, OpKind,
    Outcome, Output, Phase, Power, Record, Reply, Stimulus, WaitsFor,
};

use crate::act::{Act, Breadth, Director, Mark, Moment, Options, command_options, phase_key};
use crate::disk::Disk;
use crate::invariant::{self, Spy, Violation};
use crate::scenario::{Scenario, TICK};
use crate::trace::Told;
use crate::world::World;

/// How much may still go otherwise than it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// So many faults.
    pub faults: u8,
    /// So many requests.
    pub requests: u8,
    /// So many of both together.
    pub acts: u8,
}

impl Budget {
    /// So many faults and so many requests.
    #[must_use]
    pub const fn of(faults: u8, requests: u8) -> Self {
        Self { faults, requests, acts: faults.saturating_add(requests) }
    }

    /// The same, but no more than so many together.
    #[must_use]
    pub fn at_most(self, acts: u8) -> Self {
        let acts = acts.min(self.acts);
        // What can never be spent is not there: budgets that allow the same are equal.
        Self { faults: self.faults.min(acts), requests: self.requests.min(acts), acts }
    }

    fn spend(&mut self, act: Act) {
        let left = if act.is_request() { &mut self.requests } else { &mut self.faults };
        *left -= 1;
        *self = self.at_most(self.acts - 1);
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_spent(self) -> bool {
        self.faults == 0 && self.requests == 0
    }
}

/// Machine, world, and everything between them.
#[derive(Clone, Debug)]
pub struct System {
    /// The machine under test.
    pub machine: Machine,
    /// Ground truth.
    pub world: World,
    /// The journal.
    pub disk: Disk,
    /// What may still go wrong.
    pub budget: Budget,
    /// What is tried.
    pub breadth: Breadth,
    /// What the invariants remember.
    pub(crate) spy: Spy,
    /// Which manager this is.
    epoch: u64,
    /// True time, in milliseconds.
    now: u64,
    /// By how much the manager's clock is off.
    skew: i64,
    /// The latest time that the present machine was told.
    told: Instant,
    start_due: bool,
    pub(crate) worker: Option<Job>,
    /// Commands that hang and act later.
    late: [Option<Late>; 3],
    replies: [Option<Mail<Answered>>; 6],
    events: [Option<Mail<(Boot, Event)>>; 6],
    pub(crate) writer: Option<Writing>,
    pub(crate) queued: Option<Record>,
    pub(crate) fencer: Option<Fencing>,
    counts: Counts,
    mark: Mark,
    phase: Phase,
    phase_since: u64,
    /// [`Scenario::interval`].
    interval: Option<u64>,
    /// By how much later clocks that jumped have made the timers of this phase.
    behind: u64,
    trouble: Option<Trouble>,
}

/// What fails until somebody mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trouble {
    /// Commands of this kind.
    Op(OpKind, FaultKind),
    /// Records are never durable, until the next manager.
    Journal,
    /// Records, and whatever needs room.
    DiskFull,
}

impl Trouble {
    const fn fails(self, op: OpKind) -> Option<FaultKind> {
        match self {
            Self::Op(kind, fault) if kind as u8 == op as u8 => Some(fault),
            Self::DiskFull
                if matches!(
                    op,
                    OpKind::BeginSnapshot | OpKind::CommitSnapshot | OpKind::CopyOut | OpKind::Provision
                ) =>
            {
                Some(FaultKind::NoSpace)
            }
            _ => None,
        }
    }
}

/// An answer to a command.
type Answered = (CommandId, Result<Reply, Fault>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) command: Command,
    at: u64,
    /// When an answer comes too late.
    too_late: u64,
    act: Option<Act>,
    nth: u16,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    command: Command,
    steps: u8,
}

/// Something on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mail<T> {
    pub(crate) at: u64,
    /// What its arrival is named after; 0 for what has no name of its own: the second copy of a message, and what was
    /// meant for another manager. Two arrivals of the same name would make two moments of the same name.
    nth: u16,
    kind: OpKind,
    pub(crate) what: T,
}

/// A record that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    at: u64,
    nth: u16,
    pub(crate) record: Record,
    act: Option<Act>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fencing {
    id: CommandId,
    at: u64,
    nth: u16,
    dies: bool,
}

/// For names: never part of what makes two states equal.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    ops: [u16; OpKind::ALL.len()],
    writes: u16,
    fences: u16,
    events: u16,
    timers: u16,
    steps: u16,
    late: u16,
    done: u16,
    other: u16,
}

/// How a run stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It goes on.
    Going,
    /// The task has come to an end that is final: completed or aborted.
    Over(Outcome),
}

/// More outputs than this in one drain, and the machine's outbox is not bounded.
const MAX_OUTBOX: usize = 24;
/// What a manager's clock says when it starts, in milliseconds: so that it can be set back, too.
const BEFORE: i64 = 3_600_000;
/// How long a user leaves a task suspended.
const SUSPENDED: u64 = 2 * TICK;

impl System {
    /// A machine that has not been started, in a world where nothing has happened.
    #[must_use]
    pub fn new(scenario: &Scenario, budget: Budget) -> Self {
        Self {
            machine: Machine::new(1),
            world: World::new(),
            disk: Disk::default(),
            budget,
            breadth: Breadth::default(),
            spy: Spy::default(),
            epoch: 1,
            now: 0,
            skew: BEFORE,
            told: Instant::ZERO,
            start_due: true,
            worker: None,
            late: [None; 3],
            replies: [None; 6],
            events: [None; 6],
            writer: None,
            queued: None,
            fencer: None,
            counts: Counts::default(),
            mark: Mark::Start,
            phase: Phase::Created,
            phase_since: 0,
            interval: scenario.interval,
            behind: 0,
            trouble: None,
        }
    }

    /// True time, in milliseconds since the run began.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// How often a manager was started after the first.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.epoch - 1
    }

    /// What the manager's clock says.
    #[must_use]
    pub fn machine_now(&self) -> Instant {
        Instant::from_millis(self.now.saturating_add_signed(self.skew))
    }

    /// What the machine takes for the time: one that was told to it does not go back.
    pub(crate) fn machine_believes(&self) -> Instant {
        self.machine_now().max(self.told)
    }

    /// The next thing that happens, and everything that the machine does about it.
    ///
    /// # Errors
    /// If a promise is broken.
    pub fn step(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<Status, Violation> {
        let happened = self.mark;
        self.drain(scenario, director)?;
        self.note_phase();
        invariant::always(self)?;
        if let Some(outcome) = self.machine.outcome() {
            invariant::at_end(self, scenario, outcome)?;
            if matches!(outcome, Outcome::Completed { .. } | Outcome::Aborted) {
                return Ok(Status::Over(outcome));
            }
            if Self::is_hopeless(outcome) {
                return Ok(Status::Over(outcome));
            }
            self.world.lose_manager(scenario);
            if matches!(outcome, Outcome::Failed { .. }) {
                self.mended();
            }
            self.start_manager(scenario, director)?;
            self.mark_other();
            self.spy.off = self.elapsed_off(scenario);
            return Ok(Status::Going);
        }
        if !self.interfere(scenario, director, happened)? {
            self.proceed(scenario, director)?;
        }
        self.spy.off = self.elapsed_off(scenario);
        Ok(Status::Going)
    }

    // ---- what the machine hands out ----

    fn drain(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        for _ in 0..MAX_OUTBOX {
            let Some(output) = self.machine.poll_output(scenario.plan()) else { return invariant::on_drained(self) };
            director.tell(self.now, &Told::Output(output));
            match output {
                Output::Persist(record) => {
                    invariant::on_record(self, scenario, &record)?;
                    self.queued = Some(record);
                    self.start_writing(scenario, director);
                }
                Output::Command(command) => {
                    invariant::on_command(self, scenario, &command)?;
                    self.hand_out(scenario, director, command);
                }
                Output::Fence(id) => {
                    self.spy.fence(id)?;
                    self.ask_for_fence(scenario, director, id);
                }
                Output::Report(report) => invariant::on_report(self, scenario, &report)?,
            }
        }
        Err(Violation::OutboxUnbounded)
    }

    /// Asks whether something special happens, within the budget.
    fn consult(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        moment: Moment,
        options: &mut Options,
    ) -> Option<Act> {
        if options.as_slice().is_empty() {
            return None;
        }
        director.widen(&moment, options);
        let options = options.as_slice();
        let act = *options.get(director.direct(&moment, options).checked_sub(1)?)?;
        director.tell(self.now, &Told::Act(act));
        self.budget.spend(act);
        if !act.is_request() {
            self.spy.went_wrong(scenario, act);
        }
        Some(act)
    }

    fn hand_out(&mut self, scenario: &Scenario, director: &mut impl Director, command: Command) {
        let kind = command.op.kind();
        let count = &mut self.counts.ops[kind.index()];
        *count += 1;
        let nth = *count;
        let mut options = Options::new();
        let fails = self.trouble.and_then(|trouble| trouble.fails(kind));
        if self.budget.faults > 0 && fails.is_none() {
            command_options(command.op, self.breadth, &self.world, &mut options);
        }
        let mut act = self.consult(scenario, director, Moment::Command(kind, nth), &mut options);
        if let Some(Act::Lasting(fault)) = act {
            self.trouble = Some(Trouble::Op(kind, fault));
            act = Some(Act::Fail(fault));
        }
        let act = fails.map(Act::Fail).or(act);
        let takes = if kind.is_sliced() { TICK } else { 0 } + if act == Some(Act::Slow) { TICK } else { 0 };
        if let Some(stuck) = self.worker.take() {
            // The machine has given up on it; the worker has not.
            self.keep_late(stuck.command, 1);
        }
        match act {
            Some(Act::Hang(None)) => {}
            Some(Act::Hang(Some(steps))) => self.keep_late(command, steps),
            _ => {
                let deadline = command.deadline.as_millis().saturating_add_signed(-self.skew);
                self.worker = Some(Job { command, at: self.now + takes, too_late: deadline + TICK, act, nth });
            }
        }
        self.mark = Mark::Before(kind, nth);
    }

    fn keep_late(&mut self, command: Command, steps: u8) {
        if let Some(place) = self.late.iter_mut().find(|l| l.is_none()) {
            *place = Some(Late { command, steps });
        }
    }

    fn start_writing(&mut self, scenario: &Scenario, director: &mut impl Director) {
        if self.writer.is_some() {
            return;
        }
        let Some(record) = self.queued.take() else { return };
        if matches!(self.trouble, Some(Trouble::Journal | Trouble::DiskFull)) {
            return;
        }
        self.counts.writes += 1;
        let nth = self.counts.writes;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            options.push(Act::SlowWrite);
            options.push(Act::WriteFails);
            options.push(Act::Tear);
            options.push(Act::JournalHangs);
            options.push(Act::JournalGone);
            options.push(Act::DiskFull);
        }
        let act = self.consult(scenario, director, Moment::Write(nth), &mut options);
        match act {
            Some(Act::JournalHangs | Act::JournalGone) => self.trouble = Some(Trouble::Journal),
            Some(Act::DiskFull) => self.trouble = Some(Trouble::DiskFull),
            _ => {}
        }
        if matches!(act, Some(Act::JournalHangs | Act::DiskFull)) {
            return;
        }
        let at = self.now + if matches!(act, Some(Act::SlowWrite | Act::WriteFails)) { TICK } else { 0 };
        self.writer = Some(Writing { at, nth, record, act });
    }

    fn ask_for_fence(&mut self, scenario: &Scenario, director: &mut impl Director, id: CommandId) {
        self.counts.fences += 1;
        let nth = self.counts.fences;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            options.push(Act::VmDies);
            options.push(Act::FenceHangs);
        }
        let act = self.consult(scenario, director, Moment::Fence(nth), &mut options);
        if act != Some(Act::FenceHangs) {
            self.fencer = Some(Fencing { id, at: self.now, nth, dies: act == Some(Act::VmDies) });
        }
    }

    /// Hands an input to the machine, and checks that one that it ignores changes nothing.
    fn tell_machine(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        stimulus: impl Into<Stimulus>,
    ) -> Result<Option<Accepted>, Violation> {
        let stimulus = stimulus.into();
        let now = self.machine_now();
        self.told = self.told.max(now);
        director.before(&self.machine, &stimulus);
        let before = self.machine.clone();
        let verdict = stimulus.tell(&mut self.machine, scenario.plan(), now);
        director.tell(self.now, &Told::Input(stimulus, verdict));
        invariant::on_verdict(&before, &self.machine, now, stimulus, verdict)?;
        self.spy.heard(before.phase(), stimulus, verdict)?;
        Ok(verdict.ok())
    }

    /// Whether it would end like this again and again, until somebody raises the limit.
    const fn is_hopeless(outcome: Outcome) -> bool {
        matches!(outcome, Outcome::Failed { cause: Cause::RunLimit })
    }

    /// Somebody has looked after what had failed, an hour later.
    const fn mended(&mut self) {
        self.trouble = None;
        self.now += 3_600_000;
    }

    const fn mark_other(&mut self) {
        self.counts.other += 1;
        self.mark = Mark::Other(self.counts.other);
    }

    fn note_phase(&mut self) {
        let phase = self.machine.phase();
        if phase_key(phase) != phase_key(self.phase) {
            self.phase_since = self.now;
            self.behind = u64::from(self.told.since(self.machine_now()).as_millis());
        }
        self.phase = phase;
        self.spy.says(phase);
    }

    /// In how many milliseconds a task that runs, and does nothing else, must have begun a checkpoint: the interval,
    /// and a tick to spare, after it began to. `None` if it takes none, or if nobody can trust the clock.
    pub(crate) fn checkpoint_overdue_in(&self) -> Option<u64> {
        let interval = self.interval.filter(|_| self.phase == Phase::Running && !self.spy.clock_in_doubt)?;
        Some((self.phase_since + self.behind + interval + 2 * TICK).saturating_sub(self.now))
    }

    /// Whether something is under way, or about to be.
    pub(crate) fn is_busy(&self) -> bool {
        let waits = self.machine.waits_for() != WaitsFor::Program;
        waits || self.worker.is_some() || self.late.iter().any(Option::is_some)
    }

    /// By how much the time that the program has run, as the machine counts it, is too long. `None` if something went
    /// wrong that the machine cannot see at once.
    pub(crate) fn elapsed_off(&self, scenario: &Scenario) -> Option<i64> {
        if self.spy.harmed {
            return None;
        }
        // Whatever it is told, it takes note of the time first.
        let mut machine = self.machine.clone();
        let _ = machine.handle_input(scenario.plan(), self.machine_now(), Input::Persisted(JournalSeq(0)));
        Some(machine.elapsed_ms().cast_signed() - self.spy.ran.cast_signed())
    }

    /// Whether the VM runs although nobody should want it to.
    pub(crate) fn vm_runs(&self) -> bool {
        self.world.power == Power::On
    }

    /// Whether the last thing that happened is that a command was answered.
    pub(crate) const fn is_answered(&self) -> bool {
        matches!(self.mark, Mark::Reply(..))
    }

    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }
}
