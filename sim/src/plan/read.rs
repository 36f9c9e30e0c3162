//! Text as plans.

use std::str::FromStr;

use vmtask_core::{FaultKind, OpKind, Request};

use super::print::{ALIASES, PLAIN, fault_name};
use super::{Anchor, EndKind, Expect, Line, PLAN_VERSION, Plan, Seed};
use crate::act::{Act, Mark, PHASES, When};
use crate::parse::{PlanSyntaxError, Words};
use crate::scenario::Profile;

/// Plans are written by people, or by runs of a few hundred things: a larger file is something else.
const MAX_BYTES: usize = 1 << 20;

impl FromStr for Plan {
    type Err = PlanSyntaxError;

    fn from_str(text: &str) -> Result<Self, PlanSyntaxError> {
        Self::read(text, Profile::default())
    }
}

impl Plan {
    /// Reads a plan that is about this hypervisor if it names none itself.
    ///
    /// # Errors
    /// If it is no plan: with line, column, what was expected and what was found.
    pub fn read(text: &str, profile: Profile) -> Result<Self, PlanSyntaxError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > MAX_BYTES {
            let reason = format!("a plan has at most {MAX_BYTES} bytes; this has {}", text.len());
            return Err(PlanSyntaxError { line: 1, column: 1, reason });
        }
        let mut plan = Self { profile, ..Self::default() };
        let (mut named, mut begun) = (false, false);
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = Words::new(number, line);
            match words.peek() {
                None => continue,
                Some("version") if !begun => parse_version(&mut words)?,
                Some("version") => return Err(words.error("the version comes first")),
                Some("scenario") if named => return Err(words.error("a plan is about one scenario")),
                Some("scenario") => {
                    named = true;
                    plan.profile = parse_scenario(&mut words)?;
                }
                Some("seed") if plan.seed.is_some() => return Err(words.error("a plan has one seed")),
                Some("seed") => plan.seed = Some(parse_seed(&mut words)?),
                Some("at" | "when") => plan.push(number, parse_line(&mut words)?),
                Some("request") => plan.push(number, parse_request_line(&mut words)?),
                Some("expect") => plan.expect.push(parse_expect(&mut words)?),
                Some(word) if !begun && is_of_a_trace(word) => {
                    return Err(words.error("this is the trace of a run, not a plan; the plan is what led to it"));
                }
                Some(_) => {
                    return Err(words.error("expected version, scenario, seed, at, when, request or expect"));
                }
            }
            words.end()?;
            begun = true;
        }
        Ok(plan)
    }

    /// Reads a plan from the bytes of a file.
    ///
    /// # Errors
    /// The same, and if it is no text.
    pub fn read_bytes(bytes: &[u8], profile: Profile) -> Result<Self, PlanSyntaxError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::read(text, profile),
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
                let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
                let reason = format!("a plan is a text in UTF-8; found the byte {byte:#04x}");
                Err(PlanSyntaxError { line, column, reason })
            }
        }
    }

    fn push(&mut self, number: usize, line: Line) {
        self.lines.push(line);
        self.numbers.0.push(number);
    }
}

/// How the lines that `vmsim` prints about a run begin.
fn is_of_a_trace(word: &str) -> bool {
    let time = word.split_once('.').is_some_and(|(s, ms)| s.parse::<u64>().is_ok() && ms.parse::<u16>().is_ok());
    time || word == "simulated:" || word.starts_with('{')
}

fn parse_version(words: &mut Words<'_>) -> Result<(), PlanSyntaxError> {
    words.next("version")?;
    let place = words.place();
    let version: u32 = words.number("the number of a version")?;
    if version == PLAN_VERSION {
        return Ok(());
    }
    let reason = format!("this vmsim reads version {PLAN_VERSION}; replay the plan with the vmsim that printed it");
    Err(words.error_at(place, &reason))
}

fn parse_scenario(words: &mut Words<'_>) -> Result<Profile, PlanSyntaxError> {
    words.next("scenario")?;
    let profile = words.peek().and_then(|name| Profile::ALL.into_iter().find(|p| p.name() == name));
    let profile = profile.ok_or_else(|| words.error("expected one of qemu, warm, vix, plain, failing, limited"))?;
    words.skip();
    Ok(profile)
}

