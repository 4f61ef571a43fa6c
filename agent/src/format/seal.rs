//! Keys, sealing and digests: the store can read no contents, and each changed bit is detected.
//!
//! ```text
//!  master key (32 random bytes; `repo` keeps it wrapped)
//!    |- BLAKE3 derive_key "... data"    frames of upload objects      -> a key per object: keyed BLAKE3 of the object id
//!    |- BLAKE3 derive_key "... rows"    row blocks, indexes, trailers -> a key per object or segment, likewise
//!    |- BLAKE3 derive_key "... log"     log records, checkpoints      -> a key per name, likewise
//!    `- BLAKE3 derive_key "... digest"  block digests
//! ```
//!
//! The four are independent, so that a later node can have some and not others (a write-only node would have
//! no data key).
//!
//! | part | bytes | what |
//! |---|---|---|
//! | nonce | 12 | region kind 1, zero 3, byte offset in the object 8: unique under the object's key |
//! | associated data | 41 + header | object name 32 (id and zeros), region kind 1, byte offset 8, then the structure's own header |
//! | tag | 16 | AES-256-GCM; or keyed BLAKE3 of (nonce, associated data length, associated data, body), cut to 16 |
//!
//! [`Sealing::Off`] keeps the same layout and the MAC as the tag, with a master key that the `format` object
//! holds in clear. This is integrity against faults (bit flips, misplaced writes), not secrecy, and no
//! protection from a person who can read that object.
//!
//! Invariants: within one object a (region, offset) is sealed once; an object that is packed anew has a new id. The offsets
//! are byte offsets of headers, and two structures never share one.
//! Does not: draw random bytes, read key files. ring offers no way to wipe its expanded AES keys; ours are wiped on drop.
//! Source: NIST SP 800-38D; the BLAKE3 paper, section 2.3 (derive_key); key structure ours.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroize;

use super::fault::{FormatFault, FormatFaultKind};
use super::row::{DIGEST_BYTES, Digest};
use crate::id::{OBJECT_ID_BYTES, ObjectId};

/// Bytes of a tag, in both modes.
pub const TAG_BYTES: usize = 16;
/// Bytes of every key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a name that a key is derived for.
pub const NAME_BYTES: usize = 32;
/// Most bytes of a structure's header in the associated data.
pub const SEAL_HEADER_BYTES_MAX: usize = 256;

/// Flag of a structure's header: the body is zstd.
pub(super) const FLAG_ZSTD: u8 = 1;
/// Flag of a structure's header: sealed, else the tag is a MAC.
pub(super) const FLAG_SEALED: u8 = 2;

const CONTEXT_DATA: &str = "windlass 2025-11 v1: data key, frames of upload objects";
const CONTEXT_ROWS: &str = "windlass 2025-11 v1: row key, row blocks, indexes and trailers";
const CONTEXT_LOG: &str = "windlass 2025-11 v1: log key, records and checkpoints";
const CONTEXT_DIGEST: &str = "windlass 2025-11 v1: digest key, plain blocks";

/// Whether a repository is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Not encrypted: tags are MACs under a key that is stored in clear.
    Off,
    /// AES-256-GCM.
    Aes256Gcm,
}

/// What is sealed: part of the nonce, so that regions of one object never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Region {
    /// A frame of an upload object.
    Frame = 1,
    /// A row block.
    RowBlock = 2,
    /// The index of a tail.
    Index = 3,
    /// The trailer of a tail (no body, header only).
    Trailer = 4,
    /// A log record.
    Record = 5,
    /// A part of a checkpoint.
    Checkpoint = 6,
}

/// 32 secret bytes, wiped on drop, never printed.
#[derive(Clone)]
pub struct Secret([u8; KEY_BYTES]);

