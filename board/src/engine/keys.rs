//! Keys of a repository: who can open it, one more, one less, another passphrase.
//!
//! ```text
//!  master key  <- wrapped once for each key file and passphrase: a slot of the `format` object, at most `KEY_SLOTS_MAX`
//! ```
//!
//! | step | why |
//! |---|---|
//! | the lease is taken | two commands at once do not undo each other |
//! | `format` is read again | what another one changed before stays |
//! | the new one opens with the key that was given, and with the new one | nothing is stored that does not open |
//! | `format` is replaced, then `format-copy` | one of the two can be read at any moment; a command that was killed in between is done again |
//! | both are read back | a slot counts as removed when neither has it |
//!
//! Another passphrase comes first, and is read back; then the old one goes. So one of the two opens the repository at any moment, and both do
//! when the command was killed in between: the same command then takes the old one away. Only where all slots are taken is it one step.
//!
//! Invariants: the slot that opened the repository is never removed, so one that is held is always left. The master key stays: data is
//! not encrypted again, and who copied the `format` object while a key was in it opens that copy with it.
//! Does not: print or ask. Source: ours; `format::repo`, `format::wrap`.

use windlass_agent::format::repo::{Lock, REPO_FORMAT_COPY_KEY, REPO_FORMAT_KEY, RepoFormat};
use windlass_agent::format::wrap::{KeySlot, SlotKind, Unlock};
use windlass_agent::limits::{KEY_SLOTS_MAX, REPO_FORMAT_BYTES_MAX};
use windlass_agent::store::ByteRange;

use crate::engine::host;
use crate::engine::place::read_format;
use crate::engine::repository::Repository;
use crate::failure::Failure;
use crate::text;

/// A key of a repository, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Eight hex digits: the first of its salt, which is random.
    pub id: String,
    /// `key file` or `passphrase`.
    pub kind: &'static str,
    /// It is the one that this command opened the repository with.
    pub is_own: bool,
}

/// What to do with the slots.
pub enum Change<'a> {
    /// A further slot.
    Add(&'a Unlock),
    /// The slot with this id goes.
    Remove(&'a str),
    /// The slot that opened the repository gives way to one of this passphrase, if that does not open it already.
    Replace(&'a Unlock),
}

fn id(slot: &KeySlot) -> String {
    text::hex(&slot.salt[..4])
}

/// What opens with a slot.
#[must_use]
pub fn kind(slot: &KeySlot) -> &'static str {
    match slot.kind {
        SlotKind::KeyFile => "key file",
        SlotKind::Passphrase { .. } => "passphrase",
    }
}

fn slots<'f>(format: &'f RepoFormat, place: &str) -> Result<&'f [KeySlot], Failure> {
    match &format.lock {
        Lock::Slots(slots) => Ok(slots),
        Lock::Clear(_) => Err(Failure::at(place, "the repository is not encrypted, so it has no keys")),
    }
}

/// The slot that `unlock` opens.
fn own(slots: &[KeySlot], unlock: &Unlock, format: &RepoFormat) -> Option<usize> {
    slots.iter().position(|slot| slot.unwrap(unlock, &format.uuid).is_ok())
}

/// Refuses a new key that cannot be added, before anything is made for it.
pub fn check_new(repository: &Repository, new: &Unlock) -> Result<(), Failure> {
    let format = read_format(&repository.opened)?.format;
    let place = repository.opened.objects_place();
    refuse(slots(&format, &place)?, new, &format, &place)
}

fn refuse(slots: &[KeySlot], new: &Unlock, format: &RepoFormat, place: &str) -> Result<(), Failure> {
    if own(slots, new, format).is_some() {
        return Err(Failure::at(place, "this key opens the repository already"));
    }
    if slots.len() < KEY_SLOTS_MAX {
        return Ok(());
    }
    Err(Failure::at(
        place,
        format_args!("{KEY_SLOTS_MAX} keys open it, and there is no room for another; remove one first"),
    ))
}

/// The keys of a repository that was opened with `unlock`.
pub fn list(repository: &Repository, unlock: &Unlock) -> Result<Vec<Key>, Failure> {
    let format = read_format(&repository.opened)?.format;
    let slots = slots(&format, &repository.opened.objects_place())?;
    let own = own(slots, unlock, &format);
    let key = |(at, slot)| Key { id: id(slot), kind: kind(slot), is_own: Some(at) == own };
    Ok(slots.iter().enumerate().map(key).collect())
}

