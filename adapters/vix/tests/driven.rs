//! Whole tasks on the stand-in, driven by the real driver through the loaded library.
#![cfg(any(target_os = "linux", windows))]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::sync::Arc;

use vmtask_core::{
    Base, Cause, CheckpointSpec, ExitStatus, FaultKind, Generation, Op, Outcome, Phase, Policy, Report, Request, Span,
    TaskSpec,
};
use vmtask_driver::{Driver, Ended, JournalFile, News, RealStorage, Setup, TaskId};
use vmtask_vix::VixVm;

#[cfg(target_os = "linux")]
use common::in_acts;
use common::{PROFILES, Stage, on_standin};

fn drive(stage: &Stage, spec: &TaskSpec) -> Ended {
    drive_and(stage, spec, &mut |news| eprintln!("{news:?}"))
}

fn drive_and(stage: &Stage, spec: &TaskSpec, observe: &mut dyn FnMut(&News<'_>)) -> Ended {
    set_up(stage, spec).run(&mut |news: &News<'_>| observe(news)).unwrap()
}

fn set_up(stage: &Stage, spec: &TaskSpec) -> Driver {
    let vm = VixVm::new(stage.setup(spec.clone())).unwrap();
    let (journal, loaded) = JournalFile::open(Arc::new(RealStorage), &stage.task_dir(), TaskId::new("story")).unwrap();
    Setup::new(Arc::new(vm), spec, Box::new(journal))
        .with_record(loaded.map(|loaded| loaded.record))
        .with_policy(Policy::default())
        .build()
        .unwrap()
}

/// In a simulated guest, which every operating system has.
#[test]
fn a_task_takes_checkpoints_and_computes_in_a_simulated_guest_of_every_product() {
    const NAME: &str = "a_task_takes_checkpoints_and_computes_in_a_simulated_guest_of_every_product";
    const PROGRAM: &str = "#!vmtask-world\nsay $1\ncompute input 60 20 result steps progress\nexit 3\n";
    for profile in PROFILES {
        on_standin(NAME, profile, "world", "", |stage| {
            let often = CheckpointSpec { every: Span::from_millis(300), keep: 2 };
            let spec = stage.script_task(PROGRAM, b"3.14\n").with(|task| task.checkpoint = Some(often)).unwrap();
            let ended = drive(stage, &spec);
            assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(3) }, "{}", ended.summary());
            assert_ne!(ended.counters.checkpoints, 0);
            assert_eq!(stage.result("stdout.txt"), "it's\n");
            assert!(!stage.result("result").is_empty());
            assert_eq!(stage.remains(), Vec::<std::path::PathBuf>::new());
        });
    }
}

/// A task's machine on Workstation is a linked clone, and so is what its snapshots bring back.
#[test]
fn a_checkpoint_outlasts_its_template_being_away() {
    const NAME: &str = "a_checkpoint_outlasts_its_template_being_away";
    const PROGRAM: &str = "#!vmtask-world\ncompute input 60 20 result steps progress\n";
    on_standin(NAME, PROFILES[0], "world", "", |stage| {
        let seldom = CheckpointSpec { every: Span::from_secs(3600), keep: 1 };
        let spec = stage.script_task(PROGRAM, b"3.14\n").with(|task| task.checkpoint = Some(seldom)).unwrap();
        let driver = set_up(stage, &spec);
        let handle = driver.handle();
        let quit = |news: &News<'_>| {
            if matches!(news, News::Report(Report::Phase(Phase::Running))) {
                handle.post(Request::Quit { budget_ms: 60_000 });
            }
        };
        let ended = driver.run(&mut { quit }).unwrap();
        assert_eq!(ended.outcome, Outcome::Stopped { checkpoint: Some(Generation(1)) }, "{}", ended.summary());

        let platform = stage.dir.join("vms/platform");
        let away = stage.dir.join("away");
        std::fs::rename(&platform, &away).unwrap();
        let ended = drive(stage, &spec);
        let Outcome::Failed { cause: Cause::Op { op, fault } } = ended.outcome else { panic!("{}", ended.summary()) };
        assert_eq!((op, fault.kind), (Op::Provision(Base::Checkpoint(Generation(1))), FaultKind::Refused));

        std::fs::rename(&away, &platform).unwrap();
        let mut launches = 0;
        let ended = drive_and(stage, &spec, &mut |news| {
            launches += usize::from(matches!(news, News::Report(Report::Phase(Phase::Launching))));
        });
        assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) }, "{}", ended.summary());
        assert_eq!(launches, 0, "it went on");
    });
}

/// In a private root on the host, which is Linux's.
#[test]
#[cfg(target_os = "linux")]
fn a_task_runs_to_its_end_on_every_product() {
    const SCRIPT: &str = "#!/bin/sh\n\
        echo 0.5 >progress\n\
        read -r line <input\n\
        sleep 1\n\
        echo \"$line, $1, $2, $COLOUR, in $PWD\" >result\n\
        echo said\n\
        echo trouble >&2\n";
    for profile in PROFILES {
        on_standin("a_task_runs_to_its_end_on_every_product", profile, "root", "", |stage| {
            let spec = stage.script_task(SCRIPT, b"3.14\n");
            let ended = drive(stage, &spec);
            assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) }, "{}", ended.summary());
            assert_eq!(stage.result("result"), "3.14, it's, two words, dark \"red\", in /tmp/vmtask/story\n");
            assert_eq!(stage.result("stdout.txt"), "said\n");
            assert_eq!(stage.remains(), Vec::<std::path::PathBuf>::new());
        });
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_virtual_machine_outlives_its_manager_and_the_next_one_goes_on_with_it() {
    const SCRIPT: &str = "#!/bin/sh\ncat /proc/sys/kernel/random/uuid >result\nsleep 4\necho done >>result\n";
    let name = "a_virtual_machine_outlives_its_manager_and_the_next_one_goes_on_with_it";
    let dies: fn(&Stage) = |stage| {
        let spec = stage.script_task(SCRIPT, b"");
        let _ = drive_and(stage, &spec, &mut |news| {
            if matches!(news, News::Report(Report::Phase(Phase::Running))) {
                std::process::exit(0);
            }
        });
        panic!("the program is over already");
    };
    let goes_on: fn(&Stage) = |stage| {
        let spec = stage.script_task(SCRIPT, b"");
        let mut launches = 0;
        let ended = drive_and(stage, &spec, &mut |news| {
            launches += usize::from(matches!(news, News::Report(Report::Phase(Phase::Launching))));
        });
        assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) }, "{}", ended.summary());
        assert_eq!(launches, 0, "it went on");
        assert_eq!(ended.counters.losses, 0);
        assert!(stage.result("result").ends_with("done\n"));
    };
    for profile in PROFILES {
        in_acts(name, profile, "root", "", &[dies, goes_on]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_papers_prototype_finds_its_value_of_pi() {
    let program = std::env::current_exe().unwrap();
    let example = program.parent().unwrap().parent().unwrap().join("examples/paper");
    let output = std::process::Command::new(example)
        .env_remove("VMTASK_STANDIN")
        .env_remove("VMTASK_STANDIN_PRODUCT")
        .env_remove("VMTASK_STANDIN_FAULTS")
        .env_remove("VMTASK_VIX_LIBRARY")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("pi 3.140592860 "), "{said}");
}
