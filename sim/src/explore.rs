//! Every run within a budget: breadth-first over states, the same state only once.
//!
//! From each state every answer to every question is tried (an odometer over one step). A state is known by its
//! [fingerprint](System::fingerprint); what is kept of it afterwards is that, where it was reached from, and where it
//! goes if nothing more goes wrong. So the first run that breaks a promise is a shortest one, and in the end one walk
//! over the states proves that from each of them the task ends once faults stop.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use vmtask_core::Outcome;

use crate::act::{Breadth, ByNumber};
use crate::choose::Odometer;
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
    /// Stop after so many states.
    pub max_states: usize,
    /// Stop after so many broken promises.
    pub max_findings: usize,
}

/// What was explored, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Exploration {
    /// Different states that were visited.
    pub states: usize,
    /// Steps that were made from them.
    pub transitions: u64,
    /// The longest run, in steps, counted by shortest ways.
    pub depth: u32,
    /// Steps from the worst state to the end once nothing more goes wrong.
    pub longest_way_home: u32,
    /// Whether everything within the budget was visited.
    pub complete: bool,
    /// Broken promises, shortest runs first; one for each promise and op.
    pub findings: Vec<Finding>,
    /// Which cells of the core's table were met.
    pub coverage: Coverage,
    /// Final ends: completed, aborted.
    pub ends: [u64; 2],
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

/// Where a state was reached from: the state before, and by which of its successors.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: u32,
    branch: u32,
    /// Where it goes if nothing special happens.
    calm: u32,
}

const NOWHERE: u32 = u32::MAX;
/// The calm successor of a state after which the task is over.
const HOME: u32 = u32::MAX - 1;
/// The calm successor of a state in which a promise is broken: reported already.
const BROKEN: u32 = u32::MAX - 2;

/// Fingerprints are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

type Known = HashMap<u128, u32, BuildHasherDefault<AsIs>>;

impl Explorer {
    /// Explores. `progress` is called now and then with the number of states and the length of the frontier.
    pub fn explore(&self, mut progress: impl FnMut(usize, usize)) -> Exploration {
        let scenario = Scenario::of(self.profile);
        let mut found = Exploration { complete: true, ..Exploration::default() };
        let mut known = Known::default();
        let mut ways = vec![];
        let mut start = System::new(&scenario, self.budget);
        start.breadth = self.breadth;
        known.insert(start.fingerprint(), 0);
        ways.push(Way { from: NOWHERE, branch: 0, calm: NOWHERE });
        let mut frontier = vec![(0, start)];
        let mut odometer = Odometer::default();
        while !frontier.is_empty() && found.complete {
            let mut next = vec![];
            for (id, system) in frontier.drain(..) {
                odometer.reset();
                for branch in 0.. {
                    let mut after = system.clone();
                    found.transitions += 1;
                    let calm =
                        match after.step(&scenario, &mut Watching::new(ByNumber(&mut odometer), &mut found.coverage)) {
                            Ok(Status::Going) => {
                                let new = ways.len() as u32;
                                let to = *known.entry(after.fingerprint()).or_insert(new);
                                if to == new {
                                    ways.push(Way { from: id, branch, calm: NOWHERE });
                                    next.push((new, after));
                                }
                                to
                            }
                            Ok(Status::Over(outcome)) => {
                                found.ends[usize::from(outcome == Outcome::Aborted)] += 1;
                                HOME
                            }
                            Err(violation) => {
                                self.note(&scenario, &mut found, &ways, id, branch, violation);
                                BROKEN
                            }
                        };
                    // The first branch is the one in which nothing special happens.
                    if branch == 0 {
                        ways[id as usize].calm = calm;
                    }
                    if !odometer.advance() {
                        break;
                    }
                }
                if ways.len() > self.max_states || found.findings.len() >= self.max_findings {
                    found.complete = false;
                    break;
                }
            }
            found.depth += 1;
            progress(ways.len(), next.len());
            if let Some((id, _)) = next.first().filter(|_| found.depth >= MAX_STEPS) {
                let (plan, trace) = self.retrace(&scenario, &ways, *id, None, 0);
                found.findings.push(Finding { violation: Violation::NeverEnds, plan, trace, count: next.len() as u64 });
                found.complete = false;
            }
            frontier = next;
        }
        found.states = ways.len();
        if found.complete {
            self.walk_home(&scenario, &mut found, &ways);
        }
        found
    }

