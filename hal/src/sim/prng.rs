//! Seeded generator: xoshiro256**, seeded by splitmix64.
//!
//! Invariants
//! - The same seed gives the same sequence, on every machine and in every version: kept seeds depend on it.
//!
//! Does not: keep secrets.
//!
//! Source: D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators" (public-domain reference code).

use crate::entropy::{Entropy, EntropyFault};

/// A generator with 256 bits of state.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

/// One step of splitmix64 from `state`: also a good hash of a number.
pub fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Prng {
    /// From a seed; any value is good.
    pub fn new(seed: u64) -> Prng {
        let mut s = seed;
        Prng { state: std::array::from_fn(|_| splitmix64(&mut s)) }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..bound`, and 0 for a bound of 0. The bias of the multiplication (below 2^-32 for bounds that fit 32
    /// bits) does not matter to a test.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` times on average; never for 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// A generator of its own for a part of the simulation, so that one part's draws do not move another's.
    pub fn fork(&mut self) -> Prng {
        Prng::new(self.next_u64())
    }
}

impl Entropy for Prng {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyFault> {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_reference_code() {
        let mut prng = Prng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..5).map(|_| prng.next_u64()).collect();
        assert_eq!(first, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360]);
        let mut state = 0;
        assert_eq!(splitmix64(&mut state), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn draws_stay_below_their_bound_and_reach_it() {
        let mut prng = Prng::new(1);
        let mut seen = [false; 5];
        (0..200).for_each(|_| seen[prng.below(5) as usize] = true);
        assert_eq!(seen, [true; 5]);
        assert_eq!(prng.below(0), 0);
        assert!(!prng.one_in(0) && prng.one_in(1));
    }

    #[test]
    fn a_fill_of_any_length_is_the_seeds() {
        let (mut a, mut b) = ([0; 13], [0; 13]);
        Prng::new(3).fill(&mut a).unwrap();
        Prng::new(3).fill(&mut b).unwrap();
        assert_eq!(a, b);
        assert_ne!(a, [0; 13]);
    }
}
