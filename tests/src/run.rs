//! `vmtask run --json` as a child process: its reports as they come, signals to it, its result.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::procs::{self, Proc};
use crate::real::{self, Den};
use crate::wait;
pub use crate::wait::wall_ms;

/// A task file in the making.
#[derive(Clone, Debug)]
pub struct TaskToml {
    name: String,
    platform: String,
    program: String,
    args: Vec<String>,
    files_in: Vec<(PathBuf, String)>,
    files_out: Vec<(String, String, bool)>,
    rest: String,
    program_rest: String,
}

impl TaskToml {
    /// A task that runs this program of the host's.
    #[must_use]
    pub fn new(name: &str, program: &Path, args: &[&str]) -> Self {
        let mut task = Self::of_guest(name, "program", args);
        task.files_in.push((program.to_owned(), "program".to_owned()));
        task
    }

    /// A task that runs a program that the guest has.
    #[must_use]
    pub fn of_guest(name: &str, program: &str, args: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            platform: real::PLATFORM.to_owned(),
            program: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            files_in: Vec::new(),
            files_out: Vec::new(),
            rest: String::new(),
            program_rest: String::new(),
        }
    }

    /// On another platform.
    #[must_use]
    pub fn on(mut self, platform: &str) -> Self {
        platform.clone_into(&mut self.platform);
        self
    }

    /// With an input file.
    #[must_use]
    pub fn input(mut self, host: &Path, guest: &str) -> Self {
        self.files_in.push((host.to_owned(), guest.to_owned()));
        self
    }

    /// With an output file.
    #[must_use]
    pub fn output(self, name: &str) -> Self {
        self.output_as(name, name)
    }

    /// With an output file that has another name on the host.
    #[must_use]
    pub fn output_as(mut self, guest: &str, host: &str) -> Self {
        self.files_out.push((guest.to_owned(), host.to_owned(), false));
        self
    }

    /// With checkpoints this far apart, or `off`.
    #[must_use]
    pub fn checkpoints(self, every: &str) -> Self {
        self.with(&format!("[checkpoint]\nevery = \"{every}\"\n"))
    }

    /// With more lines of `[program]`.
    #[must_use]
    pub fn program_with(mut self, lines: &str) -> Self {
        let _ = writeln!(self.program_rest, "{lines}");
        self
    }

    /// With more sections.
    #[must_use]
    pub fn with(mut self, sections: &str) -> Self {
        let _ = writeln!(self.rest, "{sections}");
        self
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let string = |text: &str| Value::from(text).to_string();
        let args: Vec<_> = self.args.iter().map(|arg| string(arg)).collect();
        let mut text = format!(
            "name = {}\nplatform = {}\n[program]\npath = {}\nargs = [{}]\n{}",
            string(&self.name),
            string(&self.platform),
            string(&self.program),
            args.join(", "),
            self.program_rest,
        );
        for (host, guest) in &self.files_in {
            let host = string(&host.to_string_lossy());
            let _ = writeln!(text, "[[files_in]]\nhost = {host}\nguest = {}", string(guest));
        }
        for (guest, host, optional) in &self.files_out {
            let _ = writeln!(
                text,
                "[[files_out]]\nguest = {}\nhost = {}\noptional = {optional}",
                string(guest),
                string(host)
            );
        }
        text.push_str(&self.rest);
        text
    }

    /// Writes it into a den, and says where.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn write(&self, den: &Den) -> PathBuf {
        let path = den.path().join(format!("{}.toml", self.name));
        fs::write(&path, self.text()).expect("write the task file");
        path
    }
}

/// Something that `vmtask run --json` said, and when it was read.
#[derive(Clone, Debug)]
pub struct Said {
    /// When.
    pub at: Instant,
    /// The same, by the computer's clock: milliseconds since 1970.
    pub wall_ms: i64,
    /// What.
    pub line: Value,
}

impl Said {
    /// The phase that it tells of, without its arguments: `running`, `committing`.
    #[must_use]
    pub fn phase(&self) -> Option<&str> {
        match &self.line["report"]["phase"] {
            Value::String(name) => Some(name),
            Value::Object(map) => map.keys().next().map(String::as_str),
            _ => None,
        }
    }

    /// Whether it says that the VM is made from its baseline, not from a checkpoint.
    #[must_use]
    pub fn provisions_baseline(&self) -> bool {
        self.line["report"]["phase"]["provisioning"] == "baseline"
    }

    /// The checkpoint that it says is durable.
    #[must_use]
    pub fn checkpoint(&self) -> Option<u64> {
        self.line["report"]["checkpoint"]["generation"].as_u64()
    }
}

