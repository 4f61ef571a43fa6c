//! What a replay does about a slot that is not there or cannot be read. See the table in the module above.
//!
//! Source: `agent/doc/commit-log.md` "Replay".

use super::{For, Lost, Phase, Replay};
use crate::format::slot::{Sealer, carried};
use crate::id::Slot;
use crate::log::call::{Answer, Call};
use crate::log::fault::{LogFault, Place};
use crate::log::keys;
use crate::log::limits::REPLAY_KEYS_MAX;
use crate::log::view::LostEnd;

/// What objects and segments begin with: there is none before the log has a slot.
const TABLES: [&str; 2] = ["obj/", "seg/"];

impl<S: Sealer> Replay<S> {
    pub(super) fn read_once_more(&mut self, lost: Lost) {
        self.clear();
        self.phase = Phase::Again(lost);
        self.calls.submit(For::Again, Call::Get { key: keys::slot(lost.slot) });
    }

    pub(super) fn read_again(&mut self, answer: Answer) {
        let Phase::Again(mut lost) = self.phase else { return };
        match answer {
            Answer::Body(bytes) => match self.apply(&bytes) {
                Ok(()) => {
                    self.proven();
                    return self.go_on();
                }
                Err(fault) => {
                    lost.fault = Some(fault);
                    // Twice the same, so it was not changed on the way.
                    lost.last = lost.last.filter(|last| last == blake3::hash(&bytes).as_bytes());
                }
            },
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_)
                if lost.fault == Some(LogFault::Gone) => {}
            // It was there, and is gone: the boundary will tell.
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                (lost.fault, lost.last) = (None, None);
            }
        }
        self.ask_whether_moved(lost);
    }

    /// The log ends before its last slot, which is cut.
    fn end_is_cut(&mut self, slot: Slot) {
        self.went_to(Some(LostEnd { named: slot, by: Place::Slot(slot) }));
        if self.unproven.is_some() {
            self.read_own();
        } else {
            self.confirm(None);
        }
    }

    /// A slot at or below the boundary may be gone, or be another's: then nothing is wrong.
    pub(super) fn ask_whether_moved(&mut self, lost: Lost) {
        self.clear();
        self.phase = Phase::Moved(lost);
        self.calls.submit(For::Moved, Call::Last { prefix: keys::BOUNDARIES, max: 1 });
    }

    pub(super) fn looked_for_boundary(&mut self, boundary: Slot) {
        let Phase::Moved(lost) = self.phase else { return };
        self.boundary = Some(boundary);
        if boundary > self.base {
            self.restart();
        } else if matches!(lost.place(), Place::Slot(_)) {
            self.phase = Phase::Above(lost);
            let after = keys::slot(lost.slot);
            self.calls.submit(For::Above, Call::Above { prefix: keys::SLOTS, after, max: REPLAY_KEYS_MAX });
        } else {
            self.look_for_covers(Some(lost));
        }
    }

    /// What lies above a lost slot now: it may have been the last one when it was listed, and is not any more.
    pub(super) fn looked_above(&mut self, keys: &[String]) {
        let Phase::Above(lost) = self.phase else { return };
        let behind = Slot(lost.slot.0.saturating_add(1));
        // What is behind a slot that is whole says the same of it.
        let is_whole = matches!(lost.fault, Some(LogFault::Inconsistent { .. }));
        match keys.iter().filter_map(|key| keys::number(key, keys::SLOTS)).min() {
            None if lost.last.is_some() => self.end_is_cut(lost.slot),
            Some(slot) if slot == behind && !is_whole => {
                self.phase = Phase::Carried(lost);
                self.calls.submit(For::Behind, Call::Get { key: keys::slot(behind) });
            }
            _ => self.not_behind(lost),
        }
    }

    /// Only a checkpoint can say what a lost slot said. What is behind one that is not proven may be another log's.
    fn not_behind(&mut self, lost: Lost) {
        match self.unproven {
            Some(unproven) => self.cannot_use(unproven.lost),
            None => self.look_for_covers(Some(lost)),
        }
    }

    pub(super) fn read_behind(&mut self, answer: Answer) {
        let Phase::Carried(lost) = self.phase else { return };
        let slot = match &answer {
            Answer::Body(bytes) => carried(bytes),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => None,
        };
        if slot.is_some_and(|slot| self.apply(slot).is_ok()) {
            self.proven();
            self.mended.push(Place::Slot(lost.slot));
            self.go_on();
        } else {
            self.not_behind(lost);
        }
    }

    pub(super) fn look_for_tables(&mut self, asked: usize) {
        match TABLES.get(asked) {
            Some(prefix) => {
                self.phase = Phase::Empty(asked + 1);
                self.calls.submit(For::Empty, Call::Above { prefix, after: String::new(), max: 1 });
            }
            None => self.confirm(None),
        }
    }

    /// A log without its first slot is a new one only when nothing has ever been written beside it.
    pub(super) fn looked_for_tables(&mut self, is_any: bool) {
        let Phase::Empty(asked) = self.phase else { return };
        if is_any {
            // A backup may have begun since: the slot is asked for once more before anything is said.
            let fault = Some(LogFault::Gone);
            self.read_once_more(Lost { slot: Slot(1), fault, last: None });
        } else {
            self.look_for_tables(asked);
        }
    }
}
