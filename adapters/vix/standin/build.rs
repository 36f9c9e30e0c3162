//! Compiles the C side of the functions with variable arguments.

#![allow(clippy::print_stdout, reason = "how a build script talks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=src/exports/variadic.c");
    cc::Build::new().file("src/exports/variadic.c").warnings_into_errors(true).compile("vmtask_standin_variadic");
}
