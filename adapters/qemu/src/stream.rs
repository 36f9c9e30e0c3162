//! Files in and out of the guest over a byte-stream port, in slices, checked by SHA-256 at both ends.
//!
//! ```text
//!   in:   hash the file -> start `recv` -> connect -> "vmtask TOKEN ready" -> send ----> exit code 0
//!   out:  start `send` -> connect -> "vmtask TOKEN SIZE SHA256" -> receive -> compare -> exit code 0
//! ```
//! The port has no framing and forgets nothing by itself, so each try has a token and a connection of its own; the
//! guest script's head comment says how that gets rid of what a broken try left behind. A try breaks when the
//! connection does or when the agent is started anew; then the transfer starts over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::agent::{Agent, AgentError, Ended, Running, is_lull};
use crate::durable;
use crate::guest::{self, GuestError};
use crate::wait::{Stop, Wait};

const BLOCK: usize = 1 << 20;
/// How long a read or write on the port may hold up a slice.
const TICK: Duration = Duration::from_millis(20);
/// How often the guest's command is looked at while bytes flow: each look costs the guest some work.
const LOOK: Duration = Duration::from_millis(500);
/// Without a byte for so long, although the guest answers, a try is given up.
const STALLED: Duration = Duration::from_secs(60);
/// How many tries are made.
const TRIES: u32 = 4;
/// A size, a hash, and room to spare.
const LONGEST_HEADING: usize = 200;
/// Written data is flushed so often, so that the last flush is short.
const FLUSH: u64 = 64 << 20;

/// Why a file did not get across.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The host's file.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The guest does not do it.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The output is larger than the task allows.
    #[error("it has {size} bytes, and limits.output allows {limit}; raise that, or write less")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The hash at one end is not that at the other.
    #[error("its SHA-256 differs between guest and host")]
    Hash,
    /// It broke again and again.
    #[error("the transfer broke {TRIES} times, the last time so: {0}")]
    Broken(String),
    /// The command was fenced.
    #[error("{0}")]
    Stop(#[from] Stop),
}

fn host(what: &'static str) -> impl Fn(io::Error) -> StreamError {
    move |source| StreamError::Host { what, source }
}

/// How far a slice got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// More is to be done.
    Pending,
    /// It is across.
    Done,
}

/// What ends a try.
enum Trouble {
    /// Try again.
    Broken(String),
    /// Do not.
    Final(StreamError),
}

impl From<AgentError> for Trouble {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Silent { stop: Stop::Fenced, .. } => Self::Final(Stop::Fenced.into()),
            AgentError::Refused { .. } => Self::Final(GuestError::from(error).into()),
            broken => Self::Broken(broken.to_string()),
        }
    }
}

impl From<StreamError> for Trouble {
    fn from(error: StreamError) -> Self {
        Self::Final(error)
    }
}

/// One try: a command in the guest and a connection to it.
struct Try {
    token: String,
    running: Running,
    link: UnixStream,
    buffer: Vec<u8>,
    moved: u64,
    looked: Instant,
    alive: Instant,
    /// Set once the guest's command has ended well.
    ended: bool,
}

impl Try {
    fn start(
        agent: &mut Agent,
        connect: &dyn Fn() -> io::Result<UnixStream>,
        args: &[&str],
        wait: &Wait<'_>,
    ) -> Result<Self, Trouble> {
        let mut bytes = [0; 12];
        getrandom::fill(&mut bytes).map_err(|e| Trouble::Broken(e.to_string()))?;
        let token = durable::hex(&bytes);
        let mut all = vec![args[0], &token];
        all.extend_from_slice(&args[1..]);
        let running = guest::start(agent, &all, wait)?;
        let link = connect().map_err(|error| Trouble::Broken(error.to_string()))?;
        link.set_read_timeout(Some(TICK))
            .and_then(|()| link.set_write_timeout(Some(TICK)))
            .map_err(|error| Trouble::Broken(error.to_string()))?;
        Ok(Self {
            token,
            running,
            link,
            buffer: Vec::new(),
            moved: 0,
            looked: Instant::now(),
            alive: Instant::now(),
            ended: false,
        })
    }

    /// Reads what there is into the buffer; whether there was any.
    fn read(&mut self, most: usize) -> Result<usize, Trouble> {
        let had = self.buffer.len();
        self.buffer.resize(had + most, 0);
        let got = self.link.read(&mut self.buffer[had..]);
        let (kept, result) = match got {
            Ok(0) => (0, Err(Trouble::Broken("the connection to the port was cut".into()))),
            Ok(got) => (got, Ok(got)),
            Err(error) if is_lull(&error) => (0, Ok(0)),
            Err(error) => (0, Err(Trouble::Broken(error.to_string()))),
        };
        self.buffer.truncate(had + kept);
        if kept > 0 {
            self.alive = Instant::now();
        }
        result
    }

