//! The Linux kernel: every system call that the agent makes, each behind a safe function.
//!
//! All unsafe code of the agent is in this module and the two below it. What makes the calls sound is the same everywhere:
//! pointers come from references that live across the call, with the length of what they point to; structures have the
//! kernel's layout (`repr(C)`, fixed widths); and there is one thread, so nothing changes what the kernel is reading.
//! Where a call needs more of an argument than that, it stands beside it.

#[cfg(not(test))]
mod memory;
mod raw;

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::size_of;
use core::ops::{BitOr, Deref};
use core::sync::atomic::{AtomicBool, Ordering};

use raw::{call, number};

/// A system call's error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const NOENT: Self = Self(2);
    pub const INTR: Self = Self(4);
    pub const IO: Self = Self(5);
    pub const NOEXEC: Self = Self(8);
    pub const AGAIN: Self = Self(11);
    pub const ACCES: Self = Self(13);
    pub const EXIST: Self = Self(17);
    pub const NOTDIR: Self = Self(20);
    pub const INVAL: Self = Self(22);
    pub const NOSPC: Self = Self(28);
    pub const NAMETOOLONG: Self = Self(36);
    pub const TOO_BIG: Self = Self(7);
    pub const LOOP: Self = Self(40);
}

pub type Result<T> = core::result::Result<T, Errno>;

/// An open file description of ours, closed when dropped.
#[derive(Debug)]
pub struct Fd(Borrowed);

/// A descriptor that somebody else keeps open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Borrowed(i32);

/// Standard input.
pub const STDIN: Borrowed = Borrowed(0);
/// Standard output.
pub const STDOUT: Borrowed = Borrowed(1);
/// The current directory, for the calls that take a name relative to a directory.
pub const HERE: Borrowed = Borrowed(-100);

impl Borrowed {
    /// A test's own.
    #[cfg(test)]
    pub fn of(number: i32) -> Self {
        Self(number)
    }

    /// The number, which has a meaning only in `/proc/self/fd`.
    pub fn number(self) -> i32 {
        self.0
    }

    fn word(self) -> usize {
        self.0 as usize
    }
}

impl Fd {
    fn new(number: usize) -> Self {
        Self(Borrowed(number as i32))
    }
}

impl Deref for Fd {
    type Target = Borrowed;

    fn deref(&self) -> &Borrowed {
        &self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // Safety: the number is ours alone. An error leaves it closed too.
        let _ = unsafe { call(number::CLOSE, [self.0.word(), 0, 0, 0, 0, 0]) };
    }
}

/// How a file is opened. `CLOEXEC` is always added: nothing of the agent's reaches a program by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open(u32);

impl Open {
    pub const READ: Self = Self(0);
    pub const WRITE: Self = Self(0o1);
    pub const READ_WRITE: Self = Self(0o2);
    pub const CREATE: Self = Self(0o100);
    pub const NEW: Self = Self(0o100 | 0o200);
    pub const NO_TERMINAL: Self = Self(0o400);
    pub const EMPTY: Self = Self(0o1000);
    pub const NONBLOCK: Self = Self(0o4000);
    pub const DIRECTORY: Self = Self(0o200_000);
    pub const NO_FOLLOW: Self = Self(0o400_000);
    /// Names the file and does not open it: no driver, no other end of a FIFO learns of it.
    pub const PATH: Self = Self(0o10_000_000);
    const CLOSE_ON_EXEC: Self = Self(0o2_000_000);
}

