//! `VixSnapshot_...`, and what VMs do with snapshots.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{Error, EventProc, Function, Handle, INVALID_HANDLE};

use super::{Text, directly, put, vm_job};
use crate::failure::Failure;
use crate::handles;
use crate::job::Context;
use crate::vm::Vm;

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_CreateSnapshot(
    vm: Handle,
    name: *const c_char,
    description: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's texts.
    let (name, description) = unsafe { (Text::copy(name), Text::copy(description)) };
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.create_snapshot(context, &name.or_empty()?, &description.or_empty()?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmCreateSnapshot, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_RevertToSnapshot(
    vm: Handle,
    snapshot: Handle,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        vm.revert(context, &*handles::snapshot(snapshot)?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmRevertToSnapshot, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_RemoveSnapshot(
    vm: Handle,
    snapshot: Handle,
    options: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work =
        move |vm: &Arc<Vm>, context: &Context<'_>| vm.remove_snapshot(context, &*handles::snapshot(snapshot)?, options);
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmRemoveSnapshot, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Clone(
    vm: Handle,
    snapshot: Handle,
    kind: i32,
    destination: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let destination = unsafe { Text::copy(destination) };
    let work = move |vm: &Arc<Vm>, context: &Context<'_>| {
        handles::properties(property_list)?;
        let snapshot = (snapshot != INVALID_HANDLE).then(|| handles::snapshot(snapshot)).transpose()?;
        vm.clone_vm(context, snapshot.as_deref(), kind, &destination.needed("the destination")?, options)
    };
    // SAFETY: the caller's callback.
    unsafe { vm_job(Function::VmClone, vm, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetNumRootSnapshots(vm: Handle, result: *mut i32) -> Error {
    // SAFETY: the caller's pointer.
    let work = |vm: &Arc<Vm>| unsafe { put(result, vm.root_snapshots()? as i32) };
    directly(Function::VmGetNumRootSnapshots, || handles::vm(vm), work)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetRootSnapshot(vm: Handle, index: i32, snapshot: *mut Handle) -> Error {
    // SAFETY: the caller's pointer.
    let work = |vm: &Arc<Vm>| unsafe { put_handle(snapshot, || vm.root_snapshot(index)) };
    directly(Function::VmGetRootSnapshot, || handles::vm(vm), work)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetCurrentSnapshot(vm: Handle, snapshot: *mut Handle) -> Error {
    // SAFETY: the caller's pointer.
    let work = |vm: &Arc<Vm>| unsafe { put_handle(snapshot, || vm.current_snapshot()) };
    directly(Function::VmGetCurrentSnapshot, || handles::vm(vm), work)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_GetNamedSnapshot(vm: Handle, name: *const c_char, snapshot: *mut Handle) -> Error {
    // SAFETY: the caller's text.
    let name = unsafe { Text::copy(name) };
    let work = |vm: &Arc<Vm>| {
        let name = name.needed("the name")?;
        // SAFETY: the caller's pointer.
        unsafe { put_handle(snapshot, || vm.named_snapshot(&name)) }
    };
    directly(Function::VmGetNamedSnapshot, || handles::vm(vm), work)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixSnapshot_GetNumChildren(parent: Handle, result: *mut i32) -> Error {
    let parent = handles::snapshot(parent);
    // SAFETY: the caller's pointer.
    let work = |_: &Arc<Vm>| unsafe { put(result, parent.clone()?.children()? as i32) };
    directly(Function::SnapshotGetNumChildren, || parent.clone().map(|parent| Arc::clone(parent.vm())), work)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixSnapshot_GetChild(parent: Handle, index: i32, child: *mut Handle) -> Error {
    let parent = handles::snapshot(parent);
    // SAFETY: the caller's pointer.
    let work = |_: &Arc<Vm>| unsafe { put_handle(child, || parent.clone()?.child(index)) };
    directly(Function::SnapshotGetChild, || parent.clone().map(|parent| Arc::clone(parent.vm())), work)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixSnapshot_GetParent(snapshot: Handle, parent: *mut Handle) -> Error {
    let snapshot = handles::snapshot(snapshot);
    // SAFETY: the caller's pointer.
    let work = |_: &Arc<Vm>| unsafe { put_handle(parent, || snapshot.clone()?.parent()) };
    directly(Function::SnapshotGetParent, || snapshot.clone().map(|snapshot| Arc::clone(snapshot.vm())), work)
}

/// Hands a handle out through a client's pointer; nothing is handed out if there is none.
///
/// # Safety
/// See [`put`].
unsafe fn put_handle(place: *mut Handle, find: impl FnOnce() -> Result<Handle, Failure>) -> Result<(), Failure> {
    // SAFETY: passed on.
    unsafe { put(place, INVALID_HANDLE) }?;
    // SAFETY: passed on.
    unsafe { put(place, find()?) }
}
