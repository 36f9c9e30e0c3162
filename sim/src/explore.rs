//! Every run within a budget: breadth-first over states, the same state only once.
//!
//! ```text
//!   frontier --+--> worker: each state, every answer to every question (an odometer over one step) --+--> next frontier
//!              +--> worker: ...                                                                      |
//!                              known: fingerprint -> where it was reached from, where it goes calmly <-+
//! ```
//!
//! A state is known by its [fingerprint](System::fingerprint); what is kept of it afterwards is that, where it was
//! reached from, and where it goes if nothing more goes wrong. So a run that breaks a promise is one of the shortest, and
//! in the end one walk over the states proves that from each of them the task ends once faults stop.
//!
//! A state in which nothing can go wrong any more has one way to go, and is followed at once instead of being put aside.
//! Most states are of that kind, and most of them are on a way that another run has gone before. It is enough to store
//! some of them, so that a way is noticed to be known soon after it joins another: those right after a command was
//! answered. Nothing is missed: the promises are checked after every step, whether its state is stored or not.
//!
//! States with the same fingerprint go on alike (tests check it for all of them with two deviations, and for one in eight
//! with three), so how many there are does not depend on how many workers look for them. Which of two ways to the same
//! state is kept does. So what was found broken is looked for again by one worker alone, and reported from there.

mod known;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vmtask_core::Outcome;

use crate::act::{Breadth, ByNumber};
use crate::choose::{Calm, Choose, Odometer};
use crate::coverage::{Coverage, Watching};
use crate::invariant::Violation;
use crate::plan::{Plan, Scribe};
use crate::run::{MAX_STEPS, Run};
use crate::scenario::{Profile, Scenario};
use crate::shrink::shrink;
use crate::system::{Budget, Status, System};
use crate::trace::Tracing;
use known::{BROKEN, BYTES_PER_STATE, HOME, Known, NOWHERE, StateId, Visit};

/// What is to be explored.
#[derive(Clone, Debug)]
pub struct Explorer {
    /// Which hypervisor.
    pub profile: Profile,
    /// How much may go otherwise.
    pub budget: Budget,
    /// What is tried.
    pub breadth: Breadth,
    /// Store every state, also those in which nothing can go wrong any more and no command was just answered: the same is
    /// found, by four times as many states. For figures about states, and to prove it.
    pub every_state: bool,
    /// Stop after about so many states.
    pub max_states: usize,
    /// Stop when what is known and what waits takes about so many bytes.
    pub memory: usize,
    /// Stop after so many broken promises.
    pub max_findings: usize,
    /// Stop after so long.
    pub time: Option<Duration>,
    /// How many look at once.
    pub workers: NonZeroUsize,
    /// Stop when this is set.
    pub interrupt: Arc<AtomicBool>,
}

/// What was explored, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Exploration {
    /// Different states that were stored.
    pub states: usize,
    /// Steps that were made.
    pub transitions: u64,
    /// The most steps from one stored state to the next.
    pub longest_stride: u16,
    /// Steps from the worst state, stored or not, to the end once nothing more goes wrong.
    pub longest_way_home: u32,
    /// Why it was given up before everything within the budget was visited, if it was.
    pub given_up: Option<GivenUp>,
    /// Broken promises, shortest runs first; one for each promise.
    pub findings: Vec<Finding>,
    /// Which cells of the core's table were met.
    pub coverage: Coverage,
    /// Final ends: completed, aborted.
    pub ends: [u64; 2],
}

/// What a search ran out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// [`Explorer::max_states`].
    States,
    /// [`Explorer::memory`].
    Memory,
    /// [`Explorer::time`].
    Time,
    /// [`Explorer::max_findings`]: it has enough of them.
    Findings,
    /// Steps: there are runs that do not end.
    Steps,
    /// The patience of whoever started it: [`Explorer::interrupt`].
    Interrupted,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::States => "so many states were allowed",
            Self::Memory => "the memory that it may use is full",
            Self::Time => "its time is over",
            Self::Findings => "enough promises are broken",
            Self::Steps => "there are runs that do not end",
            Self::Interrupted => "it was interrupted",
        })
    }
}

