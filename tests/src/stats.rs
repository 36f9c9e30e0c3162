//! Medians with their spread.

use std::fmt;

/// Some measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// One more.
    pub fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle one; not a number if there are none.
    #[must_use]
    pub fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => self.0[odd / 2],
            even => (self.0[even / 2 - 1] + self.0[even / 2]) / 2.0,
        }
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|value| sample.add(value));
        sample
    }
}

impl fmt::Display for Sample {
    /// `median (smallest-largest)`, with as many digits as the formatter's precision says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let digits = f.precision().unwrap_or(3);
        let text = format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median(), self.min(), self.max());
        // `pad` would take the precision for a number of letters.
        match f.width() {
            Some(width) => write!(f, "{text:>width$}"),
            None => f.write_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        assert_eq!([3.0, 1.0, 2.0].into_iter().collect::<Sample>().median(), 2.0);
        assert_eq!([4.0, 1.0, 2.0, 3.0].into_iter().collect::<Sample>().median(), 2.5);
        assert_eq!(format!("{:>16.1}", [4.0, 1.0, 2.0].into_iter().collect::<Sample>()), "   2.0 (1.0-4.0)");
    }
}
