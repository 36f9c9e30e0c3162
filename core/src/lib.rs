//! A sans-IO state machine for one task in one virtual machine: lifecycle, checkpoints, restart.
//!
//! A *task* is a Linux program with its input files, run in a virtual machine that is the same everywhere. This crate
//! decides; it does nothing. It says which command a hypervisor should carry out next, what must be durable before,
//! what to do when a command times out, the guest dies, the computer sleeps or the manager is killed. It has no I/O, no
//! clock, no threads and no unsafe code, it does not allocate once it runs, and it builds without `std`. Whoever embeds
//! it owns the loop.
//!
//! # The contract
//!
//! * Draw a fresh random `epoch` for each machine that you make.
//! * Feed every [`Input`] that occurs, in any order, by [`Task::handle_input`], which cannot fail: late answers,
//!   duplicates and answers to an earlier manager are ignored. Pass on what people want by [`Task::handle_request`],
//!   which may deny it; the task goes on as before then, so never leave the loop over it. Call [`Task::handle_timeout`]
//!   when [`Task::poll_timeout`] says so; early or twice does no harm. While a task is held there is no such time.
//! * Then drain [`Task::poll_output`] until it returns `None`, and carry everything out:
//!   * [`Output::Persist`]: make the record durable, then feed [`Input::Persisted`]. Commands that rely on it are held
//!     back until then. If it does not become durable within [`Policy::journal`], the machine takes the VM down and ends
//!     the task with [`Cause::Journal`]; if you know that it never will, feed [`Input::JournalLost`].
//!   * [`Output::Command`]: have it carried out (it may block: not on the loop's thread) and feed
//!     [`Input::Completed`] with its id. At most one command is in flight.
//!   * [`Output::Fence`]: make sure that the command can no longer act, without waiting for it, and feed
//!     [`Input::Fenced`].
//!   * [`Output::Report`]: tell whoever watches.
//! * The task is over when [`Task::outcome`] returns something: its last record is durable then, unless the journal
//!   itself was lost.
//! * To go on after a crash, a loss of power or a stop, give the last durable [`Record`] to [`Task::restore`].
//!
//! # The driver loop
//!
//! The loop itself, whatever is around it; and a task for it, with a hypervisor that does whatever it is told, a disk
//! that is always fast, and a clock that jumps to the next timer when nothing happens:
//!
//! ```
//! use std::collections::VecDeque;
//! use vmtask_core::{
//!     Capabilities, Command, CommandId, Event, ExitStatus, Found, Input, Instant, Limits, Op, Outcome, Output, Pause,
//!     Plan, Policy, ProgramSpec, Record, Reply, Report, Request, Snapshots, Stimulus, Task, TaskDraft,
//! };
//!
#![doc = include_str!("../guide/loop.rs")]
//!
//! // What to run. A file format is the driver's business; this is the plain data, checked before it is used.
//! let spec = TaskDraft {
//!     name: "leibniz".into(),
//!     platform: "x86_64-pc-linux-gnu".into(),
//!     program: ProgramSpec {
//!         path: "leibniz".into(),
//!         args: vec!["1000".into()],
//!         env: Default::default(),
//!         stdout: "stdout.txt".into(),
//!         stderr: "stderr.txt".into(),
//!         progress: None,
//!     },
//!     files_in: vec![],
//!     files_out: vec![],
//!     checkpoint: None,
//!     limits: Limits::default(),
//! }
//! .check()?;
//!
//! // What the hypervisor can do. A plan that it cannot carry out fails here, before anything is touched.
//! let capabilities = Capabilities {
//!     linked_clones: true,
//!     snapshots: Snapshots::Many,
//!     pause: Pause::Native,
//!     guest_login: false,
//!     outlives_manager: false,
//!     disk: false,
//! };
//! let plan = Plan::new(&spec, Policy::default(), capabilities)?;
//! let mut task = Task::new(plan, 0x5eed /* from the operating system */);
//!
//! struct Toy {
//!     inbox: VecDeque<Stimulus>,
//!     now: Instant,
//! }
//!
//! impl Surroundings for Toy {
//!     fn persist(&mut self, record: Record) {
//!         self.inbox.push_back(Input::Persisted(record.seq).into());
//!     }
//!
//!     fn carry_out(&mut self, command: Command) {
//!         let reply = match command.op {
//!             Op::Probe => Reply::Found(Found::default()),
//!             Op::Provision(_) => Reply::Provisioned { running: false },
//!             _ => Reply::Done,
//!         };
//!         self.inbox.push_back(Input::Completed { id: command.id, result: Ok(reply) }.into());
//!         if command.op == Op::Launch {
//!             let event = Event::ProgramExited(ExitStatus::Code(0));
//!             self.inbox.push_back(Input::Observed { boot: command.boot, event }.into());
//!         }
//!     }
//!
//!     fn fence(&mut self, id: CommandId) {
//!         self.inbox.push_back(Input::Fenced { id, survived: true }.into());
//!     }
//!
//!     fn report(&mut self, report: Report) {
//!         println!("{report:?}");
//!     }
//!
//!     fn wait(&mut self, until: Option<Instant>) -> (Instant, Option<Stimulus>) {
//!         let happened = self.inbox.pop_front();
//!         if happened.is_none() {
//!             self.now = until.expect("nobody is left who could ask for something");
//!         }
//!         (self.now, happened)
//!     }
//! }
//!
//! let mut toy = Toy { inbox: VecDeque::from([Request::Start.into()]), now: Instant::ZERO };
//! let outcome = drive(&mut task, &mut toy);
//! assert_eq!(outcome, Outcome::Completed { exit: ExitStatus::Code(0) });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The examples `threads`, `tokio` and `mio` drive the same machine from three real event loops, and `vmtask-driver`
//! is a complete blocking driver with journal and worker.
//!
//! # Where things are
//!
//! | module | subject |
//! |---|---|
//! | `machine` | the public face: requests, inputs, outputs, timers |
//! | `life` | what is believed of one life of the guest |
//! | `step` | the transition function |
//! | `choose` | what to do next, from what is believed and what is wanted |
//! | `recover` | restart, loss, fall-back |
//! | `phase` | [`Phase`], [`Intent`] and the state diagram |
//! | [`table`] | the expected verdict for every phase and trigger, written independently of `step` |
//! | `command`, `input`, `output`, `journal` | the vocabulary |
//! | `spec`, `policy` | what a task is, and how it is to be treated |
//!
//! # Features
//!
//! * `serde`: records, specs, commands and reports as data.
//! * `tracing`: each request, input and output as an event at trace level.
//! * `explore`: machines that can be copied, and compared apart from their names, for simulators. Two copies must not
//!   both answer for one task.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod choose;
mod command;
mod error;
mod id;
mod input;
mod journal;
mod life;
mod machine;
mod output;
mod phase;
mod policy;
mod recover;
mod report;
mod spec;
mod step;
pub mod table;
mod task;
mod time;
mod timers;

pub use command::{Base, Command, Keep, Op, OpKind};
pub use error::{Accepted, Denied, Ignored, PlanError, RestoreError};
pub use id::{BadGenerations, Boot, CommandId, FileIx, Generation, Generations, JournalSeq, MAX_GENERATIONS};
pub use input::{Event, ExitStatus, Fault, FaultKind, Found, Input, Power, Program, Reply, Request};
pub use journal::{RECORD_VERSION, Record};
#[cfg(feature = "explore")]
pub use machine::Canonical;
pub use machine::{Machine, WaitsFor};
pub use output::{Cause, Leftover, Loss, Notice, Outcome, Output, Report, Unfit};
pub use phase::{Back, Intent, Phase};
pub use policy::{Capabilities, Pause, Plan, Policy, Snapshots, Substitute};
pub use spec::{CheckpointSpec, FileIn, FileOut, Limits, ProgramSpec, SpecError, TaskDraft, TaskSpec};
pub use table::Stimulus;
pub use task::Task;
pub use time::{Instant, Span};
