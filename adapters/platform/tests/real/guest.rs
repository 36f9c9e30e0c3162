//! The guest, as the head of `guest/guest` specifies it.

use std::process::Command;

use crate::agent::Guest;
use crate::{platforms, scratch, skip};

const SCRIPT: &str = "#!/bin/sh\n";

/// A boot is the expensive part, so each rule gets the same guest as if it were new.
const RULES: [fn(&mut Guest); 9] = [
    a_program_that_cannot_be_started_is_refused_before_the_marker,
    a_broken_transfer_leaves_nothing_and_the_next_one_works,
    no_name_leads_out_of_the_working_directory,
    the_clock_is_set_by_the_agent_and_the_pool_is_seeded,
    a_second_launch_starts_nothing_and_stragglers_are_gone_at_the_end,
    an_exit_code_is_never_taken_for_a_signal,
    out_of_memory_takes_the_program_and_spares_the_agent,
    the_agent_comes_back_however_it_was_killed,
    a_program_that_kills_everything_loses_its_supervisor_and_not_the_agent,
];

#[test]
fn the_guest_keeps_its_protocol_and_powers_off() {
    if skip("the_guest_keeps_its_protocol_and_powers_off") {
        return;
    }
    let mut guest = Guest::boot(&platforms()[0], &[]);
    assert_eq!(guest.guest(&["version"]).stdout, "protocol=1\n");
    assert!(guest.guest(&["workdir"]).stdout.starts_with("free_kb="));
    for rule in RULES {
        rule(&mut guest);
        forget(&mut guest);
    }
    guest.start(&["/usr/lib/vmtask/guest", "poweroff"]);
    assert!(guest.ended());
}

/// As after a boot: a launch is once in a boot's life.
fn forget(guest: &mut Guest) {
    let all = "rm -rf /run/vmtask/* /work/*; [ ! -d /sys/fs/cgroup/task ] || echo 1 >/sys/fs/cgroup/task/cgroup.kill";
    assert_eq!(guest.run(&["/bin/sh", "-c", all]).code, Some(0));
}

/// Runs a shell script as the task's program, and says how it ended.
fn ends(guest: &mut Guest, body: &str) -> String {
    forget(guest);
    assert_eq!(guest.put("program", "755", format!("{SCRIPT}{body}\n").as_bytes()).code, Some(0));
    assert_eq!(guest.guest(&["launch", "-o", "out", "-e", "out", "--", "program"]).stdout, "launched=yes\n");
    let line = guest.finished();
    let words: Vec<_> = line.split_whitespace().collect();
    format!("{} {} {}", words[0], words[2], words[3])
}

fn an_exit_code_is_never_taken_for_a_signal(guest: &mut Guest) {
    for (body, expected) in [
        ("exit 0", "state=exited code=0 signal=-"),
        ("exit 3", "state=exited code=3 signal=-"),
        ("exit 139", "state=exited code=139 signal=-"),
        ("kill -SEGV $$", "state=exited code=- signal=11"),
        ("kill -64 $$", "state=exited code=- signal=64"),
        ("kill -KILL 0", "state=exited code=- signal=9"),
    ] {
        assert_eq!(ends(guest, body), expected, "{body}");
    }
}

#[test]
fn programs_of_both_widths_run_with_the_c_plus_plus_library() {
    if skip("programs_of_both_widths_run_with_the_c_plus_plus_library") {
        return;
    }
    let source = scratch().join("widths.cpp");
    std::fs::write(&source, WIDTHS).unwrap();
    let mut guest = Guest::boot(&platforms()[1], &[]);
    guest.guest(&["workdir"]);
    for (width, launch, expected) in [
        ("-m64", &["launch"][..], "caught 64 x86_64\n[one two][*][-E]\nA=b c\n"),
        ("-m32", &["launch", "-3"][..], "caught 32 i686\n[one two][*][-E]\nA=b c\n"),
    ] {
        let binary = scratch().join(format!("widths{width}"));
        let gcc = Command::new("g++").args(["-O2", width, "-o"]).arg(&binary).arg(&source).status().unwrap();
        assert!(gcc.success(), "g++ {width}");
        assert_eq!(guest.put("sub dir/pro gram", "755", &std::fs::read(&binary).unwrap()).code, Some(0));
        let options = ["-o", "out put", "-E", "A=b c", "--", "sub dir/pro gram", "one two", "*", "-E"];
        assert_eq!(guest.guest(&[launch, &options].concat()).stdout, "launched=yes\n");
        assert!(guest.finished().starts_with("state=exited pid=- code=0 "));
        assert_eq!(String::from_utf8(guest.get("out put").unwrap()).unwrap(), expected);
        forget(&mut guest);
    }
    // What guest-shutdown calls.
    guest.start(&["/sbin/shutdown", "-h", "-P", "+0", "hypervisor initiated shutdown"]);
    assert!(guest.ended());
}

