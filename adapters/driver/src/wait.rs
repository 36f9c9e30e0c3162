//! For adapters: how long something may be waited for, and by whose leave; and whether a command is still on its way.
//!
//! Whatever can block in an adapter takes a [`Wait`]: it ends at its deadline, and at once (within [`TICK`]) when the
//! command that it works for is fenced. No wait is made longer than the one that it is made from, so nothing that is done
//! within a deadline adds up to more than it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmtask_core::{Command, CommandId, OpKind, Span};

use crate::port::{EffectToken, PortError};

/// How often a waiting thread looks whether its command has been fenced.
pub const TICK: Duration = Duration::from_millis(50);

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Time is up.
    #[error("no answer in time")]
    Timeout,
    /// The command was fenced.
    #[error("the command was fenced")]
    Fenced,
}

/// A deadline, and the token of the command that waits.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    until: Instant,
    token: Option<&'a EffectToken>,
}

impl<'a> Wait<'a> {
    /// Waits on behalf of a command, until its deadline.
    #[must_use]
    pub const fn command(token: &'a EffectToken, deadline: Instant) -> Self {
        Self { until: deadline, token: Some(token) }
    }

    /// Waits on behalf of no command, until `deadline`: fences, and what a fenced command still has to clear up.
    #[must_use]
    pub const fn until(deadline: Instant) -> Wait<'static> {
        Wait { until: deadline, token: None }
    }

    /// Waits on nobody's behalf: watchers, programs without a driver.
    #[must_use]
    pub fn most(most: Duration) -> Wait<'static> {
        Wait { until: Instant::now() + most, token: None }
    }

    /// When it ends.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.until
    }

    /// The same, but for no longer than `most` from now.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { until: self.until.min(Instant::now() + most), ..self }
    }

    /// The same, but only for the first `hundredths` of what is left: the rest is kept for what comes afterwards.
    #[must_use]
    pub fn share(self, hundredths: u8) -> Self {
        let now = Instant::now();
        Self { until: now + hundredths_of(self.until.saturating_duration_since(now), hundredths.into()), ..self }
    }

    /// How long may be slept or blocked now: more than nothing, and no longer than a tick.
    ///
    /// # Errors
    /// If the wait is over.
    pub fn tick(&self) -> Result<Duration, Stop> {
        if self.token.is_some_and(EffectToken::is_revoked) {
            return Err(Stop::Fenced);
        }
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Stop::Timeout);
        }
        Ok(left.min(TICK).max(Duration::from_millis(1)))
    }

    /// Sleeps for `time`, or for what is left.
    ///
    /// # Errors
    /// If the wait is over before that.
    pub fn sleep(&self, time: Duration) -> Result<(), Stop> {
        let end = Instant::now() + time;
        loop {
            let tick = self.tick()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(tick.min(left));
        }
    }

    /// Starts something that goes on by itself, unless the command has been fenced.
    ///
    /// # Errors
    /// [`Stop::Fenced`]; then nothing was started.
    pub fn act<T>(&self, start: impl FnOnce() -> T) -> Result<T, Stop> {
        match self.token {
            None => Ok(start()),
            Some(token) => token.act(start).map_err(|_| Stop::Fenced),
        }
    }
}

/// How a stretch of time is divided among things that are done one after the other, in hundredths.
///
/// Ends are counted from the beginning of the whole: what is late takes from the time of what follows, and all of it
/// together takes no longer than the whole.
#[derive(Clone, Copy, Debug)]
pub struct Shares<const N: usize>([u8; N]);

impl<const N: usize> Shares<N> {
    /// A division into such shares.
    ///
    /// # Panics
    /// If they are not a hundred hundredths, or one of them is nothing. In a constant, that does not compile.
    #[must_use]
    pub const fn new(hundredths: [u8; N]) -> Self {
        let (mut sum, mut at) = (0, 0);
        while at < N {
            assert!(hundredths[at] > 0, "whatever is done takes time");
            sum += hundredths[at] as u32;
            at += 1;
        }
        assert!(sum == 100, "the shares are not the whole");
        Self(hundredths)
    }

    /// The parts of a whole from `begin` to `deadline`.
    #[must_use]
    pub fn of(&self, begin: Instant, deadline: Instant) -> [Part; N] {
        let whole = deadline.saturating_duration_since(begin);
        let mut sum = 0;
        self.0.map(|hundredths| {
            sum += u32::from(hundredths);
            Part { own: hundredths_of(whole, hundredths.into()), end: begin + hundredths_of(whole, sum) }
        })
    }
}

/// The time for one of several things that are done one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    own: Duration,
    end: Instant,
}

impl Part {
    /// Until when something that begins `now` may take if it is given up without harm: its own share, and nothing of what
    /// those before it have left.
    #[must_use]
    pub fn own(&self, now: Instant) -> Instant {
        self.end.min(now + self.own)
    }

