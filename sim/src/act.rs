//! What can go otherwise ([`Act`]), and when ([`Moment`]).
//!
//! ```text
//!    the machine hands out a command --- Moment::Command ---> how will it be carried out?
//!                      hands out a record --- Moment::Write --> what will the disk do?
//!                      asks for a fence ----- Moment::Fence --> will the VM survive it?
//!    the adapter sees something ----------- Moment::Event ----> will the machine hear of it?
//!    between any two things that happen --- Moment::Between --> a request? a crash? a power cut?
//! ```

use vmtask_core::{Base, FaultKind, Machine, Op, OpKind, Phase, Power, Request, Stimulus};

use crate::guest::Health;
use crate::scenario::TICK;
use crate::world::World;

/// A moment at which something can go otherwise than it should. Counts start at 1 and go on across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The n-th command of its kind is handed to the adapter. Attempts and slices count.
    Command(OpKind, u16),
    /// The n-th record is about to be written.
    Write(u16),
    /// The n-th fence is asked for.
    Fence(u16),
    /// The adapter sees the n-th event.
    Event(u16),
    /// Between two things that happen.
    Between {
        /// What happened last: the name of this moment.
        mark: Mark,
        /// What happened before that, if all that followed at once was that a command was handed out: another name.
        happened: Mark,
        /// Where the machine says that it is.
        phase: Phase,
        /// True time, in milliseconds.
        at: u64,
    },
}

/// One thing that happened: names the moment after it. No two things in a run have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Nothing yet.
    Start,
    /// A command was handed out and has not acted.
    Before(OpKind, u16),
    /// A command has acted and was not answered.
    Effect(OpKind, u16),
    /// A command was answered.
    Reply(OpKind, u16),
    /// A record is durable, and the machine knows.
    Written(u16),
    /// A fence was answered.
    Fenced(u16),
    /// The machine heard of an event.
    Event(u16),
    /// A timer of the machine fired.
    Timer(u16),
    /// The program made a step.
    Step(u16),
    /// A hung command acted after all.
    Late(u16),
    /// A request was made, or a fault that happens between two things ([`Act`]).
    Done(u16),
    /// Something else: a task was started or resumed, a manager was started, or heard what was meant for another one, or
    /// what it had heard already.
    Other(u16),
}

/// Something special.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// The command acts; its answer is lost.
    LoseReply,
    /// The command is answered twice.
    DuplicateReply,
    /// The command acts at once; its answer comes a tick later.
    DelayReply,
    /// The command acts at once; its answer comes after its deadline.
    LateReply,
    /// The command acts a tick later than it should.
    Slow,
    /// The command hangs: it never acts, or so many things later, unless it is fenced before.
    Hang(Option<u8>),
    /// The command does nothing and is answered with this fault.
    Fail(FaultKind),
    /// The command acts, and is answered with an unknown outcome.
    ActThenUnknown,
    /// The command fails and takes the VM with it.
    FailAndKill,
    /// The agent never answers in this boot.
    NoTools,
    /// The command does nothing and is answered with this fault, and so is each later one of its kind, until somebody
    /// mends it: before the next manager starts after one that failed.
    Lasting(FaultKind),
    /// The command acts by half and is answered with an unknown outcome.
    Half,
    /// The power fails when the command has acted by half.
    HalfPowerLoss,
    /// A checkpoint is not, or no longer, what was written: the one that is being committed or restored, or at a probe
    /// the newest.
    Spoil(Health),
    /// At a probe: all checkpoints are found damaged.
    SpoilAll,
    /// Somebody has deleted the checkpoint that is being restored, or at a probe the newest.
    Deleted,
    /// The record is written a tick later than it should.
    SlowWrite,
    /// There is no room for the record: it is written a tick later, or a newer one in its place.
    WriteFails,
    /// The power fails in the middle of the write.
    Tear,
    /// No record becomes durable any more, and nobody says so, until the next manager.
    JournalHangs,
    /// The journal is gone, and whoever writes it says so.
    JournalGone,
    /// There is no room on the disk, for records, checkpoints and results, until somebody mends it: see
    /// [`Lasting`](Self::Lasting).
    DiskFull,
    /// The VM does not survive the fence.
    VmDies,
    /// The fence is never answered.
    FenceHangs,
    /// The machine never hears of the event.
    LoseEvent,
    /// It hears of it a tick later.
    DelayEvent,
    /// It hears of it twice.
    DuplicateEvent,
    /// Somebody wants something.
    Request(Request),
    /// The manager is killed, and started again.
    Crash,
    /// The power fails; the manager is started again with the computer.
    PowerLoss,
    /// The same, and the disk had lied: the newest record is not there.
    StalePowerLoss,
    /// The guest powers itself off, or the hypervisor's process dies.
    GuestStop,
    /// The guest reboots.
    GuestReboot,
    /// The guest's kernel hangs.
    GuestHang,
    /// The agent in the guest dies.
    AgentDies,
    /// The program runs to its end at once.
    ProgramEnds,
    /// Somebody pauses the VM, and nobody is told.
    PausedByHand,
    /// The manager's session in the guest is over, and nobody is told.
    SessionLost,
    /// Whoever has suspended the task resumes it a day later.
    LongWait,
    /// The clock jumps by so many seconds.
    Clock(i32),
    /// Something arrives that was meant for an earlier manager.
    Stale(Stale),
}

