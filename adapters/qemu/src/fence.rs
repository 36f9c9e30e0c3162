//! The fence: what is done so that no command acts on the machine any more, and how the time for it is divided.
//!
//! ```text
//!   the command comes back --> QEMU answers, and the guest agent --> survived
//!            | no                          | no
//!            '----> kill QEMU <------------'
//!                      '--> the command comes back --> kill what it has started meanwhile --> powered off
//! ```

use vmtask_driver::{Fenced, PortError};

use crate::wait::{Part, Shares};

/// The command comes back; QEMU answers; the guest agent answers, under emulation perhaps; QEMU dies, with all of its
/// memory to be freed; the command comes back; a QEMU that has only just been started dies.
pub(crate) const SHARES: Shares<6> = Shares::new([10, 10, 35, 25, 8, 12]);

/// What a fence does, each within its part of the time.
pub(crate) trait Fencing {
    /// Waits for the command to return. Whether it has.
    fn comes_back(&self, part: Part) -> bool;

    /// Whether the machine is as good as before: nothing that was asked of it is still to come.
    fn survives(&self, qemu: Part, agent: Part) -> bool;

    /// Ends the boot that is alive, if there is one. If that fails, the fence has failed, so it may take what those before
    /// it have left.
    fn put_out(&self, part: Part) -> Result<(), PortError>;
}

/// Fences.
pub(crate) fn fence(
    machine: &impl Fencing,
    [back, qemu, agent, death, back_again, death_again]: [Part; 6],
) -> Result<Fenced, PortError> {
    if machine.comes_back(back) && machine.survives(qemu, agent) {
        return Ok(Fenced::Survived);
    }
    machine.put_out(death)?;
    // What hung on QEMU comes back now. What hangs in the kernel does not, but acts only by leave of its token, and has
    // lost its machine.
    let _ = machine.comes_back(back_again);
    // A machine that was still in the making when we looked.
    machine.put_out(death_again)?;
    Ok(Fenced::PoweredOff)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use vmtask_core::{FaultKind, Span};

    use super::*;
    use crate::wait::time_to_answer;

    /// A machine on which each part takes all of its time. Its own clock shows how late it is.
    struct Hanging {
        now: Cell<Instant>,
        /// Which parts succeed in the end, first to last.
        succeeds: [bool; 5],
        part: Cell<usize>,
    }

    impl Hanging {
        fn hang(&self, until: Instant) -> bool {
            assert!(self.now.get() < until, "part {} has no time of its own", self.part.get());
            self.now.set(until);
            self.part.set(self.part.get() + 1);
            self.succeeds[self.part.get() - 1]
        }
    }

    impl Fencing for Hanging {
        fn comes_back(&self, part: Part) -> bool {
            self.hang(part.own(self.now.get()))
        }

        fn survives(&self, qemu: Part, agent: Part) -> bool {
            let qemu = qemu.own(self.now.get());
            assert!(self.now.get() < qemu, "QEMU has no time of its own");
            self.now.set(qemu);
            self.hang(agent.own(qemu))
        }

        fn put_out(&self, part: Part) -> Result<(), PortError> {
            self.hang(part.end()).then_some(()).ok_or(PortError::new(FaultKind::Unknown, "it hangs in the kernel"))
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
            fence_time in fences(), succeeds: [bool; 5],
        ) {
            let begin = Instant::now();
            let deadline = begin + time_to_answer(fence_time);
            let machine = Hanging { now: Cell::new(begin), succeeds, part: Cell::new(0) };
            let answer = fence(&machine, SHARES.of(begin, deadline));
            prop_assert!(machine.now.get() <= deadline);
            prop_assert!(machine.now.get() < begin + Duration::from_millis(fence_time.as_millis().into()));
            if answer == Ok(Fenced::Survived) {
                prop_assert!(succeeds[0] && succeeds[1], "it was not seen to be well");
            }
        }
    }
}
