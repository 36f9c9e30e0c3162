//! What the machine hands out: records to write, commands, fences, reports.

use core::fmt;

use crate::command::{Base, Command, Op};
use crate::id::{CommandId, Generation};
use crate::input::{ExitStatus, Fault};
use crate::journal::Record;
use crate::phase::Phase;
use crate::time::Span;

/// One thing for the embedder to carry out. Not `non_exhaustive`: an output that is dropped is a hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make this record durable and answer [`Input::Persisted`](crate::Input::Persisted) with its number. It replaces
    /// all earlier ones, so of several that wait only the last needs to be written.
    Persist(Record),
    /// Carry this out and answer [`Input::Completed`](crate::Input::Completed) with its id. It never waits behind a
    /// fence, and no other command is in flight.
    Command(Command),
    /// Make sure that this command, and every earlier one, can no longer act, then answer
    /// [`Input::Fenced`](crate::Input::Fenced). Must not queue behind the command. Try to keep the VM (a reply that was
    /// merely lost, an agent that can be revived); power it off if that is what it takes. No snapshot is in progress
    /// afterwards.
    Fence(CommandId),
    /// Tell whoever watches. May be dropped.
    Report(Report),
}

/// What is worth telling a person or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Report {
    /// The task is in this phase now. Phases that came and went between two drains are left out.
    Phase(Phase),
    /// How far the program is: the newest only.
    Progress {
        /// Thousandths done; `None` if the program does not say.
        permille: Option<u16>,
        /// Processor time used by the program since its launch, in milliseconds.
        cpu_ms: u64,
    },
    /// A checkpoint is durable and journaled.
    Checkpoint {
        /// Its number.
        generation: Generation,
        /// Processor time that the program had used when it was taken, in milliseconds, as far as it was reported.
        cpu_ms: u64,
    },
    /// Something went differently than it should.
    Notice(Notice),
    /// The task has ended and its last record is durable.
    Ended {
        /// How.
        outcome: Outcome,
        /// What could not be cleaned up.
        leftover: Option<Leftover>,
    },
}

/// Something that went differently than it should, and was dealt with. The newest of each kind is kept until drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Notice {
    /// An operation is tried again.
    Retrying {
        /// The operation.
        op: Op,
        /// What came of the last attempt. A deadline that passed is an unknown outcome.
        fault: Fault,
    },
    /// A checkpoint was not taken. The earlier ones stand, and the next is tried in its turn.
    CheckpointSkipped {
        /// The number that it would have had.
        generation: Generation,
        /// Why.
        fault: Fault,
    },
    /// A checkpoint is no longer gone by. Each one is told.
    CheckpointDropped {
        /// Which.
        generation: Generation,
        /// What is wrong with it.
        why: Unfit,
    },
    /// A checkpoint that is no longer wanted could not be deleted. It goes when the task does.
    CheckpointLeft {
        /// Which.
        generation: Generation,
    },
    /// The guest was lost: the program goes on from an earlier state.
    RolledBack {
        /// From where it goes on.
        to: Base,
        /// What happened.
        why: Loss,
    },
    /// The guest could not be paused and was powered off instead. It goes on from a checkpoint when resumed.
    PauseFailed {
        /// Why.
        fault: Fault,
    },
    /// Records did not become durable for too long: the VM is being taken down, and the task ends.
    JournalLost,
    /// Much more time passed than expected: the computer slept. Deadlines were armed anew.
    ClockJumped {
        /// By how much.
        by: Span,
    },
}

impl Notice {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 8;

    /// A place for each kind.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Retrying { .. } => 0,
            Self::CheckpointSkipped { .. } => 1,
            Self::CheckpointDropped { .. } => 2,
            Self::CheckpointLeft { .. } => 3,
            Self::RolledBack { .. } => 4,
            Self::PauseFailed { .. } => 5,
            Self::ClockJumped { .. } => 6,
            Self::JournalLost => 7,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrying { op, fault } => write!(f, "{}: {fault}; trying again", Phase::of(*op, false)),
            Self::CheckpointSkipped { generation, fault } => {
                write!(f, "checkpoint {generation} was not taken: {fault}; the next one is when it is due")
            }
            Self::CheckpointDropped { generation, why } => {
                write!(f, "checkpoint {generation} {why}; going back to what is before it")
            }
            Self::CheckpointLeft { generation } => {
                write!(f, "checkpoint {generation} is no longer wanted but could not be deleted yet")
            }
            Self::RolledBack { to: Base::Baseline, why } => write!(f, "{why}; starting over from the baseline"),
            Self::RolledBack { to: Base::Checkpoint(g), why } => write!(f, "{why}; going on from checkpoint {g}"),
            Self::PauseFailed { fault } => {
                write!(f, "the guest could not be paused ({fault}) and was powered off; it goes on when resumed")
            }
            Self::JournalLost => {
                f.write_str("the task's journal could not be kept; the virtual machine is powered off")
            }
            Self::ClockJumped { by } => {
                write!(f, "{by} passed at once (did the computer sleep?); deadlines armed anew")
            }
        }
    }
}

