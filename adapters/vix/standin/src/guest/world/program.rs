//! Programs of a world: text files whose first line is `#!vmtask-world`.
//!
//! ```text
//!   sleep 50ms      stand still
//!   exit 3          end with a status
//!   signal 9        end by a signal
//!   hang            run for ever
//!   builtin         played by the world itself (`/bin/sh`, `/bin/chmod`)
//! ```
//!
//! The end of the text is `exit 0`; empty lines and lines that begin with `#` are nothing.

use serde::{Deserialize, Serialize};

use super::files::Files;
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

/// A program that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Script {
    steps: Vec<Step>,
    next: usize,
    /// It does the next step at this uptime.
    at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Sleep { ms: u64 },
    Exit { status: i32 },
    Signal { number: i32 },
    Hang,
}

impl Script {
    /// A program that starts now.
    pub(super) fn parse(content: &[u8], uptime_ms: u64) -> std::result::Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| "exec format error".to_owned())?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(format!("exec format error: a world runs only programs that begin with {MAGIC}"));
        }
        let mut steps = Vec::new();
        for (number, line) in lines.enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                steps.push(Step::parse(line).ok_or_else(|| format!("line {}: {line:?} is no step", number + 2))?);
            }
        }
        Ok(Self { steps, next: 0, at_ms: uptime_ms })
    }

    /// A program that is over at once.
    pub(super) fn ended(status: i32) -> Self {
        Self { steps: vec![Step::Exit { status }], next: 0, at_ms: 0 }
    }

    /// Does the steps that are due; how it ended, if it did.
    pub(super) fn run(&mut self, uptime_ms: u64, _files: &Files) -> Option<i32> {
        while self.at_ms <= uptime_ms {
            match self.steps.get(self.next) {
                None => return Some(0),
                Some(Step::Sleep { ms }) => self.at_ms += ms,
                Some(Step::Exit { status }) => return Some(*status),
                Some(Step::Signal { number }) => return Some(128 + number),
                Some(Step::Hang) => return None,
            }
            self.next += 1;
        }
        None
    }
}

impl Step {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "sleep" => Some(Self::Sleep { ms: humantime::parse_duration(rest.trim()).ok()?.as_millis() as u64 }),
            "exit" => Some(Self::Exit { status: rest.trim().parse().ok()? }),
            "signal" => Some(Self::Signal { number: rest.trim().parse().ok()? }),
            // Reached only by a copy of such a program under another name: the world does not know it there.
            "builtin" if rest.is_empty() => Some(Self::Exit { status: 126 }),
            "hang" if rest.is_empty() => Some(Self::Hang),
            _ => None,
        }
    }
}
