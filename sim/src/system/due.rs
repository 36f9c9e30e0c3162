//! What happens by itself: whatever is due next.

use vmtask_core::{
    Base, Boot, Command, CommandId, Event, Fault, FaultKind, Generation, Input, Intent, Op, OpKind, Phase, Reply,
    Request,
};

use super::{Fencing, Job, Mail, SUSPENDED, System, Writing};
use crate::act::{Act, Director, Mark, Moment, Options};
use crate::guest::Agent;
use crate::invariant::{self, Violation};
use crate::scenario::{Scenario, TICK};
use crate::trace::Told;
use crate::world::Answer;

impl System {
    /// The next thing that is due.
    pub(super) fn proceed(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        if self.start_due {
            self.start_due = false;
            self.mark_other();
            return self.request(scenario, director, Request::Start);
        }
        let Some((at, lane)) = self.next_lane() else { return Err(Violation::Stuck) };
        let at = at.max(self.now);
        self.world.pass(at - self.now);
        self.spy.time_passes(scenario, &self.world, at - self.now);
        self.now = at;
        let acts_late = self.count_down();
        match lane {
            _ if acts_late.is_some() => {
                self.counts.late += 1;
                self.mark = Mark::Late(self.counts.late);
                if let Some(command) = acts_late {
                    self.act_late(scenario, director, &command);
                }
                Ok(())
            }
            Lane::Writer => self.finish_write(scenario, director),
            Lane::Fencer => self.finish_fence(scenario, director),
            Lane::Worker => self.work(scenario, director),
            Lane::Reply(place) => self.deliver_reply(scenario, director, place),
            Lane::Event(place) => self.deliver_event(scenario, director, place),
            Lane::Timer => {
                self.counts.timers += 1;
                self.mark = Mark::Timer(self.counts.timers);
                director.tell(self.now, &Told::Timer);
                self.told = self.machine_believes();
                self.machine.handle_timeout(scenario.plan(), self.machine_now());
                Ok(())
            }
            Lane::Step => {
                self.counts.steps += 1;
                self.mark = Mark::Step(self.counts.steps);
                self.world_steps(scenario, director)
            }
            Lane::User => {
                self.mark_other();
                self.request(scenario, director, Request::Resume)
            }
        }
    }

    /// What is due first; of things due together, the disk is faster than a worker and messages than timers.
    fn next_lane(&self) -> Option<(u64, Lane)> {
        let mut next: Option<(u64, Lane)> = None;
        let mut offer = |at: u64, lane: Lane| {
            if next.is_none_or(|(earliest, _)| at.max(self.now) < earliest) {
                next = Some((at.max(self.now), lane));
            }
        };
        if let Some(writing) = &self.writer {
            offer(writing.at, Lane::Writer);
        }
        if let Some(fencing) = &self.fencer {
            offer(fencing.at, Lane::Fencer);
        }
        if let Some(job) = &self.worker {
            offer(job.at, Lane::Worker);
        }
        for (place, mail) in self.replies.iter().enumerate() {
            if let Some(mail) = mail {
                offer(mail.at, Lane::Reply(place));
            }
        }
        for (place, mail) in self.events.iter().enumerate() {
            if let Some(mail) = mail {
                offer(mail.at, Lane::Event(place));
            }
        }
        if let Some(timeout) = self.machine.poll_timeout() {
            offer(timeout.as_millis().saturating_add_signed(-self.skew), Lane::Timer);
        }
        if self.world.works() {
            offer(self.now + self.world.guest.map_or(0, |g| g.until_step), Lane::Step);
        }
        if self.is_held() {
            offer(self.phase_since + SUSPENDED, Lane::User);
        }
        next
    }

