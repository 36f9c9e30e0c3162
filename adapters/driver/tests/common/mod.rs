//! What several tests need.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part of it")]

use std::path::Path;

use vmtask_core::{
    Capabilities, CheckpointSpec, FileIn, FileOut, Limits, Pause, ProgramSpec, Snapshots, Span, TaskDraft, TaskSpec,
};
use vmtask_driver::{Binding, HostId};

/// A task with an input, an output and a checkpoint every minute.
pub(crate) fn spec() -> TaskSpec {
    TaskDraft {
        name: "leibniz".to_owned(),
        platform: "x86_64-pc-linux-gnu".to_owned(),
        program: ProgramSpec {
            path: "leibniz".to_owned(),
            args: vec!["1000".to_owned()],
            env: [("LC_ALL".to_owned(), "C".to_owned())].into(),
            stdout: "stdout.txt".to_owned(),
            stderr: "stderr.txt".to_owned(),
            progress: None,
        },
        files_in: vec![FileIn { host: "leibniz".to_owned(), guest: "leibniz".to_owned(), executable: true }],
        files_out: vec![FileOut { guest: "stdout.txt".to_owned(), host: "result.txt".to_owned(), optional: false }],
        checkpoint: Some(CheckpointSpec { every: Span::from_secs(60), keep: 2 }),
        limits: Limits::default(),
    }
    .check()
    .unwrap()
}

/// Of a hypervisor that can do everything and dies with its manager.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        linked_clones: true,
        snapshots: Snapshots::Many,
        pause: Pause::Native,
        guest_login: false,
        outlives_manager: false,
        disk: true,
    }
}

pub(crate) fn binding() -> Binding {
    Binding { host: HostId::of("here"), hypervisor: "qemu".to_owned(), fingerprint: "f00d".to_owned() }
}

/// The names of everything below `dir`, sorted.
pub(crate) fn names_below(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What an error says, with `DIR` for a directory and `/` below it, whatever the operating system has there.
pub(crate) fn told(error: &dyn std::error::Error, dir: &Path) -> String {
    error.to_string().replace(&*dir.to_string_lossy(), "DIR").replace("DIR\\", "DIR/")
}
