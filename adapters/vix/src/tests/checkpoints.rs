//! What is said of checkpoints that cannot be used, and what is left alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rstest::rstest;
use vmtask_core::{Base, FaultKind, Found, Generation, Keep, Op, Reply};
use vmtask_driver::testing::FaultyStorage;
use vmtask_driver::{Hypervisor, PortError, RealStorage};
use vmtask_vix_abi::{Function, Product, error_code, power_state};

use super::Bench;
use super::fake::Go;
use super::faults::UP;
use crate::checkpoint::Store;
use crate::vm::VixVm;

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;

const ONE: Generation = Generation(1);
const RESTORE: Op = Op::Provision(Base::Checkpoint(ONE));

/// A task with one checkpoint, powered off.
fn saved(product: Product) -> Bench {
    let mut bench = Bench::new(product);
    bench.ops(&UP);
    bench.ops(&[Op::BeginSnapshot(ONE), Op::CommitSnapshot(ONE), Op::PowerOff]);
    bench
}

fn dir(bench: &Bench) -> PathBuf {
    bench.dir.path().join("task/vm/checkpoints")
}

fn fails(bench: &mut Bench, op: Op) -> PortError {
    bench.run(op).unwrap_err()
}

fn found(bench: &mut Bench) -> Found {
    match bench.run(Op::Probe).unwrap() {
        Reply::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

fn tells_both_ways_out(error: &PortError) {
    assert!(error.message.contains("mend the cause") && error.message.contains("--start-over"), "{error}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[rstest]
#[case::state_does_not_load(13009, FaultKind::Rejected)]
#[case::disk_needs_repair(16006, FaultKind::Rejected)]
#[case::serialised_data_is_damaged(6004, FaultKind::Rejected)]
#[case::a_file_that_it_stands_on_is_missing(4, FaultKind::Refused)]
#[case::its_parent_disk_is_missing(16003, FaultKind::Refused)]
#[case::its_parent_disk_cannot_be_opened(16012, FaultKind::Refused)]
#[case::its_parent_disk_is_another(16008, FaultKind::Refused)]
#[case::its_vm_is_missing(4000, FaultKind::Refused)]
#[case::of_another_version(13005, FaultKind::Incompatible)]
#[case::it_was_in_the_list_a_moment_ago(13003, FaultKind::Refused)]
#[case::locked(13010, FaultKind::Refused)]
#[case::busy(5, FaultKind::Refused)]
#[case::a_file_cannot_be_read(7, FaultKind::Fatal)]
#[case::nobody_knows(1, FaultKind::Unknown)]
fn only_what_the_product_says_of_a_snapshot_is_its_refusal(#[case] code: u16, #[case] expected: FaultKind) {
    let mut bench = saved(Product::Workstation);
    bench.fake.next(Function::VmRevertToSnapshot, Go::Fail(code));
    let error = fails(&mut bench, RESTORE);
    assert_eq!(error.fault.kind, expected, "{error}");
    match expected {
        FaultKind::Rejected => {}
        FaultKind::Incompatible => assert!(error.message.contains("install the version that made it, or begin anew")),
        _ => tells_both_ways_out(&error),
    }
    assert!(found(&mut bench).snapshots.contains(ONE));
}

#[rstest]
#[case::state_does_not_load(13009, FaultKind::Rejected)]
#[case::no_reason_is_given(3041, FaultKind::Refused)]
#[case::no_memory(3011, FaultKind::Refused)]
#[case::a_file_that_it_stands_on_is_missing(4, FaultKind::Refused)]
#[case::of_another_version(13005, FaultKind::Incompatible)]
fn a_copied_checkpoint_that_does_not_come_to_life_is_judged_by_the_same_words(
    #[case] code: u16,
    #[case] expected: FaultKind,
) {
    let mut bench = saved(Product::Player);
    bench.fake.set_power(power_state::SUSPENDED);
    bench.ops(&[RESTORE]);
    bench.fake.next(Function::VmPowerOn, Go::Fail(code));
    assert_eq!(fails(&mut bench, Op::PowerOn).fault.kind, expected);
}

#[test]
fn a_snapshot_that_the_product_does_not_list_is_missing() {
    let mut bench = saved(Product::Workstation);
    bench.fake.drop_snapshot("vmtask-1");
    assert_eq!(fails(&mut bench, RESTORE).fault.kind, FaultKind::NotFound);
}

#[test]
fn a_copy_that_is_not_what_was_written_is_damaged_and_set_aside() {
    let mut bench = saved(Product::Player);
    let vmx = dir(&bench).join("1/linux.vmx");
    let mut bytes = std::fs::read(&vmx).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&vmx, &bytes).unwrap();
    let error = fails(&mut bench, RESTORE);
    assert_eq!(error.fault.kind, FaultKind::Damaged, "{error}");
    assert!(error.message.contains("SHA-256 differs"), "{error}");
    // Cut off it shows without being read.
    std::fs::write(&vmx, "short").unwrap();
    let found = found(&mut bench);
    assert!(found.damaged.contains(ONE) && found.snapshots.is_empty());
    let before = files(&dir(&bench));
    bench.ops(&[Op::Unregister(Keep::Checkpoints)]);
    assert_eq!(files(&dir(&bench)), before);
    bench.ops(&[Op::Unregister(Keep::Nothing)]);
    assert!(!bench.dir.path().join("task/vm").exists());
}

#[rstest]
fn a_probe_that_could_not_look_is_a_failed_probe(
    #[values(EACCES, EIO, EMFILE)] os_error: i32,
    #[values("", "1.json", "1/linux.vmx")] barred: &str,
) {
    let mut bench = saved(Product::Player);
    let storage = FaultyStorage::new(Arc::new(RealStorage));
    bench.vm.store = Store::on(dir(&bench), Arc::new(storage.clone()));
    let before = files(&dir(&bench));
    storage.bar(&dir(&bench).join(barred), os_error);
    for op in [Op::Probe, RESTORE] {
        let error = fails(&mut bench, op);
        assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
        assert!(error.message.contains(&format!("os error {os_error}")), "{error}");
        tells_both_ways_out(&error);
    }
    bench.run(Op::Unregister(Keep::Checkpoints)).unwrap();
    storage.heal();
    assert_eq!(files(&dir(&bench)), before);
    assert!(found(&mut bench).snapshots.contains(ONE));
}

/// Without a double: no user can list a file.
#[test]
fn a_probe_fails_where_it_cannot_see_whether_there_is_a_machine() {
    let mut bench = saved(Product::Workstation);
    let machine = bench.dir.path().join("task/vm/machine");
    std::fs::rename(&machine, machine.with_extension("away")).unwrap();
    std::fs::write(&machine, "").unwrap();
    assert_eq!(fails(&mut bench, Op::Probe).fault.kind, FaultKind::Refused);
    assert_eq!(fails(&mut bench, Op::Provision(Base::Baseline)).fault.kind, FaultKind::Refused);
}

#[test]
fn a_machine_of_another_size_is_told_both_ways_out() {
    let mut bench = saved(Product::Player);
    let mut setup = bench.vm.setup.clone();
    setup.spec = setup.spec.with(|task| task.limits.cpus = 2).unwrap();
    bench.vm = VixVm::new(setup).unwrap();
    let before = files(&dir(&bench));
    let error = fails(&mut bench, RESTORE);
    assert_eq!(error.fault.kind, FaultKind::Incompatible);
    assert!(error.message.contains("limits.cpus to 1, or begin anew with `vmtask run --start-over`"), "{error}");
    assert_eq!(files(&dir(&bench)), before);
}

#[test]
fn a_machine_is_not_made_anew_while_a_checkpoint_is_in_it() {
    let mut bench = saved(Product::Workstation);
    assert_eq!(bench.fake.snapshots(), ["vmtask-baseline", "vmtask-1"]);
    bench.fake.drop_snapshot("vmtask-baseline");
    let error = fails(&mut bench, Op::Provision(Base::Baseline));
    assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
    let told =
        |error: &PortError| error.message.contains("checkpoint 1 is in it") && error.message.contains("--start-over");
    assert!(told(&error), "{error}");
    assert_eq!(bench.fake.snapshots(), ["vmtask-1"]);
    // Nor if the file that describes it is gone: its disks and its snapshots are not.
    let vmx = bench.dir.path().join("task/vm/machine/linux.vmx");
    let away = vmx.with_extension("away");
    std::fs::rename(&vmx, &away).unwrap();
    let before = files(&bench.dir.path().join("task/vm"));
    let error = fails(&mut bench, Op::Provision(Base::Baseline));
    assert!(told(&error) && error.message.contains("is gone"), "{error}");
    assert_eq!(files(&bench.dir.path().join("task/vm")), before);
    std::fs::rename(&away, &vmx).unwrap();
    bench.ops(&[Op::RemoveSnapshot(ONE)]);
    assert_eq!(bench.run(Op::Provision(Base::Baseline)), Ok(Reply::Provisioned { running: false }));
}

/// A server that does not see its datastore for a while.
#[test]
fn a_machine_that_cannot_be_found_says_nothing_about_a_copied_checkpoint() {
    let mut bench = saved(Product::Server2);
    for code in [4, 25, 4000] {
        bench.fake.next(Function::HostRegisterVm, Go::Fail(code));
        let error = fails(&mut bench, RESTORE);
        assert_eq!(error.fault.kind, FaultKind::Refused, "{error}");
        tells_both_ways_out(&error);
    }
    assert!(found(&mut bench).snapshots.contains(ONE));
}

/// Whoever cannot be asked has not said that there is no machine.
#[rstest]
fn a_product_that_cannot_be_found_says_nothing_about_the_machine_or_its_checkpoints(
    #[values(Product::Workstation, Product::Player, Product::Server2)] product: Product,
    #[values(4, 25, 2000, 4000)] code: u16,
) {
    let mut bench = saved(product).reborn();
    for op in [Op::Probe, RESTORE, Op::PowerOff] {
        bench.fake.next(Function::HostConnect, Go::Fail(code));
        let error = fails(&mut bench, op);
        assert_eq!(error.fault.kind, FaultKind::Refused, "{op}: {error}");
    }
    bench.fake.next(Function::HostConnect, Go::Fail(code));
    let command = bench.command(Op::PowerOff);
    assert!(bench.vm.fence(command.id, super::in_a_while()).is_err(), "it may run");
    assert!(found(&mut bench).snapshots.contains(ONE));
}

/// Where the product keeps the machine elsewhere, that of a task which was begun anew has the snapshots of the one before.
#[test]
fn a_snapshot_of_that_name_which_nobody_tried_to_take_is_not_the_checkpoint() {
    let mut bench = Bench::new(Product::Workstation);
    bench.ops(&UP);
    bench.fake.snapshot("vmtask-1");
    // Nor once it could not be removed.
    for function in [Function::VmGetNamedSnapshot, Function::VmRemoveSnapshot] {
        bench.fake.next(function, Go::Fail(error_code::OBJECT_IS_BUSY));
        assert_eq!(fails(&mut bench, Op::BeginSnapshot(ONE)).fault.kind, FaultKind::Refused);
    }
    let calls = bench.ops(&[Op::BeginSnapshot(ONE), Op::CommitSnapshot(ONE)]);
    assert!(calls.contains("RemoveSnapshot") && calls.contains("CreateSnapshot"), "{calls}");
    assert_eq!(bench.fake.snapshots(), ["vmtask-baseline", "vmtask-1"]);
}

#[test]
fn a_snapshot_that_was_taken_although_nobody_heard_of_it_is_not_taken_again() {
    let mut bench = Bench::new(Product::Workstation);
    bench.ops(&UP);
    bench.fake.next(Function::VmCreateSnapshot, Go::ActFail(error_code::FAIL));
    assert_eq!(fails(&mut bench, Op::BeginSnapshot(ONE)).fault.kind, FaultKind::Unknown);
    let calls = bench.ops(&[Op::BeginSnapshot(ONE), Op::CommitSnapshot(ONE)]);
    assert!(!calls.contains("RemoveSnapshot") && !calls.contains("CreateSnapshot"), "{calls}");
    assert_eq!(bench.fake.snapshots(), ["vmtask-baseline", "vmtask-1"]);
}
