//! Where the library is.
//!
//! ```text
//!   named by the caller, or by VMTASK_VIX_LIBRARY  -->  that file, and no other
//!   else, the first that is there of:
//!     Linux    what vix.libdir in /etc/vmware/config says; /usr/lib{,64}{,/vmware-vix{,/lib}}, /usr/local/lib, /opt/vmware
//!     macOS    /Applications/VMware Fusion.app/Contents/Public
//!     Windows  what the registry says (HKLM\SOFTWARE[\WOW6432Node]\VMware, Inc.\VMware VIX, InstallPath); the usual
//!              directories of VIX and of Workstation
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable that names the library.
pub const VARIABLE: &str = "VMTASK_VIX_LIBRARY";

/// What the library is called here.
pub const FILE_NAMES: &[&str] = if cfg!(windows) {
    if cfg!(target_pointer_width = "64") { &["Vix64AllProductsDyn.dll"] } else { &["VixAllProductsDyn.dll"] }
} else if cfg!(target_os = "macos") {
    &["libvixAllProducts.dylib"]
} else {
    // The second is what one distribution's package calls its link.
    &["libvixAllProducts.so", "libbvixAllProducts.so"]
};

/// A place where the library could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// Who says so, for people.
    pub by: String,
    /// Whether it is there.
    pub exists: bool,
}

/// All places where the library could be, the best first. If one is named, by `explicit` or the environment, it is the
/// only one.
#[must_use]
pub fn discover(explicit: Option<&Path>) -> Vec<Candidate> {
    candidates(explicit, std::env::var_os(VARIABLE), installed())
}

fn candidates(
    explicit: Option<&Path>,
    variable: Option<OsString>,
    installed: Vec<(PathBuf, String)>,
) -> Vec<Candidate> {
    let named = match (explicit, variable.filter(|value| !value.is_empty())) {
        (Some(path), _) => Some((path.to_owned(), "the caller".to_owned())),
        (None, Some(path)) => Some((path.into(), VARIABLE.to_owned())),
        (None, None) => None,
    };
    let candidate = |path: PathBuf, by: String| Candidate { exists: path.is_file(), path, by };
    if let Some((path, by)) = named {
        // A directory is as good: whoever installs knows it.
        let files = if path.is_dir() { in_dir(&path) } else { vec![path] };
        return files.into_iter().map(|path| candidate(path, by.clone())).collect();
    }
    let mut all: Vec<Candidate> = Vec::new();
    for (dir, by) in installed {
        for path in in_dir(&dir) {
            if all.iter().all(|known| known.path != path) {
                all.push(candidate(path, by.clone()));
            }
        }
    }
    all
}

fn in_dir(dir: &Path) -> Vec<PathBuf> {
    FILE_NAMES.iter().map(|name| dir.join(name)).collect()
}

/// Directories in which installers put it, and how we know.
#[cfg(not(any(windows, target_os = "macos")))]
fn installed() -> Vec<(PathBuf, String)> {
    const CONFIG: &str = "/etc/vmware/config";
    const USUAL: [&str; 9] = [
        "/usr/lib/vmware-vix",
        "/usr/lib/vmware-vix/lib",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib64/vmware-vix",
        "/usr/lib64/vmware-vix/lib",
        "/usr/local/lib",
        "/opt/vmware/lib/vmware-vix",
        "/opt/vmware/lib/vmware-vix/lib",
    ];
    let config = std::fs::read_to_string(CONFIG).ok();
    let said = config.as_deref().and_then(libdir);
    let said = said.into_iter().flat_map(|dir| {
        let by = format!("vix.libdir in {CONFIG}");
        [(dir.join("lib"), by.clone()), (dir, by)]
    });
    said.chain(USUAL.map(|dir| (dir.into(), "the usual places".to_owned()))).collect()
}