/// Changes the keys of a repository that was opened with `unlock`; the id of the slot that came, or that went.
///
/// # Errors
/// No such key, too many, the last one or the one that opened it; or the store does not do it. Then what can be read is the old keys or the
/// new ones, and the same command may be given again.
pub fn change(repository: &Repository, unlock: &Unlock, change: &Change<'_>) -> Result<String, Failure> {
    let place = repository.opened.objects_place();
    repository.with_session(|_| {
        let mut format = read_format(&repository.opened)?.format;
        let mut all = slots(&format, &place)?.to_vec();
        let at = own(&all, unlock, &format)
            .ok_or_else(|| Failure::at(&place, "this key or passphrase does not open it any more"))?;
        let master = all[at].unwrap(unlock, &format.uuid).map_err(Failure::new)?;
        let made = |new: &Unlock| -> Result<KeySlot, Failure> {
            let salt = host::random()?;
            KeySlot::wrap(&master, new, &format.uuid, salt).map_err(Failure::new)
        };
        let id_of = match change {
            Change::Add(new) => {
                refuse(&all, new, &format, &place)?;
                let slot = made(new)?;
                all.push(slot);
                id(&slot)
            }
            Change::Remove(wanted) => {
                let found = all.iter().position(|slot| id(slot) == *wanted).ok_or_else(|| {
                    Failure::at(&place, format_args!("no key {wanted}; `windlass key list` has them"))
                })?;
                if found == at {
                    return Err(Failure::at(
                        &place,
                        format_args!("key {wanted} is the one that this command uses; open the repository with another key to remove it"),
                    ));
                }
                id(&all.remove(found))
            }
            Change::Replace(new) => match own(&all, new, &format) {
                Some(there) if there == at => {
                    return Err(Failure::at(&place, "the new passphrase is the one that opens it now"));
                }
                Some(there) => {
                    let id = id(&all[there]);
                    all.remove(at);
                    id
                }
                None => {
                    all[at] = made(new)?;
                    id(&all[at])
                }
            },
        };
        format.lock = Lock::Slots(all);
        let opens = |with: &Unlock| format.unlock(Some(with)).is_ok();
        let is_sound = match change {
            Change::Add(new) => opens(unlock) && opens(new),
            Change::Remove(_) => opens(unlock),
            Change::Replace(new) => opens(new),
        };
        if !is_sound {
            return Err(Failure::at(&place, "the new keys do not open the repository; nothing was changed"));
        }
        store(repository, &format)?;
        Ok(id_of)
    })
}

/// Gives the place of the passphrase `old` to `new`: see the module. The id of the new slot.
///
/// # Errors
/// As those of [`change`].
pub fn replace(repository: &Repository, old: &Unlock, new: &Unlock) -> Result<String, Failure> {
    let format = read_format(&repository.opened)?.format;
    let all = slots(&format, &repository.opened.objects_place())?;
    if all.len() < KEY_SLOTS_MAX && own(all, new, &format).is_none() {
        change(repository, old, &Change::Add(new))?;
    }
    change(repository, old, &Change::Replace(new))
}

/// Brings both `format` objects to what the first has, which `unlock` opens: a change that was killed between the two is done then.
///
/// # Errors
/// As those of [`change`].
pub fn finish(repository: &Repository, unlock: &Unlock) -> Result<(), Failure> {
    repository.with_session(|_| {
        let format = read_format(&repository.opened)?.format;
        if format.unlock(Some(unlock)).is_err() {
            let place = repository.opened.objects_place();
            return Err(Failure::at(place, "this passphrase does not open it any more"));
        }
        store(repository, &format)
    })
}

/// Replaces both `format` objects, and reads them back.
fn store(repository: &Repository, format: &RepoFormat) -> Result<(), Failure> {
    let (client, body) = (&repository.opened.client, format.emit());
    let place = repository.opened.objects_place();
    for key in [REPO_FORMAT_KEY, REPO_FORMAT_COPY_KEY] {
        client.put_replace(key, &[&body, &body]).map_err(|fault| {
            Failure::at(
                &place,
                format_args!("{fault}; the keys may be changed or not: give the command again"),
            )
        })?;
    }
    for key in [REPO_FORMAT_KEY, REPO_FORMAT_COPY_KEY] {
        let (mut stored, whole) = (Vec::new(), 2 * REPO_FORMAT_BYTES_MAX as u64 + 1);
        client
            .get(key, ByteRange::From { offset: 0, len: whole }, &mut stored)
            .map_err(|fault| Failure::at(&place, fault))?;
        if stored != [&body[..], &body[..]].concat() {
            return Err(Failure::at(
                &place,
                format_args!("{key} was stored, and something else came back; give the command again"),
            ));
        }
    }
    Ok(())
}
