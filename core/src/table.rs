//! The expected verdict for every phase, intent and trigger, and the phases that may follow each other.
//!
//! Written by reasoning about what a user of the machine should see, not by looking at how `step` does it: tests and
//! the simulator compare the two at every input, documentation and diagrams are drawn from here, and coverage is
//! counted in these cells.

use core::fmt;

use crate::error::{Accepted, Denied};
use crate::input::{Event, FaultKind, Input, Reply, Request};
use crate::machine::Machine;
use crate::phase::Intent;
pub use crate::phase::PhaseKind;
use crate::policy::Plan;
use crate::time::Instant;

use PhaseKind as K;

/// A request or an input as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// [`Request::Start`].
    Start,
    /// [`Request::Suspend`].
    Suspend,
    /// [`Request::Resume`].
    Resume,
    /// [`Request::Checkpoint`].
    Checkpoint,
    /// [`Request::Quit`].
    Quit,
    /// [`Request::Abort`].
    Abort,
    /// The command in flight was done.
    Done,
    /// A slice of the command in flight was done.
    Pending,
    /// The command in flight failed in this way.
    Failed(FaultKind),
    /// An answer to any other command.
    StaleAnswer,
    /// The fence that is awaited was carried out; whether the VM survived.
    Fenced(bool),
    /// Any other fence.
    StaleFence,
    /// The program ended.
    ProgramExited,
    /// The VM stopped.
    GuestStopped,
    /// The guest rebooted.
    GuestRebooted,
    /// The program goes on.
    Progress,
    /// Any event of another boot.
    StaleEvent,
    /// A record that was emitted has become durable.
    Persisted,
    /// A record that was durable already, or was never emitted.
    StalePersisted,
    /// [`Input::JournalLost`].
    JournalLost,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::Start,
        Self::Suspend,
        Self::Resume,
        Self::Checkpoint,
        Self::Quit,
        Self::Abort,
        Self::Done,
        Self::Pending,
        Self::Failed(FaultKind::Refused),
        Self::Failed(FaultKind::Unknown),
        Self::Failed(FaultKind::NotFound),
        Self::Failed(FaultKind::AlreadyExists),
        Self::Failed(FaultKind::AuthRejected),
        Self::Failed(FaultKind::NoSpace),
        Self::Failed(FaultKind::Unsupported),
        Self::Failed(FaultKind::Fatal),
        Self::Failed(FaultKind::Damaged),
        Self::Failed(FaultKind::Rejected),
        Self::Failed(FaultKind::Incompatible),
        Self::StaleAnswer,
        Self::Fenced(true),
        Self::Fenced(false),
        Self::StaleFence,
        Self::ProgramExited,
        Self::GuestStopped,
        Self::GuestRebooted,
        Self::Progress,
        Self::StaleEvent,
        Self::Persisted,
        Self::StalePersisted,
        Self::JournalLost,
    ];

    /// What `stimulus` is to `machine`, before it is handled.
    #[must_use]
    pub fn of(machine: &Machine, stimulus: &Stimulus) -> Self {
        match *stimulus {
            Stimulus::Request(request) => Self::asked(request),
            Stimulus::Input(input) => Self::told(machine, input),
        }
    }

    const fn asked(request: Request) -> Self {
        match request {
            Request::Start => Self::Start,
            Request::Suspend => Self::Suspend,
            Request::Resume => Self::Resume,
            Request::Checkpoint => Self::Checkpoint,
            Request::Quit { .. } => Self::Quit,
            Request::Abort => Self::Abort,
        }
    }

    fn told(machine: &Machine, input: Input) -> Self {
        match input {
            Input::Completed { id, .. } if machine.in_flight().is_none_or(|(flying, _)| flying != id) => {
                Self::StaleAnswer
            }
            Input::Completed { result: Ok(Reply::Pending), .. } => Self::Pending,
            Input::Completed { result: Ok(_), .. } => Self::Done,
            Input::Completed { result: Err(fault), .. } => Self::Failed(fault.kind),
            Input::Fenced { id, .. } if machine.awaited_fence() != Some(id) => Self::StaleFence,
            Input::Fenced { survived, .. } => Self::Fenced(survived),
            Input::Observed { boot, .. } if boot != machine.boot() => Self::StaleEvent,
            Input::Observed { event: Event::ProgramExited(_), .. } => Self::ProgramExited,
            Input::Observed { event: Event::GuestStopped, .. } => Self::GuestStopped,
            Input::Observed { event: Event::GuestRebooted, .. } => Self::GuestRebooted,
            Input::Observed { event: Event::Progress { .. }, .. } => Self::Progress,
            Input::Persisted(seq) if machine.awaits_persisted(seq) => Self::Persisted,
            Input::Persisted(_) => Self::StalePersisted,
            Input::JournalLost => Self::JournalLost,
        }
    }
}

