//! Ports, blocking driver loop, journal and VM registry for vmtask-core.

mod port;

pub use port::*;
