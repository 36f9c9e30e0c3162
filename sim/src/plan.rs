//! Plans: what goes otherwise in a run, as text that a person can write, and that a failing run prints.
//!
//! ```text
//! # one thing a line; what is not named goes well
//! scenario vix
//! at BeginSnapshot#2 crash after-effect before-reply
//! at Launch#1 lose reply
//! at AwaitTools#1 hang, acts after 2 steps
//! at Persist#5 tear record
//! when Running +3s power-loss
//! request Suspend at CopyingIn(1)
//! request Quit(1000ms) at Launch#1 after-reply
//! expect Completed exit=0 restarts<=2
//! ```
//!
//! `at` names a command, record, fence or event by its number in the run (1 if left out), or a phase (the first moment
//! in it). `seed 42 faults 3 requests 2` lets that seed add as much at random.

mod follow;
mod print;
mod read;

use vmtask_core::{ExitStatus, OpKind, Outcome};

use crate::act::{Act, Mark};
use crate::scenario::Profile;

pub use follow::{Scribe, Script};

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which hypervisor.
    pub profile: Profile,
    /// What happens at random beside what is named.
    pub seed: Option<Seed>,
    /// What goes otherwise, in the order in which it was written.
    pub lines: Vec<Line>,
    /// What must come of it.
    pub expect: Vec<Expect>,
}

/// Random additions to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The seed.
    pub seed: u64,
    /// At most so many faults.
    pub faults: u8,
    /// At most so many requests.
    pub requests: u8,
}

/// One special thing, and when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub anchor: Anchor,
    /// What.
    pub act: Act,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// How the n-th command of a kind is carried out.
    Command(OpKind, u16),
    /// How the n-th record is written.
    Write(u16),
    /// How the n-th fence goes.
    Fence(u16),
    /// What becomes of the n-th event.
    Event(u16),
    /// Between two things: right after this.
    After(Mark),
    /// The first moment in a phase, or the first in it so many milliseconds after that.
    Phase {
        /// Its place among the phases.
        phase: usize,
        /// Its number, if it has one and it matters.
        number: Option<u32>,
        /// How much later, in milliseconds.
        later: Option<u64>,
    },
}

/// What must come of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// One of the ends of the run is of this kind.
    pub end: EndKind,
    /// It has this exit code.
    pub exit: Option<u8>,
    /// The guest was rolled back no more often than this until then.
    pub restarts: Option<u32>,
    /// It names this checkpoint.
    pub checkpoint: Option<u32>,
}

/// [`Outcome`] without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the Outcome of the same name")]
pub enum EndKind {
    Completed,
    Stopped,
    Aborted,
    Failed,
}

impl Expect {
    /// Whether this end is the expected one.
    #[must_use]
    pub fn is_met_by(&self, outcome: Outcome, restarts: u32) -> bool {
        let (kind, exit, checkpoint) = match outcome {
            Outcome::Completed { exit: ExitStatus::Code(code) } => (EndKind::Completed, Some(code), None),
            Outcome::Completed { .. } => (EndKind::Completed, None, None),
            Outcome::Stopped { checkpoint } => (EndKind::Stopped, None, checkpoint.map(|g| g.0)),
            Outcome::Aborted => (EndKind::Aborted, None, None),
            Outcome::Failed { .. } => (EndKind::Failed, None, None),
        };
        kind == self.end
            && self.exit.is_none_or(|wanted| exit == Some(wanted))
            && self.checkpoint.is_none_or(|wanted| checkpoint == Some(wanted))
            && self.restarts.is_none_or(|most| restarts <= most)
    }
}
