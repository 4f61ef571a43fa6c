//! The store as a map, with its memory of what every slot held first, and the invariants that need that memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_agent::format::slot::{Author, ClusterId, PlainForTests, SlotHeader};
use windlass_agent::id::{Boot, Epoch, NodeId, Slot};
use windlass_agent::log::call::{Answer, Body, Call};
use windlass_agent::log::keys;
use windlass_agent::log::lease::Identity;
use windlass_agent::log::replay::{View, apply_slot};
use windlass_agent::store::StoreFaultKind;

pub const CLUSTER: ClusterId = [0xC1; 16];

pub fn identity(node: u32, boot: u64) -> Identity {
    Identity { cluster: CLUSTER, me: Author { node: NodeId(node), boot: Boot(boot) } }
}

pub fn seed(node: u32, boot: u64) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&node.to_le_bytes());
    seed[4..12].copy_from_slice(&boot.to_le_bytes());
    seed
}

/// What a slot held first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct First {
    pub digest: [u8; 32],
    pub epoch: Epoch,
    pub bytes: Body,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shelf {
    pub objects: BTreeMap<Arc<str>, Body>,
    pub first: BTreeMap<Slot, Arc<First>>,
    /// A late copy of an old create may land in a collected slot: not counted as a create after the fence then.
    pub copies_land: bool,
    /// Slot creates that were applied although a higher epoch than theirs existed: by epoch.
    pub after_fence: BTreeMap<Epoch, u32>,
}

impl Shelf {
    /// Applies a call. `Err`: an invariant is broken.
    pub fn apply(&mut self, call: &Call) -> Result<Answer, String> {
        Ok(match call {
            Call::Get { key } => match self.objects.get(key.as_str()) {
                Some(body) => Answer::Body(body.to_vec()),
                None => Answer::Absent,
            },
            Call::Create { key, body } => {
                if self.objects.contains_key(key.as_str()) {
                    return Ok(Answer::Fault(StoreFaultKind::Exists));
                }
                self.objects.insert(key.as_str().into(), body.clone());
                if let Some(slot) = keys::number(key, keys::SLOTS) {
                    self.slot_created(slot, body)?;
                }
                Answer::Done
            }
            Call::Put { key, body } => {
                self.objects.insert(key.as_str().into(), body.clone());
                Answer::Done
            }
            Call::Last { prefix } => {
                Answer::Keys(self.below(prefix).last().into_iter().map(|key| key.to_string()).collect())
            }
            Call::List { prefix, max } => {
                Answer::Keys(self.below(prefix).take(*max).map(|key| key.to_string()).collect())
            }
            Call::Delete { key } => {
                if let Some(slot) = keys::number(key, keys::SLOTS)
                    && slot > self.boundary()
                {
                    return Err(format!("I6: slot {slot} deleted above the boundary {}", self.boundary()));
                }
                self.objects.remove(key.as_str());
                Answer::Done
            }
        })
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl DoubleEndedIterator<Item = &'a Arc<str>> {
        let from: Arc<str> = prefix.into();
        self.objects
            .range(from..)
            .map(|(key, _)| key)
            .take_while(move |key| key.starts_with(prefix))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The highest boundary.
    pub fn boundary(&self) -> Slot {
        self.below(keys::BOUNDARIES)
            .next_back()
            .and_then(|key| keys::number(key, keys::BOUNDARIES))
            .unwrap_or(Slot(0))
    }

    pub fn max_epoch(&self) -> Epoch {
        let last = self.below("epoch/").next_back().and_then(|key| key[6..].parse().ok());
        Epoch(last.unwrap_or(0))
    }

    fn slot_created(&mut self, slot: Slot, body: &Body) -> Result<(), String> {
        let (header, digest) = SlotHeader::parse(body).map_err(|why| format!("slot {slot}: {why}"))?;
        if self.max_epoch() > header.epoch && !(self.copies_land && self.first.contains_key(&slot)) {
            let count = self.after_fence.entry(header.epoch).or_default();
            *count += 1;
            if *count > 1 {
                return Err(format!("I7: epoch {} created {count} slots after it was fenced", header.epoch));
            }
        }
        if self.first.contains_key(&slot) {
            return Ok(()); // A zombie: allowed to land, never to count.
        }
        let before = slot.0.checked_sub(1).map(Slot).filter(|slot| slot.0 > 0);
        if let Some(before) = before {
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

    /// An accepted view holds first contents only.
    pub fn check_view(&self, view: &View) -> Result<(), String> {
        if view.head.0 == 0 {
            return Ok(());
        }
        match self.first.get(&view.head) {
            Some(first) if first.digest == view.digest => Ok(()),
            _ => Err(format!("a view accepts a zombie at slot {}", view.head)),
        }
    }

    /// The fold of the first contents of all slots up to one, collected or not.
    pub fn fold(&self, head: Slot) -> View {
        let mut view = View::default();
        for (slot, first) in self.first.range(..=head) {
            apply_slot(&mut view, &first.bytes, &CLUSTER, &PlainForTests)
                .unwrap_or_else(|fault| panic!("slot {slot}: {fault}"));
        }
        view
    }
}
