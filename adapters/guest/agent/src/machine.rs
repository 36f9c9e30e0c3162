//! The guest's machine as a whole: its memory, its disk, its clock, its random pool, its end.

use core::ffi::CStr;

use crate::files::Work;
use crate::program::{self, Lists};
use crate::sys::{self, End, Errno, HERE, MOUNT_NO_ATIME, MOUNT_NO_DEVICES, MOUNT_NO_SUID, Open, StatFs};
use crate::text::{self, Decimal, Path};

/// A full working directory in memory must leave room to copy from it: a guest without memory kills its program, or itself.
const KEPT_FREE_KB: u64 = 24 * 1024;
/// What it gets even so.
const LEAST_KB: u64 = 4 * 1024;
/// Left to the kernel while the rest is filled, or it would take from the page cache.
const NOT_FILLED_KB: u64 = 16 * 1024;

const DISK: &CStr = c"/dev/vda";

/// What can go wrong with the working directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkdirError {
    /// The machine has no disk.
    NoDisk,
    /// `mke2fs` failed.
    Format,
    Kernel(Errno),
}

impl From<Errno> for WorkdirError {
    fn from(error: Errno) -> Self {
        Self::Kernel(error)
    }
}

/// Makes the working directory, in memory or on the disk, which is formatted unless it is; returns how many bytes are free in
/// it. Where one is mounted already it stays.
///
/// # Errors
/// See [`WorkdirError`].
pub fn make_workdir(work: &Work, disk: bool, lists: &mut Lists) -> Result<u64, WorkdirError> {
    let name = work.path().as_c();
    match sys::make_dir(HERE, name, 0o755) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    if is_in_root(work)? {
        let common = MOUNT_NO_SUID | MOUNT_NO_DEVICES;
        if disk {
            format(lists)?;
            sys::mount(DISK, name, c"ext2", common | MOUNT_NO_ATIME, c"")?;
        } else {
            let size = Decimal::new(memory_kb()?);
            let options = Path::new(&[b"mode=0755,size=", size.as_bytes(), b"k"])?;
            sys::mount(c"tmpfs", name, c"tmpfs", common, options.as_c())?;
        }
    }
    Ok(work.free()?)
}

/// Whether nothing is mounted on it yet.
fn is_in_root(work: &Work) -> sys::Result<bool> {
    let root = sys::open(c"/", Open::PATH | Open::DIRECTORY)?;
    Ok(sys::stat(*work.open()?)?.device == sys::stat(*root)?.device)
}

fn memory_kb() -> sys::Result<u64> {
    let mut room = [0; 4096];
    let info = text::slurp(c"/proc/meminfo", &mut room)?;
    let of = |name| text::field(info, name).unwrap_or_default();
    let most = of(b"MemTotal:") / 10 * 7;
    Ok(of(b"MemAvailable:").saturating_sub(KEPT_FREE_KB).min(most).max(LEAST_KB))
}

fn format(lists: &mut Lists) -> Result<(), WorkdirError> {
    const MAGIC_AT: u64 = 1024 + 56;
    const MAGIC: [u8; 2] = 0xef53_u16.to_le_bytes();
    let disk = match sys::open(DISK, Open::READ) {
        Ok(disk) => disk,
        Err(Errno::NOENT) => return Err(WorkdirError::NoDisk),
        Err(error) => return Err(error.into()),
    };
    let mut magic = [0; 2];
    if sys::read_at(*disk, &mut magic, MAGIC_AT)? == magic.len() && magic == MAGIC {
        return Ok(());
    }
    drop(disk);
    match program::run(&[b"/usr/bin/mke2fs", b"-m", b"0", DISK.to_bytes()], lists)? {
        End::Code(0) => Ok(()),
        _ => Err(WorkdirError::Format),
    }
}

/// Whether a file system has no room for another block.
pub fn is_full(stat: &StatFs) -> bool {
    stat.available == 0
}

/// Fills free memory with zeros and frees it again, so that a template of this machine, and every checkpoint of its clones, is
/// smaller by what booting has left behind. Returns how many MiB it filled.
///
/// # Errors
/// As the kernel's.
pub fn settle() -> sys::Result<u64> {
    let mut room = [0; 4096];
    let free = text::field(text::slurp(c"/proc/meminfo", &mut room)?, b"MemFree:").ok_or(Errno::IO)?;
    let mib = free.saturating_sub(NOT_FILLED_KB) / 1024;
    if mib > 0 {
        sys::touch_memory(usize::try_from(mib << 20).map_err(|_| Errno::INVAL)?)?;
    }
    Ok(mib)
}

/// Mixes bytes into the kernel's random pool.
///
/// # Errors
/// As the kernel's.
pub fn seed(bytes: &[u8]) -> sys::Result<()> {
    text::set(c"/dev/urandom", bytes)
}

/// Writes back what has not been, and ends the machine.
///
/// # Errors
/// As the kernel's, for one who may not.
pub fn power_off() -> sys::Result<()> {
    sys::sync();
    sys::power_off()
}