/// By no more seconds than this, a clock may have jumped or a computer may have been slow: the policy's
/// [`clock_jump`](vmtask_core::Policy::clock_jump), and as much again for what was due anyway.
const LONGEST_DELAY: i32 = 120;

/// What was meant for an earlier manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stale {
    /// The answer to a command.
    Answer,
    /// The answer to a fence.
    Fence,
    /// An event of its VM.
    Event,
    /// Word that a record is durable.
    Record,
}

impl Stale {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Answer, Self::Fence, Self::Event, Self::Record];
}

/// At which kind of [`Moment`] an act is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// [`Moment::Command`].
    Command,
    /// [`Moment::Write`].
    Write,
    /// [`Moment::Fence`].
    Fence,
    /// [`Moment::Event`].
    Event,
    /// [`Moment::Between`].
    Between,
}

impl Act {
    /// How many kinds there are.
    pub const KINDS: usize = 46 + 2 * FaultKind::ALL.len();

    /// A number for its kind, whatever its details: below [`KINDS`](Self::KINDS).
    #[must_use]
    pub const fn kind(self) -> usize {
        match self {
            Self::LoseReply => 0,
            Self::DuplicateReply => 1,
            Self::DelayReply => 2,
            Self::LateReply => 3,
            Self::Slow => 4,
            Self::Hang(None) => 5,
            Self::Hang(Some(_)) => 6,
            Self::ActThenUnknown => 7,
            Self::FailAndKill => 8,
            Self::NoTools => 9,
            Self::Spoil(_) => 10,
            Self::SlowWrite => 11,
            Self::Tear => 12,
            Self::VmDies => 13,
            Self::FenceHangs => 14,
            Self::LoseEvent => 15,
            Self::DelayEvent => 16,
            Self::DuplicateEvent => 17,
            Self::Crash => 18,
            Self::PowerLoss => 19,
            Self::StalePowerLoss => 20,
            Self::GuestStop => 21,
            Self::GuestReboot => 22,
            Self::GuestHang => 23,
            Self::AgentDies => 24,
            Self::ProgramEnds => 25,
            Self::Clock(_) => 26,
            Self::Stale(_) => 27,
            Self::Request(Request::Start) => 28,
            Self::Request(Request::Suspend) => 29,
            Self::Request(Request::Resume) => 30,
            Self::Request(Request::Checkpoint) => 31,
            Self::Request(Request::Quit { budget_ms: 0 }) => 32,
            Self::Request(Request::Quit { .. }) => 33,
            Self::Request(Request::Abort) => 34,
            Self::WriteFails => 35,
            Self::Half => 36,
            Self::HalfPowerLoss => 37,
            Self::SpoilAll => 38,
            Self::Deleted => 39,
            Self::JournalHangs => 40,
            Self::JournalGone => 41,
            Self::DiskFull => 42,
            Self::PausedByHand => 43,
            Self::SessionLost => 44,
            Self::LongWait => 45,
            Self::Fail(kind) => 46 + kind as usize,
            Self::Lasting(kind) => 46 + FaultKind::ALL.len() + kind as usize,
        }
    }

