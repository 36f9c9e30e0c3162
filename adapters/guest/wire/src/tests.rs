//! Both ends against each other, over streams that are cut, and a guest that is taken back.

#![allow(clippy::unwrap_used)]

use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use crate::frame::{Decoder, Encoder, FRAME, PAYLOAD};
use crate::guest::{Answer, Supervisor, System};
use crate::host::{Event, NotSent, Session};
use crate::message::{End, Exit, Launch, Phase, Reply, Request, State, Text, VERSION, Words};
use crate::refusal::{About, Cause, NotRegular, Refusal};

/// A system in memory.
#[derive(Debug, Clone, Default)]
struct Memory {
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    incoming: Option<(Vec<u8>, Vec<u8>)>,
    open: Option<Vec<u8>>,
    launches: u32,
    left: u32,
    /// What is left survives so many kills.
    stubborn: u32,
    held: bool,
    progress: Text<32>,
    cpu_ms: u64,
}

impl System for Memory {
    fn prepare(&mut self, _: u64, _: &[u8]) -> Answer<()> {
        Ok(())
    }
    fn make_workdir(&mut self, disk: bool) -> Answer<u64> {
        if disk { Err(Cause::NoDisk.into()) } else { Ok(1 << 20) }
    }
    fn begin_put(&mut self, name: &[u8], size: u64, _: u32) -> Answer<()> {
        self.incoming = Some((name.into(), Vec::new()));
        if size > 1 << 20 { Err(Cause::NoSpace(1 << 20).into()) } else { Ok(()) }
    }
    fn put(&mut self, bytes: &[u8]) -> Answer<()> {
        self.incoming.as_mut().unwrap().1.extend(bytes);
        Ok(())
    }
    fn end_put(&mut self) -> Answer<()> {
        let (name, bytes) = self.incoming.take().unwrap();
        self.files.insert(name, bytes);
        Ok(())
    }
    fn drop_put(&mut self) {
        self.incoming = None;
    }
    fn open(&mut self, name: &[u8]) -> Answer<(u64, u32)> {
        let size = self.files.get(name).ok_or(Refusal::from(Cause::NoFile))?.len();
        self.open = Some(name.into());
        Ok((size as u64, 0o644))
    }
    fn read(&mut self, offset: u64, room: &mut [u8]) -> Answer<usize> {
        let bytes = &self.files[self.open.as_ref().unwrap()];
        let bytes = bytes.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }
    fn close(&mut self) {
        self.open = None;
    }
    fn launch(&mut self, launch: &Launch<'_>) -> Answer<()> {
        if !self.files.contains_key(launch.program) {
            return Err(Cause::NoFile.into());
        }
        self.launches += 1;
        Ok(())
    }
    fn hold(&mut self, hold: bool) -> Answer<()> {
        self.held = hold;
        Ok(())
    }
    fn cpu_ms(&mut self) -> Option<u64> {
        Some(self.cpu_ms)
    }
    fn progress(&mut self) -> Text<32> {
        self.progress
    }
    fn killed_for_memory(&mut self) -> u32 {
        0
    }
    fn is_workdir_full(&mut self) -> bool {
        false
    }
    fn left_behind(&mut self) -> u32 {
        self.left
    }
    fn kill_left_behind(&mut self) {
        match self.stubborn.checked_sub(1) {
            Some(less) => self.stubborn = less,
            None => self.left = 0,
        }
    }
    fn settle(&mut self) -> Answer<u64> {
        Ok(7)
    }
    fn power_off(&mut self) -> Answer<()> {
        Err(Cause::Kernel(1).into())
    }
}

/// What came, without borrowing.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Greeted(State),
    Version(u16),
    Done(u32, u64),
    File(u32, u64),
    Piece(u32, u64, Vec<u8>),
    Answer(u32, State),
    State(State),
    Refused(u32, Refusal),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Greeted { version: VERSION, state } => Self::Greeted(state),
            Event::Greeted { version, .. } => Self::Version(version),
            Event::State(state) => Self::State(state),
            Event::Reply(tag, Reply::Done { value }) => Self::Done(tag, value),
            Event::Reply(tag, Reply::File { size, .. }) => Self::File(tag, size),
            Event::Reply(tag, Reply::FileData { offset, bytes }) => Self::Piece(tag, offset, bytes.into()),
            Event::Reply(tag, Reply::State(state)) => Self::Answer(tag, state),
            Event::Reply(tag, Reply::Refused(refusal)) => Self::Refused(tag, refusal),
            Event::Reply(_, Reply::Welcome { .. }) => unreachable!("filtered"),
        }
    }
}

