//! The public face of the machine: inputs in, outputs out, timers.
//!
//! What it believes and wants is in the fields here; how they change is in `step.rs`, what it does next in `choose.rs`,
//! and how it finds its way back after a loss or a restart in `recover.rs`.

use core::num::NonZeroU8;

use crate::command::{Command, Op, OpKind};
use crate::error::{Accepted, Denied};
use crate::id::{Boot, CommandId, Generation, Generations, JournalSeq};
use crate::input::{Fault, Input, Request};
use crate::journal::Record;
use crate::life::Life;
#[cfg(feature = "explore")]
use crate::life::Snapshot;
use crate::output::{Leftover, Loss, Notice, Outcome, Output, Report};
use crate::phase::{Back, Intent, Phase};
use crate::policy::Plan;
use crate::report::Reports;
use crate::time::{Instant, Span};
use crate::timers::{Timer, Timers};

/// One task in one virtual machine, as a plain value: no heap, no I/O, no clock.
///
/// After anything that changes it ([`handle_request`](Self::handle_request), [`handle_input`](Self::handle_input),
/// [`handle_timeout`](Self::handle_timeout)), drain [`poll_output`](Self::poll_output) and ask
/// [`poll_timeout`](Self::poll_timeout) again. In which order and how often they come between two drains does not matter.
/// Every method takes the [`Plan`] that the machine was made with; [`Task`](crate::Task) holds both together.
///
/// Two machines must never answer for one task, so it is `Clone` only with the feature `explore`, for simulators.
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "explore", derive(Clone))]
pub struct Machine {
    // Names.
    pub(crate) epoch: u64,
    pub(crate) commands: u32,
    pub(crate) boot: u32,
    pub(crate) now: Instant,

    // What is believed.
    pub(crate) stage: Stage,
    pub(crate) life: Life,
    /// The guest is lost; dealt with as soon as nothing is in flight.
    pub(crate) lost: Option<Loss>,
    /// How often the guest was lost while outputs were copied out of it.
    pub(crate) rounds: u16,
    /// An earlier manager did not get to the end: a VM that is found running may be ours.
    pub(crate) unfinished: bool,
    /// What an earlier manager may have left behind, as far as that is known before the first look.
    pub(crate) inherited: Option<Leftover>,
    /// Whether this manager has probed.
    pub(crate) looked: bool,
    /// Checkpoints on disk that nobody wants.
    pub(crate) junk: Generations,
    /// One of them that may be gone: its deletion was asked for, and no look has seen it since.
    pub(crate) removing: Option<Generation>,
    /// The whole ones of them, as the last look told.
    pub(crate) spare: Generations,

    // What is due.
    pub(crate) overdue: bool,
    /// A quit has saved what it could.
    pub(crate) saved: bool,
    pub(crate) timers: Timers,

    // What is under way.
    /// The next command, not yet handed out.
    pub(crate) chosen: Option<Op>,
    pub(crate) flight: Option<Flight>,
    pub(crate) tries: Tries,
    /// The newest command whose outcome is unknown. It, and older ones, may still act.
    pub(crate) unresolved: Option<(CommandId, Op)>,
    pub(crate) fence: Option<Fence>,
    /// What is given up once the fence is answered.
    pub(crate) failing: Option<(Op, Fault)>,

    // What is durable.
    pub(crate) record: Record,
    pub(crate) emitted: JournalSeq,
    pub(crate) persisted: JournalSeq,
    /// The first record of this epoch: no command before it is durable.
    pub(crate) first: JournalSeq,
    /// Records are no longer waited for: the VM is taken down, and that is the end.
    pub(crate) journal_lost: bool,

    // What is to be told.
    pub(crate) reports: Reports,
}

