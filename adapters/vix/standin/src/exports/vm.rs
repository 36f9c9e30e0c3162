//! `VixVM_...`: power, Tools, the VM itself.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{EventProc, Function, Handle};

use super::{Text, vm_job};
use crate::handles;
use crate::job::Context;
use crate::vm::Vm;

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_PowerOn(
    vm: Handle,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.power_on(context, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmPowerOn, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_PowerOff(
    vm: Handle,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| vm.power_off(context, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmPowerOff, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Reset(vm: Handle, options: i32, callback: Option<EventProc>, client: *mut c_void) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| vm.reset(context, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmReset, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Suspend(
    vm: Handle,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| vm.suspend(context, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmSuspend, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Pause(
    vm: Handle,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.pause(context, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmPause, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Unpause(
    vm: Handle,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.unpause(context, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmUnpause, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Delete(
    vm: Handle,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| vm.delete(context, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmDelete, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_WaitForToolsInGuest(
    vm: Handle,
    seconds: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| vm.wait_for_tools(context, seconds);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmWaitForToolsInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_ReadVariable(
    vm: Handle,
    kind: i32,
    name: *const c_char,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let name = unsafe { Text::copy(name) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.read_variable(kind, &name.needed("the name")?, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmReadVariable, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_WriteVariable(
    vm: Handle,
    kind: i32,
    name: *const c_char,
    value: *const c_char,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (name, value) = unsafe { (Text::copy(name), Text::copy(value)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        vm.write_variable(kind, &name.needed("the name")?, &value.or_empty()?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmWriteVariable, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_CaptureScreenImage(
    vm: Handle,
    format: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        handles::properties(property_list)?;
        vm.capture_screen(format)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmCaptureScreenImage, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_UpgradeVirtualHardware(
    vm: Handle,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.upgrade_hardware(options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmUpgradeVirtualHardware, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_InstallTools(
    vm: Handle,
    options: i32,
    _arguments: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let _arguments = unsafe { Text::copy(_arguments) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.install_tools(options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmInstallTools, vm, callback, client, work) }
}