const WIDTHS: &str = r#"
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <sys/utsname.h>
int main(int count, char **arguments) {
    utsname name;
    uname(&name);
    try {
        throw std::runtime_error("caught");
    } catch (const std::exception &error) {
        std::cout << error.what() << " " << sizeof(void *) * 8 << " " << name.machine << "\n";
    }
    for (int i = 1; i < count; i++) std::cout << "[" << arguments[i] << "]";
    std::cout << "\nA=" << std::getenv("A") << "\n";
}
"#;

fn a_second_launch_starts_nothing_and_stragglers_are_gone_at_the_end(guest: &mut Guest) {
    guest.put("program", "755", format!("{SCRIPT}echo once >>log; sleep 1000 & echo 0.5 >progress\n").as_bytes());
    assert!(guest.guest(&["status"]).stdout.starts_with("state=not-started "));
    assert_eq!(guest.guest(&["launch", "--", "program"]).stdout, "launched=yes\n");
    assert_eq!(guest.guest(&["launch", "--", "program"]).stdout, "launched=before\n");
    guest.finished();
    assert_eq!(guest.guest(&["launch", "--", "program"]).stdout, "launched=before\n");
    assert_eq!(guest.get("log").unwrap(), b"once\n");
    assert!(guest.guest(&["status", "progress"]).stdout.ends_with(" progress=0.5\n"));
    assert_eq!(guest.run(&["/bin/sh", "-c", "ps | grep -c '[s]leep 1000'"]).stdout, "0\n");
}

fn a_program_that_cannot_be_started_is_refused_before_the_marker(guest: &mut Guest) {
    guest.put("data", "644", b"no program");
    assert_eq!(guest.guest(&["launch", "--", "absent"]).code, Some(3));
    assert_eq!(guest.guest(&["launch", "--", "data"]).code, Some(4));
    assert_eq!(guest.guest(&["launch", "-o", "../out", "--", "data"]).code, Some(2));
    assert!(guest.guest(&["status"]).stdout.starts_with("state=not-started "));
}

fn the_agent_comes_back_however_it_was_killed(guest: &mut Guest) {
    guest.put("program", "755", format!("{SCRIPT}killall -9 qemu-ga; sleep 1; exit 7\n").as_bytes());
    let before = guest.console().len();
    guest.start(&["/usr/lib/vmtask/guest", "launch", "--", "program"]);
    guest.await_console("starting it again", before);
    guest.synchronise();
    assert!(guest.finished().starts_with("state=exited pid=- code=7 "));
}

fn a_program_that_kills_everything_loses_its_supervisor_and_not_the_agent(guest: &mut Guest) {
    guest.put("program", "755", format!("{SCRIPT}kill -9 -1; sleep 1000\n").as_bytes());
    let before = guest.console().len();
    guest.start(&["/usr/lib/vmtask/guest", "launch", "--", "program"]);
    guest.await_console("starting it again", before);
    guest.synchronise();
    assert!(guest.finished().starts_with("state=lost "));
}

fn out_of_memory_takes_the_program_and_spares_the_agent(guest: &mut Guest) {
    guest.put("program", "755", format!("{SCRIPT}x=x; while :; do x=$x$x; done\n").as_bytes());
    assert_eq!(guest.guest(&["launch", "--", "program"]).stdout, "launched=yes\n");
    assert!(guest.finished().starts_with("state=exited pid=- code=- signal=9 "));
    assert!(!guest.console().contains("starting it again"));
}

