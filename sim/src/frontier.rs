//! A random frontier: states that nobody has gone on from, of which one after the other is, in every way.
//!
//! ```text
//!   waiting, by deviations used:   0 [.....]  1 [..........]  2 [...........]  ...
//!        one at random, of a level at random ----> every answer to every question ----> unseen? follow it
//! ```
//!
//! A random run begins where all others began, and most of its steps lead to states that were seen. This search never
//! goes the same way twice: it takes what an [`Explorer`](crate::Explorer) would take, in another order, and so looks
//! into the deep from its first second, and further than can ever be visited completely. What it has no room for it
//! gives up: states that wait, at random, and what it remembers of those it saw longest ago.
//!
//! An unseen state is followed to the end of its task, or to where somebody was before, as if nothing more went wrong;
//! all unseen states on that way wait. If only the next one did, the late part of a life would hardly ever be drawn.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::act::{Breadth, ByNumber, Director};
use crate::choose::{Calm, Odometer, Prng, scramble};
use crate::coverage::{Coverage, Watching};
use crate::explore::Finding;
use crate::hash::AsIs;
use crate::invariant::Violation;
use crate::plan::{Line, Plan, Scribe};
use crate::run::MAX_STEPS;
use crate::scenario::{Profile, Scenario};
use crate::system::{Budget, Status, System};

/// A search of the deep: with one worker the same for the same seed and number of steps.
#[derive(Clone, Debug)]
pub struct Frontier {
    /// On which hypervisors.
    pub profiles: Vec<Profile>,
    /// What is gone on from, and when.
    pub seed: u64,
    /// At most so many deviations in a run, at least 1.
    pub deviations: u8,
    /// About so many bytes for what waits and what was seen.
    pub memory: usize,
    /// Stop after so long.
    pub time: Option<Duration>,
    /// Stop after about so many steps.
    pub max_steps: u64,
    /// How many look at once.
    pub workers: NonZeroUsize,
    /// Stop when this is set.
    pub interrupt: Arc<AtomicBool>,
}

/// What was seen, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Different states that were stored: all but those after the last deviation in which no command was just answered.
    pub states: u64,
    /// The same by the number of deviations that led there.
    pub by_deviations: Vec<u64>,
    /// States that were gone on from in every way.
    pub expanded: u64,
    /// Steps that were made.
    pub steps: u64,
    /// States that were to be gone on from, for which there was no room.
    pub given_up: u64,
    /// States that were seen and are no longer remembered: some of these may have been counted again.
    pub forgotten: u64,
    /// Nothing is left to go on from: every run was visited, unless something was given up.
    pub exhausted: bool,
    /// Which cells of the core's table were met.
    pub coverage: Coverage,
    /// The first broken promise of each kind, shrunk.
    pub findings: Vec<Finding>,
}

impl Frontier {
    /// A search with this seed, by one worker, without an end.
    #[must_use]
    pub fn new(seed: u64, profiles: &[Profile]) -> Self {
        Self {
            profiles: profiles.to_vec(),
            seed,
            deviations: 8,
            memory: 1 << 30,
            time: None,
            max_steps: u64::MAX,
            workers: NonZeroUsize::MIN,
            interrupt: Arc::default(),
        }
    }

    /// Searches. `progress` is called now and then with the number of states.
    pub fn search(&self, progress: impl Fn(u64) + Sync) -> Seen {
        self.search_each(progress, &|_| {})
    }

