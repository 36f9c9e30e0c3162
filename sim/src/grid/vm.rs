//! The light-weight world of one host: a virtual machine, or a process, of which only the time counts.
//!
//! What `World` is to a run of the explorer, this is to a host among a million: the same contract, but a program is a
//! length of time, and a checkpoint is how much of it was done.

use vmtask_core::{
    Base, Boot, Command, ExitStatus, Fault, FaultKind, Found, Generation, Generations, Keep, Op, Power, Program, Reply,
};

use super::arm::Arm;
use super::draw::once_in;
use crate::choose::Prng;

/// How many checkpoints there is room for: two that are kept, one that is written, one that is in the way.
const ROOM: usize = 4;
/// One checkpoint in so many does not restore.
const BAD: u64 = 500;

/// How the program in the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// Not started.
    Fresh,
    Works,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    /// 0: none.
    number: u32,
    done: u32,
    whole: bool,
    bad: bool,
}

const NONE: Checkpoint = Checkpoint { number: 0, done: 0, whole: false, bad: false };

/// Why a guest was lost with what it had computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// A crash: of the manager, the guest or the hypervisor, or the power went.
    Crash,
    /// The volunteer switched the computer off.
    SwitchedOff,
}

/// How long programs ran, and what became of it. In milliseconds of hosts' time, over all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hours {
    pub(super) computed: u64,
    pub(super) lost_by_crash: u64,
    pub(super) lost_by_switching_off: u64,
    pub(super) thrown_away: u64,
}

/// What a command's effect depends on besides the virtual machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub(super) arm: Arm,
    /// What a program prints here, as a place in the table of classes.
    pub(super) value: u8,
    /// Why the virtual machine is off, if it is powered off now.
    pub(super) why_off: Loss,
}

/// One virtual machine.
#[derive(Clone, Debug)]
pub(super) struct Vm {
    registered: bool,
    pub(super) power: Power,
    guest: Guest,
    slices: u8,
    /// The value of the result that was copied out, as a place in the table of classes.
    pub(super) result: Option<u8>,
    boot: Boot,
    /// How long the program runs in all, and has run until `since`.
    need: u32,
    done: u32,
    since: u64,
    /// How much of the program is done in what the next power-on starts; `None` for a fresh guest.
    staged: Option<u32>,
    stream: Option<Generation>,
    /// What was done when the guest was lost, and why it was.
    lost: Option<(u32, Loss)>,
    checkpoints: [Checkpoint; ROOM],
}

const fn fault(kind: FaultKind) -> Result<Reply, Fault> {
    Err(Fault::new(kind))
}

impl Vm {
    /// Nothing yet, for a program that runs for `need`.
    pub(super) const fn new(need: u32) -> Self {
        Self {
            registered: false,
            power: Power::Off,
            guest: Guest::Fresh,
            slices: 0,
            result: None,
            boot: Boot { epoch: 0, seq: 0 },
            need,
            done: 0,
            since: 0,
            staged: None,
            stream: None,
            lost: None,
            checkpoints: [NONE; ROOM],
        }
    }

    /// When the program ends, if nothing comes between.
    pub(super) fn ends_at(&self) -> Option<u64> {
        let works = self.power == Power::On && self.guest == Guest::Works;
        works.then(|| self.since + u64::from(self.need - self.done))
    }

    /// The program ends. Returns the boot it did so in.
    pub(super) fn end(&mut self, now: u64, hours: &mut Hours) -> Boot {
        self.catch_up(now, hours);
        self.guest = Guest::Ended;
        self.boot
    }

    pub(super) const fn boot(&self) -> Boot {
        self.boot
    }

    /// Brings the program's time up to now.
    fn catch_up(&mut self, now: u64, hours: &mut Hours) {
        if self.power == Power::On && self.guest == Guest::Works {
            let ran = (now - self.since).min(u64::from(self.need - self.done));
            self.done += u32::try_from(ran).unwrap_or(u32::MAX);
            hours.computed += ran;
        }
        self.since = now;
    }

    /// Everything in memory is gone.
    pub(super) fn power_off(&mut self, now: u64, why: Loss, hours: &mut Hours) {
        self.catch_up(now, hours);
        if self.power != Power::Off && self.result.is_none() && self.done > 0 {
            self.lost = Some((self.done, why));
        }
        self.power = Power::Off;
        self.guest = Guest::Fresh;
        self.done = 0;
        self.stream = None;
        self.staged = None;
    }

    /// No earlier command acts any more.
    pub(super) const fn fence(&mut self) {
        self.stream = None;
    }

    /// What was computed and will not be gone on with.
    pub(super) fn throw_away(&mut self, hours: &mut Hours) {
        let lost = self.lost.take().map_or(0, |(done, _)| done);
        hours.thrown_away += u64::from(lost.max(self.done));
    }

    /// Whether nothing is left but results.
    pub(super) fn is_gone(&self) -> bool {
        self.power == Power::Off && !self.registered && self.checkpoints.iter().all(|c| c.number == 0)
    }

