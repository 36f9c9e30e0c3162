//! Looking for broken promises: in every run there is, or in many random ones.

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use serde_json::{Value, json};
use vmtask_sim::{
    Breadth, Budget, Cell, Coverage, Exploration, Explorer, Finding, Frontier, GivenUp, Profile, Reach, Swarm,
    matrix_svg, states_svg,
};

use crate::BANNER;

/// A search for every run within a budget.
pub(crate) struct Search {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) budget: Budget,
    pub(crate) breadth: Breadth,
    pub(crate) every_state: bool,
    pub(crate) max_states: usize,
    pub(crate) memory: usize,
    /// For all of it.
    pub(crate) time: Option<Duration>,
    pub(crate) threads: Option<NonZeroUsize>,
}

/// With one thing that goes otherwise at first, then with two, and so on: a search that is given up has been complete up
/// to some number, and the first run that breaks a promise has as few as possible.
pub(crate) fn explore(search: &Search, json: bool) -> ExitCode {
    let interrupt = interrupt();
    if !json {
        line!("{BANNER}");
    }
    let started = Instant::now();
    let (mut broken, mut complete) = (0, true);
    let workers = search.threads.unwrap_or_else(processors);
    let mut looked_at = vec![];
    'search: for acts in 0..=search.budget.acts {
        for &profile in &search.profiles {
            let explorer = Explorer {
                breadth: search.breadth,
                every_state: search.every_state,
                max_states: search.max_states,
                memory: search.memory,
                time: search.time.map(|time| time.saturating_sub(started.elapsed())),
                workers,
                interrupt: Arc::clone(&interrupt),
                ..Explorer::new(profile, search.budget.at_most(acts))
            };
            let since = Instant::now();
            let bar = bar();
            let found = explorer.explore(|states| bar.set_message(format!("{states} states")));
            bar.finish_and_clear();
            broken += found.findings.len();
            complete &= found.given_up.is_none();
            looked_at.push((profile, acts, found.given_up));
            let seconds = since.elapsed().as_secs_f64();
            if json {
                let mut summary = summary_of_exploration(&explorer, &found, seconds);
                if !complete {
                    summary["searches"] = HowFar::of(search, &looked_at).json();
                }
                line!("{summary}");
            } else {
                text!("{}", story_of_exploration(&explorer, &found, seconds));
            }
            if !complete {
                break 'search;
            }
        }
        if broken > 0 {
            break;
        }
    }
    if !complete && !json {
        line!("{}", HowFar::of(search, &looked_at));
    }
    if !json {
        line!("{:.1} s in all, {workers} threads\n{BANNER}", started.elapsed().as_secs_f64());
    }
    match (broken, complete) {
        _ if interrupt.load(Ordering::Relaxed) => ExitCode::from(INTERRUPTED),
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(3),
        _ => ExitCode::from(1),
    }
}

/// What a search that was given up has looked at, in words: scenarios with numbers of deviations.
struct HowFar {
    complete: Vec<(Profile, u8)>,
    given_up: Vec<(Profile, u8, GivenUp)>,
    not_looked_at: Vec<(Profile, u8)>,
}

impl HowFar {
    fn of(search: &Search, looked_at: &[(Profile, u8, Option<GivenUp>)]) -> Self {
        let all = (0..=search.budget.acts).flat_map(|acts| search.profiles.iter().map(move |&profile| (profile, acts)));
        let known = |(profile, acts): &(Profile, u8)| looked_at.iter().any(|(p, a, _)| (p, a) == (profile, acts));
        Self {
            complete: looked_at.iter().filter(|l| l.2.is_none()).map(|&(profile, acts, _)| (profile, acts)).collect(),
            given_up: looked_at.iter().filter_map(|&(profile, acts, why)| Some((profile, acts, why?))).collect(),
            not_looked_at: all.filter(|pair| !known(pair)).collect(),
        }
    }

