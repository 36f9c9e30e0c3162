//! Which packages have what we need, on which systems, and the line that installs them.

use std::fs;

use crate::sys::is_root;

/// Something that a package has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// `qemu-system-x86_64` with its firmware.
    Qemu,
    /// `qemu-img`.
    QemuImg,
    /// A C compiler with its headers.
    Gcc,
    /// What gcc needs to compile and link for i686, statically too.
    Gcc32,
    Clang,
    /// gcc for Windows, i686 and x86_64.
    MinGw,
    /// To run what it made.
    Wine,
}

/// Systems whose package names we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian and what is made from it.
    Debian,
    Fedora,
    Arch,
    Suse,
    Mac,
    Other,
}

impl System {
    /// The one that we run on.
    pub(crate) fn here() -> Self {
        if cfg!(target_os = "macos") {
            return Self::Mac;
        }
        let read = |path| fs::read_to_string(path).ok();
        read("/etc/os-release").or_else(|| read("/usr/lib/os-release")).map_or(Self::Other, |text| Self::of(&text))
    }

    /// From the text of `os-release`: its own name, else what it says that it is like.
    fn of(os_release: &str) -> Self {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let names = format!("{} {}", value("ID"), value("ID_LIKE"));
        let known = names.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::Fedora),
            "arch" => Some(Self::Arch),
            "suse" | "opensuse" => Some(Self::Suse),
            _ => None,
        });
        known.unwrap_or(Self::Other)
    }

    /// The packages that have what is needed; none where we know of none.
    pub(crate) const fn packages(self, need: Need) -> &'static [&'static str] {
        match (self, need) {
            (Self::Debian, Need::Qemu) => &["qemu-system-x86"],
            (Self::Debian, Need::QemuImg) => &["qemu-utils"],
            (Self::Debian, Need::Gcc) => &["gcc", "libc6-dev"],
            (Self::Debian, Need::Gcc32) => &["gcc-multilib"],
            (Self::Debian, Need::MinGw) => &["gcc-mingw-w64-i686", "gcc-mingw-w64-x86-64"],
            (Self::Fedora, Need::Qemu) => &["qemu-system-x86-core"],
            (Self::Fedora | Self::Arch, Need::QemuImg) => &["qemu-img"],
            (Self::Fedora, Need::Gcc) => &["gcc", "glibc-devel"],
            (Self::Fedora, Need::Gcc32) => &["libgcc.i686", "glibc-devel.i686", "glibc-static.i686"],
            (Self::Fedora, Need::MinGw) => &["mingw32-gcc", "mingw64-gcc"],
            (Self::Arch, Need::Qemu) => &["qemu-system-x86"],
            (Self::Arch, Need::Gcc) => &["gcc"],
            (Self::Arch, Need::Gcc32) => &["lib32-gcc-libs", "lib32-glibc"],
            (Self::Arch, Need::MinGw) => &["mingw-w64-gcc"],
            (Self::Suse, Need::Qemu) => &["qemu-x86"],
            (Self::Suse, Need::QemuImg) => &["qemu-tools"],
            (Self::Suse, Need::Gcc) => &["gcc", "glibc-devel"],
            (Self::Suse, Need::Gcc32) => &["gcc-32bit", "glibc-devel-32bit", "glibc-devel-static-32bit"],
            (Self::Mac, Need::Qemu | Need::QemuImg) => &["qemu"],
            (Self::Debian | Self::Fedora | Self::Arch | Self::Suse, Need::Clang) => &["clang"],
            (Self::Debian | Self::Fedora | Self::Arch | Self::Suse, Need::Wine) => &["wine"],
            (Self::Suse, Need::MinGw) | (Self::Mac | Self::Other, _) => &[],
        }
    }

    const fn installer(self) -> Option<&'static str> {
        match self {
            Self::Debian => Some("apt-get install --no-install-recommends"),
            Self::Fedora => Some("dnf install"),
            Self::Arch => Some("pacman -S"),
            Self::Suse => Some("zypper install"),
            Self::Mac => Some("brew install"),
            Self::Other => None,
        }
    }

    /// The line to type that installs what is needed.
    pub(crate) fn line(self, needs: &[Need]) -> String {
        let mut packages: Vec<_> = needs.iter().flat_map(|&need| self.packages(need)).copied().collect();
        packages.sort_unstable();
        packages.dedup();
        match self.installer() {
            Some(installer) if !packages.is_empty() => {
                let sudo = if is_root() || self == Self::Mac { "" } else { "sudo " };
                format!("{sudo}{installer} {}", packages.join(" "))
            }
            _ => format!("install {} with this system's package manager", names(needs)),
        }
    }
}

/// What is needed, where no package can be named.
fn names(needs: &[Need]) -> String {
    let name = |need: &Need| match need {
        Need::Qemu => "qemu-system-x86_64",
        Need::QemuImg => "qemu-img",
        Need::Gcc => "gcc",
        Need::Gcc32 => "gcc's libraries for i686",
        Need::Clang => "clang",
        Need::MinGw => "MinGW-w64",
        Need::Wine => "wine",
    };
    needs.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n", System::Debian)]
    #[case::derivative("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", System::Debian)]
    #[case::fedora("ID=fedora\nVARIANT_ID=workstation\n", System::Fedora)]
    #[case::rocky("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", System::Fedora)]
    #[case::arch("ID=arch\n", System::Arch)]
    #[case::tumbleweed("ID='opensuse-tumbleweed'\nID_LIKE='opensuse suse'\n", System::Suse)]
    #[case::unknown("ID=nixos\n", System::Other)]
    #[case::empty("", System::Other)]
    fn a_system_is_known_by_its_name_or_its_kin(#[case] os_release: &str, #[case] system: System) {
        assert_eq!(System::of(os_release), system);
    }

    #[test]
    fn a_line_names_each_package_once() {
        assert_eq!(System::Mac.line(&[Need::Qemu, Need::QemuImg]), "brew install qemu");
        let line = System::Debian.line(&[Need::QemuImg, Need::Qemu]);
        assert!(line.ends_with("apt-get install --no-install-recommends qemu-system-x86 qemu-utils"), "{line}");
        assert_eq!(
            System::Other.line(&[Need::Qemu, Need::QemuImg]),
            "install qemu-system-x86_64, qemu-img with this system's package manager"
        );
    }
}
