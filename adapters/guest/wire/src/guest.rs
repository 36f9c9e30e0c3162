//! The guest's end: takes requests, has a [`System`] do them, answers, and tells how the program ends.
//!
//! ```text
//!          Launch                 ended                    nothing left
//!   Idle ─────────▶ Running ─────────────▶ Running, ending ─────────────▶ Exited ─▶ said each second until acknowledged
//! ```
//!
//! Time comes in by [`Supervisor::wake`], in nanoseconds of a clock that does not jump back.

use crate::frame::{Decoder, Encoder, Frame, PAYLOAD};
use crate::message::{self, End, Exit, Launch, Phase, Reply, Request, State, Text, VERSION};
use crate::refusal::{About, Cause, Refusal};

/// What came of what was asked of a system.
pub type Answer<T> = Result<T, Refusal>;

/// The guest's system, as far as the host's requests need it. Names were checked: see [`is_name`].
pub trait System {
    /// Sets the clock, in nanoseconds since 1970, and mixes the seed into the random pool.
    ///
    /// # Errors
    /// As the system's.
    fn prepare(&mut self, clock: u64, seed: &[u8]) -> Answer<()>;
    /// Makes the working directory unless it is there: bytes free in it.
    ///
    /// # Errors
    /// Without a disk, and as the system's.
    fn make_workdir(&mut self, disk: bool) -> Answer<u64>;
    /// Begins a file, which is not seen before [`System::end_put`]. Another one that was begun is gone.
    ///
    /// # Errors
    /// Where it cannot be, or has no room.
    fn begin_put(&mut self, name: &[u8], size: u64, mode: u32) -> Answer<()>;
    /// Adds to it.
    ///
    /// # Errors
    /// As the system's.
    fn put(&mut self, bytes: &[u8]) -> Answer<()>;
    /// Puts it in its place.
    ///
    /// # Errors
    /// As the system's.
    fn end_put(&mut self) -> Answer<()>;
    /// Lets the file go that was begun, if one was.
    fn drop_put(&mut self);
    /// Opens a file to be read: its size and mode. Another one that was open is closed.
    ///
    /// # Errors
    /// Where there is no such regular file in the working directory.
    fn open(&mut self, name: &[u8]) -> Answer<(u64, u32)>;
    /// Reads some of it: how many bytes; 0 at its end.
    ///
    /// # Errors
    /// As the system's.
    fn read(&mut self, offset: u64, room: &mut [u8]) -> Answer<usize>;
    /// Closes it, if one is open.
    fn close(&mut self);
    /// Starts the program. Its end comes by [`Supervisor::ended`], later.
    ///
    /// # Errors
    /// Why there is none; nothing of it is left then.
    fn launch(&mut self, launch: &Launch<'_>) -> Answer<()>;
    /// Stops all of the program's processes where they are, or lets them go on.
    ///
    /// # Errors
    /// As the system's.
    fn hold(&mut self, hold: bool) -> Answer<()>;
    /// Milliseconds of processor time of the program and its descendants, where that is known.
    fn cpu_ms(&mut self) -> Option<u64>;
    /// The first line of the launch's progress file.
    fn progress(&mut self) -> Text<32>;
    /// How many of the program's processes were killed for want of memory.
    fn killed_for_memory(&mut self) -> u32;
    /// Whether the working directory has no room left.
    fn is_workdir_full(&mut self) -> bool;
    /// How many processes are left of a program that has ended.
    fn left_behind(&mut self) -> u32;
    /// Kills them, which may take effect a little later.
    fn kill_left_behind(&mut self);
    /// Gives unused memory back, so that the guest's state is small: how many MiB.
    ///
    /// # Errors
    /// As the system's.
    fn settle(&mut self) -> Answer<u64>;
    /// Ends the machine. Returns only if that is refused, or takes its time.
    ///
    /// # Errors
    /// As the system's.
    fn power_off(&mut self) -> Answer<()>;
}

/// Whether these bytes name something in the working directory: no part is empty, `.` or `..`, and there is no NUL.
pub fn is_name(name: &[u8]) -> bool {
    !name.contains(&0) && name.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// How often an end is said until it is acknowledged.
const SECOND: u64 = 1_000_000_000;
/// How often it is looked whether what was killed has gone.
const KILLING: u64 = 10_000_000;
/// Progress is said no more often.
const LEAST_WATCH_MS: u32 = 50;
/// Every reply that carries no file's bytes has room here.
const REPLY: usize = 384;

/// The guest's half of a session, and what outlives sessions: the program's state. One for each boot.
#[derive(Debug, Clone)]
pub struct Supervisor<S> {
    decoder: Decoder,
    half: Half<S>,
}

#[derive(Debug, Clone)]
struct Half<S> {
    system: S,
    out: Encoder,
    greeted: bool,
    put: Option<Transfer>,
    get: Option<Transfer>,
    watch: Option<Watch>,
    phase: Phase,
    ending: Option<(End, u32)>,
    held: bool,
    cpu_ms: Option<u64>,
    acknowledged: bool,
    say_again: u64,
    now: u64,
}

#[derive(Debug, Clone, Copy)]
struct Transfer {
    tag: u32,
    offset: u64,
    size: u64,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    every: u64,
    due: u64,
    last: State,
}

impl<S: System> Supervisor<S> {
    /// That of a boot which has done nothing yet.
    pub const fn new(system: S) -> Self {
        let half = Half {
            system,
            out: Encoder::new(),
            greeted: false,
            put: None,
            get: None,
            watch: None,
            phase: Phase::Idle,
            ending: None,
            held: false,
            cpu_ms: None,
            acknowledged: false,
            say_again: 0,
            now: 0,
        };
        Self { decoder: Decoder::new(), half }
    }

    /// Its system.
    pub fn system(&self) -> &S {
        &self.half.system
    }

    /// Its system.
    pub fn system_mut(&mut self) -> &mut S {
        &mut self.half.system
    }

    /// Takes bytes from the host and does what they ask for: how many, fewer where output must go first. To be called again
    /// when output has gone, with nothing if there is nothing: a request may have been waiting.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            if let Some(frame) = self.decoder.frame() {
                if !self.half.has_room_for(frame) {
                    return taken;
                }
                self.half.take(frame);
                self.decoder.release();
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            let count = self.decoder.input(rest, Request::is_kind);
            taken = taken.saturating_add(count);
            if count == 0 && self.decoder.frame().is_none() {
                return taken;
            }
        }
    }

