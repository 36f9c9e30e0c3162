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
mod reader;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vmtask_core::{FileIx, Span, TaskSpec};

use self::raw::RawTask;
use self::reader::{Bad, Reader, way_out};
use crate::digest::Digest;

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
        let raw: RawTask = toml::from_str(text).map_err(|error| {
            bad(Bad {
                at: error.span().unwrap_or(0..0),
                message: format!("{}{}", error.message(), way_out(error.message())),
            })
        })?;
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