type Guest = Box<Supervisor<Memory>>;
type Host = Box<Session>;

fn guest() -> Guest {
    Box::new(Supervisor::new(Memory::default()))
}

fn host(nonce: u64) -> Host {
    Box::new(Session::new(nonce))
}

/// Everything that the host has to say, at once.
fn from_host(host: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !host.output().is_empty() {
        bytes.extend(host.output());
        host.sent(host.output().len());
    }
    bytes
}

/// Everything that the guest has to say, at once; `Vec`s of its single outputs.
fn from_guest(guest: &mut Supervisor<Memory>) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        guest.input(&[]);
        let output = guest.output();
        if output.is_empty() {
            return bytes;
        }
        bytes.extend(output);
        let count = output.len();
        guest.sent(count);
    }
}

/// The guest takes all of it, and what it says meanwhile.
fn to_guest(guest: &mut Supervisor<Memory>, mut bytes: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    while !bytes.is_empty() {
        bytes = &bytes[guest.input(bytes)..];
        said.extend(from_guest(guest));
    }
    said
}

fn to_host(host: &mut Session, mut bytes: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    loop {
        let taken = host.input(bytes);
        bytes = &bytes[taken..];
        match host.event() {
            Some(event) => said.push(event.into()),
            None if bytes.is_empty() => return said,
            None => {}
        }
        host.next();
    }
}

/// Until neither has anything more to say.
fn talk(host: &mut Session, guest: &mut Supervisor<Memory>) -> Vec<Said> {
    let bytes = from_host(host);
    let bytes = to_guest(guest, &bytes);
    to_host(host, &bytes)
}

fn greeted(guest: &mut Supervisor<Memory>, nonce: u64) -> (Host, State) {
    let mut host = host(nonce);
    let said = talk(&mut host, guest);
    let [Said::Greeted(state)] = said[..] else { panic!("{said:?}") };
    (host, state)
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + seed) * 151 % 251) as u8).collect()
}

fn put(host: &mut Session, name: &[u8], bytes: &[u8]) -> u32 {
    let tag = host.request(&Request::Put { size: bytes.len() as u64, mode: 0o755, name }).unwrap();
    for (at, piece) in bytes.chunks(70).enumerate() {
        host.piece(tag, at as u64 * 70, piece).unwrap();
    }
    tag
}

const LAUNCH: Launch<'_> = Launch {
    program: b"dir/program",
    stdout: b"out",
    stderr: b"",
    progress: b"p",
    linux32: false,
    arguments: Words::new(&[b"a", b"", b"c"]),
    environment: Words::new(&[b"A=b"]),
};

/// A whole task's requests, but for the program's end.
fn ask(host: &mut Session) {
    host.request(&Request::Prepare { clock: 5, seed: b"seed" }).unwrap();
    host.request(&Request::Workdir { disk: false }).unwrap();
    put(host, b"dir/program", &bytes(300, 1));
    put(host, b"empty", b"");
    host.request(&Request::Launch(LAUNCH)).unwrap();
    host.request(&Request::Get { limit: 300, name: b"dir/program" }).unwrap();
    host.request(&Request::Get { limit: 299, name: b"dir/program" }).unwrap();
    host.request(&Request::Status).unwrap();
}

fn running(cpu_ms: u64) -> State {
    State { phase: Phase::Running, cpu_ms: Some(cpu_ms), ..State::default() }
}