/// How far the VM is, as far as we know. Completions move it; the next command follows from it and the intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Created,
    /// Nothing is known: probe.
    Unprobed,
    /// The VM is off, or about to be: power it off to be sure, then probe.
    Lost,
    Off {
        registered: bool,
    },
    Provisioned,
    Booted,
    Reachable,
    LoggedIn,
    /// The working directory is there, and this many input files.
    Copying(u16),
    Running,
    /// The program has ended, and this many outputs are collected.
    Exited(u16),
    TearingDown {
        off: bool,
    },
    Ended,
}

impl Stage {
    /// Whether a VM may be running on our account, so that a pause or a loss means something.
    pub(crate) const fn is_live(self) -> bool {
        matches!(
            self,
            Self::Booted | Self::Reachable | Self::LoggedIn | Self::Copying(_) | Self::Running | Self::Exited(_)
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) id: CommandId,
    pub(crate) op: Op,
}

/// How often an op has been attempted in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tries {
    pub(crate) op: Option<Op>,
    pub(crate) made: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fence {
    pub(crate) id: CommandId,
    pub(crate) op: Op,
    pub(crate) sent: bool,
}

impl Machine {
    /// A task that waits for [`Request::Start`](crate::Request::Start).
    ///
    /// `epoch` is a nonce: draw it anew for every machine that is made (from the operating system's randomness).
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self::with_record(Record::new(), epoch)
    }

    pub(crate) fn with_record(record: Record, epoch: u64) -> Self {
        Self {
            epoch,
            commands: 0,
            boot: 0,
            now: Instant::ZERO,
            stage: Stage::Created,
            life: Life::default(),
            lost: None,
            rounds: 0,
            unfinished: false,
            inherited: None,
            looked: false,
            junk: Generations::NONE,
            removing: None,
            spare: Generations::NONE,
            overdue: false,
            saved: false,
            timers: Timers::default(),
            chosen: None,
            flight: None,
            tries: Tries::default(),
            unresolved: None,
            fence: None,
            failing: None,
            emitted: record.seq,
            persisted: record.seq,
            first: JournalSeq(0),
            record,
            journal_lost: false,
            reports: Reports::default(),
        }
    }

    /// Asks for something. The verdict is there at once; what follows from it comes by
    /// [`poll_output`](Self::poll_output).
    ///
    /// `now` may be any time not before that of the last call; an earlier one counts as that.
    ///
    /// # Errors
    /// If it cannot be met now. Nothing has changed then, and the task goes on as before: keep driving it. An abort is
    /// never denied.
    pub fn handle_request(&mut self, plan: &Plan, now: Instant, request: Request) -> Result<Accepted, Denied> {
        self.advance(plan, now);
        let verdict = self.request(plan, request);
        #[cfg(feature = "tracing")]
        tracing::trace!(?request, ?verdict, phase = ?self.phase(), "request");
        if verdict == Ok(Accepted::Applied) {
            self.settle(plan);
        }
        verdict
    }

    /// Takes in something that happened. Late, duplicate and foreign messages are [`Accepted::Ignored`].
    ///
    /// `now` may be any time not before that of the last call; an earlier one counts as that.
    pub fn handle_input(&mut self, plan: &Plan, now: Instant, input: Input) -> Accepted {
        self.advance(plan, now);
        let accepted = self.step(plan, input);
        #[cfg(feature = "tracing")]
        tracing::trace!(?input, ?accepted, phase = ?self.phase(), "input");
        if accepted == Accepted::Applied {
            self.settle(plan);
        }
        accepted
    }

    /// Lets the timers fire that are due. Early or twice: nothing happens.
    pub fn handle_timeout(&mut self, plan: &Plan, now: Instant) {
        self.advance(plan, now);
        for timer in Timer::ALL {
            if self.timers.take_due(timer, self.now) {
                self.fire(plan, timer);
                self.settle(plan);
            }
        }
    }

