//! Another QEMU build at random between the runs of a trial.
//!
//! A run whose build has not made the checkpoints ends with 213 and leaves every one of them as it was, also if it is
//! killed; the next one under the build that made them goes on. What a trial checks at its end holds as without this.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Dice, Kill, Moment, Victim};
use crate::builds::Build;
use crate::real::{self, Den};
use crate::run::{Finished, Run, Said, wall_ms};

/// "A hypervisor, build or accelerator that cannot do it."
const REFUSED: i32 = 213;

/// A file as it is told from one that was written again.
type Identity = (u64, u64, i64, i64);

/// Which build is next, and what the last one has left.
pub(super) struct Switching {
    builds: [Build; 2],
    dice: Dice,
    /// Which of them runs now.
    now: usize,
    /// Another one has made the newest checkpoint.
    is_foreign: bool,
    was_refused: bool,
    /// The program has ended once: the task may be over, and its checkpoints gone.
    may_be_over: bool,
    before: BTreeMap<PathBuf, Identity>,
}

impl Switching {
    pub(super) fn new(seed: u64) -> Self {
        // Not the trial's own numbers: its kills are the same with and without this.
        let dice = Dice::new(seed ^ 0x5be1_1ed0_0b1d_5eed);
        let builds = [Build::installed(), Build::other()];
        Self {
            builds,
            dice,
            now: 0,
            is_foreign: false,
            was_refused: false,
            may_be_over: false,
            before: BTreeMap::new(),
        }
    }

    /// Starts the next run, under one of the builds; after one that was refused, under the other.
    pub(super) fn start(&mut self, den: &Den, task: &Path, dir: &Path) -> Run {
        self.now = if self.was_refused { 1 - self.now } else { self.dice.below(2) as usize };
        let build = &self.builds[self.now];
        self.before = checkpoints(dir);
        self.is_foreign = newest_maker(dir).is_some_and(|maker| maker != build.name);
        let mut command = den.vmtask();
        build.first_in_path(&mut command);
        Run::start_by(command, task, dir)
    }

    /// Whether the present run cannot load the newest checkpoint.
    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// A kill of a run that has nothing to do but to refuse, in one of three.
    pub(super) fn kill(&mut self) -> Option<Kill> {
        let moment = Moment::After(Duration::from_millis(self.dice.below(1500)));
        (self.dice.below(3) == 0).then_some(Kill { victim: Victim::Manager, moment })
    }

    /// What stands for a run that has refused, in the story of the work: from then on nothing ran.
    pub(super) fn marker(run: &Run) -> Said {
        Said { at: run.begun, wall_ms: wall_ms(), line: json!({ "report": { "phase": "provisioning" } }) }
    }

    /// Checks how a run has ended and what it has left. Whether it has refused.
    pub(super) fn check(&mut self, ended: &Finished) -> Result<bool, String> {
        self.was_refused = ended.code() == Some(REFUSED);
        let after = checkpoints(&ended.dir);
        let name = &self.builds[self.now].name;
        if self.was_refused && !self.is_foreign {
            return Err(format!("{name} refuses its own checkpoint: {}", ended.stderr.trim()));
        }
        let must_stay = self.was_refused || (self.is_foreign && !self.may_be_over);
        if must_stay && !(self.was_refused || ended.was_killed()) {
            return Err(format!("{name} went on from another build's checkpoint: {}; {}", ended.status, ended.stderr));
        }
        if must_stay && after != self.before {
            return Err(format!("under {name} there were {:?}, and now there are {after:?}", self.before));
        }
        self.may_be_over |= ended.said.iter().any(|said| said.phase() == Some("copying_out"));
        Ok(self.was_refused)
    }
}

/// The files of all checkpoints that have a manifest.
fn checkpoints(dir: &Path) -> BTreeMap<PathBuf, Identity> {
    let files = real::files_below(&dir.join("vm/checkpoints"));
    let counts = |path: &PathBuf| path.with_extension("json").exists() && path.extension().is_some_and(is_state);
    let identity = |path: PathBuf| {
        let meta = fs::metadata(&path).ok()?;
        Some((path, (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())))
    };
    files.into_iter().filter(counts).filter_map(identity).collect()
}

fn is_state(kind: &std::ffi::OsStr) -> bool {
    kind == "json" || kind == "ram"
}

/// The build that has made the newest checkpoint, by its manifest.
fn newest_maker(dir: &Path) -> Option<String> {
    let files = real::files_below(&dir.join("vm/checkpoints"));
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u32>().ok();
    let newest =
        files.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "json")).max_by_key(number)?;
    let text = fs::read_to_string(newest).ok()?;
    let manifest: Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
    Some(manifest["machine"]["qemu"].as_str()?.to_owned())
}
