//! The machine in a tokio task: commands on the blocking pool, timers by `timeout_at`.
//!
//! `cargo run -p vmtask-core --example tokio`

#![allow(clippy::print_stdout)]

mod toy;

use std::error::Error;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use toy::{Since, Toy};
use vmtask_core::{Command, Input, Output, Request, Stimulus, Task};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Since::start();
    let toy = Arc::new(Toy::default());
    let mut task = Task::new(toy::plan(), 0x5eed);
    let (inbox, mut inputs) = unbounded_channel();
    inbox.send(Request::Start.into())?;
    loop {
        while let Some(output) = task.poll_output() {
            match output {
                Output::Persist(record) => inbox.send(Input::Persisted(record.seq).into())?,
                Output::Command(command) => carry_out(Arc::clone(&toy), command, inbox.clone()),
                Output::Fence(id) => inbox.send(Input::Fenced { id, survived: true }.into())?,
                Output::Report(report) => println!("{} {report:?}", clock.now()),
            }
        }
        if let Some(outcome) = task.outcome() {
            println!("{} {outcome}", clock.now());
            return Ok(());
        }
        match timeout(clock.until(task.poll_timeout()), inputs.recv()).await {
            Ok(Some(message)) => toy::hand(&mut task, clock.now(), message),
            Ok(None) => return Err("the inbox was closed".into()),
            Err(_elapsed) => task.handle_timeout(clock.now()),
        }
    }
}

fn carry_out(toy: Arc<Toy>, command: Command, inbox: UnboundedSender<Stimulus>) {
    tokio::spawn(async move {
        let answered = tokio::task::spawn_blocking(move || toy.carry_out(&command)).await;
        if let Ok(result) = answered {
            let _ = inbox.send(Input::Completed { id: command.id, result }.into());
        }
        // A worker that panicked sends nothing: the command's deadline makes its outcome unknown, and a fence follows.
        if let Some((after, event)) = Toy::afterwards(&command) {
            tokio::time::sleep(after).await;
            let _ = inbox.send(event);
        }
    });
}