    /// The next thing to carry out; `None` until something happens again.
    #[must_use = "an output that is dropped is a hang"]
    pub fn poll_output(&mut self, plan: &Plan) -> Option<Output> {
        let output = self.next_output(plan);
        #[cfg(feature = "tracing")]
        if let Some(output) = &output {
            tracing::trace!(?output, "output");
        }
        output
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) if nothing happens before. `None`: time alone changes
    /// nothing (the task is held, say, or has ended), so wait for a message or a request without a limit; what the task
    /// itself waits for then, [`waits_for`](Self::waits_for) tells.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What has to come before the task goes on. Ask it after the outputs have been drained.
    #[must_use]
    pub fn waits_for(&self) -> WaitsFor {
        match (self.flight, self.chosen) {
            _ if self.outcome().is_some() => WaitsFor::Nothing,
            _ if self.fence.is_some() => WaitsFor::Fence,
            (Some(flight), _) => WaitsFor::Command(flight.op),
            (None, Some(_)) if self.timers.is_armed(Timer::Retry) => WaitsFor::Timeout,
            (None, Some(_)) => WaitsFor::Persisted,
            (None, None) if self.stage == Stage::Ended => WaitsFor::Persisted,
            (None, None) if self.stage == Stage::Running && !self.life.paused => WaitsFor::Program,
            (None, None) => WaitsFor::Request,
        }
    }

