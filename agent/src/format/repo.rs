//! The repository's `format` object: what an agent must read before anything else. Made create-only, never
//! deleted.
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | "WINDLASS" |
//! | 8 | 2 | version | of this object and of everything in the repository that has no version of its own: 1, 2 with a lease store, or 3 with features |
//! | 10 | 1 | sealing | 0 off, 1 AES-256-GCM |
//! | 11 | 1 | location_blocks | N: blocks per location row, 1..=64 |
//! | 12 | 4 | total | bytes of one copy of this object |
//! | 16 | 16 | uuid | the repository (and cluster) id, random |
//! | 32 | 8 | created | seconds since 1970, for people only |
//! | 40 | 1 | slots | number of key slots: 0 when sealing is off, else 1..=8 |
//! | 41 | 1 | reserved | zero |
//! | 42 | 2 | identity_bytes | bytes of the store identity, 0..=512 |
//! | 44 | 2 | lease_bytes | bytes of the lease store's description, 1..=512; version 1: zero; version 3: 0..=512 |
//! | 46 | 2 | features_bytes | version 3: bytes of the list of features, 1..=1024; else zero |
//! | 48 | 16 | reserved | zero |
//! | 64 | 32 | clear_key | sealing off: the master key in clear (integrity only, see `seal`); else zero |
//! | 96 | slots * 80 | slots | key slots (see `wrap`) |
//! | ... | identity_bytes | identity | where the repository was made, UTF-8: distinguishes a copy from the original |
//! | ... | lease_bytes | lease store | where the log and the lease were when it was made, UTF-8, for people |
//! | ... | features_bytes | features | that it was made with, as [`feature`](super::feature) says |
//! | total - 4 | 4 | crc | CRC-32 (IEEE) of all bytes before |
//!
//! Little-endian, stored as two copies (`copies`), under two keys: `format`, and `format-copy` in case the
//! first is lost. Written by `init`; read by every command before anything else. Only its key slots ever change, by the holder of the
//! lease (`windlass key`): the object and then its copy are replaced, so one of them can be read at any moment.
//!
//! A repository whose commit log is in another store (`store::split`) has version 2, so that an agent which
//! does not support that refuses it and does not begin a second log beside its objects.
//!
//! A repository that was made with features has version 3. An unknown incompatible one is refused by name, with an unknown read-only one
//! the repository is read and not written. Features that come later are in the log.
//!
//! Invariants: an unknown version is refused; a parsed object emits the same bytes. The CRC finds faults, not attackers: an
//! attacker who changes N or the slots makes the repository unreadable, not readable.
//! Does not: wrap keys (`wrap`). Source: ours.

use super::copies;
use super::cursor::{self, WireFault};
use super::fault::{FormatFault, FormatFaultKind};
use super::feature::{self, FEATURES_BYTES_MAX, Features};
use super::seal::{KEY_BYTES, Keys, Sealing, Secret};
use super::varint::Reader;
use super::wrap::{KEY_SLOT_BYTES, KeySlot, Unlock};
use crate::limits::{KEY_SLOTS_MAX, LOCATION_BLOCKS_MAX, REPO_FORMAT_BYTES_MAX, STORE_IDENTITY_BYTES_MAX};

/// Bytes before the key slots.
pub const REPO_FORMAT_FIXED_BYTES: usize = 96;
/// The key of the `format` object in the store.
pub const REPO_FORMAT_KEY: &str = "format";
/// The key of the same object once more, for when that is lost: without it nothing of the repository can be read.
pub const REPO_FORMAT_COPY_KEY: &str = "format-copy";

const MAGIC: [u8; 8] = *b"WINDLASS";
const VERSION: u16 = 1;
const VERSION_LEASE: u16 = 2;
const VERSION_FEATURES: u16 = 3;
const CRC_BYTES: usize = 4;
const TOTAL_AT: usize = 12;
const WHAT: &str = "repository format";

/// The `format` object.
#[derive(Clone, Debug)]
pub struct RepoFormat {
    /// Random id of the repository, also the cluster's.
    pub uuid: [u8; 16],
    /// Seconds since 1970 when it was made, for people.
    pub created_secs: i64,
    /// Blocks per location row, 1..=[`LOCATION_BLOCKS_MAX`].
    pub location_blocks: u8,
    /// Where it was made (`Store::describe`), at most [`STORE_IDENTITY_BYTES_MAX`].
    pub store_identity: String,
    /// The store that has its log and lease (`Store::describe`), at most [`STORE_IDENTITY_BYTES_MAX`]; empty: the same one.
    pub lease_store: String,
    /// How the master key is kept.
    pub lock: Lock,
    /// What it was made with that a program must know, at most [`FEATURES_BYTES_MAX`] as a list.
    pub features: Features,
}

