//! `vmtask`: runs a Linux program with its files in an identical virtual machine, from a terminal.
//!
//! This binary decides nothing: it reads the command line, puts a hypervisor adapter behind the driver's port, and
//! shows what the driver reports.
//!
//! ```text
//!   args -> one module for each subcommand -> assemble: task file, directory, platform, hypervisor
//!                                          -> vmtask-driver, which drives vmtask-core
//!           signals ------- requests ----->
//!           show    <------ reports  ------
//! ```

mod args;
mod completions;
mod demo;
mod doctor;
mod error;
mod exit;
mod host;
mod hypervisor;
mod log;
mod out;
mod platform;
mod run;
mod session;
mod setup;
mod show;
mod signals;
mod space;
mod sys;
mod vms;
mod warm;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use error::Error;
use exit::Exit;

fn main() -> ExitCode {
    if let Err(error) = sys::survive_size_limit() {
        out::note(format_args!("vmtask: cannot outlive a limit on the size of files: {error}"));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody to tell if nobody listens.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => Exit::Usage.into(),
            };
        }
    };
    match dispatch(cli.command) {
        // What was written to standard output was asked for: a success that nobody can read is none.
        Ok(0) if out::is_lost() => Exit::Host.into(),
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            out::note(format_args!("vmtask: {error}"));
            error.exit().into()
        }
    }
}

/// Does it; the exit code.
fn dispatch(command: Command) -> Result<u8, Error> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Platform(command) => platform::run(&command),
        Command::Vms(args) => vms::run(&args),
        Command::Completions { shell } => completions::run(shell),
    }
}