fn parse_seed(words: &mut Words<'_>) -> Result<Seed, PlanSyntaxError> {
    words.next("seed")?;
    let mut seed = Seed { seed: words.number("a seed (a number)")?, faults: 0, requests: 0 };
    while let Some(word) = words.peek() {
        match word {
            "faults" => {
                words.skip();
                seed.faults = words.number("how many faults (up to 255)")?;
            }
            "requests" => {
                words.skip();
                seed.requests = words.number("how many requests (up to 255)")?;
            }
            _ => return Err(words.error("expected faults N, requests N, or the end of the line")),
        }
    }
    Ok(seed)
}

/// `at SITE ACT [POSITION]` or `when PHASE +TIME ACT`.
fn parse_line(words: &mut Words<'_>) -> Result<Line, PlanSyntaxError> {
    let site = parse_site(words)?;
    let place = words.place();
    let act = parse_act(words)?;
    let at = words.place();
    let position = parse_position(words);
    let anchor = anchor(site, position, act).map_err(|wrong| wrong.error(words, place, at, act))?;
    Ok(Line { anchor, act })
}

/// `request REQUEST at SITE [POSITION]`.
fn parse_request_line(words: &mut Words<'_>) -> Result<Line, PlanSyntaxError> {
    let place = words.place();
    let act = parse_act(words)?;
    let site = parse_site(words)?;
    let at = words.place();
    let position = parse_position(words);
    let anchor = anchor(site, position, act).map_err(|wrong| wrong.error(words, place, at, act))?;
    Ok(Line { anchor, act })
}

/// Which of the words do not go together.
enum Wrong {
    Act,
    Position(&'static str),
}

impl Wrong {
    fn error(&self, words: &Words<'_>, act_at: usize, position_at: usize, act: Act) -> PlanSyntaxError {
        match self {
            Self::Act => {
                words.error_at(act_at, &format!("this cannot happen there, only {}", where_possible(act.when())))
            }
            Self::Position(instead) => {
                words.error_at(position_at, &format!("there is no such moment; expected {instead}"))
            }
        }
    }
}

const fn where_possible(when: When) -> &'static str {
    match when {
        When::Command => "to a command: at COMMAND#N",
        When::Write => "to a record: at Persist#N",
        When::Fence => "to a fence: at Fence#N",
        When::Event => "to an event: at Event#N",
        When::Between => "between two things, such as at COMMAND#N ... after-effect, at Persist#N or when PHASE +TIME",
    }
}

#[derive(Clone, Copy)]
enum Site {
    Op(OpKind, u16),
    Named(&'static str, u16),
    Phase { phase: usize, number: Option<u32>, nth: u16, later: Option<u64> },
}

const NAMED: [&str; 9] = ["Start", "Persist", "Fence", "Event", "Timer", "Step", "Late", "Act", "Other"];

fn parse_site(words: &mut Words<'_>) -> Result<Site, PlanSyntaxError> {
    let when = match words.peek() {
        Some("at") => false,
        Some("when") => true,
        _ => return Err(words.error("expected at or when")),
    };
    words.skip();
    let word = words.peek().ok_or_else(|| words.error("expected a command, Persist, Fence, Event or a phase"))?;
    let (name, number) = match word.split_once('#') {
        Some((name, n)) => (name, Some(n)),
        None => (word, None),
    };
    let nth = match number.map(str::parse::<u16>) {
        None => 1,
        Some(Ok(n)) if n > 0 => n,
        Some(_) => return Err(words.error("expected a number from 1 to 65535 after '#'")),
    };
    if let Some(kind) = OpKind::ALL.into_iter().find(|k| format!("{k:?}") == name).filter(|_| !when) {
        words.skip();
        return Ok(Site::Op(kind, nth));
    }
    if let Some(name) = NAMED.into_iter().find(|n| *n == name).filter(|_| !when) {
        if name == "Start" && number.is_some() {
            return Err(words.error("there is one start, without a number"));
        }
        words.skip();
        return Ok(Site::Named(name, nth));
    }
    let (name, argument) = match name.split_once('(') {
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(argument) => (name, Some(argument)),
            None => return Err(words.error("expected a closing parenthesis")),
        },
        None => (name, None),
    };
    let Some(phase) = PHASES.iter().position(|p| *p == name) else {
        return Err(words.error("no command, record or phase of that name"));
    };
    let number = match argument.map(str::parse::<u32>) {
        None => None,
        Some(Ok(n)) => Some(n),
        Some(Err(_)) => return Err(words.error("expected a number in parentheses")),
    };
    words.skip();
    let later = match words.peek().and_then(|w| w.strip_prefix('+')) {
        Some(time) if when => {
            let ms = millis(time).ok_or_else(|| words.error("expected a time such as +90s or +500ms"))?;
            words.skip();
            Some(ms)
        }
        _ if when => Some(0),
        _ => None,
    };
    Ok(Site::Phase { phase, number, nth, later })
}

