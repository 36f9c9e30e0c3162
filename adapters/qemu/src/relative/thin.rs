//! A migration stream without the pages that a template has as well.
//!
//! ```text
//!   stream    "QEVM" 3, [07 configuration], sections, 00 (end), 06 length and JSON that describes the devices
//!   section   01 (start)          id, name, instance, version, content, 7e id
//!             02 (part), 03 (end) id,                          content, 7e id
//!             04 (full)           id, name, instance, version, content, 7e id     one for each device, after the memory
//!   memory    records of 64 bits, an address with flags in its low 12 bits:
//!             04 sizes    the blocks follow, each with its name and length; in the first section only
//!             08 page     4096 bytes follow
//!             02 zero     one byte 0 follows: the page is empty
//!             20          with one of these two: in the same block as the page before. Otherwise the block's name follows
//!             10 end      of the section's content
//! ```
//! All numbers are big-endian. (QEMU's `migration/ram.c` and `migration/savevm.c`, 7.2; 10 writes the same.) A device's
//! section does not tell its length, so from the first one on everything is passed on as it is; that it has arrived whole
//! shows in the description at its end.
//!
//! Every flag, section and version that is not in this table is an error. None is skipped: what it stood for would be
//! missing from the checkpoint.
//!
//! **Which pages may go.** QEMU loads pages in the order of the stream, and the last copy of a page is what remains. One
//! that was never passed on keeps what the template has, so a page may be dropped if it equals the template's *and no
//! earlier copy of it was passed on*. Streams of a live copy send pages again, and a page can have gone back to the
//! template's content meanwhile: one bit for each page remembers. Dropping more than these two allow is never right,
//! dropping less always is. It also takes for granted that the original sends every page: one that it left out would be
//! empty there and the template's here. So that is counted, and a stream without every page is an error.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use crate::ram::Pages;

pub(super) const PAGE: usize = 4096;
/// The guest's memory among the blocks: the name of its backend on the command line.
pub(super) const MEMORY: &[u8] = b"m0";

const HEAD: [u8; 8] = *b"QEVM\0\0\0\x03";
const END_OF_SECTIONS: u8 = 0x00;
const SECTION_START: u8 = 0x01;
const SECTION_PART: u8 = 0x02;
const SECTION_END: u8 = 0x03;
const SECTION_FULL: u8 = 0x04;
const DESCRIPTION: u8 = 0x06;
const CONFIGURATION: u8 = 0x07;
const FOOTER: u8 = 0x7e;
const RAM: &[u8] = b"ram";
const RAM_VERSION: u32 = 4;

const FLAGS: u64 = PAGE as u64 - 1;
const ZERO: u64 = 0x02;
const SIZES: u64 = 0x04;
const WHOLE: u64 = 0x08;
const EOS: u64 = 0x10;
const CONTINUE: u64 = 0x20;

/// More than any name of a machine type needs.
const LONGEST_CONFIGURATION: u32 = 4096;
/// A machine of ours has six.
const MOST_BLOCKS: usize = 1024;
/// Devices have written 0.1 MB. They are held in memory until their end is seen.
const MOST_OF_DEVICES: u64 = 64 << 20;
/// How much of the template is read at once. Pages mostly come one after the other.
const WINDOW: usize = 16 * PAGE;

/// Why a stream was not thinned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThinError {
    /// It may be sound, but it is not understood.
    #[error(
        "QEMU's migration stream {what} (before byte {at}), which this vmtask does not know; use a QEMU that it was \
         tested with, or a newer vmtask"
    )]
    Unknown {
        /// What it has.
        what: String,
        /// Where, at most a few bytes later.
        at: u64,
    },
    /// It ends before its end.
    #[error("QEMU's migration stream breaks off after {at} bytes")]
    Cut {
        /// Where.
        at: u64,
    },
    /// It could not be read.
    #[error("reading QEMU's migration stream: {0}")]
    Read(io::Error),
    /// The template could not be read.
    #[error("reading the template's memory: {0}")]
    Template(io::Error),
    /// What is left of it could not be written.
    #[error(transparent)]
    Write(io::Error),
}

