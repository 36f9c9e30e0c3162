//! vmtask's supervisor, played by the world: what `/bin/sh SUPERVISOR SUBCOMMAND ...` does if SUPERVISOR is, byte for byte,
//! the script that vmtask's adapter copies into guests. The script's head comment is the specification; a shell is not
//! simulated, so any other script is one that the world cannot run.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{Files, normal};
use super::machine::Machine;
use super::program::{End, Script};

/// The script.
pub(super) const SCRIPT: &str = include_str!("../../../../guest/supervisor");

/// The script's exit codes.
const MISUSE: i32 = 2;
const NO_FILE: i32 = 3;
const WRONG_KIND: i32 = 4;
const CANNOT_WRITE: i32 = 5;
const SIZE: i32 = 6;
const HASH: i32 = 7;

/// How long a launched program takes to begin: one that ends its guest at once would take the answer to its own launch
/// with it.
const START_MS: u64 = 50;

/// A program with a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Supervised {
    pid: u64,
    /// The directory for what is said about it.
    state: String,
    /// The file in which it keeps its progress; none if empty.
    progress: String,
    /// The last sign of life that was written.
    beat: u64,
}

/// An exit code and why.
type Refusal = (i32, String);

/// One call of the script.
struct Call<'a> {
    machine: &'a mut Machine,
    files: &'a Files,
    user: &'a str,
    script: String,
    state: String,
    work: String,
}

/// Plays the script; its exit code.
pub(super) fn play(machine: &mut Machine, files: &Files, user: &str, script: &str, arguments: &[String]) -> i32 {
    let up = |path: &str| path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    let state = up(script);
    let mut call = Call { work: up(&state), state, script: script.to_owned(), machine, files, user };
    match call.carry_out(arguments) {
        Ok(()) => 0,
        Err((code, why)) => {
            // If even that cannot be written, the code has to do.
            drop(call.write("why", &format!("{why}\n")));
            code
        }
    }
}

