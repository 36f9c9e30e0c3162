//! Kill trials: a task of a few seconds with a checkpoint every half second through the real `vmtask run`, SIGKILL of
//! the manager, of QEMU, or of both at random moments, resumed until it is done.
//!
//! ```text
//!   seed --> trial --> plan: one to three kills, each of somebody at some moment
//!                      run, kill, run again ... until the task has ended by itself
//!                      then: is the result right to the byte? is nothing left? how much work was done twice?
//! ```
//!
//! What was lost is told by the guest itself: its program notes the time of each step that it makes, and the note is
//! part of its state. In the note that it leaves at the end, the steps before a kill end where the checkpoint was taken,
//! and the next ones bear the time at which they were made again.

mod switching;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::guest::{self, Bits};
use crate::procs;
use crate::real::Den;
use crate::run::{Finished, Run, Said, TaskToml, wall_ms};
use crate::stats::Sample;
use switching::Switching;

/// Between two checkpoints.
const INTERVAL_MS: i64 = 500;
/// The program's steps, and how long each takes.
const STEPS: u32 = 150;
const STEP_MS: u32 = 20;
/// A step under way, the manager's reports on their way, and the guest's clock, set a moment after it runs again.
const SLACK_MS: i64 = 3 * STEP_MS as i64 + 200;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// `vmtask`
    Manager,
    /// The emulator.
    Qemu,
    /// Both, the manager first.
    ManagerThenQemu,
    /// Both, the emulator first.
    QemuThenManager,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after `vmtask` was started.
    After(Duration),
    /// So long after this phase was reported for the so manieth time.
    In(&'static str, usize, Duration),
}

/// A kill.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Of whom.
    pub victim: Victim,
    /// When.
    pub moment: Moment,
}

/// What came of one kill.
#[derive(Clone, Debug)]
pub struct Blow {
    /// Of whom.
    pub victim: Victim,
    /// The last phase that was reported before it.
    pub phase: String,
    /// When, in milliseconds since 1970.
    pub wall_ms: i64,
    /// Work that was done again because of it, in milliseconds.
    pub lost_ms: i64,
    /// The longest checkpoint of the trial before it, in milliseconds.
    pub checkpoint_ms: i64,
}

/// What came of a trial in which everything held.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The kills that hit somebody.
    pub blows: Vec<Blow>,
    /// From the start of `vmtask` until the program ran on from a checkpoint, in seconds.
    pub resumes: Vec<f64>,
    /// From the freezing of the guest until the checkpoint was durable, in seconds.
    pub checkpoints: Vec<f64>,
    /// How many runs were under a build that may not load the checkpoints, and said so.
    pub refusals: usize,
}

/// A trial in which something did not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What repeats it.
    pub seed: u64,
    /// What did not hold.
    pub why: String,
    /// What it left behind, kept.
    pub dir: PathBuf,
}

/// Numbers that look random and follow from a seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One from 0 to `count - 1`.
    pub fn below(&mut self, count: u64) -> u64 {
        self.roll() % count.max(1)
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000))
    }

    fn kill(&mut self) -> Kill {
        let victims = [Victim::Manager, Victim::Qemu, Victim::ManagerThenQemu, Victim::QemuThenManager];
        let victim = victims[self.below(4) as usize];
        let moment = match self.below(8) {
            // Anywhere between the start and a little after the end.
            0..=1 => Moment::After(self.millis(8000)),
            2 => Moment::After(self.millis(600)),
            3 => Moment::In("beginning_snapshot", 1 + self.below(3) as usize, self.millis(60)),
            4..=5 => Moment::In("committing", 1 + self.below(3) as usize, self.millis(700)),
            6 => {
                Moment::In(["pruning", "running"][self.below(2) as usize], 1 + self.below(2) as usize, self.millis(300))
            }
            _ => {
                let late = ["copying_out", "powering_off", "unregistering", "ended"];
                Moment::In(late[self.below(4) as usize], 1, self.millis(60))
            }
        };
        Kill { victim, moment }
    }
}

/// Whether QEMU is another one now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builds {
    /// Always the installed one.
    One,
    /// That or another at random, from run to run.
    Switched,
}

