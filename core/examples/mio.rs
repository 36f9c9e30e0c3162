//! The machine in a readiness loop, as a client with its own `poll` would embed it: a worker thread fills a queue and
//! wakes the loop, which has other sources to serve as well.
//!
//! `cargo run -p vmtask-core --example mio`

#![allow(clippy::print_stdout)]

mod toy;

use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use mio::{Events, Poll, Token, Waker};
use toy::{Since, Toy};
use vmtask_core::{Command, Input, Output, Request, Stimulus, Task};

const INBOX: Token = Token(0);

/// Messages from other threads, and the means to wake the loop for them.
#[derive(Clone)]
struct Inbox {
    queue: Arc<Mutex<Vec<Stimulus>>>,
    waker: Arc<Waker>,
}

impl Inbox {
    fn push(&self, message: Stimulus) {
        self.queue.lock().expect("no holder panics").push(message);
        // A loop that is gone cannot be woken, and need not be.
        let _ = self.waker.wake();
    }

    fn take(&self) -> Vec<Stimulus> {
        std::mem::take(&mut *self.queue.lock().expect("no holder panics"))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let clock = Since::start();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(16);
    let waker = Arc::new(Waker::new(poll.registry(), INBOX)?);
    let inbox = Inbox { queue: Arc::default(), waker };
    let commands = worker(inbox.clone());
    let mut task = Task::new(toy::plan(), 0x5eed);
    inbox.push(Request::Start.into());
    loop {
        while let Some(output) = task.poll_output() {
            match output {
                Output::Persist(record) => inbox.push(Input::Persisted(record.seq).into()),
                Output::Command(command) => commands.send(command)?,
                Output::Fence(id) => inbox.push(Input::Fenced { id, survived: true }.into()),
                Output::Report(report) => println!("{} {report:?}", clock.now()),
            }
        }
        if let Some(outcome) = task.outcome() {
            println!("{} {outcome}", clock.now());
            return Ok(());
        }
        poll.poll(&mut events, Some(clock.until(task.poll_timeout())))?;
        // Any number of inputs may be handed in before the outputs are drained, and a timeout that is not due does
        // nothing: there is no order to keep.
        for message in inbox.take() {
            toy::hand(&mut task, clock.now(), message);
        }
        task.handle_timeout(clock.now());
    }
}

fn worker(inbox: Inbox) -> Sender<Command> {
    let (sender, commands) = channel::<Command>();
    thread::spawn(move || {
        let toy = Toy::default();
        for command in commands {
            let result = toy.carry_out(&command);
            inbox.push(Input::Completed { id: command.id, result }.into());
            if let Some((after, event)) = Toy::afterwards(&command) {
                let inbox = inbox.clone();
                thread::spawn(move || {
                    thread::sleep(after);
                    inbox.push(event);
                });
            }
        }
    });
    sender
}
