//! One run of one task, put together: directory, journal, hypervisor, driver; and its result at the end.
//!
//! ```text
//!   task file, inputs --> platform --> hypervisor's kind --> directory (locked) --> journal --+--> finished: say so
//!                                                                                            |
//!                          result.json <-- driver <-- hypervisor, made for this task <--------+
//! ```
//!
//! Everything that can be wrong is found before the directory is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use vmtask_core::{Outcome, TaskSpec};
use vmtask_driver::{
    Binding, Circumstances, Driver, Ended, HostId, JournalError, JournalFile, Loaded, Presence, RealStorage, Reap,
    Registry, RegistryError, Setup, TaskDir, TaskFile, TaskResult,
};

use crate::args::HypervisorChoice;
use crate::args::vix::VixArgs;
use crate::error::Error;
use crate::hypervisor::{Kind, Place};
use crate::log;
use crate::show::{GivenUp, Resumes};
use crate::space;

/// What to run and where.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) task: &'a Path,
    pub(crate) dir: Option<&'a Path>,
    pub(crate) hypervisor: HypervisorChoice,
    /// For VIX.
    pub(crate) vix: &'a VixArgs,
    /// A filter; none: no log. A process has one log only.
    pub(crate) log: Option<&'a str>,
}

/// A task whose directory is ours for as long as this lives.
pub(crate) struct Session {
    pub(crate) file: TaskFile,
    pub(crate) dir: TaskDir,
    pub(crate) kind: Kind,
    journal: Option<JournalFile>,
    loaded: Option<Loaded>,
    started: SystemTime,
}

impl Session {
    /// Checks everything and opens the task's directory.
    ///
    /// # Errors
    /// The first thing that is wrong. Nothing has been changed then.
    pub(crate) fn open(wanted: &Wanted<'_>) -> Result<Self, Error> {
        let filter = wanted.log.map(log::filter).transpose()?;
        let file = TaskFile::load(wanted.task)?;
        let inputs = file.check_inputs()?;
        let kind = Kind::choose(wanted.hypervisor, wanted.vix, file.spec())?;
        let root = wanted.dir.map_or_else(|| file.default_dir(), Path::to_owned);
        space::check(&root, file.spec(), &kind)?;
        let binding = Binding {
            host: HostId::of_this_host()?,
            hypervisor: kind.name().to_owned(),
            fingerprint: kind.platform().fingerprint,
        };
        let dir = TaskDir::open(&RealStorage, &root, file.spec(), &inputs, &binding)?;
        if let Some(filter) = filter {
            log::start(filter, &dir.log())?;
        }
        let (journal, loaded) = JournalFile::open(Arc::new(RealStorage), dir.root(), dir.id().clone())?;
        // A VM is registered only once the first record is durable.
        if loaded.is_none() && dir.has_vm(&RealStorage)? {
            return Err(JournalError::Lost(journal.path()).into());
        }
        Ok(Self { file, dir, kind, journal: Some(journal), loaded, started: SystemTime::now() })
    }

    pub(crate) fn spec(&self) -> &TaskSpec {
        self.file.spec()
    }

    /// What the journal had to say about itself.
    pub(crate) fn journal_notice(&self) -> Option<&str> {
        self.loaded.as_ref()?.notice.as_deref()
    }

    /// From where it would go on.
    pub(crate) fn resumes(&self) -> Resumes {
        match &self.loaded {
            None => Resumes::Fresh,
            Some(loaded) => {
                loaded.record.generations.newest().map_or(Resumes::FromTheBaseline, Resumes::FromCheckpoint)
            }
        }
    }

    /// Gives up what was done of a task that is not finished, so that it begins anew; `tell` is called before anything
    /// is given up. Nothing is done with a task that was not begun.
    ///
    /// # Errors
    /// If the task is finished or its virtual machine may still run: nothing is given up then. If something could not be
    /// removed: the next run goes on with that.
    pub(crate) fn start_over(&mut self, tell: impl FnOnce(GivenUp)) -> Result<(), Error> {
        let Some(record) = self.loaded.as_ref().map(|loaded| loaded.record) else { return Ok(()) };
        if matches!(record.ending, Some(Outcome::Completed { .. } | Outcome::Aborted)) {
            return Err(Error::Finished(self.dir.root().to_owned()));
        }
        self.check_vm_is_off()?;
        tell(GivenUp { checkpoints: record.generations, program_ms: record.elapsed_ms });
        // What is open of the journal speaks of the old one.
        self.journal = None;
        self.dir.start_over(&RealStorage)?;
        let (journal, loaded) = JournalFile::open(Arc::new(RealStorage), self.dir.root(), self.dir.id().clone())?;
        (self.journal, self.loaded) = (Some(journal), loaded);
        Ok(())
    }

