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
use vmtask_tests::run::{Run, TaskToml};
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
            let (pauses, otherwise) = one(rounds, dirty, root && !privileged);
            println!("  {:<44} {pauses:>24.1} {:>22.1}", format!("{who}, {what}"), otherwise.max());
        }
    }
}

/// The silences around each checkpoint, and between them.
fn one(rounds: usize, dirty_mb: u32, as_nobody: bool) -> (Sample, Sample) {
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

    let mut windows: Vec<(Instant, Instant)> = Vec::new();
    let mut begun = None;
    for said in &done.said {
        if said.phase() == Some("beginning_snapshot") {
            begun = Some(said.at);
        }
        if said.checkpoint().is_some()
            && let Some(begun) = begun.take()
        {
            // Reports come a moment after what they tell.
            windows.push((begun - Duration::from_millis(20), said.at));
        }
    }
    let ms = |pair: &[Instant]| (pair[1] - pair[0]).as_secs_f64() * 1000.0;
    let (last, mut pauses, mut otherwise) = (beats.last().copied(), Sample::default(), Sample::default());
    for window in windows.iter().filter(|(_, to)| last.is_some_and(|last| *to < last)) {
        let within = beats.windows(2).filter(|pair| pair[1] >= window.0 && pair[0] <= window.1);
        pauses.add(within.map(ms).fold(0.0, f64::max));
    }
    for pair in beats.windows(2) {
        if !windows.iter().any(|window| pair[1] >= window.0 && pair[0] <= window.1) {
            otherwise.add(ms(pair));
        }
    }
    (pauses, otherwise)
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