/// A broken promise, and how to break it again.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub violation: Violation,
    /// The plan that repeats it.
    pub plan: Plan,
    /// How it went.
    pub trace: Vec<String>,
    /// How often the same promise was broken (by other runs too).
    pub count: u64,
}

impl Finding {
    /// Adds a broken promise that a random search has found: the first of its kind is shrunk, others are counted.
    pub(crate) fn note(findings: &mut Vec<Self>, violation: Violation, plan: Plan) {
        if let Some(same) = findings.iter_mut().find(|f| f.violation.is_like(&violation)) {
            same.count += 1;
            return;
        }
        let plan = shrink(&plan, &violation);
        let trace = Run::of(&plan).trace;
        findings.push(Self { violation, plan, trace, count: 1 });
    }
}

impl Explorer {
    /// A search with the budget, on one thread, without an end but that.
    #[must_use]
    pub fn new(profile: Profile, budget: Budget) -> Self {
        Self {
            profile,
            budget,
            breadth: Breadth::default(),
            every_state: false,
            max_states: usize::MAX,
            memory: usize::MAX,
            max_findings: 20,
            time: None,
            workers: NonZeroUsize::MIN,
            interrupt: Arc::default(),
        }
    }

    /// Explores. `progress` is called now and then with the number of states.
    pub fn explore(&self, progress: impl FnMut(usize)) -> Exploration {
        self.explore_each(progress, &|_| {})
    }

    /// Explores, and calls `each` with every state that is reached, stored or not, each time that it is: from all
    /// workers, and for a broken promise that is looked for again once more.
    pub fn explore_each(&self, mut progress: impl FnMut(usize), each: &(dyn Fn(&System) + Sync)) -> Exploration {
        let search = Search::new(self, each);
        let found = search.run(&mut progress);
        let enough = self.workers == NonZeroUsize::MIN || found.given_up == Some(GivenUp::Interrupted);
        if found.findings.is_empty() || enough {
            return found;
        }
        let alone = Self { workers: NonZeroUsize::MIN, time: None, ..self.clone() };
        let again = Search::new(&alone, each).run(&mut progress);
        if again.findings.is_empty() { found } else { again }
    }
}

/// One search under way.
struct Search<'a> {
    explorer: &'a Explorer,
    scenario: Scenario,
    each: &'a (dyn Fn(&System) + Sync),
    known: Known,
    broken: Mutex<Vec<Broken>>,
    /// Systems that wait to be gone on from.
    waiting: AtomicUsize,
    given_up: OnceLock<GivenUp>,
    started: Instant,
}

/// A broken promise: in a state, or by one of the steps from it.
#[derive(Clone, Copy)]
struct Broken {
    violation: Violation,
    from: StateId,
    branch: Option<u32>,
    count: u64,
}

/// What one worker has counted.
#[derive(Default)]
struct Tally {
    next: Vec<(StateId, System)>,
    transitions: u64,
    longest_stride: u16,
    /// The longest way from a deviation to the end without a state that is stored, in steps after it.
    longest_way_home: u32,
    ends: [u64; 2],
    coverage: Coverage,
}

/// The way from a stored state to the next.
struct Stride {
    to: Step,
    steps: u16,
}

/// Where a way leads.
enum Step {
    New(StateId),
    Known(StateId),
    Over,
    Broken,
}

impl<'a> Search<'a> {
    fn new(explorer: &'a Explorer, each: &'a (dyn Fn(&System) + Sync)) -> Self {
        Self {
            explorer,
            scenario: Scenario::of(explorer.profile),
            each,
            known: Known::new(),
            broken: Mutex::default(),
            waiting: AtomicUsize::new(0),
            given_up: OnceLock::new(),
            started: Instant::now(),
        }
    }

    fn start(&self) -> System {
        let mut start = System::new(&self.scenario, self.explorer.budget);
        start.breadth = self.explorer.breadth;
        start
    }

