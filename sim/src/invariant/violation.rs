//! The promises, by what it means to break them.

use vmtask_core::table::{PhaseKind, Trigger};
use vmtask_core::{Base, Denied, Generation, Intent, JournalSeq, Op, Outcome, Unfit};

use crate::world::Misuse;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A verdict that the table does not have.
    #[error("the table does not have what became of {2:?} in {0:?} with the intent {1:?}")]
    NotInTheTable(PhaseKind, Intent, Trigger),
    /// Two commands at once.
    #[error("a command was handed out while another one was in flight, before its deadline")]
    TwoInFlight,
    /// Two fences, or a command beside one.
    #[error("a command or a second fence was handed out while a fence was awaited")]
    BesideAFence,
    /// Another op after an unknown outcome.
    #[error("{next} was handed out while the outcome of {unresolved} was unknown and not fenced")]
    Unfenced {
        /// The op whose outcome is unknown.
        unresolved: Op,
        /// What was handed out.
        next: Op,
    },
    /// A command that relies on a record that is not durable.
    #[error("{op} was handed out before record {needs} was durable (durable: {durable})")]
    NotDurable {
        /// The command.
        op: Op,
        /// The newest record that was handed out.
        needs: JournalSeq,
        /// The newest one that is durable.
        durable: JournalSeq,
    },
    /// Record numbers must grow.
    #[error("record {0} was handed out after a later one")]
    RecordsOutOfOrder(JournalSeq),
    /// Ignored, but something changed.
    #[error("an input was ignored or denied, and yet the machine changed")]
    IgnoredButChanged,
    /// The machine denied something that is no request.
    #[error("an input that is no request was denied: {0}")]
    DeniedAMessage(Denied),
    /// Abort must be possible always.
    #[error("an abort was denied: {0}")]
    AbortDenied(Denied),
    /// Only a task that is over, or aborted already, may shrug at an abort.
    #[error("an abort was ignored although the task was neither aborted nor over")]
    AbortIgnored,
    /// An answer counts for the command that it names, and for no other.
    #[error("an answer to another command was taken for that of {0}")]
    TakenForAnother(Op),
    /// What an earlier life of the VM did says nothing about this one.
    #[error("an event of another boot was taken for one of this boot")]
    EventOfAnotherBoot,
    /// The program's end is told once.
    #[error("the program's end was told and ignored")]
    ExitIgnored,
    /// The guest's deadlines stand still while it is held.
    #[error("the task is held, and yet a timer of the machine runs")]
    TimerWhileHeld,
    /// An abort waits for an answer.
    #[error("the task was aborted and {0} is still waited for: an abort fences at once")]
    AbortWaits(Op),
    /// A launch was repeated without a look at what became of the first.
    #[error("a launch was repeated after an unknown outcome without a probe in between")]
    BlindLaunch,
    /// Something was asked for that must never be.
    #[error("the hypervisor was misused: {0:?}")]
    Misused(Misuse),
    /// The program was started twice in one boot.
    #[error("the program was launched {0} times in one boot")]
    LaunchedTwice(u8),
    /// After an abort there is only teardown.
    #[error("{0} was handed out after an abort")]
    AfterAbort(Op),
    /// A held task whose guest runs.
    #[error("the task is held ({0}) and yet the guest runs")]
    RunsWhileHeld(&'static str),
    /// A suspend, an abort or a quit did not stop the guest in time.
    #[error("{what}: the guest still runs {late_ms} ms later than it may")]
    StillRuns {
        /// What was wanted.
        what: &'static str,
        /// By how much it is late.
        late_ms: u64,
    },
    /// Over, but the VM runs and nobody says so.
    #[error("the task ended ({0:?}) with the VM running and no leftover that says so")]
    EndedRunning(Outcome),
    /// Over, but the hypervisor knows the VM still; or over and discarded, but something is left.
    #[error("the task ended ({0:?}) with something left behind and no leftover that says so")]
    LeftBehind(Outcome),
    /// Wrong bytes.
    #[error("the task completed with a wrong or missing output {0}")]
    WrongResult(usize),
    /// It says that it resumes from a checkpoint, which does not restore; or there is one, and it says nothing.
    #[error("the task stopped and claims checkpoint {claimed:?}; the newest that restores is {real:?}")]
    WrongCheckpoint {
        /// What it claims.
        claimed: Option<Generation>,
        /// What there is.
        real: Option<Generation>,
    },
    /// All checkpoints are gone.
    #[error("there was a checkpoint, and now a manager that started would find none that restores")]
    CheckpointLost,
    /// A checkpoint was dropped for a reason that is not so.
    #[error("checkpoint {0} was dropped ({1}), which is not so, or was not tried as often as the policy says")]
    GoodCheckpointDropped(Generation, Unfit),
    /// A checkpoint was dropped and nobody was told.
    #[error("checkpoint {0} is no longer in the journal, and nobody was told why")]
    DroppedInSilence(Generation),
    /// A checkpoint that was set aside was removed.
    #[error("checkpoint {0} was dropped and is to be set aside, and was removed before the task had ended")]
    RemovedEvidence(Generation),
    /// More checkpoints than are kept.
    #[error("{0} whole checkpoints are on disk that are to be deleted or kept, and the next is begun")]
    TooManyCheckpoints(usize),
    /// A checkpoint that nobody knows.
    #[error("the task runs and does nothing else, and the files of checkpoint {0} are on disk and nobody knows them")]
    UnknownFile(Generation),
    /// After a quit there is one attempt to save.
    #[error("a second checkpoint, {0}, was begun after a quit")]
    SavedTwice(Generation),
    /// There was time to save, and nothing was saved.
    #[error(
        "the task was to stop with time to save, and stopped with checkpoint {checkpoint:?}, which was there before"
    )]
    NotSaved {
        /// What it resumes from.
        checkpoint: Option<Generation>,
    },
    /// Much would be computed again if copying failed.
    #[error("outputs are copied, and the {at_stake} ms that were computed last are in no checkpoint")]
    EndNotSaved {
        /// How much would be computed again, in milliseconds.
        at_stake: u64,
    },
    /// What was saved was computed again.
    #[error("the program works although its end is in a checkpoint that restores")]
    ComputedAgain,
    /// Outputs are copied again and again.
    #[error("outputs are copied out of the {0}th guest, the others having been lost meanwhile")]
    TooManyRounds(u16),
    /// The time that the program has run is not what the machine says.
    #[error("the program's running time, as the machine counts it, is off by {off} ms")]
    ElapsedWrong {
        /// By so much too long.
        off: i64,
    },
    /// Two guests with one boot number.
    #[error("a boot number was provisioned a second time")]
    BootProvisionedTwice,
    /// A VM that outlived its manager was given up.
    #[error("{0} was handed out although the earlier manager's VM is there, its program in it, and nothing is wrong")]
    AdoptedAndLost(Op),
    /// Only an abort outlives a manager.
    #[error("a manager that was started wants {0:?}, which nobody has asked it for")]
    WantsForNothing(Intent),
    /// A newer checkpoint was there.
    #[error("the task goes on from {base:?} although checkpoint {newest} is whole, restores, and was not given up")]
    NotTheNewest {
        /// From what it goes on.
        base: Base,
        /// From what it should.
        newest: Generation,
    },
    /// A checkpoint was reported that is not durable.
    #[error("checkpoint {0} was reported, but it is not whole or not in the journal")]
    ReportedTooEarly(Generation),
    /// A record that the machine wrote and does not read.
    #[error("the machine's own record was refused by a restart")]
    DoesNotLoad,
    /// The task runs, and no checkpoint is begun.
    #[error("the task has been running for longer than the interval, and no checkpoint was begun")]
    NoCheckpoint,
    /// Attempts beyond the policy.
    #[error("{op} was attempted {attempt} times in a row")]
    TooManyAttempts {
        /// What.
        op: Op,
        /// How often.
        attempt: u8,
    },
    /// Clocks that jump must not cost a deadline.
    #[error("{0} was given up and repeated although nothing but a clock had gone wrong")]
    ClockCost(Op),
    /// Restarts without a reason.
    #[error("the task was rolled back {restarts} times in all, and more often than what went wrong last can cause")]
    TooManyRestarts {
        /// How often.
        restarts: u32,
    },
    /// A drain that does not end.
    #[error("the machine's outbox is not bounded")]
    OutboxUnbounded,
    /// Nothing is due, and the task is not over.
    #[error("nothing is due any more and the task has not ended: a hang")]
    Stuck,
    /// The task went on for ever.
    #[error("the task did not end although nothing went wrong any more")]
    NeverEnds,
    /// It failed although nothing went wrong.
    #[error("the task failed, or left something behind, although what it tells as the cause did not happen: {0:?}")]
    FailedForNothing(Outcome),
    /// It stopped although nobody wanted it to.
    #[error("the task stopped although nobody asked for it")]
    StoppedUnasked,
    /// An abort that ended in something else.
    #[error("the task was aborted and ended {0:?}")]
    AbortEndedOtherwise(Outcome),
    /// A plan's expectation was not met.
    #[error("the plan expects otherwise")]
    Unexpected,
}

impl Violation {
    /// Whether it is the same promise that was broken.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}
