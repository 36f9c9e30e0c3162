//! What `vmtask run --hypervisor vix` needs to know. No passwords: every user of a computer can see command lines.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmtask_vix::{Product, Setup};

/// The environment variable with the guest user's password.
pub(crate) const PASSWORD: &str = "VMTASK_VIX_PASSWORD";
/// The environment variable with the host account's password.
pub(crate) const HOST_PASSWORD: &str = "VMTASK_VIX_HOST_PASSWORD";

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "With --hypervisor vix")]
pub(crate) struct VixArgs {
    // No documentation comment: rustdoc would take the brackets for a link.
    #[arg(
        long = "vix-vm",
        value_name = "VMX",
        help = "The virtual machine that is the platform, prepared with VMware Tools and a user, and powered off: its \
                .vmx file, or \"[DATASTORE] DIR/X.vmx\" where the product has an inventory",
        required_if_eq("hypervisor", "vix")
    )]
    pub(crate) vm: Option<String>,

    /// The user in the guest who runs the program. The password is asked for, unless --vix-password-file or
    /// VMTASK_VIX_PASSWORD has it
    #[arg(long = "vix-user", value_name = "USER", required_if_eq("hypervisor", "vix"))]
    pub(crate) user: Option<String>,

    /// A file with that user's password in its first line, readable by nobody but you
    #[arg(long = "vix-password-file", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Which VMware product [default: workstation; fusion on macOS]
    #[arg(long = "vix-product", value_enum, value_name = "PRODUCT")]
    pub(crate) product: Option<ProductChoice>,

    /// Where a server is [server2: https://localhost:8333/sdk on Windows, https://localhost:443/sdk elsewhere]
    #[arg(long = "vix-host", value_name = "URL")]
    pub(crate) host: Option<String>,

    /// The account on the server. The password is asked for, unless --vix-host-password-file or VMTASK_VIX_HOST_PASSWORD
    /// has it
    #[arg(long = "vix-host-user", value_name = "USER")]
    pub(crate) host_user: Option<String>,

    /// A file with that account's password in its first line, readable by nobody but you
    #[arg(long = "vix-host-password-file", value_name = "FILE")]
    pub(crate) host_password_file: Option<PathBuf>,

    /// Refuse a server whose certificate cannot be verified
    #[arg(long = "vix-verify-certificate")]
    pub(crate) verify_certificate: bool,

    /// Where the virtual machine's datastore is on this computer. Without it, a server's virtual machine cannot be
    /// copied, so there are no checkpoints
    #[arg(long = "vix-datastore", value_name = "NAME=DIR")]
    pub(crate) datastore: Option<String>,

    /// The directory in the guest for tasks' working directories, absolute
    #[arg(long = "vix-guest-dir", value_name = "DIR", default_value = Setup::GUEST_DIR)]
    pub(crate) guest_dir: String,

    /// The VIX library, or the directory that it is in [default: the one that is installed, or VMTASK_VIX_LIBRARY]
    #[arg(long = "vix-library", value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
}

impl VixArgs {
    /// The first flag that was given, if any was: it makes no sense with another hypervisor.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--vix-vm", self.vm.is_some()),
            ("--vix-user", self.user.is_some()),
            ("--vix-password-file", self.password_file.is_some()),
            ("--vix-product", self.product.is_some()),
            ("--vix-host", self.host.is_some()),
            ("--vix-host-user", self.host_user.is_some()),
            ("--vix-host-password-file", self.host_password_file.is_some()),
            ("--vix-verify-certificate", self.verify_certificate),
            ("--vix-datastore", self.datastore.is_some()),
            ("--vix-guest-dir", !self.guest_dir.is_empty() && self.guest_dir != Setup::GUEST_DIR),
            ("--vix-library", self.library.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

/// The products, as people type them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProductChoice {
    /// VMware Workstation 7 and later
    Workstation,
    /// VMware Player: no snapshots, so checkpoints are copies
    Player,
    /// VMware Fusion
    Fusion,
    /// VMware Server 2: one snapshot, so checkpoints are copies, and it wants --vix-host-user
    Server2,
    /// VMware Server 1
    Server1,
    /// VMware Workstation 6.5
    Workstation65,
    /// Shared virtual machines of VMware Workstation
    WorkstationShared,
    /// vSphere 4 and 5
    Vsphere,
}

impl ProductChoice {
    /// The one that is most likely meant here.
    pub(crate) const HERE: Self = if cfg!(target_os = "macos") { Self::Fusion } else { Self::Workstation };

    pub(crate) const fn product(self) -> Product {
        match self {
            Self::Workstation => Product::Workstation,
            Self::Player => Product::Player,
            Self::Fusion => Product::Fusion,
            Self::Server2 => Product::Server2,
            Self::Server1 => Product::Server1,
            Self::Workstation65 => Product::Workstation65,
            Self::WorkstationShared => Product::WorkstationShared,
            Self::Vsphere => Product::VSphere,
        }
    }
}
