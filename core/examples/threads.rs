//! The machine in a loop of its own, with a worker thread and channels from the standard library.
//!
//! `cargo run -p vmtask-core --example threads`

#![allow(clippy::print_stdout)]

mod toy;

use std::error::Error;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, mpsc};
use std::thread;

use toy::{Since, Toy};
use vmtask_core::{Command, Input, Output, Request, Stimulus, Task};

fn main() -> Result<(), Box<dyn Error>> {
    let clock = Since::start();
    let mut task = Task::new(toy::plan(), 0x5eed);
    let (inbox, inputs) = channel();
    let commands = worker(inbox.clone());
    inbox.send(Request::Start.into())?;
    loop {
        while let Some(output) = task.poll_output() {
            match output {
                // A real journal writes and flushes on a thread of its own and answers when that is done.
                Output::Persist(record) => inbox.send(Input::Persisted(record.seq).into())?,
                Output::Command(command) => commands.send(command)?,
                // The toy never hangs: by the time a fence is asked for, its worker is done.
                Output::Fence(id) => inbox.send(Input::Fenced { id, survived: true }.into())?,
                Output::Report(report) => println!("{} {report:?}", clock.now()),
            }
        }
        if let Some(outcome) = task.outcome() {
            println!("{} {outcome}", clock.now());
            return Ok(());
        }
        match inputs.recv_timeout(clock.until(task.poll_timeout())) {
            Ok(message) => toy::hand(&mut task, clock.now(), message),
            Err(RecvTimeoutError::Timeout) => task.handle_timeout(clock.now()),
            Err(gone @ RecvTimeoutError::Disconnected) => return Err(gone.into()),
        }
    }
}

/// Carries out one command after the other and sends the answers to the inbox.
fn worker(inbox: Sender<Stimulus>) -> mpsc::Sender<Command> {
    let (sender, commands) = channel::<Command>();
    let toy = Arc::new(Toy::default());
    thread::spawn(move || {
        for command in commands {
            let result = toy.carry_out(&command);
            // The loop may have ended meanwhile; then nobody wants the answer.
            let _ = inbox.send(Input::Completed { id: command.id, result }.into());
            if let Some((after, event)) = Toy::afterwards(&command) {
                let inbox = inbox.clone();
                thread::spawn(move || {
                    thread::sleep(after);
                    let _ = inbox.send(event);
                });
            }
        }
    });
    sender
}
