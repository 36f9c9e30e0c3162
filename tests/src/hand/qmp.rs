//! QMP as a person would speak it: one command after the other, events dropped.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wait;

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = wait::until("QEMU's socket", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(wait::HANG))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.line()?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn call(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        self.reader.get_mut().write_all(text.as_bytes())?;
        loop {
            let mut answer = self.line()?;
            if let Some(answer) = answer.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!("{command}: {error}")));
            }
        }
    }

    /// Leaves out what lies in a file anyway.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn ignore_shared_memory(&mut self) -> io::Result<()> {
        let on = json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": true }] });
        self.call("migrate-set-capabilities", on).map(drop)
    }

    /// Waits until the state has been written or read.
    ///
    /// # Errors
    /// If that failed.
    pub fn await_migration(&mut self) -> io::Result<()> {
        loop {
            let state = self.call("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed") => return Err(io::Error::other(format!("migration: {state}"))),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}