    /// Whether the task is suspended and at rest: its user resumes it after a while.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Paused { .. })
            && self.machine.intent() == Intent::Suspend
            && self.writer.is_none()
            && self.worker.is_none()
            && self.fencer.is_none()
    }

    /// A hung command whose time has come.
    fn count_down(&mut self) -> Option<Command> {
        for late in self.late.iter_mut().flatten() {
            late.steps = late.steps.saturating_sub(1);
        }
        let due = self.late.iter().position(|late| late.is_some_and(|late| late.steps == 0))?;
        take(&mut self.late, due).map(|late| late.command)
    }

    fn act_late(&mut self, scenario: &Scenario, director: &mut impl Director, command: &Command) {
        let answer = self.act_on_world(scenario, command);
        director.tell(self.now, &Told::Acted { command: *command, answer, late: true });
        if let Some(result) = answer {
            self.post_reply(self.now, command.op.kind(), 0, command.id, result);
        }
    }

    fn work(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let Some(Job { command, too_late, act, nth, .. }) = self.worker.take() else { return Ok(()) };
        let kind = command.op.kind();
        self.mark = Mark::Effect(kind, nth);
        if act == Some(Act::HalfPowerLoss) {
            self.half(command.op);
            return self.lose_power(scenario, director);
        }
        let answer = self.carry_out(scenario, director, &command, act);
        director.tell(self.now, &Told::Acted { command, answer, late: false });
        let Some(result) = answer else { return Ok(()) };
        let at = match act {
            Some(Act::LoseReply) => return Ok(()),
            Some(Act::DelayReply) => self.now + TICK,
            Some(Act::LateReply) => too_late.max(self.now),
            _ => self.now,
        };
        self.post_reply(at, kind, nth, command.id, result);
        if act == Some(Act::DuplicateReply) {
            self.post_reply(at, kind, 0, command.id, result);
        }
        Ok(())
    }

    /// What the command does to the world, and what the adapter says about it.
    fn carry_out(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        command: &Command,
        act: Option<Act>,
    ) -> Option<Result<Reply, Fault>> {
        let fails = |kind| Some(Err(Fault::new(kind)));
        match act {
            // The machine that was to start from a checkpoint has been lost meanwhile: there is nothing to find damaged.
            Some(Act::Fail(FaultKind::Damaged)) if self.starts_from(command.op).is_none() => {}
            Some(Act::Fail(kind)) => {
                if kind == FaultKind::Damaged {
                    self.spoil_what_it_starts_from(command.op);
                }
                if kind == FaultKind::NoSpace {
                    // It did nothing that lasts: a checkpoint that was being written is over.
                    self.world.stream = None;
                }
                return fails(kind);
            }
            Some(Act::FailAndKill) => {
                self.world.power_off();
                self.observe(scenario, director, Event::GuestStopped);
                return fails(FaultKind::Fatal);
            }
            Some(Act::NoTools) => {
                if let Some(guest) = &mut self.world.guest {
                    guest.agent = Agent::Dead;
                }
            }
            Some(Act::Half) => {
                self.half(command.op);
                return fails(FaultKind::Unknown);
            }
            Some(Act::Spoil(_) | Act::SpoilAll | Act::Deleted) if !matches!(command.op, Op::CommitSnapshot(_)) => {
                self.spoil_what_is_looked_at(command.op, act);
            }
            _ => {}
        }
        let answer = self.act_on_world(scenario, command);
        match (act, command.op) {
            (Some(Act::ActThenUnknown), _) => fails(FaultKind::Unknown),
            (Some(Act::Spoil(health)), Op::CommitSnapshot(generation)) => {
                self.world.spoil(generation, health);
                self.spy.spoiled();
                answer
            }
            _ => answer,
        }
    }

    fn act_on_world(&mut self, scenario: &Scenario, command: &Command) -> Answer {
        let answer = self.world.carry_out(scenario, command);
        self.spy.acted(command.op, answer);
        if let Op::CommitSnapshot(generation) = command.op
            && self.world.is_whole(generation)
            && !self.world.restores(generation)
        {
            // The guest hung when it was taken.
            self.spy.spoiled();
        }
        answer
    }

    fn half(&mut self, op: Op) {
        self.world.act_by_half(op);
        // A checkpoint of which only a half is there is none.
        self.spy.spoiled();
    }

    /// What is to be restored, or is the newest when somebody looks, is not what it was.
    fn spoil_what_is_looked_at(&mut self, op: Op, act: Option<Act>) {
        let one = match op {
            Op::Provision(Base::Checkpoint(generation)) => Some(generation),
            _ => self.world.newest_whole(),
        };
        match (act, one) {
            (Some(Act::Spoil(health)), Some(generation)) => self.world.spoil(generation, health),
            (Some(Act::Deleted), Some(generation)) => self.world.delete(generation),
            _ => self.world.spoil_all(),
        }
        self.spy.spoiled();
    }

    /// A checkpoint that is said to be damaged is: the next try finds it so, too.
    fn spoil_what_it_starts_from(&mut self, op: Op) {
        if let Some(generation) = self.starts_from(op) {
            self.world.spoil(generation, crate::guest::Health::BadAtProvision);
            self.spy.spoiled();
        }
    }

    /// The checkpoint that the machine is made from, or was made from and is staged.
    fn starts_from(&self, op: Op) -> Option<Generation> {
        match op {
            Op::Provision(Base::Checkpoint(generation)) => Some(generation),
            Op::PowerOn | Op::AwaitTools | Op::LogIn | Op::Probe => self.world.staged_checkpoint(),
            _ => None,
        }
    }

    fn deliver_reply(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        place: usize,
    ) -> Result<(), Violation> {
        let Some(mail) = take(&mut self.replies, place) else { return Ok(()) };
        let (id, result) = mail.what;
        match mail.nth {
            0 => self.mark_other(),
            nth => self.mark = Mark::Reply(mail.kind, nth),
        }
        self.tell_machine(scenario, director, Input::Completed { id, result })?;
        Ok(())
    }

    fn deliver_event(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        place: usize,
    ) -> Result<(), Violation> {
        let Some(mail) = take(&mut self.events, place) else { return Ok(()) };
        let (boot, event) = mail.what;
        match mail.nth {
            0 => self.mark_other(),
            nth => self.mark = Mark::Event(nth),
        }
        self.tell_machine(scenario, director, Input::Observed { boot, event })?;
        Ok(())
    }

    fn finish_write(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let Some(Writing { record, nth, act, .. }) = self.writer.take() else { return Ok(()) };
        self.mark = Mark::Written(nth);
        match act {
            Some(Act::Tear) => {
                self.disk.tear();
                return self.lose_power(scenario, director);
            }
            Some(Act::WriteFails) => {
                self.queued.get_or_insert(record);
            }
            Some(Act::JournalGone) => {
                self.tell_machine(scenario, director, Input::JournalLost)?;
            }
            _ => {
                self.disk.write(record);
                self.spy.now_durable(&record);
                self.tell_machine(scenario, director, Input::Persisted(record.seq))?;
                invariant::on_durable(self);
            }
        }
        self.start_writing(scenario, director);
        Ok(())
    }

    fn finish_fence(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let Some(Fencing { id, nth, dies, .. }) = self.fencer.take() else { return Ok(()) };
        self.mark = Mark::Fenced(nth);
        // The tokens of the fenced command and all before it are revoked: none of them acts any more.
        self.late = [None; 3];
        self.worker = None;
        let survived = self.world.fence(dies);
        self.spy.fenced();
        self.tell_machine(scenario, director, Input::Fenced { id, survived })?;
        Ok(())
    }

    pub(super) fn world_steps(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let event = self.world.step(scenario);
        let steps = self.world.guest.map_or(0, |g| g.program.steps);
        director.tell(self.now, &Told::Stepped(steps));
        match event {
            Some(event @ Event::Progress { .. }) => {
                let boot = self.world.boot;
                self.tell_machine(scenario, director, Input::Observed { boot, event })?;
            }
            Some(event) => self.observe(scenario, director, event),
            None => {}
        }
        Ok(())
    }

    /// The adapter has seen something and passes it on.
    pub(super) fn observe(&mut self, scenario: &Scenario, director: &mut impl Director, event: Event) {
        self.counts.events += 1;
        let nth = self.counts.events;
        let mut options = Options::new();
        if self.budget.faults > 0 {
            for act in [Act::LoseEvent, Act::DelayEvent, Act::DuplicateEvent] {
                options.push(act);
            }
        }
        let act = self.consult(scenario, director, Moment::Event(nth), &mut options);
        let boot = self.world.boot;
        let at = self.now + if act == Some(Act::DelayEvent) { TICK } else { 0 };
        if act != Some(Act::LoseEvent) {
            self.post_event(at, nth, boot, event);
        }
        if act == Some(Act::DuplicateEvent) {
            self.post_event(at, 0, boot, event);
        }
    }

    pub(super) fn post_reply(&mut self, at: u64, kind: OpKind, nth: u16, id: CommandId, result: Result<Reply, Fault>) {
        post(&mut self.replies, Mail { at, nth, kind, what: (id, result) });
    }

    pub(super) fn post_event(&mut self, at: u64, nth: u16, boot: Boot, event: Event) {
        post(&mut self.events, Mail { at, nth, kind: OpKind::Probe, what: (boot, event) });
    }
}

#[derive(Clone, Copy, Debug)]
enum Lane {
    Writer,
    Fencer,
    Worker,
    Reply(usize),
    Event(usize),
    Timer,
    Step,
    /// A user who has suspended a task resumes it.
    User,
}

/// Takes what is in a place; what comes after moves up, so that the first free place is behind everything that waits.
fn take<T>(places: &mut [Option<T>], place: usize) -> Option<T> {
    let taken = places[place].take();
    places[place..].rotate_left(1);
    taken
}

/// Puts mail into the first free place; what comes when all are taken is lost, as in a full socket.
fn post<T>(places: &mut [Option<T>], mail: T) {
    if let Some(place) = places.iter_mut().find(|p| p.is_none()) {
        *place = Some(mail);
    }
}