/// Directories in which installers put it, and how we know.
#[cfg(target_os = "macos")]
fn installed() -> Vec<(PathBuf, String)> {
    ["/Applications/VMware Fusion.app/Contents/Public", "/Applications/VMware Fusion.app/Contents/Library/Public"]
        .map(|dir| (dir.into(), "the usual places".to_owned()))
        .to_vec()
}

/// Directories in which installers put it, and how we know.
#[cfg(windows)]
fn installed() -> Vec<(PathBuf, String)> {
    use winsafe::{HKEY, RegistryValue, co};

    // The installer is a 32-bit program: on a 64-bit Windows what it writes is under WOW6432Node.
    const KEYS: [&str; 4] = [
        r"SOFTWARE\WOW6432Node\VMware, Inc.\VMware VIX",
        r"SOFTWARE\VMware, Inc.\VMware VIX",
        r"SOFTWARE\WOW6432Node\VMware, Inc.\VMware Workstation",
        r"SOFTWARE\VMware, Inc.\VMware Workstation",
    ];
    let mut dirs: Vec<(PathBuf, String)> = KEYS
        .iter()
        .filter_map(|key| {
            let value = HKEY::LOCAL_MACHINE.RegGetValue(Some(key), Some("InstallPath"), co::RRF::RT_REG_SZ);
            let Ok(RegistryValue::Sz(value)) = value else { return None };
            Some((PathBuf::from(value), format!(r"InstallPath in the registry's HKLM\{key}")))
        })
        .collect();
    for variable in ["ProgramFiles(x86)", "ProgramFiles"] {
        let Some(programs) = std::env::var_os(variable).map(PathBuf::from) else { continue };
        for product in ["VMware VIX", "VMware Workstation", "VMware Player"] {
            dirs.push((programs.join("VMware").join(product), "the usual places".to_owned()));
        }
    }
    dirs
}

/// The directory that VMware's configuration names: a line `vix.libdir = "..."`.
#[cfg(any(test, not(any(windows, target_os = "macos"))))]
fn libdir(config: &str) -> Option<PathBuf> {
    // The last of several lines counts, as installers append.
    let value = config.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "vix.libdir").then(|| value.trim().trim_matches('"'))
    })?;
    (!value.is_empty()).then(|| value.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("vix.libdir = \"/usr/lib/vmware-vix\"\n", Some("/usr/lib/vmware-vix"))]
    #[case(".encoding = \"UTF-8\"\nvix.libdir=\"/a\"\nvix.libdir = \"/b\"\n", Some("/b"))]
    #[case("vix.libdir = /opt/vix", Some("/opt/vix"))]
    #[case("libdir = \"/usr/lib/vmware\"\n", None)]
    #[case("vix.libdir = \"\"", None)]
    #[case("", None)]
    fn the_configuration_names_the_directory(#[case] config: &str, #[case] expected: Option<&str>) {
        assert_eq!(libdir(config), expected.map(PathBuf::from));
    }

    #[test]
    fn what_is_named_is_the_only_candidate() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.so");
        let installed = || vec![(dir.path().to_owned(), "test".to_owned())];
        let found = candidates(Some(&file), Some("/from/env".into()), installed());
        assert_eq!(found, [Candidate { path: file.clone(), by: "the caller".into(), exists: false }]);
        std::fs::write(&file, "").unwrap();
        let found = candidates(None, Some(file.clone().into()), installed());
        assert_eq!(found, [Candidate { path: file, by: VARIABLE.into(), exists: true }]);
        let found = candidates(None, Some("".into()), installed());
        assert_eq!(found[0].path, dir.path().join(FILE_NAMES[0]));
        let found = candidates(Some(dir.path()), None, Vec::new());
        assert_eq!(found[0].path, dir.path().join(FILE_NAMES[0]), "a directory is searched");
    }

    #[test]
    fn a_place_is_looked_at_once() {
        let twice = vec![("/a".into(), "config".to_owned()), ("/a".into(), "usual".to_owned())];
        let found = candidates(None, None, twice);
        assert_eq!(found.len(), FILE_NAMES.len());
        assert!(found.iter().all(|candidate| candidate.by == "config"));
    }
}
