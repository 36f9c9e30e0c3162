//! Handles and jobs: each is released exactly once, and no job is waited for without a limit.
//!
//! ```text
//!   start --> Job --wait--> over: results, or an error --> released
//!                    \--> time is up, or fenced --> Strays --over at some time--> released
//! ```
//! Nothing can cancel a job of VIX. One that is not waited for any longer may still act, so it is kept among the
//! [`Strays`] of its machine: a fence looks there for what is still to come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmtask_vix_abi::{Function, Handle, INVALID_HANDLE, property};

use crate::api::{Call, Value, Vix, property_name};
use crate::bell::Held;
use crate::error::{Code, Error, FunctionName};
use crate::wait::{Stop, TICK, Wait};

/// A handle with one reference that is ours.
pub(crate) struct Owned {
    vix: Arc<dyn Vix>,
    raw: Handle,
}

impl Owned {
    pub(crate) fn new(vix: &Arc<dyn Vix>, raw: Handle) -> Self {
        Self { vix: Arc::clone(vix), raw }
    }

    pub(crate) const fn raw(&self) -> Handle {
        self.raw
    }

    pub(crate) const fn vix(&self) -> &Arc<dyn Vix> {
        &self.vix
    }

    /// The handle, which is somebody else's to give back from now on.
    pub(crate) fn give_away(mut self) -> Handle {
        std::mem::replace(&mut self.raw, INVALID_HANDLE)
    }

    /// A property of this object, called `name` in messages.
    pub(crate) fn property(&self, name: &str, id: i32) -> Result<Value, Error> {
        self.vix
            .property(self.raw, id)
            .map_err(|code| failed(&*self.vix, Function::GetProperties, &about(name, id), code))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.raw != INVALID_HANDLE {
            self.vix.release(self.raw);
        }
    }
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "handle {}", self.raw)
    }
}

fn about(name: &str, id: i32) -> String {
    format!("{name}, {}", property_name(id))
}

/// VIX said no.
pub(crate) fn failed(vix: &dyn Vix, function: Function, on: &str, code: Code) -> Error {
    Error::Failed { function: FunctionName(function), on: on.to_owned(), code, text: vix.text(code) }
}

/// Jobs that are not waited for any longer, and may still act.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strays(Arc<Mutex<Vec<Job>>>);

impl Strays {
    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a job that is not waited for any longer.
    pub(crate) fn keep(&self, job: Job) {
        self.lock().push(job);
    }

    /// Releases all of them. That ends none.
    pub(crate) fn release(&self) {
        self.lock().clear();
    }

    /// Releases those that are over; the names of the others.
    pub(crate) fn pending(&self) -> Vec<Function> {
        let mut jobs = self.lock();
        jobs.retain(|job| !job.is_over());
        jobs.iter().map(|job| job.function).collect()
    }

    /// Waits until all of them are over. The names of those that are not.
    pub(crate) fn settle(&self, wait: &Wait<'_>) -> Result<(), (Stop, Vec<Function>)> {
        loop {
            let pending = self.pending();
            if pending.is_empty() {
                return Ok(());
            }
            match wait.tick() {
                // Every tick is a look at each: there is at most a handful.
                Ok(tick) => std::thread::sleep(tick.min(TICK)),
                Err(stop) => return Err((stop, pending)),
            }
        }
    }
}

/// A job that has been started.
pub(crate) struct Job {
    handle: Owned,
    bell: Option<Held>,
    function: Function,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (job {})", self.function.name(), self.handle.raw)
    }
}

impl Job {
    /// Starts a job, by leave of the wait's command. `on` is for messages.
    pub(crate) fn start(vix: &Arc<dyn Vix>, call: &Call<'_>, on: &str, wait: &Wait<'_>) -> Result<Self, Error> {
        let function = call.function();
        let bell = Held::take();
        let ticket = bell.as_ref().map(Held::ticket);
        let started = wait.act(|| vix.start(call, ticket)).map_err(|stop| stopped(function, on, stop, false))?;
        let raw = started.map_err(|_| Error::Nul { function: FunctionName(function), text: on.to_owned() })?;
        if raw == INVALID_HANDLE {
            // An old library without the function, or one that could not even make a job.
            return Err(failed(&**vix, function, on, vmtask_vix_abi::error_code::NOT_SUPPORTED.into()));
        }
        Ok(Self { handle: Owned::new(vix, raw), bell, function })
    }

    /// The error of a job that is not waited for any longer.
    pub(crate) fn stopped(&self, on: &str, stop: Stop) -> Error {
        stopped(self.function, on, stop, true)
    }

