//! What must hold, whatever happens: one function for each promise, and what they have to remember.
//!
//! The promises are checked from outside: by what the machine hands out and by ground truth, never by what it believes.

use std::hash::Hash;

use vmtask_core::table::{self, PhaseKind, Trigger};
use vmtask_core::{
    Accepted, Base, Boot, Command, CommandId, Denied, Event, Generation, Generations, Input, Instant, Intent,
    JournalSeq, Machine, Notice, Op, OpKind, Outcome, Phase, Power, Program, Record, Reply, Report, Request, Span,
};

use crate::guest::{output_of, right_state};
use crate::scenario::{MAX_OUT, Scenario, TICK};
use crate::system::System;
use crate::world::Misuse;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A verdict that the table does not have.
    #[error("the table does not have what became of {2:?} in {0:?} with the intent {1:?}")]
    NotInTheTable(PhaseKind, Intent, Trigger),
    /// Two commands at once.
    #[error("a command was handed out while another one was in flight, before its deadline")]
    TwoInFlight,
    /// Two fences, or a command beside one.
    #[error("a command or a second fence was handed out while a fence was awaited")]
    BesideAFence,
    /// Another op after an unknown outcome.
    #[error("{next} was handed out while the outcome of {unresolved} was unknown and not fenced")]
    Unfenced {
        /// The op whose outcome is unknown.
        unresolved: Op,
        /// What was handed out.
        next: Op,
    },
    /// A command that relies on a record that is not durable.
    #[error("{op} was handed out before record {needs} was durable (durable: {durable})")]
    NotDurable {
        /// The command.
        op: Op,
        /// The newest record that was handed out.
        needs: JournalSeq,
        /// The newest one that is durable.
        durable: JournalSeq,
    },
    /// Record numbers must grow.
    #[error("record {0} was handed out after a later one")]
    RecordsOutOfOrder(JournalSeq),
    /// Ignored, but something changed.
    #[error("an input was ignored or denied, and yet the machine changed")]
    IgnoredButChanged,
    /// The machine denied something that is no request.
    #[error("an input that is no request was denied: {0}")]
    DeniedAMessage(Denied),
    /// Abort must be possible always.
    #[error("an abort was denied: {0}")]
    AbortDenied(Denied),
    /// Only a task that is over, or aborted already, may shrug at an abort.
    #[error("an abort was ignored although the task was neither aborted nor over")]
    AbortIgnored,
    /// An answer counts for the command that it names, and for no other.
    #[error("an answer to another command was taken for that of {0}")]
    TakenForAnother(Op),
    /// What an earlier life of the VM did says nothing about this one.
    #[error("an event of another boot was taken for one of this boot")]
    EventOfAnotherBoot,
    /// The program's end is told once.
    #[error("the program's end was told and ignored")]
    ExitIgnored,
    /// The guest's deadlines stand still while it is held.
    #[error("the task is held, and yet a timer of the machine runs")]
    TimerWhileHeld,
    /// An abort waits for an answer.
    #[error("the task was aborted and {0} is still waited for: an abort fences at once")]
    AbortWaits(Op),
    /// A launch was repeated without a look at what became of the first.
    #[error("a launch was repeated after an unknown outcome without a probe in between")]
    BlindLaunch,
    /// Something was asked for that must never be.
    #[error("the hypervisor was misused: {0:?}")]
    Misused(Misuse),
    /// The program was started twice in one boot.
    #[error("the program was launched {0} times in one boot")]
    LaunchedTwice(u8),
    /// After an abort there is only teardown.
    #[error("{0} was handed out after an abort")]
    AfterAbort(Op),
    /// A held task whose guest runs.
    #[error("the task is held ({0}) and yet the guest runs")]
    RunsWhileHeld(&'static str),
    /// A suspend, an abort or a quit did not stop the guest in time.
    #[error("{what}: the guest still runs {late_ms} ms later than it may")]
    StillRuns {
        /// What was wanted.
        what: &'static str,
        /// By how much it is late.
        late_ms: u64,
    },
    /// Over, but the VM runs and nobody says so.
    #[error("the task ended ({0:?}) with the VM running and no leftover that says so")]
    EndedRunning(Outcome),
    /// Over, but the hypervisor knows the VM still; or over and discarded, but something is left.
    #[error("the task ended ({0:?}) with something left behind and no leftover that says so")]
    LeftBehind(Outcome),
    /// Wrong bytes.
    #[error("the task completed with a wrong or missing output {0}")]
    WrongResult(usize),
    /// It says that it resumes from a checkpoint, which does not restore; or there is one, and it says nothing.
    #[error("the task stopped and claims checkpoint {claimed:?}; the newest that restores is {real:?}")]
    WrongCheckpoint {
        /// What it claims.
        claimed: Option<Generation>,
        /// What there is.
        real: Option<Generation>,
    },
    /// All checkpoints are gone.
    #[error("there was a checkpoint, and now a manager that started would find none that restores")]
    CheckpointLost,
    /// A good checkpoint was called unusable.
    #[error("checkpoint {0} is good and was given up after a single fault")]
    GoodCheckpointDropped(Generation),
    /// A newer checkpoint was there.
    #[error("the task goes on from {base:?} although checkpoint {newest} is whole, restores, and was not given up")]
    NotTheNewest {
        /// From what it goes on.
        base: Base,
        /// From what it should.
        newest: Generation,
    },
    /// A checkpoint was reported that is not durable.
    #[error("checkpoint {0} was reported, but it is not whole or not in the journal")]
    ReportedTooEarly(Generation),
    /// A record that the machine wrote and does not read.
    #[error("the machine's own record was refused by a restart")]
    DoesNotLoad,
    /// Attempts beyond the policy.
    #[error("{op} was attempted {attempt} times in a row")]
    TooManyAttempts {
        /// What.
        op: Op,
        /// How often.
        attempt: u8,
    },
    /// Clocks that jump must not cost a deadline.
    #[error("{0} was given up and repeated although nothing but a clock had gone wrong")]
    ClockCost(Op),
    /// Restarts without a reason.
    #[error("the task was rolled back {restarts} times after {reasons} faults and restarts")]
    TooManyRestarts {
        /// How often.
        restarts: u32,
        /// What could have been a reason.
        reasons: u32,
    },
    /// A drain that does not end.
    #[error("the machine's outbox is not bounded")]
    OutboxUnbounded,
    /// Nothing is due, and the task is not over.
    #[error("nothing is due any more and the task has not ended: a hang")]
    Stuck,
    /// The task went on for ever.
    #[error("the task did not end although nothing went wrong any more")]
    NeverEnds,
    /// It failed although nothing went wrong.
    #[error("the task failed although nothing had gone wrong since it was last started: {0:?}")]
    FailedForNothing(Outcome),
    /// It stopped although nobody wanted it to.
    #[error("the task stopped although nobody asked for it")]
    StoppedUnasked,
    /// An abort that ended in something else.
    #[error("the task was aborted and ended {0:?}")]
    AbortEndedOtherwise(Outcome),
    /// A plan's expectation was not met.
    #[error("the plan expects otherwise")]
    Unexpected,
}

