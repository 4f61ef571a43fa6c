//! The oracle: follows the log as it is, slot by slot, and holds against it what nodes claim and what they delete.
//!
//! | rule | when it is checked |
//! |---|---|
//! | C1, I4 | a slot lands: every object that it adds is in the store; a delete lands: no table names the object, no pin is older |
//! | I6 | a delete lands: a record allows it; a boundary lands: a committed checkpoint in the store has its name |
//! | I7 | a node issues a create: at most one more after the next epoch exists; it claims success: the slot is the log's |
//! | I3 | a node issues a create: its slot before that one is decided |
//! | I9 | after every step: no two leases at one true time, where clocks keep within the bound |
//! | I11 | an epoch begins, and at the end: state from checkpoint and log equals the fold of the whole log |
//! | I5 | a backup ends: its stretches tile every volume, and every object says what stretch it is of ([`pieces`](super::pieces)) |
//! | P2 | a slot lands: no point is gone. a node is told that its report, its backup, its policy is in the log: it is |
//! | P1, C1, C4, G1, G2 | the records add up to what the tables and points say ([`ledger`](super::ledger)) |
//! | P2 | at the end: whatever was reported is in the log; whatever was denied is not |
//!
//! Does not: change anything. Source: `agent/doc/commit-log.md`, Invariants.

use std::collections::{BTreeMap, BTreeSet};

use windlass_agent::format::garbage::GarbageNews;
use windlass_agent::format::record::{CheckpointName, Commit, Record};
use windlass_agent::format::slot::{LogDigest, PlainForTests, SlotContents, parse_boundary};
use windlass_agent::id::{BackupId, Epoch, NodeId, ObjectId, Slot};
use windlass_agent::log::call::{Body, Call};
use windlass_agent::log::fault::{LogFault, Place};
use windlass_agent::log::keys;
use windlass_agent::log::replay::{Replay, ReplayOptions, View, apply_slot};

use super::due::Due;
use super::guards;
use super::ledger::Ledger;
use super::pieces::Pieces;
use super::stops::Stops;
use super::store::{CLUSTER, OBJECTS, SEGMENTS, Shelf};
use super::{Fact, Verdict};

/// What one life of a node has issued.
#[derive(Clone, Copy, Debug, Default)]
pub struct Issued {
    slot: Option<Slot>,
    /// Epoch, and digest of the slot.
    after_fence: Option<(u64, LogDigest)>,
}

/// The log as it is, and what was claimed of it.
#[derive(Debug, Default)]
pub struct Oracle {
    model: View,
    /// Every object and segment that was ever committed.
    ever: BTreeSet<ObjectId>,
    checkpoints: BTreeSet<CheckpointName>,
    /// Pins that name batches, as they came into the log.
    markers: BTreeSet<u64>,
    denied: BTreeSet<u64>,
    /// What nodes have reported: slot -> marker, 0 for slots of the writer's own.
    reported: BTreeMap<Slot, u64>,
    pieces: Pieces,
    ledger: Ledger,
    due: Due,
    stops: Stops,
    /// Names whose deletion is in the log: a late or repeated DELETE does no harm.
    gone: BTreeSet<ObjectId>,
    /// Backups and their policies, as they began.
    begun: BTreeMap<BackupId, String>,
    /// Bodies of policies that were ever in the log.
    bodies: BTreeSet<Vec<u8>>,
}

impl Oracle {
    /// The log as it is.
    pub fn model(&self) -> &View {
        &self.model
    }

    /// What began and ended, and when.
    pub fn due(&self) -> &Due {
        &self.due
    }

    /// A call is about to be applied.
    ///
    /// # Errors
    /// It may not be.
    pub fn before(&self, shelf: &Shelf, call: &Call) -> Verdict<()> {
        match call {
            Call::Delete { key } => self.may_delete(key),
            Call::Put { key, body } => match keys::number(key, keys::BOUNDARIES) {
                Some(slot) => self.may_bound(shelf, slot, body),
                None => Ok(()),
            },
            Call::Get { .. }
            | Call::Create { .. }
            | Call::Last { .. }
            | Call::Above { .. }
            | Call::List { .. } => Ok(()),
        }
    }

