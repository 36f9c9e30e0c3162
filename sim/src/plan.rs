//! Plans: what goes otherwise in a run, as text that a person can write, and that a failing run prints.
//!
//! ```text
//! # one thing a line; what is not named goes well
//! scenario vix
//! at BeginSnapshot#2 crash after-effect before-reply
//! at Launch#1 lose reply
//! at AwaitTools#1 hang, acts after 2 steps
//! at Persist#5 tear record
//! when Running +3s power-loss
//! request Suspend at CopyingIn(1)
//! request Quit(1000ms) at Launch#1 after-reply
//! expect Completed exit=0 restarts<=2
//! ```
//!
//! `at` names a command, record, fence or event by its number in the run (1 if left out), or a phase (the first moment
//! in it). `seed 42 faults 3 requests 2` lets that seed add as much at random.

use std::fmt;
use std::str::FromStr;

use vmtask_core::{ExitStatus, FaultKind, Input, Machine, OpKind, Outcome, Request};

use crate::act::{Act, Director, Mark, Moment, PHASES, Stale, When, phase_key};
use crate::guest::Health;
use crate::parse::{PlanSyntaxError, Words};
use crate::scenario::Profile;

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which hypervisor.
    pub profile: Profile,
    /// What happens at random beside what is named.
    pub seed: Option<Seed>,
    /// What goes otherwise, in the order in which it was written.
    pub lines: Vec<Line>,
    /// What must come of it.
    pub expect: Vec<Expect>,
}

/// Random additions to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The seed.
    pub seed: u64,
    /// At most so many faults.
    pub faults: u8,
    /// At most so many requests.
    pub requests: u8,
}

/// One special thing, and when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub anchor: Anchor,
    /// What.
    pub act: Act,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// How the n-th command of a kind is carried out.
    Command(OpKind, u16),
    /// How the n-th record is written.
    Write(u16),
    /// How the n-th fence goes.
    Fence(u16),
    /// What becomes of the n-th event.
    Event(u16),
    /// Between two things: right after this.
    After(Mark),
    /// The first moment in a phase, or the first in it so many milliseconds after that.
    Phase {
        /// Its place among the phases.
        phase: usize,
        /// Its number, if it has one and it matters.
        number: Option<u32>,
        /// How much later, in milliseconds.
        later: Option<u64>,
    },
}

/// What must come of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// One of the ends of the run is of this kind.
    pub end: EndKind,
    /// It has this exit code.
    pub exit: Option<u8>,
    /// The guest was rolled back no more often than this until then.
    pub restarts: Option<u32>,
    /// It names this checkpoint.
    pub checkpoint: Option<u32>,
}

/// [`Outcome`] without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the Outcome of the same name")]
pub enum EndKind {
    Completed,
    Stopped,
    Aborted,
    Failed,
}

impl Expect {
    /// Whether this end is the expected one.
    #[must_use]
    pub fn is_met_by(&self, outcome: Outcome, restarts: u32) -> bool {
        let (kind, exit, checkpoint) = match outcome {
            Outcome::Completed { exit: ExitStatus::Code(code) } => (EndKind::Completed, Some(code), None),
            Outcome::Completed { .. } => (EndKind::Completed, None, None),
            Outcome::Stopped { checkpoint } => (EndKind::Stopped, None, checkpoint.map(|g| g.0)),
            Outcome::Aborted => (EndKind::Aborted, None, None),
            Outcome::Failed { .. } => (EndKind::Failed, None, None),
        };
        kind == self.end
            && self.exit.is_none_or(|wanted| exit == Some(wanted))
            && self.checkpoint.is_none_or(|wanted| checkpoint == Some(wanted))
            && self.restarts.is_none_or(|most| restarts <= most)
    }
}

// ---- printing ----

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}", self.profile.name())?;
        if let Some(Seed { seed, faults, requests }) = self.seed {
            writeln!(f, "seed {seed} faults {faults} requests {requests}")?;
        }
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for expect in &self.expect {
            writeln!(f, "{expect}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (anchor, position) = self.anchor.parts();
        let position = if position.is_empty() { String::new() } else { format!(" {position}") };
        match self.act {
            Act::Request(_) => write!(f, "{} {anchor}{position}", self.act),
            _ => write!(f, "{anchor} {}{position}", self.act),
        }
    }
}

