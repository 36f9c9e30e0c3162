//! The machine itself: the walk of the core's own tests, with a fuzzer's bytes for dice.

use std::collections::BTreeSet;
use std::num::NonZeroU8;

use vmtask_core::table::{PhaseKind, Trigger, Verdict};
use vmtask_core::{Capabilities, CheckpointSpec, Intent, OpKind, Pause, Plan, Policy, Snapshots, Span};

// One walk, two sources of numbers: the core's test cannot depend on this crate, so this crate takes the test's module.
#[allow(clippy::unwrap_used, reason = "it is a test, here as well as there")]
#[path = "../../core/tests/walker/mod.rs"]
mod walker;

use walker::{Dice, Seen, Walk, spec};

/// A cell of the table, and the verdict.
pub type Cell = (PhaseKind, Intent, Trigger, Verdict);

/// No walk of use is longer; a fuzzer that finds that more bytes run longer would only get slower.
const LONGEST: usize = 2000;

/// Bytes become a plan, and then whatever the machine is told, until they are spent.
///
/// # Panics
/// If a verdict is not the table's, something ignored changes something, two commands are in flight, or a drain does
/// not end.
pub fn machine(bytes: &[u8]) {
    let _ = cells_of_machine(bytes);
}

/// Does what [`machine`] does, and says which cells of the table were met: what a corpus is chosen by.
///
/// # Panics
/// As [`machine`].
#[must_use]
pub fn cells_of_machine(bytes: &[u8]) -> BTreeSet<Cell> {
    let mut dice = Bytes(bytes);
    let mut seen = Seen::default();
    let Some(plan) = any_plan(&mut dice) else { return seen.cells };
    let mut walk = Walk::new(dice, plan, &mut seen);
    for _ in 0..LONGEST {
        if !walk.step() {
            break;
        }
    }
    seen.cells
}

/// One byte for up to 256 sides, two for more.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u64 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }
}

impl Dice for Bytes<'_> {
    fn roll(&mut self, sides: u64) -> u64 {
        let number = if sides > 256 { self.next() << 8 | self.next() } else { self.next() };
        number % sides
    }

    fn are_spent(&self) -> bool {
        self.0.is_empty()
    }
}

/// Any hypervisor, any policy, any number of files. `None` for a plan that the core refuses.
fn any_plan(dice: &mut impl Dice) -> Option<Plan> {
    let capabilities = Capabilities {
        linked_clones: dice.one_in(2),
        snapshots: *pick(dice, &[Snapshots::Many, Snapshots::ByCopy, Snapshots::None]),
        pause: *pick(dice, &[Pause::Native, Pause::BySuspend, Pause::None]),
        guest_login: dice.one_in(2),
        outlives_manager: dice.one_in(2),
        disk: dice.one_in(2),
    };
    let mut spec = spec();
    spec.files_in.truncate(*pick(dice, &[2, 1, 0]));
    spec.files_out.truncate(*pick(dice, &[1, 0]));
    spec.checkpoint = match *pick(dice, &[2, 1, Plan::MAX_KEEP, 0]) {
        0 => None,
        keep => Some(CheckpointSpec { every: *pick(dice, &SPANS), keep }),
    };
    spec.limits.run_ms = *pick(dice, &[None, Some(3_600_000), Some(1), Some(u64::MAX)]);
    let policy = any_policy(dice);
    Plan::new(&spec.check().ok()?, policy, capabilities).ok()
}

const SPANS: [Span; 6] = [
    Span::from_secs(30),
    Span::from_millis(1),
    Span::from_millis(100),
    Span::from_secs(600),
    Span::from_millis(u32::MAX),
    Span::ZERO,
];

fn any_policy(dice: &mut impl Dice) -> Policy {
    let mut policy = Policy::default();
    if dice.one_in(2) {
        return policy;
    }
    for op in OpKind::ALL {
        policy = policy
            .with_deadline(op, *pick(dice, &SPANS))
            .with_overall(op, *pick(dice, &SPANS))
            .with_attempts(op, *pick(dice, &[3, 1, 2, u8::MAX]));
    }
    Policy {
        fence: *pick(dice, &SPANS),
        backoff: *pick(dice, &SPANS),
        backoff_max: *pick(dice, &SPANS),
        jitter_percent: *pick(dice, &[25, 0, 100, u8::MAX]),
        clock_jump: *pick(dice, &SPANS),
        watch: *pick(dice, &SPANS),
        max_losses: *pick(dice, &[5, 0, 1, u16::MAX]),
        restore_attempts: *pick(dice, &[NonZeroU8::MIN, NonZeroU8::MAX]),
        ..policy
    }
}

fn pick<'a, T>(dice: &mut impl Dice, from: &'a [T]) -> &'a T {
    let at = usize::try_from(dice.roll(from.len() as u64)).unwrap_or(0);
    &from[at]
}
