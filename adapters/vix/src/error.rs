//! What VIX says when something goes wrong, with all of its parts, and the way out where there is a known one.

use std::fmt;
use std::path::PathBuf;

use vmtask_vix_abi::{Function, error_code};

use crate::wait::Stop;

/// A `VixError`: a code, where it comes from, and a number of another system behind it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u64);

impl Code {
    /// `VIX_OK`.
    pub const OK: Self = Self(0);

    /// The low 16 bits: one of [`error_code`].
    #[must_use]
    pub const fn code(self) -> u16 {
        error_code::of(self.0)
    }

    /// Whether the guest said so, not the host.
    #[must_use]
    pub const fn is_from_guest(self) -> bool {
        error_code::flags(self.0) & error_code::FLAG_GUEST != 0
    }

    /// Whether a remote host said so.
    #[must_use]
    pub const fn is_from_remote(self) -> bool {
        error_code::flags(self.0) & error_code::FLAG_REMOTE != 0
    }

    /// What the number behind it is one of (4: `errno`, 3: Windows), and the number.
    #[must_use]
    pub const fn extra(self) -> Option<(u8, u32)> {
        match error_code::extra_type(self.0) {
            0 => None,
            kind => Some((kind, error_code::extra(self.0))),
        }
    }

    /// Nothing, or this error.
    ///
    /// # Errors
    /// Itself, unless it is `VIX_OK`.
    pub const fn ok(self) -> Result<(), Self> {
        // An error with a code of 0 is none, whatever its flags say.
        if self.code() == error_code::OK { Ok(()) } else { Err(self) }
    }
}

impl From<u16> for Code {
    fn from(code: u16) -> Self {
        Self(code.into())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", error_code::name(self.code()).unwrap_or("an unknown VIX error"), self.code())?;
        if self.is_from_guest() {
            f.write_str(" from the guest")?;
        }
        if self.is_from_remote() {
            f.write_str(" from a remote host")?;
        }
        match self.extra() {
            // Of another system's numbers this one knows no words.
            Some((error_code::EXTRA_LINUX, number)) if cfg!(target_os = "linux") => {
                write!(f, ", {}", std::io::Error::from_raw_os_error(number.cast_signed()))
            }
            Some((error_code::EXTRA_LINUX, number)) => write!(f, ", Linux error {number}"),
            Some((error_code::EXTRA_WINDOWS, number)) => write!(f, ", Windows error {number}"),
            Some((kind, number)) => write!(f, ", extra error {number} of kind {kind}"),
            None => Ok(()),
        }
    }
}

/// Why a VIX function did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// VIX says no.
    #[error("{function}({on}): {text} [{code}]{}", hint(*function, code.code()))]
    Failed {
        /// Which function.
        function: FunctionName,
        /// What it was to act on, without any credential.
        on: String,
        /// What came back.
        code: Code,
        /// The library's words for it.
        text: String,
    },
    /// The job was still not complete when there was no more time for it. It may complete later.
    #[error("{function}({on}): {stop}")]
    Stopped {
        /// Which function.
        function: FunctionName,
        /// What it was to act on.
        on: String,
        /// Why it is not waited for any longer.
        stop: Stop,
        /// Whether it was started at all.
        started: bool,
    },
    /// A string that C cannot have.
    #[error("{function}: {text:?} contains a NUL")]
    Nul {
        /// Which function.
        function: FunctionName,
        /// The string; empty for a password.
        text: String,
    },
    /// A property came back as something else than it is.
    #[error("property {property} of {on} is a {found}, and should be a {expected}; is the library a VIX library?")]
    Type {
        /// The property's name or number.
        property: String,
        /// Whose.
        on: String,
        /// What it should be.
        expected: &'static str,
        /// What came back.
        found: &'static str,
    },
}

/// A function's C name, for messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FunctionName(pub Function);

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Error {
    /// The code, if it was VIX that said no.
    #[must_use]
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Failed { code, .. } => Some(code.code()),
            _ => None,
        }
    }

    /// Whether VIX said no with this code.
    #[must_use]
    pub fn is(&self, code: u16) -> bool {
        self.code() == Some(code)
    }
}

