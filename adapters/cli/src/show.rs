//! What a run looks like: a progress bar on a terminal, plain lines where nobody watches, one JSON object a line for
//! programs.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vmtask_core::{Generation, Generations, Op, Phase, Report, Substitute};
use vmtask_driver::{News, TaskResult};

use crate::out;

/// How a run is shown.
pub(crate) struct Show {
    how: How,
    /// What is not real, said in the first and in the last line.
    simulated: Option<&'static str>,
    /// What was said of the journal last.
    journal_error: String,
}

enum How {
    Json,
    Bar(ProgressBar),
    Plain { percent: u16, quiet: bool },
}

/// What is known when a run begins.
#[derive(Debug, Serialize)]
pub(crate) struct Begin<'a> {
    pub(crate) task: &'a str,
    #[serde(serialize_with = "vmtask_driver::host_path::serialize")]
    pub(crate) dir: &'a Path,
    pub(crate) platform: &'a str,
    pub(crate) fingerprint: &'a str,
    /// For people: the hypervisor with its version and accelerator.
    pub(crate) hypervisor: &'a str,
    pub(crate) simulated: bool,
    pub(crate) resumes: Resumes,
}

/// From where a run goes on.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Resumes {
    /// It was not begun before.
    Fresh,
    /// It was begun, but no checkpoint was made.
    FromTheBaseline,
    FromCheckpoint(Generation),
}

/// What a task that is begun anew gives up.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct GivenUp {
    /// Newest first.
    pub(crate) checkpoints: Generations,
    /// For how long the program has run, lost runs included.
    pub(crate) program_ms: u64,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.checkpoints.iter().map(|generation| generation.to_string()).collect();
        match numbers.as_slice() {
            [] => f.write_str("the task begins anew: it has no checkpoint, and gives up")?,
            [one] => write!(f, "the task begins anew: it gives up checkpoint {one} and")?,
            several => write!(f, "the task begins anew: it gives up the checkpoints {} and", several.join(", "))?,
        }
        let time = humantime::format_duration(Duration::from_millis(self.program_ms));
        write!(f, " {time} of the program's time; results that are there stay until new ones replace them")
    }
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Begin {
        #[serde(flatten)]
        begin: &'a Begin<'a>,
    },
    Note {
        text: &'a str,
    },
    StartOver {
        #[serde(flatten)]
        given_up: GivenUp,
        text: String,
    },
    Substitute {
        substitute: Substitute,
        text: String,
    },
    Report {
        report: Report,
    },
    Trouble {
        op: Option<Op>,
        text: &'a str,
    },
    Journal {
        text: &'a str,
    },
    Result {
        #[serde(flatten)]
        result: &'a TaskResult,
    },
    Error {
        exit: u8,
        text: String,
    },
}

/// An error as a line of `--json`; it is on standard error as well.
pub(crate) fn json_error(error: &crate::error::Error) {
    out::json(&Line::Error { exit: error.exit().code(), text: error.to_string() });
}

impl Show {
    pub(crate) fn new(json: bool, simulated: Option<&'static str>) -> Self {
        let how = match (json, out::watched()) {
            (true, _) => How::Json,
            (false, true) => How::Bar(bar()),
            (false, false) => How::Plain { percent: 0, quiet: false },
        };
        Self { how, simulated, journal_error: String::new() }
    }

    pub(crate) fn begin(&self, begin: &Begin<'_>) {
        if let How::Json = self.how {
            return out::json(&Line::Begin { begin });
        }
        self.say_simulated();
        let fresh = match begin.resumes {
            Resumes::Fresh => "begins".to_owned(),
            Resumes::FromTheBaseline => "starts over: it was begun before but has no checkpoint".to_owned(),
            Resumes::FromCheckpoint(generation) => format!("goes on from checkpoint {generation}"),
        };
        self.say(&format!(
            "vmtask: task {} {fresh}, on {} under {}, in {}",
            begin.task,
            begin.platform,
            begin.hypervisor,
            begin.dir.display()
        ));
    }

    /// Something that nobody has to do anything about.
    pub(crate) fn note(&self, text: &str) {
        match self.how {
            How::Json => out::json(&Line::Note { text }),
            _ => self.say(&format!("vmtask: {text}")),
        }
    }

    /// Said before anything is given up.
    pub(crate) fn start_over(&self, given_up: GivenUp) {
        let text = given_up.to_string();
        match self.how {
            How::Json => out::json(&Line::StartOver { given_up, text }),
            _ => self.say(&format!("vmtask: {text}")),
        }
    }

