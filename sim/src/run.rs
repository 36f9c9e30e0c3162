//! One run from its start to its end: a plan carried out, its trace, and what came of it.

use vmtask_core::Outcome;

use crate::act::{Act, Breadth, ByNumber, Director};
use crate::choose::Seldom;
use crate::invariant::Violation;
use crate::plan::{Impossible, Plan, Scribe, Script};
use crate::scenario::Scenario;
use crate::system::{Budget, Status, System};
use crate::trace::{Told, Tracing};

/// A run that takes more steps than this goes on for ever. The longest that is known takes a few hundred.
pub const MAX_STEPS: u32 = 2000;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Run {
    /// The plan that repeats it: what was asked for, and what chance added.
    pub plan: Plan,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// How the managers ended that ended by themselves, with the number of roll-backs until then; the last is final.
    pub ends: Vec<(Outcome, u32)>,
    /// What was broken, if something was.
    pub violation: Option<Violation>,
    /// How many steps it took.
    pub steps: u32,
    /// How long it took in its own time, in milliseconds.
    pub millis: u64,
    /// What is wrong with the plan rather than with the machine.
    pub complaints: Vec<String>,
}

impl Run {
    /// Carries out a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let scenario = Scenario::of(plan.profile);
        let requests = plan.lines.iter().filter(|l| l.act.is_request()).count();
        let few = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let chance = plan.seed.unwrap_or(crate::plan::Seed { seed: 0, faults: 0, requests: 0 });
        let budget = Budget::of(
            few(plan.lines.len() - requests).saturating_add(chance.faults),
            few(requests).saturating_add(chance.requests),
        );
        let mut trace = vec![];
        let mut script = Script::new(&plan.lines, Chance::new(chance));
        let mut scribe = Scribe::new(Tracing::new(&mut script, &mut trace));
        let mut system = System::new(&scenario, budget);
        system.breadth = Breadth { all_kinds: true, ..Breadth::default() };
        let mut ends = Ends::default();
        let mut run = Drive { scenario: &scenario, steps: 0 };
        let result = run.to_the_end(&mut system, &mut ends.beside(&mut scribe));
        let steps = run.steps;
        let lines = scribe.lines;
        let mut complaints: Vec<_> =
            script.impossible.iter().map(|impossible| not_possible(plan, impossible)).collect();
        let never = |place: usize| format!("{}its moment never came: {}", plan.numbers.name(place), plan.lines[place]);
        complaints.extend(script.never().map(never));
        let ends = ends.outcomes;
        let mut violation = result.err();
        for expect in &plan.expect {
            if violation.is_none() && !ends.iter().any(|(outcome, restarts)| expect.is_met_by(*outcome, *restarts)) {
                violation = Some(Violation::Unexpected);
                complaints.push(format!("not met: {expect}"));
            }
        }
        let plan = Plan { profile: plan.profile, seed: None, lines, expect: plan.expect.clone(), ..Plan::default() };
        Self { plan, trace, ends, violation, steps, millis: system.now(), complaints }
    }
}

fn not_possible(plan: &Plan, Impossible { place, why, instead }: &Impossible) -> String {
    let instead: Vec<_> = instead.iter().map(Act::to_string).collect();
    format!(
        "{}not possible at its moment ({why}): {}; possible there: {}",
        plan.numbers.name(*place),
        plan.lines[*place],
        instead.join(", ")
    )
}

/// Steps a system until it is over.
#[derive(Debug)]
pub struct Drive<'a> {
    /// What is simulated.
    pub scenario: &'a Scenario,
    /// How many steps it took so far.
    pub steps: u32,
}

impl Drive<'_> {
    /// To the final end.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn to_the_end(&mut self, system: &mut System, director: &mut impl Director) -> Result<Outcome, Violation> {
        self.to_the_end_each(system, director, |_| {})
    }

    /// The same, and calls `each` with every state on the way.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn to_the_end_each(
        &mut self,
        system: &mut System,
        director: &mut impl Director,
        mut each: impl FnMut(&System),
    ) -> Result<Outcome, Violation> {
        while self.steps < MAX_STEPS {
            self.steps += 1;
            if let Status::Over(outcome) = system.step(self.scenario, director)? {
                return Ok(outcome);
            }
            each(system);
        }
        Err(Violation::NeverEnds)
    }
}

/// Random additions, within a budget of their own.
#[derive(Debug)]
struct Chance {
    seldom: ByNumber<Seldom>,
    faults: u8,
    requests: u8,
}

impl Chance {
    const fn new(seed: crate::plan::Seed) -> Self {
        Self { seldom: ByNumber(Seldom::new(seed.seed, 40)), faults: seed.faults, requests: seed.requests }
    }
}

impl Director for Chance {
    fn direct(&mut self, moment: &crate::act::Moment, options: &[Act]) -> usize {
        if self.faults == 0 && self.requests == 0 {
            return 0;
        }
        let choice = self.seldom.direct(moment, options);
        let Some(act) = choice.checked_sub(1).and_then(|at| options.get(at)) else { return 0 };
        let left = if act.is_request() { &mut self.requests } else { &mut self.faults };
        if *left == 0 {
            return 0;
        }
        *left -= 1;
        choice
    }
}

/// Notes how managers end.
#[derive(Debug, Default)]
struct Ends {
    outcomes: Vec<(Outcome, u32)>,
    restarts: u32,
}

impl Ends {
    const fn beside<'a, D>(&'a mut self, inner: &'a mut D) -> Beside<'a, D> {
        Beside { ends: self, inner }
    }
}

struct Beside<'a, D> {
    ends: &'a mut Ends,
    inner: &'a mut D,
}

impl<D: Director> Director for Beside<'_, D> {
    fn widen(&mut self, moment: &crate::act::Moment, options: &mut crate::act::Options) {
        self.inner.widen(moment, options);
    }

    fn direct(&mut self, moment: &crate::act::Moment, options: &[Act]) -> usize {
        self.inner.direct(moment, options)
    }

    fn before(&mut self, machine: &vmtask_core::Machine, stimulus: &vmtask_core::Stimulus) {
        self.inner.before(machine, stimulus);
    }

    fn tell(&mut self, at: u64, what: &Told) {
        use vmtask_core::{Output, Report};
        match what {
            Told::Output(Output::Persist(record)) => self.ends.restarts = record.restarts,
            Told::Output(Output::Report(Report::Ended { outcome, .. })) => {
                self.ends.outcomes.push((*outcome, self.ends.restarts));
            }
            _ => {}
        }
        self.inner.tell(at, what);
    }
}
