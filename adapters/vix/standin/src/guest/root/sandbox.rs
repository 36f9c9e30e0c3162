//! What a guest sees of the host: the root that its PID 1 is started in.
//!
//! ```text
//!   /                 the VM's own directory, writable
//!   /usr /bin /lib*   the host's, read-only          /proc   of its own PID namespace; what belongs to the host
//!   /run /dev/shm     in memory                              in there is read-only or empty
//!   /tmp /etc /home   the VM's own                   no network, no host's name, no devices but /dev/null and the like
//! ```
//!
//! Two programs can build it: bubblewrap, or the `unshare`, `mount` and `pivot_root` of util-linux. Either way the guest
//! is one ordinary user without any capability. It matters most where the client is root: the guest's user is then still
//! root to the host's files, and only what is not mounted writable is safe.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use vmtask_vix_abi::error_code;

use crate::failure::Failure;
use crate::guest::Result;

/// Directories of the host with programs and libraries; where the host has a link instead, so has the guest.
const SYSTEM: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix/store"];
/// What some programs in there do not work without.
const SYSTEM_FILES: [&str; 2] = ["etc/alternatives", "etc/ld.so.cache"];
/// What belongs to the host in a `/proc`, but is open to the host's root: directories, and files.
const READ_ONLY: [&str; 5] = ["proc/sys", "proc/fs", "proc/acpi", "proc/scsi", "proc/driver"];
const HIDDEN: [&str; 8] =
    ["sysrq-trigger", "mtrr", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "kmsg"];
/// What boots in there.
const TOOLS: &str = include_str!("tools.sh");
/// Where that is in the guest.
pub(super) const TOOLS_DIR: &str = "/run/vmtask";

/// The user whom a guest runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) home: String,
}

impl User {
    pub(super) fn new(name: &str) -> Self {
        match name {
            "root" => Self { name: "root".into(), id: 0, home: "/root".into() },
            // It goes into files and paths, so anything odd is left out of it.
            _ => {
                let name: String =
                    name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
                Self { home: format!("/home/{name}"), name, id: 1000 }
            }
        }
    }
}

/// A program that can build a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Builder {
    /// bubblewrap.
    Bwrap(PathBuf),
    /// util-linux.
    Unshare(PathBuf),
}

/// One thing to mount, in this order.
enum Mount {
    /// A path of the host, read-only.
    ReadOnly(PathBuf, PathBuf),
    Proc,
    Dev,
    Memory(&'static str),
}

/// A guest's directories on the host.
pub(super) struct Place<'a> {
    /// The guest's files.
    pub(super) root: &'a Path,
    /// Where what is not the guest's lies: its Tools, its log.
    pub(super) dir: &'a Path,
}

impl Builder {
    /// The one that works on this computer. Found out once, by trying.
    pub(super) fn find() -> std::result::Result<&'static Self, &'static str> {
        static FOUND: OnceLock<std::result::Result<Builder, String>> = OnceLock::new();
        FOUND.get_or_init(Self::look).as_ref().map_err(String::as_str)
    }

    fn look() -> std::result::Result<Self, String> {
        let mut tried = String::new();
        for builder in Self::installed() {
            match builder.check() {
                Ok(()) => return Ok(builder),
                Err(why) => tried.push_str(&format!(" ({why})")),
            }
        }
        Err(format!(
            "this computer lets no guest have a root of its own{tried}; install bubblewrap (Debian: apt-get install \
             bubblewrap), allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone), \
             or set VMTASK_STANDIN=world or qemu"
        ))
    }

    /// Those that are in `PATH`.
    pub(super) fn installed() -> Vec<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let search = |name: &str| {
            let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
            dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
        };
        [search("bwrap").map(Self::Bwrap), search("unshare").map(Self::Unshare)].into_iter().flatten().collect()
    }

    /// Whether a root can be built, with the programs in it that Tools need.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", self.program().display());
        let name = super::fresh_name().map_err(|e| failed(&e))?;
        let dir = std::env::temp_dir().join(format!("vmtask-standin-{name}"));
        let place = Place { root: &dir.join("root"), dir: &dir };
        let result = fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|e| failed(&e)).and_then(|()| {
            place.prepare(&User::new("user"), "none").map_err(|e| failed(&e))?;
            let script = "for need in setsid env mkfifo mv; do command -v $need >/dev/null || exit 9; done";
            let mut command = self.command(&place, &User::new("user"), &["-c", script]);
            let done = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(|e| failed(&e))?;
            match done.status.code() {
                Some(0) => Ok(()),
                Some(9) => Err("setsid, env, mkfifo or mv is not in PATH".to_owned()),
                _ => Err(failed(&String::from_utf8_lossy(&done.stderr).trim())),
            }
        });
        let _ = fs::remove_dir_all(&dir);
        result
    }

    pub(super) fn program(&self) -> &Path {
        match self {
            Self::Bwrap(program) | Self::Unshare(program) => program,
        }
    }

    /// The command that boots a guest, its streams still to be chosen.
    pub(super) fn boot(&self, place: &Place<'_>, user: &User) -> Command {
        self.command(place, user, &[&format!("{TOOLS_DIR}/tools"), "boot"])
    }

    /// `/bin/sh` in the root, as its first process.
    fn command(&self, place: &Place<'_>, user: &User, sh: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        let mounts = place.mounts();
        match self {
            Self::Bwrap(_) => bwrap(&mut command, place, user, &mounts),
            Self::Unshare(_) => unshare(&mut command, place, user, &mounts),
        }
        command.args(sh);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).current_dir("/");
        command
    }
}

