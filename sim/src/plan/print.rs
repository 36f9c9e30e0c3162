//! Plans as text.

use std::fmt;

use vmtask_core::{FaultKind, Request};

use super::{Anchor, Expect, Line, PLAN_VERSION, Plan, Seed};
use crate::act::{Act, Mark, PHASES, Stale};
use crate::guest::Health;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version {PLAN_VERSION}")?;
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
    pub(super) fn parts(self) -> (String, &'static str) {
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
            Self::Phase { phase, number, nth, later } => {
                let mut number = number.map_or_else(String::new, |n| format!("({n})"));
                if nth != 1 {
                    number += &format!("#{nth}");
                }
                let name = PHASES.get(phase).copied().unwrap_or("Created");
                match later {
                    None => (format!("at {name}{number}"), ""),
                    Some(ms) => (format!("when {name}{number} +{ms}ms"), ""),
                }
            }
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hang(Some(steps)) => write!(f, "hang, acts after {steps} steps"),
            Self::Fail(kind) => write!(f, "fail {}", fault_name(*kind)),
            Self::Lasting(kind) => write!(f, "fail until mended {}", fault_name(*kind)),
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
pub(crate) const PLAIN: [(Act, &str); 44] = [
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
    (Act::Spoil(Health::SeenDamaged), "spoil checkpoint, seen by the probe"),
    (Act::Spoil(Health::NotStarted), "spoil checkpoint, not the task's"),
    (Act::Spoil(Health::Older), "spoil checkpoint, of an older state"),
    (Act::Spoil(Health::BadAtProvision), "spoil checkpoint"),
    (Act::SpoilAll, "spoil all checkpoints"),
    (Act::Deleted, "delete checkpoint"),
    (Act::HalfPowerLoss, "act by half, then power-loss"),
    (Act::Half, "act by half, then fail unknown"),
    (Act::JournalHangs, "journal hangs"),
    (Act::JournalGone, "journal gone"),
    (Act::DiskFull, "disk full until mended"),
    (Act::PausedByHand, "paused by hand"),
    (Act::SessionLost, "session-lost"),
    (Act::LongWait, "long-wait"),
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
pub(super) const ALIASES: [(&str, Act); 3] = [
    ("refuse", Act::Fail(FaultKind::Refused)),
    ("bad login", Act::Fail(FaultKind::AuthRejected)),
    ("disk full", Act::Fail(FaultKind::NoSpace)),
];

pub(super) const fn fault_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Refused => "refused",
        FaultKind::Unknown => "unknown",
        FaultKind::NotFound => "not-found",
        FaultKind::AlreadyExists => "already-exists",
        FaultKind::AuthRejected => "auth-rejected",
        FaultKind::NoSpace => "no-space",
        FaultKind::Unsupported => "unsupported",
        FaultKind::Fatal => "fatal",
        FaultKind::Damaged => "damaged",
        FaultKind::Rejected => "rejected",
        FaultKind::Incompatible => "incompatible",
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
