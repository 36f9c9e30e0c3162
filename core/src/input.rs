//! What the machine is told: requests, completions, events, durability.

use core::fmt;

use crate::id::{Boot, CommandId, Generation, Generations, JournalSeq, MAX_GENERATIONS};
use crate::output::Unfit;

/// Anything that happens to a machine from outside, but for requests and the passing of time. None can fail: what is
/// late, foreign or means nothing now is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A command was answered. Counts only if `id` is the command in flight.
    Completed {
        /// The command that is answered.
        id: CommandId,
        /// What came of it.
        result: Result<Reply, Fault>,
    },
    /// [`Output::Fence`](crate::Output::Fence) was carried out: the named command can no longer act.
    Fenced {
        /// The command that was fenced.
        id: CommandId,
        /// Whether the VM is still as it was. If not, it has been powered off.
        survived: bool,
    },
    /// Something happened in the guest or to the VM.
    Observed {
        /// The boot it belongs to.
        boot: Boot,
        /// What happened.
        event: Event,
    },
    /// The record with this number, and all before it, will survive a loss of power.
    Persisted(JournalSeq),
    /// Records that were handed out cannot be made durable, and waiting for it is of no use (the journal was removed).
    /// The task ends at once as it does when [`Policy::journal`](crate::Policy::journal) has passed.
    JournalLost,
}

/// What can be asked of a task. Each is answered at once: applied, ignored (already so) or denied with a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Begin. A machine restored from a record has begun already.
    Start,
    /// Hold the guest until [`Request::Resume`]. Its deadlines stand still meanwhile.
    Suspend,
    /// Take back [`Request::Suspend`].
    Resume,
    /// Take a checkpoint now.
    Checkpoint,
    /// Save what can be saved within the budget and end, resumable. 0: power off now.
    Quit {
        /// Milliseconds until the VM must be off.
        budget_ms: u32,
    },
    /// End and throw everything away. Never denied; beats all others.
    Abort,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit { budget_ms } => write!(f, "Quit({budget_ms} ms)"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What came of a command that did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Done.
    Done,
    /// Part of a sliced op is done; ask again. Anywhere else it counts as [`FaultKind::Fatal`].
    Pending,
    /// `Provision` is done. `running`: the baseline was warm, or reverting left the VM running: `PowerOn` is skipped.
    Provisioned {
        /// Whether the guest already runs.
        running: bool,
    },
    /// What a `Probe` found.
    Found(Found),
}

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Found {
    /// Whether the hypervisor knows the VM.
    pub registered: bool,
    /// Whether it runs.
    pub power: Power,
    /// What the program does, as far as can be told now.
    pub program: Program,
    /// The checkpoints that are whole by their manifest; half-made ones are not listed. If there are more than a
    /// [`Generations`] holds, the newest of them.
    pub snapshots: Generations,
    /// Checkpoints that are there and are proven not to be what was written. A look that could not tell is a failed
    /// probe, never a checkpoint left out.
    pub damaged: Generations,
}

impl Found {
    /// Why a checkpoint that was looked for is not fit to go on from; `None` if it is, or if that cannot be told because
    /// there are more than were listed.
    pub(crate) fn why_unfit(&self, generation: Generation) -> Option<Unfit> {
        if self.damaged.contains(generation) {
            return Some(Unfit::Damaged);
        }
        let listed_all = self.snapshots.len() < MAX_GENERATIONS;
        let would_be_listed = listed_all || self.snapshots.oldest().is_some_and(|oldest| generation > oldest);
        (would_be_listed && !self.snapshots.contains(generation)).then_some(Unfit::Missing)
    }
}

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Power {
    /// It does not, and nothing of it is in memory.
    #[default]
    Off,
    /// It runs.
    On,
    /// Its processors are stopped.
    Paused,
}

/// What the program in the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Program {
    /// Nobody can tell at the moment (VM off or paused, agent not up, not logged in).
    #[default]
    Unknown,
    /// It was not started in this boot.
    NotStarted,
    /// It runs.
    Running,
    /// It ended.
    Exited(ExitStatus),
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl ExitStatus {
    /// Whether this is exit code 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What an adapter observes without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The program ended.
    ProgramExited(ExitStatus),
    /// The VM stopped running: the guest powered itself off, or the hypervisor's process died.
    GuestStopped,
    /// The guest started again from its beginning: the program is gone.
    GuestRebooted,
    /// The program goes on.
    Progress {
        /// Thousandths done, at most 1000; `None` if the program does not say.
        permille: Option<u16>,
        /// Processor time that the program has used since it was launched, in milliseconds.
        cpu_ms: u64,
    },
}

/// Why a command did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fault {
    /// What the machine goes by.
    pub kind: FaultKind,
    /// The hypervisor's own number for it, for people; 0 if it has none.
    pub code: u32,
}

impl Fault {
    /// A fault without a number.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        Self { kind, code: 0 }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.code == 0 { Ok(()) } else { write!(f, " (code {})", self.code) }
    }
}

/// What kind of fault: it decides what the machine may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FaultKind {
    /// It did nothing and will do nothing; a later attempt may succeed. The guest is unharmed.
    Refused,
    /// It may have acted, or may still act: a lost reply, a hang, a broken connection.
    Unknown,
    /// What it should act on is not there.
    NotFound,
    /// What it should make is already there.
    AlreadyExists,
    /// The credentials were refused. Not tried again: accounts get locked.
    AuthRejected,
    /// No space. It did nothing that lasts, and the guest is unharmed.
    NoSpace,
    /// The hypervisor cannot do this.
    Unsupported,
    /// It will not succeed however often it is tried: a guest lost in mid-snapshot. The adapter makes no promise about
    /// the guest, and says nothing about a checkpoint that was being restored.
    Fatal,
    /// Only for `Provision(checkpoint)` and the `PowerOn` after it. Proof that the checkpoint is not what was written:
    /// its size or its hash differs from its manifest's, or the manifest's own checksum is wrong.
    Damaged,
    /// Only for `Provision(checkpoint)` and the `PowerOn` after it. The hypervisor, of the very build that made the
    /// checkpoint, looked at it and refused to load it, although its files are what was written.
    Rejected,
    /// Only for `Provision(checkpoint)` and the `PowerOn` after it. The checkpoint is whole, and another build, accelerator
    /// or machine made it: this host cannot load it as it is now.
    Incompatible,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Unknown,
        Self::NotFound,
        Self::AlreadyExists,
        Self::AuthRejected,
        Self::NoSpace,
        Self::Unsupported,
        Self::Fatal,
        Self::Damaged,
        Self::Rejected,
        Self::Incompatible,
    ];
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Unknown => "outcome unknown",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already there",
            Self::AuthRejected => "credentials rejected",
            Self::NoSpace => "no space left",
            Self::Unsupported => "not supported",
            Self::Fatal => "failed for good",
            Self::Damaged => "damaged",
            Self::Rejected => "refused by the hypervisor that made it",
            Self::Incompatible => "made by another hypervisor build, accelerator or machine",
        })
    }
}
