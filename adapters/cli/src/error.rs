//! Everything that ends `vmtask` with an error, and the exit code that goes with it.

use std::io;
use std::path::{Path, PathBuf};

use vmtask_driver::{DriveError, JournalError, RegistryError, ResultError, SecretError, TaskDirError, TaskFileError};
use vmtask_platform::PlatformError;

use crate::exit::Exit;
use crate::host::apt::AptError;

/// Why `vmtask` could not do what it was told. The messages name the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--log {filter:?} is no filter: {why}; try `info`, `debug`, or `vmtask_qemu=trace,info`")]
    Filter { filter: String, why: String },
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    TaskFile(#[from] TaskFileError),
    #[error(transparent)]
    TaskDir(#[from] TaskDirError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error("{0}")]
    Platform(PlatformError),
    #[error("{0}")]
    Hypervisor(String),
    #[error("{0}")]
    Directory(String),
    #[error(
        "not enough space for {}: up to {needed} are needed (a checkpoint is at most as large as the guest's memory), and \
         {free} are free; make room, or name a directory on another disk with --dir", dir.display()
    )]
    Space { dir: PathBuf, needed: bytesize::ByteSize, free: bytesize::ByteSize },
    #[error(
        "the task in {} is finished, and --start-over is for tasks that are not; remove the directory to run it anew, or \
         name another with --dir", .0.display()
    )]
    Finished(PathBuf),
    #[error(
        "the virtual machine of the task in {} may still run: {keeper} has it; run the task without --start-over and stop \
         it with Ctrl-C (SIGINT), then begin it anew", dir.display()
    )]
    MayRun { dir: PathBuf, keeper: String },
    #[error(
        "no file may be larger than {limit} here (`ulimit -f`), and QEMU needs one of {needed} for the guest's memory or \
          disk; raise the limit (`ulimit -f unlimited`), or ask for less in [limits]"
    )]
    FileSize { limit: bytesize::ByteSize, needed: bytesize::ByteSize },
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("the packages could not be installed: {error}. By hand: {line}")]
    Install { error: AptError, line: String },
    #[error("{0}")]
    Setup(String),
    #[error("{0}")]
    Demo(String),
}

impl Error {
    pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Filter { .. } | Self::Usage(_) => Exit::Usage,
            Self::TaskFile(_) => Exit::TaskFile,
            Self::TaskDir(TaskDirError::InUse { .. }) => Exit::Locked,
            Self::TaskDir(TaskDirError::Io { .. } | TaskDirError::NamelessHost | TaskDirError::Random(_))
            | Self::Journal(JournalError::Io { .. } | JournalError::Gone(_))
            | Self::Drive(DriveError::Random(_) | DriveError::Thread(_))
            | Self::Registry(_)
            | Self::Secret(_)
            | Self::Result(ResultError::Output { .. } | ResultError::Io { .. } | ResultError::Malformed { .. })
            | Self::Space { .. }
            | Self::MayRun { .. }
            | Self::FileSize { .. }
            | Self::Io { .. }
            | Self::System { .. }
            | Self::Platform(PlatformError::Io { .. } | PlatformError::NoDataDir) => Exit::Host,
            Self::Result(ResultError::Lost { .. })
            | Self::Directory(_)
            | Self::TaskDir(_)
            | Self::Finished(_)
            | Self::Journal(_)
            | Self::Drive(DriveError::Restore(_)) => Exit::TaskDir,
            Self::Drive(DriveError::Hypervisor { .. }) | Self::Hypervisor(_) => Exit::Hypervisor,
            Self::Drive(DriveError::Plan { .. }) => Exit::Unsuitable,
            Self::Drive(DriveError::Start(_)) => Exit::Failed,
            Self::Platform(_) => Exit::Platform,
            Self::Install { .. } | Self::Setup(_) => Exit::Setup,
            Self::Demo(_) => Exit::Demo,
        }
    }
}

impl From<PlatformError> for Error {
    fn from(error: PlatformError) -> Self {
        Self::Platform(error)
    }
}