    /// At which kind of moment it is possible.
    #[must_use]
    pub const fn when(self) -> When {
        match self {
            Self::LoseReply
            | Self::DuplicateReply
            | Self::DelayReply
            | Self::LateReply
            | Self::Slow
            | Self::Hang(_)
            | Self::Fail(_)
            | Self::ActThenUnknown
            | Self::FailAndKill
            | Self::NoTools
            | Self::Lasting(_)
            | Self::Half
            | Self::HalfPowerLoss
            | Self::Spoil(_)
            | Self::SpoilAll
            | Self::Deleted => When::Command,
            Self::SlowWrite
            | Self::WriteFails
            | Self::Tear
            | Self::JournalHangs
            | Self::JournalGone
            | Self::DiskFull => When::Write,
            Self::VmDies | Self::FenceHangs => When::Fence,
            Self::LoseEvent | Self::DelayEvent | Self::DuplicateEvent => When::Event,
            Self::Request(_)
            | Self::Crash
            | Self::PowerLoss
            | Self::StalePowerLoss
            | Self::GuestStop
            | Self::GuestReboot
            | Self::GuestHang
            | Self::AgentDies
            | Self::ProgramEnds
            | Self::PausedByHand
            | Self::SessionLost
            | Self::LongWait
            | Self::Clock(_)
            | Self::Stale(_) => When::Between,
        }
    }

    /// Whether it costs something of the budget for requests. Everything else costs a fault, also what is in order but
    /// happens rarely: the budget bounds how far a run may be from an ordinary one.
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(self, Self::Request(_))
    }

    /// Whether it is a fault that must not cost anything. A clock that jumps forward by little is taken for a computer
    /// that is slow: nobody can tell the two apart.
    #[must_use]
    pub const fn is_harmless(self) -> bool {
        match self {
            Self::Clock(seconds) => seconds < 0 || seconds > LONGEST_DELAY,
            Self::Stale(_) | Self::LongWait => true,
            _ => false,
        }
    }
}

/// The special things that are possible at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    acts: [Act; Self::MAX],
    len: usize,
}

impl Options {
    /// Room for every act at one moment, and one that a plan makes of its own.
    pub const MAX: usize = 56;

    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { acts: [Act::Crash; Self::MAX], len: 0 }
    }

    /// One more. There is room for every act that exists at one moment; the tests see to that.
    pub const fn push(&mut self, act: Act) {
        self.acts[self.len] = act;
        self.len += 1;
    }

    /// One more, unless it is there already or there is no room.
    pub fn offer(&mut self, act: Act) {
        if self.len < Self::MAX && !self.as_slice().contains(&act) {
            self.push(act);
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Act] {
        &self.acts[..self.len]
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// How much an exploration tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breadth {
    /// A hung command acts at most so many things later.
    pub latest: u8,
    /// Every kind of fault that an adapter may answer with, also those that the machine treats alike.
    pub all_kinds: bool,
}

impl Breadth {
    /// The largest [`latest`](Self::latest) that there is room for in [`Options`].
    pub const MAX_LATEST: u8 = 20;
}

impl Default for Breadth {
    fn default() -> Self {
        Self { latest: 6, all_kinds: false }
    }
}

impl Act {
    /// Whether it differs from the other only in how many steps, seconds or milliseconds it names.
    pub(crate) const fn is_akin(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Hang(Some(_)), Self::Hang(Some(_)))
                | (Self::Clock(_), Self::Clock(_))
                | (Self::Request(Request::Quit { .. }), Self::Request(Request::Quit { .. }))
        )
    }
}

