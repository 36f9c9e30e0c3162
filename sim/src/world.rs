//! Ground truth: what there really is, whatever the machine believes.
//!
//! ```text
//!    image --Provision--> staged --PowerOn--> guest (On) <--Pause/Unpause--> guest (Paused)
//!                            ^                  |   ^
//!    checkpoints ------------+   BeginSnapshot  |   |  step, step, step: the program works
//!        ^                                      v   |
//!        +------ CommitSnapshot <------------ stream
//! ```
//!
//! [`World::carry_out`] does what the contract says that an adapter does. It is as strict as a hypervisor can be: what
//! the machine must never ask for is a [`Misuse`].

use vmtask_core::{
    Base, Boot, Command, Event, Fault, FaultKind, FileIx, Found, Generation, Generations, Keep, Op, Power, Program,
    Reply, Snapshots,
};

use crate::guest::{Agent, Guest, Health, Snapshot, output_of};
use crate::scenario::{MAX_OUT, Scenario, TICK};

/// How many checkpoints, whole and half-made, fit on the world's disk.
pub const MAX_SNAPSHOTS: usize = 8;

/// What there is: a plain value, without a heap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Whether the hypervisor knows the VM.
    pub registered: bool,
    /// Whether it runs.
    pub power: Power,
    /// The boot that events of the VM carry.
    pub boot: Boot,
    /// What the next power-on starts.
    pub staged: Option<Staged>,
    /// What is in the VM's memory; `None` while it is off.
    pub guest: Option<Guest>,
    /// Whether the present manager is logged in to the guest.
    pub session: bool,
    /// It was, and is not any more, and may not know.
    pub session_lost: bool,
    /// A checkpoint that is being written.
    pub stream: Option<Stream>,
    /// The checkpoints on disk, whole or not.
    pub snapshots: [Option<Snapshot>; MAX_SNAPSHOTS],
    /// An output file that is being copied, and how many slices are done.
    pub copying_out: Option<(FileIx, u8)>,
    /// The outputs that lie in the results directory.
    pub results: [Option<u64>; MAX_OUT],
    /// Nothing was done since the VM was provisioned: a warm baseline runs, and may be provisioned again.
    pub fresh: bool,
    /// The guest has rebooted by itself: what was made in it is gone, and the machine may not know yet.
    pub rebooted: bool,
    /// How often the program was really started since the VM was last provisioned from the baseline.
    pub launches: u8,
    /// The largest number that a checkpoint was begun with.
    pub begun: u32,
}

/// What the next power-on starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Staged {
    guest: Guest,
    base: Base,
    starts: bool,
}

/// A checkpoint that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Its number.
    pub generation: Generation,
    /// Slices that are still to come.
    pub left: u8,
}

/// Something that a correct machine never asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misuse {
    /// Provisioning a VM that is not powered off.
    ProvisionedWhileOn,
    /// Unregistering a VM that is not powered off.
    UnregisteredWhileOn,
    /// Working on a VM that is not registered.
    NotRegistered,
    /// A guest operation before the log-in that this hypervisor needs.
    NotLoggedIn,
    /// Beginning a checkpoint while another one is being written.
    TwoStreams,
    /// Beginning a checkpoint on a hypervisor that takes none.
    NoSnapshotsHere,
    /// Giving a checkpoint a number that another one had.
    NumberReused,
    /// A guest operation, a snapshot excepted, between the begin of a snapshot and its commit.
    BesideTheStream,
    /// Copying an input file after the program was launched.
    InputAfterLaunch,
    /// Launching before everything was there.
    LaunchedTooEarly,
    /// Copying an output file while the program works on it.
    CollectedTooEarly,
}

const fn fault<T>(kind: FaultKind) -> Result<T, Fault> {
    Err(Fault::new(kind))
}

/// What an adapter answers when the guest does not: nothing at all.
pub type Answer = Option<Result<Reply, Fault>>;

