//! The small objects of the commit log: a slot, a lease grant, a beat, and the pointer in a boundary.
//!
//! A slot, `log/<20 digits>`, at most 64 KiB, written once by the lease's holder, read by everyone:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `WLSL` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 16 | cluster |
//! | 24 | 8 | slot |
//! | 32 | 8 | epoch |
//! | 40 | 4 | writer: node |
//! | 44 | 4 | reserved, 0 |
//! | 48 | 8 | writer: boot |
//! | 56 | 16 | nonce: random; its first 12 bytes are the seal's nonce |
//! | 72 | 32 | previous digest: the digest of the slot before, zero in slot 1 |
//! | 104 | 4 | n, length of the body as stored |
//! | 108 | n | body: records (see [`record`](super::record)), sealed; associated data: bytes 0..104 |
//! | 108 + n | 32 | digest: BLAKE3 of all bytes before it |
//! | 140 + n | m | the slot before, as this table draws it up to its digest, where both fit into 64 KiB; else nothing |
//!
//! So a lost slot can be read from the slot behind it. The carried slot is not part of the digest of the slot
//! that carries it; it has its own.
//!
//! A grant (`epoch/<20 digits>`, magic `WLGR`) and a beat (`beat/<20 digits>`, magic `WLBT`): magic 4, version 2, reserved 2, cluster
//! 16, epoch 8, node 4, reserved 4, boot 8, counter 8 (lease length in ns for a grant), nonce 16, digest 32. A beat of version 2 has behind its
//! nonce the last slot that its holder knows to count, 8. A grant of version 2 has there what its holder is, for people: kind 4 (1 a command, 2 an
//! agent), process 4, host 32, padded with zeros; one that does not say is of version 1. Not sealed: they hold no secrets, and nothing but
//! liveness, fencing and the end of the log follows from them.
//!
//! A boundary's body (magic `WLBD`): magic 4, version 2, reserved 2, cluster 16, the checkpoint's slot 8, nonce 16, digest 32, digest 32.
//!
//! The tables show one copy; each object is stored as two (`copies`). Does not: name keys (`log::keys`).
//! Source: `agent/doc/commit-log.md`, Keys.

use std::fmt;
use std::ops::RangeInclusive;

use super::cursor::{Reader, Wire, WireFault};
use super::record::{CheckpointName, Record, emit_records, parse_records};
use crate::foreign;
use crate::id::{Boot, Epoch, NodeId, Slot};
use crate::log::limits::{SLOT_BYTES_MAX, SLOT_RECORDS_MAX};

/// BLAKE3 over a slot, a checkpoint, a grant.
pub type LogDigest = [u8; 32];

/// Identity of a repository: in every object of the log, so that a mixed-up store is noticed.
pub type ClusterId = [u8; 16];

/// Bytes of a slot that are not its body.
pub const SLOT_OVERHEAD_BYTES: usize = BODY_AT + DIGEST_BYTES;
/// Magic of a checkpoint, and where in it the length of its body is (see `log::checkpoint`).
pub(crate) const CHECKPOINT_MAGIC: [u8; 4] = *b"WLCK";
pub(crate) const CHECKPOINT_LENGTH_AT: usize = 80;

const SLOT_MAGIC: [u8; 4] = *b"WLSL";
const GRANT_MAGIC: [u8; 4] = *b"WLGR";
const BEAT_MAGIC: [u8; 4] = *b"WLBT";
const BOUNDARY_MAGIC: [u8; 4] = *b"WLBD";
const VERSION: u16 = 1;
const AAD_BYTES: usize = 104;
const BODY_AT: usize = 108;
const LENGTH_AT: usize = 104;
const DIGEST_BYTES: usize = 32;
const SLOT_AT: usize = 24;
/// Bytes of a grant, and of a beat of version 1.
const CLAIM_BYTES: usize = 104;
/// Version of a beat that names a slot, and its bytes.
const BEAT_VERSION: u16 = 2;
const BEAT_BYTES: usize = CLAIM_BYTES + 8;
/// Version of a grant that says what its holder is, and its bytes.
const GRANT_VERSION: u16 = 2;
const GRANT_BYTES: usize = CLAIM_BYTES + 8 + HOST_BYTES;
/// Bytes of a host's name in a grant: what is longer is cut.
pub const HOST_BYTES: usize = 32;
/// Where a version is.
const VERSION_AT: usize = 4;
/// Bytes of a boundary.
const BOUNDARY_BYTES: usize = 112;
/// Bytes of a magic.
const MAGIC_BYTES: usize = 4;

