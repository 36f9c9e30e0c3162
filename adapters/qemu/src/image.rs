//! What the guest is made of: the pinned image and machine of a platform.

use std::path::PathBuf;

use vmtask_platform::{Personality, Platform};

/// A bootable image and the machine that it is pinned to. Everything in here goes into the platform's fingerprint, for
/// it shows in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel: an extracted vmlinux with a PVH entry starts fastest.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// A versioned machine type with its options, `pc-q35-7.2,hpet=off`. Never an alias without a version.
    pub machine: String,
    /// A CPU model with `enforce`. Never `host` or `max`: they differ from computer to computer.
    pub cpu: String,
    /// The guest's memory in bytes, unless the task asks for more.
    pub memory: u64,
    /// Whether programs see an i686 machine.
    pub linux32: bool,
    /// The platform's name for all this.
    pub fingerprint: String,
}

impl Image {
    /// The image of a platform, for machines of this size. The size is part of the fingerprint.
    #[must_use]
    pub fn of(platform: &Platform, memory_mib: u32, cpus: u8) -> Self {
        let definition = platform.definition();
        Self {
            kernel: platform.kernel(),
            initrd: platform.root(),
            cmdline: definition.qemu.command_line.clone(),
            machine: definition.qemu.machine.clone(),
            cpu: definition.qemu.cpu.clone(),
            memory: u64::from(memory_mib) << 20,
            linux32: definition.guest.personality == Personality::Linux32,
            fingerprint: definition.compute_fingerprint(memory_mib, cpus.into()),
        }
    }

    /// Whether it can give equal results on different computers.
    ///
    /// # Errors
    /// What is not pinned.
    pub fn check(&self) -> Result<(), UnpinnedError> {
        let model = self.cpu.split(',').next().unwrap_or_default();
        if matches!(model, "host" | "max" | "") {
            return Err(UnpinnedError { what: "CPU model", value: self.cpu.clone() });
        }
        let machine = self.machine.split(',').next().unwrap_or_default();
        if !machine.contains(|c: char| c.is_ascii_digit()) || !machine.contains('.') {
            return Err(UnpinnedError { what: "machine type", value: self.machine.clone() });
        }
        Ok(())
    }
}

/// Something that differs from computer to computer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the platform's {what} {value:?} means something else on each computer; pin it, as pc-q35-7.2 and Nehalem,enforce are"
)]
pub struct UnpinnedError {
    /// What is not pinned.
    pub what: &'static str,
    /// What it says.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("pc-q35-7.2,hpet=off", "Nehalem,enforce", true)]
    #[case("pc-q35-7.2", "host", false)]
    #[case("pc-q35-7.2", "max,enforce", false)]
    #[case("q35", "Nehalem,enforce", false)]
    #[case("pc", "qemu64", false)]
    fn only_pinned_machines_are_accepted(#[case] machine: &str, #[case] cpu: &str, #[case] good: bool) {
        let image = Image {
            kernel: PathBuf::new(),
            initrd: PathBuf::new(),
            cmdline: String::new(),
            machine: machine.into(),
            cpu: cpu.into(),
            memory: 256 << 20,
            linux32: false,
            fingerprint: String::new(),
        };
        assert_eq!(image.check().is_ok(), good);
    }
}
