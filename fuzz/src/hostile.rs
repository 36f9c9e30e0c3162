//! A guest agent and a QEMU that are up to no good: the guest runs programs of people whom nobody knows.

use std::fmt::Display;
use std::sync::mpsc;

use serde_json::json;
use vmtask_qemu::agent::{Agent, AgentError};
use vmtask_qemu::guest::{self, GuestError};
use vmtask_qemu::qmp::{Qmp, QmpError};
use vmtask_qemu::wait::Wait;

use crate::peer;

/// An agent that says what the script says.
///
/// # Panics
/// If an error says nothing or repeats more than it was told, or output comes from nowhere.
pub fn agent(script: &[u8]) {
    // Longer ones say nothing new, and each of their parts is waited for.
    const ROUNDS: usize = 16;
    peer::with(script, |connections, wait| {
        let mut agent = Agent::new(move || peer::connect(&connections));
        for _ in 0..ROUNDS {
            if let Err(error) = talk(&mut agent, script.len(), wait) {
                assert_told(&error, script.len());
            }
            if wait.tick().is_err() {
                return;
            }
        }
    });
}

/// What the adapter asks of an agent, in the order of a task's life.
fn talk(agent: &mut Agent, most: usize, wait: &Wait<'_>) -> Result<(), GuestError> {
    agent.set_clock(wait)?;
    let running = agent.start("/bin/true", &[], wait)?;
    match agent.poll(running, wait) {
        Ok(Some(ended)) => assert!(ended.stdout.len() + ended.stderr.len() <= most, "output from nowhere"),
        Ok(None) | Err(AgentError::Forgot { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    guest::check_version(agent, wait)?;
    let status = guest::status(agent, Some("progress"), wait)?;
    assert!(status.permille.is_none_or(|permille| permille <= 1000), "{status:?}");
    Ok(())
}

/// A QEMU that says what the script says.
///
/// # Panics
/// If an error says nothing or repeats more than it was told, events come from nowhere, or a connection that is gone
/// comes back.
pub fn qmp(script: &[u8]) {
    peer::with(script, |connections, wait| {
        let Ok(stream) = peer::connect(&connections) else { return };
        let (tell, told) = mpsc::channel();
        let on_event = move |name: &str, _: &serde_json::Value| {
            let _ = tell.send(name.len());
        };
        let broken = match Qmp::start(stream, on_event, wait) {
            Ok(qmp) => converse(&qmp, wait),
            Err(error) => error,
        };
        assert_told(&broken, script.len());
        // This ends when the reader has ended.
        let heard: usize = told.iter().sum();
        assert!(heard <= script.len(), "events from nowhere");
    });
}

/// Calls until there is nobody to call.
fn converse(qmp: &Qmp, wait: &Wait<'_>) -> QmpError {
    loop {
        for command in ["query-status", "stop", "migrate", "cont"] {
            match qmp.call(command, json!({}), wait) {
                Ok(_) | Err(QmpError::Refused { .. }) => {}
                Err(error) => {
                    if matches!(error, QmpError::Cut { .. }) {
                        assert!(qmp.is_cut().is_some(), "{error}");
                    }
                    return error;
                }
            }
        }
    }
}

/// An error has words, and few enough to be read: what the peer said may be in them, escaped, once.
fn assert_told(error: &impl Display, most: usize) {
    let text = error.to_string();
    assert!(text.len() > 10, "an error without words: {text:?}");
    assert!(text.len() <= 500 + 10 * most, "an error of {} bytes about {most}", text.len());
}
