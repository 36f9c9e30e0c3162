//! A server like BOINC's: workunits, copies, a quorum of equal results, deadlines.
//!
//! ```text
//!   workunit --2 copies--> queue --a host asks--> out --a result--> returned --quorum of equal ones--> decided
//!                            ^                     |                    |
//!                            |                     +-- deadline --> late (may still return)
//!                            |                     +-- aborted, failed --> lost
//!                            +------ one more copy, until there are too many: failed <---+
//! ```

use std::collections::VecDeque;

use super::class::CLASSES;
use super::draw::{DAY, SECOND};
use super::host::Report;

/// How many equal results decide a workunit; as many copies are made to begin with.
pub const QUORUM: usize = 2;
/// The most copies of a workunit. Each goes to a different host.
pub const MAX_COPIES: usize = 10;
/// How long a host has for a copy.
const DEADLINE: u64 = 7 * DAY;

/// What became of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    /// It was not made yet.
    Unsent,
    Out,
    /// Its deadline has passed. It may still return.
    Late,
    /// With this result.
    Returned(u8),
    /// It was aborted or failed.
    Lost,
}

#[derive(Clone, Debug)]
struct Workunit {
    hosts: [u32; MAX_COPIES],
    copies: [Copy; MAX_COPIES],
    sent: u8,
    queued: u8,
    /// The value that the quorum agreed on.
    value: Option<u8>,
    decided: bool,
    /// When its first copy was sent, in seconds.
    first_sent: u32,
}

impl Workunit {
    const NEW: Self = Self {
        hosts: [0; MAX_COPIES],
        copies: [Copy::Unsent; MAX_COPIES],
        sent: 0,
        queued: 0,
        value: None,
        decided: false,
        first_sent: 0,
    };

    fn copies(&self) -> &[Copy] {
        &self.copies[..usize::from(self.sent)]
    }

    fn was_sent_to(&self, host: u32) -> bool {
        self.hosts[..usize::from(self.sent)].contains(&host)
    }

    fn returned(&self, value: u8) -> usize {
        self.copies().iter().filter(|c| **c == Copy::Returned(value)).count()
    }

    /// The largest number of equal results.
    fn agreeing(&self) -> usize {
        (0..).zip(&CLASSES).map(|(value, _)| self.returned(value)).max().unwrap_or(0)
    }

    /// Copies whose results may still come in time.
    fn expected(&self) -> usize {
        self.copies().iter().filter(|c| **c == Copy::Out).count() + usize::from(self.queued)
    }
}

/// What became of every copy that was sent. The kinds add up to `sent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Copies that were sent to hosts.
    pub sent: u64,
    /// Results that are part of the quorum that decided their workunit.
    pub counted: u64,
    /// Results that are equal to it, but came when it was decided.
    pub surplus: u64,
    /// Results that differ from what the quorum agreed on, or whose workunit failed.
    pub outvoted: u64,
    /// Copies that volunteers aborted or that failed on their hosts.
    pub lost: u64,
    /// Copies whose deadline passed, whatever became of them later.
    pub overdue: u64,
}

impl Copies {
    /// Results that were computed to the end for nothing.
    #[must_use]
    pub const fn wasted(&self) -> u64 {
        self.surplus + self.outvoted
    }
}

/// The server of an arm.
#[derive(Debug)]
pub(super) struct Server {
    workunits: Vec<Workunit>,
    /// Workunits of which a copy is to be sent; those of which one was lost come first.
    queue: VecDeque<u32>,
    deadlines: VecDeque<(u64, u32, u8)>,
    /// Hosts that asked when there was nothing for them, the longest first.
    parked: VecDeque<u32>,
    /// How many parked hosts should be told that there is work again.
    wanted: u32,
    undecided: u32,
    pub(super) failed: u32,
    pub(super) overdue: u64,
    /// Results by their value.
    pub(super) values: [u64; CLASSES.len()],
    /// From the first copy to the decision, in seconds, of each workunit that was decided by a quorum.
    pub(super) turnaround: Vec<u32>,
    /// When the last workunit was decided.
    pub(super) finished: u64,
}

impl Server {
    pub(super) fn new(workunits: u32) -> Self {
        let new = Workunit { queued: 2, ..Workunit::NEW };
        Self {
            workunits: vec![new; workunits as usize],
            queue: (0..workunits).flat_map(|unit| [unit; QUORUM]).collect(),
            deadlines: VecDeque::new(),
            parked: VecDeque::new(),
            wanted: 0,
            undecided: workunits,
            failed: 0,
            overdue: 0,
            values: [0; CLASSES.len()],
            turnaround: vec![],
            finished: 0,
        }
    }

