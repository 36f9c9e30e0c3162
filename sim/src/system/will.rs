//! What happens because somebody wants it, or because fate does: requests, crashes, guests that stop.

use vmtask_core::{
    Boot, Cause, CommandId, Event, Input, Intent, JournalSeq, Machine, OpKind, Outcome, Phase, Power, Record, Reply,
    Request,
};

use super::{BEFORE, Budget, System, Trouble};
use crate::act::{Act, Director, Mark, Moment, Options, Stale, between_options};
use crate::guest::Agent;
use crate::invariant::Violation;
use crate::scenario::Scenario;
use crate::trace::Told;

/// A day, for which somebody leaves a task suspended.
const LONG: u64 = 86_400_000;

impl System {
    /// Whether something special happened now.
    pub(super) fn interfere(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        happened: Mark,
    ) -> Result<bool, Violation> {
        let Budget { faults, requests, .. } = self.budget;
        if faults == 0 && requests == 0 {
            return Ok(false);
        }
        let mut options = Options::new();
        between_options(&self.world, self.is_held(), faults > 0, requests > 0, &mut options);
        let moment = Moment::Between { mark: self.mark, happened, phase: self.phase, at: self.now };
        let Some(act) = self.consult(scenario, director, moment, &mut options) else { return Ok(false) };
        self.counts.done += 1;
        self.mark = Mark::Done(self.counts.done);
        self.perform(scenario, director, act)?;
        Ok(true)
    }

    fn perform(&mut self, scenario: &Scenario, director: &mut impl Director, act: Act) -> Result<(), Violation> {
        match act {
            Act::Request(request) => return self.request(scenario, director, request),
            Act::Crash => {
                self.world.lose_manager(scenario);
                self.kill_manager(scenario, director)?;
            }
            Act::PowerLoss | Act::StalePowerLoss => {
                if act == Act::StalePowerLoss {
                    self.disk.forget_newest();
                    self.spy.disk_lied();
                }
                self.lose_power(scenario, director)?;
            }
            Act::GuestStop => {
                self.world.power_off();
                self.observe(scenario, director, Event::GuestStopped);
            }
            Act::GuestReboot => {
                self.world.reboot(scenario);
                self.observe(scenario, director, Event::GuestRebooted);
            }
            Act::GuestHang => {
                if let Some(guest) = &mut self.world.guest {
                    guest.hung = true;
                }
            }
            Act::AgentDies => {
                if let Some(guest) = &mut self.world.guest {
                    guest.agent = Agent::Dead;
                }
            }
            Act::ProgramEnds => {
                while self.world.works() && !self.world.guest.is_some_and(|g| g.is_idle(scenario)) {
                    self.world_steps(scenario, director)?;
                }
            }
            Act::PausedByHand => self.world.power = Power::Paused,
            Act::SessionLost => self.world.lose_session(),
            Act::LongWait => self.now += LONG,
            Act::Clock(seconds) => {
                let (now, told) = (self.machine_now(), self.told);
                let (behind, ahead) = (now.since(told).as_millis(), told.since(now).as_millis());
                self.skew += i64::from(seconds) * 1000;
                self.behind += self.spy.clock_jumped(seconds, u64::from(behind), ahead);
            }
            Act::Stale(stale) => {
                self.tell_machine(scenario, director, old_news(stale))?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn request(
        &mut self,
        scenario: &Scenario,
        director: &mut impl Director,
        request: Request,
    ) -> Result<(), Violation> {
        let verdict = self.tell_machine(scenario, director, request)?;
        let machine = &self.machine;
        let over = machine.phase() == Phase::Ended
            || machine.record().ending == Some(Outcome::Failed { cause: Cause::Journal });
        // What runs now is worth saving.
        let runs = self.phase == Phase::Running && self.world.works() && scenario.interval.is_some();
        let newest = runs.then(|| machine.newest_checkpoint());
        let behind = u64::from(self.told.since(self.machine_now()).as_millis());
        self.spy.requested(self.now + behind, request, verdict, over, newest)
    }

    pub(super) fn lose_power(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        self.world.lose_power(scenario);
        self.kill_manager(scenario, director)
    }

    /// The manager's process is gone, with its threads; a new one is started. An answer and an event that were on
    /// their way to the old one reach the new one.
    fn kill_manager(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        let stray = self.spy.awaiting.map(|(command, _)| command.id);
        let boot = self.world.boot;
        self.start_manager(scenario, director)?;
        if let Some(id) = stray {
            self.post_reply(self.now, OpKind::Probe, 0, id, Ok(Reply::Done));
        }
        self.post_event(self.now, 0, boot, Event::GuestStopped);
        Ok(())
    }

    pub(super) fn start_manager(&mut self, scenario: &Scenario, director: &mut impl Director) -> Result<(), Violation> {
        self.worker = None;
        self.late = [None; 3];
        self.replies = [None; 6];
        self.events = [None; 6];
        self.writer = None;
        self.queued = None;
        self.fencer = None;
        self.trouble = self.trouble.filter(|trouble| *trouble != Trouble::Journal);
        self.epoch += 1;
        // Its clock counts from its own start.
        self.skew = BEFORE - i64::try_from(self.now).unwrap_or(i64::MAX);
        self.told = self.machine_now();
        let record = self.disk.load();
        director.tell(self.now, &Told::Started(record));
        self.start_due = record.is_none();
        self.machine = match record {
            None => Machine::new(self.epoch),
            Some(record) => Machine::restore(record, scenario.plan(), self.epoch, self.machine_now())
                .map_err(|_| Violation::DoesNotLoad)?,
        };
        self.spy.new_life(record.as_ref(), scenario, &self.world, self.trouble);
        self.intent_is_to_run(record.as_ref())?;
        self.note_phase();
        Ok(())
    }

    /// Whoever starts a manager wants the task to run; only an abort is remembered.
    fn intent_is_to_run(&self, record: Option<&Record>) -> Result<(), Violation> {
        let over = self.machine.phase() == Phase::Ended;
        let aborted = record.is_some_and(|record| record.intent == Intent::Abort);
        match self.machine.intent() {
            Intent::Run if !aborted => Ok(()),
            Intent::Abort if aborted => Ok(()),
            _ if over => Ok(()),
            intent => Err(Violation::WantsForNothing(intent)),
        }
    }
}

/// A message to a manager that there never was: numbers of its kind are not given out.
const fn old_news(stale: Stale) -> Input {
    let nobody = CommandId { epoch: 0, seq: 1 };
    match stale {
        Stale::Answer => Input::Completed { id: nobody, result: Ok(Reply::Done) },
        Stale::Fence => Input::Fenced { id: nobody, survived: false },
        Stale::Event => Input::Observed { boot: Boot { epoch: 0, seq: 1 }, event: Event::GuestStopped },
        Stale::Record => Input::Persisted(JournalSeq(0)),
    }
}
