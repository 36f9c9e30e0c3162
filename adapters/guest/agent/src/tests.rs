//! What touches the kernel, on the host's: files, programs and the reasons why they do not start.

#![allow(clippy::result_large_err)]

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::{self, Kind, Refusal, Work};
use crate::incoming::{Incoming, PutError};
use crate::launch::{self, LaunchError, Order, Stream};
use crate::program::{Family, Lists};
use crate::sys::{self, End, Errno, Pid, Which};
use crate::turn::{Session, Turn};

/// A working directory of one test's own.
struct Scratch {
    dir: PathBuf,
    work: Work,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("vmtask-agent-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).expect("a directory");
        let dir = dir.canonicalize().expect("its name");
        let work = Work::new(&CString::new(dir.as_os_str().as_bytes()).expect("no NUL")).expect("short");
        Self { dir, work }
    }

    fn put(&self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), PutError> {
        let mut file = Incoming::new(&self.work, name.as_bytes(), bytes.len() as u64, mode)?;
        for piece in bytes.chunks(1000) {
            file.write(piece)?;
        }
        file.finish()
    }

    fn find(&self, name: &str) -> Result<u64, Refusal> {
        files::find(&self.work, name.as_bytes()).map(|found| found.size)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn launch(&self, words: &[&str], linux32: bool) -> Result<Pid, LaunchError> {
        let mut lists = Box::new(Lists::new());
        for word in words {
            lists.arguments.push(&[word.as_bytes()])?;
        }
        launch::environment(&mut lists, self.work.path().as_c())?;
        let order =
            Order { program: words[0].as_bytes(), stdout: Some(b"logs/out"), stderr: Some(b"logs/out"), linux32 };
        launch::launch(&order, &self.work, Family::Children, &mut lists)
    }

    /// How a script ends, and what it wrote.
    fn run(&self, script: &str) -> (End, String) {
        self.put("program", 0o755, format!("#!/bin/sh\n{script}\n").as_bytes()).expect("put");
        let pid = self.launch(&["program"], false).expect("started");
        let (_, end) = sys::wait(Which::One(pid), true).expect("waited").expect("ended");
        (end, std::fs::read_to_string(self.path("logs/out")).expect("output"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_file_is_whole_in_its_place_or_not_there() {
    let scratch = Scratch::new("whole");
    scratch.put("a b/c\n/file", 0o640, &[7; 2500]).expect("put");
    let there = scratch.path("a b/c\n/file");
    assert_eq!(std::fs::read(&there).expect("there"), [7; 2500]);
    assert_eq!(std::fs::metadata(&there).expect("there").permissions().mode() & 0o7777, 0o640);

    let mut half = Incoming::new(&scratch.work, b"a b/c\n/file", 10, 0o644).expect("begun");
    half.write(b"half").expect("written");
    drop(half);
    assert_eq!(std::fs::read(&there).expect("there"), [7; 2500], "the one before stays");
    assert_eq!(names(&scratch.dir), ["a b"], "and nothing of the half one");

    let free = scratch.work.free().expect("known");
    let none = Incoming::new(&scratch.work, b"large", u64::MAX, 0o644).err();
    assert!(matches!(none, Some(PutError::NoSpace(said)) if said.abs_diff(free) < 1 << 30), "{none:?}");
}

#[test]
fn a_name_is_followed_inside_the_working_directory_and_no_further() {
    let scratch = Scratch::new("inside");
    scratch.put("dir/real", 0o644, b"12345").expect("put");
    symlink("real", scratch.path("dir/near")).expect("linked");
    symlink(scratch.path("dir/real"), scratch.path("absolute")).expect("linked");
    symlink("dir", scratch.path("way")).expect("linked");
    for name in ["dir/real", "dir/near", "absolute", "way/real", "way/near"] {
        assert_eq!(scratch.find(name), Ok(5), "{name}");
    }
    symlink("/etc/passwd", scratch.path("out")).expect("linked");
    symlink("/etc", scratch.path("etc")).expect("linked");
    symlink("none", scratch.path("dead")).expect("linked");
    symlink("circle", scratch.path("circle")).expect("linked");
    assert!(Command::new("mkfifo").arg(scratch.path("fifo")).status().expect("run").success());
    for (name, refusal) in [
        ("out", Refusal::Outside),
        ("etc/passwd", Refusal::Outside),
        ("etc", Refusal::Outside),
        ("dead", Refusal::Not(Kind::DeadLink)),
        ("circle", Refusal::Not(Kind::DeadLink)),
        ("dir", Refusal::Not(Kind::Directory)),
        ("fifo", Refusal::Not(Kind::Fifo)),
        ("none", Refusal::Nothing),
        ("dir/real/below", Refusal::Nothing),
    ] {
        assert_eq!(scratch.find(name), Err(refusal), "{name}");
    }
    assert_eq!(scratch.put("etc/vmtask", 0o644, b""), Err(PutError::Name(Refusal::Outside)));
    assert_eq!(scratch.put("etc/vmtask/deep", 0o644, b""), Err(PutError::Name(Refusal::Outside)));
    // A link is replaced, and what it leads to stays as it was.
    scratch.put("out", 0o644, b"mine").expect("put");
    assert_eq!(scratch.find("out"), Ok(4));
    // By its name alone a directory beside the working directory could pass for a part of it.
    let beside = PathBuf::from(format!("{}-beside", scratch.dir.display()));
    std::fs::create_dir(&beside).expect("made");
    std::fs::write(beside.join("file"), "x").expect("written");
    symlink(beside.join("file"), scratch.path("beside")).expect("linked");
    let found = scratch.find("beside");
    std::fs::remove_dir_all(&beside).expect("removed");
    assert_eq!(found, Err(Refusal::Outside));
}

#[test]
fn an_exit_code_is_told_apart_from_a_signal() {
    let scratch = Scratch::new("ends");
    for code in [0, 3, 130, 137, 139, 141, 255] {
        assert_eq!(scratch.run(&format!("exit {code}")).0, End::Code(code), "{code}");
    }
    for signal in [2, 9, 11, 13, 15, 64] {
        assert_eq!(scratch.run(&format!("kill -{signal} $$")).0, End::Signal(signal), "{signal}");
    }
}

#[test]
fn a_program_begins_with_what_it_is_given_and_nothing_of_the_agents() {
    let scratch = Scratch::new("begins");
    let dir = scratch.dir.display().to_string();
    let pid = scratch.launch(&["/usr/bin/env"], false).expect("started");
    sys::wait(Which::One(pid), true).expect("waited");
    let environment = std::fs::read_to_string(scratch.path("logs/out")).expect("output");
    let expected = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin\nHOME={dir}\nLANG=C\nLC_ALL=C\nTZ=UTC0\n");
    assert_eq!(environment, expected);

    // Not by a shell, which blocks signals of its own while it waits.
    let pid = scratch.launch(&["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], false).expect("started");
    sys::wait(Which::One(pid), true).expect("waited");
    let masks = std::fs::read_to_string(scratch.path("logs/out")).expect("output");
    assert_eq!(masks, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");

    let script = "pwd; ls -l /proc/$$/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p'; \
        echo $$ $(cut -d' ' -f5,6 /proc/$$/stat) >&2";
    let (end, text) = scratch.run(script);
    assert_eq!(end, End::Code(0), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], dir);
    assert!(text.contains("\n0 /dev/null\n"), "{text}");
    assert!(text.contains(&format!("\n2 {dir}/logs/out\n")), "{text}");
    let ids: Vec<_> = lines[lines.len() - 1].split(' ').collect();
    assert_eq!(ids, [ids[0]; 3], "leads its group and its session");
}

#[test]
fn what_keeps_a_program_from_starting_is_told_by_its_cause() {
    let scratch = Scratch::new("causes");
    let own = std::fs::read("/bin/sh").expect("a program");
    let mut foreign = own.clone();
    foreign[18] = 183;
    let mut unloadable = own.clone();
    let at = own.windows(7).position(|window| window == b"/lib64/").expect("dynamically linked");
    unloadable[at + 1] = b'x';
    for (name, mode, bytes) in [
        ("data", 0o644, &b"#!/bin/sh\n"[..]),
        ("empty", 0o755, b""),
        ("cut", 0o755, &own[..own.len() / 4]),
        ("text", 0o755, b"echo hello\n"),
        ("windows", 0o755, b"#!/bin/sh\r\necho\r\n"),
        ("lost", 0o755, b"#!/usr/bin/none -x\n"),
        ("foreign", 0o755, &foreign),
        ("unloadable", 0o755, &unloadable),
    ] {
        scratch.put(name, mode, bytes).expect("put");
    }
    let interpreter = |text: &[u8]| match crate::format::inspect(text.len() as u64, |_, room| {
        room[..text.len()].copy_from_slice(text);
        text.len()
    }) {
        crate::format::Format::Script { interpreter, .. } => interpreter,
        other => panic!("{other:?}"),
    };
    for (program, expected) in [
        ("none", LaunchError::Program(Refusal::Nothing)),
        ("/none", LaunchError::Program(Refusal::Nothing)),
        ("/etc", LaunchError::Program(Refusal::Not(Kind::Directory))),
        ("data", LaunchError::NoPermission),
        ("empty", LaunchError::Empty),
        ("cut", LaunchError::CutOff),
        ("text", LaunchError::NoProgram),
        ("windows", LaunchError::CarriageReturn(interpreter(b"#!/bin/sh"))),
        ("lost", LaunchError::NoInterpreter(interpreter(b"#!/usr/bin/none"))),
        ("foreign", LaunchError::Foreign(183)),
        ("unloadable", LaunchError::NoInterpreter(interpreter(b"#!/xib64/ld-linux-x86-64.so.2"))),
    ] {
        assert_eq!(scratch.launch(&[program], false), Err(expected), "{program}");
    }
    std::fs::remove_dir_all(scratch.path("logs")).expect("there");
    std::fs::create_dir_all(scratch.path("logs/out")).expect("made");
    let expected = LaunchError::Output(Stream::Out, Refusal::Kernel(Errno(21)));
    assert_eq!(scratch.launch(&["/bin/sh"], false), Err(expected), "a directory is in the output's way");
}

#[test]
fn a_program_can_be_told_that_its_processor_is_narrow() {
    let scratch = Scratch::new("narrow");
    let pid = scratch.launch(&["/bin/uname", "-m"], true).expect("started");
    sys::wait(Which::One(pid), true).expect("waited");
    assert_eq!(std::fs::read_to_string(scratch.path("logs/out")).expect("output"), "i686\n");
}

/// Gives back what it gets, in pieces, and keeps what it hears besides.
#[derive(Default)]
struct Echo {
    held: Vec<u8>,
    ended: Vec<(Pid, End)>,
    due: Option<u64>,
    woken: bool,
}

impl Session for Echo {
    fn input(&mut self, bytes: &[u8]) -> usize {
        // As if it had little room: the loop must keep the rest.
        let count = bytes.len().min(1000_usize.saturating_sub(self.held.len()));
        self.held.extend_from_slice(&bytes[..count]);
        count
    }

    fn output(&mut self) -> &[u8] {
        &self.held
    }

    fn sent(&mut self, count: usize) {
        self.held.drain(..count);
    }

    fn ended(&mut self, pid: Pid, end: End) {
        self.ended.push((pid, end));
    }

    fn wake(&mut self, now: u64) -> Option<u64> {
        self.woken |= self.due.is_some_and(|due| now >= due);
        self.due
    }
}

/// In a process of its own, for it takes every child of the process that it is in.
#[test]
fn the_loop_carries_bytes_children_and_time() {
    const WHO: &str = "tests::the_loop_carries_bytes_children_and_time";
    if std::env::var_os("VMTASK_AGENT_ALONE").is_none() {
        let own = std::env::current_exe().expect("a name");
        let alone = Command::new(own).args(["--exact", WHO]).env("VMTASK_AGENT_ALONE", "1").output().expect("run");
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        return;
    }
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let port = sys::Borrowed::of(ours.as_raw_fd());
    let mut turn = Turn::new(port, port).expect("set up");
    let mut session = Echo::default();

    let sent: Vec<u8> = (0..300_000_u32).map(|at| (at * 7 + at / 251) as u8).collect();
    let mut hand = theirs.try_clone().expect("cloned");
    let (bytes, length) = (sent.clone(), sent.len());
    let sender = std::thread::spawn(move || hand.write_all(&bytes));
    let mut hand = theirs.try_clone().expect("cloned");
    let receiver = std::thread::spawn(move || {
        let mut bytes = vec![0; length];
        hand.read_exact(&mut bytes).map(|()| bytes)
    });
    while !receiver.is_finished() {
        // The last turn may have nothing to wait for but time.
        session.due = Some(sys::monotonic() + 1_000_000);
        assert!(turn.take(&mut session).expect("a turn"));
    }
    sender.join().expect("sent").expect("sent");
    assert_eq!(receiver.join().expect("received").expect("received"), sent);

    let scratch = Scratch::new("loop");
    let pid = scratch.launch(&["/bin/false"], false).expect("started");
    while session.ended.is_empty() {
        // The signal may go to the test harness's own thread, which drops it. The agent has no other thread.
        session.due = Some(sys::monotonic() + 1_000_000);
        turn.take(&mut session).expect("a turn");
    }
    assert_eq!(session.ended, [(pid, End::Code(1))]);
    session.woken = false;

    let due = sys::monotonic() + 20_000_000;
    session.due = Some(due);
    while !session.woken {
        turn.take(&mut session).expect("a turn");
    }
    assert!(sys::monotonic() >= due);

    theirs.shutdown(std::net::Shutdown::Both).expect("shut");
    let _ = theirs.flush();
    while turn.take(&mut session).expect("a turn") {}
}
