//! Requests to a guest, and what it says.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use vmtask_guest_wire::frame::PAYLOAD;
use vmtask_guest_wire::host::{Event, NotSent, Session, Tag};
use vmtask_guest_wire::message::{Exit, Launch, Phase, Reply, Request, State, VERSION};
use vmtask_guest_wire::refusal::{Cause, Refusal};

use crate::sentence::{Asked, sentence};

/// So many requests may be on their way: their replies fit into what a stream holds, so neither end waits for the other.
const WINDOW: usize = 128;
/// A piece of a file, with its offset before it.
const PIECE: usize = PAYLOAD - 8;
/// Before each stretch of a large file the guest is asked whether it still takes it.
const STRETCH: u64 = 256 * PIECE as u64;
/// What is shorter is sent before the guest could answer.
const SMALL: u64 = 16 * PIECE as u64;

/// What went wrong between here and the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The guest does not do what it was asked: a sentence, and what it is made of. The client goes on.
    #[error("{sentence}")]
    Refused {
        /// Thing, cause and way out.
        sentence: String,
        /// What the guest said.
        refusal: Box<Refusal>,
    },
    /// The stream failed. The client must greet again before it can go on.
    #[error(
        "lost the connection to the guest's agent: {0}; the guest has to be started again, or restored from a checkpoint"
    )]
    Stream(#[source] io::Error),
    /// The caller's patience is over. The client must greet again before it can go on.
    #[error("the guest's agent does not answer; the guest has to be started again, or restored from a checkpoint")]
    Silent,
    /// It is of another version.
    #[error(
        "the guest's agent speaks version {0} of the protocol, and this host version {VERSION}: build the platform again"
    )]
    Version(u16),
    /// It says what makes no sense. The client must greet again before it can go on.
    #[error("the guest's agent answers {0} where that makes no sense; the guest has to be started again")]
    Nonsense(&'static str),
    /// A file on this side cannot be read. The guest has nothing of it, and the client must greet again before it can go on.
    #[error("cannot read what is to be copied to '{name}' in the guest: {source}")]
    Input {
        /// Its name in the guest.
        name: String,
        /// What came back.
        source: io::Error,
    },
    /// What comes from the guest cannot be written here. The client must greet again before it can go on.
    #[error("cannot write what is copied from '{name}' in the guest: {source}")]
    Output {
        /// Its name in the guest.
        name: String,
        /// What came back.
        source: io::Error,
    },
    /// The request is longer than a message can be.
    #[error("'{0}': its arguments and its environment are more than 64 KiB; give the program a file instead")]
    TooLong(String),
}

type Result<T> = std::result::Result<T, GuestError>;

/// A file to be copied into the guest.
#[derive(Debug)]
pub struct Put<'a, R> {
    /// Its name, relative to the working directory. Directories on the way are made.
    pub name: &'a [u8],
    /// Its permissions.
    pub mode: u32,
    /// How many bytes `content` has.
    pub size: u64,
    /// Where they come from.
    pub content: R,
}

/// A file that was copied from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// Its length.
    pub size: u64,
    /// Its permissions.
    pub mode: u32,
    /// The hash of what was written here, computed here.
    pub sha256: [u8; 32],
}

/// A session with the agent of one guest.
///
/// Methods wait for the guest. A stream that gives [`ErrorKind::WouldBlock`] or [`ErrorKind::TimedOut`] when nothing has come
/// for a while, as a socket with a timeout does, has the client ask its caller's patience whether to go on.
pub struct Client<S, P> {
    stream: S,
    patience: P,
    session: Box<Session>,
    /// Read, and not yet taken by the session: `room[start..end]`.
    room: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last that the guest said unasked, until somebody wants to know.
    said: Option<State>,
    piece: Vec<u8>,
}

impl<S: Read + Write, P: FnMut() -> bool> Client<S, P> {
    /// Over this stream. Nothing is said before [`Client::greet`].
    pub fn new(stream: S, patience: P) -> Self {
        let room = vec![0; 1 << 16].into_boxed_slice();
        Self {
            stream,
            patience,
            session: Box::new(Session::new(0)),
            room,
            start: 0,
            end: 0,
            said: None,
            piece: Vec::new(),
        }
    }