    /// Where the task is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.fence.is_some() {
            return Phase::Fencing;
        }
        if let Some(op) = self.flight.map(|f| f.op).or(self.chosen) {
            // The watch looks at a running program without disturbing it: nothing to tell.
            if op == Op::Probe && self.stage == Stage::Running && !self.life.doubt {
                return Phase::Running;
            }
            return Phase::of(op, self.stage != Stage::Unprobed);
        }
        match self.stage {
            Stage::Created => Phase::Created,
            Stage::Ended => Phase::Ended,
            Stage::Running if self.record.intent != Intent::Suspend => Phase::Running,
            stage => Phase::Paused { back: back(stage) },
        }
    }

    /// What is wanted.
    #[must_use]
    pub const fn intent(&self) -> Intent {
        self.record.intent
    }

    /// How the task ended, once it has and its last record is durable, or is given up.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let told = self.persisted >= self.record.seq || self.journal_lost;
        self.record.ending.filter(|_| self.stage == Stage::Ended && told)
    }

    /// What could not be cleaned up.
    #[must_use]
    pub const fn leftover(&self) -> Option<Leftover> {
        self.record.leftover
    }

    /// What a later manager needs to know. It is handed out by [`Output::Persist`] whenever it changes.
    #[must_use]
    pub fn record(&self) -> Record {
        self.record
    }

    /// The checkpoint that would be restored if the guest were lost now.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<Generation> {
        self.record.generations.newest()
    }

    /// For how long the program has run by the time that the machine was last told, in milliseconds: pauses excluded, runs
    /// that were lost included.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        let since = self.life.running_since.map_or(0, |since| self.now.since(since).as_millis());
        self.record.elapsed_ms + u64::from(since)
    }

    /// The command that waits for its answer.
    #[must_use]
    pub fn in_flight(&self) -> Option<(CommandId, Op)> {
        self.flight.map(|flight| (flight.id, flight.op))
    }

    /// The command that is being fenced.
    #[must_use]
    pub fn awaited_fence(&self) -> Option<CommandId> {
        self.fence.filter(|fence| fence.sent).map(|fence| fence.id)
    }

    /// The boot whose events count.
    #[must_use]
    pub const fn boot(&self) -> Boot {
        Boot { epoch: self.epoch, seq: self.boot }
    }

    /// Whether the record with this number was handed out and is not yet known to be durable.
    #[must_use]
    pub fn awaits_persisted(&self, seq: JournalSeq) -> bool {
        self.persisted < seq && seq <= self.emitted
    }

    /// The state without names and absolute times: two machines with equal canonical states behave alike, whatever
    /// they went through. Explorers use it to recognise a state; inputs that are ignored do not change it.
    ///
    /// How long the program has run counts only as far as a run limit makes a timer of it.
    #[cfg(feature = "explore")]
    #[must_use]
    pub fn canonical(&self, now: Instant) -> Canonical {
        let nameless = CommandId { epoch: 0, seq: 0 };
        let mut m = self.clone();
        m.timers = m.timers.relative_to(now.max(m.now));
        m.now = Instant::ZERO;
        m.epoch = 0;
        m.commands = 0;
        m.boot = 0;
        m.life.running_since = m.life.running_since.map(|_| Instant::ZERO);
        m.life.snapshot = m.life.snapshot.map(|snapshot| Snapshot { cpu_ms: 0, ..snapshot });
        m.flight = m.flight.map(|f| Flight { id: nameless, ..f });
        m.unresolved = m.unresolved.map(|(_, op)| (nameless, op));
        m.fence = m.fence.map(|f| Fence { id: nameless, ..f });
        m.first = JournalSeq(u64::from(self.persisted < self.first));
        m.emitted = JournalSeq(self.record.seq.0 - self.emitted.0);
        m.persisted = JournalSeq(self.record.seq.0 - self.persisted.0);
        m.record = Record { seq: JournalSeq(0), elapsed_ms: 0, checkpointed_cpu_ms: 0, restarts: 0, ..self.record };
        m.reports = Reports::default();
        Canonical(m)
    }

    fn next_output(&mut self, plan: &Plan) -> Option<Output> {
        if self.emitted < self.record.seq {
            if self.emitted == self.persisted && !self.journal_lost {
                self.arm_journal(plan);
            }
            self.emitted = self.record.seq;
            return Some(Output::Persist(self.record));
        }
        if let Some(fence) = self.fence.as_mut().filter(|fence| !fence.sent) {
            fence.sent = true;
            let id = fence.id;
            self.timers.arm_in(Timer::Fence, self.now, plan.policy.fence);
            return Some(Output::Fence(id));
        }
        if let Some(command) = self.next_command(plan) {
            return Some(Output::Command(command));
        }
        self.next_report().map(Output::Report)
    }

    fn next_command(&mut self, plan: &Plan) -> Option<Command> {
        let op = self.chosen?;
        let held = self.timers.is_armed(Timer::Retry)
            || self.persisted < self.first
            || (is_gated(op) && self.persisted < self.record.seq);
        if held {
            return None;
        }
        self.chosen = None;
        self.commands += 1;
        let id = CommandId { epoch: self.epoch, seq: self.commands };
        let kind = op.kind();
        match kind {
            OpKind::Provision => self.boot += 1,
            OpKind::Launch => self.life.launches = self.life.launches.saturating_add(1),
            _ if kind.is_sliced() && !self.timers.is_armed(Timer::Overall) => {
                self.timers.arm_in(Timer::Overall, self.now, plan.policy.overall[kind.index()]);
            }
            _ => {}
        }
        self.tries = match self.tries {
            Tries { op: Some(same), made } if same == op => Tries { op: Some(op), made: made.saturating_add(1) },
            _ => Tries { op: Some(op), made: 1 },
        };
        match op {
            Op::RemoveSnapshot(generation) => self.removing = Some(generation),
            Op::CopyOut(_) => self.life.collecting = true,
            // One that is repeated may have been taken at the first attempt.
            Op::BeginSnapshot(_) if self.tries.made == 1 => {
                self.life.begun_at_end = matches!(self.stage, Stage::Exited(_));
            }
            _ => {}
        }
        let deadline = self.now + plan.policy.deadline[kind.index()];
        self.timers.arm(Timer::Deadline, deadline);
        self.flight = Some(Flight { id, op });
        let attempt = NonZeroU8::new(self.tries.made).unwrap_or(NonZeroU8::MIN);
        Some(Command { id, boot: self.boot(), op, deadline, attempt })
    }

    fn next_report(&mut self) -> Option<Report> {
        let phase = self.phase();
        if phase != Phase::Ended && self.reports.phase != Some(phase) {
            self.reports.phase = Some(phase);
            return Some(Report::Phase(phase));
        }
        if let Some(report) = self.reports.next_notice().or_else(|| self.reports.next_progress()) {
            return Some(report);
        }
        if let Some((generation, cpu_ms, _)) = self.reports.checkpoint.take_if(|(_, _, seq)| self.persisted >= *seq) {
            return Some(Report::Checkpoint { generation, cpu_ms });
        }
        match self.outcome() {
            Some(outcome) if !self.reports.ended => {
                self.reports.ended = true;
                Some(Report::Ended { outcome, leftover: self.record.leftover })
            }
            _ => None,
        }
    }

    /// Moves the clock. A timer that is much too late was not late: the computer slept, and no deadline has passed.
    fn advance(&mut self, plan: &Plan, now: Instant) {
        if now <= self.now {
            return;
        }
        if self.timers.next().is_some_and(|next| now > next + plan.policy.clock_jump) {
            let by = now.since(self.now);
            self.timers.shift(by);
            self.life.running_since = self.life.running_since.map(|since| since + by);
            self.notice(Notice::ClockJumped { by });
        }
        self.now = now;
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.reports.notice(notice);
    }

    /// The record has changed: it gets a number of its own and is handed out at the next drain.
    pub(crate) fn changed(&mut self) {
        self.account();
        self.record.version = crate::RECORD_VERSION;
        self.record.seq = JournalSeq(self.record.seq.0 + 1);
    }

    /// Adds the time since the last accounting to what the program has run.
    pub(crate) fn account(&mut self) {
        if let Some(since) = &mut self.life.running_since {
            self.record.elapsed_ms += u64::from(self.now.since(*since).as_millis());
            *since = self.now;
        }
    }

    /// The pause before the next attempt: doubled each time, spread so that many tasks do not retry in step.
    pub(crate) fn backoff(&self, plan: &Plan) -> Span {
        let policy = &plan.policy;
        let span = policy.backoff.doubled(u32::from(self.tries.made.saturating_sub(1))).min(policy.backoff_max);
        let spread = u64::from(span.as_millis()) * u64::from(policy.jitter_percent.min(100)) / 100;
        let jitter = if spread == 0 { 0 } else { scramble(self.epoch ^ u64::from(self.commands)) % (spread + 1) };
        Span::from_millis(span.as_millis().saturating_add(u32::try_from(jitter).unwrap_or(u32::MAX)))
    }
}

