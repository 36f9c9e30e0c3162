//! vmtask's protocol as a world plays it, next to what the script's head comment promises.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rstest::rstest;
use sha2::{Digest, Sha256};

use super::supervisor::SCRIPT;
use super::*;
use crate::Vmx;

const WORK: &str = "/tmp/vmtask/task";

struct Stage {
    dir: tempfile::TempDir,
    world: World,
}

fn world(dir: &Path) -> World {
    std::fs::create_dir_all(dir).unwrap();
    let vmx = Arc::new(Vmx::parse("vmtask.world.tools_ms = \"0\"").unwrap());
    World::new(Home { dir: dir.to_owned(), vmx_path: dir.join("vm.vmx"), vmx })
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = world(&dir.path().join("world"));
        world.power_on().unwrap();
        let stage = Self { dir, world };
        stage.world.make_directory(&format!("{WORK}/.vmtask")).unwrap();
        stage.put(SCRIPT.as_bytes(), ".vmtask/supervisor");
        stage
    }

    fn put(&self, content: &[u8], name: &str) {
        let host = self.dir.path().join("host");
        std::fs::write(&host, content).unwrap();
        self.world.copy_in(&host, &format!("{WORK}/{name}")).unwrap();
    }

    fn get(&self, name: &str) -> String {
        let host = self.dir.path().join("host");
        self.world.copy_out(&format!("{WORK}/{name}"), &host).unwrap();
        std::fs::read_to_string(host).unwrap()
    }

    /// The script's exit code.
    fn script(&self, arguments: &str) -> i32 {
        self.try_script(arguments).unwrap().unwrap()
    }

    fn try_script(&self, arguments: &str) -> Result<Option<i32>> {
        let arguments = format!("'{WORK}/.vmtask/supervisor' {arguments}");
        let program = Program { path: "/bin/sh", arguments: &arguments, user: "user", environment: &[] };
        let pid = self.world.start(&program).unwrap();
        self.world.exit_status(pid)
    }

    fn take(&self, content: &[u8], mode: &str, name: &str) {
        self.put(content, ".vmtask/in");
        let sum: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.script(&format!("take {} {sum} {mode} '{name}'", content.len())), 0);
    }

    /// Looks until the program is in that state.
    fn look_until(&self, state: &str) -> String {
        let mut line = String::new();
        await_that(|| {
            assert_eq!(self.script("look"), 0);
            line = self.get(".vmtask/look");
            line.starts_with(&format!("state={state} "))
        });
        line
    }
}

