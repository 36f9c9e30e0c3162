//! What must hold, whatever happens: one function for each promise, and what they have to remember.
//!
//! The promises are checked from outside: by what the machine hands out and by ground truth, never by what it believes.

mod spy;
mod violation;

use vmtask_core::table::{self, Trigger};
use vmtask_core::{
    Accepted, Base, Cause, Command, Denied, FaultKind, Generation, Instant, Intent, JournalSeq, Leftover, Machine,
    Notice, Op, OpKind, Outcome, Phase, Power, Record, Report, Request, Stimulus, Unfit,
};

use crate::guest::{Health, output_of, right_state};
use crate::scenario::{MAX_OUT, Scenario, TICK};
use crate::system::System;
use crate::world::Misuse;

pub(crate) use spy::Spy;
use spy::Tries;
pub use violation::Violation;

/// How long after it was told to the guest may run on when nothing goes wrong: two slices, and a tick to spare.
const PROMPT: u64 = 3 * TICK;
/// How much longer when something does: every attempt of a pause, its fence, every attempt of a power-off, its fence.
const UNLUCKY: u64 = 40 * TICK;

/// A quit that leaves so many milliseconds leaves time enough to save what runs, unless something goes wrong.
const ENOUGH_TO_SAVE: u64 = 60 * TICK;

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
    attempts_within_policy(system, scenario, command)?;
    clocks_cost_nothing(system, command)?;
    goes_on_from_the_newest(system, command)?;
    numbers_are_new(system, command)?;
    a_boot_is_provisioned_once(system, command)?;
    what_is_adopted_is_kept(system, command)?;
    whole_checkpoints_are_bounded(system, scenario, command)?;
    one_attempt_to_save(system, command)?;
    what_is_set_aside_stays(system, command)?;
    the_end_is_saved_first(system, scenario, command)?;
    rounds_of_copying_are_bounded(system, scenario, command)?;
    system.spy.losses += u16::from(system.spy.tried.is_some_and(|tries| tries.op == Op::PowerOff && tries.in_all == 1));
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
    let now = system.machine_believes();
    if let Some((earlier, deadline)) = system.spy.awaiting {
        let overall_passed = earlier.op.kind().is_sliced();
        if now < deadline && !overall_passed && !system.spy.clock_in_doubt {
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

/// In a row, as counted here: an answer that is no fault, a fence, and another op begin the count anew, as do requests.
/// A look at what became of a launch does not.
fn attempts_within_policy(system: &mut System, scenario: &Scenario, command: &Command) -> Result<(), Violation> {
    let op = command.op;
    let spy = &mut system.spy;
    let anew = std::mem::take(&mut spy.asked);
    let before =
        spy.tried.filter(|before| before.op == op).map_or((0, 0), |before| (before.since_asked, before.in_all));
    let times = if anew { 1 } else { before.0.saturating_add(1) };
    spy.tried = Some(Tries { op, since_asked: times, in_all: before.1.saturating_add(1) });
    match op.kind() {
        OpKind::Provision => (spy.launches, spy.last_begun) = (0, None),
        OpKind::Launch => spy.launches = spy.launches.saturating_add(1),
        _ => {}
    }
    let most = scenario.plan().policy().attempts[op.kind().index()];
    // Launches with an unknown outcome, and those that are refused, are counted each.
    let too_many = times > most || spy.launches > 2 * most - 1;
    if too_many { Err(Violation::TooManyAttempts { op, attempt: times.max(spy.launches) }) } else { Ok(()) }
}

fn a_boot_is_provisioned_once(system: &mut System, command: &Command) -> Result<(), Violation> {
    if command.op.kind() != OpKind::Provision {
        return Ok(());
    }
    let again =
        system.spy.provisioned.is_some_and(|boot| boot.epoch == command.boot.epoch && boot.seq >= command.boot.seq);
    system.spy.provisioned = Some(command.boot);
    if again { Err(Violation::BootProvisionedTwice) } else { Ok(()) }
}

/// Whoever finds the VM of an earlier manager running, and its program in it, goes on with it.
fn what_is_adopted_is_kept(system: &System, command: &Command) -> Result<(), Violation> {
    let gives_up = matches!(command.op.kind(), OpKind::Provision | OpKind::Register)
        || command.op == Op::PowerOff && system.machine.record().ending.is_none();
    if system.spy.adopts && gives_up { Err(Violation::AdoptedAndLost(command.op)) } else { Ok(()) }
}

/// When a task that runs begins the next checkpoint, there are no more than are kept, and those that nobody could delete
/// or that were set aside.
fn whole_checkpoints_are_bounded(system: &System, scenario: &Scenario, command: &Command) -> Result<(), Violation> {
    let Op::BeginSnapshot(generation) = command.op else { return Ok(()) };
    let record = system.machine.record();
    let excused = |g: Generation| record.aside.contains(g) || system.spy.left.contains(g) || g == generation;
    let whole = system.world.snapshots.iter().flatten().filter(|s| s.whole && !excused(s.generation)).count();
    let kept = scenario.keep + usize::from(system.spy.found);
    // A quit, and the program's end, do not wait for a deletion.
    let ended = record.exit.is_some() || scenario.limit.is_some_and(|limit| record.elapsed_ms >= limit);
    let in_no_hurry = system.machine.intent() == Intent::Run && !ended && !system.spy.disk_lied;
    if in_no_hurry && whole > kept { Err(Violation::TooManyCheckpoints(whole)) } else { Ok(()) }
}

/// Once it is to stop, a checkpoint that cannot be taken is not taken under another number.
fn one_attempt_to_save(system: &mut System, command: &Command) -> Result<(), Violation> {
    let Op::BeginSnapshot(generation) = command.op else { return Ok(()) };
    let record = system.machine.record();
    let ended = record.exit.is_some();
    let spy = &mut system.spy;
    if spy.quit.is_none() {
        spy.last_begun = Some(generation);
    } else if ended {
        // Of the program's end, before its outputs are copied.
    } else if spy.begun_for_quit.is_some_and(|begun| begun != generation) {
        return Err(Violation::SavedTwice(generation));
    } else {
        spy.begun_for_quit = Some(generation);
    }
    Ok(())
}

/// The newest checkpoint that was dropped although it is there is left to whoever wants to look at it.
fn what_is_set_aside_stays(system: &System, command: &Command) -> Result<(), Violation> {
    match command.op {
        Op::RemoveSnapshot(g) if system.spy.set_aside == Some(g) && !system.spy.disk_lied => {
            Err(Violation::RemovedEvidence(g))
        }
        _ => Ok(()),
    }
}

/// Unless little would be computed again, or it was tried and did not succeed.
fn the_end_is_saved_first(system: &mut System, scenario: &Scenario, command: &Command) -> Result<(), Violation> {
    match command.op {
        Op::Provision(_) => system.spy.end_tried = false,
        Op::BeginSnapshot(_) => system.spy.end_tried = system.machine.record().exit.is_some(),
        Op::CopyOut(_) if scenario.interval.is_some() && !system.spy.end_tried && !system.spy.harmed => {
            let Some(guest) = &system.world.guest else { return Ok(()) };
            if !guest.program.exited {
                // What it does beyond its limit is not at stake.
                return Ok(());
            }
            let saved = |g: Generation| system.world.snapshot(g).filter(|s| s.whole).map(|s| s.guest.program.steps);
            let newest = system.machine.newest_checkpoint().and_then(saved).unwrap_or(0);
            let steps = guest.program.steps.saturating_sub(newest) / u32::from(guest.program.instances.max(1));
            let at_stake = u64::from(steps) * TICK;
            if at_stake > scenario.at_stake + TICK + system.spy.unseen {
                return Err(Violation::EndNotSaved { at_stake });
            }
        }
        _ => {}
    }
    Ok(())
}

fn rounds_of_copying_are_bounded(system: &mut System, scenario: &Scenario, command: &Command) -> Result<(), Violation> {
    let spy = &mut system.spy;
    if command.op.kind() != OpKind::CopyOut || spy.collecting == Some(command.boot) {
        return Ok(());
    }
    spy.collecting = Some(command.boot);
    spy.rounds += 1;
    if spy.rounds > scenario.plan().policy().max_losses + 1 {
        return Err(Violation::TooManyRounds(spy.rounds));
    }
    Ok(())
}

fn clocks_cost_nothing(system: &System, command: &Command) -> Result<(), Violation> {
    let spy = &system.spy;
    if command.attempt.get() > 1 && !spy.harmed { Err(Violation::ClockCost(command.op)) } else { Ok(()) }
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

/// A record's number grows, and what it says of the end has happened.
pub(crate) fn on_record(system: &mut System, scenario: &Scenario, record: &Record) -> Result<(), Violation> {
    system.spy.emitted(record)?;
    let ending = std::mem::replace(&mut system.spy.ending, record.ending);
    match record.ending {
        Some(Outcome::Failed { cause }) if ending != record.ending => failure_has_a_reason(system, scenario, cause),
        _ => Ok(()),
    }
}

/// A report must be true when it is made.
pub(crate) fn on_report(system: &mut System, scenario: &Scenario, report: &Report) -> Result<(), Violation> {
    match *report {
        Report::Checkpoint { generation, .. } => {
            let journaled = system.disk.load().is_some_and(|r| r.generations.contains(generation));
            let whole = system.world.snapshot(generation).is_some_and(|s| s.whole);
            // It may have been pruned again before anyone drained the reports.
            let newest = system.machine.newest_checkpoint() == Some(generation);
            // Nor can a machine know that somebody has deleted it since.
            if newest && !(journaled && (whole || system.spy.deleted)) {
                return Err(Violation::ReportedTooEarly(generation));
            }
        }
        Report::Notice(Notice::CheckpointSkipped { generation, .. }) => {
            system.spy.last_begun = None;
            system.spy.given_up.insert(generation);
        }
        Report::Notice(Notice::CheckpointDropped { generation, why }) => {
            a_drop_has_a_reason(system, scenario, generation, why)?;
            if system.world.restores(generation) {
                system.spy.promised = false;
                system.spy.end_saved = false;
            }
            let spy = &mut system.spy;
            spy.given_up.insert(generation);
            spy.untold.remove(generation);
            if !matches!(why, Unfit::Missing | Unfit::Damaged) {
                // Losses are counted anew. A VM that was powered off meanwhile was so for this reason.
                spy.losses = spy.losses.min(1);
            }
            spy.set_aside = spy.set_aside.max(Some(generation));
        }
        Report::Notice(Notice::CheckpointLeft { generation }) => {
            system.spy.left.insert(generation);
        }
        _ => {}
    }
    Ok(())
}

/// A checkpoint is dropped only if the world says so, too, or it has been tried as often as the policy says.
fn a_drop_has_a_reason(
    system: &System,
    scenario: &Scenario,
    generation: Generation,
    why: Unfit,
) -> Result<(), Violation> {
    let found = system.world.snapshot(generation).filter(|s| s.whole);
    let damaged = |health| matches!(health, Health::BadAtProvision | Health::SeenDamaged);
    let attempts = scenario.plan().policy().restore_attempts.get();
    let true_reason = match why {
        Unfit::Missing => found.is_none(),
        Unfit::Damaged => found.is_none_or(|s| damaged(s.health)),
        Unfit::NotOurs | Unfit::Rejected | Unfit::Lifeless => {
            // What a lying disk has forgotten, or brought back, the machine counts on from.
            system.spy.disk_lied || system.spy.restores_of(generation) >= attempts
        }
    };
    if true_reason { Ok(()) } else { Err(Violation::GoodCheckpointDropped(generation, why)) }
}

/// What was handed out in one drain has been.
pub(crate) fn on_drained(system: &mut System) -> Result<(), Violation> {
    if let Some(untold) = system.spy.untold.newest() {
        return Err(Violation::DroppedInSilence(untold));
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
    // One that was dropped meanwhile is named by records that were written before.
    let counts = |g| listed(g) && system.world.restores(g) && !system.spy.given_up.contains(g);
    let Some(newest) = newest.filter(|&g| counts(g)) else { return };
    if !system.spy.disk_lied {
        system.spy.promised = true;
        system.spy.end_saved = system.world.snapshot(newest).is_some_and(|s| s.guest.program.exited);
    }
}

/// What holds at every moment.
pub(crate) fn always(system: &System) -> Result<(), Violation> {
    if system.world.launches > 1 {
        return Err(Violation::LaunchedTwice(system.world.launches));
    }
    abort_waits_for_nobody(system)?;
    a_checkpoint_restores(system)?;
    held_means_held(system)?;
    stops_in_time(system)?;
    checkpoints_go_on(system)?;
    files_are_known_at_rest(system)?;
    nothing_is_computed_again(system)?;
    elapsed_is_true(system)
}

/// While a task runs and does nothing else, every checkpoint on disk is one that it wants, has set aside, or has told
/// that it could not delete.
fn files_are_known_at_rest(system: &System) -> Result<(), Violation> {
    if system.phase() != Phase::Running || system.is_busy() || system.spy.disk_lied {
        return Ok(());
    }
    let record = system.machine.record();
    let known =
        |g: Generation| record.generations.contains(g) || record.aside.contains(g) || system.spy.left.contains(g);
    let mut there = system.world.snapshots.iter().flatten().filter(|s| s.health != Health::Litter);
    match there.find(|s| !known(s.generation)) {
        Some(unknown) => Err(Violation::UnknownFile(unknown.generation)),
        None => Ok(()),
    }
}

/// Once its end is in a checkpoint that is durable and restores, the program does not work again.
fn nothing_is_computed_again(system: &System) -> Result<(), Violation> {
    if system.spy.end_saved && system.world.works() { Err(Violation::ComputedAgain) } else { Ok(()) }
}

/// The machine counts the time that the program has run; a clock that jumps adds nothing, and takes away no more than
/// what had passed unseen.
fn elapsed_is_true(system: &System) -> Result<(), Violation> {
    let Some(off) = system.spy.off else { return Ok(()) };
    if off.unsigned_abs() > system.spy.unseen { Err(Violation::ElapsedWrong { off }) } else { Ok(()) }
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
        // A record that does not become durable is not waited for without end.
        Phase::Paused { .. }
            if system.is_held()
                && system.machine.poll_timeout().is_some()
                && system.spy.durable == system.spy.emitted =>
        {
            Err(Violation::TimerWhileHeld)
        }
        _ => Ok(()),
    }
}

/// Suspend, quit and abort stop the guest in time: within ticks if nothing goes wrong, and within the policy's
/// deadlines if something does.
fn stops_in_time(system: &System) -> Result<(), Violation> {
    let spy = &system.spy;
    if spy.clock_in_doubt || system.world.power == Power::Off {
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

/// What holds when the task is over.
pub(crate) fn at_end(system: &System, scenario: &Scenario, outcome: Outcome) -> Result<(), Violation> {
    let leftover = system.machine.leftover();
    // One that could not be put on record is not taken up again, and the end says why.
    let unrecorded = outcome == Outcome::Failed { cause: Cause::Journal };
    if system.spy.aborted && outcome != Outcome::Aborted && !unrecorded {
        return Err(Violation::AbortEndedOtherwise(outcome));
    }
    // A manager that was stopped before it was started, and that a lying disk has told nothing, has no VM to speak of.
    // The same goes for one that has lost its journal before it has looked.
    let unaware =
        system.spy.disk_lied && matches!(outcome, Outcome::Stopped { .. } | Outcome::Failed { cause: Cause::Journal });
    // Of the leftovers, one alone says that it may run.
    if leftover != Some(Leftover::MayRun) && system.world.power != Power::Off && !unaware {
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
    clocks_change_no_end(system, outcome)?;
    match outcome {
        Outcome::Completed { .. } => the_result_is_right(system, scenario),
        Outcome::Stopped { checkpoint } => was_asked_to_stop(system, checkpoint),
        Outcome::Failed { cause: Cause::RunLimit } => the_limit_brings_back_what_there_is(system, scenario),
        Outcome::Failed { .. } | Outcome::Aborted => Ok(()),
    }
}

/// A clock that jumps is no reason to fail, or to leave something behind.
fn clocks_change_no_end(system: &System, outcome: Outcome) -> Result<(), Violation> {
    let limit = outcome == Outcome::Failed { cause: Cause::RunLimit };
    let harmless = !system.spy.harmed && !limit;
    let failed = matches!(outcome, Outcome::Failed { .. }) || system.machine.leftover().is_some();
    if harmless && failed { Err(Violation::FailedForNothing(outcome)) } else { Ok(()) }
}

/// And, if there was time and nothing went wrong, has saved what ran.
fn was_asked_to_stop(system: &System, checkpoint: Option<Generation>) -> Result<(), Violation> {
    if system.spy.quit.is_none() {
        return Err(Violation::StoppedUnasked);
    }
    match system.spy.must_save {
        Some(before) if !system.spy.harmed && checkpoint <= before => Err(Violation::NotSaved { checkpoint }),
        _ => Ok(()),
    }
}

/// A failure is told with its cause: that must have happened, as often as the policy says.
fn failure_has_a_reason(system: &System, scenario: &Scenario, cause: Cause) -> Result<(), Violation> {
    let spy = &system.spy;
    let policy = scenario.plan().policy();
    let happened = match cause {
        // One that is passed over while the others are collected.
        Cause::Op { op: Op::CopyOut(_), .. } => spy.harmed,
        // One that was answered, but not with what had to be known.
        Cause::Op { op: Op::Probe, fault } if fault.kind == FaultKind::Refused => spy.harmed,
        Cause::Op { op, fault } if fault.kind == FaultKind::Unknown => spy.harmed && spy.was_tried(op),
        Cause::Op { op, fault } => spy.failed.is_some_and(|(failed, kind, times)| {
            let retried = kind == FaultKind::Refused;
            failed == op && kind == fault.kind && (!retried || times >= policy.attempts[op.kind().index()])
        }),
        // The VM is powered off after this last one, too.
        Cause::Guest { .. } => spy.losses >= policy.max_losses,
        Cause::Outputs { .. } => spy.rounds > policy.max_losses,
        Cause::RunLimit => scenario.limit.is_some_and(|limit| system.machine.record().elapsed_ms >= limit),
        Cause::Journal => spy.journal_fails,
        Cause::Fence { .. } => spy.fence_hangs,
    };
    if happened { Ok(()) } else { Err(Violation::FailedForNothing(Outcome::Failed { cause })) }
}

/// What the program had written by then.
fn the_limit_brings_back_what_there_is(system: &System, scenario: &Scenario) -> Result<(), Violation> {
    for ix in 0..usize::from(scenario.outputs).min(MAX_OUT) {
        if !system.spy.harmed && system.world.results[ix].is_none() {
            return Err(Violation::WrongResult(ix));
        }
    }
    Ok(())
}

fn the_claimed_checkpoint_is_there(system: &System, claimed: Option<Generation>) -> Result<(), Violation> {
    if system.spy.disk_lied || system.spy.deleted {
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
        let expected = scenario.writes_outputs().then(|| output_of(right, ix));
        if system.world.results[ix] != expected {
            return Err(Violation::WrongResult(ix));
        }
    }
    Ok(())
}