impl Anchor {
    /// The words before the act, and those after it.
    fn parts(self) -> (String, &'static str) {
        let site = |name: &dyn fmt::Debug, n: u16, position| (format!("at {name:?}#{n}"), position);
        let named = |name: &str, n: u16, position| (format!("at {name}#{n}"), position);
        match self {
            Self::Command(kind, n) => site(&kind, n, ""),
            Self::Write(n) => named("Persist", n, ""),
            Self::Fence(n) => named("Fence", n, ""),
            Self::Event(n) => named("Event", n, ""),
            Self::After(Mark::Start) => ("at Start".into(), ""),
            Self::After(Mark::Before(kind, n)) => site(&kind, n, "before-effect"),
            Self::After(Mark::Effect(kind, n)) => site(&kind, n, "after-effect before-reply"),
            Self::After(Mark::Reply(kind, n)) => site(&kind, n, "after-reply"),
            Self::After(Mark::Written(n)) => named("Persist", n, "after-write"),
            Self::After(Mark::Fenced(n)) => named("Fence", n, "after-fence"),
            Self::After(Mark::Event(n)) => named("Event", n, "after-event"),
            Self::After(Mark::Timer(n)) => named("Timer", n, ""),
            Self::After(Mark::Step(n)) => named("Step", n, ""),
            Self::After(Mark::Late(n)) => named("Late", n, ""),
            Self::After(Mark::Done(n)) => named("Act", n, ""),
            Self::After(Mark::Other(n)) => named("Other", n, ""),
            Self::Phase { phase, number, later } => {
                let number = number.map_or_else(String::new, |n| format!("({n})"));
                let name = PHASES.get(phase).copied().unwrap_or("Created");
                match later {
                    None => (format!("at {name}{number}"), ""),
                    Some(ms) => (format!("when {name}{number} +{ms}ms"), ""),
                }
            }
        }
    }

    fn matches(self, moment: &Moment) -> bool {
        match (self, *moment) {
            (Self::Command(kind, n), Moment::Command(k, m)) => kind == k && n == m,
            (Self::Write(n), Moment::Write(m))
            | (Self::Fence(n), Moment::Fence(m))
            | (Self::Event(n), Moment::Event(m)) => n == m,
            (Self::After(wanted), Moment::Between { mark, .. }) => wanted == mark,
            (Self::Phase { phase, number, .. }, Moment::Between { phase: now, .. }) => {
                let (place, has) = phase_key(now);
                place == phase && (number.is_none() || number == has)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hang(Some(steps)) => write!(f, "hang, acts after {steps} steps"),
            Self::Fail(kind) => write!(f, "fail {}", fault_name(*kind)),
            Self::Request(Request::Quit { budget_ms }) => write!(f, "request Quit({budget_ms}ms)"),
            Self::Request(request) => write!(f, "request {request:?}"),
            Self::Clock(seconds) => write!(f, "clock {seconds:+}s"),
            plain => {
                let name = PLAIN.iter().find(|(act, _)| act == plain).map_or("?", |(_, name)| name);
                f.write_str(name)
            }
        }
    }
}

/// Acts that are always written in the same way.
pub(crate) const PLAIN: [(Act, &str); 31] = [
    (Act::LoseReply, "lose reply"),
    (Act::DuplicateReply, "duplicate reply"),
    (Act::DelayReply, "delay reply"),
    (Act::LateReply, "reply after deadline"),
    (Act::SlowWrite, "slow write"),
    (Act::WriteFails, "write fails"),
    (Act::Slow, "slow"),
    (Act::Hang(None), "hang"),
    (Act::ActThenUnknown, "act, then fail unknown"),
    (Act::FailAndKill, "fail fatal and lose the VM"),
    (Act::NoTools, "tools timeout"),
    (Act::Spoil(Health::BadAtPowerOn), "spoil checkpoint, found at power-on"),
    (Act::Spoil(Health::BadAtProvision), "spoil checkpoint"),
    (Act::Tear, "tear record"),
    (Act::VmDies, "vm dies"),
    (Act::FenceHangs, "fence hangs"),
    (Act::LoseEvent, "lose event"),
    (Act::DelayEvent, "delay event"),
    (Act::DuplicateEvent, "duplicate event"),
    (Act::Crash, "crash"),
    (Act::StalePowerLoss, "power-loss, stale journal"),
    (Act::PowerLoss, "power-loss"),
    (Act::GuestStop, "guest-stop"),
    (Act::GuestReboot, "guest-reboot"),
    (Act::GuestHang, "guest-hang"),
    (Act::AgentDies, "agent-dies"),
    (Act::ProgramEnds, "program-ends"),
    (Act::Stale(Stale::Answer), "stale answer"),
    (Act::Stale(Stale::Fence), "stale fence"),
    (Act::Stale(Stale::Event), "stale event"),
    (Act::Stale(Stale::Record), "stale record"),
];

/// How people call what has another name here.
const ALIASES: [(&str, Act); 3] = [
    ("refuse", Act::Fail(FaultKind::Refused)),
    ("bad login", Act::Fail(FaultKind::AuthRejected)),
    ("disk full", Act::Fail(FaultKind::NoSpace)),
];

const fn fault_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Refused => "refused",
        FaultKind::Unknown => "unknown",
        FaultKind::NotFound => "not-found",
        FaultKind::AlreadyExists => "already-exists",
        FaultKind::AuthRejected => "auth-rejected",
        FaultKind::NoSpace => "no-space",
        FaultKind::Unsupported => "unsupported",
        FaultKind::Fatal => "fatal",
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expect {:?}", self.end)?;
        if let Some(exit) = self.exit {
            write!(f, " exit={exit}")?;
        }
        if let Some(checkpoint) = self.checkpoint {
            write!(f, " checkpoint={checkpoint}")?;
        }
        if let Some(restarts) = self.restarts {
            write!(f, " restarts<={restarts}")?;
        }
        Ok(())
    }
}

