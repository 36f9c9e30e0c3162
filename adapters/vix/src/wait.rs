//! How long something may be waited for, and by whose leave.
//!
//! Everything that can block takes a [`Wait`]: it ends at its deadline, and at once (within [`TICK`]) when the command
//! that it works for is fenced. Nothing in this crate waits without one.

use std::time::{Duration, Instant};

use vmtask_driver::EffectToken;

/// How often a waiting thread looks whether its command has been fenced, and at its job in case the callback is lost.
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
    /// Waits on behalf of a command.
    #[must_use]
    pub fn command(token: &'a EffectToken, most: Duration) -> Self {
        Self { until: Instant::now() + most, token: Some(token) }
    }

    /// Waits on nobody's behalf: watchers, fences, programs that use VIX directly.
    #[must_use]
    pub fn most(most: Duration) -> Wait<'static> {
        Wait { until: Instant::now() + most, token: None }
    }

    /// The same, but for no longer than `most` from now.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { until: self.until.min(Instant::now() + most), ..self }
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
    pub(crate) fn act<T>(&self, start: impl FnOnce() -> T) -> Result<T, Stop> {
        match self.token {
            None => Ok(start()),
            Some(token) => token.act(start).map_err(|_| Stop::Fenced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_command_stops_waiting_and_starts_nothing_although_there_is_time_left() {
        let token = EffectToken::new();
        let wait = Wait::command(&token, Duration::from_secs(3600));
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
}
