//! Standard output and standard error, for text that people or programs read.
//!
//! Unlike `println!` these do not panic when nobody listens any more (`vmtask doctor | head -1`): a broken pipe is no
//! reason to lose a task.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use vmtask_driver::naming_the_limit;

/// Whether something was not written that was meant for standard output.
static LOST: AtomicBool = AtomicBool::new(false);

/// A line on standard output. If it cannot be written, that is said once on standard error, and [`is_lost`] from then on;
/// unless nobody listens: then there is nobody to tell it to.
pub(crate) fn line(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) else { return };
    if error.kind() != io::ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) {
        note(naming_the_limit(format!(
            "vmtask: standard output cannot be written, and lines are missing from it: {error}"
        )));
    }
}

/// Whether a line was lost that somebody waits for: a disk was full, say.
pub(crate) fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// A line on standard error. If that cannot be written there is nowhere left to say so.
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
