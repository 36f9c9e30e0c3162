//! The driver's loop, on a clock set by hand: no test waits for real time to pass.
#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use common::{capabilities, spec};
use rstest::rstest;
use vmtask_core::{
    Accepted, Base, Boot, Capabilities, Cause, Command, CommandId, Event, ExitStatus, FaultKind, FileIx, Found,
    Generation, Intent, JournalSeq, Leftover, Notice, Op, OpKind, Outcome, Phase, Policy, Power, Program, Record,
    Reply, Report, Request, Snapshots, Span, Substitute, Unfit,
};
use vmtask_driver::testing::{ManualClock, MemoryStore};
use vmtask_driver::wait::time_to_answer;
use vmtask_driver::{
    DriveError, EffectToken, Ended, EventSink, Fenced, Handle, Hypervisor, JournalError, MockHypervisor, News,
    PortError, RecordStore, RequestError, Setup,
};

type Script = dyn Fn(&Fake, &Command, &EffectToken) -> Option<Result<Reply, PortError>> + Send + Sync;

/// A hypervisor in which everything succeeds but for what the script says. (The mock of the port holds a lock while it
/// is called, so that a call that hangs would hold up the others.)
struct Fake {
    script: Box<Script>,
    events: Mutex<Option<EventSink>>,
    commands: Mutex<Vec<Op>>,
    exits_at_launch: bool,
    fences: AtomicU32,
    /// What was to be done (nothing: a fence), by when, and when it was called for.
    deadlines: Mutex<Vec<(Option<Op>, Instant, Instant)>>,
    fence: Result<Fenced, PortError>,
    running: AtomicBool,
}

impl Fake {
    fn new(
        script: impl Fn(&Self, &Command, &EffectToken) -> Option<Result<Reply, PortError>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Box::new(script),
            events: Mutex::default(),
            commands: Mutex::default(),
            exits_at_launch: true,
            fences: AtomicU32::new(0),
            deadlines: Mutex::default(),
            fence: Ok(Fenced::Survived),
            running: AtomicBool::new(false),
        }
    }

    fn obedient() -> Self {
        Self::new(|_, _, _| None)
    }

    /// The program runs until somebody says otherwise.
    fn running_on(mut self) -> Self {
        self.exits_at_launch = false;
        self
    }

    fn send(&self, boot: Boot, event: Event) {
        self.events.lock().unwrap().as_ref().unwrap().send(boot, event);
    }

    fn commands(&self) -> Vec<Op> {
        self.commands.lock().unwrap().clone()
    }

    fn count(&self, kind: OpKind) -> usize {
        self.commands().iter().filter(|op| op.kind() == kind).count()
    }
}

impl Hypervisor for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        Ok(capabilities())
    }

    fn watch(&self, events: EventSink) {
        *self.events.lock().unwrap() = Some(events);
    }

    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        self.deadlines.lock().unwrap().push((Some(command.op), deadline, Instant::now()));
        self.commands.lock().unwrap().push(command.op);
        if let Some(result) = (self.script)(self, command, token) {
            return result;
        }
        match command.op {
            Op::Provision(_) | Op::PowerOn => self.running.store(true, Ordering::SeqCst),
            Op::PowerOff => self.running.store(false, Ordering::SeqCst),
            _ => {}
        }
        Ok(match command.op {
            Op::Probe => Reply::Found(Found {
                power: if self.running.load(Ordering::SeqCst) { Power::On } else { Power::Off },
                ..Found::default()
            }),
            Op::Provision(_) => Reply::Provisioned { running: true },
            Op::Launch if self.exits_at_launch => {
                self.send(command.boot, Event::ProgramExited(ExitStatus::Code(3)));
                Reply::Done
            }
            _ => Reply::Done,
        })
    }

    fn fence(&self, _id: CommandId, deadline: Instant) -> Result<Fenced, PortError> {
        self.deadlines.lock().unwrap().push((None, deadline, Instant::now()));
        self.fences.fetch_add(1, Ordering::SeqCst);
        if self.fence == Ok(Fenced::PoweredOff) {
            self.running.store(false, Ordering::SeqCst);
        }
        self.fence.clone()
    }
}

/// A run in a thread of its own.
struct Run {
    handle: Handle,
    clock: ManualClock,
    reports: Receiver<Report>,
    troubles: Receiver<String>,
    thread: JoinHandle<Result<Ended, DriveError>>,
}

