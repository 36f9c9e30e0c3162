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
//! * Feed every [`Input`] that occurs, in any order, and call [`Task::handle_timeout`] when [`Task::poll_timeout`] says
//!   so. Early or twice does no harm; late answers, duplicates and answers to an earlier manager are ignored.
//! * Then drain [`Task::poll_output`] until it returns `None`, and carry everything out:
//!   * [`Output::Persist`]: make the record durable, then feed [`Input::Persisted`]. Commands that rely on it are held
//!     back until then.
//!   * [`Output::Command`]: have it carried out (it may block: not on the loop's thread) and feed
//!     [`Input::Completed`] with its id. At most one command is in flight.
//!   * [`Output::Fence`]: make sure that the command can no longer act, without waiting for it, and feed
//!     [`Input::Fenced`].
//!   * [`Output::Report`]: tell whoever watches.
//! * The task is over when [`Task::outcome`] returns something: its last record is durable then.
//! * To go on after a crash, a loss of power or a stop, give the last durable [`Record`] to [`Task::restore`].
//!
//! # The driver loop
//!
//! Here with a hypervisor that does whatever it is told, a disk that is always fast, and a clock that counts:
//!
//! ```
//! use vmtask_core::{
//!     Boot, Capabilities, Command, Event, ExitStatus, Found, Input, Instant, Limits, Op, Outcome, Output, Pause, Plan,
//!     Policy, ProgramSpec, Reply, Request, Snapshots, Task, TaskSpec,
//! };
//!
//! // What to run. A file format is the driver's business; this is the plain data.
//! let spec = TaskSpec {
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
//! };
//! spec.check()?;
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
//! // A stand-in for a worker thread: returns what it would send to the loop's inbox.
//! fn carry_out(command: Command) -> Vec<Input> {
//!     let reply = match command.op {
//!         Op::Probe => Reply::Found(Found::default()),
//!         Op::Provision(_) => Reply::Provisioned { running: false },
//!         _ => Reply::Done,
//!     };
//!     let mut inbox = vec![Input::Completed { id: command.id, result: Ok(reply) }];
//!     if command.op == Op::Launch {
//!         let event = Event::ProgramExited(ExitStatus::Code(0));
//!         inbox.push(Input::Observed { boot: command.boot, event });
//!     }
//!     inbox
//! }
//!
//! let mut inbox = std::collections::VecDeque::from([Input::Request(Request::Start)]);
//! let mut clock = 0;
//! let outcome = loop {
//!     while let Some(output) = task.poll_output() {
//!         match output {
//!             Output::Persist(record) => inbox.push_back(Input::Persisted(record.seq)),
//!             Output::Command(command) => inbox.extend(carry_out(command)),
//!             Output::Fence(id) => inbox.push_back(Input::Fenced { id, survived: true }),
//!             Output::Report(report) => println!("{report:?}"),
//!         }
//!     }
//!     if let Some(outcome) = task.outcome() {
//!         break outcome;
//!     }
//!     clock += 1;
//!     match inbox.pop_front() {
//!         Some(input) => {
//!             task.handle_input(Instant::from_millis(clock), input)?;
//!         }
//!         None => task.handle_timeout(task.poll_timeout().expect("a task that waits has a timer")),
//!     }
//! };
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
//! | `machine` | the public face: inputs, outputs, timers |
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
//! * `tracing`: each input and output as an event at trace level.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod choose;
mod command;
mod error;
mod id;
mod input;
mod journal;
mod machine;
mod output;
mod phase;
mod policy;
mod recover;
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
pub use machine::{Canonical, Machine};
pub use output::{Cause, Leftover, Loss, Notice, Outcome, Output, Report};
pub use phase::{Back, Intent, Phase};
pub use policy::{Capabilities, Pause, Plan, Policy, Snapshots, Substitute};
pub use spec::{CheckpointSpec, FileIn, FileOut, Limits, ProgramSpec, SpecError, TaskSpec};
pub use task::Task;
pub use time::{Instant, Span};
