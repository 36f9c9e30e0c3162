//! Whole runs of the binary with the simulated virtual machine: signals, resuming, locks, damage.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rstest::rstest;
#[cfg(unix)]
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;

/// A directory with one task in it.
struct Den(tempfile::TempDir);

const TASK: &str = "name = \"t\"\nplatform = \"p\"\n[program]\npath = \"/bin/true\"\n[checkpoint]\nevery = \"300ms\"\n";
/// Longer than any test: it is stopped.
const LONG: &str = "600";
const SHORT: &str = "0.2";

impl Den {
    fn new() -> Self {
        let den = Self(tempfile::tempdir().unwrap());
        fs::write(den.path("t.toml"), TASK).unwrap();
        den
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, seconds: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmtask"));
        command.args(["run", "t.toml", "--hypervisor", "sim", "--json"]).current_dir(self.0.path());
        command.env("VMTASK_DATA_DIR", self.path("data")).env("VMTASK_SIM_SECONDS", seconds);
        command
    }

    /// Runs it to its end.
    fn run(&self, seconds: &str) -> Run {
        Run::of(&self.command(seconds).output().unwrap())
    }

    fn start(&self, seconds: &str) -> Running {
        Running::of(&mut self.command(seconds))
    }

    fn result(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("t.vmtask/results/result.json")).unwrap()).unwrap()
    }
}

/// A run that is over.
struct Run {
    code: Option<i32>,
    said: Vec<Value>,
    stderr: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Self {
            code: output.status.code(),
            said: stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn last(&self) -> &Value {
        self.said.last().unwrap()
    }

    fn begins(&self) -> &Value {
        self.said.iter().find(|line| line["kind"] == "begin").unwrap()
    }
}

/// A run that is not over.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    heard: Vec<Value>,
}

impl Running {
    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, heard: Vec::new() }
    }

    /// Reads until a line is like that.
    fn hear(&mut self, like: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended; it said {:#?}", self.heard);
            let value: Value = serde_json::from_str(&line).unwrap();
            self.heard.push(value.clone());
            if like(&value) {
                return value;
            }
        }
    }

    fn hear_checkpoint(&mut self) -> u64 {
        let line = self.hear(|line| line["report"]["checkpoint"].is_object());
        line["report"]["checkpoint"]["generation"].as_u64().unwrap()
    }

    fn hear_phase(&mut self, phase: &str) {
        self.hear(|line| {
            let said = &line["report"]["phase"];
            said == phase || said[phase].is_object()
        });
    }

    /// Ends it without a word.
    fn kill(mut self) -> Run {
        self.child.kill().unwrap();
        self.end()
    }

    #[cfg(unix)]
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn end(mut self) -> Run {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.lines, &mut rest).unwrap();
        let mut run = Run::of(&self.child.wait_with_output().unwrap());
        self.heard.extend(rest.lines().map(|line| serde_json::from_str(line).unwrap()));
        run.said = self.heard;
        run
    }
}

