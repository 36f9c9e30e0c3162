//! Bugs put in on purpose, one at a time, and whether they are found.
//!
//! ```text
//!   tests/seeded/NN-name.patch --> a copy of the sources --> cargo build --> vmsim explore, budget after budget
//!                                   ^                                          |
//!                                   `---- taken out again <---- what it found -'
//! ```
//!
//! The bugs are patches, so that no line of what is shipped knows of them. Each opens with what it is, which promise it
//! breaks and who must find it: the simulator, or a test, where the promise is an adapter's. A patch that does not
//! apply or does not compile any more guards nothing, and counts as a failure like a bug that survives.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::real::repository;

/// What is searched, one after the other until something is found: at most so many faults and requests.
pub const BUDGETS: [(u8, u8); 8] = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2)];
/// Those of them that the sources without a bug are searched with: few enough to be searched to their end.
pub const CLEAN_BUDGETS: &[(u8, u8)] = BUDGETS.split_at(6).0;
/// The kinds of hypervisor, as `vmsim` calls them.
const SCENARIOS: [&str; 6] = ["qemu", "warm", "vix", "plain", "failing", "limited"];
/// A search that came so far without a find goes on with the next budget.
const MAX_STATES: u64 = 1_000_000;
/// What the copy consists of.
const SOURCES: [&str; 7] = ["Cargo.toml", "Cargo.lock", "core", "sim", "adapters", "tests", "fuzz"];

/// One bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// Its number, with a letter if there are several of the same kind.
    pub number: String,
    /// What it is.
    pub what: String,
    /// The promise that it breaks.
    pub breaks: String,
    /// Who must find it.
    pub finder: Finder,
    /// Where it is.
    pub patch: PathBuf,
}

/// Who finds a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finder {
    /// `vmsim explore`.
    Explore,
    /// `cargo test` with these arguments.
    Test(Vec<String>),
}

/// What became of a bug.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It was found.
    Found(Catch),
    /// Nobody noticed it.
    Survived,
    /// The patch is out of date: why.
    Rotten(String),
}

/// How a bug was found.
#[derive(Clone, Debug, Default)]
pub struct Catch {
    /// The broken promise, in the finder's words.
    pub noticed: String,
    /// Faults and requests that it took.
    pub budget: (u8, u8),
    /// States that were visited on the way, smaller budgets included.
    pub states: u64,
    /// How long the search took, building excluded.
    pub took: Duration,
    /// The shortest plan.
    pub plan: Vec<String>,
}

/// All bugs, by their numbers.
///
/// # Errors
/// If one cannot be read, or does not say what it must.
pub fn bugs() -> Result<Vec<Bug>, String> {
    let dir = repository().join("tests/seeded");
    let entries = fs::read_dir(&dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let mut patches: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|ext| ext == "patch"));
    patches.sort();
    patches.into_iter().map(|path| bug(path.clone()).map_err(|why| format!("{}: {why}", path.display()))).collect()
}

fn bug(patch: PathBuf) -> Result<Bug, String> {
    let text = fs::read_to_string(&patch).map_err(|error| error.to_string())?;
    let name = patch.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.split('-').next().unwrap_or_default().trim_start_matches('0').to_owned();
    let mut lines = text.lines();
    let mut line = |start: &str| {
        let rest = lines.next().and_then(|line| line.strip_prefix(start));
        rest.map(str::to_owned).ok_or_else(|| format!("expected a line that starts with {start:?}"))
    };
    let what = line("# ")?.trim_end_matches('.').to_owned();
    let breaks = line("# Breaks: ")?;
    let finder = match line("# Found by: ")?.strip_prefix("cargo test ") {
        Some(test) => Finder::Test(test.split(' ').map(str::to_owned).collect()),
        None => Finder::Explore,
    };
    Ok(Bug { number, what, breaks, finder, patch })
}

/// A copy of the sources, to put bugs into.
#[derive(Debug)]
pub struct Copy {
    sources: PathBuf,
    target: PathBuf,
    /// Held as long as the copy is used.
    _lock: File,
}

