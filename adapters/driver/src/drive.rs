//! The blocking driver: one task from its start, or from its journal, to its end.
//!
//! ```text
//!   Handle (any thread) --- requests ---+          +---> worker, fences   (crew)
//!   EventSink (adapter) --- events -----+--> loop -+---> journal's thread (writer)
//!   crew, writer ---------- answers ----+          +---> Observer         (reports)
//! ```
//!
//! The loop itself never blocks but to wait for the next letter, so a request has its verdict at once, whatever the
//! hypervisor does. Nor does a disk that is full or hangs hold it: if a record cannot be made durable for
//! [`Setup::with_journal_patience`], the VM is powered off and the run ends with an error; the task goes on from its
//! last durable record once the disk is mended.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use thiserror::Error;
use vmtask_core::{
    Command, Denied, Fault, FaultKind, Input, Instant, JournalSeq, Notice, Outcome, Output, Phase, Plan, PlanError,
    Policy, Record, Report, Request, RestoreError, Span, Substitute, Task, TaskSpec,
};

use crate::clock::{Busy, Clock, Inbox, Letter, Message, RealClock, Waker};
use crate::crew::Crew;
use crate::ended::{Counters, Ended, OpError};
use crate::handle::Handle;
use crate::journal::{JournalError, RecordStore};
use crate::port::{EventSink, Fenced, Hypervisor, PortError};
use crate::writer::Writer;

/// Something worth telling while a task runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum News<'a> {
    /// Told before anything else: this is done instead of what the hypervisor lacks.
    Substitute(Substitute),
    /// What the machine reports.
    Report(Report),
    /// What the hypervisor said when something went wrong. What follows from it is in the reports.
    Trouble(&'a OpError),
    /// A record could not be made durable, and why. It is tried again.
    Journal {
        /// What happened.
        error: &'a str,
        /// It has been tried for too long: the VM is being powered off.
        gives_up: bool,
    },
}

/// Who is told. Called from the loop, so it must not block, and must not wait for a request's verdict
/// ([`Handle::request`]): it may [`Handle::post`] one.
pub trait Observer {
    /// Something happened.
    fn observe(&mut self, news: &News<'_>);
}

impl<F: FnMut(&News<'_>)> Observer for F {
    fn observe(&mut self, news: &News<'_>) {
        self(news);
    }
}

/// Why a task could not be driven to an end. What was durable still is: it can be resumed.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The hypervisor cannot be used.
    #[error("{hypervisor} cannot be used: {error}")]
    Hypervisor {
        /// Its name.
        hypervisor: &'static str,
        /// What it said.
        error: PortError,
    },
    /// The task cannot be carried out on this hypervisor.
    #[error("the task cannot be carried out on {hypervisor}: {error}")]
    Plan {
        /// Its name.
        hypervisor: &'static str,
        /// Why.
        error: PlanError,
    },
    /// The journal's record is of no use.
    #[error("the task cannot go on from its journal: {0}; remove its directory to start it anew")]
    Restore(#[from] RestoreError),
    /// The machine does not start.
    #[error("the task cannot be started: {0}")]
    Start(Denied),
    /// No random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// No threads.
    #[error("cannot start a thread: {0}; end other programs or raise the limit")]
    Thread(std::io::Error),
    /// Records could not be made durable for too long.
    #[error("the task's journal could not be kept: {error}. {}", if *may_run {
        "The virtual machine may still be running: see `vmtask vms`. Then run the task again to resume it"
    } else {
        "The virtual machine was powered off; mend that and run the task again"
    })]
    Journal {
        /// What happened last.
        error: String,
        /// Whether the VM could not be powered off for sure.
        may_run: bool,
    },
}

/// Everything that a [`Driver`] is made of.
pub struct Setup<'a> {
    hypervisor: Arc<dyn Hypervisor>,
    spec: &'a TaskSpec,
    store: Box<dyn RecordStore>,
    policy: Policy,
    record: Option<Record>,
    epoch: Option<u64>,
    clock: Box<dyn Clock>,
    journal_patience: Span,
}

impl<'a> Setup<'a> {
    /// A fresh task with the default policy on the computer's own clock.
    #[must_use]
    pub fn new(hypervisor: Arc<dyn Hypervisor>, spec: &'a TaskSpec, store: Box<dyn RecordStore>) -> Self {
        Self {
            hypervisor,
            spec,
            store,
            policy: Policy::default(),
            record: None,
            epoch: None,
            clock: Box::new(RealClock::new()),
            journal_patience: Span::from_secs(60),
        }
    }

