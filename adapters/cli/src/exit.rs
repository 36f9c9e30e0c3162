//! Exit codes: the program's own, and ours.

use std::process::ExitCode;

use vmtask_core::{Base, Cause, ExitStatus, FaultKind, Op, Outcome};

/// Why `vmtask` itself ends with something else than 0. The numbers are a promise: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Usage = 210,
    TaskFile = 211,
    Platform = 212,
    Hypervisor = 213,
    Unsuitable = 214,
    TaskDir = 215,
    Locked = 216,
    Stopped = 217,
    Failed = 218,
    Aborted = 219,
    Host = 220,
    Setup = 221,
    Demo = 222,
    Doctor = 223,
}

impl Exit {
    pub(crate) const ALL: [Self; 14] = [
        Self::Usage,
        Self::TaskFile,
        Self::Platform,
        Self::Hypervisor,
        Self::Unsuitable,
        Self::TaskDir,
        Self::Locked,
        Self::Stopped,
        Self::Failed,
        Self::Aborted,
        Self::Host,
        Self::Setup,
        Self::Demo,
        Self::Doctor,
    ];

    /// As `--help` says it.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Usage => "the command line makes no sense",
            Self::TaskFile => "the task file or one of its input files cannot be used",
            Self::Platform => "the platform is missing, or its files are not what its definition says",
            Self::Hypervisor => "the hypervisor is missing, too old, does not start, or did not make the checkpoint",
            Self::Unsuitable => "the hypervisor cannot do what the task asks for",
            Self::TaskDir => "the task's directory cannot be used: torn, foreign or newer journal, another task",
            Self::Locked => "another vmtask is running this task",
            Self::Stopped => "stopped on request; the same command resumes it",
            Self::Failed => "the task failed; the same command tries again from its newest checkpoint",
            Self::Aborted => "aborted; nothing is left of it",
            Self::Host => "this computer would not: no space, no memory, an unreadable or unwritable file",
            Self::Setup => "something could not be installed or built",
            Self::Demo => "the demonstration did not show what it should",
            Self::Doctor => "doctor: `vmtask run` would not work here",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// How a run ended as an exit code.
pub(crate) fn of_outcome(outcome: Outcome) -> u8 {
    let ours = match outcome {
        Outcome::Completed { exit } => return of_program(exit),
        Outcome::Stopped { .. } => Exit::Stopped,
        Outcome::Aborted => Exit::Aborted,
        Outcome::Failed { cause } => of_cause(cause),
    };
    ours.code()
}

/// A checkpoint that cannot be loaded here and a journal that cannot be kept are this computer's doing, not the task's.
fn of_cause(cause: Cause) -> Exit {
    match cause {
        Cause::Op { op, fault } => match (op, fault.kind) {
            (Op::Provision(Base::Baseline), FaultKind::Incompatible) => Exit::Failed,
            // Some hypervisors load a checkpoint when they power on.
            (_, FaultKind::Incompatible) => Exit::Hypervisor,
            (Op::Provision(Base::Checkpoint(_)), _) => Exit::Host,
            // What is in the task's directory, or the hypervisor itself, could not be looked at.
            (Op::Probe, FaultKind::Refused) => Exit::Host,
            // What copying files in and launching lacks may be the guest's.
            (Op::Register | Op::Provision(_) | Op::PowerOn | Op::CopyOut(_), FaultKind::NoSpace) => Exit::Host,
            _ => Exit::Failed,
        },
        Cause::Journal => Exit::Host,
        _ => Exit::Failed,
    }
}

/// The largest exit code that is the program's own. 192-209 mean things to BOINC, and what follows is ours.
pub(crate) const PROGRAM_MAX: u8 = 191;

/// The program's end as an exit code, as a shell would put it: its own code, or 128 and the signal's number, and in
/// either case no more than [`PROGRAM_MAX`]. The whole truth is in `result.json`.
pub(crate) fn of_program(exit: ExitStatus) -> u8 {
    match exit {
        ExitStatus::Code(code) => code.min(PROGRAM_MAX),
        ExitStatus::Signal(signal) => signal.saturating_add(128).min(PROGRAM_MAX),
    }
}

/// The table for `--help`.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "Exit codes:\n    0-191  the program's own (`run`); 128 + N if signal N ended it; larger ones are given as 191\n",
    );
    for exit in Exit::ALL {
        text.push_str(&format!("    {}    {}\n", exit.code(), exit.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use vmtask_core::{Fault, FileIx, Generation, Loss};

    use super::*;

    const fn failed(op: Op, kind: FaultKind) -> Cause {
        Cause::Op { op, fault: Fault::new(kind) }
    }

    const RESTORE: Op = Op::Provision(Base::Checkpoint(Generation(3)));

    #[rstest]
    #[case::another_build(failed(RESTORE, FaultKind::Incompatible), 213)]
    #[case::no_permission(failed(RESTORE, FaultKind::Refused), 220)]
    #[case::no_space(failed(RESTORE, FaultKind::NoSpace), 220)]
    #[case::template_missing(failed(RESTORE, FaultKind::Fatal), 220)]
    #[case::a_dead_journal(Cause::Journal, 220)]
    #[case::from_the_baseline(failed(Op::Provision(Base::Baseline), FaultKind::Incompatible), 218)]
    #[case::a_look_that_failed(failed(Op::Probe, FaultKind::Refused), 220)]
    #[case::loaded_when_powered_on(failed(Op::PowerOn, FaultKind::Incompatible), 213)]
    #[case::no_space_for_a_result(failed(Op::CopyOut(FileIx(0)), FaultKind::NoSpace), 220)]
    #[case::no_space_in_the_guest(failed(Op::CopyIn(FileIx(0)), FaultKind::NoSpace), 218)]
    #[case::another_step(failed(Op::PowerOn, FaultKind::Refused), 218)]
    #[case::run_limit(Cause::RunLimit, 218)]
    #[case::lost_again_and_again(Cause::Guest { loss: Loss::Stopped }, 218)]
    fn a_failure_says_whose_doing_it_is(#[case] cause: Cause, #[case] code: u8) {
        assert_eq!(of_outcome(Outcome::Failed { cause }), code);
    }

    #[rstest]
    #[case::success(ExitStatus::Code(0), 0)]
    #[case::its_own(ExitStatus::Code(191), 191)]
    #[case::too_large(ExitStatus::Code(192), 191)]
    #[case::largest(ExitStatus::Code(255), 191)]
    #[case::killed(ExitStatus::Signal(9), 137)]
    #[case::realtime_signal(ExitStatus::Signal(64), 191)]
    fn a_programs_end_never_looks_like_one_of_ours(#[case] exit: ExitStatus, #[case] code: u8) {
        assert_eq!(of_program(exit), code);
        assert!(Exit::ALL.iter().all(|ours| ours.code() != code));
    }

    #[test]
    fn codes_are_in_order_and_leave_boincs_alone() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        assert!(Exit::ALL.iter().all(|exit| exit.code() >= 210));
    }
}
