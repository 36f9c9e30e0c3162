//! `vmtask doctor`: what this computer can do, and the line that mends what it cannot.

use std::path::Path;

use bytesize::ByteSize;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::demo;
use crate::error::Error;
use crate::exit::Exit;
use crate::host::find_program;
use crate::host::packages::{Need, System};
use crate::hypervisor;
use crate::out;
use crate::platform;
use crate::sys;

/// Something that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What, in a word or two.
    pub(crate) what: &'static str,
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to type, or to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Good,
    /// `vmtask run` works without, but not as well, or not for every task.
    Lacking,
    /// `vmtask run` does not work without.
    Missing,
}

impl Check {
    pub(crate) fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Good, found: found.into(), mend: None }
    }

    pub(crate) fn lacking(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, state: State::Lacking, found: found.into(), mend: Some(mend.into()) }
    }

    pub(crate) fn missing(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, state: State::Missing, found: found.into(), mend: Some(mend.into()) }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    /// Whether `vmtask run` would work.
    ready: bool,
    checks: &'a [Check],
}

pub(crate) fn run(args: &DoctorArgs) -> Result<u8, Error> {
    let checks = examine();
    let ready = checks.iter().all(|check| check.state != State::Missing);
    if args.json {
        out::json(&Report { ready, checks: &checks });
    } else {
        checks.iter().for_each(|check| out::line(line(check)));
        out::line(if ready {
            "\n`vmtask run` works here."
        } else {
            "\n`vmtask run` does not work here yet; `vmtask setup` may mend it."
        });
    }
    Ok(if ready { 0 } else { Exit::Doctor.code() })
}

fn line(check: &Check) -> String {
    let mark = match check.state {
        State::Good => "ok     ",
        State::Lacking => "lacking",
        State::Missing => "MISSING",
    };
    match &check.mend {
        None => format!("{mark}  {}: {}", check.what, check.found),
        Some(mend) => format!("{mark}  {}: {}\n             -> {mend}", check.what, check.found),
    }
}

fn examine() -> Vec<Check> {
    let mut checks = hypervisor::examine();
    // A virtual machine of VMware's is its own platform.
    if cfg!(target_os = "linux") {
        checks.extend(platforms());
    }
    checks.extend(disk());
    checks.extend(demonstration());
    checks
}

fn platforms() -> Vec<Check> {
    const WHAT: &str = "platform";
    let build = |name: &str| format!("vmtask platform build {name}");
    let listed = platform::store().and_then(|store| vmtask_platform::list(&[store]));
    let listed = match listed {
        Ok(listed) if listed.is_empty() => return vec![Check::missing(WHAT, "none", "vmtask platform build")],
        Ok(listed) => listed,
        Err(error) => return vec![Check::missing(WHAT, error.to_string(), "set VMTASK_DATA_DIR, or build one")],
    };
    let check = |entry: vmtask_platform::Listed| {
        let name = entry.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Hashed here and now: a doctor takes nobody's word.
        match entry.platform.and_then(|platform| platform.verify().map(|()| platform)) {
            Ok(platform) => {
                let fingerprint = platform.fingerprint().get(..16).unwrap_or_default();
                Check::good(WHAT, format!("{name}, every file as defined, fingerprint {fingerprint}"))
            }
            Err(error) => Check::missing(WHAT, error.to_string(), build(&name)),
        }
    };
    listed.into_iter().map(check).collect()
}

/// Room for the platforms and the template.
const DISK: u64 = 1 << 30;

fn disk() -> Option<Check> {
    let dir = vmtask_platform::data_dir().ok()?;
    let there = dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let free = sys::free(there)?;
    let found = format!("{} free in {}", ByteSize(free), dir.display());
    Some(if free >= DISK {
        Check::good("disk", found)
    } else {
        Check::lacking("disk", found, "make room: a checkpoint takes up to as much as the guest has memory")
    })
}

fn demonstration() -> Vec<Check> {
    const WHAT: &str = "demo";
    let system = System::here();
    let program = |name: &'static str, need| match find_program(name) {
        Some(path) => Check::good(WHAT, format!("{}", path.display())),
        None => Check::lacking(WHAT, format!("no {name}"), system.line(&[need])),
    };
    let binary = if demo::can_build() {
        Check::good(WHAT, "the paper's binary can be built (gcc -m32 -static)")
    } else {
        Check::lacking(
            WHAT,
            "the paper's binary cannot be built (gcc -m32 -static)",
            system.line(&[Need::Gcc, Need::Gcc32]),
        )
    };
    vec![
        program("gcc", Need::Gcc),
        binary,
        program("clang", Need::Clang),
        program("i686-w64-mingw32-gcc", Need::MinGw),
        program("wine", Need::Wine),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_thing_is_followed_by_the_line_that_mends_it() {
        let checks = [
            Check::good("QEMU", "7.2.22"),
            Check::lacking("accelerator", "software emulation", "sudo usermod -aG kvm me"),
            Check::missing("platform", "none", "vmtask platform build"),
        ];
        insta::assert_snapshot!(checks.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
}
