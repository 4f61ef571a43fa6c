//! Where a replay begins: the newest checkpoint that is this log's, or what the boundary names. See the table in the module above.
//!
//! Does not: read slots, but for a checkpoint's own. Source: `agent/doc/commit-log.md` "Replay".

use super::{For, Lost, Phase, Replay, Unproven};
use crate::format::cursor::WireFault;
use crate::format::slot::{LogDigest, Sealer, SlotHeader, own_part, parse_boundary};
use crate::id::Slot;
use crate::log::call::{Answer, Call};
use crate::log::checkpoint::Checkpoint;
use crate::log::fault::{LogFault, Place};
use crate::log::keys;
use crate::log::limits::COVERS_TRIED_MAX;
use crate::log::view::{Cover, View};
use crate::store::StoreFaultKind;

impl<S: Sealer> Replay<S> {
    pub(super) fn look_for_covers(&mut self, lost: Option<Lost>) {
        self.clear();
        self.phase = Phase::Newest(lost);
        self.calls.submit(For::Newest, Call::Last { prefix: keys::CHECKPOINTS, max: COVERS_TRIED_MAX });
    }

    pub(super) fn looked_for_covers(&mut self, keys: &[String]) {
        let Phase::Newest(lost) = self.phase else { return };
        self.has_covers = !keys.is_empty();
        self.covers = keys.iter().filter_map(|key| keys::checkpoint_name(key)).collect();
        self.try_next(lost);
    }

    /// Reads the newest checkpoint that was not tried yet; without one, what the boundary names.
    pub(super) fn try_next(&mut self, lost: Option<Lost>) {
        // One below a lost slot leads there again; one at the boundary may be of a slot that is gone, and one below it is.
        let above = lost.map_or(self.boundary(), |lost| Slot(lost.slot.0.saturating_sub(1)));
        match (self.covers.pop().filter(|(slot, _)| *slot > above), lost, self.boundary) {
            (Some(name), ..) => {
                self.phase = Phase::Trying(name, lost);
                self.calls.submit(For::Checkpoint, Call::Get { key: keys::checkpoint(name.0, &name.1) });
            }
            (None, Some(lost), _) => self.confirm(Some(lost.fault())),
            (None, None, None) => self.look_for_boundary(),
            (None, None, Some(Slot(0))) => self.read_from(View::default()),
            (None, None, Some(slot)) => {
                self.phase = Phase::Pointer(slot);
                self.calls.submit(For::Pointer, Call::Get { key: keys::boundary(slot) });
            }
        }
    }

    pub(super) fn look_for_boundary(&mut self) {
        self.phase = Phase::Boundary;
        self.calls.submit(For::Boundary, Call::Last { prefix: keys::BOUNDARIES, max: 1 });
    }

    /// The checkpoint under trial is of no use. Before an older one is tried it is found out whether that still counts.
    pub(super) fn cannot_use(&mut self, lost: Option<Lost>) {
        // The beat may be asked for still while the checkpoint is.
        if !matches!(self.phase, Phase::Trying(..)) {
            self.clear();
        }
        self.unproven = None;
        match (lost, self.boundary) {
            (None, None) => self.look_for_boundary(),
            _ => self.try_next(lost),
        }
    }

    pub(super) fn cover_read(&mut self, answer: Answer) {
        let Phase::Trying((slot, nonce), lost) = self.phase else { return };
        match self.checkpoint_in(answer, slot, &nonce) {
            Ok((view, _, is_beginning)) => {
                self.base = view.head;
                self.view = view;
                self.unproven = Some(Unproven { is_beginning, is_gone: false, lost });
                self.go_on();
            }
            Err(fault) if fault.is_newer() => self.confirm(Some(fault)),
            Err(LogFault::Format { place, .. }) => {
                self.mended.push(place);
                self.cannot_use(lost);
            }
            // Collected meanwhile.
            Err(_) => self.cannot_use(lost),
        }
    }

