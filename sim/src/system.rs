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

use vmtask_core::{
    Accepted, Base, Boot, Command, CommandId, Event, Fault, FaultKind, Input, Instant, Intent, JournalSeq, Machine, Op,
    OpKind, Outcome, Output, Phase, Power, Record, Reply, Request,
};

use crate::act::{Act, Breadth, Director, Mark, Moment, Options, Stale, between_options, command_options, phase_key};
use crate::disk::Disk;
use crate::guest::Agent;
use crate::invariant::{self, Spy, Violation};
use crate::scenario::{Scenario, TICK};
use crate::trace::Told;
use crate::world::{Answer, World};

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
    pub(crate) writer: Option<Mail<Record>>,
    pub(crate) queued: Option<Record>,
    pub(crate) fencer: Option<Fencing>,
    counts: Counts,
    mark: Mark,
    phase: Phase,
    phase_since: u64,
}

/// An answer to a command.
type Answered = (CommandId, Result<Reply, Fault>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) command: Command,
    at: u64,
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
    nth: u16,
    kind: OpKind,
    pub(crate) what: T,
    tears: bool,
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
            machine: Machine::new(scenario.plan(), 1),
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

    /// The next thing that happens, and everything that the machine does about it.
    ///
    /// # Errors
    /// If a promise is broken.
    pub fn step(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<Status, Violation> {
        self.drain(scenario, director)?;
        self.note_phase();
        invariant::always(self, scenario)?;
        if let Some(outcome) = self.machine.outcome() {
            invariant::at_end(self, scenario, outcome)?;
            if matches!(outcome, Outcome::Completed { .. } | Outcome::Aborted) {
                return Ok(Status::Over(outcome));
            }
            self.spy.life_ended(outcome)?;
            self.world.lose_manager(scenario);
            self.start_manager(scenario, director)?;
            self.mark_other();
            return Ok(Status::Going);
        }
        if !self.interfere(scenario, director)? {
            self.proceed(scenario, director)?;
        }
        Ok(Status::Going)
    }

    // ---- what the machine hands out ----

    fn drain(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        for _ in 0..MAX_OUTBOX {
            let Some(output) = self.machine.poll_output(scenario.plan()) else { return Ok(()) };
            director.tell(self.now, &Told::Output(output));
            match output {
                Output::Persist(record) => {
                    self.spy.emitted(&record)?;
                    self.queued = Some(record);
                    self.start_writing(director);
                }
                Output::Command(command) => {
                    invariant::on_command(self, scenario, &command)?;
                    self.hand_out(director, command);
                }
                Output::Fence(id) => {
                    self.spy.fence(id)?;
                    self.ask_for_fence(director, id);
                }
                Output::Report(report) => invariant::on_report(self, &report)?,
            }
        }
        Err(Violation::OutboxUnbounded)
    }

    /// Asks whether something special happens, within the budget.
    fn consult(&mut self, director: &mut impl Director, moment: Moment, options: &Options) -> Option<Act> {
        let options = options.as_slice();
        if options.is_empty() {
            return None;
        }
        let act = *options.get(director.direct(&moment, options).checked_sub(1)?)?;
        director.tell(self.now, &Told::Act(act));
        self.budget.spend(act);
        if !act.is_request() {
            self.spy.faults += 1;
            self.spy.harmless += u16::from(act.is_harmless());
        }
        Some(act)
    }

    fn hand_out(&mut self, director: &mut impl Director, command: Command) {
        let kind = command.op.kind();
        let count = &mut self.counts.ops[kind.index()];
        *count += 1;
        let nth = *count;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            let last_slice = self.world.stream.is_some_and(|s| s.left == 0);
            command_options(command.op, self.breadth, last_slice, &mut options);
        }
        let act = self.consult(director, Moment::Command(kind, nth), &options);
        let takes = if kind.is_sliced() { TICK } else { 0 } + if act == Some(Act::Slow) { TICK } else { 0 };
        if let Some(stuck) = self.worker.take() {
            // The machine has given up on it; the worker has not.
            self.keep_late(stuck.command, 1);
        }
        match act {
            Some(Act::Hang(None)) => {}
            Some(Act::Hang(Some(steps))) => self.keep_late(command, steps),
            _ => self.worker = Some(Job { command, at: self.now + takes, act, nth }),
        }
        self.mark = Mark::Before(kind, nth);
    }

    fn keep_late(&mut self, command: Command, steps: u8) {
        if let Some(place) = self.late.iter_mut().find(|l| l.is_none()) {
            *place = Some(Late { command, steps });
        }
    }

    fn start_writing(&mut self, director: &mut impl Director) {
        if self.writer.is_some() {
            return;
        }
        let Some(record) = self.queued.take() else { return };
        self.counts.writes += 1;
        let nth = self.counts.writes;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            options.push(Act::SlowWrite);
            options.push(Act::Tear);
        }
        let act = self.consult(director, Moment::Write(nth), &options);
        let at = self.now + if act == Some(Act::SlowWrite) { TICK } else { 0 };
        self.writer = Some(Mail { at, nth, kind: OpKind::Probe, what: record, tears: act == Some(Act::Tear) });
    }

    fn ask_for_fence(&mut self, director: &mut impl Director, id: CommandId) {
        self.counts.fences += 1;
        let nth = self.counts.fences;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            options.push(Act::VmDies);
            options.push(Act::FenceHangs);
        }
        let act = self.consult(director, Moment::Fence(nth), &options);
        if act != Some(Act::FenceHangs) {
            self.fencer = Some(Fencing { id, at: self.now, nth, dies: act == Some(Act::VmDies) });
        }
    }

    // ---- what happens by somebody's will ----

    /// Whether something special happened now.
    fn interfere(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<bool, Violation> {
        let Budget { faults, requests, .. } = self.budget;
        if faults == 0 && requests == 0 {
            return Ok(false);
        }
        let mut options = Options::new();
        between_options(&self.world, faults > 0, requests > 0, &mut options);
        let moment = Moment::Between { mark: self.mark, phase: self.phase, at: self.now };
        let Some(act) = self.consult(director, moment, &options) else { return Ok(false) };
        self.counts.done += 1;
        self.mark = Mark::Done(self.counts.done);
        self.perform(scenario, director, act)?;
        Ok(true)
    }

    fn perform(&mut self, scenario: &Scenario, director: &mut impl Director, act: Act) -> Result<(), Violation> {
        match act {
            Act::Request(request) => return self.request(scenario, director, request),
            Act::Crash => {
                self.world.lose_manager(scenario);
                self.kill_manager(scenario, director)?;
            }
            Act::PowerLoss | Act::StalePowerLoss => {
                if act == Act::StalePowerLoss {
                    self.disk.forget_newest();
                    self.spy.disk_lied();
                }
                self.lose_power(scenario, director)?;
            }
            Act::GuestStop => {
                self.world.power_off();
                self.observe(director, Event::GuestStopped);
            }
            Act::GuestReboot => {
                self.world.reboot(scenario);
                self.observe(director, Event::GuestRebooted);
            }
            Act::GuestHang => {
                if let Some(guest) = &mut self.world.guest {
                    guest.hung = true;
                }
            }
            Act::AgentDies => {
                if let Some(guest) = &mut self.world.guest {
                    guest.agent = Agent::Dead;
                }
            }
            Act::ProgramEnds => {
                while self.world.works() {
                    self.world_steps(scenario, director)?;
                }
            }
            Act::Clock(seconds) => {
                self.skew += i64::from(seconds) * 1000;
                self.spy.clock_jumped = true;
            }
            Act::Stale(stale) => {
                self.tell_machine(scenario, director, old_news(stale))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn request(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        request: Request,
    ) -> Result<(), Violation> {
        let verdict = self.tell_machine(scenario, director, Input::Request(request))?;
        let over = self.machine.phase() == Phase::Ended;
        self.spy.requested(self.now, request, verdict == Some(Accepted::Applied), over)
    }

    fn lose_power(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        self.world.lose_power(scenario);
        self.kill_manager(scenario, director)
    }

    /// The manager's process is gone, with its threads; a new one is started. An answer and an event that were on
    /// their way to the old one reach the new one.
    fn kill_manager(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let stray = self.spy.awaiting.map(|(command, _)| command.id);
        let boot = self.world.boot;
        self.start_manager(scenario, director)?;
        if let Some(id) = stray {
            self.post_reply(self.now, OpKind::Probe, 0, id, Ok(Reply::Done));
        }
        self.post_event(self.now, 0, boot, Event::GuestStopped);
        Ok(())
    }

    fn start_manager(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        self.worker = None;
        self.late = [None; 3];
        self.replies = [None; 6];
        self.events = [None; 6];
        self.writer = None;
        self.queued = None;
        self.fencer = None;
        self.epoch += 1;
        // Its clock counts from its own start.
        self.skew = BEFORE - i64::try_from(self.now).unwrap_or(i64::MAX);
        self.told = Instant::ZERO;
        let record = self.disk.load();
        director.tell(self.now, &Told::Started(record));
        self.start_due = record.is_none();
        self.machine = match record {
            None => Machine::new(scenario.plan(), self.epoch),
            Some(record) => {
                Machine::restore(record, scenario.plan(), self.epoch).map_err(|_| Violation::DoesNotLoad)?
            }
        };
        self.spy.new_life(record.as_ref());
        self.note_phase();
        Ok(())
    }

    // ---- what happens by itself ----

    /// The next thing that is due.
    fn proceed(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        if self.start_due {
            self.start_due = false;
            self.mark_other();
            return self.request(scenario, director, Request::Start);
        }
        let Some((at, lane)) = self.next_lane() else { return Err(Violation::Stuck) };
        let at = at.max(self.now);
        self.world.pass(at - self.now);
        self.now = at;
        let acts_late = self.count_down();
        match lane {
            _ if acts_late.is_some() => {
                self.counts.late += 1;
                self.mark = Mark::Late(self.counts.late);
                if let Some(command) = acts_late {
                    self.act_late(scenario, director, &command);
                }
                Ok(())
            }
            Lane::Writer => self.finish_write(scenario, director),
            Lane::Fencer => self.finish_fence(scenario, director),
            Lane::Worker => self.work(scenario, director),
            Lane::Reply(place) => self.deliver_reply(scenario, director, place),
            Lane::Event(place) => self.deliver_event(scenario, director, place),
            Lane::Timer => {
                self.counts.timers += 1;
                self.mark = Mark::Timer(self.counts.timers);
                director.tell(self.now, &Told::Timer);
                self.told = self.told.max(self.machine_now());
                self.machine.handle_timeout(scenario.plan(), self.machine_now());
                Ok(())
            }
            Lane::Step => {
                self.counts.steps += 1;
                self.mark = Mark::Step(self.counts.steps);
                self.world_steps(scenario, director)
            }
            Lane::User => {
                self.mark_other();
                self.request(scenario, director, Request::Resume)
            }
        }
    }

    /// What is due first; of things due together, the disk is faster than a worker and messages than timers.
    fn next_lane(&self) -> Option<(u64, Lane)> {
        let mut next: Option<(u64, Lane)> = None;
        let mut offer = |at: u64, lane: Lane| {
            if next.is_none_or(|(earliest, _)| at.max(self.now) < earliest) {
                next = Some((at.max(self.now), lane));
            }
        };
        if let Some(writing) = &self.writer {
            offer(writing.at, Lane::Writer);
        }
        if let Some(fencing) = &self.fencer {
            offer(fencing.at, Lane::Fencer);
        }
        if let Some(job) = &self.worker {
            offer(job.at, Lane::Worker);
        }
        for (place, mail) in self.replies.iter().enumerate() {
            if let Some(mail) = mail {
                offer(mail.at, Lane::Reply(place));
            }
        }
        for (place, mail) in self.events.iter().enumerate() {
            if let Some(mail) = mail {
                offer(mail.at, Lane::Event(place));
            }
        }
        if let Some(timeout) = self.machine.poll_timeout() {
            offer(timeout.as_millis().saturating_add_signed(-self.skew), Lane::Timer);
        }
        if self.world.works() {
            offer(self.now + self.world.guest.map_or(0, |g| g.until_step), Lane::Step);
        }
        if self.is_held() {
            offer(self.phase_since + SUSPENDED, Lane::User);
        }
        next
    }

    /// Whether the task is suspended and at rest: its user resumes it after a while.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Paused { .. })
            && self.machine.intent() == Intent::Suspend
            && self.writer.is_none()
            && self.worker.is_none()
            && self.fencer.is_none()
    }

    /// A hung command whose time has come.
    fn count_down(&mut self) -> Option<Command> {
        for late in self.late.iter_mut().flatten() {
            late.steps = late.steps.saturating_sub(1);
        }
        let due = self.late.iter().position(|late| late.is_some_and(|late| late.steps == 0))?;
        take(&mut self.late, due).map(|late| late.command)
    }

    fn act_late(&mut self, scenario: &Scenario, director: &mut impl Director, command: &Command) {
        let answer = self.act_on_world(scenario, command);
        director.tell(self.now, &Told::Acted { command: *command, answer, late: true });
        if let Some(result) = answer {
            self.post_reply(self.now, command.op.kind(), 0, command.id, result);
        }
    }

    fn work(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let Some(Job { command, act, nth, .. }) = self.worker.take() else { return Ok(()) };
        let kind = command.op.kind();
        self.mark = Mark::Effect(kind, nth);
        let answer = self.carry_out(scenario, director, &command, act);
        director.tell(self.now, &Told::Acted { command, answer, late: false });
        let Some(result) = answer else { return Ok(()) };
        let at = match act {
            Some(Act::LoseReply) => return Ok(()),
            Some(Act::DelayReply) => self.now + TICK,
            Some(Act::LateReply) => {
                let deadline = command.deadline.as_millis().saturating_add_signed(-self.skew);
                deadline.max(self.now) + TICK
            }
            _ => self.now,
        };
        self.post_reply(at, kind, nth, command.id, result);
        if act == Some(Act::DuplicateReply) {
            self.post_reply(at, kind, nth, command.id, result);
        }
        Ok(())
    }

    /// What the command does to the world, and what the adapter says about it.
    fn carry_out(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        command: &Command,
        act: Option<Act>,
    ) -> Option<Result<Reply, Fault>> {
        let fails = |kind| Some(Err(Fault::new(kind)));
        match act {
            Some(Act::Fail(kind)) => {
                if matches!(kind, FaultKind::Fatal | FaultKind::NotFound) {
                    self.spoil_what_it_starts_from(command.op);
                }
                if kind == FaultKind::NoSpace {
                    // It did nothing that lasts: a checkpoint that was being written is over.
                    self.world.stream = None;
                }
                return fails(kind);
            }
            Some(Act::FailAndKill) => {
                self.world.power_off();
                self.observe(director, Event::GuestStopped);
                return fails(FaultKind::Fatal);
            }
            Some(Act::NoTools) => {
                if let Some(guest) = &mut self.world.guest {
                    guest.agent = Agent::Dead;
                }
            }
            _ => {}
        }
        let answer = self.act_on_world(scenario, command);
        match (act, command.op) {
            (Some(Act::ActThenUnknown), _) => fails(FaultKind::Unknown),
            (Some(Act::Spoil(health)), Op::CommitSnapshot(generation)) => {
                self.world.spoil(generation, health);
                self.spy.spoiled();
                answer
            }
            _ => answer,
        }
    }

    fn act_on_world(&mut self, scenario: &Scenario, command: &Command) -> Answer {
        let answer = self.world.carry_out(scenario, command);
        if let Op::CommitSnapshot(generation) = command.op
            && self.world.is_whole(generation)
            && !self.world.restores(generation)
        {
            // The guest hung when it was taken.
            self.spy.spoiled();
        }
        answer
    }

    /// A checkpoint whose guest "fails for good" on its way back is one that does not restore: the next try finds it so
    /// too.
    fn spoil_what_it_starts_from(&mut self, op: Op) {
        let from = match op {
            Op::Provision(Base::Checkpoint(generation)) => Some(generation),
            Op::PowerOn | Op::AwaitTools | Op::LogIn | Op::Probe => self.world.staged_checkpoint(),
            _ => None,
        };
        if let Some(generation) = from {
            self.world.spoil(generation, crate::guest::Health::BadAtProvision);
            self.spy.spoiled();
        }
    }

    fn deliver_reply(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        place: usize,
    ) -> Result<(), Violation> {
        let Some(mail) = take(&mut self.replies, place) else { return Ok(()) };
        let (id, result) = mail.what;
        match mail.nth {
            0 => self.mark_other(),
            nth => self.mark = Mark::Reply(mail.kind, nth),
        }
        self.tell_machine(scenario, director, Input::Completed { id, result })?;
        Ok(())
    }

    fn deliver_event(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        place: usize,
    ) -> Result<(), Violation> {
        let Some(mail) = take(&mut self.events, place) else { return Ok(()) };
        let (boot, event) = mail.what;
        match mail.nth {
            0 => self.mark_other(),
            nth => self.mark = Mark::Event(nth),
        }
        self.tell_machine(scenario, director, Input::Observed { boot, event })?;
        Ok(())
    }

    fn finish_write(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let Some(mail) = self.writer.take() else { return Ok(()) };
        self.mark = Mark::Written(mail.nth);
        if mail.tears {
            self.disk.tear();
            return self.lose_power(scenario, director);
        }
        self.disk.write(mail.what);
        self.spy.durable = mail.what.seq;
        self.tell_machine(scenario, director, Input::Persisted(mail.what.seq))?;
        invariant::on_durable(self);
        self.start_writing(director);
        Ok(())
    }

    fn finish_fence(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let Some(Fencing { id, nth, dies, .. }) = self.fencer.take() else { return Ok(()) };
        self.mark = Mark::Fenced(nth);
        // The tokens of the fenced command and all before it are revoked: none of them acts any more.
        self.late = [None; 3];
        self.worker = None;
        let survived = self.world.fence(dies);
        self.spy.fenced();
        self.tell_machine(scenario, director, Input::Fenced { id, survived })?;
        Ok(())
    }

    fn world_steps(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let event = self.world.step(scenario);
        let steps = self.world.guest.map_or(0, |g| g.program.steps);
        director.tell(self.now, &Told::Stepped(steps));
        match event {
            Some(event @ Event::Progress { .. }) => {
                let boot = self.world.boot;
                self.tell_machine(scenario, director, Input::Observed { boot, event })?;
            }
            Some(event) => self.observe(director, event),
            None => {}
        }
        Ok(())
    }

    /// The adapter has seen something and passes it on.
    fn observe(&mut self, director: &mut impl Director, event: Event) {
        self.counts.events += 1;
        let nth = self.counts.events;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            for act in [Act::LoseEvent, Act::DelayEvent, Act::DuplicateEvent] {
                options.push(act);
            }
        }
        let act = self.consult(director, Moment::Event(nth), &options);
        let boot = self.world.boot;
        let at = self.now + if act == Some(Act::DelayEvent) { TICK } else { 0 };
        if act != Some(Act::LoseEvent) {
            self.post_event(at, nth, boot, event);
        }
        if act == Some(Act::DuplicateEvent) {
            self.post_event(at, nth, boot, event);
        }
    }

    fn post_reply(&mut self, at: u64, kind: OpKind, nth: u16, id: CommandId, result: Result<Reply, Fault>) {
        post(&mut self.replies, Mail { at, nth, kind, what: (id, result), tears: false });
    }

    fn post_event(&mut self, at: u64, nth: u16, boot: Boot, event: Event) {
        post(&mut self.events, Mail { at, nth, kind: OpKind::Probe, what: (boot, event), tears: false });
    }

    /// Hands an input to the machine, and checks that one that it ignores changes nothing.
    fn tell_machine(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        input: Input,
    ) -> Result<Option<Accepted>, Violation> {
        let now = self.machine_now();
        self.told = self.told.max(now);
        director.before(&self.machine, &input);
        let before = self.machine.clone();
        let verdict = self.machine.handle_input(scenario.plan(), now, input);
        director.tell(self.now, &Told::Input(input, verdict));
        invariant::on_verdict(&before, &self.machine, now, input, verdict)?;
        self.spy.heard(before.phase(), input, verdict)?;
        Ok(verdict.ok())
    }

    const fn mark_other(&mut self) {
        self.counts.other += 1;
        self.mark = Mark::Other(self.counts.other);
    }

    fn note_phase(&mut self) {
        let phase = self.machine.phase();
        if phase_key(phase) != phase_key(self.phase) {
            self.phase_since = self.now;
        }
        self.phase = phase;
        self.spy.says(phase);
    }

    // ---- equality of states ----

    /// What makes this state different from another one, as 128 bits: names, counts and absolute times are left out.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        use std::hash::Hash;
        let mut hasher = crate::hash::Fingerprint::default();
        let h = &mut hasher;
        let newest = self.machine.record().seq.0;
        let relative = |record: &Record| {
            let mut r = *record;
            r.seq.0 = newest.wrapping_sub(r.seq.0);
            (r.elapsed_ms, r.checkpointed_cpu_ms, r.restarts) = (0, 0, 0);
            r
        };
        // Relative to now. But how late a timer is, and how far behind a clock that went back, the machine sees only
        // when it is told the time; until then the state is seen from when it last was.
        let (now, told) = (self.machine_now(), self.told);
        if now < told || self.machine.poll_timeout().is_some_and(|due| due < now) {
            self.machine.canonical(told).hash(h);
            (now.since(told), told.since(now)).hash(h);
        } else {
            self.machine.canonical(now).hash(h);
        }
        if self.budget.faults > 0 {
            // By how much a jump of the clock would move the timers.
            now.since(told).hash(h);
        }
        let mut world = self.world.clone();
        let here = (self.spy.boot == Some(world.boot), world.boot.epoch == self.epoch);
        world.boot = Boot { epoch: 0, seq: 0 };
        (world, here).hash(h);
        (self.disk.load().as_ref().map(relative), self.disk.previous.as_ref().map(relative)).hash(h);
        (self.budget, self.start_due).hash(h);
        let after = |at: u64| at.saturating_sub(self.now);
        self.worker.map(|j| (j.command.op, after(j.at), j.command.deadline.since(now), j.act)).hash(h);
        self.late.map(|l| l.map(|l| (l.command.op, l.steps, self.spy.is_awaited(l.command.id)))).hash(h);
        for mail in self.replies.iter().flatten() {
            (after(mail.at), self.spy.is_awaited(mail.what.0), mail.what.1).hash(h);
        }
        for mail in self.events.iter().flatten() {
            (after(mail.at), self.spy.boot == Some(mail.what.0), mail.what.1).hash(h);
        }
        self.writer.map(|m| (after(m.at), relative(&m.what), m.tears)).hash(h);
        self.queued.as_ref().map(relative).hash(h);
        self.fencer.map(|f| (after(f.at), f.dies)).hash(h);
        if self.is_held() {
            self.now.saturating_sub(self.phase_since).min(SUSPENDED).hash(h);
        }
        self.spy.hash_into(h, self.now, now);
        hasher.finish128()
    }

    /// Whether the VM runs although nobody should want it to.
    pub(crate) fn vm_runs(&self) -> bool {
        self.world.power == Power::On
    }

    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }
}

