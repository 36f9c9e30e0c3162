//! Messages: what the frames carry.

use crate::frame::{Encoder, Frame, Reader, Writer};
use crate::refusal::Refusal;

/// The version of the protocol that is spoken here.
pub const VERSION: u16 = 1;

/// Text of at most `N` bytes, in place: neither end has a heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Text<N> {
    /// As much of this as there is room for.
    pub fn new(text: &[u8]) -> Self {
        let mut kept = Self { bytes: [0; N], used: 0 };
        for (to, from) in kept.bytes.iter_mut().zip(text) {
            *to = *from;
            kept.used += 1;
        }
        kept
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let word = reader.word()?;
        (word.len() <= N).then(|| Self::new(word))
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], used: 0 }
    }
}

impl<const N: usize> core::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// Some words: those of a list, or as they came.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a>(From<'a>);

#[derive(Debug, Clone, Copy)]
enum From<'a> {
    List(&'a [&'a [u8]]),
    /// Whole words, as many as that.
    Wire(u16, Reader<'a>),
}

impl<'a> Words<'a> {
    /// Those of the list.
    pub const fn new(list: &'a [&'a [u8]]) -> Self {
        Self(From::List(list))
    }

    /// The words.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let (list, count, mut reader) = match self.0 {
            From::List(list) => (list, 0, Reader::new(&[])),
            From::Wire(count, reader) => (&[][..], count, reader),
        };
        list.iter().copied().chain((0..count).map_while(move |_| reader.word()))
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let count = reader.u16()?;
        let words = *reader;
        for _ in 0..count {
            reader.word()?;
        }
        Some(Self(From::Wire(count, words)))
    }

    fn write(self, writer: &mut Writer<'_>) {
        // Too many for the number are too many for the frame.
        writer.u16(u16::try_from(self.iter().count()).unwrap_or(u16::MAX));
        for word in self.iter() {
            writer.word(word);
        }
    }
}

impl PartialEq for Words<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Words<'_> {}

impl Default for Words<'_> {
    fn default() -> Self {
        Self::new(&[])
    }
}

/// A program to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Launch<'a> {
    /// Its file, in the working directory, or absolute.
    pub program: &'a [u8],
    /// Where its output goes, in the working directory; nowhere if empty.
    pub stdout: &'a [u8],
    /// The same for its errors.
    pub stderr: &'a [u8],
    /// The file in which it says how far it is; none if empty.
    pub progress: &'a [u8],
    /// `uname -m` says `i686`.
    pub linux32: bool,
    /// Its arguments without its own name.
    pub arguments: Words<'a>,
    /// `NAME=value`, besides what every program gets.
    pub environment: Words<'a>,
}

