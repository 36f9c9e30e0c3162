//! Files and names on Unix.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use super::*;

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory that nobody else can look into. Its parent must be there.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)
}

/// Lets the owner list a directory and remove what is in it.
pub(crate) fn open_up(dir: &Path) -> io::Result<()> {
    let mode = std::fs::symlink_metadata(dir)?.permissions().mode();
    if mode & 0o700 == 0o700 { Ok(()) } else { std::fs::set_permissions(dir, PermissionsExt::from_mode(mode | 0o700)) }
}

/// The permission bits of a file if anyone but its owner may read or write it.
pub(crate) fn open_to_others(metadata: &Metadata) -> Option<u32> {
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Opens a file, made if need be, that one process at a time may own.
pub(crate) fn try_own(path: &Path) -> io::Result<Owned> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Owned::Ours(file)),
        Err(TryLockError::WouldBlock) => Ok(Owned::Theirs { says: said(file) }),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The largest file that this process may write, if there is a limit.
pub(crate) fn file_size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// What tells this host from others, as the operating system has it.
pub(crate) fn host_name_for_binding() -> Option<String> {
    let id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|id| id.trim().to_owned())
        .find(|id| id.len() >= 16 && id != "uninitialized");
    // Slim containers have no machine-id; their host name is their own too.
    id.or_else(|| {
        let name = rustix::system::uname();
        let name = name.nodename().to_string_lossy().into_owned();
        (!name.is_empty()).then_some(name)
    })
}
