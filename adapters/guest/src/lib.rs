//! The host's way into a guest: [`Client`] speaks with the agent that runs there, over any stream of bytes; [`AGENT`] is
//! that agent, to be put into a guest's image.
//!
//! ```no_run
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//! use vmtask_guest::{Client, Launch, Words};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // QEMU's end of the virtio-serial port `org.vmtask.agent.0`. Connected before the guest runs: see the wire's first page.
//! let stream = UnixStream::connect("agent.sock")?;
//! stream.set_read_timeout(Some(Duration::from_millis(100)))?;
//! let mut client = Client::new(stream, || true);
//! client.greet(1)?;
//! client.make_workdir(false)?;
//! let launch = Launch { program: b"/bin/date", stdout: b"out", arguments: Words::new(&[b"-u"]), ..Launch::default() };
//! client.launch(&launch)?;
//! let exit = client.wait_for_exit(|_| {})?;
//! client.acknowledge()?;
//! let mut date = Vec::new();
//! let file = client.get(b"out", 1 << 20, &mut date, |_, _| {})?;
//! println!("{exit:?}: {} bytes", file.size);
//! # Ok(())
//! # }
//! ```

mod client;
mod sentence;

pub use client::{Client, Got, GuestError, Put};
pub use sentence::remarks;
pub use vmtask_guest_wire::message::{End, Exit, Launch, Phase, State, Text, Words};
pub use vmtask_guest_wire::refusal::{About, Cause, NotRegular, Refusal};

/// The agent: a static program for x86_64, PID 1 of a guest. Beside it in the repository a text names its SHA-256, and the
/// compiler that makes these bytes of its source.
pub const AGENT: &[u8] = include_bytes!("../bin/agent-x86_64");
