//! From a name to a running program, or to the reason why there is none.

use core::ffi::CStr;

use crate::files::{self, Found, Refusal, Work};
use crate::format::{self, Format, Name};
use crate::program::{self, Family, Lists, Start};
use crate::sys::{self, Errno, Fd, HERE, Open, Pid};

/// Why a program was not started. No process is left then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchError {
    /// There is no such file, or it is no regular one.
    Program(Refusal),
    /// The file for this stream's output cannot be made.
    Output(Stream, Refusal),
    /// Nobody may execute it.
    NoPermission,
    /// Nothing in it.
    Empty,
    /// It ends before all that its headers promise.
    CutOff,
    /// Its interpreter, or its loader, is not in this guest.
    NoInterpreter(Name),
    /// A script whose first line ends as on Windows.
    CarriageReturn(Name),
    /// For the processor of this number in ELF.
    Foreign(u16),
    /// Neither a program nor a script with a first line that names an interpreter.
    NoProgram,
    /// The kernel's word for something else.
    Kernel(Errno),
}

impl From<Errno> for LaunchError {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

/// The program's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// What is to be started; its arguments and its environment are in the lists.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// In the working directory, or absolute.
    pub program: &'a [u8],
    /// Where output goes, in the working directory; nowhere if not said.
    pub stdout: Option<&'a [u8]>,
    pub stderr: Option<&'a [u8]>,
    pub linux32: bool,
}

/// Starts the program.
///
/// # Errors
/// See [`LaunchError`].
#[allow(clippy::result_large_err, reason = "there is no heap to keep an interpreter's name in")]
pub fn launch(order: &Order<'_>, work: &Work, family: Family, lists: &mut Lists) -> Result<Pid, LaunchError> {
    let path = match order.program {
        [b'/', ..] => crate::text::Path::new(&[order.program])?,
        name => work.join(name)?,
    };
    let found = match order.program {
        [b'/', ..] => files::find_anywhere(path.as_c()),
        name => files::find(work, name),
    }
    .map_err(LaunchError::Program)?;
    if found.mode & 0o111 == 0 {
        return Err(LaunchError::NoPermission);
    }
    let format = format_of(&found)?;
    match format {
        Format::Empty => return Err(LaunchError::Empty),
        // The kernel would start it, and it would die of a signal as if it were wrong itself.
        Format::CutOff => return Err(LaunchError::CutOff),
        Format::Script { interpreter, carriage_return: true } => return Err(LaunchError::CarriageReturn(interpreter)),
        _ => {}
    }
    let stdout = output(work, order.stdout).map_err(|refusal| LaunchError::Output(Stream::Out, refusal))?;
    let stderr = if order.stderr == order.stdout {
        None
    } else {
        Some(output(work, order.stderr).map_err(|refusal| LaunchError::Output(Stream::Err, refusal))?)
    };
    let start = Start {
        program: path.as_c(),
        stdout: *stdout,
        stderr: stderr.as_deref().copied().unwrap_or(*stdout),
        linux32: order.linux32,
        work: work.path().as_c(),
        family,
    };
    program::start(&start, lists).map_err(|error| explain(error, format))
}

fn format_of(found: &Found) -> sys::Result<Format> {
    let file = files::reopen(found)?;
    Ok(format::inspect(found.size, |offset, room| read_whole(&file, offset, room)))
}

/// As much as there is, for a read may give less.
fn read_whole(file: &Fd, offset: u64, room: &mut [u8]) -> usize {
    let mut used = 0;
    while let Some(rest) = room.get_mut(used..) {
        match sys::read_at(**file, rest, offset.saturating_add(used as u64)) {
            Ok(got @ 1..) => used += got,
            _ => break,
        }
    }
    used
}

/// The file that a stream is written to, empty.
fn output(work: &Work, name: Option<&[u8]>) -> Result<Fd, Refusal> {
    match name {
        None => Ok(sys::open(c"/dev/null", Open::WRITE)?),
        Some(name) => {
            let (dir, name) = work.parent_of(name)?;
            // No link is followed: it could lead anywhere.
            let how = Open::WRITE | Open::CREATE | Open::EMPTY | Open::NO_FOLLOW | Open::NO_TERMINAL;
            Ok(sys::open_at(*dir, name.as_c(), how, 0o644)?)
        }
    }
}

/// What the kernel means by an error of `execve(2)`, of a file that looks like this.
fn explain(error: Errno, format: Format) -> LaunchError {
    match (error, format) {
        (Errno::NOENT, Format::Elf { interpreter: Some(name) } | Format::Script { interpreter: name, .. })
            if !exists(&name) =>
        {
            LaunchError::NoInterpreter(name)
        }
        (Errno::NOEXEC, Format::Foreign(machine)) => LaunchError::Foreign(machine),
        (Errno::NOEXEC, _) => LaunchError::NoProgram,
        (Errno::ACCES, _) => LaunchError::NoPermission,
        (error, _) => LaunchError::Kernel(error),
    }
}

fn exists(name: &Name) -> bool {
    crate::text::Path::new(&[name.as_bytes()]).and_then(|path| sys::open_at(HERE, path.as_c(), Open::PATH, 0)).is_ok()
}

/// The environment that every program has, besides what the task gives it.
///
/// # Errors
/// Where the list has no room.
pub fn environment(lists: &mut Lists, work: &CStr) -> sys::Result<()> {
    lists.environment.clear();
    lists.environment.push(&[b"PATH=/usr/sbin:/usr/bin:/sbin:/bin"])?;
    lists.environment.push(&[b"HOME=", work.to_bytes()])?;
    for word in [&b"LANG=C"[..], b"LC_ALL=C", b"TZ=UTC0"] {
        lists.environment.push(&[word])?;
    }
    Ok(())
}