    pub(crate) fn observe(&mut self, news: &News<'_>) {
        match news {
            News::Substitute(substitute) => {
                let text = substitute.to_string();
                match self.how {
                    How::Json => out::json(&Line::Substitute { substitute: *substitute, text }),
                    _ => self.say(&format!("vmtask: {text}")),
                }
            }
            News::Report(report) => self.report(*report),
            News::Trouble(error) => match self.how {
                How::Json => out::json(&Line::Trouble { op: error.op, text: &error.error.message }),
                _ => self.say(&format!("vmtask: {}", error.error.message)),
            },
            News::Journal { error } => match self.how {
                How::Json => out::json(&Line::Journal { text: error }),
                // It is tried again and again; once is enough.
                _ if self.journal_error != *error => {
                    self.journal_error = (*error).to_owned();
                    self.say(&format!("vmtask: the journal: {error}; trying on"));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn report(&mut self, report: Report) {
        match &mut self.how {
            How::Json => out::json(&Line::Report { report }),
            How::Bar(bar) => match report {
                Report::Phase(phase) => bar.set_message(phase.to_string()),
                Report::Progress { permille: Some(permille), .. } => bar.set_position(permille.into()),
                Report::Checkpoint { generation, .. } => {
                    bar.println(format!("vmtask: checkpoint {generation} is safe"))
                }
                Report::Notice(notice) => bar.println(format!("vmtask: {notice}")),
                Report::Ended { .. } => bar.finish_and_clear(),
                Report::Progress { permille: None, .. } => {}
            },
            How::Plain { percent, quiet } => match report {
                // Every checkpoint takes the task through these and back to running; the line that counts is the one
                // that says it is safe.
                Report::Phase(Phase::BeginningSnapshot(_) | Phase::Committing(_) | Phase::Pruning(_)) => *quiet = true,
                Report::Phase(Phase::Running) if std::mem::take(quiet) => {}
                Report::Phase(phase) => out::note(format_args!("vmtask: {phase}")),
                Report::Progress { permille: Some(permille), .. } => {
                    let tenth = permille / 100 * 10;
                    if tenth > *percent {
                        *percent = tenth;
                        out::note(format_args!("vmtask: {tenth} % done"));
                    }
                }
                Report::Checkpoint { generation, .. } => {
                    out::note(format_args!("vmtask: checkpoint {generation} is safe"));
                }
                Report::Notice(notice) => out::note(format_args!("vmtask: {notice}")),
                Report::Ended { .. } | Report::Progress { permille: None, .. } => {}
            },
        }
    }

    /// What the program said last. Programs find it among the results.
    pub(crate) fn last_words(&self, lines: &[String]) {
        if lines.is_empty() || matches!(self.how, How::Json) {
            return;
        }
        self.say("vmtask: the program's last words on its standard error:");
        lines.iter().for_each(|line| self.say(&format!("    {line}")));
    }

    /// What became of it; `results` is where its files are.
    pub(crate) fn end(&self, result: &TaskResult, results: &Path, log: &Path) {
        if let How::Json = self.how {
            return out::json(&Line::Result { result });
        }
        self.say(&format!("vmtask: {}", result.summary));
        let files: Vec<_> = result
            .outputs
            .iter()
            .filter(|output| output.content.is_some())
            .map(|output| output.name.as_str())
            .collect();
        if !files.is_empty() {
            self.say(&format!("vmtask: results in {}: {}", results.display(), files.join(", ")));
        }
        if matches!(result.outcome.as_str(), "aborted" | "failed") {
            self.say(&format!("vmtask: what happened is in {}", log.display()));
        }
        self.say_simulated();
    }

    /// Takes the progress bar away, if there still is one.
    pub(crate) fn finish(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }

    fn say_simulated(&self) {
        if let Some(what) = self.simulated {
            self.say(&format!("vmtask: SIMULATED: {what}"));
        }
    }

    fn say(&self, text: &str) {
        match &self.how {
            How::Bar(bar) if !bar.is_finished() => bar.suspend(|| out::note(text)),
            _ => out::note(text),
        }
    }
}

/// Drawn when something changes, and every few seconds: a second hand is not worth waking up for.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr_with_hz(4));
    // The template is ours: if it were wrong, the default style would do.
    if let Ok(style) = ProgressStyle::with_template("{elapsed} [{bar:30}] {percent:>3} %  {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_secs(5));
    bar
}
