//! Deletions: of retired names, and of orphans in the store's lists.
//!
//! A listing says only where to look: whether something is an orphan is what the log's state says ([`State::is_orphan`]). Before an orphan
//! goes, its trailer is read: one of a backup that the log has never heard of means that the log's newest entries are lost, and
//! `windlass repo rebuild` needs that object.
//!
//! | answer to a DELETE | what follows |
//! |---|---|
//! | success, no such object | it is gone |
//! | denied, refused, read-only | later: counted, no fault |
//! | no clear answer | the step ends with what it has; the rest comes again |
//!
//! Does not: decide what may be deleted. Source: ours; `agent/doc/commit-log.md`, G1 and G2.

use super::types::{Deleted, GarbageFault, Swept};
use crate::format::seal::Keys;
use crate::format::tail::{TRAILER_BYTES, TailKind, Trailer};
use crate::id::ObjectId;
use crate::log::state::State;
use crate::store::retry::{Client, LIST_PAGE_KEYS};
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// Names that are deleted in one step: a record's bound.
pub const DELETE_NAMES_MAX: usize = crate::log::limits::RECORD_OBJECTS_MAX;
/// Names between two looks at whether to stop: some requests at the most, where one deletes many; some seconds where none does.
const DELETE_KEYS_MAX: usize = 256;
/// Pages of the store's lists in one step: some seconds.
pub const ORPHAN_PAGES_MAX: u64 = 16;
/// Orphans that are looked at in one step.
pub const ORPHANS_MAX: usize = 1024;
/// What is listed, in order.
const PREFIXES: [&str; 2] = ["obj/", "seg/"];

/// Whether the store keeps the object for now, as its retention or its permissions say.
pub fn is_later(kind: StoreFaultKind) -> bool {
    matches!(
        kind,
        StoreFaultKind::Denied
            | StoreFaultKind::Rejected
            | StoreFaultKind::ReadOnly
            | StoreFaultKind::Unsupported
            | StoreFaultKind::Conflict
    )
}

/// Key of a name.
pub fn key_of(id: &ObjectId, kind: TailKind) -> String {
    match kind {
        TailKind::Object => id.object_key(),
        TailKind::Segment => id.segment_key(),
    }
}

/// Deletes names, many with one request where the store has that. `stop` ends it early, with what it has.
///
/// # Errors
/// The store does not answer, and nothing was deleted.
pub fn delete(
    client: &Client,
    names: &[(ObjectId, TailKind)],
    stop: &dyn Fn() -> bool,
) -> Result<Deleted, GarbageFault> {
    let (mut deleted, mut silent) = (Deleted::default(), None);
    for names in names.chunks(DELETE_KEYS_MAX) {
        if stop() || silent.is_some() {
            break;
        }
        let keys: Vec<String> = names.iter().map(|(id, kind)| key_of(id, *kind)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for ((id, _), answer) in names.iter().zip(client.delete_all(&keys)) {
            match answer {
                Ok(()) => deleted.gone.push(*id),
                Err(fault) if fault.kind == StoreFaultKind::NotFound => deleted.gone.push(*id),
                Err(fault) if is_later(fault.kind) => {
                    deleted.later.push(*id);
                    deleted.why.get_or_insert_with(|| fault.to_string());
                }
                Err(fault) => silent = Some(fault),
            }
        }
    }
    match silent {
        Some(fault) if deleted.gone.is_empty() => Err(fault.into()),
        _ => Ok(deleted),
    }
}

/// Looks for orphans behind a key, and deletes them. `stop` ends it early, with what it has.
///
/// # Errors
/// The store does not answer.
pub fn orphans(
    client: &Client,
    keys: &Keys,
    (state, wall_ns): (&State, i64),
    after: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Swept, GarbageFault> {
    let mut swept = Swept::default();
    let mut left = ORPHAN_PAGES_MAX * LIST_PAGE_KEYS;
    for (prefix, kind) in PREFIXES.into_iter().zip([TailKind::Object, TailKind::Segment]) {
        if after > prefix && !after.starts_with(prefix) {
            continue;
        }
        let from = if after.starts_with(prefix) { after } else { "" };
        let (mut found, mut last, mut is_cut) = (Vec::new(), String::new(), false);
        client.list(prefix, from, &mut |key, bytes| {
            if left == 0 || found.len() >= ORPHANS_MAX || stop() {
                is_cut = true;
                return false;
            }
            left -= 1;
            key.clone_into(&mut last);
            let id = key.strip_prefix(prefix).and_then(|name| name.parse::<ObjectId>().ok());
            found.extend(id.filter(|id| state.is_orphan(id, wall_ns)).map(|id| (id, bytes)));
            true
        })?;
        for (id, bytes) in found {
            match orphan(client, keys, state, &id, kind) {
                Ok(()) => {
                    swept.gone += 1;
                    swept.gone_bytes += bytes;
                }
                Err(why) => {
                    swept.later += 1;
                    swept.why.get_or_insert(why);
                }
            }
        }
        if is_cut {
            swept.after = if last.is_empty() { from.to_owned() } else { last };
            if swept.after.is_empty() {
                prefix.clone_into(&mut swept.after);
            }
            return Ok(swept);
        }
    }
    Ok(swept)
}

/// Deletes an orphan, if nothing speaks for it.
fn orphan(client: &Client, keys: &Keys, state: &State, id: &ObjectId, kind: TailKind) -> Result<(), String> {
    let key = key_of(id, kind);
    let words = |fault: StoreFault| fault.to_string();
    if kind == TailKind::Object {
        let mut end = Vec::new();
        client.get(&key, ByteRange::Last(TRAILER_BYTES as u64), &mut end).map_err(words)?;
        let trailer =
            Trailer::parse(&end, id, keys).map_err(|fault| format!("{key}: {fault}; it was kept"))?;
        let backup = trailer.head.backup;
        if backup > state.last_backup {
            return Err(format!(
                "{key} is of backup {backup}, of which the commit log says nothing; it was kept: `windlass repo rebuild` makes points of it"
            ));
        }
    }
    client.delete(&key).map_err(words)
}