    /// Bytes for the host, until [`Self::sent`]. Some of them may be void after more input, and are then gone from here.
    pub fn output(&mut self) -> &[u8] {
        self.half.read_on();
        self.half.out.output()
    }

    /// So many of them have gone.
    pub fn sent(&mut self, count: usize) {
        self.half.out.sent(count);
    }

    /// The program's first process has ended.
    pub fn ended(&mut self, end: End) {
        self.half.ended(end);
    }

    /// It is `now`: does what is due, and says when it wants to be called again at the latest.
    pub fn wake(&mut self, now: u64) -> Option<u64> {
        self.half.wake(now)
    }
}

impl<S: System> Half<S> {
    /// Replies come in the order of requests, so one that is behind a running Get waits; but no greeting waits.
    fn has_room_for(&self, frame: Frame<'_>) -> bool {
        matches!(Request::read(frame), Some(Request::Hello { .. })) || (self.get.is_none() && self.out.room() >= REPLY)
    }

    fn take(&mut self, frame: Frame<'_>) {
        let tag = frame.tag;
        let request = Request::read(frame);
        if let Some(Request::Hello { nonce, version }) = request {
            return self.greet(tag, nonce, version);
        }
        if !self.greeted {
            return;
        }
        let answer = match request {
            // Answered where they end, or when they go wrong.
            Some(Request::Put { size, mode, name }) => return self.begin_put(tag, name, size, mode),
            Some(Request::PutData { offset, bytes }) => return self.put(tag, offset, bytes),
            Some(Request::Get { limit, name }) => return self.get(tag, name, limit),
            Some(Request::Status) => {
                let state = self.state();
                return self.say(tag, Reply::State(state));
            }
            Some(Request::Hello { .. }) => Ok(0),
            Some(Request::Prepare { clock, seed }) => self.system.prepare(clock, seed).map(|()| 0),
            Some(Request::Workdir { disk }) => self.system.make_workdir(disk),
            Some(Request::Launch(launch)) => self.launch(&launch).map(|()| 0),
            Some(Request::Watch { every_ms }) => {
                self.watch(every_ms);
                Ok(0)
            }
            Some(Request::Acknowledge) => {
                self.acknowledged = matches!(self.phase, Phase::Exited(_));
                Ok(0)
            }
            Some(Request::Hold { hold }) => self.hold(hold).map(|()| 0),
            Some(Request::Settle) => self.system.settle(),
            Some(Request::PowerOff) => self.system.power_off().map(|()| 0),
            None => Err(Cause::Unreadable.into()),
        };
        self.answer(tag, answer);
    }

