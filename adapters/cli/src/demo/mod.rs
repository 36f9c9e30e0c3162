//! `vmtask demo`: the paper's experiment.
//!
//! One C source, compiled in many ways, gives many answers on one computer, and so on many computers. The same binary
//! in the same virtual machine gives one.

mod native;
mod steps;
mod variants;
mod vm;

use std::fs;
use std::path::{Path, PathBuf};

use crate::args::DemoArgs;
use crate::error::Error;
use crate::out;
use crate::setup;

/// What the paper got on openSUSE 11 and in its virtual machine.
const PAPER_VALUE: &str = "3.140592860";
/// As many different answers as the paper's table has, or more.
const VALUES: usize = 3;

pub(crate) fn run(args: &DemoArgs) -> Result<u8, Error> {
    if args.setup {
        setup::all(true)?;
    }
    match &args.dir {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
            show(dir)?;
        }
        None => {
            let dir = tempfile::Builder::new()
                .prefix("vmtask-demo-")
                .tempdir()
                .map_err(Error::system("make a temporary directory"))?;
            if let Err(error) = show(dir.path()) {
                let kept: PathBuf = dir.keep();
                out::note(format_args!("vmtask: the demonstration's files are in {}", kept.display()));
                return Err(error);
            }
        }
    }
    Ok(0)
}

/// Whether the paper's binary can be built here.
pub(crate) fn can_build() -> bool {
    tempfile::tempdir().is_ok_and(|dir| variants::PAPER.compile(dir.path(), "leibniz").is_ok())
}

fn show(dir: &Path) -> Result<(), Error> {
    let dir = &fs::canonicalize(dir).map_err(Error::io("find", dir))?;
    out::line("One source, summing 1000 terms of the Leibniz series in single precision, on this computer:\n");
    let native = native::Answers::collect(dir);
    out::line(native.table(PAPER_VALUE));
    let values = native.values();
    out::line(format_args!(
        "\n{} different values (* as on the paper's openSUSE 11): {}",
        values.len(),
        values.iter().copied().collect::<Vec<_>>().join(", ")
    ));
    native.skipped().iter().for_each(out::line);

    out::line("\nThe paper's binary in the virtual machine, through the paper's steps:\n");
    let vm = vm::show(dir)?;
    out::line(&vm.table);
    out::line(format_args!(
        "\nretrieved from the virtual machine: pi {} error {} ({}; {:.1} s, platform {})",
        vm.answer.value,
        vm.answer.error,
        vm.hypervisor,
        vm.took.as_secs_f64(),
        vm.fingerprint.get(..16).unwrap_or(&vm.fingerprint),
    ));
    if vm.answer.value != PAPER_VALUE {
        return Err(Error::Demo(format!(
            "the paper's value is {PAPER_VALUE}; the virtual machine's is {}",
            vm.answer.value
        )));
    }
    out::line(format_args!("the paper's value:                  pi {PAPER_VALUE} error 0.000999793: the same"));
    if values.len() < VALUES {
        return Err(Error::Demo(format!(
            "only {} different values on this computer, and the paper has {VALUES}; the lines above say which compilers \
             are missing (`vmtask demo --setup` installs them where it can)",
            values.len()
        )));
    }
    Ok(())
}
