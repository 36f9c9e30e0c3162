//! The guest agent (qemu-ga): lines of JSON over a byte stream that outlives both of its ends.
//!
//! ```text
//!            connect                sync                      call, call, call
//!   (no link) -----> (out of step) -----> (in step) <---------------------------+
//!       ^                 ^                   |                                 |
//!       |                 |                   | no answer, nonsense             |
//!       |                 +-------------------+---------------------------------+
//!       +---- cut: connected anew by the next call
//! ```
//! The stream may carry answers to questions that an earlier manager asked, half a line of an agent that was killed, and
//! nothing at all while it is being started again. So whenever anything was odd, the next call first gets in step: it
//! sends 0xff (which makes the agent drop what it has half read), asks for a number drawn for this occasion until that
//! number comes back, and asks once more to drain what answers to the repeated questions.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wait::{Stop, Wait};

/// The longest line that is believed: the agent cuts captured output at 16 MiB, which base64 makes 22 MiB.
const LONGEST: usize = 32 << 20;
/// How long an answer to "are we in step?" is waited for before it is asked again.
const SYNC_AGAIN: Duration = Duration::from_secs(1);
/// Pauses between two looks at a command that runs in the guest: each look costs the guest some work.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(15),
    Duration::from_millis(30),
];

/// What can go wrong with the agent. Only [`AgentError::Refused`] says that nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The agent refused the command.
    #[error("the guest agent refused {command}: {desc}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The agent's own words.
        desc: String,
    },
    /// It did not answer.
    #[error("the guest agent did not answer {command}: {stop}")]
    Silent {
        /// The command.
        command: &'static str,
        /// Why we stopped waiting.
        stop: Stop,
    },
    /// The connection broke, or made no sense.
    #[error("the connection to the guest agent broke at {command}: {why}")]
    Cut {
        /// The command.
        command: &'static str,
        /// How.
        why: String,
    },
    /// The agent was started anew while our command ran: what became of it, nobody knows.
    #[error("the guest agent was started anew and knows nothing of process {pid}: {desc}")]
    Forgot {
        /// The process in the guest.
        pid: u64,
        /// The agent's own words.
        desc: String,
    },
}

/// How a command in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, or `None` if a signal killed it.
    pub code: Option<u8>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// A command that runs in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pid: u64,
}

type Connect = Box<dyn FnMut() -> io::Result<UnixStream> + Send>;

/// The host's end.
pub struct Agent {
    connect: Connect,
    link: Option<Link>,
    in_step: bool,
    /// Hexadecimal; goes with the next call of the guest's script, once.
    pub(crate) seed: Option<String>,
}

struct Link {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Agent {
    /// An agent that is reached by `connect`, again whenever the link breaks. Nothing is connected yet.
    pub fn new(connect: impl FnMut() -> io::Result<UnixStream> + Send + 'static) -> Self {
        Self { connect: Box::new(connect), link: None, in_step: false, seed: None }
    }

    /// Makes the link already, without a word. If that fails, the next call makes it.
    pub(crate) fn connect_early(&mut self) {
        let _ = self.link("connecting");
    }

    /// Breaks the link. The next call makes a new one.
    pub fn disconnect(&mut self) {
        self.link = None;
        self.in_step = false;
    }

