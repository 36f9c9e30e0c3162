//! One volunteer's computer: a real machine of the core, the world around it, and somebody with a life.
//!
//! ```text
//!            session over: Quit, 60 s                       a copy of a workunit
//!   on ----------------------------> off       idle (parked) -----------------> computes
//!    ^ <---------------------------- |            ^                                |
//!    |        the next session                    +---- a result, or none ---------+
//!    |
//!    +-- in use: Suspend, Resume     +-- hazards: manager killed, power cut, guest lost, task aborted
//! ```
//!
//! Hosts share nothing but the server. So a host may be run ahead until it next talks to the server, without regard to
//! what others do meanwhile: the order of events is still exact where it matters.

use vmtask_core::{
    Command, Event, ExitStatus, Fault, FaultKind, Input, Instant, Machine, Op, Outcome, Output, Plan, Power, Record,
    Request,
};

use super::arm::Arm;
use super::class;
use super::draw::{DAY, HOUR, MINUTE, SECOND, between, every, once_in};
use super::vm::{Hours, Loss, Site, Vm};
use crate::choose::{Prng, scramble};

/// What BOINC's client gives a program that is told to quit, in milliseconds.
const QUIT_BUDGET: u32 = 60_000;
/// When the computer goes off, whatever the manager has done.
const QUIT_PATIENCE: u64 = 70 * SECOND;
/// How often something goes wrong on a computer that is on and computes.
const HAZARDS: u64 = 4 * DAY;
/// One command in so many is refused, and one in so many is never answered. A process has no hypervisor that could.
const ODD: u64 = 2000;
/// Never.
const NEVER: u64 = u64::MAX;

/// What is the same for all hosts of an arm.
#[derive(Debug)]
pub(super) struct Env {
    pub(super) arm: Arm,
    pub(super) plan: Plan,
}

/// What is counted over all hosts of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) hours: Hours,
    /// Inputs and timers that machines dealt with.
    pub(super) inputs: u64,
    /// Machines that were made.
    pub(super) managers: u64,
    pub(super) crashes: u64,
    pub(super) quits: u64,
    pub(super) suspends: u64,
    pub(super) checkpoints: u64,
}

/// What a host has to say to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The result, as a place in the table of classes.
    Result(u8),
    /// The volunteer aborted it.
    Aborted,
    /// It could not be carried out.
    Failed,
}

/// Where a host has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It talks to the server at this time.
    Contact(u64),
    /// It goes on by itself at this time.
    Later(u64),
}

impl Next {
    /// When.
    pub(super) const fn at(self) -> u64 {
        let (Self::Contact(at) | Self::Later(at)) = self;
        at
    }
}

/// In the order in which things happen that are due together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Disk,
    Fence,
    Answer,
    Exit,
    Timer,
    Session,
    Use,
    Hazard,
    Restart,
    Contact,
}

/// A promise that was broken, in words.
pub(super) type Broken = &'static str;

#[derive(Clone, Debug)]
pub(super) struct Host {
    machine: Option<Machine>,
    /// The newest record that is durable, and the one that is being written.
    durable: Option<Record>,
    writing: Option<(u64, Record)>,
    /// The command that is being carried out; one that is never answered is so at [`NEVER`].
    flight: Option<(u64, Command)>,
    fence: Option<(u64, vmtask_core::CommandId)>,
    vm: Vm,
    prng: Prng,
    now: u64,
    session_at: u64,
    use_at: u64,
    hazard_at: u64,
    restart_at: u64,
    contact_at: u64,
    job: Option<u32>,
    pub(super) report: Option<Report>,
    /// How long sessions are on average, in hours.
    session_hours: u8,
    class: u8,
    speed: u16,
    on: bool,
    in_use: bool,
    quitting: bool,
}

impl Host {
    /// Host `number` of a grid. The same host, with the same habits, in every arm.
    pub(super) fn new(seed: u64, number: u32) -> Self {
        let mut prng = Prng::new(scramble(seed ^ scramble(u64::from(number))));
        let class = class::draw(&mut prng);
        let speed = u16::try_from(between(&mut prng, 500, 2000)).unwrap_or(1000);
        let session_hours = u8::try_from(between(&mut prng, 4, 16)).unwrap_or(8);
        let on = prng.below(2) == 0;
        let session_at = every(&mut prng, 6 * HOUR);
        let contact_at = every(&mut prng, 2 * HOUR);
        Self {
            machine: None,
            durable: None,
            writing: None,
            flight: None,
            fence: None,
            vm: Vm::new(0),
            prng,
            now: 0,
            session_at,
            use_at: NEVER,
            hazard_at: NEVER,
            restart_at: NEVER,
            contact_at,
            job: None,
            report: None,
            session_hours,
            class,
            speed,
            on,
            in_use: false,
            quitting: false,
        }
    }

