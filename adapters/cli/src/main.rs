//! vmtask, the binary.
fn main() {}