    /// Makes sure that an agent is there and that its next answer will be to our next question.
    ///
    /// # Errors
    /// If no agent answers in time.
    pub fn sync(&mut self, wait: &Wait<'_>) -> Result<(), AgentError> {
        const COMMAND: &str = "guest-sync-delimited";
        while !self.in_step {
            wait.tick().map_err(|stop| AgentError::Silent { command: COMMAND, stop })?;
            match self.try_sync(&wait.at_most(SYNC_AGAIN)) {
                Ok(()) => self.in_step = true,
                // Silence may end: the guest boots, or the agent is being started again.
                Err(AgentError::Silent { stop: Stop::Timeout, .. }) => {}
                Err(AgentError::Cut { .. }) => {
                    self.disconnect();
                    wait.sleep(Duration::from_millis(10))
                        .map_err(|stop| AgentError::Silent { command: COMMAND, stop })?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn try_sync(&mut self, wait: &Wait<'_>) -> Result<(), AgentError> {
        // The second round drains answers to an earlier try's question that was answered late.
        for _round in 0..2 {
            let number = fresh_number();
            let mut question = vec![0xff];
            let ask = json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } });
            question.extend_from_slice(ask.to_string().as_bytes());
            question.push(b'\n');
            self.send("guest-sync-delimited", &question, wait)?;
            loop {
                let line = self.line("guest-sync-delimited", wait)?;
                // Whatever stands before the delimiter belongs to somebody's past.
                let line = line.rsplit(|&b| b == 0xff).next().unwrap_or_default();
                let answer: Option<Value> = serde_json::from_slice(line).ok();
                if answer.and_then(|a| a.get("return")?.as_u64()) == Some(number) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Carries out one command of the agent's.
    ///
    /// # Errors
    /// If the agent refuses it or does not answer in time.
    pub fn call(&mut self, command: &'static str, arguments: Value, wait: &Wait<'_>) -> Result<Value, AgentError> {
        self.sync(wait)?;
        // Until the answer is there, the next to come would get the wrong one.
        self.in_step = false;
        let mut question = json!({ "execute": command, "arguments": arguments }).to_string();
        question.push('\n');
        let answer = self.send(command, question.as_bytes(), wait).and_then(|()| self.line(command, wait));
        let line = match answer {
            Ok(line) => line,
            Err(error) => {
                if matches!(error, AgentError::Cut { .. }) {
                    self.disconnect();
                }
                return Err(error);
            }
        };
        let nonsense = || AgentError::Cut {
            command,
            why: format!("it answered {:?}", String::from_utf8_lossy(&line[..line.len().min(80)])),
        };
        let mut answer: Value = serde_json::from_slice(&line).map_err(|_| nonsense())?;
        match (answer.get_mut("return").map(Value::take), answer.get("error")) {
            (Some(value), _) => {
                self.in_step = true;
                Ok(value)
            }
            (None, Some(error)) => {
                self.in_step = true;
                let desc = error.get("desc").and_then(Value::as_str);
                let desc = desc.unwrap_or("no reason given").to_owned();
                Err(AgentError::Refused { command, desc })
            }
            (None, None) => Err(nonsense()),
        }
    }

    /// Starts a program in the guest, with its output captured.
    ///
    /// # Errors
    /// If the agent refuses it (no such program), or does not answer.
    pub fn start(&mut self, path: &str, args: &[&str], wait: &Wait<'_>) -> Result<Running, AgentError> {
        const COMMAND: &str = "guest-exec";
        let arguments = json!({ "path": path, "arg": args, "capture-output": true });
        let answer = self.call(COMMAND, arguments, wait)?;
        let pid = answer.get("pid").and_then(Value::as_u64);
        pid.map(|pid| Running { pid })
            .ok_or_else(|| AgentError::Cut { command: COMMAND, why: format!("it answered {answer}") })
    }

    /// How the program ended, or `None` while it runs. The agent tells it once: an answer that is lost is lost.
    ///
    /// # Errors
    /// If the agent does not answer, or does not know the program any more.
    pub fn poll(&mut self, running: Running, wait: &Wait<'_>) -> Result<Option<Ended>, AgentError> {
        const COMMAND: &str = "guest-exec-status";
        let pid = running.pid;
        let answer = match self.call(COMMAND, json!({ "pid": pid }), wait) {
            Err(AgentError::Refused { desc, .. }) => return Err(AgentError::Forgot { pid, desc }),
            other => other?,
        };
        if answer.get("exited").and_then(Value::as_bool) != Some(true) {
            return Ok(None);
        }
        let output = |key| {
            answer.get(key).and_then(Value::as_str).map_or(Ok(Vec::new()), |text| {
                base64(text).ok_or_else(|| AgentError::Cut { command: COMMAND, why: format!("{key} is not base64") })
            })
        };
        let code = answer.get("exitcode").and_then(Value::as_u64);
        Ok(Some(Ended {
            // A program that a signal killed has no exit code here.
            code: code.and_then(|code| u8::try_from(code).ok()),
            stdout: output("out-data")?,
            stderr: output("err-data")?,
        }))
    }

    /// Starts a program in the guest and waits for its end.
    ///
    /// # Errors
    /// As for [`Agent::start`] and [`Agent::poll`].
    pub fn run(&mut self, path: &str, args: &[&str], wait: &Wait<'_>) -> Result<Ended, AgentError> {
        let running = self.start(path, args, wait)?;
        self.finish(running, wait)
    }

    /// Waits for a program's end.
    ///
    /// # Errors
    /// As for [`Agent::poll`].
    pub fn finish(&mut self, running: Running, wait: &Wait<'_>) -> Result<Ended, AgentError> {
        for look in 0.. {
            if let Some(ended) = self.poll(running, wait)? {
                return Ok(ended);
            }
            wait.sleep(LOOKS[look.min(LOOKS.len() - 1)])
                .map_err(|stop| AgentError::Silent { command: "guest-exec", stop })?;
        }
        unreachable!("the loop above ends by returning")
    }

    /// Sets the guest's clock to the host's.
    ///
    /// # Errors
    /// As for any call.
    pub fn set_clock(&mut self, wait: &Wait<'_>) -> Result<(), AgentError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let nanos = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        self.call("guest-set-time", json!({ "time": nanos }), wait).map(drop)
    }

    fn link(&mut self, command: &'static str) -> Result<&mut Link, AgentError> {
        if self.link.is_none() {
            let cut =
                |error: io::Error| AgentError::Cut { command, why: format!("cannot connect to its socket: {error}") };
            let stream = (self.connect)().map_err(cut)?;
            self.in_step = false;
            self.link = Some(Link { stream, buffer: Vec::new() });
        }
        self.link.as_mut().ok_or_else(|| AgentError::Cut { command, why: "not connected".into() })
    }

    /// Sends a question. A guest that is stopped does not read.
    fn send(&mut self, command: &'static str, bytes: &[u8], wait: &Wait<'_>) -> Result<(), AgentError> {
        let link = self.link(command)?;
        let cut = |why: String| AgentError::Cut { command, why };
        let mut sent = 0;
        while sent < bytes.len() {
            let tick = wait.tick().map_err(|stop| match sent {
                0 => AgentError::Silent { command, stop },
                // What follows half a question would be taken for its other half.
                _ => cut(format!("it does not read: {stop}")),
            })?;
            match link.stream.set_write_timeout(Some(tick)).and_then(|()| link.stream.write(&bytes[sent..])) {
                Ok(put) => sent += put,
                Err(error) if is_lull(&error) => {}
                Err(error) => return Err(cut(error.to_string())),
            }
        }
        Ok(())
    }

    /// The next line that holds anything.
    fn line(&mut self, command: &'static str, wait: &Wait<'_>) -> Result<Vec<u8>, AgentError> {
        let link = self.link(command)?;
        let cut = |why: String| AgentError::Cut { command, why };
        let mut searched = 0;
        loop {
            if let Some(at) = link.buffer[searched..].iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = link.buffer.drain(..=searched + at).collect();
                searched = 0;
                if line.iter().all(|b| b.is_ascii_whitespace() || *b == 0xff) {
                    continue;
                }
                return Ok(line);
            }
            searched = link.buffer.len();
            if searched > LONGEST {
                return Err(cut(format!("a line of more than {LONGEST} bytes")));
            }
            let tick = wait.tick().map_err(|stop| AgentError::Silent { command, stop })?;
            link.stream.set_read_timeout(Some(tick)).map_err(|error| cut(error.to_string()))?;
            let mut block = [0; 16 * 1024];
            match link.stream.read(&mut block) {
                Ok(0) => return Err(cut("QEMU closed it".into())),
                Ok(got) => link.buffer.extend_from_slice(&block[..got]),
                Err(error) if is_lull(&error) => {}
                Err(error) => return Err(cut(error.to_string())),
            }
        }
    }
}

/// Whether a read merely has nothing yet.
pub(crate) fn is_lull(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A number that no earlier manager has asked for. The agent takes it as a signed integer, JSON as exact below 2^53.
fn fresh_number() -> u64 {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        bytes = (now.unwrap_or_default().as_nanos() as u64).to_le_bytes();
    }
    u64::from_le_bytes(bytes) >> 12
}

/// Bytes as the agent wants them in its commands.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(if digit > three.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    out
}

/// Plain base64, as the agent writes it; `None` if it is none.
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;
    use std::collections::VecDeque;
    use std::io::{BufRead, BufReader};

    fn patience() -> Wait<'static> {
        Wait::most(Duration::from_secs(60))
    }