#[derive(Clone, Copy, Debug)]
enum Lane {
    Writer,
    Fencer,
    Worker,
    Reply(usize),
    Event(usize),
    Timer,
    Step,
    /// A user who has suspended a task resumes it.
    User,
}

/// A message to a manager that there never was: numbers of its kind are not given out.
const fn old_news(stale: Stale) -> Input {
    let nobody = CommandId { epoch: 0, seq: 1 };
    match stale {
        Stale::Answer => Input::Completed { id: nobody, result: Ok(Reply::Done) },
        Stale::Fence => Input::Fenced { id: nobody, survived: false },
        Stale::Event => Input::Observed { boot: Boot { epoch: 0, seq: 1 }, event: Event::GuestStopped },
        Stale::Record => Input::Persisted(JournalSeq(0)),
    }
}

/// Takes what is in a place; what comes after moves up, so that the first free place is behind everything that waits.
fn take<T>(places: &mut [Option<T>], place: usize) -> Option<T> {
    let taken = places[place].take();
    places[place..].rotate_left(1);
    taken
}

/// Puts mail into the first free place; what comes when all are taken is lost, as in a full socket.
fn post<T>(places: &mut [Option<T>], mail: T) {
    if let Some(place) = places.iter_mut().find(|p| p.is_none()) {
        *place = Some(mail);
    }
}
