//! The stand-in's guest of the kind qemu, at its port: a real virtual machine that outlives its clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vixAllProducts::guest::{Guest, Home, Kind, Program, open};
use vixAllProducts::{Failure, Vmx};
use vmtask_tests::real;
use vmtask_vix_abi::error_code;

struct Vm {
    guest: Box<dyn Guest>,
    home: Home,
    dir: tempfile::TempDir,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.guest.power_off();
    }
}

impl Vm {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vmtask-vix-").tempdir().expect("make a temporary directory");
        let home = home(dir.path(), "vm");
        let guest = open(Kind::Qemu, home.clone()).expect("open the guest");
        Self { guest, home, dir }
    }

    fn on() -> Self {
        let vm = Self::new();
        vm.guest.power_on().expect("power on");
        vm.wait_for_tools();
        vm
    }

    /// The same VM, as another client sees it.
    fn again(&self) -> Box<dyn Guest> {
        open(Kind::Qemu, self.home.clone()).expect("open the guest")
    }

    fn wait_for_tools(&self) {
        until(|| self.guest.tools_running());
    }

    fn start(&self, path: &str, arguments: &str) -> u64 {
        self.try_start(path, arguments).expect("start a program")
    }

    fn try_start(&self, path: &str, arguments: &str) -> Result<u64, Failure> {
        let mut environment = self.guest.environment("root");
        environment.push(("NAME".into(), "it's".into()));
        self.guest.start(&Program { path, arguments, user: "root", environment: &environment })
    }

    fn status(&self, pid: u64) -> Option<i32> {
        self.guest.exit_status(pid).expect("ask how a program ended")
    }

    fn wait(&self, pid: u64) -> i32 {
        until(|| self.status(pid).is_some());
        self.status(pid).expect("it is told more than once")
    }

    fn sh(&self, script: &str) -> i32 {
        let pid = self.start("/bin/sh", &format!("-c '{script}'"));
        self.wait(pid)
    }

    fn read(&self, path: &str) -> String {
        let to = self.dir.path().join("out");
        self.guest.copy_out(path, &to).expect("copy a file out");
        fs::read_to_string(to).expect("read it")
    }

    fn give(&self, text: &[u8]) -> PathBuf {
        let path = self.dir.path().join("source");
        fs::write(&path, text).expect("write a file");
        path
    }

    fn snapshot(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir(&dir).expect("make a directory");
        dir
    }
}

fn home(dir: &Path, name: &str) -> Home {
    fs::create_dir(dir.join(name)).expect("make a directory");
    let platform = real::shared_data().join("alt_platforms").join(real::PLATFORM);
    let text = format!("vmtask.platform = \"{}\"\nmemsize = \"128\"\n", platform.display());
    let vmx = Arc::new(Vmx::parse(&text).expect("a configuration"));
    Home { dir: dir.join(name), vmx_path: dir.join("a.vmx"), vmx }
}