/// What the invariants remember.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spy {
    /// The command that has not been answered, and when the machine may give up on it.
    pub(crate) awaiting: Option<(Command, Instant)>,
    fencing: bool,
    fence_failed: bool,
    unresolved: Option<(CommandId, Op)>,
    /// The outcome of a launch in this boot is unknown, and nobody has looked since.
    blind: bool,
    emitted: JournalSeq,
    /// The newest record of this manager that is durable.
    pub(crate) durable: JournalSeq,
    /// The boot of the newest command.
    pub(crate) boot: Option<Boot>,
    /// The program is known to run in this boot, and is not known to have ended.
    program_runs: bool,
    /// The largest number of a checkpoint that the machine had removed.
    removed: Option<Generation>,
    /// Faults so far, and those before this manager was started.
    pub(crate) faults: u16,
    /// Those of them that must not cost anything: clocks that jump.
    pub(crate) harmless: u16,
    faults_before: u16,
    lives: u16,
    /// Rolled back because a fault was pending when this manager started.
    pub(crate) clock_jumped: bool,
    aborted: bool,
    /// Wanted since, and by when the guest must stand still.
    suspend_by: Option<u64>,
    quit: Option<u64>,
    abort_by: Option<u64>,
    /// A good checkpoint is in the durable journal.
    promised: bool,
    /// Checkpoints that were told to be skipped or unusable.
    given_up: Generations,
    disk_lied: bool,
}

