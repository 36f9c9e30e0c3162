//! The task's program: started once, alone in a session and a control group, and waited for.

use core::ffi::CStr;

use crate::sys::{self, Borrowed, End, Errno, Fd, HERE, Open, Pid, Signals, Which, Words};
use crate::text::{self, Path};

/// What a message can carry at most, so that a list of words never lacks room.
const WORD_BYTES: usize = 1 << 16;
const WORD_COUNT: usize = 1 << 13;

/// A list of words for a program.
pub type List = Words<WORD_BYTES, WORD_COUNT>;

/// Both lists, in the program's own memory: 256 KiB.
#[derive(Debug)]
pub struct Lists {
    pub arguments: List,
    pub environment: List,
}

impl Lists {
    pub const fn new() -> Self {
        Self { arguments: List::new(), environment: List::new() }
    }
}

/// How the child begins.
#[derive(Debug)]
pub struct Start<'a> {
    pub program: &'a CStr,
    pub stdout: Borrowed,
    pub stderr: Borrowed,
    /// `uname -m` says `i686`.
    pub linux32: bool,
    pub work: &'a CStr,
    pub family: Family,
}

/// Starts the program.
///
/// # Errors
/// What the kernel said, of `execve(2)` itself or of what comes before it; no process is left then.
pub fn start(start: &Start<'_>, lists: &mut Lists) -> sys::Result<Pid> {
    let null = sys::open(c"/dev/null", Open::READ)?;
    let group = start.family.door()?;
    let (from, to) = sys::pipe()?;
    let Some(pid) = sys::fork()? else {
        let error = begin(start, lists, &null, group.as_ref());
        // Nobody could be told that this failed.
        let _ = sys::write_all(*to, &error.0.to_ne_bytes());
        sys::exit(127);
    };
    drop(to);
    // Its end of the pipe closes when it has become the program, or has ended.
    let mut number = [0; 4];
    let got = loop {
        match sys::read(*from, &mut number) {
            Err(Errno::INTR) => {}
            got => break got?,
        }
    };
    if got < number.len() {
        return Ok(pid);
    }
    sys::wait(Which::One(pid), true)?;
    Err(Errno(i32::from_ne_bytes(number)))
}

/// In the child: becomes the program, or returns why not.
fn begin(start: &Start<'_>, lists: &mut Lists, null: &Fd, group: Option<&Fd>) -> Errno {
    let Err(error) = prepare(start, null, group) else {
        return sys::execute(start.program, &mut lists.arguments, &mut lists.environment);
    };
    error
}

fn prepare(start: &Start<'_>, null: &Fd, group: Option<&Fd>) -> sys::Result<()> {
    if let Some(group) = group {
        sys::write_all(**group, b"0")?;
    }
    // A program that signals its process group hits nobody else.
    sys::new_session()?;
    sys::default_signals();
    sys::block_signals(sys::Signals::NONE)?;
    // Out of memory, the program goes and the agent stays. Neither is refused to root, and others have nothing to lift.
    let _ = text::set(c"/proc/self/oom_score_adj", b"500");
    let _ = sys::set_nice(0);
    if start.linux32 {
        sys::become_linux32()?;
    }
    sys::change_dir(start.work)?;
    sys::become_standard(**null, 0)?;
    sys::become_standard(start.stdout, 1)?;
    sys::become_standard(start.stderr, 2)
}

/// How the program's processes are kept together.
///
/// PID 1 has a control group for them, which nothing leaves. An ordinary program makes none among those of somebody else's
/// system: there the process group counts, and whoever leaves that becomes the agent's own child when its parent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    ControlGroup,
    Children,
}

impl Family {
    /// The way in, opened before there is anybody to go in.
    fn door(self) -> sys::Result<Option<Fd>> {
        match self {
            Self::Children => sys::adopt_orphans().map(|()| None),
            Self::ControlGroup => {
                match sys::make_dir(HERE, c"/sys/fs/cgroup/task", 0o755) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                sys::open(c"/sys/fs/cgroup/task/cgroup.procs", Open::WRITE).map(Some)
            }
        }
    }

    /// Milliseconds of processor time that the program and its descendants have had, where that is known.
    pub fn cpu_ms(self) -> Option<u64> {
        self.number(c"/sys/fs/cgroup/task/cpu.stat", b"usage_usec").map(|microseconds| microseconds / 1000)
    }

