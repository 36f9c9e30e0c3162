//! Compiles the C side of the functions with variable arguments, and keeps the library loaded.

#![allow(clippy::print_stdout, reason = "how a build script talks to cargo")]

fn main() {
    let target = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(target.as_str(), "linux" | "freebsd" | "android") {
        // See the module `pin`.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    println!("cargo::rerun-if-changed=src/exports/variadic.c");
    cc::Build::new().file("src/exports/variadic.c").warnings_into_errors(true).compile("vmtask_standin_variadic");
}
