//! The common ground of all adapters: the port to a hypervisor, and everything that one task needs around it on a host.
//!
//! ```text
//!                    task file ----------> TaskSpec
//!                                             |                        +------------------------------+
//!   terminal, BOINC, --- Handle: requests --> Driver <--- the port --->| Hypervisor: QEMU, VIX, Xen,  |
//!   your program     <-- Observer: News ---   |    |                   | the simulator, a mock        |
//!                                             |    |                   +------------------------------+
//!                             task directory, journal  result.json              registry of VMs
//! ```
//!
//! | what | for |
//! |---|---|
//! | [`Hypervisor`], [`PortError`], [`EventSink`], [`EffectToken`] | whoever adapts a hypervisor |
//! | [`Setup`], [`Driver`], [`Handle`], [`Observer`], [`News`], [`Ended`] | whoever runs a task in threads |
//! | [`TaskFile`], [`TaskDir`], [`JournalFile`], [`TaskResult`] | a task's files: what is wanted, where it lives, what is durable, what came of it |
//! | [`Registry`], [`Registration`] | finding every VM on a host, and removing those that nobody owns |
//! | [`Secret`], [`SecretSource`] | credentials, which live in adapters only |
//! | [`Storage`], [`replace_file`] | durable writes that a test can take apart |
//! | [`kit`] | an adapter's checkpoints: one store for all that is kept in a task's directory |
//! | `testing` (feature `test-support`), `MockHypervisor` (feature `mock`) | tests without waiting, without a hypervisor, and with losses of power |
//!
//! # One task from its file to its result
//!
//! The hypervisor here does nothing real. Everything else is as in a real run.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use vmtask_core::{
//!     Capabilities, Command, CommandId, Event, ExitStatus, Found, Op, Outcome, Pause, Reply, Report, Snapshots,
//! };
//! use vmtask_driver::*;
//! use std::time::Instant;
//!
//! /// A hypervisor in which every program ends at once, with exit code 0.
//! #[derive(Default)]
//! struct Pretended {
//!     events: Mutex<Option<EventSink>>,
//! }
//!
//! impl Hypervisor for Pretended {
//!     fn name(&self) -> &'static str {
//!         "pretended"
//!     }
//!     fn is_simulated(&self) -> bool {
//!         true
//!     }
//!     fn capabilities(&self) -> Result<Capabilities, PortError> {
//!         Ok(Capabilities {
//!             linked_clones: true,
//!             snapshots: Snapshots::Many,
//!             pause: Pause::Native,
//!             guest_login: false,
//!             outlives_manager: false,
//!             disk: false,
//!         })
//!     }
//!     fn watch(&self, events: EventSink) {
//!         *self.events.lock().unwrap() = Some(events);
//!     }
//!     fn carry_out(&self, command: &Command, _deadline: Instant, _token: &EffectToken) -> Result<Reply, PortError> {
//!         Ok(match command.op {
//!             Op::Probe => Reply::Found(Found::default()),
//!             Op::Provision(_) => Reply::Provisioned { running: true },
//!             Op::Launch => {
//!                 if let Some(events) = &*self.events.lock().unwrap() {
//!                     events.send(command.boot, Event::ProgramExited(ExitStatus::Code(0)));
//!                 }
//!                 Reply::Done
//!             }
//!             _ => Reply::Done,
//!         })
//!     }
//!     fn fence(&self, _id: CommandId, _deadline: Instant) -> Result<Fenced, PortError> {
//!         Ok(Fenced::Survived)
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let host = tempfile::tempdir()?;
//! # let here = host.path();
//! // What is wanted.
//! std::fs::write(here.join("hello.toml"), r#"
//!     name = "hello"
//!     platform = "x86_64-pc-linux-gnu"
//!     [program]
//!     path = "/bin/echo"
//!     args = ["hello"]
//! "#)?;
//! let file = TaskFile::load(&here.join("hello.toml"))?;
//! let inputs = file.check_inputs()?;
//!
//! // Where it lives: locked against a second manager, tied to this host and this task.
//! let hypervisor: Arc<dyn Hypervisor> = Arc::new(Pretended::default());
//! let storage: Arc<dyn Storage> = Arc::new(RealStorage);
//! let binding = Binding {
//!     host: HostId::of_this_host()?,
//!     hypervisor: hypervisor.name().to_owned(),
//!     fingerprint: String::new(),
//! };
//! let dir = TaskDir::open(&*storage, &file.default_dir(), file.spec(), &inputs, &binding)?;
//!
//! // What an earlier manager made durable, if there was one.
//! let (journal, loaded) = JournalFile::open(Arc::clone(&storage), dir.root(), dir.id().clone())?;
//! let record = loaded.map(|loaded| loaded.record);
//!
//! let driver = Setup::new(Arc::clone(&hypervisor), file.spec(), Box::new(journal)).with_record(record).build()?;
//! let handle = driver.handle(); // for other threads: handle.suspend(), handle.quit(budget), handle.abort()
//! let ended = driver.run(&mut |news: &News<'_>| {
//!     if let News::Report(Report::Phase(phase)) = news {
//!         println!("{phase}");
//!     }
//! })?;
//! assert_eq!(ended.outcome, Outcome::Completed { exit: ExitStatus::Code(0) });
//!
//! // What came of it.
//! let circumstances = Circumstances {
//!     platform: Platform { name: file.spec().platform.clone(), fingerprint: String::new() },
//!     execution: Execution {
//!         hypervisor: hypervisor.name().to_owned(),
//!         simulated: hypervisor.is_simulated(),
//!         ..Execution::default()
//!     },
//!     ..Circumstances::default()
//! };
//! TaskResult::new(file.spec(), &ended, circumstances, &dir.results())?.write(&*storage, &dir.results())?;
//! assert!(TaskResult::read(&dir.results())?.execution.simulated);
//! # drop(handle);
//! # Ok(())
//! # }
//! ```
//!
//! # For adapters that keep files of their own
//!
//! Whatever of an adapter's must survive a loss of power (a manifest, a checkpoint) is written through [`Storage`]:
//! [`replace_file`] for small files; [`Storage::create`] and [`StorageFile::sync`] for streams, or
//! [`Storage::sync_file`] for what a child process has written; then [`Storage::rename`] and [`Storage::sync_dir`]. A
//! test then gives it a `testing::RecordingStorage`, notes each promise with `mark`, and recovers from every one of the
//! `crashes`: see `tests/power_loss.rs` of this crate. Each rename and each unlink is an [`EffectToken::act`] of its own,
//! and nothing that may take long is inside of one.
//!
//! Checkpoints are kept by the store in [`kit`], whatever a hypervisor keeps of them.

mod clock;
mod credentials;
mod crew;
mod digest;
mod drive;
mod ended;
mod handle;
pub mod host_path;
mod journal;
pub mod kit;
mod port;
mod registry;
mod result;
mod room;
mod signal;
mod start_over;
mod storage;
mod sys;
mod task_dir;
mod task_file;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
pub mod wait;
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
pub use room::{file_size_limit, is_no_space, naming_the_limit};
pub use storage::*;
pub use task_dir::*;
pub use task_file::*;