fn start(fake: &Arc<Fake>, store: impl RecordStore + 'static) -> Run {
    // Where time is moved by hand, a write that is on its way must not look like one that hangs.
    start_with(fake, store, None, Span::MAX)
}

fn start_with(
    fake: &Arc<Fake>,
    store: impl RecordStore + 'static,
    record: Option<Record>,
    journal_patience: Span,
) -> Run {
    let clock = ManualClock::new();
    let spec = spec();
    let driver = Setup::new(Arc::clone(fake) as Arc<dyn Hypervisor>, &spec, Box::new(store))
        .with_record(record)
        .with_clock(clock.clone())
        .with_epoch(7)
        .with_policy(Policy { journal: journal_patience, ..Policy::default() })
        .build()
        .unwrap();
    let handle = driver.handle();
    let (tell, reports) = channel();
    let (complain, troubles) = channel();
    let thread = thread::spawn(move || {
        driver.run(&mut |news: &News<'_>| match news {
            News::Report(report) => drop(tell.send(*report)),
            News::Trouble(error) => drop(complain.send(error.to_string())),
            News::Journal { error } => drop(complain.send(format!("journal: {error}"))),
            _ => {}
        })
    });
    Run { handle, clock, reports, troubles, thread }
}

impl Run {
    fn await_trouble(&self, containing: &str) {
        let found = self.troubles.iter().any(|said| said.contains(containing));
        assert!(found, "the run ended and nobody said {containing:?}");
    }

    /// Lets deadlines pass, one after the other, until this is reported.
    fn let_time_pass_until(&self, which: impl Fn(&Report) -> bool) {
        loop {
            self.clock.settle();
            if self.reports.try_iter().any(|report| which(&report)) {
                return;
            }
            assert!(self.clock.advance_to_timer(), "the run ended without that report");
        }
    }

    fn end(self) -> Ended {
        self.thread.join().unwrap().unwrap()
    }
}

/// A point at which a worker hangs until it is let go.
struct Gate {
    entered: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
}

fn gate() -> (Arc<Gate>, Receiver<()>, Sender<()>) {
    let (entered, has_entered) = channel();
    let (let_go, leave) = channel();
    (Arc::new(Gate { entered: Mutex::new(entered), leave: Mutex::new(leave) }), has_entered, let_go)
}

impl Gate {
    fn pass(&self) {
        self.entered.lock().unwrap().send(()).unwrap();
        // An error means that the test is over.
        let _ = self.leave.lock().unwrap().recv();
    }
}

#[test]
fn a_task_goes_through_its_steps_and_its_exit_is_told() {
    let mut mock = MockHypervisor::new();
    let events: Arc<Mutex<Option<EventSink>>> = Arc::default();
    let commands: Arc<Mutex<Vec<String>>> = Arc::default();
    mock.expect_name().return_const("mock");
    mock.expect_capabilities().times(1).returning(|| Ok(capabilities()));
    let theirs = Arc::clone(&events);
    mock.expect_watch().times(1).returning(move |sink| *theirs.lock().unwrap() = Some(sink));
    let theirs = Arc::clone(&commands);
    mock.expect_carry_out().returning(move |command, _, _| {
        theirs.lock().unwrap().push(command.to_string());
        Ok(match command.op {
            Op::Probe => Reply::Found(Found::default()),
            Op::Provision(_) => Reply::Provisioned { running: false },
            Op::Launch => {
                let sink = events.lock().unwrap().clone().unwrap();
                sink.send(command.boot, Event::ProgramExited(ExitStatus::Signal(11)));
                Reply::Done
            }
            _ => Reply::Done,
        })
    });
    mock.expect_fence().never();

    let store = MemoryStore::new();
    let driver =
        Setup::new(Arc::new(mock), &spec(), Box::new(store.clone())).with_clock(ManualClock::new()).build().unwrap();
    let ended = driver.run(&mut |_: &News<'_>| {}).unwrap();

    assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Signal(11) });
    assert!(ended.summary().starts_with("the program crashed: SIGSEGV (signal 11"), "{}", ended.summary());
    assert_eq!((ended.leftover, ended.errors), (None, vec![]));
    insta::assert_snapshot!(commands.lock().unwrap().join("\n"));
    let last = *store.records().last().unwrap();
    assert!(last.ended && last == ended.record, "the last record is durable: {last:?}");
}

