//! A writer that begins with a view; what it reads behind that; and a log that goes on behind an end that is lost. Source: ours.

use super::{Phase, Step, Writer, WriterOptions, is_unclear};
use crate::format::slot::{LogDigest, Sealer};
use crate::id::Slot;
use crate::log::call::{Answer, Call, backoff_ns};
use crate::log::checkpoint::Checkpoint;
use crate::log::fault::{LogFault, Place};
use crate::log::keys;
use crate::log::lease::{Identity, Lease};
use crate::log::replay::{Cover, Replay, View};
use crate::log::salvage::DISTANCE_SLOTS;

/// Which of the pauses between repeats ([`backoff_ns`]) a checkpoint has that covers a lost end.
const COVER_PAUSE: u32 = 2;

impl<S: Sealer + Clone> Writer<S> {
    /// Starts with a claim, by what `view` says of the lease; the log is read again when that says that another node may hold it. For
    /// a process that has read it a while ago. The rest is as in [`Writer::new`].
    pub fn with_view(
        identity: Identity,
        sealer: S,
        options: WriterOptions,
        seed: [u8; 32],
        view: View,
    ) -> Writer<S> {
        let mut writer = Writer::new(identity, sealer, options, seed);
        (writer.replay, writer.has_read) = (None, false);
        writer.keep.saw(Slot(0), view.cover);
        writer.view = view;
        if options.keeps_to_end && writer.view.lost_end.is_some() {
            // It may have been put back.
            writer.has_read = true;
            writer.read_on(Phase::Replaying, None);
        } else {
            writer.seek();
        }
        writer
    }

    /// Reads what came behind the view; `lease` has met beats, which say how far the log went.
    pub(super) fn read_on(&mut self, phase: Phase, lease: Option<&Lease>) {
        self.phase = phase;
        self.flight = None;
        self.calls.clear();
        if let Some(view) = self.uncovered.take() {
            // Another one has covered the lost end: what follows from that is looked for from before it.
            self.view = view;
        }
        let generation = self.next_generation();
        let (cluster, sealer, view) = (self.identity.cluster, self.sealer.clone(), self.view.clone());
        let mut replay = Replay::from_view(cluster, sealer, self.options.replay, generation, view);
        if let Some((epoch, named)) = lease.and_then(Lease::named) {
            replay.heard(epoch, named);
        }
        self.replay = Some(replay);
    }

    /// The log's end is lost up to `named`, and perhaps more. A process that has read it, and one that stalled when it was about to go on there, must
    /// not take what comes next for what was there: the log goes on so far behind that no process can, behind a checkpoint of a slot that never
    /// was. That counts when a slot follows from it, so what decides is the create of that slot, as ever.
    pub(super) fn cover(&mut self, named: Slot) {
        let (slot, nonce) = (Slot(named.0.saturating_add(DISTANCE_SLOTS)), self.nonces.draw());
        let (cluster, state) = (self.identity.cluster, self.view.state.clone());
        let slot_digest = Checkpoint::digest_of_beginning(&nonce);
        match (Checkpoint { cluster, slot, nonce, slot_digest, state }.emit(&self.sealer)) {
            Ok((bytes, _)) => {
                self.phase = Phase::Covering;
                let call = Call::Put { key: keys::checkpoint(slot, &nonce), body: bytes.into() };
                self.calls.submit(Step::Covering { slot, slot_digest }, call);
            }
            Err(bytes) => self.lose(LogFault::CheckpointTooLarge { bytes }),
        }
    }

    pub(super) fn covered(&mut self, now_ns: u64, slot: Slot, digest: LogDigest, call: Call, answer: Answer) {
        let Answer::Fault(kind) = answer else {
            let state = self.view.state.clone();
            let cover = Cover { slot, bytes: 0 };
            let view = View { head: slot, digest, state, cover, ..View::default() };
            self.uncovered = Some(std::mem::replace(&mut self.view, view));
            return self.begin(now_ns);
        };
        if !self.may_send(now_ns) {
            self.lose(LogFault::Expired { epoch: self.epoch, unresolved: None });
        } else if is_unclear(kind) {
            self.calls.park(
                now_ns.saturating_add(backoff_ns(COVER_PAUSE)),
                Step::Covering { slot, slot_digest: digest },
                call,
            );
        } else {
            self.lose(LogFault::Store { place: Place::Checkpoint(slot), kind });
        }
    }
}
