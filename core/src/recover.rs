//! Finding the way back: after a restart, after a loss, after a doubt.
//!
//! The journal says what was wanted, the probe says what is. Everything here makes one belief of both.

use crate::command::{Base, Op, OpKind};
use crate::error::RestoreError;
use crate::id::{Generation, MAX_GENERATIONS};
use crate::input::{FaultKind, Found, Power, Program};
use crate::journal::{RECORD_VERSION, Record};
use crate::machine::{Examine, Machine, Stage, Tries};
use crate::output::{Cause, Loss, Notice, Outcome};
use crate::phase::Intent;
use crate::policy::Plan;
use crate::timers::Timer;

impl Machine {
    /// A task that goes on from the last record of an earlier manager.
    ///
    /// It has been started already. Only an abort is remembered of what was wanted: whoever starts a manager for a task
    /// that was suspended, stopped or has failed wants it to run. A task that has completed or was aborted is over:
    /// [`outcome`](Self::outcome) says so at once.
    ///
    /// # Errors
    /// If the record is of a later version or contradicts itself.
    pub fn restore(record: Record, plan: &Plan, epoch: u64) -> Result<Self, RestoreError> {
        let _ = plan;
        check(&record)?;
        let mut machine = Self::with_record(record, epoch);
        let discards = matches!(record.ending, Some(Outcome::Completed { .. } | Outcome::Aborted));
        if record.ended && discards {
            machine.stage = Stage::Ended;
            return Ok(machine);
        }
        machine.unfinished = !record.ended;
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
        // Before it was powered on, there was nothing that could have been lost by the checkpoint's fault.
        let was_restored = self.examine == Examine::Restored && self.stage.is_live();
        self.forget_guest();
        self.stage = Stage::Lost;
        self.changed();
        if matches!(self.record.intent, Intent::Quit | Intent::Abort) {
            // Nothing goes on from here: what was saved before is what there is.
            return;
        }
        if was_restored {
            self.count_restore_loss(plan);
        }
        self.record.restarts = self.record.restarts.saturating_add(1);
        self.record.losses = self.record.losses.saturating_add(1);
        if self.record.losses > plan.policy.max_losses {
            return self.end(Outcome::Failed { cause: Cause::Guest { loss } });
        }
        self.notice(Notice::RolledBack { to: self.next_base(), why: loss });
    }

    /// Nothing that was believed of the guest holds any more.
    fn forget_guest(&mut self) {
        // Whether a checkpoint that was being made is whole, the next look tells.
        self.snapshot = None;
        self.stop_run_timers();
        self.timers.disarm(Timer::Overall);
        self.timers.disarm(Timer::Retry);
        self.set_paused(false);
        self.running_since = None;
        self.tries = Tries::default();
        self.overdue = false;
        self.doubt = false;
        self.launch_doubt = false;
        self.exit_seen = None;
        self.missing = None;
        self.record.exit = None;
    }

    /// Whether it is the checkpoint's fault that `op` failed while it was being restored.
    ///
    /// A hypervisor that did nothing (no memory just now) says nothing about the checkpoint, and neither do refused
    /// credentials: the checkpoint stands, and the task fails resumable.
    pub(crate) fn checkpoint_is_to_blame(&self, op: Op, kind: FaultKind) -> bool {
        let restoring = match op.kind() {
            OpKind::Provision => op != Op::Provision(Base::Baseline),
            OpKind::PowerOn | OpKind::AwaitTools | OpKind::LogIn | OpKind::Probe => self.examine == Examine::Restored,
            _ => false,
        };
        let blames = match kind {
            FaultKind::Unknown | FaultKind::NotFound | FaultKind::AlreadyExists | FaultKind::Fatal => true,
            FaultKind::Damaged | FaultKind::Rejected => true,
            // A program that cannot be examined in a guest that answers.
            FaultKind::Refused => op == Op::Probe,
            FaultKind::AuthRejected | FaultKind::NoSpace | FaultKind::Unsupported | FaultKind::Incompatible => false,
        };
        restoring && blames && !matches!(self.stage, Stage::Unprobed | Stage::TearingDown { .. } | Stage::Ended)
    }

    /// A hypervisor that says that the checkpoint is no good is believed. Silence may have other reasons: it is tried
    /// again, as often as the policy says.
    pub(crate) fn blame_checkpoint(&mut self, plan: &Plan, kind: FaultKind) {
        if matches!(kind, FaultKind::Unknown | FaultKind::Refused) {
            self.count_restore_loss(plan);
            self.examine = Examine::No;
            self.lost.get_or_insert(Loss::Unresponsive);
        } else {
            self.drop_base();
        }
    }

    /// The guest did not come up from the newest checkpoint.
    fn count_restore_loss(&mut self, plan: &Plan) {
        self.restore_losses = self.restore_losses.saturating_add(1);
        if self.restore_losses >= plan.policy.restore_attempts.get() {
            self.drop_newest();
        }
    }

