//! A fast 128-bit hash of a state.
//!
//! States are told apart by it alone: with ten million of them, the chance that any two collide is below 10^-24 if the
//! hash is good, and a state that is wrongly taken for a visited one would be explored by another path anyway.

use std::hash::Hasher;

/// Two multiply-and-fold lanes, as in wyhash, with different constants, that take two words at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint {
    a: u64,
    b: u64,
    /// The first word of two.
    first: u64,
    has_first: bool,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self { a: 0x9e37_79b9_7f4a_7c15, b: 0xd1b5_4a32_d192_ed03, first: 0, has_first: false }
    }
}

const fn fold(x: u64, y: u64) -> u64 {
    let wide = (x as u128) * (y as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Fingerprint {
    const fn mix(&mut self, word: u64) {
        if !self.has_first {
            (self.first, self.has_first) = (word, true);
            return;
        }
        self.has_first = false;
        self.mix_two(self.first, word);
    }

    const fn mix_two(&mut self, first: u64, second: u64) {
        let a = fold(self.a ^ first, second ^ 0xa076_1d64_78bd_642f).wrapping_add(self.b);
        self.b = fold(self.b ^ second.rotate_left(29), first ^ 0xe703_7ed1_a0b4_28db) ^ self.a.rotate_left(17);
        self.a = a;
    }

    pub(crate) fn finish128(mut self) -> u128 {
        // Where the words end is part of what they say.
        let odd = self.has_first;
        self.mix_two(if odd { self.first } else { 0 }, odd as u64);
        self.mix_two(0x5851_f42d_4c95_7f2d, 0x1405_7b7e_f767_814f);
        u128::from(self.a) << 64 | u128::from(self.b)
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.finish128() as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(word) ^ (rest.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.mix(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
}

/// For tables of fingerprints, which are hashes already.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}
