//! What must hold, whatever happens: one function for each promise, and what they have to remember.
//!
//! The promises are checked from outside: by what the machine hands out and by ground truth, never by what it believes.

mod spy;
mod violation;

use vmtask_core::table::{self, Trigger};
use vmtask_core::{
    Accepted, Base, Command, Denied, Generation, Instant, JournalSeq, Machine, Notice, Op, OpKind, Outcome, Phase,
    Power, Report, Request, Stimulus,
};

use crate::guest::{output_of, right_state};
use crate::scenario::{MAX_OUT, Scenario, TICK};
use crate::system::System;
use crate::world::Misuse;

pub(crate) use spy::Spy;
pub use violation::Violation;

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
    system.spy.looks |= command.op == Op::Probe;
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
        Report::Notice(Notice::CheckpointDropped { generation, .. }) => {
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
    stimulus: Stimulus,
    verdict: Result<Accepted, Denied>,
) -> Result<(), Violation> {
    let (phase, intent) = (before.phase().into(), before.intent());
    if !table::expected(phase, intent, Trigger::of(before, &stimulus)).allows(verdict.into()) {
        return Err(Violation::NotInTheTable(phase, intent, Trigger::of(before, &stimulus)));
    }
    match (verdict, stimulus) {
        (Ok(Accepted::Applied), _) => return Ok(()),
        (Err(denied), Stimulus::Request(Request::Abort)) => return Err(Violation::AbortDenied(denied)),
        (Err(_) | Ok(Accepted::Ignored(_)), _) => {}
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
    checkpoints_go_on(system)?;
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
    let late = |what: &'static str, by: Option<u64>| match by {
        Some(by) if system.now() > by + spy.grace() => Err(Violation::StillRuns { what, late_ms: system.now() - by }),
        _ => Ok(()),
    };
    late("abort", spy.abort_by)?;
    late("quit", spy.quit)?;
    if system.vm_runs() { late("suspend", spy.suspend_by) } else { Ok(()) }
}

/// Whatever became of the last one: who runs on for longer than the interval begins the next.
///
/// A look at a program that has been silent for long comes first, and may take its time.
fn checkpoints_go_on(system: &System) -> Result<(), Violation> {
    match system.checkpoint_overdue_in() {
        Some(0) if !system.spy.looks => Err(Violation::NoCheckpoint),
        _ => Ok(()),
    }
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
