//! Task files: what a good one means, and what is said of a bad one.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rstest::rstest;
use vmtask_core::{FileIx, Span, TaskSpec};
use vmtask_driver::{Digest, TaskFile, TaskFileError};

const SMALLEST: &str = r#"
name = "t"
platform = "x86_64-pc-linux-gnu"
[program]
path = "/bin/true"
"#;

fn parse(text: &str) -> Result<TaskFile, TaskFileError> {
    TaskFile::parse(Path::new("dir/task.toml"), text)
}

fn spec(text: &str) -> TaskSpec {
    parse(text).unwrap().spec().clone()
}

#[test]
fn every_field_of_a_task_file_arrives() {
    insta::assert_debug_snapshot!(spec(
        r#"
name = "leibniz"
platform = "i686-pc-linux-gnu"
[program]
path = "bin/leibniz"
args = ["1000", "a b", ""]
env = { LC_ALL = "C", X = "" }
stdout = "out/stdout.txt"
stderr = "stderr.txt"
progress = "progress"
[[files_in]]
host = "../build/leibniz"
guest = "bin/leibniz"
[[files_in]]
host = "/etc/hostname"
[[files_in]]
host = "tool"
executable = true
[[files_out]]
guest = "out/stdout.txt"
host = "result.txt"
[[files_out]]
guest = "data.bin"
optional = true
[checkpoint]
every = "90s"
keep = 3
[limits]
memory = "256MiB"
cpus = 2
disk = "1.5GB"
run = "1h 30m"
output = 4096
"#
    ));
}

#[test]
fn what_is_left_out_has_a_default_and_both_streams_are_collected() {
    insta::assert_debug_snapshot!(spec(SMALLEST));
}

#[test]
fn off_means_none() {
    let spec = spec(&format!("{SMALLEST}[checkpoint]\nevery = \"off\"\nkeep = 1\n[limits]\nrun = \"off\"\n"));
    assert_eq!((spec.checkpoint, spec.limits.run_ms), (None, None));
}

#[test]
fn one_stream_for_both_is_collected_once() {
    let spec = spec(&format!("{SMALLEST}stdout = \"log\"\nstderr = \"log\"\n"));
    assert_eq!(spec.files_out.iter().map(|file| &*file.host).collect::<Vec<_>>(), ["log"]);
}

#[rstest]
#[case::not_toml("no_toml", "name = \n")]
#[case::no_name("no_name", "platform = \"p\"\n[program]\npath = \"/x\"\n")]
#[case::unknown_key("unknown_key", &format!("{SMALLEST}arg = \"x\"\n"))]
#[case::unknown_table("unknown_table", &format!("{SMALLEST}[checkpoints]\nevery = \"5m\"\n"))]
#[case::wrong_type("wrong_type", &format!("{SMALLEST}args = \"1000\"\n"))]
#[case::twice("key_twice", &format!("{SMALLEST}path = \"/bin/false\"\n"))]
#[case::bad_name("bad_name", &SMALLEST.replace("\"t\"", "\"../t\""))]
#[case::bad_platform("bad_platform", &SMALLEST.replace("x86_64-pc-linux-gnu", "x86 64"))]
#[case::absolute_guest("absolute_guest", &format!("{SMALLEST}[[files_in]]\nhost = \"x\"\nguest = \"/etc/passwd\"\n"))]
#[case::dotdot_guest("dotdot_guest", &format!("{SMALLEST}[[files_in]]\nhost = \"x\"\nguest = \"a/../../x\"\n"))]
#[case::dotdot_out("dotdot_out", &format!("{SMALLEST}[[files_out]]\nguest = \"x\"\nhost = \"../x\"\n"))]
#[case::dotdot_stdout("dotdot_stdout", &format!("{SMALLEST}stdout = \"../x\"\n"))]
#[case::host_is_no_file("host_is_no_file", &format!("{SMALLEST}[[files_in]]\nhost = \"..\"\n"))]
#[case::same_guest_name("same_guest_name", &format!("{SMALLEST}[[files_in]]\nhost = \"x\"\n[[files_in]]\nhost = \"y/x\"\n"))]
#[case::same_host_name("same_host_name", &format!("{SMALLEST}[[files_out]]\nguest = \"x\"\n[[files_out]]\nguest = \"y\"\nhost = \"x\"\n"))]
#[case::nested("nested", &format!("{SMALLEST}[[files_out]]\nguest = \"x\"\n[[files_out]]\nguest = \"x/y\"\n"))]
#[case::taken_by_stdout("taken_by_stdout", &format!("{SMALLEST}[[files_out]]\nguest = \"x\"\nhost = \"stdout.txt\"\n"))]
#[case::result_json("result_json", &format!("{SMALLEST}[[files_out]]\nguest = \"Result.json\"\n"))]
#[case::no_program("no_program", &SMALLEST.replace("/bin/true", ""))]
#[case::program_not_there("program_not_there", &SMALLEST.replace("/bin/true", "leibniz"))]
#[case::program_not_executable(
    "program_not_executable",
    &format!("{}[[files_in]]\nhost = \"pi\"\nexecutable = false\n", SMALLEST.replace("/bin/true", "pi"))
)]
#[case::bad_env("bad_env", &format!("{SMALLEST}env = {{ \"A=B\" = \"c\" }}\n"))]
#[case::duration_without_unit("duration_without_unit", &format!("{SMALLEST}[checkpoint]\nevery = 300\n"))]
#[case::bad_duration("bad_duration", &format!("{SMALLEST}[checkpoint]\nevery = \"5 parsecs\"\n"))]
#[case::no_duration("no_duration", &format!("{SMALLEST}[checkpoint]\nevery = \"0s\"\n"))]
#[case::long_duration("long_duration", &format!("{SMALLEST}[checkpoint]\nevery = \"1y\"\n"))]
#[case::keep_none("keep_none", &format!("{SMALLEST}[checkpoint]\nkeep = 0\n"))]
#[case::keep_too_many("keep_too_many", &format!("{SMALLEST}[checkpoint]\nkeep = 9\n"))]
#[case::bad_size("bad_size", &format!("{SMALLEST}[limits]\nmemory = \"lots\"\n"))]
#[case::negative_size("negative_size", &format!("{SMALLEST}[limits]\ndisk = -1\n"))]
#[case::little_memory("little_memory", &format!("{SMALLEST}[limits]\nmemory = \"1MiB\"\n"))]
#[case::no_cpus("no_cpus", &format!("{SMALLEST}[limits]\ncpus = 0\n"))]
#[case::no_run("no_run", &format!("{SMALLEST}[limits]\nrun = \"0s\"\n"))]
fn a_bad_task_file_is_told_with_line_column_and_the_way_out(#[case] name: &str, #[case] text: &str) {
    insta::assert_snapshot!(name, parse(text).unwrap_err().to_string());
}

