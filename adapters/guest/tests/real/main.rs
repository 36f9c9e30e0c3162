//! The agent as PID 1, with the platform's kernel, under QEMU: what only a real guest can show.
//!
//! Runs where `VMTASK_TEST_REAL=1` says that QEMU is there, as `tests/run` and CI do. One guest is booted and saved; each
//! rule gets that one as if it had just booted.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod machine;

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use vmtask_guest::{Cause, End, Exit, GuestError, Launch, Phase, Put, Words};

use crate::machine::{Guest, Image};

type Rule = (&'static str, fn(&Image));

const RULES: [Rule; 11] = [
    ("files go both ways, and a thousand of them at once", files_go_both_ways),
    ("an exit code is told apart from a signal", an_exit_code_is_told_apart_from_a_signal),
    ("kill -9 -1 leaves the agent", killing_everything_leaves_the_agent),
    ("what is left behind is killed and counted", what_is_left_behind_is_killed_and_counted),
    ("a full working directory is said", a_full_working_directory_is_said),
    ("out of memory takes the program and spares the agent", out_of_memory_takes_the_program),
    ("a held program stands still", a_held_program_stands_still),
    ("the clock is the host's", the_clock_is_the_hosts),
    ("restored in the middle of a put", restored_in_the_middle_of_a_put),
    ("restored in the middle of a get", restored_in_the_middle_of_a_get),
    ("power off ends the machine", power_off_ends_the_machine),
];

#[test]
fn the_agent_is_a_good_pid_1() {
    if std::env::var_os("VMTASK_TEST_REAL").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED the_agent_is_a_good_pid_1: set VMTASK_TEST_REAL=1 where QEMU and a platform are there");
        return;
    }
    let image = Image::new();
    for (rule, check) in RULES {
        let start = std::time::Instant::now();
        check(&image);
        eprintln!("{rule}: {} ms", start.elapsed().as_millis());
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn put(guest: &mut Guest, name: &str, mode: u32, content: &[u8]) -> Result<(), GuestError> {
    let file = Put { name: name.as_bytes(), mode, size: content.len() as u64, content };
    guest.client.put_all([file], |_| {})
}

fn get(guest: &mut Guest, name: &str, limit: u64) -> Result<Vec<u8>, GuestError> {
    let mut content = Vec::new();
    let got = guest.client.get(name.as_bytes(), limit, &mut content, |_, _| {})?;
    assert_eq!((got.size, got.sha256), (content.len() as u64, Sha256::digest(&content).into()));
    Ok(content)
}

fn launch(guest: &mut Guest, script: &str) {
    let arguments = [&b"-c"[..], script.as_bytes()];
    let launch = Launch { program: b"/bin/sh", stdout: b"out", arguments: Words::new(&arguments), ..Launch::default() };
    guest.client.launch(&launch).unwrap();
}

/// A guest in which this script has run to its end.
fn run(image: &Image, script: &str) -> (Guest, Exit) {
    let mut guest = image.restored();
    launch(&mut guest, script);
    let exit = guest.client.wait_for_exit(|_| {}).unwrap();
    guest.client.acknowledge().unwrap();
    (guest, exit)
}

fn files_go_both_ways(image: &Image) {
    let mut guest = image.restored();
    for size in [0, 1, 65_508, 5_000_000] {
        let bytes = content(size);
        put(&mut guest, "dir/f", 0o644, &bytes).unwrap();
        assert!(get(&mut guest, "dir/f", size as u64).unwrap() == bytes, "{size} bytes");
    }
    let error = get(&mut guest, "dir/f", 4_999_999).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::TooBig(5_000_000)));
    let huge = Put { name: b"huge", mode: 0o644, size: 1 << 40, content: io::empty() };
    let error = guest.client.put_all([huge], |_| {}).unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::NoSpace(_))), "{error}");
    let names: Vec<_> = (0..1000).map(|number| format!("in/{number}")).collect();
    let files = names.iter().map(|name| Put {
        name: name.as_bytes(),
        mode: 0o644,
        size: name.len() as u64,
        content: name.as_bytes(),
    });
    guest.client.put_all(files, |_| {}).unwrap();
    assert_eq!(get(&mut guest, "in/999", 99).unwrap(), b"in/999");
}

fn an_exit_code_is_told_apart_from_a_signal(image: &Image) {
    for (script, end) in [
        ("exit 130", End::Code(130)),
        ("exit 139", End::Code(139)),
        ("exit 141", End::Code(141)),
        ("kill -INT $$", End::Signal(2)),
        ("kill -SEGV $$", End::Signal(11)),
        ("kill -PIPE $$", End::Signal(13)),
    ] {
        let (_, exit) = run(image, script);
        assert_eq!(exit, Exit { end, left_behind: 0, killed_for_memory: 0, workdir_full: false }, "{script}");
    }
}

fn killing_everything_leaves_the_agent(image: &Image) {
    let (mut guest, exit) = run(image, "kill -9 -1; kill -9 1; echo still here; exit 5");
    assert_eq!(exit.end, End::Code(5));
    assert_eq!(get(&mut guest, "out", 99).unwrap(), b"still here\n");
}

