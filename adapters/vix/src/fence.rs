//! The fence: what is done so that no command acts on the VM any more, and how the time for it is divided.
//!
//! ```text
//!   the command comes back, its jobs end --> the VM is as it should be --> survived
//!            | no                                  | no
//!            '----> power off <--------------------'
//!                      '--> the command comes back, its jobs end ----------------------> powered off
//!                                   | no
//!                                   '--> cut the connection, look at the VM through a new one, the command comes back
//! ```

use vmtask_driver::{Fenced, PortError};
use vmtask_vix_abi::Function;

use crate::wait::{Part, Shares};

/// The command comes back; a connection is made, if there is none; the command's jobs end; the guest is looked at; the
/// VM is powered off; the command comes back; its jobs end; the connection is cut; the VM is looked at through a new one;
/// the command comes back. Of half a minute, jobs have the three seconds for which VIX itself waits for Tools.
pub(crate) const SHARES: Shares<10> = Shares::new([6, 10, 12, 8, 28, 6, 6, 8, 10, 6]);

/// What a fence does, each within its part of the time. Waiting for others takes no more than its own share; connecting,
/// powering off, cutting and looking may also take what those before them have left.
pub(crate) trait Fencing {
    /// A VM that has been opened.
    type Vm;

    /// Waits for the command to return.
    fn comes_back(&self, part: Part) -> Result<(), PortError>;

    /// The VM that the command may have acted on, if there is one. A connection that was lost is made again for this.
    fn vm(&self, part: Part) -> Result<Option<Self::Vm>, PortError>;

    /// Waits for jobs that were given up, on whatever virtual machine: one may be about to make the task's. Those that are
    /// not over.
    fn settle(&self, part: Part) -> Vec<Function>;

    /// Whether the VM is as good as before: nothing that was asked of it is still to come.
    fn survives(&self, vm: &Self::Vm, part: Part) -> bool;

    /// Powers it off, whatever it is doing.
    fn put_out(&self, vm: &Self::Vm, part: Part) -> Result<(), PortError>;

    /// Ends the connection under jobs that nothing else ends: `VixHost_Disconnect` makes all handles of it invalid.
    fn cut(&self, vm: Option<Self::Vm>, pending: &[Function], part: Part) -> Result<(), PortError>;

    /// Makes sure, through a new connection, that the VM is off.
    fn is_off(&self, pending: &[Function], part: Part) -> Result<(), PortError>;
}

/// Fences.
pub(crate) fn fence<F: Fencing>(
    machine: &F,
    [back, open, jobs, guest, off, back_again, jobs_again, cut, look, back_at_last]: [Part; 10],
) -> Result<Fenced, PortError> {
    let idle = machine.comes_back(back);
    let vm = machine.vm(open)?;
    let settled = machine.settle(jobs).is_empty() && idle.is_ok();
    match &vm {
        // Nor will there be one that runs: one that is made is off.
        None if settled => return Ok(Fenced::PoweredOff),
        None => {}
        Some(vm) if settled && machine.survives(vm, guest) => return Ok(Fenced::Survived),
        // What hangs on the guest ends with it.
        Some(vm) => machine.put_out(vm, off)?,
    }
    let idle = machine.comes_back(back_again);
    let pending = machine.settle(jobs_again);
    if idle.is_ok() && pending.is_empty() {
        return Ok(Fenced::PoweredOff);
    }
    // It is off, and something is still to come: from nobody, once its connection is gone.
    machine.cut(vm, &pending, cut)?;
    machine.is_off(&pending, look)?;
    machine.comes_back(back_at_last)?;
    Ok(Fenced::PoweredOff)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use vmtask_core::{FaultKind, Span};

    use super::*;
    use crate::wait::time_to_answer;

    /// A VM on which each part takes all of its time. Its own clock shows how late it is.
    struct Hanging {
        now: Cell<Instant>,
        /// Which parts succeed in the end, first to last.
        succeeds: [bool; 10],
        part: Cell<usize>,
        seen_well: Cell<bool>,
    }

    impl Hanging {
        fn hang(&self, until: Instant) -> bool {
            let part = self.part.replace(self.part.get() + 1);
            assert!(self.now.get() < until, "part {part} has no time of its own");
            self.now.set(until);
            self.succeeds[part]
        }

        /// Takes its own share.
        fn own(&self, part: Part) -> Result<(), PortError> {
            self.end(part.own(self.now.get()))
        }

        fn end(&self, until: Instant) -> Result<(), PortError> {
            self.hang(until).then_some(()).ok_or_else(|| PortError::new(FaultKind::Unknown, "it hangs"))
        }
    }

    impl Fencing for Hanging {
        type Vm = ();

        fn comes_back(&self, part: Part) -> Result<(), PortError> {
            self.own(part)
        }

        fn vm(&self, part: Part) -> Result<Option<()>, PortError> {
            self.end(part.end()).map(Some)
        }

        fn settle(&self, part: Part) -> Vec<Function> {
            if self.own(part).is_ok() { Vec::new() } else { vec![Function::VmPause] }
        }

        fn survives(&self, (): &(), part: Part) -> bool {
            self.seen_well.set(self.own(part).is_ok());
            self.seen_well.get()
        }

        fn put_out(&self, (): &(), part: Part) -> Result<(), PortError> {
            self.end(part.end())
        }

        fn cut(&self, _: Option<()>, _: &[Function], part: Part) -> Result<(), PortError> {
            self.end(part.end())
        }

        fn is_off(&self, _: &[Function], part: Part) -> Result<(), PortError> {
            self.end(part.end())
        }
    }

    /// What `Plan::new` accepts for a fence, its extremes more often than not.
    fn fences() -> impl Strategy<Value = Span> {
        prop_oneof![Just(1_000), Just(5_000), Just(30_000), Just(3_600_000), Just(u32::MAX), 1_000..=u32::MAX]
            .prop_map(Span::from_millis)
    }

    proptest! {
        #[test]
        fn whatever_hangs_the_fence_answers_in_time_and_each_part_has_its_share(
            fence_time in fences(), succeeds: [bool; 10],
        ) {
            let begin = Instant::now();
            let deadline = begin + time_to_answer(fence_time);
            let (now, part, seen_well) = (Cell::new(begin), Cell::new(0), Cell::new(false));
            let machine = Hanging { now, succeeds, part, seen_well };
            let answer = fence(&machine, SHARES.of(begin, deadline));
            prop_assert!(machine.now.get() <= deadline);
            prop_assert!(machine.now.get() < begin + Duration::from_millis(fence_time.as_millis().into()));
            prop_assert_eq!(answer == Ok(Fenced::Survived), machine.seen_well.get());
        }
    }
}
