//! The host's half of the supervisor protocol: what `guest/supervisor` is asked, and what it answers. Its head comment is
//! the specification.
//!
//! ```text
//!   RunProgram(/bin/sh, supervisor SUBCOMMAND ...) --> exit code --0--> answer, if there is one: copy a file out
//!                                                                \--> why: copy a file out
//! ```
//! With real Tools each program costs about a second, for that is how often they look; a copy does not. So the running
//! program is watched by copying out one small file.

use std::io;
use std::path::Path;

use vmtask_core::{ExitStatus, ProgramSpec};

use crate::error::Error;
use crate::machine::Vm;
use crate::wait::Wait;

/// The script, as it is copied into guests.
pub const SUPERVISOR: &str = include_str!("../guest/supervisor");
/// What runs it.
const SHELL: &str = "/bin/sh";
/// What a command line may have. Tools take no more than 60536 bytes (VIX 1.13 reference, VixVM_RunScriptInGuest), and
/// for a program that is not documented otherwise.
const LONGEST: usize = 60_000;
/// More than any answer of the script.
const ANSWER: u64 = 64 << 10;

/// Exit codes of the script.
pub(crate) mod exit {
    pub(crate) const NO_FILE: i32 = 3;
    pub(crate) const NO_SPACE: i32 = 5;
    pub(crate) const SIZE: i32 = 6;
    pub(crate) const HASH: i32 = 7;
}