    /// Begins a session: the guest lets go of transfers, and tells what its boot has done so far. To be called first, after an
    /// error that says so, and after the guest was restored. No session with this guest, nor with another one of the same
    /// template, may have had this nonce before.
    ///
    /// # Errors
    /// As the stream's; an agent of another version; [`GuestError::Silent`].
    pub fn greet(&mut self, nonce: u64) -> Result<State> {
        self.session.start(nonce);
        (self.start, self.end, self.said) = (0, 0, None);
        self.flush()?;
        loop {
            match self.session.event() {
                Some(Event::Greeted { version: VERSION, state }) => {
                    self.session.next();
                    return Ok(state);
                }
                Some(Event::Greeted { version, .. }) => return Err(GuestError::Version(version)),
                Some(_) => self.session.next(),
                None => {
                    if !self.receive()? {
                        self.session.greet();
                        self.flush()?;
                    }
                }
            }
        }
    }

    /// Sets the guest's clock, and mixes a seed that no other guest has into its random pool.
    ///
    /// # Errors
    /// See [`GuestError`]; so in all methods.
    pub fn prepare(&mut self, now: SystemTime, seed: &[u8]) -> Result<()> {
        let clock = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let clock = u64::try_from(clock).unwrap_or(u64::MAX);
        self.ask(&Request::Prepare { clock, seed }, &Asked::Prepare).map(drop)
    }

