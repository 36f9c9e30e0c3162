//! One sentence for each thing that can go wrong in a guest: the thing, the cause, the way out.

use std::fmt;

use vmtask_guest_wire::message::{End, Exit};
use vmtask_guest_wire::refusal::{About, Cause, NotRegular, Refusal};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Prepare,
    Workdir,
    Put { name: String, size: u64 },
    Get { name: String, limit: u64 },
    Launch { program: String },
    Status,
    Hold,
    Settle,
    PowerOff,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => f.write_str("the guest's clock"),
            Self::Workdir => f.write_str("the guest's working directory"),
            Self::Put { name, .. } | Self::Get { name, .. } => f.write_str(name),
            Self::Launch { program } => f.write_str(program),
            Self::Status => f.write_str("the program's state"),
            Self::Hold => f.write_str("the program"),
            Self::Settle => f.write_str("the guest's memory"),
            Self::PowerOff => f.write_str("the guest"),
        }
    }
}

/// What a refusal comes to.
pub(crate) fn sentence(asked: &Asked, refusal: Refusal) -> String {
    let thing = match refusal.about {
        About::Request => format!("'{asked}'"),
        About::Stdout => format!("the output of '{asked}'"),
        About::Stderr => format!("the error output of '{asked}'"),
        About::Progress => format!("the progress file of '{asked}'"),
    };
    match refusal.cause {
        Cause::Unreadable => {
            format!("{thing}: the guest's agent does not understand the request: build the platform again")
        }
        Cause::NoFile => format!(
            "{thing} is not in the guest's working directory: {}",
            match asked {
                Asked::Launch { .. } => "name it among the task's inputs, or give its absolute name in the guest",
                _ => "check its name, and whether the program wrote it",
            }
        ),
        Cause::BadName => format!(
            "{thing} is no name for a file in the working directory: it has a part that is empty, '.' or '..', or is longer \
             than 4000 bytes; use a relative name without those"
        ),
        Cause::Not(kind) => {
            let what = match kind {
                NotRegular::Directory => "a directory",
                NotRegular::DeadLink => "a link to nothing",
                NotRegular::Fifo => "a named pipe",
                NotRegular::Socket => "a socket",
                NotRegular::Device => "a device",
            };
            format!("{thing} is {what} in the guest, and no regular file: name a regular file, or pack it into one")
        }
        Cause::Outside => format!(
            "{thing} leads out of the guest's working directory by a link: copy the file into the working directory instead"
        ),
        Cause::TooBig(size) => {
            let limit = match asked {
                Asked::Get { limit, .. } => *limit,
                _ => 0,
            };
            format!("{thing} has {size} bytes, and the limit is {limit}: raise the limit, or write less")
        }
        Cause::NoSpace(free) => {
            let needs = match asked {
                Asked::Put { size, .. } => format!(" of the {size} that it needs"),
                _ => String::new(),
            };
            format!(
                "{thing}: the guest's working directory has {free} bytes free{needs}: give the task more memory, or a disk of \
                 its own"
            )
        }
        Cause::Shrunk(size) => format!(
            "{thing} became shorter while it was copied, and ends at {size} bytes: copy it when the program has ended"
        ),
        Cause::OutOfStep => format!("{thing}: its pieces did not arrive in order: copy it again"),
        Cause::NoDisk => format!("{thing}: the guest has no disk: give the task one, or a working directory in memory"),
        Cause::Format => {
            format!("{thing}: the guest's disk cannot be formatted: it may be too small, so give the task a larger one")
        }
        Cause::AlreadyLaunched => {
            format!("{thing}: this guest has started its program before: start another guest for another program")
        }
        Cause::NotRunning => format!("{thing} is not running: start it first, unless it has ended"),
        Cause::NotExecutable => format!("{thing} may not be executed: set the execute permission of the input"),
        Cause::EmptyProgram => format!("{thing} is empty: check the file that was given as the program"),
        Cause::CutOff => {
            format!("{thing} ends before all that its headers promise: it was cut off, so copy it here again")
        }
        Cause::NoInterpreter(name) => format!(
            "{thing} needs '{}', which is not in the guest: link the program statically, or name an interpreter that is there",
            name.as_bytes().escape_ascii()
        ),
        Cause::CarriageReturn(name) => format!(
            "{thing} names '{}' in a first line that ends as on Windows (CR LF), so no such interpreter is found: save it with \
             line ends of Unix",
            name.as_bytes().escape_ascii()
        ),
        Cause::ForeignProcessor(machine) => {
            format!("{thing} is for another processor ({}): build it for x86_64 or i686", processor(machine))
        }
        Cause::NoProgram => format!(
            "{thing} is neither a Linux program nor a script whose first line is '#!' and its interpreter: add that line, or \
             build it for Linux"
        ),
        Cause::BadWords => {
            format!("{thing}: its arguments or its environment have a NUL, or are too many: change them")
        }
        Cause::Kernel(error) => {
            format!("{thing}: the guest's kernel refuses: {}", std::io::Error::from_raw_os_error(error))
        }
    }
}

