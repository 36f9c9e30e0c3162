//! Following a plan, and writing one down.

use vmtask_core::{Input, Machine};

use super::{Anchor, Line};
use crate::act::{Act, Director, Moment, phase_key};

impl Anchor {
    fn matches(self, moment: &Moment) -> bool {
        match (self, *moment) {
            (Self::Command(kind, n), Moment::Command(k, m)) => kind == k && n == m,
            (Self::Write(n), Moment::Write(m))
            | (Self::Fence(n), Moment::Fence(m))
            | (Self::Event(n), Moment::Event(m)) => n == m,
            (Self::After(wanted), Moment::Between { mark, .. }) => wanted == mark,
            (Self::Phase { phase, number, .. }, Moment::Between { phase: now, .. }) => {
                let (place, has) = phase_key(now);
                place == phase && (number.is_none() || number == has)
            }
            _ => false,
        }
    }
}

/// Lets happen what a plan says, and what another director adds.
#[derive(Debug)]
pub struct Script<'a, D> {
    lines: &'a [Line],
    done: Vec<bool>,
    /// For each line that waits for a phase and a time: when that phase was first entered.
    entered: Vec<Option<u64>>,
    /// Lines whose moment came, but at which they were not possible.
    pub impossible: Vec<Line>,
    beside: D,
}

impl<'a, D: Director> Script<'a, D> {
    /// Follows `lines`; whatever they leave open is up to `beside`.
    pub fn new(lines: &'a [Line], beside: D) -> Self {
        Self { lines, done: vec![false; lines.len()], entered: vec![None; lines.len()], impossible: vec![], beside }
    }

    /// Lines whose moment never came.
    pub fn never(&self) -> impl Iterator<Item = Line> + '_ {
        self.lines.iter().zip(&self.done).filter(|(_, done)| !**done).map(|(line, _)| *line)
    }
}

impl<D: Director> Director for Script<'_, D> {
    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        for ((line, done), entered) in self.lines.iter().zip(&mut self.done).zip(&mut self.entered) {
            if *done || !line.anchor.matches(moment) {
                continue;
            }
            if let (Anchor::Phase { later: Some(later), .. }, Moment::Between { at, .. }) = (line.anchor, *moment)
                && at < *entered.get_or_insert(at) + later
            {
                continue;
            }
            *done = true;
            match options.iter().position(|act| *act == line.act) {
                Some(at) => return at + 1,
                None => self.impossible.push(*line),
            }
        }
        self.beside.direct(moment, options)
    }

    fn before(&mut self, machine: &Machine, input: &Input) {
        self.beside.before(machine, input);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        self.beside.tell(at, what);
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

    fn before(&mut self, machine: &Machine, input: &Input) {
        self.inner.before(machine, input);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        self.inner.tell(at, what);
    }
}