    /// How far it has been run.
    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    pub(super) const fn job(&self) -> Option<u32> {
        self.job
    }

    /// An idle host asks the server at this time, or as soon as it is on after that.
    pub(super) const fn ask_at(&mut self, at: u64) {
        self.contact_at = at;
    }

    /// The client has talked to the server, and this is what it got.
    pub(super) fn begin(&mut self, env: &Env, tally: &mut Tally, job: Option<u32>) -> Result<(), Broken> {
        self.report = None;
        self.contact_at = NEVER;
        self.job = job;
        self.durable = None;
        if job.is_none() {
            return Ok(());
        }
        self.vm = Vm::new(env.arm.work(self.speed));
        self.draw_hazard();
        self.use_at = self.now + every(&mut self.prng, 2 * HOUR);
        self.start_manager(env, tally)
    }

    /// Runs the host until it talks to the server, or until there is nothing to do before `until`.
    pub(super) fn advance(&mut self, env: &Env, tally: &mut Tally, until: u64) -> Result<Next, Broken> {
        loop {
            let (at, what) = self.next();
            let at = at.max(self.now);
            if what == What::Contact {
                if at <= until {
                    self.now = at;
                }
                return Ok(Next::Contact(at));
            }
            if at > until {
                return Ok(Next::Later(at));
            }
            self.now = at;
            self.happen(env, tally, what)?;
        }
    }

    fn next(&self) -> (u64, What) {
        let mut next = (self.session_at, What::Session);
        let mut or = |at: u64, what| {
            if (at, what as u8) < (next.0, next.1 as u8) {
                next = (at, what);
            }
        };
        if self.on && !self.quitting {
            or(self.contact_at, What::Contact);
        }
        if let Some(machine) = &self.machine {
            or(self.writing.as_ref().map_or(NEVER, |w| w.0), What::Disk);
            or(self.fence.map_or(NEVER, |f| f.0), What::Fence);
            or(self.flight.as_ref().map_or(NEVER, |f| f.0), What::Answer);
            or(self.vm.ends_at().unwrap_or(NEVER), What::Exit);
            or(machine.poll_timeout().map_or(NEVER, Instant::as_millis), What::Timer);
            or(self.hazard_at, What::Hazard);
            or(self.use_at, What::Use);
        } else if self.on {
            or(self.restart_at, What::Restart);
        }
        next
    }

    fn happen(&mut self, env: &Env, tally: &mut Tally, what: What) -> Result<(), Broken> {
        match what {
            What::Disk => {
                let Some((_, record)) = self.writing.take() else { return Ok(()) };
                self.durable = Some(record);
                self.feed(env, tally, Input::Persisted(record.seq))
            }
            What::Fence => {
                let Some((_, id)) = self.fence.take() else { return Ok(()) };
                // A guest whose agent only had to be revived, or one that had to be powered off.
                if once_in(&mut self.prng, 2) {
                    tally.crashes += u64::from(self.vm.power != Power::Off);
                    self.vm.power_off(self.now, Loss::Crash, &mut tally.hours);
                }
                self.feed(env, tally, Input::Fenced { id, survived: self.vm.power != Power::Off })
            }
            What::Answer => self.answer(env, tally),
            What::Exit => {
                let boot = self.vm.end(self.now, &mut tally.hours);
                let event = Event::ProgramExited(ExitStatus::Code(0));
                self.feed(env, tally, Input::Observed { boot, event })
            }
            What::Timer => {
                tally.inputs += 1;
                if let Some(machine) = &mut self.machine {
                    machine.handle_timeout(&env.plan, Instant::from_millis(self.now));
                }
                self.drain(env, tally)
            }
            What::Session => self.session(env, tally),
            What::Use => {
                self.in_use = !self.in_use;
                tally.suspends += u64::from(self.in_use);
                let mean = if self.in_use { 20 * MINUTE } else { 2 * HOUR };
                self.use_at = self.now + every(&mut self.prng, mean);
                self.ask(env, tally, if self.in_use { Request::Suspend } else { Request::Resume })
            }
            What::Hazard => self.hazard(env, tally),
            What::Restart => self.start_manager(env, tally),
            What::Contact => Ok(()),
        }
    }

