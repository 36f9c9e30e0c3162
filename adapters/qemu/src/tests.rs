//! What the adapter says of checkpoints, and what it leaves alone, without a QEMU: it is asked for its files, or a script
//! stands in for the program.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::num::NonZeroU8;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use vmtask_core::{
    Base, Boot, Command, CommandId, FaultKind, Found, Generation, Instant, Keep, Limits, Op, ProgramSpec, Reply,
    TaskDraft,
};
use vmtask_driver::testing::FaultyStorage;
use vmtask_driver::{EffectToken, Hypervisor, PortError, RealStorage};

use crate::checkpoint::{self, Form, Machine, Manifest, Store, Stream};
use crate::host::{Accel, Qemu, Version};
use crate::wait::Wait;
use crate::{Baseline, Image, QemuVm, Setup};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;

/// A task's adapter, its checkpoints on storage that fails when it is told to, and a script instead of QEMU.
struct Bench {
    temp: tempfile::TempDir,
    storage: FaultyStorage,
    vm: QemuVm,
}

impl Bench {
    fn new() -> Self {
        Self::of(|_| ())
    }

    fn of(change: impl FnOnce(&mut Setup)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (vm, storage) = adapter(temp.path(), change);
        Self { temp, storage, vm }
    }

    /// The same task with another setup, as after an update of the host.
    fn again(self, change: impl FnOnce(&mut Setup)) -> Self {
        let (vm, storage) = adapter(self.temp.path(), change);
        Self { vm, storage, temp: self.temp }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("task/vm/checkpoints")
    }

    fn disk(&self) -> PathBuf {
        self.temp.path().join("task/vm/disk")
    }

    fn run(&self, op: Op) -> Result<Reply, PortError> {
        let id = CommandId { epoch: 1, seq: 1 };
        let boot = Boot { epoch: 1, seq: 1 };
        let command = Command { id, boot, op, deadline: Instant::from_millis(0), attempt: NonZeroU8::MIN };
        self.vm.carry_out(&command, std::time::Instant::now() + Duration::from_secs(60), &EffectToken::new())
    }

    fn found(&self) -> Result<Found, PortError> {
        match self.run(Op::Probe)? {
            Reply::Found(found) => Ok(found),
            other => panic!("{other:?}"),
        }
    }

    fn save(&self, generation: u32, disk: &[&str]) {
        let (generation, store) = (Generation(generation), &self.vm.store);
        let mut file = checkpoint::begin(store, generation, 4096, &patience()).unwrap();
        file.write_all(b"the stream").unwrap();
        file.set_len(10).unwrap();
        let (bytes, sha256) = checkpoint::measure(&file, || true).unwrap();
        let stream =
            Stream { bytes, sha256, form: Form::Plain, disk: disk.iter().map(|&name| name.to_owned()).collect() };
        store.commit(&Manifest::new(generation, Machine::of(&self.vm.setup), stream), &patience()).unwrap();
    }

    fn restore(&self) -> PortError {
        self.run(Op::Provision(Base::Checkpoint(Generation(1)))).unwrap_err()
    }
}

fn patience() -> Wait<'static> {
    Wait::most(Duration::from_secs(3600))
}

fn adapter(root: &Path, change: impl FnOnce(&mut Setup)) -> (QemuVm, FaultyStorage) {
    let dir = root.join("task");
    std::fs::create_dir_all(dir.join("vm")).unwrap();
    let mut setup = Setup {
        spec: TaskDraft {
            name: "test".into(),
            platform: "x".into(),
            program: ProgramSpec {
                path: "/bin/true".into(),
                args: Vec::new(),
                env: Default::default(),
                stdout: "stdout.txt".into(),
                stderr: "stderr.txt".into(),
                progress: None,
            },
            files_in: Vec::new(),
            files_out: Vec::new(),
            checkpoint: None,
            limits: Limits::default(),
        }
        .check()
        .unwrap(),
        image: Image {
            kernel: PathBuf::new(),
            initrd: PathBuf::new(),
            cmdline: String::new(),
            machine: "pc-q35-7.2".into(),
            cpu: "Nehalem,enforce".into(),
            memory: 256 << 20,
            linux32: false,
            fingerprint: "f".into(),
        },
        qemu: Qemu {
            program: script(root, "exit 1"),
            img: Some("/bin/false".into()),
            version: Version(7, 2, 22),
            build: "QEMU emulator version 7.2.22".into(),
            accel: Accel::Tcg,
        },
        inputs: dir.clone(),
        results: dir.join("results"),
        cache: root.join("cache"),
        dir,
        baseline: Baseline::Cold,
        low_priority: false,
        on_life: None,
    };
    change(&mut setup);
    let mut vm = QemuVm::new(setup).unwrap();
    let storage = FaultyStorage::new(Arc::new(RealStorage));
    vm.store = Store::on(vm.paths.checkpoints(), Arc::new(storage.clone()));
    (vm, storage)
}