    fn note(
        &self,
        scenario: &Scenario,
        found: &mut Exploration,
        ways: &[Way],
        id: u32,
        branch: u32,
        violation: Violation,
    ) {
        if let Some(same) = found.findings.iter_mut().find(|f| f.violation.is_like(&violation)) {
            same.count += 1;
            return;
        }
        let (plan, trace) = self.retrace(scenario, ways, id, Some(branch), 0);
        found.findings.push(Finding { violation, plan, trace, count: 1 });
    }

    /// Makes the steps that led to a state once more, and writes down what was special, then `beyond` calm steps.
    fn retrace(
        &self,
        scenario: &Scenario,
        ways: &[Way],
        id: u32,
        last: Option<u32>,
        beyond: u32,
    ) -> (Plan, Vec<String>) {
        let mut branches: Vec<u32> = last.into_iter().collect();
        let mut at = id;
        while let Some(way) = ways.get(at as usize).filter(|way| way.from != NOWHERE) {
            branches.push(way.branch);
            at = way.from;
        }
        let mut trace = vec![];
        let mut system = System::new(scenario, self.budget);
        system.breadth = self.breadth;
        let mut lines = vec![];
        let calm = std::iter::repeat_n(0, beyond as usize);
        for branch in branches.into_iter().rev().chain(calm) {
            let mut odometer = Odometer::default();
            for _ in 0..branch {
                // Only its questions count here, not what becomes of the clone.
                let _ = system.clone().step(scenario, &mut ByNumber(&mut odometer));
                odometer.advance();
            }
            let mut scribe = Scribe::new(Tracing::new(ByNumber(&mut odometer), &mut trace));
            let over = system.step(scenario, &mut scribe);
            lines.append(&mut scribe.lines);
            if !matches!(over, Ok(Status::Going)) {
                break;
            }
        }
        (Plan { profile: self.profile, lines, ..Plan::default() }, trace)
    }

    /// From every state, if nothing more goes wrong, the task must come to its end. The calm successors make a graph
    /// in which each state has one way out, so it is enough to follow each way once.
    fn walk_home(&self, scenario: &Scenario, found: &mut Exploration, ways: &[Way]) {
        const UNKNOWN: u32 = 0;
        let mut steps = vec![UNKNOWN; ways.len()];
        let mut on_this_walk = vec![NOWHERE; ways.len()];
        for start in 0..ways.len() {
            let mut walk = vec![];
            let mut at = start as u32;
            let home = loop {
                match at {
                    HOME => break Some(0),
                    BROKEN | NOWHERE => break None,
                    _ if steps[at as usize] != UNKNOWN => break Some(steps[at as usize]),
                    _ if on_this_walk[at as usize] == start as u32 => {
                        let violation = Violation::NeverEnds;
                        if !found.findings.iter().any(|f| f.violation == violation) {
                            let (plan, trace) = self.retrace(scenario, ways, at, None, 400);
                            found.findings.push(Finding { violation, plan, trace, count: 1 });
                        }
                        break None;
                    }
                    _ => {
                        on_this_walk[at as usize] = start as u32;
                        walk.push(at);
                        at = ways[at as usize].calm;
                    }
                }
            };
            let Some(mut home) = home else { continue };
            for at in walk.into_iter().rev() {
                home += 1;
                steps[at as usize] = home;
            }
            found.longest_way_home = found.longest_way_home.max(home);
        }
    }
}