    /// The checkpoint being restored is no good: fall back to the one before it.
    pub(crate) fn drop_base(&mut self) {
        self.forget_guest();
        self.lost = None;
        self.drop_newest();
        self.changed();
        self.stage = Stage::Lost;
    }

    fn drop_newest(&mut self) {
        if let Some(generation) = self.record.generations.newest() {
            self.drop_generation(generation);
            self.fall_back_on_junk(generation);
        }
        // The one before it gets as many tries. There are only so many, so this comes to an end.
        self.restore_losses = 0;
        self.record.losses = 0;
    }

    /// Before starting over: one that was to be deleted and is still there. Only older ones than the one that was no
    /// good, so that none is tried again.
    fn fall_back_on_junk(&mut self, dropped: Generation) {
        let older = self.junk.iter().find(|&g| g < dropped && Some(g) != self.removing);
        if let Some(older) = older.filter(|_| self.record.generations.is_empty()) {
            self.junk.remove(older);
            self.record.generations.insert(older);
        }
    }

    fn drop_generation(&mut self, generation: Generation) {
        self.record.generations.remove(generation);
        self.junk.insert(generation);
        self.notice(Notice::CheckpointUnusable { generation });
    }

    /// A probe was answered. Returns whether it told what had to be known.
    pub(crate) fn found(&mut self, plan: &Plan, found: &Found) -> bool {
        if self.stage == Stage::Unprobed {
            self.first_look(plan, found);
            return true;
        }
        self.watch_due = false;
        self.doubt = false;
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
        if paused != self.paused {
            self.set_paused(paused);
        }
        paused || self.look_at_program(plan, found.program)
    }

    fn look_at_program(&mut self, plan: &Plan, program: Program) -> bool {
        let examining = self.stage == Stage::LoggedIn && self.examine != Examine::No;
        let launching = self.stage == Stage::Copying(plan.files_in) && self.launches > 0;
        let running = self.stage == Stage::Running;
        match program {
            Program::Running if examining || launching => self.launched(plan),
            Program::Exited(status) if examining || launching => {
                self.exit_seen = Some(status);
                self.launched(plan);
            }
            Program::Exited(status) if running => self.exited(status),
            Program::NotStarted if examining && self.examine == Examine::Restored => self.drop_base(),
            Program::NotStarted if examining || running => {
                self.lost.get_or_insert(Loss::ProgramMissing);
            }
            Program::NotStarted => self.launch_doubt = false,
            Program::Unknown if examining || self.launch_doubt || running => {
                self.watch_due = running;
                return false;
            }
            Program::Running | Program::Exited(_) | Program::Unknown => {}
        }
        true
    }

    /// The first look at what an earlier manager, or an earlier life of this VM, has left.
    fn first_look(&mut self, plan: &Plan, found: &Found) {
        self.take_stock(found);
        let first = !core::mem::replace(&mut self.looked, true);
        let crashed = first && self.unfinished && self.record.launched;
        let ours = crashed && found.program != Program::NotStarted;
        match found.power {
            Power::Off => {
                if crashed {
                    self.record.restarts = self.record.restarts.saturating_add(1);
                    self.changed();
                    self.notice(Notice::RolledBack { to: self.next_base(), why: Loss::Found });
                }
                self.stage = Stage::Off { registered: found.registered };
            }
            Power::On | Power::Paused if ours => {
                self.base = self.next_base();
                self.examine = Examine::Adopted;
                self.stage = Stage::Booted;
                self.set_paused(found.power == Power::Paused);
            }
            // Not ours, or of no use: power it off and look again. A hypervisor that goes on to say that it runs
            // after that is treated like a guest that is lost again and again.
            Power::On | Power::Paused if first => self.stage = Stage::Lost,
            Power::On | Power::Paused => self.roll_back(plan, Loss::Unresponsive),
        }
    }

    /// Compares the checkpoints that there are with those that should be there.
    fn take_stock(&mut self, found: &Found) {
        self.removing = self.removing.filter(|&g| !found.snapshots.contains(g));
        if let Some(pending) = self.record.pending {
            if found.snapshots.contains(pending) {
                // Whole, although the journal never heard of it.
                let cpu_ms = self.record.checkpointed_cpu_ms;
                self.count_checkpoint(pending, cpu_ms);
            } else {
                self.drop_snapshot();
            }
        }
        let missing = |record: &Record| record.generations.iter().find(|&g| !found.snapshots.contains(g));
        // Each time an older one, so there are no more rounds than numbers in both sets.
        for _ in 0..2 * MAX_GENERATIONS {
            let Some(generation) = missing(&self.record) else { break };
            self.drop_generation(generation);
            self.fall_back_on_junk(generation);
            self.changed();
        }
        for generation in found.snapshots.iter() {
            if !self.record.generations.contains(generation) {
                self.junk.insert(generation);
            }
            if generation >= self.record.next_generation {
                // Numbers are not used twice, not even those that a lost journal gave out.
                self.record.next_generation = generation.next();
                self.changed();
            }
        }
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
