//! What becomes of each fault: what the core is told, what is done about it, what is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rstest::rstest;
use vmtask_core::{Base, FaultKind, FileIx, Generation, Op, Reply};
use vmtask_driver::{EffectToken, Fenced, Hypervisor};
use vmtask_vix_abi::{Function, Product, power_state};

use super::fake::Go;
use super::{Bench, in_a_while};

/// What a fence is given where it is to run into the end of its shares.
const FENCE: Duration = Duration::from_secs(4);

pub(super) const UP: [Op; 7] = [
    Op::Register,
    Op::Provision(Base::Baseline),
    Op::PowerOn,
    Op::AwaitTools,
    Op::LogIn,
    Op::MakeWorkdir,
    Op::CopyIn(FileIx(0)),
];

fn up() -> Bench {
    let mut bench = Bench::new(Product::Workstation);
    for op in UP {
        bench.trace(op);
    }
    bench
}

#[rstest]
#[case(Function::VmPowerOn, Go::Fail(3011), Op::PowerOn, FaultKind::Refused, "VM_INSUFFICIENT_HOST_MEMORY")]
#[case(Function::VmLoginInGuest, Go::Fail(3015), Op::LogIn, FaultKind::AuthRejected, "worker")]
#[case(Function::VmPause, Go::Fail(6), Op::Pause, FaultKind::Unsupported, "this product does not have it")]
#[case(Function::VmPause, Go::Fail(1), Op::Pause, FaultKind::Unknown, "VixVM_Pause")]
#[case(
    Function::VmCreateSnapshot,
    Go::Fail(8),
    Op::BeginSnapshot(Generation(3)),
    FaultKind::NoSpace,
    "VIX_E_DISK_FULL (8)"
)]
#[case(Function::VmCreateSnapshot, Go::Fail(6), Op::BeginSnapshot(Generation(3)), FaultKind::Unsupported, "VmCreate")]
#[case(Function::VmRunProgramInGuest, Go::Exit(3), Op::Launch, FaultKind::NotFound, "no program")]
#[case(Function::VmRunProgramInGuest, Go::Exit(4), Op::Launch, FaultKind::Fatal, "no program")]
#[case(Function::VmRunProgramInGuest, Go::Exit(5), Op::Launch, FaultKind::NoSpace, "no program")]
#[case(Function::VmRunProgramInGuest, Go::Exit(7), Op::CopyIn(FileIx(0)), FaultKind::Refused, "no program")]
#[case(Function::VmRunProgramInGuest, Go::Exit(3), Op::CopyOut(FileIx(0)), FaultKind::NotFound, "did not write")]
#[case(Function::VmRunProgramInGuest, Go::Fail(4), Op::Launch, FaultKind::Fatal, "FILE_NOT_FOUND")]
#[case(Function::VmRunProgramInGuest, Go::Fail(3016), Op::Launch, FaultKind::Refused, "Tools")]
fn a_fault_is_told_as_what_it_means(
    #[case] function: Function,
    #[case] go: Go,
    #[case] op: Op,
    #[case] expected: FaultKind,
    #[case] words: &str,
) {
    let mut bench = up();
    bench.fake.put("why", "no program 'x'\n");
    if op == Op::PowerOn {
        bench.fake.set_power(power_state::POWERED_OFF);
    }
    bench.fake.next(function, go);
    let error = bench.run(op).unwrap_err();
    assert_eq!(error.fault.kind, expected, "{error}");
    // Some words are of the code, which is told beside.
    let words = if words == "VmCreate" { "VixVM_CreateSnapshot" } else { words };
    assert!(error.message.contains(words), "{error}");
    assert!(!error.message.contains("s3cret"), "{error}");
}

#[test]
fn a_product_that_cannot_be_reached_is_told_before_anything_is_touched() {
    let bench = Bench::new(Product::Workstation);
    bench.fake.next(Function::HostConnect, Go::Fail(22002));
    let error = bench.vm.capabilities().unwrap_err();
    assert_eq!((error.fault.kind, error.fault.code), (FaultKind::Fatal, 22002));
    assert!(error.message.contains("vixwrapper-config.txt"), "{error}");
}

#[test]
fn a_lost_callback_costs_a_tick_and_nothing_else() {
    let mut bench = up();
    bench.fake.next(Function::VmPause, Go::Silent);
    assert_eq!(bench.run(Op::Pause), Ok(Reply::Done));
}

#[rstest]
#[case(Op::LogIn, Function::VmLoginInGuest)]
#[case(Op::MakeWorkdir, Function::VmCreateDirectoryInGuest)]
#[case(Op::Launch, Function::VmRunProgramInGuest)]
#[case(Op::Pause, Function::VmPause)]
#[case(Op::BeginSnapshot(Generation(1)), Function::VmCreateSnapshot)]
#[case(Op::PowerOff, Function::VmPowerOff)]
fn a_command_without_time_waits_for_no_job_and_its_outcome_is_unknown(#[case] op: Op, #[case] function: Function) {
    let mut bench = up();
    bench.fake.next(function, Go::HangForEver);
    let command = bench.command(op);
    let error = bench.vm.carry_out(&command, Instant::now(), &EffectToken::new()).unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Unknown, "{error}");
    assert!(error.message.contains(function.name()) && error.message.contains("no answer in time"), "{error}");
}

#[test]
fn a_slice_without_time_is_pending() {
    let mut bench = up();
    bench.fake.next(Function::VmWaitForToolsInGuest, Go::HangForEver);
    let command = bench.command(Op::AwaitTools);
    assert_eq!(bench.vm.carry_out(&command, Instant::now(), &EffectToken::new()), Ok(Reply::Pending));
}