impl Violation {
    /// Whether it is the same promise that was broken.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Spy {
    pub(crate) fn emitted(&mut self, record: &Record) -> Result<(), Violation> {
        if record.seq <= self.emitted {
            return Err(Violation::RecordsOutOfOrder(record.seq));
        }
        self.emitted = record.seq;
        Ok(())
    }

    pub(crate) fn fence(&mut self, id: CommandId) -> Result<(), Violation> {
        if self.fencing {
            return Err(Violation::BesideAFence);
        }
        self.fencing = true;
        if let Some((command, _)) = self.awaiting.take_if(|(command, _)| command.id == id) {
            self.outcome_unknown(&command);
        }
        Ok(())
    }

    fn outcome_unknown(&mut self, command: &Command) {
        self.unresolved = Some((command.id, command.op));
        self.blind |= command.op == Op::Launch;
    }

    pub(crate) const fn fenced(&mut self) {
        self.unresolved = None;
    }

    /// The machine, which said that it was in `phase`, has heard something.
    pub(crate) fn heard(
        &mut self,
        phase: Phase,
        input: Input,
        verdict: Result<Accepted, Denied>,
    ) -> Result<(), Violation> {
        let exit = matches!(input, Input::Observed { boot, event: Event::ProgramExited(_) } if self.boot == Some(boot));
        if verdict != Ok(Accepted::Applied) {
            let heeds = exit && self.program_runs && is_beside_the_program(phase);
            return if heeds { Err(Violation::ExitIgnored) } else { Ok(()) };
        }
        self.program_runs &= !exit;
        match input {
            Input::Completed { id, result } => {
                let Some((command, _)) = self.awaiting.take() else { return Ok(()) };
                if command.id != id {
                    return Err(Violation::TakenForAnother(command.op));
                }
                if result.is_err_and(|fault| fault.kind == vmtask_core::FaultKind::Unknown) {
                    self.outcome_unknown(&command);
                }
                self.blind &= command.op != Op::Probe || result.is_err();
                let ended = matches!(result, Ok(Reply::Found(found)) if matches!(found.program, Program::Exited(_)));
                self.program_runs &= !ended;
            }
            Input::Fenced { .. } => self.fencing = false,
            Input::Observed { boot, .. } if self.boot.is_none_or(|here| here != boot) => {
                return Err(Violation::EventOfAnotherBoot);
            }
            _ => {}
        }
        Ok(())
    }

    /// The machine says where it is.
    pub(crate) fn says(&mut self, phase: Phase) {
        self.program_runs |= phase == Phase::Running;
    }

    /// A request was made.
    pub(crate) fn requested(&mut self, now: u64, request: Request, applied: bool, over: bool) -> Result<(), Violation> {
        if !applied {
            let ignores = request == Request::Abort && !self.aborted && !over;
            return if ignores { Err(Violation::AbortIgnored) } else { Ok(()) };
        }
        let soon = now + PROMPT;
        match request {
            Request::Suspend => self.suspend_by = Some(soon),
            Request::Resume => self.suspend_by = None,
            Request::Quit { budget_ms } => {
                let by = now + u64::from(budget_ms) + PROMPT;
                self.quit = Some(self.quit.map_or(by, |earlier| earlier.min(by)));
                self.suspend_by = None;
            }
            Request::Abort => {
                self.aborted = true;
                self.abort_by = Some(soon);
                self.suspend_by = None;
            }
            Request::Start | Request::Checkpoint => {}
        }
        Ok(())
    }

    pub(crate) fn is_awaited(&self, id: CommandId) -> bool {
        self.awaiting.is_some_and(|(command, _)| command.id == id)
    }

    /// A checkpoint was spoilt by a fault: that one does not restore any more is not the machine's doing.
    pub(crate) const fn spoiled(&mut self) {
        self.promised = false;
    }

