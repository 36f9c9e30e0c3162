//! What must survive the manager: one small record, replaced as a whole.
//!
//! The machine emits a record whenever one of its fields changes, and holds back the commands that rely on it until
//! [`Input::Persisted`](crate::Input::Persisted) says that it is durable. Everything that is not in here is found out
//! again by probing.

use crate::id::{Generation, Generations, JournalSeq};
use crate::input::ExitStatus;
use crate::output::{Leftover, Outcome};
use crate::phase::Intent;

/// The version of [`Record`] that this crate writes. It reads this one and all before it.
pub const RECORD_VERSION: u16 = 2;

/// The state of a task as a later manager needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// [`RECORD_VERSION`] of the crate that wrote it.
    pub version: u16,
    /// Its number: larger than that of every earlier record.
    pub seq: JournalSeq,
    /// What was wanted last. A later manager takes up an abort; anyone who starts a manager otherwise wants to run.
    pub intent: Intent,
    /// Whether the program may have been launched since the baseline was last provisioned.
    pub launched: bool,
    /// The checkpoints that are committed and wanted, newest first.
    pub generations: Generations,
    /// Checkpoints that were dropped and are not what was written, or did not come to life. They are set aside, so that
    /// somebody can look at them, until the task has completed or was aborted.
    #[cfg_attr(feature = "serde", serde(default))]
    pub aside: Generations,
    /// The number of the next checkpoint. Numbers of failed ones are not used again.
    pub next_generation: Generation,
    /// A checkpoint that was begun. If a probe finds it whole, it counts.
    pub pending: Option<Generation>,
    /// For how long the program has run, in milliseconds, pauses excluded, runs that were lost included.
    pub elapsed_ms: u64,
    /// Processor time that the program had used at the newest checkpoint, in milliseconds.
    pub checkpointed_cpu_ms: u64,
    /// How often the task went on from an earlier state because the guest was lost.
    pub restarts: u32,
    /// How often that happened since the newest checkpoint was made.
    pub losses: u16,
    /// How the program ended, once it has.
    pub exit: Option<ExitStatus>,
    /// How the task ends. From here on there is only clearing up.
    pub ending: Option<Outcome>,
    /// Whether the clearing up is done.
    pub ended: bool,
    /// What the clearing up could not do.
    pub leftover: Option<Leftover>,
}

impl Record {
    /// The record of a task that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            version: RECORD_VERSION,
            seq: JournalSeq(0),
            intent: Intent::Run,
            launched: false,
            generations: Generations::NONE,
            aside: Generations::NONE,
            next_generation: Generation::FIRST,
            pending: None,
            elapsed_ms: 0,
            checkpointed_cpu_ms: 0,
            restarts: 0,
            losses: 0,
            exit: None,
            ending: None,
            ended: false,
            leftover: None,
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}
