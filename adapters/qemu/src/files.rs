//! The commands that carry files and checkpoints.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmtask_core::{FaultKind, FileIx, Generation, Reply};
use vmtask_driver::kit::{self, CheckpointError};
use vmtask_driver::{EffectToken, PortError, RealStorage, Storage};

use crate::checkpoint::{self, Machine, Manifest};
use crate::disk;
use crate::fault::{Fault, during};
use crate::guest;
use crate::instance::lock_within;
use crate::live::Live;
use crate::ops::{SLICE, layer, open_input};
use crate::results::Place;
use crate::snapshot::{Mode, NextLayer, Snapshot};
use crate::sockets::Channel;
use crate::stream::{CopyIn, CopyOut, Slice, StreamError, Way};
use crate::vm::QemuVm;
use crate::wait::Wait;

/// The most that is kept of a failed program's standard error.
const STDERR: u64 = 1 << 20;

impl QemuVm {
    pub(crate) fn copy_in(&self, live: &Live, ix: FileIx, wait: Wait<'_>) -> Result<Reply, PortError> {
        let spec = self.setup.spec.files_in.get(ix.index());
        let spec = spec.ok_or_else(|| no_such_file("input", ix))?;
        let path = self.setup.inputs.join(&spec.host);
        let what = format!("copying {} in", path.display());
        let mut work = lock_within(&live.work, &wait).map_err(during(&what))?;
        let mut transfer = match work.copy_in.take() {
            Some((begun, transfer)) if begun == ix.0 => transfer,
            _ => {
                let file =
                    open_input(&path).map_err(|error| PortError::new(FaultKind::Fatal, format!("{what}: {error}")))?;
                CopyIn::new(file, &spec.guest, spec.executable).map_err(during(&what))?
            }
        };
        let mut agent = lock_within(&live.instance.agent, &wait).map_err(during(&what))?;
        let connect = live.instance.connector(Channel::Files);
        let slice = transfer
            .step(&mut Way { agent: &mut agent, connect: &connect, wait, until: wait.at_most(SLICE).deadline() })
            .map_err(during(&what))?;
        if slice == Slice::Pending {
            work.copy_in = Some((ix.0, transfer));
            return Ok(Reply::Pending);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn copy_out(
        &self,
        live: &Live,
        ix: FileIx,
        token: &EffectToken,
        wait: Wait<'_>,
    ) -> Result<Reply, PortError> {
        let spec = self.setup.spec.files_out.get(ix.index());
        let spec = spec.ok_or_else(|| no_such_file("output", ix))?;
        let what = format!("copying the output {:?} out", spec.guest);
        let mut work = lock_within(&live.work, &wait).map_err(during(&what))?;
        let (place, mut transfer) = match work.copy_out.take() {
            Some((begun, place, transfer)) if begun == ix.0 => (place, transfer),
            _ => {
                hold_program(live, &mut work.held, &wait);
                let place = Place::below(&self.setup.results, &spec.host).map_err(during(&what))?;
                let file = place.begin().map_err(during(&what))?;
                let limit = self.setup.spec.limits.output;
                (place, CopyOut::new(file, &spec.guest, limit))
            }
        };
        match step_out(live, &mut transfer, wait, wait.at_most(SLICE)) {
            Ok(Slice::Pending) => {
                work.copy_out = Some((ix.0, place, transfer));
                Ok(Reply::Pending)
            }
            Ok(Slice::Done) => {
                token.act(|| place.finish())?.and_then(|()| place.settle()).map_err(during(&what))?;
                Ok(Reply::Done)
            }
            Err(error) => {
                let _ = token.act(|| place.abandon());
                let missing = matches!(&error, StreamError::Guest(e) if e.code() == Some(guest::NO_FILE));
                if missing && spec.optional {
                    return Ok(Reply::Done);
                }
                if missing {
                    let said = self.keep_stderr(live, token, wait);
                    let text = format!("the program did not write the output {:?}{said}", spec.guest);
                    return Err(PortError::new(FaultKind::NotFound, text));
                }
                Err(error.during(&what))
            }
        }
    }

    /// Keeps what a program that failed to deliver wrote to its standard error, and quotes its end.
    fn keep_stderr(&self, live: &Live, token: &EffectToken, wait: Wait<'_>) -> String {
        let name = &self.setup.spec.program.stderr;
        let kept = (|| {
            let place = Place::below(self.paths.dir(), "guest-stderr.txt").ok()?;
            let file = place.begin().ok()?;
            let reading = file.try_clone().ok()?;
            let mut transfer = CopyOut::new(file, name, STDERR);
            let done = step_out(live, &mut transfer, wait, wait.share(90));
            if !matches!(done, Ok(Slice::Done)) || !matches!(token.act(|| place.finish()), Ok(Ok(()))) {
                let _ = token.act(|| place.abandon());
                return None;
            }
            last_lines(&reading)
        })();
        kept.map_or_else(String::new, |end| {
            format!("; its standard error is kept in guest-stderr.txt and ends with: {end}")
        })
    }

    pub(crate) fn begin_snapshot(
        &self,
        live: &Arc<Live>,
        generation: Generation,
        wait: Wait<'_>,
    ) -> Result<(), PortError> {
        let what = format!("beginning checkpoint {generation}");
        // The rest is for killing a QEMU that is broken by it.
        let freezing = wait.share(85);
        let mut work = lock_within(&live.work, &freezing).map_err(during(&what))?;
        if work.snapshot.as_ref().is_some_and(|begun| begun.generation == generation) {
            // Begun already; only the answer was lost.
            return Ok(());
        }
        if work.snapshot.is_some() {
            return Err(PortError::new(FaultKind::Refused, format!("{what}: another one is not finished")));
        }
        // Every page once, with its heading, and the devices.
        let reserve = live.memory + live.memory / 64 + (32 << 20);
        let running = live.wish(&freezing).map_err(during(&what))?.running;
        let background = self.setup.qemu.background_snapshots().is_ok();
        let mode = Mode::choose(running, background, self.setup.qemu.accel);
        let file = checkpoint::begin(&self.store, generation, reserve, &wait).map_err(during(&what))?;
        let next = self.next_layer(live)?;
        match Snapshot::begin(live, generation, mode, file, next, &freezing) {
            Ok(snapshot) => {
                work.snapshot = Some(snapshot);
                Ok(())
            }
            Err(error) => {
                if error.fault.kind == FaultKind::Fatal {
                    let _ = live.kill(wait.deadline());
                }
                Err(error)
            }
        }
    }

    /// A layer to write to from the snapshot on.
    fn next_layer(&self, live: &Live) -> Result<Option<NextLayer>, PortError> {
        let Some(size) = self.setup.spec.limits.disk else {
            return Ok(None);
        };
        let Some(top) = live.layers().last().cloned() else {
            return Ok(None);
        };
        let what = "making the next layer of the disk";
        let file = disk::next_file(&self.paths.disk()).map_err(during(what))?;
        disk::create(&self.setup.qemu, &file, Some(&top.file), size).map_err(during(what))?;
        Ok(Some(NextLayer { layer: layer(&file), above: top.node }))
    }

    pub(crate) fn commit_snapshot(
        &self,
        live: &Live,
        generation: Generation,
        token: &EffectToken,
        wait: Wait<'_>,
    ) -> Result<Reply, PortError> {
        let what = format!("writing checkpoint {generation}");
        let mut work = lock_within(&live.work, &wait).map_err(during(&what))?;
        let begun = work.snapshot.as_ref().filter(|begun| begun.generation == generation);
        let Some(snapshot) = begun else {
            return match self.store.read(generation) {
                Ok(_) => Ok(Reply::Done),
                Err(CheckpointError::Missing(_)) => {
                    Err(PortError::new(FaultKind::Refused, format!("{what}: it was not begun")))
                }
                Err(error) => Err(error.during(&what)),
            };
        };
        match snapshot.poll(&wait.at_most(SLICE)) {
            None if token.is_revoked() => Err(crate::wait::Stop::Fenced.during(&what)),
            None => Ok(Reply::Pending),
            Some(Err(error)) => {
                work.snapshot = None;
                self.store.sweep(&wait);
                Err(error)
            }
            Some(Ok(stream)) => {
                let manifest = Manifest::new(generation, Machine::of(&self.setup), stream);
                // Over in any case: what cannot be named now is made anew under another number.
                work.snapshot = None;
                self.store.commit(&manifest, &wait)?;
                Ok(Reply::Done)
            }
        }
    }

    pub(crate) fn remove_snapshot(
        &self,
        generation: Generation,
        token: &EffectToken,
        wait: Wait<'_>,
    ) -> Result<(), PortError> {
        self.store.remove(generation, &wait)?;
        if let Some(live) = self.any_live().filter(|live| live.is_alive()) {
            self.merge_layers(&live, token, wait)?;
            self.sweep_disk(Some(&live), &wait);
        }
        Ok(())
    }

    /// Removes the disk's layers that are neither in use nor named by a checkpoint, whole or not. None goes as long as a
    /// manifest cannot be read: nobody knows what that one stands on.
    pub(crate) fn sweep_disk(&self, live: Option<&Live>, wait: &Wait<'_>) {
        if live.is_some_and(|live| live.signs.ending.load(Ordering::SeqCst)) {
            return;
        }
        let dir = self.paths.disk();
        // First what is there, then what is needed: a layer that is made meanwhile is in neither.
        let Ok(names) = RealStorage.entries(&dir) else { return };
        let needed = match self.store.manifests() {
            Ok(manifests) => manifests.into_iter().flat_map(|manifest| manifest.kept.disk),
            Err(error) => {
                tracing::warn!(%error, "no layer of the disk is removed");
                return;
            }
        };
        let in_use = live.map(|live| live.layers().iter().map(|layer| layer.file.clone()).collect());
        let mut wanted: Vec<PathBuf> = in_use.unwrap_or_default();
        wanted.extend(needed.map(|name| dir.join(name)));
        for file in names.into_iter().map(|name| dir.join(name)).filter(|file| !wanted.contains(file)) {
            if let Err(error) = kit::remove_tree(&RealStorage, &file, wait) {
                tracing::warn!(%error, "a layer that nothing stands on stays for now");
            }
        }
    }
}

/// Outputs are copied once the program has ended, or while it runs on at the end of its time. Where it cannot be held,
/// what it does not write to is copied all the same.
fn hold_program(live: &Live, held: &mut bool, wait: &Wait<'_>) {
    if *held {
        return;
    }
    match lock_within(&live.instance.agent, wait).map(|mut agent| guest::hold_program(&mut agent, wait)) {
        Ok(Ok(())) => *held = true,
        Ok(Err(error)) => tracing::warn!(%error, "the program is not held while its outputs are copied"),
        // What follows needs the agent, too, and says so.
        Err(_) => {}
    }
}

fn step_out(live: &Live, transfer: &mut CopyOut, wait: Wait<'_>, slice: Wait<'_>) -> Result<Slice, StreamError> {
    let mut agent = lock_within(&live.instance.agent, &wait)?;
    let connect = live.instance.connector(Channel::Files);
    transfer.step(&mut Way { agent: &mut agent, connect: &connect, wait, until: slice.deadline() })
}

fn no_such_file(which: &str, ix: FileIx) -> PortError {
    PortError::new(FaultKind::Fatal, format!("the task has no {which} file number {ix}"))
}

fn last_lines(file: &File) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let end = file.metadata().ok()?.len();
    let start = end.saturating_sub(1024);
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, start).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let lines = &lines[lines.len().saturating_sub(4)..];
    (!lines.is_empty()).then(|| lines.join(" / "))
}