/// How the master key is kept.
#[derive(Clone, Debug)]
pub enum Lock {
    /// Sealing is off: in clear.
    Clear(Secret),
    /// Wrapped, 1..=[`KEY_SLOTS_MAX`] times.
    Slots(Vec<KeySlot>),
}

impl RepoFormat {
    /// Whether the repository is encrypted.
    pub fn sealing(&self) -> Sealing {
        match self.lock {
            Lock::Clear(_) => Sealing::Off,
            Lock::Slots(_) => Sealing::Aes256Gcm,
        }
    }

    /// The keys; every slot of `unlock`'s kind is tried. [`FormatFaultKind::WrongKey`] when none opens or
    /// none was given; [`FormatFaultKind::Mode`] when a key was given and the repository is not encrypted: a
    /// person who replaces the `format` object must not get the next backup in clear.
    pub fn unlock(&self, unlock: Option<&Unlock>) -> Result<Keys, FormatFault> {
        let slots = match &self.lock {
            Lock::Clear(_) if unlock.is_some() => return Err(FormatFault::new(WHAT, FormatFaultKind::Mode)),
            Lock::Clear(master) => return Ok(Keys::new(master, Sealing::Off)),
            Lock::Slots(slots) => slots,
        };
        let mut fault = FormatFault::new(WHAT, FormatFaultKind::WrongKey);
        let Some(unlock) = unlock else {
            return Err(fault);
        };
        for slot in slots {
            match slot.unwrap(unlock, &self.uuid) {
                Ok(master) => return Ok(Keys::new(&master, Sealing::Aes256Gcm)),
                Err(other) if other.kind != FormatFaultKind::WrongKey => fault = other,
                Err(_) => {}
            }
        }
        Err(fault)
    }