#[test]
fn a_simulated_run_says_so_first_and_last_and_in_its_result() {
    let den = Den::new();
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!((&run.said[0]["kind"], &run.said[0]["simulated"]), (&"begin".into(), &true.into()));
    assert_eq!((&run.last()["kind"], &run.last()["execution"]["simulated"]), (&"result".into(), &true.into()));
    assert_eq!(den.result()["execution"]["simulated"], true);

    fs::remove_dir_all(den.path("t.vmtask")).unwrap();
    let mut plain = Command::new(env!("CARGO_BIN_EXE_vmtask"));
    plain.args(["run", "t.toml", "--hypervisor", "sim"]).current_dir(den.0.path());
    let output = plain.env("VMTASK_DATA_DIR", den.path("data")).env("VMTASK_SIM_SECONDS", SHORT).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let (first, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
    assert!(first.contains("SIMULATED") && last.contains("SIMULATED"), "{text}");
}

#[test]
fn automatic_is_never_the_simulator() {
    let den = Den::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmtask"));
    command.args(["run", "t.toml"]).current_dir(den.0.path()).env("VMTASK_DATA_DIR", den.path("data"));
    let output = command.env("VMTASK_ACCEL", "tcg").output().unwrap();
    // On Linux the platform is missed first.
    let missing = if cfg!(target_os = "linux") { 212 } else { 213 };
    assert_eq!(output.status.code(), Some(missing), "{}", String::from_utf8_lossy(&output.stderr));
}

#[rstest]
#[cfg(unix)]
#[case::interrupt(Signal::INT)]
#[case::terminate(Signal::TERM)]
#[case::hang_up(Signal::HUP)]
fn one_signal_saves_and_stops_and_the_next_run_goes_on_from_there(#[case] signal: Signal) {
    let den = Den::new();
    let mut running = den.start(LONG);
    let first = running.hear_checkpoint();
    running.signal(signal);
    let run = running.end();
    assert_eq!((run.code, &run.last()["outcome"]), (Some(217), &"stopped".into()), "{}", run.stderr);
    assert!(run.stderr.contains("saving a checkpoint"), "{}", run.stderr);

    let run = den.run(SHORT);
    let from = run.begins()["resumes"]["from_checkpoint"].as_u64().unwrap();
    assert!(from > first, "the signal made one more than {first}: {from}");
    assert_eq!((run.code, &run.last()["outcome"]), (Some(0), &"completed".into()), "{}", run.stderr);
    assert_eq!(run.last()["history"]["restarts"], 0, "a stop is no loss: {:?}", run.last());
}

#[test]
#[cfg(unix)]
fn the_end_of_processor_time_saves_and_stops_however_often_it_is_told() {
    let den = Den::new();
    let mut running = den.start(LONG);
    let first = running.hear_checkpoint();
    running.signal(Signal::XCPU);
    running.hear(|line| !line["report"]["phase"]["beginning_snapshot"].is_null());
    running.signal(Signal::XCPU);
    let run = running.end();
    assert_eq!((run.code, &run.last()["outcome"]), (Some(217), &"stopped".into()), "{}", run.stderr);
    assert_eq!(run.stderr.matches("saving a checkpoint").count(), 1, "{}", run.stderr);
    assert!(den.run(SHORT).begins()["resumes"]["from_checkpoint"].as_u64().unwrap() > first);
}

/// The command, in a shell that first does something else.
#[cfg(unix)]
fn after(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[test]
#[cfg(unix)]
fn a_limit_on_the_size_of_files_is_an_error_that_names_it() {
    let den = Den::new();
    let output = after("ulimit -f 0", &den.command(SHORT)).output().unwrap();
    let run = Run::of(&output);
    assert_eq!(run.code, Some(220), "{:?}: {}", output.status, run.stderr);
    assert!(run.stderr.contains("no file may be larger than 0 bytes here"), "{}", run.stderr);
    assert_eq!(den.run(SHORT).code, Some(0), "nothing of it is in the way");
}

#[test]
#[cfg(target_os = "linux")]
fn standard_output_that_cannot_be_written_is_told_and_no_success() {
    let den = Den::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = den.command(SHORT).stdout(full).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(220), "{stderr}");
    assert_eq!(stderr.matches("standard output cannot be written").count(), 1, "{stderr}");
    assert_eq!(den.result()["outcome"], "completed", "the task itself is done");
    assert_eq!(den.run(SHORT).code, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_log_that_cannot_be_written_is_told_once() {
    let den = Den::new();
    fs::create_dir(den.path("t.vmtask")).unwrap();
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    fs::remove_file(den.path("t.vmtask/log")).unwrap();
    std::os::unix::fs::symlink("/dev/full", den.path("t.vmtask/log")).unwrap();
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stderr.matches("lines are missing").count(), 1, "{}", run.stderr);
}

#[rstest]
#[case::not_unicode(b"caf\xe9", None)]
#[case::comma(b"a,,b=c", Some("a,,b=c"))]
#[case::space(b" a b ", Some(" a b "))]
#[case::new_line(b"a\nb", Some("a\nb"))]
#[cfg(target_os = "linux")]
fn a_task_runs_in_a_directory_whatever_its_name(#[case] name: &[u8], #[case] text: Option<&str>) {
    use std::os::unix::ffi::OsStrExt;
    let den = Den::new();
    let name = std::ffi::OsStr::from_bytes(name);
    let output = den.command(SHORT).arg("--dir").arg(name).output().unwrap();
    let run = Run::of(&output);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let told = &run.begins()["dir"];
    match text {
        Some(text) => assert_eq!(told, text),
        None => assert_eq!(told["Unix"], serde_json::to_value(name.as_bytes()).unwrap()),
    }
    assert!(den.0.path().join(name).join("results/result.json").is_file());
}

#[test]
#[cfg(unix)]
fn the_echo_of_a_signal_is_no_second_one() {
    let den = Den::new();
    let mut running = den.start(LONG);
    let first = running.hear_checkpoint();
    // As `timeout` does: the process gets one, and so does its group.
    running.signal(Signal::TERM);
    running.signal(Signal::TERM);
    let run = running.end();
    assert_eq!(run.code, Some(217), "{}", run.stderr);
    assert!(den.run(SHORT).begins()["resumes"]["from_checkpoint"].as_u64().unwrap() > first);
}

#[test]
fn a_killed_manager_is_survived() {
    let den = Den::new();
    let mut running = den.start(LONG);
    let checkpoint = running.hear_checkpoint();
    assert_ne!(running.kill().code, Some(0));
    let run = den.run(SHORT);
    assert!(run.begins()["resumes"]["from_checkpoint"].as_u64().unwrap() >= checkpoint);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn a_second_manager_is_refused_and_names_the_first() {
    let den = Den::new();
    let mut running = den.start(LONG);
    running.hear_phase("running");
    let second = den.run(SHORT);
    assert_eq!(second.code, Some(216), "{}", second.stderr);
    assert!(second.stderr.contains(&running.child.id().to_string()), "{}", second.stderr);
    assert_eq!(second.last()["exit"], 216);
    let checkpoint = running.hear_checkpoint();
    assert!(running.hear_checkpoint() > checkpoint, "the first goes on as if nothing had been");
    running.kill();
}

#[test]
#[cfg(unix)]
fn the_shell_can_hold_it_and_let_it_go_on() {
    let den = Den::new();
    let mut running = den.start(LONG);
    running.hear_phase("running");
    running.signal(Signal::TSTP);
    let (_, status) = waitpid(Some(running.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "the process itself is stopped: {status:?}");
    running.signal(Signal::CONT);
    running.hear_phase("paused");
    running.hear_phase("unpausing");
    running.hear_phase("running");
    running.signal(Signal::INT);
    assert_eq!(running.end().code, Some(217));
}

#[test]
fn a_finished_task_is_told_again_and_not_run_again() {
    let den = Den::new();
    assert_eq!(den.run(SHORT).code, Some(0));
    let first = den.result();
    let again = den.run(SHORT);
    assert_eq!(again.code, Some(0));
    assert!(again.said[0]["text"].as_str().unwrap().contains("finished already"), "{:?}", again.said[0]);
    assert_eq!((again.said.len(), again.last()["times"].clone()), (2, first["times"].clone()));

    fs::remove_file(den.path("t.vmtask/results/stdout.txt")).unwrap();
    assert_eq!(den.run(SHORT).code, Some(215), "its output is gone, which is no success");
}

#[test]
fn a_result_that_was_never_written_is_written_by_the_next_run() {
    let den = Den::new();
    assert_eq!(den.run(SHORT).code, Some(0));
    fs::remove_file(den.path("t.vmtask/results/result.json")).unwrap();
    assert_eq!(den.run(SHORT).code, Some(0));
    assert_eq!(den.result()["outcome"], "completed");
}

#[test]
fn a_result_that_cannot_be_read_is_not_replaced() {
    let den = Den::new();
    assert_eq!(den.run(SHORT).code, Some(0));
    let result = den.path("t.vmtask/results/result.json");
    let later = br#"{"version": 99, "of": "a later vmtask"}"#;
    fs::write(&result, later).unwrap();
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(220), "{}", run.stderr);
    assert!(run.stderr.contains("result.json"), "{}", run.stderr);
    assert_eq!(fs::read(&result).unwrap(), later);
}

#[rstest]
#[case::torn_journal("journal", "half a li", true)]
#[case::both_torn("both", "half a li", false)]
fn a_torn_journal_is_the_older_record_or_a_clear_word(#[case] which: &str, #[case] text: &str, #[case] goes_on: bool) {
    let den = Den::new();
    let mut running = den.start(LONG);
    running.hear_checkpoint();
    running.kill();
    fs::write(den.path("t.vmtask/journal"), text).unwrap();
    if which == "both" {
        fs::write(den.path("t.vmtask/journal.prev"), text).unwrap();
    }
    let run = den.run(SHORT);
    if goes_on {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.said[0]["text"].as_str().unwrap().contains("damaged"), "{:?}", run.said[0]);
    } else {
        assert_eq!(run.code, Some(215), "{}", run.stderr);
        assert!(run.stderr.contains("journal") && run.stderr.contains("damaged"), "{}", run.stderr);
    }
}

#[test]
fn another_task_does_not_go_on_in_the_same_directory() {
    let den = Den::new();
    let mut running = den.start(LONG);
    running.hear_phase("running");
    running.kill();
    fs::write(den.path("t.toml"), TASK.replace("/bin/true", "/bin/false")).unwrap();
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(215), "{}", run.stderr);
    assert!(run.stderr.contains("program.path was \"/bin/true\" and is \"/bin/false\""), "{}", run.stderr);
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let den = Den::new();
    fs::create_dir(den.path("t.vmtask")).unwrap();
    fs::write(den.path("t.vmtask/diary"), "dear").unwrap();
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(215), "{}", run.stderr);
    assert_eq!(fs::read_dir(den.path("t.vmtask")).unwrap().count(), 1);
}

