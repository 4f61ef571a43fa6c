//! The object store as one linearizable map, with its memory of what every log slot held first, and the invariants that need
//! nothing else.
//!
//! | what is checked as a call is applied | rule |
//! |---|---|
//! | slots and epochs are created, never replaced; epochs are never deleted | I1 |
//! | the first content of a slot follows from the first content of the slot before | I1 |
//! | epochs never decrease along the log | I2 |
//! | a replay that takes a slot which was lost for the end of the log writes the next one there: a view of it is found | I1 |
//! | slots go after the boundary that allows it, and so do checkpoints and boundaries | I6 |
//! | an epoch creates at most one slot after the next epoch exists | I7 |
//!
//! Does not: fail or wait (`world` does that to requests and answers), or know objects' worth (`check` does). Source: ours.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crate::conformance::store::WHOLE;
use windlass_agent::format::slot::{Author, ClusterId, LogDigest, PlainForTests, SlotHeader, Who, carried};
use windlass_agent::id::{Boot, Epoch, NodeId, Slot};
use windlass_agent::log::call::{Answer, Body, Call};
use windlass_agent::log::keys;
use windlass_agent::log::lease::Identity;
use windlass_agent::log::replay::{View, apply_slot};
use windlass_agent::store::memory::MemoryStore;
use windlass_agent::store::{ByteRange, PutMode, Store, StoreFault, StoreFaultKind, over};

use super::Verdict;

/// The repository of every simulated cluster.
pub const CLUSTER: ClusterId = [0xC1; 16];
/// Prefix of upload objects.
pub const OBJECTS: &str = "obj/";
/// Prefix of table segments.
pub const SEGMENTS: &str = "seg/";

/// Who a node is in one of its lives.
pub fn identity(node: u32, boot: u64) -> Identity {
    Identity { cluster: CLUSTER, me: Author { node: NodeId(node), boot: Boot(boot) }, who: Who::default() }
}

/// The random seed of a node in one of its lives.
pub fn seed(node: u32, boot: u64) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&node.to_le_bytes());
    seed[4..12].copy_from_slice(&boot.to_le_bytes());
    seed
}

/// What a slot held first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct First {
    /// Its digest.
    pub digest: LogDigest,
    /// Its writer's epoch.
    pub epoch: Epoch,
    /// All of it.
    pub bytes: Body,
}

/// The map and its memory. Clones share nothing that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shelf {
    /// What the store holds.
    pub objects: BTreeMap<Arc<str>, Body>,
    /// First content of every slot, collected or not.
    pub first: BTreeMap<Slot, Arc<First>>,
    /// The slot that an epoch created although the next epoch existed.
    pub after_fence: BTreeMap<Epoch, LogDigest>,
    /// Create-only PUTs replace what is there: a store that the probe must refuse.
    pub ignores_conditions: bool,
    /// Slots that were lost or cut.
    pub lost: BTreeSet<Slot>,
    /// Those of them where something else landed since: who looked just before may take it for the end of the log, until the slot behind it
    /// shows that it is not.
    pub usurped: BTreeSet<Slot>,
    boundary: Slot,
    max_epoch: Epoch,
}

impl Shelf {
    /// Empty.
    pub fn new(ignores_conditions: bool) -> Shelf {
        Shelf { ignores_conditions, ..Shelf::default() }
    }

    /// Applies a call.
    ///
    /// # Errors
    /// An invariant is broken; the text begins with its name.
    pub fn apply(&mut self, call: &Call) -> Verdict<Answer> {
        Ok(match call {
            Call::Get { key } => match self.objects.get(key.as_str()) {
                Some(body) => Answer::Body(body.to_vec()),
                None => Answer::Absent,
            },
            Call::Create { key, body } => {
                if self.objects.contains_key(key.as_str()) && !self.ignores_conditions {
                    return Ok(Answer::Fault(StoreFaultKind::Exists));
                }
                self.created(key, body)?;
                Answer::Done
            }
            Call::Put { key, body } => {
                if key.starts_with(keys::SLOTS) || key.starts_with(keys::EPOCHS) {
                    return Err(format!("I1: {key} is replaced"));
                }
                if let Some(slot) = keys::number(key, keys::BOUNDARIES) {
                    self.boundary = self.boundary.max(slot);
                }
                self.objects.insert(key.as_str().into(), body.clone());
                Answer::Done
            }
            Call::Last { prefix, max } => {
                let mut last: Vec<String> =
                    self.below(prefix).rev().take(*max).map(ToString::to_string).collect();
                last.reverse();
                Answer::Keys(last)
            }
            Call::Above { prefix, after, max } => {
                let above = self.below(prefix).filter(|key| ***key > **after);
                Answer::Keys(above.take(*max).map(ToString::to_string).collect())
            }
            Call::List { prefix, max } => {
                Answer::Keys(self.below(prefix).take(*max).map(ToString::to_string).collect())
            }
            Call::Delete { key } => {
                self.may_delete(key)?;
                self.objects.remove(key.as_str());
                Answer::Done
            }
        })
    }