/// Anything that a machine can be told: for whoever records, replays or explores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stimulus {
    /// By [`Machine::handle_request`].
    Request(Request),
    /// By [`Machine::handle_input`].
    Input(Input),
}

impl Stimulus {
    /// Tells `machine`.
    ///
    /// # Errors
    /// If it is a request that is denied.
    pub fn tell(self, machine: &mut Machine, plan: &Plan, now: Instant) -> Result<Accepted, Denied> {
        match self {
            Self::Request(request) => machine.handle_request(plan, now, request),
            Self::Input(input) => Ok(machine.handle_input(plan, now, input)),
        }
    }
}

impl From<Request> for Stimulus {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Input> for Stimulus {
    fn from(input: Input) -> Self {
        Self::Input(input)
    }
}

/// What becomes of an input, without the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It changes something.
    Applied,
    /// It changes nothing, and that is in order.
    Ignored,
    /// A request that cannot be met now.
    Denied,
}

impl From<Result<Accepted, Denied>> for Verdict {
    fn from(result: Result<Accepted, Denied>) -> Self {
        match result {
            Ok(Accepted::Applied) => Self::Applied,
            Ok(Accepted::Ignored(_)) => Self::Ignored,
            Err(_) => Self::Denied,
        }
    }
}

/// What the table says of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Always this.
    Always(Verdict),
    /// One of these, by something that the phase does not tell.
    OneOf(&'static [Verdict], &'static str),
    /// The trigger cannot occur here.
    Impossible(&'static str),
}

impl Expected {
    /// Whether this verdict is in order.
    #[must_use]
    pub fn allows(self, verdict: Verdict) -> bool {
        match self {
            Self::Always(expected) => verdict == expected,
            Self::OneOf(verdicts, _) => verdicts.contains(&verdict),
            Self::Impossible(_) => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(verdict) => write!(f, "{verdict:?}"),
            Self::OneOf(verdicts, why) => write!(f, "one of {verdicts:?}: {why}"),
            Self::Impossible(why) => write!(f, "impossible: {why}"),
        }
    }
}

const APPLIED: Expected = Expected::Always(Verdict::Applied);
const IGNORED: Expected = Expected::Always(Verdict::Ignored);
const DENIED: Expected = Expected::Always(Verdict::Denied);

/// The cell of the table.
#[must_use]
pub fn expected(phase: PhaseKind, intent: Intent, trigger: Trigger) -> Expected {
    if let Some(why) = impossible(phase, intent) {
        return Expected::Impossible(why);
    }
    match trigger {
        Trigger::Start if phase == K::Created => APPLIED,
        Trigger::Start => IGNORED,
        Trigger::Suspend => to_hold(phase, intent, Intent::Suspend),
        Trigger::Resume => to_hold(phase, intent, Intent::Run),
        Trigger::Checkpoint => to_checkpoint(phase, intent),
        Trigger::Quit => to_quit(phase, intent),
        Trigger::Abort if phase == K::Ended || intent == Intent::Abort => IGNORED,
        Trigger::Abort => APPLIED,
        Trigger::Done | Trigger::Pending | Trigger::Failed(_) => match phase {
            K::Created | K::Paused | K::Fencing | K::Ended => Expected::Impossible("no command is in flight"),
            // A running program is looked at now and then without a change of phase.
            _ => APPLIED,
        },
        Trigger::Fenced(_) if phase == K::Fencing => APPLIED,
        Trigger::Fenced(_) => Expected::Impossible("no fence is awaited"),
        Trigger::Persisted => match phase {
            K::Created => Expected::Impossible("nothing has been recorded"),
            _ => APPLIED,
        },
        Trigger::ProgramExited => of_the_program(phase, true),
        Trigger::Progress => of_the_program(phase, false),
        Trigger::GuestStopped | Trigger::GuestRebooted => of_the_guest(phase),
        Trigger::JournalLost if phase == K::Created => IGNORED,
        Trigger::JournalLost => {
            Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "ignored if no record is waited for")
        }
        Trigger::StaleAnswer | Trigger::StaleFence | Trigger::StaleEvent | Trigger::StalePersisted => IGNORED,
    }
}