/// One trial. Its directory is kept if something does not hold.
///
/// # Errors
/// What did not hold.
pub fn trial(seed: u64, builds: Builds) -> Result<Trial, Broken> {
    let den = Den::new();
    let mut story = String::new();
    let tried = catch_unwind(AssertUnwindSafe(|| go(&den, seed, builds, &mut story)));
    let why = match tried {
        Ok(Ok(trial)) => return Ok(trial),
        Ok(Err(why)) => why,
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(_) => "a panic without words".to_owned(),
        },
    };
    let dir = den.keep();
    // For whoever looks into it. Without it, there is still the log.
    let _ = fs::write(dir.join("story.txt"), story);
    Err(Broken { seed, why, dir })
}

fn go(den: &Den, seed: u64, builds: Builds, story: &mut String) -> Result<Trial, String> {
    let mut dice = Dice::new(seed);
    let plan: Vec<_> = (0..1 + dice.below(3)).map(|_| dice.kill()).collect();
    let input: Vec<u8> = (0..2000 + dice.below(5000)).map(|_| dice.roll() as u8).collect();
    let input_path = den.path().join("input");
    fs::write(&input_path, &input).map_err(|error| format!("cannot write the input: {error}"))?;
    let program = guest::program("counter", Bits::B64);
    let expected = result_without_any_of_this(&program, &input_path, den.path())?;
    let task =
        TaskToml::new("chaos", &program, &["input", &STEPS.to_string(), &STEP_MS.to_string(), "result", "steps"])
            .input(&input_path, "input")
            .output("result")
            .output("steps")
            .checkpoints(&format!("{INTERVAL_MS}ms"))
            .write(den);
    let dir = den.path().join("task");

    let mut trial = Trial::default();
    let mut said = Vec::new();
    let mut plan = plan.into_iter();
    let mut switching = (builds == Builds::Switched).then(|| Switching::new(seed));
    let ended = loop {
        let run = match &mut switching {
            None => Run::start(den, &task, &dir),
            Some(switching) => switching.start(den, &task, &dir),
        };
        let foreign = switching.as_mut().filter(|switching| switching.is_foreign());
        let ended = match foreign {
            None => {
                let ended = until_killed(run, &mut plan, &mut trial);
                trial.note(&ended);
                said.extend(ended.said.iter().cloned());
                ended
            }
            Some(switching) => {
                said.push(Switching::marker(&run));
                // Nothing runs in it, so that no work is lost by killing it.
                until_killed(run, &mut switching.kill().into_iter(), &mut Trial::default())
            }
        };
        let _ = writeln!(story, "{}\n", ended.story());
        let refused = switching.as_mut().map_or(Ok(false), |switching| switching.check(&ended))?;
        if refused {
            trial.refusals += 1;
            continue;
        }
        if !ended.was_killed() {
            break ended;
        }
        procs::await_no_qemu(den.path());
    };
    if ended.code() != Some(0) {
        return Err(format!("the task did not complete: {}; {}", ended.status, ended.stderr.trim()));
    }
    if ended.output("result") != expected {
        return Err("another result than without kills".to_owned());
    }
    let left = den.leftovers(&dir);
    if !left.is_empty() {
        return Err(format!("left behind: {left:?}"));
    }
    let steps = String::from_utf8_lossy(&ended.output("steps")).into_owned();
    measure_losses(&mut trial, &steps, &said)?;
    Ok(trial)
}

/// The same program on this computer, without a virtual machine and without pauses.
fn result_without_any_of_this(program: &Path, input: &Path, dir: &Path) -> Result<Vec<u8>, String> {
    let (result, steps) = (dir.join("expected"), dir.join("expected-steps"));
    let status = Command::new(program)
        .arg(input)
        .args([STEPS.to_string(), "0".to_owned()])
        .args([&result, &steps])
        .status()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if !status.success() {
        return Err(format!("{} by itself: {status}", program.display()));
    }
    fs::read(&result).map_err(|error| format!("no expected result: {error}"))
}

