//! Faults that a test asks for, in a file named by `VMTASK_STANDIN_FAULTS`. It is read at each call, so a test can change
//! it while a client runs.
//!
//! ```text
//!   # one rule a line; the first whose function and number fit is taken
//!   VixVM_WaitForToolsInGuest never             Tools do not come; the call's own time limit still counts
//!   VixVM_PowerOn hang                          does nothing, and the job never completes
//!   VixVM_CreateSnapshot late 2s                does it, and the job completes 2 s later: act then delay 2s
//!   VixVM_CopyFileFromHostToGuest fail 8        does nothing, and the error is 8: or fail VIX_E_DISK_FULL
//!   VixVM_RevertToSnapshot#2 fail 13            only the second call in this process
//!   VixVM_CreateSnapshot half then die          the client's process is killed halfway
//!   VixVM_PowerOn act then fail 36              does it, and the answer is lost
//!   * delay 5ms                                 every call takes longer
//! ```
//!
//! A step is `delay D`, `act`, `half`, `late D`, `fail CODE`, `hang`, `die` or `never`; steps are joined by `then`. If
//! nothing else ends a rule, it ends in `act`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use vmtask_vix_abi::{Function, error_code};

use crate::failure::Failure;

/// What happens around the work of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Act {
    before: Vec<Step>,
    /// `None`: the work is not done at all.
    work: Option<Work>,
    after: Vec<Step>,
    never: bool,
    /// "FILE, line 3", for the error that is asked for.
    origin: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Whole,
    /// The process dies when the work calls [`Act::halfway`].
    Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Delay(Duration),
    Fail(u16),
    Hang,
    Die,
}

/// A rule of the file.
struct Rule {
    /// `None`: every function.
    function: Option<Function>,
    /// `None`: every call.
    number: Option<u64>,
    act: Act,
}

static CALLS: LazyLock<Mutex<HashMap<Function, u64>>> = LazyLock::new(Mutex::default);

/// The file, if one is named.
fn file() -> Option<PathBuf> {
    std::env::var_os("VMTASK_STANDIN_FAULTS").filter(|name| !name.is_empty()).map(PathBuf::from)
}