#[test]
fn a_request_has_its_verdict_while_the_worker_hangs() {
    let (gate, entered, let_go) = gate();
    let fake = Arc::new(Fake::new(move |_, command, _| {
        if command.op.kind() == OpKind::CopyIn {
            gate.pass();
        }
        None
    }));
    let run = start(&fake, MemoryStore::new());
    entered.recv().unwrap();

    // Time stands still: nothing but the loop itself can have answered.
    assert_eq!(run.handle.suspend(), Ok(Accepted::Applied));
    assert_eq!(run.handle.resume(), Ok(Accepted::Applied));
    assert!(matches!(run.handle.checkpoint(), Err(RequestError::Denied(_))));

    let_go.send(()).unwrap();
    assert_eq!(run.end().outcome, Outcome::Completed { exit: ExitStatus::Code(3) });
}

#[test]
fn an_abort_fences_at_once_and_does_not_wait_for_the_hung_worker() {
    let (gate, entered, let_go) = gate();
    let fake = Arc::new(Fake::new(move |_, command, _| {
        if command.op.kind() == OpKind::AwaitTools {
            gate.pass();
        }
        None
    }));
    let run = start(&fake, MemoryStore::new());
    entered.recv().unwrap();
    assert_eq!(run.handle.abort(), Ok(Accepted::Applied));

    assert_eq!(run.end().outcome, Outcome::Aborted);
    assert_eq!(fake.fences.load(Ordering::SeqCst), 1);
    assert!(!fake.running.load(Ordering::SeqCst));
    drop(let_go);
}

#[test]
fn every_command_and_every_fence_is_given_the_policys_time_but_for_what_its_answer_needs() {
    let (gate, entered, let_go) = gate();
    let fake = Arc::new(Fake::new(move |_, command, _| {
        if command.op.kind() == OpKind::AwaitTools {
            gate.pass();
        }
        None
    }));
    let before = Instant::now();
    let run = start(&fake, MemoryStore::new());
    entered.recv().unwrap();
    assert_eq!(run.handle.abort(), Ok(Accepted::Applied));
    assert_eq!(run.end().outcome, Outcome::Aborted);
    drop(let_go);

    let policy = Policy::default();
    let given = fake.deadlines.lock().unwrap().clone();
    assert!(given.iter().any(|(op, ..)| op.is_none()), "{given:?}");
    for (op, deadline, called) in given {
        let time = time_to_answer(op.map_or(policy.fence, |op| policy.deadline[op.kind().index()]));
        assert!(before + time <= deadline && deadline <= called + time, "{op:?}");
    }
}

#[test]
fn a_hung_worker_is_fenced_and_abandoned_and_what_it_does_later_has_no_effect() {
    let (gate, entered, let_go) = gate();
    let effects: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (told, outcome_of_late_effect) = channel();
    let told = Mutex::new(told);
    let theirs = Arc::clone(&effects);
    let hung = AtomicBool::new(false);
    let fake = Arc::new(Fake::new(move |_, command, token| {
        if command.op.kind() != OpKind::CopyOut {
            return None;
        }
        let attempt = command.attempt.get();
        let first = !hung.swap(true, Ordering::SeqCst);
        if first {
            gate.pass();
        }
        let acted = token.act(|| theirs.lock().unwrap().push(attempt));
        if first {
            told.lock().unwrap().send(acted.clone()).unwrap();
        }
        Some(acted.map(|()| Reply::Done))
    }));
    let run = start(&fake, MemoryStore::new());
    entered.recv().unwrap();
    // One deadline after the other passes: the repetitions queue behind the call that hangs, then all are fenced.
    run.let_time_pass_until(|report| *report == Report::Phase(Phase::Fencing));
    run.await_trouble("did not answer CopyOut(0)");
    let ended = run.end();
    assert_eq!(fake.fences.load(Ordering::SeqCst), 1, "{ended:?}");

    let before = effects.lock().unwrap().clone();
    let_go.send(()).unwrap();
    let late = outcome_of_late_effect.recv().unwrap();
    assert_eq!(late.unwrap_err().fault.kind, FaultKind::Refused);
    assert_eq!(*effects.lock().unwrap(), before, "the abandoned worker acted");
}

