//! The kept agent as an ordinary program on this host, over its standard streams.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use vmtask_guest::{AGENT, Cause, Client, End, Exit, GuestError, Launch, NotRegular, Phase, Put, Words};

/// Both directions.
struct Pipes(ChildStdin, ChildStdout);

impl Read for Pipes {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.1.read(bytes)
    }
}

impl Write for Pipes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

struct Guest {
    dir: tempfile::TempDir,
    agent: Child,
    client: Client<Pipes, fn() -> bool>,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("agent");
        std::fs::write(&program, AGENT).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let work = dir.path().canonicalize().unwrap().join("work");
        let mut command = Command::new(&program);
        command.arg(&work).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Another test may be between its fork and its exec, with this file still open for writing.
        let mut agent = loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                spawned => break spawned.unwrap(),
            }
        };
        let pipes = Pipes(agent.stdin.take().unwrap(), agent.stdout.take().unwrap());
        let mut client = Client::new(pipes, (|| true) as fn() -> bool);
        client.greet(1).unwrap();
        assert!(client.make_workdir(false).unwrap() > 0);
        Self { dir, agent, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    fn put(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), GuestError> {
        let file = Put { name: name.as_bytes(), mode, size: content.len() as u64, content };
        self.client.put_all([file], |_| {})
    }

    fn get(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
        let mut content = Vec::new();
        let got = self.client.get(name.as_bytes(), limit, &mut content, |_, _| {})?;
        assert_eq!(got.size, content.len() as u64);
        assert_eq!(got.sha256, <[u8; 32]>::from(Sha256::digest(&content)));
        Ok(content)
    }

    fn run(&mut self, script: &str) -> Exit {
        self.put("program", 0o755, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        let launch =
            Launch { program: b"program", stdout: b"out", stderr: b"out", progress: b"p", ..Launch::default() };
        self.client.launch(&launch).unwrap();
        let exit = self.client.wait_for_exit(|_| {}).unwrap();
        self.client.acknowledge().unwrap();
        exit
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn files_of_all_sizes_go_both_ways() {
    let mut guest = Guest::new();
    for size in [0, 1, 65_507, 65_508, 65_509, 3_000_000] {
        let bytes = content(size);
        guest.put("dir/f\n", 0o640, &bytes).unwrap();
        assert_eq!(std::fs::metadata(guest.path("dir/f\n")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(guest.get("dir/f\n", size as u64).unwrap() == bytes, "{size} bytes");
        if let Some(less) = size.checked_sub(1) {
            let error = guest.get("dir/f\n", less as u64).unwrap_err();
            assert_eq!(error.cause(), Some(Cause::TooBig(size as u64)));
        }
    }
}

#[test]
fn a_thousand_files_are_not_a_thousand_waits() {
    let mut guest = Guest::new();
    let names: Vec<_> = (0..1000).map(|number| format!("in/{number}")).collect();
    let files = names.iter().map(|name| Put {
        name: name.as_bytes(),
        mode: 0o644,
        size: name.len() as u64,
        content: name.as_bytes(),
    });
    let mut last = 0;
    guest.client.put_all(files, |sent| last = sent).unwrap();
    assert_eq!(last, names.iter().map(|name| name.len() as u64).sum());
    for name in &names {
        assert_eq!(std::fs::read_to_string(guest.path(name)).unwrap(), *name);
    }
}

#[test]
fn a_refused_file_is_not_sent_and_the_others_are_in_their_places() {
    let mut guest = Guest::new();
    // Reading from it would be an error: it must not come to that.
    let huge = Put { name: b"huge", mode: 0o644, size: u64::MAX, content: &b""[..] };
    let small = |name| Put { name, mode: 0o644, size: 1, content: &b"x"[..] };
    let error = guest.client.put_all([small(b"a"), huge, small(b"b")], |_| {}).unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::NoSpace(_))), "{error}");
    assert!(guest.path("a").exists() && !guest.path("huge").exists() && !guest.path("b").exists());
    guest.put("b", 0o644, b"x").unwrap();
    let error = guest.client.put_all([small(b"../a"), small(b"c")], |_| {}).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::BadName));
}

#[test]
fn an_input_that_ends_early_is_an_error_and_a_greeting_mends_it() {
    let mut guest = Guest::new();
    let short = Put { name: b"short", mode: 0o644, size: 10, content: &b"12345"[..] };
    let error = guest.client.put_all([short], |_| {}).unwrap_err();
    assert!(matches!(error, GuestError::Input { .. }), "{error}");
    guest.client.greet(2).unwrap();
    assert!(!guest.path("short").exists());
    assert_eq!(std::fs::read_dir(guest.path("")).unwrap().count(), 0);
    guest.put("short", 0o644, b"12345").unwrap();
}

