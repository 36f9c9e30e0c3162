//! Platforms in one file: `.tar.xz`, to hand a build around when the distribution has moved on.
//!
//! ```text
//! x86_64-pc-linux-gnu/platform.xml      definitions first: they say which files may follow, and how large
//! i686-pc-linux-gnu/platform.xml
//! files/<sha256>                        each file once, however many platforms have it
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use lzma_rust2::{XzOptions, XzReader, XzWriter};

use crate::definition::{DEFINITION_FILE, Definition, FileEntry};
use crate::error::PlatformError;
use crate::hash::{Hasher, Sha256Hex};
use crate::staging::{Staging, public_temporary, sync_dir};
use crate::store::{DEFINITION_MAX, Platform};

const FILES_DIR: &str = "files";

/// More than any platform has; an archive that claims more is refused before a byte is written.
const TOTAL_MAX: u64 = 4 << 30;

/// The decoder's memory at most, in KiB: preset 9's dictionary and some.
const DECODER_MEMORY_KIB: u32 = 128 << 10;

/// Writes platforms into one archive, and returns its size in bytes. The same platforms give the same bytes. The file is
/// in place whole or not at all.
///
/// # Errors
/// [`PlatformError::Corrupt`] and the like where a platform is not sound, [`PlatformError::Io`].
pub fn export(platforms: &[Platform], target: &Path) -> Result<u64, PlatformError> {
    if target.symlink_metadata().is_ok() {
        return Err(PlatformError::io("write", target)(there_already()));
    }
    for platform in platforms {
        platform.verify()?;
    }
    let write = |error| PlatformError::io("write", target)(error);
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = public_temporary(".vmtask-export-", dir).map_err(PlatformError::io("make a file in", dir))?;
    let xz = XzWriter::new(BufWriter::new(temporary), XzOptions::with_preset(9)).map_err(write)?;
    let mut tar = tar::Builder::new(xz);
    for platform in platforms {
        let path = platform.dir().join(DEFINITION_FILE);
        let xml = fs::read(&path).map_err(PlatformError::io("read", &path))?;
        let name = format!("{}/{DEFINITION_FILE}", platform.name());
        append(&mut tar, &name, xml.len() as u64, &xml[..]).map_err(write)?;
    }
    let mut done = HashSet::new();
    for platform in platforms {
        for file in &platform.definition().files.entries {
            if !done.insert(&file.sha256) {
                continue;
            }
            let path = platform.dir().join(&file.name);
            let source = File::open(&path).map_err(PlatformError::io("read", &path))?;
            append(&mut tar, &format!("{FILES_DIR}/{}", file.sha256), file.size, source).map_err(write)?;
        }
    }
    let mut out = tar.into_inner().and_then(XzWriter::finish).map_err(write)?;
    out.flush().map_err(write)?;
    let temporary = out.into_inner().map_err(|error| write(error.into_error()))?;
    let size = temporary.as_file().metadata().map_err(write)?.len();
    temporary.as_file().sync_all().map_err(write)?;
    temporary.persist_noclobber(target).map_err(|error| write(error.error))?;
    sync_dir(dir)?;
    Ok(size)
}

fn there_already() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "there is something of that name already; name another file")
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, size: u64, source: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, source)
}

/// Takes the platforms of an archive into `store` (made if need be), each in place of one of its name.
///
/// The archive may come from anyone: every entry must be one that its definitions announce, of the announced size and
/// SHA-256; paths, links, devices and whatever else is refused. All is checked before the first platform is put in place,
/// and each is put in place in one step.
///
/// # Errors
/// [`PlatformError::Archive`] for an archive that is not in order, [`PlatformError::Io`].
pub fn import(archive: &Path, store: &Path) -> Result<Vec<Platform>, PlatformError> {
    let file = File::open(archive).map_err(PlatformError::io("open", archive))?;
    let xz = XzReader::new_mem_limit(BufReader::new(file), false, DECODER_MEMORY_KIB);
    // One directory for all the files; the platforms' own are linked from it.
    let pool = Staging::new(store)?;
    let definitions = unpack(&mut tar::Archive::new(xz), &pool)
        .map_err(|cause| PlatformError::Archive { path: archive.to_owned(), cause })?;

    let mut ready = Vec::new();
    for definition in definitions {
        let staging = Staging::new(store)?;
        for file in &definition.files.entries {
            if staging.link_from_sibling(file) {
                continue;
            }
            let (from, to) = (pool.path().join(file.sha256.as_str()), staging.path().join(&file.name));
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).map_err(PlatformError::io("write", &to))?;
            }
        }
        ready.push((staging, definition));
    }
    ready.into_iter().map(|(staging, definition)| staging.publish(&definition)).collect()
}

