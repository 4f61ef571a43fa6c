//! Requests to the store: what becomes of each is decided as it sets out.
//!
//! | fate | applied | answered |
//! |---|---|---|
//! | `Good`, `Slow` | yes | yes, unless that takes longer than the sender waits |
//! | `Harmed` | | with other bytes than the store's |
//! | `Lost` | no | `Unknown`, at the timeout |
//! | `Unanswered` | yes | `Unknown`, at the timeout |
//! | `Late` | long after the timeout | `Unknown`, at the timeout |
//! | `Twice` | yes, and once more later | the second time |
//! | `Refused` | no | at once: 503 or 409 |
//! | `RefusedApplied` | yes | at once: 503 |
//!
//! Source: ours; `tests/README.md`, The simulator.

use windlass_agent::format::record::Record;
use windlass_agent::format::slot::{PlainForTests, SlotContents, SlotHeader};
use windlass_agent::id::{NodeId, Slot};
use windlass_agent::log::call::{Answer, Call, Lane};
use windlass_agent::log::keys;
use windlass_agent::store::StoreFaultKind;

use super::super::options::SECOND;
use super::super::store::{OBJECTS, SEGMENTS};
use super::super::{Input, Tenant, Verdict};
use super::text::{answer_text, call_text};
use super::{Event, Harm, Reply, World};

/// Parts per thousand.
const PERMILLE: u64 = 1000;

/// Creates of one key by one node within a second at most: pauses between repeats double from 0.1 s, by a clock at twice its speed perhaps,
/// and a frozen node sends at once what it had decided on.
const CREATES_PER_SECOND_MAX: u32 = 12;

/// What becomes of a request.
#[derive(Clone, Copy)]
enum Fate {
    Good,
    Harmed(Harm),
    Slow,
    Lost,
    Unanswered,
    Late,
    Twice,
    Refused(StoreFaultKind),
    RefusedApplied,
}

impl<T: Tenant> World<T> {
    /// A request sets out: decides its whole fate.
    pub(super) fn request(&mut self, node: usize, id: u64, call: Call) -> Verdict<()> {
        if let Call::Create { key, body } = &call
            && let Some(slot) = keys::number(key, keys::SLOTS)
        {
            self.oracle.issues(&self.shelf, &mut self.seats[node].issued, slot, body)?;
        }
        if let Call::Create { key, .. } = &call {
            self.count_creates(node, key)?;
        }
        if let Call::Create { key, .. } | Call::Put { key, .. } = &call
            && (key.starts_with(keys::BEATS) || key.starts_with(keys::EPOCHS))
        {
            self.seats[node].beat_ns = self.seats[node].clock.local_ns(self.now);
        }
        let life = self.seats[node].life;
        let give_up_ns = self.now + self.options.timeout_ns;
        // What the lease depends on has deadlines of its own.
        let hangs = self.options.weather.hang_ns > 0 && call.lane() != Lane::Lease;
        let silence_ns = if hangs { self.now + self.options.weather.hang_ns } else { give_up_ns };
        let there = 1 + self.prng.below(self.options.store_latency_ns);
        let back = 1 + self.prng.below(self.options.store_latency_ns);
        let fate = if self.calm { Fate::Good } else { self.fate(node, &call) };
        self.tally.faults += u64::from(!matches!(fate, Fate::Good));
        let reply = Some(Reply { after_ns: back, give_up_ns, harm: Harm::None });
        let mut answered = None;
        let land = |reply| Event::Land { node, life, id, call: call.clone(), reply };
        match fate {
            Fate::Good => self.push(self.now + there, land(reply)),
            Fate::Harmed(harm) => {
                self.push(self.now + there, land(Some(Reply { after_ns: back, give_up_ns, harm })));
            }
            Fate::Slow => {
                let slow = there + self.prng.below(self.options.timeout_ns);
                self.push(self.now + slow, land(reply));
            }
            Fate::Lost => answered = Some((silence_ns, StoreFaultKind::Unknown)),
            Fate::Unanswered => {
                self.push(self.now + there, land(None));
                answered = Some((silence_ns, StoreFaultKind::Unknown));
            }
            Fate::Late => {
                let late = self.options.timeout_ns + self.prng.below(6 * self.options.writer.timing.lease_ns);
                let at = (self.now + late).min(self.options.storm_ns).max(self.now + there);
                self.push(at, land(None));
                answered = Some((give_up_ns, StoreFaultKind::Unknown));
            }
            Fate::Twice => {
                self.push(self.now + there, land(None));
                let again = there + 1 + self.prng.below(self.options.timeout_ns);
                self.push((self.now + again).min(self.options.storm_ns), land(reply));
            }
            Fate::Refused(kind) => answered = Some((self.now + there + back, kind)),
            Fate::RefusedApplied => {
                self.push(self.now + there, land(None));
                answered = Some((self.now + there + back, StoreFaultKind::Unknown));
            }
        }
        self.tally.hung += u64::from(hangs && answered.is_some_and(|(at, _)| at == silence_ns));
        if let Some((at, kind)) = answered {
            let input = Input::Answer { id, answer: Answer::Fault(kind) };
            self.push(at, Event::Input { node, life, input });
        }
        Ok(())
    }

