//! The registry of virtual machines: what is found, what is killed, and above all what is not.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::names_below;
use rstest::rstest;
use vmtask_driver::{Liveness, NewEntry, Presence, ProcessId, Processes, Reap, Registry, RegistryError};

/// Processes of our own making. This test's own process is the manager, and its number changes with each "manager".
#[derive(Clone, Debug, Default)]
struct Fake {
    alive: Arc<Mutex<BTreeMap<u32, u64>>>,
    killed: Arc<Mutex<Vec<u32>>>,
    immortal: bool,
}

impl Fake {
    fn start(&self, pid: u32, started: u64) {
        self.alive.lock().unwrap().insert(pid, started);
    }

    fn end(&self, pid: u32) {
        self.alive.lock().unwrap().remove(&pid);
    }

    fn killed(&self) -> Vec<u32> {
        self.killed.lock().unwrap().clone()
    }
}

impl Processes for Fake {
    fn identify(&self, pid: u32) -> Liveness {
        match self.alive.lock().unwrap().get(&pid) {
            Some(&started) => Liveness::Alive(ProcessId { pid, started, boot: "boot".to_owned() }),
            None => Liveness::Dead,
        }
    }

    fn kill(&self, process: &ProcessId) -> io::Result<()> {
        if self.immortal {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.killed.lock().unwrap().push(process.pid);
        self.end(process.pid);
        Ok(())
    }
}

const VM: u32 = 4711;

fn me() -> u32 {
    std::process::id()
}

fn new_entry(dir: &Path) -> NewEntry<'_> {
    NewEntry { task: "t", dir, hypervisor: "qemu", outlives_manager: false }
}

struct Setting {
    data: tempfile::TempDir,
    task: tempfile::TempDir,
    processes: Fake,
    registry: Registry<Fake>,
}

fn setting(processes: Fake) -> Setting {
    let (data, task) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    processes.start(me(), 1);
    let registry = Registry::with_processes(data.path(), processes.clone()).unwrap();
    Setting { data, task, processes, registry }
}

impl Setting {
    /// A manager has registered a VM and is gone without a word, if `manager_ends`.
    fn leave_a_vm(&self, manager_ends: bool, outlives_manager: bool) {
        self.processes.start(VM, 2);
        let mut registration =
            self.registry.register(&NewEntry { outlives_manager, ..new_entry(self.task.path()) }).unwrap();
        registration.set_vm(VM).unwrap();
        if manager_ends {
            drop(registration);
            self.processes.start(me(), 99);
        } else {
            std::mem::forget(registration);
        }
    }

    fn files(&self) -> Vec<String> {
        names_below(&self.data.path().join("vms")).into_iter().filter(|name| name != ".lock").collect()
    }
}

#[test]
fn a_vm_is_listed_with_its_manager_and_gone_after_a_clean_end() {
    let s = setting(Fake::default());
    s.processes.start(VM, 2);
    let mut registration = s.registry.register(&new_entry(s.task.path())).unwrap();
    registration.set_vm(VM).unwrap();
    let listed = s.registry.list().unwrap().vms;
    assert_eq!((listed[0].manager, listed[0].vm), (Presence::Here, Presence::Here));
    assert_eq!(listed[0].entry.dir, fs::canonicalize(s.task.path()).unwrap());
    assert_eq!(s.files().len(), 1);
    registration.clear_vm().unwrap();
    drop(registration);
    assert_eq!(s.files(), [""; 0]);
}

#[test]
fn an_entry_stays_when_its_manager_is_dropped_while_the_vm_runs() {
    let s = setting(Fake::default());
    s.leave_a_vm(true, false);
    let listed = s.registry.list().unwrap().vms;
    assert_eq!((listed[0].manager, listed[0].vm), (Presence::Gone, Presence::Here));
}

