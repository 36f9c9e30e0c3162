//! What goes wrong with a real QEMU: connections, processes, disks, guests.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::rig::{Rig, cut, deadline, input, kind, real, shell, signal};
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use rstest::rstest;
use rustix::process::Signal;
use vmtask_core::{Base, Event, ExitStatus, FaultKind, FileIx, Generation, Op, Power, Program, Reply};
use vmtask_driver::{Digest, Fenced, Hypervisor};

/// Runs until a file called `go` appears.
fn waiting() -> Rig {
    let mut spec = shell("until [ -e go ]; do usleep 10000; done; echo went");
    spec.files_in.push(input("go", "go", false));
    let rig = Rig::new(spec);
    std::fs::write(rig.dir.join("in/go"), "").unwrap();
    rig.start();
    rig.op(Op::Launch);
    rig
}

fn go(rig: &Rig) {
    rig.op(Op::CopyIn(FileIx(0)));
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    assert_eq!(rig.result_text("stdout.txt"), "went\n");
}

#[rstest]
#[case::agent("agent")]
#[case::qmp("qmp")]
#[case::files("files")]
#[case::events("events")]
fn a_cut_connection_is_made_anew(#[case] channel: &str) {
    if !real() {
        return;
    }
    let rig = waiting();
    let cut = cut(&rig, channel);
    assert!(cut > 0 || channel == "files", "there must be something to cut");
    rig.op(Op::Pause);
    assert_eq!(rig.found().power, Power::Paused);
    rig.op(Op::Unpause);
    assert_eq!(rig.found().program, Program::Running);
    rig.snapshot(1).unwrap();
    go(&rig);
}

#[test]
fn a_guest_that_kills_its_agent_is_reached_again_and_its_end_is_noticed() {
    if !real() {
        return;
    }
    let rig = Rig::new(shell("killall -9 qemu-ga; echo did it"));
    rig.start();
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    assert_eq!(rig.result_text("stdout.txt"), "did it\n");
}

#[rstest]
#[case::powers_off("poweroff -f", Event::GuestStopped)]
#[case::reboots("reboot -f", Event::GuestRebooted)]
#[case::panics("echo c >/proc/sysrq-trigger", Event::GuestRebooted)]
fn a_guest_that_ends_itself_is_noticed_at_once(#[case] how: &str, #[case] expected: Event) {
    if !real() {
        return;
    }
    let rig = Rig::new(shell(how));
    rig.start();
    // The machine may be gone before the answer is there.
    let _ = rig.once(Op::Launch);
    assert_eq!(rig.until(|event| !matches!(event, Event::Progress { .. })), expected);
    assert_eq!(rig.found().power, Power::Off);
    rig.op(Op::PowerOff);
}

#[test]
fn a_program_that_dies_by_a_signal_is_told_from_one_that_exits_with_its_number() {
    if !real() {
        return;
    }
    for (script, expected) in [("kill -SEGV $$", ExitStatus::Signal(11)), ("exit 139", ExitStatus::Code(139))] {
        let rig = Rig::new(shell(script));
        rig.start();
        rig.launch();
        assert_eq!(rig.exit(), expected);
    }
}

#[test]
fn a_stopped_qemu_hangs_nothing_and_a_fence_gets_rid_of_it() {
    if !real() {
        return;
    }
    let rig = waiting();
    rig.snapshot(1).unwrap();
    signal(&rig, Signal::STOP);
    let (command, token) = rig.command(Op::Pause);
    let worker = {
        let vm = Arc::clone(&rig.vm);
        std::thread::spawn(move || vm.carry_out(&command, deadline(command.op), &token))
    };
    assert_eq!(rig.fence(command.id), Fenced::PoweredOff, "a QEMU that does not answer cannot be kept");
    let error = worker.join().unwrap().unwrap_err();
    // Refused if the fence was faster than the command.
    assert!(matches!(kind(&error), FaultKind::Unknown | FaultKind::Refused), "{error}");
    assert_eq!(rig.found().power, Power::Off);
    rig.provision(Base::Checkpoint(Generation(1)));
    go(&rig);
}

