//! The memory of a guest as a file: only pages that hold something, with a checksum.
//!
//! ```text
//!   header (96 bytes): magic, memory size, number of runs, CRC-32 of all else that varies, SHA-256 of all that follows
//!   pages: 4096 bytes each, the pages of all runs one after the other
//!   table: for each run its first page and its number of pages, both u32
//! ```
//! All numbers are little-endian. A sparse file would do on some file systems; this does on all, is read from front to
//! back, and notices damage. CRC-32 guards against accidents only; whoever can write the cache can run programs anyway. The
//! SHA-256 is made once, when the image is: it names the image, and checkpoints refer to it by that name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use vmtask_driver::Digest;
use vmtask_driver::kit::Hashing;

/// Names the form of the image.
pub(crate) const MAGIC: &[u8; 16] = b"vmtask-ram-v2\0\0\0";
const HEADER: usize = 96;
const SUM: usize = 32;
const DIGEST: usize = 40;
const PAGE: usize = 4096;
const BLOCK: usize = 256 * PAGE;

/// A bit for each page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pages(Vec<u64>);

impl Pages {
    /// None of those that `bytes` of memory have.
    pub(crate) fn none(bytes: u64) -> Self {
        Self(vec![0; bytes.div_ceil(PAGE as u64 * 64) as usize])
    }

    /// Whether the page at this address is among them.
    pub(crate) fn has(&self, address: u64) -> bool {
        let page = address / PAGE as u64;
        self.0.get((page / 64) as usize).is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// Adds the page at this address. Whether it was not among them.
    pub(crate) fn add(&mut self, address: u64) -> bool {
        let page = address / PAGE as u64;
        let bit = 1 << (page % 64);
        let Some(word) = self.0.get_mut((page / 64) as usize) else { return false };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

/// What an image has turned out to be.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Its name.
    pub(crate) digest: Digest,
    /// The pages that are in it. All others are empty.
    pub(crate) held: Pages,
}

/// Why memory could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RamError {
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("the memory image is damaged: {0}")]
    Damaged(&'static str),
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> RamError {
    move |source| RamError::Io { what, source }
}

/// Empty memory of this size that QEMU can inherit.
///
/// # Errors
/// If the system does not give it.
pub(crate) fn new_memory(size: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = File::from(rustix::fs::memfd_create("vmtask-ram", flags)?);
    memory.set_len(size)?;
    Ok(memory)
}

/// From now on nobody can change it, not even through a descriptor that is open for writing. Private mappings, made
/// before or after, go on as they are.
///
/// # Errors
/// If somebody has it mapped shared and writable.
pub(crate) fn seal(memory: &File) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(memory, seals)?)
}

/// Writes what `memory` holds to `out`, which is empty.
///
/// # Errors
/// If reading or writing fails.
pub(crate) fn save(memory: &File, out: &mut File) -> Result<(), RamError> {
    let read_error = io_error("reading the guest's memory");
    let write_error = io_error("writing the memory image");
    let size = memory.metadata().map_err(&read_error)?.len();
    out.write_all(&[0; HEADER]).map_err(&write_error)?;
    let mut hashing = Hashing::new(&*out);
    let mut sum = crc32fast::Hasher::new();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut block = vec![0; BLOCK];
    let mut kept = Vec::with_capacity(BLOCK);
    for at in (0..size).step_by(BLOCK) {
        let length = BLOCK.min((size - at) as usize);
        memory.read_exact_at(&mut block[..length], at).map_err(&read_error)?;
        kept.clear();
        for (index, page) in block[..length].chunks(PAGE).enumerate() {
            if page == &[0; PAGE][..page.len()] {
                continue;
            }
            kept.extend_from_slice(page);
            let number = u32::try_from(at / PAGE as u64).unwrap_or(u32::MAX) + index as u32;
            match runs.last_mut() {
                Some((first, count)) if *first + *count == number => *count += 1,
                _ => runs.push((number, 1)),
            }
        }
        sum.update(&kept);
        hashing.write_all(&kept).map_err(&write_error)?;
    }
    let table: Vec<u8> =
        runs.iter().flat_map(|(first, count)| [first.to_le_bytes(), count.to_le_bytes()]).flatten().collect();
    sum.update(&table);
    hashing.write_all(&table).map_err(&write_error)?;
    let (_, digest) = hashing.finish();
    sum.update(digest.as_bytes());
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&size.to_le_bytes());
    header.extend_from_slice(&(runs.len() as u64).to_le_bytes());
    header.extend_from_slice(&sum.finalize().to_le_bytes());
    header.resize(DIGEST, 0);
    header.extend_from_slice(digest.as_bytes());
    header.resize(HEADER, 0);
    out.write_all_at(&header, 0).map_err(&write_error)
}

/// Loads what [`save`] wrote into `memory`, which is empty and has the right size.
///
/// # Errors
/// If reading or writing fails, or the image is damaged or of another size.
pub(crate) fn load(image: &mut File, memory: &File) -> Result<Loaded, RamError> {
    let read_error = io_error("reading the memory image");
    let size = memory.metadata().map_err(io_error("looking at the guest's memory"))?.len();
    let Heading { sum: expected, digest, table } = read_heading(image, size)?;
    image.seek(SeekFrom::Start(HEADER as u64)).map_err(&read_error)?;
    let mut sum = crc32fast::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut held = Pages::none(size);
    for run in table.chunks_exact(8) {
        let (first, count) = run_of(run);
        let mut at = u64::from(first) * PAGE as u64;
        let end = at + u64::from(count) * PAGE as u64;
        (at..end).step_by(PAGE).for_each(|page| _ = held.add(page));
        while at < end {
            let part = &mut block[..BLOCK.min((end - at) as usize)];
            image.read_exact(part).map_err(&read_error)?;
            sum.update(part);
            memory.write_all_at(part, at).map_err(io_error("filling the guest's memory"))?;
            at += part.len() as u64;
        }
    }
    sum.update(&table);
    sum.update(digest.as_bytes());
    if sum.finalize() != expected {
        return Err(RamError::Damaged("its checksum differs"));
    }
    Ok(Loaded { digest, held })
}