#[derive(Debug, Default)]
struct Heard {
    lines: Mutex<(Vec<Said>, bool)>,
    news: Condvar,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, (Vec<Said>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A `vmtask run` that was started. It is killed, and its machine with it, when this is dropped before its end.
#[derive(Debug)]
pub struct Run {
    child: Child,
    heard: Arc<Heard>,
    reader: Option<thread::JoinHandle<()>>,
    stderr: Option<thread::JoinHandle<String>>,
    /// The task's directory.
    pub dir: PathBuf,
    /// When it was started.
    pub begun: Instant,
}

/// How a `vmtask run` ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it said.
    pub said: Vec<Said>,
    /// Its standard error.
    pub stderr: String,
    /// The task's directory.
    pub dir: PathBuf,
}

impl Run {
    /// Starts `vmtask run TASK --dir DIR --json`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(den: &Den, task: &Path, dir: &Path) -> Self {
        Self::start_by(den.vmtask(), task, dir)
    }

    /// Starts it by this command, to which the arguments are added.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_by(mut command: Command, task: &Path, dir: &Path) -> Self {
        let args: [OsString; 6] =
            ["run".into(), task.into(), "--dir".into(), dir.into(), "--json".into(), "--log=debug".into()];
        let begun = Instant::now();
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let heard = Arc::new(Heard::default());
        let (out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let theirs = Arc::clone(&heard);
        let reader = thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let (at, wall_ms) = (Instant::now(), wall_ms());
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                theirs.lock().0.push(Said { at, wall_ms, line });
                theirs.news.notify_all();
            }
            theirs.lock().1 = true;
            theirs.news.notify_all();
        });
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, heard, reader: Some(reader), stderr: Some(stderr), dir: dir.to_owned(), begun }
    }

    /// The manager's process.
    #[must_use]
    pub fn manager(&self) -> Option<Proc> {
        Proc::of(self.child.id())
    }

    /// The emulator, once and as long as there is one.
    #[must_use]
    pub fn qemu(&self) -> Option<Proc> {
        procs::qemus_of_manager(self.child.id()).first().copied()
    }

    /// Sends the manager a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(manager) = self.manager() {
            manager.signal(signal);
        }
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> Vec<Said> {
        self.heard.lock().0.clone()
    }

    /// Waits until it says something like that, from its line number `from` on; `None` if it ends before.
    ///
    /// # Panics
    /// If it neither says it nor ends.
    pub fn hear(&self, from: usize, mut like: impl FnMut(&Said) -> bool) -> Option<(usize, Said)> {
        let give_up = Instant::now() + wait::HANG;
        let mut heard = self.heard.lock();
        let mut next = from;
        loop {
            if let Some(at) = heard.0.iter().skip(next).position(&mut like) {
                return Some((next + at, heard.0[next + at].clone()));
            }
            if heard.1 {
                return None;
            }
            next = heard.0.len().max(from);
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "vmtask neither says what is awaited nor ends; so far: {:?}", heard.0);
            heard = self.heard.news.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the task is in this phase.
    ///
    /// # Panics
    /// If it ends before.
    pub fn await_phase(&self, phase: &str) {
        if self.hear(0, |said| said.phase() == Some(phase)).is_none() {
            panic!("it ended before it was {phase}: {:#?}", self.said());
        }
    }

    /// Waits until the first checkpoint is durable; its number.
    ///
    /// # Panics
    /// If it ends before.
    pub fn await_checkpoint(&self) -> u64 {
        match self.hear(0, |said| said.checkpoint().is_some()) {
            Some((_, said)) => said.checkpoint().unwrap_or_default(),
            None => panic!("it ended before its first checkpoint: {:#?}", self.said()),
        }
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// If the operating system does not tell.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ask after a child process").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        // Its end, and not only that of its output: a machine must not outlive it.
        let status = wait::until(&format!("vmtask in {} to end", self.dir.display()), || {
            self.child.try_wait().expect("ask after a child process")
        });
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Finished { status, said: self.said(), stderr, dir: self.dir.clone() }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.stderr.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Finished {
    /// Its exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// An output's content.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn output(&self, name: &str) -> Vec<u8> {
        let path = self.dir.join("results").join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("no output {}: {error}\n{}", path.display(), self.story()))
    }

    /// `result.json`.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn result(&self) -> Value {
        serde_json::from_slice(&self.output("result.json")).expect("result.json is JSON")
    }

    /// From the first line that passes to the first after it that passes the other.
    #[must_use]
    pub fn between(&self, from: impl Fn(&Said) -> bool, to: impl Fn(&Said) -> bool) -> Option<Duration> {
        let begin = self.said.iter().position(from)?;
        let end = self.said[begin..].iter().find(|said| to(said))?;
        Some(end.at - self.said[begin].at)
    }

    /// All that was said, for the message of a failed test.
    #[must_use]
    pub fn story(&self) -> String {
        let mut text = format!("{}\n{}", self.status, self.stderr);
        for said in &self.said {
            let _ = writeln!(text, "{} {}", said.wall_ms, said.line);
        }
        text
    }

    /// Asserts the exit code.
    ///
    /// # Panics
    /// If it is another, with all that was said.
    #[must_use]
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code() == Some(code), "expected exit code {code}\n{}", self.story());
        self
    }
}