    /// A call was applied: follows the log.
    ///
    /// # Errors
    /// A slot says what it may not.
    pub fn after(&mut self, true_ns: u64, shelf: &Shelf) -> Verdict<()> {
        while let Some(first) = shelf.first.get(&Slot(self.model.head.0 + 1)) {
            let slot = Slot(self.model.head.0 + 1);
            apply_slot(&mut self.model, &first.bytes, &CLUSTER, &PlainForTests)
                .map_err(|fault| format!("I1: slot {slot}: {fault}"))?;
            let contents = SlotContents::parse(&first.bytes, &PlainForTests)
                .map_err(|why| format!("I1: slot {slot}: {why}"))?;
            contents.records.iter().try_for_each(|record| self.record(shelf, slot, record))?;
            let (begun, state) = (&self.begun, &self.model.state);
            let of = |backup| begun.get(&backup).cloned().unwrap_or_default();
            contents.records.iter().try_for_each(|record| self.stops.record(state, record, of))?;
            let mut is_due = false;
            for record in &contents.records {
                self.due.record(true_ns, record);
                is_due |= self.ledger.record(record)?;
            }
            self.ledger.end_slot()?;
            let ledger = &self.ledger;
            self.pieces.check_points(&self.model, |backup| ledger.has_point(backup))?;
            if is_due {
                self.ledger.compare(&self.model.state)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, shelf: &Shelf, slot: Slot, record: &Record) -> Verdict<()> {
        self.pieces.record(shelf, slot, record)?;
        match record {
            Record::Commit(commit) => {
                let objects = commit.objects.iter().map(|(id, _)| (*id, id.object_key()));
                let segments = commit.segments.iter().map(|segment| (segment.id, segment.id.segment_key()));
                for (id, key) in objects.chain(segments) {
                    if !shelf.holds(&key) {
                        return Err(format!("I4: slot {slot} commits {key}, which is not in the store"));
                    }
                    if !self.ever.insert(id) {
                        return Err(format!("C4: slot {slot} commits {key} again"));
                    }
                }
            }
            Record::Garbage(GarbageNews::Deleted(names)) => self.gone.extend(names),
            // Readers' pins name no node, and no batch: the request for one may be sent again.
            Record::Pin { node: NodeId(0), .. } => {}
            Record::Pin { pin, .. } => {
                if !self.markers.insert(*pin) {
                    return Err(format!("C2: slot {slot} holds batch {pin:x} again"));
                }
                if self.denied.contains(pin) {
                    return Err(format!("I7: slot {slot} holds batch {pin:x}, reported as not counting"));
                }
            }
            Record::Checkpoint(name) => {
                let key = keys::checkpoint(name.slot, &name.nonce);
                if shelf.objects.get(key.as_str()).is_none_or(|body| !body.ends_with(&name.digest)) {
                    return Err(format!("I4: slot {slot} commits {key}, which is not in the store"));
                }
                self.checkpoints.insert(*name);
            }
            Record::PolicyChanged(change) => drop(self.bodies.insert(change.body.clone())),
            Record::BackupBegun(start) => {
                drop(self.begun.insert(start.backup, guards::index_of(&start.policy)))
            }
            Record::EpochBegun { .. }
            | Record::Yield { .. }
            | Record::PolicyRemoved { .. }
            | Record::BackupEnded(_)
            | Record::BackupAbandoned { .. }
            | Record::BackupStopped { .. }
            | Record::PointExpired { .. }
            | Record::Retire { .. }
            | Record::OrphanFloor { .. }
            | Record::PinRefreshed { .. }
            | Record::Unpin { .. }
            | Record::Damage(_)
            | Record::Swept(_)
            | Record::BackupTried(_)
            | Record::LeaseSet { .. }
            | Record::FeaturesRaised(_)
            | Record::PointMarked(_)
            | Record::Access(_)
            | Record::Removal(_)
            | Record::PointGuarded(_)
            | Record::PolicyRenamed { .. }
            | Record::Garbage(_) => {}
        }
        Ok(())
    }

    fn may_delete(&self, key: &str) -> Verdict<()> {
        if let Some(of) = keys::number(key, keys::BEATS) {
            let is_over = of.0 < self.model.state.epoch.0;
            return if is_over {
                Ok(())
            } else {
                Err(format!("I6: {key} is deleted, and its epoch is not over"))
            };
        }
        if key.starts_with(keys::EPOCHS) {
            return Err(format!("I6: {key} is deleted, and fences late writers"));
        }
        let Some(name) = key.strip_prefix(OBJECTS).or_else(|| key.strip_prefix(SEGMENTS)) else {
            return Ok(());
        };
        let id: ObjectId = name.parse().map_err(|()| format!("I6: {key} is deleted, which is no object"))?;
        let state = &self.model.state;
        if state.live.contains(&id) {
            return Err(format!("I4: {key} is deleted, and the tables name it"));
        }
        match state.retired.get(&id) {
            Some(&slot) if state.oldest_pin().is_some_and(|pin| pin < slot) => {
                Err(format!("I4: {key} is deleted, and a pin is older than its retirement in slot {slot}"))
            }
            None if id.epoch > state.orphan_floor && !self.gone.contains(&id) => {
                Err(format!("I6: {key} is deleted, and no record allows it"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn may_bound(&self, shelf: &Shelf, slot: Slot, body: &Body) -> Verdict<()> {
        let (_, name) = parse_boundary(body).map_err(|why| format!("I6: boundary {slot}: {why}"))?;
        if name.slot != slot || !self.checkpoints.contains(&name) {
            return Err(format!("I6: boundary {slot} names a checkpoint that was never committed"));
        }
        let key = keys::checkpoint(name.slot, &name.nonce);
        if slot > shelf.boundary() && !shelf.holds(&key) {
            return Err(format!("I6: boundary {slot} names {key}, which is not in the store"));
        }
        Ok(())
    }

    /// A node issues a create of a slot.
    ///
    /// # Errors
    /// I3 or I7 is broken.
    pub fn issues(&self, shelf: &Shelf, issued: &mut Issued, slot: Slot, body: &Body) -> Verdict<()> {
        let before = issued.slot.replace(slot);
        if before.is_some_and(|before| before != slot && !shelf.first.contains_key(&before)) {
            return Err(format!("I3: slot {slot} is tried while another is open"));
        }
        let epoch = body.get(32..40).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        if shelf.max_epoch() > Epoch(epoch)
            && let Some(digest) = body.last_chunk::<32>()
            && issued
                .after_fence
                .replace((epoch, *digest))
                .is_some_and(|(was, of)| was == epoch && of != *digest)
        {
            return Err(format!("I7: epoch {epoch} issues a second create after it was fenced"));
        }
        Ok(())
    }

    /// A node's life is over.
    pub fn died(&mut self, node: usize) {
        self.stops.died(node);
    }

    /// A node claims something. `view` is what it believes of the log; `excused`: bytes that it read were changed on the way.
    ///
    /// # Errors
    /// It is not so.
    pub fn fact(
        &mut self,
        shelf: &Shelf,
        node: usize,
        view: &View,
        fact: Fact,
        excused: bool,
    ) -> Verdict<()> {
        match fact {
            Fact::Ready { slot, digest, .. } => {
                self.report(shelf, slot, digest, 0)?;
                if self.model.head == slot && view.head == slot && self.model != *view {
                    return Err(format!("I11: at slot {slot} checkpoint and log differ from the whole log"));
                }
            }
            Fact::Committed { slot, digest, marker } => {
                self.report(shelf, slot, digest, marker)?;
                if marker != 0 && !self.markers.contains(&marker) {
                    return Err(format!("P2: batch {marker:x} was reported, and is not in the log"));
                }
            }
            Fact::Released { slot, digest } => self.report(shelf, slot, digest, 0)?,
            Fact::Lost { fault, marker } => {
                if let LogFault::Fenced { epoch, .. } = fault
                    && shelf.max_epoch() <= epoch
                {
                    return Err(format!("I7: epoch {epoch} was given up as fenced, and no later one exists"));
                }
                if let LogFault::Fenced { unresolved: None, .. } | LogFault::Expired { unresolved: None, .. } =
                    fault
                    && let Some(marker) = marker
                {
                    self.denied.insert(marker);
                    if self.markers.contains(&marker) {
                        return Err(format!("I7: batch {marker:x} was denied, and is in the log"));
                    }
                }
                Oracle::expected(&fault, excused)?;
            }
            Fact::Accepted { report } => self.accepted(&report)?,
            Fact::Asked { client, policy } => self.stops.asked(node, client, &policy),
            Fact::Closed { client } => self.stops.closed(node, client),
            Fact::Answered { client, stopped, begun, changed } => {
                self.stops.answered(node, client);
                if let Some((policy, backup)) = stopped {
                    self.stops.told(&policy, backup)?;
                }
                if let Some((policy, backup)) = begun
                    && self.begun.get(&backup) != Some(&guards::index_of(&policy))
                {
                    return Err(format!("P2: backup {backup} of {policy} is said to run, and never began"));
                }
                if changed.is_some_and(|body| !self.bodies.contains(&body)) {
                    return Err("P2: a policy is said to be changed, and no slot does".into());
                }
            }
            // Judged by the world, which knows the time.
            Fact::Assigned { .. } | Fact::Skewed | Fact::Crowded(_) => {}
            // What was lost is found elsewhere, and named.
            Fact::Warned { fault: LogFault::Mended { place: Place::Slot(slot) } }
                if shelf.lost.contains(&slot) => {}
            Fact::Warned { fault } => Oracle::expected(&fault, excused)?,
            Fact::Counted { object } => {
                if !self.ever.contains(&object) {
                    return Err(format!("P2: object {object} counts, and no slot commits it"));
                }
            }
        }
        Ok(())
    }

    /// C1: whoever is told that a report counts may rely on all of it: its later rows may refer to these objects.
    fn accepted(&self, report: &Commit) -> Verdict<()> {
        let backup = report.backup;
        if report.progress.iter().any(|stretch| !self.pieces.covers(backup, stretch)) {
            return Err(format!("C1: a report of backup {backup} is accepted, and no slot has its stretch"));
        }
        self.ledger.accepted(report)
    }

    fn expected(fault: &LogFault, excused: bool) -> Verdict<()> {
        if fault.is_transient() || excused { Ok(()) } else { Err(format!("unexpected: {fault}")) }
    }

    fn report(&mut self, shelf: &Shelf, slot: Slot, digest: LogDigest, marker: u64) -> Verdict<()> {
        if shelf.first.get(&slot).is_none_or(|first| first.digest != digest) {
            return Err(format!("I7: success is reported at slot {slot}, where the log says something else"));
        }
        if self.reported.insert(slot, marker).is_some() {
            return Err(format!("I7: slot {slot} was reported twice"));
        }
        Ok(())
    }

    /// The run is over: reads the log as a new node would.
    ///
    /// # Errors
    /// It does not say what was reported, or not what the whole log says.
    pub fn finish(&self, shelf: &mut Shelf) -> Verdict<()> {
        let mut replay = Replay::from_start(CLUSTER, PlainForTests, ReplayOptions::default(), 1);
        while let Some((id, call)) = replay.next_call() {
            let answer = shelf.apply(&call)?;
            replay.handle(0, id, answer);
        }
        match replay.result() {
            Some(Ok(view)) if *view == self.model => {}
            Some(Ok(_)) => return Err("I11: checkpoint and log differ from the whole log".into()),
            Some(Err(fault)) => return Err(format!("P2: the log cannot be read: {fault}")),
            None => return Err("P2: the log cannot be read: the replay waits for nothing".into()),
        }
        if let Some((last, _)) = self.reported.last_key_value()
            && *last > self.model.head
        {
            return Err(format!("P2: slot {last} was reported, and the log ends before"));
        }
        let lost = self.ever.iter().find(|id| {
            let live = self.model.state.live.contains(id);
            live && !shelf.holds(&id.object_key()) && !shelf.holds(&id.segment_key())
        });
        lost.map_or(Ok(()), |id| Err(format!("I4: the tables name {id}, which is not in the store")))?;
        self.ledger.finish(shelf, &self.model.state)
    }
}
