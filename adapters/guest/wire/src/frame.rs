//! Frames: where a message begins and ends in a stream of bytes that may have been cut anywhere.

use crate::hash::xxh64;

/// The longest frame, whole.
pub const FRAME: usize = 1 << 16;
/// The most that a frame can carry.
pub const PAYLOAD: usize = FRAME - HEAD - HASH;
/// How a frame begins.
pub const MAGIC: [u8; 2] = [0xd5, 0x76];

/// Magic 2, kind 1, zero 1, length of the payload 4, tag 4.
pub(crate) const HEAD: usize = 12;
const HASH: usize = 8;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which message it is.
    pub kind: u8,
    /// Which request it belongs to.
    pub tag: u32,
    /// The message.
    pub payload: &'a [u8],
}

/// Finds frames in a stream: takes bytes in pieces of any size, passes over what is no frame, holds one frame at a time.
#[derive(Debug, Clone)]
pub struct Decoder {
    bytes: [u8; FRAME],
    used: usize,
    /// The frame in `bytes` is whole, and its hash is right.
    whole: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// One that has seen nothing.
    pub const fn new() -> Self {
        Self { bytes: [0; FRAME], used: 0, whole: false }
    }

    /// Forgets what it has seen.
    pub fn clear(&mut self) {
        self.used = 0;
        self.whole = false;
    }

    /// The frame that it holds, until [`Self::release`].
    pub fn frame(&self) -> Option<Frame<'_>> {
        if !self.whole {
            return None;
        }
        let (head, rest) = self.bytes.split_first_chunk::<HEAD>()?;
        let head = Head::read(head)?;
        Some(Frame { kind: head.kind, tag: head.tag, payload: rest.get(..head.length)? })
    }

    /// Lets the frame go, and looks at what was seen behind it.
    pub fn release(&mut self) {
        if let Some(frame) = self.frame() {
            let length = HEAD + frame.payload.len() + HASH;
            self.whole = false;
            self.drop_front(length);
        }
    }

    /// Takes bytes up to the end of the next frame of which `wanted` says that its kind and its payload's length make
    /// sense: how many. None while it holds a frame; a frame may come of none, from what was seen behind the one before.
    pub fn input(&mut self, bytes: &[u8], wanted: impl Fn(u8, usize) -> bool) -> usize {
        let mut taken = 0;
        while !self.whole {
            if self.used == 0 {
                // Garbage is passed over where it is.
                let rest = bytes.get(taken..).unwrap_or_default();
                let [first, _] = MAGIC;
                taken += rest.iter().position(|byte| *byte == first).unwrap_or(rest.len());
            }
            match self.want(&wanted) {
                Want::More(length) => {
                    let rest = bytes.get(taken..).unwrap_or_default();
                    let count = rest.len().min(length.saturating_sub(self.used));
                    if count == 0 {
                        break;
                    }
                    self.push(rest.get(..count).unwrap_or_default());
                    taken += count;
                }
                Want::Nothing => self.whole = true,
                Want::Another => self.skip(&wanted),
            }
        }
        taken
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.used..).and_then(|room| room.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
            self.used += bytes.len();
        }
    }

    fn want(&self, wanted: impl Fn(u8, usize) -> bool) -> Want {
        let seen = self.bytes.get(..self.used).unwrap_or_default();
        let length = match begin(seen, wanted) {
            Begin::No => return Want::Another,
            Begin::Perhaps => return Want::More(HEAD),
            Begin::Yes(length) => length,
        };
        let whole = HEAD + length + HASH;
        let Some((body, hash)) = seen.split_at_checked(HEAD + length) else { return Want::More(whole) };
        match hash.first_chunk::<HASH>() {
            None => Want::More(whole),
            Some(hash) if u64::from_le_bytes(*hash) == xxh64(body) => Want::Nothing,
            Some(_) => Want::Another,
        }
    }

    /// What begins here is no frame: goes on with the next place where one may begin. All places are looked at before anything
    /// is moved, so that garbage costs little however it looks.
    fn skip(&mut self, wanted: impl Fn(u8, usize) -> bool) {
        let mut rest = self.bytes.get(1..self.used).unwrap_or_default();
        while let [_, behind @ ..] = rest
            && matches!(begin(rest, &wanted), Begin::No)
        {
            rest = behind;
        }
        self.drop_front(self.used.saturating_sub(rest.len()));
    }

    fn drop_front(&mut self, by: usize) {
        self.used = self.used.saturating_sub(by);
        for at in 0..self.used {
            let byte = self.bytes.get(at.saturating_add(by)).copied().unwrap_or_default();
            if let Some(to) = self.bytes.get_mut(at) {
                *to = byte;
            }
        }
    }
}

enum Want {
    /// Until so many bytes are there.
    More(usize),
    /// The frame is whole.
    Nothing,
    /// There is none at this place.
    Another,
}

