//! `platform.xml`: what a platform consists of, and the fingerprint over everything in it that can change a result.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::hash::{Sha256Hex, sha256_hex};

/// The version of the definition's form. Another number means that this program cannot judge what it reads.
pub const DEFINITION_VERSION: u32 = 1;

/// The version of the protocol between host and guest, specified at the head of `guest/guest`.
pub const GUEST_PROTOCOL: u32 = 1;

/// The definition's name in a platform's directory.
pub const DEFINITION_FILE: &str = "platform.xml";

/// A whole definition. Elements that this version does not know (another hypervisor's section) are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "platform")]
pub struct Definition {
    /// [`DEFINITION_VERSION`].
    #[serde(rename = "@version")]
    pub version: u32,
    /// In the manner of BOINC: `i686-pc-linux-gnu`.
    #[serde(rename = "@name")]
    pub name: String,
    /// [`Definition::compute_fingerprint`] with the default memory and one processor. Kept in the file so that a person
    /// can read it, and so that an edit of the definition does not pass unnoticed.
    #[serde(rename = "@fingerprint")]
    pub fingerprint: String,
    /// The application that runs tasks on this platform.
    pub manager: Manager,
    /// What the host must know of the guest.
    pub guest: Guest,
    /// The platform's files.
    pub files: Files,
    /// The machine under QEMU.
    pub qemu: Qemu,
    /// Where the files came from.
    pub packages: Packages,
}

/// The application that runs tasks on the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// Its name.
    #[serde(rename = "@application")]
    pub application: String,
    /// The oldest version that speaks this guest's protocol.
    #[serde(rename = "@minimum-version")]
    pub minimum_version: String,
}

/// What the host must know of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// [`GUEST_PROTOCOL`].
    #[serde(rename = "@protocol")]
    pub protocol: u32,
    /// What programs see of the processor's name.
    #[serde(rename = "@personality")]
    pub personality: Personality,
    /// Memory of a task that does not ask for more or less, in MiB.
    #[serde(rename = "@memory-mib")]
    pub memory_mib: u32,
}

/// What `uname -m` says in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Personality {
    /// `x86_64`
    Linux64,
    /// `i686`: programs run under linux32
    Linux32,
}

impl Personality {
    /// As it stands in the definition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linux64 => "linux64",
            Self::Linux32 => "linux32",
        }
    }
}

/// The platform's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// One for each [`Role`].
    #[serde(rename = "file", default)]
    pub entries: Vec<FileEntry>,
}

/// One file of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// What it is for.
    #[serde(rename = "@role")]
    pub role: Role,
    /// Its plain name in the platform's directory.
    #[serde(rename = "@name")]
    pub name: String,
    /// Its size in bytes.
    #[serde(rename = "@size")]
    pub size: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    #[serde(rename = "@sha256")]
    pub sha256: Sha256Hex,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The kernel: an ELF vmlinux with a PVH entry.
    Kernel,
    /// The root file system: a cpio archive that the kernel unpacks into memory.
    Root,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Kernel, Self::Root];

    /// As it stands in the definition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Root => "root",
        }
    }
}

/// The machine under QEMU. Every field can change what a program computes or sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Value of `-machine`, with its version: `pc-q35-7.2`.
    #[serde(rename = "@machine")]
    pub machine: String,
    /// Value of `-cpu`: a named model with `enforce`, never `host` or `max`, since libm picks its code by what it finds.
    #[serde(rename = "@cpu")]
    pub cpu: String,
    /// Value of `-append`: the kernel's command line.
    #[serde(rename = "command-line")]
    pub command_line: String,
}

/// The packages that the files were made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// The distribution.
    #[serde(rename = "@distribution")]
    pub distribution: String,
    /// In the lock's order.
    #[serde(rename = "package", default)]
    pub entries: Vec<PackageEntry>,
}

/// One package of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageEntry {
    /// Its name.
    #[serde(rename = "@name")]
    pub name: String,
    /// `amd64` or `i386`.
    #[serde(rename = "@architecture")]
    pub architecture: String,
    /// Its version.
    #[serde(rename = "@version")]
    pub version: String,
    /// Its SHA-256, in lower-case hexadecimal.
    #[serde(rename = "@sha256")]
    pub sha256: Sha256Hex,
}

