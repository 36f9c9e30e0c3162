//! Jobs: work on a thread of its own, a result that may be waited for, a callback that fires once.
//!
//! ```text
//!   start --> running ------ work done ------> completed --> callback (JOB_COMPLETED)
//!                |                                 ^
//!                +--- host disconnected -----------+  (HOST_NOT_CONNECTED, no callback)
//! ```

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmtask_vix_abi::{Error, Function, Handle, INVALID_HANDLE, error_code, event_type, property};

use crate::callback::Callback;
use crate::failure::Failure;
use crate::fault::Act;
use crate::handles::{self, Object};
use crate::host::Host;
use crate::property::{Properties, Value, unknown};

thread_local! {
    /// The host whose callback this thread is running.
    static IN_CALLBACK_OF: Cell<Handle> = const { Cell::new(INVALID_HANDLE) };
}

/// Whether this thread is in a callback of this host's jobs.
pub(crate) fn in_callback_of(host: Handle) -> bool {
    IN_CALLBACK_OF.get() == host
}

/// What a job has to tell: one set of properties, or as many as there are items.
pub(crate) type Results = Vec<Properties>;

/// A piece of work that a client has started.
pub(crate) struct Job {
    outcome: Mutex<Option<Outcome>>,
    completed: Condvar,
}

struct Outcome {
    error: Error,
    text: String,
    results: Results,
}

/// What the work may look at while it is under way.
pub(crate) struct Context<'a> {
    /// The faults that were asked for.
    pub(crate) act: &'a Act,
    job: &'a Job,
    callback: Option<&'a Callback>,
    handle: Handle,
    host: Option<&'a Host>,
}

