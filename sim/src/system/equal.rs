//! When two states are the same state.

use vmtask_core::{Boot, Command, Phase, Record};

use super::{Budget, Job, Late, SUSPENDED, System};
use crate::act::Act;

impl System {
    /// What makes this state different from another one, as 128 bits: names, counts and absolute times are left out.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        self.fingerprint_within(self.budget)
    }

    /// The same if so much may still go otherwise: for states that differ in nothing else.
    #[must_use]
    pub fn fingerprint_within(&self, budget: Budget) -> u128 {
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
        if budget.faults > 0 {
            // By how much a jump of the clock would move the timers.
            now.since(told).hash(h);
        }
        let mut world = self.world.clone();
        let here = (self.spy.boot == Some(world.boot), world.boot.epoch == self.epoch);
        world.boot = Boot { epoch: 0, seq: 0 };
        (world, here).hash(h);
        (self.disk.load().as_ref().map(relative), self.disk.previous.as_ref().map(relative)).hash(h);
        (budget, self.start_due).hash(h);
        let after = |at: u64| at.saturating_sub(self.now);
        let too_late = |j: &Job| (j.act == Some(Act::LateReply)).then(|| after(j.too_late));
        self.worker.map(|j| (j.command.op, after(j.at), j.act, too_late(&j))).hash(h);
        let late = |late: Late| {
            let Command { id, boot, op, .. } = late.command;
            (op, late.steps, self.spy.is_awaited(id), self.spy.boot == Some(boot))
        };
        self.late.map(|l| l.map(late)).hash(h);
        for mail in self.replies.iter().flatten() {
            (after(mail.at), self.spy.is_awaited(mail.what.0), mail.what.1).hash(h);
        }
        for mail in self.events.iter().flatten() {
            (after(mail.at), self.spy.boot == Some(mail.what.0), mail.what.1).hash(h);
        }
        self.writer.map(|w| (after(w.at), relative(&w.record), w.act.filter(|act| *act != Act::SlowWrite))).hash(h);
        self.queued.as_ref().map(relative).hash(h);
        self.fencer.map(|f| (after(f.at), f.dies)).hash(h);
        if matches!(self.phase, Phase::Paused { .. }) {
            // When its user resumes it, even if something else has to be over first.
            self.now.saturating_sub(self.phase_since).min(SUSPENDED).hash(h);
        }
        // How long it has been running as long as that matters.
        self.checkpoint_overdue_in().hash(h);
        self.spy.hash_into(h, self.now, now);
        hasher.finish128()
    }
}