fn a_broken_transfer_leaves_nothing_and_the_next_one_works(guest: &mut Guest) {
    use std::io::{Read, Write};
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 + i / 251) as u8).collect();

    // The host goes away in the middle of a copy in.
    let sum = "0".repeat(64);
    let (pid, _, mut port) = guest.transfer(&["recv", "3000000", "644", &sum, "file"]).unwrap();
    port.get_mut().write_all(&bytes[..1_000_000]).unwrap();
    drop(port);
    assert_eq!(guest.wait(pid).code, Some(6));
    // All bytes, and not the right ones.
    let (pid, _, mut port) = guest.transfer(&["recv", "3000000", "644", &sum, "file"]).unwrap();
    port.get_mut().write_all(&bytes).unwrap();
    assert_eq!(guest.wait(pid).code, Some(7));
    drop(port);
    assert_eq!(guest.get("file").unwrap_err().code, Some(3), "nothing by that name");

    assert_eq!(guest.put("file", "600", &bytes).code, Some(0));
    // The host goes away in the middle of a copy out.
    let (_, _, mut port) = guest.transfer(&["send", "file"]).unwrap();
    port.read_exact(&mut [0; 1000]).unwrap();
    drop(port);
    assert!(guest.get("file").unwrap() == bytes);
    assert_eq!(guest.put("empty", "644", b"").code, Some(0));
    assert_eq!(guest.get("empty").unwrap(), b"");
    assert_eq!(guest.transfer(&["recv", "999999999", "644", &sum, "large"]).unwrap_err().code, Some(5));
}

fn no_name_leads_out_of_the_working_directory(guest: &mut Guest) {
    guest.run(&["/bin/sh", "-c", "cd /work; ln -s /etc/passwd link; ln -s /etc dir; mkdir sub; mkfifo fifo"]);
    for name in ["", "/etc/passwd", "..", "a/../../etc/passwd", "./link", "a//b", "new\nline"] {
        assert_eq!(guest.guest(&["send", "token", name]).code, Some(2), "{name:?}");
    }
    for name in ["link", "dir/passwd", "sub", "fifo"] {
        assert_eq!(guest.guest(&["send", "token", name]).code, Some(4), "{name:?}");
    }
    assert_eq!(guest.guest(&["recv", "token", "1", "644", "0", "dir/new"]).code, Some(4));
}

#[test]
fn a_disk_is_formatted_once_and_a_panic_ends_the_machine() {
    if skip("a_disk_is_formatted_once_and_a_panic_ends_the_machine") {
        return;
    }
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(64 << 20).unwrap();
    let drive = format!("file={},if=virtio,format=raw", disk.path().display());
    let mut guest = Guest::boot(&platforms()[0], &["-drive", &drive]);
    let made = guest.guest(&["workdir", "disk"]);
    assert!(made.stdout.starts_with("free_kb=") && made.code == Some(0), "{made:?}");
    guest.put("kept", "644", b"on disk");
    assert_eq!(guest.run(&["/bin/umount", "/work"]).code, Some(0));
    guest.guest(&["workdir", "disk"]);
    assert_eq!(guest.get("kept").unwrap(), b"on disk");
    // With -no-reboot a panic is an end.
    guest.start(&["/bin/sh", "-c", "echo c >/proc/sysrq-trigger"]);
    assert!(guest.ended());
}

fn the_clock_is_set_by_the_agent_and_the_pool_is_seeded(guest: &mut Guest) {
    guest.call("guest-set-time", serde_json::json!({"time": 2_000_000_000_000_000_000_i64}));
    let now: u64 = guest.run(&["/bin/date", "+%s"]).stdout.trim().parse().unwrap();
    assert!((2_000_000_000..2_000_000_100).contains(&now), "{now}");
    assert_eq!(guest.guest(&["seed", "00ff"]).stdout, "seeded=yes\n");
    assert_eq!(guest.guest(&["seed", "x"]).code, Some(2));
}