    /// A disk that lies voids all promises about checkpoints that were made before.
    pub(crate) const fn disk_lied(&mut self) {
        self.disk_lied = true;
        self.promised = false;
    }

    /// The manager has come to an end that is not final.
    pub(crate) const fn life_ended(&mut self, outcome: Outcome) -> Result<(), Violation> {
        match outcome {
            Outcome::Failed { .. } if self.faults == self.faults_before => Err(Violation::FailedForNothing(outcome)),
            Outcome::Stopped { .. } if self.quit.is_none() => Err(Violation::StoppedUnasked),
            _ => Ok(()),
        }
    }

    /// Another manager has started, from this record.
    pub(crate) fn new_life(&mut self, record: Option<&Record>) {
        let seq = record.map_or(JournalSeq(0), |r| r.seq);
        *self = Self {
            emitted: seq,
            durable: seq,
            faults: self.faults,
            harmless: self.harmless,
            faults_before: self.faults,
            lives: self.lives + 1,
            clock_jumped: self.clock_jumped,
            aborted: record.is_some_and(|r| r.intent == Intent::Abort),
            promised: self.promised,
            given_up: self.given_up,
            disk_lied: self.disk_lied,
            removed: self.removed,
            ..Self::default()
        };
    }

    /// Times are told apart by how far off they are: true ones from `now`, the manager's from `machine_now`.
    pub(crate) fn hash_into(&self, h: &mut impl std::hash::Hasher, now: u64, machine_now: Instant) {
        let left = |by: Option<u64>| by.map(|by| by.saturating_sub(now));
        // A clock that has jumped excuses whatever comes before its deadline.
        let early = |deadline: Instant| if self.clock_jumped { Span::ZERO } else { deadline.since(machine_now) };
        self.awaiting.map(|(c, deadline)| (c.op, early(deadline))).hash(h);
        (self.fencing, self.fence_failed, self.unresolved.map(|(_, op)| op)).hash(h);
        (self.blind, self.program_runs, self.removed).hash(h);
        (self.aborted, left(self.suspend_by), left(self.quit), left(self.abort_by)).hash(h);
        // How many faults there were matters for two promises only in so far as there were any.
        (
            self.faults.min(2),
            self.faults > self.faults_before,
            self.faults > self.harmless,
            self.promised,
            self.disk_lied,
        )
            .hash(h);
        (self.clock_jumped, self.given_up).hash(h);
    }
}

/// How long after it was told to the guest may run on when nothing goes wrong: two slices, and a tick to spare.
const PROMPT: u64 = 3 * TICK;
/// How much longer when something does: every attempt of a pause, its fence, every attempt of a power-off, its fence.
const UNLUCKY: u64 = 40 * TICK;

/// As many whole checkpoints as lie on disk at once: two that are kept, and one that is to be deleted.
const KEPT: u32 = 3;

/// Commands must wait for one another, for fences and for records.
pub(crate) fn on_command(system: &mut System, scenario: &Scenario, command: &Command) -> Result<(), Violation> {
    if let Some(misuse) = system.world.misuse(scenario, command.op) {
        return Err(Violation::Misused(misuse));
    }
    one_at_a_time(system)?;
    launches_are_not_repeated_blindly(system, command)?;
    fenced_before_anything_else(system, command)?;
    durable_before_it_acts(system, command)?;
    only_teardown_after_abort(system, command)?;
    attempts_within_policy(scenario, command)?;
    clocks_cost_nothing(system, command)?;
    goes_on_from_the_newest(system, command)?;
    numbers_are_new(system, command)?;
    system.spy.program_runs &= !matches!(command.op.kind(), OpKind::Provision | OpKind::PowerOff);
    system.spy.awaiting = Some((*command, command.deadline));
    system.spy.boot = Some(command.boot);
    Ok(())
}

fn one_at_a_time(system: &mut System) -> Result<(), Violation> {
    if system.spy.fencing {
        return Err(Violation::BesideAFence);
    }
    let now = system.machine_now();
    if let Some((earlier, deadline)) = system.spy.awaiting {
        let overall_passed = earlier.op.kind().is_sliced();
        if now < deadline && !overall_passed && !system.spy.clock_jumped {
            return Err(Violation::TwoInFlight);
        }
        system.spy.outcome_unknown(&earlier);
    }
    Ok(())
}

