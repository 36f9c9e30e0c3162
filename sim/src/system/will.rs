//! What happens because somebody wants it, or because fate does: requests, crashes, guests that stop.

use vmtask_core::{Boot, CommandId, Event, Input, Instant, JournalSeq, Machine, OpKind, Phase, Reply, Request};

use super::{BEFORE, Budget, System};
use crate::act::{Act, Director, Mark, Moment, Options, Stale, between_options};
use crate::guest::Agent;
use crate::invariant::Violation;
use crate::scenario::Scenario;
use crate::trace::Told;

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
        between_options(&self.world, faults > 0, requests > 0, &mut options);
        let moment = Moment::Between { mark: self.mark, happened, phase: self.phase, at: self.now };
        let Some(act) = self.consult(director, moment, &mut options) else { return Ok(false) };
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
                self.observe(director, Event::GuestStopped);
            }
            Act::GuestReboot => {
                self.world.reboot(scenario);
                self.observe(director, Event::GuestRebooted);
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
                while self.world.works() {
                    self.world_steps(scenario, director)?;
                }
            }
            Act::Clock(seconds) => {
                self.skew += i64::from(seconds) * 1000;
                self.spy.clock_jumped = true;
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
        let over = self.machine.phase() == Phase::Ended;
        self.spy.requested(self.now, request, verdict, over)
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
        self.epoch += 1;
        // Its clock counts from its own start.
        self.skew = BEFORE - i64::try_from(self.now).unwrap_or(i64::MAX);
        self.told = Instant::ZERO;
        let record = self.disk.load();
        director.tell(self.now, &Told::Started(record));
        self.start_due = record.is_none();
        self.machine = match record {
            None => Machine::new(self.epoch),
            Some(record) => {
                Machine::restore(record, scenario.plan(), self.epoch).map_err(|_| Violation::DoesNotLoad)?
            }
        };
        self.spy.new_life(record.as_ref());
        self.note_phase();
        Ok(())
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