/// The way out of what people run into, as far as it is known.
fn hint(function: FunctionName, code: u16) -> &'static str {
    match code {
        error_code::WRAPPER_VERSION_NOT_FOUND => {
            "; the library has no row for the installed product's version in vixwrapper-config.txt beside it (usual after an \
             update of the product): repeat the last row for this product there, with the new version, or install the \
             VIX that came with the product"
        }
        error_code::WRAPPER_WORKSTATION_NOT_INSTALLED | error_code::WRAPPER_PLAYER_NOT_INSTALLED => {
            "; install it, or name another product"
        }
        error_code::WRAPPER_SERVICEPROVIDER_NOT_FOUND => {
            "; vixwrapper-config.txt beside the library has no row for this product: name another product"
        }
        error_code::WRAPPER_RUNTIME_NOT_INSTALLED => {
            "; the directory that vixwrapper-config.txt names for this product is not there: install VIX again"
        }
        error_code::WRAPPER_MULTIPLE_SERVICEPROVIDERS => {
            "; one process can use one product only: start another process"
        }
        error_code::NOT_SUPPORTED => {
            "; this product does not have it (VIX 1.13 reference, support matrix), or not for this virtual machine"
        }
        error_code::INVALID_ARG if matches!(function.0, Function::HostConnect) => {
            "; a product whose licence has expired answers this, too"
        }
        error_code::TOOLS_NOT_RUNNING | error_code::TIMEOUT_WAITING_FOR_TOOLS => {
            "; are VMware Tools (open-vm-tools) installed in the guest and started at boot?"
        }
        error_code::GUEST_OPERATIONS_PROHIBITED => {
            "; the VM's .vmx says guest.commands.enabled = \"FALSE\": remove that line"
        }
        error_code::EMPTY_PASSWORD_NOT_ALLOWED_IN_GUEST => "; give the guest's user a password",
        error_code::LICENSE => "; start the product once and see to its licence",
        error_code::FILE_ALREADY_LOCKED => "; is the VM open in VMware's window, or used by another task?",
        _ => "",
    }
}

/// Why no library is at hand.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not where it could be.
    #[error(
        "no VIX library is found. Looked for: {}. Install VMware Workstation, Player or VIX, or name the file \
         (VMTASK_VIX_LIBRARY)", looked(.0)
    )]
    NotFound(Vec<PathBuf>),
    /// The file that was named is not there.
    #[error("there is no VIX library {path:?}, which {by} names")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Who named it.
        by: String,
    },
    /// The operating system does not load it.
    #[error(
        "the VIX library {path:?} cannot be loaded: {what} (it must be for {} bits, and what it needs must be there)",
        usize::BITS
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        what: String,
    },
    /// It lacks functions.
    #[error(
        "{path:?} lacks {}{}; it is no VIX library, or one older than 1.6.1 (rows of its vixwrapper-config.txt: {rows})",
        missing.first().copied().unwrap_or("nothing"), others(missing.len())
    )]
    Symbols {
        /// The file.
        path: PathBuf,
        /// What is missing, in the header's order.
        missing: Vec<&'static str>,
        /// Which products it is for, by its own table.
        rows: String,
    },
}

fn looked(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn others(count: usize) -> String {
    if count > 1 { format!(" and {} other functions", count - 1) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn failed(function: Function, code: Code) -> Error {
        let text = error_code::text(code.code()).unwrap_or_default().to_string_lossy().into_owned();
        Error::Failed { function: FunctionName(function), on: "ws".into(), code, text }
    }

    #[test]
    fn all_parts_of_an_error_are_told() {
        let code = Code(error_code::with_parts(3015, error_code::FLAG_GUEST, error_code::EXTRA_LINUX, 2));
        assert_eq!((code.code(), code.extra()), (3015, Some((4, 2))));
        assert!(code.is_from_guest() && !code.is_from_remote());
        let text = failed(Function::VmRunProgramInGuest, code).to_string();
        let told = if cfg!(target_os = "linux") { "No such file" } else { "Linux error 2" };
        assert!(text.contains(&format!("VIX_E_GUEST_USER_PERMISSIONS (3015) from the guest, {told}")), "{text}");
    }

    #[test]
    fn an_error_whose_code_is_0_is_none() {
        assert_eq!(Code(error_code::with_parts(0, 1, 4, 2)).ok(), Ok(()));
        assert_eq!(Code::from(6).ok(), Err(Code(6)));
    }

    #[rstest]
    #[case(Function::HostConnect, 22002, "vixwrapper-config.txt")]
    #[case(Function::HostConnect, 22006, "another process")]
    #[case(Function::HostConnect, 3, "licence")]
    #[case(Function::VmClone, 6, "this product does not have it")]
    #[case(Function::VmWaitForToolsInGuest, 3000, "Tools")]
    #[case(Function::VmRunProgramInGuest, 3017, "guest.commands.enabled")]
    fn the_way_out_is_told(#[case] function: Function, #[case] code: u16, #[case] words: &str) {
        let text = failed(function, Code::from(code)).to_string();
        assert!(text.contains(words), "{text}");
    }
}