    pub(super) const fn undecided(&self) -> u32 {
        self.undecided
    }

    /// When the next deadline passes.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|d| d.0)
    }

    /// The next deadline passes.
    pub(super) fn pass_deadline(&mut self) {
        let Some((at, unit, copy)) = self.deadlines.pop_front() else { return };
        let state = &mut self.workunits[unit as usize].copies[usize::from(copy)];
        if *state == Copy::Out {
            *state = Copy::Late;
            self.overdue += 1;
            self.look_at(unit, at);
        }
    }

    /// A host reports on the copy of `unit` that it had.
    pub(super) fn take(&mut self, now: u64, host: u32, unit: u32, report: Report) {
        let workunit = &mut self.workunits[unit as usize];
        let Some(at) = workunit.hosts[..usize::from(workunit.sent)].iter().position(|&h| h == host) else { return };
        workunit.copies[at] = match report {
            Report::Result(value) => {
                self.values[usize::from(value)] += 1;
                Copy::Returned(value)
            }
            Report::Aborted | Report::Failed => Copy::Lost,
        };
        self.look_at(unit, now);
    }

    /// Work for a host that asks for some; `None` if there is nothing that it has not had already.
    pub(super) fn give(&mut self, now: u64, host: u32) -> Option<u32> {
        let mut at = 0;
        while let Some(&unit) = self.queue.get(at) {
            let workunit = &mut self.workunits[unit as usize];
            if workunit.decided {
                workunit.queued -= 1;
                self.queue.remove(at);
            } else if workunit.was_sent_to(host) {
                at += 1;
            } else {
                self.queue.remove(at);
                self.send(now, host, unit);
                return Some(unit);
            }
        }
        None
    }

    fn send(&mut self, now: u64, host: u32, unit: u32) {
        let workunit = &mut self.workunits[unit as usize];
        let copy = workunit.sent;
        if copy == 0 {
            workunit.first_sent = seconds(now);
        }
        workunit.hosts[usize::from(copy)] = host;
        workunit.copies[usize::from(copy)] = Copy::Out;
        workunit.sent += 1;
        workunit.queued -= 1;
        self.deadlines.push_back((now + DEADLINE, unit, copy));
    }

    /// Is a workunit decided? Does it need more copies?
    fn look_at(&mut self, unit: u32, now: u64) {
        let workunit = &mut self.workunits[unit as usize];
        if workunit.decided {
            return;
        }
        let value = (0..).zip(&CLASSES).map(|(v, _)| v).find(|&v| workunit.returned(v) >= QUORUM);
        if value.is_some() {
            workunit.value = value;
            workunit.decided = true;
            self.turnaround.push(seconds(now).saturating_sub(workunit.first_sent));
        } else {
            while workunit.agreeing() + workunit.expected() < QUORUM
                && usize::from(workunit.sent + workunit.queued) < MAX_COPIES
            {
                workunit.queued += 1;
                self.queue.push_front(unit);
                self.wanted += 1;
            }
            if workunit.expected() > 0 {
                return;
            }
            workunit.decided = true;
            self.failed += 1;
        }
        self.undecided -= 1;
        self.finished = now;
    }

    /// A host has nothing to do. If work waits all the same, all of it was this host's before: another one is wanted.
    pub(super) fn park(&mut self, host: u32) {
        self.parked.push_back(host);
        if self.undecided > 0 && !self.queue.is_empty() {
            self.wanted += 1;
        }
    }

    /// A parked host to be told that there is work, if there is some.
    pub(super) fn wake(&mut self) -> Option<u32> {
        let host = if self.wanted > 0 && !self.queue.is_empty() { self.parked.pop_front() } else { None };
        if host.is_none() {
            self.wanted = 0;
        }
        host
    }

    /// One of those that are wanted will come.
    pub(super) const fn woken(&mut self) {
        self.wanted -= 1;
    }

    /// What became of all copies.
    pub(super) fn copies(&self) -> Copies {
        let mut copies = Copies { overdue: self.overdue, ..Copies::default() };
        for workunit in &self.workunits {
            let mut counted = 0;
            for copy in workunit.copies() {
                copies.sent += 1;
                match copy {
                    Copy::Returned(value) if Some(*value) == workunit.value && counted < QUORUM => counted += 1,
                    Copy::Returned(value) if Some(*value) == workunit.value => copies.surplus += 1,
                    Copy::Returned(_) => copies.outvoted += 1,
                    Copy::Unsent | Copy::Out | Copy::Late | Copy::Lost => copies.lost += 1,
                }
            }
            copies.counted += counted as u64;
        }
        copies
    }
}

fn seconds(millis: u64) -> u32 {
    u32::try_from(millis / SECOND).unwrap_or(u32::MAX)
}