fn unpack<R: Read>(tar: &mut tar::Archive<R>, pool: &Staging) -> Result<Vec<Definition>, String> {
    let mut definitions: Vec<Definition> = Vec::new();
    // Announced and not yet seen.
    let mut awaited: BTreeMap<Sha256Hex, FileEntry> = BTreeMap::new();
    let mut seen_files = false;
    for entry in tar.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| format!("damaged: {error}"))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(format!("'{path}' is not a regular file"));
        }
        match path.split_once('/') {
            Some((FILES_DIR, hash)) => {
                seen_files = true;
                let announced = Sha256Hex::try_from(hash.to_owned()).ok().and_then(|hash| awaited.remove(&hash));
                let file = announced.ok_or_else(|| format!("no definition in it names '{path}', or it comes twice"))?;
                unpack_file(&mut entry, &file, pool)?;
            }
            Some((name, DEFINITION_FILE)) if !seen_files => {
                let definition = unpack_definition(&mut entry, name)?;
                if definitions.iter().any(|other| other.name == name) {
                    return Err(format!("two definitions of '{name}'"));
                }
                for file in &definition.files.entries {
                    awaited.insert(file.sha256.clone(), file.clone());
                }
                definitions.push(definition);
            }
            _ => return Err(format!("'{path}' is nothing that belongs in it")),
        }
        let announced: u64 = awaited.values().map(|file| file.size).fold(0, u64::saturating_add);
        if announced > TOTAL_MAX {
            return Err(format!("its files would take {announced} bytes"));
        }
    }
    if let Some(file) = awaited.into_values().next() {
        return Err(format!("its file {} ({}) is missing", file.name, file.sha256));
    }
    if definitions.is_empty() { Err("there is no platform in it".to_owned()) } else { Ok(definitions) }
}

fn unpack_definition<R: Read>(entry: &mut tar::Entry<'_, R>, name: &str) -> Result<Definition, String> {
    if entry.size() > DEFINITION_MAX {
        return Err(format!("the definition of '{name}' has {} bytes", entry.size()));
    }
    let mut xml = String::new();
    entry.read_to_string(&mut xml).map_err(|error| format!("the definition of '{name}' cannot be read: {error}"))?;
    let definition = Definition::parse(&xml).map_err(|cause| format!("the definition of '{name}': {cause}"))?;
    if definition.name == name {
        Ok(definition)
    } else {
        Err(format!("the definition of '{name}' defines '{}'", definition.name))
    }
}

fn unpack_file<R: Read>(entry: &mut tar::Entry<'_, R>, file: &FileEntry, pool: &Staging) -> Result<(), String> {
    if entry.size() != file.size {
        return Err(format!("{} has {} bytes, not {}", file.name, entry.size(), file.size));
    }
    let path = pool.path().join(file.sha256.as_str());
    let failed = |error: io::Error| format!("cannot unpack {} to {}: {error}", file.name, path.display());
    let mut out = File::create(&path).map_err(failed)?;
    let mut hasher = Hasher::default();
    let mut block = vec![0; 256 * 1024];
    loop {
        let count = entry.read(&mut block).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&block[..count]);
        out.write_all(&block[..count]).map_err(failed)?;
    }
    out.sync_all().map_err(failed)?;
    let found = hasher.finish();
    if found == file.sha256 { Ok(()) } else { Err(format!("{} has SHA-256 {found}, not {}", file.name, file.sha256)) }
}

#[cfg(test)]
mod tests;
