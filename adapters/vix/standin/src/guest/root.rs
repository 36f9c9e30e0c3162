//! A guest whose programs really run: on the host, in a root of their own.
//!
//! ```text
//!   client --> Tree (openat2 below /proc/PID/root) ----> the guest's files     VM's directory:  root/    the files
//!          --> a pipe in there -- tools.sh, PID 1 -----> its programs                           held.json  while stopped
//!          --> signals from outside (stop, go on, kill)                                         sandbox.log, tools.sh
//! ```
//!
//! The VM is the PID namespace: it lives as long as its first process, survives the client that started it, and is
//! found again by its root, which is the VM's directory and nobody else's ([`super::host`]). Pausing and suspending stop
//! all of its processes, so a suspended guest survives its client but not the computer.
//!
//! Memory is not saved here, for processes cannot be brought back from files. So a snapshot with memory is refused,
//! unless there is nothing to save: no program runs, and nothing lies in the file systems in memory. Such a guest goes on
//! from its files as the same boot.

mod copy;
mod processes;
mod sandbox;
#[cfg(test)]
mod tests;
mod tree;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use vmtask_qemu::process::{ProcessName, spawn_detached};
use vmtask_vix_abi::error_code;

use super::host::{self, Tie};
use super::{FileInfo, Guest, Home, Process, Program, Result, Share};
use crate::failure::Failure;
use sandbox::{Builder, Place, TOOLS_DIR, User};
use tree::Tree;

/// How long a boot, or the start of a program, may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How soon Tools that have not answered are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Opens a guest.
pub(super) fn open(home: Home) -> Result<Box<dyn Guest>> {
    let builder = Builder::find().map_err(|why| Failure::new(error_code::NOT_SUPPORTED, why))?;
    Ok(Box::new(Root::new(home, builder.clone())))
}

/// Whether this kind of guest can work on this computer.
pub(super) fn is_available() -> bool {
    Builder::find().is_ok()
}

/// See the module.
struct Root {
    home: Home,
    builder: Builder,
    user: User,
    /// The guest's files.
    root: PathBuf,
}

/// A guest that is stopped, or saved with its memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Held {
    /// Whether nothing is lost if there are no processes to go on with.
    idle: bool,
    boot_id: String,
    /// What the guest itself had stopped.
    stopped: Vec<ProcessName>,
}

impl Root {
    fn new(home: Home, builder: Builder) -> Self {
        let user = User::new(home.vmx.get("vmtask.guest.user").filter(|name| !name.is_empty()).unwrap_or("user"));
        let root = home.dir.join("root");
        Self { home, builder, user, root }
    }

