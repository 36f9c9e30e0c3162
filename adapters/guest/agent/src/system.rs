//! What the host's requests come to in this system.

use vmtask_guest_wire::guest::{Answer, Supervisor, System};
use vmtask_guest_wire::message::{self, Launch, Text};
use vmtask_guest_wire::refusal::{About, Cause, NotRegular, Refusal as Refused};

use crate::files::{self, Kind, Refusal, Work};
use crate::format::Name;
use crate::incoming::{Incoming, PutError};
use crate::launch::{self, LaunchError, Order, Stream};
use crate::machine::{self, WorkdirError};
use crate::program::{Family, Lists};
use crate::sys::{self, End, Errno, Fd, HERE, Pid};
use crate::text::Path;
use crate::turn::Session;

/// Somebody else's system is not switched off, and its memory not settled.
const NOT_PERMITTED: i32 = 1;

/// The system that the agent is PID 1 of, or that of somebody else.
#[derive(Debug)]
pub struct Machine {
    work: Work,
    family: Family,
    lists: &'static mut Lists,
    incoming: Option<Incoming>,
    outgoing: Option<Fd>,
    program: Option<Pid>,
    /// Where the program says how far it is.
    progress: Option<Path>,
}

impl Machine {
    /// With this working directory, which need not be there yet. The program's family tells whose system it is.
    pub fn new(work: Work, family: Family, lists: &'static mut Lists) -> Self {
        Self { work, family, lists, incoming: None, outgoing: None, program: None, progress: None }
    }

    fn is_ours(&self) -> bool {
        self.family == Family::ControlGroup
    }

    /// Ends the program and all that it started, where the agent is about to end.
    pub fn kill(&self) {
        if let Some(program) = self.program {
            self.family.kill(program);
        }
    }

    fn fill_lists(&mut self, launch: &Launch<'_>) -> sys::Result<()> {
        self.lists.arguments.clear();
        self.lists.arguments.push(&[launch.program])?;
        for word in launch.arguments.iter() {
            self.lists.arguments.push(&[word])?;
        }
        launch::environment(self.lists, self.work.path().as_c())?;
        for word in launch.environment.iter() {
            self.lists.environment.push(&[word])?;
        }
        Ok(())
    }

    fn read_progress(&self, room: &mut [u8]) -> Option<usize> {
        let found = files::find(&self.work, self.progress.as_ref()?.as_bytes()).ok()?;
        sys::read(*files::reopen(&found).ok()?, room).ok()
    }
}

impl System for Machine {
    fn prepare(&mut self, clock: u64, seed: &[u8]) -> Answer<()> {
        if self.is_ours() {
            sys::set_time(clock).map_err(kernel)?;
            machine::seed(seed).map_err(kernel)?;
        }
        Ok(())
    }

    fn make_workdir(&mut self, disk: bool) -> Answer<u64> {
        if !self.is_ours() {
            return match sys::make_dir(HERE, self.work.path().as_c(), 0o755) {
                Ok(()) | Err(Errno::EXIST) => self.work.free().map_err(kernel),
                Err(error) => Err(kernel(error)),
            };
        }
        machine::make_workdir(&self.work, disk, self.lists).map_err(|error| match error {
            WorkdirError::NoDisk => Cause::NoDisk.into(),
            WorkdirError::Format => Cause::Format.into(),
            WorkdirError::Kernel(error) => kernel(error),
        })
    }

