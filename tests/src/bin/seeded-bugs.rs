//! Puts known bugs into a copy of the sources, one at a time, and shows who finds each of them, how fast, and by what.
//!
//! `cargo run -p vmtask-tests --bin seeded-bugs`
//!
//! Exit codes: 0 all were found; 1 one survived, or its patch is out of date, or the sources without a bug are not
//! clean; 2 the copy could not be made.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the seeded bugs are looked for on Linux: the copy has to build the QEMU adapter, too");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fmt::Write as _;
    use std::path::PathBuf;
    use std::process::ExitCode;

    use clap::Parser;
    use serde_json::json;
    use vmtask_tests::real::repository;
    use vmtask_tests::seeded::{self, Bug, CLEAN_BUDGETS, Catch, Copy, Finder, Verdict};

    /// Known bugs, put into a copy of the sources one at a time: who finds each, how fast, and by what.
    #[derive(Debug, Parser)]
    struct Args {
        /// Only the bug with this number
        #[arg(long, value_name = "N")]
        only: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
        /// Print the report for tests/seeded/README.md
        #[arg(long, conflicts_with_all = ["json", "only"])]
        markdown: bool,
    }

    pub(super) fn main() -> ExitCode {
        let args = Args::parse();
        match go(&args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            Err(why) => {
                eprintln!("seeded-bugs: {why}");
                ExitCode::from(2)
            }
        }
    }

    /// Whether all were found.
    fn go(args: &Args) -> Result<bool, String> {
        let mut bugs = seeded::bugs()?;
        if let Some(only) = &args.only {
            bugs.retain(|bug| bug.number.trim_end_matches(char::is_alphabetic) == only || bug.number == *only);
            if bugs.is_empty() {
                return Err(format!("there is no bug {only}"));
            }
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
        let copy = Copy::make(&target.join("seeded-bugs"))?;
        let mut finders: Vec<&Finder> = vec![];
        for bug in &bugs {
            if !finders.contains(&&bug.finder) {
                finders.push(&bug.finder);
            }
        }
        for finder in finders {
            if let Some(catch) = copy.find(finder, CLEAN_BUDGETS)? {
                eprintln!("without any of the bugs: {}\n{}", catch.noticed, catch.plan.join("\n"));
                return Ok(false);
            }
        }
        let mut caught = 0;
        let mut hunts = vec![];
        for bug in &bugs {
            let verdict = seeded::hunt(&copy, bug)?;
            caught += usize::from(matches!(verdict, Verdict::Found(_)));
            match (args.json, args.markdown) {
                (true, _) => println!("{}", as_json(bug, &verdict)),
                (_, true) => eprintln!("{}", story(bug, &verdict)),
                _ => println!("{}", story(bug, &verdict)),
            }
            hunts.push((bug, verdict));
        }
        if args.markdown {
            print!("{}", report(&hunts));
        } else if !args.json {
            println!("{caught} of {} found", bugs.len());
        }
        Ok(caught == bugs.len())
    }

    fn story(bug: &Bug, verdict: &Verdict) -> String {
        let mut text = format!("{:>3}  {}\n", bug.number, bug.what);
        let _ = match verdict {
            Verdict::Found(catch) => {
                let plan: String = catch.plan.iter().map(|line| format!("\n         {line}")).collect();
                writeln!(text, "     found in {:.2} s: {}{plan}", catch.took.as_secs_f64(), catch.noticed)
            }
            Verdict::Survived => writeln!(text, "     SURVIVED"),
            Verdict::Rotten(why) => writeln!(text, "     ROTTEN: {why}"),
        };
        text
    }

    fn as_json(bug: &Bug, verdict: &Verdict) -> serde_json::Value {
        let (found, catch, why) = match verdict {
            Verdict::Found(catch) => ("found", catch.clone(), None),
            Verdict::Survived => ("survived", Catch::default(), None),
            Verdict::Rotten(why) => ("rotten", Catch::default(), Some(why)),
        };
        json!({
            "bug": bug.number,
            "what": bug.what,
            "verdict": found,
            "why": why,
            "noticed": catch.noticed,
            "faults": catch.budget.0,
            "requests": catch.budget.1,
            "states": catch.states,
            "seconds": catch.took.as_secs_f64(),
            "plan": catch.plan,
        })
    }

    const OPENING: &str = "\
# Bugs put in on purpose

Each `.patch` here is a bug that somebody could make, in a few lines, with the promise that it breaks on top. The tool
puts them into a copy of the sources, one at a time, and looks for them with `vmsim explore`: without any fault first,
then with one request, one fault, and so on, on all simulated hypervisors, until a promise breaks. What ships knows
nothing of this. Where a promise is an adapter's, the adapter's own test must find the bug.

This page was made by

```sh
cargo run -p vmtask-tests --bin seeded-bugs -- --markdown > tests/seeded/README.md
```

States and seconds are those of the whole search, smaller budgets included, building excluded, one core, a build with
debug assertions. A plan is replayed, in a build with the bug in it, with `vmsim replay FILE`.

| | Bug | What was noticed | Faults + requests | States | Seconds | Shortest plan |
|---|---|---|---|---|---|---|
";

    fn report(hunts: &[(&Bug, Verdict)]) -> String {
        let mut text = OPENING.to_owned();
        for (bug, verdict) in hunts {
            let file = bug.patch.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let _ = write!(text, "| [{}]({file}) | {} | ", bug.number, bug.what);
            let _ = match verdict {
                Verdict::Found(catch) if bug.finder == Finder::Explore => {
                    let plan: Vec<_> = catch.plan.iter().map(|line| format!("`{line}`")).collect();
                    let (faults, requests) = catch.budget;
                    let Catch { noticed, states, .. } = catch;
                    let seconds = catch.took.as_secs_f64();
                    let plan = plan.join("<br>");
                    writeln!(text, "{noticed} | {faults} + {requests} | {states} | {seconds:.2} | {plan} |")
                }
                Verdict::Found(catch) => {
                    writeln!(text, "{} | | | {:.2} | |", catch.noticed, catch.took.as_secs_f64())
                }
                Verdict::Survived => writeln!(text, "**nothing** | | | | |"),
                Verdict::Rotten(_) => writeln!(text, "**the patch is out of date** | | | | |"),
            };
        }
        text.push('\n');
        text.push_str(include_str!("../../seeded/chosen.md"));
        text.push_str(include_str!("../../seeded/mutants.md"));
        text
    }
}