#[test]
fn a_fence_that_does_not_hold_ends_the_task_with_the_vm_as_a_leftover() {
    let (gate, entered, let_go) = gate();
    let mut fake = Fake::new(move |_, command, _| {
        if command.op.kind() == OpKind::AwaitTools {
            gate.pass();
        }
        None
    });
    fake.fence = Err(PortError::new(FaultKind::Unknown, "process 4711 does not die; kill it by hand"));
    let fake = Arc::new(fake);
    let run = start(&fake, MemoryStore::new());
    entered.recv().unwrap();
    assert_eq!(run.handle.quit(std::time::Duration::ZERO), Ok(Accepted::Applied));
    run.await_trouble("process 4711");
    assert!(run.clock.advance_to_timer());
    let ended = run.end();
    assert!(matches!(ended.outcome, Outcome::Failed { cause: Cause::Fence { .. } }), "{ended:?}");
    assert_eq!(ended.leftover, Some(Leftover::MayRun));
    insta::assert_snapshot!(ended.summary());
    drop(let_go);
}

#[test]
fn a_panic_in_the_adapter_is_an_unknown_outcome_and_is_tried_again() {
    let panicked = AtomicBool::new(false);
    let fake = Arc::new(Fake::new(move |_, command, _| {
        let first = command.op == Op::MakeWorkdir && !panicked.swap(true, Ordering::SeqCst);
        assert!(!first, "index out of range, say");
        None
    }));
    let run = start(&fake, MemoryStore::new());
    insta::assert_snapshot!(run.troubles.iter().collect::<Vec<_>>().join("\n"));
    assert_eq!(run.end().outcome, Outcome::Completed { exit: ExitStatus::Code(3) });
    assert_eq!(fake.count(OpKind::MakeWorkdir), 2);
}

#[test]
fn what_the_hypervisor_said_is_in_the_last_word() {
    let fake = Arc::new(Fake::new(|_, command, _| {
        let missing = "the program left no file \"stdout.txt\"; see stderr.txt among the results";
        (command.op == Op::CopyOut(FileIx(0))).then(|| Err(PortError::new(FaultKind::NotFound, missing)))
    }));
    let ended = start(&fake, MemoryStore::new()).end();
    insta::assert_snapshot!(ended.summary());
    let missing: Vec<_> = ended.missing.iter().map(|missing| missing.file).collect();
    assert_eq!(missing, [FileIx(0)]);
}

#[test]
fn an_output_that_came_at_the_second_attempt_is_not_missing() {
    let refusals = AtomicU32::new(1);
    let fake = Arc::new(Fake::new(move |_, command, _| {
        let refuse = command.op == Op::CopyOut(FileIx(0))
            && refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        refuse.then(|| Err(PortError::new(FaultKind::Refused, "busy")))
    }));
    let ended = start(&fake, MemoryStore::new()).end();
    assert_eq!(fake.count(OpKind::CopyOut), 2);
    assert_eq!((ended.errors.len(), ended.missing), (1, Vec::new()), "it was told, and it is mended");
}

#[test]
fn every_checkpoint_that_is_dropped_is_in_the_end_with_its_reason_and_so_is_the_restart() {
    let record = Record {
        seq: JournalSeq(40),
        launched: true,
        generations: [1, 2, 3].map(Generation).into_iter().collect(),
        next_generation: Generation(4),
        ..Record::new()
    };
    let fake = Arc::new(Fake::new(|fake, command, _| {
        let snapshots = [Generation(1)].into_iter().collect();
        let damaged = [Generation(3)].into_iter().collect();
        let on = fake.running.load(Ordering::SeqCst);
        let power = if on { Power::On } else { Power::Off };
        let program = if on { Program::Exited(ExitStatus::Code(0)) } else { Program::Unknown };
        let found = Found { registered: true, power, program, snapshots, damaged };
        (command.op == Op::Probe).then_some(Ok(Reply::Found(found)))
    }));
    let ended = start_with(&fake, MemoryStore::new(), Some(record), Span::MAX).end();
    assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) });
    let dropped: Vec<_> = ended.dropped.iter().map(|dropped| (dropped.generation.0, dropped.why)).collect();
    assert_eq!(dropped, [(3, Unfit::Damaged), (2, Unfit::Missing)]);
    assert_eq!((ended.counters.losses, ended.record.restarts), (1, 1));
    assert!(fake.commands().contains(&Op::Provision(Base::Checkpoint(Generation(1)))));
}

