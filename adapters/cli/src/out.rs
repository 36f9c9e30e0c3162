//! Standard output and standard error, for text that people or programs read.
//!
//! Unlike `println!` these do not panic when nobody listens any more (`vmtask doctor | head -1`): a broken pipe is no
//! reason to lose a task.

use std::fmt;
use std::io::{self, IsTerminal, Write};

/// A line on standard output.
pub(crate) fn line(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    // Nobody reads it: nothing left to tell, nobody to tell it to.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line on standard error.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// One object, on one line of standard output.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        // Only a map with keys that are no strings, which we have nowhere; say so rather than go on in silence.
        Err(error) => note(format_args!("vmtask: cannot write a report as JSON: {error}")),
    }
}

/// Whether a person watches standard error.
pub(crate) fn watched() -> bool {
    io::stderr().is_terminal()
}
