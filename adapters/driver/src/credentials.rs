//! Credentials for a hypervisor's host or for a guest: asked for on the terminal, or read from a file that nobody else
//! can read, or from the environment. Never from the command line, which every user of a computer can see.
//!
//! They stay in the hypervisor's adapter: never in a task, a record, a trace, a log or a result. The types here see to
//! it: they print as `[REDACTED]`, cannot be serialised, and are wiped when dropped. So is every buffer that a secret passes
//! through on its way here, but for two that belong to others: see [`SecretSource`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::sys;

/// A password.
///
/// It lies in memory of just its own length, which never grows and is never copied but by a clone: what moves is the pointer
/// to it. That memory is wiped when the secret is dropped.
///
/// ```compile_fail
/// # let secret = vmtask_driver::Secret::from_value("x".into());
/// // It cannot be serialised: this does not compile.
/// serde_json::to_string(&secret);
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The secret in `value`, whose own memory is wiped.
    #[must_use]
    pub fn from_value(value: String) -> Self {
        // Not taken over: memory with room to spare would be shrunk, which may move what is in it and wipes nothing.
        Self::copy(&Zeroizing::new(value))
    }

    /// A secret that lies where somebody else wipes it.
    fn copy(value: &str) -> Self {
        Self(SecretString::from(value))
    }

    /// The secret itself, to hand to the hypervisor. Make no copy that outlives the call.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Who we are to a host or a guest.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The account's name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The terminal, after this question. Nothing is shown while it is typed. What reads the line (`rpassword`) has a buffer
    /// that grows with it: the beginnings that it outgrew are freed and not wiped.
    Prompt(String),
    /// The first line of a file that only its owner may read.
    File(PathBuf),
    /// An environment variable. The environment itself keeps it for as long as the process lives.
    Env(String),
}

/// Why there is no secret. Never quotes one.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read the password file {}: {source}; name a file that you may read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error("the password file {} may be read or written by others (mode {mode:04o}); run `chmod 600` on it, and change the password if others could have read it", path.display())]
    OpenToOthers {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file's first line is empty, too long or no text.
    #[error("the password file {} {why}; write the password into its first line", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The variable is not set, or empty, or no text.
    #[error("the environment variable {name} {why}; set it to the password, or use a file of mode 0600")]
    Env {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody could be asked.
    #[error("cannot ask for the password: {0}; without a terminal use a file of mode 0600 or an environment variable")]
    Prompt(io::Error),
}

impl SecretSource {
    /// The longest secret, in bytes.
    pub const MAX: usize = 4096;

    /// Gets the secret from there.
    ///
    /// # Errors
    /// If there is none, or others could have read it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Prompt(question) => {
                rpassword::prompt_password(question).map(Secret::from_value).map_err(SecretError::Prompt)
            }
            Self::File(path) => read_file(path),
            Self::Env(name) => read_variable(name),
        }
    }
}

fn read_variable(name: &str) -> Result<Secret, SecretError> {
    let failed = |why| SecretError::Env { name: name.to_owned(), why };
    let value = std::env::var_os(name).ok_or_else(|| failed("is not set"))?;
    // As bytes, so that what is no text is wiped too.
    let bytes = Zeroizing::new(value.into_encoded_bytes());
    match str::from_utf8(&bytes) {
        Ok("") => Err(failed("is empty")),
        Ok(text) => Ok(Secret::copy(text)),
        Err(_) => Err(failed("is no UTF-8 text")),
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let content = |why| SecretError::Content { path: path.to_owned(), why };
    // What is checked is the file that is read, whatever happens to its name meanwhile.
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(content("is not a file"));
    }
    if let Some(mode) = sys::open_to_others(&metadata) {
        return Err(SecretError::OpenToOthers { path: path.to_owned(), mode });
    }
    // Large enough from the start, so that growing leaves no copies behind; wiped whatever comes of reading it.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SecretSource::MAX + 2));
    file.take(SecretSource::MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let text = str::from_utf8(&bytes).map_err(|_| content("is no UTF-8 text"))?;
    let line = text.lines().next().unwrap_or_default();
    match line.len() {
        0 => Err(content("has an empty first line")),
        length if length > SecretSource::MAX => Err(content("has a first line of more than 4096 bytes")),
        _ => Ok(Secret::copy(line)),
    }
}