#[test]
fn a_refusal_is_tried_again_after_a_pause_that_takes_no_real_time() {
    let refusals = AtomicU32::new(2);
    let fake = Arc::new(Fake::new(move |_, command, _| {
        let refuse = command.op == Op::Register
            && refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        refuse.then(|| Err(PortError::new(FaultKind::Refused, "busy")))
    }));
    let ended = start(&fake, MemoryStore::new()).end();
    assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(3) });
    assert!(ended.counters.manager_ms >= 750, "250 ms and 500 ms of back-off: {:?}", ended.counters);
    assert!(ended.notices.iter().all(|notice| matches!(notice, Notice::Retrying { op: Op::Register, .. })));
}

#[test]
fn a_quit_saves_a_checkpoint_and_a_later_driver_goes_on_from_it() {
    let fake = Arc::new(Fake::obedient().running_on());
    let store = MemoryStore::new();
    let spec = spec();
    let driver = Setup::new(Arc::clone(&fake) as Arc<dyn Hypervisor>, &spec, Box::new(store.clone()))
        .with_clock(ManualClock::new())
        .build()
        .unwrap();
    let handle = driver.handle();
    // From the loop itself: a program that runs for ever runs through days before another thread has said a word.
    let quit = |news: &News<'_>| {
        if matches!(news, News::Report(Report::Phase(Phase::Running))) {
            assert!(handle.post(Request::Quit { budget_ms: 60_000 }));
        }
    };
    let ended = driver.run(&mut { quit }).unwrap();
    assert_eq!(ended.outcome, Outcome::Stopped { checkpoint: Some(Generation(1)) });
    assert_eq!(ended.counters.checkpoints, 1);

    let record = *store.records().last().unwrap();
    let fake = Arc::new(Fake::new(|fake, command, _| {
        let snapshots = [Generation(1)].into_iter().collect();
        match command.op {
            Op::Probe if fake.running.load(Ordering::SeqCst) => {
                let program = Program::Exited(ExitStatus::Code(0));
                let found = Found { registered: true, power: Power::On, program, snapshots, ..Found::default() };
                Some(Ok(Reply::Found(found)))
            }
            Op::Probe => Some(Ok(Reply::Found(Found { snapshots, ..Found::default() }))),
            Op::Provision(_) => {
                fake.running.store(true, Ordering::SeqCst);
                Some(Ok(Reply::Provisioned { running: false }))
            }
            _ => None,
        }
    }));
    let ended = start_with(&fake, store, Some(record), Span::MAX).end();
    assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) });
    insta::assert_debug_snapshot!(fake.commands());
}

#[test]
fn a_task_that_is_over_is_not_touched_again() {
    let fake = Arc::new(Fake::obedient());
    let store = MemoryStore::new();
    start(&fake, store.clone()).end();
    let record = *store.records().last().unwrap();

    let again = Arc::new(Fake::obedient());
    let ended = start_with(&again, store, Some(record), Span::MAX).end();
    assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(3) });
    assert_eq!(again.commands(), []);
}

#[test]
fn requests_after_the_end_are_told_so() {
    let run = start(&Arc::new(Fake::obedient()), MemoryStore::new());
    let handle = run.handle.clone();
    run.end();
    assert_eq!(handle.suspend(), Err(RequestError::Over));
    assert!(!handle.post(Request::Abort));
}

#[test]
fn substitutes_are_told_before_anything_else() {
    let mut mock = MockHypervisor::new();
    mock.expect_name().return_const("mock");
    mock.expect_capabilities()
        .returning(|| Ok(Capabilities { linked_clones: false, snapshots: Snapshots::None, ..capabilities() }));
    mock.expect_watch().return_const(());
    mock.expect_carry_out().returning(|_, _, _| Err(PortError::new(FaultKind::AuthRejected, "wrong password")));
    let driver = Setup::new(Arc::new(mock), &spec(), Box::new(MemoryStore::new()))
        .with_clock(ManualClock::new())
        .build()
        .unwrap();
    let mut told = Vec::new();
    let ended = driver
        .run(&mut |news: &News<'_>| {
            told.push(match news {
                News::Substitute(substitute) => Some(*substitute),
                _ => None,
            });
        })
        .unwrap();
    assert_eq!(told[..2], [Some(Substitute::CopyForClone), Some(Substitute::NoCheckpoints)]);
    assert!(ended.summary().contains("wrong password"), "{}", ended.summary());
}