/// Drives one `vmtask run` until it was killed or ended by itself.
fn until_killed(mut run: Run, plan: &mut impl Iterator<Item = Kill>, trial: &mut Trial) -> Finished {
    let mut from = 0;
    for Kill { victim, moment } in plan {
        if !await_moment(&mut run, &mut from, moment) {
            // It ended before. What is left of the plan has nobody to hit.
            continue;
        }
        let (manager, qemu) = (run.manager(), run.qemu());
        let order = match victim {
            Victim::Manager => [manager, None],
            Victim::Qemu => [qemu, None],
            Victim::ManagerThenQemu => [manager, qemu],
            Victim::QemuThenManager => [qemu, manager],
        };
        let wall_ms = wall_ms();
        order.iter().flatten().for_each(|process| process.signal(Signal::KILL));
        if order.iter().any(Option::is_some) {
            let phase = run.said().iter().rev().find_map(|said| said.phase().map(str::to_owned)).unwrap_or_default();
            trial.blows.push(Blow { victim, phase, wall_ms, lost_ms: 0, checkpoint_ms: 0 });
        }
        if victim != Victim::Qemu {
            break;
        }
    }
    run.finish()
}

/// Waits for the moment; whether it came before the end.
fn await_moment(run: &mut Run, from: &mut usize, moment: Moment) -> bool {
    let at = match moment {
        Moment::After(delay) => run.begun + delay,
        Moment::In(phase, count, delay) => {
            let mut at = Instant::now();
            for _ in 0..count {
                let Some((line, said)) = run.hear(*from, |said| said.phase() == Some(phase)) else { return false };
                *from = line + 1;
                at = said.at;
            }
            at + delay
        }
    };
    // The moment itself is a point in time, so this waits for time to pass.
    while Instant::now() < at {
        if run.has_ended() {
            return false;
        }
        thread::sleep((at - Instant::now().min(at)).min(Duration::from_millis(5)));
    }
    !run.has_ended()
}

impl Finished {
    fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.status.signal() == Some(Signal::KILL.as_raw())
    }
}

impl Trial {
    fn note(&mut self, ended: &Finished) {
        let restores = |said: &Said| said.line["report"]["phase"]["provisioning"].is_object();
        if let (Some(begin), true) = (ended.said.first(), ended.said.iter().any(restores))
            && let Some(running) = ended.said.iter().find(|said| said.phase() == Some("running"))
        {
            self.resumes.push((running.at - begin.at).as_secs_f64());
        }
        self.checkpoints.extend(
            checkpoints(&ended.said).into_iter().filter_map(|(begun, safe)| Some((safe? - begun) as f64 / 1000.0)),
        );
    }
}

/// When each checkpoint was begun, and when it was durable if it ever was, in milliseconds since 1970.
fn checkpoints(said: &[Said]) -> Vec<(i64, Option<i64>)> {
    let mut found: Vec<(i64, Option<i64>)> = Vec::new();
    for said in said {
        if said.phase() == Some("beginning_snapshot") {
            found.push((said.wall_ms, None));
        }
        if let (Some(_), Some((_, safe))) = (said.checkpoint(), found.last_mut()) {
            *safe = Some(said.wall_ms);
        }
    }
    found
}

/// Takes from the program's note how much was done twice, and checks that it is not more than the checkpoints explain.
fn measure_losses(trial: &mut Trial, steps: &str, said: &[Said]) -> Result<(), String> {
    let mut times: Vec<i64> = steps.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    set_clock_right(&mut times, said);
    if times.len() != STEPS as usize {
        return Err(format!("the program noted {} of {STEPS} steps", times.len()));
    }
    let checkpoints = checkpoints(said);
    let starved = starvation(&times, &trial.blows);
    for blow in &mut trial.blows {
        if times.iter().all(|&time| time <= blow.wall_ms) {
            continue;
        }
        let kept = times.iter().copied().filter(|&time| time <= blow.wall_ms).max();
        // Work that an earlier kill had cost already is not lost again: only what this boot of the guest has done.
        let Some(started) = work_began(said, blow.wall_ms) else { continue };
        let since = kept.map_or(started, |kept| kept.max(started));
        blow.lost_ms = blow.wall_ms - since;
        // The next checkpoint is begun an interval after the last one was, or once that one is durable if it takes
        // longer; what was done since hangs on it until it is durable too.
        let lasted = |&(begun, safe): &(i64, Option<i64>)| safe.unwrap_or(blow.wall_ms).min(blow.wall_ms) - begun;
        let before: Vec<_> = checkpoints.iter().filter(|(begun, _)| *begun <= blow.wall_ms).collect();
        blow.checkpoint_ms = before.iter().map(|checkpoint| lasted(checkpoint)).max().unwrap_or(0);
        let promised = INTERVAL_MS.max(blow.checkpoint_ms) + blow.checkpoint_ms;
        let excused = slow_start(said) + starved + SLACK_MS;
        if blow.lost_ms > promised + excused {
            return Err(format!("more work lost than {promised} ms and the {excused} ms that are no fault: {blow:?}"));
        }
    }
    Ok(())
}