#[rstest]
#[case::probe(Op::Probe)]
#[case::pause(Op::Pause)]
#[case::launch(Op::Launch)]
#[case::copy_in(Op::CopyIn(FileIx(0)))]
fn a_healthy_machine_survives_a_fence(#[case] op: Op) {
    if !real() {
        return;
    }
    let rig = waiting();
    let (command, token) = rig.command(op);
    let _ = rig.vm.carry_out(&command, deadline(command.op), &token);
    // As if the answer had been lost.
    assert_eq!(rig.fence(command.id), Fenced::Survived);
    rig.op(Op::Unpause);
    assert!(matches!(rig.found().program, Program::Running | Program::Exited(_)));
}

#[test]
fn a_fenced_command_does_nothing_any_more() {
    if !real() {
        return;
    }
    let rig = waiting();
    for op in [
        Op::Pause,
        Op::CopyIn(FileIx(0)),
        Op::CopyOut(FileIx(0)),
        Op::BeginSnapshot(Generation(1)),
        Op::RemoveSnapshot(Generation(1)),
    ] {
        let (command, token) = rig.command(op);
        token.revoke();
        assert!(rig.vm.carry_out(&command, deadline(command.op), &token).is_err(), "{op}");
    }
    assert_eq!(rig.found().program, Program::Running, "nobody paused it, nobody told it to go");
    assert!(!rig.dir.join("results/stdout.txt").exists());
}

#[test]
fn a_fence_in_mid_snapshot_gives_the_machine_up_and_the_earlier_checkpoint_stands() {
    if !real() {
        return;
    }
    let rig = waiting();
    rig.snapshot(1).unwrap();
    rig.op(Op::BeginSnapshot(Generation(2)));
    let (command, token) = rig.command(Op::CommitSnapshot(Generation(2)));
    let _ = rig.vm.carry_out(&command, deadline(command.op), &token);
    rig.fence(command.id);
    if rig.found().power == Power::Off {
        assert!(rig.found().snapshots.contains(Generation(1)));
        rig.provision(Base::Checkpoint(Generation(1)));
    }
    go(&rig);
}

#[test]
fn a_second_launch_starts_nothing() {
    if !real() {
        return;
    }
    let mut spec = shell("echo once >>count; until [ -e go ]; do usleep 10000; done; cat count");
    spec.files_in.push(input("go", "go", false));
    let rig = Rig::new(spec);
    std::fs::write(rig.dir.join("in/go"), "").unwrap();
    rig.start();
    for _ in 0..3 {
        rig.op(Op::Launch);
    }
    rig.op(Op::CopyIn(FileIx(0)));
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    assert_eq!(rig.result_text("stdout.txt"), "once\n");
}

#[test]
fn a_paused_guest_is_saved_and_stays_paused_and_its_clock_is_right_afterwards() {
    if !real() {
        return;
    }
    let mut spec = shell("until [ -e go ]; do usleep 10000; done; date +%s; echo went");
    spec.files_in.push(input("go", "go", false));
    let rig = Rig::new(spec);
    std::fs::write(rig.dir.join("in/go"), "").unwrap();
    rig.start();
    rig.op(Op::Launch);
    rig.op(Op::Pause);
    rig.op(Op::BeginSnapshot(Generation(1)));
    // Must wait for the stream: what runs on would be part of it.
    rig.op(Op::Unpause);
    rig.op(Op::Pause);
    rig.op(Op::CommitSnapshot(Generation(1)));
    assert_eq!(rig.found().power, Power::Paused);
    rig.op(Op::Unpause);
    rig.op(Op::CopyIn(FileIx(0)));
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let text = rig.result_text("stdout.txt");
    let guest: u64 = text.lines().next().unwrap().parse().unwrap();
    assert!(guest <= now + 1 && guest + 600 > now, "guest {guest}, host {now}");
    rig.provision(Base::Checkpoint(Generation(1)));
    assert_eq!(rig.found().program, Program::Running);
}

