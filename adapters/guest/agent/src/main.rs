#![cfg_attr(not(test), no_std, no_main)]
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
#[cfg(test)]
mod tests;
mod text;
mod turn;

#[cfg(not(test))]
fn main(arguments: sys::Arguments) -> ! {
    let _ = arguments.get(0);
    sys::exit(1)
}