    fn run(&self, progress: &mut impl FnMut(usize)) -> Exploration {
        let start = self.start();
        (self.each)(&start);
        let mut frontier = match self.visit(&start, NOWHERE, 0, 0) {
            Step::New(id) => vec![(id, start)],
            _ => vec![],
        };
        let mut found = Exploration::default();
        let mut longest_way_home = 0;
        let mut depth = 0;
        while !frontier.is_empty() && !self.is_given_up() {
            self.waiting.store(frontier.len(), Ordering::Relaxed);
            let mut tallies = self.expand(&frontier);
            depth += 1;
            let next: usize = tallies.iter().map(|tally| tally.next.len()).sum();
            frontier = Vec::with_capacity(next);
            for tally in &mut tallies {
                frontier.append(&mut tally.next);
                found.transitions += tally.transitions;
                found.longest_stride = found.longest_stride.max(tally.longest_stride);
                longest_way_home = longest_way_home.max(tally.longest_way_home);
                found.ends[0] += tally.ends[0];
                found.ends[1] += tally.ends[1];
                found.coverage.add(&tally.coverage);
            }
            if let Some((id, _)) = frontier.first().filter(|_| depth >= MAX_STEPS) {
                self.note(Violation::NeverEnds, *id, None);
                self.give_up(GivenUp::Steps);
            }
            progress(self.known.states());
        }
        found.states = self.known.states();
        found.given_up = self.given_up.get().copied();
        if found.given_up.is_none() {
            let (longest, circles) = self.known.walk_home();
            found.longest_way_home = longest.max(longest_way_home);
            circles.into_iter().for_each(|id| self.note(Violation::NeverEnds, id, None));
        }
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for Broken { violation, from, branch, count } in broken {
            let beyond = if violation == Violation::NeverEnds { 400 } else { 0 };
            let (plan, trace) = self.retrace(from, branch, beyond);
            found.findings.push(Finding { violation, plan, trace, count });
        }
        found
    }

    fn expand(&self, frontier: &[(StateId, System)]) -> Vec<Tally> {
        const BATCH: usize = 16;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut tally = Tally::default();
            let mut odometer = Odometer::default();
            while !self.is_given_up() {
                let at = next.fetch_add(BATCH, Ordering::Relaxed);
                if at >= frontier.len() {
                    break;
                }
                for (id, system) in &frontier[at..(at + BATCH).min(frontier.len())] {
                    self.branch(*id, system, &mut odometer, &mut tally);
                }
                self.look_at_the_limits();
            }
            tally
        };
        let workers = self.explorer.workers.get().min(frontier.len().div_ceil(4 * BATCH)).max(1);
        if workers == 1 {
            return vec![work()];
        }
        thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            // A worker that panics has found a bug of the simulator.
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    /// Every way to go on from a state.
    fn branch(&self, id: StateId, system: &System, odometer: &mut Odometer, tally: &mut Tally) {
        odometer.reset();
        for branch in 0.. {
            let mut after = system.clone();
            let stride = self.stride(&mut after, id, branch, &mut *odometer, tally);
            if branch == 0 {
                self.set_calm(id, &stride);
            }
            if let Step::New(new) = stride.to {
                if after.budget.is_spent() {
                    self.follow(new, after, tally);
                } else {
                    tally.next.push((new, after));
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                }
            }
            if !odometer.advance() {
                return;
            }
        }
    }

    /// Nothing can go wrong any more: one way to go, until somebody was there before.
    fn follow(&self, mut id: StateId, mut system: System, tally: &mut Tally) {
        for _ in 0..MAX_STEPS {
            let stride = self.stride(&mut system, id, 0, Calm, tally);
            self.set_calm(id, &stride);
            match stride.to {
                Step::New(new) => id = new,
                Step::Known(_) | Step::Over | Step::Broken => return,
            }
        }
        self.note(Violation::NeverEnds, id, None);
    }

    /// One step, and after the last deviation as many calm ones as it takes to a state that is stored.
    fn stride(
        &self,
        system: &mut System,
        from: StateId,
        branch: u32,
        choose: impl Choose,
        tally: &mut Tally,
    ) -> Stride {
        let mut status = system.step(&self.scenario, &mut Watching::new(ByNumber(choose), &mut tally.coverage));
        let mut steps = 1;
        let to = loop {
            match status {
                Ok(Status::Going) => (self.each)(system),
                Ok(Status::Over(outcome)) => {
                    tally.ends[usize::from(outcome == Outcome::Aborted)] += 1;
                    tally.longest_way_home = tally.longest_way_home.max(u32::from(steps - 1));
                    break Step::Over;
                }
                Err(violation) => {
                    self.note(violation, from, Some(branch));
                    break Step::Broken;
                }
            }
            if self.is_stored(system) {
                break self.visit(system, from, branch, steps);
            }
            if u32::from(steps) == MAX_STEPS {
                self.note(Violation::NeverEnds, from, Some(branch));
                break Step::Broken;
            }
            status = system.step(&self.scenario, &mut Watching::new(ByNumber(Calm), &mut tally.coverage));
            steps += 1;
        };
        tally.transitions += u64::from(steps);
        tally.longest_stride = tally.longest_stride.max(steps);
        Stride { to, steps }
    }