// ---- parsing ----

impl FromStr for Plan {
    type Err = PlanSyntaxError;

    fn from_str(text: &str) -> Result<Self, PlanSyntaxError> {
        let mut plan = Self::default();
        for (number, line) in text.lines().enumerate() {
            let mut words = Words::new(number + 1, line);
            match words.peek() {
                None => continue,
                Some("scenario") => plan.profile = parse_scenario(&mut words)?,
                Some("seed") => plan.seed = Some(parse_seed(&mut words)?),
                Some("at" | "when") => plan.lines.push(parse_line(&mut words)?),
                Some("request") => plan.lines.push(parse_request_line(&mut words)?),
                Some("expect") => plan.expect.push(parse_expect(&mut words)?),
                Some(_) => {
                    return Err(words.error("expected scenario, seed, at, when, request or expect"));
                }
            }
            words.end()?;
        }
        Ok(plan)
    }
}

fn parse_scenario(words: &mut Words<'_>) -> Result<Profile, PlanSyntaxError> {
    words.next("scenario")?;
    let profile = words.peek().and_then(|name| Profile::ALL.into_iter().find(|p| p.name() == name));
    let profile = profile.ok_or_else(|| words.error("expected one of qemu, warm, vix, plain"))?;
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
    let start = words.clone();
    let site = parse_site(words)?;
    let act = parse_act(words)?;
    let position = parse_position(words);
    Ok(Line { anchor: anchor(&start, site, position, act)?, act })
}

/// `request REQUEST at SITE [POSITION]`.
fn parse_request_line(words: &mut Words<'_>) -> Result<Line, PlanSyntaxError> {
    let act = parse_act(words)?;
    let start = words.clone();
    let site = parse_site(words)?;
    let position = parse_position(words);
    Ok(Line { anchor: anchor(&start, site, position, act)?, act })
}

