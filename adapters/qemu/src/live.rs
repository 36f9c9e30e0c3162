//! One boot of the task's guest: its QEMU, what is known of it, and who watches it.
//!
//! ```text
//!   keeper thread   waits for QEMU's end      --> GuestStopped, or GuestRebooted if the guest reset itself
//!   reader thread   reads QMP events          --> notes them
//!   watcher thread  waits for the guest's nudge, looks now and then --> ProgramExited, Progress
//! ```

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use vmtask_core::{Boot, Event};
use vmtask_driver::EventSink;

use crate::cmdline::Layer;
use crate::instance::{Instance, lock_within};
use crate::relative::BaseMemory;
use crate::snapshot::Snapshot;
use crate::sockets::Channel;
use crate::stream::{CopyIn, CopyOut};
use crate::wait::{Stop, Wait};

/// A boot.
pub(crate) struct Live {
    pub(crate) boot: Boot,
    pub(crate) instance: Instance,
    pub(crate) signs: Arc<Signs>,
    /// What sliced commands have begun.
    pub(crate) work: Mutex<Work>,
    /// Whether the guest should run. Held while that is changed.
    pub(crate) wish: Mutex<Wish>,
    /// The connection to the guest's nudges, until the watcher takes it.
    pub(crate) events: Mutex<Option<UnixStream>>,
    /// The guest's memory in bytes.
    pub(crate) memory: u64,
    /// What its memory was cloned from, once that is loaded. A guest that has booted has nothing of the kind.
    pub(crate) base: OnceLock<Arc<BaseMemory>>,
    /// The disk's layers that are in use, lowest first.
    pub(crate) layers: Mutex<Vec<Layer>>,
}

/// What was begun and goes on at the next slice.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) copy_in: Option<(u16, CopyIn)>,
    pub(crate) copy_out: Option<(u16, crate::results::Place, CopyOut)>,
    pub(crate) snapshot: Option<Snapshot>,
    /// Restored: what it was told before its first breath, it knows.
    pub(crate) restored: bool,
    /// The agent has answered in this boot.
    pub(crate) greeted: bool,
    /// The working directory came with the template.
    pub(crate) workdir: bool,
    /// The program has ended or is held: what it has written is not written to.
    pub(crate) held: bool,
}

/// Whether the guest should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) running: bool,
}

/// Notes from other threads.
#[derive(Default)]
pub(crate) struct Signs {
    /// We are ending it ourselves: its end is no news.
    pub(crate) ending: AtomicBool,
    /// The guest reset itself.
    reset: AtomicBool,
    /// The disk of the host is full: the guest is stopped until there is room.
    pub(crate) starved: AtomicBool,
    /// The program was launched: worth watching.
    pub(crate) launched: AtomicBool,
    /// Counts how often the guest was let run on.
    resumes: AtomicU64,
    /// Since when the guest has stood still.
    stopped: Mutex<Option<Instant>>,
    /// Counts changes of a migration's state, or of the guest's.
    migration: Mutex<u64>,
    migrated: Condvar,
}

impl Signs {
    /// Takes note of a QMP event.
    pub(crate) fn note(&self, name: &str, data: &Value) {
        tracing::trace!(name, %data, "QMP event");
        match name {
            "SHUTDOWN" => {
                let reason = data.get("reason").and_then(Value::as_str);
                if matches!(reason, Some("guest-reset")) {
                    self.reset.store(true, Ordering::SeqCst);
                }
            }
            "BLOCK_IO_ERROR" if data.get("nospace").and_then(Value::as_bool) == Some(true) => {
                self.starved.store(true, Ordering::SeqCst);
            }
            "STOP" => *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now()),
            "MIGRATION" | "RESUME" => {
                if name == "RESUME" {
                    self.resumes.fetch_add(1, Ordering::SeqCst);
                    let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).take();
                    tracing::debug!(held = ?stopped.map(|at| at.elapsed()), "the guest runs on");
                }
                *self.migration.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                self.migrated.notify_all();
            }
            _ => {}
        }
    }

    /// Waits until a migration's state has changed since `seen`, or for `most`. Returns what to pass next time.
    pub(crate) fn migration_changed(&self, seen: u64, most: Duration) -> u64 {
        let count: MutexGuard<'_, u64> = self.migration.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .migrated
            .wait_timeout_while(count, most, |count| *count == seen)
            .unwrap_or_else(PoisonError::into_inner);
        *waited.0
    }

    /// How often the guest was let run on, so far.
    pub(crate) fn resumes(&self) -> u64 {
        self.resumes.load(Ordering::SeqCst)
    }

    /// The process has ended.
    pub(crate) fn ended(&self, boot: Boot, sink: Option<&EventSink>) {
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        let event = if self.reset.load(Ordering::SeqCst) { Event::GuestRebooted } else { Event::GuestStopped };
        if let Some(sink) = sink {
            sink.send(boot, event);
        }
    }
}

impl Live {
    /// Whether the process is still there.
    pub(crate) fn is_alive(&self) -> bool {
        self.instance.process.ended().is_none()
    }

    /// Connects to whoever was connected when the state was saved that is about to be loaded. To the guest nothing has
    /// changed then; an agent whose host has gone and comes back looks for it ten times a second only.
    pub(crate) fn connect_early(&self, wait: &Wait<'_>) {
        if let Ok(mut agent) = lock_within(&self.instance.agent, wait) {
            agent.connect_early();
        }
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = self.instance.connect(Channel::Events).ok();
    }

    /// Ends it for good, by then.
    pub(crate) fn kill(&self, until: Instant) -> Result<(), Stop> {
        self.signs.ending.store(true, Ordering::SeqCst);
        self.instance.kill(until).map(drop)
    }

    pub(crate) fn layers(&self) -> MutexGuard<'_, Vec<Layer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the guest should run. Whoever changes that holds this until QEMU has answered.
    pub(crate) fn wish(&self, wait: &Wait<'_>) -> Result<MutexGuard<'_, Wish>, Stop> {
        lock_within(&self.wish, wait)
    }
}