    const fn is_stored(&self, system: &System) -> bool {
        self.explorer.every_state || !system.budget.is_spent() || system.is_answered()
    }

    // ---- what is known ----

    fn visit(&self, system: &System, from: StateId, branch: u32, steps: u16) -> Step {
        match self.known.visit(system.fingerprint(), from, branch, steps) {
            Ok(Visit::Known(id)) => Step::Known(id),
            Ok(Visit::New(id)) => {
                if self.known.states() >= self.explorer.max_states {
                    self.give_up(GivenUp::States);
                }
                Step::New(id)
            }
            Err(known::Full) => {
                self.give_up(GivenUp::States);
                // Nobody goes on from it.
                Step::Broken
            }
        }
    }

    fn set_calm(&self, id: StateId, stride: &Stride) {
        let calm = match stride.to {
            Step::New(to) | Step::Known(to) => to,
            Step::Over => HOME,
            Step::Broken => BROKEN,
        };
        self.known.set_calm(id, calm, stride.steps);
    }

    fn note(&self, violation: Violation, from: StateId, branch: Option<u32>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = broken.iter_mut().find(|found| found.violation.is_like(&violation)) {
            same.count += 1;
            return;
        }
        broken.push(Broken { violation, from, branch, count: 1 });
        if broken.len() >= self.explorer.max_findings {
            self.give_up(GivenUp::Findings);
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.get().is_some()
    }

    /// The first reason counts.
    fn give_up(&self, why: GivenUp) {
        self.given_up.get_or_init(|| why);
    }

    fn look_at_the_limits(&self) {
        if self.explorer.interrupt.load(Ordering::Relaxed) {
            self.give_up(GivenUp::Interrupted);
        }
        if self.explorer.time.is_some_and(|time| self.started.elapsed() > time) {
            self.give_up(GivenUp::Time);
        }
        let known = self.known.states() * BYTES_PER_STATE;
        let waiting = self.waiting.load(Ordering::Relaxed) * size_of::<(StateId, System)>();
        if known + waiting > self.explorer.memory {
            self.give_up(GivenUp::Memory);
        }
    }

    // ---- afterwards ----

    /// Makes the steps that led to a state once more, and writes down what was special, then `beyond` calm steps.
    fn retrace(&self, id: StateId, last: Option<u32>, beyond: u32) -> (Plan, Vec<String>) {
        let mut branches: Vec<u32> = last.into_iter().collect();
        let mut at = id;
        loop {
            let way = self.known.way(at);
            if way.from == NOWHERE {
                break;
            }
            branches.push(way.branch);
            at = way.from;
        }
        let mut trace = vec![];
        let mut system = self.start();
        let mut lines = vec![];
        let calm = std::iter::repeat_n(0, beyond as usize);
        for branch in branches.into_iter().rev().chain(calm) {
            let mut odometer = Odometer::default();
            for _ in 0..branch {
                // Only its questions count here, not what becomes of the clone.
                let _ = system.clone().step(&self.scenario, &mut ByNumber(&mut odometer));
                odometer.advance();
            }
            let mut scribe = Scribe::new(Tracing::new(ByNumber(&mut odometer), &mut trace));
            let mut status = system.step(&self.scenario, &mut scribe);
            lines.append(&mut scribe.lines);
            // The answers of a branch are those of its first step.
            for _ in 1..MAX_STEPS {
                if !matches!(status, Ok(Status::Going)) || self.is_stored(&system) {
                    break;
                }
                status = system.step(&self.scenario, &mut Tracing::new(ByNumber(Calm), &mut trace));
            }
            if !matches!(status, Ok(Status::Going)) {
                break;
            }
        }
        (Plan { profile: self.explorer.profile, lines, ..Plan::default() }, trace)
    }
}