    /// Goes on from this record, if there is one, instead of starting.
    #[must_use]
    pub fn with_record(mut self, record: Option<Record>) -> Self {
        self.record = record;
        self
    }

    /// With other deadlines, attempts and limits.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// With this nonce instead of one from the operating system: for tests that compare what is said.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// How long a record may take to become durable. Before the first command, when waiting saves nothing, it is a
    /// twelfth of that.
    #[must_use]
    pub fn with_journal_patience(mut self, patience: Span) -> Self {
        self.journal_patience = patience;
        self
    }

    /// Asks the hypervisor what it can do, and makes the plan. Nothing has been touched when this fails.
    ///
    /// # Errors
    /// If the hypervisor cannot be used, or not for this task, or the record is of no use.
    pub fn build(self) -> Result<Driver, DriveError> {
        let hypervisor = self.hypervisor.name();
        let capabilities =
            self.hypervisor.capabilities().map_err(|error| DriveError::Hypervisor { hypervisor, error })?;
        let plan =
            Plan::new(self.spec, self.policy, capabilities).map_err(|error| DriveError::Plan { hypervisor, error })?;
        let substitutes = plan.substitutes(self.spec).collect();
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => getrandom::u64()?,
        };
        let fresh = self.record.is_none();
        let task = match self.record {
            None => Task::new(plan, epoch),
            Some(record) => Task::restore(record, plan, epoch)?,
        };
        let (outbox, inbox) = Inbox::new();
        let mut clock = self.clock;
        clock.attach(Waker::new(outbox.clone()));
        let crew = Crew::assemble(Arc::clone(&self.hypervisor), outbox.clone()).map_err(DriveError::Thread)?;
        let writer = Writer::spawn(self.store, outbox.clone()).map_err(DriveError::Thread)?;
        let events = outbox.clone();
        self.hypervisor.watch(EventSink::new(move |boot, event| {
            let _ = events.send(Letter(Message::Observed { boot, event }));
        }));
        Ok(Driver {
            hypervisor,
            started: clock.now(),
            task,
            fresh,
            clock,
            inbox,
            outbox,
            crew,
            writer,
            journal: JournalWatch { patience: self.journal_patience, ..JournalWatch::default() },
            clock_jump: self.policy.clock_jump,
            fence: self.policy.fence,
            issued: None,
            substitutes,
            errors: Vec::new(),
            notices: Vec::new(),
            counters: Counters::default(),
        })
    }
}

/// Drives one task. Made by [`Setup::build`].
pub struct Driver {
    hypervisor: &'static str,
    started: Instant,
    task: Task,
    fresh: bool,
    clock: Box<dyn Clock>,
    inbox: Inbox,
    outbox: Sender<Letter>,
    crew: Crew,
    writer: Writer,
    journal: JournalWatch,
    clock_jump: Span,
    fence: Span,
    /// The newest command, and when it was handed out.
    issued: Option<(Command, Instant)>,
    substitutes: Vec<Substitute>,
    errors: Vec<OpError>,
    notices: Vec<Notice>,
    counters: Counters,
}

/// Whether records become durable in time.
#[derive(Default)]
struct JournalWatch {
    patience: Span,
    /// The newest record that is not durable yet, and since when none has become durable.
    outstanding: Option<(JournalSeq, Instant)>,
    error: Option<String>,
    hopeless: bool,
    /// It took too long: until then the VM must be off.
    gives_up: Option<Instant>,
}

impl Driver {
    /// The most notices that are kept for [`Ended::notices`]; the first ones.
    pub const MAX_NOTICES: usize = 256;
    /// How long powering off may take once the journal is given up. The machine's own deadlines are shorter.
    const LAST_GRACE: Span = Span::from_secs(180);

