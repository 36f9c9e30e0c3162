//! Tests across the crates of vmtask, with real components.
