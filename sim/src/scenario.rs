//! What is simulated: one small task on one kind of hypervisor.
//!
//! Time is counted in ticks of a second: the program takes one tick a step, a slice of a sliced op takes one, and
//! everything else takes none. That keeps the number of different moments small enough to visit each.

use vmtask_core::{
    Capabilities, CheckpointSpec, ExitStatus, FileIn, FileOut, Limits, OpKind, Pause, Plan, PlanError, Policy,
    ProgramSpec, Snapshots, Span, TaskDraft, TaskSpec,
};

/// One tick, in milliseconds.
pub const TICK: u64 = 1000;
/// The most input files that the world has room for.
pub const MAX_IN: usize = 64;
/// The most output files whose contents the world remembers.
pub const MAX_OUT: usize = 2;

/// The kinds of hypervisor that are simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Like QEMU: linked clones, many snapshots, a real pause; the VM dies with its manager.
    #[default]
    Qemu,
    /// The same with a warm baseline, only the newest checkpoint kept.
    Warm,
    /// Like VMware Server through VIX: the VM outlives its manager, guest operations need a log-in, pausing suspends
    /// to disk, a checkpoint is a copy.
    Vix,
    /// A hypervisor without snapshots.
    Plain,
    /// Like QEMU, with a program that ends with an exit code of its own and does not write its output.
    Failing,
    /// Like QEMU, with a program that does all of its steps and then hangs in a guest that is sound, and a run limit.
    Limited,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Qemu, Self::Warm, Self::Vix, Self::Plain, Self::Failing, Self::Limited];

    /// Its name in plans and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Warm => "warm",
            Self::Vix => "vix",
            Self::Plain => "plain",
            Self::Failing => "failing",
            Self::Limited => "limited",
        }
    }

    /// What such a hypervisor can do.
    #[must_use]
    pub const fn capabilities(self) -> Capabilities {
        let qemu = Capabilities {
            linked_clones: true,
            snapshots: Snapshots::Many,
            pause: Pause::Native,
            guest_login: false,
            outlives_manager: false,
            disk: false,
        };
        match self {
            Self::Qemu | Self::Warm | Self::Failing | Self::Limited => qemu,
            Self::Vix => Capabilities {
                linked_clones: false,
                snapshots: Snapshots::ByCopy,
                pause: Pause::BySuspend,
                guest_login: true,
                outlives_manager: true,
                disk: false,
            },
            Self::Plain => Capabilities { snapshots: Snapshots::None, ..qemu },
        }
    }
}

/// A task, a hypervisor and how long things take. Made once, passed by reference.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Which kind of hypervisor.
    pub profile: Profile,
    /// Whether provisioning from the baseline leaves the guest running.
    pub warm: bool,
    /// What each input file contains.
    pub inputs: Vec<Vec<u8>>,
    /// How many output files the program writes.
    pub outputs: u16,
    /// How many steps the program takes, one a tick.
    pub steps: u32,
    /// How the program ends.
    pub exit: ExitStatus,
    /// Whether it does not end, but goes on without doing anything.
    pub hangs: bool,
    /// After how many slices the agent answers.
    pub boot_slices: u8,
    /// After how many slices a file is copied, in either direction.
    pub copy_slices: u8,
    /// After how many slices a checkpoint is durable.
    pub commit_slices: u8,
    /// How often a checkpoint is due, in milliseconds; `None` if none is taken.
    pub(crate) interval: Option<u64>,
    /// How many checkpoints are kept, and how much computing is worth one at the end, in milliseconds.
    pub(crate) keep: usize,
    /// For how long the program may run, in milliseconds.
    pub(crate) limit: Option<u64>,
    pub(crate) at_stake: u64,
    plan: Plan,
}

/// How often a checkpoint of this task is due on this hypervisor, in milliseconds.
fn interval(spec: &TaskSpec, plan: &Plan) -> Option<u64> {
    let checkpoints = spec.checkpoint.as_ref().filter(|_| plan.takes_checkpoints())?;
    Some(u64::from(checkpoints.every.as_millis()))
}

