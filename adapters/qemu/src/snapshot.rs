//! A checkpoint in the making: from the frozen instant to a stream that is packed and flushed.
//!
//! ```text
//!   BeginSnapshot                      streaming thread                               CommitSnapshot (slices)
//!   pin the template, reserve space,
//!   add a disk layer
//!   Background: freeze, runs on        wait for QEMU, for the packing  ----------->  manifest, rename
//!   Live:       starts to copy         [freeze, add layer], runs on, the packing
//!   Stopped:    freeze                 wait for QEMU, runs on, pack the plain stream in its place
//!   Held:       it is frozen           wait for QEMU, for the packing
//!                                      packing thread: reads what QEMU writes, to its end; flushes (see `relative`)
//! ```
//! *Background* holds the guest for milliseconds: QEMU saves pages as the guest is about to change them, which needs
//! userfaultfd. It must never be cancelled, and a stream that fails half-way has killed the guest silently: then the
//! machine is given up. *Live* copies memory while the guest changes it, and holds it for the last of it; a guest that
//! changes more than can be written is stopped for the rest. *Stopped* holds the guest until its memory is written.
//! *Held* is for a guest that is paused anyway. The last three leave the guest as it was if they fail.
//!
//! Live is for hardware accelerators only. Under software emulation QEMU 7.2 misses changes while it copies: of 50 guests
//! restored from such a copy 3 were broken, against none of 75 saved in the other ways.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use vmtask_core::{FaultKind, Generation};
use vmtask_driver::{PortError, naming_the_limit};

use crate::checkpoint::{Form, Packed, Stream};
use crate::cmdline::Layer;
use crate::disk;
use crate::fault::{Fault, during};
use crate::host::Accel;
use crate::instance::{InstanceError, Migration};
use crate::live::Live;
use crate::relative::{PackError, Packing};
use crate::wait::Wait;

/// How long QEMU may take to answer the streaming thread, which works for no command, while it also writes a stream.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a guest may be held by a live copy, as QEMU estimates it.
const DOWNTIME_MS: u32 = 30;
/// After so many rounds over what has changed, a guest is changing it faster than it is written.
const ROUNDS: u64 = 4;

/// How the guest's state is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Background,
    Live,
    Stopped,
    Held,
}

impl Mode {
    /// The way that holds the guest for the shortest time.
    pub(crate) fn choose(running: bool, background: bool, accel: Accel) -> Self {
        match (running, background, accel) {
            (false, _, _) => Self::Held,
            (true, true, _) => Self::Background,
            (true, false, Accel::Tcg) => Self::Stopped,
            (true, false, Accel::Kvm) => Self::Live,
        }
    }
}

/// A checkpoint in the making.
pub(crate) struct Snapshot {
    pub(crate) generation: Generation,
    pub(crate) mode: Mode,
    state: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
enum Stage {
    /// QEMU writes.
    #[default]
    Streaming,
    /// QEMU is done with it.
    Streamed,
    /// It is flushed.
    Done(Stream),
    /// It came to nothing.
    Failed(PortError),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, stage: Stage) {
        *self.lock() = stage;
        self.changed.notify_all();
    }
}

/// A disk layer that is made ready to be written to from the instant of the snapshot on.
#[derive(Clone, Debug)]
pub(crate) struct NextLayer {
    pub(crate) layer: Layer,
    pub(crate) above: String,
}

impl Snapshot {
    /// Freezes the guest's state, or begins to.
    pub(crate) fn begin(
        live: &Arc<Live>,
        generation: Generation,
        mode: Mode,
        file: File,
        next: Option<NextLayer>,
        wait: &Wait<'_>,
    ) -> Result<Self, PortError> {
        let what = format!("freezing checkpoint {generation}");
        let instance = &live.instance;
        let background = mode == Mode::Background;
        instance
            .migration_capabilities(
                &[
                    ("x-ignore-shared", false),
                    ("background-snapshot", background),
                    ("pause-before-switchover", mode == Mode::Live && next.is_some()),
                    ("events", true),
                ],
                wait,
            )
            .map_err(during(&what))?;
        let parameters = json!({ "max-bandwidth": 1_u64 << 40, "downtime-limit": DOWNTIME_MS });
        instance.call("migrate-set-parameters", parameters, wait).map_err(during(&what))?;
        let base = live.base.get().map(Arc::clone);
        if let Some(base) = &base {
            base.pin().map_err(during(format!("keeping the template for checkpoint {generation}")))?;
        }
        let form = base.as_ref().map_or(Form::Packed, |base| Form::RelativeTo(base.digest()));
        let packing = match mode {
            // Packing keeps up with QEMU only where that copies pages beside the guest.
            Mode::Stopped => Packing::after(file, base),
            Mode::Background | Mode::Live | Mode::Held => Packing::beside(file, base),
        };
        let (packing, stream) = packing.map_err(during(&what))?;
        let frozen = layer_names(live);
        let shared = Arc::default();
        let begun = Begun { live: Arc::clone(live), generation, mode, form, packing, next, frozen, shared };
        begun.start(stream, wait).map_err(|error| {
            // The guest may be stopped half-way.
            PortError::new(error.fault.kind, format!("{what}: {}", error.message))
        })
    }