    /// The rest of the line that starts with `vmtask TOKEN `, once it is there. What stands before it is dropped.
    fn heading(&mut self) -> Result<Option<String>, Trouble> {
        self.read(64 * 1024)?;
        let mark = format!("vmtask {} ", self.token);
        let Some(at) = find(&self.buffer, mark.as_bytes()) else {
            // An earlier try's bytes. The mark may have begun to arrive.
            let keep = self.buffer.len().min(mark.len() - 1);
            self.buffer.drain(..self.buffer.len() - keep);
            return Ok(None);
        };
        let rest = &self.buffer[at + mark.len()..];
        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
            if rest.len() > LONGEST_HEADING {
                return Err(Trouble::Broken("the guest's heading has no end".into()));
            }
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.buffer.drain(..at + mark.len() + end + 1);
        Ok(Some(line))
    }

    /// Looks, if it is time, whether the guest's command has ended.
    fn look(&mut self, what: &'static str, agent: &mut Agent, every: Duration, wait: &Wait<'_>) -> Result<(), Trouble> {
        if self.ended || self.looked.elapsed() < every {
            return Ok(());
        }
        self.looked = Instant::now();
        if let Some(ended) = agent.poll(self.running, wait)? {
            self.ended = true;
            return check(what, &ended);
        }
        if self.alive.elapsed() > STALLED {
            return Err(Trouble::Broken(format!("no byte moved for {} s", STALLED.as_secs())));
        }
        Ok(())
    }
}

/// Exit codes of the script: 6 and 8 are worth another try, and 7 means that a byte was lost on the way.
fn check(what: &'static str, ended: &Ended) -> Result<(), Trouble> {
    match guest::answer(what, ended) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code(), Some(6..=8) | None) => Err(Trouble::Broken(error.to_string())),
        Err(error) => Err(Trouble::Final(error.into())),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// What both directions share: tries, slices, the way to the guest.
pub(crate) struct Way<'a> {
    pub(crate) agent: &'a mut Agent,
    pub(crate) connect: &'a dyn Fn() -> io::Result<UnixStream>,
    /// For questions to the agent.
    pub(crate) wait: Wait<'a>,
    /// When the slice is over.
    pub(crate) until: Instant,
}

impl Way<'_> {
    fn slice_left(&self) -> Result<bool, StreamError> {
        match self.wait.tick() {
            Ok(_) => Ok(Instant::now() < self.until),
            // A slice ends with its command's time.
            Err(Stop::Timeout) => Ok(false),
            Err(stop) => Err(stop.into()),
        }
    }
}

/// A file on its way in.
pub(crate) struct CopyIn {
    file: File,
    size: u64,
    name: String,
    mode: &'static str,
    hasher: Option<Sha256>,
    hashed: u64,
    sum: String,
    attempt: Option<Try>,
    ready: bool,
    tries: u32,
}

impl CopyIn {
    /// A transfer of `file` to `name` in the guest's working directory.
    ///
    /// # Errors
    /// If the file cannot be looked at.
    pub(crate) fn new(file: File, name: &str, executable: bool) -> Result<Self, StreamError> {
        let size = file.metadata().map_err(host("looking at it"))?.len();
        Ok(Self {
            file,
            size,
            name: name.to_owned(),
            mode: if executable { "755" } else { "644" },
            hasher: Some(Sha256::new()),
            hashed: 0,
            sum: String::new(),
            attempt: None,
            ready: false,
            tries: 0,
        })
    }

    /// Works on it until the slice is over or the file is across.
    ///
    /// # Errors
    /// If it cannot get across.
    pub(crate) fn step(&mut self, way: &mut Way<'_>) -> Result<Slice, StreamError> {
        let mut block = vec![0; BLOCK];
        self.hash(way, &mut block)?;
        while way.slice_left()? {
            if self.hasher.is_some() {
                break;
            }
            match self.go_on(way, &mut block) {
                Ok(true) => return Ok(Slice::Done),
                Ok(false) => {}
                Err(trouble) => again(trouble, &mut self.attempt, &mut self.tries)?,
            }
        }
        Ok(Slice::Pending)
    }

    fn hash(&mut self, way: &Way<'_>, block: &mut [u8]) -> Result<(), StreamError> {
        let Some(mut hasher) = self.hasher.take() else {
            return Ok(());
        };
        while self.hashed < self.size {
            let part = &mut block[..BLOCK.min((self.size - self.hashed) as usize)];
            self.file.read_exact_at(part, self.hashed).map_err(host("reading it"))?;
            hasher.update(&*part);
            self.hashed += part.len() as u64;
            if self.hashed < self.size && !way.slice_left()? {
                self.hasher = Some(hasher);
                return Ok(());
            }
        }
        self.sum = durable::hex(&hasher.finalize());
        Ok(())
    }