    /// C3: a store that refuses, for whatever reason, is asked again after a pause.
    fn count_creates(&mut self, node: usize, key: &str) -> Verdict<()> {
        let (last, since_ns, times) = &mut self.seats[node].sent;
        if last != key || self.now.saturating_sub(*since_ns) > SECOND {
            (*last, *since_ns, *times) = (key.to_owned(), self.now, 0);
        }
        *times += 1;
        if *times > CREATES_PER_SECOND_MAX {
            return Err(format!("C3: node {} creates {key} {times} times within a second", node + 1));
        }
        Ok(())
    }

    fn fate(&mut self, node: usize, call: &Call) -> Fate {
        let faults = self.options.store;
        let create = matches!(call, Call::Create { .. });
        let write = create || matches!(call, Call::Put { .. } | Call::Delete { .. });
        if self.seats[node].to_store_cut_until_ns > self.now {
            return if write && self.prng.one_in(4) { Fate::Late } else { Fate::Lost };
        }
        if self.storm_until_ns > self.now && !self.prng.one_in(8) {
            let conflict = create && self.storm_conflicts;
            return Fate::Refused(if conflict { StoreFaultKind::Conflict } else { StoreFaultKind::Unknown });
        }
        let beat = matches!(call, Call::Put { key, .. } if key.starts_with(keys::BEATS));
        if beat && self.prng.below(PERMILLE) < faults.slow_beat {
            return Fate::Slow;
        }
        let mut dice = self.prng.below(PERMILLE);
        let table = [
            (faults.lost_request, true, Fate::Lost),
            (faults.lost_answer, true, Fate::Unanswered),
            (faults.late_write, write, Fate::Late),
            (faults.twice, write, Fate::Twice),
            (faults.conflict, create, Fate::Refused(StoreFaultKind::Conflict)),
            (faults.unavailable, true, Fate::Refused(StoreFaultKind::Unknown)),
            (faults.unavailable_applied, write, Fate::RefusedApplied),
            (faults.slow, true, Fate::Slow),
            (faults.flipped, !write, Fate::Harmed(Harm::Flip)),
            (faults.cut, !write, Fate::Harmed(Harm::Cut)),
        ];
        for (chance, applies, fate) in table {
            if dice < chance {
                return if applies { fate } else { Fate::Good };
            }
            dice -= chance;
        }
        Fate::Good
    }

    pub(super) fn land(
        &mut self,
        node: usize,
        life: u32,
        id: u64,
        call: &Call,
        reply: Option<Reply>,
    ) -> Verdict<()> {
        self.oracle.before(&self.shelf, call)?;
        let there = matches!(call, Call::Delete { key } if self.shelf.holds(key));
        let mut answer = self.shelf.apply(call)?;
        if matches!(call, Call::Create { .. }) && answer == Answer::Done {
            self.oracle.after(self.now, &self.shelf)?;
            let is_lost = self.lose_slot()?;
            self.read_log(is_lost)?;
        }
        self.mix(node, call, &answer);
        if let Call::Delete { key } = call {
            let object = key.starts_with(OBJECTS) || key.starts_with(SEGMENTS);
            self.tally.deleted += u64::from(there && object);
            self.tally.collected += u64::from(there && !object);
        }
        let Some(Reply { after_ns, give_up_ns, harm }) = reply else { return Ok(()) };
        let mut at = self.now + after_ns;
        if at >= give_up_ns || !self.calm && self.seats[node].from_store_cut_until_ns > at {
            at = give_up_ns;
            answer = Answer::Fault(StoreFaultKind::Unknown);
        } else if harm != Harm::None {
            self.harm(node, life, harm, &mut answer);
        }
        self.push(at, Event::Input { node, life, input: Input::Answer { id, answer } });
        Ok(())
    }

