//! Checkpoints relative to a template: what a real QEMU writes and loads.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lz4_flex::frame::FrameDecoder;
use rstest::rstest;
use vmtask_core::{Base, Event, ExitStatus, FaultKind, FileIx, Generation, Op};
use vmtask_driver::Digest;
use vmtask_qemu::Baseline;

use crate::rig::{Rig, input, kind, real, shell};

/// Each line depends on all that was computed before it, and on megabytes that lie in memory, change, and become empty
/// again: one page that is not what it was shows in all lines from there on.
const COMPUTE: &str = r#"
h=start; i=0
while [ $i -lt 160 ]; do
    i=$((i + 1))
    h=$(echo "$h $i" | sha256sum | cut -c1-64)
    case $((i % 10)) in
    0) yes $h | head -c 3000000 >a; h=$(cat a b 2>/dev/null | sha256sum | cut -c1-64) ;;
    5) cp a b 2>/dev/null; head -c 3000000 /dev/zero >a; h=$(cat a b 2>/dev/null | sha256sum | cut -c1-64) ;;
    esac
    echo $i $h
done
"#;

/// What it writes, computed on this computer.
fn computed() -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    let output = std::process::Command::new("sh").args(["-c", COMPUTE]).current_dir(temp.path()).output().unwrap();
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 160);
    output.stdout
}

/// How many kills; a run of its own can ask for more.
fn trials(usual: u64) -> u64 {
    std::env::var("VMTASK_TEST_TRIALS").map_or(usual, |text| text.parse().unwrap())
}

#[rstest]
#[case::of_a_clone(Baseline::Warm, 4)]
#[case::of_a_guest_that_booted(Baseline::Cold, 2)]
fn a_guest_killed_at_any_moment_goes_on_from_its_newest_checkpoint_and_computes_the_right_bytes(
    #[case] baseline: Baseline,
    #[case] usual: u64,
) {
    if !real() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("task");
    let rig = Rig::with(shell(COMPUTE), &dir, Some(temp), |setup| setup.baseline = baseline);
    rig.start();
    rig.op(Op::Launch);
    rig.snapshot(1).unwrap();
    let mut generation = 1;
    for trial in 0..trials(usual) {
        let victim = rig.vm.process().unwrap();
        // Spread over two checkpoints and a half, each moment once.
        let moment = Duration::from_millis(trial * 367 % 1000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(moment);
            victim.kill(Duration::from_secs(10)).unwrap();
        });
        loop {
            generation += 1;
            match rig.snapshot(generation) {
                Ok(()) => rig.op(Op::RemoveSnapshot(Generation(generation - 1))),
                Err(_) => break,
            };
        }
        killer.join().unwrap();
        let newest = rig.found().snapshots.newest().unwrap();
        eprintln!("trial {trial}: killed after {moment:?}, restoring {newest}");
        rig.provision(Base::Checkpoint(newest));
    }
    let status = loop {
        match rig.next_event() {
            (boot, Event::ProgramExited(status)) if boot == rig.boot() => break status,
            _ => {}
        }
    };
    assert_eq!(status, ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    assert!(rig.result("stdout.txt") == computed());
}

fn waiting(change: impl FnOnce(&mut vmtask_qemu::Setup)) -> Rig {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("task");
    let mut spec = shell("until [ -e go ]; do usleep 10000; done; echo went");
    spec.files_in.push(input("go", "go", false));
    let rig = Rig::with(spec, &dir, Some(temp), change);
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

fn checkpoints(rig: &Rig) -> PathBuf {
    rig.dir.join("vm/checkpoints")
}

fn template(rig: &Rig) -> PathBuf {
    let names = std::fs::read_dir(checkpoints(rig)).unwrap().map(|entry| entry.unwrap().path());
    names.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "template")).unwrap()
}

fn stream(rig: &Rig, generation: u32) -> Vec<u8> {
    let file = std::fs::File::open(checkpoints(rig).join(format!("{generation}.ram"))).unwrap();
    let mut stream = Vec::new();
    FrameDecoder::new(file).read_to_end(&mut stream).unwrap();
    stream
}