impl Copy {
    /// Makes one in `dir`, which is kept: the next one there builds faster.
    ///
    /// # Errors
    /// If a file cannot be copied, or another process uses `dir`.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let told = |error: io::Error| format!("cannot copy the sources to {}: {error}", dir.display());
        fs::create_dir_all(dir).map_err(told)?;
        let lock = File::create(dir.join("lock")).map_err(told)?;
        lock.try_lock().map_err(|error| format!("{} is in use: {error}", dir.display()))?;
        let sources = dir.join("sources");
        match fs::remove_dir_all(&sources) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
            _ => {}
        }
        fs::create_dir_all(&sources).map_err(told)?;
        for name in SOURCES {
            copy(&repository().join(name), &sources.join(name)).map_err(told)?;
        }
        Ok(Self { sources, target: dir.join("target"), _lock: lock })
    }

    /// # Errors
    /// If the patch does not apply.
    pub fn put_in(&self, bug: &Bug) -> Result<(), String> {
        self.apply(bug, false)
    }

    /// # Errors
    /// If the bug was not in it.
    pub fn take_out(&self, bug: &Bug) -> Result<(), String> {
        self.apply(bug, true)
    }

    fn apply(&self, bug: &Bug, reverse: bool) -> Result<(), String> {
        let mut git = Command::new("git");
        // The copy may lie in the repository's own target directory: git would look for the files there.
        git.current_dir(&self.sources).env("GIT_CEILING_DIRECTORIES", self.sources.parent().unwrap_or(&self.sources));
        git.arg("apply").args(reverse.then_some("--reverse")).arg(&bug.patch);
        run(&mut git).map(drop)
    }

    /// Looks for a bug, the sources as they are.
    ///
    /// # Errors
    /// If the sources do not compile.
    pub fn find(&self, finder: &Finder, budgets: &[(u8, u8)]) -> Result<Option<Catch>, String> {
        match finder {
            Finder::Explore => {
                run(self.cargo("build").args(["--package", "vmtask-sim", "--bin", "vmsim"]))?;
                self.explore(budgets)
            }
            Finder::Test(args) => {
                run(self.cargo("test").args(args).arg("--no-run"))?;
                self.test(args)
            }
        }
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.sources).env("CARGO_TARGET_DIR", &self.target);
        // Nobody will look at a backtrace, and a build without them is faster.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").args([command, "--quiet", "--offline"]);
        cargo
    }

    fn test(&self, args: &[String]) -> Result<Option<Catch>, String> {
        let begun = Instant::now();
        let output = self.cargo("test").args(args).output().map_err(|error| format!("cargo test: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.contains("running 1 test") {
            return Err(format!("expected one test, cargo test said:\n{said}"));
        }
        let name = args.last().map_or("", String::as_str).replace('_', " ");
        let catch = Catch { noticed: format!("the test failed: {name}"), took: begun.elapsed(), ..Catch::default() };
        Ok((!output.status.success()).then_some(catch))
    }

    /// Searches budget by budget, so that what is found first takes the fewest lines.
    fn explore(&self, budgets: &[(u8, u8)]) -> Result<Option<Catch>, String> {
        let begun = Instant::now();
        let mut states = 0;
        for &budget in budgets {
            for scenario in SCENARIOS {
                // The last of its lines is of the largest number of deviations, or of the first that found something.
                let found = self.vmsim(scenario, budget)?;
                states += found["states"].as_u64().unwrap_or(0);
                let violations = found["violations"].as_array().ok_or("vmsim --json named no violations")?;
                let plans = violations.iter().map(|v| (text(&v["violation"]), lines(&v["plan"])));
                if let Some((noticed, plan)) = plans.min_by_key(|(_, plan)| plan.len()) {
                    return Ok(Some(Catch { noticed, budget, states, took: begun.elapsed(), plan }));
                }
            }
        }
        Ok(None)
    }

    fn vmsim(&self, scenario: &str, (faults, requests): (u8, u8)) -> Result<Value, String> {
        let mut vmsim = Command::new(self.target.join("debug/vmsim"));
        vmsim.args(["explore", "--json", "--scenario", scenario]);
        vmsim.arg(format!("--faults={faults}")).arg(format!("--requests={requests}"));
        vmsim.arg(format!("--max-states={MAX_STATES}"));
        let output = vmsim.output().map_err(|error| format!("cannot run {vmsim:?}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let last = said.lines().next_back().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| format!("{vmsim:?}: {error}\n{}", complaint(&output)))
    }
}

/// Puts a bug in, looks for it, and takes it out.
///
/// # Errors
/// If it cannot be taken out again: the copy is of no more use.
pub fn hunt(copy: &Copy, bug: &Bug) -> Result<Verdict, String> {
    if let Err(why) = copy.put_in(bug) {
        return Ok(Verdict::Rotten(format!("the patch does not apply: {why}")));
    }
    let found = copy.find(&bug.finder, &BUDGETS);
    copy.take_out(bug)?;
    Ok(match found {
        Ok(Some(catch)) => Verdict::Found(catch),
        Ok(None) => Verdict::Survived,
        Err(why) => Verdict::Rotten(why),
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn lines(value: &Value) -> Vec<String> {
    text(value).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() { Ok(output) } else { Err(format!("{command:?} failed:\n{}", complaint(&output))) }
}

fn complaint(output: &Output) -> String {
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end())
}

/// With everything below it, but for what was built there.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "target" {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