impl Scenario {
    /// The small task that is explored: two input files, eight steps, an output file, checkpoints every three ticks.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        let keep = if profile == Profile::Warm { 1 } else { 2 };
        // The small task is well-formed and fits every hypervisor; the tests of this crate make each of them.
        let limit = (profile == Profile::Limited).then(|| Span::from_secs(12));
        let spec = match small_spec(2, 1, keep, limit).check() {
            Ok(spec) => spec,
            Err(error) => unreachable!("the small task is well-formed: {error}"),
        };
        let plan = match Plan::new(&spec, small_policy(), profile.capabilities()) {
            Ok(plan) => plan,
            Err(error) => unreachable!("the small task fits: {error}"),
        };
        Self {
            profile,
            warm: profile == Profile::Warm,
            inputs: vec![b"program".to_vec(), b"3 1 4 1 5 9 2 6".to_vec()],
            outputs: 1,
            steps: 9,
            exit: ExitStatus::Code(if profile == Profile::Failing { 3 } else { 0 }),
            hangs: profile == Profile::Limited,
            boot_slices: 1,
            copy_slices: 1,
            commit_slices: 1,
            interval: interval(&spec, &plan),
            keep: usize::from(keep),
            limit: spec.limits.run_ms,
            at_stake: u64::from(small_policy().at_stake.as_millis()),
            plan,
        }
    }

    /// Whether the program writes its outputs.
    #[must_use]
    pub fn writes_outputs(&self) -> bool {
        self.profile != Profile::Failing
    }

    /// For a task of somebody else's, with the contents of its input files.
    ///
    /// # Errors
    /// If the task asks for something that the simulated hypervisor cannot do.
    pub fn for_task(spec: &TaskSpec, inputs: Vec<Vec<u8>>, steps: u32) -> Result<Self, PlanError> {
        let profile = Profile::Qemu;
        let plan = Plan::new(spec, Policy::default(), profile.capabilities())?;
        let outputs = u16::try_from(spec.files_out.len()).unwrap_or(u16::MAX);
        Ok(Self { inputs, outputs, steps, interval: interval(spec, &plan), plan, ..Self::of(profile) })
    }

    /// The plan that the machine is driven with.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the VM goes on when its manager dies.
    #[must_use]
    pub const fn outlives_manager(&self) -> bool {
        self.plan.capabilities().outlives_manager
    }

    /// Whether a paused VM survives a loss of power.
    #[must_use]
    pub fn suspends_to_disk(&self) -> bool {
        self.plan.capabilities().pause == Pause::BySuspend
    }
}

/// Deadlines of a few ticks, so that a hang is over before the program is; no jitter, and pauses of whole ticks, so
/// that states that differ only in fractions of a tick do not exist.
fn small_policy() -> Policy {
    let ticks = |n: u32| Span::from_secs(n);
    let mut policy = Policy {
        fence: ticks(4),
        backoff: ticks(1),
        backoff_max: ticks(2),
        jitter_percent: 0,
        clock_jump: ticks(60),
        watch: ticks(4),
        journal: ticks(24),
        // Less than the interval, so that ends are saved.
        at_stake: ticks(1),
        max_losses: 4,
        ..Policy::default()
    };
    for op in OpKind::ALL {
        policy = policy.with_deadline(op, ticks(3)).with_overall(op, ticks(8));
    }
    policy
}

fn small_spec(files_in: usize, files_out: usize, keep: u8, run: Option<Span>) -> TaskDraft {
    TaskDraft {
        name: "simulated".into(),
        platform: "simulated".into(),
        program: ProgramSpec {
            path: "program".into(),
            args: vec![],
            env: std::collections::BTreeMap::default(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: (0..files_in)
            .map(|n| FileIn { host: format!("in{n}"), guest: format!("in{n}"), executable: n == 0 })
            .collect(),
        files_out: (0..files_out)
            .map(|n| FileOut { guest: format!("out{n}"), host: format!("out{n}"), optional: false })
            .collect(),
        checkpoint: Some(CheckpointSpec { every: Span::from_secs(3), keep }),
        limits: Limits { run_ms: run.map(|run| u64::from(run.as_millis())), ..Limits::default() },
    }
}