fn processor(machine: u16) -> String {
    match machine {
        8 => "MIPS".into(),
        20 => "32-bit PowerPC".into(),
        21 => "PowerPC".into(),
        22 => "S/390".into(),
        40 => "32-bit ARM".into(),
        183 => "AArch64".into(),
        243 => "RISC-V".into(),
        number => format!("number {number} in ELF"),
    }
}

/// What should be said of how a program ended, besides its exit status: a sentence each, with the way out.
#[must_use]
pub fn remarks(exit: &Exit) -> Vec<String> {
    const SIGILL: u8 = 4;
    let mut remarks = Vec::new();
    if exit.killed_for_memory > 0 {
        remarks.push(format!(
            "the guest's memory ran out and its kernel killed {} of the program's processes: give the task more memory",
            exit.killed_for_memory
        ));
    }
    if exit.workdir_full {
        remarks.push(
            "the working directory was full when the program ended, so its output may be cut off: give the task more memory, \
             or a disk of its own"
                .into(),
        );
    }
    if exit.end == End::Signal(SIGILL) {
        remarks.push(
            "the program used an instruction that the guest's processor lacks: build it for plain x86_64 (no -march=native, no \
             AVX)"
                .into(),
        );
    }
    if exit.left_behind > 0 {
        remarks.push(format!(
            "the program left {} of its processes running when it ended, and these were killed: have it wait for them",
            exit.left_behind
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(asked: &Asked, cause: Cause) -> String {
        sentence(asked, cause.into())
    }

    #[test]
    fn a_sentence_has_the_thing_the_cause_and_the_way_out() {
        let get = Asked::Get { name: "out/a".into(), limit: 10 };
        assert_eq!(
            of(&get, Cause::TooBig(11)),
            "'out/a' has 11 bytes, and the limit is 10: raise the limit, or write less"
        );
        let put = Asked::Put { name: "in".into(), size: 99 };
        assert_eq!(
            of(&put, Cause::NoSpace(7)),
            "'in': the guest's working directory has 7 bytes free of the 99 that it needs: give the task more memory, or a \
             disk of its own"
        );
        let launch = Asked::Launch { program: "run.sh".into() };
        let refusal = Refusal { about: About::Stdout, cause: Cause::Not(NotRegular::Fifo) };
        assert_eq!(
            sentence(&launch, refusal),
            "the output of 'run.sh' is a named pipe in the guest, and no regular file: name a regular file, or pack it into one"
        );
    }

    #[test]
    fn an_end_without_more_to_say_gets_no_remark() {
        let exit = Exit { end: End::Code(139), left_behind: 0, killed_for_memory: 0, workdir_full: false };
        assert_eq!(remarks(&exit), [""; 0]);
        let exit = Exit { end: End::Signal(4), left_behind: 1, killed_for_memory: 2, workdir_full: true };
        assert_eq!(remarks(&exit).len(), 4);
    }
}