/// Seals and opens bodies under the repository's log key.
pub trait Sealer {
    /// Encrypts `body` in place and appends what `open` needs to verify it.
    fn seal(&self, aad: &[u8], nonce: [u8; 12], body: &mut Vec<u8>);

    /// Verifies and decrypts in place; `Err` leaves `body` undefined.
    fn open(&self, aad: &[u8], nonce: [u8; 12], body: &mut Vec<u8>) -> Result<(), SealBroken>;
}

/// A sealed body does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealBroken;

/// No sealing at all, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PlainForTests;

impl Sealer for PlainForTests {
    fn seal(&self, _aad: &[u8], _nonce: [u8; 12], _body: &mut Vec<u8>) {}

    fn open(&self, _aad: &[u8], _nonce: [u8; 12], _body: &mut Vec<u8>) -> Result<(), SealBroken> {
        Ok(())
    }
}

impl<S: Sealer + ?Sized> Sealer for std::sync::Arc<S> {
    fn seal(&self, aad: &[u8], nonce: [u8; 12], body: &mut Vec<u8>) {
        (**self).seal(aad, nonce, body);
    }

    fn open(&self, aad: &[u8], nonce: [u8; 12], body: &mut Vec<u8>) -> Result<(), SealBroken> {
        (**self).open(aad, nonce, body)
    }
}

/// One start of one agent: the writer of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author {
    /// Id of the node.
    pub node: NodeId,
    /// Boot number of this start of its agent.
    pub boot: Boot,
}

/// The header of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotHeader {
    /// UUID of the repository.
    pub cluster: ClusterId,
    /// Number of the slot.
    pub slot: Slot,
    /// Epoch of the writer.
    pub epoch: Epoch,
    /// Node and boot number of the writer.
    pub writer: Author,
    /// Random, so that two attempts differ.
    pub nonce: [u8; 16],
    /// Digest of the slot before.
    pub previous: LogDigest,
}

/// A slot, opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotContents {
    /// The header.
    pub header: SlotHeader,
    /// Its records, in order.
    pub records: Vec<Record>,
    /// Its digest: what the next slot names as previous.
    pub digest: LogDigest,
}

impl SlotHeader {
    /// Builds the slot's bytes; returns them with their digest, or `Count` of the bytes when they are above 64 KiB.
    pub fn emit<S: Sealer>(&self, records: &[Record], sealer: &S) -> Result<(Vec<u8>, LogDigest), WireFault> {
        if records.is_empty() || records.len() > SLOT_RECORDS_MAX {
            return Err(WireFault::Count(u32::try_from(records.len()).unwrap_or(u32::MAX)));
        }
        let mut out = Vec::with_capacity(1024);
        emit_start(&mut out, SLOT_MAGIC, &self.cluster);
        self.slot.emit(&mut out);
        self.epoch.emit(&mut out);
        emit_author(&mut out, &self.writer);
        self.nonce.emit(&mut out);
        self.previous.emit(&mut out);
        debug_assert_eq!(out.len(), AAD_BYTES);
        let mut body = Vec::with_capacity(1024);
        emit_records(records, &mut body);
        sealer.seal(&out, seal_nonce(&self.nonce), &mut body);
        let total = body.len().saturating_add(SLOT_OVERHEAD_BYTES);
        if total > SLOT_BYTES_MAX {
            return Err(WireFault::Count(u32::try_from(total).unwrap_or(u32::MAX)));
        }
        u32::try_from(body.len()).unwrap_or(u32::MAX).emit(&mut out);
        out.extend_from_slice(&body);
        let digest = emit_digest(&mut out);
        Ok((out, digest))
    }

