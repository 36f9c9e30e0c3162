//! The C side: the library's functions by name, and everything that crosses the border. The only unsafe code here.
//!
//! ```text
//!   open file --> look up every symbol --> Loaded --implements--> trait Vix
//!                      (nothing is called)            strings: in, NUL-ended and valid for the call; out, copied and freed
//!                                                     properties: one per call, into a slot larger than any of them
//! ```
//! What is believed of a library: that its functions have the prototypes of `vix.h`, and are safe to call from any thread
//! (VIX 1.13 reference, concepts: "thread-safe"). What is not believed: that handles are good, that strings are UTF-8, that
//! a `Bool` is 0 or 1, that a callback comes once, or in time.
#![allow(unsafe_code, reason = "VIX is a C library")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use vmtask_vix_abi::property::{self, Type};
use vmtask_vix_abi::{
    API_VERSION, EventProc, Function, Handle, INVALID_HANDLE, REMOVED_IN_1_11, error_code, event_type,
};
use zeroize::Zeroize;

use crate::api::{Call, HasNul, Hidden, Look, Value, Vix};
use crate::bell::{self, Ticket};
use crate::error::Code;

type Str = *const c_char;
type Data = *mut c_void;
type Callback = Option<EventProc>;
type Bool = vmtask_vix_abi::Bool;

/// `VIX_VM_...` functions that older libraries lack, and this crate can do without: calling one that is missing answers
/// [`error_code::NOT_SUPPORTED`]. `VixHost_OpenVM` came with VIX 1.8, `Vix_AddRefHandle` is in no reference.
const OPTIONAL: [Function; 2] = [Function::HostOpenVm, Function::AddRefHandle];

macro_rules! table {
    ($($field:ident: $function:ident fn($($arg:ty),* $(; $dots:tt)?) $(-> $ret:ty)?;)*) => {
        /// The functions, as `vix.h` declares them. `None`: an optional one that the library lacks.
        #[allow(dead_code, reason = "one of them only has to be there")]
        struct Table {
            $($field: Option<unsafe extern "C" fn($($arg),* $(, $dots)?) $(-> $ret)?>,)*
        }

        impl Table {
            /// Looks up every function. What is missing is named.
            fn resolve(library: &libloading::Library) -> (Self, Vec<&'static str>) {
                let mut missing = Vec::new();
                let table = Self {
                    $($field: {
                        let function = Function::$function;
                        // SAFETY: the type is the function's prototype in vix.h, which every VIX library keeps. The
                        // pointer is copied out of the symbol; `Loaded` never unloads the library.
                        let found = unsafe { library.get(function.name()) }.map(|symbol| *symbol).ok();
                        if found.is_none() && !OPTIONAL.contains(&function) {
                            missing.push(function.name());
                        }
                        found
                    },)*
                };
                (table, missing)
            }

            #[cfg(test)]
            const FUNCTIONS: &[Function] = &[$(Function::$function),*];
        }
    };
}