fn millis(text: &str) -> Option<u64> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok(),
        None => text.strip_suffix('s')?.parse::<u64>().ok()?.checked_mul(1000),
    }
}

fn parse_act(words: &mut Words<'_>) -> Result<Act, PlanSyntaxError> {
    if words.accept("request") {
        return parse_request(words).map(Act::Request);
    }
    if words.accept("hang, acts after") {
        let place = words.place();
        let steps = words.number("after how many steps (1 to 255)")?;
        if steps == 0 {
            return Err(
                words.error_at(place, "a command that hangs acts after 1 step at the earliest, 255 at the latest")
            );
        }
        if !words.accept("steps") {
            words.next("step")?;
        }
        return Ok(Act::Hang(Some(steps)));
    }
    if words.accept("clock") {
        let seconds = words.peek().and_then(|w| w.strip_suffix('s')).and_then(|w| w.parse().ok());
        let seconds = seconds.ok_or_else(|| words.error("expected seconds such as +7200s or -5s"))?;
        words.skip();
        return Ok(Act::Clock(seconds));
    }
    if let Some((act, _)) = PLAIN.into_iter().find(|(_, name)| words.accept(name)) {
        return Ok(act);
    }
    if let Some((_, act)) = ALIASES.into_iter().find(|(name, _)| words.accept(name)) {
        return Ok(act);
    }
    let lasting = words.accept("fail until mended");
    if lasting || words.accept("fail") {
        let kind = words.peek().and_then(|name| FaultKind::ALL.into_iter().find(|k| fault_name(*k) == name));
        let kind =
            kind.ok_or_else(|| words.error("expected a kind of fault: refused, unknown, not-found, no-space, …"))?;
        words.skip();
        return Ok(if lasting { Act::Lasting(kind) } else { Act::Fail(kind) });
    }
    Err(words.error("expected what happens: crash, lose reply, hang, fail refused, guest-stop, …"))
}