impl BitOr for Open {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

fn text(name: &CStr) -> usize {
    name.as_ptr() as usize
}

/// `openat(2)`.
pub fn open_at(dir: Borrowed, name: &CStr, how: Open, mode: u32) -> Result<Fd> {
    let how = how | Open::CLOSE_ON_EXEC;
    // Safety: see the module. The number that comes back is ours.
    unsafe { call(number::OPENAT, [dir.word(), text(name), how.0 as usize, mode as usize, 0, 0]) }.map(Fd::new)
}

/// `open(2)`.
pub fn open(name: &CStr, how: Open) -> Result<Fd> {
    open_at(HERE, name, how, 0o644)
}

/// `read(2)`: how many bytes came; 0 at the end.
pub fn read(fd: Borrowed, bytes: &mut [u8]) -> Result<usize> {
    // Safety: the kernel writes at most the length, and says how much.
    let got = unsafe { call(number::READ, [fd.word(), bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]) }?;
    Ok(got.min(bytes.len()))
}

/// `pread(2)`.
pub fn read_at(fd: Borrowed, bytes: &mut [u8], offset: u64) -> Result<usize> {
    let arguments = [fd.word(), bytes.as_mut_ptr() as usize, bytes.len(), offset as usize, 0, 0];
    // Safety: as in `read`.
    Ok(unsafe { call(number::PREAD64, arguments) }?.min(bytes.len()))
}

/// `write(2)`: how many bytes were taken.
pub fn write(fd: Borrowed, bytes: &[u8]) -> Result<usize> {
    // Safety: the kernel reads at most the length.
    let took = unsafe { call(number::WRITE, [fd.word(), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }?;
    Ok(took.min(bytes.len()))
}

/// Writes all of it to a file that does not refuse for a moment.
pub fn write_all(fd: Borrowed, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(took) => bytes = bytes.get(took..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is said of a file. The fields that are not named here are the kernel's.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Stat {
    pub device: u64,
    inode: u64,
    links: u64,
    pub mode: u32,
    owner: [u32; 3],
    special: u64,
    pub size: i64,
    rest: [u64; 11],
}

impl Stat {
    /// The type's bits of the mode.
    pub fn kind(&self) -> u32 {
        self.mode & 0o170_000
    }
}

/// `fstat(2)`.
pub fn stat(fd: Borrowed) -> Result<Stat> {
    let mut stat = Stat::default();
    // Safety: `Stat` has the size and layout of x86_64's `struct stat`.
    unsafe { call(number::FSTAT, [fd.word(), (&raw mut stat) as usize, 0, 0, 0, 0]) }?;
    Ok(stat)
}

/// What is said of a file system.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct StatFs {
    pub kind: i64,
    pub block: i64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    rest: [u64; 10],
}

/// `fstatfs(2)`.
pub fn stat_fs(fd: Borrowed) -> Result<StatFs> {
    let mut stat = StatFs::default();
    // Safety: `StatFs` is no smaller than x86_64's `struct statfs`, whose layout it begins with.
    unsafe { call(number::FSTATFS, [fd.word(), (&raw mut stat) as usize, 0, 0, 0, 0]) }?;
    Ok(stat)
}

/// `mkdirat(2)`.
pub fn make_dir(dir: Borrowed, name: &CStr, mode: u32) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::MKDIRAT, [dir.word(), text(name), mode as usize, 0, 0, 0]) }.map(drop)
}

/// `renameat(2)`.
pub fn rename(from_dir: Borrowed, from: &CStr, to_dir: Borrowed, to: &CStr) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::RENAMEAT, [from_dir.word(), text(from), to_dir.word(), text(to), 0, 0]) }.map(drop)
}

/// `unlinkat(2)` of a file.
pub fn unlink(dir: Borrowed, name: &CStr) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::UNLINKAT, [dir.word(), text(name), 0, 0, 0, 0]) }.map(drop)
}

/// `symlinkat(2)`.
pub fn symlink(target: &CStr, name: &CStr) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::SYMLINKAT, [text(target), HERE.word(), text(name), 0, 0, 0]) }.map(drop)
}

/// `readlinkat(2)`: how many bytes of the target are in `bytes`; as many as it has if that was too short.
pub fn read_link(dir: Borrowed, name: &CStr, bytes: &mut [u8]) -> Result<usize> {
    let arguments = [dir.word(), text(name), bytes.as_mut_ptr() as usize, bytes.len(), 0, 0];
    // Safety: the kernel writes at most the length, and says how much.
    Ok(unsafe { call(number::READLINKAT, arguments) }?.min(bytes.len()))
}

/// `fchmod(2)`.
pub fn change_mode(fd: Borrowed, mode: u32) -> Result<()> {
    // Safety: no pointers.
    unsafe { call(number::FCHMOD, [fd.word(), mode as usize, 0, 0, 0, 0]) }.map(drop)
}

