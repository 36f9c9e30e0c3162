//! What this computer offers: which QEMU, which accelerator, whether background snapshots are allowed.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest QEMU with the pinned machine types and the migration capabilities that are used here.
pub const OLDEST: Version = Version(7, 2, 0);
/// The emulator for both platforms: an i686 platform runs on the same machine under `linux32`.
const PROGRAM: &str = "qemu-system-x86_64";

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What executes the guest's instructions. It shows in results only where emulation differs from silicon (NaN
/// payloads, x87 transcendentals), so it belongs in a result's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accel {
    /// Software emulation: everywhere, slow.
    Tcg,
    /// The Linux kernel's.
    Kvm,
}

impl Accel {
    /// As QEMU and `VMTASK_ACCEL` call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no usable QEMU.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It is not installed.
    #[error(
        "{program} is not in PATH; install it (Debian: apt-get install qemu-system-x86 qemu-utils) or run `vmtask setup`"
    )]
    Missing {
        /// What was looked for.
        program: &'static str,
    },
    /// It does not say its version.
    #[error("{program:?} --version does not work ({what}); is it QEMU, and is it installed completely?")]
    Broken {
        /// What was started.
        program: PathBuf,
        /// What came back.
        what: String,
    },
    /// It is too old.
    #[error(
        "{program:?} is QEMU {found}, and at least {OLDEST} is needed: the platforms' pinned machine types are younger; install a newer one"
    )]
    TooOld {
        /// What was started.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
    /// `VMTASK_ACCEL` says something else than an accelerator.
    #[error("VMTASK_ACCEL is {value:?}; it may be tcg (software emulation), kvm, or auto")]
    Accel {
        /// What it says.
        value: String,
    },
}

/// A usable QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The emulator.
    pub program: PathBuf,
    /// `qemu-img`, if it is there: only tasks with a disk need it.
    pub img: Option<PathBuf>,
    /// Its version.
    pub version: Version,
    /// Its build, in its own words: a checkpoint is loaded only by the build that made it.
    pub build: String,
    /// What executes the guest's instructions.
    pub accel: Accel,
}

impl Qemu {
    /// Whether a checkpoint of its guests holds them for milliseconds only.
    ///
    /// # Errors
    /// If not: what to do about it.
    pub fn background_snapshots(&self) -> Result<(), NoBackgroundSnapshots> {
        // 10.0.2 was seen to open it as a user without privileges, and 7.2 not to. Those in between were not tried.
        const OPENS_DEVICE: Version = Version(10, 0, 0);
        allowed(self.version >= OPENS_DEVICE)
    }
}

/// Which accelerator to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The fastest that works.
    Auto,
    /// This one, unseen.
    Forced(Accel),
}