/// Why a checkpoint is no longer gone by. That it cannot be loaded here and now is no reason: then the task ends,
/// resumable, and the checkpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Unfit {
    /// Whoever looked could look, and it was not there.
    Missing,
    /// Its size or its hash is not what was written.
    Damaged,
    /// The hypervisor that made it refuses to load it, although its files are what was written.
    Rejected,
    /// It restored a guest in which the program was never started, as often as the policy allows.
    NotOurs,
    /// Its guest did not come to life: as often as the policy allows if there is an older one, and under more than one
    /// manager if there is none.
    Lifeless,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is no longer there",
            Self::Damaged => "is damaged: it is not what was written",
            Self::Rejected => "is refused by the very hypervisor that made it",
            Self::NotOurs => "restored a guest in which the program was never started",
            Self::Lifeless => "restored a guest that did not answer, again and again",
        })
    }
}

/// How a guest was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Loss {
    /// It powered off, or the hypervisor's process died.
    Stopped,
    /// It started again from its beginning.
    Rebooted,
    /// It, or its agent, or the hypervisor no longer answered.
    Unresponsive,
    /// It could not be paused.
    NotPausable,
    /// A snapshot failed in a way that may have harmed it.
    Snapshot,
    /// The program is not where it should be.
    ProgramMissing,
    /// A manager started and found it off, as after a crash or a loss of power. Not a fault of the guest.
    Found,
    /// The checkpoint that it was to go on from was dropped.
    Checkpoint,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the virtual machine stopped",
            Self::Rebooted => "the guest rebooted",
            Self::Unresponsive => "the guest no longer answered",
            Self::NotPausable => "the guest could not be paused",
            Self::Snapshot => "a snapshot failed and the guest may have been harmed",
            Self::ProgramMissing => "the program was not found in the guest",
            Self::Found => "the virtual machine was off at the start",
            Self::Checkpoint => "a checkpoint was dropped",
        })
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Outcome {
    /// The program ended by itself and its outputs were collected. Not a word on whether it did what it should: see
    /// `exit`. A program that failed or crashed may not have written every output.
    Completed {
        /// How the program ended.
        exit: ExitStatus,
    },
    /// Stopped on request, resumable: from the checkpoint, or from the beginning.
    Stopped {
        /// The newest checkpoint that restores.
        checkpoint: Option<Generation>,
    },
    /// Aborted on request; nothing is left.
    Aborted,
    /// It could not be carried out. The checkpoints stand, so that it can be resumed once the cause is mended.
    Failed {
        /// What went wrong.
        cause: Cause,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed { exit: ExitStatus::Code(0) } => f.write_str("completed"),
            Self::Completed { exit: exit @ ExitStatus::Code(_) } => write!(f, "the program failed: {exit}"),
            Self::Completed { exit: exit @ ExitStatus::Signal(_) } => write!(f, "the program crashed: {exit}"),
            Self::Stopped { checkpoint: Some(g) } => write!(f, "stopped; resumes from checkpoint {g}"),
            Self::Stopped { checkpoint: None } => {
                write!(f, "stopped before the first checkpoint; starts over when resumed")
            }
            Self::Aborted => write!(f, "aborted"),
            Self::Failed { cause } => write!(f, "failed: {cause}"),
        }
    }
}

/// Why a task failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Cause {
    /// An operation failed for good, or as often as the policy allows.
    Op {
        /// Which.
        op: Op,
        /// How. A deadline that passed is an unknown outcome.
        fault: Fault,
    },
    /// The guest was lost more often than the policy allows, without a new checkpoint in between.
    Guest {
        /// How it was lost the last time.
        loss: Loss,
    },
    /// The program ran longer than the task's `run` limit. What it had written by then was collected.
    RunLimit,
    /// The program has ended, and the guest was lost while its outputs were being collected, more often than the policy
    /// allows.
    Outputs {
        /// How it was lost the last time.
        loss: Loss,
    },
    /// Records could not be made durable for too long. What happened since the last durable one is not on record: the
    /// task goes on from that.
    Journal,
    /// A command could not be fenced: it may still act.
    Fence {
        /// Which.
        op: Op,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op { op, fault } => write!(f, "{}: {fault}", Phase::of(*op, false)),
            Self::Guest { loss } => {
                write!(f, "{loss}, again and again without a checkpoint in between")
            }
            Self::RunLimit => f.write_str("the program ran for as long as limits.run allows"),
            Self::Outputs { loss } => write!(f, "{loss}, again and again while the outputs were being collected"),
            Self::Journal => f.write_str("the task's journal could not be kept"),
            Self::Fence { op } => {
                write!(f, "{}: the hypervisor did not answer and could not be stopped", Phase::of(*op, false))
            }
        }
    }
}

/// What could not be cleaned up at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Leftover {
    /// The VM may still be running.
    MayRun,
    /// The VM is off, but the hypervisor still knows it or its files are still there.
    StillRegistered,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MayRun => "the virtual machine may still be running",
            Self::StillRegistered => "the virtual machine is off but its registration or files could not be removed",
        })
    }
}