    fn go_on(&mut self, way: &mut Way<'_>, block: &mut [u8]) -> Result<bool, Trouble> {
        let Some(attempt) = &mut self.attempt else {
            let size = self.size.to_string();
            let args = ["recv", &size, self.mode, &self.sum, &self.name];
            self.ready = false;
            self.attempt = Some(Try::start(way.agent, way.connect, &args, &way.wait)?);
            return Ok(false);
        };
        if !self.ready {
            self.ready = attempt.heading()?.is_some();
            attempt.look("recv", way.agent, LOOK, &way.wait)?;
            // A file that is there already needs no byte; anything else has not ended before it was ready.
            return Ok(attempt.ended);
        }
        if attempt.moved < self.size {
            let part = &mut block[..BLOCK.min((self.size - attempt.moved) as usize)];
            self.file.read_exact_at(part, attempt.moved).map_err(host("reading it"))?;
            match attempt.link.write(part) {
                Ok(put) => {
                    attempt.moved += put as u64;
                    attempt.alive = Instant::now();
                }
                Err(error) if is_lull(&error) => {}
                Err(error) => return Err(Trouble::Broken(error.to_string())),
            }
            attempt.look("recv", way.agent, LOOK, &way.wait)?;
            return Ok(false);
        }
        // All is sent: from here on the guest is what is waited for.
        attempt.look("recv", way.agent, Duration::from_millis(4), &way.wait)?;
        if !attempt.ended {
            way.wait.sleep(Duration::from_millis(3)).map_err(StreamError::from)?;
        }
        Ok(attempt.ended)
    }
}

/// A file on its way out, into an empty file of the host's.
pub(crate) struct CopyOut {
    file: File,
    name: String,
    limit: u64,
    attempt: Option<Try>,
    expected: Option<(u64, String)>,
    hasher: Sha256,
    tries: u32,
}

impl CopyOut {
    /// A transfer of `name` in the guest's working directory into `file`, of at most `limit` bytes.
    pub(crate) fn new(file: File, name: &str, limit: u64) -> Self {
        Self { file, name: name.to_owned(), limit, attempt: None, expected: None, hasher: Sha256::new(), tries: 0 }
    }

    /// Works on it until the slice is over or the file is across, compared and flushed.
    ///
    /// # Errors
    /// If it cannot get across.
    pub(crate) fn step(&mut self, way: &mut Way<'_>) -> Result<Slice, StreamError> {
        while way.slice_left()? {
            match self.go_on(way) {
                Ok(true) => return Ok(Slice::Done),
                Ok(false) => {}
                Err(trouble) => again(trouble, &mut self.attempt, &mut self.tries)?,
            }
        }
        Ok(Slice::Pending)
    }

    fn go_on(&mut self, way: &mut Way<'_>) -> Result<bool, Trouble> {
        let Some(attempt) = &mut self.attempt else {
            self.file.set_len(0).map_err(host("emptying the file"))?;
            self.hasher = Sha256::new();
            self.expected = None;
            self.attempt = Some(Try::start(way.agent, way.connect, &["send", &self.name], &way.wait)?);
            return Ok(false);
        };
        let Some((size, sum)) = &self.expected else {
            self.expected = attempt.heading()?.map(|line| parse_heading(&line, self.limit)).transpose()?;
            let every = if attempt.alive.elapsed() < LOOK { TICK } else { LOOK };
            attempt.look("send", way.agent, every, &way.wait)?;
            return Ok(false);
        };
        if attempt.moved < *size {
            if attempt.buffer.is_empty() {
                attempt.read(BLOCK.min((size - attempt.moved) as usize))?;
            }
            // More than was announced is somebody else's.
            let take = attempt.buffer.len().min((size - attempt.moved) as usize);
            let part = &attempt.buffer[..take];
            self.hasher.update(part);
            self.file.write_all_at(part, attempt.moved).map_err(host("writing it"))?;
            let before = attempt.moved;
            attempt.moved += take as u64;
            attempt.buffer.clear();
            if before / FLUSH != attempt.moved / FLUSH {
                self.file.sync_data().map_err(host("flushing it"))?;
            }
            attempt.look("send", way.agent, LOOK, &way.wait)?;
            return Ok(false);
        }
        attempt.look("send", way.agent, Duration::from_millis(4), &way.wait)?;
        if !attempt.ended {
            way.wait.sleep(Duration::from_millis(3)).map_err(StreamError::from)?;
            return Ok(false);
        }
        if durable::hex(&std::mem::take(&mut self.hasher).finalize()) != *sum {
            return Err(Trouble::Broken(StreamError::Hash.to_string()));
        }
        self.file.sync_all().map_err(host("flushing it"))?;
        Ok(true)
    }
}

fn parse_heading(line: &str, limit: u64) -> Result<(u64, String), Trouble> {
    let parsed = line.split_once(' ').and_then(|(size, sum)| Some((size.parse().ok()?, sum)));
    let Some((size, sum)) = parsed.filter(|(_, sum)| sum.len() == 64) else {
        return Err(Trouble::Broken(format!("the guest announced {line:?}")));
    };
    if size > limit {
        return Err(StreamError::TooLarge { size, limit }.into());
    }
    Ok((size, sum.to_owned()))
}

/// Drops a broken try, with its connection, so that the next one starts afresh.
fn again(trouble: Trouble, attempt: &mut Option<Try>, tries: &mut u32) -> Result<(), StreamError> {
    *attempt = None;
    match trouble {
        Trouble::Final(error) => Err(error),
        Trouble::Broken(why) => {
            *tries += 1;
            if *tries >= TRIES {
                return Err(StreamError::Broken(why));
            }
            tracing::debug!(why, tries, "starting the transfer over");
            Ok(())
        }
    }
}