    fn begin_put(&mut self, name: &[u8], size: u64, mode: u32) -> Answer<()> {
        // The one before must go first: they are written at the same place.
        self.incoming = None;
        self.incoming = Some(Incoming::new(&self.work, name, size, mode).map_err(put_refused)?);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Answer<()> {
        self.incoming.as_mut().map_or(Err(PutError::Kernel(Errno::IO)), |file| file.write(bytes)).map_err(put_refused)
    }

    fn end_put(&mut self) -> Answer<()> {
        self.incoming.take().map_or(Err(PutError::Kernel(Errno::IO)), Incoming::finish).map_err(put_refused)
    }

    fn drop_put(&mut self) {
        self.incoming = None;
    }

    fn open(&mut self, name: &[u8]) -> Answer<(u64, u32)> {
        self.outgoing = None;
        let found = files::find(&self.work, name).map_err(refused)?;
        self.outgoing = Some(files::reopen(&found).map_err(kernel)?);
        Ok((found.size, found.mode & 0o7777))
    }

    fn read(&mut self, offset: u64, room: &mut [u8]) -> Answer<usize> {
        let file = self.outgoing.as_ref().ok_or(kernel(Errno::IO))?;
        sys::read_at(**file, room, offset).map_err(kernel)
    }

    fn close(&mut self) {
        self.outgoing = None;
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Answer<()> {
        self.fill_lists(launch).map_err(|_| Refused::from(Cause::BadWords))?;
        let order = Order {
            program: launch.program,
            stdout: Some(launch.stdout).filter(|name| !name.is_empty()),
            stderr: Some(launch.stderr).filter(|name| !name.is_empty()),
            linux32: launch.linux32,
        };
        let pid = launch::launch(&order, &self.work, self.family, self.lists).map_err(launch_refused)?;
        self.program = Some(pid);
        self.progress = Some(launch.progress).filter(|name| !name.is_empty()).and_then(|name| Path::new(&[name]).ok());
        Ok(())
    }

    fn hold(&mut self, hold: bool) -> Answer<()> {
        self.program.map_or(Ok(()), |program| self.family.hold(program, hold)).map_err(kernel)
    }

    fn cpu_ms(&mut self) -> Option<u64> {
        self.family.cpu_ms()
    }

    fn progress(&mut self) -> Text<32> {
        let mut room = [0; 32];
        let read = self.read_progress(&mut room).unwrap_or_default();
        let line = room.get(..read).unwrap_or_default().split(|byte| *byte == b'\n').next();
        Text::new(line.unwrap_or_default().trim_ascii())
    }

    fn killed_for_memory(&mut self) -> u32 {
        self.family.killed_for_memory().map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn is_workdir_full(&mut self) -> bool {
        self.work.open().and_then(|work| sys::stat_fs(*work)).is_ok_and(|stat| machine::is_full(&stat))
    }

    fn left_behind(&mut self) -> u32 {
        if self.family.is_populated() { self.family.count().max(1) } else { 0 }
    }

    fn kill_left_behind(&mut self) {
        self.kill();
    }

    fn settle(&mut self) -> Answer<u64> {
        if self.is_ours() { machine::settle().map_err(kernel) } else { Err(Cause::Kernel(NOT_PERMITTED).into()) }
    }

    fn power_off(&mut self) -> Answer<()> {
        if self.is_ours() { machine::power_off().map_err(kernel) } else { Err(Cause::Kernel(NOT_PERMITTED).into()) }
    }
}

impl Session for Supervisor<Machine> {
    fn input(&mut self, bytes: &[u8]) -> usize {
        self.input(bytes)
    }

    fn output(&mut self) -> &[u8] {
        self.output()
    }

    fn sent(&mut self, count: usize) {
        self.sent(count);
    }

    fn ended(&mut self, pid: Pid, end: End) {
        // The others are what the program left behind.
        if self.system().program == Some(pid) {
            self.ended(match end {
                End::Code(code) => message::End::Code(code),
                End::Signal(signal) => message::End::Signal(signal),
            });
        }
    }

    fn wake(&mut self, now: u64) -> Option<u64> {
        self.wake(now)
    }
}

fn kernel(error: Errno) -> Refused {
    match error {
        Errno::NOSPC => Cause::NoSpace(0),
        Errno::NAMETOOLONG => Cause::BadName,
        Errno(number) => Cause::Kernel(number),
    }
    .into()
}

fn refused(refusal: Refusal) -> Refused {
    let cause = match refusal {
        Refusal::Nothing => Cause::NoFile,
        Refusal::Not(kind) => Cause::Not(match kind {
            Kind::Directory => NotRegular::Directory,
            Kind::DeadLink => NotRegular::DeadLink,
            Kind::Fifo => NotRegular::Fifo,
            Kind::Socket => NotRegular::Socket,
            Kind::Device => NotRegular::Device,
        }),
        Refusal::Outside => Cause::Outside,
        Refusal::Kernel(error) => return kernel(error),
    };
    cause.into()
}

fn put_refused(error: PutError) -> Refused {
    match error {
        PutError::Name(refusal) => refused(refusal),
        PutError::NoSpace(free) => Cause::NoSpace(free).into(),
        PutError::Kernel(error) => kernel(error),
    }
}

fn launch_refused(error: LaunchError) -> Refused {
    let text = |name: Name| Text::new(name.as_bytes());
    let cause = match error {
        LaunchError::Program(refusal) => return refused(refusal),
        LaunchError::Output(stream, refusal) => {
            let about = match stream {
                Stream::Out => About::Stdout,
                Stream::Err => About::Stderr,
            };
            return Refused { about, ..refused(refusal) };
        }
        LaunchError::NoPermission => Cause::NotExecutable,
        LaunchError::Empty => Cause::EmptyProgram,
        LaunchError::CutOff => Cause::CutOff,
        LaunchError::NoInterpreter(name) => Cause::NoInterpreter(text(name)),
        LaunchError::CarriageReturn(name) => Cause::CarriageReturn(text(name)),
        LaunchError::Foreign(machine) => Cause::ForeignProcessor(machine),
        LaunchError::NoProgram => Cause::NoProgram,
        LaunchError::Kernel(error) => return kernel(error),
    };
    cause.into()
}
