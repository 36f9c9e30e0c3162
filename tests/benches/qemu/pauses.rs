//! What a checkpoint costs: how long it holds the guest, as seen from outside (heartbeats of its program that fail to come),
//! what it takes on the disk, and how long it is until it is durable, and until it is restored.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmtask_tests::guest::{self, Bits};
use vmtask_tests::real::{self, Den};
use vmtask_tests::run::{Run, Said, TaskToml};
use vmtask_tests::stats::Sample;
use vmtask_tests::wait;

const EVERY_MS: u64 = 1500;
/// Seconds for the program, which is killed when all is measured.
const LONG: &str = "3600";
/// Builds that are compared take turns, so that noise hits all alike.
const TURNS: usize = 3;

/// A binary that is measured.
struct Build {
    name: &'static str,
    binary: PathBuf,
}

/// This one, and another one if `VMTASK_BENCH_BEFORE` names it.
fn builds() -> Vec<Build> {
    let before = std::env::var_os("VMTASK_BENCH_BEFORE");
    let before = before.map(|binary| Build { name: "before", binary: binary.into() });
    before.into_iter().chain([Build { name: "now", binary: real::vmtask() }]).collect()
}

pub(crate) fn measure(rounds: usize) {
    println!(
        "\nCheckpoints of a guest of 256 MB whose program beats once a millisecond; silences and times in milliseconds"
    );
    let heads = [
        ["silence, until it", "is frozen"],
        ["silence, until it", "is durable"],
        ["silence", "otherwise"],
        ["the file, MB", ""],
        ["begun to", "durable"],
        ["restore: begun", "to loaded"],
        ["restore: begun", "to running"],
    ];
    for line in 0..2 {
        let head = heads.map(|head| head[line]);
        println!(
            "  {:<42} {:>21} {:>21} {:>9} {:>22} {:>19} {:>17} {:>17}",
            "", head[0], head[1], head[2], head[3], head[4], head[5], head[6]
        );
    }
    let root = rustix::process::getuid().is_root();
    let builds = builds();
    for (who, privileged) in [("privileged", true), ("unprivileged", false)] {
        if privileged && !root {
            println!("  skipped: privileged: not root");
            continue;
        }
        for (what, dirty) in [("idle", 0), ("changing 100 MB", 100)] {
            let mut all: Vec<Figures> = builds.iter().map(|_| Figures::default()).collect();
            for _ in 0..TURNS {
                for (build, figures) in builds.iter().zip(&mut all) {
                    one(build, rounds.div_ceil(TURNS), dirty, root && !privileged, figures);
                }
            }
            for (build, figures) in builds.iter().zip(&all) {
                let who =
                    if builds.len() > 1 { format!("{who}, {what}, {}", build.name) } else { format!("{who}, {what}") };
                let Figures { frozen, silent, otherwise, megabytes, durable, loaded, restored } = figures;
                println!(
                    "  {who:<42} {frozen:>21.1} {silent:>21.1} {:>9.1} {megabytes:>22.2} {durable:>19.0} {loaded:>17.0} {restored:>17.0}",
                    otherwise.max()
                );
            }
        }
    }
}

#[derive(Default)]
struct Figures {
    /// The longest silence at each checkpoint, until the manager knew that the guest runs on.
    frozen: Sample,
    /// The same until the checkpoint was durable: QEMU copies pages before the guest changes them, and the computer is
    /// busy.
    silent: Sample,
    otherwise: Sample,
    /// What it takes on the disk, but for a template that is there anyway.
    megabytes: Sample,
    durable: Sample,
    /// Until QEMU has the state. What follows is the guest agent's answer.
    loaded: Sample,
    restored: Sample,
}

/// When a checkpoint was begun, when its guest ran on, and when it was durable.
struct Checkpoint {
    begun: Instant,
    runs_on: Instant,
    durable: Instant,
}

