//! placeholder
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
mod command;
mod error;
mod id;
mod input;
mod journal;
mod output;
mod phase;
mod policy;
mod spec;
mod time;
mod timers;
pub use command::*;
pub use error::*;
pub use id::*;
pub use input::*;
pub use journal::*;
pub use output::*;
pub use phase::*;
pub use policy::*;
pub use spec::*;
pub use time::*;
