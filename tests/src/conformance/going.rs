//! A task that is being driven, in a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use vmtask_core::{Phase, Policy, Report, TaskDraft, TaskSpec};
use vmtask_driver::{DriveError, Ended, Handle, JournalFile, News, RealStorage, Setup, TaskId};

use super::{Act, Subject};
use crate::wait;

/// A directory with a task in it, which any number of managers may drive, one after the other.
pub struct Stage<'a> {
    /// The hypervisor.
    pub subject: &'a dyn Subject,
    /// The task.
    pub spec: TaskSpec,
    /// Its directory.
    pub dir: PathBuf,
    policy: Policy,
    _temp: tempfile::TempDir,
}

impl<'a> Stage<'a> {
    /// A task in a directory of its own.
    ///
    /// # Panics
    /// If that cannot be made.
    #[must_use]
    pub fn new(subject: &'a dyn Subject, act: Act, input: &[u8]) -> Self {
        let temp = tempfile::Builder::new().prefix("vmtask-story-").tempdir().expect("make a temporary directory");
        let dir = temp.path().join("task");
        std::fs::create_dir_all(dir.join("results")).expect("make the task's directory");
        let spec = subject.task(act, input, &dir);
        Self { subject, spec, dir, policy: Policy::default(), _temp: temp }
    }

    /// Changes the task.
    ///
    /// # Panics
    /// If it is no longer in order.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut TaskDraft)) -> Self {
        self.spec = self.spec.with(change).expect("a task in order");
        self
    }

    /// With other deadlines.
    #[must_use]
    pub fn with_policy(mut self, change: impl FnOnce(Policy) -> Policy) -> Self {
        self.policy = change(self.policy);
        self
    }

    /// A new manager begins, or goes on from the journal.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn begin(&self) -> Going {
        let adapter = self.subject.adapter(&self.spec, &self.dir);
        let (journal, loaded) =
            JournalFile::open(Arc::new(RealStorage), &self.dir, TaskId::new("story")).expect("the journal");
        let driver = Setup::new(adapter, &self.spec, Box::new(journal))
            .with_record(loaded.map(|loaded| loaded.record))
            .with_policy(self.policy)
            .build()
            .expect("a driver");
        let handle = driver.handle();
        let heard = Arc::new(Heard::default());
        let theirs = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            let ended = driver.run(&mut |news: &News<'_>| theirs.note(news));
            theirs.over();
            ended
        });
        Going { handle, heard, thread }
    }

    /// An output's content.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn output(&self, name: &str) -> Vec<u8> {
        let path = self.dir.join("results").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("no output {}: {error}", path.display()))
    }

    /// Asserts that no virtual machine runs any more.
    ///
    /// # Panics
    /// If one stays.
    pub fn assert_no_machine(&self) {
        wait::until("the virtual machine to be gone", || (self.subject.machines(&self.dir) == 0).then_some(()));
    }

    /// Asserts that nothing of a virtual machine is left.
    ///
    /// # Panics
    /// If something is.
    pub fn assert_clean(&self) {
        self.assert_no_machine();
        let remains = self.subject.remains(&self.dir);
        assert!(remains.is_empty(), "left behind: {remains:?}");
    }

    /// Where `name` is among the results.
    #[must_use]
    pub fn result_path(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join("results").join(name)
    }
}

#[derive(Default)]
struct Heard {
    news: Mutex<(Vec<Report>, Vec<String>, bool)>,
    more: Condvar,
}

impl Heard {
    fn note(&self, news: &News<'_>) {
        let mut heard = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Report(report) => heard.0.push(*report),
            News::Trouble(error) => heard.1.push(error.to_string()),
            _ => {}
        }
        self.more.notify_all();
    }

    fn over(&self) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).2 = true;
        self.more.notify_all();
    }
}

/// Without the progress, of which there is a lot.
fn told(reports: &[Report]) -> Vec<&Report> {
    reports.iter().filter(|report| !matches!(report, Report::Progress { .. })).collect()
}

/// A manager at work.
pub struct Going {
    /// For requests.
    pub handle: Handle,
    heard: Arc<Heard>,
    thread: JoinHandle<Result<Ended, DriveError>>,
}

impl Going {
    /// Waits until it reports something like that for the `count`th time.
    ///
    /// # Panics
    /// If it ends before, or hangs.
    pub fn hear(&self, what: &str, count: usize, like: impl Fn(&Report) -> bool) {
        let give_up = Instant::now() + wait::HANG;
        let mut heard = self.heard.news.lock().unwrap_or_else(PoisonError::into_inner);
        while heard.0.iter().filter(|report| like(report)).count() < count {
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!heard.2 && !left.is_zero(), "not {what}: {:?}\n{:?}", told(&heard.0), heard.1);
            heard = self.heard.more.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it is in this phase.
    ///
    /// # Panics
    /// As [`Going::hear`].
    pub fn await_phase(&self, what: &str, like: impl Fn(Phase) -> bool) {
        self.hear(what, 1, |report| matches!(report, Report::Phase(phase) if like(*phase)));
    }

    /// Waits until the program runs.
    ///
    /// # Panics
    /// As [`Going::hear`].
    pub fn await_running(&self) {
        self.await_phase("running", |phase| phase == Phase::Running);
    }

    /// Waits for its `count`th durable checkpoint.
    ///
    /// # Panics
    /// As [`Going::hear`].
    pub fn await_checkpoints(&self, count: usize) {
        self.hear("a checkpoint", count, |report| matches!(report, Report::Checkpoint { .. }));
    }

    /// What it reported so far.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.heard.news.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If the driver gives up or hangs.
    #[must_use]
    pub fn end(self) -> Ended {
        wait::until("the end of the task", || self.thread.is_finished().then_some(()));
        match self.thread.join() {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => panic!("the driver gave up: {error}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
