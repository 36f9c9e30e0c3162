//! Time as the core knows it: numbers that the embedder hands in.
//!
//! The core never reads a clock. An [`Instant`] is milliseconds since a point that the embedder chose when it started
//! (its own start, say); it means nothing outside that process and is never persisted. What is persisted are lengths
//! of time.

use core::fmt;
use core::ops::Add;

/// A point in time, in milliseconds since the driver's own zero.
///
/// The machine clamps what it is given to be monotone: a step back counts as no time having passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The driver's own zero.
    pub const ZERO: Self = Self(0);

    /// The instant `millis` milliseconds after the driver's own zero.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the driver's own zero.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; nothing if it is not after it, and no more than [`Span::MAX`].
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        let millis = self.0.saturating_sub(earlier.0);
        if millis > u32::MAX as u64 { Span::MAX } else { Span(millis as u32) }
    }
}

impl Add<Span> for Instant {
    type Output = Self;

    /// Saturates: an instant too far away to count is never reached.
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0 as u64))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// A length of time, in milliseconds: at most 49 days, which bounds every deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Span(u32);

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// The longest span there is, a little over 49 days.
    pub const MAX: Self = Self(u32::MAX);

    /// A span of `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// A span of `secs` seconds, at most [`Span::MAX`].
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Its milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// Twice as long, `times` over; saturates.
    #[must_use]
    pub(crate) const fn doubled(self, times: u32) -> Self {
        let shift = if times > 31 { 31 } else { times };
        let millis = (self.0 as u64) << shift;
        if millis > u32::MAX as u64 { Self::MAX } else { Self(millis as u32) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}
