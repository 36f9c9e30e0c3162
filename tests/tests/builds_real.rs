//! A task under one QEMU build, then another, then the first again, as after an update that is taken back.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use rustix::process::Signal;
use vmtask_core::{
    Base, Boot, Command, CommandId, Event, ExitStatus, FaultKind, FileIx, FileOut, Generation, Instant, Keep, Limits,
    Op, ProgramSpec, Reply, TaskDraft, TaskSpec,
};
use vmtask_driver::{Digest, EffectToken, EventSink, Hypervisor, PortError};
use vmtask_qemu::host::{Accel, Choice, Qemu};
use vmtask_qemu::{Baseline, QemuVm};
use vmtask_tests::builds::Build;
use vmtask_tests::guest::{self, Bits};
use vmtask_tests::ours::Place;
use vmtask_tests::real::{self, Den};
use vmtask_tests::run::{Finished, Run, TaskToml};
use vmtask_tests::wait;

const ONE: Generation = Generation(1);
/// More than a restore takes under emulation.
const PATIENCE: Duration = Duration::from_secs(120);
const STOPPED: i32 = 217;
const HYPERVISOR: i32 = 213;

fn spec() -> TaskSpec {
    let script = "i=0; until [ $i = 60 ]; do i=$((i + 1)); usleep 50000; done; echo $i";
    TaskDraft {
        name: "builds".into(),
        platform: real::PLATFORM.into(),
        program: ProgramSpec {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Default::default(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: Vec::new(),
        files_out: vec![FileOut { guest: "stdout.txt".into(), host: "stdout.txt".into(), optional: false }],
        checkpoint: None,
        limits: Limits::default(),
    }
    .check()
    .expect("the task is in order")
}

/// One manager's adapter.
struct Manager {
    vm: Arc<QemuVm>,
    events: mpsc::Receiver<(Boot, Event)>,
}

impl Manager {
    fn new(place: &Place, program: &Path, accel: Accel) -> Self {
        let qemu = Qemu::at(program.to_owned(), None, Choice::Forced(accel), None).expect("a usable QEMU");
        let vm = place.with_qemu(qemu, &spec(), Baseline::Warm);
        let (tell, events) = mpsc::channel();
        let tell = Mutex::new(tell);
        vm.watch(EventSink::new(move |boot, event| {
            let _ = tell.lock().expect("the channel").send((boot, event));
        }));
        Self { vm, events }
    }

    fn run(&self, op: Op) -> Result<Reply, PortError> {
        let (id, boot) = (CommandId { epoch: 1, seq: 1 }, Boot { epoch: 1, seq: 1 });
        let command = Command { id, boot, op, deadline: Instant::from_millis(0), attempt: NonZeroU8::MIN };
        loop {
            match self.vm.carry_out(&command, Clock::now() + PATIENCE, &EffectToken::new())? {
                Reply::Pending => {}
                reply => return Ok(reply),
            }
        }
    }

    fn all(&self, ops: &[Op]) {
        for &op in ops {
            self.run(op).unwrap_or_else(|error| panic!("{op}: {error}"));
        }
    }

    fn provision(&self, base: Base) {
        if self.run(Op::Provision(base)).unwrap_or_else(|error| panic!("{error}"))
            != (Reply::Provisioned { running: true })
        {
            self.all(&[Op::PowerOn]);
        }
        self.all(&[Op::AwaitTools]);
    }

    fn whole(&self) -> Vec<Generation> {
        match self.run(Op::Probe).unwrap_or_else(|error| panic!("{error}")) {
            Reply::Found(found) => found.snapshots.iter().collect(),
            other => panic!("{other:?}"),
        }
    }
}

/// Every checkpoint's files, by name and content.
fn checkpoints(task_dir: &Path) -> BTreeMap<PathBuf, Digest> {
    let files = real::files_below(&task_dir.join("vm/checkpoints"));
    files.into_iter().map(|file| (file.clone(), Digest::of_file(&file).expect("read a checkpoint").1)).collect()
}

#[test]
fn a_checkpoint_outlives_another_build_and_another_accelerator_and_loads_under_its_own() {
    if !real::wanted() {
        return;
    }
    let (den, installed, other) = (Den::new(), Build::installed(), Build::other());
    let place = Place::new(&den.data(), &den.path().join("task"));
    let first = Manager::new(&place, &installed.program, Accel::Tcg);
    first.all(&[Op::Register]);
    first.provision(Base::Baseline);
    let save = [Op::MakeWorkdir, Op::Launch, Op::BeginSnapshot(ONE), Op::CommitSnapshot(ONE), Op::PowerOff];
    first.all(&save);
    drop(first);
    let saved = checkpoints(&place.dir);
    // Its manifest, its stream, and the template that this is relative to.
    assert_eq!(saved.len(), 3, "{saved:?}");

    let way_back = format!("install QEMU {}", installed.name.trim_start_matches("QEMU emulator version "));
    let elsewhere = [(&other, Accel::Tcg, way_back.as_str()), (&installed, Accel::Kvm, "run it with VMTASK_ACCEL=tcg")];
    for (build, accel, way_out) in elsewhere {
        let manager = Manager::new(&place, &build.program, accel);
        assert_eq!(manager.whole(), [ONE]);
        let error = manager.run(Op::Provision(Base::Checkpoint(ONE))).expect_err("it is another machine");
        assert_eq!(error.fault.kind, FaultKind::Incompatible, "{error}");
        let both = format!("{way_out}, or begin anew with `vmtask run --start-over`");
        assert!(error.message.ends_with(&both), "{error}");
        manager.all(&[Op::Unregister(Keep::Checkpoints)]);
        assert!(checkpoints(&place.dir) == saved, "under {} with {accel}", build.name);
    }

    let again = Manager::new(&place, &installed.program, Accel::Tcg);
    assert_eq!(again.whole(), [ONE]);
    again.provision(Base::Checkpoint(ONE));
    let ended = std::iter::from_fn(|| again.events.recv_timeout(wait::HANG).ok());
    let exit = ended.map(|(_, event)| event).find(|event| !matches!(event, Event::Progress { .. }));
    assert_eq!(exit, Some(Event::ProgramExited(ExitStatus::Code(0))));
    again.all(&[Op::CopyOut(FileIx(0)), Op::PowerOff, Op::Unregister(Keep::Nothing)]);
    assert_eq!(fs::read_to_string(place.dir.join("results/stdout.txt")).expect("the result"), "60\n");
}

#[test]
fn a_task_that_is_resumed_under_another_build_ends_with_213_and_goes_on_under_its_own() {
    if !real::wanted() {
        return;
    }
    let (den, installed, other) = (Den::new(), Build::installed(), Build::other());
    let input = den.path().join("input");
    fs::write(&input, "27 18 28 18 28").expect("write the input");
    let task =
        TaskToml::new("builds", &guest::program("counter", Bits::B64), &["input", "300", "20", "result", "steps"])
            .input(&input, "input")
            .output("result")
            .output("steps")
            .checkpoints("500ms")
            .write(&den);
    let dir = den.path().join("task");
    let run_under = |build: &Build| {
        let mut command = den.vmtask();
        build.first_in_path(&mut command);
        Run::start_by(command, &task, &dir)
    };
    let launches = |ended: &Finished| ended.said.iter().filter(|said| said.phase() == Some("launching")).count();

    let run = run_under(&installed);
    run.await_checkpoint();
    run.signal(Signal::INT);
    let stopped = run.finish().expect(STOPPED);
    let saved = checkpoints(&dir);
    assert!(saved.len() >= 2, "{saved:?}\n{}", stopped.story());

    let refused = run_under(&other).finish().expect(HYPERVISOR);
    let why = refused.result()["summary"].to_string();
    assert!(why.contains("install QEMU") && why.contains("or begin anew with `vmtask run --start-over`"), "{why}");
    assert_eq!(launches(&refused), 0);
    assert!(checkpoints(&dir) == saved, "not one checkpoint is lost\n{}", refused.story());

    let done = run_under(&installed).finish().expect(0);
    assert_eq!(launches(&stopped) + launches(&done), 1, "{}", done.story());
    assert_eq!(den.leftovers(&dir), Vec::<String>::new());
}
