//! Checks that can fail: ground truth is tampered with behind the machine's back, and the right promise must break.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use rstest::rstest;
use vmtask_core::{Generation, Phase, Power};
use vmtask_sim::{
    Budget, ByNumber, Calm, Health, MAX_STEPS, Misuse, Profile, Scenario, Snapshot, Status, System, Violation,
};

/// Runs calmly, and calls `tamper` before each step until it says that it has.
fn tampered(profile: Profile, mut tamper: impl FnMut(&mut System) -> bool) -> Result<Status, Violation> {
    let scenario = Scenario::of(profile);
    let mut system = System::new(&scenario, Budget::default());
    let mut pending = true;
    for _ in 0..MAX_STEPS {
        pending = pending && !tamper(&mut system);
        match system.step(&scenario, &mut ByNumber(Calm))? {
            Status::Going => {}
            over @ Status::Over(_) => {
                assert!(!pending, "the moment to tamper never came");
                return Ok(over);
            }
        }
    }
    panic!("a calm run takes fewer than {MAX_STEPS} steps")
}

/// While the second checkpoint is begun, the first is durable, journaled and reported.
fn has_checkpoint(system: &System) -> bool {
    matches!(system.machine.phase(), Phase::BeginningSnapshot(_))
        && system.machine.newest_checkpoint().is_some_and(|g| system.disk.load().unwrap().generations.contains(g))
}

#[rstest]
fn a_calm_run_breaks_no_promise(
    #[values(Profile::Qemu, Profile::Warm, Profile::Vix, Profile::Plain)] profile: Profile,
) {
    assert!(matches!(tampered(profile, |_| true), Ok(Status::Over(_))));
}

#[test]
fn a_program_that_runs_twice_is_seen_in_the_result_alone() {
    let twice = |system: &mut System| {
        let running = system.world.works();
        if let Some(guest) = system.world.guest.as_mut().filter(|_| running) {
            guest.program.instances = 2;
        }
        running
    };
    assert_eq!(tampered(Profile::Qemu, twice), Err(Violation::WrongResult(0)));
}

#[test]
fn one_step_on_a_file_that_is_being_overwritten_is_seen_in_the_result() {
    let overwritten = |system: &mut System| {
        let running = system.world.works();
        if let Some(guest) = system.world.guest.as_mut().filter(|_| running) {
            guest.whole &= !2;
        }
        running
    };
    assert_eq!(tampered(Profile::Qemu, overwritten), Err(Violation::WrongResult(0)));
}

#[test]
fn a_second_start_in_one_boot_is_counted() {
    let launched = |system: &mut System| {
        let running = system.world.works();
        system.world.launches += u8::from(running);
        running
    };
    assert_eq!(tampered(Profile::Qemu, launched), Err(Violation::LaunchedTwice(2)));
}

#[test]
fn an_output_that_is_collected_while_the_program_works_on_it_is_seen() {
    let goes_on = |system: &mut System| {
        let collecting = matches!(system.machine.phase(), Phase::CopyingOut(_));
        if let Some(guest) = system.world.guest.as_mut().filter(|_| collecting) {
            guest.program.exited = false;
        }
        collecting
    };
    assert_eq!(tampered(Profile::Qemu, goes_on), Err(Violation::Misused(Misuse::CollectedTooEarly)));
}

#[test]
fn checkpoints_that_vanish_are_missed() {
    let vanish = |system: &mut System| {
        let there = has_checkpoint(system);
        if there {
            system.world.snapshots = [None; vmtask_sim::MAX_SNAPSHOTS];
        }
        there
    };
    assert_eq!(tampered(Profile::Qemu, vanish), Err(Violation::CheckpointLost));
}

#[test]
fn checkpoints_that_go_bad_all_at_once_are_missed() {
    let spoil = |system: &mut System| {
        let there = has_checkpoint(system);
        for snapshot in system.world.snapshots.iter_mut().flatten().filter(|_| there) {
            snapshot.health = Health::BadAtPowerOn;
        }
        there
    };
    assert_eq!(tampered(Profile::Qemu, spoil), Err(Violation::CheckpointLost));
}

#[test]
fn a_journal_that_vanishes_with_a_checkpoint_in_it_is_missed() {
    let vanish = |system: &mut System| {
        let there = has_checkpoint(system);
        if there {
            system.disk = vmtask_sim::Disk::default();
        }
        there
    };
    assert_eq!(tampered(Profile::Qemu, vanish), Err(Violation::CheckpointLost));
}

#[test]
fn a_vm_that_runs_on_after_the_end_is_seen() {
    let on = |system: &mut System| {
        let over = system.machine.phase() == Phase::Ended;
        if over {
            system.world.power = Power::On;
        }
        over
    };
    assert!(matches!(tampered(Profile::Qemu, on), Err(Violation::EndedRunning(_))));
}

#[test]
fn a_registration_that_stays_after_the_end_is_seen() {
    let registered = |system: &mut System| {
        let over = system.machine.phase() == Phase::Ended;
        system.world.registered |= over;
        over
    };
    assert!(matches!(tampered(Profile::Qemu, registered), Err(Violation::LeftBehind(_))));
}

/// Ground truth is changed while the task runs and does nothing else.
fn at_rest(mut tamper: impl FnMut(&mut System)) -> Result<Status, Violation> {
    tampered(Profile::Qemu, |system: &mut System| {
        let rests = has_one_checkpoint(system) && system.world.works();
        if rests {
            tamper(system);
        }
        rests
    })
}

fn has_one_checkpoint(system: &System) -> bool {
    system.machine.phase() == Phase::Running && system.machine.newest_checkpoint().is_some()
}

#[test]
fn a_checkpoint_that_nobody_knows_is_seen() {
    let result = at_rest(|system| {
        let known = system.world.snapshots.iter().flatten().next().copied();
        let free = system.world.snapshots.iter_mut().find(|s| s.is_none()).unwrap();
        *free = known.map(|known| Snapshot { generation: Generation(40), ..known });
    });
    assert_eq!(result, Err(Violation::UnknownFile(Generation(40))));
}

#[test]
fn a_program_that_works_after_its_end_was_saved_is_seen() {
    let result = at_rest(|system| {
        for snapshot in system.world.snapshots.iter_mut().flatten() {
            snapshot.guest.program.exited = true;
        }
        system.disk.write(system.machine.record());
    });
    assert_eq!(result, Err(Violation::ComputedAgain));
}

#[test]
fn a_machine_that_is_told_nothing_is_a_hang_or_never_ends() {
    // All of the machine's timers and the world's messages are taken away with the machine.
    let scenario = Scenario::of(Profile::Qemu);
    let mut system = System::new(&scenario, Budget::default());
    system.step(&scenario, &mut ByNumber(Calm)).unwrap();
    system.machine = vmtask_core::Machine::new(9);
    assert_eq!(system.step(&scenario, &mut ByNumber(Calm)), Err(Violation::Stuck));
}
