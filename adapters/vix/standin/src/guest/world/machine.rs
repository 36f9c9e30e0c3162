//! What a world consists of besides its files: power, time, processes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vmtask_vix_abi::error_code;

use super::files::Files;
use super::program::{Builtin, Came, End, Script};
use super::supervisor::{self, Supervised};
use crate::failure::Failure;
use crate::guest::{Process, Program, Result, Share};

/// As kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) power: Power,
    /// The computer's clock at the last observation, in ms since 1970.
    pub(super) seen_ms: u64,
    /// How long the guest has run in this boot, in ms: it stands still while the guest is held.
    pub(super) uptime_ms: u64,
    /// What the kernel calls this boot.
    pub(super) boot_id: String,
    /// Tools answer so long after a boot.
    pub(super) tools_after_ms: u64,
    /// Nothing runs any more, Tools neither.
    pub(super) hung: bool,
    pub(super) next_pid: u64,
    pub(super) tasks: Vec<Task>,
    /// Paths of the files that may be executed.
    pub(super) executable: BTreeSet<String>,
    pub(super) shares: Vec<Share>,
}

/// Whether time passes in the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Power {
    #[default]
    Off,
    On,
    /// Paused or suspended.
    Held,
}

/// A process, running or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) pid: u64,
    pub(super) owner: String,
    pub(super) command: String,
    /// Seconds since 1970.
    pub(super) started: i64,
    /// The uptime at its start.
    pub(super) started_ms: u64,
    pub(super) script: Script,
    pub(super) end: Option<End>,
    /// The program that it watches over, if it is a supervisor.
    pub(super) supervised: Option<Supervised>,
}

impl Machine {
    /// Everything happens that should have happened by now.
    pub(super) fn advance(&mut self, now_ms: u64, files: &Files) {
        // A clock that was set back is no time at all.
        let passed = now_ms.saturating_sub(self.seen_ms);
        self.seen_ms = now_ms;
        if self.power != Power::On || self.hung {
            return;
        }
        self.uptime_ms += passed;
        self.run(files);
    }

    /// Lets every process do what it can by now.
    fn run(&mut self, files: &Files) {
        for index in 0..self.tasks.len() {
            if self.tasks[index].end.is_some() {
                continue;
            }
            let mut script = self.tasks[index].script.clone();
            let came = script.run(self, files);
            self.tasks[index].script = script;
            match came {
                Came::Waiting => {}
                Came::Ended(end) => self.tasks[index].end = Some(end),
                // What the others would have done meanwhile, nobody can say.
                Came::Hung => {
                    self.hung = true;
                    return;
                }
                Came::Reboot => return self.boot(),
                Came::PowerOff => return self.halt(),
            }
        }
        supervisor::look_after(self, files);
    }

    pub(super) fn boot(&mut self) {
        self.halt();
        self.power = Power::On;
        let mut id = [0; 16];
        // Without randomness, boots are told apart by the clock.
        if getrandom::fill(&mut id).is_err() {
            id[..8].copy_from_slice(&self.seen_ms.to_le_bytes());
        }
        self.boot_id = id.iter().map(|byte| format!("{byte:02x}")).collect();
    }

    pub(super) fn halt(&mut self) {
        self.power = Power::Off;
        self.uptime_ms = 0;
        self.hung = false;
        self.tasks.clear();
        self.next_pid = 100;
    }

    pub(super) fn tools_running(&self) -> bool {
        self.power == Power::On && !self.hung && self.uptime_ms >= self.tools_after_ms
    }

    /// See [`crate::guest::Guest::start`].
    pub(super) fn start(&mut self, files: &Files, program: &Program<'_>) -> Result<u64> {
        let content = files.read(self, program.path)?;
        if !self.may_execute(&super::files::normal(program.path)?) {
            let why = format!("{} is not executable in the guest", program.path);
            return Err(Failure::in_guest(error_code::GUEST_USER_PERMISSIONS, why));
        }
        let script = self.load(files, program, &content)?;
        let command = format!("{} {}", program.path, program.arguments).trim_end().to_owned();
        let pid = self.spawn(program.user, command, script);
        self.run(files);
        Ok(pid)
    }

    /// A new process; it does nothing yet.
    pub(super) fn spawn(&mut self, owner: &str, command: String, script: Script) -> u64 {
        let pid = self.next_pid;
        self.next_pid += 1;
        let started = (self.seen_ms / 1000) as i64;
        let (owner, started_ms) = (owner.to_owned(), self.uptime_ms);
        self.tasks.push(Task { pid, owner, command, started, started_ms, script, end: None, supervised: None });
        pid
    }

