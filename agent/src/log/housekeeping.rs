//! Housekeeping: checkpoints, the boundary, and the deletes behind it (G3). Works beside commits, never in their way.
//!
//! After each slot that passed its check: when the last checkpoint is far enough behind, PUT `ckpt/<slot>-<nonce>`. A process that opens the log
//! begins with the newest one, so there is one every 8 slots, or as often as its size allows. Of those, one every 256 slots is named by the
//! log: once it is acknowledged a checkpoint record waits for the next batch; once that is committed, and the checkpoint lies 256 slots
//! behind, PUT `boundary/<slot>`; once that is acknowledged, LIST and delete slots up to it, older checkpoints and boundaries, and the
//! beats of epochs that are over. Grants of epochs stay for ever: they fence late writers (C1).
//!
//! Invariants: I6: nothing is deleted before the boundary that allows it is acknowledged. A boundary is a checkpoint's slot, so a
//! replay that starts at b + 1 needs nothing else. Deletes are repeated by the next boundary when they fail.
//! Does not: touch objects or segments. Source: `agent/doc/commit-log.md`, G3.

use std::collections::VecDeque;

use super::call::{Answer, Call, CallId, Calls, backoff_ns};
use super::checkpoint::Checkpoint;
use super::fault::{LogFault, Place};
use super::keys;
use super::limits::{COVER_BYTES_PER_SLOT, COVER_SLOTS, DELETE_KEYS_MAX, DELETES_MAX};
use super::replay::{Cover, View};
use crate::format::record::CheckpointName;
use crate::format::slot::{ClusterId, Sealer, emit_boundary};
use crate::id::{Epoch, Slot};
use crate::store::StoreFaultKind;

