//! Ports, blocking driver loop, journal and VM registry for vmtask-core.

mod clock;
mod credentials;
mod crew;
mod digest;
mod drive;
mod ended;
mod handle;
mod journal;
mod port;
mod registry;
mod result;
mod storage;
mod sys;
mod task_dir;
mod task_file;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
mod writer;

pub use clock::*;
pub use credentials::*;
pub use digest::*;
pub use drive::*;
pub use ended::*;
pub use handle::*;
pub use journal::*;
pub use port::*;
pub use registry::*;
pub use result::*;
pub use storage::*;
pub use task_dir::*;
pub use task_file::*;