    fn say(&mut self, tag: u32, reply: Reply<'_>) {
        // Whoever calls this has made sure that there is room.
        let _ = reply.write(&mut self.out, tag);
    }

    fn answer(&mut self, tag: u32, answer: Answer<u64>) {
        match answer {
            Ok(value) => self.say(tag, Reply::Done { value }),
            Err(refusal) => self.say(tag, Reply::Refused(refusal)),
        }
    }

    /// Whoever greets knows nothing of what was before, and nobody else is there any more.
    fn greet(&mut self, tag: u32, nonce: u64, version: u16) {
        self.out.clear();
        self.system.drop_put();
        self.system.close();
        self.put = None;
        self.get = None;
        self.watch = None;
        self.greeted = version == VERSION;
        self.say_again = self.now.saturating_add(SECOND);
        let state = self.state();
        self.say(tag, Reply::Welcome { nonce, version: VERSION, state });
    }

    fn state(&mut self) -> State {
        let running = self.phase == Phase::Running && self.ending.is_none();
        if running {
            self.cpu_ms = self.system.cpu_ms();
        }
        let progress = if self.phase == Phase::Idle { Text::default() } else { self.system.progress() };
        State { phase: self.phase, held: self.held, cpu_ms: self.cpu_ms, progress }
    }

    fn begin_put(&mut self, tag: u32, name: &[u8], size: u64, mode: u32) {
        if self.put.take().is_some() {
            self.system.drop_put();
        }
        let begun = if is_name(name) { self.system.begin_put(name, size, mode) } else { Err(Cause::BadName.into()) };
        match begun {
            Ok(()) => self.put_on(Transfer { tag, offset: 0, size }),
            Err(refusal) => self.answer(tag, Err(refusal)),
        }
    }

    /// What belongs to a file that was refused is passed over: it was sent before the host could know.
    fn put(&mut self, tag: u32, offset: u64, bytes: &[u8]) {
        let Some(mut put) = self.put.take_if(|put| put.tag == tag) else { return };
        let end = offset.checked_add(bytes.len() as u64).filter(|end| offset == put.offset && *end <= put.size);
        let put_on = match end {
            Some(_) => self.system.put(bytes),
            None => Err(Cause::OutOfStep.into()),
        };
        match put_on {
            Ok(()) => {
                put.offset = end.unwrap_or(put.offset);
                self.put_on(put);
            }
            Err(refusal) => {
                self.system.drop_put();
                self.answer(tag, Err(refusal));
            }
        }
    }

    fn put_on(&mut self, put: Transfer) {
        if put.offset < put.size {
            self.put = Some(put);
        } else {
            let ended = self.system.end_put();
            self.answer(put.tag, ended.map(|()| put.size));
        }
    }

    fn get(&mut self, tag: u32, name: &[u8], limit: u64) {
        let opened = if is_name(name) { self.system.open(name) } else { Err(Cause::BadName.into()) };
        match opened {
            Err(refusal) => self.answer(tag, Err(refusal)),
            Ok((size, _)) if size > limit => {
                self.system.close();
                self.answer(tag, Err(Cause::TooBig(size).into()));
            }
            Ok((size, mode)) => {
                self.say(tag, Reply::File { size, mode });
                self.get_on(Transfer { tag, offset: 0, size });
            }
        }
    }

    fn get_on(&mut self, get: Transfer) {
        if get.offset < get.size {
            self.get = Some(get);
        } else {
            self.get = None;
            self.system.close();
        }
    }