/// The pages in a stream, read by one that believes it.
fn pages(stream: &[u8]) -> BTreeMap<(Vec<u8>, u64), Vec<u8>> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, left) = rest.split_at(count);
        *rest = left;
        taken
    }
    fn number(rest: &mut &[u8]) -> u64 {
        u64::from_be_bytes(take(rest, 8).try_into().unwrap())
    }
    fn name(rest: &mut &[u8]) -> Vec<u8> {
        let length = take(rest, 1)[0];
        take(rest, length.into()).to_vec()
    }
    let (mut pages, mut block) = (BTreeMap::new(), Vec::new());
    let mut rest = stream;
    take(&mut rest, 9);
    let machine = u32::from_be_bytes(take(&mut rest, 4).try_into().unwrap());
    take(&mut rest, machine as usize);
    loop {
        match take(&mut rest, 1)[0] {
            1 => drop((take(&mut rest, 4), name(&mut rest), take(&mut rest, 8))),
            2 | 3 => drop(take(&mut rest, 4)),
            _ => return pages,
        }
        loop {
            let word = number(&mut rest);
            let (address, flags) = (word & !0xfff, word & 0xfff);
            if flags == 0x10 {
                break;
            }
            if flags == 0x04 {
                let mut left = address;
                while left > 0 {
                    name(&mut rest);
                    left -= number(&mut rest);
                }
                continue;
            }
            if flags & 0x20 == 0 {
                block = name(&mut rest);
            }
            let content = take(&mut rest, if flags & 0x08 != 0 { 4096 } else { 1 });
            pages.insert((block.clone(), address), content.to_vec());
        }
        take(&mut rest, 5);
    }
}

#[test]
fn a_restored_guests_memory_is_what_was_saved_to_the_byte() {
    if !real() {
        return;
    }
    let rig = waiting(|_| ());
    rig.op(Op::Pause);
    rig.snapshot(1).unwrap();
    rig.op(Op::PowerOff);
    rig.op(Op::Provision(Base::Checkpoint(Generation(1))));
    // It has not run since.
    rig.snapshot(2).unwrap();
    let (saved, restored) = (pages(&stream(&rig, 1)), pages(&stream(&rig, 2)));
    let differ: Vec<_> = saved
        .iter()
        .filter(|(page, content)| restored.get(*page) != Some(content))
        .map(|(page, _)| page)
        .chain(restored.keys().filter(|page| !saved.contains_key(*page)))
        .collect();
    assert!(differ.is_empty(), "{} of {}: {differ:x?}", differ.len(), saved.len());
    rig.op(Op::PowerOn);
    go(&rig);
}

#[test]
fn a_checkpoint_of_a_guest_that_has_done_little_is_small() {
    if !real() {
        return;
    }
    let rig = waiting(|_| ());
    rig.snapshot(1).unwrap();
    let size = std::fs::metadata(checkpoints(&rig).join("1.ram")).unwrap().len();
    assert!(size < 3 << 20, "{size}");
    go(&rig);
}

#[test]
fn a_checkpoint_keeps_its_template_whatever_becomes_of_the_cache() {
    if !real() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let rig = waiting(|setup| setup.cache = cache.path().to_owned());
    rig.snapshot(1).unwrap();
    rig.op(Op::PowerOff);
    std::fs::remove_dir_all(cache.path().join("templates")).unwrap();
    rig.provision(Base::Checkpoint(Generation(1)));
    rig.snapshot(2).unwrap();
    rig.op(Op::RemoveSnapshot(Generation(1)));
    rig.op(Op::PowerOff);
    rig.provision(Base::Checkpoint(Generation(2)));
    go(&rig);
}

#[rstest]
#[case::gone(|path: &Path| std::fs::remove_file(path).unwrap())]
#[case::flipped(|path: &Path| {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    // Another file: the cache has the one that was here.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
})]
fn a_checkpoint_whose_template_is_proven_bad_is_damaged_and_others_are_made(#[case] damage: fn(&Path)) {
    if !real() {
        return;
    }
    let rig = waiting(|_| ());
    rig.snapshot(1).unwrap();
    rig.op(Op::PowerOff);
    damage(&template(&rig));
    let error = rig.fails(Op::Provision(Base::Checkpoint(Generation(1))));
    assert_eq!(kind(&error), FaultKind::Damaged, "{error}");
    assert!(error.message.contains(".template"), "{error}");
    // A guest that begins anew brings a sound one.
    rig.start();
    rig.op(Op::Launch);
    rig.snapshot(2).unwrap();
    rig.op(Op::PowerOff);
    rig.provision(Base::Checkpoint(Generation(2)));
    go(&rig);
}

/// As version 0.1 wrote them: the stream as it came, and a manifest that says nothing of its form.
#[test]
fn a_plain_checkpoint_of_an_earlier_version_is_restored() {
    if !real() {
        return;
    }
    let rig = waiting(|setup| setup.baseline = Baseline::Cold);
    rig.snapshot(1).unwrap();
    rig.op(Op::PowerOff);
    let plain = stream(&rig, 1);
    std::fs::write(checkpoints(&rig).join("1.ram"), &plain).unwrap();
    let json = checkpoints(&rig).join("1.json");
    let text = std::fs::read_to_string(&json).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    fields.remove("form").unwrap();
    fields.remove("file_bytes").unwrap();
    fields.insert("bytes".into(), plain.len().into());
    fields.insert("sha256".into(), Digest::of(&plain).to_string().into());
    let manifest = manifest.to_string();
    std::fs::write(&json, format!("{}\n{manifest}\n", Digest::of(manifest.as_bytes()))).unwrap();
    rig.provision(Base::Checkpoint(Generation(1)));
    go(&rig);
}
