#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vmtask_fuzz::machine(bytes));
