//! XXH64 with seed 0 (<https://xxhash.com>, the specification): it catches accidents, and costs little under emulation.
//!
//! Of our own because a program that must not panic cannot be linked with the crates that have it. They are what it is
//! tested against.

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// The hash of these bytes.
pub fn xxh64(bytes: &[u8]) -> u64 {
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() { PRIME_5 } else { stripes_hash(stripes) };
    hash = hash.wrapping_add(bytes.len() as u64);

    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        let half = u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
        hash = (hash ^ half).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
    }

    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

fn stripes_hash(stripes: &[[u8; 32]]) -> u64 {
    let (mut a, mut b, mut c, mut d) = (PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0_u64.wrapping_sub(PRIME_1));
    for stripe in stripes {
        let (words, _) = stripe.as_chunks::<8>();
        if let [one, two, three, four] = words {
            a = round(a, u64::from_le_bytes(*one));
            b = round(b, u64::from_le_bytes(*two));
            c = round(c, u64::from_le_bytes(*three));
            d = round(d, u64::from_le_bytes(*four));
        }
    }
    let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12));
    [a, b, c, d].into_iter().fold(sum.wrapping_add(d.rotate_left(18)), |hash, lane| {
        (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
    })
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xxh64_at_every_length() {
        let bytes: [u8; 700] = core::array::from_fn(|at| (at * 151 % 251) as u8);
        for length in 0..bytes.len() {
            let bytes = &bytes[..length];
            assert_eq!(xxh64(bytes), twox_hash::XxHash64::oneshot(0, bytes), "{length} bytes");
        }
    }
}