/// `getdents64(2)`: how many bytes of entries are in `bytes`; 0 at the end. [`entries`] takes them apart.
pub fn read_dir(fd: Borrowed, bytes: &mut [u8]) -> Result<usize> {
    let arguments = [fd.word(), bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0];
    // Safety: the kernel writes at most the length, and says how much.
    Ok(unsafe { call(number::GETDENTS64, arguments) }?.min(bytes.len()))
}

/// The names in what [`read_dir`] gave.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = &CStr> {
    /// Before an entry's name: inode 8, offset 8, length of the entry 2, type 1.
    const HEAD: usize = 19;
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let length = u16::from_le_bytes([*rest.get(16)?, *rest.get(17)?]) as usize;
        let name = CStr::from_bytes_until_nul(rest.get(HEAD..length)?).ok()?;
        rest = rest.get(length..)?;
        Some(name)
    })
}

/// `mount(2)` without a file system's own options if there are none.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize, options: &CStr) -> Result<()> {
    let arguments = [text(source), text(target), text(kind), flags, text(options), 0];
    // Safety: see the module; the options of every file system used here are a text.
    unsafe { call(number::MOUNT, arguments) }.map(drop)
}

pub const MOUNT_NO_SUID: usize = 2;
pub const MOUNT_NO_DEVICES: usize = 4;
pub const MOUNT_NO_EXEC: usize = 8;
pub const MOUNT_NO_ATIME: usize = 1024;

/// `finit_module(2)` without parameters.
pub fn load_module(fd: Borrowed) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::FINIT_MODULE, [fd.word(), text(c""), 0, 0, 0, 0]) }.map(drop)
}

/// `sethostname(2)`.
pub fn set_host_name(name: &[u8]) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::SETHOSTNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }.map(drop)
}

/// Brings the loopback interface up: `SIOCSIFFLAGS`.
pub fn loopback_up() -> Result<()> {
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    const UP_AND_RUNNING: u16 = 0x41;
    const SET_FLAGS: usize = 0x8914;
    let socket = socket(2, 2, 0)?;
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(*b"lo") {
        *to = from;
    }
    let request = Request { name, flags: UP_AND_RUNNING, rest: [0; 22] };
    // Safety: `Request` has the size and layout of `struct ifreq` where it holds flags, and is only read.
    unsafe { call(number::IOCTL, [socket.word(), SET_FLAGS, (&raw const request) as usize, 0, 0, 0]) }.map(drop)
}

fn socket(family: usize, kind: usize, protocol: usize) -> Result<Fd> {
    const CLOSE_ON_EXEC: usize = 0o2_000_000;
    // Safety: no pointers; the number that comes back is ours.
    unsafe { call(number::SOCKET, [family, kind | CLOSE_ON_EXEC, protocol, 0, 0, 0]) }.map(Fd::new)
}

