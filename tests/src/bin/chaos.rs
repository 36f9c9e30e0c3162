//! Kills `vmtask`, QEMU, or both at random moments, many times over, and checks that nothing is ever lost.
//!
//! `cargo run --release -p vmtask-tests --bin chaos -- --trials 100`, with `--builds` under two QEMU builds in turn
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the kill trials need Linux: they look for processes in /proc");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::ExitCode;
    use std::time::{SystemTime, UNIX_EPOCH};

    use clap::Parser;
    use serde_json::json;
    use vmtask_tests::chaos::{self, Builds, Tally};

    /// Kill trials: SIGKILL of vmtask, of QEMU, of both at random moments; resumed until done; everything checked.
    #[derive(Debug, Parser)]
    struct Args {
        /// How many tasks
        #[arg(long, default_value_t = 20)]
        trials: usize,
        /// Repeats an earlier series; a trial's own seed is printed when it fails
        #[arg(long)]
        seed: Option<u64>,
        /// Repeats only the one trial with this seed
        #[arg(long, conflicts_with_all = ["trials", "seed"])]
        trial: Option<u64>,
        /// Switch at random between two QEMU builds from run to run
        #[arg(long)]
        builds: bool,
        /// Print one JSON object at the end
        #[arg(long)]
        json: bool,
    }

    pub(super) fn main() -> ExitCode {
        let args = Args::parse();
        let seed = args.seed.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 % 1_000_000_007)
        });
        let seeds: Vec<u64> = match args.trial {
            Some(trial) => vec![trial],
            None => chaos::seeds(seed, args.trials).collect(),
        };
        if !args.json {
            println!("seed {seed}, {} trials", seeds.len());
        }
        let builds = if args.builds { Builds::Switched } else { Builds::One };
        let mut tally = Tally::default();
        for (number, &trial_seed) in seeds.iter().enumerate() {
            let trial = chaos::trial(trial_seed, builds);
            if let Err(broken) = &trial {
                println!("trial {} FAILED: repeat it with --trial {}", number + 1, broken.seed);
                println!("  {}\n  kept in {}", broken.why, broken.dir.display());
            } else if !args.json && (number + 1) % 10 == 0 {
                println!("{} trials done", number + 1);
            }
            tally.add(trial);
        }
        if args.json {
            print_json(seed, &tally)
        } else {
            print(&tally)
        }
        if tally.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn print(tally: &Tally) {
        println!("\n{} trials held, {} did not", tally.held, tally.broken.len());
        println!("kills: {}", counts(tally.victims.iter().map(|(victim, count)| (format!("{victim:?}"), *count))));
        println!("hit while: {}", counts(tally.phases.iter().map(|(phase, count)| (phase.clone(), *count))));
        if tally.refusals > 0 {
            println!(
                "runs under a build that may not load the checkpoints, which are all still there: {}",
                tally.refusals
            );
        }
        println!("seconds, median (smallest-largest):");
        println!("  work done again after a kill      {:.2}", tally.lost);
        println!("  vmtask started to program resumed {:.2}", tally.resumes);
        println!("  a checkpoint, frozen to durable   {:.2}", tally.checkpoints);
    }

    fn counts(counts: impl Iterator<Item = (String, usize)>) -> String {
        counts.map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }

    fn print_json(seed: u64, tally: &Tally) {
        let broken: Vec<_> = tally
            .broken
            .iter()
            .map(|broken| json!({ "seed": broken.seed, "why": broken.why, "dir": broken.dir }))
            .collect();
        let victims: serde_json::Map<_, _> =
            tally.victims.iter().map(|(victim, count)| (format!("{victim:?}"), json!(count))).collect();
        let object = json!({
            "seed": seed,
            "held": tally.held,
            "broken": broken,
            "kills": victims,
            "phases": tally.phases,
            "refusals": tally.refusals,
            "lost_s": { "median": tally.lost.median(), "max": tally.lost.max() },
            "resume_s": { "median": tally.resumes.median(), "max": tally.resumes.max() },
            "checkpoint_s": { "median": tally.checkpoints.median(), "max": tally.checkpoints.max() },
        });
        println!("{object}");
    }
}