#[rstest]
#[case::cut_short(|bytes: &mut Vec<u8>| bytes.truncate(1000))]
#[case::one_bit(|bytes: &mut Vec<u8>| { let at = bytes.len() / 2; bytes[at] ^= 1; })]
fn a_damaged_checkpoint_is_not_restored_and_the_one_before_is(#[case] damage: fn(&mut Vec<u8>)) {
    if !real() {
        return;
    }
    let rig = waiting();
    rig.snapshot(1).unwrap();
    rig.snapshot(2).unwrap();
    rig.op(Op::PowerOff);
    let file = rig.dir.join("vm/checkpoints/2.ram");
    let mut bytes = std::fs::read(&file).unwrap();
    damage(&mut bytes);
    std::fs::write(&file, bytes).unwrap();
    let error = rig.fails(Op::Provision(Base::Checkpoint(Generation(2))));
    assert_eq!(kind(&error), FaultKind::Damaged, "{error}");
    assert!(rig.dir.join("vm/checkpoints/2.json").exists() && file.exists(), "it is set aside");
    rig.provision(Base::Checkpoint(Generation(1)));
    go(&rig);
}

/// Replaces a checkpoint's stream, and its manifest as if this one had been written.
fn rewrite(rig: &Rig, generation: u32, stream: &[u8]) {
    let checkpoints = rig.dir.join("vm/checkpoints");
    let (json, ram) = (checkpoints.join(format!("{generation}.json")), checkpoints.join(format!("{generation}.ram")));
    let mut packing = FrameEncoder::new(std::fs::File::create(&ram).unwrap());
    packing.write_all(stream).unwrap();
    packing.finish().unwrap();
    let text = std::fs::read_to_string(&json).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let (bytes, sha256) = Digest::of_file(&ram).unwrap();
    manifest["file_bytes"] = bytes.into();
    manifest["sha256"] = sha256.to_string().into();
    let manifest = manifest.to_string();
    std::fs::write(json, format!("{}\n{manifest}\n", Digest::of(manifest.as_bytes()))).unwrap();
}

#[test]
fn a_sound_stream_that_its_own_qemu_refuses_is_rejected_and_kept() {
    if !real() {
        return;
    }
    let rig = waiting();
    rig.snapshot(1).unwrap();
    rig.op(Op::PowerOff);
    let mut stream = Vec::new();
    let file = std::fs::File::open(rig.dir.join("vm/checkpoints/1.ram")).unwrap();
    FrameDecoder::new(file).read_to_end(&mut stream).unwrap();
    stream[..4].copy_from_slice(b"QEVN");
    rewrite(&rig, 1, &stream);
    for _ in 0..2 {
        let error = rig.fails(Op::Provision(Base::Checkpoint(Generation(1))));
        assert_eq!(kind(&error), FaultKind::Rejected, "{error}");
        assert!(rig.found().snapshots.contains(Generation(1)));
    }
    stream[..4].copy_from_slice(b"QEVM");
    rewrite(&rig, 1, &stream);
    rig.provision(Base::Checkpoint(Generation(1)));
    rig.op(Op::CopyIn(FileIx(0)));
    // The QEMUs that refused have ended, and that was told too.
    let ended = rig.until(|event| matches!(event, Event::ProgramExited(_)));
    assert_eq!(ended, Event::ProgramExited(ExitStatus::Code(0)));
}

