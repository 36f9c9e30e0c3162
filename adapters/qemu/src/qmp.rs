//! QEMU's control protocol: lines of JSON over a Unix stream.
//!
//! ```text
//!   call() --write lock--> socket --> QEMU
//!      |                                |
//!      | waits for its number           |
//!      |                                v
//!   table of answers <--- reader thread <--- socket
//!                             |
//!                             +--> on_event(name, data), in the order in which QEMU sent them
//! ```
//! The reader is a thread of its own because a client that reads only while it waits for an answer loses events. Calls
//! from several threads mix freely: each answer carries the number of its call.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};

use crate::agent::is_lull;
use crate::instance::lock_within;
use crate::wait::{Stop, Wait};

/// The longest line that is believed. The longest honest one (a full ring buffer of the console) is below 1 MiB.
const LONGEST: usize = 4 << 20;

/// What can go wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused the command; it did nothing.
    #[error("QEMU refused {command}: {desc}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's own words.
        desc: String,
    },
    /// No answer came. The command may have acted or may still act.
    #[error("QEMU did not answer {command}: {stop}")]
    Silent {
        /// The command.
        command: &'static str,
        /// Why we stopped waiting.
        stop: Stop,
    },
    /// The connection is gone. The command may have acted.
    #[error("the connection to QEMU broke at {command}: {why}")]
    Cut {
        /// The command.
        command: &'static str,
        /// How.
        why: String,
    },
}

