//! What the machine does next: one function of what it believes and what is wanted.
//!
//! Nothing here changes anything. That there is one place where the next command is picked is what keeps the number of
//! (phase, intent) pairs small enough to look at each.

use crate::command::{Base, Keep, Op};
use crate::id::FileIx;
use crate::input::FaultKind;
use crate::life::Examine;
use crate::machine::{Machine, Stage};
use crate::output::{Cause, Outcome};
use crate::phase::Intent;
use crate::policy::{Pause, Plan};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Wait for something to happen.
    Rest,
    Do(Op),
    /// Clear up, and end like this.
    End(Outcome),
}

impl Machine {
    pub(crate) fn choose(&self, plan: &Plan) -> Choice {
        match self.stage {
            Stage::Created | Stage::Ended => return Choice::Rest,
            Stage::TearingDown { off: false } => return Choice::Do(Op::PowerOff),
            Stage::TearingDown { off: true } => return Choice::Do(Op::Unregister(self.keep())),
            _ => {}
        }
        if self.record.intent == Intent::Abort {
            return Choice::End(Outcome::Aborted);
        }
        if self.life.doubt {
            return Choice::Do(Op::Probe);
        }
        match self.record.intent {
            Intent::Suspend => self.choose_suspended(),
            Intent::Quit => self.choose_quitting(plan),
            Intent::Run | Intent::Abort => self.choose_running(plan),
        }
    }

    /// What must stay on disk when the VM is unregistered.
    pub(crate) const fn keep(&self) -> Keep {
        match self.record.ending {
            Some(Outcome::Completed { .. } | Outcome::Aborted) => Keep::Nothing,
            _ => Keep::Checkpoints,
        }
    }

    /// From what the VM is provisioned.
    pub(crate) fn next_base(&self) -> Base {
        self.record.generations.newest().map_or(Base::Baseline, Base::Checkpoint)
    }

    fn choose_running(&self, plan: &Plan) -> Choice {
        if self.life.paused {
            return Choice::Do(Op::Unpause);
        }
        Choice::Do(match self.stage {
            Stage::Unprobed => Op::Probe,
            Stage::Lost => Op::PowerOff,
            Stage::Off { registered: false } => Op::Register,
            Stage::Off { registered: true } => Op::Provision(self.next_base()),
            Stage::Provisioned => Op::PowerOn,
            Stage::Booted => Op::AwaitTools,
            Stage::Reachable => Op::LogIn,
            Stage::LoggedIn if self.life.examine != Examine::No => Op::Probe,
            Stage::LoggedIn => Op::MakeWorkdir,
            Stage::Copying(done) if done < plan.files_in => Op::CopyIn(FileIx(done)),
            Stage::Copying(_) if self.life.launch_doubt => Op::Probe,
            Stage::Copying(_) => Op::Launch,
            Stage::Running => return self.choose_beside_the_program(),
            Stage::Exited(done) => return self.choose_collecting(plan, done),
            Stage::Created | Stage::TearingDown { .. } | Stage::Ended => return Choice::Rest,
        })
    }

    fn choose_beside_the_program(&self) -> Choice {
        if let Some(snapshot) = self.life.snapshot {
            Choice::Do(Op::CommitSnapshot(snapshot.generation))
        } else if self.life.watch_due {
            // Before any checkpoint: those of a guest that hangs would push out the ones that are of use.
            Choice::Do(Op::Probe)
        } else if let Some(generation) = self.junk.oldest() {
            // Before the next one: where a checkpoint takes longer than the interval, the next one is always due.
            Choice::Do(Op::RemoveSnapshot(generation))
        } else if self.life.checkpoint_due {
            Choice::Do(self.begin_snapshot())
        } else {
            Choice::Rest
        }
    }

    fn choose_collecting(&self, plan: &Plan, done: u16) -> Choice {
        // A snapshot that has begun is finished first: some hypervisors lose the guest if it is given up.
        if let Some(snapshot) = self.life.snapshot {
            return Choice::Do(Op::CommitSnapshot(snapshot.generation));
        }
        if self.life.end_due {
            return Choice::Do(self.begin_snapshot());
        }
        if done < plan.files_out {
            return Choice::Do(Op::CopyOut(FileIx(done)));
        }
        Choice::End(self.collected())
    }

    /// How the task ends once every output has been collected, or is known not to come.
    fn collected(&self) -> Outcome {
        let failed = |(op, fault)| Outcome::Failed { cause: Cause::Op { op, fault } };
        match (self.record.exit, self.life.missing) {
            _ if self.life.over_limit => Outcome::Failed { cause: Cause::RunLimit },
            // A program that says itself that it failed need not have written everything; but what it has written, and
            // only could not be copied now, is copied another time.
            (Some(exit), Some((_, fault))) if !exit.is_success() && fault.kind == FaultKind::NotFound => {
                Outcome::Completed { exit }
            }
            (_, Some(missing)) => failed(missing),
            (Some(exit), None) => Outcome::Completed { exit },
            // An exited stage without an exit status does not occur; stopping is what loses nothing.
            (None, None) => self.stopped(),
        }
    }

    fn choose_suspended(&self) -> Choice {
        if self.stage.is_live() {
            return match self.life.snapshot {
                _ if !self.life.paused => Choice::Do(Op::Pause),
                Some(snapshot) => Choice::Do(Op::CommitSnapshot(snapshot.generation)),
                None if self.life.checkpoint_due && self.stage == Stage::Running => Choice::Do(self.begin_snapshot()),
                None => Choice::Rest,
            };
        }
        match self.stage {
            // A VM that runs although nobody thinks so would run on unpaused: find out.
            Stage::Unprobed => Choice::Do(Op::Probe),
            Stage::Lost => Choice::Do(Op::PowerOff),
            _ => Choice::Rest,
        }
    }

    fn choose_quitting(&self, plan: &Plan) -> Choice {
        if self.saved {
            return Choice::End(self.stopped());
        }
        match self.stage {
            // The program's end is in the newest checkpoint: its outputs can be collected another time.
            Stage::Exited(_) if self.life.end_saved => Choice::End(self.stopped()),
            // Collecting the outputs is the best way to save them, once the end is saved if it is to be.
            Stage::Exited(_) => self.choose_running(plan),
            Stage::Running if plan.takes_checkpoints() => match self.life.snapshot {
                // What runs on would be lost, and a guest at rest is written faster.
                _ if !self.life.paused && plan.capabilities.pause != Pause::None => Choice::Do(Op::Pause),
                Some(snapshot) => Choice::Do(Op::CommitSnapshot(snapshot.generation)),
                None => Choice::Do(self.begin_snapshot()),
            },
            _ => Choice::End(self.stopped()),
        }
    }

    fn begin_snapshot(&self) -> Op {
        Op::BeginSnapshot(self.record.pending.unwrap_or(self.record.next_generation))
    }

    fn stopped(&self) -> Outcome {
        Outcome::Stopped { checkpoint: self.record.generations.newest() }
    }
}
