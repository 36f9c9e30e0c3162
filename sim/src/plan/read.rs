//! Text as plans.

use std::str::FromStr;

use vmtask_core::{FaultKind, OpKind, Request};

use super::print::{ALIASES, PLAIN, fault_name};
use super::{Anchor, EndKind, Expect, Line, Plan, Seed};
use crate::act::{Act, Mark, PHASES, When};
use crate::parse::{PlanSyntaxError, Words};
use crate::scenario::Profile;

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
