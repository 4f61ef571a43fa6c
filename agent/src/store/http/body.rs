//! Bodies of requests and answers: parts streamed out without joining them, bytes read in with bounds, both through the
//! throttle.
//!
//! Invariants: never reads more than it was allowed. Does not: decode anything. Source: ours.

use std::io::{self, Read};

use ureq::Body;

use super::Cut;
use crate::store::throttle::{PIECE_BYTES_MAX, Throttle};

/// First allocation for a body in bytes; it grows as bytes come, not as the server announces them.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// Reads the concatenation of parts, no faster than the throttle allows.
pub struct Parts<'a> {
    parts: &'a [&'a [u8]],
    at: usize,
    throttle: &'a Throttle,
}

impl<'a> Parts<'a> {
    /// From the first byte.
    pub fn new(parts: &'a [&'a [u8]], throttle: &'a Throttle) -> Parts<'a> {
        Parts { parts, at: 0, throttle }
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let [part, rest @ ..] = self.parts {
            let left = &part[self.at..];
            if left.is_empty() {
                self.parts = rest;
                self.at = 0;
                continue;
            }
            let n = left.len().min(out.len()).min(PIECE_BYTES_MAX);
            self.throttle.wait_up(n as u64);
            out[..n].copy_from_slice(&left[..n]);
            self.at += n;
            return Ok(n);
        }
        Ok(0)
    }
}

/// Appends exactly `len` bytes, which must be all of the body.
pub fn read_exactly(body: &mut Body, len: u64, throttle: &Throttle, out: &mut Vec<u8>) -> Result<(), Cut> {
    out.reserve(usize::try_from(len.min(RESERVE_BYTES_MAX)).unwrap_or(0));
    match read_up_to(body, len, throttle, out)? {
        got if got < len => Err(Cut::Short(got)),
        _ => Ok(()),
    }
}

/// Appends the whole body when it has at most `most` bytes; returns how many there were.
pub fn read_up_to(body: &mut Body, most: u64, throttle: &Throttle, out: &mut Vec<u8>) -> Result<u64, Cut> {
    let mut reader = body.as_reader();
    let mut got = 0;
    while got < most {
        let start = out.len();
        let piece = usize::try_from(most - got).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
        out.resize(start + piece, 0);
        let read = read_some(&mut reader, &mut out[start..]);
        out.truncate(start + read.as_ref().map_or(0, |n| *n));
        match read {
            Ok(0) => return Ok(got),
            Ok(n) => {
                throttle.wait_down(n as u64);
                got += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Cut::Short(got)),
            Err(e) => return Err(Cut::Broken(e)),
        }
    }
    // Also returns the connection to the pool.
    match read_some(&mut reader, &mut [0]) {
        Ok(0) => Ok(got),
        Ok(_) => Err(Cut::Long),
        Err(e) => Err(Cut::Broken(e)),
    }
}

fn read_some(reader: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(out) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use windlass_hal::clock::SystemClock;

    #[test]
    fn parts_come_out_in_order_whatever_the_pieces() {
        let throttle = Throttle::new(Arc::new(SystemClock), 0, 0);
        let mut parts = Parts::new(&[b"ab", b"", b"cde", b"f"], &throttle);
        let mut out = Vec::new();
        let mut piece = [0; 2];
        loop {
            match parts.read(&mut piece).unwrap() {
                0 => break,
                n => out.extend_from_slice(&piece[..n]),
            }
        }
        assert_eq!(out, b"abcdef");
    }
}
