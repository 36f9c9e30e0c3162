//! Who notices that the program has ended, or the guest.
//!
//! VIX pushes nothing, so this thread looks: at the VM's power state, which costs nothing, and at the supervisor's status
//! file, which is copied out. Soon after the launch, then ever more seldom.
//!
//! ```text
//!   waiting --> off although it should run ------------> GuestStopped, end
//!      ^  \--> status: exited -------------------------> ProgramExited, end
//!      |   \-> status: the beat is another ------------> Progress
//!      |    \> the beat is the same for long --> look --> lost or not started --> GuestRebooted, end
//!      +-- twice as long, at most 2 s
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use vmtask_core::Event;
use vmtask_driver::{Credentials, EventSink};

use crate::files::lost_session;
use crate::guest::{Guest, GuestError, State, Status};
use crate::live::Live;
use crate::machine::Vm;
use crate::ops::session;
use crate::wait::Wait;

const FIRST_LOOK: Duration = Duration::from_millis(150);
const LAST_LOOK: Duration = Duration::from_secs(2);
/// How long a look may take.
const ONE_LOOK: Duration = Duration::from_secs(5);
/// A supervisor that gives no sign of life for so long is looked for.
const SILENCE: Duration = Duration::from_secs(6);

/// What the watcher needs to know of the task.
pub(crate) struct Watched {
    pub(crate) workdir: String,
    /// A directory of its own: commands fetch files of the same names.
    pub(crate) fetched: PathBuf,
    pub(crate) account: Credentials,
}

/// Starts watching a boot, unless it is watched already. Ends by itself when the boot does, or when the program has.
pub(crate) fn start(live: &Arc<Live>, vm: &Vm, watched: Watched, sink: EventSink) -> io::Result<()> {
    live.is_open_as(vm);
    if live.watched.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let name = format!("vix {}", live.boot);
    let watcher =
        Watcher { live: Arc::downgrade(live), watched, sink, last: None, beat: 0, sign_of_life: Instant::now() };
    std::thread::Builder::new().name(name).spawn(move || watcher.run()).map(drop)
}

struct Watcher {
    live: Weak<Live>,
    watched: Watched,
    sink: EventSink,
    last: Option<Event>,
    beat: u64,
    sign_of_life: Instant,
}

impl Watcher {
    fn run(mut self) {
        let mut pause = FIRST_LOOK;
        let mut since_launch = false;
        loop {
            let launched = match self.wait(pause) {
                Some(live) => live.launched.load(Ordering::SeqCst),
                None => return,
            };
            if launched && !since_launch {
                since_launch = true;
                self.sign_of_life = Instant::now();
                pause = FIRST_LOOK;
            }
            let Some(live) = self.live.upgrade() else { return };
            if self.look(&live, launched) {
                return;
            }
            pause = (pause * 2).min(if launched { LAST_LOOK } else { LAST_LOOK / 4 });
        }
    }

    /// Waits, but for no longer than the boot is alive.
    fn wait(&self, most: Duration) -> Option<Arc<Live>> {
        let wait = Wait::most(most);
        loop {
            let live = self.live.upgrade().filter(|live| !live.ended.load(Ordering::SeqCst))?;
            let Ok(tick) = wait.tick() else { return Some(live) };
            drop(live);
            std::thread::sleep(tick);
        }
    }

    /// Looks once; whether there is nothing more to see.
    fn look(&mut self, live: &Live, launched: bool) -> bool {
        let wait = Wait::most(ONE_LOOK);
        // While somebody else has it, it may be held, or be something else than it should.
        let Ok(mut work) = live.work(&wait) else { return false };
        if live.ended.load(Ordering::SeqCst) {
            return true;
        }
        if !live.wish().running {
            self.sign_of_life = Instant::now();
            return false;
        }
        // Closed for a moment, after a connection was lost: the next command opens it.
        let Some(vm) = live.open() else { return false };
        let Ok(state) = vm.power_state() else { return false };
        if !state.is_running() && !state.is_changing() {
            live.ended.store(true, Ordering::SeqCst);
            self.sink.send(live.boot, Event::GuestStopped);
            return true;
        }
        if !launched {
            return false;
        }
        let (workdir, fetched) = (self.watched.workdir.clone(), self.watched.fetched.clone());
        let guest = Guest { vm: &vm, workdir: &workdir, fetched: &fetched };
        if let Err(error) = session(&mut work, &guest, &self.watched.account, &wait) {
            tracing::debug!(%error, "the guest does not answer");
            return false;
        }
        let event = match self.ask(&guest, &wait) {
            Ok(Some(status)) => self.event_of(status),
            Ok(None) => return false,
            Err(error) => {
                work.logged_in &= !lost_session(&error);
                tracing::debug!(%error, "the program could not be looked at");
                return false;
            }
        };
        drop(work);
        self.tell(live, event)
    }

    fn ask(&mut self, guest: &Guest<'_>, wait: &Wait<'_>) -> Result<Option<Status>, GuestError> {
        let status = guest.status(wait)?;
        if let Some(status) = status
            && (status.state != State::Running || status.beat != self.beat)
        {
            self.beat = status.beat;
            self.sign_of_life = Instant::now();
            return Ok(Some(status));
        }
        if self.sign_of_life.elapsed() < SILENCE {
            return Ok(None);
        }
        self.sign_of_life = Instant::now();
        guest.look(wait).map(Some)
    }

    const fn event_of(&self, status: Status) -> Event {
        match status.state {
            State::Exited(exit) => Event::ProgramExited(exit),
            // Without its supervisor nobody will ever know how the program ends: as good as a reboot.
            State::Lost | State::NotStarted => Event::GuestRebooted,
            State::Running => Event::Progress { permille: status.permille, cpu_ms: status.cpu_ms },
        }
    }

    fn tell(&mut self, live: &Live, event: Event) -> bool {
        if self.last != Some(event) {
            self.last = Some(event);
            self.sink.send(live.boot, event);
        }
        !matches!(event, Event::Progress { .. })
    }
}
