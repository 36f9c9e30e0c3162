//! Where a task is ([`Phase`]) and what is wanted of it ([`Intent`]).
//!
//! ```text
//!  Created --Start--> Probing --> Registering --> Provisioning(base) --> PoweringOn --> AwaitingTools --> LoggingIn
//!                        ^                               ^   (a warm baseline skips)                         |
//!                        |                               |                                                  |
//!         PoweringOff ---+--- a lost guest, a bad        |            from the baseline     from a checkpoint, adopted
//!         (and roll back)     checkpoint                 |                    |                       |
//!                                                        |              MakingWorkdir            Examining
//!                                                        |              CopyingIn(0..n)              |
//!                                                        |                Launching                  |
//!                                                        |                    |                      |
//!                                                        |                    v                      |
//!                                  BeginningSnapshot <--+------------------ Running <---------------+
//!                                  Committing, Pruning --+-------------------->  |
//!                                                                               | the program ended
//!                                                                               v
//!                                           Ended <-- Unregistering <-- PoweringOff <-- CopyingOut(0..m)
//!
//!  Suspend: every phase from PoweringOn to CopyingOut --> Pausing --> Paused { back } --Resume--> Unpausing --> back
//!  Quit:    save if there is something to save --> PoweringOff --> Unregistering --> Ended
//!  Abort:   fence at once, from anywhere       --> PoweringOff --> Unregistering --> Ended
//!  Fencing: an unknown outcome before anything else is done
//! ```

use core::fmt;

use crate::command::{Base, Op};
use crate::id::{FileIx, Generation};

/// What is wanted of a task. Requests change it, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Intent {
    /// Go on until the program ends.
    #[default]
    Run,
    /// Hold the guest.
    Suspend,
    /// Save and stop.
    Quit,
    /// Stop and discard.
    Abort,
}

impl Intent {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Run, Self::Suspend, Self::Quit, Self::Abort];
}

/// Lists the phases once: the enum itself, its kinds without arguments, and the way from one to the other.
macro_rules! phases {
    ($($(#[$doc:meta])* $name:ident $(($argument:ty))? $({ $(#[$inner:meta])* $field:ident: $of:ty, })?,)*) => {
        /// Where a task is. Completions and events change it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        pub enum Phase {
            $($(#[$doc])* $name $(($argument))? $({ $(#[$inner])* $field: $of })?,)*
        }

        /// [`Phase`] without its arguments.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the Phase of the same name")]
        pub enum PhaseKind {
            $($name,)*
        }

        impl PhaseKind {
            /// All of them, in the order of a task's life.
            pub const ALL: [Self; [$(stringify!($name)),*].len()] = [$(Self::$name),*];
        }

        impl From<Phase> for PhaseKind {
            fn from(phase: Phase) -> Self {
                match phase {
                    $(Phase::$name { .. } => Self::$name,)*
                }
            }
        }
    };
}

phases! {
    /// Waiting for [`Request::Start`](crate::Request::Start).
    Created,
    /// Finding out what is there.
    Probing,
    /// Making the VM known to the hypervisor.
    Registering,
    /// Bringing the VM into its initial state.
    Provisioning(Base),
    /// Starting the VM.
    PoweringOn,
    /// Waiting for the agent in the guest.
    AwaitingTools,
    /// Logging in to the guest.
    LoggingIn,
    /// Finding out what the program does in a VM that was restored, adopted, or in doubt.
    Examining,
    /// Making the working directory.
    MakingWorkdir,
    /// Copying an input file into the guest.
    CopyingIn(FileIx),
    /// Starting the program.
    Launching,
    /// The program runs.
    Running,
    /// Stopping the guest's processors.
    Pausing,
    /// Held on request. The guest is stopped, or was never started.
    Paused {
        /// Where it goes on.
        back: Back,
    },
    /// Letting the guest run on.
    Unpausing,
    /// Freezing the guest's state for a checkpoint.
    BeginningSnapshot(Generation),
    /// Writing a checkpoint. The program runs meanwhile.
    Committing(Generation),
    /// Deleting a checkpoint that is no longer wanted. The program runs meanwhile.
    Pruning(Generation),
    /// Copying an output file out of the guest.
    CopyingOut(FileIx),
    /// Powering the VM off.
    PoweringOff,
    /// Making the hypervisor forget the VM.
    Unregistering,
    /// Making sure that a command whose outcome is unknown can no longer act.
    Fencing,
    /// Over: see [`Machine::outcome`](crate::Machine::outcome).
    Ended,
}

/// Where a paused task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Back {
    /// The VM is off: it is started first.
    Off,
    /// The guest was being started or examined.
    Starting,
    /// Input files were being copied.
    CopyingIn,
    /// The program was running.
    Running,
    /// The program had ended.
    CopyingOut,
}

impl Back {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Off, Self::Starting, Self::CopyingIn, Self::Running, Self::CopyingOut];
}

impl Phase {
    /// The phase in which `op` is being carried out.
    pub(crate) const fn of(op: Op, examining: bool) -> Self {
        match op {
            Op::Probe if examining => Self::Examining,
            Op::Probe => Self::Probing,
            Op::Register => Self::Registering,
            Op::Provision(base) => Self::Provisioning(base),
            Op::PowerOn => Self::PoweringOn,
            Op::AwaitTools => Self::AwaitingTools,
            Op::LogIn => Self::LoggingIn,
            Op::MakeWorkdir => Self::MakingWorkdir,
            Op::CopyIn(ix) => Self::CopyingIn(ix),
            Op::Launch => Self::Launching,
            Op::Pause => Self::Pausing,
            Op::Unpause => Self::Unpausing,
            Op::BeginSnapshot(g) => Self::BeginningSnapshot(g),
            Op::CommitSnapshot(g) => Self::Committing(g),
            Op::RemoveSnapshot(g) => Self::Pruning(g),
            Op::CopyOut(ix) => Self::CopyingOut(ix),
            Op::PowerOff => Self::PoweringOff,
            Op::Unregister(_) => Self::Unregistering,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Probing => f.write_str("probing"),
            Self::Registering => f.write_str("registering the VM"),
            Self::Provisioning(Base::Baseline) => f.write_str("preparing the VM"),
            Self::Provisioning(Base::Checkpoint(g)) => write!(f, "restoring checkpoint {g}"),
            Self::PoweringOn => f.write_str("powering on"),
            Self::AwaitingTools => f.write_str("waiting for the guest agent"),
            Self::LoggingIn => f.write_str("logging in"),
            Self::Examining => f.write_str("examining the guest"),
            Self::MakingWorkdir => f.write_str("making the working directory"),
            Self::CopyingIn(ix) => write!(f, "copying input file {} in", u32::from(ix.0) + 1),
            Self::Launching => f.write_str("launching"),
            Self::Running => f.write_str("running"),
            Self::Pausing => f.write_str("pausing"),
            Self::Paused { .. } => f.write_str("paused"),
            Self::Unpausing => f.write_str("unpausing"),
            Self::BeginningSnapshot(g) => write!(f, "beginning checkpoint {g}"),
            Self::Committing(g) => write!(f, "writing checkpoint {g}"),
            Self::Pruning(g) => write!(f, "removing checkpoint {g}"),
            Self::CopyingOut(ix) => write!(f, "copying output file {} out", u32::from(ix.0) + 1),
            Self::PoweringOff => f.write_str("powering off"),
            Self::Unregistering => f.write_str("unregistering the VM"),
            Self::Fencing => f.write_str("stopping a command that did not answer"),
            Self::Ended => f.write_str("ended"),
        }
    }
}