#[test]
fn an_orphan_is_killed_and_its_entry_removed() {
    let s = setting(Fake::default());
    s.leave_a_vm(true, false);
    let reaped = s.registry.reap(Reap::Orphans).unwrap();
    assert_eq!((reaped.killed.len(), s.processes.killed()), (1, vec![VM]));
    assert_eq!(s.files(), [""; 0]);
}

#[test]
fn an_entry_that_a_manager_was_killed_over_writing_is_swept_away() {
    let s = setting(Fake::default());
    fs::write(s.data.path().join("vms/abc.json.tmp"), b"{").unwrap();
    assert_eq!(s.registry.reap(Reap::Orphans).unwrap().damaged.len(), 0);
    assert_eq!(s.files(), [""; 0]);
}

#[test]
fn a_vm_whose_manager_lives_is_left_alone() {
    let s = setting(Fake::default());
    s.leave_a_vm(false, false);
    s.registry.reap(Reap::All).unwrap();
    assert_eq!((s.processes.killed(), s.files().len()), (vec![], 1));
}

#[test]
fn a_process_that_only_has_the_same_number_is_never_killed() {
    let s = setting(Fake::default());
    s.leave_a_vm(true, false);
    s.processes.start(VM, 3);
    let reaped = s.registry.reap(Reap::All).unwrap();
    assert_eq!((reaped.dropped.len(), s.processes.killed()), (1, vec![]));
    assert_eq!(s.files(), [""; 0]);
}

#[test]
fn a_vm_that_is_to_be_adopted_is_killed_only_when_all_are() {
    let s = setting(Fake::default());
    s.leave_a_vm(true, true);
    s.registry.reap(Reap::Orphans).unwrap();
    assert_eq!((s.processes.killed(), s.files().len()), (vec![], 1));
    // The next manager of the task finds it in its registration.
    let adopted = s.registry.register(&NewEntry { outlives_manager: true, ..new_entry(s.task.path()) }).unwrap();
    assert_eq!(adopted.entry().vm.as_ref().map(|vm| vm.pid), Some(VM));
    drop(adopted);
    s.processes.start(me(), 100);
    s.registry.reap(Reap::All).unwrap();
    assert_eq!((s.processes.killed(), s.files().len()), (vec![VM], 0));
}

#[test]
fn what_cannot_be_killed_stays_in_the_registry_with_a_reason() {
    let s = setting(Fake { immortal: true, ..Fake::default() });
    s.leave_a_vm(true, false);
    let reaped = s.registry.reap(Reap::Orphans).unwrap();
    insta::assert_snapshot!(reaped.left[0].1);
    assert_eq!(s.files().len(), 1);
}

#[test]
fn a_task_is_not_started_beside_its_own_vm() {
    let s = setting(Fake::default());
    s.leave_a_vm(true, false);
    let error = s.registry.register(&new_entry(s.task.path())).unwrap_err();
    assert!(matches!(&error, RegistryError::StillRuns { pid: VM, .. }), "{error:?}");
    s.processes.end(VM);
    s.registry.register(&new_entry(s.task.path())).unwrap();
}

#[test]
fn two_tasks_have_two_entries_and_one_task_has_one_however_its_directory_is_spelt() {
    let s = setting(Fake::default());
    let other = tempfile::tempdir().unwrap();
    let a = s.registry.register(&new_entry(s.task.path())).unwrap();
    let _b = s.registry.register(&new_entry(other.path())).unwrap();
    assert_eq!(s.files().len(), 2);
    let spelt = s.task.path().join(".");
    std::mem::forget(a);
    let _again = s.registry.register(&new_entry(&spelt)).unwrap();
    assert_eq!(s.files().len(), 2);
}

