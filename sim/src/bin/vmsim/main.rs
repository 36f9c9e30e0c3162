//! `vmsim`: one simulated run, every run within a budget of faults and requests, or many random ones.
//!
//! Exit codes: 0 all promises kept; 1 a promise was broken, or an expectation of a plan was not met; 2 bad input;
//! 3 the search was given up before it was complete; 130 it was interrupted, and what was found so far is printed.

#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a command-line tool talks through these")]

/// A line on standard output.
macro_rules! line {
    ($($text:tt)*) => {
        $crate::print(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// Text on standard output.
macro_rules! text {
    ($($text:tt)*) => {
        $crate::print(format_args!($($text)*))
    };
}

mod grid;
mod searches;

use std::fmt::Write as _;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;
use vmtask_sim::grid::Grid;
use vmtask_sim::{Breadth, Budget, Frontier, Plan, Profile, Run, Seed};

const BANNER: &str = "simulated: no virtual machine was started and nothing real was computed";

/// Runs the core in a simulated world.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One run: by a plan, by a seed, or without any fault.
    Run {
        /// A plan; `-` reads standard input.
        plan: Option<String>,
        /// Adds faults and requests at random: the same ones for the same seed.
        #[arg(long)]
        seed: Option<u64>,
        /// With a seed: at most so many faults.
        #[arg(long, default_value_t = 2, requires = "seed")]
        faults: u8,
        /// With a seed: at most so many requests.
        #[arg(long, default_value_t = 1, requires = "seed")]
        requests: u8,
        /// Which hypervisor, if no plan says so.
        #[arg(long, value_enum, default_value_t = Scenario::Qemu)]
        scenario: Scenario,
        /// Leave the trace out.
        #[arg(long)]
        quiet: bool,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// A plan again, as a failing run has printed it.
    Replay {
        /// The plan; `-` reads standard input.
        plan: String,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Every run with at most so many faults and requests, each at every moment.
    Explore {
        /// At most so many faults.
        #[arg(long, default_value_t = 1)]
        faults: u8,
        /// At most so many requests.
        #[arg(long, default_value_t = 1)]
        requests: u8,
        /// Only this hypervisor; all of them if left out.
        #[arg(long, value_enum)]
        scenario: Option<Scenario>,
        /// A command that hangs acts up to so many steps later, or never.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(..=i64::from(Breadth::MAX_LATEST)))]
        latest: u8,
        /// Store every state, as if each had to be gone on from: for comparison, the same is found.
        #[arg(long)]
        every_state: bool,
        /// Give up after so many states.
        #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
        max_states: usize,
        /// Give up when so many MiB are used (a state that is known takes 52 bytes, one that waits 3 KiB).
        #[arg(long, value_name = "MIB", default_value_t = 4096)]
        memory: usize,
        /// Give up after so long.
        #[arg(long)]
        seconds: Option<u64>,
        /// How many look at once; as many as there are processors if left out.
        #[arg(long)]
        threads: Option<NonZeroUsize>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Random runs, each in a world that likes other faults; then the weather calms down and every task must end.
    Swarm {
        /// For so long.
        #[arg(long, default_value_t = 30, conflicts_with = "runs", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// So many runs instead: the same ones for the same seed and number of threads.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        runs: Option<u64>,
        /// Repeats a series.
        #[arg(long)]
        seed: Option<u64>,
        /// Only this hypervisor; all of them if left out.
        #[arg(long, value_enum)]
        scenario: Option<Scenario>,
        /// How many at once; as many as there are processors if left out.
        #[arg(long)]
        threads: Option<NonZeroUsize>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// States that nobody has gone on from, one after the other at random, in every way: the deep, never twice the same.
    Frontier {
        /// For so long.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        /// At most so many faults and requests in a run.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
        deviations: u8,
        /// Repeats a search, as far as one thread gets in its time.
        #[arg(long)]
        seed: Option<u64>,
        /// Only this hypervisor; all of them if left out.
        #[arg(long, value_enum)]
        scenario: Option<Scenario>,
        /// Use about so many MiB; what there is no room for is given up at random.
        #[arg(long, value_name = "MIB", default_value_t = 1024)]
        memory: usize,
        /// How many look at once; as many as there are processors if left out.
        #[arg(long)]
        threads: Option<NonZeroUsize>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// How many of all states within a small budget a swarm and a frontier reach within so many steps.
    Reach {
        /// All states with at most so many faults.
        #[arg(long, default_value_t = 1)]
        faults: u8,
        /// And so many requests.
        #[arg(long, default_value_t = 1)]
        requests: u8,
        /// How many steps each makes, on one thread.
        #[arg(long, default_value_t = 5_000_000)]
        steps: u64,
        /// Of this series.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// On which hypervisor.
        #[arg(long, value_enum, default_value_t = Scenario::Qemu)]
        scenario: Scenario,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Which cells of the core's table random runs meet, and why the others cannot be met.
    Coverage {
        /// At most so many runs, fewer if every cell has been met that can be.
        #[arg(long, default_value_t = 3_000_000)]
        runs: u64,
        /// Of this series.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Draws the matrix into this file.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Draws the phases, and what follows what, into this file.
        #[arg(long, value_name = "FILE")]
        states: Option<PathBuf>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// A volunteer-computing project with many hosts: what virtual machines and checkpoints buy it.
    Grid {
        /// How many computers, each a machine of the core: from 10 to 4000000.
        #[arg(long, default_value_t = 10_000)]
        hosts: u32,
        /// How many workunits; as many as hosts if left out.
        #[arg(long)]
        workunits: Option<u32>,
        /// The same figures for the same seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many of the four arms are run side by side; each takes the memory of all hosts.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
        threads: u8,
        /// Write a chart to this file, too.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    Qemu,
    Warm,
    Vix,
    Plain,
}

impl From<Scenario> for Profile {
    fn from(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Qemu => Self::Qemu,
            Scenario::Warm => Self::Warm,
            Scenario::Vix => Self::Vix,
            Scenario::Plain => Self::Plain,
        }
    }
}

/// Whoever reads may have had enough: `vmsim ... | head` is no error. But what nobody can have read (a full disk) must not
/// count as told.
fn print(text: std::fmt::Arguments<'_>) {
    use std::io::{ErrorKind, Write as _};
    let mut out = std::io::stdout();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("vmsim: cannot write to standard output: {error}");
            std::process::exit(2);
        }
        _ => {}
    }
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Run { plan, seed, faults, requests, scenario, quiet, json } => {
            let profile = scenario.into();
            let given = plan.map_or_else(|| Ok(Plan { profile, ..Plan::default() }), |path| read(&path, profile));
            given.map(|mut plan| {
                if let Some(seed) = seed {
                    plan.seed = Some(Seed { seed, faults, requests });
                }
                run(&plan, quiet, json)
            })
        }
        Command::Replay { plan, json } => read(&plan, Profile::default()).map(|plan| run(&plan, false, json)),
        Command::Explore {
            faults,
            requests,
            scenario,
            latest,
            every_state,
            max_states,
            memory,
            seconds,
            threads,
            json,
        } => {
            let profiles = scenario.map_or_else(|| Profile::ALL.to_vec(), |s| vec![s.into()]);
            let budget = Budget::of(faults, requests);
            let search = searches::Search {
                profiles,
                budget,
                breadth: Breadth { latest, ..Breadth::default() },
                every_state,
                max_states,
                memory: memory.saturating_mul(1 << 20),
                time: seconds.map(Duration::from_secs),
                threads,
            };
            Ok(searches::explore(&search, json))
        }
        Command::Swarm { seconds, runs, seed, scenario, threads, json } => {
            let profiles = scenario.map_or_else(|| Profile::ALL.to_vec(), |s| vec![s.into()]);
            Ok(searches::swarm(&searches::Series { seconds, runs, seed, profiles, threads }, json))
        }
        Command::Frontier { seconds, deviations, seed, scenario, memory, threads, json } => {
            let profiles = scenario.map_or_else(|| Profile::ALL.to_vec(), |s| vec![s.into()]);
            let frontier = Frontier {
                deviations,
                memory: memory.saturating_mul(1 << 20),
                time: Some(Duration::from_secs(seconds)),
                workers: threads.unwrap_or_else(searches::processors),
                ..Frontier::new(seed.unwrap_or_else(searches::seed_of_the_moment), &profiles)
            };
            Ok(searches::frontier(frontier, json))
        }
        Command::Reach { faults, requests, steps, seed, scenario, json } => {
            searches::reach(scenario.into(), Budget::of(faults, requests), steps, seed, json)
        }
        Command::Coverage { runs, seed, svg, states, json } => {
            searches::coverage(runs, seed, svg.as_deref(), states.as_deref(), json)
        }
        Command::Grid { hosts, workunits, seed, threads, svg, json } => {
            let grid = Grid::new(hosts, workunits.unwrap_or(hosts), seed);
            grid.map_err(|error| error.to_string()).and_then(|grid| grid::run(&grid, threads, svg.as_deref(), json))
        }
    };
    result.unwrap_or_else(|message| {
        eprintln!("vmsim: {message}");
        ExitCode::from(2)
    })
}

/// A plan, about `profile` if it does not say which.
fn read(path: &str, profile: Profile) -> Result<Plan, String> {
    let bytes = if path == "-" {
        let mut bytes = vec![];
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| format!("cannot read the plan {path}: {error}"))?;
    Plan::read_bytes(&bytes, profile).map_err(|error| format!("{path}: {error}"))
}

fn run(plan: &Plan, quiet: bool, json: bool) -> ExitCode {
    let run = Run::of(plan);
    let broken = run.violation.is_some() || !run.complaints.is_empty();
    if json {
        for line in run.trace.iter().filter(|_| !quiet) {
            line!("{}", json!({ "simulated": true, "trace": line }));
        }
        line!("{}", summary_of_run(&run));
    } else {
        line!("{BANNER}");
        for line in run.trace.iter().filter(|_| !quiet) {
            line!("{line}");
        }
        text!("{}", story_of_run(&run));
        line!("{BANNER}");
    }
    ExitCode::from(u8::from(broken))
}

fn summary_of_run(run: &Run) -> serde_json::Value {
    json!({
        "simulated": true,
        "ends": run.ends.iter().map(|(outcome, restarts)| json!({
            "outcome": outcome.to_string(), "restarts": restarts
        })).collect::<Vec<_>>(),
        "violation": run.violation.map(|v| v.to_string()),
        "complaints": run.complaints,
        "plan": run.plan.to_string(),
        "steps": run.steps,
        "simulated_ms": run.millis,
    })
}

fn story_of_run(run: &Run) -> String {
    let mut text = String::new();
    for (outcome, restarts) in &run.ends {
        let _ = writeln!(text, "ended: {outcome} (rolled back {restarts} times)");
    }
    for complaint in &run.complaints {
        let _ = writeln!(text, "the plan: {complaint}");
    }
    if let Some(violation) = run.violation {
        let _ = writeln!(text, "BROKEN: {violation}\nthis plan repeats it:\n{}", run.plan);
    }
    let _ = writeln!(text, "{} steps, {} s of simulated time", run.steps, run.millis / 1000);
    text
}
