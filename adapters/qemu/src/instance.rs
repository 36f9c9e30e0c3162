//! One running QEMU with the connections to it: what templates, tasks and restored checkpoints have in common.
//!
//! ```text
//!   Instance::spawn --> (process starts while the caller fills its memory) --> greet --> [incoming] --> cont
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::cmdline::{Layer, Line, Listen, Memory, Start};
use crate::host::Qemu;
use crate::image::Image;
use crate::process::{Life, Process, Spawn, SpawnError};
use crate::qmp::{Qmp, QmpError};
use crate::sockets::{Channel, Sockets};
use crate::wait::{Stop, Wait};

/// Why QEMU does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstanceError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The sockets could not be made.
    #[error("cannot make sockets in {dir:?}: {source}; the directory must be on a local file system and have room")]
    Sockets {
        /// Where.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is gone.
    #[error("QEMU is gone: {last_words}")]
    Died {
        /// How it ended, and what it wrote.
        last_words: String,
    },
    /// It refuses, does not answer, or its connection broke.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A saved state was not loaded.
    #[error("QEMU did not load the saved state: {0}")]
    Incoming(String),
}

/// Commands that may be given twice.
const REPEATABLE: [&str; 9] = [
    "stop",
    "cont",
    "query-status",
    "query-migrate",
    "query-jobs",
    "ringbuf-read",
    "migrate-set-capabilities",
    "migrate-set-parameters",
    "human-monitor-command",
];

/// What is called with QMP events.
pub(crate) type OnEvent = Arc<dyn Fn(&str, &Value) + Send + Sync>;

/// What to start.
pub(crate) struct Wanted<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) image: &'a Image,
    /// Instead of the image's kernel, for machines that never boot.
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) bytes: u64,
    pub(crate) cpus: u8,
    pub(crate) memory: Source<'a>,
    pub(crate) start: Start,
    pub(crate) disk: Vec<Layer>,
    /// For sockets.
    pub(crate) run_dir: &'a Path,
    /// For its standard error.
    pub(crate) log: &'a Path,
    pub(crate) low_priority: bool,
}

