//! Deleting, upgrading, installing Tools, looking at the screen.

use std::fs;

use vmtask_vix_abi::{capture, error_code, install_tools, property, vm_delete};

use super::power::check_options;
use super::{Power, Result, Vm, remove_directory};
use crate::failure::Failure;
use crate::job::{Context, Results};
use crate::property::{Properties, Value};

/// The newest version of virtual hardware: that of Workstation 10, whose reference the stand-in follows.
const NEWEST_HARDWARE: i32 = 10;

impl Vm {
    /// Deletes the VM; handles to it stay, and find nothing.
    pub(crate) fn delete(&self, context: &Context<'_>, options: i32) -> Result<Results> {
        check_options(options, vm_delete::DISK_FILES)?;
        let files = options & vm_delete::DISK_FILES != 0;
        if !files && self.host.product().has_inventory() {
            let why = format!("{}: {} deletes only with the disk's files", self.name, self.host.product());
            return Err(Failure::new(error_code::INVALID_ARG, why));
        }
        let vm = self.lock()?;
        if vm.power.is_running() {
            return Err(Failure::new(error_code::VM_IS_RUNNING, format!("{} is running", self.name)));
        }
        self.host.unregister(&self.name)?;
        // Ends what a suspended guest may still hold of the host.
        self.guest.power_off()?;
        // First the file that makes it a VM.
        fs::remove_file(&self.vmx_path).map_err(|e| Failure::host_io("cannot remove", &self.vmx_path, &e))?;
        context.act.halfway();
        drop(vm);
        if files {
            remove_directory(&self.dir)?;
            // Unless the client keeps something of its own there.
            if let Some(parent) = self.vmx_path.parent() {
                drop(fs::remove_dir(parent));
            }
        }
        Ok(Vec::new())
    }

    pub(crate) fn upgrade_hardware(&self, options: i32) -> Result<Results> {
        check_options(options, 0)?;
        let mut vm = self.lock()?;
        if vm.power != Power::Off {
            return Err(Failure::new(error_code::VM_IS_RUNNING, format!("{} is not off", self.name)));
        }
        if vm.hardware.unwrap_or_else(|| self.vmx.number("virtualHW.version", 7)) >= NEWEST_HARDWARE {
            let why = format!("{} has the newest virtual hardware", self.name);
            return Err(Failure::new(error_code::VM_ALREADY_UP_TO_DATE, why));
        }
        vm.hardware = Some(NEWEST_HARDWARE);
        vm.commit()?;
        Ok(Vec::new())
    }

    /// Shows the guest the installer; it has Tools already, so there is nothing to upgrade.
    pub(crate) fn install_tools(&self, options: i32) -> Result<Results> {
        check_options(options, install_tools::AUTO_UPGRADE | install_tools::RETURN_IMMEDIATELY)?;
        if !self.lock()?.power.is_running() {
            return Err(self.not_running());
        }
        let upgrade = options & install_tools::AUTO_UPGRADE != 0;
        match (upgrade, self.has_tools()) {
            (false, _) => Ok(Vec::new()),
            (true, true) => {
                let why = format!("Tools in {} are up to date", self.name);
                Err(Failure::new(error_code::TOOLS_INSTALL_ALREADY_UP_TO_DATE, why))
            }
            (true, false) => {
                let why = format!("{} has no Tools that could upgrade themselves", self.name);
                Err(Failure::new(error_code::TOOLS_INSTALL_AUTO_NOT_SUPPORTED, why))
            }
        }
    }

    pub(crate) fn capture_screen(&self, format: i32) -> Result<Results> {
        if format != capture::PNG && format != capture::PNG_NOCOMPRESS {
            let why = format!("a screen is captured as PNG, not in the format {format}");
            return Err(Failure::new(error_code::SCREEN_CAPTURE_BAD_FORMAT, why));
        }
        let image = self.guest()?.screen()?;
        let found = Properties::default()
            .with(property::JOB_RESULT_SCREEN_IMAGE_SIZE, Value::Integer(image.len() as i32))
            .with(property::JOB_RESULT_SCREEN_IMAGE_DATA, Value::Blob(image));
        Ok(vec![found])
    }
}