fn launches_are_not_repeated_blindly(system: &mut System, command: &Command) -> Result<(), Violation> {
    // What an earlier boot has launched is gone with it.
    system.spy.blind &= command.op.kind() != OpKind::Provision;
    if system.spy.blind && command.op == Op::Launch { Err(Violation::BlindLaunch) } else { Ok(()) }
}

fn fenced_before_anything_else(system: &System, command: &Command) -> Result<(), Violation> {
    match system.spy.unresolved {
        Some((_, unresolved)) if command.op != unresolved && command.op != Op::Probe => {
            Err(Violation::Unfenced { unresolved, next: command.op })
        }
        _ => Ok(()),
    }
}

/// Pausing, unpausing and powering off never wait for a disk; neither does what a probe would find out again.
fn durable_before_it_acts(system: &System, command: &Command) -> Result<(), Violation> {
    let gated = matches!(
        command.op.kind(),
        OpKind::Launch | OpKind::BeginSnapshot | OpKind::CommitSnapshot | OpKind::RemoveSnapshot | OpKind::Unregister
    );
    let spy = &system.spy;
    if (gated && spy.durable < spy.emitted) || spy.durable == JournalSeq(0) {
        return Err(Violation::NotDurable { op: command.op, needs: spy.emitted, durable: spy.durable });
    }
    Ok(())
}

const fn is_teardown(op: Op) -> bool {
    matches!(op.kind(), OpKind::PowerOff | OpKind::Unregister)
}

fn only_teardown_after_abort(system: &System, command: &Command) -> Result<(), Violation> {
    if system.spy.aborted && !is_teardown(command.op) { Err(Violation::AfterAbort(command.op)) } else { Ok(()) }
}

fn attempts_within_policy(scenario: &Scenario, command: &Command) -> Result<(), Violation> {
    let op = command.op;
    let attempt = command.attempt.get();
    if attempt > scenario.plan().policy().attempts[op.kind().index()] {
        return Err(Violation::TooManyAttempts { op, attempt });
    }
    Ok(())
}

fn clocks_cost_nothing(system: &System, command: &Command) -> Result<(), Violation> {
    let spy = &system.spy;
    if command.attempt.get() > 1 && spy.faults == spy.harmless { Err(Violation::ClockCost(command.op)) } else { Ok(()) }
}

/// No more work is lost than must be: of the checkpoints that are whole and restore, the newest is used, also if the
/// journal has not heard yet that it was committed.
fn goes_on_from_the_newest(system: &System, command: &Command) -> Result<(), Violation> {
    let Op::Provision(base) = command.op else { return Ok(()) };
    let wanted = |g: &Generation| system.world.restores(*g) && !system.spy.given_up.contains(*g);
    let newest = system.world.snapshots.iter().flatten().map(|s| s.generation).filter(wanted).max();
    match (newest, base) {
        (Some(newest), Base::Checkpoint(used)) if used >= newest => Ok(()),
        (Some(newest), _) if !system.spy.disk_lied => Err(Violation::NotTheNewest { base, newest }),
        _ => Ok(()),
    }
}

/// A number that a removed checkpoint had is not used again: whoever still means the old one would get the new one.
fn numbers_are_new(system: &mut System, command: &Command) -> Result<(), Violation> {
    let spy = &mut system.spy;
    match command.op {
        Op::RemoveSnapshot(generation) => spy.removed = spy.removed.max(Some(generation)),
        // Nobody can know the numbers that a lying disk has made everybody forget.
        Op::BeginSnapshot(generation) if Some(generation) <= spy.removed && !spy.disk_lied => {
            return Err(Violation::Misused(Misuse::NumberReused));
        }
        _ => {}
    }
    Ok(())
}

/// Phases in which a program that runs is told to have ended at once.
const fn is_beside_the_program(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Running
            | Phase::Pausing
            | Phase::Paused { .. }
            | Phase::Unpausing
            | Phase::BeginningSnapshot(_)
            | Phase::Committing(_)
            | Phase::Pruning(_)
    )
}

