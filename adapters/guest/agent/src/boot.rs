//! What PID 1 does once: it makes a system of the bare kernel, and finds the way to the host.
//!
//! It starts nothing and knows nothing of tasks, because a template of the running guest is shared by all of them. Where a
//! step fails the console says so and the next one is taken: a guest that answers can be asked what is wrong with it.

use core::ffi::CStr;

use crate::sys::{
    self, Borrowed, Errno, Event, Fd, HERE, MOUNT_NO_DEVICES, MOUNT_NO_EXEC, MOUNT_NO_SUID, Open, Poll, STDIN,
};
use crate::text::{self, Path};

/// The virtio-serial port that the host listens at.
const PORT: &[u8] = b"org.vmtask.agent.0";

/// Every port's directory.
const PORTS: &CStr = c"/sys/class/virtio-ports";

/// The modules' names, one a line, in the order of dependence.
const MODULES: &CStr = c"/lib/modules/order";

/// How long the host may take to name the port, before the console hears of it.
const PATIENCE_MS: u32 = 10_000;

type Mount = (&'static CStr, &'static CStr, &'static CStr, usize, &'static CStr);

const MOUNTS: [Mount; 3] = [
    (c"proc", c"/proc", c"proc", MOUNT_NO_SUID | MOUNT_NO_DEVICES | MOUNT_NO_EXEC, c""),
    (c"sysfs", c"/sys", c"sysfs", MOUNT_NO_SUID | MOUNT_NO_DEVICES | MOUNT_NO_EXEC, c""),
    (c"devtmpfs", c"/dev", c"devtmpfs", MOUNT_NO_SUID, c"mode=0755"),
];

/// On directories that the first ones bring, or that are made there.
const MORE_MOUNTS: [Mount; 4] = [
    (c"devpts", c"/dev/pts", c"devpts", MOUNT_NO_SUID | MOUNT_NO_EXEC, c"mode=0620,ptmxmode=0666"),
    (c"tmpfs", c"/dev/shm", c"tmpfs", MOUNT_NO_SUID | MOUNT_NO_DEVICES, c"mode=1777"),
    (c"tmpfs", c"/run", c"tmpfs", MOUNT_NO_SUID | MOUNT_NO_DEVICES, c"mode=0755"),
    (c"cgroup2", c"/sys/fs/cgroup", c"cgroup2", MOUNT_NO_SUID | MOUNT_NO_DEVICES | MOUNT_NO_EXEC, c""),
];

const LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

/// Boots, and returns the open port.
///
/// # Errors
/// What the kernel said where not even waiting for the port is possible.
pub fn boot() -> sys::Result<Fd> {
    sys::set_umask(0o022);
    mount_all(&MOUNTS);
    attempt("make /dev/pts", sys::make_dir(HERE, c"/dev/pts", 0o755));
    attempt("make /dev/shm", sys::make_dir(HERE, c"/dev/shm", 0o755));
    mount_all(&MORE_MOUNTS);
    for (target, name) in LINKS {
        attempt("link in /dev", sys::symlink(target, name));
    }
    attempt("open /dev/null", standard_streams());
    attempt("set the host's name", sys::set_host_name(b"vmtask"));
    attempt("bring lo up", sys::loopback_up());
    // The agent is the last thing that the kernel may kill for memory; the program's own process lifts this for itself.
    attempt("set oom_score_adj", text::set(c"/proc/self/oom_score_adj", b"-1000"));
    // A program that crashes leaves its status, not a core file in the guest's memory.
    attempt("set RLIMIT_CORE", sys::no_core_files());
    // However many processes the program starts, the host gets its answers.
    attempt("set the agent's priority", sys::set_nice(-20));
    // Counts what the kernel has killed for memory.
    attempt("count memory", text::set(c"/sys/fs/cgroup/cgroup.subtree_control", b"+memory"));

    // Before the modules, so that no port's name comes unheard.
    let events = sys::device_events()?;
    load_modules();
    let port = find_port(&events)?;
    say(&[b"up"]);
    Ok(port)
}