    /// A disk that did not write what it said it had written; a lifecycle rule; `rm`. Whether it happened.
    fn lose_slot(&mut self) -> Verdict<bool> {
        let chance = self.options.store.lost_slot;
        if chance == 0 || self.calm || self.prng.below(PERMILLE) >= chance {
            return Ok(false);
        }
        let (choice, cut) = (self.prng.next_u64(), self.prng.below(300) as usize);
        let cut = self.prng.one_in(2).then_some(cut);
        let Some(slot) = self.shelf.lose(choice, cut) else { return Ok(false) };
        self.say(|| format!("store: slot {slot} is lost or cut"));
        if cut.is_none() {
            self.usurp(slot)?;
        }
        Ok(true)
    }

    /// Where a new holder's first slot was lost, what the holder before it had wanted to write there lands, minutes late.
    fn usurp(&mut self, slot: Slot) -> Verdict<()> {
        let before = slot.0.checked_sub(1).and_then(|before| self.shelf.first.get(&Slot(before)));
        let (Some(before), Some(first)) = (before, self.shelf.first.get(&slot)) else { return Ok(()) };
        if before.epoch == first.epoch {
            return Ok(());
        }
        let contents = SlotContents::parse(&before.bytes, &PlainForTests);
        let contents = contents.map_err(|why| format!("slot {slot}: {why}"))?;
        // Who has let go wants nothing more.
        if contents.records.iter().any(|record| matches!(record, Record::Yield { .. })) {
            return Ok(());
        }
        let header = SlotHeader { slot, previous: before.digest, nonce: [1; 16], ..contents.header };
        let records = [Record::Pin { pin: self.now, node: NodeId(0) }];
        let (body, _) =
            header.emit(&records, &PlainForTests).map_err(|why| format!("slot {slot}: {why:?}"))?;
        self.say(|| format!("store: a late create lands in slot {slot}"));
        self.tally.usurped += 1;
        self.shelf.usurped.insert(slot);
        self.shelf.apply(&Call::Create { key: keys::slot(slot), body: body.into() })?;
        Ok(())
    }

    fn harm(&mut self, node: usize, life: u32, harm: Harm, answer: &mut Answer) {
        let Answer::Body(bytes) = answer else { return };
        if bytes.is_empty() {
            return;
        }
        let at = self.prng.below(bytes.len() as u64) as usize;
        if harm == Harm::Cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << self.prng.below(8);
        }
        self.seats[node].excused |= self.seats[node].life == life;
    }

    fn mix(&mut self, node: usize, call: &Call, answer: &Answer) {
        self.trace.add(self.now);
        self.trace.add(node as u64);
        let (verb, name) = match call {
            Call::Get { key } => (1, key.as_str()),
            Call::Create { key, .. } => (2, key.as_str()),
            Call::Put { key, .. } => (3, key.as_str()),
            Call::Last { prefix, .. } => (4, *prefix),
            Call::List { prefix, .. } => (5, *prefix),
            Call::Above { after, .. } => (7, after.as_str()),
            Call::Delete { key } => (6, key.as_str()),
        };
        self.trace.add(verb);
        self.trace.add_bytes(name.as_bytes());
        match answer {
            Answer::Done => self.trace.add(1),
            Answer::Body(bytes) => self.trace.add_bytes(bytes),
            Answer::Absent => self.trace.add(2),
            Answer::Keys(keys) => keys.iter().for_each(|key| self.trace.add_bytes(key.as_bytes())),
            Answer::Fault(kind) => self.trace.add(3 + *kind as u64),
        }
        self.say(|| format!("store: node {} {} -> {}", node + 1, call_text(call), answer_text(answer)));
    }
}
