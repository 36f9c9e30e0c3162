//! `VixHost_...`, and `VixVM_Open`.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{EventProc, Function, Handle, error_code, find, host_option, property};

use super::Text;
use crate::callback::Callback;
use crate::failure::Failure;
use crate::handles;
use crate::host::{Host, Login};
use crate::job::{Context, Results, start};
use crate::property::{Properties, Value};
use crate::vm::{self, Vm};

#[unsafe(no_mangle)]
unsafe extern "C" fn VixHost_Connect(
    _api_version: i32,
    host_type: i32,
    host_name: *const c_char,
    _host_port: i32,
    user_name: *const c_char,
    password: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    crate::pin::pin();
    // SAFETY: the caller's texts and callback.
    let (host, user, password, callback) = unsafe {
        (Text::copy(host_name), Text::copy(user_name), Text::copy(password), Callback::new(callback, client))
    };
    start(Function::HostConnect, Ok(None), callback, move |_| {
        handles::properties(property_list)?;
        // The event pump went with VIX 1.11; libraries since then take no notice of its option.
        let known = host_option::VERIFY_SSL_CERT | host_option::USE_EVENT_PUMP;
        if options & !known != 0 {
            return Err(Failure::new(error_code::INVALID_ARG, format!("there is no option {options:#x} for a host")));
        }
        let login = Login { provider: host_type, host: host.0?, user: user.0?, password: password.0? };
        let handle = Host::connect(&login)?;
        Ok(vec![Properties::default().with(property::JOB_RESULT_HANDLE, Value::Handle(handle))])
    })
}

#[unsafe(no_mangle)]
extern "C" fn VixHost_Disconnect(host: Handle) {
    if let Ok(host) = handles::host(host) {
        host.disconnect();
    }
}

/// Starts a job on a host.
///
/// # Safety
/// See [`Callback::new`].
unsafe fn host_job(
    function: Function,
    host: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
    work: impl FnOnce(&Arc<Host>, &Context<'_>) -> Result<Results, Failure> + Send + 'static,
) -> Handle {
    // SAFETY: passed on.
    let callback = unsafe { Callback::new(callback, client) };
    let host = handles::host(host);
    let owner = host.as_ref().map(|host| Some(Arc::clone(host))).map_err(Clone::clone);
    start(function, owner, callback, move |context| work(&host?, context))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixHost_RegisterVM(
    host: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |host: &Arc<Host>, _: &Context<'_>| host.register(&path.needed("the path")?).map(|()| Vec::new());
    // SAFETY: the caller's callback.
    unsafe { host_job(Function::HostRegisterVm, host, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixHost_UnregisterVM(
    host: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |host: &Arc<Host>, _: &Context<'_>| {
        let path = path.needed("the path")?;
        vm::check_off(host, &path)?;
        host.unregister(&path).map(|()| Vec::new())
    };
    // SAFETY: the caller's callback.
    unsafe { host_job(Function::HostUnregisterVm, host, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixHost_FindItems(
    host: Handle,
    search: i32,
    criteria: Handle,
    _timeout: i32,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    let work = move |host: &Arc<Host>, context: &Context<'_>| {
        handles::properties(criteria)?;
        let found = match search {
            find::RUNNING_VMS => vm::running(host)?,
            find::REGISTERED_VMS if host.has_inventory() => host.registered()?,
            find::REGISTERED_VMS => {
                let why = format!("{} has no inventory to look into", host.product());
                return Err(Failure::new(error_code::NOT_SUPPORTED, why));
            }
            _ => return Err(Failure::new(error_code::INVALID_ARG, format!("there is no search of the type {search}"))),
        };
        for name in found {
            context.found_item(Properties::default().text(property::FOUND_ITEM_LOCATION, name))?;
        }
        Ok(Vec::new())
    };
    // SAFETY: the caller's callback.
    unsafe { host_job(Function::HostFindItems, host, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixHost_OpenVM(
    host: Handle,
    path: *const c_char,
    options: i32,
    property_list: Handle,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |host: &Arc<Host>, _: &Context<'_>| {
        let list = handles::properties(property_list)?;
        if options != 0 {
            return Err(Failure::new(error_code::INVALID_ARG, format!("there is no option {options:#x} for opening")));
        }
        let password = match list.as_deref().and_then(|list| list.get(property::VM_ENCRYPTION_PASSWORD)) {
            Some(Value::Text(password)) => Some(password.as_str()),
            _ => None,
        };
        opened(host, &path.needed("the path")?, password)
    };
    // SAFETY: the caller's callback.
    unsafe { host_job(Function::HostOpenVm, host, callback, client, work) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn VixVM_Open(
    host: Handle,
    path: *const c_char,
    callback: Option<EventProc>,
    client: *mut c_void,
) -> Handle {
    // SAFETY: the caller's text.
    let path = unsafe { Text::copy(path) };
    let work = move |host: &Arc<Host>, _: &Context<'_>| opened(host, &path.needed("the path")?, None);
    // SAFETY: the caller's callback.
    unsafe { host_job(Function::VmOpen, host, callback, client, work) }
}

fn opened(host: &Arc<Host>, path: &str, password: Option<&str>) -> Result<Results, Failure> {
    let handle = Vm::open(host, path, password)?;
    Ok(vec![Properties::default().with(property::JOB_RESULT_HANDLE, Value::Handle(handle))])
}