fn bwrap(command: &mut Command, place: &Place<'_>, user: &User, mounts: &[Mount]) {
    command.args(["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]);
    command.args(["--unshare-cgroup-try", "--hostname", "guest", "--new-session", "--as-pid-1"]);
    // A user namespace of its own would let a guest mount what belongs to the host's root: cgroups, say.
    if can_disable_namespaces(Path::new(command.get_program())) {
        command.arg("--disable-userns");
    }
    command.args(["--uid", &user.id.to_string(), "--gid", &user.id.to_string(), "--cap-drop", "ALL"]);
    command.arg("--bind").arg(place.root).arg("/");
    for mount in mounts {
        match mount {
            Mount::ReadOnly(host, guest) => command.arg("--ro-bind").arg(host).arg(Path::new("/").join(guest)),
            Mount::Proc => command.args(["--proc", "/proc"]),
            Mount::Dev => command.args(["--dev", "/dev"]),
            Mount::Memory(guest) => command.args(["--tmpfs", guest]),
        };
    }
    command.args(["--chdir", "/", "--", "/bin/sh"]);
}

/// Whether this bubblewrap is 0.8 or younger. Older ones do not know the option, and the rest holds with them too.
fn can_disable_namespaces(program: &Path) -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let help = Command::new(program).arg("--help").stdin(Stdio::null()).output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--disable-userns"))
    })
}

/// The same with util-linux. A user namespace within a user namespace: what the outer one's root has mounted, the inner
/// one's user cannot change, since the mounts do not belong to its namespace.
fn unshare(command: &mut Command, place: &Place<'_>, user: &User, mounts: &[Mount]) {
    let quote = |path: &Path| super::quote(&path.to_string_lossy());
    let root = quote(place.root);
    let mut script = format!("set -e\nmount --bind {root} {root}\ncd {root}\n");
    for mount in mounts {
        script += &match mount {
            // Not with what is mounted below it, which would stay writable: the kernel then refuses it altogether.
            Mount::ReadOnly(host, guest) => {
                let (host, guest) = (quote(host), quote(guest));
                let is_file = "test -e \"$g\" || { mkdir -p \"${g%/*}\" && : >\"$g\"; }";
                let flags = "remount,bind,ro,nosuid,nodev";
                format!("g=./{guest}\n{is_file}\nmount --bind {host} \"$g\"\nmount -o {flags} \"$g\"\n")
            }
            Mount::Proc => "mount -t proc -o nosuid,nodev,noexec proc ./proc\n".to_owned(),
            Mount::Memory(guest) => format!("mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs .{guest}\n"),
            Mount::Dev => "mount -t tmpfs -o nosuid,mode=0755 tmpfs ./dev\nmkdir ./dev/shm\n\
                 for d in null zero full random urandom; do : >./dev/$d; mount --bind /dev/$d ./dev/$d; done\n\
                 ln -s /proc/self/fd ./dev/fd\n"
                .to_owned(),
        };
    }
    script += "hostname guest 2>/dev/null || :\nchown 0:0 ./run 2>/dev/null || :\n";
    // The limit of this namespace alone, which the computer's own is above: one more, made below, and none in the guest.
    script += "echo 1 >/proc/sys/user/max_user_namespaces\n";
    script += "pivot_root . .\numount -l .\ncd /\n";
    script += &format!("exec setsid unshare --user --map-user={0} --map-group={0} /bin/sh \"$@\"\n", user.id);
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup"]);
    command.args(["--", "/bin/sh", "-c", &script, "sh"]);
}