    /// What a fake agent does with a question that is not about being in step.
    type Reply = Box<dyn FnMut(&Value) -> Vec<u8> + Send>;

    /// Serves connections one after the other: before it reads anything, each sends what `first` says. An answer that
    /// starts with `later:` is sent before the next one.
    fn agent(first: Vec<Vec<u8>>, mut reply: Reply) -> Agent {
        let (tell, told) = std::sync::mpsc::channel::<UnixStream>();
        std::thread::spawn(move || {
            let mut first = VecDeque::from(first);
            let mut late = Vec::new();
            for stream in told {
                let mut out = stream.try_clone().unwrap();
                let _ = out.write_all(&first.pop_front().unwrap_or_default());
                for line in BufReader::new(stream).split(b'\n') {
                    let Ok(line) = line else { break };
                    let Ok(asked) = serde_json::from_slice::<Value>(line.trim_ascii().trim_prefix_ff()) else {
                        break;
                    };
                    let answer = if asked["execute"] == "guest-sync-delimited" {
                        let mut answer = vec![0xff];
                        answer.extend(format!("{{\"return\": {}}}\n", asked["arguments"]["id"]).bytes());
                        answer
                    } else {
                        reply(&asked)
                    };
                    if let Some(held) = answer.strip_prefix(b"later:") {
                        late = held.to_vec();
                        continue;
                    }
                    let answer = [std::mem::take(&mut late), answer].concat();
                    if answer == b"cut" || out.write_all(&answer).is_err() {
                        break;
                    }
                }
                let _ = out.shutdown(std::net::Shutdown::Both);
            }
        });
        Agent::new(move || {
            let (ours, theirs) = UnixStream::pair()?;
            tell.send(theirs).map_err(io::Error::other)?;
            Ok(ours)
        })
    }

