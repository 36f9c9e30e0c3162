//! What a program's file looks like, to say why it cannot be run: the kernel has one error number for several causes, and
//! starts a cut-off program as if nothing were missing.

/// The longest name that is kept of an interpreter; a `#!` line is cut at this length by the kernel too.
const NAME: usize = 256;

/// An interpreter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME],
    used: usize,
}

impl Name {
    fn new(name: &[u8]) -> Self {
        let mut kept = Self { bytes: [0; NAME], used: 0 };
        for (to, from) in kept.bytes.iter_mut().zip(name) {
            *to = *from;
            kept.used += 1;
        }
        kept
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

/// The kinds of files that somebody may want to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Nothing in it.
    Empty,
    /// A program for this processor in either width.
    Elf {
        /// The loader that it asks for; a static one asks for none.
        interpreter: Option<Name>,
    },
    /// A program that ends before all that its headers promise.
    CutOff,
    /// A program for another processor: ELF's number of it.
    Foreign(u16),
    /// It begins with `#!`.
    Script {
        /// The word behind that.
        interpreter: Name,
        /// The line ends as on Windows, and so does the name in it: there is no interpreter, or no program for `env` to find,
        /// whose name ends with a carriage return. (An option may end with one: perl does not mind.)
        carriage_return: bool,
    },
    /// Something else: text without a first line that names an interpreter, or data.
    Other,
}

/// Looks at a file of `size` bytes, of which `read` gives what is at an offset: how many bytes there are.
pub fn inspect(size: u64, read: impl Fn(u64, &mut [u8]) -> usize) -> Format {
    let mut head = [0; NAME];
    let got = read(0, &mut head).min(NAME);
    let head = head.get(..got).unwrap_or_default();
    match head {
        [] => Format::Empty,
        [b'#', b'!', line @ ..] => script(line),
        [0x7f, b'E', b'L', b'F', ..] => elf(head, size, read).unwrap_or(Format::CutOff),
        // Too short to tell.
        [0x7f] | [0x7f, b'E'] | [0x7f, b'E', b'L'] => Format::CutOff,
        _ => Format::Other,
    }
}

fn script(line: &[u8]) -> Format {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let (line, windows) = match line {
        [line @ .., b'\r'] => (line, true),
        line => (line, false),
    };
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let interpreter = words.next().unwrap_or_default();
    let carriage_return = windows && (words.next().is_none() || interpreter.ends_with(b"/env"));
    Format::Script { interpreter: Name::new(interpreter), carriage_return }
}

/// `None` where the file ends too early.
fn elf(head: &[u8], size: u64, read: impl Fn(u64, &mut [u8]) -> usize) -> Option<Format> {
    const I386: u16 = 3;
    const X86_64: u16 = 62;
    const LOAD: u32 = 1;
    const INTERPRETER: u32 = 3;

    let wide = *head.get(4)? == 2;
    let machine = u16_at(head, 18)?;
    if *head.get(5)? != 1 || !matches!(machine, I386 | X86_64) {
        return Some(Format::Foreign(machine));
    }
    let (table, entry_size, count) = if wide {
        (u64_at(head, 32)?, u16_at(head, 54)?, u16_at(head, 56)?)
    } else {
        (u64::from(u32_at(head, 28)?), u16_at(head, 42)?, u16_at(head, 44)?)
    };
    let mut interpreter = None;
    for index in 0..count {
        let mut entry = [0; 56];
        let entry = entry.get_mut(..if wide { 56 } else { 32 })?;
        let at = table.checked_add(u64::from(index) * u64::from(entry_size))?;
        if read(at, entry) < entry.len() {
            return None;
        }
        let (offset, length) = if wide {
            (u64_at(entry, 8)?, u64_at(entry, 32)?)
        } else {
            (u64::from(u32_at(entry, 4)?), u64::from(u32_at(entry, 16)?))
        };
        let kind = u32_at(entry, 0)?;
        if matches!(kind, LOAD | INTERPRETER) && offset.checked_add(length)? > size {
            return None;
        }
        if kind == INTERPRETER {
            let mut name = [0; NAME];
            let got = read(offset, &mut name).min(usize::try_from(length).unwrap_or(NAME));
            interpreter = name.get(..got)?.split(|byte| *byte == 0).next().map(Name::new);
        }
    }
    Some(Format::Elf { interpreter })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &[u8]) -> Format {
        inspect(file.len() as u64, |offset, room| {
            let rest = file.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            let count = rest.len().min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            count
        })
    }

    fn script(interpreter: &str, carriage_return: bool) -> Format {
        Format::Script { interpreter: Name::new(interpreter.as_bytes()), carriage_return }
    }

    /// This test's own program: dynamically linked, on every Linux.
    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().expect("a name")).expect("a file")
    }

    #[test]
    fn scripts_and_what_is_no_program_are_told_apart() {
        assert_eq!(of(b""), Format::Empty);
        assert_eq!(of(b"echo hello\n"), Format::Other);
        assert_eq!(of(b"#!/bin/sh\necho\n"), script("/bin/sh", false));
        assert_eq!(of(b"#! \t/usr/bin/env python3\n"), script("/usr/bin/env", false));
        assert_eq!(of(b"#!/bin/sh\r\necho\r\n"), script("/bin/sh", true));
        assert_eq!(of(b"#!/usr/bin/env python3\r\n"), script("/usr/bin/env", true));
        assert_eq!(of(b"#!/usr/bin/perl -w\r\n"), script("/usr/bin/perl", false));
        assert_eq!(of(b"#!"), script("", false));
    }

    #[test]
    fn a_program_is_whole_or_it_is_cut_off_wherever_it_was_cut() {
        let whole = own();
        let Format::Elf { interpreter: Some(name) } = of(&whole) else { panic!("{:?}", of(&whole)) };
        assert!(name.as_bytes().starts_with(b"/lib"), "{name:?}");
        // Further back there may be nothing but what a debugger reads.
        for length in (1..2000).chain([10_000]) {
            assert_eq!(of(&whole[..length]), Format::CutOff, "{length} bytes of it");
        }
    }

    #[test]
    fn a_program_for_another_processor_is_named() {
        let mut foreign = own();
        foreign[18] = 183;
        assert_eq!(of(&foreign), Format::Foreign(183));
    }

    #[test]
    fn no_damage_to_the_headers_is_taken_for_more_than_it_is() {
        let whole = own();
        for at in 4..2000 {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                // Whatever it says, it says it without going astray.
                let _ = of(&damaged);
            }
        }
    }
}