impl Place<'_> {
    /// Makes everything that a boot needs. No guest runs.
    pub(super) fn prepare(&self, user: &User, boot_id: &str) -> Result<()> {
        if !self.root.is_dir() {
            self.furnish(user)?;
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |e: std::io::Error| Failure::host_io("cannot prepare", &path, &e)
        };
        for name in SYSTEM.iter().chain(&SYSTEM_FILES) {
            let host = Path::new("/").join(name);
            match fs::symlink_metadata(&host) {
                Err(_) => {}
                Ok(meta) if meta.is_symlink() => {
                    let link = self.root.join(name);
                    if fs::symlink_metadata(&link).is_err() {
                        symlink(fs::read_link(&host).map_err(io(&host))?, &link).map_err(io(&link))?;
                    }
                }
                Ok(meta) => self.mount_point(Path::new(name), meta.is_dir()).map_err(io(&self.root.join(name)))?,
            }
        }
        for name in ["proc", "dev", "run"] {
            self.mount_point(Path::new(name), true).map_err(io(&self.root.join(name)))?;
        }
        crate::store::replace(&self.dir.join("tools.sh"), TOOLS.as_bytes())?;
        crate::store::replace(&self.dir.join("boot_id"), format!("{boot_id}\n").as_bytes())
    }

    /// The files of a new guest, whole or not at all.
    fn furnish(&self, user: &User) -> Result<()> {
        let new = self.dir.join("new-root");
        let make = || -> std::io::Result<()> {
            let _ = fs::remove_dir_all(&new);
            for dir in ["etc", "home", "root", "tmp", "var/tmp", "mnt"] {
                fs::create_dir_all(new.join(dir))?;
            }
            fs::create_dir_all(new.join(user.home.trim_start_matches('/')))?;
            for dir in ["tmp", "var/tmp"] {
                fs::set_permissions(new.join(dir), fs::Permissions::from_mode(0o1777))?;
            }
            let line = |name: &str, id: u32, home: &str| format!("{name}:x:{id}:{id}::{home}:/bin/sh\n");
            let mut passwd = line("root", 0, "/root");
            let mut group = "root:x:0:\n".to_owned();
            if user.id != 0 {
                passwd += &line(&user.name, user.id, &user.home);
                group += &format!("{}:x:{}:\n", user.name, user.id);
            }
            fs::write(new.join("etc/passwd"), passwd)?;
            fs::write(new.join("etc/group"), group)?;
            fs::write(new.join("etc/hostname"), "guest\n")?;
            fs::rename(&new, self.root)
        };
        make().map_err(|e| Failure::host_io("cannot make the guest's files in", self.root, &e))
    }

    /// Makes a place to mount on. A link there, or above it, would make it another place: it is put out of the way.
    fn mount_point(&self, path: &Path, directory: bool) -> std::io::Result<()> {
        let mut at = self.root.to_owned();
        let parts: Vec<_> = path.components().collect();
        for (index, part) in parts.iter().enumerate() {
            at.push(part);
            let wants_directory = directory || index + 1 < parts.len();
            match fs::symlink_metadata(&at) {
                Ok(meta) if wants_directory && meta.is_dir() => continue,
                Ok(meta) if !wants_directory && meta.is_file() => continue,
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(&at)?,
                Ok(_) => fs::remove_file(&at)?,
                Err(_) => {}
            }
            if wants_directory { fs::create_dir(&at)? } else { drop(fs::File::create_new(&at)?) }
        }
        Ok(())
    }

    fn mounts(&self) -> Vec<Mount> {
        let host = |name: &str| Path::new("/").join(name);
        let is_real = |name: &&&str| fs::symlink_metadata(host(name)).is_ok_and(|meta| !meta.is_symlink());
        let as_is = |name: &&str| Mount::ReadOnly(host(name), PathBuf::from(name));
        let mut mounts: Vec<Mount> = SYSTEM.iter().chain(&SYSTEM_FILES).filter(is_real).map(as_is).collect();
        mounts.push(Mount::Proc);
        mounts.extend(READ_ONLY.iter().filter(|name| host(name).is_dir()).map(as_is));
        let hidden = HIDDEN.iter().map(|name| Path::new("proc").join(name));
        let hidden = hidden.filter(|path| Path::new("/").join(path).is_file());
        mounts.extend(hidden.map(|path| Mount::ReadOnly("/dev/null".into(), path)));
        // Each boot of a computer has another one, and programs tell boots apart by it.
        mounts.push(Mount::ReadOnly(self.dir.join("boot_id"), "proc/sys/kernel/random/boot_id".into()));
        mounts.push(Mount::Dev);
        mounts.push(Mount::Memory("/run"));
        mounts.push(Mount::ReadOnly(self.dir.join("tools.sh"), format!("{}/tools", &TOOLS_DIR[1..]).into()));
        mounts
    }
}

/// A number that no other boot has.
pub(super) fn new_boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let id = fs::read_to_string(path).map_err(|e| Failure::host_io("cannot read", path, &e))?;
    Ok(id.trim().to_owned())
}

/// Why a guest did not boot.
pub(super) fn no_boot(log: &Path) -> Failure {
    let said = fs::read_to_string(log).unwrap_or_default();
    let why = format!("the guest's root could not be built: {}", said.trim());
    Failure::new(error_code::CANNOT_POWER_ON_VM, why)
}
