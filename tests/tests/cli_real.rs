//! `vmtask run` from end to end, with real QEMU: signals, two managers, foreign journals, and whatever a guest, a disk
//! or a connection may do to it.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rstest::rstest;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use vmtask_tests::guest::{self, Bits};
use vmtask_tests::real::{self, Den};
use vmtask_tests::run::{Finished, Run, TaskToml, wall_ms};
use vmtask_tests::wait;

const STEPS: &str = "500";
const LOCKED: i32 = 216;
const STOPPED: i32 = 217;
const TASK_DIR: i32 = 215;
const FAILED: i32 = 218;

/// A computation of some ten seconds, and what it must give.
struct Computation {
    den: Den,
    task: PathBuf,
    dir: PathBuf,
    expected: Vec<u8>,
}

impl Computation {
    fn new(checkpoints: &str) -> Self {
        Self::in_dir(checkpoints, |den| den.path().join("task"))
    }

    fn in_dir(checkpoints: &str, dir: impl FnOnce(&Den) -> PathBuf) -> Self {
        let den = Den::new();
        let input = den.path().join("input");
        fs::write(&input, "27 18 28 18 28 45 90 45").expect("write the input");
        let program = guest::program("counter", Bits::B64);
        let alone = Command::new(&program)
            .arg(&input)
            .args([STEPS, "0", "expected", "expected-steps"])
            .current_dir(den.path())
            .status()
            .expect("run the program by itself");
        assert!(alone.success(), "the program by itself: {alone}");
        let task = TaskToml::new("computation", &program, &["input", STEPS, "20", "result", "steps", "progress"])
            .input(&input, "input")
            .output("result")
            .output("steps")
            .program_with("progress = \"progress\"")
            .checkpoints(checkpoints)
            .write(&den);
        let dir = dir(&den);
        let expected = fs::read(den.path().join("expected")).expect("the expected result");
        Self { den, task, dir, expected }
    }

    fn start(&self) -> Run {
        Run::start(&self.den, &self.task, &self.dir)
    }

    #[track_caller]
    fn assert_right(&self, done: Finished) -> Finished {
        let done = done.expect(0);
        assert!(done.output("result") == self.expected, "another result\n{}", done.story());
        let left = self.den.leftovers(&self.dir);
        assert!(left.is_empty(), "left behind: {left:?}");
        done
    }
}

/// When each step was made for the last time, in milliseconds since 1970.
fn steps(done: &Finished) -> Vec<i64> {
    let log = String::from_utf8(done.output("steps")).expect("a log in ASCII");
    log.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
}

#[test]
fn sigint_saves_a_checkpoint_and_the_next_run_goes_on_there() {
    if !real::wanted() {
        return;
    }
    let computation = Computation::new("1h");
    let run = computation.start();
    run.hear(0, |said| said.line["report"]["progress"]["permille"].as_u64().is_some_and(|permille| permille > 100));
    run.signal(Signal::INT);
    let stopped = run.finish().expect(STOPPED);
    assert_eq!(stopped.result()["outcome"], "stopped");
    let listed = computation.den.vms();
    assert!(listed.is_empty(), "{listed}");
    let stopped_at = wall_ms();

    let done = computation.assert_right(computation.start().finish());
    let (before, after): (Vec<i64>, Vec<i64>) = steps(&done).into_iter().partition(|time| *time <= stopped_at);
    // A tenth of it had been reported done, and none of that was done again.
    assert!(before.len() >= 50, "{} steps from before, {} after", before.len(), after.len());
    assert!(!after.is_empty());
}

#[test]
fn a_second_sigint_stops_at_once_and_the_task_goes_on_from_its_last_checkpoint() {
    if !real::wanted() {
        return;
    }
    let computation = Computation::new("500ms");
    let mut run = computation.start();
    run.await_checkpoint();
    let stopped_at = wall_ms();
    // Two at once would be one: some shells send it to the process and to its group.
    wait::until("vmtask to stop at once", || {
        run.signal(Signal::INT);
        run.has_ended().then_some(())
    });
    let _ = run.finish().expect(STOPPED);
    let done = computation.assert_right(computation.start().finish());
    assert!(steps(&done)[0] <= stopped_at, "it began anew");
}

#[test]
fn a_second_manager_in_the_same_directory_refuses() {
    if !real::wanted() {
        return;
    }
    let computation = Computation::new("off");
    let first = computation.start();
    first.await_phase("running");
    let second = computation.start().finish().expect(LOCKED);
    let pid = first.manager().expect("the first manager").pid.to_string();
    assert!(second.stderr.contains("in use") && second.stderr.contains(&pid), "{}", second.stderr);
    let _ = computation.assert_right(first.finish());
}

