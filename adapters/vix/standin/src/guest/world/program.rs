//! Programs of a world: text files whose first line is `#!vmtask-world`.
//!
//! ```text
//!   say WORDS          write them to standard output
//!   sleep 50ms         stand still
//!   compute INPUT STEPS STEP_MS RESULT STEPLOG [PROGRESS]
//!                      see `compute`
//!   exit 3             end with a status
//!   signal 9           end by a signal
//!   idle               run for ever
//!   hang               nothing in the guest runs any more, Tools neither
//!   reboot | poweroff  of the guest
//! ```
//!
//! `$@` stands for all arguments, `$1` to `$9` for one. The end of the text is `exit 0`; empty lines and lines that begin
//! with `#` are nothing. Relative names are below the directory that the program was started in.

use serde::{Deserialize, Serialize};

use super::compute::Compute;
use super::files::Files;
use super::machine::Machine;
use crate::guest::Result;

const MAGIC: &str = "#!vmtask-world";

/// What every world has from its first boot. Those with the step `builtin` are played by [`Builtin`].
const INSTALLED: [(&str, &str); 4] =
    [("/bin/true", "exit 0\n"), ("/bin/false", "exit 1\n"), ("/bin/chmod", "builtin\n"), ("/bin/sh", "builtin\n")];

/// A program that the world itself plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builtin {
    /// `chmod MODE FILE...`
    Chmod,
    /// `sh FILE ...`
    Shell,
}

impl Builtin {
    /// The one that is installed at a path, if it is one.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/bin/chmod" => Some(Self::Chmod),
            "/bin/sh" => Some(Self::Shell),
            _ => None,
        }
    }
}

/// Puts the programs that every world has into it.
pub(super) fn install(files: &Files) -> Result<()> {
    for (path, text) in INSTALLED {
        files.install(path, &format!("{MAGIC}\n{text}"))?;
    }
    Ok(())
}

/// Whether a world has this program from its first boot.
pub(super) fn is_installed(path: &str) -> bool {
    INSTALLED.iter().any(|(installed, _)| *installed == path)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Code(i32),
    Signal(i32),
}

impl End {
    /// As a shell tells it.
    pub(super) fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// What came of letting a program run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It waits for its time.
    Waiting,
    Ended(End),
    Hung,
    Reboot,
    PowerOff,
}

/// A program that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Script {
    steps: Vec<Step>,
    next: usize,
    /// It does the next step at this uptime.
    at_ms: u64,
    /// Where it was started.
    directory: String,
    /// Where its output goes; nowhere if empty.
    output: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Say { words: String },
    Sleep { ms: u64 },
    Compute { compute: Compute },
    Exit { status: i32 },
    Signal { number: i32 },
    Idle,
    Hang,
    Reboot,
    PowerOff,
}

impl Script {
    /// A program that starts now, in `/`, its output going nowhere.
    pub(super) fn parse(content: &[u8], arguments: &[String], uptime_ms: u64) -> std::result::Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| "exec format error".to_owned())?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(format!("exec format error: a world runs only programs that begin with {MAGIC}"));
        }
        let mut steps = Vec::new();
        for (number, line) in lines.enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let line = expanded(line, arguments);
                steps.push(Step::parse(&line).ok_or_else(|| format!("line {}: {line:?} is no step", number + 2))?);
            }
        }
        Ok(Self { steps, next: 0, at_ms: uptime_ms, directory: "/".to_owned(), output: String::new() })
    }

    /// A program that is over at once.
    pub(super) fn ended(status: i32) -> Self {
        let steps = vec![Step::Exit { status }];
        Self { steps, next: 0, at_ms: 0, directory: "/".to_owned(), output: String::new() }
    }

    /// A program that does nothing until somebody ends it.
    pub(super) fn idle() -> Self {
        Self { steps: vec![Step::Idle], ..Self::ended(0) }
    }

    /// Started in a directory, with its output going to a file.
    pub(super) fn within(mut self, directory: &str, output: &str) -> Self {
        self.directory = directory.to_owned();
        self.output = output.to_owned();
        self
    }

    /// Does the steps that are due.
    pub(super) fn run(&mut self, machine: &Machine, files: &Files) -> Came {
        while self.at_ms <= machine.uptime_ms {
            let Some(step) = self.steps.get_mut(self.next) else { return Came::Ended(End::Code(0)) };
            match step {
                Step::Say { words } => {
                    let line = format!("{words}\n");
                    if !self.output.is_empty() && files.append(machine, &self.output, line.as_bytes()).is_err() {
                        return Came::Ended(End::Code(4));
                    }
                }
                Step::Sleep { ms } => self.at_ms += *ms,
                Step::Compute { compute } => {
                    let happens_ms = machine.seen_ms.saturating_sub(machine.uptime_ms - self.at_ms);
                    match compute.step(machine, files, &self.directory, happens_ms) {
                        Ok(None) => {}
                        Ok(Some(pause_ms)) => {
                            self.at_ms += pause_ms;
                            continue;
                        }
                        Err(code) => return Came::Ended(End::Code(code)),
                    }
                }
                Step::Exit { status } => return Came::Ended(End::Code(*status)),
                Step::Signal { number } => return Came::Ended(End::Signal(*number)),
                Step::Idle => return Came::Waiting,
                Step::Hang => return Came::Hung,
                Step::Reboot => return Came::Reboot,
                Step::PowerOff => return Came::PowerOff,
            }
            self.next += 1;
        }
        Came::Waiting
    }
}

impl Step {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "say" => Some(Self::Say { words: rest.to_owned() }),
            "sleep" => Some(Self::Sleep { ms: humantime::parse_duration(rest).ok()?.as_millis() as u64 }),
            "compute" => Some(Self::Compute { compute: Compute::parse(rest)? }),
            "exit" => Some(Self::Exit { status: rest.parse().ok().filter(|status| (0..256).contains(status))? }),
            "signal" => Some(Self::Signal { number: rest.parse().ok().filter(|number| (1..65).contains(number))? }),
            // Reached only by a copy of such a program under another name: the world does not know it there.
            "builtin" if rest.is_empty() => Some(Self::Exit { status: 126 }),
            "idle" if rest.is_empty() => Some(Self::Idle),
            "hang" if rest.is_empty() => Some(Self::Hang),
            "reboot" if rest.is_empty() => Some(Self::Reboot),
            "poweroff" if rest.is_empty() => Some(Self::PowerOff),
            _ => None,
        }
    }
}

/// A line with the arguments in it.
fn expanded(line: &str, arguments: &[String]) -> String {
    let mut line = line.replace("$@", &arguments.join(" "));
    for number in 1..=9 {
        line = line.replace(&format!("${number}"), arguments.get(number - 1).map_or("", String::as_str));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stand_where_they_are_named() {
        let arguments = ["exit".to_owned(), "3".to_owned()];
        assert_eq!(expanded("$@", &arguments), "exit 3");
        assert_eq!(expanded("$2 $1 $3.", &arguments), "3 exit .");
    }

    #[test]
    fn what_is_no_program_is_named() {
        assert!(Script::parse(b"\x7fELF\xff", &[], 0).is_err());
        assert!(Script::parse(b"#!/bin/sh\nexit 0\n", &[], 0).is_err());
        let why = Script::parse(b"#!vmtask-world\n\nexit 256\n", &[], 0).err();
        assert_eq!(why.as_deref(), Some("line 3: \"exit 256\" is no step"));
    }
}