    fn place(&self) -> Place<'_> {
        Place { root: &self.root, dir: &self.home.dir }
    }

    fn held_file(&self) -> PathBuf {
        self.home.dir.join("held.json")
    }

    fn held(&self) -> Result<Option<Held>> {
        crate::store::read(&self.held_file())
    }

    /// The guest's first process, if it runs or is stopped.
    fn init(&self) -> Option<ProcessName> {
        let record = self.home.dir.join("init.json");
        let known: Option<ProcessName> = crate::store::read(&record).ok().flatten();
        if let Some(init) = known.filter(|init| host::lives_in(*init, Tie::Root, &self.root)) {
            return Some(init);
        }
        let found = host::all_in(Tie::Root, &self.root).into_iter().find(|process| processes::is_first(*process))?;
        // Only a shortcut: without it the next look searches again.
        let _ = crate::store::write(&record, &found);
        Some(found)
    }

    fn running(&self) -> Result<ProcessName> {
        self.init().ok_or_else(|| Failure::new(error_code::VM_NOT_RUNNING, "the guest is not running"))
    }

    /// The files as the guest's programs see them.
    fn tree(&self) -> Result<Tree> {
        let init = self.running()?;
        let path = format!("/proc/{}/root", init.pid);
        let tree = Tree::open(Path::new(&path)).map_err(|e| Failure::host_io("cannot enter", Path::new(&path), &e))?;
        // The number may have become another's between the look and the opening; it cannot while it lives here.
        if host::lives_in(init, Tie::Root, &self.root) {
            return Ok(tree);
        }
        Err(Failure::new(error_code::VM_NOT_RUNNING, "the guest has just ended"))
    }

    fn boot(&self, boot_id: &str) -> Result<()> {
        self.power_off()?;
        let place = self.place();
        place.prepare(&self.user, boot_id)?;
        let log = self.home.dir.join("sandbox.log");
        let stderr = File::create(&log).map_err(|e| Failure::host_io("cannot write", &log, &e))?;
        let mut command = self.builder.boot(&place, &self.user);
        command.stdout(Stdio::null()).stderr(stderr);
        let mut child = spawn_detached(&mut command).map_err(|e| Failure::host_io("cannot start", &log, &e))?;
        let until = Instant::now() + PATIENCE;
        while self.init().is_none() {
            let ended = !matches!(child.try_wait(), Ok(None));
            if ended || Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(sandbox::no_boot(&log));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        host::adopt(child);
        Ok(())
    }

    /// Whether going on from the files alone would lose nothing: Tools are all that runs, with nothing asked of them.
    fn is_idle(&self, init: ProcessName) -> bool {
        let commands: Vec<String> = processes::members(init).iter().map(processes::Member::command).collect();
        let is = |command: &String, what: &str| command.contains(&format!(" {TOOLS_DIR}/tools {what}"));
        // A supervisor without a program is about to end; what it would still write is in memory too.
        let quiet = commands.iter().all(|c| is(c, "boot") || is(c, "serve") || is(c, "supervise"))
            && commands.iter().filter(|c| is(c, "serve")).count() <= 1;
        let Ok(tree) = self.tree() else { return false };
        let empty = |path: &str, but: &str| tree.list(path).is_ok_and(|all| all.iter().all(|file| file.name == but));
        let asked = format!("{TOOLS_DIR}/asked");
        let answered = |name: &str| tree.info(&format!("{asked}/{name}/pid")).is_ok();
        let nothing_asked = tree.list(&asked).is_ok_and(|all| all.iter().all(|request| answered(&request.name)));
        quiet && nothing_asked && empty("/run", "vmtask") && empty("/dev/shm", "")
    }

    fn boot_id(&self) -> Result<String> {
        let path = self.home.dir.join("boot_id");
        let id = fs::read_to_string(&path).map_err(|e| Failure::host_io("cannot read", &path, &e))?;
        Ok(id.trim().to_owned())
    }

    /// Stops everything, and notes how to go on. Doing it again changes nothing.
    fn hold(&self) -> Result<()> {
        let init = self.running()?;
        if self.held()?.is_some() && processes::is_frozen(init) {
            return Ok(());
        }
        let stopped = processes::freeze(init)?;
        crate::store::write(&self.held_file(), &Held { idle: self.is_idle(init), boot_id: self.boot_id()?, stopped })
    }

    /// Lets everything go on.
    fn release(&self, init: ProcessName) -> Result<()> {
        processes::thaw(init, &self.held()?.unwrap_or_default().stopped);
        // What is said to be held must stand still.
        self.forget_held().inspect_err(|_| drop(processes::freeze(init)))
    }

    fn forget_held(&self) -> Result<()> {
        match fs::remove_file(self.held_file()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::host_io("cannot remove", &self.held_file(), &e))
            }
            _ => Ok(()),
        }
    }

    /// What a snapshot keeps of the memory: nothing, or that there was nothing.
    fn memory(&self, init: Option<ProcessName>) -> Result<Held> {
        let held = match init {
            Some(_) => self.held()?,
            // A copy of a suspended VM, or one whose processes the host has lost.
            None => self.held()?.filter(|held| held.idle),
        };
        held.filter(|held| held.idle).ok_or_else(|| {
            let why = "programs run in the guest, or files lie in its memory, and a guest of the kind root cannot keep \
                       them in a snapshot; take it without memory, or use a guest of the kind qemu (VMTASK_STANDIN)";
            Failure::new(error_code::NOT_SUPPORTED, why)
        })
    }

    fn kept_in(from: &Path) -> Result<Option<Held>> {
        if !from.join("root").is_dir() {
            let why = format!("{} holds no state of a guest of the kind root", from.display());
            return Err(Failure::new(error_code::SNAPSHOT_INVAL, why));
        }
        crate::store::read(&from.join("held.json"))
    }
}

