//! What happened, as text: one line for each thing, with the time it happened.

use std::fmt;

use vmtask_core::{Accepted, Command, Denied, Input, Output, Record, Stimulus};

use crate::act::{Act, Director, Moment, Options};
use crate::world::Answer;

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// The machine handed something out.
    Output(Output),
    /// The machine was asked or told something, and what it made of it.
    Input(Stimulus, Result<Accepted, Denied>),
    /// A command acted.
    Acted {
        /// Which.
        command: Command,
        /// What the adapter has to say; `None` for silence.
        answer: Answer,
        /// It had hung, and was taken for dead.
        late: bool,
    },
    /// A timer of the machine fired.
    Timer,
    /// The program has made so many steps.
    Stepped(u32),
    /// Something special.
    Act(Act),
    /// Another manager was started, with this record.
    Started(Option<Record>),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(Output::Persist(r)) => write!(f, "  > record {} {}", r.seq, Short(r)),
            Self::Output(Output::Command(c)) => write!(f, "  > {c}"),
            Self::Output(Output::Fence(_)) => write!(f, "  > fence"),
            Self::Output(Output::Report(report)) => write!(f, "  > report {report:?}"),
            Self::Input(input, verdict) => {
                write!(f, "< ")?;
                match input {
                    Stimulus::Request(request) => write!(f, "request {request}")?,
                    Stimulus::Input(Input::Completed { result: Ok(reply), .. }) => write!(f, "answer {reply:?}")?,
                    Stimulus::Input(Input::Completed { result: Err(fault), .. }) => write!(f, "answer: {fault}")?,
                    Stimulus::Input(Input::Fenced { survived: true, .. }) => write!(f, "fenced, the VM survived")?,
                    Stimulus::Input(Input::Fenced { survived: false, .. }) => write!(f, "fenced, the VM is off")?,
                    Stimulus::Input(Input::Observed { event, .. }) => write!(f, "event {event:?}")?,
                    Stimulus::Input(Input::Persisted(seq)) => write!(f, "record {seq} is durable")?,
                    Stimulus::Input(Input::JournalLost) => write!(f, "the journal is lost")?,
                }
                match verdict {
                    Ok(Accepted::Applied) => Ok(()),
                    Ok(Accepted::Ignored(why)) => write!(f, " (ignored: {why:?})"),
                    Err(denied) => write!(f, " (denied: {denied})"),
                }
            }
            Self::Acted { command, answer, late } => {
                let late = if *late { ", after all" } else { "" };
                match answer {
                    Some(Ok(_)) => write!(f, "  * {} acts{late}", command.op),
                    Some(Err(fault)) => write!(f, "  * {} fails{late}: {fault}", command.op),
                    None => write!(f, "  * {} hangs with the guest{late}", command.op),
                }
            }
            Self::Timer => write!(f, "< a timer fires"),
            Self::Stepped(steps) => write!(f, "  * the program has made {steps} steps"),
            Self::Act(act) => write!(f, "  ! {act}"),
            Self::Started(None) => write!(f, "  ! a manager starts, without a record"),
            Self::Started(Some(r)) => write!(f, "  ! a manager starts, with record {} {}", r.seq, Short(r)),
        }
    }
}

/// A record, without what is as it always is.
struct Short<'a>(&'a Record);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self.0;
        write!(f, "[{:?}", r.intent)?;
        if r.launched {
            write!(f, ", launched")?;
        }
        if !r.generations.is_empty() {
            write!(f, ", checkpoints")?;
            for generation in r.generations.iter() {
                write!(f, " {generation}")?;
            }
        }
        if let Some(pending) = r.pending {
            write!(f, ", pending {pending}")?;
        }
        if r.restarts > 0 {
            write!(f, ", restarts {}", r.restarts)?;
        }
        if let Some(exit) = r.exit {
            write!(f, ", {exit}")?;
        }
        if let Some(ending) = r.ending {
            write!(f, ", {}{ending}", if r.ended { "" } else { "about to be " })?;
        }
        if let Some(leftover) = r.leftover {
            write!(f, ", leftover: {leftover}")?;
        }
        write!(f, "]")
    }
}

/// Writes a trace while another director decides.
#[derive(Debug)]
pub struct Tracing<'a, D> {
    inner: D,
    lines: &'a mut Vec<String>,
}

impl<'a, D: Director> Tracing<'a, D> {
    /// Adds lines to `lines`.
    pub const fn new(inner: D, lines: &'a mut Vec<String>) -> Self {
        Self { inner, lines }
    }
}

impl<D: Director> Director for Tracing<'_, D> {
    fn widen(&mut self, moment: &Moment, options: &mut Options) {
        self.inner.widen(moment, options);
    }

    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        self.inner.direct(moment, options)
    }

    fn tell(&mut self, at: u64, what: &Told) {
        self.lines.push(format!("{:>4}.{:03}  {what}", at / 1000, at % 1000));
        self.inner.tell(at, what);
    }
}
