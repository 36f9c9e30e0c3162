//! The host's half of the guest protocol: what `/usr/lib/vmtask/guest` in the image is asked, and what it answers.
//!
//! The script's head comment is the specification. Everything here but a transfer may be repeated, so an answer that is
//! lost (the agent tells each once) costs a repetition and nothing else; that is what [`ask`] does by itself.

use std::time::Duration;

use vmtask_core::{ExitStatus, ProgramSpec};

use crate::agent::{Agent, AgentError, Ended, Running};
use crate::wait::{Stop, Wait};

/// Where the script is in the image.
pub(crate) const SCRIPT: &str = "/usr/lib/vmtask/guest";
/// The version of the protocol that is spoken here.
const PROTOCOL: &str = "1";
/// How long one try may take before the agent is taken for dead and the question is put again. Generous, for a guest
/// under software emulation on a busy computer.
const ONE_TRY: Duration = Duration::from_secs(10);

/// Why the guest did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The agent could not be asked.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The script says no. Its exit codes are part of the protocol.
    #[error("in the guest, {what} failed ({how}): {stderr}")]
    Failed {
        /// The subcommand.
        what: &'static str,
        /// Its exit code, or `None` for a signal.
        code: Option<u8>,
        /// The same in words.
        how: String,
        /// What it said.
        stderr: String,
    },
    /// The script answered something else than the protocol allows.
    #[error(
        "in the guest, {what} answered {answer:?}, which is not guest protocol {PROTOCOL}; does the platform fit this vmtask?"
    )]
    Nonsense {
        /// The subcommand.
        what: &'static str,
        /// Its answer.
        answer: String,
    },
}

impl GuestError {
    /// The script's exit code, if it was the script that failed.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        match self {
            Self::Failed { code, .. } => *code,
            _ => None,
        }
    }
}

/// Exit code of the script: no such file.
pub(crate) const NO_FILE: u8 = 3;
/// Exit code of the script: cannot write.
pub(crate) const NO_SPACE: u8 = 5;

/// What the program in the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it is.
    pub state: State,
    /// Processor time of the program and its descendants, in milliseconds.
    pub cpu_ms: u64,
    /// Thousandths done, if the program says.
    pub permille: Option<u16>,
}

/// Where the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started in this boot.
    NotStarted,
    /// Runs, or is just being started.
    Running,
    /// Ended.
    Exited(ExitStatus),
    /// Its supervisor is gone without a word: this guest's state is worth nothing.
    Lost,
}

