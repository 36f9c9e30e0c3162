//! `vmtask setup`: installs what is missing where we know how, and builds the reference platforms.

use crate::args::SetupArgs;
use crate::demo;
use crate::error::Error;
use crate::host::packages::{Need, System};
use crate::host::{apt, find_program};
use crate::out;
use crate::platform;
use crate::warm;

pub(crate) fn run(args: &SetupArgs) -> Result<u8, Error> {
    all(args.demo)?;
    out::note("vmtask: all set; `vmtask doctor` tells the details");
    Ok(0)
}

/// Makes everything ready for `vmtask run`, and for the demonstration too if that is asked for.
///
/// # Errors
/// If something that is needed cannot be had.
pub(crate) fn all(for_demo: bool) -> Result<(), Error> {
    install(&missing(for_demo))?;
    platform::build_missing()?;
    warm::up()
}

/// What is not there.
pub(crate) fn missing(for_demo: bool) -> Vec<Need> {
    let lacks = |program: &str| find_program(program).is_none();
    let mut needs = Vec::new();
    let mut need = |need, lacking: bool| {
        if lacking {
            needs.push(need);
        }
    };
    need(Need::Qemu, lacks("qemu-system-x86_64"));
    need(Need::QemuImg, lacks("qemu-img"));
    if for_demo {
        need(Need::Gcc, lacks("gcc"));
        need(Need::Gcc32, !demo::can_build());
        need(Need::Clang, lacks("clang"));
    }
    needs
}

/// What is nice to have, and not missed.
const fn is_optional(need: Need) -> bool {
    matches!(need, Need::Clang | Need::MinGw | Need::Wine)
}

fn install(needs: &[Need]) -> Result<(), Error> {
    if needs.is_empty() {
        return Ok(());
    }
    let system = System::here();
    let line = system.line(needs);
    if system != System::Debian || find_program("apt-get").is_none() {
        if needs.iter().all(|&need| is_optional(need)) {
            out::note(format_args!("vmtask: not installed, and not needed: {line}"));
            return Ok(());
        }
        return Err(Error::Setup(format!(
            "some programs are missing, and only Debian's can be installed by vmtask. Type:\n    {line}"
        )));
    }
    out::note("vmtask: installing what is missing");
    let mut packages: Vec<_> = needs.iter().flat_map(|&need| system.packages(need)).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    apt::install(&packages, &|step| out::note(step)).map_err(|error| Error::Install { error, line })
}