#[test]
fn what_is_no_regular_file_says_what_it_is() {
    let mut guest = Guest::new();
    guest.put("dir/file", 0o644, b"12345").unwrap();
    symlink("dir/file", guest.path("link")).unwrap();
    symlink("none", guest.path("dead")).unwrap();
    symlink("/etc/passwd", guest.path("out")).unwrap();
    assert_eq!(guest.get("link", 5).unwrap(), b"12345");
    for (name, cause) in [
        ("dir", Cause::Not(NotRegular::Directory)),
        ("dead", Cause::Not(NotRegular::DeadLink)),
        ("out", Cause::Outside),
        ("none", Cause::NoFile),
    ] {
        assert_eq!(guest.get(name, 5).unwrap_err().cause(), Some(cause), "{name}");
    }
}

#[test]
fn an_exit_code_is_told_apart_from_a_signal() {
    for (script, end) in [
        ("exit 0", End::Code(0)),
        ("exit 130", End::Code(130)),
        ("exit 139", End::Code(139)),
        ("kill -INT $$", End::Signal(2)),
        ("kill -SEGV $$", End::Signal(11)),
        ("kill -PIPE $$", End::Signal(13)),
    ] {
        assert_eq!(Guest::new().run(script).end, end, "{script}");
    }
}

#[test]
fn what_is_left_behind_is_killed_and_counted() {
    let mut guest = Guest::new();
    let exit = guest.run("sleep 1000 & setsid sleep 1000 & echo left");
    assert_eq!(exit, Exit { end: End::Code(0), left_behind: 2, killed_for_memory: 0, workdir_full: false });
    assert_eq!(vmtask_guest::remarks(&exit).len(), 1);
    assert_eq!(guest.get("out", 99).unwrap(), b"left\n");
    let again = guest.client.launch(&Launch { program: b"program", ..Launch::default() });
    assert_eq!(again.unwrap_err().cause(), Some(Cause::AlreadyLaunched));
    let Phase::Exited(status) = guest.client.status().unwrap().phase else { panic!("not exited") };
    assert_eq!(status, exit);
}

#[test]
fn progress_is_pushed_and_a_held_program_stands_still() {
    let mut guest = Guest::new();
    guest
        .put("program", 0o755, b"#!/bin/sh\necho \"$1\" >p; read line <first; echo 0.75 >p; read line <second\n")
        .unwrap();
    // Two, for who opens one again too early meets the end of what was written first.
    assert!(Command::new("mkfifo").args([guest.path("first"), guest.path("second")]).status().unwrap().success());
    let launch = Launch { program: b"program", progress: b"p", arguments: Words::new(&[b"0.25"]), ..Launch::default() };
    guest.client.launch(&launch).unwrap();
    guest.client.watch(Duration::from_millis(50)).unwrap();
    while guest.client.next_state().unwrap().progress.as_bytes() != b"0.25" {}
    guest.client.hold(true).unwrap();
    assert!(guest.client.status().unwrap().held);
    guest.client.hold(false).unwrap();
    std::fs::write(guest.path("first"), "\n").unwrap();
    let mut last = Vec::new();
    while last != b"0.75" {
        last = guest.client.next_state().unwrap().progress.as_bytes().to_vec();
    }
    std::fs::write(guest.path("second"), "\n").unwrap();
    assert_eq!(guest.client.wait_for_exit(|_| {}).unwrap().end, End::Code(0));
}

#[test]
fn a_program_that_cannot_be_started_says_why_in_one_sentence() {
    let mut guest = Guest::new();
    for (mode, content, why) in [
        (0o755, &b""[..], "is empty"),
        (0o644, b"#!/bin/sh\n", "may not be executed"),
        (0o755, b"#!/no/such\n", "needs '/no/such', which is not in the guest"),
        (0o755, b"#!/bin/sh\r\n", "ends as on Windows (CR LF)"),
        (0o755, b"text", "neither a Linux program nor a script"),
        (0o755, &AGENT[..1000], "was cut off"),
    ] {
        guest.put("program", mode, content).unwrap();
        let error = guest.client.launch(&Launch { program: b"program", ..Launch::default() }).unwrap_err().to_string();
        assert!(error.contains(why) && error.starts_with("'program' "), "{error}");
    }
    assert_eq!(guest.run("exit 3").end, End::Code(3), "a refused launch started nothing");
}

#[test]
fn the_system_of_others_is_left_alone() {
    let mut guest = Guest::new();
    guest.client.prepare(SystemTime::UNIX_EPOCH, b"seed").unwrap();
    assert!(SystemTime::now() > SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    assert_eq!(guest.client.settle().unwrap_err().cause(), Some(Cause::Kernel(1)));
    assert_eq!(guest.client.power_off().unwrap_err().cause(), Some(Cause::Kernel(1)));
}