fn run_of(run: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_le_bytes([run[at], run[at + 1], run[at + 2], run[at + 3]]);
    (number(0), number(4))
}

/// What an image says of itself.
struct Heading {
    sum: u32,
    digest: Digest,
    /// Describes pages within the memory in ascending order, and the file to its last byte.
    table: Vec<u8>,
}

fn read_heading(image: &mut File, size: u64) -> Result<Heading, RamError> {
    let read_error = io_error("reading the memory image");
    let length = image.metadata().map_err(&read_error)?.len();
    let mut header = [0; HEADER];
    image.seek(SeekFrom::Start(0)).map_err(&read_error)?;
    image.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => RamError::Damaged("it is shorter than its header"),
        // A read that failed proves nothing.
        _ => read_error(error),
    })?;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if &header[..16] != MAGIC {
        return Err(RamError::Damaged("its header is not one"));
    }
    if number(16) != size {
        return Err(RamError::Damaged("it is of another size of memory"));
    }
    let runs = number(24);
    if runs > size / PAGE as u64 || runs * 8 > length {
        return Err(RamError::Damaged("its table is too long"));
    }
    let mut table = vec![0; runs as usize * 8];
    image.seek(SeekFrom::Start(length - runs * 8)).map_err(&read_error)?;
    image.read_exact(&mut table).map_err(&read_error)?;
    let (mut next, mut pages) = (0, 0);
    for run in table.chunks_exact(8) {
        let (first, count) = run_of(run);
        if u64::from(first) < next || count == 0 {
            return Err(RamError::Damaged("its table is not in order"));
        }
        next = u64::from(first) + u64::from(count);
        pages += u64::from(count);
    }
    if next > size / PAGE as u64 {
        return Err(RamError::Damaged("its table leaves the memory"));
    }
    if HEADER as u64 + pages * PAGE as u64 + runs * 8 != length {
        return Err(RamError::Damaged("it was cut off"));
    }
    let (mut sum, mut digest) = ([0; 4], [0; 32]);
    sum.copy_from_slice(&header[SUM..SUM + 4]);
    digest.copy_from_slice(&header[DIGEST..DIGEST + 32]);
    Ok(Heading { sum: u32::from_le_bytes(sum), digest: Digest::from(digest), table })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;

    const SIZE: u64 = 8 << 20;

    fn saved() -> (File, File) {
        let memory = new_memory(SIZE).unwrap();
        for at in [0, 5000, 1 << 20, (3 << 20) - 1, SIZE - 1] {
            memory.write_all_at(&[at as u8 | 1], at).unwrap();
        }
        memory.write_all_at(&[7; 3 << 19], 4 << 20).unwrap();
        let mut image = tempfile::tempfile().unwrap();
        save(&memory, &mut image).unwrap();
        (memory, image)
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn memory_comes_back_as_it_was_and_empty_pages_take_no_room() {
        let (memory, mut image) = saved();
        assert!(image.metadata().unwrap().len() < (2 << 20));
        let copy = new_memory(SIZE).unwrap();
        let Loaded { held, .. } = load(&mut image, &copy).unwrap();
        assert!(bytes(&memory) == bytes(&copy));
        for (page, content) in bytes(&memory).chunks(PAGE).enumerate() {
            assert_eq!(held.has((page * PAGE) as u64), content.iter().any(|byte| *byte != 0), "page {page}");
        }
        assert!(!held.has(SIZE));
    }

    #[test]
    fn sealed_memory_cannot_be_changed() {
        let (memory, _) = saved();
        seal(&memory).unwrap();
        assert!(memory.write_all_at(b"x", 0).is_err());
        assert!(memory.set_len(0).is_err());
    }

    #[rstest]
    #[case::empty(|f: &File| f.set_len(0).unwrap(), "shorter than its header")]
    #[case::cut(|f: &File| f.set_len(f.metadata().unwrap().len() - 4096).unwrap(), "damaged")]
    #[case::one_bit(|f: &File| f.write_all_at(&[0xa5], 4096).unwrap(), "checksum")]
    #[case::another_file(|f: &File| f.write_all_at(b"\x7fELF", 0).unwrap(), "header")]
    #[case::another_size(|f: &File| f.write_all_at(&[1], 16).unwrap(), "another size")]
    #[case::endless_table(|f: &File| f.write_all_at(&[0xff; 8], 24).unwrap(), "too long")]
    #[case::wild_table(|f: &File| f.write_all_at(&[0xff; 8], f.metadata().unwrap().len() - 8).unwrap(), "leaves the memory")]
    #[case::grown(|f: &File| f.set_len(f.metadata().unwrap().len() + 8).unwrap(), "not in order")]
    fn damage_is_noticed(#[case] damage: fn(&File), #[case] words: &str) {
        let (_, mut image) = saved();
        damage(&image);
        let error = load(&mut image, &new_memory(SIZE).unwrap()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