    /// Parses the header only, after the length and the digest have been checked. For comparing nonces. What the slot carries is
    /// left alone.
    pub fn parse(bytes: &[u8]) -> Result<(SlotHeader, LogDigest), WireFault> {
        if bytes.len() > SLOT_BYTES_MAX {
            return Err(WireFault::Count(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let (inner, digest) = check_digest(own_part(bytes)?)?;
        let mut reader = Reader::new(inner);
        let cluster = parse_start(&mut reader, SLOT_MAGIC)?;
        let header = SlotHeader {
            cluster,
            slot: reader.value()?,
            epoch: reader.value()?,
            writer: parse_author(&mut reader)?,
            nonce: reader.value()?,
            previous: reader.value()?,
        };
        let body: u32 = reader.value()?;
        if usize::try_from(body) == Ok(reader.len()) { Ok((header, digest)) } else { Err(WireFault::Short) }
    }
}

impl SlotContents {
    /// Parses, verifies the digest, opens the body. Does not compare cluster, slot or previous digest with anything.
    pub fn parse<S: Sealer>(bytes: &[u8], sealer: &S) -> Result<SlotContents, WireFault> {
        let (header, digest) = SlotHeader::parse(bytes)?;
        let own = own_part(bytes)?;
        let mut body = own[BODY_AT..own.len() - DIGEST_BYTES].to_vec();
        sealer
            .open(&bytes[..AAD_BYTES], seal_nonce(&header.nonce), &mut body)
            .map_err(|SealBroken| WireFault::Seal)?;
        Ok(SlotContents { header, records: parse_records(&body)?, digest })
    }
}

/// A slot's bytes without what it carries. `Short` when they end early.
pub fn own_part(bytes: &[u8]) -> Result<&[u8], WireFault> {
    let length = body_length(bytes, LENGTH_AT).ok_or(WireFault::Short)?;
    length.checked_add(SLOT_OVERHEAD_BYTES).and_then(|total| bytes.get(..total)).ok_or(WireFault::Short)
}

/// The slot before the one at the start of `bytes`, which carries it; as that slot's own part. It is whole; whether it belongs there its
/// reader judges.
pub fn carried(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.get(own_part(bytes).ok()?.len()..)?;
    let before = &rest[..log_object_bytes(rest, SLOT_MAGIC)?];
    let number = |slot: &[u8]| slot.get(SLOT_AT..SLOT_AT + 8)?.try_into().ok().map(u64::from_le_bytes);
    (number(before)?.checked_add(1) == number(bytes)).then_some(before)
}

/// Lets a slot carry the one before it, where both fit.
pub fn carry(mut own: Vec<u8>, before: &[u8]) -> Vec<u8> {
    if own.len().saturating_add(before.len()) <= SLOT_BYTES_MAX {
        own.extend_from_slice(before);
    }
    own
}

/// Bytes of the object of the commit log that `bytes` begin with, whatever kind it is; a slot with what it carries. `None` when there is
/// none, or a damaged one.
pub fn whole(bytes: &[u8]) -> Option<usize> {
    let magic = bytes.first_chunk::<MAGIC_BYTES>()?;
    let own = log_object_bytes(bytes, *magic)?;
    let more = if *magic == SLOT_MAGIC { carried(bytes).map_or(0, <[u8]>::len) } else { 0 };
    Some(own + more)
}

/// What every object of the log begins with.
pub const LOG_MAGIC: &[u8] = b"WL";

fn log_object_bytes(bytes: &[u8], magic: [u8; 4]) -> Option<usize> {
    if !bytes.starts_with(&magic) {
        return None;
    }
    let total = match magic {
        SLOT_MAGIC => own_part(bytes).ok()?.len(),
        CHECKPOINT_MAGIC => {
            let overhead = CHECKPOINT_LENGTH_AT + 4 + DIGEST_BYTES;
            body_length(bytes, CHECKPOINT_LENGTH_AT)?.checked_add(overhead)?
        }
        BEAT_MAGIC if bytes.get(VERSION_AT..VERSION_AT + 2)? == BEAT_VERSION.to_le_bytes() => BEAT_BYTES,
        GRANT_MAGIC if bytes.get(VERSION_AT..VERSION_AT + 2)? == GRANT_VERSION.to_le_bytes() => GRANT_BYTES,
        GRANT_MAGIC | BEAT_MAGIC => CLAIM_BYTES,
        BOUNDARY_MAGIC => BOUNDARY_BYTES,
        _ => return None,
    };
    check_digest(bytes.get(..total)?).ok().map(|_| total)
}

fn body_length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)?;
    usize::try_from(length).ok()
}

/// Which kind of process holds a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HolderKind {
    /// It does not say.
    #[default]
    Unsaid,
    /// A command that works alone, under a number that may be an agent's too.
    Command,
    /// The agent of a node.
    Agent,
}

