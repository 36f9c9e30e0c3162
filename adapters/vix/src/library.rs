//! A library that has been found and loaded.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::Vix;
use crate::discover::{self, Candidate};
use crate::error::LoadError;
use crate::ffi::{LoadFailure, Loaded};

/// A VIX library, loaded. Clones are the same one. It stays loaded until the process ends.
#[derive(Clone)]
pub struct Library {
    path: PathBuf,
    vix: Arc<dyn Vix>,
    extras: Vec<&'static str>,
}

impl Library {
    /// Finds and loads the library: the one that is named, by `explicit` or by [`discover::VARIABLE`], or else the first
    /// of [`discover()`](crate::discover()) that loads.
    ///
    /// # Errors
    /// If there is none; or the first trouble, if there are some but none that is of use.
    pub fn find(explicit: Option<&Path>) -> Result<Self, LoadError> {
        let candidates = discover::discover(explicit);
        let mut trouble = None;
        for candidate in candidates.iter().filter(|candidate| candidate.exists) {
            match Self::load(&candidate.path) {
                Ok(library) => return Ok(library),
                Err(error) => {
                    trouble.get_or_insert(error);
                }
            }
        }
        Err(trouble.unwrap_or_else(|| not_found(candidates)))
    }

    /// Loads this file. Every function is looked up now, so that nothing is found missing in the middle of a task.
    ///
    /// # Errors
    /// If it does not load, or lacks functions.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        if !path.is_file() {
            return Err(LoadError::Missing { path: path.to_owned(), by: "the caller".into() });
        }
        match Loaded::load(path) {
            Ok(loaded) => {
                let extras = loaded.extras.clone();
                tracing::debug!(path = %path.display(), ?extras, "a VIX library was loaded");
                Ok(Self { path: path.to_owned(), vix: Arc::new(loaded), extras })
            }
            Err(LoadFailure::System(what)) => Err(LoadError::Load { path: path.to_owned(), what }),
            Err(LoadFailure::Missing(missing)) => {
                Err(LoadError::Symbols { path: path.to_owned(), missing, rows: describe(&rows_beside(path)) })
            }
        }
    }

    /// Something else that can be asked what a library can: for tests.
    #[cfg(test)]
    pub(crate) fn of(vix: impl Vix + 'static) -> Self {
        Self { path: "mock".into(), vix: Arc::new(vix), extras: Vec::new() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Functions that VIX has lost in 1.11 and this library still has: a sign of its age.
    #[must_use]
    pub fn extras(&self) -> &[&'static str] {
        &self.extras
    }

    /// The versions of the products that it knows, by the table beside it. None if there is no such table: then it is no
    /// wrapper for several products, but one product's own library.
    #[must_use]
    pub fn rows(&self) -> Vec<ProductRow> {
        rows_beside(&self.path)
    }

    /// Its functions.
    #[must_use]
    pub fn vix(&self) -> &Arc<dyn Vix> {
        &self.vix
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Library").field(&self.path).finish()
    }
}

fn not_found(candidates: Vec<Candidate>) -> LoadError {
    match &candidates[..] {
        [named, ..] if named.by == discover::VARIABLE || named.by == "the caller" => {
            LoadError::Missing { path: named.path.clone(), by: named.by.clone() }
        }
        _ => LoadError::NotFound(candidates.into_iter().map(|candidate| candidate.path).collect()),
    }
}

/// A row of `vixwrapper-config.txt`: for this product in this version, that implementation is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductRow {
    /// `ws`, `player`, `viserver`, `esx`, ...
    pub provider: String,
    /// The VIX API version asked for.
    pub api: String,
    /// How it talks to the product.
    pub ipc: String,
    /// The product's version; `e.x.p` stands for any.
    pub version: String,
    /// The directory with the implementation, beside the table.
    pub implementation: String,
}

impl fmt::Display for ProductRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.provider, self.version, self.implementation)
    }
}

fn rows_beside(library: &Path) -> Vec<ProductRow> {
    // The library is often a link into the directory that has the table.
    let real = std::fs::canonicalize(library).unwrap_or_else(|_| library.to_owned());
    let dirs = [real.parent(), library.parent(), real.parent().and_then(Path::parent)];
    let tables = dirs
        .into_iter()
        .flatten()
        .flat_map(|dir| ["vixwrapper-config.txt", "vixwrapper-product-config.txt"].map(|name| dir.join(name)));
    let text = tables.into_iter().find_map(|table| std::fs::read_to_string(table).ok());
    text.as_deref().map(rows).unwrap_or_default()
}

fn rows(text: &str) -> Vec<ProductRow> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [provider, api, ipc, version, implementation] = words[..] else { return None };
        (!provider.starts_with('#')).then(|| ProductRow {
            provider: provider.to_owned(),
            api: api.to_owned(),
            ipc: ipc.to_owned(),
            version: version.to_owned(),
            implementation: implementation.to_owned(),
        })
    };
    text.lines().filter_map(row).collect()
}

fn describe(rows: &[ProductRow]) -> String {
    if rows.is_empty() {
        return "none".into();
    }
    rows.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TABLE: &str = "# provider apiVersion ipc productVersion implementation\n\
                         ws  19  vmdb  15.0.0 Workstation-15.0.0\n\
                         player 19 vmdb e.x.p Workstation-15.0.0\n\
                         broken row\n";

    #[test]
    fn the_table_of_products_is_read() {
        let rows = rows(TABLE);
        let words: Vec<String> = rows.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["ws 15.0.0 (Workstation-15.0.0)", "player e.x.p (Workstation-15.0.0)"]);
        assert_eq!((rows[0].api.as_str(), rows[0].ipc.as_str()), ("19", "vmdb"));
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libvixAllProducts.so");
        std::fs::write(&file, "not ELF").unwrap();
        let error = Library::load(&file).unwrap_err();
        assert!(matches!(&error, LoadError::Load { path, .. } if *path == file), "{error}");
        let error = Library::load(&dir.path().join("none")).unwrap_err();
        assert!(matches!(&error, LoadError::Missing { .. }), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_without_vix_is_refused_with_what_it_lacks_and_what_its_table_says() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let some =
            maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libgcc_s"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libvixAllProducts.so");
        std::fs::copy(some.expect("a Rust program unwinds with libgcc"), &file).unwrap();
        std::fs::write(dir.path().join("vixwrapper-config.txt"), TABLE).unwrap();
        let text = Library::load(&file).unwrap_err().to_string();
        assert!(text.contains("lacks Vix_GetErrorText and 64 other functions"), "{text}");
        assert!(text.contains("ws 15.0.0"), "{text}");
    }

    #[test]
    fn what_was_named_and_is_not_there_is_told_with_who_named_it() {
        let error = Library::find(Some(Path::new("/nonexistent/libvix.so"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/libvix.so") && error.contains("the caller"), "{error}");
        let none = |by: &str| vec![Candidate { path: "/x/lib.so".into(), by: by.into(), exists: false }];
        assert!(not_found(none(discover::VARIABLE)).to_string().contains(discover::VARIABLE));
        assert!(not_found(none("the usual places")).to_string().contains("Looked for: /x/lib.so"));
    }
}
