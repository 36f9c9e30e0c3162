//! Whether a secret that was dropped has been wiped: this process looks through its own memory.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// What the characters of a secret are masked with, so that who knows it is no copy of it.
const MASK: u8 = 0xA5;

/// Where the allocator notes things in memory that was freed.
const OVERWRITTEN: usize = 16;

/// A secret of a test. It is known masked only, so that looking for it leaves no copy behind.
#[derive(Debug)]
pub struct TestSecret {
    masked: Vec<u8>,
    /// What looking needs, allocated before there is anything to look for: later it might come to lie where a copy was
    /// left, and hide it.
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    window: Vec<u8>,
    maps: String,
}

impl TestSecret {
    /// A secret of so many letters that nobody else has.
    ///
    /// # Panics
    /// With fewer than 48 letters, which would leave too little to look for; without random numbers.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test cannot go on without")]
    pub fn new(letters: usize) -> Self {
        assert!(letters >= OVERWRITTEN + 32, "{letters} letters are too few");
        let mut masked = vec![0; letters];
        getrandom::fill(&mut masked).expect("random numbers");
        for byte in &mut masked {
            *byte = (b'a' + *byte % 26) ^ MASK;
        }
        let room = Room { window: vec![0; (1 << 16) + letters], maps: String::with_capacity(1 << 20) };
        Self { masked, room: Mutex::new(room) }
    }

    /// The secret, in memory with room for so many letters more. Who gets it wipes it.
    #[must_use]
    pub fn text(&self, room: usize) -> String {
        let mut text = String::with_capacity(self.masked.len() + room);
        text.extend(self.masked.iter().map(|byte| char::from(byte ^ MASK)));
        text
    }

    /// Whether a text is this secret.
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        text.len() == self.masked.len() && fits(text, &self.masked)
    }

    /// How many copies of it lie in the memory that this process may write, those included that were freed.
    ///
    /// # Panics
    /// If the system does not let a process read its own memory.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test cannot go on without")]
    pub fn copies_in_memory(&self) -> usize {
        // What the allocator writes over the beginning of freed memory must not pass for wiping.
        let wanted = &self.masked[OVERWRITTEN..];
        let memory = File::open("/proc/self/mem").expect("a process may read its own memory");
        let mut room = self.room.lock().expect("nobody fails while looking");
        let Room { window, maps } = &mut *room;
        let own = window.as_ptr().addr() as u64..(window.as_ptr().addr() + window.len()) as u64;
        maps.clear();
        let read = File::open("/proc/self/maps").and_then(|mut file| file.read_to_string(maps));
        read.expect("a process may see its own memory");
        let mut copies = 0;
        for range in maps.lines().filter_map(writable) {
            let mut at = range.start;
            while at < range.end {
                // Not in the window itself.
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let bound = if at < own.start { own.start.min(range.end) } else { range.end };
                let length = usize::try_from(bound - at).unwrap_or(usize::MAX).min(window.len());
                // What cannot be read is no memory (a device's, say).
                let Ok(read) = memory.read_at(&mut window[..length], at) else { break };
                copies += window[..read].windows(wanted.len()).filter(|here| fits(here, wanted)).count();
                window[..read].fill(0);
                let end = at + read as u64;
                // One may begin in this window and end in the next.
                at = if end == bound || read < wanted.len() { end.max(at + 1) } else { end - wanted.len() as u64 + 1 };
            }
        }
        copies
    }
}

fn fits(plain: &[u8], masked: &[u8]) -> bool {
    plain.iter().zip(masked).all(|(plain, masked)| plain ^ MASK == *masked)
}

/// The addresses of a line of `/proc/self/maps`, if what lies there can be read and written.
fn writable(line: &str) -> Option<std::ops::Range<u64>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    rest.starts_with("rw").then_some(address(start)?..address(end)?)
}
