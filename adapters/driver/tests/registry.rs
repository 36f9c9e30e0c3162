//! The registry of virtual machines: what is found, what is killed, and above all what is not.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::names_below;
use rstest::rstest;
use vmtask_driver::{Keeper, Liveness, NewEntry, Presence, ProcessId, Processes, Reap, Registry, RegistryError};

/// Processes of our own making. This test's own process is the manager, and its number changes with each "manager".
#[derive(Clone, Debug, Default)]
struct Fake {
    alive: Arc<Mutex<BTreeMap<u32, u64>>>,
    killed: Arc<Mutex<Vec<u32>>>,
    immortal: bool,
    /// Somebody else uses the registry in this data directory while a process takes its time to end.
    meanwhile: Option<Arc<std::path::PathBuf>>,
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
        if let Some(data) = &self.meanwhile {
            let other = Self { meanwhile: None, ..self.clone() };
            let registry = Registry::with_processes(data, other).unwrap().with_patience(Duration::ZERO);
            let task = tempfile::tempdir().unwrap();
            drop(registry.register(&new_entry(task.path())).unwrap());
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
    NewEntry { task: "t", dir, hypervisor: "qemu", outlives_manager: false, keeper: None }
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
fn nobody_waits_for_a_process_that_takes_its_time_to_end() {
    let mut s = setting(Fake::default());
    s.leave_a_vm(true, false);
    let meanwhile = Some(Arc::new(s.data.path().to_owned()));
    s.registry = Registry::with_processes(s.data.path(), Fake { meanwhile, ..s.processes.clone() }).unwrap();
    assert_eq!(s.registry.reap(Reap::Orphans).unwrap().killed.len(), 1);
    assert_eq!(s.files().len(), 0);
}

#[test]
fn an_entry_that_cannot_be_read_is_not_taken_for_none() {
    let s = setting(Fake::default());
    assert!(s.registry.find(s.task.path()).unwrap().is_none());
    s.leave_a_vm(true, false);
    let found = s.registry.find(s.task.path()).unwrap().unwrap();
    assert_eq!(found.entry.dir, fs::canonicalize(s.task.path()).unwrap());
    fs::write(found.file, "torn").unwrap();
    assert!(matches!(s.registry.find(s.task.path()), Err(RegistryError::Entry { .. })));
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

fn player() -> Keeper {
    Keeper { product: "VMware Player".to_owned(), machine: "/t/vm/x.vmx".to_owned(), inventory: false }
}

fn server() -> Keeper {
    let machine = "[standard] vmtask-t/x.vmx".to_owned();
    Keeper { product: "VMware Server 2".to_owned(), machine, inventory: true }
}

impl Setting {
    /// A manager has left a VM with a product, and is gone.
    fn leave_with(&self, keeper: &Keeper) {
        let new = NewEntry { outlives_manager: true, keeper: Some(keeper), ..new_entry(self.task.path()) };
        let mut registration = self.registry.register(&new).unwrap();
        registration.set_keeper(keeper).unwrap();
        drop(registration);
        self.processes.start(me(), 99);
    }
}

#[test]
fn a_vm_that_is_no_process_is_kept_for_its_next_manager() {
    let s = setting(Fake::default());
    s.leave_with(&player());
    let listed = s.registry.list().unwrap().vms;
    assert_eq!((listed[0].manager, listed[0].vm), (Presence::Gone, Presence::Unknown));

    assert!(s.registry.reap(Reap::Orphans).unwrap().left.is_empty(), "it will be adopted");
    let reaped = s.registry.reap(Reap::All).unwrap();
    assert!(reaped.left[0].1.contains("VMware Player has it as /t/vm/x.vmx"), "{reaped:?}");
    assert_eq!(s.files().len(), 1);

    let keeper = player();
    let new = NewEntry { outlives_manager: true, keeper: Some(&keeper), ..new_entry(s.task.path()) };
    let mut registration = s.registry.register(&new).unwrap();
    assert_eq!(registration.entry().keeper.as_deref(), Some("VMware Player"), "it is still there");
    registration.clear_vm().unwrap();
    drop(registration);
    assert!(s.files().is_empty());
}

#[rstest]
#[case::on_a_workstation(player(), "power it off there, then remove ")]
#[case::in_an_inventory(server(), "power it off there and remove it from the inventory, then remove ")]
fn a_vm_that_a_product_has_is_not_forgotten_with_its_tasks_directory(#[case] keeper: Keeper, #[case] words: &str) {
    let s = setting(Fake::default());
    s.leave_with(&keeper);
    fs::remove_dir(s.task.path()).unwrap();
    for which in [Reap::Orphans, Reap::All] {
        let reaped = s.registry.reap(which).unwrap();
        assert!(reaped.dropped.is_empty() && reaped.killed.is_empty(), "{reaped:?}");
        let why = &reaped.left[0].1;
        assert!(why.contains(&keeper.product) && why.contains(&keeper.machine) && why.contains(words), "{why}");
    }
    let listed = s.registry.list().unwrap().vms;
    assert_eq!(listed[0].vm, Presence::Unknown);
    // The way out that was named.
    fs::remove_file(&listed[0].file).unwrap();
    assert!(s.registry.list().unwrap().vms.is_empty());
}

#[rstest]
#[case::another_product(Some(server()))]
#[case::another_machine(Some(Keeper { machine: "/t/vm/y.vmx".to_owned(), ..player() }))]
#[case::no_product(None)]
fn a_vm_that_a_product_has_is_not_replaced_by_a_task_that_would_not_look_after_it(#[case] keeper: Option<Keeper>) {
    let s = setting(Fake::default());
    s.leave_with(&player());
    let new = NewEntry { outlives_manager: keeper.is_some(), keeper: keeper.as_ref(), ..new_entry(s.task.path()) };
    let error = s.registry.register(&new).unwrap_err();
    assert!(matches!(&error, RegistryError::Kept { .. }), "{error:?}");
    assert!(error.to_string().contains("VMware Player has it as /t/vm/x.vmx"), "{error}");
    assert_eq!(s.registry.list().unwrap().vms[0].entry.keeper.as_deref(), Some("VMware Player"));
}

/// What is where the entry's temporary file would be, so that no entry can be written, whoever we are.
fn in_the_way(s: &Setting) -> std::path::PathBuf {
    drop(s.registry.register(&new_entry(s.task.path())).unwrap());
    let registration = s.registry.register(&new_entry(s.task.path())).unwrap();
    let obstacle = s.data.path().join("vms").join(format!("{}.tmp", s.files()[0]));
    drop(registration);
    fs::create_dir(&obstacle).unwrap();
    obstacle
}

#[test]
fn a_registry_that_cannot_be_written_is_an_error_and_holds_nobody_up() {
    let s = setting(Fake::default());
    let obstacle = in_the_way(&s);
    let registry = s.registry.clone().with_patience(Duration::ZERO);
    for _ in 0..2 {
        let error = registry.register(&new_entry(s.task.path())).unwrap_err();
        assert!(matches!(&error, RegistryError::Io { what: "write", .. }), "{error:?}");
    }
    let other = tempfile::tempdir().unwrap();
    registry.register(&new_entry(other.path())).unwrap();
    fs::remove_dir(obstacle).unwrap();
    registry.register(&new_entry(s.task.path())).unwrap();
}

#[test]
fn an_entry_that_can_no_longer_be_written_is_an_error_and_holds_nobody_up() {
    let s = setting(Fake::default());
    s.processes.start(VM, 2);
    let registry = s.registry.clone().with_patience(Duration::ZERO);
    let obstacle = in_the_way(&s);
    fs::remove_dir(&obstacle).unwrap();
    let mut registration = registry.register(&new_entry(s.task.path())).unwrap();
    fs::create_dir(&obstacle).unwrap();
    registration.set_vm(VM).unwrap_err();
    registration.clear_vm().unwrap_err();
    drop(registration);
    assert!(s.files().iter().all(|name| !name.ends_with(".json")), "{:?}", s.files());
}

#[test]
fn the_lock_is_waited_for_no_longer_than_is_bearable() {
    let s = setting(Fake::default());
    let lock = s.data.path().join("vms/.lock");
    let holder = fs::File::create(&lock).unwrap();
    holder.lock().unwrap();
    let registry = s.registry.clone().with_patience(Duration::from_millis(20));
    let error = registry.register(&new_entry(s.task.path())).unwrap_err();
    assert!(matches!(&error, RegistryError::Locked { path, .. } if *path == lock), "{error:?}");
    assert!(error.to_string().contains(&lock.display().to_string()), "{error}");
    drop(holder);
    registry.register(&new_entry(s.task.path())).unwrap();
}

#[test]
fn an_earlier_entry_that_cannot_be_understood_is_not_replaced() {
    let s = setting(Fake::default());
    let registration = s.registry.register(&new_entry(s.task.path())).unwrap();
    let path = s.data.path().join("vms").join(&s.files()[0]);
    std::mem::forget(registration);
    let later = fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(&path, &later).unwrap();
    let error = s.registry.register(&new_entry(s.task.path())).unwrap_err();
    assert!(matches!(&error, RegistryError::Entry { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), later);
}

#[test]
fn an_entry_of_an_earlier_version_is_read() {
    let s = setting(Fake::default());
    let dir = fs::canonicalize(s.task.path()).unwrap();
    let process = r#"{"pid":1,"started":1,"boot":"boot"}"#;
    let text = format!(
        r#"{{"version":1,"task":"t","dir":{},"hypervisor":"vix","outlives_manager":true,"manager":{process},"vm":null,"keeper":"VMware Player"}}"#,
        serde_json::to_string(&dir).unwrap()
    );
    fs::write(s.data.path().join("vms/old.json"), text).unwrap();
    let listed = s.registry.list().unwrap();
    assert!(listed.damaged.is_empty(), "{:?}", listed.damaged);
    assert_eq!((&listed.vms[0].entry.dir, &listed.vms[0].entry.machine), (&dir, &None));
    let way_out = listed.vms[0].entry.way_out(&listed.vms[0].file).unwrap();
    assert!(way_out.starts_with("VMware Player has it: run its task again"), "{way_out}");
}

#[rstest]
#[case::not_unicode(b"caf\xe9")]
#[case::comma(b"a,,b=c")]
#[case::space(b" a b ")]
#[case::new_line(b"a\nb\"\\")]
#[case::long(&[b'd'; 200])]
#[cfg(unix)]
fn a_directory_is_written_and_read_whole_whatever_its_name(#[case] name: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let s = setting(Fake::default());
    let mut dir = fs::canonicalize(s.task.path()).unwrap();
    for _ in 0..10 {
        dir.push(std::ffi::OsStr::from_bytes(name));
    }
    fs::create_dir_all(&dir).unwrap();
    let mut registration = s.registry.register(&new_entry(&dir)).unwrap();
    s.processes.start(VM, 2);
    registration.set_vm(VM).unwrap();
    drop(registration);
    let listing = s.registry.list().unwrap();
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    assert_eq!(listing.vms[0].entry.dir, dir);
    assert!(
        matches!(s.registry.register(&new_entry(&dir)), Err(RegistryError::StillRuns { dir: told, .. }) if told == dir)
    );
}
