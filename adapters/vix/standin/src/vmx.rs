//! A VM's configuration: lines of `key = "value"`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vmtask_vix_abi::error_code;

use crate::failure::Failure;

/// What a `.vmx` file says. Keys are compared without regard to case, as VMware's products do.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Vmx {
    values: BTreeMap<String, String>,
}

impl Vmx {
    /// Reads a file.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND` if there is none; `CANNOT_READ_VM_CONFIG`, naming the line, if it is no configuration.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                Failure::new(error_code::CANNOT_READ_VM_CONFIG, format!("{} is not UTF-8", path.display()))
            }
            _ => Failure::host_io("cannot read", path, &e),
        })?;
        Self::parse(&text).map_err(|line| {
            let why = format!("{}, line {line}: expected: key = \"value\"", path.display());
            Failure::new(error_code::CANNOT_READ_VM_CONFIG, why)
        })
    }

    /// Reads a text; the error is the number of the first line that cannot be read.
    ///
    /// # Errors
    /// If a line is neither empty, nor a comment (`#`), nor `key = "value"`.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let mut values = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(number + 1)?;
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).ok_or(number + 1)?;
            values.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
        Ok(Self { values })
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(&key.to_ascii_lowercase()).map(String::as_str)
    }

    /// A whole number, or `default` if the key is missing or holds none.
    #[must_use]
    pub fn number(&self, key: &str, default: i32) -> i32 {
        self.get(key).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
    }

    /// Whether a key is `TRUE`; `default` if it is missing.
    #[must_use]
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }
}

impl std::fmt::Debug for Vmx {
    /// Only the keys: values may be passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_found_whatever_their_case_and_values_may_be_empty() {
        let vmx = Vmx::parse("# a comment\n.encoding = \"UTF-8\"\nmemSize=\"256\"\n\nannotation = \"\"\n").unwrap();
        assert_eq!(vmx.number("memsize", 4), 256);
        assert_eq!(vmx.get("annotation"), Some(""));
        assert_eq!(vmx.get("displayName"), None);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        assert_eq!(Vmx::parse("memsize = \"4\"\nmemsize = 4\n"), Err(2));
        assert_eq!(Vmx::parse("hello\n"), Err(1));
    }

    #[test]
    fn values_do_not_get_into_logs() {
        let vmx = Vmx::parse("vmtask.guest.password = \"secret\"").unwrap();
        assert!(!format!("{vmx:?}").contains("secret"));
    }
}
