//! The harness's own random numbers: SplitMix64, seeded, the same on every machine.
//!
//! Does not: serve as a source of secrets. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators".

/// A stream of numbers that depends on nothing but its seed.
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// Starts a stream.
    pub fn new(seed: u64) -> Prng {
        Prng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// Whether one of `n` equal chances came up.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        out.truncate(len);
        out
    }

    /// 64 bits with a random number of leading zeros: finds what only large or small numbers break.
    pub fn skewed(&mut self) -> u64 {
        let bits = self.below(65);
        if bits == 0 { 0 } else { self.next_u64() >> (64 - bits) }
    }
}