/// How a command can go wrong.
pub(crate) fn command_options(op: Op, breadth: Breadth, world: &World, options: &mut Options) {
    for act in [Act::LoseReply, Act::DuplicateReply, Act::DelayReply, Act::LateReply, Act::Slow, Act::ActThenUnknown] {
        options.push(act);
    }
    options.push(Act::Fail(FaultKind::Refused));
    options.push(Act::Fail(FaultKind::Unknown));
    options.push(Act::Hang(None));
    for steps in 1..=breadth.latest {
        options.push(Act::Hang(Some(steps)));
    }
    match op.kind() {
        OpKind::LogIn => options.push(Act::Fail(FaultKind::AuthRejected)),
        OpKind::AwaitTools => options.push(Act::NoTools),
        OpKind::Launch => options.push(Act::Fail(FaultKind::NotFound)),
        OpKind::CopyIn => options.push(Act::Fail(FaultKind::NoSpace)),
        OpKind::CopyOut => {
            options.push(Act::Fail(FaultKind::NoSpace));
            options.push(Act::Lasting(FaultKind::Unknown));
        }
        OpKind::Probe => {
            options.push(Act::Lasting(FaultKind::Refused));
            if world.newest_whole().is_some() {
                options.push(Act::Spoil(Health::SeenDamaged));
                options.push(Act::SpoilAll);
                options.push(Act::Deleted);
            }
        }
        OpKind::RemoveSnapshot | OpKind::Unregister => push_halves(options),
        OpKind::BeginSnapshot => {
            options.push(Act::Fail(FaultKind::NoSpace));
            options.push(Act::FailAndKill);
        }
        OpKind::CommitSnapshot => {
            options.push(Act::Fail(FaultKind::NoSpace));
            options.push(Act::FailAndKill);
            if world.stream.is_some_and(|s| s.left == 0) {
                options.push(Act::Spoil(Health::BadAtProvision));
                options.push(Act::Spoil(Health::BadAtPowerOn));
                push_halves(options);
            }
        }
        OpKind::Provision => {
            options.push(Act::Fail(FaultKind::NoSpace));
            options.push(Act::Fail(FaultKind::Fatal));
            push_halves(options);
            if let Op::Provision(Base::Checkpoint(generation)) = op {
                options.push(Act::Fail(FaultKind::Rejected));
                options.push(Act::Fail(FaultKind::Incompatible));
                options.push(Act::Lasting(FaultKind::Incompatible));
                options.push(Act::Lasting(FaultKind::Refused));
                if world.is_whole(generation) {
                    options.push(Act::Spoil(Health::BadAtProvision));
                    options.push(Act::Spoil(Health::NotStarted));
                    options.push(Act::Spoil(Health::Older));
                    options.push(Act::Deleted);
                }
            }
        }
        OpKind::PowerOn => {
            options.push(Act::Fail(FaultKind::Fatal));
            if world.staged_checkpoint().is_some() {
                options.push(Act::Fail(FaultKind::Rejected));
                // Under VIX a checkpoint that was copied back is looked at only now.
                options.push(Act::Fail(FaultKind::Incompatible));
            }
        }
        _ => {}
    }
    if breadth.all_kinds {
        let restores = match op {
            Op::Provision(base) => base != Base::Baseline,
            _ => world.staged_checkpoint().is_some(),
        };
        for kind in FaultKind::ALL {
            let of_checkpoints = matches!(kind, FaultKind::Damaged | FaultKind::Rejected | FaultKind::Incompatible);
            let honest = dishonest(op.kind(), kind).is_none() && (restores || !of_checkpoints);
            if honest && !options.as_slice().contains(&Act::Fail(kind)) {
                options.push(Act::Fail(kind));
            }
        }
    }
}

