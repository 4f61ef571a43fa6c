//! A verified prefix of the log, and how it grows by a slot.
//!
//! Invariants: I1, I2: a slot follows from the one before it by its digest, and epochs never decrease. Does not: ask the store (`replay`).
//! Source: `agent/doc/commit-log.md`.

use std::hash::{Hash, Hasher};

use super::call::Body;
use super::fault::{LogFault, Place};
use super::state::State;
use crate::format::cursor::WireFault;
use crate::format::slot::{ClusterId, LogDigest, Sealer, SlotContents, own_part};
use crate::id::Slot;

/// The newest checkpoint that a view is known to lie behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cover {
    /// Its slot; 0: none is known.
    pub slot: Slot,
    /// Its size.
    pub bytes: u64,
}

/// A verified prefix of the log. Two are equal when they say the same: what the slot itself looks like follows from its digest, and what
/// covers it is of no matter to anyone who reads it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its last slot; 0 for an empty log.
    pub head: Slot,
    /// Digest of that slot, zero for an empty log.
    pub digest: LogDigest,
    /// The fold of all records up to it.
    pub state: State,
    /// The slot itself, for the next one to carry; nothing when only a checkpoint of it was read.
    pub last: Body,
    /// Where a process that opens the log begins.
    pub cover: Cover,
    /// The log went further, when this is not `None`: its newest slots are lost.
    pub lost_end: Option<LostEnd>,
}

/// That the log ends before a slot that once counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LostEnd {
    /// The highest slot that anything names.
    pub named: Slot,
    /// What names it: a beat, or the slot itself, which is cut.
    pub by: Place,
}

impl PartialEq for View {
    fn eq(&self, other: &View) -> bool {
        (self.head, self.digest, &self.state) == (other.head, other.digest, &other.state)
    }
}

impl Eq for View {}

impl Hash for View {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (self.head, self.digest, &self.state).hash(into);
    }
}

/// Verifies that `bytes` are the slot after the view's head, and applies them. On `Err` the view may be spoilt.
pub fn apply_slot<S: Sealer>(
    view: &mut View,
    bytes: &[u8],
    cluster: &ClusterId,
    sealer: &S,
) -> Result<(), LogFault> {
    let contents = verify_slot(view, bytes, cluster, sealer)?;
    apply_verified(view, contents, bytes)
}

/// Whether `bytes` are a slot that follows from the view's head.
pub(super) fn verify_slot<S: Sealer>(
    view: &View,
    bytes: &[u8],
    cluster: &ClusterId,
    sealer: &S,
) -> Result<SlotContents, LogFault> {
    let slot = Slot(view.head.0.saturating_add(1));
    let format = |why| LogFault::Format { place: Place::Slot(slot), why };
    let contents = SlotContents::parse(bytes, sealer).map_err(format)?;
    let header = &contents.header;
    if header.cluster != *cluster {
        return Err(format(WireFault::Cluster));
    }
    if header.slot != slot || header.previous != view.digest {
        return Err(LogFault::Chain { slot });
    }
    if header.epoch < view.state.epoch {
        return Err(LogFault::Author { slot, epoch: header.epoch, holds: view.state.epoch });
    }
    Ok(contents)
}

pub(super) fn apply_verified(view: &mut View, contents: SlotContents, bytes: &[u8]) -> Result<(), LogFault> {
    let slot = contents.header.slot;
    view.state
        .apply_slot(&contents.header, &contents.records)
        .map_err(|(_, why)| LogFault::Inconsistent { slot, why })?;
    view.head = slot;
    view.digest = contents.digest;
    view.last = own_part(bytes).unwrap_or(bytes).into();
    Ok(())
}
