//! The loop that the guide teaches, where it is easiest to get wrong: a request is denied, nothing is due, the journal is
//! lost.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::collections::VecDeque;

use common::{ALL_IT_TAKES, draft};
use vmtask_core::{
    Capabilities, Cause, Command, CommandId, Event, ExitStatus, Found, Input, Instant, Leftover, Op, Outcome, Output,
    Pause, Phase, Plan, Policy, Power, Program, Record, Reply, Report, Request, Stimulus, Task,
};

include!("../guide/loop.rs");

/// A world in which everything works, but for what the test takes away.
struct World {
    inbox: VecDeque<Stimulus>,
    now: Instant,
    power: Power,
    /// Records are written for ever.
    disk_hangs: bool,
    /// Requests, each made when the task is first seen in this phase.
    wants: Vec<(Phase, Request)>,
    /// Once the program runs it ends, or is asked for something first.
    phases: Vec<Phase>,
    commands: Vec<Command>,
    waited_without_a_limit: bool,
}

impl World {
    fn new(wants: &[(Phase, Request)]) -> Self {
        Self {
            inbox: VecDeque::from([Request::Start.into()]),
            now: Instant::ZERO,
            power: Power::Off,
            disk_hangs: false,
            wants: wants.to_vec(),
            phases: Vec::new(),
            commands: Vec::new(),
            waited_without_a_limit: false,
        }
    }
}

impl Surroundings for World {
    fn persist(&mut self, record: Record) {
        if !self.disk_hangs {
            self.inbox.push_back(Input::Persisted(record.seq).into());
        }
    }

    fn carry_out(&mut self, command: Command) {
        self.commands.push(command);
        match command.op {
            Op::PowerOn | Op::Unpause => self.power = Power::On,
            Op::Pause => self.power = Power::Paused,
            Op::PowerOff => self.power = Power::Off,
            _ => {}
        }
        let reply = match command.op {
            Op::Probe => Reply::Found(Found { power: self.power, program: Program::Running, ..Found::default() }),
            Op::Provision(_) => Reply::Provisioned { running: false },
            _ => Reply::Done,
        };
        self.inbox.push_back(Input::Completed { id: command.id, result: Ok(reply) }.into());
    }

    fn fence(&mut self, id: CommandId) {
        self.inbox.push_back(Input::Fenced { id, survived: true }.into());
    }

    fn report(&mut self, report: Report) {
        let Report::Phase(phase) = report else { return };
        self.phases.push(phase);
        if let Some(at) = self.wants.iter().position(|(when, _)| *when == phase) {
            self.inbox.push_back(self.wants.remove(at).1.into());
        }
    }

    fn wait(&mut self, until: Option<Instant>) -> (Instant, Option<Stimulus>) {
        if let Some(happened) = self.inbox.pop_front() {
            return (self.now, Some(happened));
        }
        if self.phases.last() == Some(&Phase::Running) && !self.disk_hangs {
            let boot = self.commands.last().unwrap().boot;
            let event = Event::ProgramExited(ExitStatus::Code(0));
            return (self.now, Some(Input::Observed { boot, event }.into()));
        }
        match until {
            Some(until) => self.now = until,
            None => {
                // Nothing is due. Somebody asks for something, some day.
                self.waited_without_a_limit = true;
                return (self.now, Some(Request::Resume.into()));
            }
        }
        (self.now, None)
    }
}

fn task(capabilities: Capabilities) -> Task {
    Task::new(Plan::new(&draft().check().unwrap(), Policy::default(), capabilities).unwrap(), 1)
}

const DONE: Outcome = Outcome::Completed { exit: ExitStatus::Code(0) };

#[test]
fn a_suspend_that_the_hypervisor_cannot_do_is_denied_and_the_task_is_driven_on() {
    let mut world = World::new(&[(Phase::Running, Request::Suspend)]);
    let outcome = drive(&mut task(Capabilities { pause: Pause::None, ..ALL_IT_TAKES }), &mut world);
    assert_eq!(outcome, DONE);
    assert!(world.commands.iter().all(|command| command.op != Op::Pause));
    assert_eq!(world.power, Power::Off);
}

#[test]
fn a_task_that_is_held_waits_without_a_limit_and_goes_on_when_asked() {
    let mut world = World::new(&[(Phase::Running, Request::Suspend)]);
    assert_eq!(drive(&mut task(ALL_IT_TAKES), &mut world), DONE);
    assert!(world.waited_without_a_limit);
    assert!(world.phases.iter().any(|phase| matches!(phase, Phase::Paused { .. })));
}

#[test]
fn a_journal_that_never_answers_ends_the_task_with_the_vm_off() {
    let mut task = task(ALL_IT_TAKES);
    let mut world = World::new(&[(Phase::Running, Request::Quit { budget_ms: 60_000 })]);
    // From the launch on, which was on record.
    struct Hanging<'a>(&'a mut World);
    impl Surroundings for Hanging<'_> {
        fn persist(&mut self, record: Record) {
            self.0.persist(record);
        }
        fn carry_out(&mut self, command: Command) {
            self.0.disk_hangs |= command.op == Op::Launch;
            self.0.carry_out(command);
        }
        fn fence(&mut self, id: CommandId) {
            self.0.fence(id);
        }
        fn report(&mut self, report: Report) {
            self.0.report(report);
        }
        fn wait(&mut self, until: Option<Instant>) -> (Instant, Option<Stimulus>) {
            self.0.wait(until)
        }
    }
    let outcome = drive(&mut task, &mut Hanging(&mut world));
    assert_eq!(outcome, Outcome::Failed { cause: Cause::Journal });
    assert_eq!(task.leftover(), Some(Leftover::StillRegistered));
    assert_eq!(world.power, Power::Off);
}

#[test]
fn a_journal_that_is_dead_from_the_start_ends_the_task_before_anything_is_done() {
    let mut world = World::new(&[]);
    world.disk_hangs = true;
    let mut task = task(ALL_IT_TAKES);
    assert_eq!(drive(&mut task, &mut world), Outcome::Failed { cause: Cause::Journal });
    assert_eq!(task.leftover(), None);
    assert!(world.commands.is_empty());
    let patience = Policy::default().journal.as_millis() / Policy::JOURNAL_AT_THE_START;
    assert_eq!(world.now, Instant::from_millis(patience.into()), "it waits no longer than it has to");
}
