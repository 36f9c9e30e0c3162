//! Following a plan, and writing one down.

use vmtask_core::{Machine, Stimulus};

use super::{Anchor, Line};
use crate::act::{Act, Director, Moment, Options, dishonest, phase_key};

impl Anchor {
    fn matches(self, moment: &Moment) -> bool {
        match (self, *moment) {
            (Self::Command(kind, n), Moment::Command(k, m)) => kind == k && n == m,
            (Self::Write(n), Moment::Write(m))
            | (Self::Fence(n), Moment::Fence(m))
            | (Self::Event(n), Moment::Event(m)) => n == m,
            (Self::After(wanted), Moment::Between { mark, happened, .. }) => wanted == mark || wanted == happened,
            (Self::Phase { phase, number, .. }, Moment::Between { phase: now, .. }) => {
                let (place, has) = phase_key(now);
                place == phase && (number.is_none() || number == has)
            }
            _ => false,
        }
    }
}

/// What a line has seen so far.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    done: bool,
    /// How often the phase that it names was entered, whether the task is in it, and when the right entry was.
    entries: u16,
    inside: bool,
    entered: Option<u64>,
}

impl Progress {
    /// Whether the line's time has come.
    fn follow(&mut self, line: &Line, moment: &Moment) -> bool {
        let here = line.anchor.matches(moment);
        let (Anchor::Phase { nth, later, .. }, Moment::Between { at, .. }) = (line.anchor, *moment) else {
            return here;
        };
        if here && !self.inside {
            self.entries = self.entries.saturating_add(1);
        }
        self.inside = here;
        if here && self.entries >= nth {
            let entered = *self.entered.get_or_insert(at);
            return at >= entered.saturating_add(later.unwrap_or(0));
        }
        false
    }
}

/// A line that was not possible at its moment.
#[derive(Clone, Debug)]
pub struct Impossible {
    /// Its place among the lines.
    pub place: usize,
    /// Why not.
    pub why: &'static str,
    /// What would have been.
    pub instead: Vec<Act>,
}

/// Lets happen what a plan says, and what another director adds.
#[derive(Debug)]
pub struct Script<'a, D> {
    lines: &'a [Line],
    progress: Vec<Progress>,
    /// Lines whose moment came, but at which they were not possible.
    pub impossible: Vec<Impossible>,
    beside: D,
}

impl<'a, D: Director> Script<'a, D> {
    /// Follows `lines`; whatever they leave open is up to `beside`.
    pub fn new(lines: &'a [Line], beside: D) -> Self {
        Self { lines, progress: vec![Progress::default(); lines.len()], impossible: vec![], beside }
    }

    /// The places of the lines whose moment never came.
    pub fn never(&self) -> impl Iterator<Item = usize> + '_ {
        self.progress.iter().enumerate().filter(|(_, progress)| !progress.done).map(|(place, _)| place)
    }
}

impl<D: Director> Director for Script<'_, D> {
    /// A plan may name other times and numbers than are tried by an exploration, where anything of the kind is possible.
    fn widen(&mut self, moment: &Moment, options: &mut Options) {
        for (line, progress) in self.lines.iter().zip(&self.progress) {
            let open = !progress.done && line.anchor.matches(moment);
            if open && options.as_slice().iter().any(|act| act.is_akin(line.act)) {
                options.offer(line.act);
            }
        }
    }

    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        let mut choice = None;
        for (place, (line, progress)) in self.lines.iter().zip(&mut self.progress).enumerate() {
            // Each sees every moment, also those at which something else happens.
            let now = progress.follow(line, moment) && !progress.done;
            if !now || choice.is_some() {
                continue;
            }
            progress.done = true;
            choice = options.iter().position(|act| *act == line.act);
            if choice.is_none() {
                let why = why_not(line.act, moment);
                self.impossible.push(Impossible { place, why, instead: options.to_vec() });
            }
        }
        choice.map_or_else(|| self.beside.direct(moment, options), |at| at + 1)
    }

    fn before(&mut self, machine: &Machine, stimulus: &Stimulus) {
        self.beside.before(machine, stimulus);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        self.beside.tell(at, what);
    }
}

/// Why something is not possible at a moment of its kind.
const fn why_not(act: Act, moment: &Moment) -> &'static str {
    match (act, moment) {
        (Act::Fail(kind), Moment::Command(op, _)) => match dishonest(*op, kind) {
            Some(why) => why,
            None => "no adapter answers so",
        },
        (Act::GuestStop, _) => "the VM is off",
        (Act::GuestReboot | Act::GuestHang | Act::AgentDies, _) => "the VM does not run",
        (Act::ProgramEnds, _) => "the program does not run",
        (Act::Spoil(_), _) => "no checkpoint is whole after this command",
        _ => "it does not concern this command",
    }
}

/// Writes down what another director decides, as the lines of a plan.
#[derive(Debug)]
pub struct Scribe<D> {
    inner: D,
    /// What was decided.
    pub lines: Vec<Line>,
}

impl<D: Director> Scribe<D> {
    /// Writes down what `inner` decides.
    pub const fn new(inner: D) -> Self {
        Self { inner, lines: Vec::new() }
    }
}

impl<D: Director> Director for Scribe<D> {
    fn widen(&mut self, moment: &Moment, options: &mut Options) {
        self.inner.widen(moment, options);
    }

    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        let choice = self.inner.direct(moment, options);
        if let Some(&act) = choice.checked_sub(1).and_then(|at| options.get(at)) {
            let anchor = match *moment {
                Moment::Command(kind, n) => Anchor::Command(kind, n),
                Moment::Write(n) => Anchor::Write(n),
                Moment::Fence(n) => Anchor::Fence(n),
                Moment::Event(n) => Anchor::Event(n),
                Moment::Between { mark, .. } => Anchor::After(mark),
            };
            self.lines.push(Line { anchor, act });
        }
        choice
    }

    fn before(&mut self, machine: &Machine, stimulus: &Stimulus) {
        self.inner.before(machine, stimulus);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        self.inner.tell(at, what);
    }
}
