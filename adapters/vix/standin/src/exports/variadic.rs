//! The functions with variable arguments.
//!
//! ```text
//!   client --> exported symbol (jumps) --> variadic.c (takes the list apart) --> here (arrays)
//! ```
//!
//! The jump is needed because the symbols of a C library that is linked into this one are not exported; the way back is
//! by symbols that no linker exports either.

use std::arch::{global_asm, naked_asm};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use vmtask_vix_abi::{Error, Handle, error_code, property, property_type};

use super::put;
use crate::buffers;
use crate::failure::Failure;
use crate::handles::{self, Object};
use crate::property::{Properties, Value, type_number, unknown};

/// Where one property goes. Mirrors `struct place` of `variadic.c`.
#[repr(C)]
struct Place {
    id: i32,
    first: *mut c_void,
    second: *mut c_void,
}

/// One value of a property list. Mirrors `struct value` of `variadic.c`.
#[repr(C)]
struct Given {
    id: i32,
    kind: i32,
    number: i64,
    pointer: *const c_void,
}

unsafe extern "C" {
    fn vmtask_standin_c_get_properties();
    fn vmtask_standin_c_job_wait();
    fn vmtask_standin_c_job_get_nth_properties();
    fn vmtask_standin_c_alloc_property_list();
}

/// One exported function that jumps to its C side with every register and the stack as they are.
macro_rules! jump {
    ($($symbol:ident => $target:ident;)*) => {
        $(
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            extern "C" fn $symbol() {
                #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
                naked_asm!("jmp {}", sym $target);
                #[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
                naked_asm!("b {}", sym $target);
                #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
                naked_asm!("tail {}", sym $target);
            }
        )*
    };
}

jump! {
    Vix_GetProperties => vmtask_standin_c_get_properties;
    VixJob_Wait => vmtask_standin_c_job_wait;
    VixJob_GetNthProperties => vmtask_standin_c_job_get_nth_properties;
    VixPropertyList_AllocPropertyList => vmtask_standin_c_alloc_property_list;
}

/// A symbol for the C side that stays inside: `no_mangle` would export it.
macro_rules! inside {
    ($($symbol:literal => $function:ident;)*) => {
        $(
            #[cfg(not(any(windows, target_vendor = "apple")))]
            global_asm!(concat!(".globl ", $symbol), concat!(".hidden ", $symbol), concat!(".set ", $symbol, ", {}"), sym $function);
            #[cfg(target_vendor = "apple")]
            global_asm!(concat!(".globl _", $symbol), concat!(".private_extern _", $symbol), concat!(".set _", $symbol, ", {}"), sym $function);
            #[cfg(all(windows, not(target_arch = "x86")))]
            global_asm!(concat!(".globl ", $symbol), concat!(".set ", $symbol, ", {}"), sym $function);
            #[cfg(all(windows, target_arch = "x86"))]
            global_asm!(concat!(".globl _", $symbol), concat!(".set _", $symbol, ", {}"), sym $function);
        )*
    };
}

inside! {
    "vmtask_standin_type" => type_of;
    "vmtask_standin_get" => get;
    "vmtask_standin_wait" => wait;
    "vmtask_standin_nth" => nth;
    "vmtask_standin_alloc" => alloc;
}

/// The number of a property's type; -1 for a property without a name.
extern "C" fn type_of(id: i32) -> i32 {
    type_number(id).unwrap_or(-1)
}

unsafe extern "C" fn get(handle: Handle, places: *const Place, count: i32) -> Error {
    // SAFETY: the C side's array.
    answer(unsafe { list(places, count) }.and_then(|places| {
        let object = handles::get(handle)?;
        fill(places, |id| read(&object, id))
    }))
}

unsafe extern "C" fn wait(job: Handle, places: *const Place, count: i32) -> Error {
    // SAFETY: the C side's array.
    answer(unsafe { list(places, count) }.and_then(|places| {
        let job = handles::job(job)?;
        job.wait_for_ever();
        match job.error() {
            0 => fill(places, |id| job.property(0, id)),
            error => Err(Failure { error, text: String::new() }),
        }
    }))
}

unsafe extern "C" fn nth(job: Handle, index: i32, places: *const Place, count: i32) -> Error {
    // SAFETY: the C side's array.
    answer(unsafe { list(places, count) }.and_then(|places| {
        let job = handles::job(job)?;
        let index = usize::try_from(index)
            .map_err(|_| Failure::new(error_code::INVALID_ARG, format!("{index} is no index")))?;
        fill(places, |id| job.property(index, id))
    }))
}

unsafe extern "C" fn alloc(host: Handle, result: *mut Handle, values: *const Given, count: i32) -> Error {
    // SAFETY: the C side's array.
    answer(unsafe { list(values, count) }.and_then(|values| {
        if host != vmtask_vix_abi::INVALID_HANDLE {
            handles::host(host)?;
        }
        let mut properties = Properties::default();
        for given in values {
            // SAFETY: what the client gave for a property of this type.
            properties = properties.with(given.id, unsafe { taken(given) }?);
        }
        // SAFETY: the caller's pointer.
        unsafe { put(result, vmtask_vix_abi::INVALID_HANDLE) }?;
        let handle = handles::hand_out(host, Object::Properties(Arc::new(properties)))?;
        // SAFETY: the caller's pointer.
        unsafe { put(result, handle) }
    }))
}