    /// The volunteer switches the computer on, or off; or it is off now that the programs had their time to quit.
    fn session(&mut self, env: &Env, tally: &mut Tally) -> Result<(), Broken> {
        if !self.on {
            self.on = true;
            self.session_at = self.now + every(&mut self.prng, u64::from(self.session_hours) * HOUR);
            if self.job.is_some() && self.report.is_none() {
                self.draw_hazard();
                self.use_at = self.now + every(&mut self.prng, 2 * HOUR);
                return self.start_manager(env, tally);
            }
            return Ok(());
        }
        if self.machine.is_some() && !self.quitting {
            tally.quits += 1;
            self.quitting = true;
            self.session_at = self.now + QUIT_PATIENCE;
            return self.ask(env, tally, Request::Quit { budget_ms: QUIT_BUDGET });
        }
        self.vm.power_off(self.now, Loss::SwitchedOff, &mut tally.hours);
        // Over night, mostly; sometimes for a journey.
        let mean = if once_in(&mut self.prng, 50) { 10 * DAY } else { 10 * HOUR };
        let away = every(&mut self.prng, mean);
        self.go_dark(away);
        Ok(())
    }

    /// No power: what is in memory is gone, and so is a record that was being written.
    fn go_dark(&mut self, away: u64) {
        self.manager_dies();
        self.writing = None;
        self.on = false;
        self.in_use = false;
        self.quitting = false;
        self.use_at = NEVER;
        self.hazard_at = NEVER;
        self.restart_at = NEVER;
        self.session_at = self.now + away;
    }

    fn manager_dies(&mut self) {
        self.machine = None;
        self.flight = None;
        self.fence = None;
    }

    fn draw_hazard(&mut self) {
        self.hazard_at = self.now + every(&mut self.prng, HAZARDS);
    }

    fn hazard(&mut self, env: &Env, tally: &mut Tally) -> Result<(), Broken> {
        self.draw_hazard();
        let die = self.prng.below(10);
        tally.crashes += u64::from(die < 9);
        match die {
            // The client or the manager is killed. What it was writing may have come to the disk, or not.
            0..=3 => {
                self.vm.power_off(self.now, Loss::Crash, &mut tally.hours);
                if let Some((_, record)) = self.writing.take()
                    && once_in(&mut self.prng, 2)
                {
                    self.durable = Some(record);
                }
                self.manager_dies();
                if self.quitting {
                    return Ok(());
                }
                self.restart_at = self.now + between(&mut self.prng, SECOND, MINUTE);
                Ok(())
            }
            4..=6 => {
                self.vm.power_off(self.now, Loss::Crash, &mut tally.hours);
                let away = every(&mut self.prng, HOUR);
                self.go_dark(away);
                Ok(())
            }
            // The guest stops by itself, or the host has killed it for want of memory.
            7 | 8 if self.vm.power != Power::Off => {
                let boot = self.vm.boot();
                self.vm.power_off(self.now, Loss::Crash, &mut tally.hours);
                self.feed(env, tally, Input::Observed { boot, event: Event::GuestStopped })
            }
            7 | 8 => Ok(()),
            _ => self.ask(env, tally, Request::Abort),
        }
    }

    fn start_manager(&mut self, env: &Env, tally: &mut Tally) -> Result<(), Broken> {
        self.restart_at = NEVER;
        tally.managers += 1;
        let epoch = self.prng.next_u64();
        let request = if let Some(record) = self.durable {
            let machine = Machine::restore(record, &env.plan, epoch);
            self.machine = Some(machine.map_err(|_| "refuses a record that a machine has written")?);
            self.in_use.then_some(Request::Suspend)
        } else {
            self.machine = Some(Machine::new(epoch));
            Some(Request::Start)
        };
        match request {
            Some(request) => self.ask(env, tally, request),
            None => self.drain(env, tally),
        }
    }

    fn feed(&mut self, env: &Env, tally: &mut Tally, input: Input) -> Result<(), Broken> {
        tally.inputs += 1;
        if let Some(machine) = &mut self.machine {
            let _ = machine.handle_input(&env.plan, Instant::from_millis(self.now), input);
        }
        self.drain(env, tally)
    }

    fn ask(&mut self, env: &Env, tally: &mut Tally, request: Request) -> Result<(), Broken> {
        tally.inputs += 1;
        if let Some(machine) = &mut self.machine {
            let verdict = machine.handle_request(&env.plan, Instant::from_millis(self.now), request);
            if verdict.is_err() && request == Request::Abort {
                return Err("denies what may not be denied");
            }
        }
        self.drain(env, tally)
    }

