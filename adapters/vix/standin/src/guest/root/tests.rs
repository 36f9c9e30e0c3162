//! Real programs in real roots, with every builder that works here.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use rstest::rstest;

use super::*;
use crate::vmx::Vmx;

const BWRAP: &str = "bwrap";
const UNSHARE: &str = "unshare";

struct Vm {
    guest: Root,
    dir: tempfile::TempDir,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.guest.power_off();
    }
}

impl Vm {
    /// A VM whose root is built by this program; none, and a word about it, if that does not work here.
    fn new(builder: &str) -> Option<Self> {
        let found = Builder::installed().into_iter().find(|b| b.program().ends_with(builder));
        let Some(found) = found else {
            eprintln!("skipped: {builder} is not installed");
            return None;
        };
        if let Err(why) = found.check() {
            eprintln!("skipped: {why}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let guest = Root::new(home(dir.path(), "vm"), found);
        Some(Self { guest, dir })
    }

    fn on(builder: &str) -> Option<Self> {
        let vm = Self::new(builder)?;
        vm.guest.power_on().unwrap();
        vm.wait_for_tools();
        Some(vm)
    }

    /// The same VM, as another client sees it.
    fn again(&self) -> Root {
        Root::new(self.guest.home.clone(), self.guest.builder.clone())
    }

    fn wait_for_tools(&self) {
        until(|| self.guest.tools_running());
    }

    fn sh(&self, script: &str) -> i32 {
        let pid = self.start("/bin/sh", &format!("-c {}", quote(script)));
        self.wait(pid)
    }

    fn start(&self, path: &str, arguments: &str) -> u64 {
        self.try_start(path, arguments).unwrap()
    }

    fn try_start(&self, path: &str, arguments: &str) -> Result<u64> {
        let environment = self.guest.environment("user");
        self.guest.start(&Program { path, arguments, user: "user", environment: &environment })
    }

    fn wait(&self, pid: u64) -> i32 {
        until(|| self.guest.exit_status(pid).unwrap().is_some());
        self.guest.exit_status(pid).unwrap().unwrap()
    }

    /// What the script prints.
    fn said(&self, script: &str) -> String {
        self.sh(&format!("{{ {script}\n}} >/tmp/said 2>&1"));
        self.read("/tmp/said")
    }

    fn read(&self, path: &str) -> String {
        let to = self.dir.path().join("out");
        self.guest.copy_out(path, &to).unwrap();
        fs::read_to_string(to).unwrap()
    }

    fn give(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn home(dir: &Path, name: &str) -> Home {
    fs::create_dir(dir.join(name)).unwrap();
    let vmx = Arc::new(Vmx::parse("vmtask.guest.user = \"ada\"").unwrap());
    Home { dir: dir.join(name), vmx_path: dir.join("a.vmx"), vmx }
}

/// Looks until it is so. A bound only so that a fault is told instead of waited for.
fn until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < end, "it does not come to be");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[rstest]
fn a_program_runs_as_tools_run_it(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    assert_eq!(vm.sh("exit 7"), 7);
    // The arguments go through a shell.
    let pid = vm.start("/bin/echo", "'a  b' \"$HOME\" >/tmp/out");
    assert_eq!(vm.wait(pid), 0);
    assert_eq!(vm.read("/tmp/out"), "a  b /home/ada\n");
    let pid = vm.start("/bin/sh", "-c 'echo $$ >/tmp/pid; exec sleep 100'");
    until(|| vm.guest.info("/tmp/pid").is_ok_and(|info| info.size > 0));
    assert_eq!(vm.read("/tmp/pid").trim(), pid.to_string(), "a program's number is the one that it sees");
    assert_eq!(vm.guest.exit_status(pid), Ok(None));
    let listed = || vm.guest.processes().unwrap().into_iter().find(|process| process.pid == pid).unwrap();
    until(|| listed().command == "sleep 100");
    assert_eq!(listed().owner, "ada");
    vm.guest.kill(pid).unwrap();
    assert_eq!(vm.wait(pid), 128 + 9);
    assert_eq!(vm.guest.kill(pid).unwrap_err().code(), error_code::NO_SUCH_PROCESS);
    assert_eq!(vm.guest.exit_status(999_999).unwrap_err().code(), error_code::NO_SUCH_PROCESS);
}

#[rstest]
fn a_program_gets_its_variables_and_no_signal_is_ignored(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    let mut environment = vm.guest.environment("ada");
    environment.push(("GREETING".to_owned(), "it's \"$me\"\nhere".to_owned()));
    let program = Program {
        path: "/bin/sh",
        arguments: "-c 'echo \"$GREETING\" >/tmp/a; grep SigIgn /proc/self/status >/tmp/b; touch here; exit $?'",
        user: "ada",
        environment: &environment,
    };
    let pid = vm.guest.start(&program).unwrap();
    assert_ne!(vm.wait(pid), 0, "nothing can be made in the working directory");
    assert_eq!(vm.read("/tmp/a"), "it's \"$me\"\nhere\n");
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let ours = ours.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let mask = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
    // Rust ignores SIGPIPE in this process, and not in its children.
    let sigpipe = 1 << 12;
    let theirs = vm.read("/tmp/b");
    assert_eq!(mask(theirs.trim().strip_prefix("SigIgn:\t").unwrap()), mask(ours) & !sigpipe);
}

#[rstest]
fn a_copy_is_not_executable_until_the_guest_makes_it_so(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    vm.guest.make_directory("/work/in").unwrap();
    let program = vm.give("program", "#!/bin/sh\nexit 5\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    vm.guest.copy_in(&program, "/work/in/my program").unwrap();
    let code = |path| vm.try_start(path, "").unwrap_err().code();
    assert_eq!(code("/work/in/my program"), error_code::GUEST_USER_PERMISSIONS);
    assert_eq!(code("/work/in"), error_code::GUEST_USER_PERMISSIONS);
    assert_eq!(code("/work/none"), error_code::FILE_NOT_FOUND);
    assert_eq!(vm.sh("chmod +x '/work/in/my program'"), 0);
    let pid = vm.start("/work/in/my program", "");
    assert_eq!(vm.wait(pid), 5);
}

#[rstest]
fn a_path_means_the_same_to_copies_and_programs(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    for dir in ["/tmp", "/run", "/dev/shm", "/home/ada", "/mnt"] {
        let (path, text) = (format!("{dir}/there"), format!("in {dir}"));
        vm.guest.copy_in(&vm.give("source", &text), &path).unwrap();
        assert_eq!(vm.said(&format!("cat {path}")), text);
        assert_eq!(vm.sh(&format!("echo more >>{path}")), 0);
        assert_eq!(vm.read(&path), format!("{text}more\n"));
    }
    assert!(vm.guest.info("/bin/sh").unwrap().size > 0);
    let error = vm.guest.copy_in(&vm.give("source", ""), "/usr/there").unwrap_err();
    assert_eq!(error.code(), error_code::FILE_READ_ONLY);
}

/// Only files of the test's own are written to, and what belongs to the host is merely opened: the test must do no harm
/// on the day on which it fails.
#[rstest]
fn nothing_outside_can_be_seen_or_changed(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    let canary = vm.give("canary", "alive");
    let path = canary.display();
    assert_eq!(vm.said(&format!("cat {path} || echo none")).lines().last(), Some("none"));
    vm.sh(&format!("mkdir -p {0}; echo dead >{path}", vm.dir.path().display()));
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    // `: >>file` opens without writing.
    let host_files = "/usr/bin/env /proc/sys/vm/swappiness /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/mtrr";
    let opened = vm.said(&format!(
        "for f in {host_files}; do [ -e $f ] && [ ! -c $f ] && (: >>$f) 2>/dev/null && echo opened $f; done; :"
    ));
    assert_eq!(opened, "");
    // Neither the host's processes, nor its network, nor any capability.
    assert_eq!(vm.said(&format!("[ -e /proc/{0} ] && cat /proc/{0}/comm", std::process::id())), "");
    assert_eq!(vm.said("tail -n +3 /proc/net/dev | grep -v '^ *lo:'"), "");
    assert_eq!(vm.said("grep -E 'Cap(Prm|Eff|Inh|Amb)' /proc/self/status | grep -v 0000000000000000"), "");
    assert_eq!(vm.said("id -un"), "ada\n");
    assert_ne!(vm.sh("unshare --user true"), 0, "in a user namespace of its own a program could mount what it likes");
    // Descriptors of the client do not get in.
    let inherited = fs::File::open(vm.dir.path()).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    vm.guest.reset().unwrap();
    vm.wait_for_tools();
    assert_eq!(vm.said(&format!("ls -l /proc/1/fd /proc/self/fd | grep -F {}", vm.dir.path().display())), "");
}

#[rstest]
fn links_made_by_the_guest_lead_no_copy_out(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    let secret = vm.give("secret", "secret");
    vm.sh(&format!("ln -s {} /tmp/link; ln -s /proc/1/root/../../.. /tmp/up", secret.display()));
    let to = vm.dir.path().join("stolen");
    assert!(vm.guest.copy_out("/tmp/link", &to).is_err());
    assert!(vm.guest.copy_out(&format!("/tmp/up{}", secret.display()), &to).is_err());
    let _ = vm.guest.copy_in(&vm.give("source", "changed"), "/tmp/link");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    // And where mounts will be at the next boot.
    vm.guest.power_off().unwrap();
    let (inside, outside) = (vm.guest.root.join("etc"), vm.dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::rename(&inside, vm.guest.root.join("etc.old")).unwrap();
    symlink(&outside, &inside).unwrap();
    vm.guest.power_on().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[rstest]
fn a_program_survives_its_client_and_is_found_by_the_next(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    let pid = vm.start("/bin/sleep", "1000");
    fs::remove_file(vm.guest.home.dir.join("init.json")).unwrap();
    let other = vm.again();
    assert!(other.is_up() && other.tools_running());
    assert_eq!(other.exit_status(pid), Ok(None));
    other.kill(pid).unwrap();
    assert_eq!(vm.wait(pid), 137);
}

#[rstest]
fn a_program_that_kills_all_it_can_does_not_end_tools(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    vm.start("/bin/sh", "-c 'kill -9 -1; echo alive >/tmp/alive; exec sleep 1000'");
    until(|| vm.guest.info("/tmp/alive").is_ok_and(|info| info.size > 0));
    vm.wait_for_tools();
    assert_eq!(vm.sh("exit 3"), 3);
    // Orphans do not stay zombies, or whoever waits for their end would wait for ever.
    assert_eq!(
        vm.said("(sleep 0.01 & echo $! >/tmp/orphan); p=$(cat /tmp/orphan); while kill -0 $p 2>/dev/null; do :; done"),
        ""
    );
}

#[rstest]
fn a_pause_stops_every_process_and_only_what_it_stopped_goes_on(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    vm.start("/bin/sh", "-c 'while :; do echo x >>/tmp/count; done'");
    let stopped = vm.start("/bin/sh", "-c 'kill -STOP $$; echo went on >/tmp/went'");
    until(|| vm.guest.info("/tmp/count").is_ok_and(|info| info.size > 0));
    let init = vm.guest.init().unwrap();
    let member = processes::find(init, stopped).unwrap();
    let is_stopped = || fs::read_to_string(format!("/proc/{}/stat", member.pid)).unwrap().contains(") T ");
    until(is_stopped);
    let count = || fs::metadata(vm.guest.root.join("tmp/count")).unwrap().len();
    vm.guest.pause().unwrap();
    assert!(processes::is_frozen(init));
    let before = count();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(count(), before);
    vm.again().unpause().unwrap();
    until(|| count() > before);
    assert!(is_stopped(), "the guest had stopped it itself");
}

#[rstest]
fn a_suspended_guest_goes_on_but_its_copy_does_not(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    let pid = vm.start("/bin/sleep", "1000");
    vm.guest.suspend().unwrap();
    let copy = home(vm.dir.path(), "copy");
    fs::remove_dir(&copy.dir).unwrap();
    copy::copy(&vm.guest.home.dir, &copy.dir).unwrap();
    let copy = Root::new(copy, vm.guest.builder.clone());
    assert_eq!(copy.resume().unwrap_err().code(), error_code::CANNOT_POWER_ON_VM);
    copy.power_off().unwrap();
    let other = vm.again();
    assert!(other.is_up());
    other.resume().unwrap();
    assert_eq!(vm.guest.exit_status(pid), Ok(None));
}

#[rstest]
fn an_idle_suspended_guest_can_be_copied_as_the_same_boot(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    vm.sh("echo mine >/tmp/file");
    let boot = vm.said("cat /proc/sys/kernel/random/boot_id");
    vm.guest.suspend().unwrap();
    let place = home(vm.dir.path(), "copy");
    fs::remove_dir(&place.dir).unwrap();
    copy::copy(&vm.guest.home.dir, &place.dir).unwrap();
    vm.guest.power_off().unwrap();
    let copy = Vm { guest: Root::new(place, vm.guest.builder.clone()), dir: tempfile::tempdir().unwrap() };
    copy.guest.resume().unwrap();
    copy.wait_for_tools();
    assert_eq!(copy.read("/tmp/file"), "mine\n");
    assert_eq!(copy.said("cat /proc/sys/kernel/random/boot_id"), boot);
    copy.guest.reset().unwrap();
    copy.wait_for_tools();
    assert_ne!(copy.said("cat /proc/sys/kernel/random/boot_id"), boot);
}

#[rstest]
fn power_off_ends_everything_and_keeps_the_files(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    // Out of sight of its parent, in a session of its own, and deaf to all that can be ignored.
    vm.start("/bin/sh", "-c 'trap \"\" TERM HUP INT; setsid sleep 1000 & setsid sleep 1000; sleep 1000'");
    vm.sh("echo file >/tmp/file; echo memory >/run/file");
    let init = vm.guest.init().unwrap();
    let members = processes::members(init);
    assert!(members.len() >= 4);
    vm.guest.pause().unwrap();
    vm.again().power_off().unwrap();
    assert!(members.iter().all(|member| !member.name.is_alive()));
    assert!(!vm.guest.is_up());
    assert_eq!(
        vm.guest.copy_out("/tmp/file", &vm.dir.path().join("x")).unwrap_err().code(),
        error_code::VM_NOT_RUNNING
    );
    vm.guest.power_on().unwrap();
    vm.wait_for_tools();
    assert_eq!(vm.read("/tmp/file"), "file\n");
    assert!(vm.guest.info("/run/file").is_err());
}

#[rstest]
fn a_snapshot_keeps_files_and_says_that_it_cannot_keep_programs(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    vm.sh("echo one >/tmp/file; ln -s file /tmp/link; chmod 700 /tmp/file");
    let snapshot = |name: &str| {
        let dir = vm.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let pid = vm.start("/bin/sleep", "1000");
    let refused = snapshot("refused");
    assert_eq!(vm.guest.save(true, &refused).unwrap_err().code(), error_code::NOT_SUPPORTED);
    assert_eq!(fs::read_dir(&refused).unwrap().count(), 0);
    assert_eq!(vm.guest.exit_status(pid), Ok(None));
    let files = snapshot("files");
    vm.guest.save(false, &files).unwrap();
    assert_eq!(vm.guest.exit_status(pid), Ok(None), "it runs on");
    vm.guest.kill(pid).unwrap();
    vm.wait(pid);
    let idle = snapshot("idle");
    vm.guest.save(true, &idle).unwrap();
    vm.sh("echo two >/tmp/file");

    vm.guest.power_off().unwrap();
    vm.guest.load(&files).unwrap();
    assert!(!vm.guest.is_up());
    vm.guest.power_on().unwrap();
    vm.wait_for_tools();
    assert_eq!(vm.read("/tmp/link"), "one\n");
    assert_eq!(vm.said("ls -l /tmp/file | cut -c1-10"), "-rwx------\n");
    vm.sh("echo two >/tmp/file");

    vm.guest.power_off().unwrap();
    vm.guest.load(&idle).unwrap();
    vm.guest.resume().unwrap();
    vm.wait_for_tools();
    assert_eq!(vm.read("/tmp/file"), "one\n");

    let clone = Vm {
        guest: Root::new(home(vm.dir.path(), "clone"), vm.guest.builder.clone()),
        dir: tempfile::tempdir().unwrap(),
    };
    vm.guest.clone_to(&files, &clone.guest.home, true).unwrap();
    clone.guest.power_on().unwrap();
    clone.wait_for_tools();
    clone.sh("echo clone >/tmp/file");
    assert_eq!(vm.read("/tmp/file"), "one\n");
}

#[rstest]
fn directories_are_merged_both_ways(#[values(BWRAP, UNSHARE)] builder: &str) {
    let Some(vm) = Vm::on(builder) else { return };
    let tree = vm.dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/a"), "a").unwrap();
    vm.guest.make_directory("/work/sub").unwrap();
    vm.sh("echo b >/work/sub/b");
    vm.guest.copy_in(&tree, "/work").unwrap();
    let names: Vec<String> = vm.guest.list("/work/sub").unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["a", "b"]);
    let back = vm.dir.path().join("back");
    fs::create_dir(&back).unwrap();
    fs::write(back.join("c"), "c").unwrap();
    vm.guest.copy_out("/work", &back).unwrap();
    assert_eq!(fs::read_to_string(back.join("sub/b")).unwrap(), "b\n");
    assert!(back.join("c").exists());
    let temporary = vm.guest.temp_file().unwrap();
    assert_eq!(vm.guest.info(&temporary).unwrap().size, 0);
    vm.guest.rename(&temporary, "/work/t").unwrap();
    vm.guest.remove_file("/work/t").unwrap();
    vm.guest.remove_directory("/work").unwrap();
    assert_eq!(vm.guest.info("/work").unwrap_err().code(), error_code::FILE_NOT_FOUND);
}