/// What became of a stream's pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) kept: u64,
    pub(crate) dropped: u64,
}

/// Copies a migration stream from `input`, up to its end, to `output`, without the pages of the guest's memory that are as
/// in `template`. Without a template every page is kept. Loaded into a machine whose memory is as in `template`, the copy
/// leaves the same in it as the original.
///
/// Holds two bits for each page of the template, and the state of the devices, in memory.
///
/// # Errors
/// If anything in the stream is not known, or it is not whole, or leaves out pages that the template has. What was written is then worth nothing.
pub(super) fn thin(input: impl Read, output: impl Write, template: Option<Template<'_>>) -> Result<Counts, ThinError> {
    let relative = template.map(Relative::to).transpose().map_err(ThinError::Template)?;
    let mut thinner = Thinner {
        input,
        at: 0,
        output,
        blocks: Vec::new(),
        block_read: None,
        block_written: None,
        relative,
        pages: Counts::default(),
    };
    thinner.stream()?;
    Ok(thinner.pages)
}

struct Thinner<'a, R, W> {
    input: R,
    /// Bytes read.
    at: u64,
    output: W,
    blocks: Vec<Block>,
    /// Of the last page that was read: what "the same block" means in the original.
    block_read: Option<usize>,
    /// Of the last page that was written: what it means in the copy.
    block_written: Option<usize>,
    relative: Option<Relative<'a>>,
    pages: Counts,
}

struct Block {
    name: Vec<u8>,
    length: u64,
}

