//! The agent of a guest: PID 1 of a virtual machine, or an ordinary program in a system of somebody else's.
//!
//! As PID 1 it needs no arguments: it boots the system, and answers at the virtio-serial port until the machine ends. As an
//! ordinary program it is started as `agent WORKDIR [PORT]`, and answers at that device, or at its standard input and output,
//! until those end; it touches nothing outside the working directory then.
//!
//! All of its memory is static, or on the stack: 400 KiB and less than 128 KiB. What it says and hears is the page of the
//! crate `vmtask_guest_wire`.
#![cfg_attr(not(test), no_std, no_main)]
#![allow(clippy::result_large_err, reason = "there is no heap to keep an interpreter's name in")]
#![cfg_attr(test, allow(dead_code))]

mod boot;
mod files;
mod format;
mod incoming;
mod launch;
mod machine;
mod port;
mod program;
#[allow(unsafe_code, reason = "the one module that enters the kernel")]
mod sys;
mod system;
#[cfg(test)]
mod tests;
mod text;
mod turn;

use core::mem::MaybeUninit;

use vmtask_guest_wire::guest::Supervisor;

use crate::files::Work;
use crate::program::{Family, Lists};
use crate::sys::{Arguments, Borrowed, Errno, Once, Open, Pid, STDIN, STDOUT};
use crate::system::Machine;
use crate::turn::Turn;

/// What is large is not on the stack.
static LISTS: Once<Lists> = Once::new(Lists::new());
static SUPERVISOR: Once<MaybeUninit<Supervisor<Machine>>> = Once::new(MaybeUninit::uninit());

fn main(arguments: Arguments) -> ! {
    if sys::process_id() == Pid(1) {
        match init() {
            Ok(never) => match never {},
            // Nobody can reach this guest any more, and the kernel would panic if PID 1 ended.
            Err(Errno(number)) => {
                let number = text::Decimal::new(u64::try_from(number).unwrap_or_default());
                boot::say(&[b"the port has failed: error ", number.as_bytes()]);
                let _ = machine::power_off();
                sys::exit(1)
            }
        }
    }
    sys::exit(match guest_of_others(arguments) {
        Ok(()) => 0,
        Err(Errno(number)) => u8::try_from(number).unwrap_or(u8::MAX),
    })
}

/// PID 1's life.
fn init() -> sys::Result<core::convert::Infallible> {
    let port = boot::boot()?;
    let supervisor = supervisor(Work::new(c"/work")?, Family::ControlGroup)?;
    let mut turn = Turn::new(*port, *port)?;
    loop {
        // The end of this port only means that the host is away.
        turn.take(supervisor)?;
    }
}

/// An ordinary program's life: until its port ends.
fn guest_of_others(arguments: Arguments) -> sys::Result<()> {
    let work = Work::new(arguments.get(1).ok_or(Errno::INVAL)?)?;
    let supervisor = supervisor(work, Family::Children)?;
    let ended = match arguments.get(2) {
        Some(port) => {
            let port = sys::open(port, Open::READ_WRITE | Open::NONBLOCK | Open::NO_TERMINAL)?;
            serve(*port, *port, supervisor)
        }
        None => serve(STDIN, STDOUT, supervisor),
    };
    supervisor.system().kill();
    ended
}

fn serve(input: Borrowed, output: Borrowed, supervisor: &mut Supervisor<Machine>) -> sys::Result<()> {
    let mut turn = Turn::new(input, output)?;
    while turn.take(supervisor)? {}
    Ok(())
}

fn supervisor(work: Work, family: Family) -> sys::Result<&'static mut Supervisor<Machine>> {
    let lists = LISTS.take().ok_or(Errno::INVAL)?;
    let place = SUPERVISOR.take().ok_or(Errno::INVAL)?;
    Ok(place.write(Supervisor::new(Machine::new(work, family, lists))))
}
