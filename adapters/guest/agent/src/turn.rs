//! The agent's one loop: bytes from the host, bytes to the host, children that have ended, and time.

use crate::port::{Got, Port};
use crate::sys::{self, Borrowed, End, Errno, Event, Fd, Pid, Poll, Signals, Which};

/// What the loop carries bytes and news to.
pub trait Session {
    /// Takes bytes that the host has sent: how many of them, fewer where there is no room before more has gone out.
    fn input(&mut self, bytes: &[u8]) -> usize;
    /// Bytes for the host, from the one behind those that are [`Session::sent`]. Input may make the rest of them void.
    fn output(&mut self) -> &[u8];
    /// So many of them have gone.
    fn sent(&mut self, count: usize);
    /// A child has ended.
    fn ended(&mut self, pid: Pid, end: End);
    /// It is this late, in nanoseconds: does what is due, and says when it wants to be called again at the latest.
    fn wake(&mut self, now: u64) -> Option<u64>;
}

/// Everything that the loop waits for.
#[derive(Debug)]
pub struct Turn {
    poll: Poll,
    children: Fd,
    port: Port,
    /// Taken from the port, and not yet by the session: `room[start..end]`.
    room: [u8; ROOM],
    start: usize,
    end: usize,
}

/// A virtio-serial port gives no more than 4 KiB at a time.
const ROOM: usize = 4096;

const PORT: u64 = 0;
const CHILDREN: u64 = 1;

impl Turn {
    /// Waits at these two descriptors, which may be one, and for children. Signals that would end the agent are blocked from
    /// now on.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn new(input: Borrowed, output: Borrowed) -> sys::Result<Self> {
        sys::block_signals(Signals::BLOCKED)?;
        let poll = Poll::new()?;
        let children = sys::signal_events(Signals::CHILDREN)?;
        poll.add(*children, CHILDREN)?;
        let port = Port::new(input, output, &poll, PORT)?;
        Ok(Self { poll, children, port, room: [0; ROOM], start: 0, end: 0 })
    }

    /// Does what can be done now, and waits until there is more. `false` when the port has ended: for a virtio-serial port
    /// that only means that the host is away.
    ///
    /// # Errors
    /// As the kernel's: a port that is gone.
    pub fn take(&mut self, session: &mut impl Session) -> sys::Result<bool> {
        let mut moved = false;
        // Before anything else is done: what has ended has ended.
        while let Ok(Some((pid, end))) = sys::wait(Which::Any, false) {
            session.ended(pid, end);
            moved = true;
        }
        let now = sys::monotonic();
        let next = session.wake(now);
        let mut ended = false;
        if self.start == self.end {
            match self.port.read(&mut self.room)? {
                Got::Bytes(count) => {
                    (self.start, self.end) = (0, count);
                    moved = true;
                }
                Got::Nothing => {}
                Got::End => ended = true,
            }
        }
        let taken = session.input(self.room.get(self.start..self.end).unwrap_or_default());
        self.start = self.start.saturating_add(taken).min(self.end);
        moved |= taken > 0;
        let sent = self.port.write(session.output())?;
        session.sent(sent);
        // One write at a time: what the host says meanwhile may make the rest void.
        if !moved && sent == 0 && !ended {
            self.rest(next.map(|next| next.saturating_sub(now)))?;
        }
        Ok(!ended)
    }

    fn rest(&mut self, nanoseconds: Option<u64>) -> sys::Result<()> {
        // Rounded up: never too early, which would make a busy loop of the last millisecond.
        let milliseconds = nanoseconds.map(|wait| u32::try_from(wait.div_ceil(1_000_000)).unwrap_or(u32::MAX));
        let mut events = [Event::default(); 2];
        let events = match self.poll.wait(&mut events, milliseconds) {
            Ok(events) => events,
            Err(Errno::INTR) => &[],
            Err(error) => return Err(error),
        };
        for event in events {
            if event.which() == CHILDREN {
                // Only that it came matters; who ended is asked of the kernel.
                while sys::read(*self.children, &mut [0; 128]).is_ok_and(|got| got > 0) {}
            } else {
                self.port.wake();
            }
        }
        Ok(())
    }
}
