//! Every plan in `tests/traces`: each once broke a promise, and must not do so again.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use vmtask_sim::{Plan, Run};

#[test]
fn a_plan_that_once_broke_a_promise_keeps_them_all() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces");
    let mut plans = 0;
    for entry in fs::read_dir(&traces).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "plan") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let plan: Plan = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let run = Run::of(&plan);
        let story = run.trace.join("\n");
        assert_eq!(run.violation, None, "{}\n{story}", path.display());
        // A plan that no longer happens as it is written guards nothing.
        assert_eq!(run.complaints, [""; 0], "{}\n{story}", path.display());
        assert!(!plan.expect.is_empty(), "{} says what goes wrong but not what must come of it", path.display());
        plans += 1;
    }
    assert!(plans >= 5, "only {plans} plans in {}", traces.display());
}
