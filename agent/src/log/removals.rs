//! Requests to remove something that a second subject has not answered yet.
//!
//! Invariants: a request is known by its slot, so no number comes twice; it is gone when it was approved or withdrawn. Does not: look at who
//! approves, or do what was asked for: its records follow in the slot (`coordinator::approval`). Source: ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::Bound;
use super::state::{Refusal, State};
use crate::format::cursor::{Reader, Wire, WireFault};
use crate::format::removal::{Asked, RemovalNews};
use crate::id::Slot;

/// Requests that wait at once: people answer them. Above: [`Bound`].
pub const REMOVALS_MAX: usize = 32;

/// Requests by the slot that asks.
pub type Removals = BTreeMap<Slot, Asked>;

pub(super) fn emit(removals: &Removals, out: &mut Vec<u8>) {
    u32::try_from(removals.len()).unwrap_or(u32::MAX).emit(out);
    for (slot, asked) in removals {
        slot.emit(out);
        asked.emit(out);
    }
}

/// Inverse of what a checkpoint has: none only where something follows.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Removals, WireFault> {
    let count: u32 = reader.value()?;
    if count as usize > REMOVALS_MAX {
        return Err(WireFault::Count(count));
    }
    let mut removals = Removals::new();
    for _ in 0..count {
        let slot: Slot = reader.value()?;
        if removals.keys().next_back().is_some_and(|before| *before >= slot) {
            return Err(WireFault::Value);
        }
        removals.insert(slot, Asked::parse(reader)?);
    }
    Ok(removals)
}

impl State {
    pub(super) fn removal(&mut self, slot: Slot, news: &RemovalNews) -> Result<(), Refusal> {
        let removals = Arc::make_mut(&mut self.removals);
        match news {
            RemovalNews::Asked(asked) => {
                // One a slot: they share its number.
                if removals.contains_key(&slot) {
                    return Err(Refusal::NoRemoval);
                }
                if removals.len() >= REMOVALS_MAX {
                    return Err(Refusal::Full(Bound::Removals));
                }
                removals.insert(slot, Asked::clone(asked));
            }
            RemovalNews::Approved { request, .. } | RemovalNews::Withdrawn { request, .. } => {
                removals.remove(request).ok_or(Refusal::NoRemoval)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::Record;
    use crate::id::BackupId;

    #[test]
    fn requests_wait_until_they_are_answered_and_are_bounded() {
        let subject = || "uid:7".to_owned();
        let records = vec![Record::PointExpired { backup: BackupId(1) }];
        let asked = Asked { subject: subject(), wall_ns: 1, not_before_ns: 2, records };
        let ask = RemovalNews::Asked(Box::new(asked.clone()));
        let mut state = State::default();
        for slot in 1..=REMOVALS_MAX as u64 {
            assert_eq!(state.removal(Slot(slot), &ask), Ok(()));
        }
        assert_eq!(state.removal(Slot(99), &ask), Err(Refusal::Full(Bound::Removals)));
        let mut bytes = Vec::new();
        emit(&state.removals, &mut bytes);
        assert_eq!(parse(&mut Reader::new(&bytes)), Ok((*state.removals).clone()));
        let answer = |request| RemovalNews::Withdrawn { request: Slot(request), subject: subject() };
        assert_eq!(state.removal(Slot(100), &answer(3)), Ok(()));
        assert_eq!(state.removal(Slot(100), &answer(3)), Err(Refusal::NoRemoval), "once");
        assert_eq!(state.removal(Slot(101), &ask), Ok(()));
        assert_eq!(state.removal(Slot(101), &ask), Err(Refusal::NoRemoval), "one a slot");
        let approved = RemovalNews::Approved { request: Slot(101), subject: subject() };
        assert_eq!(state.removal(Slot(102), &approved), Ok(()));
        assert!(!state.removals.contains_key(&Slot(101)));
        let many = u32::try_from(REMOVALS_MAX).unwrap() + 1;
        assert_eq!(parse(&mut Reader::new(&many.to_le_bytes())), Err(WireFault::Count(many)));
    }
}
