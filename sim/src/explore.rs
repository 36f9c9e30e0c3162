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
//! in the end one walk over the states proves that from each of them the task ends once faults stop. A state in which
//! nothing can go wrong any more has one way to go, and is followed at once instead of being put aside.
//!
//! States with the same fingerprint go on alike (tests check it for all of them with two deviations, and for one in eight
//! with three), so how many there are does not depend on how many workers look for them. Which of two ways to the same state is kept does. So
//! what was found broken is looked for again by one worker alone, and reported from there.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vmtask_core::Outcome;

use crate::act::{Breadth, ByNumber};
use crate::choose::{Calm, Choose, Odometer};
use crate::coverage::{Coverage, Watching};
use crate::invariant::Violation;
use crate::plan::{Plan, Scribe};
use crate::run::MAX_STEPS;
use crate::scenario::{Profile, Scenario};
use crate::system::{Budget, Status, System};
use crate::trace::Tracing;

/// What is to be explored.
#[derive(Clone, Debug)]
pub struct Explorer {
    /// Which hypervisor.
    pub profile: Profile,
    /// How much may go otherwise.
    pub budget: Budget,
    /// What is tried.
    pub breadth: Breadth,
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
    /// Different states that were visited.
    pub states: usize,
    /// Steps that were made from them.
    pub transitions: u64,
    /// Steps from the worst state to the end once nothing more goes wrong.
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

impl Explorer {
    /// A search with the budget, on one thread, without an end but that.
    #[must_use]
    pub fn new(profile: Profile, budget: Budget) -> Self {
        Self {
            profile,
            budget,
            breadth: Breadth::default(),
            max_states: usize::MAX,
            memory: usize::MAX,
            max_findings: 20,
            time: None,
            workers: NonZeroUsize::MIN,
            interrupt: Arc::default(),
        }
    }

    /// Explores. `progress` is called now and then with the number of states.
    pub fn explore(&self, mut progress: impl FnMut(usize)) -> Exploration {
        let search = Search::new(self);
        let found = search.run(&mut progress);
        let enough = self.workers == NonZeroUsize::MIN || found.given_up == Some(GivenUp::Interrupted);
        if found.findings.is_empty() || enough {
            return found;
        }
        let alone = Self { workers: NonZeroUsize::MIN, time: None, ..self.clone() };
        let again = Search::new(&alone).run(&mut progress);
        if again.findings.is_empty() { found } else { again }
    }
}

/// Where a state was reached from: the state before, and by which of its successors.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: StateId,
    branch: u32,
    /// Where it goes if nothing special happens.
    calm: StateId,
}

/// A state's shard and its place in it.
type StateId = u32;

const NOWHERE: StateId = StateId::MAX;
/// The calm successor of a state after which the task is over.
const HOME: StateId = StateId::MAX - 1;
/// The calm successor of a state in which a promise is broken: reported already.
const BROKEN: StateId = StateId::MAX - 2;

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

/// Fingerprints are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// A fingerprint in halves: a u128 would be aligned to 16 bytes, and the table a third larger.
#[derive(PartialEq, Eq)]
struct Key(u64, u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // The other half names the shard.
        hasher.write_u64(self.1);
    }
}

/// The states whose fingerprints begin with the same bits.
#[derive(Default)]
struct Shard {
    known: HashMap<Key, u32, BuildHasherDefault<AsIs>>,
    ways: Vec<Way>,
}

/// One search under way.
struct Search<'a> {
    explorer: &'a Explorer,
    scenario: Scenario,
    shards: Vec<Mutex<Shard>>,
    states: AtomicUsize,
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
    ends: [u64; 2],
    coverage: Coverage,
}

/// Where a step leads.
enum Step {
    New(StateId),
    Known(StateId),
    Over,
    Broken,
}

impl<'a> Search<'a> {
    fn new(explorer: &'a Explorer) -> Self {
        Self {
            explorer,
            scenario: Scenario::of(explorer.profile),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            states: AtomicUsize::new(0),
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
        let mut frontier = match self.visit(&start, NOWHERE, 0) {
            Step::New(id) => vec![(id, start)],
            _ => vec![],
        };
        let mut found = Exploration::default();
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
                found.ends[0] += tally.ends[0];
                found.ends[1] += tally.ends[1];
                found.coverage.add(&tally.coverage);
            }
            if let Some((id, _)) = frontier.first().filter(|_| depth >= MAX_STEPS) {
                self.note(Violation::NeverEnds, *id, None);
                self.give_up(GivenUp::Steps);
            }
            progress(self.states.load(Ordering::Relaxed));
        }
        found.states = self.states.load(Ordering::Relaxed);
        found.given_up = self.given_up.get().copied();
        if found.given_up.is_none() {
            found.longest_way_home = self.walk_home();
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
            let step = self.step(&mut after, id, branch, &mut *odometer, tally);
            if branch == 0 {
                self.set_calm(id, &step);
            }
            if let Step::New(new) = step {
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
            let step = self.step(&mut system, id, 0, Calm, tally);
            self.set_calm(id, &step);
            match step {
                Step::New(new) => id = new,
                Step::Known(_) | Step::Over | Step::Broken => return,
            }
        }
        self.note(Violation::NeverEnds, id, None);
    }