/// Where the guest's memory comes from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Anonymous,
    Shared(&'a File),
    Private(&'a File),
}

/// A running QEMU.
pub(crate) struct Instance {
    pub(crate) process: Process,
    pub(crate) agent: Mutex<Agent>,
    sockets: Sockets,
    qmp: Mutex<Option<Arc<Qmp>>>,
    on_event: OnEvent,
}

impl Instance {
    /// Starts QEMU and returns at once; [`Instance::greet`] waits for it.
    pub(crate) fn spawn(
        wanted: Wanted<'_>,
        on_event: OnEvent,
        on_life: impl FnMut(Life) + Send + 'static,
    ) -> Result<Self, InstanceError> {
        let socket_error = |source| InstanceError::Sockets { dir: wanted.run_dir.to_owned(), source };
        let (sockets, ends) = Sockets::listen(wanted.run_dir).map_err(socket_error)?;
        let socket_fds = ends.each_ref().map(AsRawFd::as_raw_fd);
        let mut inherit = Vec::from(ends);
        let mut lend = |memory: &File| {
            let copy = memory.as_fd().try_clone_to_owned().map_err(socket_error)?;
            let fd = copy.as_raw_fd();
            inherit.push(copy);
            Ok::<_, InstanceError>(fd)
        };
        let memory = match wanted.memory {
            Source::Anonymous => Memory::Anonymous,
            Source::Shared(memory) => Memory::Shared(lend(memory)?),
            Source::Private(memory) => Memory::Private(lend(memory)?),
        };
        let line = Line {
            image: wanted.image,
            kernel: wanted.kernel,
            accel: wanted.qemu.accel,
            bytes: wanted.bytes,
            cpus: wanted.cpus,
            memory,
            start: wanted.start,
            disk: wanted.disk,
            sockets: Listen::Inherited(socket_fds),
        };
        let spawn = Spawn {
            program: wanted.qemu.program.clone(),
            args: line.args(),
            inherit,
            log: wanted.log.to_owned(),
            low_priority: wanted.low_priority,
        };
        tracing::debug!(program = ?spawn.program, args = ?spawn.args, "starting QEMU");
        let process = Process::spawn(spawn, on_life)?;
        let to_agent = sockets.clone();
        Ok(Self {
            process,
            agent: Mutex::new(Agent::new(move || to_agent.connect(Channel::Agent))),
            sockets,
            qmp: Mutex::new(None),
            on_event,
        })
    }

    /// Waits until QEMU answers.
    pub(crate) fn greet(&self, wait: &Wait<'_>) -> Result<(), InstanceError> {
        self.qmp(wait).map(drop)
    }

    /// The control connection, made anew if it was cut.
    pub(crate) fn qmp(&self, wait: &Wait<'_>) -> Result<Arc<Qmp>, InstanceError> {
        let mut qmp = lock_within(&self.qmp, wait).map_err(|stop| QmpError::Silent { command: "connecting", stop })?;
        if let Some(qmp) = qmp.as_ref().filter(|qmp| qmp.is_cut().is_none()) {
            return Ok(Arc::clone(qmp));
        }
        let on_event = Arc::clone(&self.on_event);
        let started = self
            .sockets
            .connect(Channel::Qmp)
            .map_err(|error| QmpError::Cut { command: "connecting", why: error.to_string() })
            .and_then(|stream| Qmp::start(stream, move |name, data| on_event(name, data), wait));
        let fresh = Arc::new(started.map_err(|error| self.explain(error, wait))?);
        *qmp = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Carries out one QMP command. Over a connection that turns out to be cut, what may be repeated is repeated.
    pub(crate) fn call(
        &self,
        command: &'static str,
        arguments: Value,
        wait: &Wait<'_>,
    ) -> Result<Value, InstanceError> {
        let once = || self.qmp(wait)?.call(command, arguments.clone(), wait).map_err(|error| self.explain(error, wait));
        match once() {
            Err(InstanceError::Qmp(QmpError::Cut { .. })) if REPEATABLE.contains(&command) => once(),
            other => other,
        }
    }

    /// Whether the guest's processors run.
    pub(crate) fn run_state(&self, wait: &Wait<'_>) -> Result<String, InstanceError> {
        let answer = self.call("query-status", json!({}), wait)?;
        Ok(answer.get("status").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Lets the guest run.
    pub(crate) fn cont(&self, wait: &Wait<'_>) -> Result<(), InstanceError> {
        loop {
            match self.call("cont", json!({}), wait) {
                // A stream is said to be complete a moment before the guest may run again.
                Err(InstanceError::Qmp(QmpError::Refused { desc, .. })) if desc.contains("not finalized") => {
                    wait.sleep(Duration::from_millis(1)).map_err(|stop| QmpError::Silent { command: "cont", stop })?
                }
                other => return other.map(drop),
            }
        }
    }

    /// Stops the guest's processors.
    pub(crate) fn stop(&self, wait: &Wait<'_>) -> Result<(), InstanceError> {
        self.call("stop", json!({}), wait).map(drop)
    }

    /// Switches migration capabilities on and off; those not named stay.
    pub(crate) fn migration_capabilities(&self, set: &[(&str, bool)], wait: &Wait<'_>) -> Result<(), InstanceError> {
        let list: Vec<Value> = set.iter().map(|(name, on)| json!({ "capability": name, "state": on })).collect();
        self.call("migrate-set-capabilities", json!({ "capabilities": list }), wait).map(drop)
    }

    /// Begins to write the machine's state to `stream`.
    pub(crate) fn migrate_to(&self, stream: &File, wait: &Wait<'_>) -> Result<(), InstanceError> {
        self.give_fd("stream", stream, wait)?;
        self.call("migrate", json!({ "uri": "fd:stream" }), wait).map(drop)
    }

    pub(crate) fn give_fd(&self, name: &str, fd: impl AsFd, wait: &Wait<'_>) -> Result<(), InstanceError> {
        self.qmp(wait)?.give_fd(name, fd.as_fd(), wait).map_err(|error| self.explain(error, wait))
    }

    /// Loads a state from a file, from its present position, or from whoever writes it to the other end. The machine is
    /// stopped afterwards.
    pub(crate) fn load_from(&self, state: impl AsFd, wait: &Wait<'_>) -> Result<(), InstanceError> {
        self.give_fd("state", &state, wait)?;
        // QEMU has its own: an end that it closes is not to be held open here.
        drop(state);
        self.call("migrate-incoming", json!({ "uri": "fd:state" }), wait)?;
        loop {
            match self.migration(wait)? {
                Migration::Completed => return Ok(()),
                Migration::Failed(why) => return Err(InstanceError::Incoming(why)),
                Migration::None | Migration::Active(_) => {}
            }
            wait.sleep(Duration::from_millis(1))
                .map_err(|stop| QmpError::Silent { command: "migrate-incoming", stop })?;
        }
    }

    /// How a migration in either direction is getting on.
    pub(crate) fn migration(&self, wait: &Wait<'_>) -> Result<Migration, InstanceError> {
        let answer = self.call("query-migrate", json!({}), wait)?;
        Ok(Migration::read(&answer))
    }

    /// The last of what the guest wrote to its console, for people.
    pub(crate) fn console(&self, wait: &Wait<'_>) -> String {
        let asked = json!({ "device": "console", "size": 65536 });
        let text = self.call("ringbuf-read", asked, wait).ok();
        let text = text.as_ref().and_then(Value::as_str).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        lines[lines.len().saturating_sub(8)..].join(" / ")
    }

    /// Connects to the guest's end of a channel.
    pub(crate) fn connect(&self, channel: Channel) -> io::Result<UnixStream> {
        self.sockets.connect(channel)
    }

    /// Something that connects to a channel later.
    pub(crate) fn connector(&self, channel: Channel) -> impl Fn() -> io::Result<UnixStream> + Send + use<> {
        let sockets = self.sockets.clone();
        move || sockets.connect(channel)
    }

    /// Ends it, whatever it is doing. Nothing in its memory is wanted any more, so it is not asked first.
    ///
    /// # Errors
    /// If it does not go away: a process that hangs in the kernel.
    pub(crate) fn kill(&self, until: Instant) -> Result<ExitStatus, Stop> {
        self.process.kill();
        // Not by leave of a command: a fenced command's machine must go just the same.
        self.process.wait(&Wait::until(until))
    }

    /// A broken connection may be a dead process; then its own words say more.
    fn explain(&self, error: QmpError, wait: &Wait<'_>) -> InstanceError {
        if matches!(error, QmpError::Cut { .. }) && self.process.wait(&wait.at_most(Duration::from_millis(500))).is_ok()
        {
            return InstanceError::Died { last_words: self.process.last_words() };
        }
        InstanceError::Qmp(error)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Nobody is left who could want it. Its keeper reaps it.
        self.process.kill();
    }
}

/// How a migration is getting on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Migration {
    /// There is none.
    None,
    /// It goes on; with its state in QEMU's words and how much has been sent.
    Active(Progress),
    /// It is complete.
    Completed,
    /// It failed, or was cancelled.
    Failed(String),
}

/// How far an outgoing migration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// `setup`, `active`, `pre-switchover`, `device` ...
    pub(crate) status: String,
    /// Bytes sent so far.
    pub(crate) sent: u64,
    /// How often all that had changed was sent again.
    pub(crate) rounds: u64,
}

impl Migration {
    fn read(answer: &Value) -> Self {
        let why = || {
            let text = answer.get("error-desc").and_then(Value::as_str);
            text.unwrap_or("no reason given").to_owned()
        };
        match answer.get("status").and_then(Value::as_str) {
            None | Some("none") => Self::None,
            Some("completed") => Self::Completed,
            Some("failed") => Self::Failed(why()),
            Some("cancelled" | "cancelling") => Self::Failed("it was cancelled".into()),
            Some(status) => {
                let ram: HashMap<&str, u64> = answer
                    .get("ram")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                    .filter_map(|(key, value)| Some((key.as_str(), value.as_u64()?)))
                    .collect();
                let number = |key| ram.get(key).copied().unwrap_or(0);
                Self::Active(Progress {
                    status: status.to_owned(),
                    sent: number("transferred"),
                    rounds: number("dirty-sync-count"),
                })
            }
        }
    }
}

/// Locks within a time, for locks that others hold while they wait for a guest.
pub(crate) fn lock_within<'a, T>(mutex: &'a Mutex<T>, wait: &Wait<'_>) -> Result<MutexGuard<'a, T>, Stop> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => wait.sleep(Duration::from_millis(2))?,
        }
    }
}