    pub(super) fn pointer_read(&mut self, answer: Answer) {
        let Phase::Pointer(slot) = self.phase else { return };
        let place = Place::Boundary(slot);
        self.base = slot;
        let parsed = match answer {
            Answer::Body(bytes) => parse_boundary(&bytes),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                let fault = LogFault::Store { place, kind: StoreFaultKind::NotFound };
                return self.ask_whether_moved(Lost { slot, fault: Some(fault), last: None });
            }
        };
        let why = match parsed {
            // Not damage: another repository's log is here.
            Ok((cluster, _)) if cluster != self.cluster => {
                return self.confirm(Some(LogFault::Format { place, why: WireFault::Cluster }));
            }
            Ok((_, name)) if name.slot != slot => WireFault::Value,
            Ok((_, name)) => {
                self.phase = Phase::Loading(name);
                let key = keys::checkpoint(name.slot, &name.nonce);
                return self.calls.submit(For::Named, Call::Get { key });
            }
            Err(why) => why,
        };
        let fault = Some(LogFault::Format { place, why });
        self.ask_whether_moved(Lost { slot, fault, last: None });
    }

    pub(super) fn named_read(&mut self, answer: Answer) {
        let Phase::Loading(name) = self.phase else { return };
        let fault = match self.checkpoint_in(answer, name.slot, &name.nonce) {
            Ok((view, digest, _)) if digest == name.digest => return self.read_from(view),
            Ok(_) => LogFault::Format { place: Place::Checkpoint(name.slot), why: WireFault::Digest },
            Err(fault) if fault.is_newer() => return self.confirm(Some(fault)),
            Err(fault) => fault,
        };
        self.ask_whether_moved(Lost { slot: name.slot, fault: Some(fault), last: None });
    }

    /// The view that a checkpoint gives, the checkpoint's digest, and whether a log begins with it.
    pub(super) fn checkpoint_in(
        &self,
        answer: Answer,
        slot: Slot,
        nonce: &[u8; 16],
    ) -> Result<(View, LogDigest, bool), LogFault> {
        let place = Place::Checkpoint(slot);
        let (parsed, bytes) = match answer {
            Answer::Body(bytes) => (Checkpoint::parse(&bytes, &self.sealer), bytes.len() as u64),
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                return Err(LogFault::Store { place, kind: StoreFaultKind::NotFound });
            }
        };
        match parsed {
            Ok((checkpoint, _)) if checkpoint.cluster != self.cluster => {
                Err(LogFault::Format { place, why: WireFault::Cluster })
            }
            Ok((checkpoint, _)) if (checkpoint.slot, &checkpoint.nonce) != (slot, nonce) => {
                Err(LogFault::Format { place, why: WireFault::Value })
            }
            Ok((checkpoint, digest)) => {
                let is_beginning = checkpoint.is_beginning();
                let view = View { cover: Cover { slot, bytes }, ..checkpoint.into_view() };
                Ok((view, digest, is_beginning))
            }
            Err(why) => Err(LogFault::Format { place, why }),
        }
    }

    pub(super) fn read_own(&mut self) {
        self.clear();
        self.phase = Phase::Own;
        self.calls.submit(For::Own, Call::Get { key: keys::slot(self.view.head) });
    }

    /// A checkpoint's own slot, the last one that can be read.
    pub(super) fn own_read(&mut self, answer: Answer) {
        let Some(unproven) = self.unproven else { return };
        let bytes = match answer {
            Answer::Body(bytes) => bytes,
            Answer::Absent | Answer::Done | Answer::Keys(_) | Answer::Fault(_) => {
                return self.alone(unproven);
            }
        };
        match SlotHeader::parse(&bytes) {
            Ok((_, digest)) if digest == self.view.digest => {
                self.view.last = own_part(&bytes).unwrap_or(&bytes).into();
                self.proven();
                self.confirm(None);
            }
            Ok(_) => self.cannot_use(unproven.lost),
            Err(_) => self.alone(unproven),
        }
    }

    /// Nothing is left of the slots from a checkpoint's own on: they are collected, which the boundary tells, or lost. What they said up to it
    /// the checkpoint says.
    pub(super) fn alone(&mut self, unproven: Unproven) {
        // The boundary's name is enough, if what it says is damaged.
        if unproven.is_beginning && self.boundary != Some(self.base) {
            return self.cannot_use(unproven.lost);
        }
        let is_gone = !unproven.is_beginning;
        self.unproven = Some(Unproven { is_gone, ..unproven });
        self.proven();
        self.confirm(None);
    }

    pub(super) fn proven(&mut self) {
        let Some(Unproven { is_gone, is_beginning, lost }) = self.unproven.take() else { return };
        // A log that begins anew says nothing of what was lost before: the process that began it did.
        let is_boundary = |place: &Place| matches!(place, Place::Boundary(_));
        self.mended.extend(lost.map(|lost| lost.place()).filter(|place| !is_beginning || is_boundary(place)));
        self.mended.extend(is_gone.then_some(Place::Slot(self.base)));
    }
}
