//! The agent's kept bytes are those that its source makes, wherever it lies.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use vmtask_guest::AGENT;

const TEXT: &str = include_str!("../bin/agent-x86_64.txt");

fn said(key: &str) -> &'static str {
    let value = TEXT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    value.unwrap_or_else(|| panic!("'{key}' in bin/agent-x86_64.txt"))
}

fn build(guest: &Path, to: &Path) -> Vec<u8> {
    let built = Command::new(guest.join("agent/build")).arg(to).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::read(to).unwrap()
}

/// What the script reads, elsewhere.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && entry.file_name() != "target" => copy(&entry.path(), &to),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn the_kept_agent_is_the_one_that_the_text_names() {
    let hash = Sha256::digest(AGENT).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hash, said("sha256"));
    assert!(AGENT.starts_with(b"\x7fELF"));
}

/// Linking is the proof: the panic handler calls a function that there is not. What is left of it in the bytes would be its
/// messages.
#[test]
fn the_kept_agent_has_nothing_that_panics() {
    for word in ["panic", "unwrap", "out of range", "overflow", ".rs"] {
        assert!(!AGENT.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "'{word}' in the agent");
    }
}

#[test]
fn the_source_makes_the_kept_agent_in_two_places() {
    let dir = tempfile::tempdir().unwrap();
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let there = dir.path().join("else where");
    for part in ["agent", "wire"] {
        copy(&here.join(part), &there.join(part));
    }
    let (one, other) = (build(&here, &dir.path().join("one")), build(&there, &dir.path().join("other")));
    assert!(one == other, "the place shows in the bytes");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = String::from_utf8(Command::new(rustc).arg("-V").output().unwrap().stdout).unwrap();
    if version.trim() != said("compiler") {
        eprintln!("SKIPPED the comparison with the kept bytes: {} is not {}", version.trim(), said("compiler"));
        return;
    }
    assert!(one == AGENT, "the kept agent is not what its source makes: run adapters/guest/agent/build --keep");
}
