//! How much of the shallow space do searches by chance reach? What they were tuned by.

use std::collections::HashSet;
use std::time::Instant;

use crate::explore::{Explorer, GivenUp};
use crate::frontier::Frontier;
use crate::scenario::Profile;
use crate::swarm::Swarm;
use crate::system::{Budget, System};

/// How far a search by chance came.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Which search.
    pub search: &'static str,
    /// Steps that it made, each to a state.
    pub steps: u64,
    /// Different states that it was in.
    pub states: usize,
    /// Those of them that are in the shallow space.
    pub shallow: usize,
    /// How long it took, in seconds, the time to tell states apart included.
    pub seconds: f64,
}

/// Every state within a budget, and how many of them a swarm and a frontier are in within so many steps.
#[derive(Clone, Debug)]
pub struct Reach {
    /// How many states there are.
    pub shallow: usize,
    /// What was reached.
    pub reached: [Reached; 2],
}

/// For all states alike, so that those of searches with other budgets can be compared.
const ALIKE: Budget = Budget::of(1, 1);

impl Reach {
    /// Explores everything within `budget`, and lets the others search with this seed.
    ///
    /// # Errors
    /// If the exploration was given up.
    pub fn measure(profile: Profile, budget: Budget, steps: u64, seed: u64) -> Result<Self, GivenUp> {
        let shallow = States::default();
        let explored = Explorer::new(profile, budget).explore_each(|_| {}, &|system| shallow.add(system));
        if let Some(why) = explored.given_up {
            return Err(why);
        }
        let shallow = shallow.all();
        let reached = |search, started: Instant, steps, states: States| {
            let seconds = started.elapsed().as_secs_f64();
            let states = states.all();
            Reached { search, steps, states: states.len(), shallow: states.intersection(&shallow).count(), seconds }
        };
        let (started, states) = (Instant::now(), States::default());
        let mut swarm = Swarm::new(seed, &[profile]);
        while swarm.steps < steps {
            swarm.run_each(|system| states.add(system));
        }
        let of_swarm = reached("swarm", started, swarm.steps, states);
        let (started, states) = (Instant::now(), States::default());
        let frontier = Frontier { max_steps: steps, ..Frontier::new(seed, &[profile]) };
        let made = frontier.search_each(|_| {}, &|system| states.add(system)).steps;
        let of_frontier = reached("frontier", started, made, states);
        Ok(Self { shallow: shallow.len(), reached: [of_swarm, of_frontier] })
    }
}

/// Different states.
#[derive(Default)]
struct States(std::sync::Mutex<HashSet<u128>>);

impl States {
    fn add(&self, system: &System) {
        let fingerprint = system.fingerprint_within(ALIKE);
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(fingerprint);
    }

    fn all(self) -> HashSet<u128> {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
