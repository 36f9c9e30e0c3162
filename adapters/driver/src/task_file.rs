//! The task file: TOML that a person writes, turned into a checked [`TaskSpec`].
//!
//! ```toml
//! name = "leibniz"
//! platform = "x86_64-pc-linux-gnu"
//! [program]
//! path = "leibniz"                 # one of files_in, or absolute in the guest
//! args = ["1000"]
//! env = { LC_ALL = "C" }
//! stdout = "stdout.txt"            # both are always collected, whether files_out names them or not
//! stderr = "stderr.txt"
//! progress = "progress"            # a file with a number 0..1 that the program keeps up to date
//! [[files_in]]
//! host = "leibniz"                 # relative to the task file
//! guest = "leibniz"                # default: the host file's name
//! executable = true                # default: whether it is the program
//! [[files_out]]
//! guest = "result.txt"
//! host = "result.txt"              # below DIR/results; default: as in the guest
//! optional = false                 # whether it may be missing at the end
//! [checkpoint]
//! every = "5m"                     # "off" for none
//! keep = 2
//! [limits]
//! memory = "256MiB"                # default: what the platform says
//! cpus = 1
//! disk = "512MiB"                  # default: none, the task lives in memory
//! run = "24h"                      # default: "off", for ever
//! output = "1GiB"                  # the largest output file
//! ```
//!
//! Errors have the form `file:line:column: what is wrong and what to do`.

mod raw;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use toml::Spanned;
use vmtask_core::{CheckpointSpec, FileIn, FileIx, FileOut, Limits, Plan, ProgramSpec, Span, SpecError, TaskSpec};

use self::raw::{Every, RawCheckpoint, RawLimits, RawOut, RawProgram, RawTask, Size};
use crate::digest::Digest;
use crate::result::RESULT_FILE;

/// A task file that has been read and makes sense in itself.
#[derive(Clone, Debug)]
pub struct TaskFile {
    path: PathBuf,
    base: PathBuf,
    spec: TaskSpec,
    /// Where each of `spec.files_in` is named.
    places: Vec<Place>,
}

/// A place in a task file; both numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// An input file that is there and can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is on the host.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: Digest,
}

/// Why a task file is of no use.
#[derive(Debug, Error)]
pub enum TaskFileError {
    /// It could not be read.
    #[error("cannot read the task file {}: {source}; name a TOML file that you may read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{}:{}: {message}", path.display(), place.line, place.column)]
    Bad {
        /// Which.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What is wrong, and the way out.
        message: String,
    },
    /// Input files that it names cannot be used. One line for each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Inputs(Vec<InputError>),
}

/// An input file that cannot be used.
#[derive(Debug, Error)]
#[error("{}:{}:{}: the input file {} {problem}", task_file.display(), place.line, place.column, path.display())]
pub struct InputError {
    /// The task file that names it.
    pub task_file: PathBuf,
    /// Where.
    pub place: Place,
    /// The input file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: InputProblem,
}

/// What is wrong with an input file.
#[derive(Debug, Error)]
pub enum InputProblem {
    /// Nothing there.
    #[error("does not exist; paths are relative to the task file's directory")]
    Missing,
    /// A directory.
    #[error("is a directory; pack it into one file, or name its files one by one")]
    Directory,
    /// A device, a pipe, a socket.
    #[error("is neither a file nor a link to one; copy its content into a file")]
    Special,
    /// It cannot be read.
    #[error("cannot be read ({0}); mend its permissions or name another")]
    Unreadable(io::Error),
}

impl TaskFile {
    /// The largest task file that is read, in bytes.
    pub const MAX_SIZE: u64 = 1 << 20;
    const CHECKPOINT_EVERY: Span = Span::from_secs(300);
    const CHECKPOINT_KEEP: u8 = 2;

