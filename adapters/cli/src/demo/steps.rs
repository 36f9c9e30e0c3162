//! A hypervisor that looks over another one's shoulder: which commands it carried out, and how long each took.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmtask_core::{Base, Capabilities, Command, CommandId, Op, OpKind, Reply};
use vmtask_driver::{EffectToken, EventSink, Fenced, Hypervisor, PortError};

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) op: Op,
    /// When it began.
    pub(crate) at: Instant,
    /// In all its slices and attempts.
    pub(crate) took: Duration,
    /// The guest was running already when it was provisioned.
    pub(crate) warm: bool,
}

/// The steps so far, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Arc<Mutex<Vec<Step>>>);

/// Times what goes through it.
pub(crate) struct Timed {
    inner: Arc<dyn Hypervisor>,
    steps: Steps,
}

impl Steps {
    /// Puts a watch around a hypervisor.
    pub(crate) fn watch(&self, inner: Arc<dyn Hypervisor>) -> Arc<dyn Hypervisor> {
        Arc::new(Timed { inner, steps: self.clone() })
    }

    pub(crate) fn list(&self) -> Vec<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, op: Op, at: Instant, warm: bool) {
        let took = at.elapsed();
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Slices and attempts of one op follow each other.
        match steps.last_mut().filter(|last| last.op == op) {
            Some(last) => {
                last.took += took;
                last.warm |= warm;
            }
            None => steps.push(Step { op, at, took, warm }),
        }
    }
}

impl Hypervisor for Timed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn is_simulated(&self) -> bool {
        self.inner.is_simulated()
    }

    fn capabilities(&self) -> Result<Capabilities, PortError> {
        self.inner.capabilities()
    }

    fn watch(&self, events: EventSink) {
        self.inner.watch(events);
    }

    fn carry_out(&self, command: &Command, deadline: Instant, token: &EffectToken) -> Result<Reply, PortError> {
        let start = Instant::now();
        let result = self.inner.carry_out(command, deadline, token);
        let warm = matches!(result, Ok(Reply::Provisioned { running: true }));
        self.steps.note(command.op, start, warm);
        result
    }

    fn fence(&self, id: CommandId, deadline: Instant) -> Result<Fenced, PortError> {
        self.inner.fence(id, deadline)
    }
}

/// The ops that the paper's experiment consists of. `PowerOn` is left out by a warm start, `LogIn` by hypervisors without
/// accounts in the guest.
pub(crate) const PAPER: [OpKind; 12] = [
    OpKind::Register,
    OpKind::Provision,
    OpKind::AwaitTools,
    OpKind::MakeWorkdir,
    OpKind::CopyIn,
    OpKind::Launch,
    OpKind::Pause,
    OpKind::Unpause,
    OpKind::CopyOut,
    OpKind::PowerOff,
    OpKind::Unregister,
    OpKind::Probe,
];

/// As the paper calls it, and VMware's VIX.
pub(crate) struct Named<'a>(pub(crate) &'a Step, pub(crate) &'a dyn Fn(Op) -> Option<String>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, file) = self;
        let file = || file(step.op).unwrap_or_default();
        match step.op {
            Op::Probe => f.write_str("look what is there"),
            Op::Register => f.write_str("register the virtual machine"),
            Op::Provision(Base::Baseline) if step.warm => {
                f.write_str("revert to the baseline; it is warm: the guest runs")
            }
            Op::Provision(Base::Baseline) => f.write_str("revert to the baseline"),
            Op::Provision(Base::Checkpoint(g)) => write!(f, "revert to checkpoint {g}"),
            Op::PowerOn => f.write_str("power on"),
            Op::AwaitTools => f.write_str("wait for the agent in the guest"),
            Op::LogIn => f.write_str("log in to the guest"),
            Op::MakeWorkdir => f.write_str("create a directory in the guest"),
            Op::CopyIn(_) => write!(f, "copy {} into the guest", file()),
            Op::Launch => f.write_str("run the script"),
            Op::Pause => f.write_str("pause"),
            Op::Unpause => f.write_str("unpause"),
            Op::BeginSnapshot(g) => write!(f, "begin checkpoint {g}"),
            Op::CommitSnapshot(g) => write!(f, "write checkpoint {g}"),
            Op::RemoveSnapshot(g) => write!(f, "remove checkpoint {g}"),
            Op::CopyOut(_) => write!(f, "copy {} out of the guest", file()),
            Op::PowerOff => f.write_str("power off"),
            Op::Unregister(_) => f.write_str("unregister the virtual machine"),
        }
    }
}