/// A line on the console, if there is one. The program's output does not come here.
pub fn say(pieces: &[&[u8]]) {
    let Ok(console) = sys::open(c"/dev/console", Open::WRITE | Open::NO_TERMINAL | Open::NONBLOCK) else { return };
    for piece in [&b"vmtask: "[..]].iter().chain(pieces).chain(&[&b"\n"[..]]) {
        // Nobody could be told.
        let _ = sys::write_all(*console, piece);
    }
}

/// Says which step failed.
fn attempt(what: &str, result: sys::Result<()>) {
    if let Err(Errno(number)) = result {
        let number = text::Decimal::new(u64::try_from(number).unwrap_or_default());
        say(&[b"cannot ", what.as_bytes(), b": error ", number.as_bytes()]);
    }
}

fn mount_all(mounts: &[Mount]) {
    for &(source, target, kind, flags, options) in mounts {
        if let Err(error) = sys::mount(source, target, kind, flags, options) {
            attempt("mount a file system", Err(error));
            say(&[b"not mounted: ", target.to_bytes()]);
        }
    }
}

/// The kernel gives PID 1 the console for all three, or nothing at all; the agent wants nothing of any of them, and no
/// program is to find one.
fn standard_streams() -> sys::Result<()> {
    let null = sys::open(c"/dev/null", Open::READ_WRITE)?;
    for number in 0..=2 {
        if null.number() != number {
            sys::become_standard(*null, number)?;
        }
    }
    if null.number() <= STDIN.number() + 2 {
        // It is one of the three, and stays open as that.
        core::mem::forget(null);
    }
    Ok(())
}

fn load_modules() {
    let mut room = [0; 1024];
    let names = match text::slurp(MODULES, &mut room) {
        Ok(names) => names,
        Err(error) => return attempt("read /lib/modules/order", Err(error)),
    };
    for name in names.split(|byte| *byte == b'\n').filter(|name| !name.is_empty()) {
        let loaded = Path::new(&[b"/lib/modules/", name, b".ko"])
            .and_then(|path| sys::open(path.as_c(), Open::READ))
            .and_then(|module| sys::load_module(*module));
        if loaded.is_err() {
            say(&[b"cannot load the module ", name]);
        }
    }
}

/// A port's name comes from the host in a message of its own, a moment after the driver has loaded, and the kernel then
/// tells of a change.
fn find_port(events: &Fd) -> sys::Result<Fd> {
    let poll = Poll::new()?;
    poll.add(**events, 0)?;
    let mut patience = Some(PATIENCE_MS);
    loop {
        if let Some(port) = port_by_name() {
            return Ok(port);
        }
        match poll.wait(&mut [Event::default()], patience) {
            Ok([]) => {
                say(&[b"no virtio-serial port ", PORT, b": the host cannot reach this guest"]);
                patience = None;
            }
            Ok(_) => drain(**events),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the messages say is not read: any of them is a reason to look again.
fn drain(events: Borrowed) {
    while !matches!(sys::read(events, &mut [0; 4096]), Err(Errno::AGAIN) | Ok(0)) {}
}

fn port_by_name() -> Option<Fd> {
    let dir = sys::open(PORTS, Open::READ | Open::DIRECTORY).ok()?;
    let mut room = [0; 4096];
    loop {
        let got = sys::read_dir(*dir, &mut room).ok().filter(|got| *got > 0)?;
        for entry in sys::entries(room.get(..got)?) {
            let name = Path::new(&[PORTS.to_bytes(), b"/", entry.to_bytes(), b"/name"]).ok()?;
            let mut line = [0; 64];
            if text::slurp(name.as_c(), &mut line).is_ok_and(|line| line.trim_ascii() == PORT) {
                let device = Path::new(&[b"/dev/", entry.to_bytes()]).ok()?;
                return sys::open(device.as_c(), Open::READ_WRITE | Open::NONBLOCK | Open::NO_TERMINAL).ok();
            }
        }
    }
}
