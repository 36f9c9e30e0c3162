//! What a linker sees of the library.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use vmtask_vix_abi::Function;

#[test]
fn the_library_exports_the_functions_of_the_header_and_nothing_else() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(common::library()).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let wanted: BTreeSet<&str> = Function::ALL.iter().map(|function| function.name()).collect();
    assert_eq!(exported, wanted);
}