/// What holds a lease, as it says itself, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// Which kind.
    pub kind: HolderKind,
    /// Number of its process.
    pub process: u32,
    /// Name of its host, padded with zeros.
    host: [u8; HOST_BYTES],
}

impl Who {
    /// A process of a host.
    pub fn new(kind: HolderKind, host: &str, process: u32) -> Who {
        let mut name = [0; HOST_BYTES];
        let bytes = host.bytes().take_while(|&byte| byte != 0);
        name.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        Who { kind, process, host: name }
    }

    /// Whether it is a command that works alone.
    pub fn is_command(&self) -> bool {
        self.kind == HolderKind::Command
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let kind: u32 = match self.kind {
            HolderKind::Unsaid => 0,
            HolderKind::Command => 1,
            HolderKind::Agent => 2,
        };
        kind.emit(out);
        self.process.emit(out);
        self.host.emit(out);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Who, WireFault> {
        let kind = match reader.value::<u32>()? {
            1 => HolderKind::Command,
            2 => HolderKind::Agent,
            _ => return Err(WireFault::Value),
        };
        let who = Who { kind, process: reader.value()?, host: reader.value()? };
        let end = who.host.iter().position(|&byte| byte == 0).unwrap_or(HOST_BYTES);
        if who.host[end..].iter().any(|&byte| byte != 0) { Err(WireFault::Value) } else { Ok(who) }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.host.iter().position(|&byte| byte == 0).unwrap_or(HOST_BYTES);
        let (host, process) = (foreign::name(&self.host[..end]), self.process);
        match self.kind {
            HolderKind::Unsaid => f.write_str("another windlass"),
            HolderKind::Command => write!(f, "a windlass command on {host} (pid {process})"),
            HolderKind::Agent => write!(f, "an agent on {host} (pid {process})"),
        }
    }
}

/// A lease grant or a beat: both name the holder of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// UUID of the repository.
    pub cluster: ClusterId,
    /// Number of the epoch.
    pub epoch: Epoch,
    /// Node and boot number of the holder.
    pub holder: Author,
    /// Of a grant: lease length in nanoseconds. Of a beat: a counter that grows with each beat.
    pub counter: u64,
    /// Random, so that two attempts differ.
    pub nonce: [u8; 16],
    /// Of a beat: the last slot that its holder knows to count; 0 when it does not say. Of a grant: 0.
    pub slot: Slot,
    /// Of a grant: what its holder is. Of a beat: it does not say.
    pub who: Who,
}

impl Claim {
    /// Bytes of a grant.
    pub fn emit_grant(&self) -> Vec<u8> {
        let says = self.who.kind != HolderKind::Unsaid;
        self.emit(GRANT_MAGIC, if says { GRANT_VERSION } else { VERSION })
    }

    /// Bytes of a beat.
    pub fn emit_beat(&self) -> Vec<u8> {
        self.emit(BEAT_MAGIC, BEAT_VERSION)
    }

    /// Parses a grant, of this version or of the one before it.
    pub fn parse_grant(bytes: &[u8]) -> Result<Claim, WireFault> {
        match Claim::parse(bytes, GRANT_MAGIC, GRANT_VERSION) {
            Err(WireFault::Version(VERSION)) => Claim::parse(bytes, GRANT_MAGIC, VERSION),
            parsed => parsed,
        }
    }

    /// Parses a beat, of this version or of the one before it.
    pub fn parse_beat(bytes: &[u8]) -> Result<Claim, WireFault> {
        match Claim::parse(bytes, BEAT_MAGIC, BEAT_VERSION) {
            Err(WireFault::Version(VERSION)) => Claim::parse(bytes, BEAT_MAGIC, VERSION),
            parsed => parsed,
        }
    }

    fn emit(&self, magic: [u8; 4], version: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        emit_start_of(&mut out, magic, version, &self.cluster);
        self.epoch.emit(&mut out);
        emit_author(&mut out, &self.holder);
        self.counter.emit(&mut out);
        self.nonce.emit(&mut out);
        match magic {
            BEAT_MAGIC if version == BEAT_VERSION => self.slot.emit(&mut out),
            GRANT_MAGIC if version == GRANT_VERSION => self.who.emit(&mut out),
            _ => {}
        }
        emit_digest(&mut out);
        out
    }

