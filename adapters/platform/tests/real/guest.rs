//! The guest, as the head of `guest/guest` specifies it.

use std::process::Command;

use crate::agent::Guest;
use crate::{platforms, scratch, skip};

const SCRIPT: &str = "#!/bin/sh\n";

fn boot() -> Guest {
    let mut guest = Guest::boot(&platforms()[0], &[]);
    assert_eq!(guest.guest(&["version"]).stdout, "protocol=1\n");
    assert!(guest.guest(&["workdir"]).stdout.starts_with("free_kb="));
    guest
}

/// Runs a shell script as the task's program, and says how it ended.
fn ends(guest: &mut Guest, body: &str) -> String {
    // A launch is once in a boot's life; forgetting it here spares a boot for each row.
    guest.run(&["/bin/sh", "-c", "rm -rf /run/vmtask/*"]);
    assert_eq!(guest.put("program", "755", format!("{SCRIPT}{body}\n").as_bytes()).code, Some(0));
    assert_eq!(guest.guest(&["launch", "-o", "out", "-e", "out", "--", "program"]).stdout, "launched=yes\n");
    let line = guest.finished();
    let words: Vec<_> = line.split_whitespace().collect();
    format!("{} {} {}", words[0], words[2], words[3])
}

#[test]
fn an_exit_code_is_never_taken_for_a_signal() {
    if skip("an_exit_code_is_never_taken_for_a_signal") {
        return;
    }
    let mut guest = boot();
    for (body, expected) in [
        ("exit 0", "state=exited code=0 signal=-"),
        ("exit 3", "state=exited code=3 signal=-"),
        ("exit 139", "state=exited code=139 signal=-"),
        ("kill -SEGV $$", "state=exited code=- signal=11"),
        ("kill -QUIT $$", "state=exited code=- signal=3"),
        ("kill -64 $$", "state=exited code=- signal=64"),
        ("kill -KILL 0", "state=exited code=- signal=9"),
    ] {
        assert_eq!(ends(&mut guest, body), expected, "{body}");
    }
}