fn expected(launched_before: bool) -> Vec<Said> {
    let launched = if launched_before { Said::Refused(5, Cause::AlreadyLaunched.into()) } else { Said::Done(5, 0) };
    vec![
        Said::Done(1, 0),
        Said::Done(2, 1 << 20),
        Said::Done(3, 300),
        Said::Done(4, 0),
        launched,
        Said::File(6, 300),
        Said::Piece(6, 0, bytes(300, 1)),
        Said::Refused(7, Cause::TooBig(300).into()),
        Said::Answer(8, running(0)),
    ]
}

#[test]
fn a_session_is_the_same_wherever_the_streams_are_cut() {
    let (mut at_host, state) = greeted(&mut guest(), 1);
    assert_eq!(state, State::default());
    ask(&mut at_host);
    let length = from_host(&mut at_host).len();
    let mut outward = usize::MAX;
    for cut in 0..length {
        let mut guest = guest();
        let (mut host, _) = greeted(&mut guest, 1);
        ask(&mut host);
        let bytes = from_host(&mut host);
        let mut answer = to_guest(&mut guest, &bytes[..cut]);
        answer.extend(to_guest(&mut guest, &bytes[cut..]));
        outward = answer.len();
        assert_eq!(to_host(&mut host, &answer), expected(false), "inwards, cut at {cut}");
        assert_eq!(guest.system().files[&b"dir/program"[..]], self::bytes(300, 1));
    }
    for cut in 0..outward {
        let mut guest = guest();
        let (mut host, _) = greeted(&mut guest, 1);
        ask(&mut host);
        let answer = to_guest(&mut guest, &from_host(&mut host));
        let mut said = to_host(&mut host, &answer[..cut]);
        said.extend(to_host(&mut host, &answer[cut..]));
        assert_eq!(said, expected(false), "outwards, cut at {cut}");
    }
}

#[test]
fn a_guest_taken_back_to_any_byte_it_had_read_is_in_step_again_and_launches_once() {
    let mut before = guest();
    let (mut host, _) = greeted(&mut before, 1);
    ask(&mut host);
    let inward = from_host(&mut host);
    for cut in 0..=inward.len() {
        let mut guest = before.clone();
        let mut rest = &inward[..cut];
        // What it says reaches nobody.
        while !rest.is_empty() {
            rest = &rest[guest.input(rest)..];
            from_guest(&mut guest);
        }
        let launched = guest.system().launches == 1;
        let (mut host, state) = greeted(&mut guest, 2);
        assert_eq!(state.phase == Phase::Running, launched, "cut at {cut}");
        ask(&mut host);
        assert_eq!(talk(&mut host, &mut guest), expected(launched), "cut at {cut}");
        assert_eq!(guest.system().launches, 1);
    }
}

#[test]
fn a_guest_taken_back_to_any_byte_it_had_written_is_in_step_again() {
    let mut before = guest();
    let (mut host, _) = greeted(&mut before, 1);
    // What it has half sent looks like frames itself, and like an older greeting.
    let mut lookalike = Box::new(Encoder::new());
    assert!(Reply::Welcome { nonce: 1, version: VERSION, state: State::default() }.write(&mut lookalike, 0));
    assert!(Reply::Done { value: 1 }.write(&mut lookalike, 1));
    let mut content = lookalike.output().to_vec();
    content.extend([0xd5, 0x76, 0x84, 0, 0xe0, 0xff, 0, 0]);
    before.system_mut().files.insert(b"f".to_vec(), content.clone());
    host.request(&Request::Get { limit: 1000, name: b"f" }).unwrap();
    host.request(&Request::Status).unwrap();
    let inward = from_host(&mut host);
    let outward = to_guest(&mut before.clone(), &inward).len();
    for cut in 0..outward {
        let mut guest = before.clone();
        guest.input(&inward);
        let mut left = cut;
        while left > 0 {
            guest.input(&[]);
            let count = left.min(guest.output().len());
            guest.sent(count);
            left -= count;
        }
        // The new host gets what the guest goes on to say before it hears of that host.
        let tail = from_guest(&mut guest.clone());
        let mut host = self::host(2);
        assert_eq!(to_host(&mut host, &tail), [], "cut at {cut}");
        let said = talk(&mut host, &mut guest);
        assert_eq!(said, [Said::Greeted(State::default())], "cut at {cut}");
        host.request(&Request::Get { limit: 1000, name: b"f" }).unwrap();
        let said = talk(&mut host, &mut guest);
        assert_eq!(said, [Said::File(1, content.len() as u64), Said::Piece(1, 0, content.clone())], "cut at {cut}");
    }
}

