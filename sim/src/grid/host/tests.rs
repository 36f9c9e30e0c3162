//! That each check fails when it should: everything here is done to a host behind its machine's back.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A host in the middle of a task, with its world.
fn at_work(arm: Arm) -> (Env, Host) {
    let env = Env { arm, plan: arm.plan().unwrap() };
    let mut host = Host::new(1, 0);
    host.on = true;
    host.session_at = 30 * DAY;
    host.begin(&env, &mut Tally::default(), Some(0)).unwrap();
    host.advance(&env, &mut Tally::default(), HOUR).unwrap();
    assert_eq!(host.machine.as_ref().unwrap().phase(), vmtask_core::Phase::Running);
    (env, host)
}

fn command(op: Op) -> Command {
    let id = vmtask_core::CommandId { epoch: 1, seq: 1 };
    let boot = vmtask_core::Boot { epoch: 1, seq: 0 };
    Command { id, boot, op, deadline: Instant::ZERO, attempt: std::num::NonZeroU8::MIN }
}

#[test]
fn a_command_beside_another_or_a_fence_is_noticed() {
    let (env, mut host) = at_work(Arm { vm: true, checkpoints: false });
    host.flight = Some((host.now + 1, command(Op::Pause)));
    assert_eq!(host.command(&env, command(Op::Probe)), Err("hands out a command beside another"));
    host.flight = Some((NEVER, command(Op::Pause)));
    assert!(host.command(&env, command(Op::Unpause)).unwrap_err().contains("without a fence"));
    host.fence = Some((host.now + 1, command(Op::Pause).id));
    assert_eq!(host.command(&env, command(Op::Probe)), Err("hands out a command beside a fence"));
}

#[test]
fn a_command_that_the_journal_does_not_have_is_noticed() {
    let (env, mut host) = at_work(Arm { vm: true, checkpoints: true });
    let begin = command(Op::BeginSnapshot(vmtask_core::Generation(99)));
    assert_eq!(host.command(&env, begin), Err("hands out a command before the journal has it"));
}

#[test]
fn an_end_without_a_result_or_with_something_left_is_noticed() {
    let arm = Arm { vm: true, checkpoints: true };
    let completed = Outcome::Completed { exit: ExitStatus::Code(0) };
    let (_, mut host) = at_work(arm);
    assert_eq!(host.over(&mut Tally::default(), completed), Err("ends with the virtual machine on"));
    host.vm.power_off(host.now, Loss::Crash, &mut Hours::default());
    assert_eq!(host.over(&mut Tally::default(), completed), Err("has completed without a result"));
    host.vm.result = Some(0);
    assert_eq!(host.over(&mut Tally::default(), completed), Err("has completed and left something behind"));
    assert_eq!(host.over(&mut Tally::default(), Outcome::Aborted), Err("was aborted and left something behind"));
}

#[test]
fn a_misuse_of_the_virtual_machine_is_noticed() {
    let (env, mut host) = at_work(Arm { vm: true, checkpoints: true });
    for op in [Op::Provision(vmtask_core::Base::Baseline), Op::Unregister(vmtask_core::Keep::Nothing)] {
        assert!(host.command(&env, command(op)).unwrap_err().contains("a virtual machine that is on"));
    }
}