fn answer(result: Result<(), Failure>) -> Error {
    result.map_or_else(|failure| failure.error, |()| 0)
}

/// The C side's array.
///
/// # Safety
/// `first` leads to `count` items, unless `count` is negative.
unsafe fn list<'a, T>(first: *const T, count: i32) -> Result<&'a [T], Failure> {
    let too_many = |_| Failure::new(error_code::ARGUMENT_TOO_BIG, "more than 128 properties");
    let count = usize::try_from(count).map_err(too_many)?;
    // SAFETY: promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A property of any object.
pub(super) fn read(object: &Object, id: i32) -> Result<Value, Failure> {
    match object {
        Object::Host(host) => match id {
            property::HOST_HOSTTYPE => Ok(Value::Integer(host.product().provider())),
            property::HOST_API_VERSION => Ok(Value::Integer(1)),
            property::HOST_SOFTWARE_VERSION => {
                Ok(Value::Text(format!("vmtask stand-in {} as {}", env!("CARGO_PKG_VERSION"), host.product())))
            }
            _ => Err(unknown(id)),
        },
        Object::Vm(vm) => vm.property(id),
        Object::Snapshot(snapshot) => snapshot.property(id),
        Object::Job(job) => job.property(0, id),
        Object::Properties(list) => list.get(id).cloned().ok_or_else(|| unknown(id)),
    }
}

/// Reads every property, and only if that worked writes them all: nothing is handed out that nobody knows of.
fn fill(places: &[Place], read: impl Fn(i32) -> Result<Value, Failure>) -> Result<(), Failure> {
    let mut values = Vec::with_capacity(places.len());
    for place in places {
        let value = read(place.id)?;
        if place.first.is_null() || matches!(value, Value::Blob(_)) && place.second.is_null() {
            let why = format!("a pointer for the property {} is missing", place.id);
            return Err(Failure::new(error_code::INVALID_ARG, why));
        }
        values.push(value);
    }
    for (place, value) in places.iter().zip(values) {
        // SAFETY: the client's pointers for a property of this type; not null, as was checked.
        unsafe { hand_over(place, value) }?;
    }
    Ok(())
}

/// Writes one value.
///
/// # Safety
/// The place's pointers lead to what a property of the value's type needs.
unsafe fn hand_over(place: &Place, value: Value) -> Result<(), Failure> {
    // SAFETY (of each): promised by the caller.
    match value {
        Value::Integer(number) => unsafe { put(place.first.cast(), number) },
        Value::Int64(number) => unsafe { put(place.first.cast(), number) },
        Value::Bool(flag) => unsafe { put(place.first.cast(), vmtask_vix_abi::Bool::from(flag)) },
        Value::Text(text) => unsafe { put(place.first.cast(), buffers::hand_out_text(&text)) },
        Value::Handle(handle) => {
            handles::add_reference(handle);
            unsafe { put(place.first.cast(), handle) }
        }
        Value::Blob(bytes) => {
            unsafe { put(place.first.cast(), bytes.len() as i32) }?;
            unsafe { put(place.second.cast(), buffers::hand_out(&bytes)) }
        }
    }
}

/// What a client put into a property list.
///
/// # Safety
/// The pointer is null or leads to what a property of this type needs.
unsafe fn taken(given: &Given) -> Result<Value, Failure> {
    let null = || Failure::new(error_code::INVALID_ARG, format!("the value of the property {} is missing", given.id));
    match given.kind {
        property_type::INTEGER => Ok(Value::Integer(given.number as i32)),
        property_type::BOOL => Ok(Value::Bool(given.number as u8 != 0)),
        property_type::INT64 => Ok(Value::Int64(given.number)),
        property_type::HANDLE => {
            let handle = given.number as Handle;
            match handles::add_reference(handle) {
                true => Ok(Value::Handle(handle)),
                false => Err(Failure::new(error_code::INVALID_HANDLE, format!("{handle} is not a handle"))),
            }
        }
        property_type::STRING if !given.pointer.is_null() => {
            // SAFETY: not null, and the caller promises a text.
            let text = unsafe { CStr::from_ptr(given.pointer.cast::<c_char>()) };
            let bad = |_| Failure::new(error_code::INVALID_UTF8_STRING, "a text in a property list is not UTF-8");
            text.to_str().map(|text| Value::Text(text.to_owned())).map_err(bad)
        }
        property_type::BLOB if !given.pointer.is_null() => {
            let size = usize::try_from(given.number).map_err(|_| null())?;
            // SAFETY: not null, and the caller promises so many bytes.
            Ok(Value::Blob(unsafe { std::slice::from_raw_parts(given.pointer.cast::<u8>(), size) }.to_vec()))
        }
        property_type::STRING | property_type::BLOB => Err(null()),
        _ => Err(unknown(given.id)),
    }
}