/// What the host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the crate's front page has a row for each")]
pub enum Request<'a> {
    Hello { nonce: u64, version: u16 },
    Prepare { clock: u64, seed: &'a [u8] },
    Workdir { disk: bool },
    Put { size: u64, mode: u32, name: &'a [u8] },
    PutData { offset: u64, bytes: &'a [u8] },
    Get { limit: u64, name: &'a [u8] },
    Launch(Launch<'a>),
    Status,
    Watch { every_ms: u32 },
    Acknowledge,
    Hold { hold: bool },
    Settle,
    PowerOff,
}

/// The request's kind on the wire.
mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const PREPARE: u8 = 0x02;
    pub(super) const WORKDIR: u8 = 0x03;
    pub(super) const PUT: u8 = 0x04;
    pub(super) const PUT_DATA: u8 = 0x05;
    pub(super) const GET: u8 = 0x06;
    pub(super) const LAUNCH: u8 = 0x07;
    pub(super) const STATUS: u8 = 0x08;
    pub(super) const WATCH: u8 = 0x09;
    pub(super) const ACKNOWLEDGE: u8 = 0x0a;
    pub(super) const HOLD: u8 = 0x0b;
    pub(super) const SETTLE: u8 = 0x0c;
    pub(super) const POWER_OFF: u8 = 0x0d;

    pub(super) const WELCOME: u8 = 0x81;
    pub(super) const DONE: u8 = 0x82;
    pub(super) const FILE: u8 = 0x83;
    pub(super) const FILE_DATA: u8 = 0x84;
    pub(super) const STATE: u8 = 0x85;
    pub(super) const REFUSED: u8 = 0x86;
}
impl<'a> Request<'a> {
    /// Whether a frame of this kind and length is one of these: what a decoder looks for.
    pub fn is_kind(kind: u8, _: usize) -> bool {
        (kind::HELLO..=kind::POWER_OFF).contains(&kind)
    }

    /// What a frame asks for; `None` where it is none of these, or not as it should be.
    pub fn read(frame: Frame<'a>) -> Option<Self> {
        let mut reader = Reader::new(frame.payload);
        let request = match frame.kind {
            kind::HELLO => Self::Hello { nonce: reader.u64()?, version: reader.u16()? },
            kind::PREPARE => return Some(Self::Prepare { clock: reader.u64()?, seed: reader.rest() }),
            kind::WORKDIR => Self::Workdir { disk: reader.bool()? },
            kind::PUT => return Some(Self::Put { size: reader.u64()?, mode: reader.u32()?, name: reader.rest() }),
            kind::PUT_DATA => return Some(Self::PutData { offset: reader.u64()?, bytes: reader.rest() }),
            kind::GET => return Some(Self::Get { limit: reader.u64()?, name: reader.rest() }),
            kind::LAUNCH => Self::Launch(Launch {
                linux32: reader.bool()?,
                program: reader.word()?,
                stdout: reader.word()?,
                stderr: reader.word()?,
                progress: reader.word()?,
                arguments: Words::read(&mut reader)?,
                environment: Words::read(&mut reader)?,
            }),
            kind::STATUS => Self::Status,
            kind::WATCH => Self::Watch { every_ms: reader.u32()? },
            kind::ACKNOWLEDGE => Self::Acknowledge,
            kind::HOLD => Self::Hold { hold: reader.bool()? },
            kind::SETTLE => Self::Settle,
            kind::POWER_OFF => Self::PowerOff,
            _ => return None,
        };
        reader.is_empty().then_some(request)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => kind::HELLO,
            Self::Prepare { .. } => kind::PREPARE,
            Self::Workdir { .. } => kind::WORKDIR,
            Self::Put { .. } => kind::PUT,
            Self::PutData { .. } => kind::PUT_DATA,
            Self::Get { .. } => kind::GET,
            Self::Launch(_) => kind::LAUNCH,
            Self::Status => kind::STATUS,
            Self::Watch { .. } => kind::WATCH,
            Self::Acknowledge => kind::ACKNOWLEDGE,
            Self::Hold { .. } => kind::HOLD,
            Self::Settle => kind::SETTLE,
            Self::PowerOff => kind::POWER_OFF,
        }
    }

    /// Adds it to what is to be sent; `false` where it does not fit.
    pub fn write(&self, out: &mut Encoder, tag: u32) -> bool {
        out.frame(self.kind(), tag, |writer| {
            match *self {
                Self::Hello { nonce, version } => writer.u64(nonce).u16(version),
                Self::Prepare { clock, seed } => writer.u64(clock).bytes(seed),
                Self::Workdir { disk: flag } | Self::Hold { hold: flag } => writer.u8(flag.into()),
                Self::Put { size, mode, name } => writer.u64(size).u32(mode).bytes(name),
                Self::PutData { offset, bytes } => writer.u64(offset).bytes(bytes),
                Self::Get { limit, name } => writer.u64(limit).bytes(name),
                Self::Watch { every_ms } => writer.u32(every_ms),
                Self::Launch(launch) => {
                    writer.u8(launch.linux32.into()).word(launch.program);
                    writer.word(launch.stdout).word(launch.stderr).word(launch.progress);
                    launch.arguments.write(writer);
                    launch.environment.write(writer);
                    writer
                }
                Self::Status | Self::Acknowledge | Self::Settle | Self::PowerOff => writer,
            };
            true
        })
    }
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit status.
    Code(u8),
    /// Of this signal.
    Signal(u8),
}

/// What is known of a program that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub end: End,
    /// Processes that it left behind, which were killed.
    pub left_behind: u32,
    /// Processes of it that the kernel killed for want of memory.
    pub killed_for_memory: u32,
    /// The working directory had no room left.
    pub workdir_full: bool,
}

/// Where this boot of the guest is with its one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// No program was started.
    #[default]
    Idle,
    /// It runs, or what it left behind is being killed.
    Running,
    /// It has ended, and nothing of it is left.
    Exited(Exit),
}

/// The state of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// It is held.
    pub held: bool,
    /// Milliseconds of processor time that it and its descendants have had, where that is known.
    pub cpu_ms: Option<u64>,
    /// The first line of its progress file; empty where there is none.
    pub progress: Text<32>,
}