#[test]
fn a_damaged_template_is_made_anew() {
    if !real() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("task");
    let cache = temp.path().join("cache");
    let theirs = cache.clone();
    let rig = Rig::with(shell("echo fine"), &dir, Some(temp), move |setup| setup.cache = theirs);
    rig.start();
    rig.op(Op::PowerOff);
    let template = std::fs::read_dir(cache.join("templates"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
        .unwrap();
    for name in ["ram", "state", "template.json"] {
        let file = template.join(name);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        rig.provision(Base::Baseline);
        assert_eq!(rig.found().power, Power::On, "{name}");
    }
    rig.op(Op::MakeWorkdir);
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(0));
}

#[test]
fn a_manager_finds_its_predecessors_process_and_kills_nobody_else() {
    if !real() {
        return;
    }
    let rig = Rig::new(shell("true"));
    rig.op(Op::Register);
    let start = || {
        let child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let name = vmtask_qemu::process::ProcessName::of(child.id()).unwrap();
        (child, name)
    };
    let note = |name| std::fs::write(rig.dir.join("vm/process.json"), serde_json::to_vec(&name).unwrap()).unwrap();
    let (mut innocent, mut name) = start();
    name.start_time -= 1;
    note(name);
    rig.found();
    assert!(innocent.try_wait().unwrap().is_none());
    let (mut orphan, name) = start();
    note(name);
    rig.found();
    assert!(!name.is_alive());
    orphan.wait().unwrap();
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    std::fs::write(rig.dir.join("vm/process.json"), "torn").unwrap();
    assert_eq!(rig.found().power, Power::Off);
}

#[test]
fn qemu_refusing_to_start_is_quoted() {
    if !real() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("task");
    let rig = Rig::with(shell("true"), &dir, Some(temp), |setup| {
        setup.image.cpu = "EPYC,enforce".into();
        setup.image.fingerprint = "another".into();
    });
    let error = rig.fails(Op::Provision(Base::Baseline));
    assert!(error.message.contains("doesn't support requested feature"), "{error}");
    assert_eq!(kind(&error), FaultKind::Refused);
    assert_eq!(rig.found().power, Power::Off);
}

#[test]
fn a_full_disk_costs_the_new_checkpoint_and_nothing_else() {
    if !real() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may mount a small file system");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("task");
    std::fs::create_dir(&dir).unwrap();
    let mount = |options: &str| {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&dir)
            .status()
            .unwrap();
        assert!(status.success());
    };
    mount("size=400m");
    let mut spec = shell("until [ -e go ]; do usleep 10000; done; echo went");
    spec.files_in.push(input("go", "go", false));
    let rig = Rig::with(spec, &dir, None, |_| ());
    std::fs::write(rig.dir.join("in/go"), "").unwrap();
    rig.start();
    rig.op(Op::Launch);
    rig.snapshot(1).unwrap();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 200 << 20]).unwrap();
    let error = rig.fails(Op::BeginSnapshot(Generation(2)));
    assert_eq!(kind(&error), FaultKind::NoSpace, "{error}");
    let found = rig.found();
    assert_eq!(found.program, Program::Running);
    assert!(found.snapshots.contains(Generation(1)));
    std::fs::remove_file(&ballast).unwrap();
    rig.snapshot(3).unwrap();
    // Once begun, its space is its own: whoever fills the disk now comes too late.
    rig.op(Op::RemoveSnapshot(Generation(1)));
    rig.op(Op::BeginSnapshot(Generation(4)));
    let _ = std::fs::write(&ballast, vec![1; 400 << 20]);
    rig.op(Op::CommitSnapshot(Generation(4)));
    std::fs::remove_file(&ballast).unwrap();
    go(&rig);
    drop(rig);
    let status = std::process::Command::new("umount").arg("-l").arg(&dir).status().unwrap();
    assert!(status.success());
}

#[test]
fn power_off_and_unregister_may_be_repeated_and_find_nothing() {
    if !real() {
        return;
    }
    let rig = Rig::new(shell("true"));
    for _ in 0..2 {
        assert_eq!(rig.op(Op::PowerOff), Reply::Done);
        assert_eq!(rig.op(Op::Unregister(vmtask_core::Keep::Nothing)), Reply::Done);
    }
    assert!(!rig.found().registered);
}

#[test]
fn a_program_is_noticed_to_have_ended_within_moments_while_nobody_asks() {
    if !real() {
        return;
    }
    // Long enough for the watcher's looks to have become seldom: only the guest's nudge can be that fast.
    let rig = Rig::new(shell("sleep 8; date +%s%N >end"));
    rig.start();
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    assert!(rig.events.recv_timeout(Duration::from_millis(10)).is_err(), "told once");
}
