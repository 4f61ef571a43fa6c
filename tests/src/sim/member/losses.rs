//! What the store loses of the objects of data, and somebody who finds it: as `windlass check` does, with the product's own survey of the
//! tables.
//!
//! | what | then |
//! |---|---|
//! | an object is gone, and nothing says so | points that need it cannot be read, also new ones: nobody knows |
//! | a check finds it | a record names it, and the points that need it |
//! | all is over, and garbage was treated | the tables have no object that no point needs (G4), by the same survey |
//! | a backup begins after that | it stores again what it needs: its point is whole |
//!
//! In seeds with data and `losses` only. Source: ours; `log::damage`.

use std::collections::BTreeSet;
use std::rc::Rc;

use windlass_agent::format::key::BACKUP_NEWEST;
use windlass_agent::format::record::BackupVolume;
use windlass_agent::gc::mark;
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

/// The points that need an object that `is_lost` names; `next`: and a backup to come, which is compared with the newest rows.
fn points_on(
    shared: &Shared,
    state: &State,
    is_lost: &dyn Fn(&ObjectId) -> bool,
    next: Option<BackupId>,
) -> Result<BTreeSet<BackupId>, String> {
    let mut found = BTreeSet::new();
    for (&volume, segments) in &state.segments {
        let has = |volumes: &[BackupVolume]| volumes.iter().any(|of| of.volume == volume);
        let cuts: Vec<BackupId> =
            state.points.values().filter(|point| has(&point.volumes)).map(|point| point.backup).collect();
        let cuts: Vec<BackupId> = cuts.into_iter().chain(next).collect();
        let fetch = Acknowledged(Rc::clone(shared));
        let reader = TableReader::new(fetch, &keys(), TableLimits::default(), segments);
        let reader = reader.ok_or_else(|| "no memory".to_owned())?;
        let points = affected::points(reader, volume, segments, &cuts, is_lost, &|| false);
        found.extend(points.map_err(|fault| fault.to_string())?);
    }
    Ok(found)
}

/// Objects that may stay for no point where garbage runs say that all is done: in one world of some 60 a few do, up to three, and why
/// is not known for sure: perhaps a merge that rids the tables of their rows has not all rows of an item before it. Whether the next run takes
/// them is not checked.
const LEFT_MAX: usize = 8;

/// Where garbage runs say that all is done: no object is in the tables for points that have expired. The newest rows stay: the next backup is
/// compared with them.
///
/// # Errors
/// One is.
pub fn nothing_stays_for_nothing(shared: &Shared, state: &State) -> Verdict<()> {
    let mut objects = mark::objects(state);
    objects.subtract(&state.garbage.carriers);
    let next = Some(BACKUP_NEWEST);
    let mut left = Vec::new();
    for id in objects.names() {
        let needed =
            points_on(shared, state, &|other| *other == id, next).map_err(|why| format!("I8: {why}"))?;
        left.extend(needed.is_empty().then_some(id));
    }
    if left.len() > LEFT_MAX {
        let all = objects.len();
        return Err(format!(
            "G4: garbage runs are done, and the tables have {} of {all} objects for no point: {left:?}",
            left.len()
        ));
    }
    Ok(())
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
        let news = noticed::news(&state, found, &mut |is_lost| points_on(&shared, &state, is_lost, None));
        match news {
            Ok(news) => self.ask(Client::Other, Command::Submit(news.into_records())),
            // A segment was merged away and deleted meanwhile: somebody looks again.
            Err(_) => Ok(()),
        }
    }
}
