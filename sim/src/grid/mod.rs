//! What do identical virtual machines and checkpoints buy a volunteer-computing project?
//!
//! A [`Grid`] is up to a million hosts, each a real [`Machine`](vmtask_core::Machine) in a light-weight world of its
//! own, and a server like BOINC's. It is run four times, with the same hosts: without and with virtual machines, without
//! and with checkpoints.
//!
//! ```text
//!   heap of (time, host) --> host: machine, virtual machine, volunteer --a report, a question--> server
//!          ^                                                                                       |
//!          +------------------------------ work, or told later that there is some <----------------+
//! ```
//!
//! # What is assumed
//!
//! * Results differ by the class of a host, as the builds of Table 1 of the paper do ([`CLASSES`]), unless a virtual
//!   machine makes them equal. Nobody cheats, and no memory is bad: a result is only ever wrong for that reason.
//! * A workunit is four hours of a host of speed 1; speeds are from 0.5 to 2; a virtual machine makes a program 5 %
//!   slower and takes half a minute to start. Checkpoints are taken every 15 minutes.
//! * Computers are on for 4 to 16 hours on average and off for 10, one time in fifty for ten days. Switching off is a
//!   request to quit with a minute's grace, as BOINC's client gives it. While somebody works at one (20 minutes, every 2
//!   hours) its task is suspended. About every four days of computing a manager is killed, the power fails, a guest
//!   stops, or a volunteer aborts a task.
//! * Workunits are sent twice to begin with, each copy to another host, and again when results differ, copies are lost
//!   or seven days have passed, until two results are equal or there were ten copies. The server does not group hosts
//!   by class (BOINC's homogeneous redundancy), which is the other way out and costs the choice of hosts.
//!
//! All of it is drawn with whole numbers from one seed, so that a table is the same wherever it is made. What the hosts
//! do is checked on the way: one command at a time, none before the journal has it, a task completes only with a
//! result, and leaves nothing behind.

mod arm;
mod chart;
mod class;
mod draw;
mod host;
mod report;
mod server;
mod vm;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use thiserror::Error;
use vmtask_core::PlanError;

pub use arm::Arm;
pub use class::{CLASSES, Class};
pub use report::{Figures, Report};
pub use server::{Copies, MAX_COPIES, QUORUM};

use draw::{HOUR, SECOND, between};
use host::{Env, Host, Next, Tally};
use server::Server;

use crate::choose::Prng;

/// How far a host is run ahead, to make use of a cache that holds it. Any number gives the same figures.
const AHEAD: u64 = 12 * HOUR;

/// A project to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    hosts: u32,
    workunits: u32,
    seed: u64,
    ahead: u64,
}

/// What cannot be simulated, or should never have happened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GridError {
    /// Not enough hosts for the copies of one workunit, or more than there is memory for.
    #[error(
        "{hosts} hosts: ask for {MAX_COPIES} (each copy of a workunit goes to another host) to {}",
        Grid::MAX_HOSTS
    )]
    Hosts {
        /// How many were asked for.
        hosts: u32,
    },
    /// Nothing to do, or too much.
    #[error("{workunits} workunits: ask for 1 to {}", Grid::MAX_WORKUNITS)]
    Workunits {
        /// How many were asked for.
        workunits: u32,
    },
    /// The core cannot be driven with the arm's plan.
    #[error("the machines of the arm have no plan")]
    Plan(#[from] PlanError),
    /// A machine broke a promise.
    #[error("BROKEN: {}, {}: after {at} ms host {host} {what}; the same seed repeats it", arm.where_it_runs(),
        arm.what_is_kept())]
    Broken {
        /// In which arm.
        arm: Arm,
        /// Which host.
        host: u32,
        /// When, in milliseconds of the simulation.
        at: u64,
        /// What it did.
        what: &'static str,
    },
    /// Nothing happens any more, and there are workunits left.
    #[error("BROKEN: {workunits} workunits are left and no host will ever do them; the same seed repeats it")]
    Stuck {
        /// How many are left.
        workunits: u32,
    },
}

impl GridError {
    /// Whether a promise was broken, rather than too much or too little asked for.
    #[must_use]
    pub const fn is_broken_promise(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Stuck { .. })
    }
}

impl Grid {
    /// The most hosts.
    pub const MAX_HOSTS: u32 = 4_000_000;
    /// The most workunits.
    pub const MAX_WORKUNITS: u32 = 20_000_000;

    /// A grid with so many hosts and workunits.
    ///
    /// # Errors
    /// If there are too few or too many of them.
    pub fn new(hosts: u32, workunits: u32, seed: u64) -> Result<Self, GridError> {
        if hosts > Self::MAX_HOSTS || (hosts as usize) < MAX_COPIES {
            return Err(GridError::Hosts { hosts });
        }
        if workunits == 0 || workunits > Self::MAX_WORKUNITS {
            return Err(GridError::Workunits { workunits });
        }
        Ok(Self { hosts, workunits, seed, ahead: AHEAD })
    }

