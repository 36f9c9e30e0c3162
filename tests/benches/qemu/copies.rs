//! How fast files go into the guest and out of it, with their sums made and compared on both ends.

use std::fs;

use vmtask_tests::real::Den;
use vmtask_tests::run::{Run, Said, TaskToml};
use vmtask_tests::stats::Sample;

const MB: usize = 100;

pub(crate) fn measure(rounds: usize) {
    let den = Den::new();
    let big = den.path().join("big");
    let content: Vec<u8> = (0..MB * 1_000_000).map(|at: usize| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    fs::write(&big, &content).expect("write a large file");
    let task =
        TaskToml::of_guest("copies", "/bin/true", &[]).input(&big, "big").output("big").checkpoints("off").write(&den);
    let (mut inwards, mut outwards) = (Sample::default(), Sample::default());
    for _ in 0..rounds {
        let dir = den.path().join("task");
        let _ = fs::remove_dir_all(&dir);
        let done = Run::start(&den, &task, &dir).finish().expect(0);
        assert!(done.output("big") == content, "the copy differs");
        let phase = |phase: &'static str| move |said: &Said| said.phase() == Some(phase);
        let output = |ix: u64| move |said: &Said| said.line["report"]["phase"]["copying_out"] == ix;
        let into = done.between(phase("copying_in"), phase("launching")).expect("a file went in");
        let out = done.between(output(0), |said| output(1)(said) || phase("powering_off")(said));
        inwards.add(MB as f64 / into.as_secs_f64());
        outwards.add(MB as f64 / out.expect("a file came out").as_secs_f64());
    }
    println!("\nCopying {MB} MB, SHA-256 compared on both ends, MB/s");
    println!("  {:<58} {inwards:>22.0}", "into the guest");
    println!("  {:<58} {outwards:>22.0}", "out of the guest, flushed to disk");
}