    /// Something that a correct machine never asks for.
    pub(super) fn misuse(&self, op: Op) -> Option<&'static str> {
        let on = self.power != Power::Off;
        match op {
            Op::Provision(_) if on => Some("provisions a virtual machine that is on"),
            Op::Unregister(_) if on => Some("unregisters a virtual machine that is on"),
            Op::Provision(_) | Op::PowerOn if !self.registered => Some("starts what is not registered"),
            Op::BeginSnapshot(_) if self.stream.is_some() => Some("begins a checkpoint beside another"),
            Op::CopyIn(_) | Op::MakeWorkdir if self.guest != Guest::Fresh => Some("copies in after the launch"),
            _ => None,
        }
    }

    /// Carries out one command.
    pub(super) fn carry_out(
        &mut self,
        site: Site,
        command: &Command,
        now: u64,
        hours: &mut Hours,
        prng: &mut Prng,
    ) -> Result<Reply, Fault> {
        if command.boot.epoch != self.boot.epoch {
            // What a new manager finds is boot 0 of that manager's.
            self.boot = command.boot;
        }
        self.catch_up(now, hours);
        let on = self.power != Power::Off;
        match command.op {
            Op::Probe => return Ok(Reply::Found(self.probe())),
            Op::Register => self.registered = true,
            Op::Provision(base) => return self.provision(base, command.boot),
            Op::PowerOn => self.power_on(now, hours),
            Op::PowerOff => self.power_off(now, site.why_off, hours),
            Op::Unregister(keep) => {
                self.registered = false;
                if keep == Keep::Nothing {
                    self.checkpoints = [NONE; ROOM];
                }
            }
            Op::RemoveSnapshot(generation) => {
                if let Some(checkpoint) = self.checkpoint(generation) {
                    *checkpoint = NONE;
                }
            }
            // Everything else needs a guest.
            _ if !on => return fault(FaultKind::Unknown),
            Op::AwaitTools | Op::LogIn | Op::MakeWorkdir | Op::CopyIn(_) => {}
            Op::Launch if self.guest == Guest::Fresh => self.guest = Guest::Works,
            Op::Launch => {}
            Op::Pause => self.power = Power::Paused,
            Op::Unpause => self.power = Power::On,
            Op::BeginSnapshot(generation) => return self.begin(generation, site.arm, prng),
            Op::CommitSnapshot(generation) => return self.commit(generation),
            Op::CopyOut(_) if self.guest != Guest::Ended => return fault(FaultKind::NotFound),
            Op::CopyOut(_) => self.result = Some(site.value),
        }
        Ok(Reply::Done)
    }

    fn probe(&self) -> Found {
        let program = match (self.power, self.guest) {
            (Power::Off | Power::Paused, _) => Program::Unknown,
            (Power::On, Guest::Fresh) => Program::NotStarted,
            (Power::On, Guest::Works) => Program::Running,
            (Power::On, Guest::Ended) => Program::Exited(ExitStatus::Code(0)),
        };
        let whole = self.checkpoints.iter().filter(|c| c.whole).map(|c| Generation(c.number));
        Found {
            registered: self.registered,
            power: self.power,
            program,
            snapshots: Generations::from_iter(whole),
            damaged: Generations::NONE,
        }
    }

    fn provision(&mut self, base: Base, boot: Boot) -> Result<Reply, Fault> {
        self.boot = boot;
        self.staged = match base {
            Base::Baseline => None,
            Base::Checkpoint(generation) => match self.checkpoint(generation) {
                None => return fault(FaultKind::NotFound),
                Some(Checkpoint { bad: true, .. } | Checkpoint { whole: false, .. }) => {
                    return fault(FaultKind::Fatal);
                }
                Some(checkpoint) => Some(checkpoint.done),
            },
        };
        Ok(Reply::Provisioned { running: false })
    }

    fn power_on(&mut self, now: u64, hours: &mut Hours) {
        if self.power != Power::Off {
            return;
        }
        self.power = Power::On;
        self.since = now;
        self.done = self.staged.unwrap_or(0);
        self.guest = if self.staged.is_some() { Guest::Works } else { Guest::Fresh };
        if let Some((done, why)) = self.lost.take() {
            let again = u64::from(done.saturating_sub(self.done));
            match why {
                Loss::Crash => hours.lost_by_crash += again,
                Loss::SwitchedOff => hours.lost_by_switching_off += again,
            }
        }
    }

    fn checkpoint(&mut self, generation: Generation) -> Option<&mut Checkpoint> {
        self.checkpoints.iter_mut().find(|c| c.number == generation.0)
    }

    fn begin(&mut self, generation: Generation, arm: Arm, prng: &mut Prng) -> Result<Reply, Fault> {
        let done = self.done;
        // Of its own number, if that is begun once more; else a free one.
        let at = self.checkpoints.iter().position(|c| c.number == generation.0);
        let Some(at) = at.or_else(|| self.checkpoints.iter().position(|c| c.number == 0)) else {
            return fault(FaultKind::NoSpace);
        };
        self.checkpoints[at] = Checkpoint { number: generation.0, done, whole: false, bad: once_in(prng, BAD) };
        self.stream = Some(generation);
        self.slices = arm.commit_slices();
        Ok(Reply::Done)
    }

    fn commit(&mut self, generation: Generation) -> Result<Reply, Fault> {
        if self.stream != Some(generation) {
            return fault(FaultKind::NotFound);
        }
        self.slices -= 1;
        if self.slices > 0 {
            return Ok(Reply::Pending);
        }
        self.stream = None;
        if let Some(checkpoint) = self.checkpoint(generation) {
            checkpoint.whole = true;
        }
        Ok(Reply::Done)
    }
}