impl QmpError {
    /// Whether it is certain that the command did nothing.
    #[must_use]
    pub fn did_nothing(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// A connection, after its greeting.
pub struct Qmp {
    shared: Arc<Shared>,
}

struct Shared {
    stream: UnixStream,
    /// Keeps lines whole.
    writing: Mutex<()>,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    greeting: Option<Value>,
    /// `None` until the answer is there. Answers to calls that nobody waits for any more are dropped.
    answers: HashMap<u64, Option<Result<Value, String>>>,
    cut: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, why: &str) {
        self.lock().cut.get_or_insert_with(|| why.to_owned());
        self.arrived.notify_all();
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Qmp {
    /// Takes over a fresh connection: waits for the greeting and agrees on capabilities. `on_event` is called from the
    /// reader's thread with each event's name and data; it must not call back in here.
    ///
    /// # Errors
    /// If nobody who speaks QMP answers in time.
    pub fn start(
        stream: UnixStream,
        on_event: impl FnMut(&str, &Value) + Send + 'static,
        wait: &Wait<'_>,
    ) -> Result<Self, QmpError> {
        const GREETING: &str = "the greeting";
        let broken = |error: io::Error| QmpError::Cut { command: GREETING, why: error.to_string() };
        let reading = stream.try_clone().map_err(broken)?;
        let shared =
            Arc::new(Shared { stream, writing: Mutex::new(()), state: Mutex::default(), arrived: Condvar::new() });
        let reader = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("qmp-reader".into())
            .spawn(move || reader.cut(&read_lines(reading, &reader, on_event)))
            .map_err(broken)?;
        let qmp = Self { shared };
        qmp.until(GREETING, wait, |state| state.greeting.take())?;
        qmp.call("qmp_capabilities", json!({}), wait)?;
        Ok(qmp)
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// If QEMU refuses it, does not answer in time, or is gone.
    pub fn call(&self, command: &'static str, arguments: Value, wait: &Wait<'_>) -> Result<Value, QmpError> {
        self.exchange(command, arguments, None, wait)
    }

    /// Hands a copy of a descriptor to QEMU, under a name that `fd:NAME` refers to.
    ///
    /// # Errors
    /// As for any call.
    pub fn give_fd(&self, name: &str, fd: BorrowedFd<'_>, wait: &Wait<'_>) -> Result<(), QmpError> {
        self.exchange("getfd", json!({ "fdname": name }), Some(fd), wait).map(drop)
    }

    /// Why the connection is gone, if it is.
    #[must_use]
    pub fn is_cut(&self) -> Option<String> {
        self.shared.lock().cut.clone()
    }

    fn exchange(
        &self,
        command: &'static str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        wait: &Wait<'_>,
    ) -> Result<Value, QmpError> {
        // Before anything is sent: a fenced command must not act.
        wait.tick().map_err(|stop| QmpError::Silent { command, stop })?;
        let number = {
            let mut state = self.shared.lock();
            if let Some(why) = state.cut.clone() {
                return Err(QmpError::Cut { command, why });
            }
            state.next += 1;
            let number = state.next;
            state.answers.insert(number, None);
            number
        };
        let mut line = json!({ "execute": command, "arguments": arguments, "id": number }).to_string();
        line.push('\n');
        let written = lock_within(&self.shared.writing, wait)
            .map_err(Unsent::Nothing)
            .and_then(|_whole| send(&self.shared.stream, line.as_bytes(), fd, wait));
        let sent = match written {
            Err(Unsent::Nothing(stop)) => Err(QmpError::Silent { command, stop }),
            Err(Unsent::Part(why)) => {
                // Nothing that follows could be understood.
                self.shared.cut(&why);
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        let answer = sent.and_then(|()| {
            self.until(command, wait, |state| match state.answers.get(&number) {
                Some(Some(_)) => state.answers.remove(&number).flatten(),
                _ => None,
            })
        });
        if answer.is_err() {
            self.shared.lock().answers.remove(&number);
        }
        answer?.map_err(|desc| QmpError::Refused { command, desc })
    }

    fn until<T>(
        &self,
        command: &'static str,
        wait: &Wait<'_>,
        mut there: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, QmpError> {
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = there(&mut state) {
                return Ok(found);
            }
            if let Some(why) = state.cut.clone() {
                return Err(QmpError::Cut { command, why });
            }
            let tick = wait.tick().map_err(|stop| QmpError::Silent { command, stop })?;
            state = self.shared.arrived.wait_timeout(state, tick).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Ends the reader.
        self.shared.cut("closed by us");
    }
}

/// Why a line was not sent.
enum Unsent {
    /// Nothing of it is out: the next line can be.
    Nothing(Stop),
    /// Part of it may be out.
    Part(String),
}

/// Sends a line. A QEMU that is stopped (SIGSTOP) does not read; the socket takes some hundred kilobytes before that
/// shows.
fn send(stream: &UnixStream, line: &[u8], mut fd: Option<BorrowedFd<'_>>, wait: &Wait<'_>) -> Result<(), Unsent> {
    let mut sent = 0;
    while sent < line.len() {
        let tick = match wait.tick() {
            Ok(tick) => tick,
            Err(stop) if sent == 0 => return Err(Unsent::Nothing(stop)),
            Err(stop) => return Err(Unsent::Part(format!("QEMU does not read: {stop}"))),
        };
        match stream.set_write_timeout(Some(tick)).and_then(|()| send_some(stream, &line[sent..], fd)) {
            Ok(put) => {
                // The descriptor goes with the first byte.
                fd = None;
                sent += put;
            }
            Err(error) if is_lull(&error) => {}
            Err(error) => return Err(Unsent::Part(error.to_string())),
        }
    }
    Ok(())
}

fn send_some(mut stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    use std::io::Write;
    let Some(fd) = fd else {
        return stream.write(bytes);
    };
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads until the stream ends or stops making sense; says why.
fn read_lines(mut stream: UnixStream, shared: &Shared, mut on_event: impl FnMut(&str, &Value)) -> String {
    let mut buffer = Vec::new();
    let mut block = [0; 4096];
    loop {
        let got = match stream.read(&mut block) {
            Ok(0) => return "QEMU closed it".to_owned(),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return error.to_string(),
        };
        buffer.extend_from_slice(&block[..got]);
        let mut searched = buffer.len() - got;
        while let Some(at) = buffer[searched..].iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=searched + at).collect();
            searched = 0;
            if let Err(why) = take_line(&line, shared, &mut on_event) {
                return why;
            }
        }
        if buffer.len() > LONGEST {
            return format!("a line of more than {LONGEST} bytes: that is not QMP");
        }
    }
}

fn take_line(line: &[u8], shared: &Shared, on_event: &mut impl FnMut(&str, &Value)) -> Result<(), String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let nonsense = || {
        let start: String = String::from_utf8_lossy(line).chars().take(80).collect();
        format!("a line that is not QMP: {start:?}")
    };
    let mut message: Value = serde_json::from_slice(line).map_err(|_| nonsense())?;
    if let Some(event) = message.get("event").and_then(Value::as_str) {
        on_event(event, message.get("data").unwrap_or(&Value::Null));
        return Ok(());
    }
    let mut state = shared.lock();
    if message.get("QMP").is_some() {
        state.greeting = Some(message);
    } else {
        let answer = match (message.get_mut("return").map(Value::take), message.get("error")) {
            (Some(value), _) => Ok(value),
            (None, Some(error)) => {
                Err(error.get("desc").and_then(Value::as_str).unwrap_or("no reason given").to_owned())
            }
            (None, None) => return Err(nonsense()),
        };
        match message.get("id").and_then(Value::as_u64) {
            Some(number) => {
                if let Some(place) = state.answers.get_mut(&number) {
                    *place = Some(answer);
                }
            }
            // QEMU could not parse what we sent. We only send JSON, so the stream is out of step.
            None => return Err(answer.err().unwrap_or_else(nonsense)),
        }
    }
    drop(state);
    shared.arrived.notify_all();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;
    use std::io::{BufRead, BufReader, Write};
    use std::sync::mpsc;
    use std::time::Duration;

    const HELLO: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

    fn patience() -> Wait<'static> {
        Wait::most(Duration::from_secs(60))
    }

    /// A peer that greets, agrees on capabilities, and then answers each line with what `reply` makes of it.
    fn peer(reply: impl Fn(&Value) -> Vec<u8> + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            let _ = out.write_all(HELLO.as_bytes());
            for line in BufReader::new(theirs).lines() {
                let Ok(line) = line else { return };
                let asked: Value = serde_json::from_str(&line).unwrap();
                let answer = if asked["execute"] == "qmp_capabilities" {
                    format!("{{\"return\": {{}}, \"id\": {}}}\n", asked["id"]).into_bytes()
                } else {
                    reply(&asked)
                };
                if answer == b"cut" || out.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        ours
    }

    #[test]
    fn answers_find_their_calls_and_events_are_kept_in_order_between_them() {
        let (tell, told) = mpsc::channel();
        let stream = peer(|asked| {
            let id = &asked["id"];
            let mut all = String::new();
            all += "{\"event\": \"STOP\", \"timestamp\": {}}\n";
            all += "{\"return\": \"stray\", \"id\": 9999}\n";
            all += &format!("{{\"return\": {{\"said\": {}}}, \"id\": {id}}}\n", asked["execute"]);
            all += "{\"event\": \"RESUME\", \"data\": {\"n\": 1}}\n";
            all.into_bytes()
        });
        let on_event = move |name: &str, _: &Value| tell.send(name.to_owned()).unwrap();
        let qmp = Qmp::start(stream, on_event, &patience()).unwrap();
        for command in ["query-status", "stop"] {
            assert_eq!(qmp.call(command, json!({}), &patience()).unwrap()["said"], command);
        }
        let events: Vec<String> = told.iter().take(4).collect();
        assert_eq!(events, ["STOP", "RESUME", "STOP", "RESUME"]);
    }

    #[test]
    fn a_refusal_carries_qemus_words_and_is_known_to_have_done_nothing() {
        let stream = peer(|asked| {
            format!("{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no\"}}, \"id\": {}}}\n", asked["id"])
                .into_bytes()
        });
        let qmp = Qmp::start(stream, |_, _| (), &patience()).unwrap();
        let error = qmp.call("cont", json!({}), &patience()).unwrap_err();
        assert!(error.did_nothing());
        assert_eq!(error.to_string(), "QEMU refused cont: no");
    }

    #[rstest]
    #[case::garbage(b"\x00\xff not json\n".to_vec())]
    #[case::json_of_another_kind(b"{\"hello\": 1}\n".to_vec())]
    #[case::a_list(b"[1, 2]\n".to_vec())]
    #[case::a_parse_error_of_theirs(b"{\"error\": {\"desc\": \"JSON parse error\"}}\n".to_vec())]
    #[case::an_endless_line(vec![b'x'; LONGEST + 5000])]
    #[case::deep_nesting([vec![b'['; 100_000], b"\n".to_vec()].concat())]
    #[case::cut_in_mid_line(b"cut".to_vec())]
    fn nonsense_cuts_the_connection_and_is_an_error_not_a_panic(#[case] nonsense: Vec<u8>) {
        let stream = peer(move |_| nonsense.clone());
        let qmp = Qmp::start(stream, |_, _| (), &patience()).unwrap();
        let error = qmp.call("cont", json!({}), &patience()).unwrap_err();
        assert!(matches!(error, QmpError::Cut { .. }), "{error}");
        assert!(!error.did_nothing());
        assert!(qmp.is_cut().is_some());
        assert!(matches!(qmp.call("stop", json!({}), &patience()), Err(QmpError::Cut { .. })));
    }

    #[test]
    fn a_peer_that_never_answers_costs_only_the_time_allowed() {
        let stream = peer(|_| Vec::new());
        let qmp = Qmp::start(stream, |_, _| (), &patience()).unwrap();
        let error = qmp.call("stop", json!({}), &Wait::most(Duration::from_millis(20))).unwrap_err();
        let stop = Stop::Timeout;
        assert_eq!(error, QmpError::Silent { command: "stop", stop });
        assert_eq!(qmp.is_cut(), None, "it may answer the next call");
    }

    #[test]
    fn a_peer_that_does_not_read_costs_only_the_time_allowed() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let more_than_a_socket_takes = vec![b'x'; 4 << 20];
        let sent = send(&ours, &more_than_a_socket_takes, None, &Wait::most(Duration::from_secs(1)));
        assert!(matches!(sent, Err(Unsent::Part(_))), "half a line is out");
        let sent = send(&ours, b"{}\n", None, &Wait::most(Duration::from_millis(20)));
        assert!(matches!(sent, Err(Unsent::Nothing(Stop::Timeout))), "its socket is full");
    }

    #[test]
    fn no_greeting_is_an_error() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Qmp::start(ours, |_, _| (), &Wait::most(Duration::from_millis(20))).err();
        assert!(matches!(error, Some(QmpError::Silent { .. })), "{error:?}");
    }

    #[test]
    fn a_descriptor_arrives_with_its_name() {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let peer = std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            out.write_all(HELLO.as_bytes()).unwrap();
            let mut caps = String::new();
            BufReader::with_capacity(1, theirs.try_clone().unwrap()).read_line(&mut caps).unwrap();
            out.write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
            let mut bytes = [0; 4096];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
            let got = rustix::net::recvmsg(&theirs, &mut buffers, &mut control, RecvFlags::empty()).unwrap();
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            assert!(String::from_utf8_lossy(&bytes[..got.bytes]).contains("\"fdname\":\"stream\""));
            std::fs::File::from(fd.unwrap()).write_all(b"through").unwrap();
            out.write_all(b"{\"return\": {}, \"id\": 2}\n").unwrap();
        });
        let qmp = Qmp::start(ours, |_, _| (), &patience()).unwrap();
        qmp.give_fd("stream", write.as_fd(), &patience()).unwrap();
        peer.join().unwrap();
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
