//! The one source of choice: whoever answers [`Choose::pick`] decides everything that can go one way or another.
//!
//! ```text
//!   Odometer   every sequence of answers, one after the other        exhaustive search
//!   Prng       answers that depend on a seed and nothing else        swarm, property tests
//!   Bytes      answers read from a fuzzer's input                    fuzzing
//!   Recorded   the answers of an earlier run                         replay
//! ```
//!
//! Answer 0 always means "nothing special happens", so that a source that runs dry turns into a calm world.

/// A source of choice.
pub trait Choose {
    /// One of the numbers below `n`, which is at least 1.
    fn pick(&mut self, n: u32) -> u32;
}

/// Nothing special ever happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Choose for Calm {
    fn pick(&mut self, _: u32) -> u32 {
        0
    }
}

/// Every sequence of answers, in order: run, [`advance`](Odometer::advance), run again, until that says no.
///
/// ```
/// use vmtask_sim::{Choose, Odometer};
///
/// let mut odometer = Odometer::default();
/// let mut seen = vec![];
/// loop {
///     // The second question depends on the first answer.
///     let first = odometer.pick(2);
///     seen.push((first, if first == 1 { odometer.pick(3) } else { 0 }));
///     if !odometer.advance() {
///         break;
///     }
/// }
/// assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Odometer {
    /// For each question of this run: the answer, and how many there are.
    wheels: Vec<(u32, u32)>,
    at: usize,
}

impl Odometer {
    /// Goes on to the next sequence; false if there is none.
    pub fn advance(&mut self) -> bool {
        self.wheels.truncate(self.at);
        self.at = 0;
        while let Some((answer, n)) = self.wheels.pop() {
            if answer + 1 < n {
                self.wheels.push((answer + 1, n));
                return true;
            }
        }
        false
    }

    /// Forgets everything: the next run is the first.
    pub fn reset(&mut self) {
        self.wheels.clear();
        self.at = 0;
    }
}

impl Choose for Odometer {
    fn pick(&mut self, n: u32) -> u32 {
        if self.at == self.wheels.len() {
            self.wheels.push((0, n));
        }
        let (answer, _) = self.wheels[self.at];
        self.at += 1;
        answer
    }
}

/// Numbers from a seed: the same ones in ten years.
///
/// This is splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), written out here
/// because a library's generator may change between versions, and a seed in a bug report must not.
#[derive(Clone, Debug)]
pub struct Prng {
    state: u64,
}

impl Prng {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.state)
    }

    /// A number below `n` (1 at least), each about equally likely: the bias is below n in 2^64.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.next_u64() as u128 * n as u128) >> 64) as u64
    }
}

impl Choose for Prng {
    fn pick(&mut self, n: u32) -> u32 {
        u32::try_from(self.below(u64::from(n))).unwrap_or(0)
    }
}

/// The finalizer of splitmix64: a small difference in `z` changes about half of the bits of the result.
#[must_use]
pub const fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A world that is calm most of the time: something special happens at one question in `rarity`.
#[derive(Clone, Debug)]
pub struct Seldom {
    prng: Prng,
    rarity: u32,
}

impl Seldom {
    /// From a seed; `rarity` 1 means that every answer is equally likely.
    #[must_use]
    pub const fn new(seed: u64, rarity: u32) -> Self {
        Self { prng: Prng::new(seed), rarity: if rarity == 0 { 1 } else { rarity } }
    }
}

impl Choose for Seldom {
    fn pick(&mut self, n: u32) -> u32 {
        if n > 1 && self.prng.pick(self.rarity) == 0 { self.prng.pick(n) } else { 0 }
    }
}

/// Answers from the bytes of a fuzzer: one byte each, 0 once they are used up.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// Reads from `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }
}

impl Choose for Bytes<'_> {
    fn pick(&mut self, n: u32) -> u32 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        u32::from(first) % n
    }
}

/// The answers of an earlier run, 0 after their end.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    answers: Vec<u32>,
    at: usize,
}

impl Recorded {
    /// Gives these answers.
    #[must_use]
    pub const fn new(answers: Vec<u32>) -> Self {
        Self { answers, at: 0 }
    }
}

impl Choose for Recorded {
    fn pick(&mut self, n: u32) -> u32 {
        let answer = self.answers.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        answer.min(n - 1)
    }
}

/// Writes down the answers of another source.
#[derive(Clone, Debug)]
pub struct Recording<C> {
    inner: C,
    /// What was answered, in order.
    pub answers: Vec<u32>,
}

impl<C> Recording<C> {
    /// Records `inner`.
    pub const fn new(inner: C) -> Self {
        Self { inner, answers: Vec::new() }
    }
}

impl<C: Choose> Choose for Recording<C> {
    fn pick(&mut self, n: u32) -> u32 {
        let answer = self.inner.pick(n);
        self.answers.push(answer);
        answer
    }
}

impl<C: Choose + ?Sized> Choose for &mut C {
    fn pick(&mut self, n: u32) -> u32 {
        (**self).pick(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_numbers_for_ever() {
        let mut prng = Prng::new(42);
        // The published reference implementation gives these for seed 42.
        assert_eq!(prng.next_u64(), 13_679_457_532_755_275_413);
        assert_eq!(prng.next_u64(), 2_949_826_092_126_892_291);
        assert_eq!(prng.next_u64(), 5_139_283_748_462_763_858);
    }

    #[test]
    fn the_odometer_visits_every_leaf_of_an_uneven_tree_once() {
        let mut odometer = Odometer::default();
        let mut leaves = vec![];
        loop {
            let a = odometer.pick(3);
            let b = if a == 1 { odometer.pick(2) } else { 9 };
            let c = odometer.pick(2);
            leaves.push((a, b, c));
            if !odometer.advance() {
                break;
            }
        }
        assert_eq!(leaves.len(), 2 + 4 + 2);
        let mut unique = leaves.clone();
        unique.dedup();
        assert_eq!(leaves, unique);
    }

    #[test]
    fn what_was_recorded_is_replayed() {
        let mut recording = Recording::new(Prng::new(7));
        let first: Vec<_> = (1..50).map(|n| recording.pick(n)).collect();
        let mut replay = Recorded::new(recording.answers);
        assert_eq!(first, (1..50).map(|n| replay.pick(n)).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_that_run_out_mean_a_calm_world() {
        let mut bytes = Bytes::new(&[5, 255]);
        assert_eq!([bytes.pick(4), bytes.pick(256), bytes.pick(9), bytes.pick(9)], [1, 255, 0, 0]);
    }
}
