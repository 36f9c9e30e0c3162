//! Finding the way back: after a restart, after a loss, after a doubt.
//!
//! The journal says what was wanted, the probe says what is. Everything here makes one belief of both.

use crate::command::{Base, Op, OpKind};
use crate::error::RestoreError;
use crate::id::{Generation, Generations, MAX_GENERATIONS};
use crate::input::{Fault, FaultKind, Found, Power, Program};
use crate::journal::{RECORD_VERSION, Record};
use crate::life::{Examine, Life};
use crate::machine::{Machine, Stage, Tries};
use crate::output::{Cause, Leftover, Loss, Notice, Outcome, Unfit};
use crate::phase::Intent;
use crate::policy::Plan;
use crate::time::Instant;

/// How many dropped checkpoints are set aside.
const MAX_ASIDE: usize = 2;

impl Machine {
    /// A task that goes on from the last record of an earlier manager.
    ///
    /// It has been started already. Only an abort is remembered of what was wanted: whoever starts a manager for a task
    /// that was suspended, stopped or has failed wants it to run. A task that has completed or was aborted is over:
    /// [`outcome`](Self::outcome) says so at once.
    ///
    /// `now` is the first time that the machine knows of; its journal is waited for from then on.
    ///
    /// # Errors
    /// If the record is of a later version or contradicts itself.
    pub fn restore(record: Record, plan: &Plan, epoch: u64, now: Instant) -> Result<Self, RestoreError> {
        check(&record)?;
        let mut machine = Self { now, ..Self::with_record(record, epoch) };
        let discards = matches!(record.ending, Some(Outcome::Completed { .. } | Outcome::Aborted));
        if record.ended && discards {
            machine.stage = Stage::Ended;
            return Ok(machine);
        }
        machine.unfinished = !record.ended;
        machine.inherited = match (record.ended, plan.capabilities.outlives_manager) {
            (true, _) => record.leftover,
            (false, true) => Some(Leftover::MayRun),
            (false, false) => Some(Leftover::StillRegistered),
        };
        machine.record.ended = false;
        machine.record.leftover = None;
        if record.intent != Intent::Abort {
            machine.record.intent = Intent::Run;
        }
        if discards {
            machine.stage = Stage::TearingDown { off: false };
        } else {
            machine.stage = Stage::Unprobed;
            machine.record.ending = None;
            // Results that were being collected are collected again, from whatever is restored.
            machine.record.exit = None;
            // A loss that an earlier manager gave up on may have been mended since.
            machine.record.losses = 0;
        }
        machine.changed();
        machine.first = machine.record.seq;
        machine.settle(plan);
        Ok(machine)
    }

    /// The guest is lost: go back to what is durable.
    pub(crate) fn roll_back(&mut self, plan: &Plan, loss: Loss) {
        // Before it was powered on, there was nothing that could have been lost by the checkpoint's fault. One that was
        // dropped has been dealt with.
        let was_restored = self.life.examine == Examine::Restored && self.stage.is_live() && loss != Loss::Checkpoint;
        let collecting = self.life.collecting;
        self.account();
        // Whether a checkpoint that was being made is whole, the next look tells.
        self.life = Life::default();
        self.timers.end_life();
        self.tries = Tries::default();
        self.overdue = false;
        self.record.exit = None;
        self.stage = Stage::Lost;
        self.changed();
        if matches!(self.record.intent, Intent::Quit | Intent::Abort) {
            // Nothing goes on from here: what was saved before is what there is.
            return;
        }
        if was_restored {
            self.count_failed_restore(plan, Unfit::Lifeless);
        }
        self.record.restarts = self.record.restarts.saturating_add(1);
        self.record.losses = self.record.losses.saturating_add(1);
        self.rounds += u16::from(collecting);
        if self.record.losses > plan.policy.max_losses {
            return self.end(Outcome::Failed { cause: Cause::Guest { loss } });
        }
        // Checkpoints in between do not count: the outputs of this program do not come.
        if self.rounds > plan.policy.max_losses {
            return self.end(Outcome::Failed { cause: Cause::Outputs { loss } });
        }
        self.notice(Notice::RolledBack { to: self.next_base(), why: loss });
    }