#[test]
fn an_end_is_said_until_it_is_acknowledged_and_by_then_nothing_runs() {
    const SECOND: u64 = 1_000_000_000;
    let mut guest = guest();
    let (mut host, _) = greeted(&mut guest, 1);
    ask(&mut host);
    talk(&mut host, &mut guest);
    guest.system_mut().left = 3;
    guest.system_mut().stubborn = 2;
    guest.system_mut().cpu_ms = 12;
    let mut now = 5 * SECOND;
    assert_eq!(guest.wake(now), None);
    guest.ended(End::Signal(2));
    let mut turns = 0;
    while guest.system().left > 0 {
        now = guest.wake(now).expect("called again as long as something is left");
        turns += 1;
    }
    assert_eq!(turns, 2);
    let exit = Exit { end: End::Signal(2), left_behind: 3, killed_for_memory: 0, workdir_full: false };
    let state = State { phase: Phase::Exited(exit), cpu_ms: Some(12), ..State::default() };
    for _ in 0..3 {
        now = guest.wake(now).expect("said again");
        assert_eq!(to_host(&mut host, &from_guest(&mut guest)), [Said::State(state)]);
        assert_eq!(guest.wake(now - 1), Some(now), "not before");
        assert_eq!(from_guest(&mut guest), []);
    }
    let (mut host, said) = greeted(&mut guest, 2);
    assert_eq!(said, state, "a greeting says it too");
    let tag = host.request(&Request::Acknowledge).unwrap();
    assert_eq!(talk(&mut host, &mut guest), [Said::Done(tag, 0)]);
    assert_eq!(guest.wake(now + 10 * SECOND), None);
    let tag = host.request(&Request::Hold { hold: true }).unwrap();
    assert_eq!(talk(&mut host, &mut guest), [Said::Refused(tag, Cause::NotRunning.into())]);
    guest.ended(End::Code(0));
    assert_eq!(greeted(&mut guest, 3).1, state, "it ends once");
}

#[test]
fn progress_is_said_when_it_changes_and_no_more_often_than_asked() {
    const MS: u64 = 1_000_000;
    let mut guest = guest();
    let (mut host, _) = greeted(&mut guest, 1);
    ask(&mut host);
    host.request(&Request::Watch { every_ms: 250 }).unwrap();
    host.request(&Request::Hold { hold: true }).unwrap();
    talk(&mut host, &mut guest);
    assert!(guest.system().held);
    let held = State { held: true, ..running(0) };
    assert_eq!(guest.wake(0), Some(250 * MS));
    assert_eq!(to_host(&mut host, &from_guest(&mut guest)), [Said::State(held)]);
    guest.system_mut().progress = Text::new(b"0.5");
    assert_eq!(guest.wake(249 * MS), Some(250 * MS));
    assert_eq!(from_guest(&mut guest), []);
    assert_eq!(guest.wake(250 * MS), Some(500 * MS));
    let half = State { progress: Text::new(b"0.5"), ..held };
    assert_eq!(to_host(&mut host, &from_guest(&mut guest)), [Said::State(half)]);
    guest.wake(500 * MS);
    assert_eq!(from_guest(&mut guest), [], "nothing has changed");
    host.request(&Request::Watch { every_ms: 0 }).unwrap();
    talk(&mut host, &mut guest);
    assert_eq!(guest.wake(750 * MS), None);
}