#[test]
fn columns_count_characters() {
    let error = parse("# \u{e4}\n\"\u{e4}\u{e4}\" = 1\n").unwrap_err();
    assert!(error.to_string().starts_with("dir/task.toml:2:1: "), "{error}");
    let error = parse("name = \"\u{e4}\", x\n").unwrap_err();
    assert!(error.to_string().starts_with("dir/task.toml:1:11: "), "{error}");
}

#[test]
fn a_task_file_that_is_not_there_or_no_file_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = TaskFile::load(&dir.path().join("no.toml")).unwrap_err().to_string();
    // Linux, Windows and Wine each have words of their own for it.
    assert!(missing.contains("no.toml") && missing.contains("(os error 2)"), "{missing}");
    let directory = TaskFile::load(dir.path()).unwrap_err().to_string();
    assert!(directory.contains("it is not a file"), "{directory}");
    let large = dir.path().join("large.toml");
    fs::write(&large, vec![b'#'; 1 << 21]).unwrap();
    assert!(TaskFile::load(&large).unwrap_err().to_string().contains("larger than 1 MiB"));
}

fn with_inputs(hosts: &[&str]) -> (tempfile::TempDir, TaskFile) {
    let dir = tempfile::tempdir().unwrap();
    let inputs: String = hosts
        .iter()
        .enumerate()
        .map(|(ix, host)| format!("[[files_in]]\nhost = \"{host}\"\nguest = \"{ix}\"\n"))
        .collect();
    let path = dir.path().join("task.toml");
    fs::write(&path, format!("{SMALLEST}{inputs}")).unwrap();
    let file = TaskFile::load(&path).unwrap();
    (dir, file)
}

#[test]
fn inputs_are_found_beside_the_task_file_and_read_once() {
    let (dir, file) = with_inputs(&["sub/data"]);
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/data"), "abc").unwrap();
    let inputs = file.check_inputs().unwrap();
    assert_eq!((inputs[0].size, inputs[0].sha256), (3, Digest::of(b"abc")));
    assert_eq!(file.input(FileIx(0)), Some(dir.path().join("sub/data")));
    assert_eq!(file.input(FileIx(1)), None);
    assert_eq!(file.default_dir(), dir.path().join("t.vmtask"));
}

#[test]
#[cfg(unix)]
fn every_input_that_cannot_be_used_is_told_with_its_place() {
    use std::os::unix::fs::symlink;
    let (dir, file) = with_inputs(&["missing", "good", "directory", "socket", "loop"]);
    fs::write(dir.path().join("good"), "").unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    let error = file.check_inputs().unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&*dir.path().to_string_lossy(), "BASE"));
}

#[test]
#[cfg(unix)]
fn an_input_that_may_not_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        // Root reads everything; the same code is reached by the link above that leads to itself.
        return;
    }
    let (dir, file) = with_inputs(&["secret"]);
    let path = dir.path().join("secret");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    assert!(file.check_inputs().unwrap_err().to_string().contains("cannot be read (Permission denied"));
}

#[test]
fn a_relative_task_file_has_the_present_directory_as_its_base() {
    let file = TaskFile::parse(Path::new("task.toml"), SMALLEST).unwrap();
    assert_eq!(file.base(), Path::new("."));
    assert_eq!(file.default_dir(), PathBuf::from("./t.vmtask"));
}

proptest! {
    /// Whatever is written, the answer is a task or an error with a place that exists.
    #[test]
    fn no_text_makes_the_parser_panic(text in "(name|platform|\\[program\\]|path|=|\"[a-z./]*\"|\n|[ -~]|ä){0,60}") {
        if let Err(TaskFileError::Bad { place, .. }) = parse(&text) {
            prop_assert!(place.line >= 1 && place.line <= text.matches('\n').count() + 1);
            prop_assert!(place.column >= 1);
        }
    }

    #[test]
    fn a_duration_arrives_whole(seconds in 1_u32..4_000_000) {
        let duration = humantime::format_duration(std::time::Duration::from_secs(seconds.into()));
        let spec = spec(&format!("{SMALLEST}[checkpoint]\nevery = \"{duration}\"\n"));
        prop_assert_eq!(spec.checkpoint.unwrap().every, Span::from_millis(seconds.saturating_mul(1000)));
    }
}