fn parse_request(words: &mut Words<'_>) -> Result<Request, PlanSyntaxError> {
    let request = match words.peek() {
        Some("Start") => Request::Start,
        Some("Suspend") => Request::Suspend,
        Some("Resume") => Request::Resume,
        Some("Checkpoint") => Request::Checkpoint,
        Some("Abort") => Request::Abort,
        Some(word) if word.starts_with("Quit(") => {
            let inside = word.strip_prefix("Quit(").and_then(|w| w.strip_suffix(')')).and_then(millis);
            let budget = inside.and_then(|ms| u32::try_from(ms).ok());
            let budget_ms = budget.ok_or_else(|| words.error("expected a budget such as Quit(1000ms) or Quit(5s)"))?;
            Request::Quit { budget_ms }
        }
        _ => return Err(words.error("expected Suspend, Resume, Checkpoint, Quit(TIME), Abort or Start")),
    };
    words.skip();
    Ok(request)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    None,
    BeforeEffect,
    AfterEffect,
    AfterReply,
    /// After what has this name.
    After(&'static str),
}

fn parse_position(words: &mut Words<'_>) -> Position {
    if words.accept("before-effect") {
        Position::BeforeEffect
    } else if words.accept("after-effect") {
        words.accept("before-reply");
        Position::AfterEffect
    } else if words.accept("after-reply") {
        Position::AfterReply
    } else if words.accept("after-write") {
        Position::After("Persist")
    } else if words.accept("after-fence") {
        Position::After("Fence")
    } else if words.accept("after-event") {
        Position::After("Event")
    } else {
        Position::None
    }
}

fn anchor(site: Site, position: Position, act: Act) -> Result<Anchor, Wrong> {
    const OF_COMMANDS: Wrong = Wrong::Position("before-effect, after-effect, after-reply or nothing");
    Ok(match (act.when(), site, position) {
        (When::Command, Site::Op(kind, n), Position::None) => Anchor::Command(kind, n),
        (When::Write, Site::Named("Persist", n), Position::None) => Anchor::Write(n),
        (When::Fence, Site::Named("Fence", n), Position::None) => Anchor::Fence(n),
        (When::Event, Site::Named("Event", n), Position::None) => Anchor::Event(n),
        (When::Between, Site::Phase { phase, number, nth, later }, Position::None) => {
            Anchor::Phase { phase, number, nth, later }
        }
        (When::Between, Site::Op(kind, n), position) => Anchor::After(match position {
            Position::None | Position::BeforeEffect => Mark::Before(kind, n),
            Position::AfterEffect => Mark::Effect(kind, n),
            Position::AfterReply => Mark::Reply(kind, n),
            Position::After(_) => return Err(OF_COMMANDS),
        }),
        (When::Between, Site::Named(name, n), position) => {
            match position {
                Position::None => {}
                Position::After(what) if what == name => {}
                _ => return Err(Wrong::Position(after_named(name))),
            }
            Anchor::After(named_mark(name, n))
        }
        (When::Between, Site::Phase { .. }, _) => return Err(Wrong::Position("the end of the line")),
        (_, _, Position::None) => return Err(Wrong::Act),
        _ if site_fits(act.when(), site) => return Err(Wrong::Position("the end of the line")),
        _ => return Err(Wrong::Act),
    })
}

const fn site_fits(when: When, site: Site) -> bool {
    matches!((when, site), (When::Command, Site::Op(..)) | (When::Write | When::Fence | When::Event, Site::Named(..)))
}

fn after_named(name: &str) -> &'static str {
    match name {
        "Persist" => "after-write or nothing",
        "Fence" => "after-fence or nothing",
        "Event" => "after-event or nothing",
        _ => "the end of the line",
    }
}

fn named_mark(name: &str, n: u16) -> Mark {
    match name {
        "Start" => Mark::Start,
        "Persist" => Mark::Written(n),
        "Fence" => Mark::Fenced(n),
        "Event" => Mark::Event(n),
        "Timer" => Mark::Timer(n),
        "Step" => Mark::Step(n),
        "Late" => Mark::Late(n),
        "Other" => Mark::Other(n),
        _ => Mark::Done(n),
    }
}

fn parse_expect(words: &mut Words<'_>) -> Result<Expect, PlanSyntaxError> {
    words.next("expect")?;
    let end = match words.peek() {
        Some("Completed") => EndKind::Completed,
        Some("Stopped") => EndKind::Stopped,
        Some("Aborted") => EndKind::Aborted,
        Some("Failed") => EndKind::Failed,
        _ => return Err(words.error("expected Completed, Stopped, Aborted or Failed")),
    };
    words.skip();
    let mut expect = Expect { end, exit: None, restarts: None, checkpoint: None };
    while let Some(word) = words.peek() {
        let number = |prefix: &str| word.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok());
        let twice = if let Some(exit) = number("exit=").and_then(|n| u8::try_from(n).ok()) {
            if end != EndKind::Completed {
                return Err(words.error("only a task that has completed has an exit code: this is never met"));
            }
            expect.exit.replace(exit).is_some()
        } else if let Some(checkpoint) = number("checkpoint=") {
            if end != EndKind::Stopped {
                return Err(words.error("only a task that has stopped names a checkpoint: this is never met"));
            }
            expect.checkpoint.replace(checkpoint).is_some()
        } else if let Some(restarts) = number("restarts<=") {
            expect.restarts.replace(restarts).is_some()
        } else {
            return Err(words.error("expected exit=N (up to 255), checkpoint=N or restarts<=N"));
        };
        if twice {
            return Err(words.error("this is expected already"));
        }
        words.skip();
    }
    Ok(expect)
}
