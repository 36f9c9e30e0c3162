//! Where the program starts, the one instruction that enters the kernel, and what the linker wants to find.

use core::arch::asm;

use super::Errno;

/// The numbers of x86_64's system calls.
pub(super) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const FSTAT: usize = 5;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const MUNMAP: usize = 11;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const PREAD64: usize = 17;
    pub(crate) const DUP2: usize = 33;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const SOCKET: usize = 41;
    pub(crate) const BIND: usize = 49;
    pub(crate) const FORK: usize = 57;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const CHDIR: usize = 80;
    pub(crate) const FCHMOD: usize = 91;
    pub(crate) const UMASK: usize = 95;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const PERSONALITY: usize = 135;
    pub(crate) const FSTATFS: usize = 138;
    pub(crate) const SETPRIORITY: usize = 141;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const SETRLIMIT: usize = 160;
    pub(crate) const SYNC: usize = 162;
    pub(crate) const MOUNT: usize = 165;
    pub(crate) const REBOOT: usize = 169;
    pub(crate) const SETHOSTNAME: usize = 170;
    pub(crate) const GETDENTS64: usize = 217;
    pub(crate) const CLOCK_SETTIME: usize = 227;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const EPOLL_WAIT: usize = 232;
    pub(crate) const EPOLL_CTL: usize = 233;
    pub(crate) const WAITID: usize = 247;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const MKDIRAT: usize = 258;
    pub(crate) const UNLINKAT: usize = 263;
    pub(crate) const RENAMEAT: usize = 264;
    pub(crate) const SYMLINKAT: usize = 266;
    pub(crate) const READLINKAT: usize = 267;
    pub(crate) const SIGNALFD4: usize = 289;
    pub(crate) const EPOLL_CREATE1: usize = 291;
    pub(crate) const PIPE2: usize = 293;
    pub(crate) const FINIT_MODULE: usize = 313;
}

/// Enters the kernel.
///
/// # Safety
/// Whatever the call of this number wants of its arguments must hold: pointers that are valid for what it reads and
/// writes behind them.
pub(super) unsafe fn call(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result: isize;
    // Safety: the caller's, for the call itself; the instruction changes rax, rcx and r11 besides memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        -4095..=-1 => Err(Errno(-result as i32)),
        _ => Ok(result as usize),
    }
}

#[cfg(not(test))]
mod start {
    use core::arch::naked_asm;
    use core::ffi::c_char;

    use super::super::Arguments;

    /// Where the kernel starts the program: the stack holds the number of words, and pointers to them.
    #[unsafe(no_mangle)]
    #[unsafe(naked)]
    extern "C" fn _start() -> ! {
        naked_asm!("mov rdi, rsp", "and rsp, -16", "xor ebp, ebp", "call {begin}", "ud2", begin = sym begin)
    }

    /// # Safety
    /// Only `_start` calls it, with the stack pointer that the kernel gave.
    unsafe extern "C" fn begin(stack: *const usize) -> ! {
        // Safety: see above.
        let arguments = Arguments { count: unsafe { *stack }, first: stack.wrapping_add(1).cast::<*const c_char>() };
        crate::main(arguments)
    }

    unsafe extern "C" {
        /// There is no such function: a program that could panic cannot be linked.
        fn the_agent_can_panic() -> !;
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // Safety: never called, since then there would be no program.
        unsafe { the_agent_can_panic() }
    }

    /// What core's precompiled functions name for unwinding, which does not happen.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}
}
