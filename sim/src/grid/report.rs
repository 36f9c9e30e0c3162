//! What came of the four arms: as figures, as a table, as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::arm::Arm;
use super::class::CLASSES;
use super::draw::{DAY, HOUR, SECOND};
use super::host::Tally;
use super::server::{Copies, Server};

/// What came of one arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Which.
    pub arm: Arm,
    /// Workunits that were decided by a quorum.
    pub decided: u32,
    /// Workunits on which there was no agreement among as many copies as there may be.
    pub failed: u32,
    /// What became of the copies.
    pub copies: Copies,
    /// How many results had each of the values in [`CLASSES`].
    pub values: [u64; CLASSES.len()],
    /// From a workunit's first copy to its decision, in seconds: the median.
    pub median_s: u64,
    /// The same: 95 of a hundred workunits took at most so long.
    pub slow_s: u64,
    /// Until the last workunit was decided, in seconds.
    pub total_s: u64,
    /// For how long programs ran, over all hosts, in milliseconds.
    pub computed_ms: u64,
    /// How much of that was done again after a crash.
    pub lost_by_crash_ms: u64,
    /// How much of that was done again after a computer was switched off.
    pub lost_by_switching_off_ms: u64,
    /// How much of that was thrown away with copies that were aborted or failed.
    pub thrown_away_ms: u64,
    /// How often a manager was killed, the power failed, a guest stopped, or one had to be stopped with a command that
    /// hung.
    pub crashes: u64,
    /// How often a computer was switched off while it computed.
    pub quits: u64,
    /// How often a task was suspended.
    pub suspends: u64,
    /// How many checkpoints were made.
    pub checkpoints: u64,
    /// How many machines were made, anew or from a record.
    pub machines: u64,
    /// How many inputs and timers they dealt with.
    pub inputs: u64,
}

impl Figures {
    pub(super) fn of(arm: Arm, mut server: Server, tally: &Tally) -> Self {
        let mut times = std::mem::take(&mut server.turnaround);
        times.sort_unstable();
        let hundredth = |n: usize| times.get((times.len() * n / 100).min(times.len().saturating_sub(1)));
        Self {
            arm,
            decided: u32::try_from(times.len()).unwrap_or(u32::MAX),
            failed: server.failed,
            copies: server.copies(),
            values: server.values,
            median_s: hundredth(50).map_or(0, |&s| s.into()),
            slow_s: hundredth(95).map_or(0, |&s| s.into()),
            total_s: server.finished / SECOND,
            computed_ms: tally.hours.computed,
            lost_by_crash_ms: tally.hours.lost_by_crash,
            lost_by_switching_off_ms: tally.hours.lost_by_switching_off,
            thrown_away_ms: tally.hours.thrown_away,
            crashes: tally.crashes,
            quits: tally.quits,
            suspends: tally.suspends,
            checkpoints: tally.checkpoints,
            machines: tally.managers,
            inputs: tally.inputs,
        }
    }

    /// How many different values the results have.
    #[must_use]
    pub fn different_values(&self) -> usize {
        self.values.iter().filter(|&&n| n > 0).count()
    }

    /// Copies sent for each workunit, on average.
    #[must_use]
    pub fn copies_per_workunit(&self) -> f64 {
        ratio(self.copies.sent, u64::from(self.decided + self.failed))
    }

    /// Results that were computed to the end and did not count, in percent of all results.
    #[must_use]
    pub fn wasted_percent(&self) -> f64 {
        100.0 * ratio(self.copies.wasted(), self.copies.wasted() + self.copies.counted)
    }

    /// Computing that was done again, after a crash or after the computer was off, in percent of all.
    #[must_use]
    pub fn done_again_percent(&self) -> f64 {
        100.0 * ratio(self.lost_by_crash_ms + self.lost_by_switching_off_ms, self.computed_ms)
    }

    /// Hours of computing that one workunit cost, over all its copies.
    #[must_use]
    pub fn hours_per_workunit(&self) -> f64 {
        ratio(self.computed_ms, HOUR) / f64::from((self.decided + self.failed).max(1))
    }

    /// Minutes of computing that were lost with each crash.
    #[must_use]
    pub fn minutes_per_crash(&self) -> f64 {
        ratio(self.lost_by_crash_ms / 60, 1000) / ratio(self.crashes.max(1), 1)
    }