/// Nothing but the clock can be waited for.
fn await_that(mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < give_up, "in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

#[test]
fn a_program_computes_and_its_end_is_told() {
    let stage = Stage::new();
    stage.take(b"#!vmtask-world\nsay begun\ncompute $@\nexit 3\n", "755", "program");
    stage.take(b"3 1 4 1 5", "644", "data/input");
    assert!(stage.look_until("not-started").contains("pid=-"));
    let launch = "launch -o out.txt -e err.txt -p share -- program data/input 20 1 result log share";
    assert_eq!(stage.script(launch), 0);
    let line = stage.look_until("exited");
    assert_eq!((field(&line, "code"), field(&line, "signal"), field(&line, "progress")), ("3", "-", "1.0000"));
    assert_eq!(stage.get(".vmtask/status"), line);
    assert_eq!(stage.get("out.txt"), "begun\n");
    assert!(stage.get("result").starts_with("steps 20\ninput 9 bytes\n"));
    assert_eq!(stage.get("log").lines().count(), 20);
    assert_eq!(stage.script("give result"), 0);
    assert_eq!(stage.get(".vmtask/sum").split(' ').next(), Some(&*stage.get("result").len().to_string()));
}

#[rstest]
#[case("signal 11", "-", "11")]
#[case("exit 139", "139", "-")]
#[case("true", "126", "-")]
fn a_signal_is_not_an_exit_code(#[case] words: &str, #[case] code: &str, #[case] signal: &str) {
    let stage = Stage::new();
    stage.take(b"#!vmtask-world\n$@\n", "755", "program");
    assert_eq!(stage.script(&format!("launch -- program {words}")), 0);
    let line = stage.look_until("exited");
    assert_eq!((field(&line, "code"), field(&line, "signal")), (code, signal));
}

#[test]
fn a_program_is_launched_once_in_a_boot() {
    let stage = Stage::new();
    stage.take(b"#!vmtask-world\nidle\n", "755", "program");
    for _ in 0..2 {
        assert_eq!(stage.script("launch -- program"), 0);
    }
    let commands = |stage: &Stage| -> Vec<String> {
        stage.world.processes().unwrap().into_iter().map(|process| process.command).collect()
    };
    assert_eq!(commands(&stage).iter().filter(|command| command.ends_with("program")).count(), 1);
    stage.world.reset().unwrap();
    assert_eq!(commands(&stage), Vec::<String>::new());
    stage.look_until("not-started");
    assert_eq!(stage.script("launch -- program"), 0);
    stage.look_until("running");
    // Killed by somebody, it has ended; without its supervisor nobody can say how.
    let supervisor = stage.world.processes().unwrap().into_iter().find(|process| process.command.contains("supervise"));
    stage.world.kill(supervisor.unwrap().pid).unwrap();
    stage.look_until("lost");
}

#[rstest]
#[case("launch -- nowhere", 3, "no program")]
#[case("launch -- plain", 4, "not an executable")]
#[case("launch -o ../out -- plain", 2, "not a name")]
#[case("launch", 2, "launch")]
#[case("give nowhere", 3, "no file")]
#[case("give .", 2, "not a name")]
#[case("take 5 0 644 new", 3, "nothing was copied")]
#[case("take 4 0 644 plain", 6, "got 5 of 4")]
#[case("take 5 0 644 plain", 7, "SHA-256")]
#[case("dance", 2, "no subcommand")]
fn what_goes_wrong_is_said(#[case] arguments: &str, #[case] code: i32, #[case] why: &str) {
    let stage = Stage::new();
    stage.take(b"plain", "644", "plain");
    assert_eq!(stage.script(arguments), code);
    let told = stage.get(".vmtask/why");
    assert!(told.contains(why), "{told}");
}

#[test]
fn a_held_world_stands_still_and_a_saved_one_goes_on_where_it_was() {
    let stage = Stage::new();
    stage.take(b"#!vmtask-world\ncompute $@\n", "755", "program");
    stage.take(b"input", "644", "input");
    assert_eq!(stage.script("launch -p share -- program input 30 20 result log share"), 0);
    await_that(|| stage.world.info(&format!("{WORK}/share")).is_ok());
    let kept = stage.dir.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    stage.world.save(true, &kept).unwrap();
    let line = stage.look_until("exited");
    assert_eq!(field(&line, "code"), "0");
    let result = stage.get("result");

    let other = Stage { world: world(&stage.dir.path().join("other")), dir: tempfile::tempdir().unwrap() };
    other.world.load(&kept).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(other.world.copy_out(&format!("{WORK}/share"), &other.dir.path().join("x")).is_err(), "it is suspended");
    let begun = crate::store::now_ms();
    other.world.resume().unwrap();
    let line = other.look_until("exited");
    assert_eq!(field(&line, "code"), "0");
    assert_eq!(other.get("result"), result);
    // Its clock is the computer's: the last steps were made after it was resumed, the first before it was saved.
    let times: Vec<u64> =
        other.get("log").lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    assert!(times[0] < begun && *times.last().unwrap() >= begun, "{begun} {times:?}");
    assert!(!times.iter().any(|time| (begun - 150..begun).contains(time)), "{begun} {times:?}");
}

#[rstest]
#[case("reboot", true)]
#[case("poweroff", false)]
fn a_program_can_end_its_guest(#[case] words: &str, #[case] up: bool) {
    let stage = Stage::new();
    stage.take(b"#!vmtask-world\n$@\n", "755", "program");
    let boot = |stage: &Stage| stage.world.observe(|machine| Ok((machine.power, machine.boot_id.clone()))).unwrap();
    let before = boot(&stage);
    let launched = stage.try_script(&format!("launch -- program {words}"));
    await_that(|| boot(&stage) != before);
    // On a slow computer the guest is gone before anybody asks what became of the launch.
    assert!(matches!(launched, Ok(Some(0)) | Err(_)), "{launched:?}");
    assert_eq!(stage.world.is_up(), up);
    if up {
        assert_eq!(stage.world.processes(), Ok(Vec::new()));
        stage.look_until("not-started");
    }
}

#[test]
fn a_guest_that_hangs_has_no_tools() {
    let stage = Stage::new();
    stage.take(b"#!vmtask-world\nhang\n", "755", "program");
    assert_eq!(stage.script("launch -- program"), 0);
    await_that(|| !stage.world.tools_running());
    assert!(stage.world.is_up());
}
