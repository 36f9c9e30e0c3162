//! Reports that wait to be drained: the newest of each kind, and every checkpoint that was dropped.

use crate::id::{Generation, JournalSeq, MAX_GENERATIONS};
use crate::output::{Notice, Report, Unfit};
use crate::phase::Phase;

/// More checkpoints than this cannot be dropped between two drains: those that are wanted, and those that were to be
/// deleted and are fallen back on, in one look.
const MAX_DROPS: usize = 2 * MAX_GENERATIONS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reports {
    pub(crate) phase: Option<Phase>,
    pub(crate) permille: Option<u16>,
    pub(crate) cpu_ms: u64,
    pub(crate) progressed: bool,
    /// A checkpoint, told once the record with this number is durable.
    pub(crate) checkpoint: Option<(Generation, u64, JournalSeq)>,
    notices: [Option<Notice>; Notice::KINDS],
    noticed: bool,
    dropped: [Option<(Generation, Unfit)>; MAX_DROPS],
    pub(crate) ended: bool,
}

impl Reports {
    /// Keeps a notice until it is drained. A later one of the same kind takes its place, but for dropped checkpoints, of
    /// which each is told.
    pub(crate) fn notice(&mut self, notice: Notice) {
        self.noticed = true;
        if let Notice::CheckpointDropped { generation, why } = notice {
            let free = self.dropped.iter_mut().find(|place| place.is_none());
            debug_assert!(free.is_some(), "more checkpoints dropped than there can be");
            if let Some(place) = free {
                *place = Some((generation, why));
            }
        } else {
            self.notices[notice.index()] = Some(notice);
        }
    }

    /// The next notice; why a checkpoint was dropped comes before what was done about it.
    pub(crate) fn next_notice(&mut self) -> Option<Report> {
        if !self.noticed {
            return None;
        }
        let dropped = self.dropped.iter_mut().find_map(Option::take);
        let dropped = dropped.map(|(generation, why)| Notice::CheckpointDropped { generation, why });
        let notice = dropped.or_else(|| self.notices.iter_mut().find_map(Option::take));
        self.noticed = notice.is_some();
        notice.map(Report::Notice)
    }

    /// The program's progress, if it has changed since it was last told.
    pub(crate) fn next_progress(&mut self) -> Option<Report> {
        let told = !core::mem::take(&mut self.progressed);
        (!told).then_some(Report::Progress { permille: self.permille, cpu_ms: self.cpu_ms })
    }
}
