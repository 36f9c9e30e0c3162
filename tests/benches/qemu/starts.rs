//! From the start to one command's output in hand, and the whole task of the demonstration.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use vmtask_core::{FileIn, FileOut, Limits, Outcome, Phase, ProgramSpec, Report, Request, TaskDraft};
use vmtask_driver::News;
use vmtask_qemu::Baseline;
use vmtask_tests::guest::{self, Bits};
use vmtask_tests::hand::{self, Image, Template};
use vmtask_tests::ours::Place;
use vmtask_tests::real::{self, Den};
use vmtask_tests::run::{Run, TaskToml};
use vmtask_tests::stats::Sample;

use crate::virsh::Libvirt;

const WORD: &str = "in-hand";

#[derive(Default)]
struct Figures {
    floor: Sample,
    cold: Sample,
    by_hand: Sample,
    ours: Sample,
    binary: Sample,
    restore: Sample,
    restore_and_command: Sample,
    pi_by_hand: Sample,
    pi: Sample,
}

pub(crate) fn measure(rounds: usize) {
    let den = Den::new();
    let data = real::shared_data();
    let image = Image::of(&data, real::PLATFORM);
    let template = Template::make(&image, &den.path().join("by-hand")).expect("a template made by hand");
    let libvirt = Libvirt::start(&image, &den.path().join("libvirt"));
    if let Err(why) = &libvirt {
        println!("skipped: virsh restore: {why}");
    }
    let pi = Pi::new(&den);
    // Once each without a watch: files come into the cache, and our template is made.
    let _ = (ours(&den, &data, Baseline::Warm), binary(&den), pi.ours(&den, &data));
    let mut figures = Figures::default();
    for _ in 0..rounds {
        figures.floor.add(timed(|| hand::boot_echo_poweroff(&image).expect("boot, echo, poweroff by hand")));
        figures.cold.add(ours(&den, &data, Baseline::Cold));
        figures.by_hand.add(timed(|| warm_by_hand(&template, &den.path().join("clone"))));
        figures.ours.add(ours(&den, &data, Baseline::Warm));
        figures.binary.add(binary(&den));
        if let Ok(libvirt) = &libvirt {
            let (restore, all) = libvirt.restore_and_run(WORD).expect("virsh restore");
            figures.restore.add(restore);
            figures.restore_and_command.add(all);
        }
        figures.pi_by_hand.add(timed(|| pi.by_hand(&template, &den.path().join("clone"))));
        figures.pi.add(pi.ours(&den, &data));
    }
    figures.print();
}

impl Figures {
    fn print(&self) {
        let row = |what: &str, sample: &Sample, ratios: &[(&str, &Sample)]| {
            let ratios: Vec<_> = ratios
                .iter()
                .filter(|(_, other)| !other.is_empty())
                .map(|(name, other)| format!("{:.2}x {name}", sample.median() / other.median()))
                .collect();
            println!("  {what:<58} {sample:>22.3} s  {}", ratios.join(", "));
        };
        println!("\nFrom the start to one command's output in hand");
        row("raw floor: QEMU boots, echoes, powers off", &self.floor, &[]);
        row("vmtask, cold", &self.cold, &[("the floor", &self.floor)]);
        row("warm clone by hand", &self.by_hand, &[]);
        row(
            "vmtask, warm",
            &self.ours,
            &[("by hand", &self.by_hand), ("virsh restore and the command", &self.restore_and_command)],
        );
        row("the binary: `vmtask run` from its start to its end", &self.binary, &[("by hand", &self.by_hand)]);
        row("virsh restore alone", &self.restore, &[]);
        row("virsh restore, and the command by qemu-agent-command", &self.restore_and_command, &[]);
        println!("\nThe whole pi task: two files in, chmod, run, pause, unpause, two files out, power off");
        row("by hand", &self.pi_by_hand, &[]);
        row("vmtask, warm", &self.pi, &[("by hand", &self.pi_by_hand)]);
    }
}

fn timed(what: impl FnOnce()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64()
}

fn warm_by_hand(template: &Template, run: &Path) {
    let guest = template.clone_guest(run).expect("a clone");
    let said = guest.agent().and_then(|mut agent| agent.run("/bin/echo", &[WORD])).expect("a command in the clone");
    assert_eq!(said.trim(), WORD);
}

/// Through our adapter and driver; the seconds until the output lies on this computer's disk.
fn ours(den: &Den, data: &Path, baseline: Baseline) -> f64 {
    let spec = TaskDraft {
        name: "echo".into(),
        platform: real::PLATFORM.into(),
        program: program("/bin/echo", &[WORD]),
        files_in: Vec::new(),
        files_out: vec![output("stdout.txt")],
        checkpoint: None,
        limits: Limits::default(),
    }
    .check()
    .expect("a sound task");
    let place = fresh(den, data);
    let start = Instant::now();
    let mut in_hand = None;
    let driver = place.driver(place.qemu(&spec, baseline), &spec);
    let ended = driver
        .run(&mut |news: &News<'_>| {
            if let News::Report(Report::Phase(Phase::PoweringOff)) = news {
                in_hand.get_or_insert_with(|| start.elapsed());
            }
        })
        .expect("the task is driven to its end");
    assert!(matches!(ended.outcome, Outcome::Completed { .. }), "{}", ended.summary());
    let said = fs::read_to_string(place.dir.join("results/stdout.txt")).expect("the output");
    assert_eq!(said.trim(), WORD);
    in_hand.expect("a phase after the last output").as_secs_f64()
}

