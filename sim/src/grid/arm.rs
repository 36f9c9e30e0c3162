//! The four arms that are compared, and what each costs: the plan of its machines and the times of its commands.

use vmtask_core::{
    Base, Capabilities, CheckpointSpec, FileIn, FileOut, Limits, Op, OpKind, Pause, Plan, PlanError, Policy,
    ProgramSpec, Snapshots, Span, TaskDraft, TaskSpec,
};

use super::draw::{DAY, HOUR, MINUTE, SECOND, between};
use crate::choose::Prng;

/// How long the program of a workunit runs on a host of speed 1, without a virtual machine.
const WORK: u64 = 4 * HOUR;
/// What a virtual machine adds to that, in percent.
const OVERHEAD: u64 = 5;
/// How long the program runs between two checkpoints.
const CHECKPOINT: u64 = 15 * MINUTE;

/// One way to run a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The program runs in a virtual machine, the same everywhere. If not, it runs as a process of the host.
    pub vm: bool,
    /// Checkpoints are taken: of the virtual machine, or by the program of itself.
    pub checkpoints: bool,
}

impl Arm {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self { vm: false, checkpoints: false },
        Self { vm: false, checkpoints: true },
        Self { vm: true, checkpoints: false },
        Self { vm: true, checkpoints: true },
    ];

    /// "native" or "virtual machine".
    #[must_use]
    pub const fn where_it_runs(self) -> &'static str {
        if self.vm { "with VM" } else { "without VM" }
    }

    /// "checkpoints" or "no checkpoints".
    #[must_use]
    pub const fn what_is_kept(self) -> &'static str {
        if self.checkpoints { "checkpoints" } else { "no checkpoints" }
    }

    /// What the machines of this arm are driven with.
    pub(super) fn plan(self) -> Result<Plan, PlanError> {
        let policy = Policy {
            // An answer takes a minute at most here; and nobody looks in on a program that does well.
            deadline: [Span::from_secs(120); OpKind::ALL.len()],
            watch: Span::from_secs(span_secs(DAY)),
            ..Policy::default()
        };
        let capabilities = Capabilities {
            linked_clones: true,
            snapshots: Snapshots::Many,
            pause: Pause::Native,
            guest_login: false,
            outlives_manager: false,
            disk: false,
        };
        Plan::new(&self.task(), policy, capabilities)
    }

    fn task(self) -> TaskSpec {
        let draft = TaskDraft {
            name: "leibniz".into(),
            platform: "i686-pc-linux-gnu".into(),
            program: ProgramSpec {
                path: "leibniz".into(),
                args: vec!["1000".into()],
                env: std::collections::BTreeMap::default(),
                stdout: "stdout.txt".into(),
                stderr: "stderr.txt".into(),
                progress: None,
            },
            files_in: vec![FileIn { host: "leibniz".into(), guest: "leibniz".into(), executable: true }],
            files_out: vec![FileOut { guest: "stdout.txt".into(), host: "result.txt".into(), optional: false }],
            checkpoint: self
                .checkpoints
                .then_some(CheckpointSpec { every: Span::from_secs(span_secs(CHECKPOINT)), keep: 2 }),
            limits: Limits::default(),
        };
        match draft.check() {
            Ok(spec) => spec,
            Err(error) => unreachable!("the grid's task is well-formed: {error}"),
        }
    }

    /// How long the program runs on a host of this speed (in thousandths), in milliseconds.
    pub(super) fn work(self, speed: u16) -> u32 {
        let native = WORK * 1000 / u64::from(speed.max(1));
        let all = if self.vm { native * (100 + OVERHEAD) / 100 } else { native };
        u32::try_from(all).unwrap_or(u32::MAX)
    }

    /// How many slices writing a checkpoint takes.
    pub(super) const fn commit_slices(self) -> u8 {
        if self.vm { 2 } else { 1 }
    }

    /// How long a command takes. A process is started and copied to in no time; a guest boots.
    pub(super) const fn takes(self, op: Op, prng: &mut Prng) -> u64 {
        let (low, high) = match (self.vm, op) {
            (false, Op::CommitSnapshot(_)) => (100, SECOND),
            (false, Op::CopyIn(_) | Op::CopyOut(_)) => (50, 2 * SECOND),
            (false, _) => (1, 20),
            (true, Op::Provision(Base::Checkpoint(_))) => (2 * SECOND, 10 * SECOND),
            (true, Op::Provision(Base::Baseline) | Op::PowerOn) => (SECOND, 5 * SECOND),
            (true, Op::AwaitTools) => (10 * SECOND, 60 * SECOND),
            (true, Op::CopyIn(_) | Op::CopyOut(_)) => (SECOND, 10 * SECOND),
            (true, Op::CommitSnapshot(_)) => (2 * SECOND, 20 * SECOND),
            (true, _) => (50, 500),
        };
        between(prng, low, high)
    }
}

fn span_secs(millis: u64) -> u32 {
    u32::try_from(millis / SECOND).unwrap_or(u32::MAX)
}