impl Call<'_> {
    fn carry_out(&mut self, arguments: &[String]) -> Result<(), Refusal> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words[..] {
            ["take", size, sum, mode, name] => self.take(size, sum, mode, name),
            ["launch", ref rest @ ..] => self.launch(rest),
            ["look"] => self.look(),
            ["give", name] => self.give(name),
            // The world's clock is the computer's.
            ["clock", _] => Ok(()),
            [] => Err((MISUSE, "no subcommand".to_owned())),
            [word, ..] => Err((MISUSE, format!("no subcommand '{word}', or not its arguments"))),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Refusal> {
        let path = format!("{}/{name}", self.state);
        let written = self.files.write(self.machine, &path, text.as_bytes());
        written.map_err(|failure| (CANNOT_WRITE, failure.to_string()))
    }

    fn is_file(&self, path: &str) -> bool {
        self.files.info(self.machine, path).is_ok_and(|info| !info.directory)
    }

    fn exists(&self, path: &str) -> bool {
        self.files.info(self.machine, path).is_ok()
    }

    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.work)
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let bad = name.contains('\n') || name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if bad { Err((MISUSE, format!("not a name inside {}: '{name}'", self.work))) } else { Ok(()) }
    }

    /// Size and SHA-256.
    fn sum(&self, path: &str) -> Result<(usize, String), Refusal> {
        let content = self.files.read(self.machine, path).map_err(|failure| (NO_FILE, failure.to_string()))?;
        let digest = Sha256::digest(&content).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok((content.len(), digest))
    }

    fn take(&mut self, size: &str, sum: &str, mode: &str, name: &str) -> Result<(), Refusal> {
        self.check_name(name)?;
        let (arrived, target) = (format!("{}/in", self.state), self.below(name));
        // Taken already: only the answer was lost.
        let from = if self.is_file(&arrived) { arrived } else { target.clone() };
        if !self.is_file(&from) {
            return Err((NO_FILE, format!("nothing was copied for '{name}'")));
        }
        let (got, digest) = self.sum(&from)?;
        if got.to_string() != size {
            return Err((SIZE, format!("got {got} of {size} bytes of '{name}'")));
        }
        if digest != sum {
            return Err((HASH, format!("SHA-256 of '{name}' differs")));
        }
        if self.files.info(self.machine, &target).is_ok_and(|info| info.directory) {
            return Err((WRONG_KIND, format!("'{target}' is a directory")));
        }
        let moved = self.files.replace(self.machine, &from, &target);
        moved.map_err(|failure| (CANNOT_WRITE, failure.to_string()))?;
        if !self.machine.set_mode(&target, mode) {
            return Err((CANNOT_WRITE, format!("cannot change '{target}': '{mode}' is no mode")));
        }
        Ok(())
    }

    fn marker(&self) -> String {
        format!("{}/launched.{}", self.state, self.machine.boot_id)
    }

    fn launch(&mut self, words: &[&str]) -> Result<(), Refusal> {
        let (mut out, mut err, mut progress) = ("", "", "");
        let mut rest = words;
        let command = loop {
            match *rest {
                ["--", ref command @ ..] => break command,
                ["-o", name, ref more @ ..] => (out, rest) = (name, more),
                ["-e", name, ref more @ ..] => (err, rest) = (name, more),
                ["-p", name, ref more @ ..] => (progress, rest) = (name, more),
                // A world's programs read no environment.
                ["-E", _, ref more @ ..] => rest = more,
                _ => return Err((MISUSE, format!("launch: what is {rest:?}?"))),
            }
        };
        for name in [out, err, progress].into_iter().filter(|name| !name.is_empty()) {
            self.check_name(name)?;
        }
        let [program, arguments @ ..] = command else { return Err((MISUSE, "launch: no program".to_owned())) };
        let path = if program.starts_with('/') { (*program).to_owned() } else { self.below(program) };
        if self.exists(&self.marker()) {
            return Ok(());
        }
        if !self.exists(&path) {
            return Err((NO_FILE, format!("no program '{path}'")));
        }
        if !self.is_file(&path) || !normal(&path).is_ok_and(|path| self.machine.may_execute(&path)) {
            return Err((WRONG_KIND, format!("'{path}' is not an executable file")));
        }
        let cannot = |failure: crate::Failure| (CANNOT_WRITE, failure.to_string());
        for name in [out, err].into_iter().filter(|name| !name.is_empty()) {
            self.files.write(self.machine, &self.below(name), b"").map_err(cannot)?;
        }
        self.forget_earlier_boots().map_err(cannot)?;
        let content = self.files.read(self.machine, &path).map_err(cannot)?;
        self.files.make_directory(self.machine, &self.marker()).map_err(cannot)?;
        self.begin(&path, &content, arguments, out, progress)
    }

    fn forget_earlier_boots(&mut self) -> crate::guest::Result<()> {
        for entry in self.files.list(self.machine, &self.state)? {
            let path = format!("{}/{}", self.state, entry.name);
            match entry.name.as_str() {
                "status" | "pid" | "supervisor.pid" => self.files.remove_file(self.machine, &path)?,
                name if name.starts_with("launched.") => self.files.remove_directory(self.machine, &path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Two processes: the program, and its supervisor.
    fn begin(
        &mut self,
        path: &str,
        content: &[u8],
        arguments: &[&str],
        out: &str,
        progress: &str,
    ) -> Result<(), Refusal> {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let output = if out.is_empty() { String::new() } else { self.below(out) };
        let begins_ms = self.machine.uptime_ms + START_MS;
        let script = Script::parse(content, &arguments, begins_ms).unwrap_or_else(|_| Script::ended(126));
        let command = format!("{path} {}", arguments.join(" ")).trim_end().to_owned();
        let pid = self.machine.spawn(self.user, command, script.within(&self.work, &output));
        let supervise = format!("/bin/sh {} supervise", self.script);
        let supervisor = self.machine.spawn(self.user, supervise, Script::idle());
        let progress = if progress.is_empty() { String::new() } else { self.below(progress) };
        let state = self.state.clone();
        if let Some(task) = self.machine.tasks.last_mut() {
            task.supervised = Some(Supervised { pid, state, progress, beat: 0 });
        }
        self.write("pid", &format!("{pid}\n"))?;
        self.write("supervisor.pid", &format!("{supervisor}\n"))
    }

    fn look(&mut self) -> Result<(), Refusal> {
        let watching = self.machine.tasks.iter().find(|task| {
            task.end.is_none() && task.supervised.as_ref().is_some_and(|supervised| supervised.state == self.state)
        });
        let line = match watching.and_then(|task| task.supervised.as_ref()) {
            _ if !self.exists(&self.marker()) => line(self.machine, "not-started", "-", "-", "-", "-", "-"),
            Some(supervised) => {
                let (pid, cpu_ms) = (supervised.pid.to_string(), cpu_ms(self.machine, supervised.pid));
                line(self.machine, "running", "-", &pid, "-", "-", &cpu_ms)
            }
            None => {
                let status = self.files.read(self.machine, &format!("{}/status", self.state)).unwrap_or_default();
                let ended = format!("state=exited boot={} ", self.machine.boot_id);
                match String::from_utf8(status) {
                    Ok(status) if status.starts_with(&ended) => return self.write("look", &status),
                    _ => line(self.machine, "lost", "-", "-", "-", "-", "-"),
                }
            }
        };
        self.write("look", &format!("{line} progress=-\n"))
    }

    fn give(&mut self, name: &str) -> Result<(), Refusal> {
        self.check_name(name)?;
        let path = self.below(name);
        if !self.exists(&path) {
            return Err((NO_FILE, format!("no file '{name}'")));
        }
        if !self.is_file(&path) {
            return Err((WRONG_KIND, format!("'{name}' is not a regular file")));
        }
        let (size, sum) = self.sum(&path)?;
        self.write("sum", &format!("{size} {sum}\n"))
    }
}

/// A line about a program, up to its progress.
fn line(machine: &Machine, state: &str, beat: &str, pid: &str, code: &str, signal: &str, cpu_ms: &str) -> String {
    let boot = &machine.boot_id;
    format!("state={state} boot={boot} beat={beat} pid={pid} code={code} signal={signal} cpu_ms={cpu_ms}")
}

/// A program that runs uses a processor all the time.
fn cpu_ms(machine: &Machine, pid: u64) -> String {
    let started = machine.task(pid).map(|task| task.started_ms);
    started.map_or("-".to_owned(), |started| (machine.uptime_ms - started).to_string())
}

/// What every supervisor does by now: signs of life, and the program's end.
pub(super) fn look_after(machine: &mut Machine, files: &Files) {
    for index in 0..machine.tasks.len() {
        let task = &machine.tasks[index];
        let (None, Some(mut supervised)) = (task.end, task.supervised.clone()) else { continue };
        let end = match machine.task(supervised.pid) {
            Some(program) => program.end,
            // A program is never forgotten before its boot is.
            None => continue,
        };
        let beat = 1 + (machine.uptime_ms - task.started_ms) / 1000;
        let pid = supervised.pid.to_string();
        let cpu_ms = cpu_ms(machine, supervised.pid);
        let line = match end {
            Some(End::Code(code)) => line(machine, "exited", "-", "-", &code.to_string(), "-", &cpu_ms),
            Some(End::Signal(signal)) => line(machine, "exited", "-", "-", "-", &signal.to_string(), &cpu_ms),
            None if beat > supervised.beat => line(machine, "running", &beat.to_string(), &pid, "-", "-", &cpu_ms),
            None => continue,
        };
        supervised.beat = beat;
        let text = format!("{line} progress={}\n", progress(machine, files, &supervised));
        // A disk that is full: as with the script, the line is not written, and what was there stays.
        drop(files.write(machine, &format!("{}/status", supervised.state), text.as_bytes()));
        let task = &mut machine.tasks[index];
        task.end = end.map(|_| End::Code(0));
        task.supervised = Some(supervised);
    }
}

/// The first line of the file in which a program keeps its progress, if it is a plain number.
fn progress(machine: &Machine, files: &Files, supervised: &Supervised) -> String {
    let unknown = || "-".to_owned();
    if supervised.progress.is_empty() {
        return unknown();
    }
    let content = files.read(machine, &supervised.progress).unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let first = text.lines().next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if first.is_empty() || !first.chars().all(plain) { unknown() } else { first.to_owned() }
}
