//! What the invariants remember of a run.

use std::hash::Hash;

use vmtask_core::{
    Accepted, Base, Boot, Command, CommandId, Denied, Event, Fault, FaultKind, Generation, Generations, Input, Instant,
    Intent, JournalSeq, MAX_GENERATIONS, Op, Outcome, Phase, Power, Program, Record, Reply, Request, Span, Stimulus,
};

use super::{ENOUGH_TO_SAVE, PROMPT, UNLUCKY, Violation, is_beside_the_program};
use crate::act::Act;
use crate::scenario::{Scenario, TICK};
use crate::system::Trouble;
use crate::world::World;

/// What the invariants remember.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spy {
    /// The command that has not been answered, and when the machine may give up on it.
    pub(crate) awaiting: Option<(Command, Instant)>,
    pub(super) fencing: bool,
    pub(super) unresolved: Option<(CommandId, Op)>,
    /// The outcome of a launch in this boot is unknown, and nobody has looked since.
    pub(super) blind: bool,
    pub(super) emitted: JournalSeq,
    /// The newest record of this manager that is durable.
    pub(crate) durable: JournalSeq,
    /// The boot of the newest command.
    pub(crate) boot: Option<Boot>,
    /// The machine looks after the program: no checkpoint is begun before it knows.
    pub(super) looks: bool,
    /// The program is known to run in this boot, and is not known to have ended.
    pub(super) program_runs: bool,
    /// The largest number of a checkpoint that the machine had removed.
    pub(super) removed: Option<Generation>,
    /// There was a fault, of whatever kind.
    pub(crate) any_fault: bool,
    /// There was a fault that may cost something: clocks that jump must not.
    pub(crate) harmed: bool,
    /// How often the guest may still be rolled back for what went wrong last.
    pub(super) excused: u8,
    /// [`Record::restarts`](vmtask_core::Record::restarts) of the newest record that was handed out.
    pub(super) restarts: u32,
    /// The clock jumped by so little that it may have been a computer that was slow.
    pub(crate) clock_in_doubt: bool,
    pub(super) aborted: bool,
    /// Wanted since, and by when the guest must stand still.
    pub(super) suspend_by: Option<u64>,
    pub(super) quit: Option<u64>,
    pub(super) abort_by: Option<u64>,
    /// A good checkpoint is in the durable journal.
    pub(super) promised: bool,
    /// Checkpoints that were told to be skipped or unfit.
    pub(super) given_up: Generations,
    pub(super) disk_lied: bool,
    /// The op that was handed out last, and how often in a row without an answer that it was done.
    pub(super) tried: Option<Tries>,
    /// Something was asked for since: what comes next may be counted anew.
    pub(super) asked: bool,
    /// How often the launch was handed out in this boot.
    pub(super) launches: u8,
    /// The newest boot of this manager's that was provisioned.
    pub(super) provisioned: Option<Boot>,
    /// The op that failed last: how, and at which attempt.
    pub(super) failed: Option<(Op, FaultKind, u8)>,
    /// How often each checkpoint was restored since a durable record last said that it brought back the program; up to
    /// [`MANY_RESTORES`], of the newest that were.
    pub(super) restored: [Option<(Generation, u8)>; MAX_GENERATIONS],
    /// The program has been seen to run since the last restore, when this was the newest record.
    pub(super) came_back: Option<JournalSeq>,
    /// How often the VM was powered off since the last checkpoint: each loss is one.
    pub(super) losses: u16,
    /// Guests of this manager's that were lost while outputs were copied out of them, and the boot of the latest.
    pub(super) rounds: u16,
    pub(super) collecting: Option<Boot>,
    /// Checkpoints that managers found whole when they started, and had not heard of, since the last one was committed.
    pub(super) found: u8,
    /// Somebody has deleted a checkpoint.
    pub(crate) deleted: bool,
    /// The checkpoint that is under way, and the one that was after a quit, or was when it came.
    pub(super) last_begun: Option<Generation>,
    pub(super) begun_for_quit: Option<Generation>,
    /// There was time to save before a quit: the newest checkpoint then.
    pub(super) must_save: Option<Option<Generation>>,
    /// A VM whose program runs or has ended was there when this manager started, and nothing has gone wrong since.
    pub(super) adopts: bool,
    /// The newest checkpoint that was dropped and is to be set aside.
    pub(super) set_aside: Option<Generation>,
    /// The checkpoints of the newest record that was handed out, and those that it does not have any more for a reason
    /// that has not been told.
    pub(super) listed: Generations,
    pub(super) untold: Generations,
    /// Checkpoints that are told to be left behind for now.
    pub(super) left: Generations,
    /// The program has ended, and a checkpoint of that restores and is durable.
    pub(crate) end_saved: bool,
    /// A checkpoint was begun after the program's end.
    pub(super) end_tried: bool,
    /// For how long the program has run in guests in which it was known to, in milliseconds.
    pub(crate) ran: u64,
    /// How much more of it the machine has counted, as long as nothing but a clock has gone wrong.
    pub(crate) off: Option<i64>,
    /// By how much it may be off, because clocks jumped.
    pub(super) unseen: u64,
    pub(super) known_to_run: bool,
    /// The op whose outcome was unknown last.
    pub(super) given_up_on: Option<Op>,
    /// The last fence was never answered.
    pub(crate) fence_hangs: bool,
    /// How the task is to end, as the newest record says.
    pub(super) ending: Option<Outcome>,
    /// A record was not written when it should have been.
    pub(crate) journal_fails: bool,
}