/// A program in place of QEMU.
fn script(root: &Path, line: &str) -> PathBuf {
    let file = root.join("qemu");
    std::fs::write(&file, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    file
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_probe_tells_whole_and_damaged_checkpoints_apart() {
    let bench = Bench::new();
    bench.save(1, &[]);
    bench.save(2, &[]);
    std::fs::write(bench.dir().join("2.ram"), "short").unwrap();
    let found = bench.found().unwrap();
    assert!(found.registered);
    assert_eq!(found.snapshots.iter().collect::<Vec<_>>(), [Generation(1)]);
    assert_eq!(found.damaged.iter().collect::<Vec<_>>(), [Generation(2)]);
}

#[rstest]
fn a_probe_that_could_not_look_is_a_failed_probe(
    #[values(EACCES, EIO, EMFILE)] os_error: i32,
    #[values("", "1.json", "1.ram")] barred: &str,
) {
    let bench = Bench::new();
    bench.save(1, &[]);
    bench.storage.bar(&bench.dir().join(barred), os_error);
    let error = bench.found().unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Refused);
    assert!(error.message.contains(&format!("os error {os_error}")), "{error}");
    assert!(error.message.contains("mend the cause") && error.message.contains("--start-over"), "{error}");
    let error = bench.restore();
    assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
    assert!(error.message.contains("mend the cause") && error.message.contains("--start-over"), "{error}");
    bench.storage.heal();
    assert_eq!(bench.found().unwrap().snapshots.newest(), Some(Generation(1)));
}

/// Without a double: neither a directory nor a plain file is spared any user.
#[test]
fn a_probe_fails_where_other_things_lie_in_the_place_of_ours() {
    let bench = Bench::new();
    bench.save(1, &[]);
    std::fs::create_dir(bench.vm.paths.process()).unwrap();
    assert_eq!(bench.found().unwrap_err().fault.kind, FaultKind::Refused, "whether a QEMU runs is not known");
    std::fs::remove_dir(bench.vm.paths.process()).unwrap();
    std::fs::rename(bench.dir(), bench.dir().with_extension("away")).unwrap();
    std::fs::write(bench.dir(), "").unwrap();
    assert_eq!(bench.found().unwrap_err().fault.kind, FaultKind::Refused);
    std::fs::remove_file(bench.dir()).unwrap();
    assert!(bench.found().unwrap().snapshots.is_empty(), "no directory, no checkpoints");
}

#[rstest]
#[case::build(|setup: &mut Setup| setup.qemu.build = "QEMU emulator version 10.0.2".into(), "install QEMU 7.2.22, or begin")]
#[case::accelerator(|setup: &mut Setup| setup.qemu.accel = Accel::Kvm, "VMTASK_ACCEL=tcg, or begin")]
fn another_build_or_accelerator_is_told_both_ways_out_and_touches_nothing(
    #[case] change: fn(&mut Setup),
    #[case] words: &str,
) {
    let bench = Bench::new();
    bench.save(1, &[]);
    let bench = bench.again(change);
    let before = names(&bench.dir());
    assert_eq!(bench.found().unwrap().snapshots.newest(), Some(Generation(1)), "it is whole");
    let error = bench.restore();
    assert_eq!(error.fault.kind, FaultKind::Incompatible);
    assert!(error.message.contains(words), "{error}");
    bench.run(Op::Unregister(Keep::Checkpoints)).unwrap();
    assert_eq!(names(&bench.dir()), before);
}

#[rstest]
#[case::truncated("the stre", FaultKind::Damaged)]
#[case::flipped_byte("The stream", FaultKind::Damaged)]
fn a_stream_that_is_not_what_was_written_is_damaged(#[case] stream: &str, #[case] expected: FaultKind) {
    // It must not be over before the stream is compared.
    let bench = Bench::of(|setup| setup.qemu.program = script(setup.dir.parent().unwrap(), "exec sleep 3600"));
    bench.save(1, &[]);
    std::fs::write(bench.dir().join("1.ram"), stream).unwrap();
    let error = bench.restore();
    assert_eq!(error.fault.kind, expected, "{error}");
    assert_eq!(names(&bench.dir()), ["1.json", "1.ram"]);
    assert!(bench.vm.process().is_none());
}

#[rstest]
#[case::it_ends_with_an_error("echo cannot set up >&2; exit 1")]
#[case::it_is_killed("kill -9 $$")]
fn a_qemu_that_is_gone_before_it_has_seen_the_stream_says_nothing_about_it(#[case] line: &str) {
    let bench = Bench::of(|setup| setup.qemu.program = script(setup.dir.parent().unwrap(), line));
    bench.save(1, &[]);
    let error = bench.restore();
    assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
    assert!(error.message.contains("mend the cause") && error.message.contains("--start-over"), "{error}");
    assert_eq!(names(&bench.dir()), ["1.json", "1.ram"]);
}

fn with_disk(setup: &mut Setup) {
    setup.spec = setup.spec.with(|task| task.limits.disk = Some(1 << 30)).unwrap();
}

#[test]
fn a_layer_that_is_gone_is_damage_and_one_that_could_not_be_looked_at_is_not() {
    let bench = Bench::of(with_disk);
    bench.save(1, &["base.qcow2", "1.qcow2"]);
    std::fs::create_dir(bench.disk()).unwrap();
    std::fs::write(bench.disk().join("base.qcow2"), "").unwrap();
    let error = bench.restore();
    assert_eq!(error.fault.kind, FaultKind::Damaged, "{error}");
    assert!(error.message.contains("1.qcow2 is not there"), "{error}");
    // Whatever is in the directory's place, what was in it cannot be seen.
    std::fs::remove_dir_all(bench.disk()).unwrap();
    std::fs::write(bench.disk(), "").unwrap();
    let error = bench.restore();
    assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
}

#[test]
fn a_new_layer_that_cannot_be_made_is_no_fault_of_the_checkpoint() {
    let bench = Bench::of(with_disk);
    bench.save(1, &["1.qcow2"]);
    std::fs::create_dir(bench.disk()).unwrap();
    std::fs::write(bench.disk().join("1.qcow2"), "").unwrap();
    let error = bench.restore();
    assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
    assert_eq!(names(&bench.disk()), ["1.qcow2"]);
}

#[test]
fn layers_go_only_if_every_manifest_was_read_and_none_names_them() {
    let bench = Bench::of(with_disk);
    std::fs::create_dir(bench.disk()).unwrap();
    for name in ["base.qcow2", "1.qcow2", "2.qcow2", "3.qcow2"] {
        std::fs::write(bench.disk().join(name), "").unwrap();
    }
    let layers = names(&bench.disk());
    bench.save(1, &["base.qcow2", "1.qcow2"]);
    bench.save(2, &["base.qcow2", "2.qcow2"]);
    bench.storage.bar(&bench.dir().join("2.json"), EIO);
    bench.vm.sweep_disk(None, &patience());
    assert_eq!(names(&bench.disk()), layers, "nobody knows what the second one stands on");
    bench.storage.heal();
    // Set aside as it is, it may be looked into by people: what it names stays too.
    std::fs::write(bench.dir().join("2.ram"), "").unwrap();
    bench.vm.sweep_disk(None, &patience());
    assert_eq!(names(&bench.disk()), ["1.qcow2", "2.qcow2", "base.qcow2"]);
    // A guest that begins anew gets layers of its own.
    let _ = bench.run(Op::Provision(Base::Baseline)).unwrap_err();
    assert_eq!(names(&bench.disk()), ["1.qcow2", "2.qcow2", "base.qcow2"]);
}

#[test]
fn an_unregistered_vm_keeps_every_checkpoint_or_none() {
    let bench = Bench::new();
    bench.save(1, &[]);
    bench.save(2, &[]);
    bench.save(3, &[]);
    std::fs::write(bench.dir().join("2.ram"), "short").unwrap();
    std::fs::write(bench.dir().join("3.json"), "torn").unwrap();
    std::fs::write(bench.dir().join("4.part"), "half").unwrap();
    bench.run(Op::Unregister(Keep::Checkpoints)).unwrap();
    assert_eq!(names(&bench.dir()), ["1.json", "1.ram", "2.json", "2.ram", "3.json", "3.ram"]);
    bench.run(Op::Unregister(Keep::Nothing)).unwrap();
    assert!(!bench.temp.path().join("task/vm").exists());
    assert!(!bench.found().unwrap().registered);
}