    /// Keys that start with `prefix`, which ends in a slash; ascending.
    pub fn below(&self, prefix: &str) -> impl DoubleEndedIterator<Item = &Arc<str>> {
        // '0' is the byte after '/'.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let range: (Bound<&str>, Bound<&str>) = (Bound::Included(prefix), Bound::Excluded(end.as_str()));
        self.objects.range::<str, _>(range).map(|(key, _)| key)
    }

    /// Whether the store holds `key`.
    pub fn holds(&self, key: &str) -> bool {
        self.objects.contains_key(key)
    }

    /// The highest boundary.
    pub fn boundary(&self) -> Slot {
        self.boundary
    }

    /// The highest epoch that was ever created.
    pub fn max_epoch(&self) -> Epoch {
        self.max_epoch
    }

    fn created(&mut self, key: &str, body: &Body) -> Verdict<()> {
        if let Some(slot) = keys::number(key, keys::SLOTS) {
            if self.objects.get(key).is_some_and(|there| there != body) {
                return Err(format!("I1: slot {slot} is replaced"));
            }
            self.slot_created(slot, body)?;
        } else if let Some(digits) = key.strip_prefix(keys::EPOCHS) {
            if self.objects.contains_key(key) {
                return Err(format!("I1: {key} is replaced"));
            }
            let epoch = digits.parse().map_err(|_| format!("a strange name: {key}"))?;
            self.max_epoch = self.max_epoch.max(Epoch(epoch));
        }
        self.objects.insert(key.into(), body.clone());
        Ok(())
    }

    /// I6, as far as names tell.
    fn may_delete(&self, key: &str) -> Verdict<()> {
        let boundary = self.boundary;
        if key.starts_with(keys::EPOCHS) {
            return Err(format!("I6: {key} is deleted"));
        }
        if let Some(slot) = keys::number(key, keys::SLOTS)
            && slot > boundary
        {
            return Err(format!("I6: slot {slot} deleted above the boundary {boundary}"));
        }
        for prefix in [keys::CHECKPOINTS, keys::BOUNDARIES] {
            if let Some(slot) = keys::number(key, prefix)
                && slot >= boundary
            {
                return Err(format!("I6: {key} deleted, and the boundary is {boundary}"));
            }
        }
        Ok(())
    }

    fn slot_created(&mut self, slot: Slot, body: &Body) -> Verdict<()> {
        let (header, digest) = SlotHeader::parse(body).map_err(|why| format!("slot {slot}: {why}"))?;
        let first = self.first.get(&slot);
        if first.is_some_and(|first| first.digest == digest) {
            return Ok(()); // A late copy of a create that was issued long ago.
        }
        if first.is_some() && (slot <= self.boundary || self.lost.contains(&slot)) {
            // A zombie in a collected slot, which nobody reads, or in one that was lost, which the one behind it gives away: of a request that was issued long ago, and given up when the
            // slot was found taken. Any number of those may land; what is issued after the fence is judged where it is issued.
            return Ok(());
        }
        if self.max_epoch > header.epoch && *self.after_fence.entry(header.epoch).or_insert(digest) != digest
        {
            return Err(format!("I7: epoch {} created two slots after it was fenced", header.epoch));
        }
        if first.is_some() {
            return Ok(()); // A zombie: allowed to land, never to count.
        }
        if let Some(before) = slot.0.checked_sub(1).map(Slot).filter(|slot| slot.0 > 0) {
            let Some(before) = self.first.get(&before) else { return Err(format!("I1: gap before {slot}")) };
            if before.epoch > header.epoch {
                return Err(format!("I2: epoch {} after {} at slot {slot}", header.epoch, before.epoch));
            }
            if before.digest != header.previous {
                return Err(format!(
                    "I1: slot {slot} does not follow from the first content of the one before"
                ));
            }
        }
        self.first.insert(slot, Arc::new(First { digest, epoch: header.epoch, bytes: body.clone() }));
        Ok(())
    }

