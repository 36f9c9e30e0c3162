//! A peer that says what a script says.
//!
//! The script is split at bytes 0. Each part is the answer to one question, and `$ID` in it stands for the number of the
//! last question that had one; a part that begins with `+` is sent unasked, and `cut` closes the connection, so that what
//! follows goes over the next one. After the last part has been read, whoever still waits is fenced: a run takes no
//! longer than its script. The connection is then closed, or, if the script begins with `~`, left open in silence.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vmtask_driver::EffectToken;
use vmtask_qemu::wait::Wait;

/// How long a part waits for a question. If none comes in that time, the two are out of step, as a peer that is up to no
/// good would have it, and the later parts wait hardly at all.
const PATIENCE: Duration = Duration::from_millis(20);
const IMPATIENCE: Duration = Duration::from_millis(1);
/// More parts say nothing new, and many of them are waited for.
const LONGEST: usize = 24;
/// Never waited for: the token is revoked long before.
const FOR_EVER: Duration = Duration::from_secs(600);

/// Hands out connections to the peer.
pub(crate) type Connections = mpsc::Sender<UnixStream>;

/// Lets `act` talk with a peer that follows this script.
pub(crate) fn with(script: &[u8], act: impl FnOnce(Connections, &Wait<'_>)) {
    let token = EffectToken::new();
    let (connections, streams) = mpsc::channel();
    thread::scope(|scope| {
        let token = &token;
        scope.spawn(move || serve(&streams, script, token));
        act(connections, &Wait::command(token, Instant::now() + FOR_EVER));
    });
}

/// One more connection.
pub(crate) fn connect(connections: &Connections) -> std::io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    connections.send(theirs).map_err(std::io::Error::other)?;
    Ok(ours)
}

fn serve(streams: &mpsc::Receiver<UnixStream>, script: &[u8], token: &EffectToken) {
    let (silent, script) = script.strip_prefix(b"~").map_or((false, script), |rest| (true, rest));
    let mut parts = script.split(|&byte| byte == 0).take(LONGEST);
    let mut held = Vec::new();
    let mut ear = Ear { patience: PATIENCE, id: 0 };
    'connections: for mut stream in streams {
        let mut heard = Vec::new();
        for part in parts.by_ref() {
            if part == b"cut" {
                continue 'connections;
            }
            let part = match part.strip_prefix(b"+") {
                Some(unasked) => unasked,
                None => {
                    ear.question(&mut stream, &mut heard);
                    part
                }
            };
            if stream.write_all(&ear.fill_in(part)).is_err() {
                continue 'connections;
            }
        }
        // The next question shows that the last answer was read.
        ear.question(&mut stream, &mut heard);
        token.revoke();
        if silent {
            held.push(stream);
        }
    }
}

/// Listens for questions, each a line.
struct Ear {
    patience: Duration,
    /// The number of the last question that had one.
    id: u64,
}

impl Ear {
    /// Waits for a question.
    fn question(&mut self, stream: &mut UnixStream, heard: &mut Vec<u8>) {
        let end = loop {
            if let Some(end) = heard.iter().position(|&byte| byte == b'\n') {
                break end;
            }
            let mut block = [0; 4096];
            let got = stream.set_read_timeout(Some(self.patience)).and_then(|()| stream.read(&mut block));
            match got {
                Ok(got) if got > 0 => heard.extend_from_slice(&block[..got]),
                _ => {
                    self.patience = IMPATIENCE;
                    return;
                }
            }
        };
        let line: Vec<u8> = heard.drain(..=end).collect();
        self.id = number_in(&line).unwrap_or(self.id);
    }

    /// A part of the script as it is sent.
    fn fill_in(&self, part: &[u8]) -> Vec<u8> {
        const PLACE: &[u8] = b"$ID";
        let Some(at) = part.windows(PLACE.len()).position(|window| window == PLACE) else { return part.to_vec() };
        [&part[..at], self.id.to_string().as_bytes(), &part[at + PLACE.len()..]].concat()
    }
}

fn number_in(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"id\":";
    let at = line.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}
