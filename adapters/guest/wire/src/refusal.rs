//! Why the guest does not do what it was asked.

use crate::frame::{Reader, Writer};
use crate::message::Text;

/// A refusal: of what, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the cause is about.
    pub about: About,
    /// Why.
    pub cause: Cause,
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum About {
    /// The request itself, and the file that it names.
    #[default]
    Request,
    /// The file for the program's output.
    Stdout,
    /// The file for the program's errors.
    Stderr,
    /// The file in which the program says how far it is.
    Progress,
}

/// What a name stands for that is no regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRegular {
    /// A directory.
    Directory,
    /// A link to nothing, or to itself.
    DeadLink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

/// Why. The host makes the sentence: what it is about is in the request, which the host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The frame is whole, and no message of this protocol.
    Unreadable,
    /// Nothing has this name.
    NoFile,
    /// It has a part that is empty, `.` or `..`, a NUL, or is too long.
    BadName,
    /// It is no regular file.
    Not(NotRegular),
    /// It leads out of the working directory.
    Outside,
    /// The file has this size.
    TooBig(u64),
    /// The working directory has so many bytes free.
    NoSpace(u64),
    /// The file has become shorter while it was read, to this size.
    Shrunk(u64),
    /// The pieces of the file did not come one behind the other.
    OutOfStep,
    /// A working directory on a disk, without a disk.
    NoDisk,
    /// The disk cannot be formatted.
    Format,
    /// This boot has started its program.
    AlreadyLaunched,
    /// There is no program, or it has ended.
    NotRunning,
    /// Nobody may execute the program.
    NotExecutable,
    /// There is nothing in the program.
    EmptyProgram,
    /// The program ends before all that its headers promise.
    CutOff,
    /// The program's interpreter, or its loader, is not there: this one.
    NoInterpreter(Text<256>),
    /// The script's first line, which names this interpreter, ends as on Windows.
    CarriageReturn(Text<256>),
    /// The program is for the processor of this number in ELF.
    ForeignProcessor(u16),
    /// Neither a program, nor a script with a first line that names its interpreter.
    NoProgram,
    /// The arguments or the environment hold a NUL, or are too long.
    BadWords,
    /// The guest's kernel said this (an `errno` of Linux).
    Kernel(i32),
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self { about: About::Request, cause }
    }
}

impl Refusal {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let about = match reader.u8()? {
            0 => About::Request,
            1 => About::Stdout,
            2 => About::Stderr,
            3 => About::Progress,
            _ => return None,
        };
        let code = reader.u8()?;
        let number = reader.u64()?;
        let text = Text::read(reader)?;
        let small = u16::try_from(number).ok();
        let cause = match code {
            0 => Cause::Unreadable,
            1 => Cause::NoFile,
            2 => Cause::BadName,
            3 => Cause::Not(match number {
                0 => NotRegular::Directory,
                1 => NotRegular::DeadLink,
                2 => NotRegular::Fifo,
                3 => NotRegular::Socket,
                4 => NotRegular::Device,
                _ => return None,
            }),
            4 => Cause::Outside,
            5 => Cause::TooBig(number),
            6 => Cause::NoSpace(number),
            7 => Cause::Shrunk(number),
            8 => Cause::OutOfStep,
            9 => Cause::NoDisk,
            10 => Cause::Format,
            11 => Cause::AlreadyLaunched,
            12 => Cause::NotRunning,
            13 => Cause::NotExecutable,
            14 => Cause::EmptyProgram,
            15 => Cause::CutOff,
            16 => Cause::NoInterpreter(text),
            17 => Cause::CarriageReturn(text),
            18 => Cause::ForeignProcessor(small?),
            19 => Cause::NoProgram,
            20 => Cause::BadWords,
            21 => Cause::Kernel(i32::try_from(number).ok()?),
            _ => return None,
        };
        Some(Self { about, cause })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        let about = match self.about {
            About::Request => 0,
            About::Stdout => 1,
            About::Stderr => 2,
            About::Progress => 3,
        };
        let mut text = Text::default();
        let (code, number) = match self.cause {
            Cause::Unreadable => (0, 0),
            Cause::NoFile => (1, 0),
            Cause::BadName => (2, 0),
            Cause::Not(kind) => (
                3,
                match kind {
                    NotRegular::Directory => 0,
                    NotRegular::DeadLink => 1,
                    NotRegular::Fifo => 2,
                    NotRegular::Socket => 3,
                    NotRegular::Device => 4,
                },
            ),
            Cause::Outside => (4, 0),
            Cause::TooBig(size) => (5, size),
            Cause::NoSpace(free) => (6, free),
            Cause::Shrunk(size) => (7, size),
            Cause::OutOfStep => (8, 0),
            Cause::NoDisk => (9, 0),
            Cause::Format => (10, 0),
            Cause::AlreadyLaunched => (11, 0),
            Cause::NotRunning => (12, 0),
            Cause::NotExecutable => (13, 0),
            Cause::EmptyProgram => (14, 0),
            Cause::CutOff => (15, 0),
            Cause::NoInterpreter(name) => {
                text = name;
                (16, 0)
            }
            Cause::CarriageReturn(name) => {
                text = name;
                (17, 0)
            }
            Cause::ForeignProcessor(machine) => (18, machine.into()),
            Cause::NoProgram => (19, 0),
            Cause::BadWords => (20, 0),
            Cause::Kernel(error) => (21, u64::try_from(error).unwrap_or_default()),
        };
        writer.u8(about).u8(code).u64(number).word(text.as_bytes());
    }
}
