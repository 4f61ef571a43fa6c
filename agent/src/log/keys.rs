//! Names of the log's objects, relative to the repository's prefix.
//!
//! | key | what |
//! |---|---|
//! | `epoch/<20 digits>` | lease grant |
//! | `beat/<20 digits>` | liveness of that epoch's holder |
//! | `log/<20 digits>` | slot |
//! | `ckpt/<20 digits>-<32 hex>` | checkpoint: slot, nonce |
//! | `boundary/<20 digits>` | slots up to this one may be gone |
//!
//! Invariants: digits are padded, so that names order as numbers do; one spelling per name.
//! Source: `agent/doc/commit-log.md`, Keys.

use super::limits::{CHECKPOINT_BYTES_MAX, MARK_BYTES_MAX, SLOT_BYTES_MAX};
use crate::format::repo::{REPO_FORMAT_COPY_KEY, REPO_FORMAT_KEY};
use crate::id::{Epoch, Slot};
use crate::limits::REPO_FORMAT_BYTES_MAX;

/// Prefix of all slots.
pub const SLOTS: &str = "log/";
/// Prefix of all checkpoints.
pub const CHECKPOINTS: &str = "ckpt/";
/// Prefix of all boundaries.
pub const BOUNDARIES: &str = "boundary/";

/// Prefix of all lease grants.
pub const EPOCHS: &str = "epoch/";
/// Prefix of all beats.
pub const BEATS: &str = "beat/";

/// Key of a lease grant.
pub fn epoch(epoch: Epoch) -> String {
    format!("{EPOCHS}{:020}", epoch.0)
}

/// Key of a holder's beat.
pub fn beat(epoch: Epoch) -> String {
    format!("{BEATS}{:020}", epoch.0)
}

/// Key of a slot.
pub fn slot(slot: Slot) -> String {
    format!("{SLOTS}{:020}", slot.0)
}

/// Key of a checkpoint.
pub fn checkpoint(slot: Slot, nonce: &[u8; 16]) -> String {
    format!("{CHECKPOINTS}{:020}-{:032x}", slot.0, u128::from_be_bytes(*nonce))
}

/// Key of a boundary.
pub fn boundary(slot: Slot) -> String {
    format!("{BOUNDARIES}{:020}", slot.0)
}

/// Bytes that the object under `key` may have at most as it is stored, as two copies; a reader refuses a larger one.
pub fn bytes_max(key: &str) -> u64 {
    let copy = match key {
        REPO_FORMAT_KEY | REPO_FORMAT_COPY_KEY => REPO_FORMAT_BYTES_MAX,
        _ if key.starts_with(SLOTS) => SLOT_BYTES_MAX,
        _ if key.starts_with(CHECKPOINTS) => CHECKPOINT_BYTES_MAX,
        _ => MARK_BYTES_MAX,
    };
    2 * copy as u64
}

/// The number at the start of a key below `prefix`: that of a slot, a checkpoint or a boundary. `None` for any other name.
pub fn number(key: &str, prefix: &str) -> Option<Slot> {
    let rest = key.strip_prefix(prefix)?;
    let (digits, tail) = rest.split_at_checked(20)?;
    let well_formed = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (tail.is_empty() || prefix == CHECKPOINTS && tail.starts_with('-'));
    if well_formed { digits.parse().ok().map(Slot) } else { None }
}

/// Whether a key below one of the log's prefixes is none of its names: another program put it there, and nothing depends on it.
pub fn is_foreign(key: &str, prefix: &str) -> bool {
    match prefix {
        CHECKPOINTS => checkpoint_name(key).is_none(),
        SLOTS | BOUNDARIES | EPOCHS | BEATS => number(key, prefix).is_none(),
        _ => false,
    }
}

/// The slot and the nonce of a checkpoint's key.
pub fn checkpoint_name(key: &str) -> Option<(Slot, [u8; 16])> {
    let slot = number(key, CHECKPOINTS)?;
    let nonce = key.rsplit_once('-').and_then(|(_, hex)| u128::from_str_radix(hex, 16).ok())?;
    let name = (slot, nonce.to_be_bytes());
    (checkpoint(name.0, &name.1) == key).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_in_one_way() {
        assert_eq!(slot(Slot(0)), "log/00000000000000000000");
        assert_eq!(epoch(Epoch(u64::MAX)), "epoch/18446744073709551615");
        assert_eq!(beat(Epoch(1_234_567_890)), "beat/00000000001234567890");
        assert_eq!(boundary(Slot(7)), "boundary/00000000000000000007");
        let nonce = std::array::from_fn(|at| at as u8 * 17);
        let text = "ckpt/00000000000000000012-00112233445566778899aabbccddeeff";
        assert_eq!(checkpoint(Slot(12), &nonce), text);
        assert_eq!(checkpoint_name(text), Some((Slot(12), nonce)));
        for bad in [&text[..text.len() - 1], &text.to_uppercase(), &boundary(Slot(7))] {
            assert_eq!(checkpoint_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_kind_of_object_has_its_bound() {
        let bounds = [
            (slot(Slot(1)), SLOT_BYTES_MAX),
            (checkpoint(Slot(1), &[0; 16]), CHECKPOINT_BYTES_MAX),
            (epoch(Epoch(1)), MARK_BYTES_MAX),
            (beat(Epoch(1)), MARK_BYTES_MAX),
            (boundary(Slot(1)), MARK_BYTES_MAX),
            (REPO_FORMAT_KEY.to_owned(), REPO_FORMAT_BYTES_MAX),
        ];
        for (key, copy) in bounds {
            assert_eq!(bytes_max(&key), 2 * copy as u64, "{key}");
        }
    }

    #[test]
    fn numbers_come_back_from_keys_and_from_nothing_else() {
        assert_eq!(number(&slot(Slot(7)), SLOTS), Some(Slot(7)));
        assert_eq!(number(&checkpoint(Slot(u64::MAX), &[255; 16]), CHECKPOINTS), Some(Slot(u64::MAX)));
        assert_eq!(number(&boundary(Slot(0)), BOUNDARIES), Some(Slot(0)));
        assert!(!is_foreign(&slot(Slot(7)), SLOTS) && !is_foreign("obj/x", "obj/"));
        assert!(is_foreign("ckpt/00000000000000000012-x", CHECKPOINTS));
        for bad in
            ["log/7", "log/0000000000000000000x", "log/00000000000000000007.tmp", "boundary/1", "log/", "é"]
        {
            assert_eq!(number(bad, SLOTS), None, "{bad}");
            assert!(is_foreign(bad, SLOTS), "{bad}");
        }
    }
}