#[test]
fn a_journal_from_another_tasks_directory_is_refused_in_clear_words() {
    if !real::wanted() {
        return;
    }
    let (here, there) = (Computation::new("500ms"), Computation::new("500ms"));
    for computation in [&here, &there] {
        let run = computation.start();
        run.await_checkpoint();
        run.signal(Signal::KILL);
        let _ = run.finish();
    }
    let kept = fs::read(here.dir.join("journal")).expect("a journal");
    fs::copy(there.dir.join("journal"), here.dir.join("journal")).expect("put the other journal in place");
    let refused = here.start().finish().expect(TASK_DIR);
    assert!(refused.stderr.contains("belongs to another task's directory"), "{}", refused.stderr);
    // Nothing was lost by that: with its own journal it goes on.
    fs::write(here.dir.join("journal"), kept).expect("put the journal back");
    let _ = here.assert_right(here.start().finish());
}

#[test]
fn a_directory_from_another_computer_is_refused_in_clear_words() {
    if !real::wanted() {
        return;
    }
    let computation = Computation::new("500ms");
    let run = computation.start();
    run.await_checkpoint();
    run.signal(Signal::KILL);
    let _ = run.finish();
    let marker = computation.dir.join("task.json");
    let text = fs::read_to_string(&marker).expect("the marker");
    let mut moved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    moved["host"] = "another".into();
    fs::write(&marker, moved.to_string()).expect("write the marker");
    let refused = computation.start().finish().expect(TASK_DIR);
    assert!(refused.stderr.contains("another computer"), "{}", refused.stderr);
    fs::write(&marker, text).expect("write the marker");
    let _ = computation.assert_right(computation.start().finish());
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Self {
        fs::create_dir(at).expect("make a mount point");
        let size = format!("size={mib}m");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status().expect("run mount");
        assert!(status.success(), "mount: {status}");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_costs_checkpoints_and_nothing_else() {
    if !real::wanted() {
        return;
    }
    if !rustix::process::getuid().is_root() {
        real::note("not as this user: only root may mount the small disk that this needs");
        return;
    }
    let computation = Computation::in_dir("500ms", |den| den.path().join("small/task"));
    let small = SmallDisk::mount(&computation.den.path().join("small"), 500);
    let run = computation.start();
    run.await_checkpoint();
    let ballast = small.0.join("ballast");
    let mut heavy = fs::File::create(&ballast).expect("create the ballast");
    let skipped = |said: &vmtask_tests::run::Said| {
        // Until nothing more goes in, and again whenever a checkpoint that was deleted has made room for the next.
        let _ = heavy.write_all(&vec![1; 500 << 20]);
        said.line["report"]["notice"]["checkpoint_skipped"].is_object()
    };
    assert!(run.hear(0, skipped).is_some(), "no checkpoint was skipped: {:?}", run.said());
    drop(heavy);
    // The one before still stands: the manager dies now, and the task goes on from there.
    let killed_at = wall_ms();
    run.signal(Signal::KILL);
    let _ = run.finish();
    vmtask_tests::procs::await_no_qemu(computation.den.path());
    fs::remove_file(&ballast).expect("make room");
    let done = computation.assert_right(computation.start().finish());
    assert!(steps(&done)[0] <= killed_at, "it began anew");
}

/// Cuts the manager's connections to one of the machine's sockets, without telling either end.
fn cut(run: &Run, channel: &str) -> usize {
    let manager = run.manager().expect("the manager");
    let pid = rustix::process::Pid::from_raw(i32::try_from(manager.pid).expect("a process number")).expect("a process");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor for the manager");
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", manager.pid)).expect("its descriptors").flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Descriptors come and go meanwhile.
        let Ok(fd) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) else { continue };
        let Ok(Some(peer)) = rustix::net::getpeername(&fd) else { continue };
        let Ok(peer) = rustix::net::SocketAddrUnix::try_from(peer) else { continue };
        let name = peer.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(&format!("/{channel}")) && rustix::net::shutdown(&fd, rustix::net::Shutdown::Both).is_ok() {
            count += 1;
        }
    }
    count
}

