//! The two ways to take a checkpoint.
//!
//! ```text
//!   snapshots  (unpause) CreateSnapshot(memory) (pause)                         --> manifest
//!   copies     suspend, copy the files to N.part, resume; flush and measure them while the guest runs on --> N, manifest
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use vmtask_core::{FaultKind, Generation, Reply, Snapshots};
use vmtask_driver::kit::{self, CheckpointError};
use vmtask_driver::{EffectToken, PortError, RealStorage};
use vmtask_vix_abi::error_code;

use crate::checkpoint::{Content, Machine, Manifest, Saved, snapshot_name};
use crate::fault::{Fault, during};
use crate::home::tree_fault;
use crate::live::{Begun, Live, Work};
use crate::machine::Vm;
use crate::ops::{SLICE, pending_unless_fenced, remove_named};
use crate::snapshot::Snapshot;
use crate::tree::{self, Entry, TreeError};
use crate::vm::VixVm;
use crate::wait::Wait;

impl VixVm {
    pub(crate) fn begin_snapshot(&self, live: &Live, generation: Generation, wait: Wait<'_>) -> Result<(), PortError> {
        let what = format!("beginning checkpoint {generation}");
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(&what))?;
        match &work.snapshot {
            // Begun already; only the answer was lost.
            Some(begun) if begun.generation == generation => return Ok(()),
            Some(_) => {
                return Err(PortError::new(FaultKind::Refused, format!("{what}: another one is not finished")));
            }
            None => {}
        }
        let measuring = match self.home.snapshots {
            Snapshots::Many => self.take_snapshot(&mut work, &vm, generation, &what, &wait).map(|()| None)?,
            Snapshots::ByCopy => Some(self.take_copy(live, &mut work, &vm, generation, &what, &wait)?),
            Snapshots::None => {
                return Err(PortError::new(
                    FaultKind::Unsupported,
                    format!("{what}: there is no way to keep one here"),
                ));
            }
        };
        work.snapshot = Some(Begun { generation, measuring });
        Ok(())
    }

    fn take_snapshot(
        &self,
        work: &mut Work,
        vm: &Vm,
        generation: Generation,
        what: &str,
        wait: &Wait<'_>,
    ) -> Result<(), PortError> {
        let name = snapshot_name(generation);
        if work.attempted == Some(generation) {
            match vm.named_snapshot(&name) {
                Err(error) if error.is(error_code::SNAPSHOT_NOTFOUND) => {}
                // Made by the earlier attempt.
                Ok(snapshot) => return self.check_memory(vm, &snapshot, what, wait),
                Err(error) => return Err(error.during(what)),
            }
        } else {
            // What has the name is of a task that was begun anew since: numbers are not used twice.
            remove_named(vm, &name, wait).map_err(during(what))?;
            // From here on what has the name is ours.
            work.attempted = Some(generation);
        }
        // Nobody has written down what a snapshot of a paused VM is (VIX 1.13 reference, VixVM_Pause).
        let paused = vm.power_state().map_err(during(what))?.is_paused();
        if paused {
            vm.unpause(wait).map_err(during(what))?;
        }
        let description = format!("Checkpoint {generation} of the task {}", self.setup.spec.name);
        // The rest is for holding it again.
        let taken = vm.snapshot(&name, &description, true, &wait.share(80));
        if paused {
            vm.pause(wait).map_err(|error| {
                // The guest is not as it was before.
                PortError::new(FaultKind::Unknown, format!("{what}: {error}"))
            })?;
        }
        self.check_memory(vm, &taken.map_err(during(what))?, what, wait)
    }

    /// A guest that has just gone off makes a snapshot without memory, and that is no error to VIX (1.13 reference,
    /// VixVM_CreateSnapshot). Restored, it would boot anew: it is no checkpoint.
    fn check_memory(&self, vm: &Vm, snapshot: &Snapshot, what: &str, wait: &Wait<'_>) -> Result<(), PortError> {
        let kept = match snapshot.power_state() {
            Ok(state) if state.0 != 0 => state,
            // Old products do not tell.
            _ => vm.power_state().map_err(during(what))?,
        };
        if !kept.is_off() {
            return Ok(());
        }
        vm.remove_snapshot(snapshot, false, wait).map_err(during(what))?;
        Err(PortError::new(
            FaultKind::Refused,
            format!("{what}: the virtual machine was off, so there was no memory to keep"),
        ))
    }

    /// Suspends the guest, copies what it is, and lets it go on as it was.
    fn take_copy(
        &self,
        live: &Live,
        work: &mut Work,
        vm: &Vm,
        generation: Generation,
        what: &str,
        wait: &Wait<'_>,
    ) -> Result<Measuring, PortError> {
        let Some(dir) = &self.home.dir else {
            return Err(PortError::new(FaultKind::Unsupported, format!("{what}: the task has no VM of its own")));
        };
        let part = self.store.part(generation);
        self.store.make_dir().map_err(during(what))?;
        let running = live.wish().running;
        // The rest is for letting the guest go on.
        let copying = wait.share(70);
        if running {
            vm.suspend(&copying).map_err(during(what))?;
            work.logged_in = false;
            work.clock_is_late = true;
        }
        let copied = tree::copy(dir, &part, &copying);
        if running {
            vm.power_on(wait).map_err(|error| {
                PortError::new(FaultKind::Unknown, format!("{what}: the guest was suspended for it, then: {error}"))
            })?;
        }
        let measuring = copied
            .map_err(|error| tree_fault(what, &error, &copying))
            .and_then(|()| Measuring::start(part.clone()).map_err(during(what)));
        measuring.inspect_err(|_| {
            let _ = kit::remove_tree(&RealStorage, &part, wait);
        })
    }

    pub(crate) fn commit_snapshot(
        &self,
        live: &Live,
        generation: Generation,
        token: &EffectToken,
        wait: Wait<'_>,
    ) -> Result<Reply, PortError> {
        let what = format!("writing checkpoint {generation}");
        let mut work = live.work(&wait).map_err(during(&what))?;
        let Some(begun) = work.snapshot.as_ref().filter(|begun| begun.generation == generation) else {
            return match self.store.read(generation) {
                Ok(_) => Ok(Reply::Done),
                Err(CheckpointError::Missing(_)) => {
                    Err(PortError::new(FaultKind::Refused, format!("{what}: it was not begun")))
                }
                Err(error) => Err(error.during(&what)),
            };
        };
        let content = match &begun.measuring {
            None => Content::Snapshot(snapshot_name(generation)),
            Some(measuring) => match measuring.wait(&wait.at_most(SLICE)) {
                None => return pending_unless_fenced(token, &what),
                Some(Ok(entries)) => Content::Copy(entries),
                Some(Err(error)) => {
                    work.snapshot = None;
                    let _ = kit::remove_tree(&RealStorage, &self.store.part(generation), &wait);
                    return Err(tree_fault(&what, &error, &wait));
                }
            },
        };
        // Over in any case: what cannot be named now is made anew under another number.
        work.snapshot = None;
        let manifest = Manifest::new(generation, Machine::of(&self.setup), Saved { content });
        self.store.make_dir().map_err(during(&what))?;
        self.store.commit(&manifest, &wait)?;
        Ok(Reply::Done)
    }
}

/// A thread that flushes and measures a copy. Ends by itself when it is dropped.
pub(crate) struct Measuring(Arc<Shared>);

#[derive(Default)]
struct Shared {
    result: Mutex<Option<Result<Vec<Entry>, TreeError>>>,
    done: Condvar,
    given_up: AtomicBool,
}

impl Measuring {
    fn start(part: std::path::PathBuf) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("vix-measure".into()).spawn(move || {
            let result = tree::measure(&part, &|| !theirs.given_up.load(Ordering::SeqCst));
            *theirs.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            theirs.done.notify_all();
        })?;
        Ok(Self(shared))
    }

    /// What it found, once, if it is ready by then.
    fn wait(&self, slice: &Wait<'_>) -> Option<Result<Vec<Entry>, TreeError>> {
        let most = slice.deadline().saturating_duration_since(Instant::now());
        let result = self.0.result.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut result, _) = self
            .0
            .done
            .wait_timeout_while(result, most, |result| result.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        result.take()
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::SeqCst);
    }
}
