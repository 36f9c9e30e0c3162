//! Text in memory of fixed size: names for the kernel, and what it says of itself in lines of words and numbers.

use core::ffi::CStr;

use crate::sys::{self, Borrowed, Errno, HERE, Open};

/// Room for a name and its NUL: the kernel's `PATH_MAX`.
const ROOM: usize = 4096;

/// A file's name in the making, always with a NUL behind it.
#[derive(Debug)]
pub struct Path {
    bytes: [u8; ROOM],
    used: usize,
}

impl Path {
    /// A name that is made of these pieces, one behind the other.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, as the kernel would say; `EINVAL` for a NUL in it, which would cut it short.
    pub fn new(pieces: &[&[u8]]) -> sys::Result<Self> {
        let mut path = Self { bytes: [0; ROOM], used: 0 };
        for piece in pieces {
            path.push(piece)?;
        }
        Ok(path)
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// As [`Self::new`]; what fitted stays.
    pub fn push(&mut self, piece: &[u8]) -> sys::Result<()> {
        for byte in piece {
            if *byte == 0 {
                return Err(Errno::INVAL);
            }
            // The last place stays NUL.
            if self.used + 1 >= ROOM {
                return Err(Errno::NAMETOOLONG);
            }
            *self.bytes.get_mut(self.used).ok_or(Errno::NAMETOOLONG)? = *byte;
            self.used += 1;
        }
        Ok(())
    }

    /// As a text of C.
    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Without the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

/// `/proc/self/fd/N`: a file by its descriptor.
pub fn path_of(fd: Borrowed) -> sys::Result<Path> {
    Path::new(&[b"/proc/self/fd/", Decimal::new(u64::try_from(fd.number()).unwrap_or_default()).as_bytes()])
}

/// A number as text.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub fn new(mut number: u64) -> Self {
        let mut text = Self { digits: [b'0'; 20], start: 20 };
        for (at, digit) in text.digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            text.start = at;
            if number == 0 {
                break;
            }
        }
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }
}

/// The number that the text is, without a sign; `None` for anything else, and for one that is too large.
pub fn parse(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The number behind a word at the start of a line, as in `/proc/meminfo` and the files of a control group.
pub fn field(text: &[u8], name: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        if words.next()? == name { parse(words.next()?) } else { None }
    })
}

/// The beginning of a small file, as much of it as there is room for.
///
/// # Errors
/// As the kernel's.
pub fn slurp<'a>(name: &CStr, room: &'a mut [u8]) -> sys::Result<&'a [u8]> {
    let file = sys::open_at(HERE, name, Open::READ | Open::NONBLOCK, 0)?;
    let mut used = 0;
    while let Some(rest) = room.get_mut(used..).filter(|rest| !rest.is_empty()) {
        match sys::read(*file, rest) {
            Ok(0) => break,
            Ok(got) => used += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(room.get(..used).unwrap_or_default())
}

/// Writes to a file that is there, as the kernel's settings are.
///
/// # Errors
/// As the kernel's.
pub fn set(name: &CStr, value: &[u8]) -> sys::Result<()> {
    sys::write_all(*sys::open(name, Open::WRITE)?, value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_written_and_read() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
            assert_eq!(parse(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-1", "1x", "18446744073709551616"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_field_is_found_at_the_start_of_its_line() {
        let text = b"MemTotal:         245000 kB\nMemFree:  12 kB\npopulated 0\n";
        assert_eq!(field(text, b"MemFree:"), Some(12));
        assert_eq!(field(text, b"populated"), Some(0));
        assert_eq!(field(text, b"kB"), None);
    }

    #[test]
    fn a_path_that_is_too_long_or_would_be_cut_is_refused() {
        assert_eq!(Path::new(&[b"/work/", b"a b"]).unwrap().as_c(), c"/work/a b");
        assert_eq!(Path::new(&[&[b'x'; 4095]]).unwrap().as_bytes().len(), 4095);
        assert_eq!(Path::new(&[&[b'x'; 4096]]).unwrap_err(), Errno::NAMETOOLONG);
        assert_eq!(Path::new(&[b"a\0b"]).unwrap_err(), Errno::INVAL);
    }
}