/// Looks until it is so. A bound only so that a fault is told instead of waited for.
fn until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !so() {
        assert!(Instant::now() < end, "it does not come to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The QEMUs that work in a VM's directory, as the kernel sees it.
fn qemus_of(home: &Home) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let places = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    places.filter(|place| place.starts_with(&home.dir)).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> u16 {
    result.expect_err("must fail").code()
}

#[test]
fn programs_run_as_tools_run_them() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    assert_eq!(vm.sh("exit 7"), 7);
    let pid = vm.start("/bin/echo", "'a  b' \"$NAME $HOME\" >/tmp/out");
    assert_eq!(vm.wait(pid), 0);
    assert_eq!(vm.read("/tmp/out"), "a  b it's /root\n");

    let pid = vm.start("/bin/sh", "-c 'echo $$ >/tmp/pid; exec sleep 1000'");
    until(|| vm.guest.info("/tmp/pid").is_ok_and(|info| info.size > 0));
    assert_eq!(vm.read("/tmp/pid").trim(), pid.to_string(), "a program's number is the one that it sees");
    assert_eq!(vm.status(pid), None);
    let listed = vm.guest.processes().expect("list processes");
    assert_eq!(listed.iter().find(|p| p.pid == pid).map(|p| p.command.as_str()), Some("sleep 1000"));
    vm.guest.kill(pid).expect("kill");
    assert_eq!(vm.wait(pid), 128 + 9);
    assert_eq!(code(vm.guest.kill(pid)), error_code::NO_SUCH_PROCESS);
    assert_eq!(code(vm.guest.exit_status(99_999)), error_code::NO_SUCH_PROCESS);

    vm.guest.make_directory("/work/in").expect("make a directory");
    vm.guest.copy_in(&vm.give(b"#!/bin/sh\nexit 5\n"), "/work/in/my program").expect("copy in");
    assert_eq!(code(vm.try_start("/work/in/my program", "")), error_code::GUEST_USER_PERMISSIONS);
    assert_eq!(code(vm.try_start("/work/none", "")), error_code::FILE_NOT_FOUND);
    assert_eq!(vm.sh("chmod +x \"/work/in/my program\"; grep SigIgn /proc/self/status >/tmp/ignored"), 0);
    let pid = vm.start("/work/in/my program", "");
    assert_eq!(vm.wait(pid), 5);
    // Busybox's shell ignores SIGQUIT, and so does what it becomes at the end of its line; nothing else may be ignored.
    let ignored = vm.read("/tmp/ignored");
    assert!(
        ["0000000000000000", "0000000000000004"].contains(&ignored.trim_start_matches("SigIgn:").trim()),
        "{ignored}"
    );
}

#[test]
fn files_go_in_and_out_whole() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    let big: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(3_000_001).collect();
    vm.guest.copy_in(&vm.give(&big), "/tmp/big").expect("copy in");
    let back = vm.dir.path().join("back");
    vm.guest.copy_out("/tmp/big", &back).expect("copy out");
    assert!(fs::read(&back).expect("read it") == big);
    // No room for it is told soon.
    vm.sh("mkdir /small; mount -t tmpfs -o size=1m none /small");
    assert_eq!(code(vm.guest.copy_in(&vm.give(&big), "/small/big")), error_code::DISK_FULL);
    vm.guest.copy_out("/tmp/big", &back).expect("what failed does not stand in the way");
    assert!(fs::read(&back).expect("read it") == big);
    vm.guest.copy_in(&vm.give(b""), "/tmp/big").expect("copy over it");
    assert_eq!(vm.guest.info("/tmp/big").expect("look at it").size, 0);

    let tree = vm.dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).expect("make a tree");
    fs::write(tree.join("sub/it's a \"name\"\nof two lines"), "x").expect("write a file");
    vm.guest.copy_in(&tree, "/work").expect("copy a tree in");
    vm.sh("ln -s /work/sub /work/link; ln -s nowhere /work/dangling; : >/work/.hidden");
    let listed = vm.guest.list("/work").expect("list");
    let seen: Vec<_> = listed.iter().map(|f| (f.name.as_str(), f.directory, f.symlink)).collect();
    let expected = [(".hidden", false, false), ("dangling", false, true), ("link", true, true), ("sub", true, false)];
    assert_eq!(seen, expected);
    vm.guest.remove_file("/work/dangling").expect("remove a link");
    let out = vm.dir.path().join("out-tree");
    vm.guest.copy_out("/work", &out).expect("copy a tree out");
    assert!(out.join("sub/it's a \"name\"\nof two lines").is_file() && !out.join("link").exists());

    let temporary = vm.guest.temp_file().expect("make a file");
    vm.guest.rename(&temporary, "/work/t").expect("rename");
    assert_eq!(code(vm.guest.rename("/work/t", "/work/sub")), error_code::FILE_ALREADY_EXISTS);
    assert_eq!(code(vm.guest.make_directory("/work/sub")), error_code::FILE_ALREADY_EXISTS);
    assert_eq!(code(vm.guest.remove_file("/work/sub")), error_code::NOT_A_FILE);
    assert_eq!(code(vm.guest.remove_directory("/work/t")), error_code::NOT_A_DIRECTORY);
    assert_eq!(code(vm.guest.info("/none")), error_code::FILE_NOT_FOUND);
    assert_eq!(code(vm.guest.list("/work/t")), error_code::NOT_A_DIRECTORY);
    assert_eq!(code(vm.guest.copy_in(&vm.give(b"x"), "/none/x")), error_code::FILE_NOT_FOUND);
    assert_eq!(code(vm.guest.copy_in(&vm.give(b"x"), "/work/sub")), error_code::NOT_A_FILE);
    assert_eq!(code(vm.guest.info("relative")), error_code::FILE_NAME_INVALID);
    vm.guest.remove_directory("/work").expect("remove a tree");
}

const COUNT: &str = "-c 'n=0; while :; do n=$((n+1)); echo $n >/tmp/part; mv /tmp/part /tmp/count; usleep 1000; done'";