/// A socket that becomes readable whenever the kernel says that a device has come, gone or changed (`NETLINK_KOBJECT_UEVENT`).
pub fn device_events() -> Result<Fd> {
    #[repr(C)]
    struct Address {
        family: u16,
        pad: u16,
        port: u32,
        groups: u32,
    }
    const NETLINK: u16 = 16;
    const DATAGRAM_NONBLOCK: usize = 2 | 0o4000;
    let socket = socket(NETLINK as usize, DATAGRAM_NONBLOCK, 15)?;
    let address = Address { family: NETLINK, pad: 0, port: 0, groups: 1 };
    let arguments = [socket.word(), (&raw const address) as usize, size_of::<Address>(), 0, 0, 0];
    // Safety: `Address` is `struct sockaddr_nl`, and only read.
    unsafe { call(number::BIND, arguments) }?;
    Ok(socket)
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pid(pub i32);

/// `fork(2)`: `None` in the child.
///
/// Safe here because there is one thread: the child's copy of memory is whole.
pub fn fork() -> Result<Option<Pid>> {
    // Safety: no pointers; the child goes on with a copy of everything.
    match unsafe { call(number::FORK, [0; 6]) }? {
        0 => Ok(None),
        pid => Ok(Some(Pid(pid as i32))),
    }
}

/// The words of an argument list or an environment, as `execve(2)` wants them: texts that end with NUL, and a list of
/// pointers that ends with a null.
#[derive(Debug)]
pub struct Words<const BYTES: usize, const COUNT: usize> {
    bytes: [u8; BYTES],
    used: usize,
    /// Offsets into `bytes`, and addresses once the list is handed to the kernel.
    starts: [usize; COUNT],
    count: usize,
}

impl<const BYTES: usize, const COUNT: usize> Words<BYTES, COUNT> {
    pub const fn new() -> Self {
        Self { bytes: [0; BYTES], used: 0, starts: [0; COUNT], count: 0 }
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.count = 0;
    }

    /// Adds a word that is made of these pieces one behind the other. Fails with `E2BIG` where there is no room, and with
    /// `EINVAL` for a NUL, with which no word can be handed over; the list is then the same as before.
    pub fn push(&mut self, pieces: &[&[u8]]) -> Result<()> {
        let mut at = self.used;
        for byte in pieces.iter().copied().flatten() {
            if *byte == 0 {
                return Err(Errno::INVAL);
            }
            *self.bytes.get_mut(at).ok_or(Errno::TOO_BIG)? = *byte;
            at += 1;
        }
        *self.bytes.get_mut(at).ok_or(Errno::TOO_BIG)? = 0;
        // The list's last place stays null.
        if self.count + 1 >= COUNT {
            return Err(Errno::TOO_BIG);
        }
        *self.starts.get_mut(self.count).ok_or(Errno::TOO_BIG)? = self.used;
        self.count += 1;
        self.used = at + 1;
        Ok(())
    }

    /// Makes addresses of the offsets: the last thing that happens to a list, which must not move any more.
    fn pointers(&mut self) -> usize {
        let base = self.bytes.as_ptr() as usize;
        for start in self.starts.iter_mut().take(self.count) {
            *start += base;
        }
        if let Some(end) = self.starts.get_mut(self.count) {
            *end = 0;
        }
        self.starts.as_ptr() as usize
    }
}

/// `execve(2)`: becomes that program, or says why not.
pub fn execute<const A: usize, const B: usize, const C: usize, const D: usize>(
    program: &CStr,
    arguments: &mut Words<A, B>,
    environment: &mut Words<C, D>,
) -> Errno {
    let words = [text(program), arguments.pointers(), environment.pointers(), 0, 0, 0];
    // Safety: both lists end with a null, and all that they point to with NUL, inside arrays that are borrowed here.
    match unsafe { call(number::EXECVE, words) } {
        Ok(_) => Errno::INVAL,
        Err(error) => error,
    }
}

/// `exit_group(2)`.
pub fn exit(code: u8) -> ! {
    loop {
        // Safety: no pointers. It does not return; the loop is for the compiler.
        let _ = unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// `getpid(2)`.
pub fn process_id() -> Pid {
    // Safety: no pointers.
    Pid(unsafe { call(number::GETPID, [0; 6]) }.unwrap_or_default() as i32)
}

/// `setsid(2)`: this process leads a session and a group of its own.
pub fn new_session() -> Result<()> {
    // Safety: no pointers.
    unsafe { call(number::SETSID, [0; 6]) }.map(drop)
}

/// `chdir(2)`.
pub fn change_dir(name: &CStr) -> Result<()> {
    // Safety: see the module.
    unsafe { call(number::CHDIR, [text(name), 0, 0, 0, 0, 0]) }.map(drop)
}

/// `umask(2)`.
pub fn set_umask(mask: u32) {
    // Safety: no pointers; it cannot fail.
    let _ = unsafe { call(number::UMASK, [mask as usize, 0, 0, 0, 0, 0]) };
}

/// `dup2(2)`: the file becomes this process's descriptor of that number (0, 1 or 2), which a program inherits.
///
/// # Errors
/// As the kernel's; a number that one of the agent's own files could have is refused with `EINVAL`.
pub fn become_standard(fd: Borrowed, number: i32) -> Result<()> {
    if !(0..=2).contains(&number) {
        return Err(Errno::INVAL);
    }
    // Safety: the numbers up to 2 are no `Fd`'s: the agent fills them before it opens anything.
    unsafe { call(number::DUP2, [fd.word(), number as usize, 0, 0, 0, 0]) }.map(drop)
}

/// `personality(2)` with `PER_LINUX32`: `uname -m` says `i686`.
pub fn become_linux32() -> Result<()> {
    // Safety: no pointers.
    unsafe { call(number::PERSONALITY, [8, 0, 0, 0, 0, 0]) }.map(drop)
}

/// No core files: `RLIMIT_CORE` becomes 0, for this process and all that it starts.
pub fn no_core_files() -> Result<()> {
    const CORE: usize = 4;
    let limit = [0_u64; 2];
    // Safety: `limit` is `struct rlimit`, and only read.
    unsafe { call(number::SETRLIMIT, [CORE, (&raw const limit) as usize, 0, 0, 0, 0]) }.map(drop)
}

/// `setpriority(2)` of this process: from -20 (goes first) to 19.
pub fn set_nice(nice: i32) -> Result<()> {
    // Safety: no pointers.
    unsafe { call(number::SETPRIORITY, [0, 0, nice as usize, 0, 0, 0]) }.map(drop)
}

/// What others leave behind becomes this process's child, as it would PID 1's: `PR_SET_CHILD_SUBREAPER`.
pub fn adopt_orphans() -> Result<()> {
    const SET_CHILD_SUBREAPER: usize = 36;
    // Safety: no pointers.
    unsafe { call(number::PRCTL, [SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0]) }.map(drop)
}

/// A set of signals, by the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals(u64);

impl Signals {
    pub const NONE: Self = Self(0);
    pub const KILL: i32 = 9;
    pub const CONTINUE: i32 = 18;
    pub const STOP: i32 = 19;
    const CHILD: u64 = 1 << 16;
    const PIPE: u64 = 1 << 12;
    const HANGUP: u64 = 1 << 0;

    /// What the agent takes from a descriptor instead: the end of a child.
    pub const CHILDREN: Self = Self(Self::CHILD);
    /// What must not end it: the end of a child, and ends of a port that has gone.
    pub const BLOCKED: Self = Self(Self::CHILD | Self::PIPE | Self::HANGUP);
}

/// `rt_sigprocmask(2)`: exactly these are blocked.
pub fn block_signals(signals: Signals) -> Result<()> {
    const SET: usize = 2;
    let arguments = [SET, (&raw const signals.0) as usize, 0, size_of::<u64>(), 0, 0];
    // Safety: the kernel reads a set of eight bytes, and writes none.
    unsafe { call(number::RT_SIGPROCMASK, arguments) }.map(drop)
}

/// Every signal does what it does by default, as a program that was just started may expect: an ignored one stays so
/// across `execve(2)`.
pub fn default_signals() {
    let action = [0_u64; 4];
    for signal in 1..=64 {
        let arguments = [signal, (&raw const action) as usize, 0, size_of::<u64>(), 0, 0];
        // Safety: zeros are `SIG_DFL` in the kernel's `struct sigaction`. SIGKILL and SIGSTOP are refused, and are so anyway.
        let _ = unsafe { call(number::RT_SIGACTION, arguments) };
    }
}

/// `signalfd(2)`, nonblocking: readable when one of the signals, which must be blocked, has come.
pub fn signal_events(signals: Signals) -> Result<Fd> {
    const NONBLOCK_CLOSE_ON_EXEC: usize = 0o2_004_000;
    let arguments = [usize::MAX, (&raw const signals.0) as usize, size_of::<u64>(), NONBLOCK_CLOSE_ON_EXEC, 0, 0];
    // Safety: as in `block_signals`; the number that comes back is ours.
    unsafe { call(number::SIGNALFD4, arguments) }.map(Fd::new)
}

/// `kill(2)`; a negative process number means a group.
pub fn kill(pid: Pid, signal: i32) -> Result<()> {
    // Safety: no pointers.
    unsafe { call(number::KILL, [pid.0 as usize, signal as usize, 0, 0, 0, 0]) }.map(drop)
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit status.
    Code(u8),
    /// Of this signal.
    Signal(u8),
}

/// Which child to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// That one.
    One(Pid),
    /// Whichever has ended.
    Any,
}

/// `waitid(2)` for a child that has ended, which is then forgotten. Where none has: `None`, or waiting for it if `patient`.
pub fn wait(which: Which, patient: bool) -> Result<Option<(Pid, End)>> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        signal: i32,
        errno: i32,
        code: i32,
        pad: i32,
        pid: i32,
        uid: u32,
        status: i32,
        rest: [i32; 25],
    }
    const ENDED: usize = 4;
    const NO_WAIT: usize = 1;
    const EXITED: i32 = 1;
    let mut info = Info::default();
    let (kind, pid) = match which {
        Which::One(pid) => (1, pid.0 as usize),
        Which::Any => (0, 0),
    };
    let how = if patient { ENDED } else { ENDED | NO_WAIT };
    // Safety: `Info` has the size of `siginfo_t` and its layout for a child's end.
    unsafe { call(number::WAITID, [kind, pid, (&raw mut info) as usize, how, 0, 0]) }?;
    if info.pid == 0 {
        return Ok(None);
    }
    let end = if info.code == EXITED { End::Code(info.status as u8) } else { End::Signal(info.status as u8) };
    Ok(Some((Pid(info.pid), end)))
}

