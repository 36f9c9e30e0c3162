//! The guest: its agent, its files, and a program whose result is computed, never looked up.
//!
//! The program keeps a running hash. Every step mixes in its own number and a byte of each input file, read from the
//! guest's working directory at that moment. So a step too many or too few, a second instance beside the first, a state
//! from another checkpoint, or a file that is being overwritten while the program runs: each gives another result.

use vmtask_core::{ExitStatus, FileIx, Generation, Program};

use crate::choose::scramble;
use crate::scenario::Scenario;

/// What is in a guest's memory, and with it in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guest {
    /// The agent.
    pub agent: Agent,
    /// The kernel has stopped doing anything.
    pub hung: bool,
    /// The task's working directory is there.
    pub workdir: bool,
    /// The input files that are as they should be: a bit for each.
    pub whole: u64,
    /// An input file that is being written, and how many slices are done.
    pub partial: Option<(FileIx, u8)>,
    /// The marker that makes a second launch a no-op.
    pub marker: bool,
    /// The program.
    pub program: Running,
    /// Milliseconds until its next step.
    pub until_step: u64,
}

/// The agent in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Agent {
    /// It answers after this many more slices.
    Starting(u8),
    /// It answers.
    Up,
    /// It does not answer, and will not before it is started anew.
    Dead,
}

/// The program in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Running {
    /// How many instances run over the same files: more than one is a disaster, and shows in the result.
    pub instances: u8,
    /// The running hash.
    pub state: u64,
    /// How many steps were done.
    pub steps: u32,
    /// Whether it has ended.
    pub exited: bool,
}

impl Guest {
    /// A guest that was just started from the baseline.
    #[must_use]
    pub fn booted(scenario: &Scenario, warm: bool) -> Self {
        Self {
            agent: if warm { Agent::Up } else { Agent::Starting(scenario.boot_slices) },
            hung: false,
            workdir: false,
            whole: 0,
            partial: None,
            marker: false,
            program: Running::default(),
            until_step: 0,
        }
    }

    /// Whether every input file is as it should be.
    #[must_use]
    pub fn has_all(&self, scenario: &Scenario) -> bool {
        self.whole.count_ones() as usize == scenario.inputs.len()
    }

    /// Whether the agent answers.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.agent == Agent::Up && !self.hung
    }

    /// Whether it will answer and go on, now or later.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.agent != Agent::Dead && !self.hung
    }

    /// Starts the program unless the marker says that it was; whether it did.
    pub const fn launch(&mut self, step_ms: u64) -> bool {
        if self.marker {
            return false;
        }
        self.marker = true;
        self.program.instances += 1;
        self.until_step = step_ms;
        true
    }

    /// Whether the program makes steps as long as the processors run.
    #[must_use]
    pub const fn works(&self) -> bool {
        self.program.instances > 0 && !self.program.exited && !self.hung
    }

    /// Whether it has done all of its steps, and goes on without doing anything.
    #[must_use]
    pub const fn is_idle(&self, scenario: &Scenario) -> bool {
        scenario.hangs && self.program.steps >= scenario.steps
    }

    /// One step of the program, of every instance of it. Returns whether it ended.
    pub fn step(&mut self, scenario: &Scenario) -> bool {
        // One that hangs idles, in a guest that is sound.
        let works = if self.is_idle(scenario) { 0 } else { self.program.instances };
        for _ in 0..works {
            let Running { state, steps, .. } = self.program;
            self.program.state = next_state(scenario, state, steps, self.whole);
            self.program.steps += 1;
        }
        self.program.exited = self.program.steps >= scenario.steps && !scenario.hangs;
        self.program.exited
    }

    /// What a probe says about the program.
    #[must_use]
    pub fn program_seen(&self, exit: ExitStatus) -> Program {
        match self.program {
            _ if !self.answers() => Program::Unknown,
            Running { exited: true, .. } => Program::Exited(exit),
            Running { instances: 0, .. } => Program::NotStarted,
            Running { .. } => Program::Running,
        }
    }
}

/// A checkpoint on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Its number.
    pub generation: Generation,
    /// What is in it.
    pub guest: Guest,
    /// Whether the manifest names it.
    pub whole: bool,
    /// Whether it can be restored.
    pub health: Health,
}

/// Whether a whole checkpoint restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It does.
    Good,
    /// It is damaged: found when it is to be restored.
    BadAtProvision,
    /// Its files are sound, and the hypervisor that made it fails to start from it.
    BadAtPowerOn,
    /// It is damaged, and a probe sees that.
    SeenDamaged,
    /// It restores a guest in which the program was never started.
    NotStarted,
    /// It restores the state of the oldest checkpoint that is there.
    Older,
    /// A file that no manifest names: it is nobody's checkpoint, and goes when the next one is begun.
    Litter,
}

/// What one output file contains, as the 64 bits that stand for it in the small world.
#[must_use]
pub(crate) const fn output_of(state: u64, ix: usize) -> u64 {
    scramble(state ^ scramble(ix as u64 + 1))
}

/// The right result: the program run from its beginning to its end by itself, without any of the rest.
#[must_use]
pub(crate) fn right_state(scenario: &Scenario) -> u64 {
    (0..scenario.steps).fold(0, |state, step| next_state(scenario, state, step, u64::MAX))
}

/// One step: mixes in its number and what it reads from each input file; from one that is not whole, what it should
/// not have read.
fn next_state(scenario: &Scenario, state: u64, step: u32, whole: u64) -> u64 {
    let mut state = scramble(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ u64::from(step));
    for (ix, content) in scenario.inputs.iter().enumerate() {
        let read = match content.get(step as usize % content.len().max(1)) {
            Some(&byte) if whole >> ix & 1 == 1 => u64::from(byte),
            Some(_) => 0xdead,
            None => 0x100,
        };
        state = scramble(state ^ read ^ (ix as u64) << 32);
    }
    state
}
