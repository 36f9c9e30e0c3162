//! The commands that carry files.
//!
//! ```text
//!   in    hash on the host --> CopyFileFromHostToGuest to .vmtask/in --> `take`: compared in the guest, put in place
//!   out   `give`: size and hash in the guest --> CopyFileFromGuestToHost beside the place --> compared, put in place
//! ```
//! A copy is one job of VIX for as long as it takes: between two slices it goes on by itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use vmtask_core::{FaultKind, FileIx, Reply};
use vmtask_driver::{EffectToken, PortError};
use vmtask_vix_abi::error_code;

use crate::api::Call;
use crate::error::Error;
use crate::fault::{Fault, during};
use crate::guest::exit;
use crate::job::{Job, Strays};
use crate::live::{Live, Work};
use crate::machine::Vm;
use crate::ops::SLICE;
use crate::place::Place;
use crate::tree;
use crate::vm::VixVm;
use crate::wait::{Stop, Wait};

/// The most that is kept of a failed program's standard error.
const STDERR: u64 = 1 << 20;

/// A file on its way into the guest.
pub(crate) struct CopyIn {
    ix: u16,
    size: u64,
    sha256: String,
    /// `None`: it has arrived.
    job: Option<Job>,
}

/// A file on its way out of the guest.
pub(crate) struct CopyOut {
    ix: u16,
    size: u64,
    sha256: String,
    place: Place,
    part: PathBuf,
    job: Option<Job>,
}

impl Work {
    /// Gives up what is half done. Jobs that may still act become strays.
    pub(crate) fn give_up(&mut self, strays: &Strays) {
        let copying = [self.copy_in.take().and_then(|copy| copy.job), self.copy_out.take().and_then(|copy| copy.job)];
        copying.into_iter().flatten().chain(self.tools.take()).for_each(|job| strays.keep(job));
        self.snapshot = None;
    }
}

/// How far a job came within a slice.
enum Slice {
    Done,
    Pending(Job),
}

fn step(job: Job, vm: &Vm, on: &str, wait: &Wait<'_>) -> Result<Slice, Error> {
    match job.finish(on, &wait.at_most(SLICE)) {
        Ok(over) => over.map(|_| Slice::Done),
        Err((job, Stop::Timeout)) => Ok(Slice::Pending(job)),
        // Fenced: it may still act.
        Err((job, stop)) => {
            let error = job.stopped(on, stop);
            vm.strays().keep(job);
            Err(error)
        }
    }
}