impl Den {
    /// Works on the task until it has a checkpoint and is killed; its number.
    fn begin(&self) -> u64 {
        let mut running = self.start(LONG);
        let checkpoint = running.hear_checkpoint();
        running.kill();
        checkpoint
    }

    fn start_over(&self) -> Run {
        Run::of(&self.command(SHORT).arg("--start-over").output().unwrap())
    }

    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("t.vmtask/vm")).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths
    }
}

#[test]
fn starting_over_says_first_what_it_gives_up_and_results_stay_until_new_ones_replace_them() {
    let den = Den::new();
    let checkpoint = den.begin();
    fs::write(den.path("t.vmtask/results/stdout.txt"), "an earlier run's").unwrap();
    fs::write(den.path("t.vmtask/results/notes.txt"), "of the user's").unwrap();
    let mut running = Running::of(den.command(LONG).arg("--start-over"));
    let begins = running.hear(|line| line["kind"] == "begin");
    let given_up = &running.heard[0];
    assert_eq!((&given_up["kind"], &begins["resumes"]), (&"start_over".into(), &"fresh".into()), "{:?}", running.heard);
    assert!(given_up["checkpoints"].as_array().unwrap().iter().any(|given| given.as_u64() >= Some(checkpoint)));
    assert!(given_up["program_ms"].is_u64() && given_up["text"].as_str().unwrap().contains("gives up"), "{given_up}");
    assert_eq!(running.hear_checkpoint(), 1, "nothing is left of the old ones");
    let read = |name: &str| fs::read_to_string(den.path("t.vmtask/results").join(name)).unwrap();
    assert_eq!(read("stdout.txt"), "an earlier run's");
    running.kill();

    let run = den.run(SHORT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(read("stdout.txt").contains("simulated") && read("notes.txt") == "of the user's");
}

#[test]
fn a_task_that_was_never_begun_or_is_finished_is_not_started_over() {
    let den = Den::new();
    let run = den.start_over();
    assert_eq!((run.code, &run.said[0]["kind"]), (Some(0), &"begin".into()), "there is nothing to give up");
    let before = fs::read(den.path("t.vmtask/results/result.json")).unwrap();
    let run = den.start_over();
    assert_eq!((run.code, &run.last()["exit"]), (Some(215), &215.into()));
    assert!(run.stderr.contains("is finished") && run.stderr.contains("remove the directory"), "{}", run.stderr);
    assert_eq!(fs::read(den.path("t.vmtask/results/result.json")).unwrap(), before);
}

#[test]
fn a_task_that_another_manager_runs_is_not_started_over() {
    let den = Den::new();
    let mut running = den.start(LONG);
    let checkpoint = running.hear_checkpoint();
    let run = den.start_over();
    assert_eq!(run.code, Some(216), "{}", run.stderr);
    assert!(running.hear_checkpoint() > checkpoint);
    running.kill();
    assert!(!den.checkpoints().is_empty());
}

#[test]
fn a_start_over_that_was_cut_short_is_gone_on_with_by_the_next_run() {
    let den = Den::new();
    den.begin();
    fs::write(den.path("t.vmtask/starting-over"), "").unwrap();
    fs::remove_file(den.path("t.vmtask/journal")).unwrap();
    let run = den.run(SHORT);
    assert_eq!((run.code, &run.begins()["resumes"]), (Some(0), &"fresh".into()), "{}", run.stderr);
    assert!(run.said[0]["text"].as_str().unwrap().contains("cut short"), "{:?}", run.said[0]);
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_kept_and_both_ways_out_are_told_and_lead_out() {
    let den = Den::new();
    den.begin();
    // Not even the superuser can read it as a file.
    let away = |path: &PathBuf| path.with_extension("away");
    let checkpoints = den.checkpoints();
    for path in &checkpoints {
        fs::rename(path, away(path)).unwrap();
        fs::create_dir(path).unwrap();
    }
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(220), "{}", run.stderr);
    let summary = run.last()["summary"].as_str().unwrap();
    assert!(fs::read_to_string(den.path("t.vmtask/log")).unwrap().contains(summary), "the log tells how it ended");
    assert!(summary.contains("mend the cause") && summary.contains("`vmtask run --start-over`"), "{summary}");
    assert_eq!(run.last()["dropped"].as_array().map(Vec::len), Some(0));

    for path in &checkpoints {
        fs::remove_dir(path).unwrap();
        fs::rename(away(path), path).unwrap();
    }
    let mended = den.run(SHORT);
    assert!(mended.begins()["resumes"]["from_checkpoint"].is_u64() && mended.code == Some(0), "{}", mended.stderr);
}

#[test]
fn a_checkpoint_that_is_gone_is_told_and_is_in_the_result() {
    let den = Den::new();
    let mut running = den.start(LONG);
    running.hear_checkpoint();
    running.hear_checkpoint();
    running.kill();
    let all = den.checkpoints().len();
    for path in den.checkpoints() {
        fs::remove_file(path).unwrap();
    }
    let run = den.run(SHORT);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let told = run.said.iter().filter(|line| line["report"]["notice"]["checkpoint_dropped"].is_object()).count();
    let dropped = run.last()["dropped"].as_array().unwrap();
    assert!(told == dropped.len() && told >= 1 && told <= all + 1, "{told} told, {dropped:?}, {all} were there");
    assert!(dropped.iter().all(|dropped| dropped["why"] == "missing" && dropped["generation"].is_u64()));
    let history = &run.last()["history"];
    assert_eq!((&history["restarts"], &history["losses"]), (&1.into(), &1.into()), "{history}");
}

#[test]
fn an_earlier_runs_result_is_not_taken_for_the_end() {
    let den = Den::new();
    assert_eq!(den.run(SHORT).code, Some(0));
    let mut result = den.result();
    result["outcome"] = "stopped".into();
    fs::write(den.path("t.vmtask/results/result.json"), result.to_string()).unwrap();
    let run = den.run(SHORT);
    assert_eq!((run.code, &run.last()["outcome"]), (Some(0), &"completed".into()), "it was killed before it wrote one");
}
