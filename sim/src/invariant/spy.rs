//! What the invariants remember of a run.

use std::hash::Hash;

use vmtask_core::{
    Accepted, Boot, Command, CommandId, Denied, Event, Generation, Generations, Input, Instant, Intent, JournalSeq, Op,
    Outcome, Phase, Program, Record, Reply, Request, Span, Stimulus,
};

use super::{PROMPT, UNLUCKY, Violation, is_beside_the_program};
use crate::scenario::TICK;

/// What the invariants remember.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spy {
    /// The command that has not been answered, and when the machine may give up on it.
    pub(crate) awaiting: Option<(Command, Instant)>,
    pub(super) fencing: bool,
    pub(super) fence_failed: bool,
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
    /// Faults so far, and those before this manager was started.
    pub(crate) faults: u16,
    /// Those of them that must not cost anything: clocks that jump.
    pub(crate) harmless: u16,
    pub(super) faults_before: u16,
    pub(super) lives: u16,
    /// Rolled back because a fault was pending when this manager started.
    pub(crate) clock_jumped: bool,
    pub(super) aborted: bool,
    /// Wanted since, and by when the guest must stand still.
    pub(super) suspend_by: Option<u64>,
    pub(super) quit: Option<u64>,
    pub(super) abort_by: Option<u64>,
    /// A good checkpoint is in the durable journal.
    pub(super) promised: bool,
    /// Checkpoints that were told to be skipped or unusable.
    pub(super) given_up: Generations,
    pub(super) disk_lied: bool,
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

    pub(super) fn outcome_unknown(&mut self, command: &Command) {
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
        stimulus: Stimulus,
        verdict: Result<Accepted, Denied>,
    ) -> Result<(), Violation> {
        let exit = matches!(stimulus, Stimulus::Input(Input::Observed { boot, event: Event::ProgramExited(_) }) if self.boot == Some(boot));
        if verdict != Ok(Accepted::Applied) {
            let heeds = exit && self.program_runs && is_beside_the_program(phase);
            return if heeds { Err(Violation::ExitIgnored) } else { Ok(()) };
        }
        self.program_runs &= !exit;
        let Stimulus::Input(input) = stimulus else { return Ok(()) };
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

    /// The machine says where it is.
    pub(crate) fn says(&mut self, phase: Phase) {
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
    ) -> Result<(), Violation> {
        let counts = verdict == Some(Accepted::Applied) || (verdict.is_some() && !over);
        if let (Request::Quit { budget_ms }, true) = (request, counts) {
            // One that the machine shrugs at, too: the shortest of all budgets counts, whatever it makes of each. When
            // it is spent, nothing that is under way is waited for.
            let by = now + u64::from(budget_ms) + TICK;
            self.quit = Some(self.quit.map_or(by, |earlier| earlier.min(by)));
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
                self.abort_by = Some(soon);
                self.suspend_by = None;
            }
            Request::Start | Request::Checkpoint => {}
        }
        Ok(())
    }

    /// How much later than that it may be, once something has gone wrong.
    pub(super) const fn grace(&self) -> u64 {
        if self.faults == 0 { 0 } else { UNLUCKY }
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
        // Down to the first moment that is too late, and none of it where lateness is excused.
        let too_late = |by: u64| if self.clock_jumped { 0 } else { (by + self.grace() + 1).saturating_sub(now) };
        let left = |by: Option<u64>| by.map(too_late);
        // A clock that has jumped excuses whatever comes before its deadline.
        let early = |deadline: Instant| if self.clock_jumped { Span::ZERO } else { deadline.since(machine_now) };
        self.awaiting.map(|(c, deadline)| (c.op, early(deadline))).hash(h);
        (self.fencing, self.fence_failed, self.unresolved.map(|(_, op)| op)).hash(h);
        (self.blind, self.looks, self.program_runs, self.removed).hash(h);
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
