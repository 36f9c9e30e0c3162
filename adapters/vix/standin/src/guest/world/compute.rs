//! A computation whose result depends on its input's bytes and on each step.
//!
//! ```text
//!   compute INPUT STEPS STEP_MS RESULT STEPLOG [PROGRESS]
//! ```
//! The state after each step is mixed of the state before, the step's number and a byte of the input, read at that moment.
//! At the end all of it is computed again: a step lost or made twice, an input that changed, ends with code 99. RESULT
//! depends on INPUT and STEPS alone; STEPLOG has a line `STEP MILLISECONDS` for each step; PROGRESS holds the share that
//! is done. A real program with the same arguments and the same result is easily written, so that a test can compute what
//! must come out without any virtual machine.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::machine::Machine;

/// More steps than a test has patience for.
const MOST_STEPS: u32 = 1_000_000;

/// Its exit codes.
const NO_INPUT: i32 = 3;
const CANNOT_WRITE: i32 = 4;
const CORRUPT: i32 = 99;

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Compute {
    input: String,
    steps: u32,
    step_ms: u64,
    result: String,
    log: String,
    progress: Option<String>,
    state: u64,
    /// When each step was made, in ms since 1970.
    times: Vec<u64>,
}

impl Compute {
    /// From the words behind `compute`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (&[input, steps, step_ms, result, log], more) = words.split_first_chunk::<5>()?;
        let progress = match more {
            [] => None,
            [progress] => Some((*progress).to_owned()),
            _ => return None,
        };
        Some(Self {
            input: input.to_owned(),
            steps: steps.parse().ok().filter(|steps| *steps <= MOST_STEPS)?,
            step_ms: step_ms.parse().ok()?,
            result: result.to_owned(),
            log: log.to_owned(),
            progress,
            state: 0,
            times: Vec::new(),
        })
    }

    /// Makes one step and says how long to wait; `None` after the last, when the result is written.
    ///
    /// # Errors
    /// The exit code.
    pub(super) fn step(
        &mut self,
        machine: &Machine,
        files: &Files,
        directory: &str,
        happens_ms: u64,
    ) -> Result<Option<u64>, i32> {
        let path = |name: &str| if name.starts_with('/') { name.to_owned() } else { format!("{directory}/{name}") };
        let input = files.read(machine, &path(&self.input)).map_err(|_| NO_INPUT)?;
        let write =
            |name: &str, text: &str| files.write(machine, &path(name), text.as_bytes()).map_err(|_| CANNOT_WRITE);
        let number = self.times.len() as u32;
        if number < self.steps {
            self.state = step_from(self.state, number, &input);
            self.times.push(happens_ms);
            if let Some(progress) = &self.progress {
                write(progress, &format!("{:.4}\n", f64::from(number + 1) / f64::from(self.steps)))?;
            }
            return Ok(Some(self.step_ms));
        }
        let (again, text) = told(self.steps, &input);
        if again != self.state {
            return Err(CORRUPT);
        }
        write(&self.result, &text)?;
        let log = self.times.iter().enumerate().fold(String::new(), |mut log, (step, time)| {
            // Writing to a string cannot fail.
            let _ = writeln!(log, "{step} {time}");
            log
        });
        write(&self.log, &log)?;
        Ok(None)
    }
}

/// All of it at once: the last state, and the text of the result.
fn told(steps: u32, input: &[u8]) -> (u64, String) {
    let mut text = format!("steps {steps}\ninput {} bytes\n", input.len());
    let mut state = 0;
    for number in 0..=steps {
        if number % (1 + steps / 64) == 0 {
            let _ = writeln!(text, "{number} {state:016x}");
        }
        if number < steps {
            state = step_from(state, number, input);
        }
    }
    let _ = writeln!(text, "result {state:016x}");
    (state, text)
}

fn step_from(state: u64, number: u32, input: &[u8]) -> u64 {
    let byte = match input.len() {
        0 => 256,
        size => u64::from(input[((state ^ u64::from(number)) % size as u64) as usize]),
    };
    mix(mix(state, u64::from(number)), byte)
}

fn mix(state: u64, with: u64) -> u64 {
    let salted = with.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(state << 6).wrapping_add(state >> 2);
    let mut state = state ^ salted;
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_depends_on_each_byte_and_each_step() {
        let (state, text) = told(10, b"input");
        assert!(text.starts_with("steps 10\ninput 5 bytes\n0 0000000000000000\n1 "), "{text}");
        assert!(text.ends_with(&format!("result {state:016x}\n")), "{text}");
        assert_ne!(told(11, b"input").0, state);
        assert_ne!(told(200, b"inpuu").0, told(200, b"input").0);
    }

    #[test]
    fn it_is_the_computation_of_the_real_guests_program() {
        // What `tests/guest/counter.c` makes of the same input.
        let (state, _) = told(100, b"3 1 4 1 5 9 2 6 5 3 5 8 9 7 9");
        assert_eq!(state, 0xef44_f094_c6f5_eab9);
    }

    #[test]
    fn its_words_are_checked() {
        assert!(Compute::parse("in 100 20 out log").is_some_and(|compute| compute.progress.is_none()));
        assert!(Compute::parse("in 100 20 out log share").is_some_and(|compute| compute.progress.is_some()));
        for line in ["in 100 20 out", "in x 20 out log", "in 100 20 out log share more", ""] {
            assert!(Compute::parse(line).is_none(), "{line}");
        }
    }
}