/// Whether this process has children, ended or not.
pub fn has_children() -> bool {
    const ALL: usize = 0;
    const ENDED_LOOK_ONLY: usize = 4 | 1 | 0x0100_0000;
    // Safety: the kernel writes nothing where no address is given.
    unsafe { call(number::WAITID, [ALL, 0, 0, ENDED_LOOK_ONLY, 0, 0]) }.is_ok()
}

/// `pipe(2)`, closed on exec: the end to read from, the end to write to.
pub fn pipe() -> Result<(Fd, Fd)> {
    let mut ends = [0_i32; 2];
    // Safety: the kernel writes two numbers, which are ours.
    unsafe { call(number::PIPE2, [(&raw mut ends) as usize, Open::CLOSE_ON_EXEC.0 as usize, 0, 0, 0, 0]) }?;
    let [from, to] = ends;
    Ok((Fd(Borrowed(from)), Fd(Borrowed(to))))
}

/// The descriptor does not make anybody wait: `O_NONBLOCK`.
pub fn set_nonblocking(fd: Borrowed) -> Result<()> {
    const GET_FLAGS: usize = 3;
    const SET_FLAGS: usize = 4;
    // Safety: no pointers.
    let flags = unsafe { call(number::FCNTL, [fd.word(), GET_FLAGS, 0, 0, 0, 0]) }?;
    let flags = flags | Open::NONBLOCK.0 as usize;
    // Safety: no pointers.
    unsafe { call(number::FCNTL, [fd.word(), SET_FLAGS, flags, 0, 0, 0]) }.map(drop)
}

