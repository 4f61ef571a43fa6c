//! Key slots: the master key, wrapped once for every key file or passphrase that opens the repository.
//!
//! | offset | bytes | field | meaning |
//! |---|---|---|---|
//! | 0 | 1 | kind | 1 key file, 2 passphrase |
//! | 1 | 3 | reserved | zero |
//! | 4 | 4 | memory | Argon2id memory in KiB; 0 for a key file |
//! | 8 | 4 | passes | Argon2id passes; 0 for a key file |
//! | 12 | 4 | lanes | Argon2id lanes; 0 for a key file |
//! | 16 | 16 | salt | random |
//! | 32 | 32 | wrapped | the master key under AES-256-GCM |
//! | 64 | 16 | tag | over repository uuid, bytes 0..32 and the master key |
//!
//! ```text
//!  key file (32 bytes)  -> BLAKE3 derive_key "... key file"   \
//!                                                              -> keyed BLAKE3 of the salt -> KEK -> AES-256-GCM, nonce 0
//!  passphrase -> Argon2id(salt, 14 MiB, 5 passes, 1 lane)     /
//! ```
//!
//! The KEK is new with every salt and wraps one key, so a fixed nonce is right. Argon2id runs in 14 MiB and
//! not in the usual 64, because an agent opens its repository inside its memory budget, which may be 24 MiB.
//! A key file has no such limit: use one for an agent that runs unattended.
//!
//! Invariants: parameters from the store are bounded before they are obeyed; secrets are wiped on drop.
//! Does not: read files or draw random bytes (arguments). Source: RFC 9106 (Argon2id), NIST SP 800-38D; layout ours.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, Nonce, Tag};
use zeroize::Zeroize;

use super::fault::{FormatFault, FormatFaultKind};
use super::seal::{KEY_BYTES, Secret, TAG_BYTES, expand};
use super::varint::Reader;
use crate::limits::{ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES, ARGON2_PASSES_MAX};

/// Bytes of a key slot.
pub const KEY_SLOT_BYTES: usize = 80;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

const WHAT: &str = "key slot";
const CONTEXT_KEY_FILE: &str = "windlass 2025-11 v1: key file, wraps the master key";
const CONTEXT_PASSPHRASE: &str = "windlass 2025-11 v1: passphrase, wraps the master key";

/// What opens a repository.
#[derive(Clone, Debug)]
pub enum Unlock {
    /// The 32 bytes of a key file.
    KeyFile(Secret),
    /// A passphrase.
    Passphrase(Passphrase),
}

/// A passphrase, wiped on drop, never printed.
#[derive(Clone)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// Takes the bytes, without a trailing line end.
    pub fn new(mut bytes: Vec<u8>) -> Passphrase {
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Passphrase(bytes)
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// How a slot's KEK is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// From a key file.
    KeyFile,
    /// From a passphrase.
    Passphrase {
        /// Argon2id memory in KiB.
        memory_kib: u32,
        /// Argon2id passes.
        passes: u32,
        /// Argon2id lanes.
        lanes: u32,
    },
}

/// A wrapped master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// How its KEK is made.
    pub kind: SlotKind,
    /// Random, of this slot only.
    pub salt: [u8; SALT_BYTES],
    /// The master key, encrypted.
    pub wrapped: [u8; KEY_BYTES],
    /// Its tag.
    pub tag: [u8; TAG_BYTES],
}

impl KeySlot {
    /// Wraps `master` for `unlock`. `salt` must be random. A passphrase costs [`ARGON2_MEMORY_KIB`] of memory and about a tenth
    /// of a second; it fails only when that memory cannot be had.
    pub fn wrap(
        master: &Secret,
        unlock: &Unlock,
        repository: &[u8; 16],
        salt: [u8; SALT_BYTES],
    ) -> Result<KeySlot, FormatFault> {
        let kind = match unlock {
            Unlock::KeyFile(_) => SlotKind::KeyFile,
            Unlock::Passphrase(_) => {
                SlotKind::Passphrase { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, lanes: 1 }
            }
        };
        let mut slot = KeySlot { kind, salt, wrapped: *master.bytes(), tag: [0; TAG_BYTES] };
        let key = expand(&slot.kek(unlock)?);
        let aad = slot.aad(repository);
        let sealed = key.seal_in_place_separate_tag(nonce(), Aad::from(aad), &mut slot.wrapped);
        let Ok(tag) = sealed else {
            // ring refuses only bodies past 64 GiB.
            unreachable!("32 bytes seal");
        };
        slot.tag.copy_from_slice(tag.as_ref());
        Ok(slot)
    }

    /// Opens the slot. [`FormatFaultKind::WrongKey`] when `unlock` is of another kind or not the one that it was made with.
    pub fn unwrap(&self, unlock: &Unlock, repository: &[u8; 16]) -> Result<Secret, FormatFault> {
        let same = matches!(
            (self.kind, unlock),
            (SlotKind::KeyFile, Unlock::KeyFile(_)) | (SlotKind::Passphrase { .. }, Unlock::Passphrase(_))
        );
        let wrong = FormatFault::new(WHAT, FormatFaultKind::WrongKey);
        if !same {
            return Err(wrong);
        }
        let key = expand(&self.kek(unlock)?);
        let mut master = self.wrapped;
        let opened = key
            .open_in_place_separate_tag(
                nonce(),
                Aad::from(self.aad(repository)),
                Tag::from(self.tag),
                &mut master,
                0..,
            )
            .is_ok();
        let secret = Secret::new(master);
        master.zeroize();
        if opened { Ok(secret) } else { Err(wrong) }
    }

