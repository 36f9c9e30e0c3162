//! What the machine asks of a hypervisor.

use core::fmt;
use core::num::NonZeroU8;

use crate::id::{Boot, CommandId, FileIx, Generation};
use crate::time::Instant;

/// One thing to do, named once and to be answered with [`Input::Completed`](crate::Input::Completed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Command {
    /// Its name; the answer carries it.
    pub id: CommandId,
    /// The life of the guest that it acts on. Events that the adapter pushes carry the boot of the VM they come from.
    pub boot: Boot,
    /// What to do.
    pub op: Op,
    /// When the machine stops waiting for the answer and treats the outcome as unknown. An adapter that knows that it
    /// will not be done by then answers [`Reply::Pending`](crate::Reply::Pending) where the op allows it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub deadline: Instant,
    /// The first attempt is 1.
    pub attempt: NonZeroU8,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if self.attempt.get() > 1 { write!(f, " (attempt {})", self.attempt) } else { Ok(()) }
    }
}

/// The operations. Each adapter carries out every one that its [`Capabilities`](crate::Capabilities) do not exclude.
///
/// All are idempotent: a repetition of the same op in the same boot finds its effect there and answers as if it had
/// made it. That does not make them *late-safe* (a `Pause` that acts after an `Unpause` does harm), which is why the
/// machine fences before it changes from one op to another after an unknown outcome.
///
/// Ops marked *sliced* may take long. Their adapter works on them for a bounded time (well under a second is good) and
/// answers [`Reply::Pending`](crate::Reply::Pending); the machine asks again, and between two slices it can pause the
/// guest, stop, or abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Op {
    /// Look at what is there and change nothing: [`Reply::Found`](crate::Reply::Found).
    Probe,
    /// Make the VM known to the hypervisor (VIX: `VixHost_RegisterVM`, `VixVM_Open`).
    Register,
    /// Bring the powered-off VM into the named state (VIX: `VixVM_RevertToSnapshot`). Starts a new boot.
    /// Answered by [`Reply::Provisioned`](crate::Reply::Provisioned).
    Provision(Base),
    /// Start or resume the VM.
    PowerOn,
    /// Wait until the agent in the guest answers, and set the guest's clock. *Sliced.*
    AwaitTools,
    /// Log in to the guest.
    LogIn,
    /// Make the task's working directory in the guest.
    MakeWorkdir,
    /// Copy one input file into the guest, with its permissions. *Sliced.*
    CopyIn(FileIx),
    /// Start the program, once: a marker in the guest makes a second launch in the same boot a no-op.
    Launch,
    /// Stop the guest's processors.
    Pause,
    /// Let the guest run on, and set its clock.
    Unpause,
    /// Freeze the guest's state for this checkpoint; the guest is held for as short as the hypervisor can, then is as
    /// it was before (running or paused).
    BeginSnapshot(Generation),
    /// Make the begun checkpoint durable: stream, flush, name it in the manifest. *Sliced.*
    CommitSnapshot(Generation),
    /// Delete a checkpoint that is no longer wanted, whether whole or half-made.
    RemoveSnapshot(Generation),
    /// Copy one output file out of the guest, checked by size and hash. *Sliced.*
    CopyOut(FileIx),
    /// Power the VM off, now. Whatever the guest has not written is lost, which is what we want.
    PowerOff,
    /// Make the hypervisor forget the VM.
    Unregister(Keep),
}

/// What a VM is provisioned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Base {
    /// The platform's image, as if no task had ever run in it.
    Baseline,
    /// A checkpoint of this task.
    Checkpoint(Generation),
}

/// What stays on disk when a VM is unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Keep {
    /// Nothing but the journal, logs and results.
    Nothing,
    /// The checkpoints, so that the task can go on later.
    Checkpoints,
}

/// [`Op`] without its arguments: to index policies and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[allow(missing_docs, reason = "each is the Op of the same name")]
pub enum OpKind {
    Probe,
    Register,
    Provision,
    PowerOn,
    AwaitTools,
    LogIn,
    MakeWorkdir,
    CopyIn,
    Launch,
    Pause,
    Unpause,
    BeginSnapshot,
    CommitSnapshot,
    RemoveSnapshot,
    CopyOut,
    PowerOff,
    Unregister,
}

impl OpKind {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 17] = [
        Self::Probe,
        Self::Register,
        Self::Provision,
        Self::PowerOn,
        Self::AwaitTools,
        Self::LogIn,
        Self::MakeWorkdir,
        Self::CopyIn,
        Self::Launch,
        Self::Pause,
        Self::Unpause,
        Self::BeginSnapshot,
        Self::CommitSnapshot,
        Self::RemoveSnapshot,
        Self::CopyOut,
        Self::PowerOff,
        Self::Unregister,
    ];

    /// Its place in [`OpKind::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the op may be answered by [`Reply::Pending`](crate::Reply::Pending).
    #[must_use]
    pub const fn is_sliced(self) -> bool {
        matches!(self, Self::AwaitTools | Self::CopyIn | Self::CommitSnapshot | Self::CopyOut)
    }
}

impl Op {
    /// The op without its arguments.
    #[must_use]
    pub const fn kind(self) -> OpKind {
        match self {
            Self::Probe => OpKind::Probe,
            Self::Register => OpKind::Register,
            Self::Provision(_) => OpKind::Provision,
            Self::PowerOn => OpKind::PowerOn,
            Self::AwaitTools => OpKind::AwaitTools,
            Self::LogIn => OpKind::LogIn,
            Self::MakeWorkdir => OpKind::MakeWorkdir,
            Self::CopyIn(_) => OpKind::CopyIn,
            Self::Launch => OpKind::Launch,
            Self::Pause => OpKind::Pause,
            Self::Unpause => OpKind::Unpause,
            Self::BeginSnapshot(_) => OpKind::BeginSnapshot,
            Self::CommitSnapshot(_) => OpKind::CommitSnapshot,
            Self::RemoveSnapshot(_) => OpKind::RemoveSnapshot,
            Self::CopyOut(_) => OpKind::CopyOut,
            Self::PowerOff => OpKind::PowerOff,
            Self::Unregister(_) => OpKind::Unregister,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provision(Base::Baseline) => write!(f, "Provision(baseline)"),
            Self::Provision(Base::Checkpoint(g)) => write!(f, "Provision(checkpoint {g})"),
            Self::CopyIn(ix) | Self::CopyOut(ix) => write!(f, "{:?}({ix})", self.kind()),
            Self::BeginSnapshot(g) | Self::CommitSnapshot(g) | Self::RemoveSnapshot(g) => {
                write!(f, "{:?}({g})", self.kind())
            }
            Self::Unregister(Keep::Nothing) => write!(f, "Unregister"),
            Self::Unregister(Keep::Checkpoints) => write!(f, "Unregister(keep checkpoints)"),
            _ => write!(f, "{:?}", self.kind()),
        }
    }
}