    /// Searches, and calls `each` with every state that is reached, each time that it is.
    pub fn search_each(&self, progress: impl Fn(u64) + Sync, each: &(dyn Fn(&System) + Sync)) -> Seen {
        let search = Search::new(self, each);
        let start = search.start();
        let mut tallies: Vec<Tally> = thread::scope(|scope| {
            let work = |worker: usize| {
                let (search, progress) = (&search, &progress);
                move || search.work(worker as u64 + 1, progress)
            };
            let handles: Vec<_> = (0..self.workers.get()).map(|worker| scope.spawn(work(worker))).collect();
            // A worker that panics has found a bug of the simulator.
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        tallies.push(start);
        let waiting = search.waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Seen {
            by_deviations: vec![0; usize::from(self.deviations.max(1)) + 1],
            given_up: waiting.given_up,
            exhausted: waiting.levels.iter().all(Vec::is_empty),
            findings: search.findings.into_inner().unwrap_or_else(PoisonError::into_inner),
            forgotten: search.memory.forgotten.into_inner(),
            ..Seen::default()
        };
        for tally in tallies {
            seen.expanded += tally.expanded;
            seen.steps += tally.steps;
            seen.given_up += tally.given_up;
            seen.coverage.add(&tally.coverage);
            seen.by_deviations.iter_mut().zip(tally.states).for_each(|(sum, own)| *sum += own);
        }
        seen.states = seen.by_deviations.iter().sum();
        seen
    }
}

/// A state that nobody has gone on from, and what led to it.
struct Entry {
    scenario: usize,
    system: System,
    lines: Vec<Line>,
}

/// What is to be gone on from.
struct Waiting {
    prng: Prng,
    /// By the number of deviations.
    levels: Vec<Vec<Entry>>,
    most_in_level: usize,
    given_up: u64,
    /// So many workers go on from something now.
    busy: usize,
}

impl Waiting {
    /// One at random, of a level at random.
    fn draw(&mut self, tally: &mut Tally) -> Option<Entry> {
        tally.crowded.clear();
        tally.crowded.extend(self.levels.iter().map(|level| level.len() > self.most_in_level / 16 * 15));
        let filled = self.levels.iter().filter(|level| !level.is_empty()).count() as u64;
        let nth = self.prng.below(filled.max(1)) as usize;
        let level = self.levels.iter_mut().filter(|level| !level.is_empty()).nth(nth)?;
        let at = self.prng.below(level.len() as u64) as usize;
        self.busy += 1;
        Some(level.swap_remove(at))
    }

    fn add(&mut self, entry: Entry) {
        let level = &mut self.levels[entry.lines.len()];
        if level.len() < self.most_in_level {
            return level.push(entry);
        }
        self.given_up += 1;
        // In the place of one at random.
        let at = self.prng.below(level.len() as u64) as usize;
        level[at] = entry;
    }
}

type Fingerprints = HashSet<u64, BuildHasherDefault<AsIs>>;

/// Which states were seen: when there is no more room, those seen longest ago are forgotten.
struct Memory {
    shards: Vec<Mutex<[Fingerprints; 2]>>,
    /// In the younger half of a shard.
    most: usize,
    forgotten: AtomicU64,
}

impl Memory {
    const SHARDS: usize = 64;
    /// An entry of a table that is doubled when it is seven eighths full, and is copied then.
    const BYTES_PER_STATE: usize = 28;

    fn new(bytes: usize) -> Self {
        Self {
            shards: (0..Self::SHARDS).map(|_| Mutex::default()).collect(),
            most: (bytes / Self::BYTES_PER_STATE / Self::SHARDS / 2).max(1),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Whether it is the first time, as far as is remembered.
    fn is_new(&self, fingerprint: u128) -> bool {
        let (shard, key) = ((fingerprint >> 64) as usize % Self::SHARDS, fingerprint as u64);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *shard;
        if old.contains(&key) || !young.insert(key) {
            return false;
        }
        if young.len() >= self.most {
            self.forgotten.fetch_add(old.len() as u64, Ordering::Relaxed);
            *old = std::mem::take(young);
        }
        true
    }
}

/// One search under way.
struct Search<'a> {
    frontier: &'a Frontier,
    scenarios: Vec<Scenario>,
    each: &'a (dyn Fn(&System) + Sync),
    waiting: Mutex<Waiting>,
    memory: Memory,
    findings: Mutex<Vec<Finding>>,
    steps: AtomicU64,
    states: AtomicU64,
    started: Instant,
}

/// What one worker has counted, and what it needs for that.
struct Tally {
    prng: Prng,
    states: Vec<u64>,
    expanded: u64,
    steps: u64,
    given_up: u64,
    coverage: Coverage,
    /// Of which numbers of deviations there is hardly room for more.
    crowded: Vec<bool>,
    /// Unseen states of those that are gone on from.
    next: Vec<Entry>,
    /// Of one way.
    way: Vec<u128>,
}

/// Anything may go otherwise once more: part of the fingerprint of a state that can be gone on from in many ways.
const OPEN: Budget = Budget::of(1, 1);

impl<'a> Search<'a> {
    fn new(frontier: &'a Frontier, each: &'a (dyn Fn(&System) + Sync)) -> Self {
        let levels = usize::from(frontier.deviations.max(1));
        let waiting = Waiting {
            prng: Prng::new(frontier.seed),
            levels: (0..levels).map(|_| vec![]).collect(),
            most_in_level: (frontier.memory / 2 / levels / size_of::<Entry>()).max(1),
            given_up: 0,
            busy: 0,
        };
        Self {
            frontier,
            scenarios: frontier.profiles.iter().map(|profile| Scenario::of(*profile)).collect(),
            each,
            waiting: Mutex::new(waiting),
            memory: Memory::new(frontier.memory / 2),
            findings: Mutex::default(),
            steps: AtomicU64::new(0),
            states: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    fn tally(&self, worker: u64) -> Tally {
        Tally {
            prng: Prng::new(scramble(self.frontier.seed.wrapping_add(worker))),
            states: vec![0; self.deviations() + 1],
            expanded: 0,
            steps: 0,
            given_up: 0,
            coverage: Coverage::default(),
            crowded: vec![false; self.deviations()],
            next: vec![],
            way: vec![],
        }
    }

    /// The lives in which all goes well: each state of them waits.
    fn start(&self) -> Tally {
        let mut tally = self.tally(0);
        for (scenario, of) in self.scenarios.iter().enumerate() {
            let mut system = System::new(of, OPEN);
            system.breadth = Breadth { all_kinds: true, ..Breadth::default() };
            (self.each)(&system);
            self.follow(Ok(Status::Going), system, &Way { scenario, before: &[], last: &[] }, &mut tally);
        }
        let mut waiting = self.waiting();
        tally.next.drain(..).for_each(|entry| waiting.add(entry));
        drop(waiting);
        tally
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.frontier.interrupt.load(Ordering::Relaxed)
            || self.frontier.time.is_some_and(|time| self.started.elapsed() >= time)
            || self.steps.load(Ordering::Relaxed) >= self.frontier.max_steps
    }

    fn work(&self, worker: u64, progress: &(impl Fn(u64) + Sync)) -> Tally {
        let mut tally = self.tally(worker);
        while !self.is_over() {
            let drawn = self.waiting().draw(&mut tally);
            let Some(entry) = drawn else {
                if self.waiting().busy == 0 {
                    break;
                }
                thread::yield_now();
                continue;
            };
            let (steps, states) = (tally.steps, tally.states.iter().sum::<u64>());
            self.expand(&entry, &mut tally);
            self.steps.fetch_add(tally.steps - steps, Ordering::Relaxed);
            let states = tally.states.iter().sum::<u64>() - states;
            let states = self.states.fetch_add(states, Ordering::Relaxed) + states;
            let mut waiting = self.waiting();
            tally.next.drain(..).for_each(|entry| waiting.add(entry));
            waiting.busy -= 1;
            drop(waiting);
            progress(states);
        }
        tally
    }

    /// Every way to go on from a state with one more deviation; now and then with two at once, which are many.
    fn expand(&self, entry: &Entry, tally: &mut Tally) {
        let left = self.deviations() - entry.lines.len();
        let at_once = if tally.prng.below(16) == 0 { 2 } else { 1 };
        let budget = Budget::of(2, 2).at_most(left.min(at_once) as u8);
        tally.expanded += 1;
        let mut odometer = Odometer::default();
        loop {
            let mut system = entry.system.clone();
            system.budget = budget;
            let mut scribe = Scribe::new(ByNumber(&mut odometer));
            let status = self.step(&mut system, entry.scenario, &mut scribe, tally);
            let way = Way { scenario: entry.scenario, before: &entry.lines, last: &scribe.lines };
            self.follow(status, system, &way, tally);
            if !odometer.advance() {
                return;
            }
        }
    }

    /// If nothing more goes wrong: one way to go, until somebody was there before. From what is seen for the first time
    /// others may go on.
    fn follow(&self, mut status: Result<Status, Violation>, mut system: System, way: &Way<'_>, tally: &mut Tally) {
        let used = way.before.len() + way.last.len();
        // A state in which something can still go wrong is another one than that in which nothing can.
        let is_last = used == self.deviations();
        system.budget = if is_last { Budget::default() } else { OPEN };
        tally.way.clear();
        for _ in 0..MAX_STEPS {
            match status {
                Ok(Status::Going) => {}
                Ok(Status::Over(_)) => return,
                Err(violation) => return self.note(violation, way),
            }
            if !is_last || system.is_answered() {
                let fingerprint = system.fingerprint();
                if !self.memory.is_new(fingerprint) {
                    if tally.way.contains(&fingerprint) {
                        break;
                    }
                    return;
                }
                tally.way.push(fingerprint);
                tally.states[used] += 1;
            }
            if !is_last {
                // Where there is hardly any room, not each is worth the copying.
                if !tally.crowded[used] || tally.prng.below(16) == 0 {
                    tally.next.push(Entry { scenario: way.scenario, system: system.clone(), lines: way.lines() });
                } else {
                    tally.given_up += 1;
                }
            }
            // Where anything could go wrong, nothing does.
            status = self.step(&mut system, way.scenario, &mut ByNumber(Calm), tally);
        }
        self.note(Violation::NeverEnds, way);
    }

    fn deviations(&self) -> usize {
        usize::from(self.frontier.deviations.max(1))
    }

    fn step(
        &self,
        system: &mut System,
        scenario: usize,
        director: &mut impl Director,
        tally: &mut Tally,
    ) -> Result<Status, Violation> {
        tally.steps += 1;
        let status = system.step(&self.scenarios[scenario], &mut Watching::new(director, &mut tally.coverage))?;
        if status == Status::Going {
            (self.each)(system);
        }
        Ok(status)
    }

    fn note(&self, violation: Violation, way: &Way<'_>) {
        let plan = Plan { profile: self.scenarios[way.scenario].profile, lines: way.lines(), ..Plan::default() };
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        Finding::note(&mut findings, violation, plan);
    }
}

/// What led to a state.
struct Way<'a> {
    scenario: usize,
    before: &'a [Line],
    last: &'a [Line],
}

impl Way<'_> {
    fn lines(&self) -> Vec<Line> {
        [self.before, self.last].concat()
    }
}