#[test]
fn a_lost_connection_is_made_again() {
    let mut bench = up();
    bench.fake.next(Function::VmPause, Go::ActFail(36));
    assert_eq!(bench.run(Op::Pause).unwrap_err().fault.kind, FaultKind::Unknown);
    let told = bench.trace(Op::Pause);
    assert!(told.contains("VixHost_Connect") && told.contains("= Done"), "{told}");
    assert!(!told.contains("VixVM_Pause("), "it is paused already: {told}");
}

/// Carries an op out on a thread of its own, and fences it once it hangs.
fn fence_while(bench: &mut Bench, op: Op) -> (Result<Fenced, String>, Result<Reply, String>) {
    let command = bench.command(op);
    let token = EffectToken::new();
    let (vm, fake) = (&bench.vm, Arc::clone(&bench.fake));
    fake.forget_calls();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| vm.carry_out(&command, in_a_while(), &token));
        while fake.calls().iter().all(|call| !call.starts_with("VixVM_")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        token.revoke();
        let fenced = vm.fence(command.id, Instant::now() + FENCE).map_err(|error| error.to_string());
        (fenced, worker.join().unwrap().map_err(|error| error.to_string()))
    })
}

#[test]
fn a_job_that_ends_with_the_vm_is_fenced_by_powering_off() {
    let mut bench = up();
    bench.fake.next(Function::VmCreateSnapshot, Go::Hang);
    let (fenced, answer) = fence_while(&mut bench, Op::BeginSnapshot(Generation(1)));
    assert_eq!(fenced, Ok(Fenced::PoweredOff));
    assert!(answer.unwrap_err().contains("VixVM_CreateSnapshot"));
    assert_eq!(bench.fake.power(), power_state::POWERED_OFF);
    // The VM can be used again.
    assert_eq!(bench.run(Op::Provision(Base::Baseline)), Ok(Reply::Provisioned { running: false }));
}

#[test]
fn a_job_that_outlasts_the_vm_is_fenced_by_cutting_the_connection() {
    let mut bench = up();
    bench.fake.next(Function::VmCreateSnapshot, Go::HangForEver);
    let (fenced, _) = fence_while(&mut bench, Op::BeginSnapshot(Generation(1)));
    assert_eq!(fenced, Ok(Fenced::PoweredOff));
    let calls = bench.fake.calls();
    let place =
        |word: &str| calls.iter().position(|call| call.starts_with(word)).unwrap_or_else(|| panic!("{calls:?}"));
    assert!(place("VixVM_PowerOff") < place("VixHost_Disconnect"), "{calls:?}");
    assert!(place("VixHost_Disconnect") < place("VixHost_Connect"), "the VM is looked at through a new one: {calls:?}");
    assert_eq!(bench.run(Op::Provision(Base::Baseline)), Ok(Reply::Provisioned { running: false }));
}

/// The platform's VM makes the task's: as long as it may, nobody can say that there is none.
#[test]
fn a_clone_that_is_still_being_made_is_fenced_although_there_is_no_vm_yet() {
    let mut bench = Bench::new(Product::Workstation);
    bench.ops(&[Op::Register]);
    bench.fake.next(Function::VmClone, Go::HangForEver);
    let (fenced, answer) = fence_while(&mut bench, Op::Provision(Base::Baseline));
    assert_eq!(fenced, Ok(Fenced::PoweredOff));
    assert!(answer.unwrap_err().contains("VixVM_Clone"));
    let calls = bench.fake.calls();
    assert!(calls.iter().any(|call| call.starts_with("VixHost_Disconnect")), "it acts no more: {calls:?}");
    assert_eq!(bench.run(Op::Provision(Base::Baseline)), Ok(Reply::Provisioned { running: false }));
}

#[test]
fn a_vm_that_cannot_be_powered_off_makes_the_fence_say_so_within_its_time() {
    let mut bench = up();
    bench.fake.next(Function::VmCreateSnapshot, Go::HangForEver);
    bench.fake.next(Function::VmPowerOff, Go::HangForEver);
    let (fenced, _) = fence_while(&mut bench, Op::BeginSnapshot(Generation(1)));
    let words = fenced.unwrap_err();
    assert!(words.contains("powering off") && words.contains("VixVM_PowerOff"), "{words}");
}

#[test]
fn a_command_that_was_fenced_before_it_began_asks_nothing() {
    let mut bench = up();
    bench.fake.forget_calls();
    let command = bench.command(Op::Pause);
    let token = EffectToken::new();
    token.revoke();
    assert!(bench.vm.carry_out(&command, in_a_while(), &token).is_err());
    assert_eq!(bench.fake.calls(), Vec::<String>::new());
    assert_eq!(bench.vm.fence(command.id, Instant::now() + FENCE), Ok(Fenced::Survived), "nothing happened to it");
}

#[test]
fn nothing_begins_while_an_earlier_job_may_still_act() {
    let mut bench = up();
    bench.fake.next(Function::VmPause, Go::Hang);
    let (fenced, _) = fence_while(&mut bench, Op::Pause);
    assert_eq!(fenced, Ok(Fenced::PoweredOff), "powered off, and with it the job is over");
    bench.fake.forget_calls();
    assert_eq!(bench.run(Op::Probe).map(|_| ()), Ok(()));
}

#[test]
fn a_library_too_old_for_the_newer_way_to_open_is_asked_in_the_older_one() {
    let mut bench = Bench::new(Product::Workstation);
    bench.fake.next(Function::HostOpenVm, Go::Fail(6));
    bench.fake.next(Function::HostOpenVm, Go::Fail(6));
    let told = bench.ops(&[Op::Register, Op::Provision(Base::Baseline)]);
    assert!(told.contains("VixVM_Open(") && told.contains("Provisioned"), "{told}");
}