    fn json(&self) -> Value {
        let pair = |&(profile, acts): &(Profile, u8)| json!({ "scenario": profile.name(), "acts": acts });
        json!({
            "complete": self.complete.iter().map(pair).collect::<Vec<_>>(),
            "given_up": self.given_up.iter().map(|(profile, acts, why)| json!({
                "scenario": profile.name(), "acts": acts, "why": why.to_string(),
            })).collect::<Vec<_>>(),
            "not_looked_at": self.not_looked_at.iter().map(pair).collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for HowFar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |pairs: &[(Profile, u8)]| {
            let mut words: Vec<String> = vec![];
            for acts in 0..=u8::MAX {
                let names: Vec<_> = pairs.iter().filter(|pair| pair.1 == acts).map(|pair| pair.0.name()).collect();
                if !names.is_empty() {
                    words.push(format!("{acts} ({})", names.join(", ")));
                }
            }
            if words.is_empty() { "none".into() } else { words.join(", ") }
        };
        writeln!(f, "complete, by deviations from a calm run: {}", list(&self.complete))?;
        for (profile, acts, why) in &self.given_up {
            writeln!(f, "given up: {acts} ({}), because {why}", profile.name())?;
        }
        write!(f, "not looked at: {}", list(&self.not_looked_at))
    }
}

/// The exit code of a program that was interrupted from the keyboard, as shells have it.
const INTERRUPTED: u8 = 130;

/// Set once somebody interrupts: what was found so far is told. A second time ends the process at once.
fn interrupt() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    {
        use signal_hook::consts::SIGINT;
        // If there is nobody to listen to, an interrupt ends the process as ever.
        let _ = signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED.into(), Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&flag)));
    }
    flag
}

/// On a terminal only.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

pub(crate) fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn summary_of_exploration(explorer: &Explorer, found: &Exploration, seconds: f64) -> serde_json::Value {
    json!({
        "simulated": true,
        "scenario": explorer.profile.name(),
        "faults": explorer.budget.faults,
        "requests": explorer.budget.requests,
        "latest": explorer.breadth.latest,
        "states": found.states,
        "transitions": found.transitions,
        "acts": explorer.budget.acts,
        "longest_stride": found.longest_stride,
        "longest_way_home": found.longest_way_home,
        "completed": found.ends[0],
        "aborted": found.ends[1],
        "complete": found.given_up.is_none(),
        "given_up": found.given_up.map(|why| why.to_string()),
        "seconds": seconds,
        "violations": violations(&found.findings),
    })
}

fn violations(findings: &[Finding]) -> Vec<Value> {
    let value =
        |f: &Finding| json!({ "violation": f.violation.to_string(), "count": f.count, "plan": f.plan.to_string() });
    findings.iter().map(value).collect()
}

fn story_of_exploration(explorer: &Explorer, found: &Exploration, seconds: f64) -> String {
    let Budget { faults, requests, acts } = explorer.budget;
    let together = if acts < faults + requests { format!(", {acts} together") } else { String::new() };
    let mut text = format!(
        "scenario {}: every run with at most {faults} faults and {requests} requests{together}, each at every moment\n  \
         {} states stored, at most {} steps apart, {} transitions, in {seconds:.1} s\n",
        explorer.profile.name(),
        found.states,
        found.longest_stride,
        found.transitions,
    );
    let count = found.findings.len();
    let _ = match found.given_up {
        None => writeln!(
            text,
            "  once faults stop, every state is at most {} steps from the end\n  {count} violations",
            found.longest_way_home,
        ),
        Some(why) => {
            writeln!(text, "  given up before everything was visited, because {why}: {count} violations so far")
        }
    };
    text + &story_of_findings(&found.findings)
}

fn story_of_findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { violation, plan, count, .. } in findings {
        let _ = writeln!(text, "BROKEN ({count} times): {violation}\nthis plan repeats it:\n{plan}");
    }
    text
}

/// Another one each time.
pub(crate) fn seed_of_the_moment() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 % 1_000_000_007)
}

/// A series of random runs.
pub(crate) struct Series {
    pub(crate) seconds: u64,
    pub(crate) runs: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) threads: Option<NonZeroUsize>,
}

