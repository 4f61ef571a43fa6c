//! Finds objects of the log that are damaged, missing or not what belongs there, while what they say can still be read elsewhere: what
//! `check` says of the log.
//!
//! Does not: follow the log (`replay` does), or look at what lies at or below the boundary, which is never read. Source: ours.

use std::collections::BTreeSet;
use std::fmt;

use super::keys::{self, BEATS, BOUNDARIES, CHECKPOINTS, EPOCHS, SLOTS};
use crate::format::copies;
use crate::format::repo::{REPO_FORMAT_COPY_KEY, REPO_FORMAT_KEY, RepoFormat};
use crate::format::slot::{Claim, ClusterId, LOG_MAGIC, SlotHeader, parse_boundary, whole};
use crate::id::Slot;
use crate::store::retry::Client;
use crate::store::{ByteRange, StoreFault, StoreFaultKind};

/// What is wrong with an object of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// One of its two copies.
    OneCopy,
    /// Neither copy can be read.
    BothCopies,
    /// It is not there.
    Missing,
    /// It is whole, and says that it is another one, or of another repository.
    Misplaced,
    /// Its name is none of the log's: another program put it there, and nothing depends on it.
    Foreign,
}

impl Flaw {
    /// Whether the log is the worse for it.
    pub fn is_damage(self) -> bool {
        self != Flaw::Foreign
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flaw::OneCopy => "one of its two copies is damaged; the other is good",
            Flaw::BothCopies => "neither of its two copies can be read",
            Flaw::Missing => "it is missing",
            Flaw::Misplaced => "something else is stored under its name",
            Flaw::Foreign => "it has none of the log's names, and is not read; nothing depends on it",
        })
    }
}

/// Reads every object of the log that counts, and the `format` objects, and calls `each` with those that are not as they must be. Returns how
/// many were read. Objects that are deleted meanwhile are no loss.
///
/// # Errors
/// What the store says when it cannot list or read.
pub fn check(
    client: &Client,
    cluster: &ClusterId,
    each: &mut dyn FnMut(&str, Flaw),
) -> Result<u64, StoreFault> {
    let boundary = list(client, BOUNDARIES)?.iter().filter_map(|key| keys::number(key, BOUNDARIES)).max();
    let boundary = boundary.unwrap_or_default();
    let mut found = vec![REPO_FORMAT_KEY.to_owned(), REPO_FORMAT_COPY_KEY.to_owned()];
    for prefix in [EPOCHS, BEATS, BOUNDARIES, CHECKPOINTS, SLOTS] {
        let counts = |key: &String| match keys::number(key, prefix) {
            Some(slot) if prefix == SLOTS => slot > boundary,
            Some(slot) if prefix == BOUNDARIES || prefix == CHECKPOINTS => slot >= boundary,
            _ => true,
        };
        let (foreign, ours): (Vec<_>, Vec<_>) =
            list(client, prefix)?.into_iter().partition(|key| keys::is_foreign(key, prefix));
        foreign.iter().for_each(|key| each(key, Flaw::Foreign));
        found.extend(ours.into_iter().filter(counts));
    }
    let covered: BTreeSet<Slot> = found.iter().filter_map(|key| keys::number(key, CHECKPOINTS)).collect();
    let (mut next, mut body, mut read) = (boundary, Vec::new(), 0);
    for key in &found {
        if let Some(slot) = keys::number(key, SLOTS) {
            next.0 += 1;
            // What is lost before a checkpoint is known to be, or lies in it.
            if slot > next && covered.contains(&Slot(slot.0 - 1)) {
                next = slot;
            }
            while next < slot {
                each(&keys::slot(next), Flaw::Missing);
                next.0 += 1;
            }
        }
        body.clear();
        match client.get(key, ByteRange::Whole(keys::bytes_max(key)), &mut body) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => {
                if key.starts_with(REPO_FORMAT_KEY) {
                    each(key, Flaw::Missing);
                }
                continue;
            }
            // Not read, so it is none of ours: the empty body says the same below.
            Err(fault) if fault.kind == StoreFaultKind::TooLong => 0,
            other => other?,
        };
        read += 1;
        let Some(flaw) = flaw_of(key, &body, cluster) else { continue };
        // Once more, from another connection, before it counts as damage.
        body.clear();
        match client.get_afresh(key, ByteRange::Whole(keys::bytes_max(key)), &mut body) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound && !key.starts_with(REPO_FORMAT_KEY) => {}
            Err(fault) if fault.kind == StoreFaultKind::NotFound => each(key, flaw),
            Err(fault) if fault.kind == StoreFaultKind::TooLong => each(key, flaw),
            Err(fault) => return Err(fault),
            Ok(_) => {
                if let Some(flaw) = flaw_of(key, &body, cluster) {
                    each(key, flaw);
                }
            }
        }
    }
    Ok(read)
}

fn list(client: &Client, prefix: &str) -> Result<Vec<String>, StoreFault> {
    let mut found = Vec::new();
    client.list(prefix, "", &mut |key, _| {
        found.push(key.to_owned());
        true
    })?;
    Ok(found)
}

fn flaw_of(key: &str, stored: &[u8], cluster: &ClusterId) -> Option<Flaw> {
    let (copy, is_whole, belongs) = if key.starts_with(REPO_FORMAT_KEY) {
        let copy = copies::pick(stored, b"WINDLASS", RepoFormat::whole);
        let belongs = |copy: &[u8]| RepoFormat::parse(copy).is_ok_and(|format| format.uuid == *cluster);
        (copy, copies::is_whole(stored, RepoFormat::whole), copy.is_some_and(belongs))
    } else {
        let copy = copies::pick(stored, LOG_MAGIC, whole);
        (copy, copies::is_whole(stored, whole), copy.is_some_and(|copy| belongs(key, copy, cluster)))
    };
    match (copy, belongs, is_whole) {
        (None, _, _) => Some(Flaw::BothCopies),
        (Some(_), false, _) => Some(Flaw::Misplaced),
        (Some(_), true, false) => Some(Flaw::OneCopy),
        (Some(_), true, true) => None,
    }
}

/// Whether an object of the log, which is whole, is the one of this name and of this repository.
fn belongs(key: &str, copy: &[u8], cluster: &ClusterId) -> bool {
    let is = |prefix, number: u64| keys::number(key, prefix) == Some(Slot(number));
    if key.starts_with(EPOCHS) {
        Claim::parse_grant(copy).is_ok_and(|grant| grant.cluster == *cluster && is(EPOCHS, grant.epoch.0))
    } else if key.starts_with(BEATS) {
        Claim::parse_beat(copy).is_ok_and(|beat| beat.cluster == *cluster && is(BEATS, beat.epoch.0))
    } else if key.starts_with(SLOTS) {
        SlotHeader::parse(copy)
            .is_ok_and(|(header, _)| header.cluster == *cluster && is(SLOTS, header.slot.0))
    } else if key.starts_with(BOUNDARIES) {
        parse_boundary(copy).is_ok_and(|(of, name)| of == *cluster && is(BOUNDARIES, name.slot.0))
    } else {
        // A checkpoint: cluster, slot and nonce are where its table has them.
        let field = |at: usize, bytes: usize| copy.get(at..at + bytes);
        keys::checkpoint_name(key).is_some_and(|(slot, nonce)| {
            field(8, 16) == Some(cluster)
                && field(24, 8) == Some(&slot.0.to_le_bytes())
                && field(32, 16) == Some(&nonce)
        })
    }
}