/// How often in a row an op was handed out without an answer that it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tries {
    pub(super) op: Op,
    /// Since something was asked for while it was in flight: the machine may have begun to count anew then, and must
    /// not go beyond its policy in this count.
    pub(super) since_asked: u8,
    /// Whatever was asked for meanwhile: the machine may have gone on counting, and may give up by this count.
    pub(super) in_all: u8,
}

/// Restores of one checkpoint are counted up to this: no scenario's policy tells more apart.
const MANY_RESTORES: u8 = 3;

impl Spy {
    pub(crate) fn emitted(&mut self, record: &Record) -> Result<(), Violation> {
        if record.seq <= self.emitted {
            return Err(Violation::RecordsOutOfOrder(record.seq));
        }
        self.emitted = record.seq;
        // One that makes room for a newer one is not dropped.
        if record.generations.newest() <= self.listed.newest() {
            for gone in self.listed.iter().filter(|&g| !record.generations.contains(g)) {
                self.untold.insert(gone);
            }
        }
        if record.generations.newest() > self.listed.newest() {
            self.losses = 0;
        }
        self.listed = record.generations;
        self.count_restarts(record.restarts)
    }

    /// No more roll-backs than what went wrong last can cause.
    fn count_restarts(&mut self, restarts: u32) -> Result<(), Violation> {
        let more = restarts.saturating_sub(self.restarts);
        self.restarts = restarts;
        match u8::try_from(more).ok().and_then(|more| self.excused.checked_sub(more)) {
            Some(left) => self.excused = left,
            None => return Err(Violation::TooManyRestarts { restarts }),
        }
        Ok(())
    }

    /// Something went wrong, or a manager is started.
    fn excuse(&mut self, scenario: &Scenario) {
        // A single fault may take a guest down, and spoil all checkpoints that lie on disk (those of a guest that hangs, and
        // cannot be asked to let any go). All but the oldest are tried as often as the policy says, and that one until the
        // task fails.
        let policy = scenario.plan().policy();
        let spoilt = MAX_GENERATIONS * usize::from(policy.restore_attempts.get());
        self.excused = u8::try_from(spoilt + usize::from(policy.max_losses) + 2).unwrap_or(u8::MAX);
    }

    pub(crate) fn went_wrong(&mut self, scenario: &Scenario, act: Act) {
        self.any_fault = true;
        if !act.is_harmless() {
            self.harmed = true;
            self.adopts = false;
            self.excuse(scenario);
        }
        self.deleted |= act == Act::Deleted;
        self.fence_hangs |= act == Act::FenceHangs;
        self.journal_fails |=
            matches!(act, Act::SlowWrite | Act::WriteFails | Act::JournalHangs | Act::JournalGone | Act::DiskFull);
    }