/// What is waited for, and what has come: each descriptor under a number of the caller's.
#[derive(Debug)]
pub struct Poll(Fd);

/// Something has come.
#[repr(C, packed)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Event {
    what: u32,
    which: u64,
}

impl Event {
    /// The number that the descriptor was added under.
    pub fn which(self) -> u64 {
        self.which
    }
}

impl Poll {
    /// `epoll_create1(2)`.
    pub fn new() -> Result<Self> {
        // Safety: no pointers; the number that comes back is ours.
        unsafe { call(number::EPOLL_CREATE1, [Open::CLOSE_ON_EXEC.0 as usize, 0, 0, 0, 0, 0]) }
            .map(|number| Self(Fd::new(number)))
    }

    /// `epoll_ctl(2)`, edge-triggered, for both directions: an event comes whenever something has changed, so whoever gets
    /// one reads and writes until there is nothing more. A virtio-serial port whose host is away is readable without end
    /// and says so only once here.
    pub fn add(&self, fd: Borrowed, which: u64) -> Result<()> {
        const ADD: usize = 1;
        const IN_OUT_EDGE: u32 = 1 | 4 | (1 << 31);
        let event = Event { what: IN_OUT_EDGE, which };
        let arguments = [self.0.word(), ADD, fd.word(), (&raw const event) as usize, 0, 0];
        // Safety: `Event` is x86_64's packed `struct epoll_event`, and only read.
        unsafe { call(number::EPOLL_CTL, arguments) }.map(drop)
    }

