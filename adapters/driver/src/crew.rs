//! Who carries things out: a worker that can be abandoned, and fences that queue behind nobody.
//!
//! ```text
//!   command --> worker 1 ---- carry_out ----> Completed
//!                  | hangs
//!   fence -------------> thread of its own: revoke all tokens, Hypervisor::fence ----> Fenced
//!                  |
//!   command --> worker 2        worker 1, abandoned: when its call returns at last, its answer is ignored, what it
//!                               has queued is refused by the revoked tokens, and it ends
//! ```

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use vmtask_core::{Command, CommandId, FaultKind, Span};

use crate::clock::{Letter, Message};
use crate::port::{EffectToken, Hypervisor, PortError};
use crate::wait::time_to_answer;

pub(crate) struct Crew {
    hypervisor: Arc<dyn Hypervisor>,
    outbox: Sender<Letter>,
    worker: Worker,
    /// Whether a fence was called for since the worker was last idle.
    fenced: bool,
    fences: usize,
    tokens: Vec<(CommandId, EffectToken)>,
}

/// A command, by when its answer is wanted, and its leave.
type Job = (Command, Instant, EffectToken);

struct Worker {
    number: u32,
    jobs: Sender<Job>,
    outstanding: usize,
    thread: JoinHandle<()>,
}

impl Crew {
    pub(crate) fn assemble(hypervisor: Arc<dyn Hypervisor>, outbox: Sender<Letter>) -> io::Result<Self> {
        let worker = Worker::spawn(1, Arc::clone(&hypervisor), outbox.clone())?;
        Ok(Self { hypervisor, outbox, worker, fenced: false, fences: 0, tokens: Vec::new() })
    }

    /// Whether something is under way of which we will hear, unless it hangs.
    pub(crate) const fn is_busy(&self) -> bool {
        self.worker.outstanding > 0 || self.fences > 0
    }

    /// Has a command carried out, for whose answer the machine waits for `time`.
    pub(crate) fn carry_out(&mut self, command: Command, time: Span) {
        // Counted from now: one that queues behind another has less.
        let deadline = Instant::now() + time_to_answer(time);
        if self.fenced && self.worker.outstanding > 0 {
            let number = self.worker.number + 1;
            match Worker::spawn(number, Arc::clone(&self.hypervisor), self.outbox.clone()) {
                Ok(worker) => {
                    tracing::warn!(number, "a worker hangs in a fenced command and is abandoned");
                    self.worker = worker;
                }
                Err(error) => {
                    let error = PortError::new(
                        FaultKind::Refused,
                        format!("cannot start a thread for {command}: {error}; end other programs or raise the limit"),
                    );
                    self.post(Message::Completed { worker: 0, id: command.id, result: Err(error) });
                    return;
                }
            }
        }
        self.fenced = false;
        let token = EffectToken::new();
        self.tokens.push((command.id, token.clone()));
        self.worker.outstanding += 1;
        if self.worker.jobs.send((command, deadline, token)).is_err() {
            // It never ends while we hold the other end, and panics of adapters are caught: nothing was done.
            let error = PortError::new(FaultKind::Refused, "the worker thread is gone");
            self.post(Message::Completed { worker: self.worker.number, id: command.id, result: Err(error) });
        }
    }

    /// Has a command fenced; the machine waits for the answer for `time`.
    pub(crate) fn fence(&mut self, id: CommandId, time: Span) {
        let deadline = Instant::now() + time_to_answer(time);
        self.fenced = true;
        self.fences += 1;
        let tokens: Vec<_> = self.tokens.drain(..).map(|(_, token)| token).collect();
        let (hypervisor, outbox) = (Arc::clone(&self.hypervisor), self.outbox.clone());
        let spawned = thread::Builder::new().name("vmtask-fence".to_owned()).spawn(move || {
            // Here and not in the loop: revoking waits for an effect that has begun.
            tokens.iter().for_each(EffectToken::revoke);
            let result = guarded("fence", || hypervisor.fence(id, deadline));
            let _ = outbox.send(Letter(Message::Fenced { id, result }));
        });
        if let Err(error) = spawned {
            let error = PortError::new(FaultKind::Refused, format!("cannot start a thread for a fence: {error}"));
            self.post(Message::Fenced { id, result: Err(error) });
        }
    }

    /// Takes note of an answer.
    pub(crate) fn completed(&mut self, worker: u32, id: CommandId) {
        self.tokens.retain(|(command, _)| *command != id);
        if worker == self.worker.number {
            self.worker.outstanding = self.worker.outstanding.saturating_sub(1);
        }
    }

    /// Takes note of a fence's answer.
    pub(crate) const fn answered_fence(&mut self) {
        self.fences = self.fences.saturating_sub(1);
    }

    /// Lets the worker go, and waits for it if it has nothing to do.
    pub(crate) fn dismiss(self) {
        let Worker { jobs, outstanding, thread, .. } = self.worker;
        drop(jobs);
        if outstanding == 0 {
            let _ = thread.join();
        }
    }

    fn post(&self, message: Message) {
        let _ = self.outbox.send(Letter(message));
    }
}

impl Worker {
    fn spawn(number: u32, hypervisor: Arc<dyn Hypervisor>, outbox: Sender<Letter>) -> io::Result<Self> {
        let (jobs, theirs) = channel();
        let thread = thread::Builder::new()
            .name("vmtask-worker".to_owned())
            .spawn(move || work(number, hypervisor.as_ref(), &theirs, &outbox))?;
        Ok(Self { number, jobs, outstanding: 0, thread })
    }
}

fn work(worker: u32, hypervisor: &dyn Hypervisor, jobs: &Receiver<Job>, outbox: &Sender<Letter>) {
    for (command, deadline, token) in jobs {
        // It was queued behind one that hung, and both were fenced.
        let result = if token.is_revoked() {
            Err(PortError::new(FaultKind::Refused, "the command was fenced before it began"))
        } else {
            guarded(&command.op.to_string(), || hypervisor.carry_out(&command, deadline, &token))
        };
        if outbox.send(Letter(Message::Completed { worker, id: command.id, result })).is_err() {
            return;
        }
    }
}

/// A panic of an adapter is an outcome that nobody knows.
fn guarded<T>(what: &str, call: impl FnOnce() -> Result<T, PortError>) -> Result<T, PortError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = said(panic.as_ref());
        Err(PortError::new(
            FaultKind::Unknown,
            format!("the hypervisor's adapter panicked in {what}: {said}; this is a bug, please report it"),
        ))
    })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why")
}