#[derive(Clone, Copy)]
enum Site {
    Op(OpKind, u16),
    Named(&'static str, u16),
    Phase { phase: usize, number: Option<u32>, later: Option<u64> },
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
        words.skip();
        return Ok(Site::Named(name, nth));
    }
    let (name, argument) = match word.split_once('(') {
        Some((name, rest)) => (name, Some(rest.trim_end_matches(')'))),
        None => (word, None),
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
    Ok(Site::Phase { phase, number, later })
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
        let steps = words.number("after how many steps (1 to 255)")?;
        if steps == 0 {
            return Err(words.error("a command that hangs acts after 1 step at the earliest"));
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
    if words.accept("fail") {
        let kind = words.peek().and_then(|name| FaultKind::ALL.into_iter().find(|k| fault_name(*k) == name));
        let kind =
            kind.ok_or_else(|| words.error("expected a kind of fault: refused, unknown, not-found, no-space, …"))?;
        words.skip();
        return Ok(Act::Fail(kind));
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
    Other,
}

fn parse_position(words: &mut Words<'_>) -> Position {
    if words.accept("before-effect") {
        Position::BeforeEffect
    } else if words.accept("after-effect") {
        words.accept("before-reply");
        Position::AfterEffect
    } else if words.accept("after-reply") {
        Position::AfterReply
    } else if words.accept("after-write") || words.accept("after-fence") || words.accept("after-event") {
        Position::Other
    } else {
        Position::None
    }
}

fn anchor(words: &Words<'_>, site: Site, position: Position, act: Act) -> Result<Anchor, PlanSyntaxError> {
    Ok(match (act.when(), site, position) {
        (When::Command, Site::Op(kind, n), Position::None) => Anchor::Command(kind, n),
        (When::Write, Site::Named("Persist", n), Position::None) => Anchor::Write(n),
        (When::Fence, Site::Named("Fence", n), Position::None) => Anchor::Fence(n),
        (When::Event, Site::Named("Event", n), Position::None) => Anchor::Event(n),
        (When::Between, Site::Phase { phase, number, later }, Position::None) => Anchor::Phase { phase, number, later },
        (When::Between, Site::Op(kind, n), position) => Anchor::After(match position {
            Position::None | Position::BeforeEffect => Mark::Before(kind, n),
            Position::AfterEffect => Mark::Effect(kind, n),
            Position::AfterReply => Mark::Reply(kind, n),
            Position::Other => return Err(words.error("this cannot happen there")),
        }),
        (When::Between, Site::Named(name, n), Position::None | Position::Other) => Anchor::After(match name {
            "Start" => Mark::Start,
            "Persist" => Mark::Written(n),
            "Fence" => Mark::Fenced(n),
            "Event" => Mark::Event(n),
            "Timer" => Mark::Timer(n),
            "Step" => Mark::Step(n),
            "Late" => Mark::Late(n),
            "Other" => Mark::Other(n),
            _ => Mark::Done(n),
        }),
        _ => return Err(words.error("this cannot happen there")),
    })
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
        if let Some(exit) = number("exit=").and_then(|n| u8::try_from(n).ok()) {
            expect.exit = Some(exit);
        } else if let Some(checkpoint) = number("checkpoint=") {
            expect.checkpoint = Some(checkpoint);
        } else if let Some(restarts) = number("restarts<=") {
            expect.restarts = Some(restarts);
        } else {
            return Err(words.error("expected exit=N (up to 255), checkpoint=N or restarts<=N"));
        }
        words.skip();
    }
    Ok(expect)
}

// ---- carrying out and writing down ----

/// Lets happen what a plan says, and what another director adds.
#[derive(Debug)]
pub struct Script<'a, D> {
    lines: &'a [Line],
    done: Vec<bool>,
    /// For each line that waits for a phase and a time: when that phase was first entered.
    entered: Vec<Option<u64>>,
    /// Lines whose moment came, but at which they were not possible.
    pub impossible: Vec<Line>,
    beside: D,
}

impl<'a, D: Director> Script<'a, D> {
    /// Follows `lines`; whatever they leave open is up to `beside`.
    pub fn new(lines: &'a [Line], beside: D) -> Self {
        Self { lines, done: vec![false; lines.len()], entered: vec![None; lines.len()], impossible: vec![], beside }
    }

    /// Lines whose moment never came.
    pub fn never(&self) -> impl Iterator<Item = Line> + '_ {
        self.lines.iter().zip(&self.done).filter(|(_, done)| !**done).map(|(line, _)| *line)
    }
}

impl<D: Director> Director for Script<'_, D> {
    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        for ((line, done), entered) in self.lines.iter().zip(&mut self.done).zip(&mut self.entered) {
            if *done || !line.anchor.matches(moment) {
                continue;
            }
            if let (Anchor::Phase { later: Some(later), .. }, Moment::Between { at, .. }) = (line.anchor, *moment)
                && at < *entered.get_or_insert(at) + later
            {
                continue;
            }
            *done = true;
            match options.iter().position(|act| *act == line.act) {
                Some(at) => return at + 1,
                None => self.impossible.push(*line),
            }
        }
        self.beside.direct(moment, options)
    }

    fn before(&mut self, machine: &Machine, input: &Input) {
        self.beside.before(machine, input);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        self.beside.tell(at, what);
    }
}

/// Writes down what another director decides, as the lines of a plan.
#[derive(Debug)]
pub struct Scribe<D> {
    inner: D,
    /// What was decided.
    pub lines: Vec<Line>,
}

impl<D: Director> Scribe<D> {
    /// Writes down what `inner` decides.
    pub const fn new(inner: D) -> Self {
        Self { inner, lines: Vec::new() }
    }
}

impl<D: Director> Director for Scribe<D> {
    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        let choice = self.inner.direct(moment, options);
        if let Some(&act) = choice.checked_sub(1).and_then(|at| options.get(at)) {
            let anchor = match *moment {
                Moment::Command(kind, n) => Anchor::Command(kind, n),
                Moment::Write(n) => Anchor::Write(n),
                Moment::Fence(n) => Anchor::Fence(n),
                Moment::Event(n) => Anchor::Event(n),
                Moment::Between { mark, .. } => Anchor::After(mark),
            };
            self.lines.push(Line { anchor, act });
        }
        choice
    }

    fn before(&mut self, machine: &Machine, input: &Input) {
        self.inner.before(machine, input);
    }

    fn tell(&mut self, at: u64, what: &crate::trace::Told) {
        self.inner.tell(at, what);
    }
}