    /// Reads and checks a task file. The files that it names are not looked at yet: see [`TaskFile::check_inputs`].
    ///
    /// # Errors
    /// If it cannot be read, or the first thing that is wrong in it, with its place.
    pub fn load(path: &Path) -> Result<Self, TaskFileError> {
        let read = || {
            let metadata = fs::metadata(path)?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            if metadata.len() > Self::MAX_SIZE {
                return Err(io::Error::other("it is larger than 1 MiB"));
            }
            fs::read_to_string(path)
        };
        let text = read().map_err(|source| TaskFileError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a task file that is, or would be, at `path`.
    ///
    /// # Errors
    /// The first thing that is wrong in it, with its place.
    pub fn parse(path: &Path, text: &str) -> Result<Self, TaskFileError> {
        let bad = |error: Bad| TaskFileError::Bad {
            path: path.to_owned(),
            place: Place::of(text, error.at.start),
            message: error.message,
        };
        let raw: RawTask = toml::from_str(text)
            .map_err(|error| bad(Bad { at: error.span().unwrap_or(0..0), message: error.message().to_owned() }))?;
        let places = raw.files_in.iter().map(|file| Place::of(text, file.host.span().start)).collect();
        Ok(Self {
            path: path.to_owned(),
            base: crate::storage::parent(path).to_owned(),
            spec: Reader::default().task(raw).map_err(bad)?,
            places,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the paths of its input files are relative to.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// What it says.
    #[must_use]
    pub const fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    /// Where an input file is on the host; `None` if there is no such file.
    #[must_use]
    pub fn input(&self, ix: FileIx) -> Option<PathBuf> {
        Some(self.base.join(&self.spec.files_in.get(ix.index())?.host))
    }

    /// Where `vmtask run` keeps everything of the task unless it is told otherwise: `NAME.vmtask` beside the task file.
    #[must_use]
    pub fn default_dir(&self) -> PathBuf {
        self.base.join(format!("{}.vmtask", self.spec.name))
    }

    /// Looks at every input file and reads it once: in the order of the task file, with size and digest.
    ///
    /// # Errors
    /// [`TaskFileError::Inputs`] with all files that cannot be used.
    pub fn check_inputs(&self) -> Result<Vec<InputFile>, TaskFileError> {
        let mut found = Vec::new();
        let mut errors = Vec::new();
        for (file, &place) in self.spec.files_in.iter().zip(&self.places) {
            let path = self.base.join(&file.host);
            match check_input(&path) {
                Ok((size, sha256)) => found.push(InputFile { path, size, sha256 }),
                Err(problem) => errors.push(InputError { task_file: self.path.clone(), place, path, problem }),
            }
        }
        if errors.is_empty() { Ok(found) } else { Err(TaskFileError::Inputs(errors)) }
    }
}

fn check_input(path: &Path) -> Result<(u64, Digest), InputProblem> {
    let problem = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => InputProblem::Missing,
        _ => InputProblem::Unreadable(error),
    };
    // Looked at before it is opened: opening a pipe waits for its other end.
    let metadata = fs::metadata(path).map_err(problem)?;
    if metadata.is_dir() {
        return Err(InputProblem::Directory);
    }
    if !metadata.is_file() {
        return Err(InputProblem::Special);
    }
    let file = File::open(path).map_err(problem)?;
    Digest::of_reader(file).map_err(InputProblem::Unreadable)
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Something wrong, and where in the text.
struct Bad {
    at: Range<usize>,
    message: String,
}

impl Bad {
    fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at, message }
    }
}

/// Turns what was written into a [`TaskSpec`], and remembers where each value was.
#[derive(Default)]
struct Reader {
    seen: Vec<(&'static str, String, Range<usize>)>,
}

impl Reader {
    fn task(mut self, raw: RawTask) -> Result<TaskSpec, Bad> {
        let name = self.keep("name", raw.name);
        let platform = self.keep("platform", raw.platform);
        let at_program = raw.program.path.span();
        let program = self.program(raw.program);
        let mut files_in = Vec::new();
        for file in raw.files_in {
            files_in.push(self.file_in(file, &program.path)?);
        }
        if !program.path.starts_with('/') && !files_in.iter().any(|f| f.guest == program.path) {
            return Err(Bad::new(
                at_program,
                format!(
                    "program.path {:?} is none of files_in, so it would not be there; add it to [[files_in]], or name a \
                     program of the platform with its absolute path",
                    program.path
                ),
            ));
        }
        let files_out = self.files_out(raw.files_out, &program)?;
        let spec = TaskSpec {
            name,
            platform,
            program,
            files_in,
            files_out,
            checkpoint: checkpoint(raw.checkpoint)?,
            limits: self.limits(raw.limits)?,
        };
        spec.check().map_err(|error| Bad::new(self.place_of(&error), error.to_string()))?;
        self.check_nesting(&spec)?;
        Ok(spec)
    }

    fn keep(&mut self, what: &'static str, value: Spanned<String>) -> String {
        let span = value.span();
        let value = value.into_inner();
        self.seen.push((what, value.clone(), span));
        value
    }

    fn program(&mut self, raw: RawProgram) -> ProgramSpec {
        let mut env = BTreeMap::new();
        for (name, value) in raw.env {
            // A bad name is reported like a bad value: at the value, whose place is known.
            self.seen.push(("program.env", name.clone(), value.span()));
            env.insert(name, self.keep("program.env", value));
        }
        let mut name = |what, given: Option<Spanned<String>>, default: &str| match given {
            Some(given) => self.keep(what, given),
            None => default.to_owned(),
        };
        let stdout = name("program.stdout", raw.stdout, "stdout.txt");
        let stderr = name("program.stderr", raw.stderr, "stderr.txt");
        ProgramSpec {
            path: self.keep("program.path", raw.path),
            args: (raw.args.into_iter()).map(|arg| self.keep("program.args", arg)).collect(),
            env,
            stdout,
            stderr,
            progress: raw.progress.map(|progress| self.keep("program.progress", progress)),
        }
    }

    fn file_in(&mut self, raw: raw::RawIn, program: &str) -> Result<FileIn, Bad> {
        let at = raw.host.span();
        let host = self.keep("files_in.host", raw.host);
        let guest = match raw.guest {
            Some(guest) => self.keep("files_in.guest", guest),
            None => {
                let name = Path::new(&host).file_name().and_then(|name| name.to_str());
                let Some(name) = name else {
                    return Err(Bad::new(
                        at,
                        format!("files_in.host {host:?} does not end in a file's name; name a file"),
                    ));
                };
                self.keep("files_in.guest", Spanned::new(at, name.to_owned()))
            }
        };
        let is_program = guest == program;
        let executable = raw.executable.as_ref().map_or(is_program, |e| *e.get_ref());
        if let (true, false, Some(given)) = (is_program, executable, &raw.executable) {
            return Err(Bad::new(
                given.span(),
                format!(
                    "{guest:?} is the program (program.path) and must be executable; leave `executable` out or set it to true"
                ),
            ));
        }
        Ok(FileIn { host, guest, executable })
    }

    fn files_out(&mut self, raw: Vec<RawOut>, program: &ProgramSpec) -> Result<Vec<FileOut>, Bad> {
        let mut files = Vec::new();
        for file in raw {
            let at = file.guest.span();
            let guest = self.keep("files_out.guest", file.guest);
            let (at, host) = match file.host {
                Some(host) => (host.span(), self.keep("files_out.host", host)),
                None => {
                    let host = Spanned::new(at.clone(), guest.clone());
                    (at, self.keep("files_out.host", host))
                }
            };
            if host.eq_ignore_ascii_case(RESULT_FILE) {
                return Err(Bad::new(
                    at,
                    format!("files_out.host {host:?} is the name of vmtask's own report; choose another"),
                ));
            }
            files.push(FileOut { guest, host, optional: file.optional });
        }
        // What the program said is kept whatever the task asked for: it explains most failures.
        for (what, stream) in [("program.stdout", &program.stdout), ("program.stderr", &program.stderr)] {
            if files.iter().any(|file| file.guest == *stream) {
                continue;
            }
            if files.iter().any(|file| file.host == *stream) || stream.eq_ignore_ascii_case(RESULT_FILE) {
                let at = self.find("files_out.host", stream);
                let at = at.or_else(|| self.find(what, stream)).unwrap_or(0..0);
                return Err(Bad::new(
                    at,
                    format!(
                        "{stream:?} is where {what} is collected to, so no other result can have that name; rename one of \
                         them, or give {what} a result name of its own in [[files_out]]"
                    ),
                ));
            }
            files.push(FileOut { guest: stream.clone(), host: stream.clone(), optional: true });
        }
        Ok(files)
    }

    fn limits(&mut self, raw: RawLimits) -> Result<Limits, Bad> {
        let default = Limits::default();
        let mut size = |what, given: Option<Spanned<Size>>| {
            given.map(|given| {
                self.seen.push((what, String::new(), given.span()));
                given.into_inner().0
            })
        };
        let memory = size("memory", raw.memory);
        let disk = size("disk", raw.disk);
        let output = size("output", raw.output).unwrap_or(default.output);
        let run_ms = match raw.run {
            Some(run) => time("limits.run", &run, Duration::from_millis(u64::MAX))?,
            None => default.run_ms,
        };
        if let Some(cpus) = &raw.cpus {
            self.seen.push(("cpus", String::new(), cpus.span()));
        }
        Ok(Limits { memory, cpus: raw.cpus.map_or(default.cpus, Spanned::into_inner), disk, run_ms, output })
    }

    /// A file cannot be in a directory that is itself a file.
    fn check_nesting(&self, spec: &TaskSpec) -> Result<(), Bad> {
        let ins: Vec<_> = spec.files_in.iter().map(|file| &file.guest).collect();
        let outs: Vec<_> = spec.files_out.iter().map(|file| &file.host).collect();
        for (what, paths) in [("files_in.guest", ins), ("files_out.host", outs)] {
            for inner in &paths {
                let is_above =
                    |outer: &&&String| inner.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'));
                if let Some(outer) = paths.iter().find(is_above) {
                    return Err(Bad::new(
                        self.find(what, inner).unwrap_or(0..0),
                        format!(
                            "{what} {inner:?} is below {outer:?}, which is a file and cannot be a directory as well; rename \
                             one of them"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn place_of(&self, error: &SpecError) -> Range<usize> {
        let (what, value) = match error {
            SpecError::Name { what, name } => (*what, name.as_str()),
            SpecError::Path { what, path, .. } | SpecError::Twice { what, path } => (*what, path.as_str()),
            SpecError::NoProgram => ("program.path", ""),
            SpecError::Argument { what, value, .. } => (*what, value.as_str()),
            SpecError::Limit { what, .. } => (*what, ""),
        };
        self.find(what, value).unwrap_or(0..0)
    }

    /// The last place of this value: of two of the same name the second is the one too many.
    fn find(&self, what: &str, value: &str) -> Option<Range<usize>> {
        self.seen.iter().rfind(|(seen_what, seen, _)| *seen_what == what && seen == value).map(|(_, _, at)| at.clone())
    }
}

fn checkpoint(raw: RawCheckpoint) -> Result<Option<CheckpointSpec>, Bad> {
    let keep = match &raw.keep {
        None => TaskFile::CHECKPOINT_KEEP,
        Some(keep) if (1..=Plan::MAX_KEEP).contains(keep.get_ref()) => *keep.get_ref(),
        Some(keep) => {
            return Err(Bad::new(
                keep.span(),
                format!("checkpoint.keep is {}; it must be from 1 to {}", keep.get_ref(), Plan::MAX_KEEP),
            ));
        }
    };
    let every = match raw.every {
        None => Some(TaskFile::CHECKPOINT_EVERY),
        Some(every) => {
            let longest = Duration::from_millis(Span::MAX.as_millis().into());
            time("checkpoint.every", &every, longest)?
                .map(|ms| Span::from_millis(u32::try_from(ms).unwrap_or(u32::MAX)))
        }
    };
    Ok(every.map(|every| CheckpointSpec { every, keep }))
}

/// Milliseconds from 1 to `longest`, or `None` for "off".
fn time(what: &str, given: &Spanned<Every>, longest: Duration) -> Result<Option<u64>, Bad> {
    let Every::Time(time) = *given.get_ref() else {
        return Ok(None);
    };
    if (Duration::from_millis(1)..=longest).contains(&time) {
        return Ok(u64::try_from(time.as_millis()).ok());
    }
    let longest = humantime::format_duration(Duration::from_secs(longest.as_secs()));
    Err(Bad::new(
        given.span(),
        format!(
            "{what} is {}; it must be from 1ms to {longest}, or \"off\" for none",
            humantime::format_duration(time)
        ),
    ))
}