fn rules() -> Result<Vec<Rule>, Failure> {
    let Some(path) = file() else { return Ok(Vec::new()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // Not there (yet): nothing is asked for.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::host_io("cannot read", &path, &e)),
    };
    parse(&text, &path.display().to_string()).map_err(|why| {
        // A test with a typing error must not pass because its fault never happened, and most clients drop the text.
        complain(&why);
        Failure::new(error_code::INVALID_ARG, why)
    })
}

#[allow(clippy::print_stderr, reason = "a mistake in a test's control file: there is nobody else to tell")]
fn complain(why: &str) {
    eprintln!("{why}");
}

/// Whether the file can be read.
///
/// # Errors
/// `INVALID_ARG`, naming line and column.
pub(crate) fn check() -> Result<(), Failure> {
    rules().map(drop)
}

impl Act {
    /// What is asked for at this call, which counts from now on.
    pub(crate) fn of(function: Function) -> Result<Self, Failure> {
        let plain = Self { work: Some(Work::Whole), ..Self::default() };
        if file().is_none() {
            return Ok(plain);
        }
        let number = {
            let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
            let number = calls.entry(function).or_default();
            *number += 1;
            *number
        };
        let fits = |rule: &Rule| rule.function.is_none_or(|f| f == function) && rule.number.is_none_or(|n| n == number);
        Ok(rules()?.into_iter().find(fits).map_or(plain, |rule| rule.act))
    }

    /// Whether Tools must not come.
    pub(crate) fn never(&self) -> bool {
        self.never
    }

    /// To be called by work at the point where being killed does the most harm.
    pub(crate) fn halfway(&self) {
        if self.work == Some(Work::Half) {
            die();
        }
    }

    /// Does the work, with what was asked for around it. `rest` stands still for a time, or for ever, and returns true
    /// if the job was ended meanwhile.
    pub(crate) fn carry_out<T>(
        &self,
        rest: &dyn Fn(Option<Duration>) -> bool,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.take(&self.before, rest)?;
        if self.work.is_none() {
            // The last step before ends every such rule: this is not reached.
            return Err(Failure::new(error_code::FAIL, format!("{}: nothing is done", self.origin)));
        }
        let done = work()?;
        self.halfway();
        self.take(&self.after, rest)?;
        Ok(done)
    }

    fn take(&self, steps: &[Step], rest: &dyn Fn(Option<Duration>) -> bool) -> Result<(), Failure> {
        for step in steps {
            let ended = match step {
                Step::Delay(limit) => rest(Some(*limit)),
                Step::Hang => rest(None),
                Step::Fail(code) => return Err(Failure::new(*code, format!("asked for by {}", self.origin))),
                Step::Die => die(),
            };
            if ended {
                return Err(Failure::new(error_code::CANCELLED, "the job was ended by a disconnect"));
            }
        }
        Ok(())
    }
}

/// Ends this process at once, as a crash does: no destructors, no exit handlers.
fn die() -> ! {
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// Reads a text; the error names line and column.
fn parse(text: &str, file: &str) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let origin = format!("{file}, line {}", number + 1);
        if let Some(rule) =
            parse_line(line, &origin).map_err(|(column, why)| format!("{origin}, column {column}: {why}"))?
        {
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// The words of a line, each with the column that it begins at.
struct Words<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.line[self.at..];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let word = self.line[start..].split_whitespace().next()?;
        self.at = start + word.len();
        Some((self.line[..start].chars().count() + 1, word))
    }

    fn expect(&mut self, what: &str) -> Result<(usize, &'a str), (usize, String)> {
        self.next().ok_or_else(|| (self.line.chars().count() + 1, format!("expected {what}")))
    }
}

fn parse_line(line: &str, origin: &str) -> Result<Option<Rule>, (usize, String)> {
    let line = line.split('#').next().filter(|_| line.trim_start().starts_with('#')).unwrap_or(line);
    let mut words = Words { line, at: 0 };
    let Some((column, target)) = words.next() else { return Ok(None) };
    let (name, number) = match target.split_once('#') {
        Some((name, number)) => match number.parse::<u64>() {
            Ok(number) if number > 0 => (name, Some(number)),
            _ => return Err((column + name.len() + 1, format!("{number:?} is not the number of a call: 1, 2, ..."))),
        },
        None => (target, None),
    };
    let function = match name {
        "*" => None,
        _ => Some(Function::from_name(name).ok_or_else(|| (column, format!("there is no function {name:?}")))?),
    };
    let act = parse_steps(&mut words, function, origin)?;
    Ok(Some(Rule { function, number, act }))
}

fn parse_steps(words: &mut Words<'_>, function: Option<Function>, origin: &str) -> Result<Act, (usize, String)> {
    let mut act = Act { origin: origin.to_owned(), ..Act::default() };
    loop {
        let (column, word) = words.expect("delay, act, half, late, fail, hang, die or never")?;
        let ends = act.before.iter().chain(&act.after).any(|step| !matches!(step, Step::Delay(_)));
        if ends {
            return Err((column, "nothing can follow fail, hang or die".to_owned()));
        }
        if matches!(word, "act" | "half" | "late" | "never") && act.work.is_some() {
            return Err((column, format!("{word}: the work has been done already")));
        }
        let step = match word {
            "delay" => Some(Step::Delay(duration(words)?)),
            "fail" => Some(Step::Fail(code(words)?)),
            "hang" => Some(Step::Hang),
            "die" => Some(Step::Die),
            "act" | "late" => {
                act.work = Some(Work::Whole);
                (word == "late").then(|| duration(words)).transpose()?.map(Step::Delay)
            }
            "half" => {
                act.work = Some(Work::Half);
                None
            }
            "never" if function == Some(Function::VmWaitForToolsInGuest) => {
                act.work = Some(Work::Whole);
                act.never = true;
                None
            }
            "never" => return Err((column, "only VixVM_WaitForToolsInGuest knows never".to_owned())),
            _ => return Err((column, format!("{word:?} is no step"))),
        };
        let side = if act.work.is_some() { &mut act.after } else { &mut act.before };
        side.extend(step);
        match words.next() {
            None => break,
            Some((_, "then")) => {}
            Some((column, word)) => {
                return Err((column, format!("expected then or the end of the line, not {word:?}")));
            }
        }
    }
    if act.work.is_none() && act.before.iter().all(|step| matches!(step, Step::Delay(_))) {
        act.work = Some(Work::Whole);
    }
    Ok(act)
}

fn duration(words: &mut Words<'_>) -> Result<Duration, (usize, String)> {
    let (column, word) = words.expect("a time such as 5ms")?;
    humantime::parse_duration(word).map_err(|e| (column, format!("{word:?} is no time such as 5ms: {e}")))
}

fn code(words: &mut Words<'_>) -> Result<u16, (usize, String)> {
    let (column, word) = words.expect("an error's number or name")?;
    let by_name = || error_code::ALL.iter().copied().find(|code| error_code::name(*code) == Some(word));
    match word.parse().ok().or_else(by_name) {
        Some(0) | None => Err((column, format!("{word:?} is no error: a number or VIX_E_..."))),
        Some(code) => Ok(code),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rstest::rstest;

    use super::*;

    fn act(line: &str) -> Act {
        parse(line, "f").unwrap().remove(0).act
    }

    fn outcome(line: &str) -> (bool, Result<(), u16>) {
        let mut worked = false;
        let result = act(line).carry_out(&|limit| limit.is_none(), || {
            worked = true;
            Ok(())
        });
        (worked, result.map_err(|failure| failure.code()))
    }

    #[rstest]
    #[case("VixVM_PowerOn delay 1ms", true, Ok(()))]
    #[case("VixVM_PowerOn late 2s", true, Ok(()))]
    #[case("VixVM_PowerOn fail 8", false, Err(8))]
    #[case("VixVM_PowerOn fail VIX_E_DISK_FULL", false, Err(8))]
    #[case("VixVM_PowerOn act then fail 36", true, Err(36))]
    #[case("VixVM_PowerOn delay 1ms then act then delay 1ms then fail 1", true, Err(1))]
    // A hang is ended by a disconnect, which `rest` plays here.
    #[case("VixVM_PowerOn hang", false, Err(error_code::CANCELLED))]
    #[case("VixVM_PowerOn act then hang", true, Err(error_code::CANCELLED))]
    #[case("VixVM_WaitForToolsInGuest never", true, Ok(()))]
    fn a_rule_does_what_its_steps_say(#[case] line: &str, #[case] worked: bool, #[case] result: Result<(), u16>) {
        assert_eq!(outcome(line), (worked, result));
    }

    #[rstest]
    #[case("VixVM_PowerOnn hang", 1)]
    #[case("VixVM_PowerOn#0 hang", 15)]
    #[case("VixVM_PowerOn hangs", 15)]
    #[case("VixVM_PowerOn delay soon", 21)]
    #[case("VixVM_PowerOn fail", 19)]
    #[case("VixVM_PowerOn fail 0", 20)]
    #[case("VixVM_PowerOn fail 8 and die", 22)]
    #[case("VixVM_PowerOn fail 8 then die", 27)]
    #[case("VixVM_PowerOn act then act", 24)]
    #[case("VixVM_PowerOn never", 15)]
    #[case("  VixVM_PowerOn", 16)]
    fn a_typing_error_is_named_with_line_and_column(#[case] line: &str, #[case] column: usize) {
        let text = format!("# nothing\n\n{line}\n");
        let why = parse(&text, "faults").err().unwrap();
        assert!(why.starts_with(&format!("faults, line 3, column {column}: ")), "{why}");
    }

    #[test]
    fn only_the_call_with_the_number_is_meant() {
        let rules = parse("* delay 5ms\nVixVM_Reset#3 hang", "f").unwrap();
        assert_eq!((rules[0].function, rules[0].number), (None, None));
        assert_eq!((rules[1].function, rules[1].number), (Some(Function::VmReset), Some(3)));
    }
}
