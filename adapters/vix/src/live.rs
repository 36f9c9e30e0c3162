//! One life of the guest, shared by the thread that carries out commands, the fence and the watcher.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use vmtask_core::{Boot, Generation};

use crate::files::{CopyIn, CopyOut};
use crate::job::Job;
use crate::machine::{Vm, WeakVm};
use crate::snapshots::Measuring;
use crate::wait::{Stop, Wait};

/// A boot of the task's VM.
pub(crate) struct Live {
    pub(crate) boot: Boot,
    /// Whether the program is there to be looked at.
    pub(crate) launched: AtomicBool,
    /// Whether it is over: powered off, or found off.
    pub(crate) ended: AtomicBool,
    /// Whether somebody watches it.
    pub(crate) watched: AtomicBool,
    /// The VM as it is open now, for whoever watches: a connection that is lost is made again.
    open: Mutex<Option<WeakVm>>,
    pub(crate) wish: Mutex<Wish>,
    /// Whoever asks the guest for something holds this: nothing may be asked of a guest that is held, and VIX wants one
    /// thing at a time.
    pub(crate) work: Mutex<Work>,
}

/// How the guest should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) running: bool,
}

/// What is known of the guest, and what is half done in it.
#[derive(Default)]
pub(crate) struct Work {
    /// Whether our login is still good.
    pub(crate) logged_in: bool,
    /// Whether its clock stood still since it was last set.
    pub(crate) clock_is_late: bool,
    pub(crate) tools: Option<Job>,
    pub(crate) copy_in: Option<CopyIn>,
    pub(crate) copy_out: Option<CopyOut>,
    pub(crate) snapshot: Option<Begun>,
    /// The newest whose name was free in this boot: a snapshot that has it was taken by an attempt of ours.
    pub(crate) attempted: Option<Generation>,
}

/// A checkpoint that was begun and is not committed.
pub(crate) struct Begun {
    pub(crate) generation: Generation,
    /// For copies: the thread that flushes and measures.
    pub(crate) measuring: Option<Measuring>,
}

impl Live {
    pub(crate) fn new(boot: Boot) -> Self {
        Self {
            boot,
            launched: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            open: Mutex::new(None),
            wish: Mutex::default(),
            work: Mutex::default(),
        }
    }

    /// The VM is open as this one.
    pub(crate) fn is_open_as(&self, vm: &Vm) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(vm.downgrade());
    }

    /// The VM, while it is open.
    pub(crate) fn open(&self) -> Option<Vm> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(WeakVm::upgrade)
    }

    pub(crate) fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest, once nobody else uses it.
    pub(crate) fn work(&self, wait: &Wait<'_>) -> Result<MutexGuard<'_, Work>, Stop> {
        loop {
            match self.work.try_lock() {
                Ok(work) => return Ok(work),
                // Whoever panicked has left nothing half-written: all fields are replaced whole.
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {
                    let tick = wait.tick()?;
                    std::thread::sleep(tick.min(Duration::from_millis(5)));
                }
            }
        }
    }
}
