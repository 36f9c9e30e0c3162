//! Installing packages on Debian and what is made from it.

use std::ffi::OsStr;
use std::io;
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use super::find_program;
use super::process::{self, Ended};
use crate::sys::is_root;

/// Why packages were not installed.
#[derive(Debug, Error)]
pub(crate) enum AptError {
    #[error("only root may install packages, and `sudo -n` is not allowed here")]
    NotAllowed,
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{line} failed: {complaint}")]
    Failed { line: String, complaint: String },
}

/// How long a download may take on a slow line.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The package of QEMU, and the one that other QEMU packages must have the same version as.
const QEMU: [&str; 2] = ["qemu-system-x86", "qemu-utils"];

/// Installs packages; `tell` hears of each step.
///
/// # Errors
/// If we may not, or apt could not, with its own words.
pub(crate) fn install(packages: &[&str], tell: &dyn Fn(&str)) -> Result<(), AptError> {
    // Lists that cannot be brought up to date (no network, one source of many is gone) may still be good enough.
    if let Err(error) = apt_get(&["update"], tell) {
        if matches!(error, AptError::NotAllowed) {
            return Err(error);
        }
        tell(&format!("  {error}; going on with the lists that are there"));
    }
    let plain: Vec<_> = ["install", "-y", "--no-install-recommends"].iter().chain(packages).copied().collect();
    let Err(error) = apt_get(&plain, tell) else {
        return Ok(());
    };
    // One half of QEMU is installed from elsewhere (backports, say), in a version that the other half cannot be had in.
    // Name one version for both, even if it is an older one.
    let Some(version) = QEMU.iter().any(|p| packages.contains(p)).then(matching_qemu).flatten() else {
        return Err(error);
    };
    tell(&format!("  {error}; trying QEMU {version} throughout"));
    let named: Vec<_> = QEMU.iter().map(|package| format!("{package}={version}")).collect();
    let others = packages.iter().filter(|package| !QEMU.contains(package)).copied();
    let matching: Vec<_> = ["install", "-y", "--no-install-recommends", "--allow-downgrades"]
        .into_iter()
        .chain(named.iter().map(String::as_str))
        .chain(others)
        .collect();
    apt_get(&matching, tell)
}

fn apt_get(args: &[&str], tell: &dyn Fn(&str)) -> Result<(), AptError> {
    let line = format!("apt-get {}", args.join(" "));
    tell(&format!("  {line}"));
    let mut command = privileged("apt-get")?;
    // A package that asks questions must not wait for an answer for ever.
    command.args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"]).args(args);
    let ended = output("apt-get", &mut command)?;
    if ended.status.success() { Ok(()) } else { Err(AptError::Failed { line, complaint: ended.complaint() }) }
}

/// The program as root, who must not be asked for a password: nobody may be there.
fn privileged(program: &str) -> Result<Command, AptError> {
    let mut command = if is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]);
        let allowed = find_program("sudo").is_some()
            && output("sudo", Command::new("sudo").args(["-n", "true"])).is_ok_and(|ended| ended.status.success());
        if !allowed {
            return Err(AptError::NotAllowed);
        }
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn output(program: &str, command: &mut Command) -> Result<Ended, AptError> {
    // Its words are looked at, so they must be in the language that we know.
    process::run(command.env("LC_ALL", "C").env("LANGUAGE", OsStr::new("C")), PATIENCE)
        .map_err(|source| AptError::Start { program: program.to_owned(), source })
}

/// A version that both of QEMU's packages can be had in.
fn matching_qemu() -> Option<String> {
    let [system, utils] = QEMU.map(|package| {
        let ended = output("apt-cache", Command::new("apt-cache").args(["madison", package])).ok()?;
        ended.status.success().then(|| versions(&ended.stdout))
    });
    common(&system?, &utils?)
}

/// The versions in what `apt-cache madison` prints: `package | version | source`, best first.
fn versions(madison: &str) -> Vec<String> {
    madison.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect()
}

/// The best version of the first list that is in the second as well.
fn common(first: &[String], second: &[String]) -> Option<String> {
    first.iter().find(|version| second.contains(version)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_halves_from_different_places_the_version_is_chosen_that_both_have() {
        let system =
            " qemu-system-x86 | 1:7.2-7+u18 | x main amd64 Packages\n qemu-system-x86 | 1:7.2-7+u15 | y main\n";
        let utils =
            "qemu-utils | 1:10.0-2~bpo12 | z main\nqemu-utils | 1:7.2-7+u15 | y main\nqemu-utils | 1:7.2-7+u18 | x\n";
        assert_eq!(common(&versions(system), &versions(utils)).as_deref(), Some("1:7.2-7+u18"));
        assert_eq!(common(&versions(system), &versions("qemu-utils | 1:10.0-2 | z\n")), None);
        assert_eq!(common(&versions(""), &versions(utils)), None);
    }
}
