//! Files in the guest.

use std::path::Path;

use vmtask_vix_abi::{error_code, file_attribute, property};

use super::power::check_options;
use super::{Result, Vm};
use crate::failure::Failure;
use crate::guest::{FileInfo, Guest};
use crate::job::Results;
use crate::property::{Properties, Value};

impl Vm {
    /// The guest, for somebody who is logged in.
    pub(super) fn guest(&self) -> Result<&dyn Guest> {
        self.check_user()?;
        Ok(&*self.guest)
    }

    pub(crate) fn copy_in(&self, host: &str, guest: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let source = absolute(host)?;
        if !source.exists() {
            return Err(Failure::new(error_code::FILE_NOT_FOUND, format!("there is no {host} on the host")));
        }
        self.guest()?.copy_in(source, guest).map(done)
    }

    pub(crate) fn copy_out(&self, guest: &str, host: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let target = absolute(host)?;
        self.guest()?.copy_out(guest, target).map(done)
    }

    pub(crate) fn delete_file(&self, path: &str) -> Result<Results> {
        self.guest()?.remove_file(path).map(done)
    }

    pub(crate) fn delete_directory(&self, path: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        self.guest()?.remove_directory(path).map(done)
    }

    pub(crate) fn create_directory(&self, path: &str) -> Result<Results> {
        self.guest()?.make_directory(path).map(done)
    }

    pub(crate) fn rename(&self, from: &str, to: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        self.guest()?.rename(from, to).map(done)
    }

    pub(crate) fn temp_file(&self, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let path = self.guest()?.temp_file()?;
        Ok(vec![Properties::default().text(property::JOB_RESULT_ITEM_NAME, path)])
    }

    /// Whether there is a file, or (`directory`) a directory. The wrong one of the two is no error.
    pub(crate) fn exists(&self, path: &str, directory: bool) -> Result<Results> {
        let exists = match self.guest()?.info(path) {
            Ok(info) => info.directory == directory,
            Err(failure) if matches!(failure.code(), error_code::FILE_NOT_FOUND | error_code::NOT_A_DIRECTORY) => false,
            Err(failure) => return Err(failure),
        };
        let value = Value::Bool(exists);
        Ok(vec![Properties::default().with(property::JOB_RESULT_GUEST_OBJECT_EXISTS, value)])
    }

    pub(crate) fn file_info(&self, path: &str) -> Result<Results> {
        Ok(vec![described(&self.guest()?.info(path)?)])
    }

    pub(crate) fn list_directory(&self, path: &str, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let found = self.guest()?.list(path)?;
        let item = |info: &FileInfo| described(info).text(property::JOB_RESULT_ITEM_NAME, info.name.clone());
        Ok(found.iter().map(item).collect())
    }
}

fn described(info: &FileInfo) -> Properties {
    let mut flags = 0;
    if info.directory {
        flags |= file_attribute::DIRECTORY;
    }
    if info.symlink {
        flags |= file_attribute::SYMLINK;
    }
    Properties::default()
        .with(property::JOB_RESULT_FILE_FLAGS, Value::Integer(flags))
        .with(property::JOB_RESULT_FILE_SIZE, Value::Int64(info.size as i64))
        .with(property::JOB_RESULT_FILE_MOD_TIME, Value::Int64(info.modified))
}

/// A path of the host. Where a relative one would lead is the library's affair, so it leads nowhere.
pub(super) fn absolute(path: &str) -> Result<&Path> {
    let absolute = Path::new(path);
    match absolute.is_absolute() {
        true => Ok(absolute),
        false => Err(Failure::new(error_code::FILE_NAME_INVALID, format!("{path:?} is not an absolute path"))),
    }
}

pub(super) fn done<T>(_: T) -> Results {
    Vec::new()
}