impl Secret {
    /// Takes the bytes; the caller wipes its copy.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Secret {
        Secret(bytes)
    }

    /// The secret bytes.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// An independent key for `context`, a string that is used for nothing else in the world.
    pub fn derive(&self, context: &str) -> Secret {
        Secret(blake3::derive_key(context, &self.0))
    }

    fn for_name(&self, name: &[u8; NAME_BYTES]) -> Secret {
        Secret(*blake3::keyed_hash(&self.0, name).as_bytes())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The derived keys of a repository. Cloning is cheap; pack lanes have one each.
#[derive(Clone, Debug)]
pub struct Keys {
    sealing: Sealing,
    data: Secret,
    rows: Secret,
    log: Secret,
    digest: Secret,
}

impl Keys {
    /// Derives all keys from the master key.
    pub fn new(master: &Secret, sealing: Sealing) -> Keys {
        Keys {
            sealing,
            data: master.derive(CONTEXT_DATA),
            rows: master.derive(CONTEXT_ROWS),
            log: master.derive(CONTEXT_LOG),
            digest: master.derive(CONTEXT_DIGEST),
        }
    }

    /// Whether the repository is encrypted.
    pub fn sealing(&self) -> Sealing {
        self.sealing
    }

    /// The key of the frames of upload object `id`. Costs a hash and an AES key expansion (below a microsecond): keep it for
    /// as long as the object is packed or read.
    pub fn object(&self, id: &ObjectId) -> ObjectKey {
        self.key(&self.data, name_of(id))
    }

    /// The key of the rows, index and trailer of upload object or segment `id`.
    pub fn rows(&self, id: &ObjectId) -> ObjectKey {
        self.key(&self.rows, name_of(id))
    }

    /// The key of a log record or checkpoint. `name` must never be used for two different contents: put the writer's random
    /// number in it, not only the slot.
    pub fn log(&self, name: &[u8; NAME_BYTES]) -> ObjectKey {
        self.key(&self.log, *name)
    }

    /// Digest of a block's plain bytes: keyed BLAKE3, cut to 128 bits.
    pub fn digest(&self, block: &[u8]) -> Digest {
        cut(&blake3::keyed_hash(self.digest.bytes(), block))
    }

    /// The same over several slices.
    pub fn digester(&self) -> Digester {
        Digester(blake3::Hasher::new_keyed(self.digest.bytes()))
    }

    fn key(&self, parent: &Secret, name: [u8; NAME_BYTES]) -> ObjectKey {
        let secret = parent.for_name(&name);
        let cipher = match self.sealing {
            Sealing::Off => Cipher::Mac(secret),
            Sealing::Aes256Gcm => Cipher::Aead(Box::new(expand(&secret))),
        };
        ObjectKey { name, cipher }
    }
}

/// A digest in the making.
#[derive(Clone, Debug)]
pub struct Digester(blake3::Hasher);

impl Digester {
    /// Adds the next bytes of the block.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added; the digester can be dropped or go on.
    pub fn finish(&self) -> Digest {
        cut(&self.0.finalize())
    }
}

/// The key of one object or segment, with its name: expanded once, so that each call costs only the cipher.
pub struct ObjectKey {
    name: [u8; NAME_BYTES],
    cipher: Cipher,
}

enum Cipher {
    /// Boxed: ring's expanded key is half a KiB, and keys move between lanes.
    Aead(Box<LessSafeKey>),
    Mac(Secret),
}

impl ObjectKey {
    /// Whether sealing encrypts: the flag in each structure must agree.
    pub fn is_sealed(&self) -> bool {
        matches!(self.cipher, Cipher::Aead(_))
    }

    /// Seals `body` in place and returns the tag. `header` (at most [`SEAL_HEADER_BYTES_MAX`]) is authenticated with it.
    pub fn seal(&self, region: Region, offset: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let bound = Bound::new(&self.name, region, offset, header);
        match &self.cipher {
            Cipher::Aead(key) => {
                let nonce = Nonce::assume_unique_for_key(bound.nonce);
                let Ok(tag) = key.seal_in_place_separate_tag(nonce, Aad::from(bound.aad()), body) else {
                    // ring refuses only bodies past 64 GiB; ours are bounded by FRAME_RAW_BYTES_MAX.
                    unreachable!("a body within its limit seals");
                };
                let mut out = [0; TAG_BYTES];
                out.copy_from_slice(tag.as_ref());
                out
            }
            Cipher::Mac(secret) => bound.mac(secret, body),
        }
    }

    /// Checks the tag and opens `body` in place. On a fault the contents of `body` mean nothing.
    pub fn open(
        &self,
        region: Region,
        offset: u64,
        header: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), FormatFault> {
        let bound = Bound::new(&self.name, region, offset, header);
        let good = match &self.cipher {
            Cipher::Aead(key) => {
                let nonce = Nonce::assume_unique_for_key(bound.nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(bound.aad()), Tag::from(*tag), body, 0..)
                    .is_ok()
            }
            // Not constant-time, and need not be: this mode does not stand against an attacker.
            Cipher::Mac(secret) => bound.mac(secret, body) == *tag,
        };
        if good { Ok(()) } else { Err(FormatFault::new(region_name(region), FormatFaultKind::Unauthentic)) }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey(sealed: {})", self.is_sealed())
    }
}

/// Nonce and associated data of one call, built on the stack.
struct Bound {
    nonce: [u8; 12],
    aad: [u8; AAD_FIXED_BYTES + SEAL_HEADER_BYTES_MAX],
    aad_len: usize,
}

const AAD_FIXED_BYTES: usize = NAME_BYTES + 1 + 8;

impl Bound {
    fn new(name: &[u8; NAME_BYTES], region: Region, offset: u64, header: &[u8]) -> Bound {
        assert!(header.len() <= SEAL_HEADER_BYTES_MAX, "structure headers are of fixed size");
        let mut nonce = [0; 12];
        nonce[0] = region as u8;
        nonce[4..].copy_from_slice(&offset.to_le_bytes());
        let aad_len = AAD_FIXED_BYTES + header.len();
        let mut aad = [0; AAD_FIXED_BYTES + SEAL_HEADER_BYTES_MAX];
        aad[..NAME_BYTES].copy_from_slice(name);
        aad[NAME_BYTES] = region as u8;
        aad[NAME_BYTES + 1..AAD_FIXED_BYTES].copy_from_slice(&offset.to_le_bytes());
        aad[AAD_FIXED_BYTES..aad_len].copy_from_slice(header);
        Bound { nonce, aad, aad_len }
    }

    fn aad(&self) -> &[u8] {
        &self.aad[..self.aad_len]
    }

    fn mac(&self, secret: &Secret, body: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(secret.bytes());
        hasher.update(&self.nonce);
        hasher.update(&(self.aad_len as u64).to_le_bytes());
        hasher.update(self.aad());
        hasher.update(body);
        cut(&hasher.finalize())
    }
}

fn region_name(region: Region) -> &'static str {
    match region {
        Region::Frame => "frame",
        Region::RowBlock => "row block",
        Region::Index => "index",
        Region::Trailer => "trailer",
        Region::Record => "log record",
        Region::Checkpoint => "checkpoint",
    }
}

