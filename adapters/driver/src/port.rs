//! The port to a hypervisor: what an adapter implements and the driver calls.
//!
//! ```text
//!   driver's loop -- carry_out(command, deadline, token) --> worker thread --> Hypervisor  (blocks; may be abandoned)
//!                 -- fence(id, deadline) ------------------> fence thread ---> Hypervisor  (never waits for carry_out)
//!                 <- (boot, event) ----------------------------------------- EventSink   (from any thread, at any time)
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vmtask_core::{Boot, Capabilities, Command, CommandId, Event, Fault, FaultKind, Reply};

/// One virtual machine for one task.
///
/// An adapter is made for one task: it knows the task's files, its directory and its platform, and keeps credentials
/// to itself. All its methods may be called from different threads at the same time.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Hypervisor: Send + Sync {
    /// What it is called in messages and results: "qemu", "vix", "simulated".
    fn name(&self) -> &'static str;

    /// Whether nothing real happens. Said in the first and last line of a run and in its result.
    fn is_simulated(&self) -> bool {
        false
    }

    /// What it can do. Changes nothing.
    ///
    /// # Errors
    /// If the hypervisor cannot be used at all: missing, too old, not willing to start.
    fn capabilities(&self) -> Result<Capabilities, PortError>;

    /// Where events go from now on. Called once, before the first command.
    fn watch(&self, events: EventSink);

    /// Carries out one command and returns when that is done, has failed, or (sliced ops) when a slice is done.
    ///
    /// Blocks for as long as the hypervisor takes, but returns by `deadline`, with [`FaultKind::Unknown`] if it cannot
    /// tell by then what became of the command: later the machine no longer waits for the answer, and fences. What an
    /// adapter waits for on the way there it bounds with a [`Wait`](crate::wait::Wait). The deadline is the command's
    /// own ([`Command::deadline`] counts on the driver's clock) less what the answer needs to reach the machine.
    ///
    /// Called from one thread at a time, unless a fence has abandoned an earlier call, which may then still be on its
    /// way: whatever it does to files that outlive it must go through [`EffectToken::act`].
    ///
    /// The calling thread may end at any time between two calls (when it was abandoned, say): tie nothing to it that
    /// must live as long as the VM, such as a parent-death signal.
    ///
    /// # Errors
    /// See [`FaultKind`] for what each kind promises.
    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError>;

    /// Makes sure that the command named, and every earlier one, can no longer act on the VM. Their tokens have been
    /// revoked already. Should make [`Hypervisor::carry_out`] return, and may wait for that, but not beyond its share of
    /// the time.
    ///
    /// Returns by `deadline`: later the task has ended with the VM named as a leftover. An adapter that does several
    /// things one after the other divides the time among them with [`Shares`](crate::wait::Shares), so that powering
    /// off still has its own when all before it hangs.
    ///
    /// # Errors
    /// If the command may still act: the task then ends with the VM named as a leftover.
    fn fence(&self, id: CommandId, deadline: Instant) -> Result<Fenced, PortError>;
}

/// What became of the VM that a fence was about. Either way, no command from before the fence acts on it any more, and no
/// snapshot is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fenced {
    /// The guest is as the commands before the fence left it, running or held, and can be worked with. Whether the last
    /// of them had its effect is found out by a probe.
    Survived,
    /// The VM is off, or there is none, and what was in the guest's memory is gone. Whole checkpoints stand.
    PoweredOff,
}

/// A fault with its story: the core goes by the [`Fault`], people by the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// What the core goes by.
    pub fault: Fault,
    /// What was attempted, on what, what came back, and the way out. Never a credential.
    pub message: String,
}

impl PortError {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { fault: Fault::new(kind), message: message.into() }
    }

    /// With the hypervisor's own number.
    #[must_use]
    pub fn with_code(mut self, code: u32) -> Self {
        self.fault.code = code;
        self
    }
}

/// Takes events from an adapter to the machine.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(Boot, Event) + Send + Sync>);

impl EventSink {
    /// A sink that calls `deliver`, which must not block.
    pub fn new(deliver: impl Fn(Boot, Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(deliver))
    }

    /// Delivers one event of one boot.
    pub fn send(&self, boot: Boot, event: Event) {
        (self.0)(boot, event);
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSink")
    }
}

/// A command's leave to change files that outlive it.
///
/// A worker that hangs in a system call cannot be killed, only abandoned. Before the driver fences, it revokes the
/// command's token: from then on nothing that the abandoned worker does through [`EffectToken::act`] happens any more,
/// and what had begun is over, because revoking waits for it.
#[derive(Clone, Debug)]
pub struct EffectToken {
    revoked: Arc<Mutex<bool>>,
}

impl EffectToken {
    /// A token that is good until it is revoked.
    #[must_use]
    pub fn new() -> Self {
        Self { revoked: Arc::new(Mutex::new(false)) }
    }

    /// Does one thing that cannot take long, and that the file system does whole or not at all (a rename, an unlink,
    /// taking a place in memory), unless the token has been revoked.
    ///
    /// [`EffectToken::revoke`] waits for it, and with that every fence: what reads, writes or flushes data, deletes more
    /// than one name or waits for anybody belongs outside, before it under a name that does not count or after it. What
    /// is to be deleted in many pieces takes an act for each, as [`remove_tree`](crate::kit::remove_tree) does.
    ///
    /// # Errors
    /// [`FaultKind::Refused`] if it has; nothing was done.
    pub fn act<T>(&self, what: impl FnOnce() -> T) -> Result<T, PortError> {
        // A poisoned lock means that an effect panicked halfway: whoever comes next may still decide to revoke.
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        if *revoked {
            return Err(PortError::new(FaultKind::Refused, "the command was fenced before it could act"));
        }
        Ok(what())
    }

    /// Whether it has been revoked: a hint for long loops; only [`EffectToken::act`] is sure.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the leave back. When this returns, nothing acts under this token any more.
    pub fn revoke(&self) {
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Default for EffectToken {
    fn default() -> Self {
        Self::new()
    }
}
