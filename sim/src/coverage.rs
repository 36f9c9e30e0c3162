//! Which cells of the core's table were met: what a search has tried is a figure, not a feeling.
//!
//! A cell is a phase and a trigger. Of each it is known whether it was met, how often, and if it was not, why it cannot
//! be: the table says so, or the world keeps to the contract of adapters.

use std::fmt;

use vmtask_core::table::{Expected, PhaseKind, Trigger, expected};
use vmtask_core::{FaultKind, Intent, Machine, OpKind, Stimulus};

use crate::act::{Act, Director, Moment, dishonest};
use crate::trace::Told;

const ROWS: usize = PhaseKind::ALL.len();
const COLUMNS: usize = Trigger::ALL.len();

/// How often each cell was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    cells: [[u64; COLUMNS]; ROWS],
}

/// What is known of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It was met so often.
    Met(u64),
    /// It cannot be met, for this reason.
    Impossible(&'static str),
    /// It was not met, and nobody knows why.
    Missed,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { cells: [[0; COLUMNS]; ROWS] }
    }
}

impl Coverage {
    /// Counts what `machine` is about to be told.
    pub fn count(&mut self, machine: &Machine, stimulus: &Stimulus) {
        let row = PhaseKind::from(machine.phase()) as usize;
        self.cells[row][column(Trigger::of(machine, stimulus))] += 1;
    }

    /// Adds what another search has met.
    pub fn add(&mut self, other: &Self) {
        let cells = self.cells.iter_mut().flatten().zip(other.cells.iter().flatten());
        cells.for_each(|(mine, theirs)| *mine += theirs);
    }

    /// What is known of one cell.
    #[must_use]
    pub fn cell(&self, phase: PhaseKind, trigger: Trigger) -> Cell {
        match self.cells[phase as usize][column(trigger)] {
            0 => why_never(phase, trigger).map_or(Cell::Missed, Cell::Impossible),
            count => Cell::Met(count),
        }
    }

    /// Every cell.
    pub fn cells(&self) -> impl Iterator<Item = (PhaseKind, Trigger, Cell)> + '_ {
        PhaseKind::ALL
            .into_iter()
            .flat_map(|phase| Trigger::ALL.into_iter().map(move |trigger| (phase, trigger)))
            .map(|(phase, trigger)| (phase, trigger, self.cell(phase, trigger)))
    }

    /// How many cells were met, cannot be met, and were missed.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (_, _, cell) in self.cells() {
            let place = match cell {
                Cell::Met(_) => 0,
                Cell::Impossible(_) => 1,
                Cell::Missed => 2,
            };
            counts[place] += 1;
        }
        counts
    }
}

/// A trigger's place in [`Trigger::ALL`].
fn column(trigger: Trigger) -> usize {
    Trigger::ALL.iter().position(|t| *t == trigger).unwrap_or(COLUMNS - 1)
}

/// Why a cell is never met in a world that keeps to the contract.
#[must_use]
pub fn why_never(phase: PhaseKind, trigger: Trigger) -> Option<&'static str> {
    let mut reasons = Intent::ALL.into_iter().map(|intent| expected(phase, intent, trigger));
    let first = reasons.next()?;
    if let Expected::Impossible(why) = first
        && reasons.all(|cell| matches!(cell, Expected::Impossible(_)))
    {
        return Some(why);
    }
    contract(phase, trigger)
}