    /// What is to run.
    fn load(&mut self, files: &Files, program: &Program<'_>, content: &[u8]) -> Result<Script> {
        let failed =
            |path: &str, why: String| Failure::in_guest(error_code::PROGRAM_NOT_STARTED, format!("{path}: {why}"));
        let words = words(program.arguments).ok_or_else(|| failed(program.path, "a quote is open".to_owned()))?;
        let Some(builtin) = Builtin::at(program.path) else {
            return Script::parse(content, &words, self.uptime_ms).map_err(|why| failed(program.path, why));
        };
        match (builtin, &words[..]) {
            (Builtin::Chmod, [mode, paths @ ..]) if !paths.is_empty() => {
                Ok(Script::ended(self.chmod(files, mode, paths)))
            }
            // As a shell does, which needs no permission to execute: what cannot be read or understood is its status.
            (Builtin::Shell, [path, arguments @ ..]) => match files.read(self, path) {
                Ok(text) if text == supervisor::SCRIPT.as_bytes() => {
                    Ok(Script::ended(supervisor::play(self, files, program.user, path, arguments)))
                }
                Ok(text) => Ok(Script::parse(&text, arguments, self.uptime_ms).unwrap_or_else(|_| Script::ended(126))),
                Err(_) => Ok(Script::ended(127)),
            },
            _ => Ok(Script::ended(2)),
        }
    }

    /// The status of a `chmod`.
    fn chmod(&mut self, files: &Files, mode: &str, paths: &[String]) -> i32 {
        let mut status = 0;
        for path in paths {
            if files.info(self, path).is_err() || !self.set_mode(path, mode) {
                status = 1;
            }
        }
        status
    }

    /// Makes a file executable or not; whether the mode is one.
    pub(super) fn set_mode(&mut self, path: &str, mode: &str) -> bool {
        let (Some(executable), Ok(path)) = (is_executable(mode), super::files::normal(path)) else { return false };
        match executable {
            true => self.executable.insert(path),
            false => self.executable.remove(&path),
        };
        true
    }

    pub(super) fn exit_status(&self, pid: u64) -> Result<Option<i32>> {
        self.task(pid).map(|task| task.end.map(End::status)).ok_or_else(|| no_such_process(pid))
    }

    pub(super) fn running(&self) -> Vec<Process> {
        let alive = self.tasks.iter().filter(|task| task.end.is_none());
        let process = |task: &Task| Process {
            pid: task.pid,
            owner: task.owner.clone(),
            command: task.command.clone(),
            started: task.started,
        };
        alive.map(process).collect()
    }

    pub(super) fn kill(&mut self, pid: u64, signal: i32) -> Result<()> {
        match self.tasks.iter_mut().find(|task| task.pid == pid && task.end.is_none()) {
            Some(task) => {
                task.end = Some(End::Signal(signal));
                Ok(())
            }
            None => Err(no_such_process(pid)),
        }
    }

    pub(super) fn task(&self, pid: u64) -> Option<&Task> {
        self.tasks.iter().find(|task| task.pid == pid)
    }
}

/// Whether a mode makes a file executable for its owner; `None` for what is no mode.
fn is_executable(mode: &str) -> Option<bool> {
    match mode {
        "+x" | "u+x" | "a+x" => Some(true),
        "-x" | "u-x" | "a-x" => Some(false),
        _ => u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777).map(|bits| bits & 0o100 != 0),
    }
}

/// Takes a command line apart: blanks, single and double quotes, backslashes. `None` if a quote is open.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), _) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn no_such_process(pid: u64) -> Failure {
    Failure::in_guest(error_code::NO_SUCH_PROCESS, format!("there is no process {pid} in the guest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_taken_apart_as_a_shell_does() {
        let apart = |line| words(line).unwrap_or_default();
        assert_eq!(apart("755  /tmp/a"), ["755", "/tmp/a"]);
        assert_eq!(apart(r#"'a b' "c'd" e\ f ''"#), ["a b", "c'd", "e f", ""]);
        assert_eq!(apart(r"'it'\''s'"), ["it's"]);
        assert_eq!(words("'open"), None);
    }

    #[test]
    fn modes_are_octal_or_the_common_letters() {
        assert_eq!(is_executable("755"), Some(true));
        assert_eq!(is_executable("0644"), Some(false));
        assert_eq!(is_executable("+x"), Some(true));
        assert_eq!(is_executable("x"), None);
    }
}
