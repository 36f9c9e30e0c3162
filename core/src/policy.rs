//! What does not change while a task runs: the policy, what the hypervisor can do, and the [`Plan`] made of both.

use core::fmt;
use core::num::NonZeroU8;

use crate::command::OpKind;
use crate::error::PlanError;
use crate::id::MAX_GENERATIONS;
use crate::spec::TaskSpec;
use crate::time::Span;

/// Deadlines, attempts and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// For each op, by [`OpKind::index`]: how long an answer may take before its outcome counts as unknown.
    pub deadline: [Span; OpKind::ALL.len()],
    /// For each op, by [`OpKind::index`]: how often it is attempted in a row.
    pub attempts: [u8; OpKind::ALL.len()],
    /// For each sliced op, by [`OpKind::index`]: how long all its slices may take together. The guest's pauses do not
    /// count. Ignored for the others.
    pub overall: [Span; OpKind::ALL.len()],
    /// How long a fence may take.
    pub fence: Span,
    /// The pause before the second attempt; doubled for each further one.
    pub backoff: Span,
    /// The longest pause between two attempts.
    pub backoff_max: Span,
    /// Up to this much is added to each such pause, in percent, so that many tasks on one host do not retry in step.
    /// 0 makes a machine's behaviour a function of its inputs alone, whatever its epoch.
    pub jitter_percent: u8,
    /// A timer that is this late was not late: the computer slept. At least [`Policy::MIN_CLOCK_JUMP`], since a loop that
    /// is always later than this would never see a timer fire.
    pub clock_jump: Span,
    /// How long the program may show no sign of life before the machine probes.
    pub watch: Span,
    /// How long a record may take to become durable. When it has passed, the VM is powered off, which waits for no record,
    /// and the task ends with [`Cause::Journal`](crate::Cause::Journal), to go on from the last durable record. Before the
    /// first command, when nothing can be lost by it, a [`JOURNAL_AT_THE_START`](Policy::JOURNAL_AT_THE_START)th.
    pub journal: Span,
    /// How much computing must be at stake for the program's end to be checkpointed before its outputs are collected.
    pub at_stake: Span,
    /// How often the guest may be lost without a new checkpoint in between, and in all while outputs are collected.
    pub max_losses: u16,
    /// How often a checkpoint is tried before the one before it is used, when the guest is lost while being restored.
    pub restore_attempts: NonZeroU8,
}

impl Policy {
    /// The least that [`Policy::clock_jump`] may be.
    pub const MIN_CLOCK_JUMP: Span = Span::from_secs(5);
    /// The least that a deadline, a fence, an overall time, the watch or the journal's time may be: shorter than this, an
    /// answer that is on its way is taken for silence.
    pub const MIN_DEADLINE: Span = Span::from_secs(1);
    /// The part of [`Policy::journal`] that a record may take before the first command.
    pub const JOURNAL_AT_THE_START: u32 = 12;

    /// Sets the deadline of one op.
    #[must_use]
    pub const fn with_deadline(mut self, op: OpKind, deadline: Span) -> Self {
        self.deadline[op.index()] = deadline;
        self
    }

    /// Sets the number of attempts of one op.
    #[must_use]
    pub const fn with_attempts(mut self, op: OpKind, attempts: u8) -> Self {
        self.attempts[op.index()] = attempts;
        self
    }

    /// Sets the overall time of one sliced op.
    #[must_use]
    pub const fn with_overall(mut self, op: OpKind, overall: Span) -> Self {
        self.overall[op.index()] = overall;
        self
    }

