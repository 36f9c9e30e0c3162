//! For adapters: how long something may be waited for, and by whose leave; and whether a command is still on its way.
//!
//! Whatever can block in an adapter takes a [`Wait`]: it ends at its deadline, and at once (within [`TICK`]) when the
//! command that it works for is fenced.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmtask_core::{Command, CommandId, OpKind};

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
    /// Waits on behalf of a command.
    #[must_use]
    pub fn command(token: &'a EffectToken, most: Duration) -> Self {
        Self { until: Instant::now() + most, token: Some(token) }
    }

    /// Waits on nobody's behalf: watchers, fences, programs without a driver.
    #[must_use]
    pub fn most(most: Duration) -> Wait<'static> {
        Wait { until: Instant::now() + most, token: None }
    }

    /// The same, but for no longer than `most` from now.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { until: self.until.min(Instant::now() + most), ..self }
    }

    /// The same command, with `most` from now, whatever the deadline was.
    #[must_use]
    pub fn renewed(self, most: Duration) -> Self {
        Self { until: Instant::now() + most, ..self }
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

    /// Waits until nothing older than or equal to `id` is being carried out.
    ///
    /// # Errors
    /// What it was, if it did not come back.
    pub fn wait_idle(&self, id: CommandId, most: Duration) -> Result<(), OpKind> {
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
