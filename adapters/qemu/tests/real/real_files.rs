//! Files in and out, and what programs are given, with a real QEMU.

use std::os::unix::fs::symlink;

use crate::rig::{Rig, cut, input, kind, output, real, shell};
use rstest::rstest;
use vmtask_core::{ExitStatus, FaultKind, FileIx, FileOut, Op, Reply};

/// Bytes without a pattern that a compressor or a lazy copy could exploit.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(|| next().to_le_bytes()).flatten().take(length).collect()
}

#[rstest]
#[case::empty(0, "empty")]
#[case::one_byte(1, "one")]
#[case::a_block_and_a_bit((1 << 20) + 1, "deep/in side/it's a \"name\" $HOME *")]
#[case::large(40 << 20, "large")]
fn a_file_goes_in_and_comes_back_to_the_byte(#[case] length: usize, #[case] name: &str) {
    if !real() {
        return;
    }
    let mut spec = shell("true");
    spec.files_in.push(input("it", name, false));
    spec.files_out = vec![output(name)];
    let rig = Rig::new(spec);
    let bytes = noise(length);
    std::fs::write(rig.dir.join("in/it"), &bytes).unwrap();
    rig.start();
    rig.op(Op::CopyIn(FileIx(0)));
    rig.op(Op::CopyOut(FileIx(0)));
    assert!(rig.result(name) == bytes);
}

#[test]
fn a_transfer_survives_a_cut_of_any_of_its_connections() {
    if !real() {
        return;
    }
    let mut spec = shell("true");
    spec.files_in.push(input("it", "it", false));
    spec.files_out = vec![output("it")];
    let rig = Rig::new(spec);
    let bytes = noise(60 << 20);
    std::fs::write(rig.dir.join("in/it"), &bytes).unwrap();
    rig.start();
    for op in [Op::CopyIn(FileIx(0)), Op::CopyOut(FileIx(0))] {
        let mut cuts = ["files", "agent", "qmp"].into_iter();
        while rig.once(op).unwrap() == Reply::Pending {
            if let Some(channel) = cuts.next() {
                cut(&rig, channel);
            }
        }
    }
    assert!(rig.result("it") == bytes);
}

#[test]
fn a_program_gets_its_arguments_environment_and_directory_as_they_are() {
    if !real() {
        return;
    }
    let mut spec = shell("");
    spec.program.path = "bin/show me".into();
    spec.program.args = ["", "two words", "it's", "\"quoted\"", "$HOME `id` \\", "line\nbreak", "-n", "*", "ä\u{1}"]
        .map(String::from)
        .to_vec();
    spec.program.env = [("EMPTY", ""), ("ODD", "a'b\"c $d\ne")].map(|(k, v)| (k.into(), v.into())).into();
    spec.program.stdout = "out/std out".into();
    spec.program.stderr = "out/std err".into();
    spec.files_in.push(input("show", "bin/show me", true));
    spec.files_out = vec![output("out/std out"), output("out/std err")];
    let rig = Rig::new(spec);
    let script = "#!/bin/sh\nfor a in \"$@\"; do printf '<%s>' \"$a\"; done\nprintf '[%s][%s]' \"$EMPTY\" \"$ODD\"\npwd\necho oops >&2\n";
    std::fs::write(rig.dir.join("in/show"), script).unwrap();
    rig.start();
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(0));
    rig.op(Op::CopyOut(FileIx(0)));
    rig.op(Op::CopyOut(FileIx(1)));
    let expected = "<><two words><it's><\"quoted\"><$HOME `id` \\><line\nbreak><-n><*><ä\u{1}>[][a'b\"c $d\ne]/work\n";
    assert_eq!(rig.result_text("out/std out"), expected);
    assert_eq!(rig.result_text("out/std err"), "oops\n");
}

#[test]
fn outputs_that_cannot_be_had_are_refused_in_clear_words_and_leave_nothing_behind() {
    if !real() {
        return;
    }
    let mut spec =
        shell("echo the reason is here >&2; mkdir dir; ln -s /etc/passwd link; head -c 2000 /dev/zero >large; exit 3");
    spec.limits.output = 1000;
    spec.files_out = ["missing", "dir", "link", "large", "stderr.txt"].map(output).to_vec();
    spec.files_out.push(FileOut { optional: true, ..output("may be missing") });
    let rig = Rig::new(spec);
    rig.start();
    rig.launch();
    assert_eq!(rig.exit(), ExitStatus::Code(3));
    let fails = |ix| {
        let error = rig.fails(Op::CopyOut(FileIx(ix)));
        (kind(&error), error.message)
    };
    let (kind, message) = fails(0);
    assert_eq!(kind, FaultKind::NotFound);
    assert!(message.contains("\"missing\"") && message.contains("the reason is here"), "{message}");
    let kept = std::fs::read_to_string(rig.dir.join("guest-stderr.txt")).unwrap();
    assert_eq!(kept, "the reason is here\n");
    for (ix, words) in [(1, "not a regular file"), (2, "link"), (3, "limits.output")] {
        let (kind, message) = fails(ix);
        assert_eq!(kind, FaultKind::Fatal, "{message}");
        assert!(message.contains(words), "{message}");
    }
    rig.op(Op::CopyOut(FileIx(4)));
    rig.op(Op::CopyOut(FileIx(5)));
    let left: Vec<_> = std::fs::read_dir(rig.dir.join("results")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn inputs_that_cannot_be_had_are_named_before_anything_starts() {
    if !real() {
        return;
    }
    let mut spec = shell("true");
    spec.files_in.push(input("it", "it", false));
    let rig = Rig::new(spec);
    let path = rig.dir.join("in/it");
    let words = || {
        let error = rig.fails(Op::Register);
        assert_eq!(kind(&error), FaultKind::Fatal);
        assert!(error.message.contains("in/it"), "{}", error.message);
        error.message
    };
    assert!(words().contains("No such file"));
    std::fs::create_dir(&path).unwrap();
    assert!(words().contains("directory"));
    std::fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(words().contains("regular file"));
    std::fs::remove_file(&path).unwrap();
    symlink("/nonexistent", &path).unwrap();
    assert!(words().contains("No such file"));
    assert!(rig.vm.process().is_none());
}

#[rstest]
#[case::not_there("nothing", FaultKind::NotFound, "nothing")]
#[case::not_executable("data", FaultKind::Fatal, "not an executable")]
fn a_program_that_cannot_be_run_is_named(#[case] path: &str, #[case] expected: FaultKind, #[case] words: &str) {
    if !real() {
        return;
    }
    let mut spec = shell("");
    spec.program.path = path.into();
    spec.program.args = Vec::new();
    spec.files_in.push(input("data", "data", false));
    let rig = Rig::new(spec);
    std::fs::write(rig.dir.join("in/data"), "no program").unwrap();
    rig.start();
    rig.op(Op::CopyIn(FileIx(0)));
    let error = rig.fails(Op::Launch);
    assert_eq!(kind(&error), expected);
    assert!(error.message.contains(words), "{}", error.message);
}

#[test]
fn a_guest_without_room_for_an_input_says_so() {
    if !real() {
        return;
    }
    let mut spec = shell("true");
    spec.files_in.push(input("it", "it", false));
    let rig = Rig::new(spec);
    // More than the guest's memory: sparse, so that it costs the host nothing.
    let file = std::fs::File::create(rig.dir.join("in/it")).unwrap();
    file.set_len(300 << 20).unwrap();
    rig.start();
    let error = rig.fails(Op::CopyIn(FileIx(0)));
    assert_eq!(kind(&error), FaultKind::NoSpace, "{}", error.message);
}
