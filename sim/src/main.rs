//! `vmsim`: one simulated run, or every run within a budget of faults and requests.
//!
//! Exit codes: 0 all promises kept; 1 a promise was broken, or an expectation of a plan was not met; 2 bad input;
//! 3 the search was given up before it was complete.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks through these")]

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;
use vmtask_sim::grid::Grid;
use vmtask_sim::{Budget, Exploration, Explorer, Plan, Profile, Run, Seed};

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
        #[arg(long, default_value_t = 2)]
        faults: u8,
        /// With a seed: at most so many requests.
        #[arg(long, default_value_t = 1)]
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
        #[arg(long, default_value_t = 6)]
        latest: u8,
        /// Give up after so many states (each takes about 40 bytes, and those at the frontier 3 KiB).
        #[arg(long, default_value_t = 20_000_000)]
        max_states: usize,
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
        svg: Option<std::path::PathBuf>,
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

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Run { plan, seed, faults, requests, scenario, quiet, json } => {
            let given = plan.map_or_else(|| Ok(Plan { profile: scenario.into(), ..Plan::default() }), |p| read(&p));
            given.map(|mut plan| {
                if let Some(seed) = seed {
                    plan.seed = Some(Seed { seed, faults, requests });
                }
                run(&plan, quiet, json)
            })
        }
        Command::Replay { plan, json } => read(&plan).map(|plan| run(&plan, false, json)),
        Command::Explore { faults, requests, scenario, latest, max_states, json } => {
            let profiles = scenario.map_or_else(|| Profile::ALL.to_vec(), |s| vec![s.into()]);
            let budget = Budget { faults, requests };
            let explorer = |profile| Explorer { profile, budget, latest, max_states, max_findings: 20 };
            Ok(explore(profiles.into_iter().map(explorer), json))
        }
        Command::Grid { hosts, workunits, seed, threads, svg, json } => {
            let grid = Grid::new(hosts, workunits.unwrap_or(hosts), seed);
            grid.map_err(|error| error.to_string()).and_then(|grid| run_grid(&grid, threads, svg.as_deref(), json))
        }
    };
    result.unwrap_or_else(|message| {
        eprintln!("vmsim: {message}");
        ExitCode::from(2)
    })
}

fn read(path: &str) -> Result<Plan, String> {
    let text = if path == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| format!("cannot read the plan {path}: {error}"))?;
    text.parse().map_err(|error| format!("{path}: {error}"))
}

fn run(plan: &Plan, quiet: bool, json: bool) -> ExitCode {
    let run = Run::of(plan);
    let broken = run.violation.is_some() || !run.complaints.is_empty();
    if json {
        for line in run.trace.iter().filter(|_| !quiet) {
            println!("{}", json!({ "simulated": true, "trace": line }));
        }
        println!("{}", summary_of_run(&run));
    } else {
        println!("{BANNER}");
        for line in run.trace.iter().filter(|_| !quiet) {
            println!("{line}");
        }
        print!("{}", story_of_run(&run));
        println!("{BANNER}");
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

fn explore(explorers: impl Iterator<Item = Explorer>, json: bool) -> ExitCode {
    if !json {
        println!("{BANNER}");
    }
    let (mut broken, mut complete) = (0, true);
    for explorer in explorers {
        let started = Instant::now();
        let found = explorer.explore(|_, _| {});
        broken += found.findings.len();
        complete &= found.complete;
        let seconds = started.elapsed().as_secs_f64();
        if json {
            println!("{}", summary_of_exploration(&explorer, &found, seconds));
        } else {
            print!("{}", story_of_exploration(&explorer, &found, seconds));
        }
    }
    if !json {
        println!("{BANNER}");
    }
    match (broken, complete) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(3),
        _ => ExitCode::from(1),
    }
}

fn summary_of_exploration(explorer: &Explorer, found: &Exploration, seconds: f64) -> serde_json::Value {
    json!({
        "simulated": true,
        "scenario": explorer.profile.name(),
        "faults": explorer.budget.faults,
        "requests": explorer.budget.requests,
        "latest": explorer.latest,
        "states": found.states,
        "transitions": found.transitions,
        "depth": found.depth,
        "longest_way_home": found.longest_way_home,
        "completed": found.ends[0],
        "aborted": found.ends[1],
        "complete": found.complete,
        "seconds": seconds,
        "violations": found.findings.iter().map(|f| json!({
            "violation": f.violation.to_string(), "count": f.count, "plan": f.plan.to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn story_of_exploration(explorer: &Explorer, found: &Exploration, seconds: f64) -> String {
    let Budget { faults, requests } = explorer.budget;
    let mut text = format!(
        "scenario {}: every run with at most {faults} faults and {requests} requests, each at every moment\n  \
         {} states, {} transitions, at most {} steps deep, in {seconds:.1} s\n",
        explorer.profile.name(),
        found.states,
        found.transitions,
        found.depth,
    );
    if found.complete {
        let _ = writeln!(
            text,
            "  once faults stop, every state is at most {} steps from the end\n  {} violations",
            found.longest_way_home,
            found.findings.len()
        );
    } else {
        let _ = writeln!(text, "  given up before everything was visited: {} violations so far", found.findings.len());
    }
    for finding in &found.findings {
        let _ = writeln!(
            text,
            "BROKEN ({} times): {}\nthis plan repeats it:\n{}",
            finding.count, finding.violation, finding.plan
        );
    }
    text
}

fn run_grid(grid: &Grid, threads: u8, svg: Option<&std::path::Path>, json: bool) -> Result<ExitCode, String> {
    // Before the long part: a file that cannot be written should not cost it.
    let cannot = |path: &std::path::Path, error| format!("cannot write the chart {}: {error}", path.display());
    if let Some(path) = svg {
        std::fs::File::create(path).map_err(|error| cannot(path, error))?;
    }
    let started = Instant::now();
    let report = match grid.run(threads.into()) {
        Ok(report) => report,
        Err(error) if error.is_broken_promise() => {
            eprintln!("vmsim: {error}");
            return Ok(ExitCode::from(1));
        }
        Err(error) => return Err(error.to_string()),
    };
    let seconds = started.elapsed().as_secs_f64();
    let (bytes, peak) = (Grid::bytes_per_host(), peak_memory());
    if json {
        let mut all = report.json();
        all["seconds"] = json!(seconds);
        all["bytes_per_host"] = json!(bytes);
        all["peak_rss_bytes"] = json!(peak);
        println!("{all}");
    } else {
        println!("{BANNER}\n{}", report.table());
        let peak = peak.map_or_else(String::new, |peak| format!(", {} MiB of memory at most", peak >> 20));
        println!("{seconds:.1} s{peak}, {bytes} bytes a host and arm, {threads} arms at a time\n{BANNER}");
    }
    if let Some(path) = svg {
        std::fs::write(path, report.svg()).map_err(|error| cannot(path, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The most memory that this process has had at once, in bytes, where the system says so.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
