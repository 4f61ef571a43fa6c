//! SHA-256 (FIPS 180-4), for comparing with python's.

/// A hash being made.
pub struct Sha256 {
    k: [u32; 64],
    h: [u32; 8],
    rest: Vec<u8>,
    len: u64,
}

impl Default for Sha256 {
    fn default() -> Sha256 {
        let mut k = [0u32; 64];
        let mut h = [0u32; 8];
        let primes = (2u32..312).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
        for (i, p) in primes.enumerate() {
            let frac = |root: f64| ((root - root.floor()) * 4_294_967_296.0) as u32;
            if i < 8 {
                h[i] = frac(f64::from(p).sqrt());
            }
            k[i] = frac(f64::from(p).cbrt());
        }
        Sha256 { k, h, rest: Vec::new(), len: 0 }
    }
}

impl Sha256 {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(64 - self.rest.len()));
            self.rest.extend_from_slice(now);
            bytes = later;
            if self.rest.len() < 64 {
                return;
            }
            let block = std::mem::take(&mut self.rest);
            self.block(&block);
        }
        let mut blocks = bytes.chunks_exact(64);
        for block in &mut blocks {
            self.block(block);
        }
        self.rest.extend_from_slice(blocks.remainder());
    }

    /// The hash in hex.
    pub fn finish(mut self) -> String {
        let mut last = std::mem::take(&mut self.rest);
        last.push(0x80);
        last.resize((last.len() + 8).next_multiple_of(64), 0);
        let end = last.len();
        last[end - 8..].copy_from_slice(&(self.len * 8).to_be_bytes());
        for block in last.chunks_exact(64) {
            self.block(block);
        }
        self.h.iter().map(|word| format!("{word:08x}")).collect()
    }

    fn block(&mut self, block: &[u8]) {
        let mut w = [0u32; 64];
        for (i, word) in block.chunks_exact(4).enumerate() {
            w[i] = u32::from_be_bytes(word.try_into().unwrap());
        }
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ w[i - 15] >> 3;
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
        }
        let mut v = self.h;
        for (k, w) in self.k.iter().zip(w) {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let ch = v[4] & v[5] ^ !v[4] & v[6];
            let t1 = v[7].wrapping_add(s1).wrapping_add(ch).wrapping_add(*k).wrapping_add(w);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let t2 = s0.wrapping_add(v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]);
            v = [t1.wrapping_add(t2), v[0], v[1], v[2], v[3].wrapping_add(t1), v[4], v[5], v[6]];
        }
        for (a, b) in self.h.iter_mut().zip(v) {
            *a = a.wrapping_add(b);
        }
    }
}