/// Why the guest did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestError {
    #[error(transparent)]
    Vix(#[from] Error),
    /// The script says no.
    #[error("in the guest, {what} failed (exit code {code}): {why}")]
    Script { what: &'static str, code: i32, why: String },
    /// An answer that the protocol does not have.
    #[error("in the guest, {what} answered {answer:?}; is something else writing to the task's directory there?")]
    Nonsense { what: &'static str, answer: String },
    /// More than Tools take.
    #[error("the program's arguments and environment are {length} bytes, quoted; VIX takes {LONGEST}")]
    TooLong { length: usize },
    /// The answer could not be kept on the host.
    #[error("an answer from the guest could not be read: {0}")]
    Host(#[from] io::Error),
}

impl GuestError {
    /// The script's exit code, if it was the script that failed.
    pub(crate) const fn script_code(&self) -> Option<i32> {
        match self {
            Self::Script { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// VIX's code, if it was VIX.
    pub(crate) const fn vix_code(&self) -> Option<u16> {
        match self {
            Self::Vix(error) => error.code(),
            _ => None,
        }
    }
}

/// A guest with the task's directory in it.
pub(crate) struct Guest<'a> {
    pub(crate) vm: &'a Vm,
    /// The working directory in the guest.
    pub(crate) workdir: &'a str,
    /// Where answers go on the host.
    pub(crate) fetched: &'a Path,
}

impl Guest<'_> {
    /// The path of one of the script's files in the guest.
    pub(crate) fn state(&self, name: &str) -> String {
        format!("{}/.vmtask/{name}", self.workdir)
    }

    /// Runs the script.
    pub(crate) fn script(&self, what: &'static str, args: &[&str], wait: &Wait<'_>) -> Result<(), GuestError> {
        let line = command_line(&self.state("supervisor"), what, args);
        if line.len() > LONGEST {
            return Err(GuestError::TooLong { length: line.len() });
        }
        let ran = self.vm.run_program(SHELL, &line, wait)?;
        if ran.exit_code == 0 {
            return Ok(());
        }
        let why = self.fetch("why", wait).unwrap_or_else(|error| format!("it does not say why ({error})"));
        Err(GuestError::Script { what, code: ran.exit_code, why: why.trim_end().to_owned() })
    }

    /// Copies one of the script's files out.
    pub(crate) fn fetch(&self, name: &str, wait: &Wait<'_>) -> Result<String, GuestError> {
        use io::Read;
        std::fs::create_dir_all(self.fetched)?;
        let to = self.fetched.join(name);
        self.vm.copy_out(&self.state(name), &to, wait)?;
        let mut bytes = Vec::new();
        std::fs::File::open(&to)?.take(ANSWER).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes the task's directories, and puts the script there.
    pub(crate) fn settle_in(&self, wait: &Wait<'_>) -> Result<(), GuestError> {
        for directory in [self.workdir.to_owned(), format!("{}/.vmtask", self.workdir)] {
            match self.vm.create_directory(&directory, wait) {
                Err(error) if error.is(vmtask_vix_abi::error_code::FILE_ALREADY_EXISTS) => {}
                made => made?,
            }
        }
        std::fs::create_dir_all(self.fetched)?;
        let script = self.fetched.join("supervisor");
        std::fs::write(&script, SUPERVISOR)?;
        Ok(self.vm.copy_in(&script, &self.state("supervisor"), wait)?)
    }

    /// Starts the program, once in this boot.
    pub(crate) fn launch(&self, program: &ProgramSpec, wait: &Wait<'_>) -> Result<(), GuestError> {
        let env: Vec<String> = program.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut args = vec!["-o", &program.stdout, "-e", &program.stderr];
        if let Some(progress) = &program.progress {
            args.extend(["-p", progress]);
        }
        for variable in &env {
            args.extend(["-E", variable]);
        }
        args.extend(["--", &program.path]);
        args.extend(program.args.iter().map(String::as_str));
        self.script("launch", &args, wait)
    }

    /// What the program does, as its supervisor last wrote it down. `None`: it has not written yet, or is just writing.
    pub(crate) fn status(&self, wait: &Wait<'_>) -> Result<Option<Status>, GuestError> {
        match self.fetch("status", wait) {
            Ok(line) => Ok(parse_status(line.trim_end())),
            Err(error) if error.vix_code() == Some(vmtask_vix_abi::error_code::FILE_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the program does, having looked closely.
    pub(crate) fn look(&self, wait: &Wait<'_>) -> Result<Status, GuestError> {
        self.script("look", &[], wait)?;
        let answer = self.fetch("look", wait)?;
        parse_status(answer.trim_end()).ok_or(GuestError::Nonsense { what: "look", answer })
    }

    /// Size and SHA-256 of a file in the working directory.
    pub(crate) fn sum(&self, name: &str, wait: &Wait<'_>) -> Result<(u64, String), GuestError> {
        self.script("give", &[name], wait)?;
        let answer = self.fetch("sum", wait)?;
        parse_sum(answer.trim_end()).ok_or(GuestError::Nonsense { what: "give", answer })
    }

    /// Sets the guest's clock, if the user may.
    pub(crate) fn set_clock(&self, wait: &Wait<'_>) -> Result<(), GuestError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.script("clock", &[&now.unwrap_or_default().as_secs().to_string()], wait)
    }
}

/// What the program in the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// Counts the supervisor's signs of life.
    pub(crate) beat: u64,
    pub(crate) cpu_ms: u64,
    pub(crate) permille: Option<u16>,
}

/// Where the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    NotStarted,
    Running,
    Exited(ExitStatus),
    /// Its supervisor is gone without a word: this guest's state is worth nothing.
    Lost,
}

fn parse_status(line: &str) -> Option<Status> {
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let state = match field("state")? {
        "not-started" => State::NotStarted,
        "running" => State::Running,
        "lost" => State::Lost,
        // Exactly one of the two is a number.
        "exited" => State::Exited(match (field("code")?.parse(), field("signal")?.parse()) {
            (Ok(code), Err(_)) => ExitStatus::Code(code),
            (Err(_), Ok(signal)) => ExitStatus::Signal(signal),
            _ => return None,
        }),
        _ => return None,
    };
    // The last field: without it the line was cut off.
    let share = field("progress")?.parse::<f64>().ok();
    Some(Status {
        state,
        beat: field("beat").and_then(|beat| beat.parse().ok()).unwrap_or(0),
        cpu_ms: field("cpu_ms").and_then(|ms| ms.parse().ok()).unwrap_or(0),
        // The program writes what it likes: infinities and worse are taken for no word at all.
        permille: share.filter(|share| share.is_finite()).map(|share| (share.clamp(0.0, 1.0) * 1000.0) as u16),
    })
}

fn parse_sum(line: &str) -> Option<(u64, String)> {
    let (size, sum) = line.split_once(' ')?;
    let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((size.parse().ok()?, is_sum.then(|| sum.to_ascii_lowercase())?))
}

fn command_line(script: &str, what: &str, args: &[&str]) -> String {
    let mut line = format!("{} {what}", quote(script));
    for arg in args {
        line.push(' ');
        line.push_str(&quote(arg));
    }
    line
}

/// An argument as a POSIX shell takes it, whatever is in it. Tools give a program's arguments to a shell.
#[must_use]
pub fn quote(arg: &str) -> String {
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const fn is(state: State, beat: u64, cpu_ms: u64, permille: Option<u16>) -> Option<Status> {
        Some(Status { state, beat, cpu_ms, permille })
    }

    #[rstest]
    #[case(
        "state=not-started boot=x beat=- pid=- code=- signal=- cpu_ms=- progress=-",
        is(State::NotStarted, 0, 0, None)
    )]
    #[case(
        "state=running boot=x beat=7 pid=4 code=- signal=- cpu_ms=17 progress=0.25",
        is(State::Running, 7, 17, Some(250))
    )]
    #[case(
        "state=running boot=x beat=7 pid=4 code=- signal=- cpu_ms=17 progress=9e999",
        is(State::Running, 7, 17, None)
    )]
    #[case(
        "state=running boot=x beat=7 pid=4 code=- signal=- cpu_ms=17 progress=-3",
        is(State::Running, 7, 17, Some(0))
    )]
    #[case(
        "state=exited boot=x beat=- pid=- code=0 signal=- cpu_ms=5 progress=-",
        is(State::Exited(ExitStatus::Code(0)), 0, 5, None)
    )]
    #[case(
        "state=exited boot=x beat=- pid=- code=- signal=11 cpu_ms=- progress=-",
        is(State::Exited(ExitStatus::Signal(11)), 0, 0, None)
    )]
    #[case("state=exited boot=x beat=- pid=- code=- signal=- cpu_ms=5 progress=-", None)]
    #[case("state=lost boot=x beat=- pid=- code=- signal=- cpu_ms=- progress=-", is(State::Lost, 0, 0, None))]
    #[case::cut_off("state=running boot=x beat=7", None)]
    #[case::just_being_written("", None)]
    #[case("state=dancing progress=-", None)]
    fn a_status_line_is_read(#[case] line: &str, #[case] expected: Option<Status>) {
        assert_eq!(parse_status(line), expected);
    }

    #[test]
    fn a_sum_is_a_size_and_64_digits() {
        let sum = "0123456789abcdef".repeat(4);
        assert_eq!(parse_sum(&format!("12 {sum}")), Some((12, sum.clone())));
        for bad in ["", "12", "12 abc", &format!("-1 {sum}"), &format!("12 {}g", &sum[1..])] {
            assert_eq!(parse_sum(bad), None, "{bad}");
        }
    }

    #[rstest]
    #[case("plain", "'plain'")]
    #[case("", "''")]
    #[case("it's $HOME \"*\"\n", "'it'\\''s $HOME \"*\"\n'")]
    fn a_shell_gets_every_argument_as_it_is(#[case] arg: &str, #[case] expected: &str) {
        assert_eq!(quote(arg), expected);
    }

    #[test]
    fn the_command_line_names_the_script_and_quotes_all() {
        assert_eq!(
            command_line("/tmp/vmtask/a/.vmtask/supervisor", "give", &["my file"]),
            "'/tmp/vmtask/a/.vmtask/supervisor' give 'my file'"
        );
    }
}
