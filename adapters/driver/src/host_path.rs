//! Paths of this host in JSON, without loss.
//!
//! A path is bytes on Unix and 16-bit units on Windows, and need not be Unicode. One that is Unicode is a string; any
//! other is an object with its units, as serde writes an `OsString`: `{"Unix":[99,97,102,233]}`.
//!
//! For fields: `#[serde(with = "vmtask_driver::host_path")]`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Units(OsString),
}

/// Writes a path. It is read back as the same path on the same kind of system.
///
/// # Errors
/// None of its own: those of the serializer.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => path.as_os_str().serialize(serializer),
    }
}

/// Reads a path.
///
/// # Errors
/// If it is neither a string nor an object with the units of this kind of system.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(match Written::deserialize(deserializer)? {
        Written::Text(text) => text.into(),
        Written::Units(units) => units.into(),
    })
}