/// What a task waits for: see [`Machine::waits_for`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitsFor {
    /// The answer to a command.
    Command(Op),
    /// The answer to a fence.
    Fence,
    /// A record to become durable.
    Persisted,
    /// The pause before the next attempt to be over.
    Timeout,
    /// The program to do something, or a checkpoint to be due.
    Program,
    /// A request: it has not been started, or is held.
    Request,
    /// Nothing: it is over.
    Nothing,
}

/// What [`Machine::canonical`] returns: to be compared and hashed, nothing else.
#[cfg(feature = "explore")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Canonical(Machine);

/// Commands that rely on the newest record being durable. Those that only hold or stop the guest never wait for a
/// disk: whoever wants their computer back gets it.
const fn is_gated(op: Op) -> bool {
    matches!(
        op.kind(),
        OpKind::Launch | OpKind::BeginSnapshot | OpKind::CommitSnapshot | OpKind::RemoveSnapshot | OpKind::Unregister
    )
}

const fn back(stage: Stage) -> Back {
    match stage {
        Stage::Booted | Stage::Reachable | Stage::LoggedIn => Back::Starting,
        Stage::Copying(_) => Back::CopyingIn,
        Stage::Running => Back::Running,
        Stage::Exited(_) => Back::CopyingOut,
        _ => Back::Off,
    }
}

/// The finalizer of splitmix64: spreads small differences over all bits.
const fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
