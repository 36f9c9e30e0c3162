//! Waiting for what will happen, with a deadline that only a hang reaches.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Far beyond what anything here takes on a slow, busy computer.
pub const HANG: Duration = Duration::from_secs(300);

/// Looks until there is something to see.
///
/// # Panics
/// If there is nothing within [`HANG`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + HANG;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "waited {HANG:?} for {what}");
        // Not a guess at how long it takes, only at how often to look.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Milliseconds since 1970.
///
/// # Panics
/// If the computer's clock is before that.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292 million")
}