    /// The clock jumped; the machine was last told the time so long ago, or one that is so far ahead.
    /// Returns by how much later timers fire for it.
    pub(crate) fn clock_jumped(&mut self, seconds: i32, behind: u64, ahead: u32) -> u64 {
        let by = match seconds {
            // A clock that goes back stands still until it has caught up.
            ..0 => u64::from(seconds.unsigned_abs()) * 1000 + behind,
            _ if Act::Clock(seconds).is_harmless() => behind,
            _ => {
                self.clock_in_doubt = true;
                0
            }
        };
        self.unseen += by;
        for limit in [&mut self.suspend_by, &mut self.quit, &mut self.abort_by] {
            *limit = limit.map(|limit| limit + by);
        }
        if let Some((_, deadline)) = &mut self.awaiting {
            // What the machine, which sees only the sum, takes its deadlines to be.
            let by = match u64::try_from(seconds) {
                Ok(forward) => (forward * 1000).saturating_sub(u64::from(ahead)).cast_signed(),
                Err(_) => -behind.min(u64::from(seconds.unsigned_abs()) * 1000).cast_signed(),
            };
            *deadline = Instant::from_millis(deadline.as_millis().saturating_add_signed(by));
        }
        by
    }

    pub(super) fn was_tried(&self, op: Op) -> bool {
        self.unresolved.is_some_and(|(_, other)| other == op) || self.given_up_on == Some(op)
    }

    /// Time passes in which the program runs, or does not.
    pub(crate) fn time_passes(&mut self, scenario: &Scenario, world: &World, millis: u64) {
        let runs = world.guest.is_some_and(|g| g.program.instances > 0 && !g.program.exited);
        self.known_to_run &= runs;
        if self.known_to_run && world.power == Power::On && !self.harmed {
            // What it does beyond its limit is not for the task.
            self.ran = (self.ran + millis).min(scenario.limit.unwrap_or(u64::MAX));
        }
    }

    /// A command has acted.
    pub(crate) fn acted(&mut self, op: Op, answer: crate::world::Answer) {
        match answer {
            Some(Ok(Reply::Found(found))) => self.known_to_run |= found.program == Program::Running,
            Some(Ok(_)) => self.known_to_run |= op == Op::Launch,
            _ => {}
        }
    }

    pub(crate) fn fence(&mut self, id: CommandId) -> Result<(), Violation> {
        if self.fencing {
            return Err(Violation::BesideAFence);
        }
        self.fencing = true;
        self.tried = None;
        if let Some((command, _)) = self.awaiting.take_if(|(command, _)| command.id == id) {
            self.outcome_unknown(&command);
        }
        Ok(())
    }

    pub(super) fn outcome_unknown(&mut self, command: &Command) {
        self.unresolved = Some((command.id, command.op));
        self.given_up_on = Some(command.op);
        self.blind |= command.op == Op::Launch;
    }

    pub(crate) const fn fenced(&mut self) {
        self.unresolved = None;
    }