/// Failures in a row of one call before it is left for the next time.
const TRIES_MAX: u32 = 5;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum For {
    Checkpoint,
    Boundary(Slot),
    List(&'static str),
    Delete,
}

/// News for the writer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeepNews {
    /// Did not work; will be tried again at the next occasion.
    Warning(LogFault),
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Housekeeping {
    cluster: ClusterId,
    checkpoint_slots: u64,
    lag_slots: u64,
    calls: Calls<For>,
    /// Being put, and whether the log is to name it.
    writing: Option<(CheckpointName, bool)>,
    /// In the store, waiting for a batch to ride in.
    pending: Option<CheckpointName>,
    /// The newest checkpoint that was seen, or begun: a failed one is not tried at each slot.
    cover: Cover,
    /// Highest boundary known to be in the store.
    boundary: Slot,
    /// Whose beats are needed; those of epochs before it are not: no node looks at any but the highest one's.
    epoch: Epoch,
    doomed: VecDeque<String>,
    faults: u32,
    news: VecDeque<KeepNews>,
}

impl Housekeeping {
    /// Nothing known yet.
    pub fn new(cluster: ClusterId, checkpoint_slots: u64, lag_slots: u64) -> Housekeeping {
        Housekeeping {
            cluster,
            checkpoint_slots,
            lag_slots,
            calls: Calls::new(1),
            writing: None,
            pending: None,
            cover: Cover::default(),
            boundary: Slot(0),
            epoch: Epoch(0),
            doomed: VecDeque::new(),
            faults: 0,
            news: VecDeque::new(),
        }
    }

    /// A replay saw this boundary, and lies behind this checkpoint.
    pub fn saw(&mut self, boundary: Slot, cover: Cover) {
        self.boundary = self.boundary.max(boundary);
        if cover.slot > self.cover.slot {
            self.cover = cover;
        }
    }

    /// A checkpoint that is in the store and not in the log.
    pub fn pending(&self) -> Option<CheckpointName> {
        self.pending
    }

    /// The next call for the driver.
    pub fn next_call(&mut self) -> Option<(CallId, Call)> {
        self.calls.next_call()
    }

    /// When `wake` is due.
    pub fn deadline(&self) -> Option<u64> {
        self.calls.deadline()
    }

    /// Repeats what was waiting for its time.
    pub fn wake(&mut self, now_ns: u64) {
        self.calls.wake(now_ns);
    }

    /// News since.
    pub fn next_news(&mut self) -> Option<KeepNews> {
        self.news.pop_front()
    }

    /// Makes no more calls.
    pub fn stop(&mut self) {
        self.calls.clear();
        self.doomed.clear();
    }

    /// A slot passed its check; `view` includes it. `with_checkpoint`: the pending record was in it.
    pub fn committed<S: Sealer>(
        &mut self,
        _now_ns: u64,
        view: &View,
        with_checkpoint: bool,
        nonce: [u8; 16],
        sealer: &S,
    ) {
        if with_checkpoint {
            self.pending = None;
        }
        self.epoch = view.state.epoch;
        self.advance_boundary(view);
        if self.writing.is_some() || self.pending.is_some() {
            return;
        }
        let since = |slot: Slot| view.head.0.saturating_sub(slot.0);
        let (named, covered) =
            (view.state.checkpoints.last().map_or(Slot(0), |name| name.slot), self.cover.slot);
        // One that failed is not tried again with each slot.
        let is_named =
            since(named) >= self.checkpoint_slots && since(covered) >= COVER_SLOTS.min(self.checkpoint_slots);
        if !is_named && since(covered) < slots_between(self.cover.bytes) {
            return;
        }
        let checkpoint = Checkpoint {
            cluster: self.cluster,
            slot: view.head,
            nonce,
            slot_digest: view.digest,
            state: view.state.clone(),
        };
        match checkpoint.emit(sealer) {
            Ok((bytes, digest)) => {
                self.cover.bytes = bytes.len() as u64;
                // It has grown, or its size was not known.
                if !is_named && since(covered) < slots_between(self.cover.bytes) {
                    return;
                }
                self.cover.slot = view.head;
                self.writing = Some((CheckpointName { slot: view.head, nonce, digest }, is_named));
                let key = keys::checkpoint(view.head, &nonce);
                self.calls.submit(For::Checkpoint, Call::Put { key, body: bytes.into() });
            }
            Err(bytes) => {
                self.cover.slot = view.head;
                self.news.push_back(KeepNews::Warning(LogFault::CheckpointTooLarge { bytes }));
            }
        }
    }

    fn advance_boundary(&mut self, view: &View) {
        let reach = view.head.0.saturating_sub(self.lag_slots);
        let best = view.state.checkpoints.iter().rev().find(|name| name.slot.0 <= reach);
        let Some(name) = best.filter(|name| name.slot > self.boundary) else { return };
        if self.calls.has(For::Boundary(name.slot)) {
            return;
        }
        let body = emit_boundary(&self.cluster, name).into();
        self.calls.submit(For::Boundary(name.slot), Call::Put { key: keys::boundary(name.slot), body });
    }

    /// Takes an answer.
    pub fn handle(&mut self, now_ns: u64, id: CallId, answer: Answer) {
        let Some((tag, call)) = self.calls.complete(id) else { return };
        if let Answer::Fault(kind) = answer {
            return self.failed(now_ns, tag, call, kind);
        }
        self.faults = 0;
        match (tag, answer) {
            (For::Checkpoint, _) => {
                self.pending = self.writing.take().filter(|&(_, is_named)| is_named).map(|(name, _)| name);
            }
            (For::Boundary(slot), _) => {
                self.boundary = self.boundary.max(slot);
                for prefix in [keys::SLOTS, keys::CHECKPOINTS, keys::BOUNDARIES, keys::BEATS] {
                    self.calls.submit(For::List(prefix), Call::List { prefix, max: DELETE_KEYS_MAX });
                }
            }
            (For::List(prefix), Answer::Keys(keys)) => {
                let (boundary, epoch) = (self.boundary, self.epoch);
                let gone = keys.into_iter().filter(|key| match keys::number(key, prefix) {
                    Some(slot) if prefix == keys::SLOTS => slot <= boundary,
                    Some(of) if prefix == keys::BEATS => of.0 < epoch.0,
                    Some(slot) => slot < boundary,
                    None => false,
                });
                self.doomed.extend(gone);
            }
            (For::List(_), Answer::Done | Answer::Body(_) | Answer::Absent | Answer::Fault(_))
            | (For::Delete, _) => {}
        }
        self.delete_more();
    }

    fn delete_more(&mut self) {
        while self.calls.len() < DELETES_MAX {
            let Some(key) = self.doomed.pop_front() else { break };
            self.calls.submit(For::Delete, Call::Delete { key });
        }
    }

    fn failed(&mut self, now_ns: u64, tag: For, call: Call, kind: StoreFaultKind) {
        self.faults = self.faults.saturating_add(1);
        let transient =
            matches!(kind, StoreFaultKind::Unknown | StoreFaultKind::Conflict | StoreFaultKind::Corrupt);
        if transient && self.faults < TRIES_MAX {
            return self.calls.park(now_ns.saturating_add(backoff_ns(self.faults)), tag, call);
        }
        self.faults = 0;
        let place = match tag {
            For::Checkpoint => Place::Checkpoint(self.writing.take().map_or(Slot(0), |(name, _)| name.slot)),
            For::Boundary(slot) => Place::Boundary(slot),
            For::List(_) | For::Delete => Place::Boundary(self.boundary),
        };
        if tag == For::Delete || matches!(tag, For::List(_)) {
            self.doomed.clear();
        }
        self.news.push_back(KeepNews::Warning(LogFault::Store { place, kind }));
        self.delete_more();
    }
}

/// Slots between checkpoints of this size.
fn slots_between(bytes: u64) -> u64 {
    COVER_SLOTS.max(bytes / COVER_BYTES_PER_SLOT)
}
