//! What the store loses of the objects of data, and somebody who finds it: as `windlass check` does, with the product's own survey of the
//! tables.
//!
//! | what | then |
//! |---|---|
//! | an object is gone, and nothing says so | points that need it cannot be read, also new ones: nobody knows |
//! | a check finds it | a record names it, and the points that need it |
//! | a backup begins after that | it stores again what it needs: its point is whole |
//!
//! In seeds with data and `losses` only. Source: ours; `log::damage`.

use std::collections::BTreeSet;
use std::rc::Rc;

use windlass_agent::format::record::BackupVolume;
use windlass_agent::id::{BackupId, ObjectId};
use windlass_agent::log::names::NameSet;
use windlass_agent::log::state::State;
use windlass_agent::restore::affected;
use windlass_agent::restore::noticed::{self, Found};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::source::TableLimits;
use windlass_agent::work::Command;

use super::super::Verdict;
use super::data::{Acknowledged, keys};
use super::plan::{Ground, Shared};
use super::{Client, Member};

/// What is gone, and still named as there.
pub fn unreported(ground: &Ground, state: &State) -> BTreeSet<ObjectId> {
    let is_open = |id: &&ObjectId| state.live.contains(id) && !state.damage.missing.contains(id);
    ground.lost.iter().filter(is_open).copied().collect()
}

/// The points that need an object that `is_lost` names.
fn points_on(
    shared: &Shared,
    state: &State,
    is_lost: &dyn Fn(&ObjectId) -> bool,
) -> Result<BTreeSet<BackupId>, String> {
    let mut found = BTreeSet::new();
    for (&volume, segments) in &state.segments {
        let has = |volumes: &[BackupVolume]| volumes.iter().any(|of| of.volume == volume);
        let cuts: Vec<BackupId> =
            state.points.values().filter(|point| has(&point.volumes)).map(|point| point.backup).collect();
        let fetch = Acknowledged(Rc::clone(shared));
        let reader = TableReader::new(fetch, &keys(), TableLimits::default(), segments);
        let reader = reader.ok_or_else(|| "no memory".to_owned())?;
        let points = affected::points(reader, volume, segments, &cuts, is_lost, &|| false);
        found.extend(points.map_err(|fault| fault.to_string())?);
    }
    Ok(found)
}

impl Member {
    /// The store loses an object, or somebody finds what it has lost.
    pub(super) fn lose_or_check(&mut self) -> Verdict<()> {
        let Some(view) = self.node.held_view() else { return Ok(()) };
        let state = view.state.clone();
        let shared = Rc::clone(&self.host.shared);
        let open = unreported(&shared.borrow(), &state);
        if open.is_empty() {
            let names: Vec<ObjectId> = state.live.names().collect();
            let mut ground = shared.borrow_mut();
            let there: Vec<ObjectId> =
                names.into_iter().filter(|id| ground.bodies.contains_key(&id.object_key())).collect();
            if !there.is_empty() {
                let id = there[self.host.prng.below(there.len() as u64) as usize];
                ground.bodies.remove(&id.object_key());
                ground.lost.insert(id);
            }
            return Ok(());
        }
        let mut missing = NameSet::default();
        for id in &open {
            missing.insert(id);
        }
        let found = Found { missing, ..Found::default() };
        let news = noticed::news(&state, found, &mut |is_lost| points_on(&shared, &state, is_lost));
        match news {
            Ok(news) => self.ask(Client::Other, Command::Submit(news.into_records())),
            // A segment was merged away and deleted meanwhile: somebody looks again.
            Err(_) => Ok(()),
        }
    }
}