    /// An orphan is ended, as every run ends those that it finds.
    fn check_vm_is_off(&self) -> Result<(), Error> {
        let registry = Registry::open(&vmtask_platform::data_dir()?)?;
        registry.reap(Reap::Orphans)?;
        let listed = registry.find(self.dir.root())?;
        let Some(entry) = listed.filter(|listed| listed.vm != Presence::Gone).map(|listed| listed.entry) else {
            return Ok(());
        };
        Err(match entry.vm {
            Some(process) => RegistryError::StillRuns { dir: entry.dir, pid: process.pid }.into(),
            None => Error::MayRun { dir: entry.dir, keeper: entry.keeper.unwrap_or(entry.hypervisor) },
        })
    }

    /// How a task that is over for good has ended, and its result. A manager may have been killed after its last record and
    /// before the result was written: then it is written now.
    ///
    /// # Errors
    /// If the outputs cannot be read, or are no longer what they were.
    pub(crate) fn finished(&self) -> Result<Option<(Outcome, TaskResult)>, Error> {
        let Some(record) = self.loaded.as_ref().map(|loaded| loaded.record) else { return Ok(None) };
        let outcome = match record.ending {
            Some(outcome @ (Outcome::Completed { .. } | Outcome::Aborted)) if record.ended => outcome,
            _ => return Ok(None),
        };
        let result = match TaskResult::read(&self.dir.results()) {
            Ok(result) if result.is_of(outcome) => result,
            // It is that of an earlier run, or there is none. One that cannot be read says more than could be written anew.
            Ok(_) => self.conclude(&Ended::of_record(outcome, record))?,
            Err(error) if error.is_missing() => self.conclude(&Ended::of_record(outcome, record))?,
            Err(error) => return Err(error.into()),
        };
        result.check_outputs(self.spec(), &self.dir.results())?;
        Ok(Some((outcome, result)))
    }

    /// The driver of this task. `wrap` may put something around the hypervisor.
    ///
    /// # Errors
    /// If the hypervisor cannot be used, or not for this task.
    pub(crate) fn driver(
        &mut self,
        wrap: impl FnOnce(Arc<dyn vmtask_driver::Hypervisor>) -> Arc<dyn vmtask_driver::Hypervisor>,
    ) -> Result<Driver, Error> {
        let place = Place { file: &self.file, dir: &self.dir };
        let hypervisor = wrap(self.kind.make(&place)?);
        let Some(journal) = self.journal.take() else {
            return Err(Error::Setup("a session has one driver".into()));
        };
        let record = self.loaded.as_ref().map(|loaded| loaded.record);
        let setup = Setup::new(hypervisor, self.file.spec(), Box::new(journal)).with_record(record);
        Ok(setup.build()?)
    }

    /// Writes `result.json`.
    ///
    /// # Errors
    /// If it cannot be written, or an output cannot be read.
    pub(crate) fn conclude(&self, ended: &Ended) -> Result<TaskResult, Error> {
        let circumstances = Circumstances {
            platform: self.kind.platform(),
            execution: self.kind.execution(),
            started: Some(self.started),
            ended: Some(SystemTime::now()),
        };
        let results = self.dir.results();
        let result = TaskResult::new(self.spec(), ended, circumstances, &results)?;
        result.write(&RealStorage, &results)?;
        Ok(result)
    }

    /// Where an output of this name in the guest is once it has been collected.
    pub(crate) fn output(&self, guest: &str) -> Option<PathBuf> {
        let file = self.spec().files_out.iter().find(|file| file.guest == guest)?;
        Some(self.dir.results().join(&file.host))
    }
}
