//! The products of the 1.13 reference's support matrix.

use core::fmt;

use crate::function::Function;
use crate::options::service_provider;

/// A column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// VMware Server 1.
    Server1,
    /// VMware Server 2.
    Server2,
    /// VMware Workstation 6.5.
    Workstation65,
    /// VMware Workstation 10 and later.
    Workstation,
    /// Shared virtual machines of VMware Workstation 10.
    WorkstationShared,
    /// VMware Player 6 and later.
    Player,
    /// VMware Fusion 6 and later.
    Fusion,
    /// vSphere 4 and 5.
    VSphere,
}

impl Product {
    /// All of them, in the matrix's order.
    pub const ALL: [Self; 8] = [
        Self::Server1,
        Self::Server2,
        Self::Workstation65,
        Self::Workstation,
        Self::WorkstationShared,
        Self::Player,
        Self::Fusion,
        Self::VSphere,
    ];

    /// Whether it has a function.
    #[must_use]
    pub const fn has(self, function: Function) -> bool {
        function.is_in(self)
    }

    /// What `VixHost_Connect` calls it: one of [`service_provider`]. Fusion goes by Workstation's number.
    #[must_use]
    pub const fn provider(self) -> i32 {
        match self {
            Self::Server1 => service_provider::VMWARE_SERVER,
            Self::Server2 | Self::VSphere => service_provider::VMWARE_VI_SERVER,
            Self::Workstation65 | Self::Workstation | Self::Fusion => service_provider::VMWARE_WORKSTATION,
            Self::WorkstationShared => service_provider::VMWARE_WORKSTATION_SHARED,
            Self::Player => service_provider::VMWARE_PLAYER,
        }
    }

    /// Whether VMs are named by datastore paths (`[standard] dir/x.vmx`) and must be registered before they are
    /// opened.
    #[must_use]
    pub const fn has_inventory(self) -> bool {
        matches!(self, Self::Server2 | Self::WorkstationShared | Self::VSphere)
    }

    /// Whether a VM can have more than one snapshot. Where not, a second one overwrites the first.
    #[must_use]
    pub const fn many_snapshots(self) -> bool {
        matches!(self, Self::Workstation65 | Self::Workstation | Self::WorkstationShared | Self::Fusion | Self::VSphere)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server1 => "VMware Server 1",
            Self::Server2 => "VMware Server 2",
            Self::Workstation65 => "VMware Workstation 6.5",
            Self::Workstation => "VMware Workstation",
            Self::WorkstationShared => "VMware Workstation (shared VMs)",
            Self::Player => "VMware Player",
            Self::Fusion => "VMware Fusion",
            Self::VSphere => "vSphere",
        })
    }
}
