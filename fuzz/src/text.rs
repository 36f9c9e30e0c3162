//! What people write: task files, definitions of platforms, plans for the simulator.

use std::path::{Component, Path};

use vmtask_core::{Capabilities, Pause, Plan, Policy, Snapshots, TaskDraft};
use vmtask_driver::{TaskFile, TaskFileError};
use vmtask_platform::Definition;

/// A task file.
///
/// # Panics
/// If an error has no words or a place that is not in the file, or a task is accepted that could leave its directories
/// or that no hypervisor could be asked to run.
pub fn task_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("/home/volunteer/task.toml");
    let file = match TaskFile::parse(path, text) {
        Ok(file) => file,
        Err(TaskFileError::Bad { place, message, .. }) => {
            assert!(message.len() > 10, "an error without words: {message:?}");
            assert_place(text, place.line, place.column);
            return;
        }
        Err(error) => panic!("nothing is read but the text: {error}"),
    };
    let spec = file.spec();
    assert_eq!(TaskDraft::from(spec.clone()).check().as_ref(), Ok(spec));
    assert_eq!(file.default_dir().parent(), Some(file.base()), "{:?}", spec.name);
    let guest = spec.files_in.iter().map(|file| &file.guest).chain(spec.files_out.iter().map(|file| &file.guest));
    let results = spec.files_out.iter().map(|file| &file.host);
    let streams = [&spec.program.stdout, &spec.program.stderr].into_iter().chain(&spec.program.progress);
    for inside in guest.chain(results).chain(streams) {
        assert!(stays_inside(inside), "{inside:?}");
    }
    Plan::new(spec, Policy::default(), ABLE).unwrap_or_else(|error| panic!("{error}: {spec:?}"));
}

const ABLE: Capabilities = Capabilities {
    linked_clones: true,
    snapshots: Snapshots::Many,
    pause: Pause::Native,
    guest_login: false,
    outlives_manager: false,
    disk: true,
};

/// Judged by the standard library's idea of paths rather than by our own.
fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// A platform's definition.
///
/// # Panics
/// If an error has no words, or a definition that was accepted cannot be written and read again.
pub fn platform_xml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let definition = match Definition::parse(text) {
        Ok(definition) => definition,
        Err(why) => {
            assert!(why.len() > 10, "an error without words: {why:?}");
            // Nobody guesses a digest: with the right one in the place of the wrong one there may be more to see.
            let Some((computed, claimed)) = fingerprints(&why) else { return };
            match Definition::parse(&text.replacen(claimed, computed, 1)) {
                Ok(definition) => definition,
                Err(why) => return assert!(!why.is_empty()),
            }
        }
    };
    for file in &definition.files.entries {
        assert!(stays_inside(&file.name) && !file.name.contains(['/', '\\']), "{:?}", file.name);
    }
    let xml = definition.to_xml().unwrap_or_else(|error| panic!("{error}: {definition:?}"));
    let again = Definition::parse(&xml).unwrap_or_else(|error| panic!("{error}:\n{xml}"));
    assert_eq!(again, definition, "\n{xml}");
}

/// The fingerprint that was computed and the one that was claimed, of an error that is about them.
fn fingerprints(why: &str) -> Option<(&str, &str)> {
    let (computed, rest) = why.strip_prefix("its contents have fingerprint ")?.split_once(", and it claims ")?;
    let (claimed, _) = rest.rsplit_once(": it was edited")?;
    (!claimed.is_empty()).then_some((computed, claimed))
}

/// A plan for the simulator.
///
/// # Panics
/// If an error has no words or a place that is not in the text, or a plan that was accepted is another one after it was
/// printed.
pub fn plan(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let plan: vmtask_sim::Plan = match text.parse() {
        Ok(plan) => plan,
        Err(vmtask_sim::PlanSyntaxError { line, column, reason }) => {
            assert!(reason.len() > 10, "an error without words: {reason:?}");
            return assert_place(text, line, column);
        }
    };
    let printed = plan.to_string();
    let again = printed.parse().unwrap_or_else(|error| panic!("{error}:\n{printed}"));
    assert_eq!(plan, again, "\n{printed}");
    assert_eq!(printed, again.to_string());
}

/// Both count from 1, and an error may be right after the end of its line, or of the text.
fn assert_place(text: &str, line: usize, column: usize) {
    let found = text.split('\n').nth(line.wrapping_sub(1));
    let columns = found.map_or(0, |found| found.chars().count() + 1);
    assert!((1..=columns).contains(&column), "line {line}, column {column} is not in the text");
}