impl<R: Read, W: Write> Thinner<'_, R, W> {
    fn stream(&mut self) -> Result<(), ThinError> {
        let head: [u8; 8] = self.pass()?;
        if head != HEAD {
            return self.unknown("does not begin as one of version 3");
        }
        let mut ram = None;
        let mut first = true;
        loop {
            let [kind] = self.pass()?;
            match kind {
                CONFIGURATION if first => self.configuration()?,
                SECTION_START if ram.is_none() => {
                    let id = u32::from_be_bytes(self.pass()?);
                    self.ram_heading()?;
                    self.records()?;
                    self.footer(id)?;
                    ram = Some(id);
                }
                SECTION_PART | SECTION_END => {
                    let id = u32::from_be_bytes(self.pass()?);
                    if ram != Some(id) {
                        return self.unknown(&format!("goes on with a section {id} that is not the memory's"));
                    }
                    self.records()?;
                    self.footer(id)?;
                }
                SECTION_FULL if ram.is_some() => return self.devices(),
                other => return self.unknown(&format!("has a section of the kind {other:#04x} here")),
            }
            first = false;
        }
    }

    /// The machine type.
    fn configuration(&mut self) -> Result<(), ThinError> {
        let length = u32::from_be_bytes(self.pass()?);
        if length > LONGEST_CONFIGURATION {
            return self.unknown(&format!("has a machine type of {length} bytes"));
        }
        for _ in 0..length {
            let [_] = self.pass()?;
        }
        Ok(())
    }

    fn ram_heading(&mut self) -> Result<(), ThinError> {
        let name = self.name()?;
        self.put_name(&name)?;
        let [_instance, version]: [u32; 2] = [u32::from_be_bytes(self.pass()?), u32::from_be_bytes(self.pass()?)];
        if name != RAM || version != RAM_VERSION {
            let name = String::from_utf8_lossy(&name);
            return self.unknown(&format!("begins with a section {name:?} of version {version}"));
        }
        Ok(())
    }

    fn footer(&mut self, id: u32) -> Result<(), ThinError> {
        let [mark] = self.pass()?;
        let of = u32::from_be_bytes(self.pass()?);
        if (mark, of) != (FOOTER, id) {
            return self.unknown(&format!("does not end section {id} where its content ends"));
        }
        Ok(())
    }

    /// The content of a section of the memory.
    fn records(&mut self) -> Result<(), ThinError> {
        loop {
            let word = u64::from_be_bytes(self.take()?);
            let (address, flags) = (word & !FLAGS, word & FLAGS);
            match flags & !CONTINUE {
                EOS if word == EOS => return self.put(&word.to_be_bytes()),
                SIZES if flags == SIZES && self.blocks.is_empty() => {
                    self.put(&word.to_be_bytes())?;
                    self.sizes(address)?;
                }
                ZERO => {
                    let block = self.block_of(flags)?;
                    let [fill] = self.take()?;
                    if fill != 0 {
                        return self.unknown(&format!("has a page full of the byte {fill:#04x}"));
                    }
                    self.page(block, address, None)?;
                }
                WHOLE => {
                    let block = self.block_of(flags)?;
                    let content: [u8; PAGE] = self.take()?;
                    self.page(block, address, Some(&content))?;
                }
                _ => return self.unknown(&format!("has a page with the flags {flags:#05x}")),
            }
        }
    }

    /// The names and lengths of the blocks, which make `total`.
    fn sizes(&mut self, total: u64) -> Result<(), ThinError> {
        let mut rest = total;
        while rest > 0 {
            let name = self.name()?;
            self.put_name(&name)?;
            let length = u64::from_be_bytes(self.pass()?);
            if length > rest || !length.is_multiple_of(PAGE as u64) || self.blocks.len() == MOST_BLOCKS {
                return self.unknown("has blocks of memory whose lengths make no sense");
            }
            if let Some(relative) = self.relative.as_ref().filter(|_| name == MEMORY)
                && relative.size != length
            {
                let size = relative.size;
                return self.unknown(&format!("has {length} bytes of memory, and its template {size}"));
            }
            rest -= length;
            self.blocks.push(Block { name, length });
        }
        Ok(())
    }

    /// The block that a page's heading names.
    fn block_of(&mut self, flags: u64) -> Result<usize, ThinError> {
        if flags & CONTINUE == 0 {
            let name = self.name()?;
            self.block_read = self.blocks.iter().position(|block| block.name == name);
        }
        match self.block_read {
            Some(block) => Ok(block),
            None => self.unknown("has a page of a block that it did not announce"),
        }
    }

    /// Passes a page on if it must be. `None` is an empty one.
    fn page(&mut self, index: usize, address: u64, content: Option<&[u8; PAGE]>) -> Result<(), ThinError> {
        let Block { name, length } = &self.blocks[index];
        if address >= *length {
            let (name, length) = (String::from_utf8_lossy(name).into_owned(), *length);
            return self.unknown(&format!("has a page at {address:#x} of {name:?}, which has {length:#x} bytes"));
        }
        if let Some(relative) = self.relative.as_mut().filter(|_| name == MEMORY)
            && relative.may_drop(address, content).map_err(ThinError::Template)?
        {
            self.pages.dropped += 1;
            return Ok(());
        }
        self.pages.kept += 1;
        let kind = if content.is_some() { WHOLE } else { ZERO };
        if self.block_written == Some(index) {
            self.put(&(address | kind | CONTINUE).to_be_bytes())?;
        } else {
            self.put(&(address | kind).to_be_bytes())?;
            let name = self.blocks[index].name.clone();
            self.put_name(&name)?;
            self.block_written = Some(index);
        }
        self.put(content.map_or(&[0], |content| &content[..]))
    }

    /// Everything from the first device's section on, whose kind was passed on already.
    fn devices(&mut self) -> Result<(), ThinError> {
        let mut rest = Vec::new();
        let read = self.input.by_ref().take(MOST_OF_DEVICES + 1).read_to_end(&mut rest).map_err(ThinError::Read)?;
        self.at += read as u64;
        if read as u64 > MOST_OF_DEVICES {
            return self.unknown(&format!("has more than {} MiB of devices", MOST_OF_DEVICES >> 20));
        }
        if !ends_with_description(&rest) {
            return Err(ThinError::Cut { at: self.at });
        }
        match self.relative.as_ref().map_or(0, |relative| relative.unseen) {
            0 => {}
            unseen => return self.unknown(&format!("leaves out {unseen} pages of the memory")),
        }
        self.put(&rest)
    }

    fn unknown<T>(&self, what: &str) -> Result<T, ThinError> {
        Err(ThinError::Unknown { what: what.to_owned(), at: self.at })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ThinError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ThinError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ThinError::Cut { at: self.at },
            _ => ThinError::Read(error),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn name(&mut self) -> Result<Vec<u8>, ThinError> {
        let [length] = self.take()?;
        let mut name = vec![0; length.into()];
        self.fill(&mut name)?;
        Ok(name)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ThinError> {
        self.output.write_all(bytes).map_err(ThinError::Write)
    }

    fn put_name(&mut self, name: &[u8]) -> Result<(), ThinError> {
        // It was read with a length of one byte.
        self.put(&[name.len() as u8])?;
        self.put(name)
    }

    /// Reads and writes.
    fn pass<const N: usize>(&mut self) -> Result<[u8; N], ThinError> {
        let bytes = self.take()?;
        self.put(&bytes)?;
        Ok(bytes)
    }
}

/// Whether that is how a stream ends: with the mark behind the last section, and the devices' description to the last byte.
fn ends_with_description(rest: &[u8]) -> bool {
    const HEADING: usize = 6;
    rest.windows(HEADING).enumerate().any(|(at, heading)| {
        let json = &rest[at + HEADING..];
        heading[..2] == [END_OF_SECTIONS, DESCRIPTION]
            && u32::from_be_bytes([heading[2], heading[3], heading[4], heading[5]]) as usize == json.len()
            && serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
    })
}

/// The memory of a template.
#[derive(Clone, Copy)]
pub(super) struct Template<'a> {
    pub(super) memory: &'a File,
    /// Its pages that are not empty, at least.
    pub(super) held: &'a Pages,
}