impl Context<'_> {
    /// Polls `look` until it finds something, the job is ended from outside, or the time is up.
    pub(crate) fn poll<T>(
        &self,
        limit: Option<Duration>,
        mut look: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let left = limit.map_or(pause, |limit| limit.saturating_sub(begun.elapsed()));
            if left.is_zero() {
                return Ok(None);
            }
            if self.job.wait(pause.min(left)) {
                return Err(Failure::new(error_code::CANCELLED, "the job was ended by a disconnect"));
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Tells the callback of an item that was found. The properties are valid during the call.
    pub(crate) fn found_item(&self, item: Properties) -> Result<(), Failure> {
        let Some(callback) = self.callback else { return Ok(()) };
        let host = self.host.map_or(INVALID_HANDLE, Host::handle);
        let list = handles::hand_out(host, Object::Properties(Arc::new(item)))?;
        call_back(self.host, callback, self.handle, event_type::FIND_ITEM, list);
        handles::release(list);
        Ok(())
    }
}

/// Starts `work` on a thread of its own and returns the job's handle.
///
/// Whatever goes wrong before the work can begin is the job's error: a client always gets a job, unless its process
/// can have no more handles or threads.
pub(crate) fn start(
    function: Function,
    host: Result<Option<Arc<Host>>, Failure>,
    callback: Option<Callback>,
    work: impl FnOnce(&Context<'_>) -> Result<Results, Failure> + Send + 'static,
) -> Handle {
    let job = Arc::new(Job { outcome: Mutex::new(None), completed: Condvar::new() });
    let owner = host.as_ref().ok().and_then(Option::as_ref).map_or(INVALID_HANDLE, |host| host.handle());
    let (host, handle) = match handles::hand_out(owner, Object::Job(Arc::clone(&job))) {
        Ok(handle) => (host, Ok(handle)),
        // Disconnected just now: a job that belongs to nobody tells of it.
        Err(failure) => (Err(failure), handles::hand_out(INVALID_HANDLE, Object::Job(Arc::clone(&job)))),
    };
    let Ok(handle) = handle else { return INVALID_HANDLE };
    if callback.is_some() {
        // The callback may use the job's handle, even if the client has released it by then.
        handles::hold(handle);
    }
    let body = {
        let job = Arc::clone(&job);
        move || run(&job, handle, function, host, callback, work)
    };
    if let Err(error) = std::thread::Builder::new().name(function.name().to_owned()).spawn(body) {
        // The thread's closure, callback included, is gone: a client that only listens hears nothing.
        job.complete(Err(Failure::new(error_code::OUT_OF_MEMORY, format!("cannot start a thread: {error}"))));
    }
    handle
}

/// The life of a job's thread.
fn run(
    job: &Job,
    handle: Handle,
    function: Function,
    host: Result<Option<Arc<Host>>, Failure>,
    callback: Option<Callback>,
    work: impl FnOnce(&Context<'_>) -> Result<Results, Failure>,
) {
    let (host, result) = match host {
        Ok(host) => {
            let result = Act::of(function).and_then(|act| {
                let context = Context { act: &act, job, callback: callback.as_ref(), handle, host: host.as_deref() };
                act.carry_out(&|limit| job.rest(limit), || match &host {
                    Some(host) if !host.answers(function) => Err(not_in_product(function, host)),
                    _ => caught(|| work(&context)),
                })
            });
            (host, result)
        }
        Err(failure) => (None, Err(failure)),
    };
    job.complete(result);
    if let Some(callback) = callback {
        call_back(host.as_deref(), &callback, handle, event_type::JOB_COMPLETED, INVALID_HANDLE);
    }
}

/// A mistake in here is this job's error, not the end of the client: it must not wait for ever.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Locks that were held are poisoned, which nobody minds; state on disk is whole at any time.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Failure::new(error_code::FAIL, "the stand-in has a bug: its work panicked")))
}

/// A product answers a function that it lacks.
pub(crate) fn not_in_product(function: Function, host: &Host) -> Failure {
    Failure::new(error_code::NOT_SUPPORTED, format!("{} is not in {}", function.name(), host.product()))
}

/// Calls a client's callback unless its host has been disconnected, which waits for it to return. After the last event of a
/// job the reference that was held for it is released; a disconnect has taken it away with the handle.
fn call_back(host: Option<&Host>, callback: &Callback, job: Handle, event: i32, more: Handle) {
    let Some(host) = host else {
        callback.call(job, event, more);
        if event == event_type::JOB_COMPLETED {
            handles::let_go(job);
        }
        return;
    };
    if host.enter_callback() {
        IN_CALLBACK_OF.set(host.handle());
        callback.call(job, event, more);
        IN_CALLBACK_OF.set(INVALID_HANDLE);
        if event == event_type::JOB_COMPLETED {
            // The reference for the callback. Before a disconnect goes on, which would take it for one of the client's.
            handles::let_go(job);
        }
        host.leave_callback();
    }
}

impl Job {
    fn outcome(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes it, unless it was completed before.
    pub(crate) fn complete(&self, result: Result<Results, Failure>) {
        let outcome = match result {
            Ok(results) => Outcome { error: 0, text: String::new(), results },
            Err(Failure { error, text }) => Outcome { error, text, results: Vec::new() },
        };
        let mut place = self.outcome();
        let late = match &*place {
            None => place.replace(outcome),
            Some(_) => Some(outcome),
        };
        drop(place);
        self.completed.notify_all();
        // Without the lock: results may hold handles.
        drop(late);
    }

    /// Waits for as long as it takes.
    pub(crate) fn wait_for_ever(&self) {
        let mut outcome = self.outcome();
        while outcome.is_none() {
            outcome = self.completed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for at most so long; whether it is completed.
    fn wait(&self, limit: Duration) -> bool {
        let running = |outcome: &mut Option<Outcome>| outcome.is_none();
        let waited = self.completed.wait_timeout_while(self.outcome(), limit, running);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// Stands still for so long, or for ever, unless the job is ended from outside: then whether it was is true.
    fn rest(&self, limit: Option<Duration>) -> bool {
        match limit {
            Some(limit) => self.wait(limit),
            None => {
                self.wait_for_ever();
                true
            }
        }
    }

    /// Whether it is completed.
    pub(crate) fn is_completed(&self) -> bool {
        self.outcome().is_some()
    }

    /// Its error: `UNFINISHED_JOB` while it runs.
    pub(crate) fn error(&self) -> Error {
        self.outcome().as_ref().map_or(Error::from(error_code::UNFINISHED_JOB), |outcome| outcome.error)
    }

    /// How many items have this property.
    pub(crate) fn count(&self, id: i32) -> usize {
        let outcome = self.outcome();
        outcome.as_ref().map_or(0, |o| o.results.iter().filter(|item| item.get(id).is_some()).count())
    }

    /// A property of the nth item.
    pub(crate) fn property(&self, index: usize, id: i32) -> Result<Value, Failure> {
        let outcome = self.outcome();
        let Some(outcome) = &*outcome else {
            return Err(Failure::new(error_code::UNFINISHED_JOB, "the job has not finished"));
        };
        match id {
            property::JOB_RESULT_ERROR_CODE => return Ok(Value::Int64(outcome.error as i64)),
            property::JOB_RESULT_EXTRA_ERROR_INFO | property::JOB_RESULT_USER_MESSAGE if outcome.error != 0 => {
                return Ok(Value::Text(outcome.text.clone()));
            }
            _ => {}
        }
        if index > 0 && index >= outcome.results.len() {
            let why = format!("there is no item {index} among {}", outcome.results.len());
            return Err(Failure::new(error_code::INVALID_ARG, why));
        }
        outcome.results.get(index).and_then(|item| item.get(id)).cloned().ok_or_else(|| unknown(id))
    }
}