/// A fresh guest's clock is set in whole seconds, so it is a second or so behind, until a restore sets it precisely.
/// Nothing runs before it is launched: that tells by how much.
fn set_clock_right(times: &mut [i64], said: &[Said]) {
    let Some(&first) = times.first() else { return };
    let mut boots = said.iter().filter(|said| said.phase() == Some("launching") && said.wall_ms <= first + 2000);
    let Some(launched) = boots.next_back().map(|said| said.wall_ms) else { return };
    let restored = said.iter().find(|said| said.wall_ms > launched && said.phase() == Some("provisioning"));
    let until = restored.map_or(i64::MAX, |said| said.wall_ms);
    let behind = (launched - first).max(0);
    times.iter_mut().take_while(|time| **time + behind <= until).for_each(|time| *time += behind);
}

/// When the program began to work in the boot that was alive then: launched, or restored. `None` if it had not.
fn work_began(said: &[Said], then: i64) -> Option<i64> {
    let (mut began, mut restored) = (None, false);
    for said in said.iter().take_while(|said| said.wall_ms <= then) {
        match said.phase() {
            Some("provisioning") => (began, restored) = (None, !said.provisions_baseline()),
            // A restored guest runs from here on; a fresh one has nothing to do yet.
            Some("awaiting_tools") if restored => began = Some(said.wall_ms),
            Some("launching") => began = Some(said.wall_ms),
            _ => {}
        }
    }
    began
}

/// The longest time between two steps that no kill explains, in milliseconds: on a busy computer the guest comes last,
/// and while it does not run nothing is lost.
fn starvation(times: &[i64], blows: &[Blow]) -> i64 {
    let undisturbed =
        times.windows(2).filter(|pair| !blows.iter().any(|blow| (pair[0]..=pair[1]).contains(&blow.wall_ms)));
    undisturbed.map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// How long the program ran before its manager knew that it does, at most: the interval begins only then.
fn slow_start(said: &[Said]) -> i64 {
    let running = said.iter().filter(|said| said.phase() == Some("running"));
    let starts = running.filter_map(|running| {
        let before = said.iter().rev().skip_while(|said| said.wall_ms >= running.wall_ms);
        let (phase, since) = before.map(|said| (said.phase(), said.wall_ms)).find(|(phase, _)| {
            // Whatever else comes between has to do with checkpoints, and the program ran before.
            !matches!(phase, None | Some("examining" | "pruning"))
        })?;
        matches!(phase, Some("awaiting_tools" | "launching")).then_some(running.wall_ms - since)
    });
    starts.max().unwrap_or(0)
}

/// What came of many trials.
#[derive(Debug, Default)]
pub struct Tally {
    /// In how many everything held.
    pub held: usize,
    /// Those in which it did not.
    pub broken: Vec<Broken>,
    /// How many kills hit whom.
    pub victims: BTreeMap<Victim, usize>,
    /// How many kills hit in which phase.
    pub phases: BTreeMap<String, usize>,
    /// Work lost by each kill, in seconds.
    pub lost: Sample,
    /// Each resumption, in seconds.
    pub resumes: Sample,
    /// Each checkpoint, in seconds.
    pub checkpoints: Sample,
    /// How many runs were under a build that may not load the checkpoints, and said so.
    pub refusals: usize,
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, trial: Result<Trial, Broken>) {
        match trial {
            Ok(trial) => {
                self.held += 1;
                self.refusals += trial.refusals;
                for blow in trial.blows {
                    *self.victims.entry(blow.victim).or_default() += 1;
                    *self.phases.entry(blow.phase).or_default() += 1;
                    self.lost.add(blow.lost_ms as f64 / 1000.0);
                }
                trial.resumes.into_iter().for_each(|seconds| self.resumes.add(seconds));
                trial.checkpoints.into_iter().for_each(|seconds| self.checkpoints.add(seconds));
            }
            Err(broken) => self.broken.push(broken),
        }
    }
}

/// The seed of each of `count` trials.
pub fn seeds(seed: u64, count: usize) -> impl Iterator<Item = u64> {
    let mut dice = Dice::new(seed);
    (0..count).map(move |_| dice.roll())
}