#[test]
fn programs_of_both_widths_run_with_the_c_plus_plus_library() {
    if skip("programs_of_both_widths_run_with_the_c_plus_plus_library") {
        return;
    }
    let source = scratch().join("widths.cpp");
    std::fs::write(&source, WIDTHS).unwrap();
    for (platform, width, launch, expected) in [
        (0, "-m64", &["launch"][..], "caught 64 x86_64\n[one two][*][-E]\nA=b c\n"),
        (1, "-m32", &["launch", "-3"][..], "caught 32 i686\n[one two][*][-E]\nA=b c\n"),
    ] {
        let binary = scratch().join(format!("widths{width}"));
        let gcc = Command::new("g++").args(["-O2", width, "-o"]).arg(&binary).arg(&source).status().unwrap();
        assert!(gcc.success(), "g++ {width}");
        let mut guest = Guest::boot(&platforms()[platform], &[]);
        guest.guest(&["workdir"]);
        assert_eq!(guest.put("sub dir/pro gram", "755", &std::fs::read(&binary).unwrap()).code, Some(0));
        let options = ["-o", "out put", "-E", "A=b c", "--", "sub dir/pro gram", "one two", "*", "-E"];
        assert_eq!(guest.guest(&[launch, &options].concat()).stdout, "launched=yes\n");
        assert!(guest.finished().starts_with("state=exited pid=- code=0 "));
        assert_eq!(String::from_utf8(guest.get("out put").unwrap()).unwrap(), expected);
    }
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

#[test]
fn a_second_launch_starts_nothing_and_stragglers_are_gone_at_the_end() {
    if skip("a_second_launch_starts_nothing_and_stragglers_are_gone_at_the_end") {
        return;
    }
    let mut guest = boot();
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

#[test]
fn a_program_that_cannot_be_started_is_refused_before_the_marker() {
    if skip("a_program_that_cannot_be_started_is_refused_before_the_marker") {
        return;
    }
    let mut guest = boot();
    guest.put("data", "644", b"no program");
    assert_eq!(guest.guest(&["launch", "--", "absent"]).code, Some(3));
    assert_eq!(guest.guest(&["launch", "--", "data"]).code, Some(4));
    assert_eq!(guest.guest(&["launch", "-o", "../out", "--", "data"]).code, Some(2));
    assert!(guest.guest(&["status"]).stdout.starts_with("state=not-started "));
}

#[test]
fn the_agent_comes_back_however_it_was_killed() {
    if skip("the_agent_comes_back_however_it_was_killed") {
        return;
    }
    let mut guest = boot();
    guest.put("program", "755", format!("{SCRIPT}killall -9 qemu-ga; sleep 1; exit 7\n").as_bytes());
    guest.start(&["/usr/lib/vmtask/guest", "launch", "--", "program"]);
    guest.await_console("starting it again");
    guest.synchronise();
    assert!(guest.finished().starts_with("state=exited pid=- code=7 "));
}

#[test]
fn a_program_that_kills_everything_loses_its_supervisor_and_not_the_agent() {
    if skip("a_program_that_kills_everything_loses_its_supervisor_and_not_the_agent") {
        return;
    }
    let mut guest = boot();
    guest.put("program", "755", format!("{SCRIPT}kill -9 -1; sleep 1000\n").as_bytes());
    guest.start(&["/usr/lib/vmtask/guest", "launch", "--", "program"]);
    guest.await_console("starting it again");
    guest.synchronise();
    assert!(guest.finished().starts_with("state=lost "));
}

#[test]
fn out_of_memory_takes_the_program_and_spares_the_agent() {
    if skip("out_of_memory_takes_the_program_and_spares_the_agent") {
        return;
    }
    let mut guest = boot();
    guest.put("program", "755", format!("{SCRIPT}x=x; while :; do x=$x$x; done\n").as_bytes());
    assert_eq!(guest.guest(&["launch", "--", "program"]).stdout, "launched=yes\n");
    assert!(guest.finished().starts_with("state=exited pid=- code=- signal=9 "));
    assert!(!guest.console().contains("starting it again"));
}

#[test]
fn a_broken_transfer_leaves_nothing_and_the_next_one_works() {
    if skip("a_broken_transfer_leaves_nothing_and_the_next_one_works") {
        return;
    }
    use std::io::{Read, Write};
    let mut guest = boot();
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

#[test]
fn no_name_leads_out_of_the_working_directory() {
    if skip("no_name_leads_out_of_the_working_directory") {
        return;
    }
    let mut guest = boot();
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
fn a_disk_is_formatted_once_and_mounted() {
    if skip("a_disk_is_formatted_once_and_mounted") {
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
}

#[test]
fn the_clock_is_set_by_the_agent_and_the_pool_is_seeded() {
    if skip("the_clock_is_set_by_the_agent_and_the_pool_is_seeded") {
        return;
    }
    let mut guest = boot();
    guest.call("guest-set-time", serde_json::json!({"time": 2_000_000_000_000_000_000_i64}));
    let now: u64 = guest.run(&["/bin/date", "+%s"]).stdout.trim().parse().unwrap();
    assert!((2_000_000_000..2_000_000_100).contains(&now), "{now}");
    assert_eq!(guest.guest(&["seed", "00ff"]).stdout, "seeded=yes\n");
    assert_eq!(guest.guest(&["seed", "x"]).code, Some(2));
}

#[test]
fn poweroff_and_the_agents_shutdown_end_qemu() {
    if skip("poweroff_and_the_agents_shutdown_end_qemu") {
        return;
    }
    let mut guest = boot();
    guest.start(&["/usr/lib/vmtask/guest", "poweroff"]);
    assert!(guest.ended());
    let mut guest = boot();
    guest.start(&["/sbin/shutdown", "-h", "-P", "+0", "hypervisor initiated shutdown"]);
    assert!(guest.ended());
    // With -no-reboot a panic is an end, too.
    let mut guest = boot();
    guest.start(&["/bin/sh", "-c", "echo c >/proc/sysrq-trigger"]);
    assert!(guest.ended());
}