fn count(vm: &Vm) -> u64 {
    vm.read("/tmp/count").trim().parse().expect("a number")
}

#[test]
fn a_machine_survives_its_client_a_pause_and_a_suspension() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    let pid = vm.start("/bin/sh", COUNT);
    until(|| vm.guest.info("/tmp/count").is_ok());
    fs::remove_file(vm.home.dir.join("process.json")).expect("forget the number");
    let other = vm.again();
    assert!(other.is_up() && other.tools_running());

    other.pause().expect("pause");
    assert!(!vm.guest.tools_running());
    vm.guest.unpause().expect("unpause");
    let before = count(&vm);
    until(|| count(&vm) > before);

    let before = count(&vm);
    other.suspend().expect("suspend");
    assert!(qemus_of(&vm.home).is_empty());
    assert!(vm.guest.is_up());
    // A copy of a suspended VM is a VM of its own.
    let place = home(vm.dir.path(), "copy");
    for file in ["memory", "kept.json", "process.json", "disk.qcow2"] {
        fs::copy(vm.home.dir.join(file), place.dir.join(file)).expect("copy the VM");
    }
    let guest = open(Kind::Qemu, place.clone()).expect("open the copy");
    let copy = Vm { guest, home: place, dir: tempfile::tempdir().expect("make a temporary directory") };
    for vm in [&vm, &copy] {
        vm.guest.resume().expect("resume");
        vm.wait_for_tools();
        assert!(count(vm) >= before);
        assert_eq!(vm.status(pid), None);
    }
    copy.guest.power_off().expect("power off");
    assert_eq!(vm.status(pid), None);
    assert_eq!(code(copy.guest.resume()), error_code::CANNOT_POWER_ON_VM);
}

#[test]
fn a_snapshot_with_memory_brings_programs_back_as_often_as_wanted() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    let pid = vm.start("/bin/sh", COUNT);
    until(|| vm.guest.info("/tmp/count").is_ok());
    let kept = vm.snapshot("kept");
    vm.guest.save(true, &kept).expect("save");
    let after = count(&vm);
    until(|| count(&vm) > after + 200);
    let late = count(&vm);
    for _ in 0..2 {
        vm.guest.power_off().expect("power off");
        vm.guest.load(&kept).expect("load");
        vm.guest.resume().expect("resume");
        vm.wait_for_tools();
        assert!(count(&vm) < late, "it goes on from where it was");
        assert_eq!(vm.status(pid), None);
    }
    // Suspended, and a snapshot of that.
    vm.guest.suspend().expect("suspend");
    let second = vm.snapshot("second");
    vm.guest.save(true, &second).expect("save");
    vm.guest.power_off().expect("power off");
    vm.guest.load(&second).expect("load");
    vm.guest.resume().expect("resume");
    vm.wait_for_tools();
    vm.guest.kill(pid).expect("kill");
    assert_eq!(vm.wait(pid), 137);
}

#[test]
fn a_snapshot_without_memory_keeps_files_and_so_does_a_clone() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    let put = |text: &str| vm.guest.copy_in(&vm.give(text.as_bytes()), "/tmp/file").expect("copy in");
    put("one");
    let pid = vm.start("/bin/sleep", "1000");
    let kept = vm.snapshot("kept");
    vm.guest.save(false, &kept).expect("save");
    assert_eq!(vm.status(pid), None, "it runs on");
    put("two");
    vm.guest.power_off().expect("power off");
    vm.guest.load(&kept).expect("load");
    assert!(!vm.guest.is_up());
    let place = home(vm.dir.path(), "clone");
    vm.guest.clone_to(&kept, &place, true).expect("clone");
    let guest = open(Kind::Qemu, place.clone()).expect("open the clone");
    let clone = Vm { guest, home: place, dir: tempfile::tempdir().expect("make a temporary directory") };
    for vm in [&vm, &clone] {
        vm.guest.power_on().expect("power on");
        vm.wait_for_tools();
        assert_eq!(vm.read("/tmp/file"), "one");
        assert_eq!(code(vm.guest.exit_status(pid)), error_code::NO_SUCH_PROCESS);
    }
    assert_eq!(clone.sh("echo three >/tmp/file"), 0);
    assert_eq!(vm.read("/tmp/file"), "one");
}

