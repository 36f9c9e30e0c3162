//! Task directories: whose they are, and what may change between two runs.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{binding, names_below, spec, told};
use rstest::rstest;
use vmtask_core::{FileOut, Span, TaskDraft};
use vmtask_driver::{Binding, Digest, HostId, InputFile, RealStorage, TaskDir, TaskDirError};

fn input(content: &str) -> InputFile {
    InputFile { path: "anywhere".into(), size: content.len() as u64, sha256: Digest::of(content.as_bytes()) }
}

fn open(root: &Path) -> Result<TaskDir, TaskDirError> {
    TaskDir::open(&RealStorage, root, &spec(), &[input("program")], &binding())
}

#[test]
fn a_directory_is_made_with_its_places_and_opened_again() {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("t.vmtask");
    let dir = open(&root).unwrap();
    assert!(dir.is_new());
    let id = dir.id().clone();
    drop(dir);
    assert_eq!(names_below(&root), ["lock", "results", "task.json"]);
    assert_eq!(names_below(base.path()), ["t.vmtask"], "nothing outside is touched");
    let again = open(&root).unwrap();
    assert!(!again.is_new());
    assert_eq!(*again.id(), id);
}

#[test]
fn a_second_manager_in_the_same_directory_is_refused_and_told_who_is_there() {
    let base = tempfile::tempdir().unwrap();
    let first = open(base.path()).unwrap();
    let error = open(base.path()).unwrap_err();
    assert!(matches!(&error, TaskDirError::InUse { pid: Some(pid), .. } if *pid == std::process::id()), "{error:?}");
    let text = told(&error, base.path()).replace(&std::process::id().to_string(), "PID");
    insta::assert_snapshot!(text);
    drop(first);
    open(base.path()).unwrap();
}

#[test]
fn somebody_elses_directory_is_refused_and_not_changed() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("thesis.tex"), "").unwrap();
    let error = open(base.path()).unwrap_err();
    insta::assert_snapshot!(told(&error, base.path()));
    assert_eq!(names_below(base.path()), ["thesis.tex"]);
}

#[test]
fn a_directory_that_is_somewhere_nowhere_or_a_file_is_told() {
    let base = tempfile::tempdir().unwrap();
    let error = open(&base.path().join("no/t")).unwrap_err();
    assert!(matches!(error, TaskDirError::NoParent(_)), "{error:?}");
    fs::write(base.path().join("file"), "").unwrap();
    let error = open(&base.path().join("file")).unwrap_err();
    assert!(matches!(error, TaskDirError::Io { .. }), "{error:?}");
}

#[test]
fn a_directory_from_another_host_is_refused() {
    let base = tempfile::tempdir().unwrap();
    drop(open(base.path()).unwrap());
    let elsewhere = Binding { host: HostId::of("elsewhere"), ..binding() };
    let error = TaskDir::open(&RealStorage, base.path(), &spec(), &[input("program")], &elsewhere).unwrap_err();
    insta::assert_snapshot!(told(&error, base.path()));
}

#[test]
fn this_host_has_a_name_that_stays_and_is_not_its_machine_id() {
    let host = HostId::of_this_host().unwrap();
    assert_eq!(host, HostId::of_this_host().unwrap());
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let shown = format!("{host:?}");
    assert!(id.trim().is_empty() || !shown.contains(id.trim()), "{shown}");
}

/// Everything that a task is begun with.
struct With {
    task: TaskDraft,
    inputs: Vec<InputFile>,
    binding: Binding,
}

impl With {
    fn changed(change: impl FnOnce(&mut Self)) -> Self {
        let mut with = Self { task: spec().into(), inputs: vec![input("program")], binding: binding() };
        change(&mut with);
        with
    }

    fn open(&self, root: &Path) -> Result<TaskDir, TaskDirError> {
        TaskDir::open(&RealStorage, root, &self.task.clone().check().unwrap(), &self.inputs, &self.binding)
    }
}

#[rstest]
#[case::argument("argument", |with: &mut With| with.task.program.args[0] = "2000".to_owned())]
#[case::one_more_argument("one_more_argument", |with: &mut With| with.task.program.args.push("2000".to_owned()))]
#[case::environment("environment", |with: &mut With| drop(with.task.program.env.insert("X".to_owned(), "1".to_owned())))]
#[case::platform("platform", |with: &mut With| with.task.platform = "i686-pc-linux-gnu".to_owned())]
#[case::fingerprint("fingerprint", |with: &mut With| with.binding.fingerprint = "beef".to_owned())]
#[case::hypervisor("hypervisor", |with: &mut With| with.binding.hypervisor = "vix".to_owned())]
#[case::input("input", |with: &mut With| with.inputs[0] = input("another program"))]
#[case::memory("memory", |with: &mut With| with.task.limits.memory = Some(1 << 30))]
fn what_a_checkpoint_contains_may_not_change(#[case] name: &str, #[case] change: fn(&mut With)) {
    let base = tempfile::tempdir().unwrap();
    drop(open(base.path()).unwrap());
    let error = With::changed(change).open(base.path()).unwrap_err();
    assert!(matches!(error, TaskDirError::Changed { .. }), "{error:?}");
    insta::assert_snapshot!(name, told(&error, base.path()));
    // Changed back, it goes on.
    open(base.path()).unwrap();
}

#[rstest]
#[case::interval(|with: &mut With| with.task.checkpoint.as_mut().unwrap().every = Span::from_secs(1))]
#[case::run_limit(|with: &mut With| with.task.limits.run_ms = Some(1))]
#[case::outputs(|with: &mut With| with.task.files_out.push(FileOut { guest: "x".into(), host: "x".into(), optional: true }))]
#[case::host_path(|with: &mut With| {
    with.task.files_in[0].host = "../leibniz".to_owned();
    with.inputs[0].path = "../leibniz".into();
})]
fn what_only_concerns_the_manager_may_change(#[case] change: fn(&mut With)) {
    let base = tempfile::tempdir().unwrap();
    drop(open(base.path()).unwrap());
    With::changed(change).open(base.path()).unwrap();
}

#[rstest]
#[case::torn("{\"format\":", "damaged")]
#[case::something_else("{}", "damaged")]
#[case::later("{\"format\":\"vmtask-task\",\"version\":2}", "later version")]
fn a_marker_that_cannot_be_relied_on_is_an_error(#[case] marker: &str, #[case] word: &str) {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("task.json"), marker).unwrap();
    let error = open(base.path()).unwrap_err().to_string();
    assert!(error.contains(word), "{error}");
}
