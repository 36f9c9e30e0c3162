//! The second half of the demonstration: the paper's binary in the virtual machine, through every step of its part 4.
//!
//! ```text
//!   register, revert, (boot,) agent, directory, copy 2 files --> run.sh: chmod, leibniz --> progress seen
//!                                                                     pause, a second, unpause
//!   unregister <-- power off <-- copy out <-- leibniz ends <----------------------+
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use vmtask_core::{Op, OpKind, Outcome, Phase, Report, Request, TaskSpec};
use vmtask_driver::{Handle, News};

use super::steps::{self, Named, Step, Steps};
use super::variants::{self, Answer, Skipped};
use crate::args::HypervisorChoice;
use crate::args::vix::VixArgs;
use crate::error::Error;
use crate::session::{Session, Wanted};
use crate::show::Show;
use crate::signals::Signals;

const SCRIPT: &str = include_str!("../../demo/run.sh");
const TASK: &str = include_str!("../../demo/leibniz.toml");

/// For how long the guest is held.
const HOLD: Duration = Duration::from_secs(1);
/// If the program has said nothing of its progress by then, it is paused all the same.
const SILENCE: Duration = Duration::from_secs(2);

/// What came out of the virtual machine, and how.
pub(crate) struct Shown {
    pub(crate) answer: Answer,
    /// The steps with their times.
    pub(crate) table: String,
    /// From the first command to the last.
    pub(crate) took: Duration,
    pub(crate) hypervisor: String,
    pub(crate) fingerprint: String,
}

/// Builds the paper's binary in `dir` and runs it in the virtual machine.
///
/// # Errors
/// If it cannot be built or run, or if a step of the experiment was not carried out.
pub(crate) fn show(dir: &Path) -> Result<Shown, Error> {
    let failed = |why: String| Error::Demo(why);
    variants::PAPER.compile(dir, "leibniz").map_err(|Skipped(why)| {
        failed(format!("the paper's binary cannot be built ({}): {why}", variants::PAPER.flags))
    })?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path)).map(|()| path)
    };
    write("run.sh", SCRIPT)?;
    let task = write("leibniz.toml", TASK)?;
    let wanted = Wanted {
        task: &task,
        dir: None,
        hypervisor: HypervisorChoice::Auto,
        vix: &VixArgs::default(),
        log: Some("debug"),
    };
    let mut session = Session::open(&wanted)?;
    if !session.dir.is_new() {
        return Err(failed(format!(
            "{} is there already; remove it, or name another --dir",
            session.dir.root().display()
        )));
    }

    let steps = Steps::default();
    let start = Instant::now();
    let driver = session.driver(|hypervisor| steps.watch(hypervisor))?;
    let signals = Signals::listen(driver.handle())?;
    let mut pausing = Pausing::new(driver.handle());
    let mut show = Show::new(false, None);
    let ended = driver.run(&mut |news: &News<'_>| {
        show.observe(news);
        signals.observe(news);
        pausing.observe(news);
    });
    show.finish();
    let ended = ended?;
    let took = start.elapsed();
    let result = session.conclude(&ended)?;
    if !matches!(ended.outcome, Outcome::Completed { exit } if exit.is_success()) {
        return Err(failed(format!("the task did not end well: {}", result.summary)));
    }

    let list = steps.list();
    if let Some(missing) = steps::PAPER.iter().find(|kind| !list.iter().any(|step| step.op.kind() == **kind)) {
        return Err(failed(format!("{missing:?} is part of the experiment and was not carried out")));
    }
    let read = |guest: &str| {
        let path = session.output(guest).unwrap_or_default();
        fs::read_to_string(&path).map_err(Error::io("read what came out of the guest,", &path))
    };
    let permissions = Permissions::parse(&read("permissions.txt")?)
        .ok_or_else(|| failed("the script did not tell how it set the permissions".into()))?;
    let pi = read("pi.txt")?;
    let answer = Answer::parse(&pi).ok_or_else(|| failed(format!("the retrieved file has no answer in it: {pi:?}")))?;
    Ok(Shown {
        answer,
        table: table(start, &list, session.spec(), &permissions),
        took,
        hypervisor: session.kind.describe(),
        fingerprint: result.platform.fingerprint,
    })
}

/// Holds the guest once in mid-run.
struct Pausing {
    handle: Handle,
    /// Whether it has been asked for.
    asked: Arc<AtomicBool>,
    watched: bool,
    held: bool,
}

impl Pausing {
    fn new(handle: Handle) -> Self {
        Self { handle, asked: Arc::default(), watched: false, held: false }
    }

    fn observe(&mut self, news: &News<'_>) {
        let News::Report(report) = news else { return };
        match report {
            // The program says that it works: now. If it says nothing for a while, then all the same.
            Report::Progress { permille: Some(1..), .. } => suspend_once(&self.handle, &self.asked),
            Report::Phase(Phase::Running) if !self.watched => {
                self.watched = true;
                let (handle, asked) = (self.handle.clone(), Arc::clone(&self.asked));
                in_a_while(SILENCE, move || suspend_once(&handle, &asked));
            }
            Report::Phase(Phase::Paused { .. }) if !self.held => {
                self.held = true;
                let handle = self.handle.clone();
                // If the task is over by then, nobody minds.
                in_a_while(HOLD, move || {
                    handle.post(Request::Resume);
                });
            }
            _ => {}
        }
    }
}

fn suspend_once(handle: &Handle, asked: &AtomicBool) {
    if !asked.swap(true, Ordering::SeqCst) {
        // If the task is over, the missing pause is noticed afterwards.
        handle.post(Request::Suspend);
    }
}

fn in_a_while(delay: Duration, what: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        thread::sleep(delay);
        what();
    });
}

/// What the script says about its chmod: when it began and ended by the guest's clock, and the mode afterwards.
struct Permissions {
    took: Duration,
    mode: String,
}

impl Permissions {
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let [before, after, mode] = words[..] else { return None };
        let seconds = after.parse::<f64>().ok()? - before.parse::<f64>().ok()?;
        let mode = mode.to_owned();
        Some(Self { took: Duration::try_from_secs_f64(seconds).ok()?, mode }).filter(|p| p.mode.contains('x'))
    }
}

fn table(start: Instant, steps: &[Step], spec: &TaskSpec, permissions: &Permissions) -> String {
    let file = |op: Op| match op {
        Op::CopyIn(ix) => spec.files_in.get(ix.index()).map(|file| file.guest.clone()),
        Op::CopyOut(ix) => spec.files_out.get(ix.index()).map(|file| file.guest.clone()),
        _ => None,
    };
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(["at, s", "step", "took, ms"]);
    let seconds = |at: Instant| format!("{:.2}", (at - start).as_secs_f64());
    let millis = |took: Duration| format!("{:.1}", took.as_secs_f64() * 1000.0);
    for step in steps {
        table.add_row([seconds(step.at), Named(step, &file).to_string(), millis(step.took)]);
        if step.op.kind() == OpKind::Launch {
            // Its clock is the guest's, in hundredths of a second.
            let what = format!("set permissions, by the script in the guest ({})", permissions.mode);
            table.add_row([String::new(), what, millis(permissions.took)]);
        }
    }
    for column in [0, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::set("12.34 12.35 -rwxr-xr-x\n", true)]
    #[case::not_set("12.34 12.35 -rw-r--r--\n", false)]
    #[case::backwards("12.34 12.33 -rwxr-xr-x\n", false)]
    #[case::nothing("", false)]
    fn permissions_count_only_if_they_were_set(#[case] text: &str, #[case] set: bool) {
        assert_eq!(Permissions::parse(text).is_some(), set);
    }
}
