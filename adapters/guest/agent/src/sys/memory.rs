//! The four functions that compiled Rust calls for moving memory, which a C library would bring.
//!
//! In assembly: written as loops, the compiler would recognise them and call themselves. Words of eight bytes first, for
//! software emulation executes a repeated instruction step by step.

use core::arch::asm;

/// # Safety
/// C's `memcpy`: both regions are `count` bytes long and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // Safety: the caller's. The direction flag is clear, as the calling convention says.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) count % 8,
            inout("rcx") count / 8 => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
/// C's `memmove`: both regions are `count` bytes long.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // Safety: going upwards, no byte of `from` is overwritten before it was read.
        return unsafe { memcpy(to, from, count) };
    }
    // Safety: the caller's; downwards for the same reason, and the direction flag is cleared again.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    to
}

/// # Safety
/// C's `memset`: the region is `count` bytes long.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    let word = u64::from(byte as u8).wrapping_mul(0x0101_0101_0101_0101);
    // Safety: the caller's.
    unsafe {
        asm!(
            "rep stosq",
            "mov rcx, {rest}",
            "rep stosb",
            rest = in(reg) count % 8,
            inout("rcx") count / 8 => _,
            inout("rdi") to => _,
            in("rax") word,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
/// C's `memcmp`: both regions are `count` bytes long.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    let mut at = 0;
    while at < count {
        // Safety: the caller's, below `count`.
        let (one, other) = unsafe { (*one.add(at), *other.add(at)) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
        at += 1;
    }
    0
}

/// # Safety
/// C's `bcmp`: both regions are `count` bytes long.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // Safety: the caller's.
    unsafe { memcmp(one, other, count) }
}

/// # Safety
/// C's `strlen`: a NUL follows.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let end: *const u8;
    // Safety: the caller's: up to and with the NUL.
    unsafe {
        asm!(
            "repne scasb",
            inout("rcx") usize::MAX => _,
            inout("rdi") text => end,
            in("al") 0_u8,
            options(nostack, readonly),
        );
    }
    (end as usize).wrapping_sub(text as usize).wrapping_sub(1)
}