    // ---- checkpoints that do not restore ----

    /// Whether `op` is part of restoring a checkpoint.
    pub(crate) fn is_restoring(&self, op: Op) -> bool {
        match op.kind() {
            OpKind::Provision => op != Op::Provision(Base::Baseline),
            OpKind::PowerOn | OpKind::AwaitTools | OpKind::LogIn | OpKind::Probe => {
                self.life.examine == Examine::Restored && !matches!(self.stage, Stage::TearingDown { .. })
            }
            _ => false,
        }
    }

    /// `op` did not restore the newest checkpoint, and is not tried again.
    ///
    /// Only a checkpoint that is proven damaged is given up for what is before it. A host that cannot load it as it is now
    /// (another build, no permission, no memory) proves nothing: the task ends, resumable, and everything stands.
    pub(crate) fn not_restored(&mut self, plan: &Plan, op: Op, fault: Fault) {
        match (op.kind(), fault.kind) {
            (_, FaultKind::Damaged) => self.drop_base(Unfit::Damaged),
            (OpKind::Provision, FaultKind::NotFound) => self.drop_base(Unfit::Missing),
            (_, FaultKind::Rejected) => {
                self.count_failed_restore(plan, Unfit::Rejected);
                self.lost.get_or_insert(Loss::Unresponsive);
            }
            // The hypervisor does not answer, whatever it restores.
            (OpKind::Provision | OpKind::PowerOn, FaultKind::Unknown) => {
                self.lost.get_or_insert(Loss::Unresponsive);
            }
            // Silence may have other reasons than the checkpoint; `roll_back` counts it. Likewise a program that cannot be
            // examined in a guest that answers.
            (OpKind::Probe, FaultKind::Refused) | (_, FaultKind::Unknown) => {
                self.lost.get_or_insert(Loss::Unresponsive);
            }
            _ => self.end(Outcome::Failed { cause: Cause::Op { op, fault } }),
        }
    }

    /// The newest checkpoint did not restore, once more.
    fn count_failed_restore(&mut self, plan: &Plan, why: Unfit) {
        self.record.failed_restores = self.record.failed_restores.saturating_add(1);
        let failed = self.record.failed_restores;
        let newest = self.record.generations.newest();
        let has_older =
            self.record.generations.len() > 1 || newest.is_some_and(|newest| self.spare_before(newest).is_some());
        // A guest that does not answer proves little. For an older checkpoint that is enough; but before all of the work is
        // computed again, the task ends once, resumable, so that another manager (after a restart of the computer, say)
        // has tried as well.
        let proven = why != Unfit::Lifeless || has_older;
        let hopeless = u16::from(failed) > plan.policy.max_losses;
        if failed >= plan.policy.restore_attempts.get() && (proven || hopeless) {
            self.drop_newest(why);
        }
    }

    /// The checkpoint being restored is no good: fall back to the one before it.
    pub(crate) fn drop_base(&mut self, why: Unfit) {
        self.drop_newest(why);
        self.lost = Some(Loss::Checkpoint);
    }

    fn drop_newest(&mut self, why: Unfit) {
        if let Some(generation) = self.record.generations.newest() {
            self.drop_generation(generation, why);
            self.fall_back_on_spare(generation);
        }
        self.record.losses = 0;
    }

    /// Before starting over: one that was to be deleted and is still there.
    fn fall_back_on_spare(&mut self, dropped: Generation) {
        let older = self.spare_before(dropped).filter(|_| self.record.generations.is_empty());
        if let Some(older) = older {
            self.junk.remove(older);
            self.spare.remove(older);
            self.record.generations.insert(older);
        }
    }

    /// Only older ones than the one that was no good, so that none is tried again; and none that is only half there.
    fn spare_before(&self, dropped: Generation) -> Option<Generation> {
        self.spare.iter().find(|&g| g < dropped && self.junk.contains(g) && Some(g) != self.removing)
    }

