//! Checkpoints that hold only what differs from the template that the guest was cloned from.
//!
//! ```text
//!   saving      QEMU --pipe--> thin: drops pages equal to the template's --> LZ4, SHA-256 --> 7.part
//!   restoring   7.ram --> un-LZ4 --socket--> QEMU, whose memory is a private mapping of that template
//! ```
//! What is left of a migration stream without some of its pages is itself a migration stream: QEMU loads it over whatever
//! its memory holds. So nothing of QEMU's is changed, and `lz4 -d` makes of a checkpoint what `-incoming` takes.
//!
//! A guest that was not cloned has no template, and its stream is packed whole.
//!
//! | file | |
//! |---|---|
//! | `thin` | the migration stream, and which of its pages may go |
//! | `pack` | the threads at the other end of QEMU's descriptors |
//! | `template` | the template's memory that a running guest is compared with, kept for as long as a checkpoint needs it |

mod pack;
mod template;
mod thin;

pub(crate) use pack::{Feed, PackError, Packing};
pub(crate) use template::{BaseMemory, Pinned, place, sweep};
