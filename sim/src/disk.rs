//! The journal on disk: the newest record, and the one before it.
//!
//! A record is written to a file of its own, flushed, and renamed over the newest, which becomes the one before. What a
//! crash can leave behind is therefore: the old newest, the new newest, or a torn file that is recognised as such.

use vmtask_core::Record;

/// What is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The newest record.
    pub newest: Slot,
    /// The one before it.
    pub previous: Option<Record>,
}

/// A journal file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Slot {
    /// It is not there.
    #[default]
    Absent,
    /// Its checksum does not fit.
    Torn,
    /// It is whole.
    Whole(Record),
}

impl Disk {
    /// A record is durable.
    pub const fn write(&mut self, record: Record) {
        if let Slot::Whole(newest) = self.newest {
            self.previous = Some(newest);
        }
        self.newest = Slot::Whole(record);
    }

    /// The power fails while a record is being written.
    pub const fn tear(&mut self) {
        if let Slot::Whole(newest) = self.newest {
            self.previous = Some(newest);
        }
        self.newest = Slot::Torn;
    }

    /// The disk had only claimed that the newest record was durable.
    pub const fn forget_newest(&mut self) {
        self.newest = match self.previous {
            Some(previous) => Slot::Whole(previous),
            None => Slot::Absent,
        };
    }

    /// What a manager that starts now finds.
    #[must_use]
    pub const fn load(&self) -> Option<Record> {
        match self.newest {
            Slot::Whole(record) => Some(record),
            Slot::Absent | Slot::Torn => self.previous,
        }
    }
}