    /// The memory that a host takes, its machine and its world included, in bytes.
    #[must_use]
    pub const fn bytes_per_host() -> usize {
        size_of::<Host>() + size_of::<Reverse<(u64, u32)>>()
    }

    /// All four arms, on so many threads (at least one): each takes the memory of all its hosts.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(&self, threads: usize) -> Result<Report, GridError> {
        let mut arms = vec![];
        for some in Arm::ALL.chunks(threads.max(1)) {
            let figures: Vec<_> = std::thread::scope(|scope| {
                let runs: Vec<_> = some.iter().map(|&arm| scope.spawn(move || self.run_arm(arm))).collect();
                runs.into_iter()
                    .map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            });
            for figures in figures {
                arms.push(figures?);
            }
        }
        Ok(Report { hosts: self.hosts, workunits: self.workunits, seed: self.seed, arms })
    }

    /// One arm.
    ///
    /// # Errors
    /// If a promise was broken.
    pub fn run_arm(&self, arm: Arm) -> Result<Figures, GridError> {
        let mut run = Run {
            env: Env { arm, plan: arm.plan()? },
            hosts: (0..self.hosts).map(|number| Host::new(self.seed, number)).collect(),
            heap: (0..self.hosts).map(|number| Reverse((0, number))).collect(),
            server: Server::new(self.workunits),
            tally: Tally::default(),
            prng: Prng::new(self.seed),
        };
        while run.step(self.ahead)? {}
        match run.server.undecided() {
            0 => Ok(Figures::of(arm, run.server, &run.tally)),
            workunits => Err(GridError::Stuck { workunits }),
        }
    }
}

/// One arm that is being run.
struct Run {
    env: Env,
    hosts: Vec<Host>,
    /// Each host that is not parked, once: when it next does something.
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    server: Server,
    tally: Tally,
    prng: Prng,
}

impl Run {
    /// The next thing that happens anywhere. Goes on after the last workunit until every copy that is out is back, so
    /// that all of them are accounted for.
    fn step(&mut self, ahead: u64) -> Result<bool, GridError> {
        let next = self.heap.peek().map(|&Reverse((at, _))| at);
        let deadline = self.server.next_deadline().filter(|_| self.server.undecided() > 0);
        if let Some(at) = deadline
            && next.is_none_or(|next| at <= next)
        {
            self.server.pass_deadline();
            self.wake(at)?;
            return Ok(true);
        }
        let Some(Reverse((now, number))) = self.heap.pop() else { return Ok(false) };
        self.go_on(now, number, ahead)?;
        self.wake(now)?;
        Ok(true)
    }

    fn go_on(&mut self, now: u64, number: u32, ahead: u64) -> Result<(), GridError> {
        let mut next = self.advance(number, now)?;
        if next == Next::Contact(now) {
            let host = &mut self.hosts[number as usize];
            if let (Some(report), Some(unit)) = (host.report, host.job()) {
                self.server.take(now, number, unit, report);
            }
            let unit = if self.server.undecided() > 0 { self.server.give(now, number) } else { None };
            let begun = host.begin(&self.env, &mut self.tally, unit);
            begun.map_err(|what| self.broken(number, what))?;
            if unit.is_none() {
                self.server.park(number);
                return Ok(());
            }
            next = Next::Later(now);
        }
        if let Next::Later(_) = next {
            next = self.advance(number, now + ahead)?;
        }
        self.heap.push(Reverse((next.at(), number)));
        Ok(())
    }

    /// Idle hosts ask every now and then: when there is work again, the next of them gets it. A host that is off asks
    /// once it is on, but then another one has been quicker.
    fn wake(&mut self, now: u64) -> Result<(), GridError> {
        while let Some(number) = self.server.wake() {
            self.advance(number, now)?;
            let host = &mut self.hosts[number as usize];
            host.ask_at(now + between(&mut self.prng, SECOND, HOUR));
            if host.is_on() {
                self.server.woken();
            }
            let next = self.advance(number, now)?;
            self.heap.push(Reverse((next.at(), number)));
        }
        Ok(())
    }

    fn advance(&mut self, number: u32, until: u64) -> Result<Next, GridError> {
        let next = self.hosts[number as usize].advance(&self.env, &mut self.tally, until);
        next.map_err(|what| self.broken(number, what))
    }

    fn broken(&self, number: u32, what: &'static str) -> GridError {
        GridError::Broken { arm: self.env.arm, host: number, at: self.hosts[number as usize].now(), what }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn how_far_hosts_are_run_ahead_changes_nothing() {
        let figures = |ahead| {
            let grid = Grid { ahead, ..Grid::new(60, 90, 7).unwrap() };
            Arm::ALL.map(|arm| grid.run_arm(arm).unwrap())
        };
        let in_order = figures(0);
        assert_eq!(in_order, figures(AHEAD));
        assert_eq!(in_order, figures(365 * 24 * HOUR));
    }
}