table! {
    error_text: GetErrorText fn(u64, Str) -> Str;
    release: ReleaseHandle fn(Handle);
    add_ref: AddRefHandle fn(Handle);
    handle_type: GetHandleType fn(Handle) -> c_int;
    get_properties: GetProperties fn(Handle, c_int; ...) -> u64;
    property_type: GetPropertyType fn(Handle, c_int, *mut c_int) -> u64;
    free_buffer: FreeBuffer fn(Data);
    connect: HostConnect fn(c_int, c_int, Str, c_int, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    disconnect: HostDisconnect fn(Handle);
    register: HostRegisterVm fn(Handle, Str, Callback, Data) -> Handle;
    unregister: HostUnregisterVm fn(Handle, Str, Callback, Data) -> Handle;
    find_items: HostFindItems fn(Handle, c_int, Handle, c_int, Callback, Data) -> Handle;
    host_open: HostOpenVm fn(Handle, Str, c_int, Handle, Callback, Data) -> Handle;
    alloc_list: PropertyListAllocPropertyList fn(Handle, *mut Handle, c_int; ...) -> u64;
    open: VmOpen fn(Handle, Str, Callback, Data) -> Handle;
    power_on: VmPowerOn fn(Handle, c_int, Handle, Callback, Data) -> Handle;
    power_off: VmPowerOff fn(Handle, c_int, Callback, Data) -> Handle;
    reset: VmReset fn(Handle, c_int, Callback, Data) -> Handle;
    suspend: VmSuspend fn(Handle, c_int, Callback, Data) -> Handle;
    pause: VmPause fn(Handle, c_int, Handle, Callback, Data) -> Handle;
    unpause: VmUnpause fn(Handle, c_int, Handle, Callback, Data) -> Handle;
    delete: VmDelete fn(Handle, c_int, Callback, Data) -> Handle;
    wait_for_tools: VmWaitForToolsInGuest fn(Handle, c_int, Callback, Data) -> Handle;
    log_in: VmLoginInGuest fn(Handle, Str, Str, c_int, Callback, Data) -> Handle;
    log_out: VmLogoutFromGuest fn(Handle, Callback, Data) -> Handle;
    run_program: VmRunProgramInGuest fn(Handle, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    list_processes: VmListProcessesInGuest fn(Handle, c_int, Callback, Data) -> Handle;
    kill_process: VmKillProcessInGuest fn(Handle, u64, c_int, Callback, Data) -> Handle;
    run_script: VmRunScriptInGuest fn(Handle, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    copy_to_guest: VmCopyFileFromHostToGuest fn(Handle, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    copy_to_host: VmCopyFileFromGuestToHost fn(Handle, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    delete_file: VmDeleteFileInGuest fn(Handle, Str, Callback, Data) -> Handle;
    file_exists: VmFileExistsInGuest fn(Handle, Str, Callback, Data) -> Handle;
    rename_file: VmRenameFileInGuest fn(Handle, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    create_temp_file: VmCreateTempFileInGuest fn(Handle, c_int, Handle, Callback, Data) -> Handle;
    file_info: VmGetFileInfoInGuest fn(Handle, Str, Callback, Data) -> Handle;
    list_directory: VmListDirectoryInGuest fn(Handle, Str, c_int, Callback, Data) -> Handle;
    create_directory: VmCreateDirectoryInGuest fn(Handle, Str, Handle, Callback, Data) -> Handle;
    delete_directory: VmDeleteDirectoryInGuest fn(Handle, Str, c_int, Callback, Data) -> Handle;
    directory_exists: VmDirectoryExistsInGuest fn(Handle, Str, Callback, Data) -> Handle;
    read_variable: VmReadVariable fn(Handle, c_int, Str, c_int, Callback, Data) -> Handle;
    write_variable: VmWriteVariable fn(Handle, c_int, Str, Str, c_int, Callback, Data) -> Handle;
    count_roots: VmGetNumRootSnapshots fn(Handle, *mut c_int) -> u64;
    root: VmGetRootSnapshot fn(Handle, c_int, *mut Handle) -> u64;
    current: VmGetCurrentSnapshot fn(Handle, *mut Handle) -> u64;
    named: VmGetNamedSnapshot fn(Handle, Str, *mut Handle) -> u64;
    remove_snapshot: VmRemoveSnapshot fn(Handle, Handle, c_int, Callback, Data) -> Handle;
    revert: VmRevertToSnapshot fn(Handle, Handle, c_int, Handle, Callback, Data) -> Handle;
    create_snapshot: VmCreateSnapshot fn(Handle, Str, Str, c_int, Handle, Callback, Data) -> Handle;
    enable_folders: VmEnableSharedFolders fn(Handle, Bool, c_int, Callback, Data) -> Handle;
    count_folders: VmGetNumSharedFolders fn(Handle, Callback, Data) -> Handle;
    folder_state: VmGetSharedFolderState fn(Handle, c_int, Callback, Data) -> Handle;
    set_folder: VmSetSharedFolderState fn(Handle, Str, Str, c_int, Callback, Data) -> Handle;
    add_folder: VmAddSharedFolder fn(Handle, Str, Str, c_int, Callback, Data) -> Handle;
    remove_folder: VmRemoveSharedFolder fn(Handle, Str, c_int, Callback, Data) -> Handle;
    capture: VmCaptureScreenImage fn(Handle, c_int, Handle, Callback, Data) -> Handle;
    clone: VmClone fn(Handle, Handle, c_int, Str, c_int, Handle, Callback, Data) -> Handle;
    upgrade: VmUpgradeVirtualHardware fn(Handle, c_int, Callback, Data) -> Handle;
    install_tools: VmInstallTools fn(Handle, c_int, Str, Callback, Data) -> Handle;
    // Never called, for it waits without a limit. Its absence would still mean that this is no VIX library.
    job_wait: JobWait fn(Handle, c_int; ...) -> u64;
    check_completion: JobCheckCompletion fn(Handle, *mut Bool) -> u64;
    job_error: JobGetError fn(Handle) -> u64;
    count_properties: JobGetNumProperties fn(Handle, c_int) -> c_int;
    nth_properties: JobGetNthProperties fn(Handle, c_int, c_int; ...) -> u64;
    count_children: SnapshotGetNumChildren fn(Handle, *mut c_int) -> u64;
    child: SnapshotGetChild fn(Handle, c_int, *mut Handle) -> u64;
    parent: SnapshotGetParent fn(Handle, *mut Handle) -> u64;
}

/// A library that has been loaded, for good: its threads may run for as long as the process does.
pub(crate) struct Loaded {
    core: Arc<Core>,
    /// Functions of old libraries that this one still has.
    pub(crate) extras: Vec<&'static str>,
    _library: ManuallyDrop<libloading::Library>,
}

struct Core {
    table: Table,
}

/// Why a file is no library of use.
pub(crate) enum LoadFailure {
    System(String),
    Missing(Vec<&'static str>),
}

impl Loaded {
    /// Loads a file and looks up every function.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadFailure> {
        let library = open(path).map_err(|error| {
            // The system's own words are the error's source.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            LoadFailure::System(why)
        })?;
        let (table, missing) = Table::resolve(&library);
        if !missing.is_empty() {
            return Err(LoadFailure::Missing(missing));
        }
        let is_there = |name: &&'static str| {
            // SAFETY: only whether the symbol is there is looked at; it is never called.
            unsafe { library.get::<unsafe extern "C" fn()>(*name) }.is_ok()
        };
        let extras = REMOVED_IN_1_11.iter().copied().filter(is_there).collect();
        Ok(Self { core: Arc::new(Core { table }), extras, _library: ManuallyDrop::new(library) })
    }

    /// Calls a function that starts a job.
    fn start_job(&self, call: &Call<'_>, callback: Callback, data: Data) -> Result<Handle, HasNul> {
        const NONE: Handle = INVALID_HANDLE;
        let t = &self.core.table;
        // SAFETY, for each arm: the function's prototype is the table's; every string is NUL-ended, and lives until the
        // call has returned (VIX copies what it needs longer: its samples free or reuse their strings at once); handles
        // are numbers that VIX checks; `callback` is `on_event`, which may be called at any time from any thread with
        // any client data.
        macro_rules! call {
            ($field:ident($($arg:expr),*)) => {
                match t.$field {
                    Some(function) => unsafe { function($($arg,)* callback, data) },
                    None => NONE,
                }
            };
        }
        // Good until the end of the statement that it stands in, which is the call.
        macro_rules! c {
            (maybe $text:expr) => {
                Text::new().maybe($text)?
            };
            ($text:expr) => {
                Text::new().put($text)?
            };
        }
        Ok(match *call {
            Call::Connect { provider, host, port, user, password, options } => {
                let password = password.map(|hidden| hidden.0);
                call!(connect(
                    API_VERSION,
                    provider,
                    c!(maybe host),
                    port,
                    c!(maybe user),
                    c!(maybe password),
                    options,
                    NONE
                ))
            }
            Call::Register { host, vmx } => call!(register(host, c!(vmx))),
            Call::Unregister { host, vmx } => call!(unregister(host, c!(vmx))),
            Call::FindItems { host, search, timeout } => call!(find_items(host, search, NONE, timeout)),
            Call::HostOpen { host, vmx, options, properties } => {
                call!(host_open(host, c!(vmx), options, properties))
            }
            Call::Open { host, vmx } => call!(open(host, c!(vmx))),
            Call::PowerOn { vm, options } => call!(power_on(vm, options, NONE)),
            Call::PowerOff { vm, options } => call!(power_off(vm, options)),
            Call::Reset { vm, options } => call!(reset(vm, options)),
            Call::Suspend { vm } => call!(suspend(vm, 0)),
            Call::Pause { vm } => call!(pause(vm, 0, NONE)),
            Call::Unpause { vm } => call!(unpause(vm, 0, NONE)),
            Call::Delete { vm, options } => call!(delete(vm, options)),
            Call::WaitForTools { vm, seconds } => call!(wait_for_tools(vm, seconds)),
            Call::LogIn { vm, user, password, options } => {
                call!(log_in(vm, c!(user), c!(password.0), options))
            }
            Call::LogOut { vm } => call!(log_out(vm)),
            Call::RunProgram { vm, program, args, options } => {
                call!(run_program(vm, c!(program), c!(args), options, NONE))
            }
            Call::ListProcesses { vm } => call!(list_processes(vm, 0)),
            Call::KillProcess { vm, pid } => call!(kill_process(vm, pid, 0)),
            Call::RunScript { vm, interpreter, script, options } => {
                call!(run_script(vm, c!(maybe interpreter), c!(script), options, NONE))
            }
            Call::CopyToGuest { vm, from, to } => call!(copy_to_guest(vm, c!(from), c!(to), 0, NONE)),
            Call::CopyToHost { vm, from, to } => call!(copy_to_host(vm, c!(from), c!(to), 0, NONE)),
            Call::DeleteFile { vm, path } => call!(delete_file(vm, c!(path))),
            Call::FileExists { vm, path } => call!(file_exists(vm, c!(path))),
            Call::RenameFile { vm, from, to } => call!(rename_file(vm, c!(from), c!(to), 0, NONE)),
            Call::CreateTempFile { vm } => call!(create_temp_file(vm, 0, NONE)),
            Call::FileInfo { vm, path } => call!(file_info(vm, c!(path))),
            Call::ListDirectory { vm, path } => call!(list_directory(vm, c!(path), 0)),
            Call::CreateDirectory { vm, path } => call!(create_directory(vm, c!(path), NONE)),
            Call::DeleteDirectory { vm, path } => call!(delete_directory(vm, c!(path), 0)),
            Call::DirectoryExists { vm, path } => call!(directory_exists(vm, c!(path))),
            Call::ReadVariable { vm, kind, name } => call!(read_variable(vm, kind, c!(name), 0)),
            Call::WriteVariable { vm, kind, name, value } => {
                call!(write_variable(vm, kind, c!(name), c!(value), 0))
            }
            Call::RemoveSnapshot { vm, snapshot, options } => call!(remove_snapshot(vm, snapshot, options)),
            Call::Revert { vm, snapshot, options } => call!(revert(vm, snapshot, options, NONE)),
            Call::CreateSnapshot { vm, name, description, options } => {
                call!(create_snapshot(vm, c!(name), c!(description), options, NONE))
            }
            Call::EnableSharedFolders { vm, enabled } => call!(enable_folders(vm, enabled.into(), 0)),
            Call::CountSharedFolders { vm } => call!(count_folders(vm)),
            Call::SharedFolder { vm, index } => call!(folder_state(vm, index)),
            Call::SetSharedFolder { vm, name, path, flags } => {
                call!(set_folder(vm, c!(name), c!(path), flags))
            }
            Call::AddSharedFolder { vm, name, path, flags } => {
                call!(add_folder(vm, c!(name), c!(path), flags))
            }
            Call::RemoveSharedFolder { vm, name } => call!(remove_folder(vm, c!(name), 0)),
            Call::CaptureScreen { vm, format } => call!(capture(vm, format, NONE)),
            Call::Clone { vm, snapshot, kind, to } => call!(clone(vm, snapshot, kind, c!(to), 0, NONE)),
            Call::UpgradeHardware { vm } => call!(upgrade(vm, 0)),
            Call::InstallTools { vm, options } => call!(install_tools(vm, options, ptr::null())),
        })
    }
}

impl Core {
    fn property(&self, of: Handle, id: i32) -> Result<Value, Code> {
        let function = self.table.get_properties.ok_or(Code::from(error_code::NOT_SUPPORTED))?;
        // SAFETY: a property's number is followed by a pointer to a slot that is large enough for its type; a blob's by
        // two, the first to its size; the list ends with `VIX_PROPERTY_NONE`.
        self.read(id, |slots, is_blob| unsafe {
            if is_blob {
                function(of, id, &raw mut slots.size, slots.value(), property::NONE)
            } else {
                function(of, id, slots.value(), property::NONE)
            }
        })
    }

    /// Has a property written into slots, and takes it from there.
    fn read(&self, id: i32, write: impl FnOnce(&mut Slots, bool) -> u64) -> Result<Value, Code> {
        let Some(kind) = property::type_of(id) else {
            return Err(error_code::UNRECOGNIZED_PROPERTY.into());
        };
        let mut slots = Slots::new();
        Code(write(&mut slots, kind == Type::Blob)).ok()?;
        let free = |buffer| {
            if let Some(free) = self.table.free_buffer {
                // SAFETY: the library gave it out a moment ago, to be given back in this way; null is allowed.
                unsafe { free(buffer) }
            }
        };
        // SAFETY: the library says that it has written a value of this type.
        Ok(unsafe { slots.take(kind, free) })
    }
}

#[cfg(unix)]
fn open(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // Lazily: not every library has all that it refers to (github.com/hashicorp/packer/issues/876). Locally: it exports
    // much that is not VIX's.
    // SAFETY: initialisers of the library run; the user has named it, or it lies where only an administrator writes.
    unsafe { libloading::Library::new(path) }
}

#[cfg(windows)]
fn open(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
    // What it needs lies beside it, which is not where Windows looks by itself.
    // SAFETY: as above.
    unsafe { Library::load_with_flags(path, LOAD_WITH_ALTERED_SEARCH_PATH) }.map(Into::into)
}

/// The one callback: rings the bell whose number came as client data.
unsafe extern "C" fn on_event(_job: Handle, event: c_int, more: Handle, client: Data) {
    let ticket = Ticket::from_number(client as usize);
    match event {
        event_type::JOB_COMPLETED => bell::ring(ticket),
        event_type::FIND_ITEM => bell::found(ticket, more),
        // Progress, and whatever later versions think of.
        _ => {}
    }
}

/// Where a property is written: zeroed, and as large as the largest, so that a library that writes an `int` where the
/// header says `Bool` does no harm.
#[repr(C)]
union Slot {
    int: c_int,
    long: i64,
    boolean: Bool,
    pointer: *mut c_char,
}

struct Slots {
    value: Slot,
    /// Of a blob.
    size: c_int,
}

impl Slots {
    const fn new() -> Self {
        Self { value: Slot { long: 0 }, size: 0 }
    }

    fn value(&mut self) -> *mut Slot {
        &raw mut self.value
    }

    /// The value, copied. What the library has allocated goes to `free`.
    ///
    /// # Safety
    /// A value of this type was written, or nothing. A pointer in it is null, or to a NUL-ended string, or to as many
    /// bytes as `size` says.
    unsafe fn take(self, kind: Type, free: impl FnOnce(Data)) -> Value {
        // SAFETY: every bit pattern is good for each of the numbers, and all 8 bytes are initialised. The pointer is good
        // by the caller's word.
        unsafe {
            match kind {
                Type::Integer => Value::Int(self.value.int),
                Type::Int64 => Value::Int64(self.value.long),
                Type::Bool => Value::Bool(self.value.boolean != 0),
                Type::Handle => Value::Handle(self.value.int),
                Type::String => {
                    let text = lossy(self.value.pointer);
                    free(self.value.pointer.cast());
                    Value::Text(text)
                }
                Type::Blob => {
                    let (start, size) = (self.value.pointer.cast::<u8>(), usize::try_from(self.size).unwrap_or(0));
                    let bytes =
                        if start.is_null() { Vec::new() } else { std::slice::from_raw_parts(start, size).to_vec() };
                    free(start.cast());
                    Value::Blob(bytes)
                }
            }
        }
    }
}

/// A copy of a C string; nothing for a null pointer.
///
/// # Safety
/// The pointer is null, or to a NUL-ended string.
unsafe fn lossy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's word.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A string on its way to C. Short ones need no allocation; all are wiped afterwards, for some are passwords.
///
/// It is put where it then stays: of a `Text` that was moved, the bytes would stay behind where it was, and nobody wiped
/// them. So it is moved empty only, which [`Text::put`] sees to: its pointer is good only for as long as the place is.
struct Text {
    short: [u8; Self::SHORT],
    long: Vec<u8>,
}

impl Text {
    const SHORT: usize = 128;

    const fn new() -> Self {
        Self { short: [0; Self::SHORT], long: Vec::new() }
    }

    /// Puts a string here, once. The pointer to it is good for as long as this is not moved or dropped.
    fn put(&mut self, text: &str) -> Result<Str, HasNul> {
        if text.contains('\0') {
            return Err(HasNul);
        }
        if text.len() < Self::SHORT {
            self.short[..text.len()].copy_from_slice(text.as_bytes());
            return Ok(self.short.as_ptr().cast());
        }
        self.long.reserve_exact(text.len() + 1);
        self.long.extend_from_slice(text.as_bytes());
        self.long.push(0);
        Ok(self.long.as_ptr().cast())
    }

    /// As [`Text::put`]; a null pointer for no string.
    fn maybe(&mut self, text: Option<&str>) -> Result<Str, HasNul> {
        text.map_or(Ok(ptr::null()), |text| self.put(text))
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.short.zeroize();
        self.long.zeroize();
    }
}

impl Vix for Loaded {
    fn start(&self, call: &Call<'_>, done: Option<Ticket>) -> Result<Handle, HasNul> {
        let Some(ticket) = done else {
            return self.start_job(call, None, ptr::null_mut());
        };
        if matches!(call, Call::FindItems { .. }) {
            let core = Arc::clone(&self.core);
            bell::ask(ticket, move |item| match core.property(item, property::FOUND_ITEM_LOCATION) {
                Ok(Value::Text(location)) => Some(location),
                _ => None,
            });
        }
        self.start_job(call, Some(on_event), ptr::without_provenance_mut(ticket.number()))
    }

    fn is_complete(&self, job: Handle) -> Result<bool, Code> {
        let mut slots = Slots::new();
        let function = self.core.table.check_completion.ok_or(Code::from(error_code::NOT_SUPPORTED))?;
        // SAFETY: the slot is larger than the `Bool` that is written.
        Code(unsafe { function(job, slots.value().cast()) }).ok()?;
        // SAFETY: all of it is initialised.
        Ok(unsafe { slots.value.boolean } != 0)
    }

    fn job_error(&self, job: Handle) -> Code {
        // SAFETY: only a number goes in, and only a number comes out.
        self.core
            .table
            .job_error
            .map_or(Code::from(error_code::NOT_SUPPORTED), |function| Code(unsafe { function(job) }))
    }

    fn count(&self, job: Handle, id: i32) -> i32 {
        // SAFETY: as above.
        self.core.table.count_properties.map_or(0, |function| unsafe { function(job, id) })
    }

    fn nth(&self, job: Handle, index: i32, id: i32) -> Result<Value, Code> {
        let function = self.core.table.nth_properties.ok_or(Code::from(error_code::NOT_SUPPORTED))?;
        // SAFETY: as `Vix_GetProperties` in `Core::property`.
        self.core.read(id, |slots, is_blob| unsafe {
            if is_blob {
                function(job, index, id, &raw mut slots.size, slots.value(), property::NONE)
            } else {
                function(job, index, id, slots.value(), property::NONE)
            }
        })
    }

    fn property(&self, of: Handle, id: i32) -> Result<Value, Code> {
        self.core.property(of, id)
    }

    fn property_type(&self, of: Handle, id: i32) -> Result<i32, Code> {
        let mut kind = 0;
        let function = self.core.table.property_type.ok_or(Code::from(error_code::NOT_SUPPORTED))?;
        // SAFETY: an `int` is written where one is.
        Code(unsafe { function(of, id, &raw mut kind) }).ok()?;
        Ok(kind)
    }

    fn handle_type(&self, handle: Handle) -> i32 {
        // SAFETY: numbers only.
        self.core.table.handle_type.map_or(0, |function| unsafe { function(handle) })
    }

    fn look(&self, look: &Look<'_>) -> Result<i32, Code> {
        let t = &self.core.table;
        let mut out: c_int = 0;
        let to = &raw mut out;
        // SAFETY, for each arm: an `int` or a handle, which is one, is written to `out`; the string outlives the call.
        macro_rules! look {
            ($field:ident($($arg:expr),*)) => {
                match t.$field {
                    Some(function) => unsafe { function($($arg,)* to) },
                    None => error_code::NOT_SUPPORTED.into(),
                }
            };
        }
        let error = match *look {
            Look::CountRootSnapshots { vm } => look!(count_roots(vm)),
            Look::RootSnapshot { vm, index } => look!(root(vm, index)),
            Look::CurrentSnapshot { vm } => look!(current(vm)),
            Look::NamedSnapshot { vm, name } => {
                let mut place = Text::new();
                let name = place.put(name).map_err(|HasNul| Code::from(error_code::INVALID_ARG))?;
                look!(named(vm, name))
            }
            Look::CountChildren { snapshot } => look!(count_children(snapshot)),
            Look::Child { snapshot, index } => look!(child(snapshot, index)),
            Look::Parent { snapshot } => look!(parent(snapshot)),
        };
        Code(error).ok()?;
        Ok(out)
    }

    fn property_list(&self, host: Handle, id: i32, value: Hidden<'_>) -> Result<Handle, Code> {
        let mut list = INVALID_HANDLE;
        let function = self.core.table.alloc_list.ok_or(Code::from(error_code::NOT_SUPPORTED))?;
        let to = &raw mut list;
        // SAFETY: after its number comes a pointer to a string that outlives the call. The list ends with
        // `VIX_PROPERTY_NONE`.
        let error = unsafe {
            let mut place = Text::new();
            let value = place.put(value.0).map_err(|HasNul| Code::from(error_code::INVALID_ARG))?;
            function(host, to, id, value, property::NONE)
        };
        Code(error).ok()?;
        Ok(list)
    }

    fn text(&self, error: Code) -> String {
        let Some(function) = self.core.table.error_text else { return String::new() };
        // SAFETY: the locale must be null (VIX 1.13 reference, Vix_GetErrorText), and the text is static.
        unsafe { lossy(function(error.0, ptr::null())) }
    }

    fn add_ref(&self, handle: Handle) -> bool {
        // SAFETY: numbers only.
        self.core.table.add_ref.map(|function| unsafe { function(handle) }).is_some()
    }

    fn release(&self, handle: Handle) {
        if handle != INVALID_HANDLE
            && let Some(function) = self.core.table.release
        {
            // SAFETY: numbers only; the library ignores a handle that is dead.
            unsafe { function(handle) }
        }
    }

    fn disconnect(&self, host: Handle) {
        if let Some(function) = self.core.table.disconnect {
            // SAFETY: numbers only.
            unsafe { function(host) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::cell::Cell;
    use std::ffi::CString;

    /// What a library would have written, taken out again, and how often something was freed.
    fn take(value: Slot, size: c_int, kind: Type) -> (Value, usize) {
        let freed = Cell::new(0);
        // SAFETY: the tests below write what they say.
        let taken = unsafe {
            Slots { value, size }.take(kind, |buffer| {
                freed.set(freed.get() + 1);
                if !buffer.is_null() {
                    drop(CString::from_raw(buffer.cast()));
                }
            })
        };
        (taken, freed.get())
    }

    #[test]
    fn the_table_has_every_function_of_the_header() {
        assert_eq!(Table::FUNCTIONS, Function::ALL);
    }

    #[test]
    fn numbers_are_read_in_their_own_width() {
        assert_eq!(take(Slot { int: -5 }, 0, Type::Integer), (Value::Int(-5), 0));
        assert_eq!(take(Slot { long: 1 << 33 }, 0, Type::Int64), (Value::Int64(1 << 33), 0));
        assert_eq!(take(Slot { int: 17 }, 0, Type::Handle), (Value::Handle(17), 0));
    }

    #[test]
    fn a_bool_is_one_byte_whoever_wrote_more() {
        for (written, expected) in
            [(Slot { boolean: 1 }, true), (Slot { boolean: -1 }, true), (Slot { long: 0 }, false)]
        {
            assert_eq!(take(written, 0, Type::Bool), (Value::Bool(expected), 0));
        }
        if cfg!(target_endian = "little") {
            assert_eq!(take(Slot { int: 1 }, 0, Type::Bool), (Value::Bool(true), 0), "a library that writes an int");
        }
    }

    #[test]
    fn strings_are_copied_and_given_back() {
        let text = |bytes: &[u8]| Slot { pointer: CString::new(bytes).unwrap().into_raw() };
        assert_eq!(take(text("häuschen".as_bytes()), 0, Type::String), (Value::Text("häuschen".into()), 1));
        assert_eq!(take(text(b"\xff"), 0, Type::String), (Value::Text("\u{fffd}".into()), 1));
        assert_eq!(take(Slot { pointer: ptr::null_mut() }, 0, Type::String), (Value::Text(String::new()), 1));
    }

    #[test]
    fn blobs_are_as_long_as_their_size_says() {
        let blob = || Slot { pointer: CString::new("PNG and more").unwrap().into_raw() };
        assert_eq!(take(blob(), 3, Type::Blob), (Value::Blob(b"PNG".to_vec()), 1));
        assert_eq!(take(blob(), -1, Type::Blob), (Value::Blob(Vec::new()), 1));
        assert_eq!(take(Slot { pointer: ptr::null_mut() }, 3, Type::Blob), (Value::Blob(Vec::new()), 1));
    }

    #[test]
    fn texts_end_with_a_nul_wherever_they_are() {
        for length in [0, 1, Text::SHORT - 1, Text::SHORT, 70_000] {
            let text = "x".repeat(length);
            let mut place = Text::new();
            let to = place.put(&text).unwrap();
            // SAFETY: that is what is tested (and miri sees it if it is not so).
            assert_eq!(unsafe { lossy(to) }, text);
        }
        assert!(Text::new().maybe(None).unwrap().is_null());
        assert!(!Text::new().maybe(Some("")).unwrap().is_null());
        assert!(Text::new().put("a\0b").is_err());
    }

    #[cfg(target_os = "linux")]
    mod secrets {
        use std::cell::RefCell;

        use rstest::rstest;
        use vmtask_driver::Secret;
        use vmtask_driver::testing::TestSecret;

        use super::*;

        thread_local! {
            /// What the library is to be given.
            static EXPECTED: RefCell<Option<TestSecret>> = const { RefCell::new(None) };
        }

        /// A log-in that says 7 if it was given the secret, and keeps no copy.
        unsafe extern "C" fn log_in(_: Handle, _: Str, password: Str, _: c_int, _: Callback, _: Data) -> Handle {
            // SAFETY: the caller's word.
            let given = unsafe { CStr::from_ptr(password) };
            let is_it = EXPECTED.with_borrow(|expected| expected.as_ref().unwrap().is(given.to_bytes()));
            if is_it { 7 } else { INVALID_HANDLE }
        }

        #[rstest]
        #[case::short(80)]
        #[case::longest_without_an_allocation(Text::SHORT - 1)]
        #[case::long(3_000)]
        #[cfg_attr(miri, ignore = "it looks at its memory from outside")]
        fn a_password_that_was_given_to_the_library_is_wiped(#[case] letters: usize) {
            let library = libloading::Library::from(libloading::os::unix::Library::this());
            let (mut table, _) = Table::resolve(&library);
            table.log_in = Some(log_in);
            let core = Arc::new(Core { table });
            let vix = Loaded { core, extras: Vec::new(), _library: ManuallyDrop::new(library) };

            EXPECTED.set(Some(TestSecret::new(letters)));
            let copies = || EXPECTED.with_borrow(|expected| expected.as_ref().unwrap().copies_in_memory());
            let password = Secret::from_value(EXPECTED.with_borrow(|expected| expected.as_ref().unwrap().text(0)));
            let call = Call::LogIn { vm: 1, user: "user", password: Hidden(password.expose()), options: 0 };
            assert_eq!(vix.start(&call, None), Ok(7));
            assert_eq!(copies(), 1, "the secret itself");
            drop(password);
            assert_eq!(copies(), 0);
        }
    }

    #[test]
    fn a_callback_rings_by_its_number_alone() {
        let held = bell::Held::take().unwrap();
        let ring = |event, number| {
            // SAFETY: the callback takes any client data.
            unsafe { on_event(7, event, 0, ptr::without_provenance_mut(number)) }
        };
        ring(event_type::JOB_PROGRESS, held.ticket().number());
        ring(event_type::JOB_COMPLETED, usize::MAX);
        ring(event_type::JOB_COMPLETED, 0);
        assert!(!held.has_rung());
        ring(event_type::JOB_COMPLETED, held.ticket().number());
        assert!(held.has_rung());
    }
}
