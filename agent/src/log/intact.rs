//! Finds objects of the log of which a copy is damaged, while they can still be read: what `check` says of the log.
//!
//! Does not: follow the log (`replay` does). Source: ours.

use super::keys::{self, BEATS, BOUNDARIES, CHECKPOINTS, EPOCHS, SLOTS};
use crate::format::copies;
use crate::format::repo::{REPO_FORMAT_KEY, RepoFormat};
use crate::format::slot::check_digest;
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// Reads every object of the log, and the `format` object, and calls `each` with the keys of those that are not whole. Returns how
/// many were read. Objects that are deleted meanwhile are nobody's loss.
///
/// # Errors
/// What the store says when it cannot list or read.
pub fn check(client: &Client, each: &mut dyn FnMut(&str)) -> Result<u64, StoreFault> {
    let mut names = vec![REPO_FORMAT_KEY.to_owned()];
    for prefix in [EPOCHS, BEATS, BOUNDARIES, CHECKPOINTS, SLOTS] {
        client.list(prefix, "", &mut |key, _| {
            names.push(key.to_owned());
            true
        })?;
    }
    let (mut body, mut read) = (Vec::new(), 0);
    for key in &names {
        body.clear();
        match client.get(key, ByteRange::Whole(keys::bytes_max(key)), &mut body) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound && key != REPO_FORMAT_KEY => continue,
            // Not read, so it is none of ours: the empty body says the same below.
            Err(fault) if fault.kind == StoreFaultKind::TooLong => 0,
            other => other?,
        };
        read += 1;
        if is_whole(key, &body) {
            continue;
        }
        // Once more, from another connection, before it counts as damage.
        body.clear();
        match client.get_afresh(key, ByteRange::Whole(keys::bytes_max(key)), &mut body) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound && key != REPO_FORMAT_KEY => {}
            Err(fault) if fault.kind == StoreFaultKind::TooLong => each(key),
            Err(fault) => return Err(fault),
            Ok(_) if is_whole(key, &body) => {}
            Ok(_) => each(key),
        }
    }
    Ok(read)
}

fn is_whole(key: &str, body: &[u8]) -> bool {
    if key == REPO_FORMAT_KEY {
        copies::is_whole(body, |copy| RepoFormat::parse(copy).is_ok())
    } else {
        copies::is_whole(body, |copy| check_digest(copy).is_ok())
    }
}
