//! The host's end: greets until it is answered, sends requests without waiting, hands out what comes back.

use crate::frame::{Decoder, Encoder, FRAME};
use crate::message::{Reply, Request, State, VERSION};

/// Which request a reply belongs to. Those of a session count up from 1.
pub type Tag = u32;

/// Why a request cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// What was sent before must go first: after [`Session::sent`] there is room.
    Full,
    /// It is longer than a frame.
    TooLong,
    /// No guest has answered the greeting.
    NotGreeted,
}

/// What the guest has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// It answers the greeting, in the same version or in another one; in another, nothing can be asked of it.
    Greeted {
        /// The guest's version.
        version: u16,
        /// What this boot has done.
        state: State,
    },
    /// It answers this request. Of a Get, a `File` comes before its pieces.
    Reply(Tag, Reply<'a>),
    /// It says this unasked.
    State(State),
}

/// The host's half of a session.
#[derive(Debug, Clone)]
pub struct Session {
    nonce: u64,
    decoder: Decoder,
    out: Encoder,
    /// Of the zeros that go before the first greeting, so many have not gone.
    zeros: usize,
    greeted: bool,
    tag: Tag,
}

/// Not sent in one piece, but so that no large memory is needed for them.
static ZEROS: [u8; 4096] = [0; 4096];

impl Session {
    /// One with a guest of which nothing is known, except that no session had this nonce before. The greeting waits to be sent.
    pub fn new(nonce: u64) -> Self {
        let mut session =
            Self { nonce, decoder: Decoder::new(), out: Encoder::new(), zeros: 0, greeted: false, tag: 0 };
        session.start(nonce);
        session
    }

    /// Begins again: the guest lets go of all transfers, and everything that it was saying. What is between the two ends is
    /// cut off, so the stream may be the same one or another.
    pub fn start(&mut self, nonce: u64) {
        self.nonce = nonce;
        self.decoder.clear();
        self.out.clear();
        self.zeros = FRAME;
        self.greeted = false;
        self.tag = 0;
        self.greet();
    }

    /// Greets once more, as long as nobody has answered: the guest may not have been there.
    pub fn greet(&mut self) {
        if !self.greeted && self.out.is_empty() {
            let _ = Request::Hello { nonce: self.nonce, version: VERSION }.write(&mut self.out, 0);
        }
    }

    /// Whether the guest has answered.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Sends a request, without waiting for the replies to those before.
    ///
    /// # Errors
    /// Nothing is sent then: see [`NotSent`].
    pub fn request(&mut self, request: &Request<'_>) -> Result<Tag, NotSent> {
        let tag = self.tag.wrapping_add(1).max(1);
        self.send(request, tag)?;
        self.tag = tag;
        Ok(tag)
    }

    /// Sends a piece of the file of this Put.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn piece(&mut self, tag: Tag, offset: u64, bytes: &[u8]) -> Result<(), NotSent> {
        self.send(&Request::PutData { offset, bytes }, tag)
    }

    fn send(&mut self, request: &Request<'_>, tag: Tag) -> Result<(), NotSent> {
        if !self.greeted {
            return Err(NotSent::NotGreeted);
        }
        if request.write(&mut self.out, tag) {
            return Ok(());
        }
        Err(if self.out.is_empty() { NotSent::TooLong } else { NotSent::Full })
    }

    /// Takes bytes from the guest: how many; fewer where there is an [`Self::event`] to be looked at first.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            // Until the guest has answered, nothing is looked for but its short answer: what somebody else was sent before
            // may look like the head of any frame, and would swallow the answer.
            let count = self.decoder.input(rest, if self.greeted { Reply::is_kind } else { Reply::is_greeting });
            taken = taken.saturating_add(count);
            if self.decoder.frame().is_none() || self.event().is_some() {
                return taken;
            }
            // Of a session before, or of another protocol.
            self.decoder.release();
        }
    }

    /// What has come, until [`Self::next`].
    pub fn event(&self) -> Option<Event<'_>> {
        let frame = self.decoder.frame()?;
        match (Reply::read(frame)?, self.greeted) {
            (Reply::Welcome { nonce, version, state }, false) if nonce == self.nonce => {
                Some(Event::Greeted { version, state })
            }
            (Reply::Welcome { .. }, _) | (_, false) => None,
            (Reply::State(state), true) if frame.tag == 0 => Some(Event::State(state)),
            (reply, true) => Some(Event::Reply(frame.tag, reply)),
        }
    }

    /// Lets go of what has come. There may be more at once: give [`Self::input`] what is left, and nothing if nothing is.
    pub fn next(&mut self) {
        if let Some(Event::Greeted { version, .. }) = self.event() {
            self.greeted = version == VERSION;
        }
        self.decoder.release();
    }

    /// Bytes for the guest, until [`Self::sent`].
    pub fn output(&self) -> &[u8] {
        match ZEROS.get(..self.zeros.min(ZEROS.len())) {
            Some(zeros @ [_, ..]) => zeros,
            _ => self.out.output(),
        }
    }

    /// So many of them have gone.
    pub fn sent(&mut self, count: usize) {
        let zeros = count.min(self.zeros);
        self.zeros = self.zeros.saturating_sub(zeros);
        self.out.sent(count.saturating_sub(zeros));
    }
}
