//! Upload objects that no entry of the commit log knows: normal while a backup is under way and after one was killed, and a trace of entries
//! that were lost when they are of a backup that, by the log, has not begun.
//!
//! A backup begins with an entry, before its first object is stored; so an object of a backup with a number that the log has not given
//! yet proves that newer entries were there. Of older backups nothing can be told: those objects are left to the garbage collection.
//!
//! Bound: the tails of the [`TAILS_MAX`] newest such objects are read, one GET each. Does not: change anything. Source: ours.

use std::collections::VecDeque;

use windlass_agent::format::tail::{TRAILER_BYTES, Trailer};
use windlass_agent::id::{BackupId, ObjectId};
use windlass_agent::log::state::State;
use windlass_agent::store::{ByteRange, StoreFault, StoreFaultKind};

use crate::engine::repository::Repository;

/// Tails that are read: what is newest is listed last, and one of a lost backup's objects is enough.
const TAILS_MAX: usize = 256;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Objects that the log neither refers to nor has retired.
    pub objects: u64,
    /// One of a backup that has not begun, by the log.
    pub ahead: Option<(ObjectId, BackupId)>,
}

/// Lists objects and looks at those that `state` does not know. `keep` is called between requests; its error ends the work.
pub fn look(
    repository: &Repository,
    state: &State,
    keep: &mut dyn FnMut() -> Result<(), StoreFault>,
) -> Result<Unknown, StoreFault> {
    let client = &repository.opened.client;
    let (mut found, mut newest, mut kept) = (Unknown::default(), VecDeque::new(), Ok(()));
    client.list("obj/", "", &mut |key, _| {
        let id = key.strip_prefix("obj/").and_then(|name| name.parse::<ObjectId>().ok());
        let is_unknown = |id: &ObjectId| {
            id.epoch > state.orphan_floor && !state.live.contains(id) && !state.retired.contains_key(id)
        };
        if let Some(id) = id.filter(is_unknown) {
            found.objects += 1;
            newest.push_back(id);
            if newest.len() > TAILS_MAX {
                newest.pop_front();
            }
        }
        kept = keep();
        kept.is_ok()
    })?;
    kept?;
    let mut end = Vec::new();
    for id in newest.into_iter().rev() {
        keep()?;
        end.clear();
        match client.get(&id.object_key(), ByteRange::Last(TRAILER_BYTES as u64), &mut end) {
            Ok(_) => {}
            Err(fault) if fault.kind == StoreFaultKind::NotFound => continue,
            Err(fault) => return Err(fault),
        }
        // One that cannot be read says nothing.
        let backup = Trailer::parse(&end, &id, &repository.keys).map_or(BackupId(0), |tail| tail.head.backup);
        if backup > state.last_backup {
            found.ahead = Some((id, backup));
            break;
        }
    }
    Ok(found)
}