    /// Until when something may take that must not fail: its own share, and what those before it have left.
    #[must_use]
    pub const fn end(&self) -> Instant {
        self.end
    }
}

/// How long an adapter has for an answer for which the machine waits for `time`. Here and nowhere else time is kept back
/// for an answer to reach the machine: an eighth, and never more than two seconds.
#[must_use]
pub fn time_to_answer(time: Span) -> Duration {
    let time = Duration::from_millis(time.as_millis().into());
    time - (time / 8).min(Duration::from_secs(2))
}

fn hundredths_of(whole: Duration, hundredths: u32) -> Duration {
    whole * hundredths / 100
}

/// Which command is being carried out, so that a fence can wait for it to come back.
#[derive(Debug, Default)]
pub struct Busy {
    command: Mutex<Option<(CommandId, OpKind)>>,
    done: Condvar,
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, Option<(CommandId, OpKind)>> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the command for as long as it is being carried out. One that was fenced before it got here does nothing.
    ///
    /// # Errors
    /// Those of `carry_out`.
    pub fn carry_out<T>(
        &self,
        command: &Command,
        token: &EffectToken,
        carry_out: impl FnOnce() -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        *self.lock() = Some((command.id, command.op.kind()));
        let result = token.act(|| ()).and_then(|()| carry_out());
        let mut busy = self.lock();
        // An abandoned command that comes back late must not hide the one that came after it.
        if busy.is_some_and(|(id, _)| id == command.id) {
            *busy = None;
        }
        drop(busy);
        self.done.notify_all();
        result
    }

    /// What is being carried out.
    #[must_use]
    pub fn kind(&self) -> Option<OpKind> {
        self.lock().map(|(_, kind)| kind)
    }

    /// Waits until nothing older than or equal to `id` is being carried out, or until then.
    ///
    /// # Errors
    /// What it was, if it did not come back.
    pub fn wait_idle(&self, id: CommandId, until: Instant) -> Result<(), OpKind> {
        let most = until.saturating_duration_since(Instant::now());
        let command = self.lock();
        let (command, _) = self
            .done
            .wait_timeout_while(command, most, |command| command.is_some_and(|(busy, _)| busy <= id))
            .unwrap_or_else(PoisonError::into_inner);
        match *command {
            Some((busy, kind)) if busy <= id => Err(kind),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fenced_command_stops_waiting_and_starts_nothing_although_there_is_time_left() {
        let token = EffectToken::new();
        let wait = Wait::command(&token, Instant::now() + Duration::from_secs(3600));
        assert!(wait.tick().is_ok());
        assert_eq!(wait.act(|| 1), Ok(1));
        token.revoke();
        assert_eq!(wait.tick(), Err(Stop::Fenced));
        assert_eq!(wait.sleep(Duration::from_secs(3600)), Err(Stop::Fenced));
        assert_eq!(wait.act(|| unreachable!("it is fenced")), Err::<(), _>(Stop::Fenced));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let wait = Wait::most(Duration::ZERO);
        assert_eq!(wait.tick(), Err(Stop::Timeout));
    }

    #[test]
    fn a_share_leaves_something_for_afterwards_and_nothing_makes_a_wait_longer() {
        let whole = Wait::most(Duration::from_secs(3600));
        let most = whole.share(90);
        assert!(most.deadline() < whole.deadline());
        assert_eq!(most.at_most(Duration::from_secs(7200)).deadline(), most.deadline());
        assert!(most.share(100).deadline() <= most.deadline());
        let over = Wait::until(Instant::now());
        assert!(over.share(50).tick().is_err(), "of nothing, every share is nothing");
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_whole_and_each_has_its_own(millis in 100_u64..=u64::from(u32::MAX), cut in 1_u8..=99) {
            let begin = Instant::now();
            let deadline = begin + Duration::from_millis(millis);
            let [first, second] = Shares::new([cut, 100 - cut]).of(begin, deadline);
            prop_assert!(begin < first.end() && first.end() < second.end());
            prop_assert_eq!(first.own(begin), first.end());
            prop_assert!(second.own(begin) < second.end(), "what the first has left is not its own");
            prop_assert_eq!(second.own(first.end() + TICK), deadline, "what is late has less");
            prop_assert_eq!(second.end(), deadline);
            let over = Shares::new([cut, 100 - cut]).of(deadline, begin);
            prop_assert_eq!(over.map(|part| part.end()), [deadline; 2], "the time is over");
        }

        #[test]
        fn an_answer_has_time_to_arrive_and_an_adapter_most_of_the_time(millis in 1_000_u32..) {
            let whole = Duration::from_millis(millis.into());
            let ours = time_to_answer(Span::from_millis(millis));
            prop_assert!(whole - ours >= Duration::from_millis(125), "{ours:?} of {whole:?}");
            prop_assert!(ours >= whole * 7 / 8, "{ours:?} of {whole:?}");
        }
    }
}