pub(crate) fn swarm(series: &Series, json: bool) -> ExitCode {
    let interrupt = interrupt();
    let seed = series.seed.unwrap_or_else(seed_of_the_moment);
    let threads = series.threads.unwrap_or_else(processors).get();
    if !json {
        line!("{BANNER}\nseed {seed}, {threads} threads");
    }
    let started = Instant::now();
    let interrupted = || interrupt.load(Ordering::Relaxed);
    let swarms: Vec<Swarm> = thread::scope(|scope| {
        let one = |thread: usize| {
            let mut swarm = Swarm::new(seed.wrapping_add(thread as u64), &series.profiles);
            // As evenly as it goes.
            let share = series.runs.map(|runs| (runs + thread as u64) / threads as u64);
            let interrupted = &interrupted;
            move || {
                let until = Duration::from_secs(series.seconds);
                let goes_on = |runs| share.map_or_else(|| started.elapsed() < until, |share| runs < share);
                while goes_on(swarm.runs) && !interrupted() {
                    swarm.run();
                }
                swarm
            }
        };
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(one(thread))).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    let whole = swarms.len() == threads;
    let seconds = started.elapsed().as_secs_f64();
    let mut coverage = Coverage::default();
    swarms.iter().for_each(|swarm| coverage.add(&swarm.coverage));
    let findings: Vec<Finding> = swarms.iter().flat_map(|swarm| swarm.findings.iter().cloned()).collect();
    let sum = |of: fn(&Swarm) -> u64| swarms.iter().map(of).sum::<u64>();
    let (runs, steps, acts) = (sum(|s| s.runs), sum(|s| s.steps), sum(|s| s.acts));
    let [met, impossible, missed] = coverage.counts();
    if json {
        line!(
            "{}",
            json!({
                "simulated": true, "seed": seed, "threads": threads, "seconds": seconds, "runs": runs, "steps": steps,
                "faults_and_requests": acts,
                "cells": { "met": met, "impossible": impossible, "missed": missed },
                "interrupted": interrupted(),
                "violations": violations(&findings),
            })
        );
    } else {
        if interrupted() {
            line!("interrupted: this is what there was so far");
        }
        line!(
            "{runs} runs with {acts} faults and requests, {steps} steps, in {seconds:.1} s: {:.0} runs a second\n\
             {met} cells of the table met, {impossible} impossible, {missed} missed\n{} violations",
            runs as f64 / seconds,
            findings.len()
        );
        text!("{}", story_of_findings(&findings));
        line!("{BANNER}");
    }
    if interrupted() {
        return ExitCode::from(INTERRUPTED);
    }
    ExitCode::from(u8::from(!whole || !findings.is_empty()))
}

pub(crate) fn frontier(frontier: Frontier, json: bool) -> ExitCode {
    let frontier = Frontier { interrupt: interrupt(), ..frontier };
    if !json {
        line!("{BANNER}\nseed {}, {} threads", frontier.seed, frontier.workers);
    }
    let started = Instant::now();
    let bar = bar();
    let found = frontier.search(|states| bar.set_message(format!("{states} states")));
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let interrupted = frontier.interrupt.load(Ordering::Relaxed);
    let [met, impossible, missed] = found.coverage.counts();
    if json {
        line!(
            "{}",
            json!({
                "simulated": true, "seed": frontier.seed, "threads": frontier.workers, "seconds": seconds,
                "states": found.states, "by_deviations": found.by_deviations, "expanded": found.expanded,
                "steps": found.steps, "given_up": found.given_up, "forgotten": found.forgotten,
                "exhausted": found.exhausted,
                "cells": { "met": met, "impossible": impossible, "missed": missed },
                "interrupted": interrupted,
                "violations": violations(&found.findings),
            })
        );
    } else {
        if interrupted {
            line!("interrupted: this is what there was so far");
        }
        line!(
            "{} states, {} steps, in {seconds:.1} s: {:.0} states a second; {} states were gone on from in every way",
            found.states,
            found.steps,
            found.states as f64 / seconds,
            found.expanded
        );
        line!("states by the number of deviations, from none: {:?}", found.by_deviations);
        if found.given_up > 0 || found.forgotten > 0 {
            line!("for want of room {} were never gone on from, and {} forgotten", found.given_up, found.forgotten);
        }
        if found.exhausted {
            line!("nothing is left to go on from");
        }
        line!(
            "{met} cells of the table met, {impossible} impossible, {missed} missed\n{} violations",
            found.findings.len()
        );
        text!("{}", story_of_findings(&found.findings));
        line!("{BANNER}");
    }
    if interrupted {
        return ExitCode::from(INTERRUPTED);
    }
    ExitCode::from(u8::from(!found.findings.is_empty()))
}

pub(crate) fn reach(profile: Profile, budget: Budget, steps: u64, seed: u64, json: bool) -> Result<ExitCode, String> {
    let reach = Reach::measure(profile, budget, steps, seed)
        .map_err(|why| format!("the states within the budget were not all visited, because {why}"))?;
    let share = |n: usize| n as f64 / reach.shallow as f64;
    if json {
        let searches = reach.reached.iter().map(|r| {
            json!({
                "search": r.search, "steps": r.steps, "states": r.states, "shallow": r.shallow,
                "share": share(r.shallow), "seconds": r.seconds,
            })
        });
        let searches: Vec<_> = searches.collect();
        line!("{}", json!({ "simulated": true, "seed": seed, "shallow": reach.shallow, "searches": searches }));
        return Ok(ExitCode::SUCCESS);
    }
    let Budget { faults, requests, .. } = budget;
    line!(
        "{BANNER}\nscenario {}, at most {faults} faults and {requests} requests: {} states",
        profile.name(),
        reach.shallow
    );
    for r in &reach.reached {
        line!(
            "{}: {} steps in {:.1} s to {} different states, {:.0} a second; of those within the budget {:.1} %",
            r.search,
            r.steps,
            r.seconds,
            r.states,
            r.states as f64 / r.seconds,
            100.0 * share(r.shallow)
        );
    }
    line!("{BANNER}");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn coverage(
    runs: u64,
    seed: u64,
    svg: Option<&Path>,
    states: Option<&Path>,
    json: bool,
) -> Result<ExitCode, String> {
    if let (Some(svg), Some(states)) = (svg, states)
        && svg == states
    {
        return Err(format!("--svg and --states name the same file, {}: one would overwrite the other", svg.display()));
    }
    let mut swarm = Swarm::new(seed, &Profile::ALL);
    swarm.cover(runs);
    let coverage = &swarm.coverage;
    let draw = |file: Option<&Path>, text: &dyn Fn() -> String| match file {
        Some(path) => fs::write(path, text()).map_err(|error| format!("cannot write {}: {error}", path.display())),
        None => Ok(()),
    };
    draw(svg, &|| matrix_svg(coverage))?;
    draw(states, &states_svg)?;
    for (phase, trigger, cell) in coverage.cells() {
        let (count, why) = match cell {
            Cell::Met(count) => (count, None),
            Cell::Impossible(why) => (0, Some(why)),
            Cell::Missed => (0, None),
        };
        let (phase, trigger) = (format!("{phase:?}"), format!("{trigger:?}"));
        if json {
            line!(
                "{}",
                json!({ "simulated": true, "phase": phase, "trigger": trigger, "count": count, "impossible": why })
            );
        }
    }
    let [_, _, missed] = coverage.counts();
    if !json {
        line!("{BANNER}\n{coverage}\nafter {} runs\n\nWhy a cell cannot be met:", swarm.runs);
        text!("{}{}", reasons(coverage), story_of_findings(&swarm.findings));
        line!("{BANNER}");
    }
    Ok(ExitCode::from(u8::from(missed > 0 || !swarm.findings.is_empty())))
}

/// Each reason once, with the cells that it is for.
fn reasons(coverage: &Coverage) -> String {
    let mut reasons: Vec<(&str, Vec<String>)> = vec![];
    for (phase, trigger, cell) in coverage.cells() {
        let Cell::Impossible(why) = cell else { continue };
        let cell = format!("{phase:?}/{trigger:?}");
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, cells)) => cells.push(cell),
            None => reasons.push((why, vec![cell])),
        }
    }
    reasons.iter().map(|(why, cells)| format!("  {why}: {}\n", cells.join(", "))).collect()
}
