//! `vmtask vms`: the virtual machines of this user's tasks.

use std::path::Path;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use vmtask_driver::{Entry, Listing, Presence, ProcessId, Reap, Reaped, Registry};

use crate::args::VmsArgs;
use crate::error::Error;
use crate::exit::Exit;
use crate::out;

pub(crate) fn run(args: &VmsArgs) -> Result<u8, Error> {
    let registry = Registry::open(&vmtask_platform::data_dir()?)?;
    if args.reap {
        return Ok(report(&registry.reap(Reap::All)?));
    }
    let mut listing = registry.list()?;
    // Neither manager nor machine: an entry that the next run forgets, and nothing that anybody could do about.
    listing.vms.retain(|vm| !matches!((vm.manager, vm.vm), (Presence::Gone, Presence::Gone)));
    if listing.vms.is_empty() {
        out::note("vmtask: no virtual machines");
    } else {
        out::line(table(&listing));
    }
    for vm in listing.vms.iter().filter(|vm| vm.manager == Presence::Gone) {
        if let Some(way_out) = vm.entry.way_out(&vm.file) {
            let what = format!("vmtask: the virtual machine of {} in {}", vm.entry.task, shown(&vm.entry.dir));
            out::note(format_args!("{what} has no manager: {way_out}"));
        }
    }
    warn_of(&listing.damaged);
    Ok(0)
}

fn table(listing: &Listing) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["TASK", "HYPERVISOR", "MANAGER", "VM", "DIRECTORY"]);
    for vm in &listing.vms {
        let entry = &vm.entry;
        table.add_row([
            entry.task.clone(),
            entry.hypervisor.clone(),
            process(Some(&entry.manager), vm.manager),
            machine(entry, vm.vm),
            shown(&entry.dir),
        ]);
    }
    table
}

fn machine(entry: &Entry, presence: Presence) -> String {
    match (&entry.vm, &entry.keeper) {
        (None, Some(keeper)) => format!("{keeper}'s"),
        (vm, _) => process(vm.as_ref(), presence),
    }
}

fn process(id: Option<&ProcessId>, presence: Presence) -> String {
    match (id, presence) {
        (None, _) => "none".to_owned(),
        (Some(id), Presence::Here) => id.pid.to_string(),
        (Some(id), Presence::Gone) => format!("{} (gone)", id.pid),
        (Some(id), Presence::Unknown) => format!("{} (?)", id.pid),
    }
}

/// Tells what was done; the exit code.
fn report(reaped: &Reaped) -> u8 {
    for entry in &reaped.killed {
        out::line(format_args!("stopped the virtual machine of {} in {}", entry.task, shown(&entry.dir)));
    }
    for entry in &reaped.dropped {
        out::line(format_args!("forgot the virtual machine of {} in {}: it was gone", entry.task, shown(&entry.dir)));
    }
    for (entry, why) in &reaped.left {
        out::note(format_args!("vmtask: the virtual machine of {} in {}: {why}", entry.task, shown(&entry.dir)));
    }
    warn_of(&reaped.damaged);
    if reaped.killed.is_empty() && reaped.dropped.is_empty() && reaped.left.is_empty() {
        out::note("vmtask: no virtual machine is without its manager");
    }
    if reaped.left.is_empty() { 0 } else { Exit::Host.code() }
}

fn warn_of(damaged: &[(std::path::PathBuf, String)]) {
    for (path, why) in damaged {
        out::note(format_args!("vmtask: {} cannot be understood ({why}); remove it if it is yours", shown(path)));
    }
}

/// A path on one line, whatever is in its name.
fn shown(path: &Path) -> String {
    path.display()
        .to_string()
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::running(Presence::Here, "42")]
    #[case::gone(Presence::Gone, "42 (gone)")]
    #[case::unknown(Presence::Unknown, "42 (?)")]
    fn a_process_is_shown_with_what_became_of_it(#[case] presence: Presence, #[case] shown: &str) {
        let id = ProcessId { pid: 42, started: 7, boot: String::new() };
        assert_eq!(process(Some(&id), presence), shown);
        assert_eq!(process(None, presence), "none");
    }
}