/// For commands that consist of several effects.
const fn push_halves(options: &mut Options) {
    options.push(Act::Half);
    options.push(Act::HalfPowerLoss);
}

/// Why an adapter that keeps to the contract does not answer so, if it does not. One that says that a VM is off,
/// registered or paused when it is not would deceive the machine.
pub(crate) const fn dishonest(op: OpKind, kind: FaultKind) -> Option<&'static str> {
    match kind {
        FaultKind::Damaged | FaultKind::Rejected | FaultKind::Incompatible => match op {
            OpKind::Provision | OpKind::PowerOn => None,
            _ => Some("it restores no checkpoint"),
        },
        FaultKind::Refused | FaultKind::Unknown | FaultKind::NoSpace | FaultKind::Unsupported | FaultKind::Fatal => {
            None
        }
        FaultKind::AuthRejected => match op {
            OpKind::LogIn | OpKind::MakeWorkdir | OpKind::CopyIn | OpKind::Launch | OpKind::CopyOut | OpKind::Probe => {
                None
            }
            _ => Some("it needs no credentials"),
        },
        FaultKind::NotFound => match op {
            OpKind::PowerOff | OpKind::RemoveSnapshot | OpKind::Unregister => Some("that counts as done"),
            OpKind::Probe => Some("a probe that finds nothing has found that"),
            OpKind::Provision => Some("it says so by itself if the checkpoint is not there"),
            _ => None,
        },
        FaultKind::AlreadyExists => match op {
            OpKind::Register | OpKind::PowerOn | OpKind::Pause | OpKind::Unpause | OpKind::MakeWorkdir => {
                Some("that counts as done")
            }
            _ => Some("it makes nothing that could be there"),
        },
    }
}

/// What can happen between two things, budget permitting.
pub(crate) fn between_options(world: &World, held: bool, faults: bool, requests: bool, options: &mut Options) {
    if requests {
        let ticks = |n: u64| u32::try_from(n * TICK).unwrap_or(u32::MAX);
        for request in [
            Request::Start,
            Request::Suspend,
            Request::Resume,
            Request::Checkpoint,
            Request::Quit { budget_ms: 0 },
            Request::Quit { budget_ms: ticks(1) },
            Request::Quit { budget_ms: ticks(60) },
            Request::Abort,
        ] {
            options.push(Act::Request(request));
        }
    }
    if faults {
        for act in [Act::Crash, Act::PowerLoss, Act::StalePowerLoss, Act::Clock(7200), Act::Clock(-5)] {
            options.push(act);
        }
        for stale in Stale::ALL {
            options.push(Act::Stale(stale));
        }
        if world.power == Power::On {
            for act in [Act::GuestStop, Act::GuestReboot, Act::GuestHang, Act::AgentDies] {
                options.push(act);
            }
        }
        if world.power == Power::Paused {
            options.push(Act::GuestStop);
        }
        if world.works() {
            options.push(Act::ProgramEnds);
            options.push(Act::PausedByHand);
        }
        if world.session && world.power == Power::On {
            options.push(Act::SessionLost);
        }
        if held {
            options.push(Act::LongWait);
        }
    }
}

/// Who decides what happens at each moment, and is told what happened.
pub trait Director {
    /// Before the same moment: what this director may want and nobody would try by himself, such as a clock that jumps by
    /// a minute. It adds what is possible there.
    fn widen(&mut self, moment: &Moment, options: &mut Options) {
        let _ = (moment, options);
    }

    /// 0 for nothing special, or the place of one of `options`, counted from 1.
    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize;

    /// The machine is about to be told something.
    fn before(&mut self, machine: &Machine, stimulus: &Stimulus) {
        let _ = (machine, stimulus);
    }

    /// Something happened.
    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        let _ = (at, what);
    }
}

/// Any source of choice decides by number.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByNumber<C>(pub C);

impl<C: crate::Choose> Director for ByNumber<C> {
    fn direct(&mut self, _: &Moment, options: &[Act]) -> usize {
        let n = u32::try_from(options.len()).unwrap_or(u32::MAX - 1) + 1;
        self.0.pick(n) as usize
    }
}

