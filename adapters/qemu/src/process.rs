//! A QEMU process: started so that it dies with us, waited for by the thread that started it, killed by descriptor.
//!
//! ```text
//!   spawn() --> keeper thread: fork, exec, then waits in wait() --> the exit is noted, then told
//!                   |
//!                   the parent-death signal is tied to this thread, so it lives exactly as long as QEMU does
//! ```

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::sys;
use crate::wait::{Stop, Wait};

/// How a process is named so that no other is ever mistaken for it: numbers are used again, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessName {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

impl ProcessName {
    /// The process that has this number now.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time =
            start_time(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat makes no sense: {stat}")))?;
        Ok(Self { pid, start_time })
    }

    /// Whether it is still there, as anything but a zombie.
    #[must_use]
    pub fn is_alive(self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| start_time(&stat) == Some(self.start_time) && !after_name(&stat).starts_with(['Z', 'X']))
    }

    /// Kills it, if it is still there, and waits until it is gone.
    ///
    /// # Errors
    /// If it may not be killed, or does not go away within `most`.
    pub fn kill(self, most: Duration) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        // Only now, with the descriptor in hand, is it certain whom the signal will reach.
        if !self.is_alive() {
            return Ok(());
        }
        rustix::process::pidfd_send_signal(&handle, Signal::KILL)?;
        let wait = Wait::most(most);
        while self.is_alive() {
            wait.sleep(Duration::from_millis(2))
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not die"))?;
        }
        Ok(())
    }
}

/// Starts a process that is nobody's: it outlives whoever starts it, is in a process group of its own, so that what a
/// terminal sends does not reach it, and inherits no descriptor but its standard streams. The opposite of [`Process`].
///
/// # Errors
/// If it cannot be started. `ENOSYS` or `EINVAL` on Linux before 5.11: descriptors cannot be kept from it.
pub fn spawn_detached(command: &mut Command) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    sys::close_others(command);
    command.spawn()
}

/// What follows the process's name, which may itself contain spaces and brackets.
fn after_name(stat: &str) -> &str {
    stat.rfind(')').map_or("", |at| stat[at + 1..].trim_start())
}

