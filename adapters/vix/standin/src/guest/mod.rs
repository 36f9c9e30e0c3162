//! What runs in a VM: the port between the model of a VM and the ways to play its guest.
//!
//! ```text
//!              power_on                 suspend
//!     off --------------------> on <--------------> suspended        load(with memory) leads to suspended,
//!      ^                        | ^     resume          |            load(without) to off
//!      |       power_off        | | pause/unpause       |
//!      +------------------------+ v                     |
//!      |                       paused                   |
//!      +--------------------------<---------------------+
//! ```
//!
//! The model (`vm`) keeps the power state, decides what is legal, and holds the VM's file lock during everything in
//! the first half of the trait; a guest need not check the order. Guest operations (the second half) come without the
//! lock, from many threads and processes at once, and only while the model says that the VM is on and not paused; the
//! VM may be powered off under them at any time, which must end them with an error soon.
//!
//! A guest has no state but what lies in [`Home::dir`] (and processes of the host that it finds again from there): the
//! client that powered a VM on may be killed, and another one, in another process, carries on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmtask_vix_abi::error_code;

use crate::failure::Failure;
use crate::vmx::Vmx;

#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod qemu;
#[cfg(target_os = "linux")]
mod root;
mod world;

/// What a guest's methods return.
pub type Result<T> = std::result::Result<T, Failure>;

/// Where a guest lives.
#[derive(Clone, Debug)]
pub struct Home {
    /// A directory for the guest alone. It exists. Whoever copies the VM's directory while the VM is off or suspended
    /// copies this with it, and the copy is a VM of its own: keep no absolute paths in it, or check them.
    pub dir: PathBuf,
    /// The VM's `.vmx` file. Guests read their own settings from keys that begin with `vmtask.`, and find further files
    /// (disks, a guest's image) relative to its directory.
    pub vmx_path: PathBuf,
    /// What it says.
    pub vmx: Arc<Vmx>,
}

/// A file or directory in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Without its directory.
    pub name: String,
    /// In bytes; 0 for a directory.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether it is a symbolic link.
    pub symlink: bool,
}

/// A process in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the guest: what a shell in the guest prints for `$$`, and what kills it.
    pub pid: u64,
    /// The user's name.
    pub owner: String,
    /// Its command line.
    pub command: String,
    /// Seconds since 1970.
    pub started: i64,
}

/// A program to be started in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// Its absolute path in the guest.
    pub path: &'a str,
    /// Its arguments as one string, which a shell takes apart: Tools run `"PATH" ARGUMENTS` through `/bin/sh -c`, so
    /// quotes, redirections and variables work.
    pub arguments: &'a str,
    /// The user that is logged in.
    pub user: &'a str,
    /// Its environment: the variables that were written by `VixVM_WriteVariable`, and those of
    /// [`Guest::environment`] that were not. A client may count on nothing else, and on no `PATH` either; the working
    /// directory is not promised and should be one that nobody wants.
    pub environment: &'a [(String, String)],
}

/// A directory of the host that the guest sees under `/mnt/hgfs/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Share {
    /// Its name in the guest.
    pub name: String,
    /// The directory.
    pub host: PathBuf,
    /// Whether the guest may write.
    pub writable: bool,
}

/// What plays a VM's guest. See the module for when which method is called.
///
/// Paths in the guest are absolute, with `/`. A path means the same to every method and to the programs that run.
/// All methods block; none waits for longer than its own work takes.
pub trait Guest: Send + Sync {
    /// "world", "root" or "qemu".
    fn name(&self) -> &'static str;

    // ---- Power, under the VM's lock ----

    /// Boots. Returns when the boot has begun; [`Guest::tools_running`] tells when the guest can be used.
    fn power_on(&self) -> Result<()>;

    /// The power is about to be cut, and the VM's lock is not held yet: whoever waits for something of this guest, perhaps
    /// holding that lock, must come back soon.
    fn give_up_waiting(&self) {}

    /// Ends it, as if the power was cut: from on, paused or suspended. Nothing there: done.
    fn power_off(&self) -> Result<()>;

    /// Asks the guest's operating system to shut down, and returns once it is off.
    /// A guest that cannot be asked is cut off.
    fn shut_down(&self) -> Result<()> {
        self.power_off()
    }

    /// Boots anew: what was running is gone, files stay. From on or paused; afterwards on.
    fn reset(&self) -> Result<()> {
        self.power_off()?;
        self.power_on()
    }

    /// Stops it and keeps its memory in [`Home::dir`], as far as this guest can. From on or paused.
    fn suspend(&self) -> Result<()>;

    /// Lets a suspended guest run on. If it fails, the guest is as suspended as it was.
    ///
    /// # Errors
    /// `CANNOT_POWER_ON_VM` if what was running cannot be brought back (the host has been restarted, or this is a
    /// copy of a guest whose processes live elsewhere): never a quiet fresh boot.
    fn resume(&self) -> Result<()>;

    /// Stops it where it is.
    fn pause(&self) -> Result<()>;

    /// Lets it run on.
    fn unpause(&self) -> Result<()>;

    /// Whether a guest that was powered on is still there: not if it powered itself off, or if its process was killed.
    fn is_up(&self) -> bool;

    // ---- Snapshots, under the VM's lock ----

    /// Keeps the guest's state in `into`, an empty directory: its files, and (if `memory`) what is running. The guest
    /// then goes on as it was. Without `memory` it may be on: its files are as after a power cut.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` if memory is asked for and this guest cannot; nothing is kept then.
    fn save(&self, memory: bool, into: &Path) -> Result<()>;