    /// A slot behind the head goes, or ends after `cut` bytes: one above the boundary that the slot behind it carries, where no other
    /// beside it is lost; of those, most often the first of a holder. Returns which; `None` when there is no such slot.
    pub fn lose(&mut self, choice: u64, cut: Option<usize>) -> Option<Slot> {
        let can_go = |slot: &Slot| {
            let beside = [slot.0 - 1, slot.0, slot.0 + 1].map(Slot);
            let behind = self.objects.get(keys::slot(beside[2]).as_str());
            self.holds(&keys::slot(*slot))
                && !beside.iter().any(|slot| self.lost.contains(slot))
                && behind.is_some_and(|behind| carried(behind).is_some())
        };
        let above = self.boundary.0.saturating_add(1).max(1);
        let slots: Vec<Slot> =
            self.first.range(Slot(above)..).map(|(slot, _)| *slot).filter(can_go).collect();
        let epoch = |slot: Slot| self.first.get(&slot).map(|first| first.epoch);
        let is_begin =
            |slot: &Slot| epoch(*slot) != slot.0.checked_sub(1).and_then(|before| epoch(Slot(before)));
        let wanted: Vec<Slot> = slots.iter().copied().filter(is_begin).collect();
        let slots = if wanted.is_empty() || choice.is_multiple_of(4) { slots } else { wanted };
        let slot = *slots.get((choice % slots.len().max(1) as u64) as usize)?;
        let key = keys::slot(slot);
        let body = self.objects.remove(key.as_str())?;
        if let Some(cut) = cut {
            self.objects.insert(key.into(), body[..cut.min(body.len() - 1)].into());
        }
        self.lost.insert(slot);
        Some(slot)
    }

    /// An accepted view holds first contents only.
    ///
    /// # Errors
    /// It does not.
    pub fn check_view(&self, view: &View) -> Verdict<()> {
        if view.head.0 == 0 {
            return Ok(());
        }
        match self.first.get(&view.head) {
            Some(first) if first.digest == view.digest => Ok(()),
            _ if self.usurped.contains(&view.head) => Ok(()),
            _ => Err(format!("I1: a view accepts a zombie at slot {}", view.head)),
        }
    }

    /// The fold of the first contents of all slots up to one, collected or not.
    ///
    /// # Errors
    /// A slot does not follow from those before it.
    pub fn fold(&self, head: Slot) -> Verdict<View> {
        let mut view = View::default();
        for (slot, first) in self.first.range(..=head) {
            apply_slot(&mut view, &first.bytes, &CLUSTER, &PlainForTests)
                .map_err(|fault| format!("I1: slot {slot}: {fault}"))?;
        }
        Ok(view)
    }
}

/// How a store breaks its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A create-only PUT replaces what is there.
    IgnoresConditions,
    /// A read sees what was there before the last write: two zones that copy to each other.
    ReadsOld,
}

/// A store that does not do what a writer needs, for the real probe to refuse.
pub struct LyingStore {
    lie: Lie,
    now: MemoryStore,
    before: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl LyingStore {
    /// Empty.
    pub fn new(lie: Lie) -> LyingStore {
        LyingStore { lie, now: MemoryStore::default(), before: Mutex::new(BTreeMap::new()) }
    }
}

impl over::Over for LyingStore {
    fn behind(&self) -> &dyn Store {
        &self.now
    }

    fn describe(&self) -> String {
        "a store that lies".to_owned()
    }

    fn put(&self, key: &str, body: &[&[u8]], mode: PutMode) -> Result<(), StoreFault> {
        let mut old = Vec::new();
        if self.now.get(key, WHOLE, &mut old).is_ok() {
            self.before.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), old);
        }
        let mode = if self.lie == Lie::IgnoresConditions { PutMode::Replace } else { mode };
        self.now.put(key, body, mode)
    }

    fn get(&self, key: &str, range: ByteRange, out: &mut Vec<u8>) -> Result<u64, StoreFault> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        match before.get(key).filter(|_| self.lie == Lie::ReadsOld) {
            Some(old) => {
                let (offset, len) = range.resolve(old.len() as u64);
                out.extend(old.iter().skip(offset as usize).take(len as usize));
                Ok(old.len() as u64)
            }
            None => self.now.get(key, range, out),
        }
    }
}
