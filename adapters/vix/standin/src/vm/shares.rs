//! Shared folders: directories of the host that the guest sees below `/mnt/hgfs`.

use vmtask_vix_abi::{error_code, property, shared_folder};

use super::guest_files::{absolute, done};
use super::power::check_options;
use super::{Locked, Power, Result, Vm};
use crate::failure::Failure;
use crate::guest::Share;
use crate::job::Results;
use crate::property::{Properties, Value};

impl Vm {
    pub(crate) fn enable_shared_folders(&self, enabled: bool, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let mut vm = self.lock()?;
        vm.sharing = enabled;
        self.shares_changed(&vm)?;
        let path = "/mnt/hgfs/".to_owned();
        Ok(vec![Properties::default().text(property::GUEST_SHAREDFOLDERS_SHARES_PATH, path)])
    }

    pub(crate) fn count_shared_folders(&self) -> Result<Results> {
        let count = self.lock()?.shares.len() as i32;
        Ok(vec![Properties::default().with(property::JOB_RESULT_SHARED_FOLDER_COUNT, Value::Integer(count))])
    }

    pub(crate) fn shared_folder(&self, index: i32) -> Result<Results> {
        let vm = self.lock()?;
        let share = usize::try_from(index).ok().and_then(|index| vm.shares.get(index));
        let share = share.ok_or_else(|| {
            Failure::new(error_code::INVALID_ARG, format!("there is no shared folder with the index {index}"))
        })?;
        let flags = if share.writable { shared_folder::WRITE_ACCESS } else { 0 };
        let found = Properties::default()
            .text(property::JOB_RESULT_ITEM_NAME, share.name.clone())
            .text(property::JOB_RESULT_SHARED_FOLDER_HOST, share.host.display().to_string())
            .with(property::JOB_RESULT_SHARED_FOLDER_FLAGS, Value::Integer(flags));
        Ok(vec![found])
    }

    pub(crate) fn add_shared_folder(&self, name: &str, host: &str, flags: i32) -> Result<Results> {
        let share = share(name, host, flags)?;
        let mut vm = self.lock()?;
        if vm.shares.iter().any(|known| known.name == name) {
            return Err(Failure::new(error_code::ALREADY_EXISTS, format!("{name:?} is shared already")));
        }
        vm.shares.push(share);
        self.shares_changed(&vm).map(done)
    }

    pub(crate) fn set_shared_folder(&self, name: &str, host: &str, flags: i32) -> Result<Results> {
        let share = share(name, host, flags)?;
        let mut vm = self.lock()?;
        let known = vm.shares.iter_mut().find(|known| known.name == name);
        *known.ok_or_else(|| not_shared(name))? = share;
        self.shares_changed(&vm).map(done)
    }

    pub(crate) fn remove_shared_folder(&self, name: &str, flags: i32) -> Result<Results> {
        check_options(flags, 0)?;
        let mut vm = self.lock()?;
        let known = vm.shares.iter().position(|known| known.name == name).ok_or_else(|| not_shared(name))?;
        vm.shares.remove(known);
        self.shares_changed(&vm).map(done)
    }

    fn shares_changed(&self, vm: &Locked<'_>) -> Result<()> {
        if vm.power == Power::On {
            self.guest.share(if vm.sharing { &vm.shares } else { &[] })?;
        }
        vm.commit()
    }
}

fn share(name: &str, host: &str, flags: i32) -> Result<Share> {
    check_options(flags, shared_folder::WRITE_ACCESS)?;
    if name.is_empty() || name.contains('/') {
        return Err(Failure::new(error_code::INVALID_ARG, format!("{name:?} is no name for a shared folder")));
    }
    let host = absolute(host)?;
    if !host.is_dir() {
        let why = format!("{} is no directory of the host", host.display());
        return Err(Failure::new(error_code::FILE_NOT_FOUND, why));
    }
    let writable = flags & shared_folder::WRITE_ACCESS != 0;
    Ok(Share { name: name.to_owned(), host: host.to_owned(), writable })
}

fn not_shared(name: &str) -> Failure {
    Failure::new(error_code::NOT_FOUND, format!("{name:?} is not shared"))
}
