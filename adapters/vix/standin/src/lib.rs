//! A library with VIX's C interface and no VMware behind it.
//!
//! ```text
//!   C client --> exports (67 functions) --> handles, jobs, properties --> Vm (power, login, snapshots) --> trait Guest
//!                                                                          |                                | world
//!                                                                          state in the VM's directory      | root
//!                                                                                                           | qemu
//! ```
//!
//! It is for tests of programs that use VIX, and says that it is no VMware product wherever it can say something
//! (`VIX_PROPERTY_HOST_SOFTWARE_VERSION`, the picture of a simulated screen). A client finds it as it finds VMware's: by
//! the file's name, `libvixAllProducts.so` or `vixAllProducts.dll`. It exports the 67 functions of the public header and
//! nothing else.
//!
//! # A virtual machine
//!
//! is a directory with a `.vmx` file. It outlives its clients: what is known of it lies beside that file, so a client may be
//! killed and another one carries on, and a copy of the directory of a VM that is off or suspended is a VM of its own.
//!
//! | key in the `.vmx` file | what it says |
//! |---|---|
//! | `vmtask.guest` | `world`, `root` or `qemu`: see [`guest`]; without it `root` where that works, else `world` |
//! | `vmtask.guest.user`, `vmtask.guest.password` | who may log in to the guest; without both nobody may |
//! | `vmtask.tools` | `FALSE`: Tools are not installed |
//! | `vmtask.world.tools_ms` | how long after a boot a `world`'s Tools answer |
//! | `vmtask.world.ip` | what a `world`'s Tools report as the guest variable `ip`, 192.0.2.1 if it is not said; the other guests have no network |
//! | `vmtask.platform` | the directory of a `qemu`'s platform, from the `.vmx` file's; without it `x86_64-pc-linux-gnu` as `vmtask platform build` leaves it |
//! | `vmtask.disk_mib` | the size of a `qemu`'s disk, 256 if it is not said; 0: it has none, and keeps no files without its memory |
//! | `vmtask.encryption.password` | the VM opens only with `VIX_PROPERTY_VM_ENCRYPTION_PASSWORD` |
//! | `displayName`, `guestOS`, `memsize`, `numvcpus`, `guest.commands.enabled`, `virtualHW.version` | as VMware's |
//!
//! What runs in a `root` are processes of the host, which no file can bring back: snapshots with memory are refused while
//! programs run, and a copy of a suspended `root` does not power on. A `root` that is suspended stands still on the host
//! until it is resumed; remove its directory in that state, and its processes stay. For checkpoints take a `world` or a
//! `qemu`.
//!
//! ```
//! let vmx = vixAllProducts::Vmx::parse("displayName = \"mine\"\nvmtask.guest = \"world\"\n").unwrap();
//! assert_eq!(vixAllProducts::guest::Kind::choose(&vmx), Ok(vixAllProducts::guest::Kind::World));
//! ```
//!
//! # The environment
//!
//! Every variable is read when it is needed, so a test may set it for its client alone.
//!
//! | variable | what it says |
//! |---|---|
//! | `VMTASK_STANDIN` | the kind of guest, whatever the `.vmx` file says |
//! | `VMTASK_STANDIN_PLATFORM` | the directory of a `qemu`'s platform, whatever the `.vmx` file says |
//! | `VMTASK_ACCEL` | what a `qemu` runs on: `tcg`, `kvm`, `auto` |
//! | `VMTASK_STANDIN_PRODUCT` | `server1`, `server2`, `workstation`, `player`, `fusion`: the one that is installed; without it each provider is, and Fusion cannot be told from Workstation |
//! | `VMTASK_STANDIN_DATASTORES` | `standard=/path;other=/path`: what `[standard] dir/x.vmx` means on a server |
//! | `VMTASK_STANDIN_HOST_USER`, `VMTASK_STANDIN_HOST_PASSWORD` | who may connect to a server; without them, whoever gives a name and a password |
//! | `VMTASK_STANDIN_HOME` | where it is noted which VMs were powered on, for `VixHost_FindItems` |
//! | `VMTASK_STANDIN_FAULTS` | a file of faults: failures, delays, hangs, the client's death in the middle of a call |
//! | `VMTASK_STANDIN_COUNTERS` | a file of JSON, kept up to date: how many handles and buffers are alive, and how many were not released before a disconnect |
//!
//! A fault is a line: `VixVM_PowerOn hang`, `VixVM_WaitForToolsInGuest never`, `VixVM_CreateSnapshot late 2s`,
//! `VixVM_CopyFileFromHostToGuest fail VIX_E_DISK_FULL`, `VixVM_RevertToSnapshot#2 fail 13` (the second call in a process),
//! `VixVM_PowerOff act then fail 36` (done, but the answer is lost), `VixVM_CreateSnapshot half then die`, `* delay 5ms`. The
//! first line that fits counts; the file is read again at each call; a mistake in it fails the call, with line and column.
//!
//! # Where the documentation leaves it open
//!
//! the stand-in takes the reading that is harder on its client: a log-in ends with each power-on, resume, reset and revert;
//! files that are copied into a guest are not executable; a program's working directory is nobody's business; a paused VM
//! takes no snapshot (13009) and answers no guest operation (3016); a second snapshot of a suspended VM is refused (13008).
//! A power-on that fails leaves the VM as it was; with `VIX_VMPOWEROP_START_VM_PAUSED` it fails on products without
//! `VixVM_Unpause` (6), with `VIX_VMPOWEROP_LAUNCH_GUI` for an encrypted VM (6).
//! Not played: the event pump and the five other functions that the header lost in VIX 1.11, and the rule that one Windows
//! process cannot use two providers (22006).

#![allow(non_snake_case, reason = "the file must be called what clients look for, and its functions too")]

mod buffers;
mod callback;
mod counters;
mod exports;
mod failure;
mod fault;
pub mod guest;
mod handles;
mod host;
mod job;
mod pin;
mod property;
mod screen;
mod store;
mod vm;
mod vmx;

pub use failure::Failure;
pub use vmx::Vmx;