fn one(build: &Build, rounds: usize, dirty_mb: u32, as_nobody: bool, figures: &mut Figures) {
    let den = Den::new();
    let program = guest::program("heartbeat", Bits::B64);
    let args = [LONG, &dirty_mb.to_string(), "/dev/virtio-ports/org.vmtask.files.0"];
    let task = TaskToml::new("heartbeat", &program, &args).checkpoints(&format!("{EVERY_MS}ms")).write(&den);
    let dir = den.path().join("task");
    let mut prepared = den.vmtask_at(&build.binary);
    if as_nobody {
        prepared = for_nobody(&den, &prepared);
    }
    let start = || Run::start_by(again(&prepared), &task, &dir);

    let mut run = start();
    run.await_phase("running");
    let over = Arc::new(AtomicBool::new(false));
    let listener = {
        let (socket, over) = (dir.join("vm/run/files"), Arc::clone(&over));
        thread::spawn(move || beats(&socket, &over))
    };
    let mut next = 0;
    for _ in 0..rounds {
        let said = run.hear(next, |said| said.checkpoint().is_some());
        let (at, said) = said.expect("a checkpoint");
        next = at + 1;
        let file = dir.join(format!("vm/checkpoints/{}.ram", said.checkpoint().expect("a number")));
        figures.megabytes.add(std::fs::metadata(&file).expect("its file").len() as f64 / 1e6);
    }
    over.store(true, Ordering::SeqCst);
    let beats = listener.join().expect("the listener");
    let checkpoints = checkpoints(&run.said());
    figures.take(&beats, &checkpoints);

    // Killed and restored, as often.
    for _ in 0..rounds {
        drop(run);
        run = start();
        run.await_phase("running");
        let said = run.said();
        let phase = |phase: &str| said.iter().find(|said| said.phase() == Some(phase)).expect("a phase").at;
        let since = |later: &str| (phase(later) - phase("provisioning")).as_secs_f64() * 1000.0;
        figures.loaded.add(since("powering_on"));
        figures.restored.add(since("running"));
    }
}

impl Figures {
    fn take(&mut self, beats: &[Instant], checkpoints: &[Checkpoint]) {
        let ms = |pair: &[Instant]| (pair[1] - pair[0]).as_secs_f64() * 1000.0;
        let longest = |from: Instant, to: Instant| {
            beats.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to).map(ms).fold(0.0, f64::max)
        };
        let last = beats.last().copied();
        for checkpoint in checkpoints {
            self.durable.add((checkpoint.durable - checkpoint.begun).as_secs_f64() * 1000.0);
            if last.is_some_and(|last| checkpoint.durable < last) {
                self.frozen.add(longest(checkpoint.begun, checkpoint.runs_on));
                self.silent.add(longest(checkpoint.begun, checkpoint.durable));
            }
        }
        for pair in beats.windows(2) {
            if !checkpoints.iter().any(|checkpoint| pair[1] >= checkpoint.begun && pair[0] <= checkpoint.durable) {
                self.otherwise.add(ms(pair));
            }
        }
    }
}

/// A command like that: one can be started once only.
fn again(like: &Command) -> Command {
    let mut command = Command::new(like.get_program());
    command.args(like.get_args());
    if let Some(dir) = like.get_current_dir() {
        command.current_dir(dir);
    }
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn checkpoints(all: &[Said]) -> Vec<Checkpoint> {
    let mut found = Vec::new();
    let (mut begun, mut runs_on) = (None, None);
    for said in all {
        match said.phase() {
            // Reports come a moment after what they tell.
            Some("beginning_snapshot") => begun = Some(said.at - Duration::from_millis(20)),
            Some("committing") => runs_on = Some(said.at),
            _ => {}
        }
        if said.checkpoint().is_some()
            && let (Some(begun), Some(runs_on)) = (begun.take(), runs_on.take())
        {
            found.push(Checkpoint { begun, runs_on, durable: said.at });
        }
    }
    found
}

/// When the guest was heard.
fn beats(socket: &Path, over: &AtomicBool) -> Vec<Instant> {
    let mut stream = wait::until("the guest's byte stream", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit on a socket");
    let (mut heard, mut bytes) = (Vec::new(), [0; 4096]);
    while !over.load(Ordering::SeqCst) {
        if stream.read(&mut bytes).is_ok_and(|count| count > 0) {
            heard.push(Instant::now());
        }
    }
    heard
}

/// The same as another user without any privilege, in the same den, with platforms and templates of its own.
fn for_nobody(den: &Den, like: &Command) -> Command {
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status().expect("run a command");
        assert!(status.success(), "{program} {args:?}: {status}");
    };
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let (own, shared, binary) = (path(&den.data()), path(&real::shared_data()), path(&den.path().join("vmtask")));
    run("rm", &["-rf", &format!("{own}/alt_platforms"), &format!("{own}/cache")]);
    run("cp", &["-r", &format!("{shared}/alt_platforms"), &own]);
    run("cp", &[&path(Path::new(like.get_program())), &binary]);
    run("cp", &["-r", &path(&real::home().join("guest-programs")), &path(&den.path().join("programs"))]);
    run("chown", &["-R", "65534:65534", &path(den.path())]);
    // The program is an input, and the tests' own directory may be closed to others.
    let task = den.path().join("heartbeat.toml");
    let text = std::fs::read_to_string(&task).expect("the task file");
    let programs = path(&real::home().join("guest-programs"));
    std::fs::write(&task, text.replace(&programs, &path(&den.path().join("programs")))).expect("the task file");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", &binary]);
    command.current_dir(den.path());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
