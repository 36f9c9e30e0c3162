//! One life of the guest, from being provisioned, or found running, to being lost or powered off.

use crate::command::Op;
use crate::id::Generation;
use crate::input::{ExitStatus, Fault};
use crate::time::Instant;

/// What is believed of the present life of the guest and has no meaning beyond it. It is replaced as a whole when a life
/// ends, so that nothing of one guest can be mistaken for something of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    /// Whether the program's state has to be found out once the guest is reachable.
    pub(crate) examine: Examine,
    /// Whether we stopped the guest's processors.
    pub(crate) paused: bool,
    /// A fence was survived: what the fenced command did is found out before anything else is done.
    pub(crate) doubt: bool,
    /// How often the program's launch was asked for.
    pub(crate) launches: u8,
    /// The outcome of a launch is unknown: looked at before it is repeated.
    pub(crate) launch_doubt: bool,
    /// The program's exit, seen before the launch was answered.
    pub(crate) exit_seen: Option<ExitStatus>,
    /// Since when the program has been running without being held.
    pub(crate) running_since: Option<Instant>,
    /// The snapshot that is being begun holds the program's end, or what it had written when its time was over.
    pub(crate) begun_at_end: bool,
    /// A begun snapshot that is not committed yet.
    pub(crate) snapshot: Option<Snapshot>,
    /// The interval between two checkpoints is over, or one was asked for.
    pub(crate) checkpoint_due: bool,
    /// The program has been silent for long.
    pub(crate) watch_due: bool,
    /// The program has run for as long as it may; what it has written is collected.
    pub(crate) over_limit: bool,
    /// The program's end is to be checkpointed before its outputs are copied.
    pub(crate) end_due: bool,
    /// The newest checkpoint holds the program's end: whatever happens, nothing is computed again.
    pub(crate) end_saved: bool,
    /// Outputs are being copied out of this guest.
    pub(crate) collecting: bool,
    /// An output that could not be collected: the first, unless a later one may still be collected another time.
    pub(crate) missing: Option<(Op, Fault)>,
}

/// A snapshot that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    pub(crate) generation: Generation,
    /// Processor time that the program had used by then, as far as it was reported.
    pub(crate) cpu_ms: u64,
    /// The program had ended by then, or had run for as long as it may.
    pub(crate) of_the_end: bool,
}

/// How a guest that was not started from the baseline came to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Examine {
    /// From the baseline, or it has been examined.
    #[default]
    No,
    /// Restored from the newest checkpoint: if it does not come up, the checkpoint may be to blame.
    Restored,
    /// Found running: it is nobody's fault.
    Adopted,
}
