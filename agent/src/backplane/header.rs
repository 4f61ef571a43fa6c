//! The header of a backplane frame: 80 bytes, little-endian, then the body. Written by the sending node's session, read by the receiver's.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `WLBP` |
//! | 4 | 1 | protocol version: 1 in a hello and a goodbye, elsewhere the one negotiated |
//! | 5 | 1 | kind: below 16 the session's own, from 16 on a [`message`](super::message) |
//! | 6 | 2 | flags, 0 |
//! | 8 | 4 | CRC-32C of the header with this field zero |
//! | 12 | 4 | n, length of the body, at most 65,456 |
//! | 16 | 4 | CRC-32C of the body |
//! | 20 | 2 | sender: node |
//! | 22 | 2 | receiver: node |
//! | 24 | 16 | cluster |
//! | 40 | 8 | the sender's epoch |
//! | 48 | 8 | sequence: counts the frames of one direction of a connection, `1..` |
//! | 56 | 8 | cookie: the number of a ping, and of its pong; else 0 |
//! | 64 | 8 | last slot of the log that the sender has applied |
//! | 72 | 8 | reserved, 0 |
//!
//! Checks, in this order: 80 bytes, magic, header CRC, version, kind, flags, reserved, length ([`Header::parse`]); cluster, receiver,
//! sender, sequence ([`Header::check`]); body CRC ([`Header::check_body`]). The checksums find faults of software and memory;
//! TLS keeps out people. Does not: look into bodies, or judge epochs.
//! Source: `agent/doc/architecture.md`, Backplane.

use std::ops::RangeInclusive;

use super::message::{BODY_BYTES_MAX, KINDS};
use super::reason::Reason;
use crate::format::slot::ClusterId;
use crate::id::{Epoch, NodeId, Slot};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 80;
/// Bytes of a frame at most.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
/// Largest node id that fits the header; 65,535 stands for none.
pub const NODE_ID_MAX: u32 = u16::MAX as u32 - 1;

/// The first frame each way: who is there.
pub const KIND_HELLO: u8 = 1;
/// Are you there?
pub const KIND_PING: u8 = 2;
/// Yes.
pub const KIND_PONG: u8 = 3;
/// More messages may be sent.
pub const KIND_CREDIT: u8 = 4;
/// The last frame: why the connection ends.
pub const KIND_GOODBYE: u8 = 5;

const MAGIC: [u8; 4] = *b"WLBP";

/// Offsets of fields.
mod field {
    pub const PROTO: usize = 4;
    pub const KIND: usize = 5;
    pub const FLAGS: usize = 6;
    pub const HEADER_CRC: usize = 8;
    pub const BODY_LEN: usize = 12;
    pub const BODY_CRC: usize = 16;
    pub const SRC: usize = 20;
    pub const DST: usize = 22;
    pub const CLUSTER: usize = 24;
    pub const EPOCH: usize = 40;
    pub const SEQ: usize = 48;
    pub const COOKIE: usize = 56;
    pub const LOG_SLOT: usize = 64;
    pub const RESERVED: usize = 72;
}
const _: () = assert!(field::RESERVED + 8 == HEADER_BYTES && FRAME_BYTES_MAX == 64 << 10);
const _: () = assert!(*KINDS.start() > KIND_GOODBYE);

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Protocol version.
    pub proto: u8,
    /// What the body is.
    pub kind: u8,
    /// Length of the body in bytes.
    pub body_len: usize,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// Sender.
    pub src: NodeId,
    /// Receiver.
    pub dst: NodeId,
    /// The repository.
    pub cluster: ClusterId,
    /// The sender's highest epoch.
    pub epoch: Epoch,
    /// Position in this direction of the connection: `1..`.
    pub seq: u64,
    /// Comes back in an answer.
    pub cookie: u64,
    /// Last slot that the sender has applied.
    pub log_slot: Slot,
}

/// What a frame must say to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The repository.
    pub cluster: &'a ClusterId,
    /// This node.
    pub dst: NodeId,
    /// The sender, when it is known.
    pub src: Option<NodeId>,
    /// The next sequence number.
    pub seq: u64,
}