impl Guest for Root {
    fn name(&self) -> &'static str {
        "root"
    }

    fn power_on(&self) -> Result<()> {
        self.boot(&sandbox::new_boot_id()?)
    }

    fn power_off(&self) -> Result<()> {
        if let Some(init) = self.init() {
            let failed = |e: std::io::Error| Failure::host_io("cannot end the guest in", &self.root, &e);
            // With its first process the kernel ends all of the namespace, before the process itself is gone.
            init.kill(PATIENCE).map_err(failed)?;
        }
        host::end_all_in(Tie::Root, &self.root)?;
        self.forget_held()
    }

    fn suspend(&self) -> Result<()> {
        self.hold()
    }

    fn resume(&self) -> Result<()> {
        match (self.init(), self.held()?) {
            (Some(init), _) => self.release(init),
            (None, Some(held)) if held.idle => self.boot(&held.boot_id).inspect_err(|_| {
                // It stays suspended, which the boot has forgotten.
                drop(crate::store::write(&self.held_file(), &held));
            }),
            (None, _) => {
                let why = "the guest's programs are not on this computer any more, or this is a copy of a guest whose \
                           programs live elsewhere; power it off to boot it anew";
                Err(Failure::new(error_code::CANNOT_POWER_ON_VM, why))
            }
        }
    }

    fn pause(&self) -> Result<()> {
        self.hold()
    }

    fn unpause(&self) -> Result<()> {
        self.release(self.running()?)
    }

    fn is_up(&self) -> bool {
        host::reap();
        // A suspended guest that has nothing to lose is there even without a process.
        self.init().is_some() || self.held().is_ok_and(|held| held.is_some_and(|held| held.idle))
    }

    fn save(&self, memory: bool, into: &Path) -> Result<()> {
        let init = self.init();
        // Files change as long as somebody may write them.
        let was_held = self.held()?.is_some();
        if init.is_some() && !was_held {
            self.hold()?;
        }
        let saved = (|| {
            if memory {
                crate::store::write(&into.join("held.json"), &Held { stopped: Vec::new(), ..self.memory(init)? })?;
            }
            if self.root.is_dir() {
                return copy::copy(&self.root, &into.join("root"));
            }
            // It has never been powered on.
            let made = fs::create_dir(into.join("root"));
            made.map_err(|e| Failure::host_io("cannot make", into, &e))
        })();
        if let Some(init) = init.filter(|_| !was_held) {
            self.release(init)?;
        }
        saved
    }

    fn load(&self, from: &Path) -> Result<()> {
        let kept = Self::kept_in(from)?;
        self.power_off()?;
        copy::remove(&self.root)?;
        let empty = fs::read_dir(from.join("root")).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            // By rename: a half-copied root would be taken for a guest's.
            let new = self.home.dir.join("new-root");
            copy::remove(&new)?;
            copy::copy(&from.join("root"), &new)?;
            fs::rename(&new, &self.root).map_err(|e| Failure::host_io("cannot rename to", &self.root, &e))?;
        }
        kept.map_or(Ok(()), |held| crate::store::write(&self.held_file(), &held))
    }

    fn clone_to(&self, from: &Path, to: &Home, _linked: bool) -> Result<()> {
        let clone = Self::new(to.clone(), self.builder.clone());
        clone.load(from)?;
        clone.forget_held()
    }

    fn tools_running(&self) -> bool {
        let pipe = Path::new(TOOLS_DIR).join("ask");
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        // It can be opened only while somebody reads it.
        self.tree().is_ok_and(|tree| tree.open_file(&pipe, flags, Mode::empty()).is_ok())
    }

    fn environment(&self, user: &str) -> Vec<(String, String)> {
        super::usual_environment(user, &self.user.home)
    }

    fn share(&self, shares: &[Share]) -> Result<()> {
        if shares.is_empty() {
            return Ok(());
        }
        let why = "a guest of the kind root sees nothing of the host, so it has no shared folders";
        Err(Failure::new(error_code::OP_NOT_SUPPORTED_ON_GUEST, why))
    }

    fn make_directory(&self, path: &str) -> Result<()> {
        self.tree()?.make_directory(path)
    }

    fn remove_directory(&self, path: &str) -> Result<()> {
        self.tree()?.remove_directory(path)
    }

    fn remove_file(&self, path: &str) -> Result<()> {
        self.tree()?.remove_file(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.tree()?.rename(from, to)
    }

    fn temp_file(&self) -> Result<String> {
        let path = format!("/tmp/vmware-standin-{}", fresh_name()?);
        let made = self.tree()?.write_new(Path::new(&path), b"");
        made.map(|()| path.clone()).map_err(|e| Failure::guest_io("cannot make", &path, &e))
    }

    fn info(&self, path: &str) -> Result<FileInfo> {
        self.tree()?.info(path)
    }

    fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        self.tree()?.list(path)
    }

    fn copy_in(&self, host: &Path, guest: &str) -> Result<()> {
        self.tree()?.copy_in(host, guest)
    }

    fn copy_out(&self, guest: &str, host: &Path) -> Result<()> {
        self.tree()?.copy_out(guest, host)
    }

    fn start(&self, program: &Program<'_>) -> Result<u64> {
        let tree = self.tree()?;
        check_executable(&tree, program.path)?;
        let request = Path::new(TOOLS_DIR).join("asked").join(fresh_name()?);
        let failed = |e: std::io::Error| Failure::guest_io("cannot start", program.path, &e);
        tree.make_one(&request).map_err(failed)?;
        tree.write_new(&request.join("run"), self.script(program).as_bytes()).map_err(failed)?;
        let until = Instant::now() + PATIENCE;
        let mut ask_at = Instant::now();
        loop {
            if let Some(pid) = tree.read(&request.join("pid")).ok().and_then(|text| text.trim().parse().ok()) {
                return Ok(pid);
            }
            self.running()?;
            let now = Instant::now();
            // Tools may have been killed by a program, and are back in a moment.
            if now >= ask_at {
                let asked = ask(&tree, &request);
                if asked.is_err() && now >= until {
                    return Err(Failure::new(error_code::TOOLS_NOT_RUNNING, "Tools are not running in the guest"));
                }
                ask_at = now + ASK_AGAIN;
            }
            if now >= until {
                let why = format!("Tools did not start {} within {} s", program.path, PATIENCE.as_secs());
                return Err(Failure::in_guest(error_code::PROGRAM_NOT_STARTED, why));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn exit_status(&self, pid: u64) -> Result<Option<i32>> {
        let tree = self.tree()?;
        let ended = Path::new(TOOLS_DIR).join("ended").join(pid.to_string());
        let status = || tree.read(&ended).ok().and_then(|text| text.trim().parse().ok());
        if let Some(status) = status() {
            return Ok(Some(status));
        }
        let gone = || Failure::in_guest(error_code::NO_SUCH_PROCESS, format!("nothing is known of process {pid}"));
        let request = tree.read(&Path::new(TOOLS_DIR).join("started").join(pid.to_string())).map_err(|_| gone())?;
        // While its supervisor lives there will be an answer; one that was killed leaves none.
        let supervisor = format!("{TOOLS_DIR}/tools supervise {}", request.trim());
        let init = self.running()?;
        if processes::members(init).iter().any(|member| member.command().ends_with(&supervisor)) {
            return Ok(None);
        }
        status().map(Some).ok_or_else(gone)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        Ok(processes::list(self.running()?, &self.user.name))
    }

    fn kill(&self, pid: u64) -> Result<()> {
        let init = self.running()?;
        let none = || Failure::in_guest(error_code::NO_SUCH_PROCESS, format!("there is no process {pid} in the guest"));
        let found = processes::find(init, pid).ok_or_else(none)?;
        if found == init {
            let why = "process 1 of the guest cannot be killed";
            return Err(Failure::in_guest(error_code::GUEST_USER_PERMISSIONS, why));
        }
        found.kill(PATIENCE).map_err(|e| Failure::guest_io("cannot kill process", &pid.to_string(), &e))
    }
}

impl Root {
    /// What turns a shell in the guest into the program, as Tools do it: another shell takes the arguments apart.
    fn script(&self, program: &Program<'_>) -> String {
        let line = format!("{} {}", quote(program.path), program.arguments);
        let word = |(name, value): &(String, String)| quote(&format!("{name}={value}"));
        let variables: Vec<String> = program.environment.iter().map(word).collect();
        // Tools prefer bash too; it becomes the program, so that the number is the program's own.
        let shell = "sh=/bin/sh; [ -x /bin/bash ] && sh=/bin/bash";
        let run = format!("exec env -i {} $sh -c {}", variables.join(" "), quote(&line));
        format!("{shell}\n{run} </dev/null >/dev/null 2>&1\n")
    }
}

/// Tells Tools of a request. Nothing comes of telling them twice.
fn ask(tree: &Tree, request: &Path) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let pipe = tree.open_file(&Path::new(TOOLS_DIR).join("ask"), flags, Mode::empty())?;
    let name = request.file_name().unwrap_or_default().to_string_lossy();
    rustix::io::write(&pipe, format!("{name}\n").as_bytes())?;
    Ok(())
}

/// As Tools look: whether it is there first, then whether it may be executed.
fn check_executable(tree: &Tree, path: &str) -> Result<()> {
    let stat = tree.stat(tree::absolute(path)?).map_err(|e| Failure::guest_io("cannot start", path, &e))?;
    if tree::is(&stat, FileType::RegularFile) && stat.st_mode & 0o111 != 0 {
        return Ok(());
    }
    Err(Failure::in_guest(error_code::GUEST_USER_PERMISSIONS, format!("{path} is not executable in the guest")))
}

/// One word for a shell, whatever is in it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A name that nobody else has.
pub(super) fn fresh_name() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Failure::new(error_code::FAIL, format!("no random numbers: {e}")))?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}
