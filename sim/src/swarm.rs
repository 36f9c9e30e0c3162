//! Many random runs, each in a world with a temper of its own.
//!
//! Faults that are drawn evenly hide each other: a guest that stops all the time never hangs. So every run draws how
//! much it likes each kind of fault: some not at all, some wildly (Groce and others, "Swarm testing", 2012). A run has
//! two parts: while the weather is bad every promise must be kept, and once it has calmed down the task must come to
//! its end.
//!
//! How much is left out was chosen by what is reached ([`Reach`](crate::Reach), `vmsim reach`), of the states that need
//! one fault and one request, or two deviations, and of different states at all. With half of the kinds left out, and
//! rarities from 2, it was a third less in each; with none left out and one rarity it was no more states, and fewer of
//! the shallow ones.

use crate::act::{Act, Breadth, Director, Moment};
use crate::choose::Prng;
use crate::coverage::{Coverage, Watching};
use crate::explore::Finding;
use crate::plan::{Plan, Scribe};
use crate::run::{Drive, MAX_STEPS};
use crate::scenario::{Profile, Scenario};
use crate::system::{Budget, System};

/// A series of random runs: the same for the same seed.
#[derive(Clone, Debug)]
pub struct Swarm {
    prng: Prng,
    profiles: Vec<Profile>,
    /// Runs so far.
    pub runs: u64,
    /// Steps of all of them.
    pub steps: u64,
    /// Faults and requests of all of them.
    pub acts: u64,
    /// Which cells of the core's table were met.
    pub coverage: Coverage,
    /// The first broken promise of each kind, shrunk.
    pub findings: Vec<Finding>,
}

impl Swarm {
    /// Runs in the worlds of these hypervisors.
    #[must_use]
    pub fn new(seed: u64, profiles: &[Profile]) -> Self {
        Self {
            prng: Prng::new(seed),
            profiles: profiles.to_vec(),
            runs: 0,
            steps: 0,
            acts: 0,
            coverage: Coverage::default(),
            findings: vec![],
        }
    }

    /// One more run.
    pub fn run(&mut self) {
        self.run_each(|_| {});
    }

    /// One more run, and calls `each` with every state of it.
    pub fn run_each(&mut self, each: impl FnMut(&System)) {
        let profile = self.profiles[self.prng.below(self.profiles.len().max(1) as u64) as usize];
        let scenario = Scenario::of(profile);
        let weather = Weather::draw(&mut self.prng);
        let mut system = System::new(&scenario, weather.budget);
        system.breadth = Breadth { all_kinds: true, ..Breadth::default() };
        let mut scribe = Scribe::new(weather);
        let mut drive = Drive { scenario: &scenario, steps: 0 };
        let result = drive.to_the_end_each(&mut system, &mut Watching::new(&mut scribe, &mut self.coverage), each);
        self.runs += 1;
        self.steps += u64::from(drive.steps);
        self.acts += scribe.lines.len() as u64;
        if let Err(violation) = result {
            Finding::note(&mut self.findings, violation, Plan { profile, lines: scribe.lines, ..Plan::default() });
        }
    }

    /// Runs until every cell of the core's table has been met that can be, but no more than so often.
    pub fn cover(&mut self, most: u64) {
        // Looking takes as long as a few runs.
        const AT_ONCE: u64 = 1000;
        while self.runs < most && self.coverage.counts()[2] > 0 {
            (0..AT_ONCE.min(most - self.runs)).for_each(|_| self.run());
        }
    }
}

/// What a run likes, and for how long.
#[derive(Clone, Debug)]
struct Weather {
    prng: Prng,
    weights: [u8; Act::KINDS],
    /// Something special at one question in so many.
    rarity: u64,
    /// It calms down after so many questions.
    questions: u32,
    budget: Budget,
}

impl Weather {
    fn draw(prng: &mut Prng) -> Self {
        let mut weights = [0; Act::KINDS];
        for weight in &mut weights {
            *weight = match prng.below(8) {
                0 => 0,
                1..=6 => 1,
                _ => 8,
            };
        }
        Self {
            weights,
            rarity: 16 << prng.below(3),
            // A third of the steps that a run may take: the rest is for its end.
            questions: MAX_STEPS / 3,
            budget: Budget::of(1 << prng.below(6), 1 << prng.below(4)),
            prng: Prng::new(prng.next_u64()),
        }
    }
}

impl Director for Weather {
    fn direct(&mut self, _: &Moment, options: &[Act]) -> usize {
        if self.questions == 0 {
            return 0;
        }
        self.questions -= 1;
        if self.prng.below(self.rarity) != 0 {
            return 0;
        }
        let weight = |act: &Act| u64::from(self.weights[act.kind()]);
        let total: u64 = options.iter().map(weight).sum();
        if total == 0 {
            return 0;
        }
        let mut at = self.prng.below(total);
        for (place, act) in options.iter().enumerate() {
            let weight = u64::from(self.weights[act.kind()]);
            if at < weight {
                return place + 1;
            }
            at -= weight;
        }
        0
    }
}
