//! For tests, here and in the adapters: time and storage under the test's hand. Feature `test-support`.
//!
//! * [`ManualClock`]: a driver runs without any real waiting.
//! * [`RecordingStorage`]: what was written and flushed, and every state that a loss of power could leave behind.
//! * [`FaultyStorage`]: storage that fails from some operation on.
//! * [`MemoryStore`]: a journal in memory.
//! * `TestSecret` (on Linux): how many copies of a secret lie in this process's memory.

mod clock;
mod faulty;
mod power;
#[cfg(target_os = "linux")]
mod secret;

pub use clock::ManualClock;
pub use faulty::{FaultyStorage, MemoryStore};
pub use power::{Crash, RecordingStorage};
#[cfg(target_os = "linux")]
pub use secret::TestSecret;