impl Header {
    /// The encoding, with its CRC. Node ids above [`NODE_ID_MAX`] become that of no node, and a length above its cap is refused by the
    /// receiver; sessions make neither.
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(field::PROTO, &[self.proto]);
        put(field::KIND, &[self.kind]);
        put(field::BODY_LEN, &u32::try_from(self.body_len).unwrap_or(u32::MAX).to_le_bytes());
        put(field::BODY_CRC, &self.body_crc.to_le_bytes());
        put(field::SRC, &short_id(self.src).to_le_bytes());
        put(field::DST, &short_id(self.dst).to_le_bytes());
        put(field::CLUSTER, &self.cluster);
        put(field::EPOCH, &self.epoch.0.to_le_bytes());
        put(field::SEQ, &self.seq.to_le_bytes());
        put(field::COOKIE, &self.cookie.to_le_bytes());
        put(field::LOG_SLOT, &self.log_slot.0.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out[field::HEADER_CRC..field::BODY_LEN].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header of one of the versions `protos`. Errors: the first check that fails.
    pub fn parse(bytes: &[u8; HEADER_BYTES], protos: RangeInclusive<u8>) -> Result<Header, Reason> {
        if bytes[..4] != MAGIC {
            return Err(Reason::Magic);
        }
        let mut blank = *bytes;
        blank[field::HEADER_CRC..field::BODY_LEN].fill(0);
        if u32::from_le_bytes(take(bytes, field::HEADER_CRC)) != crc32c::crc32c(&blank) {
            return Err(Reason::HeaderCrc);
        }
        let (proto, kind) = (bytes[field::PROTO], bytes[field::KIND]);
        if !protos.contains(&proto) {
            return Err(Reason::Proto);
        }
        if !(KIND_HELLO..=KIND_GOODBYE).contains(&kind) && !KINDS.contains(&kind) {
            return Err(Reason::Kind);
        }
        if take::<2>(bytes, field::FLAGS) != [0; 2] {
            return Err(Reason::Flags);
        }
        if take::<8>(bytes, field::RESERVED) != [0; 8] {
            return Err(Reason::Reserved);
        }
        let body_len = usize::try_from(u32::from_le_bytes(take(bytes, field::BODY_LEN)));
        let body_len = body_len.ok().filter(|&len| len <= BODY_BYTES_MAX).ok_or(Reason::BodyLen)?;
        Ok(Header {
            proto,
            kind,
            body_len,
            body_crc: u32::from_le_bytes(take(bytes, field::BODY_CRC)),
            src: NodeId(u16::from_le_bytes(take(bytes, field::SRC)).into()),
            dst: NodeId(u16::from_le_bytes(take(bytes, field::DST)).into()),
            cluster: take(bytes, field::CLUSTER),
            epoch: Epoch(u64::from_le_bytes(take(bytes, field::EPOCH))),
            seq: u64::from_le_bytes(take(bytes, field::SEQ)),
            cookie: u64::from_le_bytes(take(bytes, field::COOKIE)),
            log_slot: Slot(u64::from_le_bytes(take(bytes, field::LOG_SLOT))),
        })
    }

    /// Compares with what this connection expects; `known` says whether the sender is whom its certificate names, and is
    /// asked when the sender is not known yet. Errors: the first check that fails.
    pub fn check(
        &self,
        expected: &Expected<'_>,
        known: impl FnOnce(NodeId) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        if self.cluster != *expected.cluster {
            return Err(Reason::Cluster);
        }
        if self.dst != expected.dst {
            return Err(Reason::Destination);
        }
        match expected.src {
            Some(src) if src != self.src => return Err(Reason::Source),
            Some(_) => {}
            None => known(self.src)?,
        }
        if self.seq != expected.seq {
            return Err(Reason::Sequence);
        }
        Ok(())
    }

    /// Compares the body with its CRC.
    pub fn check_body(&self, body: &[u8]) -> Result<(), Reason> {
        if crc32c::crc32c(body) == self.body_crc { Ok(()) } else { Err(Reason::BodyCrc) }
    }
}

fn short_id(node: NodeId) -> u16 {
    u16::try_from(node.0).unwrap_or(u16::MAX)
}

fn take<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            proto: 1,
            kind: 25,
            body_len: 5,
            body_crc: crc32c::crc32c(b"hello"),
            src: NodeId(0x0102),
            dst: NodeId(3),
            cluster: *b"a cluster's name",
            epoch: Epoch(0x1112_1314_1516_1718),
            seq: 9,
            cookie: 10,
            log_slot: Slot(11),
        }
    }

    fn judge(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Reason> {
        let header = Header::parse(bytes, 1..=1)?;
        let cluster = sample().cluster;
        let expected = Expected { cluster: &cluster, dst: NodeId(3), src: Some(NodeId(0x0102)), seq: 9 };
        header.check(&expected, |_| Err(Reason::Stranger))?;
        header.check_body(b"hello")?;
        Ok(header)
    }

    /// Changes bytes and makes the header's CRC match again.
    fn changed(at: usize, bytes: &[u8]) -> [u8; HEADER_BYTES] {
        let mut out = sample().emit();
        out[at..at + bytes.len()].copy_from_slice(bytes);
        out[8..12].fill(0);
        let crc = crc32c::crc32c(&out);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = sample().emit();
        assert_eq!(&bytes[..8], b"WLBP\x01\x19\0\0");
        assert_eq!(bytes[12..16], [5, 0, 0, 0]);
        // "hello" by the table of RFC 3720's polynomial.
        assert_eq!(bytes[16..20], 0x9a71_bb4c_u32.to_le_bytes());
        assert_eq!(bytes[20..24], [2, 1, 3, 0]);
        assert_eq!(&bytes[24..40], b"a cluster's name");
        assert_eq!(bytes[40..48], [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        assert_eq!((bytes[48], bytes[56], bytes[64]), (9, 10, 11));
        assert_eq!(bytes[72..], [0; 8]);
        assert_eq!(judge(&bytes), Ok(sample()));
    }

    #[test]
    fn each_field_is_refused_for_its_own_reason() {
        let over = (BODY_BYTES_MAX as u32 + 1).to_le_bytes();
        for (at, bytes, reason) in [
            (0, &b"HTTP"[..], Reason::Magic),
            (4, &[0], Reason::Proto),
            (4, &[2], Reason::Proto),
            (5, &[0], Reason::Kind),
            (5, &[6], Reason::Kind),
            (5, &[15], Reason::Kind),
            (5, &[255], Reason::Kind),
            (6, &[1, 0], Reason::Flags),
            (72, &[0, 0, 0, 0, 0, 0, 0, 1], Reason::Reserved),
            (12, &over, Reason::BodyLen),
            (12, &[255; 4], Reason::BodyLen),
            (24, &[0], Reason::Cluster),
            (22, &[4], Reason::Destination),
            (20, &[1], Reason::Source),
            (48, &[8], Reason::Sequence),
            (48, &[10], Reason::Sequence),
            (16, &[0], Reason::BodyCrc),
        ] {
            assert_eq!(judge(&changed(at, bytes)), Err(reason), "offset {at}");
        }
        assert!(Header::parse(&changed(12, &(BODY_BYTES_MAX as u32).to_le_bytes()), 1..=1).is_ok());
    }

    #[test]
    fn an_earlier_check_wins_over_a_later_one() {
        let order: [(usize, &[u8], Reason); 9] = [
            (4, &[9], Reason::Proto),
            (5, &[9], Reason::Kind),
            (6, &[9], Reason::Flags),
            (72, &[9], Reason::Reserved),
            (12, &[255; 4], Reason::BodyLen),
            (24, &[9], Reason::Cluster),
            (22, &[9], Reason::Destination),
            (20, &[9], Reason::Source),
            (48, &[8], Reason::Sequence),
        ];
        for first in 0..order.len() {
            let mut bytes = sample().emit();
            for (at, change, _) in &order[first..] {
                bytes[*at..*at + change.len()].copy_from_slice(change);
            }
            bytes[8..12].fill(0);
            let crc = crc32c::crc32c(&bytes);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(judge(&bytes), Err(order[first].2));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = sample().emit();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let want = if bit < 32 { Reason::Magic } else { Reason::HeaderCrc };
            assert_eq!(judge(&bytes), Err(want), "bit {bit}");
        }
    }

    #[test]
    fn a_sender_that_is_not_known_yet_is_asked_for() {
        let (header, cluster) = (sample(), sample().cluster);
        let expected = Expected { cluster: &cluster, dst: NodeId(3), src: None, seq: 9 };
        assert_eq!(header.check(&expected, |_| Err(Reason::Stranger)), Err(Reason::Stranger));
        assert_eq!(
            header.check(&expected, |id| if id.0 == 0x0102 { Ok(()) } else { Err(Reason::Source) }),
            Ok(())
        );
    }
}
