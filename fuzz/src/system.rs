//! The machine in the simulator's world: bytes are what goes otherwise.
//!
//! ```text
//!   [hypervisor] [most faults] [most requests] [choice] [choice] ...      0: nothing special; spent: a calm world
//! ```

use vmtask_sim::{
    Act, Budget, ByNumber, Bytes, Director, Drive, Moment, Plan, Profile, Scenario, Scribe, System, Told,
};

/// More would break what the simulator takes for granted: that a task which is left alone gets somewhere.
const MOST: u8 = 16;

/// One run to its end, with as many faults and requests as the bytes ask for.
///
/// # Panics
/// If a promise of the simulator is broken. The message has the plan that repeats it.
pub fn system(bytes: &[u8]) {
    let [profile, faults, requests, choices @ ..] = bytes else { return };
    let profile = Profile::ALL[usize::from(*profile) % Profile::ALL.len()];
    let scenario = Scenario::of(profile);
    let mut system = System::new(&scenario, Budget::of(faults % MOST, requests % MOST));
    let mut scribe = Scribe::new(ByNumber(Bytes::new(choices)));
    let result = Drive { scenario: &scenario, steps: 0 }.to_the_end(&mut system, &mut scribe);
    if let Err(violation) = result {
        let plan = Plan { profile, lines: scribe.lines, ..Plan::default() };
        panic!("{violation}\n{plan}");
    }
}

/// The bytes with which [`system`] does what this plan says; `None` if it names more than they can.
#[must_use]
pub fn record(plan: &Plan) -> Option<Vec<u8>> {
    let requests = plan.lines.iter().filter(|line| line.act.is_request()).count();
    let faults = plan.lines.len() - requests;
    let profile = Profile::ALL.iter().position(|&profile| profile == plan.profile)?;
    let budget = Budget::of(u8::try_from(faults).ok()?, u8::try_from(requests).ok()?);
    if plan.seed.is_some() || budget.faults >= MOST || budget.requests >= MOST {
        return None;
    }
    let scenario = Scenario::of(plan.profile);
    let mut system = System::new(&scenario, budget);
    let mut noting = Noting {
        inner: vmtask_sim::Script::new(&plan.lines, ByNumber(vmtask_sim::Calm)),
        bytes: vec![u8::try_from(profile).ok()?, budget.faults, budget.requests],
    };
    // A plan that breaks a promise is a seed as well.
    let _ = Drive { scenario: &scenario, steps: 0 }.to_the_end(&mut system, &mut noting);
    let mut bytes = noting.bytes;
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end.max(3));
    Some(bytes)
}

/// Notes what another director decides.
struct Noting<D> {
    inner: D,
    bytes: Vec<u8>,
}

impl<D: Director> Director for Noting<D> {
    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        let choice = self.inner.direct(moment, options);
        self.bytes.push(u8::try_from(choice).unwrap_or(0));
        choice
    }

    fn tell(&mut self, at: u64, what: &Told) {
        self.inner.tell(at, what);
    }
}