/// Starts the script. What a fresh guest needs before anything else goes with its first call.
pub(crate) fn start(agent: &mut Agent, args: &[&str], wait: &Wait<'_>) -> Result<Running, AgentError> {
    let Some(seed) = agent.seed.clone() else {
        return agent.start(SCRIPT, args, wait);
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs().to_string();
    let mut all = vec!["-t", &now, "-s", &seed];
    all.extend_from_slice(args);
    let running = agent.start(SCRIPT, &all, wait)?;
    agent.seed = None;
    Ok(running)
}

/// Holds the program, if it still runs, with everything that it has started: a file that is written to while it is copied
/// has no content that could be compared. It is not let go again; what is restored from a checkpoint was never held.
pub(crate) fn hold_program(agent: &mut Agent, wait: &Wait<'_>) -> Result<(), GuestError> {
    let ended = agent.run("/bin/sh", &["-c", "echo 1 >/sys/fs/cgroup/task/cgroup.freeze"], wait)?;
    answer("holding the program", &ended).map(drop)
}

/// Asks until there is an answer: every subcommand that comes this way may be repeated.
///
/// # Errors
/// If the script fails, or no agent answers in time.
pub fn ask(agent: &mut Agent, what: &'static str, args: &[&str], wait: &Wait<'_>) -> Result<String, GuestError> {
    let mut all = vec![what];
    all.extend_from_slice(args);
    loop {
        let one_try = wait.at_most(ONE_TRY);
        let ended = start(agent, &all, &one_try).and_then(|running| agent.finish(running, &one_try));
        match ended {
            Ok(ended) => return answer(what, &ended),
            Err(error @ (AgentError::Refused { .. } | AgentError::Silent { stop: Stop::Fenced, .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                if wait.tick().is_err() {
                    return Err(error.into());
                }
                tracing::debug!(%error, what, "asking the guest again");
            }
        }
    }
}

/// What an ended run of the script says.
pub(crate) fn answer(what: &'static str, ended: &Ended) -> Result<String, GuestError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ended.code == Some(0) {
        return Ok(text(&ended.stdout));
    }
    Err(GuestError::Failed {
        what,
        code: ended.code,
        how: ended.code.map_or("killed by a signal".to_owned(), |c| format!("exit code {c}")),
        stderr: text(&ended.stderr),
    })
}

/// Checks that the image speaks our protocol.
///
/// # Errors
/// If it does not.
pub fn check_version(agent: &mut Agent, wait: &Wait<'_>) -> Result<(), GuestError> {
    let answer = ask(agent, "version", &[], wait)?;
    if answer.strip_prefix("protocol=") == Some(PROTOCOL) {
        return Ok(());
    }
    Err(GuestError::Nonsense { what: "version", answer })
}

/// Makes the working directory: in memory, or on the disk.
///
/// # Errors
/// See [`ask`].
pub fn make_workdir(agent: &mut Agent, on_disk: bool, wait: &Wait<'_>) -> Result<(), GuestError> {
    let args: &[&str] = if on_disk { &["disk"] } else { &[] };
    ask(agent, "workdir", args, wait).map(drop)
}

/// Starts the program, once in the life of this boot.
///
/// # Errors
/// See [`ask`]; exit code 3 for a program that is not there, 4 for one that cannot be run.
pub fn launch(agent: &mut Agent, program: &ProgramSpec, linux32: bool, wait: &Wait<'_>) -> Result<(), GuestError> {
    let env: Vec<String> = program.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut args: Vec<&str> = Vec::new();
    if linux32 {
        args.push("-3");
    }
    args.extend(["-o", &program.stdout, "-e", &program.stderr]);
    for variable in &env {
        args.extend(["-E", variable]);
    }
    args.extend(["--", &program.path]);
    args.extend(program.args.iter().map(String::as_str));
    match ask(agent, "launch", &args, wait)?.as_str() {
        "launched=yes" | "launched=before" => Ok(()),
        other => Err(GuestError::Nonsense { what: "launch", answer: other.to_owned() }),
    }
}

/// Looks at the program.
///
/// # Errors
/// See [`ask`].
pub fn status(agent: &mut Agent, progress: Option<&str>, wait: &Wait<'_>) -> Result<Status, GuestError> {
    let args: &[&str] = match &progress {
        Some(name) => &[name],
        None => &[],
    };
    let answer = ask(agent, "status", args, wait)?;
    parse_status(&answer).ok_or(GuestError::Nonsense { what: "status", answer })
}

/// The exit status in a line `exited CODE SIGNAL` from the events port.
pub(crate) fn parse_nudge(line: &str) -> Option<ExitStatus> {
    let (code, signal) = line.strip_prefix("exited ")?.split_once(' ')?;
    exit_status(code, signal)
}

/// Exactly one of the two is a number.
fn exit_status(code: &str, signal: &str) -> Option<ExitStatus> {
    match (code.parse(), signal.parse()) {
        (Ok(code), Err(_)) => Some(ExitStatus::Code(code)),
        (Err(_), Ok(signal)) => Some(ExitStatus::Signal(signal)),
        _ => None,
    }
}

fn parse_status(line: &str) -> Option<Status> {
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let state = match field("state")? {
        "not-started" => State::NotStarted,
        "starting" | "running" => State::Running,
        "lost" => State::Lost,
        "exited" => State::Exited(exit_status(field("code")?, field("signal")?)?),
        _ => return None,
    };
    let share = field("progress").and_then(|text| text.parse::<f64>().ok());
    Some(Status {
        state,
        cpu_ms: field("cpu_ms").and_then(|ms| ms.parse().ok()).unwrap_or(0),
        // The program writes what it likes: infinities and worse are taken for no word at all.
        permille: share.filter(|share| share.is_finite()).map(|share| (share.clamp(0.0, 1.0) * 1000.0) as u16),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;

    const fn is(state: State, cpu_ms: u64, permille: Option<u16>) -> Option<Status> {
        Some(Status { state, cpu_ms, permille })
    }

    #[rstest]
    #[case("state=not-started pid=- code=- signal=- cpu_ms=- progress=-", is(State::NotStarted, 0, None))]
    #[case("state=starting pid=- code=- signal=- cpu_ms=0 progress=-", is(State::Running, 0, None))]
    #[case("state=running pid=44 code=- signal=- cpu_ms=17 progress=0.25", is(State::Running, 17, Some(250)))]
    #[case("state=running pid=44 code=- signal=- cpu_ms=17 progress=7e9", is(State::Running, 17, Some(1000)))]
    #[case("state=running pid=44 code=- signal=- cpu_ms=17 progress=9e999", is(State::Running, 17, None))]
    #[case("state=running pid=44 code=- signal=- cpu_ms=17 progress=-1", is(State::Running, 17, Some(0)))]
    #[case("state=exited pid=- code=0 signal=- cpu_ms=5 progress=-", is(State::Exited(ExitStatus::Code(0)), 5, None))]
    #[case(
        "state=exited pid=- code=- signal=11 cpu_ms=5 progress=-",
        is(State::Exited(ExitStatus::Signal(11)), 5, None)
    )]
    #[case("state=lost pid=- code=- signal=- cpu_ms=5 progress=-", is(State::Lost, 5, None))]
    #[case("state=exited pid=- code=- signal=- cpu_ms=5 progress=-", None)]
    #[case("state=dancing", None)]
    #[case("", None)]
    fn a_status_line_is_read(#[case] line: &str, #[case] expected: Option<Status>) {
        assert_eq!(parse_status(line), expected);
    }
}
