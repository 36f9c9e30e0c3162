//! A peer that says what a script says.
//!
//! The script is split at bytes 0. Each part is sent as soon as the one before is out, except that one with `$ID` waits
//! for the next question that carries a number and puts that in its place; `cut` closes the connection, and what follows
//! goes over the next one. After the last part, whoever still waits is fenced: a run takes no longer than its script.
//! The connection is then closed, or, if the script begins with `~`, left open in silence.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vmtask_driver::EffectToken;
use vmtask_qemu::wait::Wait;

/// How long a part with `$ID` waits for a question. If none comes in that time, the two are out of step, as a peer that
/// is up to no good would have it, and the later parts wait hardly at all.
const PATIENCE: Duration = Duration::from_millis(5);
const IMPATIENCE: Duration = Duration::from_millis(1);
/// More parts say nothing new.
const LONGEST: usize = 64;
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
        act(connections, &Wait::command(token, FOR_EVER));
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
    let mut ids = Ids { patience: PATIENCE, last: 0 };
    'connections: for mut stream in streams {
        let mut buffer = Vec::new();
        for part in parts.by_ref() {
            if part == b"cut" {
                continue 'connections;
            }
            let part = ids.fill_in(part, &mut stream, &mut buffer);
            if stream.write_all(&part).is_err() {
                continue 'connections;
            }
        }
        token.revoke();
        if silent {
            held.push(stream);
        }
    }
}

/// The numbers of questions.
struct Ids {
    patience: Duration,
    last: u64,
}

impl Ids {
    /// A part of the script as it is sent.
    fn fill_in(&mut self, part: &[u8], stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Vec<u8> {
        const PLACE: &[u8] = b"$ID";
        let Some(at) = part.windows(PLACE.len()).position(|window| window == PLACE) else { return part.to_vec() };
        match self.next(stream, buffer) {
            Some(id) => self.last = id,
            None => self.patience = IMPATIENCE,
        }
        [&part[..at], self.last.to_string().as_bytes(), &part[at + PLACE.len()..]].concat()
    }

    /// The number of the next question that has one.
    fn next(&self, stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Option<u64> {
        stream.set_read_timeout(Some(self.patience)).ok()?;
        loop {
            while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Some(id) = number_in(&line) {
                    return Some(id);
                }
            }
            let mut block = [0; 4096];
            let got = stream.read(&mut block).ok().filter(|&got| got > 0)?;
            buffer.extend_from_slice(&block[..got]);
        }
    }
}

fn number_in(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"id\":";
    let at = line.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}
