//! One virtual machine in the registry: what is written of it, and how it is read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::lock::Lock;
use super::{RegistryError, io_error};
use crate::host_path;
use crate::storage::{RealStorage, replace_file};
use crate::sys::ProcessId;

pub(super) const VERSION: u32 = 1;

/// What the registry knows of one virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the entry.
    pub version: u32,
    /// The task's name.
    pub task: String,
    /// The task's directory: in JSON as [`host_path`] writes it.
    #[serde(with = "host_path")]
    pub dir: PathBuf,
    /// What it runs on.
    pub hypervisor: String,
    /// Whether the VM is meant to outlive its manager and be adopted by the next.
    pub outlives_manager: bool,
    /// Who looks after it.
    pub manager: ProcessId,
    /// Its own process, once it has one.
    pub vm: Option<ProcessId>,
    /// Who has it while it may run, if it is no process of ours: the product's name, as "VMware Workstation".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
    /// What that product calls it: the path of its `.vmx` file. Entries of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Whether it is in an inventory of that product's, from which it must be taken when it is off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inventory: bool,
}

/// A product that has virtual machines which are none of our processes, and the one that it has for a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The product's name, as "VMware Workstation".
    pub product: String,
    /// What it calls the virtual machine: the path of its `.vmx` file.
    pub machine: String,
    /// Whether it keeps an inventory of those that it knows.
    pub inventory: bool,
}

/// Why an entry is of no use.
#[derive(Debug, Error)]
pub(super) enum Unreadable {
    #[error("it is gone")]
    Missing,
    #[error("{0}")]
    Io(io::Error),
    #[error("it was written by a later version of vmtask (format {0}, this one reads up to {VERSION})")]
    Newer(u32),
    #[error("{0}")]
    Damaged(serde_json::Error),
}

impl Entry {
    pub(super) fn read(path: &Path) -> Result<Self, Unreadable> {
        let text = fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unreadable::Missing,
            _ => Unreadable::Io(error),
        })?;
        let entry: Self = serde_json::from_slice(&text).map_err(Unreadable::Damaged)?;
        if entry.version > VERSION { Err(Unreadable::Newer(entry.version)) } else { Ok(entry) }
    }

    pub(super) fn write(&self, path: &Path, _: &Lock) -> Result<(), RegistryError> {
        let failed = |source| io_error("write", path)(source);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        replace_file(&RealStorage, path, &text).map_err(failed)
    }

    /// Notes that `keeper` has it, or that nobody does.
    pub(super) fn keep(&mut self, keeper: Option<&Keeper>) {
        self.keeper = keeper.map(|keeper| keeper.product.clone());
        self.machine = keeper.map(|keeper| keeper.machine.clone());
        self.inventory = keeper.is_some_and(|keeper| keeper.inventory);
    }

    /// Whether it is the machine that `keeper` has: what is not known of an entry of an earlier version fits.
    pub(super) fn is_kept_by(&self, keeper: &Keeper) -> bool {
        self.keeper.as_ref() == Some(&keeper.product)
            && self.machine.as_ref().is_none_or(|machine| *machine == keeper.machine)
    }

    /// Whether the task's directory is gone. One that cannot be looked at is not.
    pub(super) fn has_lost_its_directory(&self) -> bool {
        matches!(self.dir.try_exists(), Ok(false))
    }

    /// Who has it, and how to end it without its manager, if it is no process of ours. `file` is where this is written:
    /// only a person can tell that such a virtual machine is gone, and says so by removing that.
    #[must_use]
    pub fn way_out(&self, file: &Path) -> Option<String> {
        let keeper = self.keeper.as_ref()?;
        let machine = self.machine.as_ref().map(|machine| format!(" as {machine}")).unwrap_or_default();
        let (again, and_dir) = match self.has_lost_its_directory() {
            false => ("run its task again, or ", ", remove the task's directory"),
            true => ("its task's directory is gone; ", ""),
        };
        let off =
            if self.inventory { "power it off there and remove it from the inventory" } else { "power it off there" };
        Some(format!("{keeper} has it{machine}: {again}{off}{and_dir}, then remove {}", file.display()))
    }
}
