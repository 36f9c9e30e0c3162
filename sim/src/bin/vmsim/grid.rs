//! A whole project of volunteers: see [`vmtask_sim::grid`].

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;
use vmtask_sim::grid::Grid;

use crate::BANNER;

pub(crate) fn run(grid: &Grid, threads: u8, svg: Option<&Path>, json: bool) -> Result<ExitCode, String> {
    // Before the long part: a file that cannot be written should not cost it.
    let cannot = |path: &Path, error| format!("cannot write the chart {}: {error}", path.display());
    if let Some(path) = svg {
        fs::File::create(path).map_err(|error| cannot(path, error))?;
    }
    let started = Instant::now();
    let report = match grid.run(threads.into()) {
        Ok(report) => report,
        Err(error) if error.is_broken_promise() => {
            eprintln!("vmsim: {error}");
            return Ok(ExitCode::from(1));
        }
        Err(error) => return Err(error.to_string()),
    };
    let seconds = started.elapsed().as_secs_f64();
    let (bytes, peak) = (Grid::bytes_per_host(), peak_memory());
    if json {
        let mut all = report.json();
        all["seconds"] = json!(seconds);
        all["bytes_per_host"] = json!(bytes);
        all["peak_rss_bytes"] = json!(peak);
        line!("{all}");
    } else {
        line!("{BANNER}\n{}", report.table());
        let peak = peak.map_or_else(String::new, |peak| format!(", {} MiB of memory at most", peak >> 20));
        line!("{seconds:.1} s{peak}, {bytes} bytes a host and arm, {threads} arms at a time\n{BANNER}");
    }
    if let Some(path) = svg {
        fs::write(path, report.svg()).map_err(|error| cannot(path, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The most memory that this process has had at once, in bytes, where the system says so.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