/// A report must be true when it is made.
pub(crate) fn on_report(system: &mut System, report: &Report) -> Result<(), Violation> {
    match *report {
        Report::Checkpoint { generation, .. } => {
            let journaled = system.disk.load().is_some_and(|r| r.generations.contains(generation));
            let whole = system.world.snapshot(generation).is_some_and(|s| s.whole);
            // It may have been pruned again before anyone drained the reports.
            let newest = system.machine.newest_checkpoint() == Some(generation);
            if newest && !(journaled && whole) {
                return Err(Violation::ReportedTooEarly(generation));
            }
        }
        Report::Notice(Notice::CheckpointSkipped { generation, .. }) => {
            system.spy.given_up.insert(generation);
        }
        Report::Notice(Notice::CheckpointUnusable { generation }) => {
            system.spy.given_up.insert(generation);
            if system.world.restores(generation) && system.spy.faults < 2 {
                return Err(Violation::GoodCheckpointDropped(generation));
            }
            system.spy.promised = false;
        }
        _ => {}
    }
    Ok(())
}

/// An input that was not applied has changed nothing; only requests are denied, an abort never.
pub(crate) fn on_verdict(
    before: &Machine,
    after: &Machine,
    now: Instant,
    input: Input,
    verdict: Result<Accepted, Denied>,
) -> Result<(), Violation> {
    let (phase, intent) = (before.phase().into(), before.intent());
    if !table::expected(phase, intent, Trigger::of(before, &input)).allows(verdict.into()) {
        return Err(Violation::NotInTheTable(phase, intent, Trigger::of(before, &input)));
    }
    match (verdict, input) {
        (Ok(Accepted::Applied), _) => return Ok(()),
        (Err(denied), Input::Request(Request::Abort)) => return Err(Violation::AbortDenied(denied)),
        (Err(_), Input::Request(_)) | (Ok(Accepted::Ignored(_)), _) => {}
        (Err(denied), _) => return Err(Violation::DeniedAMessage(denied)),
    }
    // A clock that jumped is taken note of with whatever input comes first.
    let jumped = before.poll_timeout() != after.poll_timeout();
    if !jumped && before.canonical(now) != after.canonical(now) {
        return Err(Violation::IgnoredButChanged);
    }
    Ok(())
}

/// A record has become durable: from now on it counts which checkpoints it names. One that was taken of a guest that
/// hung, or was spoilt, voids the promise until a better one is made: it may push out the good ones.
pub(crate) fn on_durable(system: &mut System) {
    let newest = system.world.snapshots.iter().flatten().filter(|s| s.whole).map(|s| s.generation).max();
    let listed = |g| system.disk.load().is_some_and(|r| r.generations.contains(g));
    if newest.is_some_and(|g| listed(g) && system.world.restores(g)) && !system.spy.disk_lied {
        system.spy.promised = true;
    }
}

/// What holds at every moment.
pub(crate) fn always(system: &System, scenario: &Scenario) -> Result<(), Violation> {
    if system.world.launches > 1 {
        return Err(Violation::LaunchedTwice(system.world.launches));
    }
    abort_waits_for_nobody(system)?;
    a_checkpoint_restores(system)?;
    held_means_held(system)?;
    stops_in_time(system)?;
    restarts_have_reasons(system, scenario)
}

/// What was in flight when the abort came has been fenced, or takes the VM down.
fn abort_waits_for_nobody(system: &System) -> Result<(), Violation> {
    match system.spy.awaiting {
        Some((command, _)) if system.spy.aborted && !is_teardown(command.op) => Err(Violation::AbortWaits(command.op)),
        _ => Ok(()),
    }
}

/// Never zero checkpoints that restore after the first: a manager that started now would find one.
fn a_checkpoint_restores(system: &System) -> Result<(), Violation> {
    if !system.spy.promised {
        return Ok(());
    }
    let Some(record) = system.disk.load() else { return Err(Violation::CheckpointLost) };
    let discarded = matches!(record.ending, Some(Outcome::Completed { .. } | Outcome::Aborted));
    let mut listed = record.generations.iter().chain(record.pending);
    if discarded || listed.any(|g| system.world.restores(g)) { Ok(()) } else { Err(Violation::CheckpointLost) }
}