    /// Carries out whatever the machine hands out.
    fn drain(&mut self, env: &Env, tally: &mut Tally) -> Result<(), Broken> {
        while let Some(output) = self.machine.as_mut().and_then(|m| m.poll_output(&env.plan)) {
            match output {
                Output::Persist(record) => {
                    let at = self.now + between(&mut self.prng, 1, 30);
                    self.writing = Some((at, record));
                }
                Output::Command(command) => self.command(env, command)?,
                Output::Fence(id) => {
                    self.flight = None;
                    self.vm.fence();
                    self.fence = Some((self.now + between(&mut self.prng, SECOND, 5 * SECOND), id));
                }
                Output::Report(vmtask_core::Report::Checkpoint { .. }) => tally.checkpoints += 1,
                Output::Report(_) => {}
            }
        }
        match self.machine.as_ref().and_then(Machine::outcome) {
            Some(outcome) => self.over(tally, outcome),
            None => Ok(()),
        }
    }

    fn command(&mut self, env: &Env, command: Command) -> Result<(), Broken> {
        if self.fence.is_some() {
            return Err("hands out a command beside a fence");
        }
        match &self.flight {
            None => {}
            // After a deadline the same may be asked again, or what has become of it.
            Some((NEVER, hung)) if self.now >= hung.deadline.as_millis() => match command.op {
                op if op == hung.op || op == Op::Probe => {}
                _ => return Err("hands out another command after an unknown outcome, without a fence"),
            },
            Some(_) => return Err("hands out a command beside another"),
        }
        if let Some(misuse) = self.vm.misuse(command.op) {
            return Err(misuse);
        }
        let durable = self.durable.as_ref();
        let written = match command.op {
            Op::Launch => durable.is_some_and(|record| record.launched),
            Op::BeginSnapshot(generation) => durable.is_some_and(|record| record.pending == Some(generation)),
            _ => durable.is_some(),
        };
        if !written {
            return Err("hands out a command before the journal has it");
        }
        let answered = !env.arm.vm || !once_in(&mut self.prng, ODD);
        let at = if answered { self.now + env.arm.takes(command.op, &mut self.prng) } else { NEVER };
        self.flight = Some((at, command));
        Ok(())
    }

    fn answer(&mut self, env: &Env, tally: &mut Tally) -> Result<(), Broken> {
        let Some((_, command)) = self.flight.take() else { return Ok(()) };
        let result = if env.arm.vm && once_in(&mut self.prng, ODD) {
            Err(Fault::new(FaultKind::Refused))
        } else {
            let site = Site {
                arm: env.arm,
                value: if env.arm.vm { class::VIRTUAL } else { self.class },
                why_off: if self.quitting { Loss::SwitchedOff } else { Loss::Crash },
            };
            self.vm.carry_out(site, &command, self.now, &mut tally.hours, &mut self.prng)
        };
        self.feed(env, tally, Input::Completed { id: command.id, result })
    }

    /// The machine is done: it, or what it leaves behind, is looked at.
    fn over(&mut self, tally: &mut Tally, outcome: Outcome) -> Result<(), Broken> {
        let told = self.machine.as_ref().is_some_and(|m| m.leftover().is_some());
        if told {
            // It said so, and somebody clears up by hand.
            self.vm.power_off(self.now, Loss::Crash, &mut tally.hours);
        }
        if self.vm.power != Power::Off {
            return Err("ends with the virtual machine on");
        }
        let clean = told || self.vm.is_gone();
        self.manager_dies();
        let report = match outcome {
            Outcome::Completed { .. } => match self.vm.result {
                Some(value) if clean => Some(Report::Result(value)),
                Some(_) => return Err("has completed and left something behind"),
                None => return Err("has completed without a result"),
            },
            Outcome::Aborted if !clean => return Err("was aborted and left something behind"),
            Outcome::Aborted => Some(Report::Aborted),
            Outcome::Failed { .. } => Some(Report::Failed),
            Outcome::Stopped { .. } if self.quitting => None,
            Outcome::Stopped { .. } => return Err("stops although nobody asked for it"),
        };
        if let Some(report) = report {
            if !matches!(report, Report::Result(_)) {
                self.vm.throw_away(&mut tally.hours);
            }
            self.report = Some(report);
            self.contact_at = self.now + between(&mut self.prng, SECOND, MINUTE);
            self.hazard_at = NEVER;
            self.use_at = NEVER;
        }
        if self.quitting {
            // No need to wait any longer.
            self.session_at = self.now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