    /// The next piece of the file that is being read, when all before it has gone: then there is room for a whole frame.
    fn read_on(&mut self) {
        let Some(mut get) = self.get.filter(|_| self.out.is_empty()) else { return };
        let left = usize::try_from(get.size.saturating_sub(get.offset)).unwrap_or(PAYLOAD);
        let system = &mut self.system;
        let piece = message::write_piece(&mut self.out, get.tag, get.offset, left, |room| {
            match system.read(get.offset, room)? {
                0 => Err(Cause::Shrunk(get.offset).into()),
                count => Ok(count),
            }
        });
        match piece {
            Ok(count) => {
                get.offset = get.offset.saturating_add(count.unwrap_or(0) as u64);
                self.get_on(get);
            }
            Err(refusal) => {
                self.get = None;
                self.system.close();
                self.answer(get.tag, Err(refusal));
            }
        }
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Answer<()> {
        if self.phase != Phase::Idle {
            return Err(Cause::AlreadyLaunched.into());
        }
        let program = launch.program.strip_prefix(b"/").unwrap_or(launch.program);
        let streams =
            [(About::Stdout, launch.stdout), (About::Stderr, launch.stderr), (About::Progress, launch.progress)];
        // Only the program must have a name.
        let streams = streams.into_iter().filter(|(_, name)| !name.is_empty());
        for (about, name) in [(About::Request, program)].into_iter().chain(streams) {
            if !is_name(name) {
                return Err(Refusal { about, cause: Cause::BadName });
            }
        }
        self.system.launch(launch)?;
        self.phase = Phase::Running;
        Ok(())
    }

    fn watch(&mut self, every_ms: u32) {
        let every = u64::from(every_ms.max(LEAST_WATCH_MS)).saturating_mul(1_000_000);
        self.watch = (every_ms > 0).then(|| Watch { every, due: self.now, last: State::default() });
    }

    fn hold(&mut self, hold: bool) -> Answer<()> {
        if self.phase != Phase::Running || self.ending.is_some() {
            return Err(Cause::NotRunning.into());
        }
        self.system.hold(hold)?;
        self.held = hold;
        Ok(())
    }

    fn ended(&mut self, end: End) {
        if self.phase != Phase::Running || self.ending.is_some() {
            return;
        }
        self.cpu_ms = self.system.cpu_ms();
        let left = self.system.left_behind();
        self.ending = Some((end, left));
        self.held = false;
        self.end_all();
    }

    /// Told only when nothing runs any more: the host reads files next.
    fn end_all(&mut self) {
        let Some((end, left_behind)) = self.ending else { return };
        if self.system.left_behind() > 0 {
            return self.system.kill_left_behind();
        }
        self.ending = None;
        self.phase = Phase::Exited(Exit {
            end,
            left_behind,
            killed_for_memory: self.system.killed_for_memory(),
            workdir_full: self.system.is_workdir_full(),
        });
        self.say_again = self.now;
    }

    fn wake(&mut self, now: u64) -> Option<u64> {
        self.now = now;
        self.end_all();
        let killing = self.ending.map(|_| now.saturating_add(KILLING));
        [killing, self.push(now)].into_iter().flatten().min()
    }

    /// Says what the host is waiting for, if it is due: when the next time is.
    fn push(&mut self, now: u64) -> Option<u64> {
        if !self.greeted {
            return None;
        }
        // Where there is no room the host is not reading, and when it does there will be another turn.
        let room = self.out.room() >= REPLY;
        match (self.phase, self.watch) {
            (Phase::Exited(_), _) if !self.acknowledged => {
                if now >= self.say_again {
                    self.say_again = now.saturating_add(SECOND);
                    let state = self.state();
                    if room {
                        self.say(0, Reply::State(state));
                    }
                }
                Some(self.say_again)
            }
            (Phase::Running, Some(mut watch)) => {
                if now >= watch.due {
                    watch.due = now.saturating_add(watch.every);
                    let state = self.state();
                    if room && state != watch.last {
                        watch.last = state;
                        self.say(0, Reply::State(state));
                    }
                    self.watch = Some(watch);
                }
                Some(watch.due)
            }
            _ => None,
        }
    }
}