    /// Its bytes.
    pub fn emit(&self) -> [u8; KEY_SLOT_BYTES] {
        let mut out = [0; KEY_SLOT_BYTES];
        out[..32].copy_from_slice(&self.head());
        out[32..64].copy_from_slice(&self.wrapped);
        out[64..].copy_from_slice(&self.tag);
        out
    }

    /// Inverse of [`KeySlot::emit`].
    pub fn parse(reader: &mut Reader<'_>) -> Result<KeySlot, FormatFault> {
        let kind = reader.u8()?;
        if reader.array()? != [0u8; 3] {
            return Err(reader.damaged("reserved bytes of a key slot are set"));
        }
        let (memory_kib, passes, lanes) = (reader.u32_le()?, reader.u32_le()?, reader.u32_le()?);
        let kind = match kind {
            1 if (memory_kib, passes, lanes) == (0, 0, 0) => SlotKind::KeyFile,
            2 if (8..=ARGON2_MEMORY_KIB_MAX).contains(&memory_kib)
                && (1..=ARGON2_PASSES_MAX).contains(&passes)
                && lanes == 1 =>
            {
                SlotKind::Passphrase { memory_kib, passes, lanes }
            }
            _ => return Err(reader.damaged("parameters of a key slot out of range")),
        };
        Ok(KeySlot { kind, salt: reader.array()?, wrapped: reader.array()?, tag: reader.array()? })
    }

    fn head(&self) -> [u8; 32] {
        let mut out = [0; 32];
        match self.kind {
            SlotKind::KeyFile => out[0] = 1,
            SlotKind::Passphrase { memory_kib, passes, lanes } => {
                out[0] = 2;
                out[4..8].copy_from_slice(&memory_kib.to_le_bytes());
                out[8..12].copy_from_slice(&passes.to_le_bytes());
                out[12..16].copy_from_slice(&lanes.to_le_bytes());
            }
        }
        out[16..].copy_from_slice(&self.salt);
        out
    }

    fn aad(&self, repository: &[u8; 16]) -> [u8; 48] {
        let mut out = [0; 48];
        out[..16].copy_from_slice(repository);
        out[16..].copy_from_slice(&self.head());
        out
    }

    fn kek(&self, unlock: &Unlock) -> Result<Secret, FormatFault> {
        let stretched = match (unlock, self.kind) {
            (Unlock::Passphrase(text), SlotKind::Passphrase { memory_kib, passes, lanes }) => {
                let fault =
                    FormatFault::damaged(WHAT, "Argon2id refuses its parameters, or there is no memory");
                let params = Params::new(memory_kib, passes, lanes, Some(KEY_BYTES)).map_err(|_| fault)?;
                let mut out = [0; KEY_BYTES];
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(&text.0, &self.salt, &mut out)
                    .map_err(|_| fault)?;
                let secret = Secret::new(out);
                out.zeroize();
                secret.derive(CONTEXT_PASSPHRASE)
            }
            (Unlock::KeyFile(secret), SlotKind::KeyFile) => secret.derive(CONTEXT_KEY_FILE),
            _ => return Err(FormatFault::new(WHAT, FormatFaultKind::WrongKey)),
        };
        Ok(Secret::new(*blake3::keyed_hash(stretched.bytes(), &self.salt).as_bytes()))
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_opens_with_its_own_key_only() {
        let master = Secret::new([9; 32]);
        let repository = [4; 16];
        let file = Unlock::KeyFile(Secret::new([1; 32]));
        let phrase = Unlock::Passphrase(Passphrase::new(b"correct horse\n".to_vec()));
        for unlock in [&file, &phrase] {
            let slot = KeySlot::wrap(&master, unlock, &repository, [7; 16]).unwrap();
            assert_ne!(&slot.wrapped, master.bytes());
            let bytes = slot.emit();
            assert_eq!(KeySlot::parse(&mut Reader::new(&bytes, WHAT)), Ok(slot));
            assert_eq!(slot.unwrap(unlock, &repository).unwrap().bytes(), master.bytes());
            assert!(slot.unwrap(unlock, &[5; 16]).is_err());
            let other = Unlock::KeyFile(Secret::new([2; 32]));
            assert!(slot.unwrap(&other, &repository).is_err());
        }
        let slot = KeySlot::wrap(&master, &phrase, &repository, [7; 16]).unwrap();
        let other = Unlock::Passphrase(Passphrase::new(b"correct hors".to_vec()));
        assert!(slot.unwrap(&other, &repository).is_err());
        assert!(slot.unwrap(&file, &repository).is_err());
    }

    #[test]
    fn parameters_past_their_limits_are_refused() {
        let slot = KeySlot {
            kind: SlotKind::Passphrase { memory_kib: ARGON2_MEMORY_KIB_MAX + 1, passes: 1, lanes: 1 },
            salt: [0; 16],
            wrapped: [0; 32],
            tag: [0; 16],
        };
        assert!(KeySlot::parse(&mut Reader::new(&slot.emit(), WHAT)).is_err());
        let slot = KeySlot { kind: SlotKind::Passphrase { memory_kib: 1024, passes: 99, lanes: 1 }, ..slot };
        assert!(KeySlot::parse(&mut Reader::new(&slot.emit(), WHAT)).is_err());
    }
}