impl Choice {
    /// What the environment says in `VMTASK_ACCEL`.
    ///
    /// # Errors
    /// If it says nonsense.
    pub fn from_env() -> Result<Self, HostError> {
        match std::env::var_os("VMTASK_ACCEL") {
            None => Ok(Self::Auto),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> Result<Self, HostError> {
        match value {
            "" | "auto" => Ok(Self::Auto),
            "tcg" => Ok(Self::Forced(Accel::Tcg)),
            "kvm" => Ok(Self::Forced(Accel::Kvm)),
            _ => Err(HostError::Accel { value: value.into() }),
        }
    }
}

impl Qemu {
    /// Looks for QEMU in `PATH`.
    ///
    /// `cache` is a directory of ours: asking QEMU for its version takes as long as a fifth of a warm start, so the
    /// answer is kept there for as long as the program's file stays the same.
    ///
    /// # Errors
    /// If there is none, or none that is new enough.
    pub fn find(choice: Choice, cache: Option<&Path>) -> Result<Self, HostError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = search(&path, PROGRAM).ok_or(HostError::Missing { program: PROGRAM })?;
        Self::at(program, search(&path, "qemu-img"), choice, cache)
    }

    /// The QEMU in this place.
    ///
    /// # Errors
    /// If it is not usable.
    pub fn at(program: PathBuf, img: Option<PathBuf>, choice: Choice, cache: Option<&Path>) -> Result<Self, HostError> {
        let build = build(&program, cache)?;
        let version = parse_version(&build)
            .ok_or_else(|| HostError::Broken { program: program.clone(), what: format!("it says {build:?}") })?;
        if version < OLDEST {
            return Err(HostError::TooOld { program, found: version });
        }
        let accel = match choice {
            Choice::Forced(accel) => accel,
            Choice::Auto if works(&program, Accel::Kvm) => Accel::Kvm,
            Choice::Auto => Accel::Tcg,
        };
        Ok(Self { program, img, version, build, accel })
    }
}

fn search(path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

/// The first line of `--version`.
fn build(program: &Path, cache: Option<&Path>) -> Result<String, HostError> {
    let broken = |what: String| HostError::Broken { program: program.to_owned(), what };
    let meta = std::fs::metadata(program).map_err(|e| broken(e.to_string()))?;
    let key = format!(
        "{} {} {} {} {}.{}",
        program.display(),
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    let file = cache.map(|dir| dir.join("qemu-build"));
    let cached = file.as_ref().and_then(|f| std::fs::read_to_string(f).ok());
    if let Some((known, build)) = cached.as_deref().and_then(|text| text.split_once('\n'))
        && known == key
    {
        return Ok(build.trim_end().to_owned());
    }
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|e| broken(e.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().next().unwrap_or_default().to_owned();
    if !output.status.success() || line.is_empty() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(broken(format!("{}: {}", output.status, stderr.trim())));
    }
    if let Some(file) = file {
        // Only a shortcut: without it the next start asks again.
        let _ = write_shortcut(&file, &format!("{key}\n{line}\n"));
    }
    Ok(line)
}

fn write_shortcut(file: &Path, text: &str) -> io::Result<()> {
    let part = file.with_extension(format!("part{}", std::process::id()));
    std::fs::write(&part, text)?;
    std::fs::rename(&part, file)
}

fn parse_version(line: &str) -> Option<Version> {
    let text = line.strip_prefix("QEMU emulator version ")?;
    let text = text.split([' ', '-', '(']).next()?;
    let mut parts = text.split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    Some(Version(next()?, next()?, next().unwrap_or(0)))
}

/// Whether QEMU really starts with this accelerator: the device may be there and still not work (nested, or in use).
fn works(program: &Path, accel: Accel) -> bool {
    use rustix::fs::Access;
    if accel == Accel::Kvm && rustix::fs::access("/dev/kvm", Access::READ_OK | Access::WRITE_OK).is_err() {
        return false;
    }
    let Ok(mut child) = Command::new(program)
        .args(["-accel", accel.name(), "-machine", "q35", "-m", "16M", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-S", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        use io::Write;
        let _ = stdin.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

/// Everything that is worth telling somebody who asks what this computer can do.
#[derive(Debug)]
pub struct Findings {
    /// Which QEMU, or why none.
    pub qemu: Result<Qemu, HostError>,
    /// Whether a checkpoint holds the guest for milliseconds only; if not, what to do about it.
    pub background_snapshots: Result<(), NoBackgroundSnapshots>,
    /// Free memory in bytes, if the kernel tells.
    pub memory_available: Option<u64>,
}

/// Why checkpoints hold the guest longer than they need to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "userfaultfd is not allowed for this user, so a checkpoint holds the guest for tens to hundreds of milliseconds \
     instead of about ten; to change that: sysctl vm.unprivileged_userfaultfd=1{}",
    if *.device { ", or give this user access to /dev/userfaultfd" } else { "" }
)]
pub struct NoBackgroundSnapshots {
    /// Whether QEMU is one that makes do with the device.
    device: bool,
}

/// Looks at everything. Starts QEMU for a moment unless the accelerator is forced.
#[must_use]
pub fn examine(choice: Choice) -> Findings {
    let qemu = Qemu::find(choice, None);
    Findings {
        background_snapshots: qemu.as_ref().map_or_else(|_| allowed(false), Qemu::background_snapshots),
        qemu,
        memory_available: memory_available(),
    }
}

/// Whether userfaultfd may watch writes of the kernel too, which background snapshots need; by `device`, if QEMU asks for
/// it there.
fn allowed(device: bool) -> Result<(), NoBackgroundSnapshots> {
    use rustix::fs::Access;
    const CAP_SYS_PTRACE: u32 = 19;
    let sysctl = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capable = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|caps| caps & (1 << CAP_SYS_PTRACE) != 0);
    let opens = || rustix::fs::access("/dev/userfaultfd", Access::READ_OK | Access::WRITE_OK).is_ok();
    if capable || sysctl.is_ok_and(|text| text.trim() == "1") || (device && opens()) {
        return Ok(());
    }
    Err(NoBackgroundSnapshots { device })
}

fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kb: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kb * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::PermissionsExt;

    fn fake(dir: &Path, script: &str) -> PathBuf {
        let file = dir.join(PROGRAM);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[rstest]
    #[case("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", Some(Version(7, 2, 22)))]
    #[case("QEMU emulator version 10.0.0", Some(Version(10, 0, 0)))]
    #[case("QEMU emulator version 9.1", Some(Version(9, 1, 0)))]
    #[case("QEMU emulator version 8.2.0-rc1", Some(Version(8, 2, 0)))]
    #[case("busybox 1.35", None)]
    #[case("QEMU emulator version x", None)]
    fn a_version_line_is_read(#[case] line: &str, #[case] expected: Option<Version>) {
        assert_eq!(parse_version(line), expected);
    }

    #[rstest]
    #[case::too_old("echo QEMU emulator version 5.2.0", "at least 7.2.0 is needed")]
    #[case::fails("echo cannot load libfoo >&2; exit 127", "cannot load libfoo")]
    #[case::something_else("echo hello", "it says \"hello\"")]
    fn an_unusable_qemu_is_refused_in_clear_words(#[case] script: &str, #[case] words: &str) {
        let dir = tempfile::tempdir().unwrap();
        let error = Qemu::at(fake(dir.path(), script), None, Choice::Forced(Accel::Tcg), None);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn the_version_is_asked_for_once_and_again_when_the_program_changes() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let say = |version| format!("echo x >>{}; echo QEMU emulator version {version}", count.display());
        let find =
            |program: PathBuf| Qemu::at(program, None, Choice::Forced(Accel::Tcg), Some(dir.path())).unwrap().version;
        let program = fake(dir.path(), &say("8.0.0"));
        assert_eq!(find(program.clone()), Version(8, 0, 0));
        assert_eq!(find(program), Version(8, 0, 0));
        assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 1);
        let program = fake(dir.path(), &say("10.11.12"));
        assert_eq!(find(program), Version(10, 11, 12));
    }

    #[test]
    fn a_missing_qemu_is_named_with_the_way_to_get_it() {
        assert_eq!(search(std::ffi::OsStr::new("/nonexistent:relative"), PROGRAM), None);
        let text = HostError::Missing { program: PROGRAM }.to_string();
        assert!(text.contains("apt-get install"), "{text}");
    }

    #[test]
    fn the_device_is_a_way_out_only_for_a_qemu_that_opens_it() {
        let words = |device| NoBackgroundSnapshots { device }.to_string();
        assert!(words(false).ends_with("sysctl vm.unprivileged_userfaultfd=1"), "{}", words(false));
        assert!(words(true).ends_with("=1, or give this user access to /dev/userfaultfd"), "{}", words(true));
    }

    #[rstest]
    #[case("tcg", Some(Choice::Forced(Accel::Tcg)))]
    #[case("kvm", Some(Choice::Forced(Accel::Kvm)))]
    #[case("auto", Some(Choice::Auto))]
    #[case("warp", None)]
    fn the_accelerator_can_be_forced(#[case] value: &str, #[case] expected: Option<Choice>) {
        assert_eq!(Choice::parse(value).ok(), expected);
    }
}
