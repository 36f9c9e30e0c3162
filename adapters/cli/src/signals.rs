//! Signals as requests.
//!
//! ```text
//!   SIGINT, SIGTERM, SIGHUP   once: Quit within a minute or so: a checkpoint, then power off
//!   Ctrl-C, Ctrl-Break        again, a moment later: Quit now: power off, go on from the last checkpoint next time
//!   SIGXCPU                   Quit within a minute or so, however often it comes: the system sends it every second once
//!                             this process may have no more processor time, batch systems before they kill
//!   SIGTSTP                   Suspend; once the guest is held, this process stops as the shell expects
//!   SIGCONT                   Resume
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmtask_core::{Phase, Report};
use vmtask_driver::{Handle, News};

use crate::error::Error;
use crate::out;
use crate::sys::{self, Closer, Wish, Wishes};

/// How long a checkpoint may take when the task is to stop. What shuts a computer down waits about as long before it
/// kills.
const SAVE_BUDGET: Duration = Duration::from_secs(80);

/// Two signals within this time are one: `timeout` and some shells send one to the process and one to its group.
const ECHO: Duration = Duration::from_millis(300);

/// Listens for signals until it is dropped.
pub(crate) struct Signals {
    closer: Closer,
    thread: Option<thread::JoinHandle<()>>,
    stop_when_held: Arc<AtomicBool>,
}

impl Signals {
    /// From now on signals are requests to this task.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn listen(handle: Handle) -> Result<Self, Error> {
        let failed = || Error::system("listen for signals");
        let mut wishes = Wishes::listen().map_err(failed())?;
        let stop_when_held = Arc::new(AtomicBool::new(false));
        let (closer, stop) = (wishes.closer(), Arc::clone(&stop_when_held));
        let listen = move || {
            let mut asked: Option<Instant> = None;
            while let Some(wish) = wishes.next() {
                match wish {
                    Wish::Hold => suspend(&handle, &stop),
                    Wish::GoOn => {
                        stop.store(false, Ordering::SeqCst);
                        // Denied if the task is stopping, which it then goes on with.
                        let _ = handle.resume();
                    }
                    Wish::Quit | Wish::QuitSoon => {
                        if let Some(budget) = budget(wish, asked.map(|at| at.elapsed())) {
                            quit(&handle, budget);
                            asked = Some(Instant::now());
                        }
                    }
                }
            }
        };
        let thread = thread::Builder::new()
            .name("vmtask-signals".to_owned())
            .stack_size(128 * 1024)
            .spawn(listen)
            .map_err(failed())?;
        Ok(Self { closer, thread: Some(thread), stop_when_held })
    }

    /// What the observer of the run must tell us.
    pub(crate) fn observe(&self, news: &News<'_>) {
        let held = matches!(news, News::Report(Report::Phase(Phase::Paused { .. })));
        if held && self.stop_when_held.swap(false, Ordering::SeqCst) {
            sys::stop_this_process();
        }
    }
}

fn suspend(handle: &Handle, stop_when_held: &AtomicBool) {
    // Before the request, because its effect may be told before the verdict is.
    stop_when_held.store(true, Ordering::SeqCst);
    if let Err(error) = handle.suspend() {
        stop_when_held.store(false, Ordering::SeqCst);
        out::note(format_args!("vmtask: not suspended: {error}"));
    }
}

/// How long a checkpoint may take now that the task is to stop, and was told so before, this long ago; `None` if this says
/// nothing new.
fn budget(wish: Wish, before: Option<Duration>) -> Option<Duration> {
    match (wish, before) {
        (_, None) => Some(SAVE_BUDGET),
        (Wish::Quit, Some(before)) if before >= ECHO => Some(Duration::ZERO),
        _ => None,
    }
}

fn quit(handle: &Handle, budget: Duration) {
    if budget.is_zero() {
        out::note("vmtask: stopping at once");
    } else {
        out::note("vmtask: saving a checkpoint and stopping, in a minute or so at most; once more to stop at once");
    }
    // The task may be over already: all the better.
    let _ = handle.quit(budget);
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.closer.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::once(Wish::Quit, None, Some(SAVE_BUDGET))]
    #[case::its_echo(Wish::Quit, Some(1), None)]
    #[case::once_more(Wish::Quit, Some(1000), Some(Duration::ZERO))]
    #[case::no_more_processor_time(Wish::QuitSoon, None, Some(SAVE_BUDGET))]
    #[case::told_every_second(Wish::QuitSoon, Some(1000), None)]
    fn stopping_takes_the_time_that_is_left(
        #[case] wish: Wish,
        #[case] before_ms: Option<u64>,
        #[case] expected: Option<Duration>,
    ) {
        assert_eq!(budget(wish, before_ms.map(Duration::from_millis)), expected);
    }
}