    trait TrimFf {
        fn trim_prefix_ff(&self) -> &[u8];
    }

    impl TrimFf for [u8] {
        fn trim_prefix_ff(&self) -> &[u8] {
            let start = self.iter().take_while(|&&b| b == 0xff).count();
            &self[start..]
        }
    }

    #[rstest]
    #[case::nothing(b"".to_vec())]
    #[case::an_answer_to_an_earlier_manager(b"{\"return\": 7}\n{\"return\": {}}\n".to_vec())]
    #[case::half_a_line_of_a_killed_agent(b"{\"return\": {\"pid\"".to_vec())]
    #[case::garbage(b"\x00\x01\xfe\n\n\xff\xff\n]]]\n".to_vec())]
    fn what_was_in_the_stream_before_does_not_confuse_it(#[case] before: Vec<u8>) {
        let mut agent = agent(vec![before], Box::new(|_| b"{\"return\": {\"pid\": 5}}\n".to_vec()));
        assert_eq!(agent.start("/bin/true", &[], &patience()).unwrap(), Running { pid: 5 });
    }

    #[test]
    fn a_question_whose_answer_makes_no_sense_fails_and_the_next_is_in_step_again() {
        let mut answers = VecDeque::from([b"{{{\n".to_vec(), b"{\"return\": 2}\n".to_vec()]);
        let mut agent = agent(Vec::new(), Box::new(move |_| answers.pop_front().unwrap()));
        let error = agent.call("guest-ping", json!({}), &patience()).unwrap_err();
        assert!(matches!(error, AgentError::Cut { .. }), "{error}");
        assert_eq!(agent.call("guest-ping", json!({}), &patience()).unwrap(), 2);
    }