    /// The machine, which said that it was in `phase`, has heard something.
    pub(crate) fn heard(
        &mut self,
        phase: Phase,
        stimulus: Stimulus,
        verdict: Result<Accepted, Denied>,
    ) -> Result<(), Violation> {
        let exit = matches!(stimulus, Stimulus::Input(Input::Observed { boot, event: Event::ProgramExited(_) }) if self.boot == Some(boot));
        if verdict != Ok(Accepted::Applied) {
            let heeds = exit && self.program_runs && is_beside_the_program(phase);
            return if heeds { Err(Violation::ExitIgnored) } else { Ok(()) };
        }
        self.program_runs &= !exit;
        let Stimulus::Input(input) = stimulus else {
            // What is in flight counts still.
            self.launches = 0;
            self.asked = self.awaiting.is_some();
            if !self.asked {
                self.tried = None;
            }
            return Ok(());
        };
        match input {
            Input::Completed { id, result } => {
                let Some((command, _)) = self.awaiting.take() else { return Ok(()) };
                if command.id != id {
                    return Err(Violation::TakenForAnother(command.op));
                }
                self.answered(command.op, result);
                if result.is_err_and(|fault| fault.kind == vmtask_core::FaultKind::Unknown) {
                    self.outcome_unknown(&command);
                }
                self.blind &= command.op != Op::Probe || result.is_err();
                // One that cannot tell what the program does is repeated.
                let told = matches!(result, Ok(Reply::Found(found)) if found.program != Program::Unknown);
                self.looks &= !told;
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

    fn answered(&mut self, op: Op, result: Result<Reply, Fault>) {
        match result {
            Ok(_) => self.tried = None,
            Err(fault) => self.failed = Some((op, fault.kind, self.tried.map_or(1, |tries| tries.in_all))),
        }
        let came_so_far = match result {
            Ok(_) => true,
            Err(fault) => fault.kind == FaultKind::Rejected,
        };
        if let Op::Provision(Base::Checkpoint(generation)) = op
            && came_so_far
        {
            self.count_restore(generation);
        }
        match (op, result) {
            (Op::RemoveSnapshot(generation), Ok(_)) => {
                self.left.remove(generation);
            }
            (Op::CommitSnapshot(_), Ok(Reply::Done)) => (self.last_begun, self.found) = (None, 0),
            _ => {}
        }
    }

    fn count_restore(&mut self, generation: Generation) {
        self.came_back = None;
        let known = |place: &Option<(Generation, u8)>| place.is_some_and(|(tried, _)| tried == generation);
        if let Some((_, times)) = self.restored.iter_mut().find(|place| known(place)).and_then(Option::as_mut) {
            *times = (*times + 1).min(MANY_RESTORES);
            return;
        }
        // In order, so that it makes no difference which was tried first; the oldest makes room.
        let oldest = self.restored.len() - 1;
        if self.restored[oldest].is_none_or(|(other, _)| other < generation) {
            self.restored[oldest] = Some((generation, 1));
            self.restored.sort_by_key(|place| core::cmp::Reverse(*place));
        }
    }

    /// How often a checkpoint was restored, as far as the journal does not say that it brought back the program.
    pub(super) fn restores_of(&self, generation: Generation) -> u8 {
        let tried = self.restored.iter().flatten().find(|(tried, _)| *tried == generation);
        tried.map_or(0, |(_, times)| *times)
    }

    /// A record is durable. If it counts no failed restores of its newest checkpoint, or was made after that had brought
    /// back the program, there are none to go on from.
    pub(crate) fn now_durable(&mut self, record: &Record) {
        self.durable = record.seq;
        let since = self.came_back.is_some_and(|seq| record.failed_restores == 0 || record.seq > seq);
        if since {
            let newest = record.generations.newest();
            self.restored
                .iter_mut()
                .filter(|place| place.map(|(tried, _)| tried) == newest)
                .for_each(|place| *place = None);
            self.restored.sort_by_key(|place| core::cmp::Reverse(*place));
        }
    }

    /// The machine says where it is.
    pub(crate) fn says(&mut self, phase: Phase) {
        if phase == Phase::Running {
            self.came_back.get_or_insert(self.emitted);
        }
        self.program_runs |= phase == Phase::Running;
        self.looks &= phase == Phase::Running;
    }

    /// A request was made. What became of it: `None` if it was denied.
    pub(crate) fn requested(
        &mut self,
        now: u64,
        request: Request,
        verdict: Option<Accepted>,
        over: bool,
        newest: Option<Option<Generation>>,
    ) -> Result<(), Violation> {
        self.adopts = false;
        let counts = verdict == Some(Accepted::Applied) || (verdict.is_some() && !over);
        if let (Request::Quit { budget_ms }, true) = (request, counts) {
            // One that the machine shrugs at, too: the shortest of all budgets counts, whatever it makes of each. When
            // it is spent, nothing that is under way is waited for.
            let by = now + u64::from(budget_ms) + TICK;
            self.begun_for_quit = self.quit.map_or(self.last_begun, |_| self.begun_for_quit);
            self.quit = Some(self.quit.map_or(by, |earlier| earlier.min(by)));
            let enough = u64::from(budget_ms) >= ENOUGH_TO_SAVE;
            self.must_save = newest.filter(|_| enough);
        }
        if verdict != Some(Accepted::Applied) {
            let ignores = request == Request::Abort && !self.aborted && !over;
            return if ignores { Err(Violation::AbortIgnored) } else { Ok(()) };
        }
        let soon = now + PROMPT;
        match request {
            Request::Suspend => self.suspend_by = Some(soon),
            Request::Resume | Request::Quit { .. } => self.suspend_by = None,
            Request::Abort => {
                self.aborted = true;
                self.must_save = None;
                self.abort_by = Some(soon);
                self.suspend_by = None;
            }
            Request::Start | Request::Checkpoint => {}
        }
        Ok(())
    }

    /// How much later than that it may be, once something has gone wrong.
    pub(super) const fn grace(&self) -> u64 {
        if self.any_fault { UNLUCKY } else { 0 }
    }

    pub(crate) fn is_awaited(&self, id: CommandId) -> bool {
        self.awaiting.is_some_and(|(command, _)| command.id == id)
    }

    /// A checkpoint was spoilt by a fault: that one does not restore any more is not the machine's doing.
    pub(crate) const fn spoiled(&mut self) {
        self.promised = false;
        self.end_saved = false;
    }

    /// A disk that lies voids all promises about checkpoints that were made before.
    pub(crate) const fn disk_lied(&mut self) {
        self.disk_lied = true;
        self.promised = false;
        self.end_saved = false;
    }

    /// Another manager has started, from this record.
    pub(crate) fn new_life(
        &mut self,
        record: Option<&Record>,
        scenario: &Scenario,
        world: &World,
        trouble: Option<Trouble>,
    ) {
        let seq = record.map_or(JournalSeq(0), |r| r.seq);
        *self = Self {
            emitted: seq,
            durable: seq,
            any_fault: self.any_fault,
            harmed: self.harmed,
            restarts: record.map_or(0, |r| r.restarts),
            listed: record.map_or(Generations::NONE, |r| r.generations),
            clock_in_doubt: self.clock_in_doubt,
            aborted: record.is_some_and(|r| r.intent == Intent::Abort),
            adopts: record.is_some_and(|r| r.launched && r.ending.is_none() && r.intent != Intent::Abort)
                && world.power != Power::Off
                && world.guest.is_some_and(|g| g.is_sound() && g.marker)
                && trouble.is_none()
                && !self.disk_lied,
            journal_fails: trouble == Some(Trouble::DiskFull),
            found: self.found + u8::from(record.is_some_and(|r| r.pending.is_some_and(|g| world.is_whole(g)))),
            deleted: self.deleted,
            set_aside: record.and_then(|r| r.aside.newest()),
            restored: self.restored,
            end_saved: self.end_saved,
            ran: self.ran,
            unseen: self.unseen,
            promised: self.promised,
            given_up: self.given_up,
            disk_lied: self.disk_lied,
            removed: self.removed,
            ..Self::default()
        };
        self.excuse(scenario);
    }

    /// Times are told apart by how far off they are: true ones from `now`, the manager's from `machine_now`.
    pub(crate) fn hash_into(&self, h: &mut impl std::hash::Hasher, now: u64, machine_now: Instant) {
        // Down to the first moment that is too late, and none of it where lateness is excused.
        let too_late = |by: u64| if self.clock_in_doubt { 0 } else { (by + self.grace() + 1).saturating_sub(now) };
        let left = |by: Option<u64>| by.map(too_late);
        // A clock that may have jumped excuses whatever comes before its deadline.
        let early = |deadline: Instant| if self.clock_in_doubt { Span::ZERO } else { deadline.since(machine_now) };
        self.awaiting.map(|(c, deadline)| (c.op, early(deadline))).hash(h);
        (self.fencing, self.fence_hangs, self.unresolved.map(|(_, op)| op)).hash(h);
        (self.blind, self.looks, self.program_runs, self.removed).hash(h);
        (self.aborted, left(self.suspend_by), left(self.quit), left(self.abort_by)).hash(h);
        (self.any_fault, self.harmed, self.excused, self.promised, self.disk_lied).hash(h);
        (self.clock_in_doubt, self.off, self.unseen, self.given_up, self.given_up_on, self.journal_fails).hash(h);
        (self.tried, self.launches, self.provisioned == self.boot, self.failed, self.restored).hash(h);
        // How many records that are not durable yet were made before.
        self.came_back.map(|seq| seq.0.saturating_sub(self.durable.0)).hash(h);
        (self.losses, self.rounds, self.collecting == self.boot, self.begun_for_quit, self.must_save).hash(h);
        (self.found, self.deleted, self.asked).hash(h);
        (self.adopts, self.set_aside, self.untold, self.left, self.end_saved, self.end_tried, self.known_to_run)
            .hash(h);
        // Begun before a quit: of no interest after it.
        self.last_begun.filter(|_| self.quit.is_none()).hash(h);
    }
}