#[rstest]
#[case::the_agents("agent")]
#[case::qmp("qmp")]
#[case::the_nudges("events")]
fn a_connection_that_is_cut_changes_nothing_in_the_result(#[case] channel: &str) {
    if !real::wanted() {
        return;
    }
    let computation = Computation::new("500ms");
    let run = computation.start();
    run.await_phase("running");
    // Some are open only while they are needed.
    wait::until("a connection to cut", || (cut(&run, channel) > 0).then_some(()));
    let _ = run.hear(0, |said| said.checkpoint().is_some());
    let _ = cut(&run, channel);
    let _ = computation.assert_right(run.finish());
}

#[test]
fn a_stopped_emulator_that_is_continued_changes_nothing_in_the_result() {
    if !real::wanted() {
        return;
    }
    let computation = Computation::new("500ms");
    let run = computation.start();
    run.await_checkpoint();
    let qemu = run.qemu().expect("QEMU");
    qemu.signal(Signal::STOP);
    // Nothing can be awaited of a stopped process: some time has to pass.
    thread::sleep(Duration::from_secs(3));
    qemu.signal(Signal::CONT);
    let _ = computation.assert_right(run.finish());
}

/// Runs a task that behaves in some way, to its end.
fn behave(args: &[&str], change: impl FnOnce(TaskToml) -> TaskToml) -> (Den, Finished) {
    let den = Den::new();
    let program = guest::program("behave", Bits::B64);
    let task = change(TaskToml::new("behave", &program, args).checkpoints("off")).write(&den);
    let dir = den.path().join("task");
    let done = Run::start(&den, &task, &dir).finish();
    assert!(den.vms().is_empty(), "{}", den.vms());
    (den, done)
}

#[test]
fn an_agent_that_the_program_kills_is_revived() {
    if !real::wanted() {
        return;
    }
    let (_den, done) = behave(&["kill-agent"], |task| task);
    assert_eq!(done.expect(0).output("stdout.txt"), b"out: kill-agent\n");
}

#[test]
fn a_guest_that_fills_its_disk_still_delivers() {
    if !real::wanted() {
        return;
    }
    let (_den, done) = behave(&["fill-disk", "report"], |task| task.output("report"));
    assert_eq!(done.expect(0).output("report"), b"filled it\n");
}

#[test]
fn a_program_that_fills_the_memory_is_killed_and_its_words_are_kept() {
    if !real::wanted() {
        return;
    }
    let (_den, done) = behave(&["fill-memory"], |task| task);
    let done = done.expect(128 + 9);
    assert_eq!(done.result()["exit"]["signal"], 9);
    assert_eq!(done.output("stderr.txt"), b"err: fill-memory\n");
}

#[test]
fn an_output_larger_than_the_limit_fails_the_task_and_leaves_nothing_half() {
    if !real::wanted() {
        return;
    }
    let (_den, done) =
        behave(&["write", "large", "3"], |task| task.output("large").with("[limits]\noutput = \"1MiB\"\n"));
    let done = done.expect(FAILED);
    assert!(
        done.stderr.contains("large") || done.result()["summary"].to_string().contains("large"),
        "{}",
        done.story()
    );
    let results = done.dir.join("results");
    let names: Vec<_> = real::files_below(&results)
        .into_iter()
        .filter_map(|path| path.strip_prefix(&results).ok().map(Path::to_owned))
        .collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("large")), "{names:?}");
}

#[test]
fn a_large_output_arrives_whole() {
    if !real::wanted() {
        return;
    }
    let (den, done) = behave(&["write", "large", "40"], |task| task.output("large"));
    let done = done.expect(0);
    let alone = Command::new(guest::program("behave", Bits::B64))
        .args(["write", "alone", "40"])
        .current_dir(den.path())
        .output()
        .expect("run the program by itself");
    assert!(alone.status.success());
    assert!(done.output("large") == fs::read(den.path().join("alone")).expect("the same by itself"));
}

#[test]
fn an_output_that_is_a_link_is_not_followed() {
    if !real::wanted() {
        return;
    }
    let (_den, done) = behave(&["link", "secret", "/etc/passwd"], |task| task.output("secret"));
    let done = done.expect(FAILED);
    assert!(!done.dir.join("results/secret").exists(), "{}", done.story());
    assert!(done.story().contains("secret"), "{}", done.story());
}

