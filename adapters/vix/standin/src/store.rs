//! State on disk: files replaced by rename, under a lock that works between processes.

use std::fs::{self, File};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vmtask_vix_abi::error_code;

use crate::failure::Failure;

/// Held until it is dropped, against every other thread and process.
pub(crate) struct Lock {
    _file: File,
}

/// Waits for a lock file.
pub(crate) fn lock(path: &Path) -> Result<Lock, Failure> {
    let open = || File::options().create(true).truncate(false).write(true).open(path);
    // Each call opens the file anew: the lock belongs to the open file, so threads exclude each other too.
    let file = open().map_err(|e| Failure::host_io("cannot open", path, &e))?;
    file.lock().map_err(|e| Failure::host_io("cannot lock", path, &e))?;
    Ok(Lock { _file: file })
}

/// Whether nobody holds a lock file now.
pub(crate) fn is_free(path: &Path) -> bool {
    // A file that is not there yet has no holder either; the lock itself is given back at once.
    File::options().write(true).open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Reads a file of JSON; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::host_io("cannot read", path, &e)),
    };
    let bad = |e| Failure::new(error_code::INVALID_SERIALIZED_DATA, format!("{} is damaged: {e}", path.display()));
    serde_json::from_slice(&text).map(Some).map_err(bad)
}

/// Writes a file of JSON, whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let bad =
        |e| Failure::new(error_code::INVALID_SERIALIZED_DATA, format!("cannot serialise {}: {e}", path.display()));
    let text = serde_json::to_vec_pretty(value).map_err(bad)?;
    replace(path, &text)
}

/// Replaces a file, whole or not at all, as far as processes can die; against power cuts of the computer it does not
/// guard, as tests do not have any.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    fs::write(&beside, content).map_err(|e| Failure::host_io("cannot write", &beside, &e))?;
    rename(&beside, path).map_err(|e| Failure::host_io("cannot rename to", path, &e))
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    for _ in 0..100 {
        match fs::rename(from, to) {
            // Windows refuses while somebody reads the old file, which never takes long.
            Err(e) if cfg!(windows) && e.kind() == std::io::ErrorKind::PermissionDenied => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            result => return result,
        }
    }
    fs::rename(from, to)
}

/// The clock, in ms since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}