/// What the table allows and no honest adapter says, or nobody in this world does.
fn contract(phase: PhaseKind, trigger: Trigger) -> Option<&'static str> {
    use PhaseKind as K;
    let sliced = matches!(phase, K::AwaitingTools | K::CopyingIn | K::Committing | K::CopyingOut);
    let of_program = matches!(trigger, Trigger::ProgramExited | Trigger::Progress);
    let of_guest = of_program || matches!(trigger, Trigger::GuestStopped | Trigger::GuestRebooted);
    Some(match trigger {
        Trigger::Pending if !sliced => "only ops that take long are answered in slices",
        // Nobody makes an adapter say so, but the world does of a checkpoint that was deleted.
        Trigger::Failed(FaultKind::NotFound) if phase == K::Provisioning => return None,
        Trigger::Failed(kind) => return dishonest(op_of(phase)?, kind),
        _ if of_guest && phase == K::Created => "there is no VM yet",
        _ if of_guest && phase == K::Registering => "a VM that was found off sends nothing",
        _ if of_program && phase == K::Provisioning => "the guest in the making runs no program",
        _ if of_program && matches!(phase, K::MakingWorkdir | K::CopyingIn) => "the program has not been launched",
        Trigger::JournalLost if phase == K::Created => "nothing has been recorded",
        Trigger::Progress if phase == K::Paused => "a guest at rest makes no progress",
        Trigger::Progress if phase == K::Unregistering => "the VM is off",
        _ => return None,
    })
}

/// The op that is carried out in a phase.
const fn op_of(phase: PhaseKind) -> Option<OpKind> {
    use PhaseKind as K;
    Some(match phase {
        K::Created | K::Paused | K::Fencing | K::Ended => return None,
        K::Probing | K::Examining | K::Running => OpKind::Probe,
        K::Registering => OpKind::Register,
        K::Provisioning => OpKind::Provision,
        K::PoweringOn => OpKind::PowerOn,
        K::AwaitingTools => OpKind::AwaitTools,
        K::LoggingIn => OpKind::LogIn,
        K::MakingWorkdir => OpKind::MakeWorkdir,
        K::CopyingIn => OpKind::CopyIn,
        K::Launching => OpKind::Launch,
        K::Pausing => OpKind::Pause,
        K::Unpausing => OpKind::Unpause,
        K::BeginningSnapshot => OpKind::BeginSnapshot,
        K::Committing => OpKind::CommitSnapshot,
        K::Pruning => OpKind::RemoveSnapshot,
        K::CopyingOut => OpKind::CopyOut,
        K::PoweringOff => OpKind::PowerOff,
        K::Unregistering => OpKind::Unregister,
    })
}

impl fmt::Display for Coverage {
    /// One row a phase, one column a trigger: `#` met, `.` impossible, `?` missed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, trigger) in Trigger::ALL.into_iter().enumerate() {
            writeln!(f, "{:>20}{}{trigger:?}", "", "| ".repeat(place))?;
        }
        for phase in PhaseKind::ALL {
            write!(f, "{:<20}", format!("{phase:?}"))?;
            let marks: Vec<_> = Trigger::ALL.map(|trigger| mark(self.cell(phase, trigger))).into();
            writeln!(f, "{}", marks.join(" "))?;
        }
        let [met, impossible, missed] = self.counts();
        write!(f, "{met} met (#), {impossible} impossible (.), {missed} missed (?)")
    }
}

const fn mark(cell: Cell) -> &'static str {
    match cell {
        Cell::Met(_) => "#",
        Cell::Impossible(_) => ".",
        Cell::Missed => "?",
    }
}

/// Counts what a run meets.
#[derive(Debug)]
pub struct Watching<'a, D> {
    inner: D,
    coverage: &'a mut Coverage,
}

impl<'a, D> Watching<'a, D> {
    /// Counts what happens under `inner`.
    pub const fn new(inner: D, coverage: &'a mut Coverage) -> Self {
        Self { inner, coverage }
    }
}

impl<D: Director> Director for Watching<'_, D> {
    fn widen(&mut self, moment: &Moment, options: &mut crate::act::Options) {
        self.inner.widen(moment, options);
    }

    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        self.inner.direct(moment, options)
    }

    fn before(&mut self, machine: &Machine, stimulus: &Stimulus) {
        self.coverage.count(machine, stimulus);
        self.inner.before(machine, stimulus);
    }

    fn tell(&mut self, at: u64, what: &Told) {
        self.inner.tell(at, what);
    }
}
