//! Plans: what goes otherwise in a run, as text that a person can write, and that a failing run prints.
//!
//! ```text
//! # one thing a line; what is not named goes well
//! version 1
//! scenario vix
//! at AwaitTools#1 hang, acts after 2 steps
//! request Suspend at CopyingIn(1)
//! at Launch#1 lose reply
//! at BeginSnapshot#2 crash after-effect before-reply
//! at Persist#9 tear record
//! when Running#2 +3s power-loss
//! request Quit(1000ms) at CopyOut#1 after-reply
//! expect Completed exit=0 restarts<=3
//! ```
//!
//! `at` names a command, record, fence or event by its number in the run (1 if left out), or a phase: the first moment
//! in it, or the first after it was entered for the n-th time. `when PHASE#N +TIME` waits for so long after that. The
//! world moves in ticks of a second, and somebody who suspended a task resumes it after two, so that while it is held
//! there is no moment in between. `seed 42 faults 3 requests 2` lets that seed add as much at random. `sim/PLANS.md` has
//! all the words.

mod follow;
mod print;
mod read;

use vmtask_core::{ExitStatus, OpKind, Outcome};

use crate::act::{Act, Mark};
use crate::scenario::Profile;

pub use follow::{Impossible, Scribe, Script};

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
    /// Where `lines` stand in the text that was read.
    pub numbers: LineNumbers,
}

/// Where the lines of a plan stand in the text that it was read from, counted from 1. No part of what a plan says: all are
/// equal.
#[derive(Clone, Debug, Default)]
pub struct LineNumbers(pub(crate) Vec<usize>);

impl PartialEq for LineNumbers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LineNumbers {}

impl LineNumbers {
    /// `line 3: ` for the line at this place; nothing if the plan was not read from a text.
    pub(crate) fn name(&self, place: usize) -> String {
        self.0.get(place).map_or_else(String::new, |number| format!("line {number}: "))
    }
}

/// The version of the language: the first line of a plan may name it, and a later one is refused.
pub const PLAN_VERSION: u32 = 1;

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
        /// The first time, or the n-th, that it is entered.
        nth: u16,
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
