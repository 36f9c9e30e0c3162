//! The shortest plan that still breaks the same promise.

use crate::invariant::Violation;
use crate::plan::{Line, Plan};
use crate::run::Run;

/// Leaves out whatever is not needed, more at once first, until nothing more can be left out. If the plan does not
/// repeat the violation, it comes back as it was.
///
/// Leaving a line out changes what the later ones count, so a shorter plan may break the promise in another way; it
/// stays a plan that breaks it.
#[must_use]
pub fn shrink(plan: &Plan, violation: &Violation) -> Plan {
    let breaks = |lines: &[Line]| {
        let candidate = Plan { lines: lines.to_vec(), ..plan.clone() };
        let run = Run::of(&candidate);
        // Lines that did nothing are not in the plan that a run hands back.
        run.violation.is_some_and(|found| found.is_like(violation)).then_some(run.plan.lines)
    };
    let Some(mut lines) = breaks(&plan.lines) else { return plan.clone() };
    let mut chunk = lines.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < lines.len() {
            let mut fewer = lines.clone();
            fewer.drain(at..(at + chunk).min(lines.len()));
            match breaks(&fewer) {
                Some(found) if found.len() < lines.len() => {
                    lines = found;
                    shorter = true;
                }
                _ => at += chunk,
            }
        }
        if chunk == 1 && !shorter {
            return Plan { lines, ..plan.clone() };
        }
        chunk = (chunk / 2).max(1);
    }
}