#[test]
fn results_that_lead_out_of_the_directory_are_not_followed() {
    if !real::wanted() {
        return;
    }
    let den = Den::new();
    let program = guest::program("behave", Bits::B64);
    let task = TaskToml::new("links", &program, &["exit", "0"])
        .output_as("stdout.txt", "below/said.txt")
        .checkpoints("off")
        .write(&den);
    let (dir, outside) = (den.path().join("task"), den.path().join("outside"));
    fs::create_dir(&outside).expect("make a directory");
    // The task begins, and somebody puts a link where its results are to go.
    let run = Run::start(&den, &task, &dir);
    let results = dir.join("results");
    wait::until("the results' directory", || results.is_dir().then_some(()));
    std::os::unix::fs::symlink(&outside, results.join("below")).expect("make a link");
    let done = run.finish().expect(FAILED);
    assert!(real::files_below(&outside).is_empty(), "a result was written through a link\n{}", done.story());
    assert!(done.story().contains("below"), "{}", done.story());
}

#[test]
fn a_program_that_dies_half_way_leaves_what_it_wrote_and_says_how_it_died() {
    if !real::wanted() {
        return;
    }
    let (_den, done) = behave(&["half", "partial"], |task| task.output("partial"));
    let done = done.expect(128 + 9);
    assert_eq!(done.output("partial"), b"the first half, ");
    assert_eq!(done.result()["exit"]["signal"], 9);
}

#[test]
fn a_task_of_the_32_bit_platform_sees_its_machine() {
    if !real::wanted() {
        return;
    }
    let den = Den::new();
    let task = TaskToml::of_guest("uname", "/bin/uname", &["-m"]).on(real::PLATFORM_32).checkpoints("off").write(&den);
    let done = Run::start(&den, &task, &den.path().join("task")).finish().expect(0);
    assert_eq!(done.output("stdout.txt"), b"i686\n");
}

#[rstest]
#[case::not_unicode(b"caf\xe9", false)]
#[case::comma(b"a,,b=c", true)]
#[case::space(b" a b ", true)]
#[case::new_line(b"a\nb\"\\", true)]
#[case::long(&[b'd'; 200], true)]
fn a_task_runs_where_directories_have_any_names(#[case] name: &[u8], #[case] disk: bool) {
    use std::os::unix::ffi::OsStrExt;
    if !real::wanted() {
        return;
    }
    let den = Den::new();
    let dir = den.path().join([std::ffi::OsStr::from_bytes(name); 3].iter().collect::<PathBuf>());
    // The platform and its templates are known by such names too.
    fs::create_dir_all(dir.join("data")).expect("make the directories");
    for borrowed in ["alt_platforms", "cache"] {
        std::os::unix::fs::symlink(den.data().join(borrowed), dir.join("data").join(borrowed)).expect("borrow");
    }
    let run = |task: &TaskToml| {
        fs::write(dir.join("t.toml"), task.text()).expect("write the task file");
        let mut vmtask = den.vmtask();
        vmtask.args(["run", "t.toml"]).current_dir(&dir).env("VMTASK_DATA_DIR", dir.join("data"));
        let output = vmtask.output().expect("run vmtask");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let task = TaskToml::of_guest("t", "/bin/sh", &["-c", "echo hi >out"]).output("out");
    let on_disk = task.clone().with("[limits]\ndisk = \"64 MiB\"\n");
    if !disk {
        let (code, stderr) = run(&on_disk);
        assert!(code == Some(215) && stderr.contains("no UTF-8 text"), "{code:?}: {stderr}");
        assert!(!dir.join("t.vmtask/vm").exists(), "something was begun: {stderr}");
        fs::remove_dir_all(dir.join("t.vmtask")).expect("remove the task's directory");
    }
    let (code, stderr) = run(if disk { &on_disk } else { &task });
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(fs::read_to_string(dir.join("t.vmtask/results/out")).expect("the output"), "hi\n");
}

#[test]
fn a_limit_on_the_size_of_files_below_the_guests_memory_is_refused_in_clear_words() {
    if !real::wanted() {
        return;
    }
    let den = Den::new();
    let task = TaskToml::of_guest("t", "/bin/true", &[]).write(&den);
    let vmtask = den.vmtask();
    let mut limited = Command::new("/bin/bash");
    limited.args(["-c", "ulimit -f 20000; exec \"$0\" run \"$1\""]).arg(vmtask.get_program()).arg(&task);
    limited.current_dir(den.path()).envs(vmtask.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().expect("run vmtask");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(220), "{:?}: {stderr}", output.status);
    assert!(stderr.contains("ulimit -f"), "{stderr}");
    assert!(!den.path().join("t.vmtask").exists(), "something was begun: {stderr}");
}
