//! `VixVM_...SharedFolder...`.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{Bool, EventProc, Function, Handle};

use super::{Text, vm_job};
use crate::job::Context;
use crate::vm::Vm;

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_EnableSharedFolders(
    vm: Handle,
    enabled: Bool,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.enable_shared_folders(enabled != 0, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmEnableSharedFolders, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetNumSharedFolders(vm: Handle, callback: Option<EventProc>, client: *mut c_void) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.count_shared_folders();
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmGetNumSharedFolders, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetSharedFolderState(
    vm: Handle,
    index: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.shared_folder(index);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmGetSharedFolderState, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_SetSharedFolderState(
    vm: Handle,
    name: *const c_char,
    host_path: *const c_char,
    flags: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (name, host_path) = unsafe { (Text::copy(name), Text::copy(host_path)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        vm.set_shared_folder(&name.needed("the name")?, &host_path.needed("the path on the host")?, flags)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmSetSharedFolderState, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_AddSharedFolder(
    vm: Handle,
    name: *const c_char,
    host_path: *const c_char,
    flags: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (name, host_path) = unsafe { (Text::copy(name), Text::copy(host_path)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        vm.add_shared_folder(&name.needed("the name")?, &host_path.needed("the path on the host")?, flags)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmAddSharedFolder, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_RemoveSharedFolder(
    vm: Handle,
    name: *const c_char,
    flags: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let name = unsafe { Text::copy(name) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.remove_shared_folder(&name.needed("the name")?, flags);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmRemoveSharedFolder, vm, callback, client, work) }
}
