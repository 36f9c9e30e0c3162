//! Who notices that the program has ended.
//!
//! The guest writes a line to a port of its own when it has, so this thread spends its life in one blocking read. Because
//! that line can be lost (the port cut, the guest restored from a checkpoint), and for the program's progress, it also
//! looks by itself: soon after the launch, then ever more seldom.
//!
//! ```text
//!   waiting --time for a look, or a line that says nothing--> looking --(still running)--> waiting, twice as long,
//!      |                                                         |                         at most 5 s
//!      +--a line with the exit status--> one event, end <--(exited)
//! ```
//! Whatever runs in the guest as root can write to that port too, as it can overwrite its own results: a program that
//! announces an end before its time spoils nothing but its own outputs.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use vmtask_core::Event;
use vmtask_driver::EventSink;

use crate::agent::is_lull;
use crate::guest::{self, State};
use crate::instance::lock_within;
use crate::live::Live;
use crate::sockets::Channel;
use crate::wait::Wait;

const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);
/// How long a look may take. A guest that is held meanwhile does not answer.
const ONE_LOOK: Duration = Duration::from_secs(3);
/// A program may write to the port as well: more nudges than this cost no more looks.
const NUDGE_PAUSE: Duration = Duration::from_millis(50);

/// Starts watching. Ends by itself when the machine does, or when the program has.
pub(crate) fn start(live: &Arc<Live>, progress: Option<String>, sink: EventSink) -> io::Result<()> {
    let watcher = Watcher {
        live: Arc::downgrade(live),
        connect: Box::new(live.instance.connector(Channel::Events)),
        events: live.events.lock().unwrap_or_else(PoisonError::into_inner).take(),
        progress,
        sink,
        last: None,
    };
    std::thread::Builder::new().name("qemu-watcher".into()).spawn(move || watcher.run()).map(drop)
}

struct Watcher {
    live: Weak<Live>,
    connect: Box<dyn Fn() -> io::Result<UnixStream> + Send>,
    events: Option<UnixStream>,
    progress: Option<String>,
    sink: EventSink,
    last: Option<Event>,
}

impl Watcher {
    fn run(mut self) {
        let mut pause = FIRST_LOOK;
        let mut since_launch = false;
        loop {
            let nudge = self.wait_for_nudge(pause);
            let Some(live) = self.live.upgrade().filter(|live| live.is_alive()) else {
                return;
            };
            feed_the_starved(&live);
            if !live.signs.launched.load(Ordering::SeqCst) {
                continue;
            }
            if let Some(status) = nudge.as_deref().and_then(guest::parse_nudge) {
                self.sink.send(live.boot, Event::ProgramExited(status));
                return;
            }
            if !since_launch {
                since_launch = true;
                pause = FIRST_LOOK;
            }
            if !live.wish(&Wait::most(ONE_LOOK)).is_ok_and(|wish| wish.running) {
                continue;
            }
            if self.look(&live) {
                return;
            }
            if nudge.is_some() {
                // Whoever nudges without need is not listened to more often than this.
                std::thread::sleep(NUDGE_PAUSE);
            } else {
                pause = (pause * 2).min(LAST_LOOK);
            }
        }
    }

    /// Waits for a line from the guest; `None` if it was time that passed.
    fn wait_for_nudge(&mut self, most: Duration) -> Option<String> {
        let until = Instant::now() + most;
        if self.events.is_none() {
            self.events = (self.connect)().ok();
        }
        let Some(events) = &mut self.events else {
            std::thread::sleep(most);
            return None;
        };
        // More than any line that means something; what does not fit is noise.
        let mut bytes = [0; 64];
        let read = events.set_read_timeout(Some(most)).and_then(|()| events.read(&mut bytes));
        match read {
            Ok(0) => self.events = None,
            Ok(got) => return Some(String::from_utf8_lossy(&bytes[..got]).trim_end().to_owned()),
            Err(error) if is_lull(&error) => return None,
            Err(_) => self.events = None,
        }
        // The port was cut: what is left of the time passes without it.
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        None
    }

    /// Looks at the program; whether there is nothing more to see.
    fn look(&mut self, live: &Live) -> bool {
        let wait = Wait::most(ONE_LOOK);
        let Ok(mut agent) = lock_within(&live.instance.agent, &wait) else {
            return false;
        };
        let status = guest::status(&mut agent, self.progress.as_deref(), &wait);
        drop(agent);
        let event = match status {
            Err(error) => {
                tracing::debug!(%error, "the program could not be looked at");
                return false;
            }
            Ok(status) => match status.state {
                State::NotStarted => return false,
                State::Exited(exit) => Event::ProgramExited(exit),
                // Without its supervisor nobody will ever know how the program ends: as good as a reboot.
                State::Lost => Event::GuestRebooted,
                State::Running => Event::Progress { permille: status.permille, cpu_ms: status.cpu_ms },
            },
        };
        if self.last != Some(event) {
            self.last = Some(event);
            self.sink.send(live.boot, event);
        }
        !matches!(event, Event::Progress { .. })
    }
}

/// A guest that was stopped because the host's disk was full is tried again now and then.
fn feed_the_starved(live: &Live) {
    if live.signs.starved.swap(false, Ordering::SeqCst) {
        tracing::warn!("the host's disk is full; the guest waits until there is room");
        let wait = Wait::most(ONE_LOOK);
        if live.wish(&wait).is_ok_and(|wish| wish.running) {
            let _ = live.instance.cont(&wait);
        }
    }
}
