//! `VixVM_...InGuest`: everything that needs a log-in, and logging in.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{EventProc, Function, Handle};

use super::{Text, vm_job};
use crate::handles;
use crate::job::Context;
use crate::vm::Vm;

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_LoginInGuest(
    vm: Handle,
    user: *const c_char,
    password: *const c_char,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (user, password) = unsafe { (Text::copy(user), Text::copy(password)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        vm.log_in(&user.needed("the user's name")?, &password.or_empty()?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmLoginInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_LogoutFromGuest(vm: Handle, callback: Option<EventProc>, client: *mut c_void) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.log_out();
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmLogoutFromGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_RunProgramInGuest(
    vm: Handle,
    program: *const c_char,
    arguments: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (program, arguments) = unsafe { (Text::copy(program), Text::copy(arguments)) };
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.run_program(context, &program.needed("the program")?, &arguments.or_empty()?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmRunProgramInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_RunScriptInGuest(
    vm: Handle,
    interpreter: *const c_char,
    script: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (interpreter, script) = unsafe { (Text::copy(interpreter), Text::copy(script)) };
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.run_script(context, &interpreter.or_empty()?, &script.needed("the script")?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmRunScriptInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_ListProcessesInGuest(
    vm: Handle,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.list_processes(options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmListProcessesInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_KillProcessInGuest(
    vm: Handle,
    pid: u64,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.kill_process(pid, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmKillProcessInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_CopyFileFromHostToGuest(
    vm: Handle,
    host_path: *const c_char,
    guest_path: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (host_path, guest_path) = unsafe { (Text::copy(host_path), Text::copy(guest_path)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        handles::properties(property_list)?;
        vm.copy_in(&host_path.needed("the path on the host")?, &guest_path.needed("the path in the guest")?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmCopyFileFromHostToGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_CopyFileFromGuestToHost(
    vm: Handle,
    guest_path: *const c_char,
    host_path: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (guest_path, host_path) = unsafe { (Text::copy(guest_path), Text::copy(host_path)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        handles::properties(property_list)?;
        vm.copy_out(&guest_path.needed("the path in the guest")?, &host_path.needed("the path on the host")?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmCopyFileFromGuestToHost, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_DeleteFileInGuest(
    vm: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.delete_file(&path.needed("the path")?);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmDeleteFileInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_FileExistsInGuest(
    vm: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.exists(&path.needed("the path")?, false);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmFileExistsInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_DirectoryExistsInGuest(
    vm: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.exists(&path.needed("the path")?, true);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmDirectoryExistsInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_RenameFileInGuest(
    vm: Handle,
    from: *const c_char,
    to: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (from, to) = unsafe { (Text::copy(from), Text::copy(to)) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        handles::properties(property_list)?;
        vm.rename(&from.needed("the old path")?, &to.needed("the new path")?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmRenameFileInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_CreateTempFileInGuest(
    vm: Handle,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        handles::properties(property_list)?;
        vm.temp_file(options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmCreateTempFileInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetFileInfoInGuest(
    vm: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.file_info(&path.needed("the path")?);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmGetFileInfoInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_ListDirectoryInGuest(
    vm: Handle,
    path: *const c_char,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.list_directory(&path.needed("the path")?, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmListDirectoryInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_CreateDirectoryInGuest(
    vm: Handle,
    path: *const c_char,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| {
        handles::properties(property_list)?;
        vm.create_directory(&path.needed("the path")?)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmCreateDirectoryInGuest, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_DeleteDirectoryInGuest(
    vm: Handle,
    path: *const c_char,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |vm: &Arc<Vm>, _: &Context<'_>| vm.delete_directory(&path.needed("the path")?, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmDeleteDirectoryInGuest, vm, callback, client, work) }
}
