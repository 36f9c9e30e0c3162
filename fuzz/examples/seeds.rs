//! Makes the seeds that are bytes rather than text: `cargo run -p vmtask-fuzz --example seeds`.
//!
//! Those of `system` are the plans of `tests/traces`; those of `machine` are the random walks that meet the most cells of
//! the table. Run it when the order of the choices has changed: the old seeds then still run, but mean something else.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::{fs, io};

use vmtask_fuzz::{cells_of_machine, record_system};
use vmtask_sim::Prng;

/// Walks that are tried, and those that are kept.
const TRIED: u64 = 20_000;
const KEPT: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    system(&here.join("../tests/traces"), &here.join("corpus/system"))?;
    machine(&here.join("corpus/machine"))?;
    Ok(())
}

fn system(traces: &Path, corpus: &Path) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(traces)? {
        let path = entry?.path();
        let plan = fs::read_to_string(&path)?.parse()?;
        if let (Some(bytes), Some(name)) = (record_system(&plan), path.file_stem()) {
            fs::write(corpus.join(name), bytes)?;
        }
    }
    Ok(())
}

/// The walk that adds the most cells to those of the walks before, so many times.
fn machine(corpus: &Path) -> io::Result<()> {
    let walk = |seed| {
        let mut prng = Prng::new(seed);
        (0..400).map(|_| prng.next_u64().to_le_bytes()[0]).collect::<Vec<u8>>()
    };
    let walks: Vec<_> = (0..TRIED).map(|seed| (seed, cells_of_machine(&walk(seed)))).collect();
    let mut met = BTreeSet::new();
    for at in 0..KEPT {
        let best = walks.iter().max_by_key(|(_, cells)| cells.difference(&met).count());
        let Some((seed, cells)) = best else { break };
        met.extend(cells.iter().copied());
        fs::write(corpus.join(format!("walk-{at:02}")), walk(*seed))?;
    }
    Ok(())
}