/// Whether a frame begins here.
enum Begin {
    No,
    /// There is too little to tell.
    Perhaps,
    /// With a payload of this length, and unless the hash says otherwise.
    Yes(usize),
}

fn begin(bytes: &[u8], wanted: impl Fn(u8, usize) -> bool) -> Begin {
    let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else {
        let magic = bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic);
        return if magic { Begin::Perhaps } else { Begin::No };
    };
    match Head::read(head) {
        Some(head) if wanted(head.kind, head.length) => Begin::Yes(head.length),
        _ => Begin::No,
    }
}

struct Head {
    kind: u8,
    tag: u32,
    length: usize,
}

impl Head {
    fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let [m0, m1, kind, 0, l0, l1, l2, l3, t0, t1, t2, t3] = *bytes else { return None };
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        let tag = u32::from_le_bytes([t0, t1, t2, t3]);
        ([m0, m1] == MAGIC && length <= PAYLOAD).then_some(Self { kind, tag, length })
    }
}

/// Frames on their way out, as many as there is room for.
#[derive(Debug, Clone)]
pub struct Encoder {
    bytes: [u8; FRAME],
    sent: usize,
    used: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: [0; FRAME], sent: 0, used: 0 }
    }

    /// Forgets what has not been sent.
    pub fn clear(&mut self) {
        self.sent = 0;
        self.used = 0;
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        self.bytes.get(self.sent..self.used).unwrap_or_default()
    }

    /// So many bytes have gone.
    pub fn sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.used);
        if self.sent == self.used {
            self.clear();
        }
    }

    /// Whether nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.sent == self.used
    }

    /// The longest payload that there is room for.
    pub fn room(&self) -> usize {
        FRAME.saturating_sub(self.used).saturating_sub(HEAD + HASH)
    }

    /// Adds a frame, whose payload `write` writes; `false`, and nothing has changed, where it does not fit or `write` says so.
    pub fn frame(&mut self, kind: u8, tag: u32, write: impl FnOnce(&mut Writer<'_>) -> bool) -> bool {
        self.try_frame(kind, tag, write).is_some()
    }

    fn try_frame(&mut self, kind: u8, tag: u32, write: impl FnOnce(&mut Writer<'_>) -> bool) -> Option<()> {
        let frame = self.bytes.get_mut(self.used..)?;
        let (head, room) = frame.split_first_chunk_mut::<HEAD>()?;
        let space = room.len().checked_sub(HASH)?;
        let mut writer = Writer { room: room.get_mut(..space)?, used: 0, short: false };
        if !write(&mut writer) || writer.short {
            return None;
        }
        let length = writer.used;
        let [m0, m1] = MAGIC;
        let [l0, l1, l2, l3] = u32::try_from(length).ok()?.to_le_bytes();
        let [t0, t1, t2, t3] = tag.to_le_bytes();
        *head = [m0, m1, kind, 0, l0, l1, l2, l3, t0, t1, t2, t3];
        let (body, rest) = frame.split_at_mut_checked(HEAD.checked_add(length)?)?;
        *rest.first_chunk_mut::<HASH>()? = xxh64(body).to_le_bytes();
        self.used = self.used.checked_add(body.len())?.checked_add(HASH)?;
        Some(())
    }
}

/// Writes a payload. What does not fit makes the frame void.
#[derive(Debug)]
pub struct Writer<'a> {
    room: &'a mut [u8],
    used: usize,
    short: bool,
}

impl Writer<'_> {
    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        match self.room.get_mut(self.used..).and_then(|room| room.get_mut(..bytes.len())) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.short = true,
        }
        self
    }

    /// Adds a number of one byte.
    pub fn u8(&mut self, number: u8) -> &mut Self {
        self.bytes(&[number])
    }

    /// Adds a number of two bytes.
    pub fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Adds a number of four bytes.
    pub fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Adds a number of eight bytes.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Adds a word: its length in two bytes, then itself.
    pub fn word(&mut self, word: &[u8]) -> &mut Self {
        match u16::try_from(word.len()) {
            Ok(length) => self.u16(length).bytes(word),
            Err(_) => {
                self.short = true;
                self
            }
        }
    }

    /// Has `fill` write into the room that is left, at most `most` bytes of it, and say how many those are.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn fill<E>(&mut self, most: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        let room = self.room.get_mut(self.used..).unwrap_or_default();
        let most = most.min(room.len());
        let count = fill(room.get_mut(..most).unwrap_or_default())?.min(most);
        self.used = self.used.saturating_add(count);
        Ok(count)
    }
}

/// Reads a payload from its beginning. A method gives `None` where there is not so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// At the beginning of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing is left.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    /// A number of one byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    pub fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// A number of two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    /// A number of eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// A word: see [`Writer::word`].
    pub fn word(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (word, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(word)
    }
}