#[test]
fn what_is_wrong_with_a_request_is_said_and_the_next_one_is_done() {
    let mut guest = guest();
    let (mut host, _) = greeted(&mut guest, 1);
    let mut expected = Vec::new();
    for name in ["", "/", "/abs", "a//b", "a/", ".", "../x", "a/../b", "nul\0"] {
        let tag = put(&mut host, name.as_bytes(), b"bytes");
        expected.push(Said::Refused(tag, Cause::BadName.into()));
        let tag = host.request(&Request::Get { limit: 1, name: name.as_bytes() }).unwrap();
        expected.push(Said::Refused(tag, Cause::BadName.into()));
    }
    let tag = host.request(&Request::Put { size: u64::MAX, mode: 0, name: b"large" }).unwrap();
    host.piece(tag, 0, b"on its way already").unwrap();
    expected.push(Said::Refused(tag, Cause::NoSpace(1 << 20).into()));
    for (offset, piece) in [(1, &b"abc"[..]), (0, b"abcde"), (u64::MAX, b"a")] {
        let tag = host.request(&Request::Put { size: 4, mode: 0, name: b"gap" }).unwrap();
        host.piece(tag, offset, piece).unwrap();
        expected.push(Said::Refused(tag, Cause::OutOfStep.into()));
    }
    let tag = host.request(&Request::Workdir { disk: true }).unwrap();
    expected.push(Said::Refused(tag, Cause::NoDisk.into()));
    let tag = host.request(&Request::Get { limit: 1, name: b"none" }).unwrap();
    expected.push(Said::Refused(tag, Cause::NoFile.into()));
    for (about, launch) in [
        (About::Request, Launch { program: b"/", ..LAUNCH }),
        (About::Request, Launch { program: b"", ..LAUNCH }),
        (About::Stdout, Launch { stdout: b"../out", ..LAUNCH }),
        (About::Stderr, Launch { stderr: b"/err", ..LAUNCH }),
        (About::Progress, Launch { progress: b".", ..LAUNCH }),
    ] {
        let tag = host.request(&Request::Launch(launch)).unwrap();
        expected.push(Said::Refused(tag, Refusal { about, cause: Cause::BadName }));
    }
    let tag = host.request(&Request::Launch(LAUNCH)).unwrap();
    expected.push(Said::Refused(tag, Cause::NoFile.into()));
    let tag = host.request(&Request::PowerOff).unwrap();
    expected.push(Said::Refused(tag, Cause::Kernel(1).into()));
    let tag = host.request(&Request::Settle).unwrap();
    expected.push(Said::Done(tag, 7));
    assert_eq!(talk(&mut host, &mut guest), expected);
    assert_eq!(guest.system().files, BTreeMap::new());
    assert!(guest.system().incoming.is_none());
    assert_eq!(guest.system().launches, 0);
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_refused() {
    let mut guest = guest();
    let (mut host, _) = greeted(&mut guest, 1);
    guest.system_mut().files.insert(b"f".to_vec(), bytes(3 * PAYLOAD, 0));
    let tag = host.request(&Request::Get { limit: u64::MAX, name: b"f" }).unwrap();
    guest.input(&from_host(&mut host));
    let mut said = Vec::new();
    for _ in 0..2 {
        let output = guest.output().to_vec();
        guest.sent(output.len());
        said.extend(to_host(&mut host, &output));
    }
    guest.system_mut().files.insert(b"f".to_vec(), Vec::new());
    said.extend(to_host(&mut host, &from_guest(&mut guest)));
    let first = (PAYLOAD - 8) as u64;
    assert_eq!(said[0], Said::File(tag, 3 * PAYLOAD as u64));
    assert!(matches!(&said[1], Said::Piece(_, 0, piece) if piece.len() as u64 == first));
    assert_eq!(said[2..], [Said::Refused(tag, Cause::Shrunk(first).into())]);
}

#[test]
fn a_greeting_ends_a_transfer_that_nobody_reads() {
    let mut guest = guest();
    let (mut host, _) = greeted(&mut guest, 1);
    guest.system_mut().files.insert(b"f".to_vec(), bytes(3 * PAYLOAD, 0));
    host.request(&Request::Get { limit: u64::MAX, name: b"f" }).unwrap();
    let bytes = from_host(&mut host);
    assert_eq!(guest.input(&bytes), bytes.len());
    assert!(!guest.output().is_empty());
    guest.sent(10);
    assert!(guest.system().open.is_some());
    host.start(2);
    let bytes = from_host(&mut host);
    // Not one byte has gone out meanwhile.
    assert_eq!(guest.input(&bytes), bytes.len());
    assert!(guest.system().open.is_none());
    assert_eq!(to_host(&mut host, &from_guest(&mut guest)), [Said::Greeted(State::default())]);
}

#[test]
fn another_version_is_told_and_asked_for_nothing() {
    let mut guest = guest();
    let mut stranger = Box::new(Encoder::new());
    assert!(Request::Hello { nonce: 9, version: VERSION + 1 }.write(&mut stranger, 0));
    assert!(Request::Settle.write(&mut stranger, 1));
    let said = to_guest(&mut guest, stranger.output());
    assert_eq!(to_host(&mut host(9), &said), [Said::Greeted(State::default())]);

    let mut host = host(9);
    assert_eq!(host.request(&Request::Status), Err(NotSent::NotGreeted));
    stranger.clear();
    assert!(Reply::Welcome { nonce: 9, version: 2, state: State::default() }.write(&mut stranger, 0));
    assert_eq!(to_host(&mut host, stranger.output()), [Said::Version(2)]);
    assert!(!host.is_greeted());
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let (mut host, _) = greeted(&mut guest(), 1);
    let long = bytes(PAYLOAD, 0);
    assert_eq!(host.request(&Request::Prepare { clock: 0, seed: &long }), Err(NotSent::TooLong));
    assert_eq!(host.piece(1, 0, &long[8..]), Ok(()));
    assert_eq!(from_host(&mut host).len(), FRAME);
    let many = vec![&b"word"[..]; 20_000];
    let launch = Launch { arguments: Words::new(&many), ..LAUNCH };
    assert_eq!(host.request(&Request::Launch(launch)), Err(NotSent::TooLong));
    assert_eq!(host.request(&Request::Status), Ok(1), "the number was not used");
    assert_eq!(host.piece(1, 0, &long[8..]), Err(NotSent::Full));
}

#[test]
fn every_refusal_and_every_state_arrives_as_it_was() {
    let name = Text::new(b"/lib/ld.so");
    let causes = [
        Cause::Unreadable,
        Cause::NoFile,
        Cause::BadName,
        Cause::Not(NotRegular::Directory),
        Cause::Not(NotRegular::DeadLink),
        Cause::Not(NotRegular::Fifo),
        Cause::Not(NotRegular::Socket),
        Cause::Not(NotRegular::Device),
        Cause::Outside,
        Cause::TooBig(u64::MAX),
        Cause::NoSpace(1),
        Cause::Shrunk(2),
        Cause::OutOfStep,
        Cause::NoDisk,
        Cause::Format,
        Cause::AlreadyLaunched,
        Cause::NotRunning,
        Cause::NotExecutable,
        Cause::EmptyProgram,
        Cause::CutOff,
        Cause::NoInterpreter(name),
        Cause::CarriageReturn(name),
        Cause::ForeignProcessor(183),
        Cause::NoProgram,
        Cause::BadWords,
        Cause::Kernel(28),
    ];
    for cause in causes {
        for about in [About::Request, About::Stdout, About::Stderr, About::Progress] {
            arrives(Reply::Refused(Refusal { about, cause }));
        }
    }
    for end in [End::Code(130), End::Signal(11)] {
        let exit = Exit { end, left_behind: 1, killed_for_memory: 2, workdir_full: true };
        let state = State { phase: Phase::Exited(exit), held: true, cpu_ms: None, progress: Text::new(b"0.25") };
        arrives(Reply::State(state));
        arrives(Reply::Welcome { nonce: 1, version: VERSION, state });
    }
    // The longest greeting must pass for one: see `Reply::is_greeting`.
    let state = State { progress: Text::new(&[b'x'; 32]), ..State::default() };
    arrives(Reply::Welcome { nonce: u64::MAX, version: VERSION, state });
}

fn arrives(reply: Reply<'_>) {
    let mut out = Box::new(Encoder::new());
    assert!(reply.write(&mut out, 3));
    let mut decoder = Box::new(Decoder::new());
    let wanted = if matches!(reply, Reply::Welcome { .. }) {
        Reply::is_greeting
    } else {
        Reply::is_kind as fn(u8, usize) -> bool
    };
    assert_eq!(decoder.input(out.output(), wanted), out.output().len());
    let frame = decoder.frame().expect("a frame");
    assert_eq!((Reply::read(frame), frame.tag), (Some(reply), 3));
    // Whatever is cut off from it is no message.
    for length in 0..frame.payload.len() {
        let short = crate::frame::Frame { payload: &frame.payload[..length], ..frame };
        assert_eq!(Reply::read(short), None, "{length} bytes of {reply:?}");
    }
}

/// Frames, garbage, and pieces of frames.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50),
        Just(crate::frame::MAGIC.to_vec()),
        (any::<u8>(), 0..300_u32).prop_map(|(kind, length)| {
            let mut head = vec![0xd5, 0x76, (kind % 16) | (kind & 0x80), 0];
            head.extend(length.to_le_bytes());
            head
        }),
        (any::<u64>(), 0..60_usize).prop_map(|(number, cut)| {
            let mut out = Encoder::new();
            Request::Put { size: number % 99, mode: 0, name: b"noise" }.write(&mut out, 1);
            Request::PutData { offset: 0, bytes: b"piece" }.write(&mut out, 1);
            Reply::Done { value: number }.write(&mut out, 1);
            out.output()[cut..].to_vec()
        }),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn behind_garbage_both_ends_find_each_other(inward in noise(), outward in noise(), at in any::<prop::sample::Index>()) {
        let mut guest = guest();
        let (mut host, _) = greeted(&mut guest, 1);
        ask(&mut host);
        let mut bytes = from_host(&mut host);
        bytes.truncate(at.index(bytes.len()));
        bytes.extend(inward);
        to_guest(&mut guest, &bytes);
        let mut host = self::host(2);
        prop_assert_eq!(to_host(&mut host, &outward), []);
        let bytes = to_guest(&mut guest, &from_host(&mut host));
        let mut said = to_host(&mut host, &bytes);
        // The end of the garbage can at most swallow one short answer, to a greeting that is repeated.
        while said.is_empty() {
            host.greet();
            said = talk(&mut host, &mut guest);
        }
        let launched = guest.system().launches == 1;
        ask(&mut host);
        prop_assert_eq!(talk(&mut host, &mut guest), expected(launched));
    }

    #[test]
    fn a_frame_with_one_byte_changed_is_no_frame(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let mut out = Encoder::new();
        Reply::Done { value: 77 }.write(&mut out, 5);
        let mut bytes = out.output().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        bytes.extend([0; FRAME]);
        let mut decoder = Decoder::new();
        prop_assert_eq!(decoder.input(&bytes, |_, _| true), bytes.len());
        prop_assert!(decoder.frame().is_none());
    }
}