#[rstest]
#[case::torn("{\"version\":1,\"ta")]
#[case::empty("")]
#[case::later(
    r#"{"version":2,"task":"t","dir":"/","hypervisor":"q","outlives_manager":false,"manager":{"pid":1,"started":1,"boot":""},"vm":null}"#
)]
fn a_damaged_entry_is_named_and_left_alone_and_holds_nobody_up(#[case] text: &str) {
    let s = setting(Fake::default());
    let damaged = s.data.path().join("vms/0.json");
    fs::write(&damaged, text).unwrap();
    s.leave_a_vm(true, false);
    let listing = s.registry.list().unwrap();
    assert_eq!((listing.vms.len(), &listing.damaged[0].0), (1, &damaged));
    let reaped = s.registry.reap(Reap::Orphans).unwrap();
    assert_eq!((reaped.killed.len(), &reaped.damaged[0].0), (1, &damaged));
    assert_eq!(s.files(), ["0.json"]);
}

#[test]
fn a_vm_that_is_gone_already_cannot_be_registered() {
    let s = setting(Fake::default());
    let mut registration = s.registry.register(&new_entry(s.task.path())).unwrap();
    assert!(matches!(registration.set_vm(VM), Err(RegistryError::NoProcess { pid: VM })));
}

/// What a test kills: this very program, told to run no other test than this.
#[test]
#[ignore = "a process for another test: it waits to be killed"]
fn it_waits_to_be_killed() {
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

#[test]
#[cfg(any(target_os = "linux", windows))]
fn a_real_process_is_killed_and_seen_to_be_gone() {
    use vmtask_driver::RealProcesses;
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "it_waits_to_be_killed"]);
    let streams = std::process::Stdio::piped;
    let mut child = command.stdin(streams()).stdout(streams()).spawn().unwrap();
    let Liveness::Alive(process) = RealProcesses.identify(child.id()) else { panic!("it runs") };

    // An earlier owner of the number: nothing happens to the present one.
    RealProcesses.kill(&ProcessId { started: process.started + 1, ..process.clone() }).unwrap();
    RealProcesses.kill(&ProcessId { boot: "another".to_owned(), ..process.clone() }).unwrap();
    assert_eq!(RealProcesses.identify(child.id()), Liveness::Alive(process.clone()));

    RealProcesses.kill(&process).unwrap();
    // Not waited for yet, it is a zombie, or on Windows held by our handle: dead all the same.
    assert_eq!(RealProcesses.identify(child.id()), Liveness::Dead);
    let status = child.wait().unwrap();
    #[cfg(unix)]
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    #[cfg(windows)]
    assert_eq!(status.code(), Some(1));
    RealProcesses.kill(&process).unwrap();
}

#[test]
fn a_vm_that_is_no_process_is_kept_for_its_next_manager_and_forgotten_with_its_task() {
    let s = setting(Fake::default());
    let new = NewEntry { outlives_manager: true, ..new_entry(s.task.path()) };
    let mut registration = s.registry.register(&new).unwrap();
    registration.set_keeper("VMware Player").unwrap();
    drop(registration);
    s.processes.start(me(), 99);
    let listed = s.registry.list().unwrap().vms;
    assert_eq!((listed[0].manager, listed[0].vm), (Presence::Gone, Presence::Unknown));

    assert!(s.registry.reap(Reap::Orphans).unwrap().left.is_empty(), "it will be adopted");
    let reaped = s.registry.reap(Reap::All).unwrap();
    assert!(reaped.left[0].1.contains("VMware Player has it"), "{reaped:?}");
    assert_eq!(s.files().len(), 1);

    let mut registration = s.registry.register(&new).unwrap();
    assert_eq!(registration.entry().keeper.as_deref(), Some("VMware Player"), "it is still there");
    registration.clear_vm().unwrap();
    drop(registration);
    assert!(s.files().is_empty());

    let mut registration = s.registry.register(&new).unwrap();
    registration.set_keeper("VMware Player").unwrap();
    drop(registration);
    s.processes.start(me(), 100);
    fs::remove_dir(s.task.path()).unwrap();
    assert_eq!(s.registry.reap(Reap::Orphans).unwrap().dropped.len(), 1);
}