    fn drop_generation(&mut self, generation: Generation, why: Unfit) {
        if self.record.generations.newest() == Some(generation) {
            // The one before it gets as many tries. There are only so many, so this comes to an end.
            self.record.failed_restores = 0;
        }
        self.record.generations.remove(generation);
        // That it is safe need not be told any more.
        self.reports.checkpoint.take_if(|(waiting, _, _)| *waiting == generation);
        // One that is missing, too: were it seen again some day, it is not for us to delete.
        self.set_aside(generation);
        self.notice(Notice::CheckpointDropped { generation, why });
    }

    /// It stays on disk, where somebody can look at it, until the task is over. There is room for the newest few.
    fn set_aside(&mut self, generation: Generation) {
        self.record.aside.insert(generation);
        while self.record.aside.len() > MAX_ASIDE {
            let Some(oldest) = self.record.aside.oldest() else { break };
            self.record.aside.remove(oldest);
            self.junk.insert(oldest);
        }
    }

    // ---- what a probe says ----

    /// A probe was answered. Returns whether it told what had to be known.
    pub(crate) fn found(&mut self, plan: &Plan, found: &Found) -> bool {
        if self.stage == Stage::Unprobed {
            self.first_look(plan, found);
            return true;
        }
        self.life.watch_due = false;
        self.life.doubt = false;
        match (found.power, self.stage) {
            (Power::Off, Stage::Provisioned) => return true,
            (Power::Off, _) => {
                self.lost.get_or_insert(Loss::Stopped);
                return true;
            }
            (Power::On | Power::Paused, Stage::Provisioned) => self.stage = Stage::Booted,
            (Power::On | Power::Paused, _) => {}
        }
        let paused = found.power == Power::Paused;
        if paused != self.life.paused {
            self.set_paused(paused);
        }
        paused || self.look_at_program(plan, found.program)
    }

    fn look_at_program(&mut self, plan: &Plan, program: Program) -> bool {
        let examining = self.stage == Stage::LoggedIn && self.life.examine != Examine::No;
        let launching = self.stage == Stage::Copying(plan.files_in) && self.life.launches > 0;
        let running = self.stage == Stage::Running;
        match program {
            Program::Running if examining || launching => self.launched(plan),
            Program::Exited(status) if examining || launching => {
                // Restored with its program's end in it: that is saved.
                let restored = self.life.examine == Examine::Restored;
                self.life.exit_seen = Some(status);
                self.launched(plan);
                self.life.end_saved = restored;
            }
            Program::Exited(status) if running => self.exited(plan, status),
            Program::NotStarted if examining && self.life.examine == Examine::Restored => {
                // Once may be a guest that rebooted unseen.
                self.count_failed_restore(plan, Unfit::NotOurs);
                self.lost = Some(Loss::Checkpoint);
            }
            Program::NotStarted if examining || running => {
                self.lost.get_or_insert(Loss::ProgramMissing);
            }
            Program::NotStarted => self.life.launch_doubt = false,
            Program::Unknown if examining || self.life.launch_doubt || running => {
                self.life.watch_due = running;
                return false;
            }
            Program::Running | Program::Exited(_) | Program::Unknown => {}
        }
        true
    }

    /// The first look at what an earlier manager, or an earlier life of this VM, has left.
    fn first_look(&mut self, plan: &Plan, found: &Found) {
        let dropped = self.take_stock(plan, found);
        let first = !core::mem::replace(&mut self.looked, true);
        let crashed = first && self.unfinished && self.record.launched;
        let ours = crashed && found.program != Program::NotStarted;
        match found.power {
            Power::Off => {
                if crashed || dropped {
                    // A later look comes after a roll-back, which has been counted.
                    self.record.restarts = self.record.restarts.saturating_add(u32::from(first));
                    self.changed();
                    let why = if dropped { Loss::Checkpoint } else { Loss::Found };
                    self.notice(Notice::RolledBack { to: self.next_base(), why });
                }
                self.stage = Stage::Off { registered: found.registered };
            }
            Power::On | Power::Paused if ours => {
                self.life.examine = Examine::Adopted;
                self.stage = Stage::Booted;
                self.set_paused(found.power == Power::Paused);
            }
            // Not ours, or of no use: power it off and look again. A hypervisor that goes on to say that it runs
            // after that is treated like a guest that is lost again and again.
            Power::On | Power::Paused if first => self.stage = Stage::Lost,
            Power::On | Power::Paused => self.roll_back(plan, Loss::Unresponsive),
        }
    }