fn name_of(id: &ObjectId) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name[..OBJECT_ID_BYTES].copy_from_slice(&id.to_bytes());
    name
}

/// The flags byte of a structure's header.
pub(super) fn flags(zstd: bool, sealed: bool) -> u8 {
    (if zstd { FLAG_ZSTD } else { 0 }) | (if sealed { FLAG_SEALED } else { 0 })
}

/// AES key expansion.
pub(super) fn expand(secret: &Secret) -> LessSafeKey {
    let Ok(key) = UnboundKey::new(&AES_256_GCM, secret.bytes()) else {
        // ring refuses only keys of another length, and the length is in the type.
        unreachable!("a 32-byte key is an AES-256 key");
    };
    LessSafeKey::new(key)
}

fn cut(hash: &blake3::Hash) -> [u8; DIGEST_BYTES] {
    let mut out = [0; DIGEST_BYTES];
    out.copy_from_slice(&hash.as_bytes()[..DIGEST_BYTES]);
    out
}

const _: () = assert!(DIGEST_BYTES == TAG_BYTES && OBJECT_ID_BYTES <= NAME_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Boot, Epoch, NodeId};

    fn id(count: u32) -> ObjectId {
        ObjectId { epoch: Epoch(1), node: NodeId(2), boot: Boot(3), count }
    }

    fn keys(sealing: Sealing) -> Keys {
        Keys::new(&Secret::new([7; 32]), sealing)
    }

    #[test]
    fn what_is_sealed_opens_only_at_its_place_with_its_header_and_key() {
        for sealing in [Sealing::Off, Sealing::Aes256Gcm] {
            let keys = keys(sealing);
            let key = keys.object(&id(1));
            let mut body = *b"the quick brown fox";
            let tag = key.seal(Region::Frame, 4096, b"head", &mut body);
            assert_eq!(body == *b"the quick brown fox", sealing == Sealing::Off);
            let open = |key: &ObjectKey, region, offset, header: &[u8]| {
                let mut copy = body;
                key.open(region, offset, header, &mut copy, &tag).map(|()| copy)
            };
            assert_eq!(open(&key, Region::Frame, 4096, b"head"), Ok(*b"the quick brown fox"));
            assert!(open(&key, Region::Frame, 4097, b"head").is_err());
            assert!(open(&key, Region::RowBlock, 4096, b"head").is_err());
            assert!(open(&key, Region::Frame, 4096, b"heae").is_err());
            assert!(open(&key, Region::Frame, 4096, b"hea").is_err());
            assert!(open(&keys.object(&id(2)), Region::Frame, 4096, b"head").is_err());
            assert!(open(&keys.rows(&id(1)), Region::Frame, 4096, b"head").is_err());
            for bit in 0..body.len() * 8 {
                let mut copy = body;
                copy[bit / 8] ^= 1 << (bit % 8);
                assert!(key.open(Region::Frame, 4096, b"head", &mut copy, &tag).is_err());
            }
            for bit in 0..tag.len() * 8 {
                let (mut copy, mut bad) = (body, tag);
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(key.open(Region::Frame, 4096, b"head", &mut copy, &bad).is_err());
            }
        }
    }

    #[test]
    fn derived_keys_differ_and_nothing_secret_is_printed() {
        let keys = keys(Sealing::Aes256Gcm);
        let all = [&keys.data, &keys.rows, &keys.log, &keys.digest];
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert_ne!(one.bytes(), other.bytes());
            }
        }
        assert!(!format!("{keys:?}").contains('7'));
    }

    #[test]
    fn a_digest_over_slices_equals_the_digest_of_the_whole() {
        let keys = keys(Sealing::Off);
        let mut digester = keys.digester();
        digester.update(b"ab");
        digester.update(b"");
        digester.update(b"c");
        assert_eq!(digester.finish(), keys.digest(b"abc"));
        assert_ne!(keys.digest(b"abc"), Keys::new(&Secret::new([8; 32]), Sealing::Off).digest(b"abc"));
    }
}
