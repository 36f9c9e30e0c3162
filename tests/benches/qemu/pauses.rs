//! How long a checkpoint holds the guest, as seen from outside: heartbeats of its program that fail to come.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmtask_tests::guest::{self, Bits};
use vmtask_tests::real::{self, Den};
use vmtask_tests::run::{Finished, Run, TaskToml};
use vmtask_tests::stats::Sample;
use vmtask_tests::wait;

const EVERY_MS: u64 = 1500;

pub(crate) fn measure(rounds: usize) {
    println!(
        "\nLongest silence of a guest of 256 MB around a checkpoint, in milliseconds; it beats once a millisecond"
    );
    println!("  {:<44} {:>24} {:>22}", "", "during checkpoints", "silence otherwise, max");
    let root = rustix::process::getuid().is_root();
    for (who, privileged) in [("privileged", true), ("unprivileged", false)] {
        if privileged && !root {
            println!("  skipped: privileged: not root");
            continue;
        }
        for (what, dirty) in [("idle", 0), ("a program changing 100 MB", 100)] {
            let Silences { frozen, durable, otherwise } = one(rounds, dirty, root && !privileged);
            let who = format!("{who}, {what}");
            println!("  {who:<40} {frozen:>22.1} {durable:>22.1} {:>16.1}", otherwise.max());
        }
    }
}

/// The longest silence at each checkpoint, and all between them.
#[derive(Default)]
struct Silences {
    /// Until the manager knew that the guest runs on.
    frozen: Sample,
    /// Until the checkpoint was durable: QEMU copies pages before the guest changes them, and the computer is busy.
    durable: Sample,
    otherwise: Sample,
}

/// When a checkpoint was begun, when its guest ran on, and when it was durable.
struct Checkpoint {
    begun: Instant,
    runs_on: Instant,
    durable: Instant,
}

fn one(rounds: usize, dirty_mb: u32, as_nobody: bool) -> Silences {
    let den = Den::new();
    let seconds = (rounds as u64 * (EVERY_MS + 1500)).div_ceil(1000);
    let program = guest::program("heartbeat", Bits::B64);
    let args = [&seconds.to_string(), &dirty_mb.to_string(), "/dev/virtio-ports/org.vmtask.files.0"];
    let task = TaskToml::new("heartbeat", &program, &args).checkpoints(&format!("{EVERY_MS}ms")).write(&den);
    let dir = den.path().join("task");
    let mut command = den.vmtask();
    if as_nobody {
        command = for_nobody(&den, &command);
    }
    let run = Run::start_by(command, &task, &dir);
    run.await_phase("running");
    let over = Arc::new(AtomicBool::new(false));
    let listener = {
        let (socket, over) = (dir.join("vm/run/files"), Arc::clone(&over));
        thread::spawn(move || beats(&socket, &over))
    };
    // The stream is wanted for the outputs next.
    let _ = run.hear(0, |said| said.phase() == Some("copying_out"));
    over.store(true, Ordering::SeqCst);
    let done = run.finish().expect(0);
    let beats = listener.join().expect("the listener");

    let checkpoints = checkpoints(&done);
    let ms = |pair: &[Instant]| (pair[1] - pair[0]).as_secs_f64() * 1000.0;
    let longest = |from: Instant, to: Instant| {
        beats.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to).map(ms).fold(0.0, f64::max)
    };
    let (last, mut silences) = (beats.last().copied(), Silences::default());
    for checkpoint in checkpoints.iter().filter(|checkpoint| last.is_some_and(|last| checkpoint.durable < last)) {
        silences.frozen.add(longest(checkpoint.begun, checkpoint.runs_on));
        silences.durable.add(longest(checkpoint.begun, checkpoint.durable));
    }
    for pair in beats.windows(2) {
        if !checkpoints.iter().any(|checkpoint| pair[1] >= checkpoint.begun && pair[0] <= checkpoint.durable) {
            silences.otherwise.add(ms(pair));
        }
    }
    silences
}

fn checkpoints(done: &Finished) -> Vec<Checkpoint> {
    let mut found = Vec::new();
    let (mut begun, mut runs_on) = (None, None);
    for said in &done.said {
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
    run("cp", &[&path(&real::vmtask()), &binary]);
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