    /// Whether it is over, as far as VIX tells. A job that VIX knows nothing of is over, too.
    pub(crate) fn is_over(&self) -> bool {
        self.bell.as_ref().is_some_and(Held::has_rung) || self.handle.vix.is_complete(self.handle.raw).unwrap_or(true)
    }

    /// Waits until it is over, or becomes one of the strays.
    pub(crate) fn wait(self, on: &str, wait: &Wait<'_>, strays: &Strays) -> Result<Over, Error> {
        match self.finish(on, wait) {
            Ok(over) => over,
            Err((job, stop)) => {
                let error = stopped(job.function, on, stop, true);
                strays.keep(job);
                Err(error)
            }
        }
    }

    /// Waits until it is over. Hands the job back if it is not.
    pub(crate) fn finish(self, on: &str, wait: &Wait<'_>) -> Result<Result<Over, Error>, (Self, Stop)> {
        loop {
            // What has rung is over whatever the time is.
            if self.bell.as_ref().is_some_and(Held::has_rung) {
                break;
            }
            let tick = match wait.tick() {
                Ok(tick) => tick,
                Err(_) if self.is_over() => break,
                Err(stop) => return Err((self, stop)),
            };
            match &self.bell {
                Some(bell) if bell.wait(tick) => break,
                Some(_) => {}
                None => std::thread::sleep(tick.min(std::time::Duration::from_millis(2))),
            }
            // In case the callback is lost.
            if self.is_over() {
                break;
            }
        }
        Ok(self.result(on))
    }

    fn result(self, on: &str) -> Result<Over, Error> {
        let vix = &self.handle.vix;
        if let Err(code) = vix.job_error(self.handle.raw).ok() {
            let mut text = vix.text(code);
            if let Ok(Value::Text(more)) = vix.property(self.handle.raw, property::JOB_RESULT_EXTRA_ERROR_INFO)
                && !more.is_empty()
            {
                text = format!("{text}: {more}");
            }
            return Err(Error::Failed { function: FunctionName(self.function), on: on.to_owned(), code, text });
        }
        Ok(Over(self))
    }
}

fn stopped(function: Function, on: &str, stop: Stop, started: bool) -> Error {
    Error::Stopped { function: FunctionName(function), on: on.to_owned(), stop, started }
}

/// A job that went well, with its results.
#[derive(Debug)]
pub(crate) struct Over(Job);

impl Over {
    fn error(&self, code: Code, id: i32) -> Error {
        failed(&*self.0.handle.vix, self.0.function, &property_name(id), code)
    }

    fn wrong(&self, id: i32, expected: &'static str, found: &Value) -> Error {
        let found = match found {
            Value::Int(_) => "number",
            Value::Text(_) => "string",
            Value::Bool(_) => "bool",
            Value::Handle(_) => "handle",
            Value::Int64(_) => "64-bit number",
            Value::Blob(_) => "blob",
        };
        Error::Type { property: property_name(id), on: self.0.function.name().to_owned(), expected, found }
    }

    /// The handle that came of it: ours.
    pub(crate) fn handle(&self) -> Result<Owned, Error> {
        let id = property::JOB_RESULT_HANDLE;
        match self.0.handle.vix.property(self.0.handle.raw, id).map_err(|code| self.error(code, id))? {
            Value::Handle(raw) => Ok(Owned::new(&self.0.handle.vix, raw)),
            other => Err(self.wrong(id, "handle", &other)),
        }
    }

    /// A single result.
    pub(crate) fn value(&self, id: i32) -> Result<Value, Error> {
        self.0.handle.vix.property(self.0.handle.raw, id).map_err(|code| self.error(code, id))
    }

    /// How many results there are, counted by one of their properties.
    pub(crate) fn count(&self, id: i32) -> i32 {
        self.0.handle.vix.count(self.0.handle.raw, id)
    }

    /// One property of one of many results.
    pub(crate) fn nth(&self, index: i32, id: i32) -> Result<Value, Error> {
        self.0.handle.vix.nth(self.0.handle.raw, index, id).map_err(|code| self.error(code, id))
    }

    /// What was found on the way.
    pub(crate) fn found(&self) -> Vec<String> {
        self.0.bell.as_ref().map(Held::found).unwrap_or_default()
    }

    pub(crate) fn text(&self, id: i32, value: Value) -> Result<String, Error> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong(id, "string", &other)),
        }
    }

    pub(crate) fn number(&self, id: i32, value: &Value) -> Result<i64, Error> {
        match *value {
            Value::Int(number) => Ok(number.into()),
            Value::Int64(number) => Ok(number),
            Value::Bool(flag) => Ok(flag.into()),
            _ => Err(self.wrong(id, "number", value)),
        }
    }
}