    fn parse(bytes: &[u8], magic: [u8; 4], version: u16) -> Result<Claim, WireFault> {
        let (inner, _) = check_digest(bytes)?;
        let mut reader = Reader::new(inner);
        let (_, cluster) = parse_start_of(&mut reader, magic, version..=version)?;
        let mut claim = Claim {
            cluster,
            epoch: reader.value()?,
            holder: parse_author(&mut reader)?,
            counter: reader.value()?,
            nonce: reader.value()?,
            slot: Slot(0),
            who: Who::default(),
        };
        match magic {
            BEAT_MAGIC if version == BEAT_VERSION => claim.slot = reader.value()?,
            GRANT_MAGIC if version == GRANT_VERSION => claim.who = Who::parse(&mut reader)?,
            _ => {}
        }
        reader.finish()?;
        Ok(claim)
    }
}

/// Bytes of a boundary object.
pub fn emit_boundary(cluster: &ClusterId, checkpoint: &CheckpointName) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    emit_start(&mut out, BOUNDARY_MAGIC, cluster);
    checkpoint.emit(&mut out);
    emit_digest(&mut out);
    out
}

/// Inverse of [`emit_boundary`].
pub fn parse_boundary(bytes: &[u8]) -> Result<(ClusterId, CheckpointName), WireFault> {
    let (inner, _) = check_digest(bytes)?;
    let mut reader = Reader::new(inner);
    let cluster = parse_start(&mut reader, BOUNDARY_MAGIC)?;
    let checkpoint = reader.value()?;
    reader.finish()?;
    Ok((cluster, checkpoint))
}

/// Magic, version, reserved, cluster.
pub(crate) fn emit_start(out: &mut Vec<u8>, magic: [u8; 4], cluster: &ClusterId) {
    emit_start_of(out, magic, VERSION, cluster);
}

/// The same with a version of the format's own.
pub(crate) fn emit_start_of(out: &mut Vec<u8>, magic: [u8; 4], version: u16, cluster: &ClusterId) {
    magic.emit(out);
    version.emit(out);
    0u16.emit(out);
    cluster.emit(out);
}

pub(crate) fn parse_start(reader: &mut Reader<'_>, magic: [u8; 4]) -> Result<ClusterId, WireFault> {
    Ok(parse_start_of(reader, magic, VERSION..=VERSION)?.1)
}

/// The version, which is one of `versions`, and the cluster.
pub(crate) fn parse_start_of(
    reader: &mut Reader<'_>,
    magic: [u8; 4],
    versions: RangeInclusive<u16>,
) -> Result<(u16, ClusterId), WireFault> {
    if reader.value::<[u8; 4]>()? != magic {
        return Err(WireFault::Magic);
    }
    let version = reader.value()?;
    if !versions.contains(&version) {
        return Err(WireFault::Version(version));
    }
    if reader.value::<u16>()? != 0 {
        return Err(WireFault::Value);
    }
    Ok((version, reader.value()?))
}

/// Appends the BLAKE3 of all bytes so far, and returns it.
pub(crate) fn emit_digest(out: &mut Vec<u8>) -> LogDigest {
    let digest = *blake3::hash(out).as_bytes();
    out.extend_from_slice(&digest);
    digest
}

/// Splits off the digest at the end and verifies it.
pub(crate) fn check_digest(bytes: &[u8]) -> Result<(&[u8], LogDigest), WireFault> {
    let (inner, tail) = bytes.split_last_chunk::<32>().ok_or(WireFault::Short)?;
    if blake3::hash(inner).as_bytes() == tail { Ok((inner, *tail)) } else { Err(WireFault::Digest) }
}

/// The AEAD's nonce is the first 12 bytes of the random 16: 2^-64 for a repeat among 2^16 checkpoints and slots each second for years.
pub(crate) fn seal_nonce(nonce: &[u8; 16]) -> [u8; 12] {
    let mut short = [0; 12];
    short.copy_from_slice(&nonce[..12]);
    short
}

fn emit_author(out: &mut Vec<u8>, author: &Author) {
    author.node.emit(out);
    0u32.emit(out);
    author.boot.emit(out);
}

fn parse_author(reader: &mut Reader<'_>) -> Result<Author, WireFault> {
    let node = reader.value()?;
    if reader.value::<u32>()? != 0 {
        return Err(WireFault::Value);
    }
    Ok(Author { node, boot: reader.value()? })
}

#[cfg(test)]
#[path = "slot_test.rs"]
mod tests;