    /// How many of the program's processes the kernel has killed for memory, where that is known.
    pub fn killed_for_memory(self) -> Option<u64> {
        self.number(c"/sys/fs/cgroup/task/memory.events", b"oom_kill")
    }

    fn number(self, file: &CStr, name: &[u8]) -> Option<u64> {
        let mut room = [0; 1024];
        if self == Self::Children {
            return None;
        }
        text::field(text::slurp(file, &mut room).ok()?, name)
    }

    /// Stops all of the program's processes where they are, or lets them go on.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn hold(self, program: Pid, hold: bool) -> sys::Result<()> {
        match self {
            Self::ControlGroup => text::set(c"/sys/fs/cgroup/task/cgroup.freeze", if hold { b"1" } else { b"0" }),
            Self::Children => sys::kill(group_of(program), if hold { Signals::STOP } else { Signals::CONTINUE }),
        }
    }

    /// Whether anything of the program's is left, once it has ended itself.
    pub fn is_populated(self) -> bool {
        match self {
            Self::ControlGroup => self.number(c"/sys/fs/cgroup/task/cgroup.events", b"populated") == Some(1),
            Self::Children => sys::has_children(),
        }
    }

    /// Counts the processes that are left; of those that are no longer in a control group, the agent's own children.
    pub fn count(self) -> u32 {
        let (file, separator) = match self {
            Self::ControlGroup => (c"/sys/fs/cgroup/task/cgroup.procs", b'\n'),
            Self::Children => (CHILDREN, b' '),
        };
        let mut count = 0_u32;
        let mut room = [0; 4096];
        let Ok(file) = sys::open(file, Open::READ) else { return u32::from(self.is_populated()) };
        while let Ok(got @ 1..) = sys::read(*file, &mut room) {
            let here = room.iter().take(got).filter(|byte| **byte == separator).count();
            count = count.saturating_add(u32::try_from(here).unwrap_or(u32::MAX));
        }
        count
    }

    /// Ends all that is left of the program, which takes effect a little later. What is being made at this moment may be
    /// missed where there is no control group, so call it again until nothing is left.
    pub fn kill(self, program: Pid) {
        if self == Self::ControlGroup {
            // It is there since the program started in it.
            let _ = text::set(c"/sys/fs/cgroup/task/cgroup.kill", b"1");
            return;
        }
        // Either may find nobody.
        let _ = sys::kill(group_of(program), Signals::KILL);
        let mut room = [0; 4096];
        let list = text::slurp(CHILDREN, &mut room).unwrap_or_default();
        let mut words = list.split(|byte| *byte == b' ').peekable();
        while let Some(word) = words.next() {
            // A number at the end of the room may be half of one; a whole one has a space behind it.
            let pid = text::parse(word).filter(|_| words.peek().is_some()).and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid @ 1..) = pid {
                let _ = sys::kill(Pid(pid), Signals::KILL);
            }
        }
    }
}

/// A kernel without this file leaves the agent with the process group.
const CHILDREN: &CStr = c"/proc/thread-self/children";

/// The process group that the program leads, as `kill(2)` wants it named.
fn group_of(program: Pid) -> Pid {
    Pid(program.0.saturating_neg())
}

/// Runs a tool of the guest's to its end, without output.
///
/// # Errors
/// As the kernel's.
pub fn run(words: &[&[u8]], lists: &mut Lists) -> sys::Result<End> {
    lists.arguments.clear();
    lists.environment.clear();
    for word in words {
        lists.arguments.push(&[word])?;
    }
    let program = Path::new(words.get(..1).unwrap_or_default())?;
    let null = sys::open(c"/dev/null", Open::READ_WRITE)?;
    let Some(pid) = sys::fork()? else {
        for number in 0..=2 {
            let _ = sys::become_standard(*null, number);
        }
        sys::default_signals();
        let _ = sys::block_signals(sys::Signals::NONE);
        let _ = sys::execute(program.as_c(), &mut lists.arguments, &mut lists.environment);
        sys::exit(127);
    };
    sys::wait(Which::One(pid), true)?.map(|(_, end)| end).ok_or(Errno::IO)
}
