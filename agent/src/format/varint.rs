//! Varints, and a reader over untrusted bytes.
//!
//! LEB128: seven bits per byte, least significant first, the high bit says "more". Only the shortest spelling of a number is
//! valid, so that equal values have equal bytes. Signed numbers are zigzag-coded (0, -1, 1, -2, ...).
//!
//! Invariant: no call of [`Reader`] panics, whatever the bytes. Source: DWARF 5, section 7.6 (LEB128).

use super::fault::{FormatFault, FormatFaultKind};

/// Appends `value`: 1 to 10 bytes.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zigzag-coded.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of foreign bytes; every error names the structure.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Over `bytes`, which hold a `what`.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { bytes, what }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A broken rule of this structure.
    pub fn damaged(&self, rule: &'static str) -> FormatFault {
        FormatFault::damaged(self.what, rule)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FormatFault> {
        let (head, tail) = self
            .bytes
            .split_at_checked(len)
            .ok_or(FormatFault::new(self.what, FormatFaultKind::Truncated))?;
        self.bytes = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatFault> {
        let (head, tail) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(FormatFault::new(self.what, FormatFaultKind::Truncated))?;
        self.bytes = tail;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, FormatFault> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian u16.
    pub fn u16_le(&mut self) -> Result<u16, FormatFault> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian u32.
    pub fn u32_le(&mut self) -> Result<u32, FormatFault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A little-endian u64.
    pub fn u64_le(&mut self) -> Result<u64, FormatFault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint.
    pub fn u64(&mut self) -> Result<u64, FormatFault> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.damaged("varint past 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    return Err(self.damaged("varint not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.damaged("varint past 64 bits"))
    }

    /// A varint that must fit 32 bits.
    pub fn u32(&mut self) -> Result<u32, FormatFault> {
        u32::try_from(self.u64()?).map_err(|_| self.damaged("number past 32 bits"))
    }

    /// A zigzag varint.
    pub fn signed(&mut self) -> Result<i64, FormatFault> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length of at most `max`, and that many bytes.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], FormatFault> {
        let len = self.u64()?;
        if len > max as u64 {
            return Err(self.damaged("length past its limit"));
        }
        self.take(len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_only_their_shortest_form_is_read() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut reader = Reader::new(&out, "test");
            assert_eq!(reader.u64(), Ok(value));
            assert!(reader.is_empty());
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX, -300] {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            assert_eq!(Reader::new(&out, "test").signed(), Ok(value));
        }
        assert_eq!(Reader::new(&[0xac, 0x02], "test").u64(), Ok(300));
        assert!(Reader::new(&[0x80, 0x00], "test").u64().is_err());
        assert!(Reader::new(&[0xff; 10], "test").u64().is_err());
        assert!(Reader::new(&[0x80], "test").u64().is_err());
    }
}