    /// Waits until QEMU has written the guest's memory, or failed to, unless the guest may run meanwhile.
    pub(crate) fn wait_if_holding(&self, wait: &Wait<'_>) -> Result<(), crate::wait::Stop> {
        if self.mode == Mode::Background {
            return Ok(());
        }
        let mut stage = self.state.lock();
        while matches!(*stage, Stage::Streaming) {
            let tick = wait.tick()?;
            stage = self.state.changed.wait_timeout(stage, tick).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Waits for the flushed stream, at most for a slice: `None` if it takes longer.
    pub(crate) fn poll(&self, slice: &Wait<'_>) -> Option<Result<Stream, PortError>> {
        let mut stage = self.state.lock();
        loop {
            match &*stage {
                Stage::Done(stream) => return Some(Ok(stream.clone())),
                Stage::Failed(error) => return Some(Err(error.clone())),
                Stage::Streaming | Stage::Streamed => {}
            }
            let tick = slice.tick().ok()?;
            stage = self.state.changed.wait_timeout(stage, tick).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The file names of the disk's layers, lowest first.
pub(crate) fn layer_names(live: &Live) -> Vec<String> {
    live.layers().iter().filter_map(|layer| Some(layer.file.file_name()?.to_str()?.to_owned())).collect()
}

/// What the streaming thread needs.
struct Begun {
    live: Arc<Live>,
    generation: Generation,
    mode: Mode,
    form: Form,
    packing: Packing,
    next: Option<NextLayer>,
    frozen: Vec<String>,
    shared: Arc<Shared>,
}

impl Begun {
    /// `stream` is for QEMU to write to.
    fn start(mut self, stream: File, wait: &Wait<'_>) -> Result<Snapshot, PortError> {
        let instance = &self.live.instance;
        let resumed = self.live.signs.resumes();
        match self.mode {
            Mode::Background => {
                if self.next.is_some() {
                    // Memory and disk at the same instant. QEMU lets the guest run on once its state is saved.
                    instance.stop(wait).map_err(during("stopping the guest"))?;
                    self.switch_layer(wait)?;
                }
            }
            Mode::Stopped => {
                instance.stop(wait).map_err(during("stopping the guest"))?;
                self.switch_layer(wait)?;
            }
            Mode::Held => self.switch_layer(wait)?,
            Mode::Live => {}
        }
        let instance = &self.live.instance;
        instance.migrate_to(&stream, wait).map_err(|error| self.give_up(&error, wait))?;
        // The end of the stream is where QEMU closes it.
        drop(stream);
        if self.mode == Mode::Background {
            self.wait_resumed(resumed, wait)?;
        }
        let snapshot = Snapshot { generation: self.generation, mode: self.mode, state: Arc::clone(&self.shared) };
        let (live, kill_by) = (Arc::clone(&self.live), wait.deadline());
        std::thread::Builder::new().name("qemu-snapshot".into()).spawn(move || self.stream()).map_err(|error| {
            // Nobody would ever finish it.
            let _ = live.kill(kill_by);
            PortError::new(FaultKind::Fatal, format!("starting a thread for it: {error}"))
        })?;
        Ok(snapshot)
    }

    /// Starting the stream failed. If nothing was begun, the guest runs on as it did.
    fn give_up(&self, error: &InstanceError, wait: &Wait<'_>) -> PortError {
        if error.kind() == FaultKind::Refused && self.restore_run_state(wait) {
            return error.during("starting the stream");
        }
        PortError::new(FaultKind::Unknown, format!("starting the stream: {error}"))
    }

    /// Lets the guest run if it should. Whether that worked.
    fn restore_run_state(&self, wait: &Wait<'_>) -> bool {
        self.live.wish(wait).is_ok_and(|wish| !wish.running || self.live.instance.cont(wait).is_ok())
    }

    /// From now on the guest writes to the next layer.
    fn switch_layer(&mut self, wait: &Wait<'_>) -> Result<(), PortError> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        let switched = self.live.instance.call(
            "transaction",
            json!({ "actions": [{
                "type": "blockdev-snapshot-sync",
                "data": {
                    "node-name": next.above,
                    "snapshot-file": next.layer.file.to_string_lossy(),
                    "snapshot-node-name": next.layer.node,
                    "format": "qcow2",
                    "mode": "existing",
                },
            }]}),
            wait,
        );
        match switched {
            Ok(_) => {
                self.live.layers().push(next.layer);
                Ok(())
            }
            Err(error) => {
                let _ = self.restore_run_state(wait);
                Err(error.during("freezing the disk"))
            }
        }
    }

    /// Waits until a background snapshot has let the guest run on.
    fn wait_resumed(&self, before: u64, wait: &Wait<'_>) -> Result<(), PortError> {
        let mut seen = 0;
        while self.live.signs.resumes() == before {
            wait.tick().map_err(during("waiting for the guest to run on"))?;
            seen = self.live.signs.migration_changed(seen, Duration::from_millis(20));
            match self.live.instance.migration(wait) {
                Ok(Migration::Failed(why)) => {
                    return Err(PortError::new(FaultKind::Fatal, format!("QEMU could not freeze the guest: {why}")));
                }
                Ok(_) => {}
                Err(error) => return Err(error.during("waiting for the guest to run on")),
            }
        }
        Ok(())
    }

    /// The streaming thread.
    fn stream(mut self) {
        let shared = Arc::clone(&self.shared);
        let result = self.wait_for_qemu().and_then(|()| {
            shared.set(Stage::Streamed);
            self.finish()
        });
        shared.set(match result {
            Ok(stream) => Stage::Done(stream),
            Err(error) => Stage::Failed(error),
        });
    }

    fn wait_for_qemu(&mut self) -> Result<(), PortError> {
        let mut seen = 0;
        let mut stopped = false;
        loop {
            let wait = Wait::most(ANSWER);
            let migration = self.live.instance.migration(&wait).map_err(|error| self.lost(&error.to_string()))?;
            match migration {
                Migration::Completed => break,
                Migration::Failed(why) => return Err(self.failed(&why)),
                Migration::None => return Err(self.failed("QEMU knows nothing of it")),
                Migration::Active(progress) if progress.status == "pre-switchover" => {
                    self.switch_over(&wait)?;
                }
                Migration::Active(progress) => {
                    let too_fast = progress.rounds > ROUNDS || progress.sent > self.live.memory;
                    if self.mode == Mode::Live && too_fast && !stopped {
                        stopped = true;
                        tracing::debug!(?progress, "the guest changes too much: stopping it for the rest");
                        // Refused only if the copy is at its end by now.
                        let _ = self.live.instance.stop(&wait);
                    }
                }
            }
            seen = self.live.signs.migration_changed(seen, Duration::from_millis(50));
        }
        if matches!(self.mode, Mode::Live | Mode::Stopped) && !self.restore_run_state(&Wait::most(ANSWER)) {
            return Err(self.lost("the guest does not run on after its state was saved"));
        }
        Ok(())
    }

    /// The guest stands still at the end of a live copy: freeze the disk too.
    fn switch_over(&mut self, wait: &Wait<'_>) -> Result<(), PortError> {
        let live = Arc::clone(&self.live);
        let instance = &live.instance;
        if self.next.is_some() {
            self.frozen = layer_names(&live);
            self.switch_layer(wait)?;
        }
        instance
            .call("migrate-continue", json!({ "state": "pre-switchover" }), wait)
            .map(drop)
            .map_err(|error| self.lost(&error.to_string()))
    }

    /// QEMU says that it failed.
    fn failed(&self, why: &str) -> PortError {
        if self.mode == Mode::Background {
            return self.lost(why);
        }
        if !self.restore_run_state(&Wait::most(ANSWER)) {
            return self.lost(why);
        }
        let kind = if crate::disk::says_no_space(why) { FaultKind::NoSpace } else { FaultKind::Refused };
        let generation = self.generation;
        PortError::new(
            kind,
            format!("writing checkpoint {generation}: {why}; the guest goes on and the earlier checkpoints stand"),
        )
    }

    /// The guest's state is in doubt: nothing of it may go on.
    fn lost(&self, why: &str) -> PortError {
        let _ = self.live.kill(Instant::now() + ANSWER);
        PortError::new(
            FaultKind::Fatal,
            format!(
                "writing checkpoint {}: {why}; the guest cannot be trusted any more and was powered off",
                self.generation
            ),
        )
    }

    /// Waits for the packed stream, and flushes the disk that it goes with.
    fn finish(self) -> Result<Stream, PortError> {
        let generation = self.generation;
        let Packed { bytes, sha256 } = self.packing.finish().map_err(|error| {
            let text = format!(
                "writing checkpoint {generation}: {error}; the guest goes on and the earlier checkpoints stand"
            );
            PortError::new(PackError::kind(&error), naming_the_limit(text))
        })?;
        if let Some(name) = self.frozen.last()
            && let Some(layer) = self.live.layers().iter().find(|layer| layer.file.ends_with(name))
        {
            flush_layer(&layer.file).map_err(during(format!("flushing checkpoint {generation}")))?;
        }
        Ok(Stream { bytes, sha256, form: self.form, disk: self.frozen })
    }
}

fn flush_layer(file: &PathBuf) -> std::io::Result<()> {
    File::open(file)?.sync_all()?;
    disk::sync_dir_of(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::paused(false, true, Accel::Tcg, Mode::Held)]
    #[case::paused_without_privilege(false, false, Accel::Kvm, Mode::Held)]
    #[case::privileged(true, true, Accel::Tcg, Mode::Background)]
    #[case::privileged_with_hardware(true, true, Accel::Kvm, Mode::Background)]
    #[case::unprivileged_with_hardware(true, false, Accel::Kvm, Mode::Live)]
    #[case::never_live_under_emulation(true, false, Accel::Tcg, Mode::Stopped)]
    fn the_guest_is_held_for_as_short_as_is_safe(
        #[case] running: bool,
        #[case] background: bool,
        #[case] accel: Accel,
        #[case] expected: Mode,
    ) {
        assert_eq!(Mode::choose(running, background, accel), expected);
    }
}