impl<D: Director> Director for &mut D {
    fn widen(&mut self, moment: &Moment, options: &mut Options) {
        (**self).widen(moment, options);
    }

    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        (**self).direct(moment, options)
    }

    fn before(&mut self, machine: &Machine, stimulus: &Stimulus) {
        (**self).before(machine, stimulus);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        (**self).tell(at, what);
    }
}

/// The names of the phases in plans, as their variants are called.
pub(crate) const PHASES: [&str; 23] = [
    "Created",
    "Probing",
    "Registering",
    "Provisioning",
    "PoweringOn",
    "AwaitingTools",
    "LoggingIn",
    "Examining",
    "MakingWorkdir",
    "CopyingIn",
    "Launching",
    "Running",
    "Pausing",
    "Paused",
    "Unpausing",
    "BeginningSnapshot",
    "Committing",
    "Pruning",
    "CopyingOut",
    "PoweringOff",
    "Unregistering",
    "Fencing",
    "Ended",
];

/// A phase's place in [`PHASES`], and its number if it has one.
pub(crate) const fn phase_key(phase: Phase) -> (usize, Option<u32>) {
    match phase {
        Phase::Created => (0, None),
        Phase::Probing => (1, None),
        Phase::Registering => (2, None),
        Phase::Provisioning(_) => (3, None),
        Phase::PoweringOn => (4, None),
        Phase::AwaitingTools => (5, None),
        Phase::LoggingIn => (6, None),
        Phase::Examining => (7, None),
        Phase::MakingWorkdir => (8, None),
        Phase::CopyingIn(ix) => (9, Some(ix.0 as u32)),
        Phase::Launching => (10, None),
        Phase::Running => (11, None),
        Phase::Pausing => (12, None),
        Phase::Paused { .. } => (13, None),
        Phase::Unpausing => (14, None),
        Phase::BeginningSnapshot(g) => (15, Some(g.0)),
        Phase::Committing(g) => (16, Some(g.0)),
        Phase::Pruning(g) => (17, Some(g.0)),
        Phase::CopyingOut(ix) => (18, Some(ix.0 as u32)),
        Phase::PoweringOff => (19, None),
        Phase::Unregistering => (20, None),
        Phase::Fencing => (21, None),
        Phase::Ended => (22, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmtask_core::{FileIx, Generation, Keep};

    #[test]
    fn there_is_room_for_every_way_in_which_a_command_can_go_wrong_and_for_one_of_a_plan() {
        let (file, generation) = (FileIx(0), Generation(1));
        let ops = [
            Op::Probe,
            Op::Register,
            Op::Provision(vmtask_core::Base::Baseline),
            Op::Provision(vmtask_core::Base::Checkpoint(generation)),
            Op::PowerOn,
            Op::AwaitTools,
            Op::LogIn,
            Op::MakeWorkdir,
            Op::CopyIn(file),
            Op::Launch,
            Op::Pause,
            Op::Unpause,
            Op::BeginSnapshot(generation),
            Op::CommitSnapshot(generation),
            Op::RemoveSnapshot(generation),
            Op::CopyOut(file),
            Op::PowerOff,
            Op::Unregister(Keep::Nothing),
        ];
        for op in ops {
            let mut options = Options::new();
            let breadth = Breadth { latest: Breadth::MAX_LATEST, all_kinds: true };
            let mut world = World::new();
            world.snapshots[0] = Some(crate::guest::Snapshot {
                generation,
                guest: crate::guest::Guest::booted(
                    &crate::scenario::Scenario::of(crate::scenario::Profile::Qemu),
                    false,
                ),
                whole: true,
                health: Health::Good,
            });
            world.stream = Some(crate::world::Stream { generation, left: 0 });
            command_options(op, breadth, &world, &mut options);
            assert!(options.as_slice().len() < Options::MAX, "{op}: {}", options.as_slice().len());
        }
    }
}