fn what_is_left_behind_is_killed_and_counted(image: &Image) {
    let (mut guest, exit) = run(image, "sleep 1000 & setsid sleep 1000 & echo left");
    assert_eq!((exit.end, exit.left_behind), (End::Code(0), 2));
    let error = guest.client.launch(&Launch { program: b"/bin/true", ..Launch::default() }).unwrap_err();
    assert_eq!(error.cause(), Some(Cause::AlreadyLaunched));
}

fn a_full_working_directory_is_said(image: &Image) {
    let (mut guest, exit) = run(image, "dd if=/dev/zero of=big bs=64k 2>/dev/null; echo lost >more; exit 0");
    assert_eq!((exit.end, exit.workdir_full), (End::Code(0), true));
    assert_eq!(exit.killed_for_memory, 0);
    let error = put(&mut guest, "in", 0o644, b"some bytes").unwrap_err();
    assert_eq!(error.cause(), Some(Cause::NoSpace(0)));
}

fn out_of_memory_takes_the_program(image: &Image) {
    let (mut guest, exit) = run(image, "exec tail /dev/zero");
    assert_eq!(exit.end, End::Signal(9));
    assert!(exit.killed_for_memory > 0, "{exit:?}");
    put(&mut guest, "after", 0o644, b"the agent is there").unwrap();
}

fn a_held_program_stands_still(image: &Image) {
    let mut guest = image.restored();
    launch(&mut guest, "while :; do :; done");
    guest.client.watch(Duration::from_millis(50)).unwrap();
    while guest.client.next_state().unwrap().cpu_ms.is_none_or(|cpu| cpu == 0) {}
    guest.client.hold(true).unwrap();
    // What is asked is not when it stops, but that it has: two answers in a row are the same.
    let mut held = guest.client.status().unwrap();
    assert!(held.held && held.phase == Phase::Running);
    while let now = guest.client.status().unwrap()
        && now != held
    {
        held = now;
    }
    guest.client.hold(false).unwrap();
    while guest.client.next_state().unwrap().cpu_ms == held.cpu_ms {}
}

fn the_clock_is_the_hosts(image: &Image) {
    let mut guest = image.restored();
    guest.client.prepare(UNIX_EPOCH + Duration::from_secs(3_000_000_000), &content(64)).unwrap();
    launch(&mut guest, "date +%s; uname -m; id -u; cat /proc/self/oom_score_adj; pwd; env | sort; ulimit -c");
    assert_eq!(guest.client.wait_for_exit(|_| {}).unwrap().end, End::Code(0));
    let out = String::from_utf8(get(&mut guest, "out", 1000).unwrap()).unwrap();
    let (seconds, rest) = out.split_once('\n').unwrap();
    assert!((3_000_000_000..3_000_000_600).contains(&seconds.parse::<u64>().unwrap()), "{seconds}");
    let variables = "HOME=/work\nLANG=C\nLC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/work\nSHLVL=1\nTZ=UTC0\n";
    assert_eq!(rest, format!("x86_64\n0\n500\n/work\n{variables}0\n"));
    assert!(SystemTime::now() > UNIX_EPOCH);
}

/// Saves the guest's state after so many bytes, and then fails as a host does that is killed there.
struct Cut<'a> {
    saved: Option<machine::Saving<'a>>,
    left: usize,
}

impl Cut<'_> {
    fn moved(&mut self, count: usize) -> io::Result<usize> {
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => {
                self.saved.take().unwrap().save();
                return Err(io::Error::other("cut"));
            }
        }
        Ok(count)
    }
}

impl Read for Cut<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        bytes.fill(7);
        self.moved(bytes.len())
    }
}

impl Write for Cut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.moved(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn restored_in_the_middle_of_a_put(image: &Image) {
    let mut guest = image.restored();
    launch(&mut guest, "while :; do :; done");
    for left in [1, 100_000, 1_500_000] {
        let (client, saving) = guest.saving();
        let file = Put { name: b"f", mode: 0o644, size: 3_000_000, content: Cut { saved: Some(saving), left } };
        let error = client.put_all([file], |_| {}).unwrap_err();
        assert!(matches!(error, GuestError::Input { .. }), "{error}");
        guest = guest.reborn();
        assert_eq!(guest.state.phase, Phase::Running);
        assert_eq!(get(&mut guest, "f", u64::MAX).unwrap_err().cause(), Some(Cause::NoFile));
        put(&mut guest, "g", 0o644, &content(300_000)).unwrap();
        assert!(get(&mut guest, "g", 300_000).unwrap() == content(300_000));
    }
}

fn restored_in_the_middle_of_a_get(image: &Image) {
    let mut guest = image.restored();
    put(&mut guest, "f", 0o644, &content(3_000_000)).unwrap();
    for left in [1, 100_000, 1_500_000] {
        let (client, saving) = guest.saving();
        let error = client.get(b"f", u64::MAX, &mut Cut { saved: Some(saving), left }, |_, _| {}).unwrap_err();
        assert!(matches!(error, GuestError::Output { .. }), "{error}");
        guest = guest.reborn();
        assert!(get(&mut guest, "f", 3_000_000).unwrap() == content(3_000_000));
    }
}

fn power_off_ends_the_machine(image: &Image) {
    let mut guest = image.restored();
    guest.client.power_off().unwrap();
    assert!(guest.ended());
}
