//! Real QEMU as the subject of the stories.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use vmtask_core::{FileIn, FileOut, Limits, ProgramSpec, TaskDraft, TaskSpec};
use vmtask_driver::Hypervisor;
use vmtask_qemu::Baseline;

use super::{Act, Subject};
use crate::guest::{self, Bits};
use crate::ours::Place;
use crate::procs;
use crate::real;

/// How long a step of the computation takes.
const STEP_MS: &str = "20";

/// QEMU, software-emulated.
#[derive(Clone, Copy, Debug)]
pub struct Qemu {
    /// How guests start.
    pub baseline: Baseline,
}

/// What does this on a Linux, and its arguments.
pub(super) fn program(act: Act) -> (PathBuf, Vec<String>) {
    let text = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let number = |number: u8| number.to_string();
    let (name, args) = match act {
        Act::Compute(steps) => ("counter", text(&["input", &steps.to_string(), STEP_MS, "result", "steps"])),
        Act::Exit(code) => ("behave", text(&["exit", &number(code)])),
        Act::Signal(signal) => ("behave", text(&["signal", &number(signal)])),
        Act::ForgetOutput => ("behave", text(&["exit", "0"])),
        Act::Missing | Act::NotExecutable => ("behave", text(&["exit", "0"])),
        Act::Reboot => ("behave", text(&["reboot"])),
        Act::PowerOff => ("behave", text(&["poweroff"])),
        Act::Hang => ("behave", text(&["hang"])),
    };
    (guest::program(name, Bits::B64), args)
}

/// What the computation comes to with the input in `dir`, without any virtual machine.
pub(super) fn run_by_itself(steps: u32, dir: &Path) -> Vec<u8> {
    let result = dir.join("expected");
    let status = Command::new(guest::program("counter", Bits::B64))
        .arg(dir.join("input"))
        .args([&steps.to_string(), "0"])
        .args([&result, &dir.join("expected-steps")])
        .status()
        .expect("run the program by itself");
    assert!(status.success(), "the program by itself: {status}");
    fs::read(&result).expect("the expected result")
}

impl Subject for Qemu {
    fn task(&self, act: Act, input: &[u8], dir: &Path) -> TaskSpec {
        let input_path = dir.join("input");
        fs::write(&input_path, input).expect("write the input");
        let (program, args) = program(act);
        let file = |host: &Path, guest: &str, executable| FileIn {
            host: host.to_string_lossy().into_owned(),
            guest: guest.into(),
            executable,
        };
        let outputs: &[&str] = match act {
            Act::Compute(_) => &["result", "steps", "stdout.txt"],
            Act::ForgetOutput => &["result", "stdout.txt"],
            _ => &["stdout.txt"],
        };
        TaskDraft {
            name: "story".into(),
            platform: real::PLATFORM.into(),
            program: ProgramSpec {
                path: if act == Act::Missing { "/usr/bin/no-such-program" } else { "program" }.into(),
                args,
                env: std::collections::BTreeMap::new(),
                stdout: "stdout.txt".into(),
                stderr: "stderr.txt".into(),
                progress: None,
            },
            files_in: vec![file(&program, "program", act != Act::NotExecutable), file(&input_path, "input", false)],
            files_out: outputs
                .iter()
                .map(|&name| FileOut { guest: name.into(), host: name.into(), optional: false })
                .collect(),
            checkpoint: None,
            limits: Limits::default(),
        }
        .check()
        .expect("the story\'s task is in order")
    }

    fn expected(&self, steps: u32, _input: &[u8], dir: &Path) -> Vec<u8> {
        run_by_itself(steps, dir)
    }

    fn adapter(&self, spec: &TaskSpec, dir: &Path) -> Arc<dyn Hypervisor> {
        Place::new(&real::shared_data(), dir).qemu(spec, self.baseline)
    }

    fn machines(&self, dir: &Path) -> usize {
        procs::qemus_of_dir(dir).len()
    }

    fn kill(&self, dir: &Path) {
        procs::qemus_of_dir(dir).iter().for_each(|qemu| qemu.signal(Signal::KILL));
    }

    fn freeze(&self, dir: &Path) {
        procs::qemus_of_dir(dir).iter().for_each(|qemu| qemu.signal(Signal::STOP));
    }

    fn damage(&self, dir: &Path, generation: u32) {
        let path = dir.join("vm/checkpoints").join(format!("{generation}.ram"));
        let file = match fs::File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            file => file.expect("the checkpoint's stream"),
        };
        // One bit in the middle of it.
        let (middle, mut byte) = (file.metadata().expect("its size").len() / 2, [0]);
        file.read_exact_at(&mut byte, middle).expect("read the stream");
        file.write_all_at(&[byte[0] ^ 1], middle).expect("damage the stream");
    }

    fn remains(&self, dir: &Path) -> Vec<String> {
        real::files_below(&dir.join("vm")).into_iter().map(|path| path.display().to_string()).collect()
    }

    fn steps(&self, dir: &Path) -> Option<Vec<i64>> {
        let log = fs::read_to_string(dir.join("results/steps")).ok()?;
        Some(log.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect())
    }
}