    /// For requests from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.outbox.clone())
    }

    /// What is done instead of what the hypervisor lacks.
    #[must_use]
    pub fn substitutes(&self) -> &[Substitute] {
        &self.substitutes
    }

    /// Drives the task until it has ended, one way or the other, and its last record is durable.
    ///
    /// # Errors
    /// [`DriveError::Journal`] if the journal cannot be kept.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<Ended, DriveError> {
        for &substitute in &self.substitutes {
            observer.observe(&News::Substitute(substitute));
        }
        if self.fresh {
            let start = Input::Request(Request::Start);
            let _ = self.task.handle_input(self.clock.now(), start).map_err(DriveError::Start)?;
        }
        loop {
            self.carry_outputs(observer);
            if let Some(outcome) = self.task.outcome() {
                return Ok(self.finish(outcome));
            }
            if let Some(error) = self.check_journal(observer) {
                self.writer.close(false);
                self.crew.dismiss();
                return Err(error);
            }
            self.wait(observer);
        }
    }

    fn wait(&mut self, observer: &mut dyn Observer) {
        let until =
            [self.task.poll_timeout(), self.journal.deadline(self.issued.is_none())].into_iter().flatten().min();
        let busy = Busy { crew: self.crew.is_busy(), journal: self.journal.outstanding.is_some() };
        let letter = self.clock.wait(&self.inbox, until, busy);
        let now = self.clock.now();
        if until.is_some_and(|until| now.since(until) > self.clock_jump) {
            // The computer slept: nobody has been trying to write meanwhile.
            self.journal.start_over(now);
        }
        if let Some(letter) = letter {
            self.open(letter.0, now, observer);
        }
        if self.task.poll_timeout().is_some_and(|due| due <= now) {
            self.task.handle_timeout(now);
        }
    }

    fn open(&mut self, message: Message, now: Instant, observer: &mut dyn Observer) {
        match message {
            Message::Request { request, verdict } => {
                let result = self.task.handle_input(now, Input::Request(request));
                tracing::info!(%request, ?result, "request");
                if let Some(verdict) = verdict {
                    // Who asked may have gone.
                    let _ = verdict.send(result);
                }
            }
            Message::Completed { worker, id, result } => {
                self.crew.completed(worker, id);
                // One that is no longer waited for is a story of the past.
                if self.task.machine().in_flight().is_some_and(|(awaited, _)| awaited == id) {
                    if let Err(error) = &result {
                        self.trouble(error.clone(), observer);
                    }
                } else {
                    tracing::debug!(%id, ?result, "late answer");
                }
                self.tell(now, Input::Completed { id, result: result.map_err(|error| error.fault) });
            }
            Message::Fenced { id, result } => {
                self.crew.answered_fence();
                match result {
                    Ok(fenced) => self.tell(now, Input::Fenced { id, survived: fenced == Fenced::Survived }),
                    // The machine's own deadline for fences decides what that means.
                    Err(error) => self.trouble(error, observer),
                }
            }
            Message::Observed { boot, event } => self.tell(now, Input::Observed { boot, event }),
            Message::Durable(seq) => {
                self.journal.durable(seq, now);
                self.tell(now, Input::Persisted(seq));
            }
            Message::JournalTrouble(error) => {
                // There is nothing to wait for: what was removed on purpose does not come back.
                self.journal.hopeless |= matches!(error, JournalError::Gone(_));
                let error = error.to_string();
                tracing::error!(%error, "journal");
                observer.observe(&News::Journal { error: &error, gives_up: false });
                self.journal.error = Some(error);
            }
            Message::Wake => {}
        }
    }

    fn tell(&mut self, now: Instant, input: Input) {
        let verdict = self.task.handle_input(now, input);
        tracing::debug!(?input, ?verdict, phase = %self.task.phase(), "input");
    }

    fn carry_outputs(&mut self, observer: &mut dyn Observer) {
        while let Some(output) = self.task.poll_output() {
            let now = self.clock.now();
            match output {
                Output::Persist(record) => {
                    self.journal.submitted(record.seq, now);
                    self.writer.submit(record);
                }
                Output::Command(command) => {
                    tracing::debug!(%command, id = %command.id, "command");
                    self.issued = Some((command, now));
                    self.crew.carry_out(command, command.deadline.since(now));
                }
                Output::Fence(id) => {
                    tracing::warn!(%id, "fence");
                    self.note_silence(now, observer);
                    self.crew.fence(id, self.fence);
                }
                Output::Report(report) => self.report(report, observer),
            }
        }
    }

    fn report(&mut self, report: Report, observer: &mut dyn Observer) {
        match report {
            Report::Checkpoint { .. } => self.counters.checkpoints += 1,
            Report::Notice(notice) => {
                tracing::warn!(%notice, "notice");
                if matches!(notice, Notice::RolledBack { .. }) {
                    self.counters.losses += 1;
                }
                if self.notices.len() < Self::MAX_NOTICES {
                    self.notices.push(notice);
                }
            }
            Report::Phase(phase) => tracing::info!(%phase, "phase"),
            Report::Progress { .. } | Report::Ended { .. } => {}
        }
        observer.observe(&News::Report(report));
    }

    /// Keeps what the hypervisor said: the newest of each op, newest last.
    fn trouble(&mut self, error: PortError, observer: &mut dyn Observer) {
        tracing::warn!(fault = %error.fault, %error, "trouble");
        let op = self.issued.map(|(command, _)| command.op);
        self.errors.retain(|earlier| earlier.op.map(|op| op.kind()) != op.map(|op| op.kind()));
        let error = OpError { op, error };
        observer.observe(&News::Trouble(&error));
        self.errors.push(error);
    }

    /// A command is given up that never answered: that is said too, since nobody else will.
    fn note_silence(&mut self, now: Instant, observer: &mut dyn Observer) {
        let Some((command, since)) = self.issued else { return };
        if now < command.deadline || !self.crew.is_busy() {
            return;
        }
        let error = PortError {
            fault: Fault::new(FaultKind::Unknown),
            message: format!("{} did not answer {command} within {}", self.hypervisor, spoken(now.since(since))),
        };
        self.trouble(error, observer);
    }

    /// Gives the journal up when it has not been kept for too long, and the whole run once the VM is off.
    fn check_journal(&mut self, observer: &mut dyn Observer) -> Option<DriveError> {
        let now = self.clock.now();
        let untouched = self.issued.is_none();
        self.journal.outstanding?;
        let early = self.journal.deadline(untouched).is_some_and(|deadline| now < deadline) && !self.journal.hopeless;
        if early && self.journal.gives_up.is_none() {
            return None;
        }
        let hangs = || "the storage does not answer; make sure that it is there and healthy".to_owned();
        let error = self.journal.error.clone().unwrap_or_else(hangs);
        if self.journal.gives_up.is_none() {
            tracing::error!(%error, "the journal is given up: powering off");
            observer.observe(&News::Journal { error: &error, gives_up: true });
            self.journal.gives_up = Some(now + Self::LAST_GRACE);
            // Neither fences nor powering off wait for the journal. It may be ending already: the same to us.
            let _ = self.task.handle_input(now, Input::Request(Request::Quit { budget_ms: 0 }));
            self.carry_outputs(observer);
        }
        let off = untouched || matches!(self.task.phase(), Phase::Unregistering | Phase::Ended);
        let machine = self.task.machine();
        let waits =
            machine.in_flight().is_some() || machine.awaited_fence().is_some() || self.task.poll_timeout().is_some();
        let out_of_time = self.journal.gives_up.is_some_and(|until| until <= now);
        (off || !waits || out_of_time).then_some(DriveError::Journal { error, may_run: !off })
    }

    fn finish(self, outcome: Outcome) -> Ended {
        let mut counters = self.counters;
        counters.manager_ms = self.clock.now().as_millis().saturating_sub(self.started.as_millis());
        self.writer.close(self.journal.outstanding.is_none());
        self.crew.dismiss();
        Ended {
            outcome,
            leftover: self.task.leftover(),
            record: self.task.record(),
            errors: self.errors,
            notices: self.notices,
            substitutes: self.substitutes,
            counters,
        }
    }
}

impl JournalWatch {
    fn submitted(&mut self, seq: JournalSeq, now: Instant) {
        let since = self.outstanding.map_or(now, |(_, since)| since);
        self.outstanding = Some((seq, since));
    }

    fn durable(&mut self, seq: JournalSeq, now: Instant) {
        self.outstanding = self.outstanding.filter(|(newest, _)| *newest > seq).map(|(newest, _)| (newest, now));
        self.error = None;
    }

    fn start_over(&mut self, now: Instant) {
        self.outstanding = self.outstanding.map(|(newest, _)| (newest, now));
    }

    /// When something has to be done about it.
    fn deadline(&self, untouched: bool) -> Option<Instant> {
        let (_, since) = self.outstanding?;
        let patience = self.patience.as_millis();
        let patience = Span::from_millis(if untouched { patience / 12 } else { patience });
        Some(self.gives_up.unwrap_or(since + patience))
    }
}

fn spoken(span: Span) -> impl std::fmt::Display {
    humantime::format_duration(Duration::from_millis(span.as_millis().into()))
}