fn start_time(stat: &str) -> Option<u64> {
    after_name(stat).split(' ').nth(19)?.parse().ok()
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system would not start it.
    #[error("cannot start {program:?}: {source}; is it installed and executable?")]
    Spawn {
        /// What was to be started.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its log file could not be made.
    #[error("cannot write QEMU's log {path:?}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What becomes of a child process, for whoever keeps a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was started.
    Started(ProcessName),
    /// It has ended and was reaped.
    Ended(ProcessName),
}

/// A child process that dies with us.
pub struct Process {
    name: ProcessName,
    handle: OwnedFd,
    log: PathBuf,
    log_start: u64,
    exit: Arc<Exit>,
}

#[derive(Default)]
struct Exit {
    end: Mutex<End>,
    told: Condvar,
}

#[derive(Clone, Copy, Default)]
enum End {
    #[default]
    NotYet,
    /// It was reaped, and who keeps a list is being told.
    Noted(ExitStatus),
    Told(ExitStatus),
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to start.
pub struct Spawn {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Inherited under the same numbers.
    pub inherit: Vec<OwnedFd>,
    /// Where its standard error goes, appended.
    pub log: PathBuf,
    /// Whether anything else on the computer comes first.
    pub low_priority: bool,
}

impl Process {
    /// Starts it. `on_life` is called from the thread that waits for it: before this returns, and before [`Process::wait`]
    /// does.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(spawn: Spawn, on_life: impl FnMut(Life) + Send + 'static) -> Result<Self, SpawnError> {
        let log_error = |source| SpawnError::Log { path: spawn.log.clone(), source };
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&spawn.log).map_err(log_error)?;
        let log_start = log.seek(SeekFrom::End(0)).map_err(log_error)?;
        let log_path = spawn.log.clone();
        let program = spawn.program.clone();
        let exit = Arc::new(Exit::default());
        let (started, answer) = mpsc::sync_channel(1);
        let keeper_exit = Arc::clone(&exit);
        let keeper = std::thread::Builder::new()
            .name("qemu-keeper".into())
            .spawn(move || keep(spawn, log, &started, &keeper_exit, on_life));
        let spawn_error = |source| SpawnError::Spawn { program: program.clone(), source };
        keeper.map_err(spawn_error)?;
        let (name, handle) = answer
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it died")))
            .map_err(spawn_error)?;
        Ok(Self { name, handle, log: log_path, log_start, exit })
    }

    /// Which process it is.
    #[must_use]
    pub fn name(&self) -> ProcessName {
        self.name
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        match *self.exit.lock() {
            End::NotYet => None,
            End::Noted(status) | End::Told(status) => Some(status),
        }
    }

    /// Sends SIGKILL. Its end is told by [`Process::wait`].
    pub fn kill(&self) {
        // A descriptor names the process itself: at worst it is a zombie by now, and nobody is hit by mistake.
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Waits until it has ended and was reaped, and everybody has been told.
    ///
    /// # Errors
    /// If the wait is over before.
    pub fn wait(&self, wait: &Wait<'_>) -> Result<ExitStatus, Stop> {
        let mut end = self.exit.lock();
        loop {
            if let End::Told(status) = *end {
                return Ok(status);
            }
            let tick = wait.tick()?;
            end = self.exit.told.wait_timeout(end, tick).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How it ended and the last lines that it wrote to its standard error, for people.
    #[must_use]
    pub fn last_words(&self) -> String {
        let how = match self.ended() {
            None => "it still runs".to_owned(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("it ended with exit code {code}"),
                (None, Some(signal)) => format!("it was killed by signal {signal}"),
                (None, None) => "it ended".to_owned(),
            },
        };
        match tail(&self.log, self.log_start) {
            Some(words) => format!("{how} and said: {words}"),
            None => format!("{how} and said nothing"),
        }
    }
}

/// The keeper's whole life.
fn keep(
    spawn: Spawn,
    log: std::fs::File,
    started: &mpsc::SyncSender<io::Result<(ProcessName, OwnedFd)>>,
    exit: &Exit,
    mut on_life: impl FnMut(Life),
) {
    let mut command = Command::new(&spawn.program);
    command
        .args(&spawn.args)
        // A host's locale, proxies and the like are nobody's business in there; a guest's result must not hang on them.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(log));
    sys::prepare(
        &mut command,
        sys::Child {
            inherit: spawn.inherit.iter().map(AsRawFd::as_raw_fd).collect(),
            low_priority: spawn.low_priority,
        },
    );
    let child = command.spawn();
    drop(spawn.inherit);
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let named = ProcessName::of(child.id()).and_then(|name| {
        let pid = i32::try_from(name.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process number out of range"))?;
        // Not reaped yet, so the number is still this child's.
        Ok((name, rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    });
    let name = named.as_ref().ok().map(|(name, _)| *name);
    if let Some(name) = name {
        on_life(Life::Started(name));
    }
    if started.send(named).is_err() || name.is_none() {
        let _ = child.kill();
    }
    // Waiting for one's own child fails only if somebody else has reaped it: then it has ended just the same.
    let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
    *exit.lock() = End::Noted(status);
    if let Some(name) = name {
        on_life(Life::Ended(name));
    }
    *exit.lock() = End::Told(status);
    exit.told.notify_all();
}

/// The last of what was written to `path` from `start` on: at most 2 kB, on one line.
fn tail(path: &Path, start: u64) -> Option<String> {
    const MOST: u64 = 2048;
    let mut file = std::fs::File::open(path).ok()?;
    let end = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(MOST)))).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join(" / "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shell(script: &str, dir: &Path) -> Spawn {
        Spawn {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            inherit: Vec::new(),
            log: dir.join("log"),
            low_priority: true,
        }
    }

    #[test]
    fn a_child_that_ends_is_reaped_and_its_last_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = mpsc::channel();
        let process = Process::spawn(shell("echo no such machine >&2; exit 3", dir.path()), move |life| {
            tell.send(life).unwrap();
        })
        .unwrap();
        let name = process.name();
        assert_eq!(told.try_recv(), Ok(Life::Started(name)));
        process.wait(&Wait::most(Duration::from_secs(60))).unwrap();
        assert_eq!(told.try_recv(), Ok(Life::Ended(name)));
        assert_eq!(process.last_words(), "it ended with exit code 3 and said: no such machine");
        assert!(!process.name().is_alive());
    }

    #[test]
    fn a_child_is_killed_even_when_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::spawn(shell("kill -STOP $$", dir.path()), |_| ()).unwrap();
        let name = process.name();
        assert!(name.is_alive());
        process.kill();
        process.wait(&Wait::most(Duration::from_secs(60))).unwrap();
        assert!(!name.is_alive());
        assert!(name.kill(Duration::ZERO).is_ok(), "killing what is gone is no error");
    }

    #[test]
    fn a_child_runs_at_the_lowest_priority_in_its_own_group_and_inherits_what_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let file = OwnedFd::from(std::fs::File::create(dir.path().join("out")).unwrap());
        let fd = file.as_raw_fd();
        let script = format!("cut -d' ' -f5,19 /proc/self/stat >&{fd}; echo $$ >&{fd}");
        let mut spawn = shell(&script, dir.path());
        spawn.inherit.push(file);
        let process = Process::spawn(spawn, |_| ()).unwrap();
        let status = process.wait(&Wait::most(Duration::from_secs(60))).unwrap();
        assert!(status.success(), "{}", process.last_words());
        let out = std::fs::read_to_string(dir.path().join("out")).unwrap();
        let words: Vec<&str> = out.split_whitespace().collect();
        assert_eq!(words[0], words[2], "the group is the child's own");
        assert_eq!(words[1], "19");
    }

    #[test]
    fn a_child_dies_when_the_thread_that_keeps_it_does() {
        // The signal is tied to the spawning thread: a thread that spawns and ends takes its child with it.
        let mut command = Command::new("/bin/sleep");
        command.arg("1000");
        sys::prepare(&mut command, sys::Child { inherit: Vec::new(), low_priority: false });
        let mut child = std::thread::spawn(move || command.spawn().unwrap()).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut spawn = shell("", dir.path());
        spawn.program = "/nonexistent/qemu".into();
        let error = Process::spawn(spawn, |_| ()).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/qemu"), "{error}");
    }

    #[test]
    fn a_process_whose_number_was_taken_by_another_is_not_killed() {
        let me = ProcessName::of(std::process::id()).unwrap();
        let before = ProcessName { start_time: me.start_time - 1, ..me };
        assert!(me.is_alive());
        assert!(!before.is_alive());
        before.kill(Duration::ZERO).unwrap();
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse_the_start_time() {
        let fields: Vec<String> = (4..=22).map(|n| n.to_string()).collect();
        let stat = format!("17 (a ) b) S {} 23", fields.join(" "));
        assert_eq!(start_time(&stat), Some(22));
    }
}