fn binary(den: &Den) -> f64 {
    let task = TaskToml::of_guest("echo", "/bin/echo", &[WORD]).checkpoints("off").write(den);
    let dir = den.path().join("binary");
    let _ = fs::remove_dir_all(&dir);
    let start = Instant::now();
    let done = Run::start(den, &task, &dir).finish().expect(0);
    let took = start.elapsed().as_secs_f64();
    assert_eq!(String::from_utf8_lossy(&done.output("stdout.txt")).trim(), WORD);
    took
}

/// The demonstration's task, without the seconds that its program spends on purpose.
struct Pi {
    script: PathBuf,
    program: PathBuf,
}

impl Pi {
    fn new(den: &Den) -> Self {
        let demo = real::repository().join("adapters/cli/demo");
        let flags = ["-march=i586", "-mfpmath=387", "-O3"];
        let program = guest::compiled(&demo.join("leibniz.c"), Bits::B32, &flags);
        let script = den.path().join("run.sh");
        fs::copy(demo.join("run.sh"), &script).expect("copy the script");
        Self { script, program }
    }

    fn ours(&self, den: &Den, data: &Path) -> f64 {
        let input = |path: &Path, guest: &str, executable| FileIn {
            host: path.to_string_lossy().into_owned(),
            guest: guest.into(),
            executable,
        };
        let spec = TaskDraft {
            name: "leibniz".into(),
            platform: real::PLATFORM_32.into(),
            program: program("run.sh", &["1000", "0"]),
            files_in: vec![input(&self.script, "run.sh", true), input(&self.program, "leibniz", false)],
            files_out: vec![output("pi.txt"), output("permissions.txt")],
            checkpoint: None,
            limits: Limits::default(),
        }
        .check()
        .expect("a sound task");
        let place = fresh(den, data);
        let start = Instant::now();
        let driver = place.driver(place.qemu(&spec, Baseline::Warm), &spec);
        let handle = driver.handle();
        let mut asked = false;
        let ended = driver
            .run(&mut |news: &News<'_>| match news {
                News::Report(Report::Phase(Phase::Running)) if !asked => {
                    asked = true;
                    handle.post(Request::Suspend);
                }
                News::Report(Report::Phase(Phase::Paused { .. })) => {
                    handle.post(Request::Resume);
                }
                _ => {}
            })
            .expect("the task is driven to its end");
        let took = start.elapsed().as_secs_f64();
        assert!(matches!(ended.outcome, Outcome::Completed { .. }), "{}", ended.summary());
        let pi = fs::read_to_string(place.dir.join("results/pi.txt")).expect("the output");
        assert!(pi.contains("3.140592860"), "{pi}");
        took
    }

    fn by_hand(&self, template: &Template, run: &Path) {
        const GUEST: &str = "/usr/lib/vmtask/guest";
        let steps = || -> std::io::Result<()> {
            let guest = template.clone_guest(run)?;
            let mut agent = guest.agent()?;
            agent.run(GUEST, &["workdir"])?;
            agent.put(&guest.files(), "run.sh", "755", &fs::read(&self.script)?)?;
            agent.put(&guest.files(), "leibniz", "644", &fs::read(&self.program)?)?;
            agent.run(GUEST, &["launch", "-3", "-o", "stdout.txt", "-e", "stderr.txt", "--", "run.sh", "1000", "0"])?;
            let mut qmp = guest.qmp()?;
            qmp.call("stop", serde_json::json!({}))?;
            qmp.call("cont", serde_json::json!({}))?;
            while !agent.run(GUEST, &["status"])?.contains("state=exited") {}
            let pi = agent.get(&guest.files(), "pi.txt")?;
            fs::write(run.join("pi.txt"), &pi)?;
            fs::write(run.join("permissions.txt"), agent.get(&guest.files(), "permissions.txt")?)?;
            assert!(String::from_utf8_lossy(&pi).contains("3.140592860"));
            Ok(())
        };
        steps().expect("the pi task by hand");
    }
}

fn program(path: &str, args: &[&str]) -> ProgramSpec {
    ProgramSpec {
        path: path.into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: std::collections::BTreeMap::new(),
        stdout: "stdout.txt".into(),
        stderr: "stderr.txt".into(),
        progress: None,
    }
}

fn output(name: &str) -> FileOut {
    FileOut { guest: name.into(), host: name.into(), optional: false }
}

fn fresh(den: &Den, data: &Path) -> Arc<Place> {
    let dir = den.path().join("ours");
    let _ = fs::remove_dir_all(&dir);
    Arc::new(Place::new(data, &dir))
}