    #[test]
    fn a_cut_connection_is_an_error_and_the_next_call_connects_anew() {
        let mut answers = VecDeque::from([b"cut".to_vec(), b"{\"return\": 2}\n".to_vec()]);
        let mut agent = agent(Vec::new(), Box::new(move |_| answers.pop_front().unwrap()));
        assert!(agent.call("guest-ping", json!({}), &patience()).is_err());
        assert_eq!(agent.call("guest-ping", json!({}), &patience()).unwrap(), 2);
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_answer_to_the_next_question() {
        let mut answers = VecDeque::from(["later:{\"return\": \"late\"}\n", "{\"return\": \"right\"}\n"]);
        let mut agent = agent(Vec::new(), Box::new(move |_| answers.pop_front().unwrap().as_bytes().to_vec()));
        let error = agent.call("guest-ping", json!({}), &Wait::most(Duration::from_millis(300)));
        assert!(matches!(error, Err(AgentError::Silent { .. })), "{error:?}");
        assert_eq!(agent.call("guest-ping", json!({}), &patience()).unwrap(), "right");
    }

    #[test]
    fn a_program_is_started_once_and_its_output_is_decoded() {
        let mut answers = VecDeque::from([
            "{\"return\": {\"pid\": 31}}\n",
            "{\"return\": {\"exited\": false}}\n",
            "{\"return\": {\"exited\": true, \"exitcode\": 4, \"out-data\": \"aGVsbG8K\", \"err-data\": \"/+8=\"}}\n",
        ]);
        let mut agent = agent(Vec::new(), Box::new(move |_| answers.pop_front().unwrap().as_bytes().to_vec()));
        let ended = agent.run("/bin/hello", &["a b"], &patience()).unwrap();
        let expected = Ended { code: Some(4), stdout: b"hello\n".to_vec(), stderr: vec![0xff, 0xef] };
        assert_eq!(ended, expected);
    }

    #[test]
    fn an_agent_that_was_started_anew_has_forgotten_our_program() {
        let mut answers = VecDeque::from([
            "{\"return\": {\"pid\": 31}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"PID 31 does not exist\"}}\n",
        ]);
        let mut agent = agent(Vec::new(), Box::new(move |_| answers.pop_front().unwrap().as_bytes().to_vec()));
        let error = agent.run("/bin/hello", &[], &patience()).unwrap_err();
        assert!(matches!(error, AgentError::Forgot { pid: 31, .. }), "{error}");
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let mut agent = agent(Vec::new(), Box::new(|_| vec![b'x'; LONGEST + 100_000]));
        let error = agent.call("guest-ping", json!({}), &patience()).unwrap_err();
        assert!(matches!(error, AgentError::Cut { .. }), "{error}");
    }

    #[test]
    fn nobody_there_is_an_error_after_the_time_allowed() {
        let mut agent = Agent::new(|| Err(io::ErrorKind::ConnectionRefused.into()));
        let error = agent.sync(&Wait::most(Duration::from_millis(30))).unwrap_err();
        assert!(matches!(error, AgentError::Silent { stop: Stop::Timeout, .. }));
    }

    #[rstest]
    #[case("", Some(""))]
    #[case("YQ==", Some("a"))]
    #[case("YWI=", Some("ab"))]
    #[case("YWJj", Some("abc"))]
    #[case("Y?Jj", None)]
    fn base64_is_decoded(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(base64(text), expected.map(|e| e.as_bytes().to_vec()));
        if let Some(expected) = expected {
            assert_eq!(to_base64(expected.as_bytes()), text);
        }
    }
}