/// Phases in which an intent cannot be.
fn impossible(phase: PhaseKind, intent: Intent) -> Option<&'static str> {
    match (phase, intent) {
        (K::Created, Intent::Suspend | Intent::Quit | Intent::Abort) => {
            Some("before the start, suspend is denied, and quit and abort end the task at once")
        }
        (K::Paused, Intent::Run | Intent::Quit | Intent::Abort) => Some("only a suspended task is paused"),
        (
            K::Registering
            | K::Provisioning
            | K::PoweringOn
            | K::AwaitingTools
            | K::LoggingIn
            | K::MakingWorkdir
            | K::CopyingIn
            | K::Launching
            | K::Running
            | K::Pausing
            | K::Unpausing
            | K::BeginningSnapshot
            | K::Committing
            | K::Pruning
            | K::CopyingOut
            | K::Probing
            | K::Examining,
            Intent::Abort,
        ) => Some("an abort fences what is in flight and powers off"),
        _ => None,
    }
}

/// Suspend and resume.
fn to_hold(phase: PhaseKind, intent: Intent, wanted: Intent) -> Expected {
    match (phase, intent) {
        (K::Created | K::Ended | K::Unregistering, _) | (_, Intent::Quit | Intent::Abort) => DENIED,
        // Powering off, or fencing, may be the way back to a checkpoint or the way to the end.
        (K::PoweringOff | K::Fencing, now) if now == wanted => {
            Expected::OneOf(&[Verdict::Ignored, Verdict::Denied], "denied once the task is ending")
        }
        (K::PoweringOff | K::Fencing, _) => {
            Expected::OneOf(&[Verdict::Applied, Verdict::Denied], "denied once the task is ending")
        }
        (_, now) if now == wanted => IGNORED,
        _ if wanted == Intent::Suspend => {
            Expected::OneOf(&[Verdict::Applied, Verdict::Denied], "denied if the hypervisor cannot pause")
        }
        _ => APPLIED,
    }
}

fn to_checkpoint(phase: PhaseKind, intent: Intent) -> Expected {
    match (phase, intent) {
        (_, Intent::Quit | Intent::Abort) => DENIED,
        // The program may be running in these, and a checkpoint may be due or being made.
        (K::Running | K::Pausing | K::Paused | K::Unpausing | K::Pruning | K::Examining | K::Fencing, _) => {
            Expected::OneOf(
                &[Verdict::Applied, Verdict::Ignored, Verdict::Denied],
                "denied without a running program, ignored if one is due already",
            )
        }
        (K::BeginningSnapshot | K::Committing, _) => {
            Expected::OneOf(&[Verdict::Ignored, Verdict::Denied], "denied once the program has ended")
        }
        _ => DENIED,
    }
}

fn to_quit(phase: PhaseKind, intent: Intent) -> Expected {
    match (phase, intent) {
        (K::Created, _) => APPLIED,
        (K::Ended | K::Unregistering, _) => IGNORED,
        (K::PoweringOff | K::Fencing, Intent::Abort) => {
            Expected::OneOf(&[Verdict::Denied, Verdict::Ignored], "ignored once the task is ending")
        }
        (K::PoweringOff | K::Fencing, _) => {
            Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "ignored once the task is ending")
        }
        (_, Intent::Quit) => {
            Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "applied if it leaves less time than before")
        }
        _ => APPLIED,
    }
}

/// Exit and progress of the program.
fn of_the_program(phase: PhaseKind, exit: bool) -> Expected {
    match phase {
        K::Created
        | K::Probing
        | K::Registering
        | K::Provisioning
        | K::PoweringOn
        | K::AwaitingTools
        | K::LoggingIn
        | K::MakingWorkdir
        | K::CopyingIn
        | K::CopyingOut
        | K::PoweringOff
        | K::Unregistering
        | K::Ended => IGNORED,
        K::Launching if exit => {
            Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "applied once the launch is under way")
        }
        K::Launching => IGNORED,
        K::Running if !exit => APPLIED,
        _ => Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "applied while the program is thought to run"),
    }
}

/// The guest stopped or rebooted.
fn of_the_guest(phase: PhaseKind) -> Expected {
    match phase {
        K::Created | K::Probing | K::Registering | K::Provisioning | K::PoweringOff | K::Unregistering | K::Ended => {
            IGNORED
        }
        K::PoweringOn => Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "applied once the VM is being started"),
        _ => Expected::OneOf(&[Verdict::Applied, Verdict::Ignored], "ignored if the VM is off or its loss is known"),
    }
}