    /// Whether a machine can be driven by it.
    fn check(&self) -> Result<(), PlanError> {
        if let Some(&op) = OpKind::ALL.iter().find(|op| self.attempts[op.index()] == 0) {
            return Err(PlanError::NoAttempts { op });
        }
        if self.clock_jump < Self::MIN_CLOCK_JUMP {
            return Err(PlanError::ClockJump { given: self.clock_jump });
        }
        let of_each =
            |what, times: &[Span]| times.iter().map(move |&given| (what, given)).min_by_key(|&(_, given)| given);
        let others = [("fence", self.fence), ("watch", self.watch), ("journal", self.journal)];
        let shortest = [of_each("deadline", &self.deadline), of_each("overall", &self.overall)];
        match shortest.into_iter().flatten().chain(others).find(|&(_, given)| given < Self::MIN_DEADLINE) {
            Some((what, given)) => Err(PlanError::TooShort { what, given }),
            None => Ok(()),
        }
    }

    /// A pause that writes the guest's memory to disk, and an unpause that reads it, may take as long as the ops that do
    /// the same otherwise.
    fn with_pauses_on_disk(self) -> Self {
        let as_long_as = |op: OpKind, other: OpKind| self.deadline[op.index()].max(self.deadline[other.index()]);
        self.with_deadline(OpKind::Pause, as_long_as(OpKind::Pause, OpKind::BeginSnapshot))
            .with_deadline(OpKind::Unpause, as_long_as(OpKind::Unpause, OpKind::PowerOn))
    }
}

impl Default for Policy {
    /// For software emulation on a slow, busy computer: generous, because a deadline that is too short costs work and
    /// one that is too long only costs time after a fault.
    fn default() -> Self {
        let secs = Span::from_secs;
        Self {
            deadline: [secs(30); OpKind::ALL.len()],
            attempts: [3; OpKind::ALL.len()],
            overall: [secs(6 * 3600); OpKind::ALL.len()],
            fence: secs(30),
            backoff: Span::from_millis(250),
            backoff_max: secs(30),
            jitter_percent: 25,
            clock_jump: secs(60),
            watch: secs(60),
            journal: secs(60),
            at_stake: secs(10),
            max_losses: 5,
            restore_attempts: NonZeroU8::new(2).unwrap_or(NonZeroU8::MIN),
        }
        .with_deadline(OpKind::Pause, secs(10))
        .with_deadline(OpKind::PowerOff, secs(20))
        .with_deadline(OpKind::Provision, secs(120))
        .with_deadline(OpKind::PowerOn, secs(120))
        .with_deadline(OpKind::BeginSnapshot, secs(120))
        .with_deadline(OpKind::CommitSnapshot, secs(120))
        .with_deadline(OpKind::RemoveSnapshot, secs(120))
        .with_deadline(OpKind::Unregister, secs(60))
        .with_overall(OpKind::AwaitTools, secs(600))
        .with_overall(OpKind::CommitSnapshot, secs(3600))
    }
}

/// What a hypervisor can do, asked for once before anything is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capabilities {
    /// A VM can write to an overlay over a shared image. If not, the image is copied.
    pub linked_clones: bool,
    /// How checkpoints can be kept.
    pub snapshots: Snapshots,
    /// How the guest can be held.
    pub pause: Pause,
    /// Whether guest operations need a log-in.
    pub guest_login: bool,
    /// Whether the VM outlives the manager, so that a later one can adopt it.
    pub outlives_manager: bool,
    /// Whether a task can have a writable disk.
    pub disk: bool,
}

/// How a hypervisor can keep checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Snapshots {
    /// Not at all.
    None,
    /// As copies of the suspended VM's files (one snapshot at a time is not enough: the new one must be whole before
    /// the old one goes).
    ByCopy,
    /// As many snapshots with memory as we need.
    Many,
}

/// How a hypervisor can hold a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Pause {
    /// Not at all.
    None,
    /// By suspending it to disk.
    BySuspend,
    /// By stopping its processors.
    Native,
}

/// What is done instead of something that the hypervisor lacks. Tell the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Substitute {
    /// The image is copied for each task.
    CopyForClone,
    /// Pausing suspends to disk.
    SuspendForPause,
    /// A checkpoint is a copy of the suspended VM's files: the guest is held for as long as that takes.
    CopyForSnapshot,
    /// No checkpoints: a restart starts over.
    NoCheckpoints,
    /// No pause: suspend requests are denied.
    NoPause,
}