impl Definition {
    /// Reads a definition and checks everything that can be checked without its files.
    ///
    /// # Errors
    /// What is wrong with it, as a phrase to put behind the file's name.
    pub fn parse(xml: &str) -> Result<Self, String> {
        let definition: Self =
            quick_xml::de::from_str(xml).map_err(|error| format!("not a platform definition: {error}"))?;
        definition.check()?;
        Ok(definition)
    }

    /// The definition as XML.
    ///
    /// # Errors
    /// A text that XML cannot hold.
    pub fn to_xml(&self) -> Result<String, String> {
        let mut body = String::new();
        let mut serializer = quick_xml::se::Serializer::new(&mut body);
        serializer.indent(' ', 2);
        self.serialize(serializer).map_err(|error| error.to_string())?;
        Ok(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}\n"))
    }

    /// SHA-256 over a canonical text of everything that can change a result, for a machine of this much memory and this
    /// many processors. Names, paths, times, packages' names and the hypervisor's build are not in it: the same bytes on
    /// the same machine are the same platform wherever they lie.
    #[must_use]
    pub fn compute_fingerprint(&self, memory_mib: u32, processors: u32) -> String {
        sha256_hex(self.canonical_text(memory_mib, processors).as_bytes()).to_string()
    }

    /// The text under [`Self::compute_fingerprint`], to show why two platforms differ.
    #[must_use]
    pub fn canonical_text(&self, memory_mib: u32, processors: u32) -> String {
        let mut text = String::from("vmtask platform fingerprint 1\n");
        for role in Role::ALL {
            let sha256 = self.file(role).map_or("none", |file| file.sha256.as_str());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} sha256 {sha256}", role.as_str());
        }
        let _ = writeln!(text, "guest protocol {}", self.guest.protocol);
        let _ = writeln!(text, "guest personality {}", self.guest.personality.as_str());
        let _ = writeln!(text, "memory MiB {memory_mib}");
        let _ = writeln!(text, "processors {processors}");
        let _ = writeln!(text, "qemu machine {}", self.qemu.machine);
        let _ = writeln!(text, "qemu cpu {}", self.qemu.cpu);
        let _ = writeln!(text, "command line {}", self.qemu.command_line);
        text
    }

    /// The file with this role; a parsed definition has one of each.
    #[must_use]
    pub fn file(&self, role: Role) -> Option<&FileEntry> {
        self.files.entries.iter().find(|file| file.role == role)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != DEFINITION_VERSION {
            return Err(format!(
                "definition version {}, and this program knows version {DEFINITION_VERSION}",
                self.version
            ));
        }
        if self.guest.protocol != GUEST_PROTOCOL {
            return Err(format!(
                "its guest speaks protocol {}, and this program speaks {GUEST_PROTOCOL}",
                self.guest.protocol
            ));
        }
        check_platform_name(&self.name).map_err(|_| format!("'{}' is no platform name", self.name))?;
        for role in Role::ALL {
            let count = self.files.entries.iter().filter(|file| file.role == role).count();
            if count != 1 {
                return Err(format!("{count} files with role {}, and there must be one", role.as_str()));
            }
        }
        for file in &self.files.entries {
            if !is_plain_name(&file.name) {
                return Err(format!("file name '{}' would lead out of the platform's directory", file.name));
            }
        }
        let model = self.qemu.cpu.split(',').next().unwrap_or_default();
        if matches!(model, "" | "host" | "max" | "base") {
            return Err(format!(
                "CPU model '{model}' differs from host to host, and results would with it; pin a named one"
            ));
        }
        for (what, value) in
            [("machine", &self.qemu.machine), ("cpu", &self.qemu.cpu), ("command-line", &self.qemu.command_line)]
        {
            if value.trim().is_empty() || value.chars().any(char::is_control) {
                return Err(format!("qemu {what} is empty or has control characters in it"));
            }
        }
        let computed = self.compute_fingerprint(self.guest.memory_mib, 1);
        if self.fingerprint != computed {
            return Err(format!(
                "its contents have fingerprint {computed}, and it claims {}: it was edited after it was made",
                self.fingerprint
            ));
        }
        Ok(())
    }
}

/// Whether a name may stand for a platform, and so for a directory.
pub(crate) fn check_platform_name(name: &str) -> Result<(), crate::PlatformError> {
    let good = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= 100
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good { Ok(()) } else { Err(crate::PlatformError::BadName { name: name.to_owned() }) }
}

/// One component, no way out, nothing that our own dot files could be taken for.
fn is_plain_name(name: &str) -> bool {
    check_platform_name(name).is_ok() && name != DEFINITION_FILE
}
