//! Two QEMU builds on one computer: the installed one, and another beside it, as after an update of the package.
//!
//! The other one is QEMU 10 of Debian's backports: downloaded once with apt-get's own `-o` options, unpacked by `dpkg -x`
//! into the shared data directory, nothing installed. Where it cannot be had, a copy of the installed program takes its
//! place that calls itself by another version: to everything that reads its word it is another build.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::real;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
const MIRROR: &str = "http://deb.debian.org/debian";

/// A build of QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The first line of its `--version`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
}

impl Build {
    fn at(program: PathBuf) -> Result<Self, String> {
        let asked = Command::new(&program).arg("--version").output();
        let asked = asked.map_err(|error| format!("{}: {error}", program.display()))?;
        let name = String::from_utf8_lossy(&asked.stdout).lines().next().unwrap_or_default().to_owned();
        if !asked.status.success() || !name.starts_with("QEMU emulator version ") {
            return Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&asked.stderr).trim()));
        }
        Ok(Self { name, program })
    }

    /// The one that is first in `PATH`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn installed() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|file| file.is_file());
        Self::at(program.expect("QEMU in PATH")).expect("QEMU's version")
    }

    /// Another one. It is fetched by whoever comes first.
    ///
    /// # Panics
    /// If there is no way to get one.
    #[must_use]
    pub fn other() -> Self {
        static FOUND: OnceLock<Build> = OnceLock::new();
        FOUND.get_or_init(find_other).clone()
    }

    /// Lets what is started find this one first.
    pub fn first_in_path<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = self.program.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).expect("directories without a colon"))
    }
}

fn find_other() -> Build {
    let _lock = real::lock("other-qemu");
    let root = real::home().join("other-qemu");
    let installed = Build::installed();
    let program = root.join("usr/bin").join(PROGRAM);
    let usable = |program: &Path| Build::at(program.to_owned()).ok().filter(|build| build.name != installed.name);
    if let Some(build) = usable(&program) {
        return build;
    }
    let fetched = fetch(&root).and_then(|()| Build::at(program.clone()));
    if let Err(why) = &fetched {
        real::note(&format!("no QEMU from the backports ({why}); a copy of the installed one stands in for it"));
        copy_under_another_version(&installed, &program).expect("make a copy of QEMU");
    }
    usable(&program).unwrap_or_else(|| panic!("{} is no other build than {}", program.display(), installed.name))
}

/// Downloads and unpacks the backports' packages below `root`.
fn fetch(root: &Path) -> Result<(), String> {
    let apt = root.join("apt");
    for dir in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(dir)).map_err(|error| error.to_string())?;
    }
    let suites = ["bookworm-backports", "bookworm"].map(|suite| format!("deb {MIRROR} {suite} main\n"));
    let sources = apt.join("sources.list");
    fs::write(&sources, suites.concat()).map_err(|error| error.to_string())?;
    let apt_get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        let ours = [
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", apt.join("lists").display().to_string()),
            ("Dir::Cache", apt.join("cache").display().to_string()),
        ];
        command.args(ours.iter().flat_map(|(key, value)| ["-o".to_owned(), format!("{key}={value}")]));
        check(command.arg("-q").args(args).current_dir(&apt).output())
    };
    apt_get(&["update"])?;
    let wanted = PACKAGES.map(|package| format!("{package}/bookworm-backports"));
    apt_get(&["download", &wanted[0], &wanted[1], &wanted[2]])?;
    for entry in fs::read_dir(&apt).map_err(|error| error.to_string())?.flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "deb") {
            check(Command::new("dpkg").arg("-x").arg(entry.path()).arg(root).output())?;
        }
    }
    // A QEMU in another place looks for its firmware there.
    for shared in ["share/seabios", "lib/ipxe"] {
        link(&Path::new("/usr").join(shared), &root.join("usr").join(shared)).map_err(|error| error.to_string())?;
    }
    fs::remove_dir_all(&apt).map_err(|error| error.to_string())
}

fn check(output: std::io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn link(to: &Path, at: &Path) -> std::io::Result<()> {
    fs::create_dir_all(at.parent().unwrap_or(at))?;
    match symlink(to, at) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// A copy in which the version has another last digit, wherever it stands.
fn copy_under_another_version(installed: &Build, program: &Path) -> std::io::Result<()> {
    let version = installed.name.trim_start_matches("QEMU emulator version ");
    let version = version.split(' ').next().unwrap_or_default().as_bytes();
    let mut other = version.to_vec();
    if let Some(last) = other.last_mut() {
        *last = if *last == b'0' { b'1' } else { b'0' };
    }
    let mut bytes = fs::read(&installed.program)?;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(version.len()).position(|window| window == version) {
        bytes[at + found..at + found + version.len()].copy_from_slice(&other);
        at += found + version.len();
    }
    fs::create_dir_all(program.parent().unwrap_or(program))?;
    fs::write(program, bytes)?;
    fs::set_permissions(program, PermissionsExt::from_mode(0o755))?;
    // Where it looks for its modules and its firmware, from its own place.
    let usr = program.ancestors().nth(2).unwrap_or(program);
    for shared in ["share", "lib"] {
        let _ = fs::remove_dir_all(usr.join(shared));
        link(&Path::new("/usr").join(shared), &usr.join(shared))?;
    }
    Ok(())
}