    fn json(&self) -> Value {
        let copies = &self.copies;
        json!({
            "vm": self.arm.vm,
            "checkpoints": self.arm.checkpoints,
            "workunits_decided": self.decided,
            "workunits_failed": self.failed,
            "different_values": self.different_values(),
            "values": CLASSES.iter().zip(self.values).map(|(class, n)| json!({
                "value": class.value, "results": n
            })).collect::<Vec<_>>(),
            "copies": {
                "sent": copies.sent, "counted": copies.counted, "surplus": copies.surplus,
                "outvoted": copies.outvoted, "lost": copies.lost, "overdue": copies.overdue,
            },
            "copies_per_workunit": self.copies_per_workunit(),
            "results_wasted": copies.wasted(),
            "turnaround_median_s": self.median_s,
            "turnaround_95th_s": self.slow_s,
            "total_s": self.total_s,
            "computed_ms": self.computed_ms,
            "lost_by_crash_ms": self.lost_by_crash_ms,
            "lost_by_switching_off_ms": self.lost_by_switching_off_ms,
            "thrown_away_ms": self.thrown_away_ms,
            "crashes": self.crashes,
            "quits": self.quits,
            "suspends": self.suspends,
            "checkpoints_made": self.checkpoints,
            "machines": self.machines,
            "inputs": self.inputs,
        })
    }
}

/// What came of all arms, side by side. The same for the same grid, wherever it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many hosts there were.
    pub hosts: u32,
    /// How many workunits.
    pub workunits: u32,
    /// The seed.
    pub seed: u64,
    /// In the order of [`Arm::ALL`].
    pub arms: Vec<Figures>,
}

impl Report {
    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} hosts, {} workunits of 4 hours, 2 copies each until 2 results are equal; seed {}\n\n",
            self.hosts, self.workunits, self.seed
        );
        self.row(&mut text, "", |f| f.arm.where_it_runs().into());
        self.row(&mut text, "", |f| f.arm.what_is_kept().into());
        self.row(&mut text, "different values among the results", |f| f.different_values().to_string());
        self.row(&mut text, "copies per workunit", |f| format!("{:.3}", f.copies_per_workunit()));
        self.row(&mut text, "results wasted, % of all results", |f| format!("{:.2}", f.wasted_percent()));
        self.row(&mut text, "  outvoted", |f| f.copies.outvoted.to_string());
        self.row(&mut text, "  equal, but came too late", |f| f.copies.surplus.to_string());
        self.row(&mut text, "copies aborted or failed", |f| f.copies.lost.to_string());
        self.row(&mut text, "copies past their deadline", |f| f.copies.overdue.to_string());
        self.row(&mut text, "workunits without agreement", |f| f.failed.to_string());
        self.row(&mut text, "days for a workunit, median", |f| days(f.median_s));
        self.row(&mut text, "days for a workunit, 95th of 100", |f| days(f.slow_s));
        self.row(&mut text, "days until the last is done", |f| days(f.total_s));
        self.row(&mut text, "hours computed per workunit", |f| format!("{:.2}", f.hours_per_workunit()));
        self.row(&mut text, "work done again, % of all", |f| format!("{:.2}", f.done_again_percent()));
        self.row(&mut text, "  after crashes, host-days", |f| host_days(f.lost_by_crash_ms));
        self.row(&mut text, "  after switching off, host-days", |f| host_days(f.lost_by_switching_off_ms));
        self.row(&mut text, "minutes lost per crash", |f| format!("{:.1}", f.minutes_per_crash()));
        self.row(&mut text, "crashes", |f| f.crashes.to_string());
        self.row(&mut text, "switched off while computing", |f| f.quits.to_string());
        self.row(&mut text, "suspended", |f| f.suspends.to_string());
        self.row(&mut text, "checkpoints made", |f| f.checkpoints.to_string());
        self.row(&mut text, "machines of the core", |f| f.machines.to_string());
        self.row(&mut text, "their inputs", |f| f.inputs.to_string());
        text
    }

    fn row(&self, text: &mut String, what: &str, cell: impl Fn(&Figures) -> String) {
        let _ = write!(text, "{what:<34}");
        for figures in &self.arms {
            let _ = write!(text, " {:>15}", cell(figures));
        }
        text.push('\n');
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "simulated": true,
            "hosts": self.hosts,
            "workunits": self.workunits,
            "seed": self.seed,
            "arms": self.arms.iter().map(Figures::json).collect::<Vec<_>>(),
        })
    }

    /// As a chart, in SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        super::chart::svg(self)
    }
}

fn days(seconds: u64) -> String {
    format!("{:.2}", ratio(seconds, DAY / SECOND))
}

fn host_days(millis: u64) -> String {
    format!("{:.1}", ratio(millis, DAY))
}

/// Exact enough, and the same everywhere: two conversions and one division, which IEEE 754 rounds in one way.
#[allow(clippy::cast_precision_loss, reason = "figures are shown with five digits")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
