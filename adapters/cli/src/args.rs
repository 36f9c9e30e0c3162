//! The command line.

pub(crate) mod vix;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::exit;
use crate::sys;
use vix::VixArgs;

/// Runs a Linux program with its files in an identical virtual machine on any computer, checkpoints it, survives being
/// killed, and hands back the same bits everywhere.
#[derive(Debug, Parser)]
#[command(name = "vmtask", version, max_term_width = 100, after_help = after_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a task, or go on with one that was stopped or killed
    #[command(after_help = after_help(), after_long_help = after_long_help())]
    Run(RunArgs),
    /// Show it all: one C source with many answers on this computer, and the one answer from the virtual machine
    Demo(DemoArgs),
    /// Tell what this computer can do, and how to mend what it cannot
    Doctor(DoctorArgs),
    /// Install what is missing and build the reference platform
    Setup(SetupArgs),
    /// Build, list, check and hand around platforms
    #[command(subcommand)]
    Platform(PlatformCommand),
    /// List the virtual machines of this user's tasks
    Vms(VmsArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The task file
    #[arg(value_name = "TASK.toml")]
    pub(crate) task: PathBuf,

    /// Where everything of the task is kept: journal, checkpoints, log and `results/` [default: NAME.vmtask beside the
    /// task file]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// What runs the virtual machine
    #[arg(long, value_enum, default_value_t = HypervisorChoice::Auto)]
    pub(crate) hypervisor: HypervisorChoice,

    /// Begin a task anew that is not finished: its checkpoints are given up, its results stay until new ones replace them
    #[arg(long)]
    pub(crate) start_over: bool,

    /// Install what is missing first, and build the platform
    #[arg(long)]
    pub(crate) setup: bool,

    /// Print one JSON object a line on standard output: each report as it comes, the result last
    #[arg(long)]
    pub(crate) json: bool,

    /// What goes into DIR/log, as a filter of the `tracing` crate: `info`, `vmtask_qemu=trace`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,

    // Last: its heading would be that of what follows.
    #[command(flatten)]
    pub(crate) vix: VixArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HypervisorChoice {
    /// The real one that this computer has; never the simulator
    Auto,
    /// QEMU, with the accelerator that works here
    Qemu,
    /// A product of VMware's, by VIX
    Vix,
    /// None: the virtual machine is simulated, and nothing is computed
    Sim,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Install what is missing first, and build the platform
    #[arg(long)]
    pub(crate) setup: bool,

    /// Keep the programs, the task's directory and its results here [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Also install the compilers that `vmtask demo` can use
    #[arg(long)]
    pub(crate) demo: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlatformCommand {
    /// Build platforms from the packages that a lock pins
    Build(BuildArgs),
    /// List the platforms that are there
    List,
    /// Check each file of a platform against its definition
    Verify {
        /// Which [default: all]
        names: Vec<String>,
    },
    /// Write platforms into one file, to hand around
    Export {
        /// The file to write
        file: PathBuf,
        /// Which [default: all]
        names: Vec<String>,
    },
    /// Take platforms from a file that `export` wrote
    Import {
        /// The file to read
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Which [default: all that there are recipes for]
    pub(crate) names: Vec<String>,

    /// A directory that has the packages' files: nothing is downloaded
    #[arg(long, value_name = "DIR")]
    pub(crate) debs: Option<PathBuf>,

    /// A mirror's root to download from; may be given several times [default: those of this computer's apt]
    #[arg(long = "mirror", value_name = "URL")]
    pub(crate) mirrors: Vec<String>,

    /// Take the versions that this lock pins instead of the built-in one's: it makes another platform
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,

    /// Write a lock with the versions that this computer's apt offers now, and take those: it makes another platform,
    /// whose results count as different
    #[arg(long, value_name = "FILE", conflicts_with = "lock")]
    pub(crate) update_lock: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VmsArgs {
    /// Stop and forget those whose manager is gone
    #[arg(long)]
    pub(crate) reap: bool,
}

fn after_help() -> String {
    format!(
        "Environment:\n    VMTASK_DATA_DIR     where platforms, templates and the list of virtual machines are kept\n    \
         VMTASK_ACCEL        `tcg` forces software emulation\n    \
         VMTASK_VIX_LIBRARY  the VIX library, or the directory that it is in\n    \
         VMTASK_VIX_PASSWORD, VMTASK_VIX_HOST_PASSWORD\n                        \
         the passwords of --vix-user and --vix-host-user\n    \
         VMTASK_SIM_SECONDS  how long a simulated program runs, in seconds [default: 5]\n\n{}",
        exit::table()
    )
}

fn after_long_help() -> String {
    format!(
        "{}    However it was stopped or killed, the same command goes on from the newest checkpoint.\n\n{}",
        sys::HOW,
        after_help()
    )
}