#[test]
fn a_hypervisor_that_cannot_be_used_says_why_before_anything_is_touched() {
    let mut mock = MockHypervisor::new();
    mock.expect_name().return_const("mock");
    mock.expect_capabilities()
        .returning(|| Err(PortError::new(FaultKind::Unsupported, "mock 1.0 is too old; install 2.0")));
    let error = Setup::new(Arc::new(mock), &spec(), Box::new(MemoryStore::new())).build().err().unwrap();
    assert_eq!(error.to_string(), "mock cannot be used: mock 1.0 is too old; install 2.0");
}

/// A journal on a disk that is full from some record on, or for a while.
struct FullDisk {
    good: usize,
    healed: Arc<AtomicBool>,
    inner: MemoryStore,
}

impl RecordStore for FullDisk {
    fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        if self.good == 0 && !self.healed.load(Ordering::SeqCst) {
            return Err(JournalError::Io {
                what: "write",
                path: PathBuf::from("DIR/journal"),
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        self.good = self.good.saturating_sub(1);
        self.inner.write(record)
    }
}

#[rstest]
#[case::from_the_start(0)]
#[case::while_it_runs(4)]
fn a_journal_that_cannot_be_kept_powers_the_vm_off_and_ends_with_an_error(#[case] good: usize) {
    let inner = MemoryStore::new();
    let store = FullDisk { good, healed: Arc::default(), inner: inner.clone() };
    let fake = Arc::new(Fake::obedient().running_on());
    let run = start_with(&fake, store, None, Span::from_secs(60));
    run.await_trouble("journal: ");
    // No sooner: until then a write that is on its way would look like one that hangs.
    run.clock.journal_is_stuck();
    let ended = run.end();
    assert_eq!(ended.outcome, Outcome::Failed { cause: Cause::Journal });
    assert!(!fake.running.load(Ordering::SeqCst));
    assert!(ended.notices.contains(&Notice::JournalLost));
    let summary = ended.summary();
    assert!(summary.contains("cannot write the journal DIR/journal"), "{summary}");
    assert!(summary.contains("mend that and run the task again"), "{summary}");

    // What is durable is a record to go on from.
    if let Some(&record) = inner.records().last() {
        assert_eq!(record.intent, Intent::Run);
        let ended = start_with(&Arc::new(Fake::obedient()), MemoryStore::new(), Some(record), Span::MAX).end();
        assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(3) });
    }
}

/// A journal whose directory is removed after some records.
struct Removed(usize);

impl RecordStore for Removed {
    fn write(&mut self, _: &Record) -> Result<(), JournalError> {
        let left = self.0.checked_sub(1).ok_or_else(|| JournalError::Gone(PathBuf::from("DIR")))?;
        self.0 = left;
        Ok(())
    }
}

#[test]
fn a_task_directory_that_was_removed_is_not_waited_for() {
    let fake = Arc::new(Fake::obedient().running_on());
    let run = start_with(&fake, Removed(4), None, Span::MAX);
    let ended = run.end();
    assert_eq!(ended.outcome, Outcome::Failed { cause: Cause::Journal });
    assert!(ended.summary().contains("DIR was removed"), "{}", ended.summary());
    assert!(!fake.running.load(Ordering::SeqCst));
}

#[test]
fn a_disk_that_is_full_for_a_while_only_delays() {
    let healed = Arc::new(AtomicBool::new(false));
    let store = FullDisk { good: 2, healed: Arc::clone(&healed), inner: MemoryStore::new() };
    let fake = Arc::new(Fake::obedient());
    let spec = spec();
    let driver = Setup::new(Arc::clone(&fake) as Arc<dyn Hypervisor>, &spec, Box::new(store))
        .with_clock(ManualClock::new())
        .build()
        .unwrap();
    let mut told = 0;
    let ended = driver
        .run(&mut |news: &News<'_>| {
            if let News::Journal { .. } = news {
                told += 1;
                healed.store(true, Ordering::SeqCst);
            }
        })
        .unwrap();
    assert_eq!((ended.outcome, told), (Outcome::Completed { exit: ExitStatus::Code(3) }, 1));
}