#[test]
fn a_frame_is_found_behind_whatever_looks_like_the_beginning_of_one() {
    for pattern in
        [&[0xd5][..], &[0xd5, 0x76], &[0xd5, 0x76, 0x82, 0, 0xf0, 0xff], &[0xd5, 0x76, 0x82, 0, 0xec, 0xff, 0, 0]]
    {
        let mut bytes: Vec<u8> = pattern.iter().copied().cycle().take(FRAME + 99).collect();
        let mut out = Box::new(Encoder::new());
        assert!(Reply::Done { value: 1 }.write(&mut out, 9));
        bytes.extend(out.output());
        // Whatever began before ends in here.
        bytes.extend(vec![0; FRAME]);
        let mut decoder = Box::new(Decoder::new());
        let mut rest = &bytes[..];
        let mut found = 0;
        while !rest.is_empty() {
            rest = &rest[decoder.input(rest, Reply::is_kind)..];
            if let Some(frame) = decoder.frame() {
                assert_eq!((frame.tag, Reply::read(frame)), (9, Some(Reply::Done { value: 1 })));
                found += 1;
                decoder.release();
            }
        }
        assert_eq!(found, 1, "{pattern:x?}");
    }
}

#[test]
fn text_shows_what_it_holds() {
    let shown: String = format!("{:?}", Text::<8>::new(b"a\nlonger text"));
    assert_eq!(shown, r#""a\nlonger""#);
}
