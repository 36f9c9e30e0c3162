//! What an adapter is made of: the task, the library, the product, the platform's virtual machine, the directories.

use std::fmt;
use std::path::{Path, PathBuf};

use vmtask_core::TaskSpec;
use vmtask_driver::Credentials;

use crate::host::Connection;
use crate::library::Library;

/// Everything that a [`VixVm`](crate::VixVm) needs to know.
#[derive(Clone)]
pub struct Setup {
    /// The task.
    pub spec: TaskSpec,
    /// The library.
    pub library: Library,
    /// The product that it is to talk to.
    pub connection: Connection,
    /// The platform's virtual machine, prepared with Tools and a user, powered off: its `.vmx` file, or for products with
    /// an inventory its datastore path (`[standard] dir/x.vmx`).
    pub vm: String,
    /// For products with an inventory: where that datastore is on this computer, if it is. Without it nothing can be
    /// copied, so tasks run one at a time in the platform's own VM, and without checkpoints.
    pub datastore: Option<PathBuf>,
    /// Who runs the program in the guest.
    pub guest: Credentials,
    /// The directory in the guest below which tasks have their working directories, absolute.
    /// [`Setup::GUEST_DIR`] if you have no wish.
    pub guest_dir: String,
    /// The task's directory. The adapter keeps its files in `vm/` below it.
    pub dir: PathBuf,
    /// What `files_in.host` is relative to.
    pub inputs: PathBuf,
    /// What `files_out.host` is relative to.
    pub results: PathBuf,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("task", &self.spec.name)
            .field("library", &self.library)
            .field("connection", &self.connection)
            .field("vm", &self.vm)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Why an adapter cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The platform's VM is not named as the product names VMs.
    #[error(
        "{product} names virtual machines by {}, and {vm:?} is none",
        if *.inventory { "datastore paths, as \"[standard] dir/x.vmx\"" } else { "the path of their .vmx file" }
    )]
    Vm {
        /// The product.
        product: String,
        /// Whether it has an inventory.
        inventory: bool,
        /// What was named.
        vm: String,
    },
    /// A directory in the guest that is not absolute.
    #[error("the guest's directory {0:?} must be absolute: VIX promises no working directory in the guest")]
    GuestDir(String),
}

impl Setup {
    /// Where tasks have their working directories in a guest of which nothing special is known.
    pub const GUEST_DIR: &str = "/tmp/vmtask";

    pub(crate) fn check(&self) -> Result<(), SetupError> {
        let product = self.connection.product;
        let is_datastore_path = datastore_path(&self.vm).is_some();
        if is_datastore_path != product.has_inventory() || !self.vm.ends_with(".vmx") {
            return Err(SetupError::Vm {
                product: product.to_string(),
                inventory: product.has_inventory(),
                vm: self.vm.clone(),
            });
        }
        if !self.guest_dir.starts_with('/') {
            return Err(SetupError::GuestDir(self.guest_dir.clone()));
        }
        Ok(())
    }

    /// The task's working directory in the guest.
    #[must_use]
    pub fn workdir(&self) -> String {
        format!("{}/{}", self.guest_dir.trim_end_matches('/'), self.spec.name)
    }
}

/// The datastore's name and the path in it, of `[name] path`.
pub(crate) fn datastore_path(vm: &str) -> Option<(&str, &str)> {
    let (name, path) = vm.strip_prefix('[')?.split_once(']')?;
    Some((name, path.trim_start()))
}

/// The last component of a path of whichever kind.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// Where the machine's files are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    dir: PathBuf,
}

impl Paths {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// All of the machine's files; [`vmtask_core::Op::Unregister`] removes it.
    pub(crate) fn vm(&self) -> PathBuf {
        self.dir.join("vm")
    }

    /// What is written down for the next manager.
    pub(crate) fn notes(&self) -> PathBuf {
        self.vm().join("notes")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.vm().join("checkpoints")
    }

    /// Files on their way out of the guest that are not results.
    pub(crate) fn fetched(&self) -> PathBuf {
        self.vm().join("fetched")
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("[standard] dir/x.vmx", Some(("standard", "dir/x.vmx")))]
    #[case("[my store] x.vmx", Some(("my store", "x.vmx")))]
    #[case("/srv/vms/x.vmx", None)]
    #[case("C:\\vms\\x.vmx", None)]
    fn datastore_paths_are_told_from_files(#[case] path: &str, #[case] expected: Option<(&str, &str)>) {
        assert_eq!(datastore_path(path), expected);
    }

    #[rstest]
    #[case("[standard] dir/x.vmx", "x.vmx")]
    #[case("C:\\vms\\x.vmx", "x.vmx")]
    #[case("x.vmx", "x.vmx")]
    fn the_last_component_is_the_name(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(file_name(path), expected);
    }
}