#[test]
fn what_goes_on_when_the_power_goes_ends_soon_with_an_error() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    let pid = vm.start("/bin/sleep", "1000");
    let other = vm.again();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            loop {
                match vm.guest.exit_status(pid) {
                    Ok(None) => {}
                    other => return other,
                }
            }
        });
        other.power_off().expect("power off");
        assert_eq!(code(waiting.join().expect("no panic")), error_code::VM_NOT_RUNNING);
    });
    assert!(!vm.guest.is_up() && !vm.guest.tools_running());
    assert!(qemus_of(&vm.home).is_empty());
    vm.guest.power_off().expect("nothing there is as good");
    // One that ends by itself.
    vm.guest.power_on().expect("power on");
    vm.wait_for_tools();
    // Its number may not come back any more.
    let _ = vm.try_start("/usr/sbin/poweroff", "");
    until(|| !vm.guest.is_up());
}

#[test]
fn a_state_of_another_machine_is_refused_in_clear_words() {
    if !real::wanted() {
        return;
    }
    let vm = Vm::on();
    vm.guest.suspend().expect("suspend");
    let mut bigger = vm.home.clone();
    let platform = vm.home.vmx.get("vmtask.platform").expect("a platform").to_owned();
    let text = format!("vmtask.platform = \"{platform}\"\nmemsize = \"192\"\n");
    bigger.vmx = Arc::new(Vmx::parse(&text).expect("a configuration"));
    let error = open(Kind::Qemu, bigger).expect("open").resume().expect_err("it is another machine");
    assert_eq!(error.code(), error_code::CANNOT_POWER_ON_VM);
    assert!(error.text.contains("another size of memory"), "{error}");
    vm.guest.resume().expect("it was not harmed");
    vm.wait_for_tools();
}

/// The stand-in's own client in C, which knows nothing but VIX's documentation, drives the virtual machine.
#[test]
fn a_client_in_c_goes_through_the_life_of_a_virtual_machine() {
    if !real::wanted() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("vmtask-vix-").tempdir().expect("make a temporary directory");
    let client = compile(dir.path());
    let vmx = dir.path().join("vms/vm/vm.vmx");
    fs::create_dir_all(vmx.parent().expect("a directory")).expect("make the VM's directory");
    let platform = real::shared_data().join("alt_platforms").join(real::PLATFORM);
    let text = format!(
        "displayName = \"vm\"\nmemsize = \"128\"\nguestOS = \"other\"\nvmtask.guest = \"qemu\"\n\
         vmtask.platform = \"{}\"\nvmtask.guest.user = \"root\"\nvmtask.guest.password = \"secret\"\n",
        platform.display()
    );
    fs::write(&vmx, text).expect("write the configuration");
    let program = dir.path().join("program");
    fs::write(&program, "#!/bin/sh\nexit 3\n").expect("write a program");
    let counters = dir.path().join("counters.json");
    let output = Command::new(client)
        .args(["3", "-", "-", "-"])
        .args([&vmx, &dir.path().join("vms/clone/clone.vmx"), dir.path()])
        .args(["root", "secret"])
        .arg(&program)
        .arg("3")
        .env("VMTASK_STANDIN_HOME", dir.path().join("home"))
        .env("VMTASK_STANDIN_COUNTERS", &counters)
        .env("VMTASK_ACCEL", "tcg")
        .env_remove("VMTASK_STANDIN")
        .env_remove("VMTASK_STANDIN_FAULTS")
        .output()
        .expect("run the client");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("passed"), "{told}");
    assert_eq!(fs::read(dir.path().join("back")).ok(), fs::read(&program).ok());
    let counted = fs::read(&counters).expect("read the counters");
    let counted: serde_json::Value = serde_json::from_slice(&counted).expect("counters");
    for kind in ["hosts", "vms", "snapshots", "jobs", "property_lists", "buffers", "leaked"] {
        assert_eq!(counted[kind], 0, "{kind} in {counted}");
    }
    assert!(vmtask_tests::procs::qemus_of_dir(dir.path()).is_empty());
}

fn compile(dir: &Path) -> PathBuf {
    let beside = std::env::current_exe().expect("know this program's own path");
    let dirs = beside.ancestors().skip(1).take(2).map(|dir| dir.join("libvixAllProducts.so"));
    let library = dirs.into_iter().find(|path| path.is_file()).expect("the library is built with the tests");
    let client = dir.join("client");
    let output = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&client)
        .arg(real::repository().join("adapters/vix/standin/tests/client.c"))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().expect("a directory").display()))
        .output()
        .expect("gcc is needed to compile the client");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    client
}