    /// Its bytes. Panics when a field is past its limit: `init` checks them.
    pub fn emit(&self) -> Vec<u8> {
        let slots: &[KeySlot] = match &self.lock {
            Lock::Clear(_) => &[],
            Lock::Slots(slots) => slots,
        };
        let (identity, lease) = (self.store_identity.as_bytes(), self.lease_store.as_bytes());
        assert!((1..=LOCATION_BLOCKS_MAX).contains(&usize::from(self.location_blocks)), "N is in range");
        assert!(slots.len() <= KEY_SLOTS_MAX, "limits hold");
        assert!(identity.len().max(lease.len()) <= STORE_IDENTITY_BYTES_MAX, "limits hold");
        assert!(
            slots.is_empty() == (self.sealing() == Sealing::Off),
            "an encrypted repository has a key slot"
        );
        let mut features = Vec::new();
        if !self.features.is_empty() {
            feature::emit(&self.features, &mut features);
        }
        assert!(features.len() <= FEATURES_BYTES_MAX, "limits hold");
        let texts = identity.len() + lease.len() + features.len();
        let total = REPO_FORMAT_FIXED_BYTES + slots.len() * KEY_SLOT_BYTES + texts + CRC_BYTES;
        let version = match (features.is_empty(), lease.is_empty()) {
            (false, _) => VERSION_FEATURES,
            (true, false) => VERSION_LEASE,
            (true, true) => VERSION,
        };
        let mut out = Vec::with_capacity(total);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&version.to_le_bytes());
        out.push(match self.sealing() {
            Sealing::Off => 0,
            Sealing::Aes256Gcm => 1,
        });
        out.push(self.location_blocks);
        out.extend_from_slice(&(total as u32).to_le_bytes());
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.created_secs.to_le_bytes());
        out.push(slots.len() as u8);
        out.push(0);
        out.extend_from_slice(&(identity.len() as u16).to_le_bytes());
        out.extend_from_slice(&(lease.len() as u16).to_le_bytes());
        out.extend_from_slice(&(features.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        match &self.lock {
            Lock::Clear(master) => out.extend_from_slice(master.bytes()),
            Lock::Slots(_) => out.extend_from_slice(&[0; KEY_BYTES]),
        }
        for slot in slots {
            out.extend_from_slice(&slot.emit());
        }
        out.extend_from_slice(identity);
        out.extend_from_slice(lease);
        out.extend_from_slice(&features);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Parses the stored object: two copies of what [`RepoFormat::emit`] gives.
    pub fn parse_stored(stored: &[u8]) -> Result<RepoFormat, FormatFault> {
        RepoFormat::parse(
            copies::pick(stored, &MAGIC, RepoFormat::whole).unwrap_or(&stored[..stored.len() / 2]),
        )
    }

    /// Bytes of the `format` object that `bytes` begin with; `None` when there is none, or a damaged one.
    pub fn whole(bytes: &[u8]) -> Option<usize> {
        let total = bytes.get(TOTAL_AT..TOTAL_AT + 4)?.try_into().ok().map(u32::from_le_bytes)?;
        let total = usize::try_from(total).ok()?;
        RepoFormat::parse(bytes.get(..total)?).is_ok().then_some(total)
    }

    /// Inverse of [`RepoFormat::emit`]; `bytes` are one copy.
    pub fn parse(bytes: &[u8]) -> Result<RepoFormat, FormatFault> {
        let mut r = Reader::new(bytes, WHAT);
        if r.array()? != MAGIC {
            return Err(FormatFault::new(WHAT, FormatFaultKind::NotOurs));
        }
        let version = r.u16_le()?;
        if !(VERSION..=VERSION_FEATURES).contains(&version) {
            return Err(FormatFault::new(WHAT, FormatFaultKind::Version(version)));
        }
        if bytes.len() > REPO_FORMAT_BYTES_MAX {
            return Err(r.damaged("too long"));
        }
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(FormatFault::truncated(WHAT))?;
        if crc32fast::hash(body).to_le_bytes() != *crc {
            return Err(r.damaged("checksum"));
        }
        let sealing = match r.u8()? {
            0 => Sealing::Off,
            1 => Sealing::Aes256Gcm,
            _ => return Err(r.damaged("unknown sealing")),
        };
        let location_blocks = r.u8()?;
        if !(1..=LOCATION_BLOCKS_MAX).contains(&usize::from(location_blocks)) {
            return Err(r.damaged("blocks per location row out of range"));
        }
        if r.u32_le()? as usize != bytes.len() {
            return Err(FormatFault::truncated(WHAT));
        }
        let uuid = r.array()?;
        let created_secs = r.u64_le()? as i64;
        let (slots, reserved, identity_bytes, lease_bytes) = (r.u8()?, r.u8()?, r.u16_le()?, r.u16_le()?);
        let features_bytes = r.u16_le()?;
        if reserved != 0 || r.array()? != [0u8; 16] {
            return Err(r.damaged("reserved bytes are set"));
        }
        if version != VERSION_FEATURES && (lease_bytes > 0) != (version == VERSION_LEASE) {
            return Err(r.damaged("a lease store does not fit the version"));
        }
        if (features_bytes > 0) != (version == VERSION_FEATURES) {
            return Err(r.damaged("features do not fit the version"));
        }
        let clear_key: [u8; KEY_BYTES] = r.array()?;
        let lock = match sealing {
            Sealing::Off if slots == 0 => Lock::Clear(Secret::new(clear_key)),
            Sealing::Aes256Gcm
                if (1..=KEY_SLOTS_MAX).contains(&usize::from(slots)) && clear_key == [0; KEY_BYTES] =>
            {
                let slots: Result<_, _> = (0..slots).map(|_| KeySlot::parse(&mut r)).collect();
                Lock::Slots(slots?)
            }
            _ => return Err(r.damaged("key slots do not fit the sealing")),
        };
        let store_identity = identity(&mut r, identity_bytes)?;
        let lease_store = identity(&mut r, lease_bytes)?;
        let features = features(&mut r, features_bytes)?;
        if r.len() != CRC_BYTES {
            return Err(r.damaged("lengths do not add up"));
        }
        Ok(RepoFormat { uuid, created_secs, location_blocks, store_identity, lease_store, lock, features })
    }
}

fn identity(r: &mut Reader<'_>, bytes: u16) -> Result<String, FormatFault> {
    if usize::from(bytes) > STORE_IDENTITY_BYTES_MAX {
        return Err(r.damaged("store identity too long"));
    }
    let text = std::str::from_utf8(r.take(bytes.into())?);
    text.map(str::to_owned).map_err(|_| r.damaged("store identity is not UTF-8"))
}

fn features(r: &mut Reader<'_>, bytes: u16) -> Result<Features, FormatFault> {
    if bytes == 0 {
        return Ok(Features::new());
    }
    if usize::from(bytes) > FEATURES_BYTES_MAX {
        return Err(r.damaged("list of features too long"));
    }
    let mut list = cursor::Reader::new(r.take(bytes.into())?);
    match feature::parse(&mut list) {
        Ok(features) if list.is_empty() => Ok(features),
        Err(WireFault::Feature(name)) => Err(FormatFault::new(WHAT, FormatFaultKind::Feature(name))),
        Ok(_) | Err(_) => Err(r.damaged("list of features")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::feature::{Class, FeatureName};
    use super::*;

    fn leased(sealed: bool) -> RepoFormat {
        RepoFormat { lease_store: "etcd://host:2379/rack7".to_owned(), ..sample(sealed) }
    }

    fn sample(sealed: bool) -> RepoFormat {
        let uuid = [0x11; 16];
        let master = Secret::new([9; 32]);
        let file = Unlock::KeyFile(Secret::new([1; 32]));
        let lock = if sealed {
            Lock::Slots(vec![KeySlot::wrap(&master, &file, &uuid, [7; 16]).unwrap()])
        } else {
            Lock::Clear(master)
        };
        RepoFormat {
            uuid,
            created_secs: 1_763_000_000,
            location_blocks: 10,
            store_identity: "file:///srv/repo".to_owned(),
            lease_store: String::new(),
            lock,
            features: Features::new(),
        }
    }

    #[test]
    fn the_object_round_trips_and_every_flipped_byte_is_found() {
        let name = |text: &str| FeatureName::new(text).unwrap();
        let features = Features::from([(name("a"), Class::Compatible), (name("b-2"), Class::ReadOnly)]);
        let featured = RepoFormat { features, ..leased(true) };
        for format in [sample(false), sample(true), leased(false), leased(true), featured] {
            let bytes = format.emit();
            assert_eq!(RepoFormat::parse(&bytes).unwrap().emit(), bytes);
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x10;
                assert!(RepoFormat::parse(&bad).is_err(), "byte {at}");
                assert!(RepoFormat::parse(&bytes[..at]).is_err());
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = sample(false).emit();
        bytes[8] = 4;
        assert_eq!(RepoFormat::parse(&bytes).unwrap_err().kind, FormatFaultKind::Version(4));
    }

    #[test]
    fn a_lease_store_makes_another_version_and_nothing_else_does() {
        assert_eq!((sample(false).emit()[8], leased(false).emit()[8]), (1, 2));
        assert_eq!(RepoFormat::parse(&leased(true).emit()).unwrap().lease_store, "etcd://host:2379/rack7");
        for (format, version) in [(leased(false), 1), (sample(false), 2)] {
            let mut bytes = format.emit();
            bytes[8] = version;
            let end = bytes.len() - CRC_BYTES;
            let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&crc);
            assert!(RepoFormat::parse(&bytes).is_err());
        }
    }

    /// The object as another program writes it: by the table, with one feature of this class and name.
    fn with_feature(class: u8, name: &str) -> Vec<u8> {
        let mut bytes = sample(false).emit();
        bytes.truncate(bytes.len() - CRC_BYTES);
        let list = [&[1, 0, 0, 0, class, name.len() as u8, 0, 0, 0][..], name.as_bytes()].concat();
        bytes[8] = 3;
        bytes[46] = list.len() as u8;
        bytes.extend_from_slice(&list);
        let total = (bytes.len() + CRC_BYTES) as u32;
        bytes[12..16].copy_from_slice(&total.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_feature_that_is_not_known_is_refused_or_read_beside_by_name() {
        let name = FeatureName::new("of-tomorrow").unwrap();
        let fault = RepoFormat::parse(&with_feature(2, "of-tomorrow")).unwrap_err();
        assert_eq!(fault.kind, FormatFaultKind::Feature(name));
        assert!(fault.to_string().contains("feature \"of-tomorrow\""), "{fault}");
        for (class, keeps) in [(0, None), (1, Some(name))] {
            let bytes = with_feature(class, "of-tomorrow");
            let format = RepoFormat::parse(&bytes).unwrap();
            assert_eq!((feature::not_to_write(&format.features), format.emit()), (keeps, bytes));
        }
        assert!(matches!(
            RepoFormat::parse(&with_feature(3, "x")).unwrap_err().kind,
            FormatFaultKind::Damaged(_)
        ));
    }

    #[test]
    fn blocks_per_row_have_bounds() {
        for (value, good) in [(0u8, false), (1, true), (64, true), (65, false)] {
            let mut bytes = sample(false).emit();
            bytes[11] = value;
            let end = bytes.len() - CRC_BYTES;
            let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&crc);
            assert_eq!(RepoFormat::parse(&bytes).is_ok(), good, "{value}");
        }
    }

    #[test]
    fn it_opens_with_a_key_of_a_slot_only() {
        let right = Unlock::KeyFile(Secret::new([1; 32]));
        let wrong = Unlock::KeyFile(Secret::new([2; 32]));
        let format = sample(true);
        let digest = format.unlock(Some(&right)).unwrap().digest(b"x");
        assert_eq!(digest, Keys::new(&Secret::new([9; 32]), Sealing::Aes256Gcm).digest(b"x"));
        assert_eq!(format.unlock(Some(&wrong)).unwrap_err().kind, FormatFaultKind::WrongKey);
        assert_eq!(format.unlock(None).unwrap_err().kind, FormatFaultKind::WrongKey);
        assert!(sample(false).unlock(None).is_ok());
        assert_eq!(sample(false).unlock(Some(&right)).unwrap_err().kind, FormatFaultKind::Mode);
    }
}
