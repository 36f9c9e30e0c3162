//! The journal's thread: writes the newest record that waits, off the driver's loop.
//!
//! ```text
//!   loop -- submit(record) --> [ newest ] --> write, flush --> Durable(number)
//!                                  ^              | error
//!                                  +- pause <-----+---------> JournalTrouble(error)
//! ```
//!
//! It tries for ever; how long is too long is the loop's decision, which has the clock.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmtask_core::Record;

use crate::clock::{Letter, Message};
use crate::journal::RecordStore;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    newest: Option<Record>,
    closed: bool,
}

impl Writer {
    pub(crate) fn spawn(store: Box<dyn RecordStore>, outbox: Sender<Letter>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("vmtask-journal".to_owned()).spawn(move || theirs.serve(store, &outbox))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Replaces the record that waits, if one does.
    pub(crate) fn submit(&self, record: Record) {
        self.shared.lock().newest = Some(record);
        self.shared.changed.notify_one();
    }

    /// Lets the thread end, and waits for that if it has nothing to do.
    pub(crate) fn close(mut self, idle: bool) {
        self.shut();
        if let Some(thread) = self.thread.take().filter(|_| idle) {
            // A panic of the store was its own story.
            let _ = thread.join();
        }
    }

    fn shut(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut store: Box<dyn RecordStore>, outbox: &Sender<Letter>) {
        let mut pause = FIRST_PAUSE;
        while let Some(record) = self.next() {
            let message = match store.write(&record) {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    Message::Durable(record.seq)
                }
                Err(error) => {
                    // It waits again, unless a newer one has come meanwhile.
                    self.lock().newest.get_or_insert(record);
                    Message::JournalTrouble(error)
                }
            };
            let failed = matches!(message, Message::JournalTrouble(_));
            if outbox.send(Letter(message)).is_err() {
                return;
            }
            if failed {
                self.rest(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// The record to write; `None` once there will be none.
    fn next(&self) -> Option<Record> {
        let wait = |slot: &mut Slot| slot.newest.is_none() && !slot.closed;
        let mut slot = self.changed.wait_while(self.lock(), wait).unwrap_or_else(PoisonError::into_inner);
        if slot.closed { None } else { slot.newest.take() }
    }

    fn rest(&self, pause: Duration) {
        // Whether it was long enough or we are closing: `next` looks.
        let _ = self.changed.wait_timeout_while(self.lock(), pause, |slot| !slot.closed);
    }
}