fn held_means_held(system: &System) -> Result<(), Violation> {
    match system.phase() {
        Phase::Paused { .. } if system.vm_runs() => Err(Violation::RunsWhileHeld("Paused")),
        Phase::Paused { .. } if system.is_held() && system.machine.poll_timeout().is_some() => {
            Err(Violation::TimerWhileHeld)
        }
        _ => Ok(()),
    }
}

/// Suspend, quit and abort stop the guest in time: within ticks if nothing goes wrong, and within the policy's
/// deadlines if something does.
fn stops_in_time(system: &System) -> Result<(), Violation> {
    let spy = &system.spy;
    if spy.clock_jumped || system.world.power == Power::Off {
        return Ok(());
    }
    let grace = if spy.faults == 0 { 0 } else { UNLUCKY };
    let late = |what: &'static str, by: Option<u64>| match by {
        Some(by) if system.now() > by + grace => Err(Violation::StillRuns { what, late_ms: system.now() - by }),
        _ => Ok(()),
    };
    late("abort", spy.abort_by)?;
    late("quit", spy.quit)?;
    if system.vm_runs() { late("suspend", spy.suspend_by) } else { Ok(()) }
}

fn restarts_have_reasons(system: &System, scenario: &Scenario) -> Result<(), Violation> {
    let record = system.machine.record();
    let reasons = u32::from(system.spy.faults - system.spy.harmless) + u32::from(system.spy.lives);
    // A single fault may take a guest down, and spoil all checkpoints that are kept (those of a guest that hangs), each
    // of which is tried as often as the policy says.
    let each = 1 + KEPT * u32::from(scenario.plan().policy().restore_attempts.get());
    if record.restarts > each * reasons {
        return Err(Violation::TooManyRestarts { restarts: record.restarts, reasons });
    }
    Ok(())
}

/// What holds when the task is over.
pub(crate) fn at_end(system: &System, scenario: &Scenario, outcome: Outcome) -> Result<(), Violation> {
    let leftover = system.machine.leftover();
    if system.spy.aborted && outcome != Outcome::Aborted {
        return Err(Violation::AbortEndedOtherwise(outcome));
    }
    // A manager that was stopped before it was started, and that a lying disk has told nothing, has no VM to speak of.
    let unaware = system.spy.disk_lied && matches!(outcome, Outcome::Stopped { .. });
    if leftover.is_none() && system.world.power != Power::Off && !unaware {
        return Err(Violation::EndedRunning(outcome));
    }
    match outcome {
        Outcome::Completed { .. } | Outcome::Aborted => {
            let clean = !system.world.registered && system.world.snapshots.iter().all(Option::is_none);
            // Nobody can clear up what a lying disk has made everybody forget.
            if leftover.is_none() && !clean && !system.spy.disk_lied {
                return Err(Violation::LeftBehind(outcome));
            }
        }
        Outcome::Stopped { .. } | Outcome::Failed { .. }
            if leftover.is_none() && system.world.registered && !system.spy.disk_lied =>
        {
            return Err(Violation::LeftBehind(outcome));
        }
        Outcome::Stopped { checkpoint } => the_claimed_checkpoint_is_there(system, checkpoint)?,
        Outcome::Failed { .. } => {}
    }
    if matches!(outcome, Outcome::Completed { .. }) { the_result_is_right(system, scenario) } else { Ok(()) }
}

fn the_claimed_checkpoint_is_there(system: &System, claimed: Option<Generation>) -> Result<(), Violation> {
    if system.spy.disk_lied {
        return Ok(());
    }
    let record = system.machine.record();
    let real = record.generations.iter().find(|&g| system.world.snapshot(g).is_some_and(|s| s.whole));
    if claimed == real { Ok(()) } else { Err(Violation::WrongCheckpoint { claimed, real }) }
}

/// To the byte.
fn the_result_is_right(system: &System, scenario: &Scenario) -> Result<(), Violation> {
    let right = right_state(scenario);
    for ix in 0..usize::from(scenario.outputs).min(MAX_OUT) {
        if system.world.results[ix] != Some(output_of(right, ix)) {
            return Err(Violation::WrongResult(ix));
        }
    }
    Ok(())
}
