//! The guest programs in `guest/`, compiled when they are needed: static, so that they run anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::real;

/// How wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// i686
    B32,
    /// x86-64
    B64,
}

/// The program compiled from this C source.
///
/// # Panics
/// If it cannot be compiled: `gcc` and `gcc-multilib` are needed.
#[must_use]
pub fn compiled(source: &Path, bits: Bits, flags: &[&str]) -> PathBuf {
    let stem = source.file_stem().and_then(|stem| stem.to_str()).unwrap_or("program");
    let text = fs::read(source).unwrap_or_else(|error| panic!("cannot read {}: {error}", source.display()));
    let width = if bits == Bits::B32 { "-m32" } else { "-m64" };
    // Named for what it is made of: an older one is never taken for it.
    let made_of = [text.as_slice(), width.as_bytes(), flags.join(" ").as_bytes()].concat();
    let dir = real::home().join("guest-programs");
    let program = dir.join(format!("{stem}-{}", &vmtask_driver::Digest::of(&made_of).to_string()[..16]));
    if program.exists() {
        return program;
    }
    fs::create_dir_all(&dir).expect("make the directory for guest programs");
    let _lock = real::lock("guest-programs");
    let part = program.with_extension("part");
    let done = Command::new("gcc")
        .args([width, "-static", "-O2", "-Wall", "-Wextra", "-Werror"])
        .args(flags)
        .arg("-o")
        .arg(&part)
        .arg(source)
        .arg("-lm")
        .output()
        .expect("run gcc; install gcc and gcc-multilib");
    assert!(done.status.success(), "gcc {width} {}: {}", source.display(), String::from_utf8_lossy(&done.stderr));
    fs::rename(&part, &program).expect("put a guest program in place");
    program
}

/// One of ours, by its name without `.c`.
#[must_use]
pub fn program(name: &str, bits: Bits) -> PathBuf {
    compiled(&real::repository().join(format!("tests/guest/{name}.c")), bits, &[])
}
