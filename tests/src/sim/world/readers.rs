//! Somebody who only reads the log, as `windlass ls` does, while bytes are changed on the way: is told all of it, or that it cannot be read.
//!
//! | rule | when it is checked |
//! |---|---|
//! | P2 | a reader has its result: that is the log as it is, to the last slot, or a fault; each answer may have been harmed once |
//!
//! Nodes that hold the lease find out what they do not know when they write; who only reads does not. The whole of it happens at one moment:
//! what changes meanwhile is the business of nodes. Source: ours; `log::replay`.

use std::collections::BTreeSet;

use windlass_agent::format::slot::PlainForTests;
use windlass_agent::log::call::{Answer, Call};
use windlass_agent::log::replay::{Replay, ReplayOptions};
use windlass_hal::sim::prng::Prng;

use super::super::store::CLUSTER;
use super::super::weather::mix;
use super::super::{Tenant, Verdict};
use super::World;

/// After one slot in so many somebody reads.
const READ_SLOTS: u64 = 16;
/// What readers draw is a number of the seed and of the slot: other numbers of a seed are below.
const READERS_SALT: u64 = 1 << 32;
/// One answer in so many is harmed.
const HARMED: u64 = 4;

impl<T: Tenant> World<T> {
    /// A slot was created, lost, or created again where it was lost: now and then somebody reads.
    pub(super) fn read_log(&mut self, always: bool) -> Verdict<()> {
        let dice = mix(self.options.seed, READERS_SALT + self.oracle.model().head.0);
        if !always && !dice.is_multiple_of(READ_SLOTS) {
            return Ok(());
        }
        self.tally.read += 1;
        let mut prng = Prng::new(dice);
        let mut replay = Replay::from_start(CLUSTER, PlainForTests, ReplayOptions::default(), 1);
        let (mut now_ns, mut harmed) = (0, BTreeSet::new());
        while replay.result().is_none() {
            while let Some((id, call)) = replay.next_call() {
                let mut answer = self.shelf.apply(&call)?;
                if let (Call::Get { key }, Answer::Body(bytes)) = (&call, &mut answer)
                    && prng.one_in(HARMED)
                    && !bytes.is_empty()
                    && harmed.insert(key.clone())
                {
                    let at = prng.below(bytes.len() as u64) as usize;
                    match prng.one_in(2) {
                        true => bytes.truncate(at),
                        false => bytes[at] ^= 1 << prng.below(8),
                    }
                }
                replay.handle(now_ns, id, answer);
            }
            match replay.deadline() {
                Some(due_ns) => now_ns = due_ns,
                None => break,
            }
            replay.wake(now_ns);
        }
        let model = self.oracle.model();
        match replay.result() {
            Some(Ok(view))
                if (view.head, view.digest) == (model.head, model.digest) && view.state == model.state =>
            {
                Ok(())
            }
            Some(Ok(view)) => Err(format!(
                "P2: a reader is told the log up to slot {}, and it goes to slot {}",
                view.head, model.head
            )),
            Some(Err(_)) => Ok(()),
            None => Err("P2: a reader waits for nothing".to_owned()),
        }
    }
}
