//! Random times, from whole numbers alone: the same on every machine, whatever its mathematical library.

use crate::choose::Prng;

/// A second, in milliseconds.
pub(super) const SECOND: u64 = 1000;
/// A minute, in milliseconds.
pub(super) const MINUTE: u64 = 60 * SECOND;
/// An hour, in milliseconds.
pub(super) const HOUR: u64 = 60 * MINUTE;
/// A day, in milliseconds.
pub(super) const DAY: u64 = 24 * HOUR;

/// Any of the numbers from `low` to `high`, each equally likely.
pub(super) const fn between(prng: &mut Prng, low: u64, high: u64) -> u64 {
    low + prng.below(high - low + 1)
}

/// Whether something happens that happens once in `n` times.
pub(super) const fn once_in(prng: &mut Prng, n: u64) -> bool {
    prng.below(n) == 0
}

/// The time until something happens that happens every `mean` on average, and remembers nothing: exponentially
/// distributed.
///
/// Von Neumann's method ("Various techniques used in connection with random digits", 1951) compares random numbers and
/// computes nothing: the run of descending ones that begins with x is of odd length with probability e^-x.
pub(super) fn every(prng: &mut Prng, mean: u64) -> u64 {
    let mut whole = 0;
    loop {
        let first = prng.next_u64() >> 32;
        let (mut last, mut odd) = (first, true);
        loop {
            let next = prng.next_u64() >> 32;
            if next > last {
                break;
            }
            last = next;
            odd = !odd;
        }
        if odd {
            return whole * mean + ((first * mean) >> 32);
        }
        whole += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exponentially_distributed() {
        let mut prng = Prng::new(1);
        let drawn: Vec<u64> = (0..100_000).map(|_| every(&mut prng, HOUR)).collect();
        let mean = drawn.iter().sum::<u64>() / 100_000;
        assert!(mean.abs_diff(HOUR) < HOUR / 50, "{mean}");
        // e^-1 and e^-3 of them are longer than one and three means.
        let longer = |means| drawn.iter().filter(|&&t| t > means * HOUR).count();
        assert!(longer(1).abs_diff(36_788) < 1000, "{}", longer(1));
        assert!(longer(3).abs_diff(4979) < 500, "{}", longer(3));
    }
}