impl fmt::Display for Substitute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CopyForClone => "no linked clones: the image is copied for each task",
            Self::SuspendForPause => "no pause: the VM is suspended to disk instead",
            Self::CopyForSnapshot => {
                "not enough snapshots: a checkpoint is a copy of the suspended VM's files, made while the guest is held"
            }
            Self::NoCheckpoints => "no snapshots: the task runs without checkpoints and starts over after a crash",
            Self::NoPause => "neither pause nor suspend: the task can be stopped, but not held",
        })
    }
}

/// Everything about a task that the machine needs and that does not change: made once, passed by reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    pub(crate) policy: Policy,
    pub(crate) capabilities: Capabilities,
    pub(crate) files_in: u16,
    pub(crate) files_out: u16,
    /// `None`: no checkpoints.
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) run_limit_ms: Option<u64>,
}

/// When checkpoints are taken and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Checkpoints {
    pub(crate) every: Span,
    pub(crate) keep: u8,
}

impl Plan {
    /// The most files in each direction.
    pub const MAX_FILES: usize = 4096;
    /// The most checkpoints that can be kept. One more than that exists while a new one is being made, and room is
    /// left for some that could not be deleted.
    pub const MAX_KEEP: u8 = (MAX_GENERATIONS / 2) as u8;

    /// Checks that the task can be carried out on this hypervisor.
    ///
    /// # Errors
    /// If it cannot: in one sentence, before anything is touched.
    pub fn new(spec: &TaskSpec, policy: Policy, capabilities: Capabilities) -> Result<Self, PlanError> {
        let count = |direction, count: usize| {
            u16::try_from(count).ok().filter(|&n| usize::from(n) <= Self::MAX_FILES).ok_or(PlanError::TooManyFiles {
                direction,
                count,
                max: Self::MAX_FILES,
            })
        };
        policy.check()?;
        if spec.limits.disk.is_some() && !capabilities.disk {
            return Err(PlanError::NoDisk);
        }
        if spec.limits.run_ms == Some(0) {
            return Err(PlanError::RunLimit);
        }
        let checkpoints = match spec.checkpoint {
            Some(c) if c.every == Span::ZERO => return Err(PlanError::CheckpointInterval),
            Some(c) if c.keep == 0 || c.keep > Self::MAX_KEEP => {
                return Err(PlanError::Keep { keep: c.keep, max: Self::MAX_KEEP });
            }
            Some(c) if capabilities.snapshots != Snapshots::None => Some(Checkpoints { every: c.every, keep: c.keep }),
            _ => None,
        };
        Ok(Self {
            policy: if capabilities.pause == Pause::BySuspend { policy.with_pauses_on_disk() } else { policy },
            capabilities,
            files_in: count("input", spec.files_in.len())?,
            files_out: count("output", spec.files_out.len())?,
            checkpoints,
            run_limit_ms: spec.limits.run_ms,
        })
    }

    /// The policy that it was made with, its deadlines fit for what the hypervisor can do.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The capabilities that it was made with.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether checkpoints are taken.
    #[must_use]
    pub const fn takes_checkpoints(&self) -> bool {
        self.checkpoints.is_some()
    }

    /// What is done instead of what the hypervisor lacks, for the task it was made for.
    pub fn substitutes<'a>(&'a self, spec: &TaskSpec) -> impl Iterator<Item = Substitute> + 'a {
        let wants_checkpoints = spec.checkpoint.is_some();
        let c = &self.capabilities;
        [
            (!c.linked_clones, Substitute::CopyForClone),
            (c.pause == Pause::BySuspend, Substitute::SuspendForPause),
            (c.pause == Pause::None, Substitute::NoPause),
            (wants_checkpoints && c.snapshots == Snapshots::ByCopy, Substitute::CopyForSnapshot),
            (wants_checkpoints && c.snapshots == Snapshots::None, Substitute::NoCheckpoints),
        ]
        .into_iter()
        .filter_map(|(applies, substitute)| applies.then_some(substitute))
    }
}
