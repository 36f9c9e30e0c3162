//! A deterministic world for vmtask-core: virtual time, faults at every step, invariants.
//!
//! A [`System`] is a machine under test with everything around it: a hypervisor with a guest whose program really
//! computes something ([`World`]), a journal on disk ([`Disk`]), messages on their way, a clock. It moves in small
//! steps; at each, whatever can go otherwise is asked of one [`Director`]. Who that is decides what the run is for:
//!
//! | director | what for |
//! |---|---|
//! | [`ByNumber`] of an [`Odometer`] | every run there is; [`Explorer`] does it state by state, [`Frontier`] in random order |
//! | [`ByNumber`] of a [`Prng`], [`Seldom`] or [`Bytes`] | random runs, fuzzing |
//! | [`Script`] | a [`Plan`]: a few lines of text |
//!
//! After each step the promises are checked ([`Violation`] lists them), from outside and against ground truth. A run
//! that breaks one prints the plan that repeats it:
//!
//! ```
//! use vmtask_sim::{Plan, Run};
//!
//! let plan: Plan = "\
//!     scenario qemu
//!     at CommitSnapshot#2 crash after-effect before-reply
//!     request Suspend when Running +1s
//!     expect Completed exit=0 restarts<=1
//! "
//! .parse()?;
//! let run = Run::of(&plan);
//! assert_eq!(run.violation, None);
//! assert!(run.trace.iter().any(|line| line.contains("a manager starts")));
//! # Ok::<(), vmtask_sim::PlanSyntaxError>(())
//! ```
//!
//! [`grid`] is another world: not every interleaving of one task, but a volunteer-computing project of a million hosts.
//!
//! # What is simulated, and what is not
//!
//! Commands act in one instant, or not, or late; slices of long ones take a second each, and the program a second a
//! step. Faults come one at a time, at every moment between two things that happen, and so do requests. What comes
//! first of two things due at the same time is fixed (disk, fence, worker, messages, timers, program); other orders
//! come about by the faults that delay something. A manager that dies or stops is replaced at once by another one, from
//! the journal on disk. A user who suspends a task resumes it two seconds after it is held.

#![forbid(unsafe_code)]

mod act;
mod choose;
mod coverage;
mod diagram;
mod disk;
mod explore;
mod frontier;
pub mod grid;
mod guest;
mod hash;
mod invariant;
#[cfg(feature = "stateright")]
pub mod model;
mod parse;
mod plan;
mod reach;
mod run;
mod scenario;
mod shrink;
mod swarm;
mod system;
mod trace;
mod world;

pub use act::{Act, Breadth, ByNumber, Director, Mark, Moment, Options, Stale, When};
pub use choose::{Bytes, Calm, Choose, Odometer, Prng, Recorded, Recording, Seldom, scramble};
pub use coverage::{Cell, Coverage, Watching, why_never};
pub use diagram::{matrix_svg, states_svg};
pub use disk::{Disk, Slot};
pub use explore::{Exploration, Explorer, Finding, GivenUp};
pub use frontier::{Frontier, Seen};
pub use guest::{Agent, Guest, Health, Running, Snapshot};
pub use invariant::Violation;
pub use parse::PlanSyntaxError;
pub use plan::{Anchor, EndKind, Expect, Impossible, Line, LineNumbers, PLAN_VERSION, Plan, Scribe, Script, Seed};
pub use reach::{Reach, Reached};
pub use run::{Drive, MAX_STEPS, Run};
pub use scenario::{MAX_IN, MAX_OUT, Profile, Scenario, TICK};
pub use shrink::shrink;
pub use swarm::Swarm;
pub use system::{Budget, Status, System};
pub use trace::{Told, Tracing};
pub use world::{Answer, MAX_SNAPSHOTS, Misuse, Staged, Stream, World};