    /// Compares the checkpoints that there are with those that should be there. Returns whether the one to go on from was
    /// dropped.
    fn take_stock(&mut self, plan: &Plan, found: &Found) -> bool {
        let newest = self.record.generations.newest();
        self.removing = self.removing.filter(|&g| !found.snapshots.contains(g));
        if let Some(pending) = self.record.pending {
            if found.snapshots.contains(pending) {
                // Whole, although the journal never heard of it.
                let cpu_ms = self.record.checkpointed_cpu_ms;
                self.count_checkpoint(plan, pending, cpu_ms);
            } else {
                self.drop_snapshot();
            }
        }
        let next = self.record.next_generation;
        for generation in found.snapshots.iter().filter(|&g| g >= next) {
            // Made after the record that this manager was given, which was not the newest that there was.
            self.count_checkpoint(plan, generation, self.record.checkpointed_cpu_ms);
        }
        // Known before anything is dropped: a sound one that was to be deleted is fallen back on.
        for generation in found.snapshots.iter().chain(found.damaged.iter()) {
            if !self.record.generations.contains(generation) && !self.record.aside.contains(generation) {
                self.junk.insert(generation);
            }
            if generation >= self.record.next_generation {
                // Numbers are not used twice, not even those that a lost journal gave out.
                self.record.next_generation = generation.next();
                self.changed();
            }
        }
        self.spare = Generations::from_iter(self.junk.iter().filter(|&g| found.snapshots.contains(g)));
        // Each time an older one, so there are no more rounds than numbers in both sets.
        for _ in 0..2 * MAX_GENERATIONS {
            let unfit = self.record.generations.iter().find_map(|g| Some((g, found.why_unfit(g)?)));
            let Some((generation, why)) = unfit else { break };
            self.drop_generation(generation, why);
            self.fall_back_on_spare(generation);
            self.changed();
        }
        self.record.generations.newest() < newest
    }
}

fn check(record: &Record) -> Result<(), RestoreError> {
    if record.version > RECORD_VERSION {
        return Err(RestoreError::Newer { found: record.version, known: RECORD_VERSION });
    }
    let contradiction = |what| Err(RestoreError::Contradiction { what });
    if record.generations.newest().is_some_and(|g| g >= record.next_generation) {
        return contradiction("it has a checkpoint with a number that was not given out yet");
    }
    if record.aside.newest().is_some_and(|g| g >= record.next_generation)
        || record.aside.iter().any(|g| record.generations.contains(g))
    {
        return contradiction("it has set a checkpoint aside that is wanted, or was never begun");
    }
    if record.pending.is_some_and(|g| g >= record.next_generation || record.generations.contains(g)) {
        return contradiction("the checkpoint that was being made is one that was made, or was never begun");
    }
    if record.ended && record.ending.is_none() {
        return contradiction("the task has ended, but not how");
    }
    if record.seq.0 == 0 {
        return contradiction("its number is 0, which no record has");
    }
    if record.next_generation < Generation::FIRST || record.pending.is_some_and(|g| g < Generation::FIRST) {
        return contradiction("it has a checkpoint with number 0, and they count from 1");
    }
    // Nobody has counted so far. From here on a count could run over, and a later record have a smaller number.
    if record.seq.0.max(record.elapsed_ms) > u64::MAX / 2 {
        return contradiction("it has a number or a time that no machine lives to see");
    }
    Ok(())
}