impl VixVm {
    pub(crate) fn copy_in(&self, live: &Live, ix: FileIx, wait: Wait<'_>) -> Result<Reply, PortError> {
        let spec = self.setup.spec.files_in.get(ix.index()).ok_or_else(|| no_such_file("input", ix))?;
        let path = self.setup.inputs.join(&spec.host);
        let what = format!("copying {} in", path.display());
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(&what))?;
        self.session(&mut work, &vm, &wait).map_err(during(&what))?;
        let fetched = self.paths.fetched();
        let guest = self.guest(&vm, &fetched);
        let mut copy = match work.copy_in.take() {
            Some(begun) if begun.ix == ix.0 => begun,
            _ => {
                let (size, sha256) = measure(&path, &wait)
                    .map_err(|error| PortError::new(FaultKind::Fatal, format!("{what}: {error}")))?;
                let (from, to) = (absolute(&path), guest.state("in"));
                let call = Call::CopyToGuest { vm: vm.raw(), from: &from.to_string_lossy(), to: &to };
                let job = vm.start(&call, &spec.guest, &wait).map_err(during(&what))?;
                CopyIn { ix: ix.0, size, sha256, job: Some(job) }
            }
        };
        if let Some(job) = copy.job.take() {
            match step(job, &vm, &spec.guest, &wait).map_err(during(&what))? {
                Slice::Done => {}
                Slice::Pending(job) => {
                    work.copy_in = Some(CopyIn { job: Some(job), ..copy });
                    return Ok(Reply::Pending);
                }
            }
        }
        let mode = if spec.executable { "755" } else { "644" };
        let args = [&copy.size.to_string(), &copy.sha256, mode, &spec.guest];
        guest.script("take", &args, &wait).map_err(during(&what))?;
        Ok(Reply::Done)
    }

    pub(crate) fn copy_out(
        &self,
        live: &Live,
        ix: FileIx,
        token: &EffectToken,
        wait: Wait<'_>,
    ) -> Result<Reply, PortError> {
        let spec = self.setup.spec.files_out.get(ix.index()).ok_or_else(|| no_such_file("output", ix))?;
        let what = format!("copying the output {:?} out", spec.guest);
        let vm = self.vm(&wait)?;
        let mut work = live.work(&wait).map_err(during(&what))?;
        self.session(&mut work, &vm, &wait).map_err(during(&what))?;
        let mut copy = match work.copy_out.take() {
            Some(begun) if begun.ix == ix.0 => begun,
            _ => {
                let place = Place::below(&self.setup.results, &spec.host).map_err(during(&what))?;
                let limit = self.setup.spec.limits.output;
                match self.begin_out(&vm, ix.0, &spec.guest, place, limit, &what, &wait) {
                    Ok(copy) => copy,
                    Err(Begin::Missing) if spec.optional => return Ok(Reply::Done),
                    Err(Begin::Missing) => {
                        let said = self.keep_stderr(&vm, token, &wait);
                        let text = format!("the program did not write the output {:?}{said}", spec.guest);
                        return Err(PortError::new(FaultKind::NotFound, text));
                    }
                    Err(Begin::Failed(error)) => return Err(error),
                }
            }
        };
        if let Some(job) = copy.job.take() {
            match step(job, &vm, &spec.guest, &wait) {
                Ok(Slice::Done) => {}
                Ok(Slice::Pending(job)) => {
                    work.copy_out = Some(CopyOut { job: Some(job), ..copy });
                    return Ok(Reply::Pending);
                }
                Err(error) => {
                    let _ = token.act(|| tree::unlink(&copy.part));
                    return Err(error.during(&what));
                }
            }
        }
        self.put_in_place(&copy, &what, token, &wait)?;
        Ok(Reply::Done)
    }

    #[allow(clippy::too_many_arguments, reason = "a file, where it goes, and for whom")]
    fn begin_out(
        &self,
        vm: &Vm,
        ix: u16,
        name: &str,
        place: Place,
        limit: u64,
        what: &str,
        wait: &Wait<'_>,
    ) -> Result<CopyOut, Begin> {
        let fetched = self.paths.fetched();
        let (size, sha256) = self.guest(vm, &fetched).sum(name, wait).map_err(|error| match error.script_code() {
            Some(exit::NO_FILE) => Begin::Missing,
            _ => Begin::Failed(error.during(what)),
        })?;
        if size > limit {
            let text = format!("{what}: it has {size} bytes, and limits.output allows {limit}");
            return Err(Begin::Failed(PortError::new(FaultKind::Fatal, text)));
        }
        let part = place.begin().map_err(|error| Begin::Failed(error.during(what)))?;
        let (from, to) = (format!("{}/{name}", self.setup.workdir()), absolute(&part));
        let call = Call::CopyToHost { vm: vm.raw(), from: &from, to: &to.to_string_lossy() };
        let job = vm.start(&call, name, wait).map_err(|error| Begin::Failed(error.during(what)))?;
        Ok(CopyOut { ix, size, sha256, place, part, job: Some(job) })
    }

    fn put_in_place(&self, copy: &CopyOut, what: &str, token: &EffectToken, wait: &Wait<'_>) -> Result<(), PortError> {
        let (size, sha256) = measure(&copy.part, wait).map_err(during(what))?;
        if (size, &sha256) != (copy.size, &copy.sha256) {
            let _ = token.act(|| tree::unlink(&copy.part));
            let text = format!(
                "{what}: {size} bytes with SHA-256 {sha256} have come, and {} with {} were sent",
                copy.size, copy.sha256
            );
            return Err(PortError::new(FaultKind::Refused, text));
        }
        put_in_place(&copy.place, &copy.part, token)?.map_err(during(what))
    }

    /// Keeps what a program that failed to deliver wrote to its standard error, and quotes its end.
    fn keep_stderr(&self, vm: &Vm, token: &EffectToken, wait: &Wait<'_>) -> String {
        let kept = (|| {
            let fetched = self.paths.fetched();
            let name = &self.setup.spec.program.stderr;
            let (size, _) = self.guest(vm, &fetched).sum(name, wait).ok()?;
            let place = Place::below(self.paths.dir(), "guest-stderr.txt").ok()?;
            let part = place.begin().ok().filter(|_| size <= STDERR)?;
            vm.copy_out(&format!("{}/{name}", self.setup.workdir()), &absolute(&part), wait).ok()?;
            let end = last_lines(&part)?;
            put_in_place(&place, &part, token).ok()?.ok()?;
            Some(end)
        })();
        kept.map_or_else(String::new, |end| {
            format!("; its standard error is kept in guest-stderr.txt and ends with: {end}")
        })
    }
}

/// Flushes a file and puts it in its place. Only the rename is by leave of the token: flushing may take long.
fn put_in_place(place: &Place, part: &Path, token: &EffectToken) -> Result<io::Result<()>, PortError> {
    if let Err(error) = tree::sync_file(part) {
        return Ok(Err(error));
    }
    Ok(token.act(|| place.finish(part))?.and_then(|()| place.settle()))
}

enum Begin {
    Missing,
    Failed(PortError),
}

/// VIX knows nothing of our working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// An input file that can be read from front to back.
pub(crate) fn open_input(path: &Path) -> io::Result<File> {
    // Before it is opened: a pipe without a writer would be waited for.
    let kind = std::fs::metadata(path)?;
    if kind.is_dir() {
        return Err(io::Error::other("it is a directory; name a file, or pack it into an archive"));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

fn measure(path: &Path, wait: &Wait<'_>) -> io::Result<(u64, String)> {
    let sum = tree::hash_reader(open_input(path)?, &|| wait.tick().is_ok())?;
    sum.map(|(size, sha256)| (size, sha256.to_string()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "it takes too long to read"))
}

fn no_such_file(which: &str, ix: FileIx) -> PortError {
    PortError::new(FaultKind::Fatal, format!("the task has no {which} file number {ix}"))
}

fn last_lines(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(1024)..]).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let lines = &lines[lines.len().saturating_sub(4)..];
    (!lines.is_empty()).then(|| lines.join(" / "))
}

/// Whether an error of a guest's file means that our login is of no use any more.
pub(crate) fn lost_session(error: &crate::guest::GuestError) -> bool {
    matches!(
        error.vix_code(),
        Some(
            error_code::GUEST_USER_PERMISSIONS
                | error_code::TOOLS_NOT_RUNNING
                | error_code::ANON_GUEST_OPERATIONS_PROHIBITED
                | error_code::CANNOT_AUTHENTICATE_WITH_GUEST
                | error_code::INVALID_AUTHENTICATION_SESSION
        )
    )
}