/// A template's memory, and what became of the pages that could be like it.
struct Relative<'a> {
    template: Template<'a>,
    size: u64,
    /// The pages that were passed on.
    kept: Pages,
    /// The pages that came.
    seen: Pages,
    /// How many did not come yet.
    unseen: u64,
    window: Vec<u8>,
    /// Where the window begins.
    from: u64,
}

impl<'a> Relative<'a> {
    fn to(template: Template<'a>) -> io::Result<Self> {
        let size = template.memory.metadata()?.len();
        let none = Pages::none(size);
        let unseen = size / PAGE as u64;
        Ok(Self { template, size, kept: none.clone(), seen: none, unseen, window: Vec::new(), from: 0 })
    }

    /// Whether this page may be left out; otherwise it is noted as passed on. `address` is within the memory, and `None` an
    /// empty page.
    fn may_drop(&mut self, address: u64, content: Option<&[u8; PAGE]>) -> io::Result<bool> {
        self.unseen -= u64::from(self.seen.add(address));
        if !self.kept.has(address) && self.is_as_in_template(address, content)? {
            return Ok(true);
        }
        self.kept.add(address);
        Ok(false)
    }

    fn is_as_in_template(&mut self, address: u64, content: Option<&[u8; PAGE]>) -> io::Result<bool> {
        const EMPTY: [u8; PAGE] = [0; PAGE];
        if !self.template.held.has(address) {
            // Three quarters of a small guest's pages are empty: nothing is read for them.
            return Ok(content.is_none_or(|content| *content == EMPTY));
        }
        Ok(self.template_page(address)? == content.unwrap_or(&EMPTY))
    }

    fn template_page(&mut self, address: u64) -> io::Result<&[u8]> {
        if address < self.from || address + PAGE as u64 > self.from + self.window.len() as u64 {
            let length = (self.size - address).min(WINDOW as u64);
            self.window.resize(length as usize, 0);
            self.from = address;
            if let Err(error) = self.template.memory.read_exact_at(&mut self.window, address) {
                self.window.clear();
                return Err(error);
            }
        }
        let at = (address - self.from) as usize;
        Ok(&self.window[at..at + PAGE])
    }
}

#[cfg(test)]
#[path = "thin_tests.rs"]
mod tests;
