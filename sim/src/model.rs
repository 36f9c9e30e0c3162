//! The same system as a model for stateright, a checker that knows nothing of ours: both must find the same number of
//! states, and the same verdict.
//!
//! An action is the list of answers that one step was given. States are equal if their fingerprints are, as in
//! [`Explorer`](crate::Explorer).

use std::hash::{Hash, Hasher};

use stateright::{Model, Property};

use crate::act::{Breadth, ByNumber};
use crate::choose::{Odometer, Recorded, Recording};
use crate::invariant::Violation;
use crate::scenario::{Profile, Scenario};
use crate::system::{Budget, Status, System};

/// Every run on one hypervisor within a budget.
#[derive(Clone, Debug)]
pub struct Everything {
    scenario: Scenario,
    budget: Budget,
    breadth: Breadth,
}

impl Everything {
    /// As an [`Explorer`](crate::Explorer) of the same profile and budget.
    #[must_use]
    pub fn new(profile: Profile, budget: Budget) -> Self {
        Self { scenario: Scenario::of(profile), budget, breadth: Breadth::default() }
    }
}

/// One state of it.
#[derive(Clone, Debug)]
pub enum State {
    /// It goes on.
    Going(Box<System>),
    /// The task is over.
    Over,
    /// A promise is broken.
    Broken(Violation),
}

impl State {
    fn fingerprint(&self) -> u128 {
        match self {
            Self::Going(system) => system.fingerprint(),
            Self::Over => 0,
            Self::Broken(_) => 1,
        }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.fingerprint().hash(hasher);
    }
}

impl Model for Everything {
    type State = State;
    type Action = Vec<u32>;

    fn init_states(&self) -> Vec<State> {
        let mut system = System::new(&self.scenario, self.budget);
        system.breadth = self.breadth;
        vec![State::Going(Box::new(system))]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Vec<u32>>) {
        let State::Going(system) = state else { return };
        let mut odometer = Odometer::default();
        loop {
            let mut recording = Recording::new(&mut odometer);
            // Only its questions count here.
            let _ = system.as_ref().clone().step(&self.scenario, &mut ByNumber(&mut recording));
            actions.push(recording.answers);
            if !odometer.advance() {
                return;
            }
        }
    }

    fn next_state(&self, last: &State, answers: Vec<u32>) -> Option<State> {
        let State::Going(system) = last else { return None };
        let mut system = system.clone();
        Some(match system.step(&self.scenario, &mut ByNumber(Recorded::new(answers))) {
            Ok(Status::Going) => State::Going(system),
            Ok(Status::Over(_)) => State::Over,
            Err(violation) => State::Broken(violation),
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("every promise is kept", |_, state| !matches!(state, State::Broken(_)))]
    }
}
