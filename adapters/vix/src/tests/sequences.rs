//! Each op on each product, as a person can review it.

use rstest::rstest;
use vmtask_core::{Base, FileIx, Generation, Keep, Op, Reply};
use vmtask_vix_abi::{Product, power_state};

use super::Bench;

const RUNNING: &str = "state=running boot=b beat=1 pid=7 code=- signal=- cpu_ms=30 progress=-\n";
/// "the output", measured.
const SUM: &str = "10 a0fcbf5a7eabfc4ee44cb9b2b3c57d6ee9e1a1e5d2d6a0b4c4b4e5d2d7a9e7b1\n";

/// A task up to its running program.
const UP: [Op; 9] = [
    Op::Probe,
    Op::Register,
    Op::Provision(Base::Baseline),
    Op::PowerOn,
    Op::AwaitTools,
    Op::LogIn,
    Op::MakeWorkdir,
    Op::CopyIn(FileIx(0)),
    Op::Launch,
];

fn sum_of(text: &str) -> String {
    format!("{} {}\n", text.len(), vmtask_driver::Digest::of(text.as_bytes()))
}

#[rstest]
#[case::workstation(Product::Workstation)]
#[case::fusion(Product::Fusion)]
#[case::player(Product::Player)]
#[case::server2(Product::Server2)]
fn a_task_from_its_first_look_to_its_end(#[case] product: Product) {
    let mut bench = Bench::new(product);
    bench.fake.put("look", RUNNING);
    bench.fake.put("result", "the output");
    bench.fake.put("sum", &sum_of("the output"));
    let mut told = bench.ops(&UP);
    told += &bench.ops(&[Op::Probe, Op::Pause, Op::Unpause]);
    told += &bench.ops(&[Op::BeginSnapshot(Generation(1)), Op::CommitSnapshot(Generation(1))]);
    told += &bench.ops(&[Op::BeginSnapshot(Generation(2)), Op::CommitSnapshot(Generation(2))]);
    told += &bench.ops(&[Op::RemoveSnapshot(Generation(1)), Op::CopyOut(FileIx(0))]);
    told += &bench.ops(&[Op::PowerOff, Op::Unregister(Keep::Nothing)]);
    insta::assert_snapshot!(format!("task {product:?}").replace(' ', "_"), told);
    assert_eq!(std::fs::read(bench.dir.path().join("task/results/result")).unwrap(), b"the output");
    assert!(!bench.dir.path().join("task/vm").exists());
    drop(bench.vm);
    assert_eq!(bench.fake.alive(), [], "handles that nobody has given back");
}

#[rstest]
#[case::workstation(Product::Workstation)]
#[case::player(Product::Player)]
#[case::server2(Product::Server2)]
fn a_task_goes_on_from_its_checkpoint_under_the_next_manager(#[case] product: Product) {
    let mut bench = Bench::new(product);
    bench.fake.put("look", RUNNING);
    bench.ops(&UP);
    bench.ops(&[Op::BeginSnapshot(Generation(1)), Op::CommitSnapshot(Generation(1))]);
    bench.ops(&[Op::PowerOff, Op::Unregister(Keep::Checkpoints)]);
    let mut bench = bench.reborn();
    let saved = bench.fake.power();
    assert_eq!(saved & power_state::POWERED_ON, 0);
    if product != Product::Workstation {
        // What the copied files would say.
        bench.fake.set_power(power_state::SUSPENDED);
    }
    let restore = Op::Provision(Base::Checkpoint(Generation(1)));
    let told = bench.ops(&[Op::Probe, Op::Register, restore]);
    let power_on = if product == Product::Workstation { String::new() } else { bench.trace(Op::PowerOn) + "\n" };
    let told = told + &power_on + &bench.ops(&[Op::AwaitTools, Op::LogIn, Op::Probe, Op::PowerOff]);
    insta::assert_snapshot!(format!("restore {product:?}").replace(' ', "_"), told);
}

#[test]
fn a_vm_that_outlived_its_manager_is_found_running() {
    let mut bench = Bench::new(Product::Workstation);
    bench.fake.put("look", RUNNING);
    bench.ops(&UP);
    let mut bench = bench.reborn();
    insta::assert_snapshot!(bench.ops(&[Op::Probe, Op::AwaitTools, Op::LogIn, Op::Probe]));
}

#[test]
fn without_a_local_datastore_the_platforms_own_vm_is_used_as_in_the_paper() {
    let mut bench = Bench::new(Product::Server2);
    let setup = crate::setup::Setup { datastore: None, ..bench.vm.setup.clone() };
    bench.vm = crate::vm::VixVm::new(setup).unwrap();
    let told = bench.ops(&[Op::Register, Op::Provision(Base::Baseline)]);
    assert!(told.contains("no snapshot to begin every task with"), "{told}");
    bench.fake.snapshot("after the image was made");
    insta::assert_snapshot!(bench.ops(&[
        Op::Register,
        Op::Provision(Base::Baseline),
        Op::PowerOn,
        Op::BeginSnapshot(Generation(1)),
        Op::PowerOff,
        Op::Unregister(Keep::Nothing),
    ]));
    assert!(bench.dir.path().join("vms/platform/linux.vmx").exists(), "the platform is not ours to delete");
}

#[test]
fn everything_may_be_repeated() {
    let mut bench = Bench::new(Product::Workstation);
    bench.fake.put("look", RUNNING);
    bench.fake.put("result", "the output");
    bench.fake.put("sum", &sum_of("the output"));
    let twice = |bench: &mut Bench, op: Op| {
        for _time in 0..2 {
            let told = bench.trace(op);
            assert!(["Done", "Provisioned", "Found"].iter().any(|word| told.contains(word)), "{told}");
        }
    };
    for op in UP {
        twice(&mut bench, op);
    }
    for op in [
        Op::Pause,
        Op::Unpause,
        Op::BeginSnapshot(Generation(1)),
        Op::CommitSnapshot(Generation(1)),
        Op::RemoveSnapshot(Generation(1)),
        Op::CopyOut(FileIx(0)),
        Op::PowerOff,
        Op::Unregister(Keep::Nothing),
    ] {
        twice(&mut bench, op);
    }
    assert_eq!(bench.fake.snapshots(), ["vmtask-baseline"]);
}

#[test]
fn a_file_that_does_not_arrive_as_it_was_sent_is_no_result() {
    let mut bench = Bench::new(Product::Workstation);
    bench.ops(&UP);
    bench.fake.put("result", "the output");
    bench.fake.put("sum", SUM);
    let told = bench.trace(Op::CopyOut(FileIx(0)));
    assert!(told.contains("refused: copying the output"), "{told}");
    assert_eq!(std::fs::read_dir(bench.dir.path().join("task/results")).unwrap().count(), 0);
}

#[test]
fn a_pending_copy_is_one_job_however_often_it_is_asked_for() {
    let mut bench = Bench::new(Product::Workstation);
    bench.ops(&UP[..7]);
    bench.fake.forget_calls();
    bench.fake.next(vmtask_vix_abi::Function::VmCopyFileFromHostToGuest, super::fake::Go::Hang);
    assert_eq!(bench.run(Op::CopyIn(FileIx(0))), Ok(Reply::Pending));
    assert_eq!(bench.run(Op::CopyIn(FileIx(0))), Ok(Reply::Pending));
    assert_eq!(bench.fake.calls().len(), 1, "{:?}", bench.fake.calls());
}