    /// Brings the state kept in `from` back. The guest is off. Afterwards it is off, or suspended if the state was
    /// saved with memory.
    fn load(&self, from: &Path) -> Result<()>;

    /// Makes `to`, a home whose directory is empty, a guest in the state kept in `from` (by [`Guest::save`] of this
    /// guest), without memory. `linked`: it may refer to files in `from`, which stay for as long as the clone is wanted.
    fn clone_to(&self, from: &Path, to: &Home, linked: bool) -> Result<()>;

    // ---- Guest operations, without the lock ----

    /// Whether Tools answer in the guest.
    fn tools_running(&self) -> bool;

    /// The variables that a program of `user` begins with if none has been written.
    fn environment(&self, user: &str) -> Vec<(String, String)> {
        let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        usual_environment(user, &home)
    }

    /// The address that Tools report; `None` if the guest has no network card.
    fn address(&self) -> Option<String> {
        None
    }

    /// The shared folders have changed.
    ///
    /// # Errors
    /// `OP_NOT_SUPPORTED_ON_GUEST` if this guest cannot show them.
    fn share(&self, shares: &[Share]) -> Result<()>;

    /// Makes a directory, with its parents.
    ///
    /// # Errors
    /// `FILE_ALREADY_EXISTS`.
    fn make_directory(&self, path: &str) -> Result<()>;

    /// Removes a directory and everything in it.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_A_DIRECTORY`.
    fn remove_directory(&self, path: &str) -> Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_A_FILE`.
    fn remove_file(&self, path: &str) -> Result<()>;

    /// Renames a file or directory.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`; `FILE_ALREADY_EXISTS` if there is something at `to`.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Makes an empty file that only this user can read, and returns its path.
    fn temp_file(&self) -> Result<String>;

    /// Looks at a file or directory.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`.
    fn info(&self, path: &str) -> Result<FileInfo>;

    /// What is in a directory, without `.` and `..`, sorted by name.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_A_DIRECTORY`.
    fn list(&self, path: &str) -> Result<Vec<FileInfo>>;

    /// Copies a file or directory of the host into the guest, over what is there; directories are merged. The copies
    /// are NOT executable (mode 0644, directories 0755).
    fn copy_in(&self, host: &Path, guest: &str) -> Result<()>;

    /// Copies a file or directory of the guest to the host, over what is there; directories are merged.
    fn copy_out(&self, guest: &str, host: &Path) -> Result<()>;

    /// Starts a program and returns its number.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND` if it is not there; `GUEST_USER_PERMISSIONS` (not `PROGRAM_NOT_STARTED`) if it is not
    /// executable; `PROGRAM_NOT_STARTED` if it cannot be started for another reason.
    fn start(&self, program: &Program<'_>) -> Result<u64>;

    /// How a program that [`Guest::start`] started ended: its exit status, or 128 and the number of the signal. `None`
    /// if it is running. Kept for at least a minute after its end.
    ///
    /// # Errors
    /// `NO_SUCH_PROCESS` if it was not started in this boot.
    fn exit_status(&self, pid: u64) -> Result<Option<i32>>;

    /// What is running.
    fn processes(&self) -> Result<Vec<Process>>;

    /// Kills a process (SIGKILL).
    ///
    /// # Errors
    /// `NO_SUCH_PROCESS`.
    fn kill(&self, pid: u64) -> Result<()>;

    /// The guest's screen as a PNG.
    ///
    /// # Errors
    /// `OP_NOT_SUPPORTED_ON_GUEST` if it has none: products support the call, this guest does not.
    fn screen(&self) -> Result<Vec<u8>> {
        let why = format!("a guest of the kind {} has no screen", self.name());
        Err(Failure::new(error_code::OP_NOT_SUPPORTED_ON_GUEST, why))
    }
}

fn usual_environment(user: &str, home: &str) -> Vec<(String, String)> {
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", home), ("USER", user)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// How a guest is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Simulated, on any computer.
    World,
    /// Programs run on the host, in a root directory of their own.
    Root,
    /// A virtual machine of QEMU.
    Qemu,
}

impl Kind {
    /// The one that the environment asks for (`VMTASK_STANDIN`), else the VM's configuration (`vmtask.guest`), else
    /// what works here.
    ///
    /// # Errors
    /// `INVALID_ARG` for a name that does not exist.
    pub fn choose(vmx: &Vmx) -> Result<Self> {
        let asked = std::env::var("VMTASK_STANDIN").ok().filter(|name| !name.is_empty());
        match asked.as_deref().or(vmx.get("vmtask.guest")) {
            Some("world") => Ok(Self::World),
            Some("root") => Ok(Self::Root),
            Some("qemu") => Ok(Self::Qemu),
            Some(other) => {
                let why = format!("there is no guest of the kind {other:?}: world, root and qemu are there");
                Err(Failure::new(error_code::INVALID_ARG, why))
            }
            #[cfg(target_os = "linux")]
            None if root::is_available() => Ok(Self::Root),
            None => Ok(Self::World),
        }
    }
}

/// Opens the guest that lives in a home. Starts nothing.
///
/// # Errors
/// `NOT_SUPPORTED` if this kind of guest cannot work on this computer.
pub fn open(kind: Kind, home: Home) -> Result<Box<dyn Guest>> {
    match kind {
        Kind::World => Ok(Box::new(world::World::new(home))),
        #[cfg(target_os = "linux")]
        Kind::Root => root::open(home),
        #[cfg(target_os = "linux")]
        Kind::Qemu => qemu::open(home),
        #[cfg(not(target_os = "linux"))]
        Kind::Root | Kind::Qemu => {
            Err(Failure::new(error_code::NOT_SUPPORTED, format!("guests of the kind {kind:?} need Linux")))
        }
    }
}