    /// `epoll_wait(2)`: what came within so many milliseconds, or for ever where there is no number.
    pub fn wait<'a>(&self, events: &'a mut [Event], milliseconds: Option<u32>) -> Result<&'a [Event]> {
        let patience = milliseconds.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
        let arguments = [self.0.word(), events.as_mut_ptr() as usize, events.len(), patience as usize, 0, 0];
        // Safety: the kernel writes at most that many events, and says how many.
        let count = unsafe { call(number::EPOLL_WAIT, arguments) }?;
        Ok(events.get(..count).unwrap_or_default())
    }
}

/// Nanoseconds since the machine started, the time that it was paused left out.
pub fn monotonic() -> u64 {
    let mut time = [0_i64; 2];
    // Safety: `time` is `struct timespec`.
    let _ = unsafe { call(number::CLOCK_GETTIME, [1, (&raw mut time) as usize, 0, 0, 0, 0]) };
    let [seconds, nanoseconds] = time;
    (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(nanoseconds as u64)
}

/// `clock_settime(2)` of the time of day, in nanoseconds since 1970.
pub fn set_time(nanoseconds: u64) -> Result<()> {
    let time = [(nanoseconds / 1_000_000_000) as i64, (nanoseconds % 1_000_000_000) as i64];
    // Safety: `time` is `struct timespec`, and only read.
    unsafe { call(number::CLOCK_SETTIME, [0, (&raw const time) as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Has the kernel fill so many bytes of free memory with zeros, and gives them back.
pub fn touch_memory(bytes: usize) -> Result<()> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_POPULATE: usize = 0x2 | 0x20 | 0x8000;
    let arguments = [0, bytes, READ_WRITE, PRIVATE_ANONYMOUS_POPULATE, usize::MAX, 0];
    // Safety: a new mapping at an address that the kernel chooses overlaps nothing.
    let at = unsafe { call(number::MMAP, arguments) }?;
    // Safety: exactly that mapping, to which there is no reference.
    unsafe { call(number::MUNMAP, [at, bytes, 0, 0, 0, 0]) }.map(drop)
}

/// `sync(2)`.
pub fn sync() {
    // Safety: no pointers; it cannot fail.
    let _ = unsafe { call(number::SYNC, [0; 6]) };
}

/// `reboot(2)`: the machine is switched off, without writing anything back.
pub fn power_off() -> Result<()> {
    const MAGIC: [usize; 3] = [0xfee1_dead, 0x2812_1969, 0x4321_fedc];
    let [first, second, off] = MAGIC;
    // Safety: no pointers.
    unsafe { call(number::REBOOT, [first, second, off, 0, 0, 0]) }.map(drop)
}

/// A value that is there once, in memory that is part of the program: what is large lies neither on the stack nor in a heap.
#[derive(Debug)]
pub struct Once<T> {
    value: UnsafeCell<T>,
    taken: AtomicBool,
}

// Safety: the flag hands the value to one taker only.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), taken: AtomicBool::new(false) }
    }

    /// The value, for the first who asks.
    #[allow(clippy::mut_from_ref, reason = "once")]
    pub fn take(&'static self) -> Option<&'static mut T> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        // Safety: the flag was not set before, so this is the only reference there will ever be.
        Some(unsafe { &mut *self.value.get() })
    }
}

/// The words that the program was started with, from what the kernel left on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Arguments {
    first: *const *const core::ffi::c_char,
    count: usize,
}

impl Arguments {
    /// Word number `index`; the program's own name is 0.
    pub fn get(self, index: usize) -> Option<&'static CStr> {
        if index >= self.count {
            return None;
        }
        // Safety: only `raw` makes this, from the pointer that the kernel starts a program with: there are `count` pointers
        // to texts that end with NUL, and stay as long as the program does.
        Some(unsafe { CStr::from_ptr(*self.first.add(index)) })
    }
}