    /// Makes the working directory, in memory or on the disk, unless it is there: how many bytes are free in it.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn make_workdir(&mut self, on_disk: bool) -> Result<u64> {
        self.ask(&Request::Workdir { disk: on_disk }, &Asked::Workdir)
    }

    /// Copies files into the guest, without waiting for one before the next. A file is in its place when it is whole, and not
    /// before. `progress` gets how many bytes have been sent of all files together.
    ///
    /// # Errors
    /// The first that there is; of what was refused, the other files are in their places.
    pub fn put_all<'a, R: Read>(
        &mut self,
        files: impl IntoIterator<Item = Put<'a, R>>,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let mut puts = Puts::default();
        let mut sent = 0;
        for mut file in files {
            if puts.pending.len() >= WINDOW {
                self.put_done(&mut puts)?;
            }
            if puts.refused.is_some() {
                break;
            }
            let asked = Asked::Put { name: lossy(file.name), size: file.size };
            let tag = self.send(&Request::Put { size: file.size, mode: file.mode, name: file.name }, &asked)?;
            puts.pending.push_back((tag, asked));
            self.put_content(tag, &mut file, &mut puts, &mut |count| {
                sent += count;
                progress(sent);
            })?;
        }
        while !puts.pending.is_empty() {
            self.put_done(&mut puts)?;
        }
        puts.refused.map_or(Ok(()), Err)
    }

    fn put_content<R: Read>(
        &mut self,
        tag: Tag,
        file: &mut Put<'_, R>,
        puts: &mut Puts,
        sent: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut piece = std::mem::take(&mut self.piece);
        let mut offset = 0;
        while offset < file.size {
            if file.size - offset > SMALL && offset % STRETCH == 0 && !self.is_wanted(tag, puts)? {
                break;
            }
            piece.resize(usize::try_from(file.size - offset).unwrap_or(PIECE).min(PIECE), 0);
            file.content
                .read_exact(&mut piece)
                .map_err(|source| GuestError::Input { name: lossy(file.name), source })?;
            self.flush()?;
            // Nothing is before it, and it is no longer than a frame.
            self.session.piece(tag, offset, &piece).map_err(|_| GuestError::Nonsense("no greeting"))?;
            offset += piece.len() as u64;
            sent(piece.len() as u64);
        }
        self.piece = piece;
        Ok(())
    }

    /// Whether the guest has not refused this Put so far, which is the last one of those that are pending.
    fn is_wanted(&mut self, tag: Tag, puts: &mut Puts) -> Result<bool> {
        while puts.pending.len() > 1 {
            self.put_done(puts)?;
        }
        // Answered behind a refusal, if there is one.
        let status = self.send(&Request::Status, &Asked::Status)?;
        loop {
            let (of, refusal) = self.any_reply(|of, reply| match reply {
                Reply::Refused(refusal) if of == tag => Ok((of, Some(refusal))),
                Reply::State(_) if of == status => Ok((of, None)),
                _ => Err(GuestError::Nonsense("something else than its state")),
            })?;
            if of == status {
                return Ok(!puts.pending.is_empty());
            }
            if let (Some(refusal), Some((_, asked))) = (refusal, puts.pending.pop_front()) {
                puts.refused.get_or_insert(refused(&asked, refusal));
            }
        }
    }

    fn put_done(&mut self, puts: &mut Puts) -> Result<()> {
        let Some((tag, asked)) = puts.pending.pop_front() else { return Ok(()) };
        match self.done(tag, &asked) {
            Err(error @ GuestError::Refused { .. }) => {
                puts.refused.get_or_insert(error);
                Ok(())
            }
            done => done.map(drop),
        }
    }

    /// Copies a file from the guest. Its size comes first: a file over the limit is refused before any byte is moved.
    /// `progress` gets how many bytes have come, and how many there are.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn get(
        &mut self,
        name: &[u8],
        limit: u64,
        to: &mut impl Write,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Got> {
        let asked = Asked::Get { name: lossy(name), limit };
        let tag = self.send(&Request::Get { limit, name }, &asked)?;
        let (size, mode) = self.reply(tag, &asked, |reply| match reply {
            Reply::File { size, mode } if size <= limit => Ok((size, mode)),
            _ => Err(GuestError::Nonsense("something else than the file's size")),
        })?;
        let mut hash = Sha256::new();
        let mut come = 0;
        while come < size {
            come = self.reply(tag, &asked, |reply| match reply {
                Reply::FileData { offset, bytes } if offset == come && !bytes.is_empty() => {
                    let now = come + bytes.len() as u64;
                    if now > size {
                        return Err(GuestError::Nonsense("more than the file has"));
                    }
                    hash.update(bytes);
                    to.write_all(bytes).map_err(|source| GuestError::Output { name: lossy(name), source })?;
                    Ok(now)
                }
                _ => Err(GuestError::Nonsense("something else than the file's next piece")),
            })?;
            progress(come, size);
        }
        Ok(Got { size, mode, sha256: hash.finalize().into() })
    }

    /// Starts the program; a boot starts one.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        self.ask(&Request::Launch(*launch), &Asked::Launch { program: lossy(launch.program) }).map(drop)
    }

    /// The program's state.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn status(&mut self) -> Result<State> {
        let tag = self.send(&Request::Status, &Asked::Status)?;
        self.reply(tag, &Asked::Status, |reply| match reply {
            Reply::State(state) => Ok(state),
            _ => Err(GuestError::Nonsense("something else than its state")),
        })
    }

    /// From now on the guest says its state whenever it changes, but no more often than this; zero ends it.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn watch(&mut self, every: Duration) -> Result<()> {
        let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
        self.ask(&Request::Watch { every_ms }, &Asked::Status).map(drop)
    }

    /// Waits until the guest says its state: see [`Client::watch`]. The end of the program it says without being watched, and
    /// again each second until [`Client::acknowledge`].
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn next_state(&mut self) -> Result<State> {
        loop {
            if let Some(state) = self.said.take() {
                return Ok(state);
            }
            match self.session.event() {
                Some(Event::State(_)) => self.hear(),
                Some(_) => return Err(GuestError::Nonsense("what it was not asked")),
                None => drop(self.receive()?),
            }
        }
    }

    /// Waits for the end of the program. `running` gets each state before that.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn wait_for_exit(&mut self, mut running: impl FnMut(State)) -> Result<Exit> {
        loop {
            match self.next_state()? {
                State { phase: Phase::Exited(exit), .. } => return Ok(exit),
                state => running(state),
            }
        }
    }

    /// The end of the program is known, and written down where it will not be forgotten.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn acknowledge(&mut self) -> Result<()> {
        self.ask(&Request::Acknowledge, &Asked::Status).map(drop)
    }

    /// Stops all of the program's processes where they are, or lets them go on.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn hold(&mut self, hold: bool) -> Result<()> {
        self.ask(&Request::Hold { hold }, &Asked::Hold).map(drop)
    }

    /// Has the guest give back memory that booting has used: how many MiB it went through.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn settle(&mut self) -> Result<u64> {
        self.ask(&Request::Settle, &Asked::Settle)
    }

    /// Switches the guest off, and returns when its end of the stream is gone.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub fn power_off(&mut self) -> Result<()> {
        match self.ask(&Request::PowerOff, &Asked::PowerOff) {
            // It may end before or after it has answered.
            Ok(_) => loop {
                match self.receive() {
                    Err(GuestError::Stream(_)) => return Ok(()),
                    received => drop(received?),
                }
                self.session.next();
            },
            Err(GuestError::Stream(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A request that is answered by a number.
    fn ask(&mut self, request: &Request<'_>, asked: &Asked) -> Result<u64> {
        let tag = self.send(request, asked)?;
        self.done(tag, asked)
    }

    fn done(&mut self, tag: Tag, asked: &Asked) -> Result<u64> {
        self.reply(tag, asked, |reply| match reply {
            Reply::Done { value } => Ok(value),
            _ => Err(GuestError::Nonsense("something else than that it is done")),
        })
    }

    fn send(&mut self, request: &Request<'_>, asked: &Asked) -> Result<Tag> {
        loop {
            match self.session.request(request) {
                Ok(tag) => return Ok(tag),
                Err(NotSent::Full) => self.flush()?,
                Err(NotSent::TooLong) => return Err(GuestError::TooLong(asked.to_string())),
                Err(NotSent::NotGreeted) => return Err(GuestError::Nonsense("no greeting")),
            }
        }
    }

    /// Waits for the next reply, which must be to this request.
    fn reply<T>(&mut self, tag: Tag, asked: &Asked, take: impl FnOnce(Reply<'_>) -> Result<T>) -> Result<T> {
        self.any_reply(|of, reply| match reply {
            _ if of != tag => Err(GuestError::Nonsense("what it was not asked")),
            Reply::Refused(refusal) => Err(refused(asked, refusal)),
            reply => take(reply),
        })
    }

    fn any_reply<T>(&mut self, take: impl FnOnce(Tag, Reply<'_>) -> Result<T>) -> Result<T> {
        self.flush()?;
        loop {
            match self.session.event() {
                None => drop(self.receive()?),
                Some(Event::State(_)) => self.hear(),
                Some(Event::Greeted { .. }) => return Err(GuestError::Nonsense("a greeting")),
                Some(Event::Reply(of, reply)) => {
                    let taken = take(of, reply);
                    self.session.next();
                    return taken;
                }
            }
        }
    }

    fn hear(&mut self) {
        if let Some(Event::State(state)) = self.session.event() {
            self.said = Some(state);
            self.session.next();
        }
    }

    /// Sends all that waits.
    fn flush(&mut self) -> Result<()> {
        while !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(0) => return Err(GuestError::Stream(ErrorKind::WriteZero.into())),
                Ok(count) => self.session.sent(count),
                Err(error) => self.not_yet(error)?,
            }
        }
        Ok(())
    }

    /// Waits for bytes once, and has the session look at them: whether any came.
    fn receive(&mut self) -> Result<bool> {
        let mut came = self.start < self.end;
        if !came {
            // Where nothing has been read there may still be something behind the message before.
            self.session.input(&[]);
            if self.session.event().is_some() {
                return Ok(true);
            }
            match self.stream.read(&mut self.room) {
                Ok(0) => return Err(GuestError::Stream(ErrorKind::UnexpectedEof.into())),
                Ok(count) => (self.start, self.end, came) = (0, count, true),
                Err(error) => self.not_yet(error)?,
            }
        }
        self.start += self.session.input(&self.room[self.start..self.end]);
        Ok(came)
    }

    fn not_yet(&mut self, error: io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut if (self.patience)() => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(GuestError::Silent),
            _ => Err(GuestError::Stream(error)),
        }
    }
}

impl<S, P> std::fmt::Debug for Client<S, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("greeted", &self.session.is_greeted()).finish_non_exhaustive()
    }
}

/// Files on their way, and the first refusal of one.
#[derive(Default)]
struct Puts {
    pending: VecDeque<(Tag, Asked)>,
    refused: Option<GuestError>,
}

fn refused(asked: &Asked, refusal: Refusal) -> GuestError {
    GuestError::Refused { sentence: sentence(asked, refusal), refusal: Box::new(refusal) }
}

/// For sentences alone: names are bytes.
fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl GuestError {
    /// Why the guest refused, if it did.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.cause),
            _ => None,
        }
    }
}