/// The phases that may be seen after `phase`, other than itself.
///
/// Two phases follow each other if one input, or one timer, leads from one to the other.
#[must_use]
pub fn successors(phase: PhaseKind) -> &'static [PhaseKind] {
    match phase {
        K::Created => &[K::Probing, K::Ended],
        K::Probing => &[
            K::Registering,
            K::Provisioning,
            K::AwaitingTools,
            K::Unpausing,
            K::Pausing,
            K::Paused,
            K::PoweringOff,
            K::Fencing,
            // The journal was lost before anything was done.
            K::Ended,
        ],
        K::Registering => &[K::Provisioning, K::PoweringOff, K::Paused, K::Fencing],
        K::Provisioning => &[K::PoweringOn, K::AwaitingTools, K::Pausing, K::Paused, K::PoweringOff, K::Fencing],
        K::PoweringOn => &[K::AwaitingTools, K::Pausing, K::Paused, K::PoweringOff, K::Fencing],
        K::AwaitingTools => &[K::LoggingIn, K::Examining, K::MakingWorkdir, K::Pausing, K::PoweringOff, K::Fencing],
        K::LoggingIn => &[K::Examining, K::MakingWorkdir, K::Pausing, K::PoweringOff, K::Fencing],
        K::Examining => &[
            K::PoweringOn,
            K::AwaitingTools,
            K::LoggingIn,
            K::MakingWorkdir,
            K::CopyingIn,
            K::Launching,
            K::Running,
            K::Pausing,
            K::Paused,
            K::Unpausing,
            K::BeginningSnapshot,
            K::Pruning,
            K::CopyingOut,
            K::PoweringOff,
            K::Fencing,
        ],
        K::MakingWorkdir => &[K::CopyingIn, K::Launching, K::Pausing, K::PoweringOff, K::Fencing],
        K::CopyingIn => &[K::Launching, K::Pausing, K::PoweringOff, K::Fencing],
        K::Launching => &[K::Running, K::Examining, K::Pruning, K::CopyingOut, K::Pausing, K::PoweringOff, K::Fencing],
        K::Running => &[
            K::BeginningSnapshot,
            K::Pruning,
            K::Pausing,
            K::CopyingOut,
            K::PoweringOff,
            K::Fencing,
            // The program ended while it was being looked at; it was found to be paused.
            K::Examining,
            K::Unpausing,
            K::Paused,
        ],
        K::Pausing => &[
            K::Paused,
            K::Unpausing,
            K::BeginningSnapshot,
            K::Committing,
            K::PoweringOff,
            K::Fencing,
            // The request was taken back, or the program ended, before the pause was carried out.
            K::AwaitingTools,
            K::LoggingIn,
            K::Examining,
            K::MakingWorkdir,
            K::CopyingIn,
            K::Launching,
            K::Running,
            K::Pruning,
            K::CopyingOut,
        ],
        K::Paused => {
            &[K::Unpausing, K::Registering, K::Provisioning, K::PoweringOn, K::BeginningSnapshot, K::PoweringOff]
        }
        K::Unpausing => &[
            K::AwaitingTools,
            K::LoggingIn,
            K::Examining,
            K::MakingWorkdir,
            K::CopyingIn,
            K::Launching,
            K::Running,
            K::BeginningSnapshot,
            K::Committing,
            K::Pruning,
            K::CopyingOut,
            K::Pausing,
            K::Paused,
            K::PoweringOff,
            K::Fencing,
        ],
        K::BeginningSnapshot => &[
            K::Committing,
            K::Running,
            K::Pausing,
            K::Paused,
            K::Unpausing,
            K::Pruning,
            K::CopyingOut,
            K::PoweringOff,
            K::Fencing,
        ],
        K::Committing => &[
            K::Running,
            K::BeginningSnapshot,
            K::Pruning,
            K::Pausing,
            K::Paused,
            K::Unpausing,
            K::CopyingOut,
            K::PoweringOff,
            K::Fencing,
        ],
        K::Pruning => &[K::Running, K::BeginningSnapshot, K::Pausing, K::CopyingOut, K::PoweringOff, K::Fencing],
        K::CopyingOut => &[K::BeginningSnapshot, K::Pausing, K::PoweringOff, K::Fencing],
        // To its end at once if the journal is lost.
        K::PoweringOff => &[K::Probing, K::Unregistering, K::Fencing, K::Ended],
        K::Unregistering => &[K::Ended, K::Fencing],
        K::Fencing => &[
            K::Probing,
            K::Registering,
            K::Provisioning,
            K::Examining,
            K::PoweringOff,
            K::Unregistering,
            K::Paused,
            K::Ended,
        ],
        K::Ended => &[],
    }
}
