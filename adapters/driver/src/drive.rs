//! The blocking driver: one task from its start, or from its journal, to its end.
//!
//! ```text
//!   Handle (any thread) --- requests ---+          +---> worker, fences   (crew)
//!   EventSink (adapter) --- events -----+--> loop -+---> journal's thread (writer)
//!   crew, writer ---------- answers ----+          +---> Observer         (reports)
//! ```
//!
//! The loop itself never blocks but to wait for the next letter, so a request has its verdict at once, whatever the
//! hypervisor does. Nor does a disk that is full or hangs hold it: if a record cannot be made durable for as long as the
//! policy allows, the machine has the VM powered off and the run ends; the task goes on from its last durable record once
//! the disk is mended.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use thiserror::Error;
use vmtask_core::{
    Command, Denied, Fault, FaultKind, FileIx, Input, Instant, JournalSeq, Notice, Op, Outcome, Output, Plan,
    PlanError, Policy, Record, Reply, Report, Request, RestoreError, Span, Substitute, Task, TaskSpec,
};

use crate::clock::{Busy, Clock, Inbox, Letter, Message, RealClock, Waker};
use crate::crew::Crew;
use crate::ended::{Counters, Dropped, Ended, Missing, OpError};
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
    /// A record could not be made durable, and why. It is tried again; that it was tried for too long is a
    /// [`Notice::JournalLost`].
    Journal {
        /// What happened.
        error: &'a str,
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
            Some(record) => Task::restore(record, plan, epoch, self.clock.now())?,
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
            submitted: None,
            journal_error: None,
            fence: self.policy.fence,
            issued: None,
            substitutes,
            errors: Vec::new(),
            missing: Vec::new(),
            dropped: Vec::new(),
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
    /// The newest record that the journal was given.
    submitted: Option<JournalSeq>,
    /// What the journal said last, if nothing has become durable since.
    journal_error: Option<String>,
    fence: Span,
    /// The newest command, and when it was handed out.
    issued: Option<(Command, Instant)>,
    substitutes: Vec<Substitute>,
    errors: Vec<OpError>,
    missing: Vec<Missing>,
    dropped: Vec<Dropped>,
    notices: Vec<Notice>,
    counters: Counters,
}

impl Driver {
    /// The most notices that are kept for [`Ended::notices`]; the first ones.
    pub const MAX_NOTICES: usize = 256;

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

    /// Drives the task until it has ended, one way or the other, and its last record is durable or given up
    /// ([`Cause::Journal`](vmtask_core::Cause::Journal)).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<Ended, DriveError> {
        for &substitute in &self.substitutes {
            observer.observe(&News::Substitute(substitute));
        }
        if self.fresh {
            let _ = self.task.handle_request(self.clock.now(), Request::Start).map_err(DriveError::Start)?;
        }
        loop {
            self.carry_outputs(observer);
            if let Some(outcome) = self.task.outcome() {
                return Ok(self.finish(outcome));
            }
            self.wait(observer);
        }
    }

    fn wait(&mut self, observer: &mut dyn Observer) {
        let busy = Busy { crew: self.crew.is_busy(), journal: self.writes() };
        let letter = self.clock.wait(&self.inbox, self.task.poll_timeout(), busy);
        let now = self.clock.now();
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
                let result = self.task.handle_request(now, request);
                tracing::info!(%request, ?result, "request");
                if let Some(verdict) = verdict {
                    // Who asked may have gone.
                    let _ = verdict.send(result);
                }
            }
            Message::Completed { worker, id, result } => {
                self.crew.completed(worker, id);
                // One that is no longer waited for is a story of the past.
                match self.task.machine().in_flight().filter(|(awaited, _)| *awaited == id) {
                    Some((_, op)) => self.answered(op, &result, observer),
                    None => tracing::debug!(%id, ?result, "late answer"),
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
                self.journal_error = None;
                self.tell(now, Input::Persisted(seq));
            }
            Message::JournalTrouble(error) => {
                let text = error.to_string();
                tracing::error!(error = text, "journal");
                observer.observe(&News::Journal { error: &text });
                self.journal_error = Some(text);
                if matches!(error, JournalError::Gone(_)) {
                    // There is nothing to wait for: what was removed on purpose does not come back.
                    self.tell(now, Input::JournalLost);
                }
            }
            Message::Wake => {}
        }
    }

    fn tell(&mut self, now: Instant, input: Input) {
        let accepted = self.task.handle_input(now, input);
        tracing::debug!(?input, ?accepted, phase = %self.task.phase(), "input");
    }

    fn answered(&mut self, op: Op, result: &Result<Reply, PortError>, observer: &mut dyn Observer) {
        match (op, result) {
            (_, Err(error)) => self.failed(op, error.clone(), observer),
            // What failed before has come in another attempt.
            (Op::CopyOut(file), Ok(Reply::Done)) => self.missing.retain(|missing| missing.file != file),
            _ => {}
        }
    }

    fn carry_outputs(&mut self, observer: &mut dyn Observer) {
        while let Some(output) = self.task.poll_output() {
            let now = self.clock.now();
            match output {
                Output::Persist(record) => {
                    self.submitted = Some(record.seq);
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
                match notice {
                    Notice::RolledBack { .. } => {
                        self.counters.losses += 1;
                        // The program writes them again, and all of them are collected again.
                        self.missing.clear();
                    }
                    // Each generation is dropped once, so that there are no more of them than checkpoints were made.
                    Notice::CheckpointDropped { generation, why } => self.dropped.push(Dropped { generation, why }),
                    _ => {}
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

    /// The command that was issued failed, or never answered. Of an output that was not collected, the newest reason is kept.
    fn failed(&mut self, op: Op, error: PortError, observer: &mut dyn Observer) {
        if let Op::CopyOut(file) = op {
            self.missed(file, &error);
        }
        self.trouble(error, observer);
    }

    fn missed(&mut self, file: FileIx, error: &PortError) {
        self.missing.retain(|missing| missing.file != file);
        self.missing.push(Missing { file, why: error.to_string() });
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
        self.failed(command.op, error, observer);
    }

    /// Whether a record was submitted that is not known to be durable.
    fn writes(&self) -> bool {
        self.submitted.is_some_and(|seq| self.task.machine().awaits_persisted(seq))
    }

    fn finish(self, outcome: Outcome) -> Ended {
        let mut counters = self.counters;
        counters.manager_ms = self.clock.now().as_millis().saturating_sub(self.started.as_millis());
        let journal_error = self.writes().then(|| {
            let hangs = "the storage does not answer; make sure that it is there and healthy";
            self.journal_error.clone().unwrap_or_else(|| hangs.to_owned())
        });
        self.writer.close(journal_error.is_none());
        self.crew.dismiss();
        let ended = Ended {
            outcome,
            leftover: self.task.leftover(),
            record: self.task.record(),
            journal_error,
            errors: self.errors,
            missing: self.missing,
            dropped: self.dropped,
            notices: self.notices,
            substitutes: self.substitutes,
            counters,
        };
        tracing::info!(summary = ended.summary(), "ended");
        ended
    }
}

fn spoken(span: Span) -> impl std::fmt::Display {
    humantime::format_duration(Duration::from_millis(span.as_millis().into()))
}