    fn step(&self, system: &mut System, from: StateId, branch: u32, choose: impl Choose, tally: &mut Tally) -> Step {
        tally.transitions += 1;
        match system.step(&self.scenario, &mut Watching::new(ByNumber(choose), &mut tally.coverage)) {
            Ok(Status::Going) => self.visit(system, from, branch),
            Ok(Status::Over(outcome)) => {
                tally.ends[usize::from(outcome == Outcome::Aborted)] += 1;
                Step::Over
            }
            Err(violation) => {
                self.note(violation, from, Some(branch));
                Step::Broken
            }
        }
    }

    // ---- what is known ----

    fn visit(&self, system: &System, from: StateId, branch: u32) -> Step {
        let fingerprint = system.fingerprint();
        let key = Key((fingerprint >> 64) as u64, fingerprint as u64);
        let at = (key.0 >> (64 - SHARD_BITS)) as usize;
        let mut shard = self.shard(at);
        let place = shard.ways.len() as u32;
        let known = *shard.known.entry(key).or_insert(place);
        if known != place {
            return Step::Known(state_id(at, known));
        }
        shard.ways.push(Way { from, branch, calm: NOWHERE });
        drop(shard);
        let states = self.states.fetch_add(1, Ordering::Relaxed) + 1;
        if states >= self.explorer.max_states || place >= MOST_IN_SHARD {
            self.give_up(GivenUp::States);
        }
        Step::New(state_id(at, place))
    }

    fn set_calm(&self, id: StateId, step: &Step) {
        let calm = match step {
            Step::New(to) | Step::Known(to) => *to,
            Step::Over => HOME,
            Step::Broken => BROKEN,
        };
        let (shard, place) = place_of(id);
        self.shard(shard).ways[place].calm = calm;
    }

    fn shard(&self, at: usize) -> MutexGuard<'_, Shard> {
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, id: StateId) -> Way {
        let (shard, place) = place_of(id);
        self.shard(shard).ways[place]
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
        let known = self.states.load(Ordering::Relaxed) * BYTES_PER_STATE;
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
            let way = self.way(at);
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
            let over = system.step(&self.scenario, &mut scribe);
            lines.append(&mut scribe.lines);
            if !matches!(over, Ok(Status::Going)) {
                break;
            }
        }
        (Plan { profile: self.explorer.profile, lines, ..Plan::default() }, trace)
    }

    /// From every state, if nothing more goes wrong, the task must come to its end. The calm successors make a graph
    /// in which each state has one way out, so it is enough to follow each way once. The longest, in steps.
    fn walk_home(&self) -> u32 {
        const UNKNOWN: u32 = 0;
        const HERE: u32 = u32::MAX;
        let shards: Vec<_> = (0..SHARDS).map(|at| self.shard(at)).collect();
        let mut steps: Vec<Vec<u32>> = shards.iter().map(|shard| vec![UNKNOWN; shard.ways.len()]).collect();
        let mut longest = 0;
        let mut circles = vec![];
        let mut walk = vec![];
        for (shard, own) in shards.iter().enumerate() {
            for place in 0..own.ways.len() {
                let mut at = state_id(shard, place as u32);
                walk.clear();
                let home = loop {
                    if at == HOME {
                        break 0;
                    }
                    if matches!(at, BROKEN | NOWHERE) {
                        break UNKNOWN;
                    }
                    let (shard, place) = place_of(at);
                    match steps[shard][place] {
                        UNKNOWN => {
                            steps[shard][place] = HERE;
                            walk.push((shard, place));
                            at = shards[shard].ways[place].calm;
                        }
                        HERE => {
                            circles.push(at);
                            break UNKNOWN;
                        }
                        known => break known,
                    }
                };
                let broken = home == UNKNOWN && at != HOME;
                for (steps_home, (shard, place)) in (home + 1..).zip(walk.drain(..).rev()) {
                    steps[shard][place] = if broken { 1 } else { steps_home };
                    longest = longest.max(if broken { 0 } else { steps_home });
                }
            }
        }
        drop(shards);
        for id in circles {
            self.note(Violation::NeverEnds, id, None);
        }
        longest
    }
}

/// An entry of a table that is between half and seven eighths full, and a way.
const BYTES_PER_STATE: usize = 48;

/// As many states as a shard can name.
const MOST_IN_SHARD: u32 = (1 << (32 - SHARD_BITS)) - 4;

const fn state_id(shard: usize, place: u32) -> StateId {
    (shard as u32) << (32 - SHARD_BITS) | place
}

const fn place_of(id: StateId) -> (usize, usize) {
    ((id >> (32 - SHARD_BITS)) as usize, (id & (u32::MAX >> SHARD_BITS)) as usize)
}