impl State {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let phase = reader.u8()?;
        let end = reader.u8()?;
        let left_behind = reader.u32()?;
        let killed_for_memory = reader.u32()?;
        let workdir_full = reader.bool()?;
        let exit = |end| Phase::Exited(Exit { end, left_behind, killed_for_memory, workdir_full });
        Some(Self {
            phase: match phase {
                0 => Phase::Idle,
                1 => Phase::Running,
                2 => exit(End::Code(end)),
                3 => exit(End::Signal(end)),
                _ => return None,
            },
            held: reader.bool()?,
            cpu_ms: Some(reader.u64()?).filter(|known| *known != u64::MAX),
            progress: Text::read(reader)?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let (phase, exit) = match self.phase {
            Phase::Idle => (0, None),
            Phase::Running => (1, None),
            Phase::Exited(exit @ Exit { end: End::Code(_), .. }) => (2, Some(exit)),
            Phase::Exited(exit @ Exit { end: End::Signal(_), .. }) => (3, Some(exit)),
        };
        let none = Exit { end: End::Code(0), left_behind: 0, killed_for_memory: 0, workdir_full: false };
        let Exit { end: End::Code(end) | End::Signal(end), left_behind, killed_for_memory, workdir_full } =
            exit.unwrap_or(none);
        writer.u8(phase).u8(end).u32(left_behind).u32(killed_for_memory).u8(workdir_full.into());
        writer.u8(self.held.into()).u64(self.cpu_ms.unwrap_or(u64::MAX)).word(self.progress.as_bytes());
    }
}

/// What the guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the crate's front page has a row for each")]
pub enum Reply<'a> {
    Welcome { nonce: u64, version: u16, state: State },
    Done { value: u64 },
    File { size: u64, mode: u32 },
    FileData { offset: u64, bytes: &'a [u8] },
    State(State),
    Refused(Refusal),
}

impl<'a> Reply<'a> {
    /// Whether a frame of this kind and length is one of these: what a decoder looks for.
    pub fn is_kind(kind: u8, _: usize) -> bool {
        (kind::WELCOME..=kind::REFUSED).contains(&kind)
    }

    /// Whether it may be a greeting, which is short.
    pub fn is_greeting(kind: u8, length: usize) -> bool {
        kind == kind::WELCOME && length <= 64
    }

    /// What a frame says; `None` where it is none of these, or not as it should be.
    pub fn read(frame: Frame<'a>) -> Option<Self> {
        let mut reader = Reader::new(frame.payload);
        let reply = match frame.kind {
            kind::WELCOME => {
                let (nonce, version) = (reader.u64()?, reader.u16()?);
                if version != VERSION {
                    // What follows is that version's own.
                    return Some(Self::Welcome { nonce, version, state: State::default() });
                }
                Self::Welcome { nonce, version, state: State::read(&mut reader)? }
            }
            kind::DONE => Self::Done { value: reader.u64()? },
            kind::FILE => Self::File { size: reader.u64()?, mode: reader.u32()? },
            kind::FILE_DATA => return Some(Self::FileData { offset: reader.u64()?, bytes: reader.rest() }),
            kind::STATE => Self::State(State::read(&mut reader)?),
            kind::REFUSED => Self::Refused(Refusal::read(&mut reader)?),
            _ => return None,
        };
        reader.is_empty().then_some(reply)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Welcome { .. } => kind::WELCOME,
            Self::Done { .. } => kind::DONE,
            Self::File { .. } => kind::FILE,
            Self::FileData { .. } => kind::FILE_DATA,
            Self::State(_) => kind::STATE,
            Self::Refused(_) => kind::REFUSED,
        }
    }

    /// Adds it to what is to be sent; `false` where it does not fit.
    pub fn write(&self, out: &mut Encoder, tag: u32) -> bool {
        out.frame(self.kind(), tag, |writer| {
            match self {
                Self::Welcome { nonce, version, state } => state.write(writer.u64(*nonce).u16(*version)),
                Self::Done { value } => drop(writer.u64(*value)),
                Self::File { size, mode } => drop(writer.u64(*size).u32(*mode)),
                Self::FileData { offset, bytes } => drop(writer.u64(*offset).bytes(bytes)),
                Self::State(state) => state.write(writer),
                Self::Refused(refusal) => refusal.write(writer),
            }
            true
        })
    }
}

/// A piece of a file, of at most `most` bytes, that `fill` writes where it is to be sent from.
///
/// # Errors
/// Those of `fill`; nothing is sent then. `Ok(None)` where there is no room.
pub(crate) fn write_piece<E>(
    out: &mut Encoder,
    tag: u32,
    offset: u64,
    most: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<Option<usize>, E> {
    let mut result = Ok(0);
    let fits = out.frame(kind::FILE_DATA, tag, |writer| {
        result = writer.u64(offset).fill(most, fill);
        result.is_ok()
    });
    result.map(|count| fits.then_some(count))
}