impl World {
    /// Nothing: an image, a hypervisor, an empty directory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            registered: false,
            power: Power::Off,
            boot: Boot { epoch: 0, seq: 0 },
            staged: None,
            guest: None,
            session: false,
            session_lost: false,
            stream: None,
            snapshots: [None; MAX_SNAPSHOTS],
            copying_out: None,
            results: [None; MAX_OUT],
            fresh: false,
            rebooted: false,
            launches: 0,
            begun: 0,
        }
    }

    /// Carries out one command (of a sliced op: one slice). `None`: there is no answer, because the guest hangs.
    pub fn carry_out(&mut self, scenario: &Scenario, command: &Command) -> Answer {
        // A VM that a new manager finds is boot 0 of that manager's.
        if command.boot.epoch != self.boot.epoch {
            self.boot = command.boot;
        }
        self.fresh &= matches!(command.op, Op::Probe | Op::Provision(_));
        Some(match command.op {
            Op::Probe => Ok(Reply::Found(self.probe(scenario))),
            Op::Register => {
                self.registered = true;
                Ok(Reply::Done)
            }
            Op::Provision(base) => self.provision(scenario, base, command.boot),
            Op::PowerOn => self.power_on(),
            Op::AwaitTools => return self.await_tools(),
            Op::LogIn => {
                return self.by_agent(|world, _| (world.session, world.session_lost) = (true, false));
            }
            Op::MakeWorkdir => return self.in_guest(scenario, |_, guest| guest.workdir = true),
            Op::CopyIn(ix) => return self.copy_in(scenario, ix),
            Op::Launch => return self.launch(scenario),
            Op::Pause => self.hold(Power::Paused),
            Op::Unpause => self.hold(Power::On),
            Op::BeginSnapshot(generation) => self.begin_snapshot(scenario, generation),
            Op::CommitSnapshot(generation) => self.commit_snapshot(generation),
            Op::RemoveSnapshot(generation) => {
                self.remove_snapshot(generation);
                Ok(Reply::Done)
            }
            Op::CopyOut(ix) => return self.copy_out(scenario, ix),
            Op::PowerOff => {
                self.power_off();
                Ok(Reply::Done)
            }
            Op::Unregister(keep) => {
                self.unregister(keep);
                Ok(Reply::Done)
            }
        })
    }

    /// What a probe finds.
    #[must_use]
    pub fn probe(&self, scenario: &Scenario) -> Found {
        let may_look = self.power == Power::On && (self.session || !scenario.plan().capabilities().guest_login);
        let program = match &self.guest {
            Some(guest) if may_look => guest.program_seen(scenario.exit),
            _ => Program::Unknown,
        };
        let listed = |damaged: bool| {
            let whole = self.snapshots.iter().flatten().filter(|s| s.whole);
            whole.filter(move |s| (s.health == Health::SeenDamaged) == damaged).map(|s| s.generation)
        };
        Found {
            registered: self.registered,
            power: self.power,
            program,
            snapshots: Generations::from_iter(listed(false)),
            damaged: Generations::from_iter(listed(true)),
        }
    }

    fn provision(&mut self, scenario: &Scenario, base: Base, boot: Boot) -> Result<Reply, Fault> {
        let (guest, starts) = match base {
            Base::Baseline => (Guest::booted(scenario, scenario.warm), true),
            Base::Checkpoint(generation) => match self.snapshot(generation) {
                None => return fault(FaultKind::NotFound),
                // Without a manifest it is no checkpoint.
                Some(Snapshot { whole: false, .. }) => return fault(FaultKind::NotFound),
                Some(snapshot) => match snapshot.health {
                    Health::BadAtProvision | Health::SeenDamaged | Health::Litter => return fault(FaultKind::Damaged),
                    Health::NotStarted => (Guest::booted(scenario, true), true),
                    Health::Older => (self.oldest_guest().unwrap_or(snapshot.guest), true),
                    health => (snapshot.guest, health == Health::Good),
                },
            },
        };
        self.power_off();
        self.boot = boot;
        self.staged = Some(Staged { guest, base, starts });
        self.fresh = true;
        self.rebooted = false;
        if base == Base::Baseline {
            self.launches = 0;
        }
        let running = base == Base::Baseline && scenario.warm;
        if running {
            self.power_on()?;
        }
        Ok(Reply::Provisioned { running })
    }

    fn power_on(&mut self) -> Result<Reply, Fault> {
        if self.power == Power::Paused {
            // A suspended VM that is started runs on.
            self.power = Power::On;
        }
        if self.power == Power::Off {
            match self.staged {
                Some(Staged { guest, starts: true, .. }) => self.guest = Some(guest),
                Some(Staged { starts: false, .. }) => return fault(FaultKind::Rejected),
                None => return fault(FaultKind::NotFound),
            }
            self.power = Power::On;
            self.session = false;
        }
        Ok(Reply::Done)
    }

    /// The agent of a guest that runs; without one there is a broken connection (VM off) or silence.
    fn by_agent(&mut self, act: impl FnOnce(&mut Self, &mut Guest)) -> Answer {
        let Some(mut guest) = self.guest else { return Some(fault(FaultKind::Unknown)) };
        if self.power != Power::On || !guest.answers() {
            return None;
        }
        act(self, &mut guest);
        self.guest = Some(guest);
        Some(Ok(Reply::Done))
    }

    /// The same for what needs a log-in.
    fn in_guest(&mut self, scenario: &Scenario, act: impl FnOnce(&mut Self, &mut Guest)) -> Answer {
        let login = scenario.plan().capabilities().guest_login;
        if login && !self.session && self.power == Power::On && self.guest.is_some_and(|g| g.answers()) {
            return Some(fault(FaultKind::Refused));
        }
        self.by_agent(act)
    }

    fn launch(&mut self, scenario: &Scenario) -> Answer {
        let mut found = true;
        let answer = self.in_guest(scenario, |world, guest| {
            found = guest.marker || (guest.workdir && guest.has_all(scenario));
            if found && guest.launch(TICK) {
                world.launches = world.launches.saturating_add(1);
            }
        });
        if found { answer } else { Some(fault(FaultKind::NotFound)) }
    }

    fn await_tools(&mut self) -> Answer {
        let Some(guest) = &mut self.guest else { return Some(fault(FaultKind::Unknown)) };
        if self.power != Power::On || guest.hung {
            return Some(Ok(Reply::Pending));
        }
        Some(Ok(match &mut guest.agent {
            Agent::Up => Reply::Done,
            Agent::Dead => Reply::Pending,
            Agent::Starting(0) => {
                guest.agent = Agent::Up;
                Reply::Done
            }
            Agent::Starting(left) => {
                *left -= 1;
                Reply::Pending
            }
        }))
    }

    fn copy_in(&mut self, scenario: &Scenario, ix: FileIx) -> Answer {
        let slices = scenario.copy_slices;
        let mut done = false;
        let answer = self.in_guest(scenario, |_, guest| {
            // A repetition finds its effect there. Once the program works on its files, a copy does harm.
            let there = guest.whole >> ix.0 & 1 == 1 && !guest.marker;
            let made = match guest.partial {
                Some((other, made)) if other == ix => made,
                _ => 0,
            };
            done = there || made >= slices;
            guest.whole &= !(1 << ix.0);
            guest.partial = (!done).then_some((ix, made + 1));
            if done {
                guest.whole |= 1 << ix.0;
            }
        });
        answer.map(|result| result.map(|_| if done { Reply::Done } else { Reply::Pending }))
    }

    fn hold(&mut self, to: Power) -> Result<Reply, Fault> {
        if self.power == Power::Off {
            return fault(FaultKind::Unknown);
        }
        self.power = to;
        Ok(Reply::Done)
    }

    fn begin_snapshot(&mut self, scenario: &Scenario, generation: Generation) -> Result<Reply, Fault> {
        let Some(guest) = self.guest else { return fault(FaultKind::Unknown) };
        if self.stream.is_some_and(|s| s.generation == generation) {
            return Ok(Reply::Done);
        }
        self.begun = self.begun.max(generation.0);
        self.remove_snapshot(generation);
        self.sweep();
        let Some(place) = self.snapshots.iter_mut().find(|s| s.is_none()) else {
            return fault(FaultKind::NoSpace);
        };
        *place = Some(Snapshot { generation, guest, whole: false, health: Health::Good });
        self.stream = Some(Stream { generation, left: scenario.commit_slices });
        Ok(Reply::Done)
    }

    fn commit_snapshot(&mut self, generation: Generation) -> Result<Reply, Fault> {
        match self.stream {
            Some(stream) if stream.generation == generation => {
                let left = stream.left;
                if left > 0 {
                    self.stream = Some(Stream { generation, left: left - 1 });
                    return Ok(Reply::Pending);
                }
                self.stream = None;
                if let Some(snapshot) = self.snapshots.iter_mut().flatten().find(|s| s.generation == generation) {
                    snapshot.whole = true;
                }
                Ok(Reply::Done)
            }
            _ if self.snapshot(generation).is_some_and(|s| s.whole) => Ok(Reply::Done),
            // The stream went with the VM.
            _ if self.power == Power::Off => fault(FaultKind::Unknown),
            _ => fault(FaultKind::NotFound),
        }
    }

    fn copy_out(&mut self, scenario: &Scenario, ix: FileIx) -> Answer {
        let made = match self.copying_out {
            Some((other, made)) if other == ix => made,
            _ => 0,
        };
        let mut there = None;
        let answer = self.in_guest(scenario, |_, guest| {
            there = (guest.marker && scenario.writes_outputs()).then_some(guest.program.state);
        });
        if !matches!(answer, Some(Ok(_))) {
            return answer;
        }
        let Some(state) = there else { return Some(fault(FaultKind::NotFound)) };
        if made < scenario.copy_slices {
            self.copying_out = Some((ix, made + 1));
            return Some(Ok(Reply::Pending));
        }
        self.copying_out = None;
        if let Some(result) = self.results.get_mut(ix.index()) {
            *result = Some(output_of(state, ix.index()));
        }
        Some(Ok(Reply::Done))
    }

    /// Everything in memory is gone.
    pub fn power_off(&mut self) {
        self.power = Power::Off;
        self.guest = None;
        self.staged = None;
        self.stream = None;
        self.session = false;
        self.session_lost = false;
        self.copying_out = None;
    }

    fn unregister(&mut self, keep: Keep) {
        self.registered = false;
        self.staged = None;
        match keep {
            Keep::Nothing => self.snapshots = [None; MAX_SNAPSHOTS],
            Keep::Checkpoints => self.sweep(),
        }
    }

    /// What no manifest names, and nobody writes any more, goes.
    fn sweep(&mut self) {
        for place in &mut self.snapshots {
            *place = place.filter(|s| s.whole || self.stream.is_some_and(|stream| stream.generation == s.generation));
        }
    }

    /// Some of the effects of a command that has several, and not the last.
    pub fn act_by_half(&mut self, op: Op) {
        match op {
            // The manifest goes first, and comes last.
            Op::RemoveSnapshot(generation) | Op::CommitSnapshot(generation) => {
                self.stream = self.stream.filter(|s| s.generation != generation);
                for snapshot in self.snapshots.iter_mut().flatten().filter(|s| s.generation == generation) {
                    (snapshot.whole, snapshot.health) = (false, Health::Litter);
                }
            }
            Op::Unregister(keep) => {
                self.registered = false;
                if keep == Keep::Nothing
                    && let Some(oldest) = self.snapshots.iter_mut().find(|s| s.is_some())
                {
                    *oldest = None;
                }
            }
            _ => self.power_off(),
        }
    }

    /// Of one that is being written: gives up writing it.
    fn remove_snapshot(&mut self, generation: Generation) {
        self.stream = self.stream.filter(|s| s.generation != generation);
        for place in &mut self.snapshots {
            if place.is_some_and(|s| s.generation == generation) {
                *place = None;
            }
        }
    }

    /// A checkpoint on disk, whole or not.
    #[must_use]
    pub fn snapshot(&self, generation: Generation) -> Option<&Snapshot> {
        self.snapshots.iter().flatten().find(|s| s.generation == generation)
    }

    /// Whether this checkpoint would restore, to a guest that goes on.
    #[must_use]
    pub fn restores(&self, generation: Generation) -> bool {
        self.snapshot(generation).is_some_and(|s| s.whole && s.health == Health::Good && s.guest.is_sound())
    }

    /// The newest checkpoint that a manifest names.
    #[must_use]
    pub fn newest_whole(&self) -> Option<Generation> {
        self.snapshots.iter().flatten().filter(|s| s.whole).map(|s| s.generation).max()
    }

    /// What is in the oldest checkpoint that restores.
    fn oldest_guest(&self) -> Option<Guest> {
        let sound = self.snapshots.iter().flatten().filter(|s| s.whole && s.health == Health::Good);
        sound.min_by_key(|s| s.generation).map(|s| s.guest)
    }

    /// Whether the manifest names this checkpoint.
    #[must_use]
    pub fn is_whole(&self, generation: Generation) -> bool {
        self.snapshot(generation).is_some_and(|s| s.whole)
    }

    /// The checkpoint that the next power-on starts from, or that the VM was started from.
    #[must_use]
    pub const fn staged_checkpoint(&self) -> Option<Generation> {
        match self.staged {
            Some(Staged { base: Base::Checkpoint(generation), .. }) => Some(generation),
            _ => None,
        }
    }

    /// Somebody deletes a checkpoint.
    pub fn delete(&mut self, generation: Generation) {
        self.remove_snapshot(generation);
    }

    /// The session in the guest is over.
    pub const fn lose_session(&mut self) {
        (self.session, self.session_lost) = (false, true);
    }

    /// A checkpoint goes bad, as one that was written to a failing disk.
    pub fn spoil(&mut self, generation: Generation, health: Health) {
        for snapshot in self.snapshots.iter_mut().flatten().filter(|s| s.generation == generation) {
            snapshot.health = health;
        }
    }

    /// All checkpoints are found damaged.
    pub fn spoil_all(&mut self) {
        for snapshot in self.snapshots.iter_mut().flatten().filter(|s| s.whole) {
            snapshot.health = Health::SeenDamaged;
        }
    }

    /// Takes care that no earlier command acts any more. The stream goes; the VM stays unless it `dies`.
    pub fn fence(&mut self, dies: bool) -> bool {
        self.stream = None;
        self.copying_out = None;
        if dies {
            self.power_off();
        }
        if let Some(guest) = &mut self.guest {
            guest.partial = None;
            // Reviving the agent is tried before anything else.
            if guest.agent == Agent::Dead {
                guest.agent = Agent::Up;
            }
        }
        self.power != Power::Off
    }

    /// The manager's process is gone, and what lives in it.
    pub fn lose_manager(&mut self, scenario: &Scenario) {
        self.interrupt_stream();
        if scenario.outlives_manager() {
            self.stream = None;
            (self.session, self.session_lost) = (false, false);
            self.copying_out = None;
        } else {
            self.power_off();
        }
    }

    /// The computer is gone, and what lives in its memory.
    pub fn lose_power(&mut self, scenario: &Scenario) {
        if self.power == Power::Paused && scenario.suspends_to_disk() {
            self.lose_manager(scenario);
        } else {
            self.interrupt_stream();
            self.power_off();
        }
    }

    /// What was being written is nobody's.
    fn interrupt_stream(&mut self) {
        for snapshot in self.snapshots.iter_mut().flatten().filter(|s| !s.whole) {
            snapshot.health = Health::Litter;
        }
    }

    /// The guest starts again from its beginning; its working directory was in memory.
    pub fn reboot(&mut self, scenario: &Scenario) {
        self.guest = Some(Guest::booted(scenario, false));
        self.session = false;
        self.stream = None;
        self.rebooted = true;
    }

    /// Whether the program makes steps at the moment.
    #[must_use]
    pub fn works(&self) -> bool {
        self.power == Power::On && self.guest.is_some_and(|g| g.works())
    }

    /// Time passes; no more than until the program's next step.
    pub fn pass(&mut self, millis: u64) {
        if self.works()
            && let Some(guest) = &mut self.guest
        {
            guest.until_step = guest.until_step.saturating_sub(millis);
        }
    }

    /// The program's next step. Returns what an adapter sees of it, if the agent answers.
    pub fn step(&mut self, scenario: &Scenario) -> Option<Event> {
        let guest = self.guest.as_mut()?;
        let exited = guest.step(scenario);
        guest.until_step = TICK;
        if !guest.answers() || guest.is_idle(scenario) {
            return None;
        }
        let done = u64::from(guest.program.steps);
        let permille = u16::try_from(done * 1000 / u64::from(scenario.steps.max(1))).unwrap_or(1000).min(1000);
        Some(match exited {
            true => Event::ProgramExited(scenario.exit),
            false => Event::Progress { permille: Some(permille), cpu_ms: done * TICK },
        })
    }

    const fn needs_login(&self, scenario: &Scenario) -> bool {
        scenario.plan().capabilities().guest_login && !self.session && !self.session_lost
    }

    /// Whether a correct machine may hand out this command now.
    #[must_use]
    pub fn misuse(&self, scenario: &Scenario, op: Op) -> Option<Misuse> {
        let on = self.power != Power::Off;
        let in_guest = matches!(op, Op::MakeWorkdir | Op::CopyIn(_) | Op::Launch | Op::CopyOut(_));
        let beside_stream = in_guest || matches!(op, Op::RemoveSnapshot(_) | Op::AwaitTools | Op::LogIn);
        let guest = self.guest.filter(|_| self.power == Power::On && !self.rebooted);
        Some(match op {
            Op::Provision(_) if on && !self.fresh => Misuse::ProvisionedWhileOn,
            Op::Unregister(_) if on => Misuse::UnregisteredWhileOn,
            Op::Provision(_) | Op::PowerOn if !self.registered => Misuse::NotRegistered,
            Op::BeginSnapshot(_) if scenario.plan().capabilities().snapshots == Snapshots::None => {
                Misuse::NoSnapshotsHere
            }
            Op::BeginSnapshot(g) if self.stream.is_some_and(|s| s.generation != g) => Misuse::TwoStreams,
            Op::BeginSnapshot(g) if self.stream.is_none() && g.0 < self.begun => Misuse::NumberReused,
            Op::BeginSnapshot(g) if self.snapshot(g).is_some_and(|s| s.whole) => Misuse::NumberReused,
            _ if beside_stream && on && self.stream.is_some() => Misuse::BesideTheStream,
            _ if in_guest && guest.is_some() && self.needs_login(scenario) => Misuse::NotLoggedIn,
            Op::CopyIn(_) if guest.is_some_and(|g| g.marker) => Misuse::InputAfterLaunch,
            Op::Launch if guest.is_some_and(|g| !(g.marker || g.workdir && g.has_all(scenario))) => {
                Misuse::LaunchedTooEarly
            }
            // A program that has run for as long as it may goes on.
            Op::CopyOut(_) if guest.is_some_and(|g| !g.program.exited) && !scenario.hangs => Misuse::CollectedTooEarly,
            _ => return None,
        })
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
