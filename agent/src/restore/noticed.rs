//! From what was found lost to what is new to the log: names that it does not know of, and the points that need them.
//!
//! ```text
//!  check, restore, backup, presence sweep --> Found --> less what the log knows --> points that need the rest --> DamageNews
//! ```
//!
//! A backup that compares with the state behind these news stores again what is lost: names that are recorded are not referred to any more.
//!
//! Does not: look for damage, read tables (`points_on` does), or write. Source: ours; `log::damage`, `log::presence`.

use std::collections::BTreeSet;

use crate::format::record::{DamageNews, Swept};
use crate::id::{BackupId, ObjectId};
use crate::log::names::NameSet;
use crate::log::presence::Presence;
use crate::log::state::State;
use crate::table::lost::LostRows;

/// The points that need an object or segment that a predicate names.
pub type PointsOn<'a, E> = dyn FnMut(&dyn Fn(&ObjectId) -> bool) -> Result<BTreeSet<BackupId>, E> + 'a;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Objects and segments that are not there.
    pub missing: NameSet,
    /// Objects and segments whose bytes are not what was written.
    pub damaged: NameSet,
    /// A point that needs them, or that needs none of what is lost.
    pub point: Option<BackupId>,
    /// A point that was made knowing of all this, and needs nothing of it.
    pub made: Option<BackupId>,
}

impl Found {
    /// Segments of which rows could not be read.
    pub fn of_segments(lost: &[LostRows]) -> Found {
        let mut found = Found::default();
        for rows in lost {
            let set = if rows.what.is_none() { &mut found.missing } else { &mut found.damaged };
            set.insert(&rows.segment);
        }
        found
    }

    /// Whether nothing is lost.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }
}

/// What of it the log does not say yet.
///
/// # Errors
/// What `points_on` says.
pub fn news<E>(state: &State, found: Found, points_on: &mut PointsOn<'_, E>) -> Result<DamageNews, E> {
    let known = &state.damage;
    let is_sound = found.is_sound();
    let mut news = DamageNews { missing: found.missing, damaged: found.damaged, ..DamageNews::default() };
    news.missing.subtract(&known.missing);
    news.damaged.subtract(&known.damaged);
    let (missing, damaged) = (&news.missing, &news.damaged);
    let mut points = BTreeSet::new();
    if !(missing.is_empty() && damaged.is_empty()) {
        points = points_on(&|id| missing.contains(id) || damaged.contains(id))?;
    }
    if let Some(made) = found.made {
        points.remove(&made);
    }
    match found.point {
        Some(point) if is_sound => news.points_sound.extend(known.points.get(&point)),
        Some(point) => drop(points.insert(point)),
        None => {}
    }
    news.points = points.difference(&known.points).copied().collect();
    Ok(news)
}

/// What a sweep has to say, with the points that need what is missing or need nothing lost any more; and how far it came. `wall_ns`: when
/// it was made.
///
/// # Errors
/// What `points_on` says.
pub fn of_sweep<E>(
    state: &State,
    found: Presence,
    wall_ns: i64,
    points_on: &mut PointsOn<'_, E>,
) -> Result<(DamageNews, Swept), E> {
    let known = &state.damage;
    let mut sound = Vec::new();
    if !found.present.is_empty() {
        let mut lost = known.missing.clone();
        lost.subtract(&found.present);
        lost.add(&known.damaged);
        sound = state.sound_but(&points_on(&|id| lost.contains(id))?);
    }
    let mut news = news(state, Found { missing: found.missing, ..Found::default() }, points_on)?;
    news.present = found.present;
    news.points_sound = sound;
    Ok((news, Swept { wall_ns, after: found.after }))
}
