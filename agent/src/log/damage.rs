//! Damage: what the store has lost of the tables' names, and the points that stand on it.
//!
//! ```text
//!  check, restore, presence sweep --> record "damage" --> names that are missing or damaged, points that need them
//!  a backup                       <-- a block in such an object counts as not stored: it is read and stored again
//!  a list of points               <-- a point that needs such an object is shown as damaged
//! ```
//!
//! Invariants
//! - Every name is live, and every point exists or is being made: what leaves the tables leaves here too.
//! - A backup that was under way when something bad was found is among the points: it began without knowing.
//! - A name is missing (the store does not list it) or damaged (its bytes are not what was written), or both. Only what is missing can be
//!   there again; damaged bytes stay damaged, and their object leaves with the last point that needs it.
//! - Bound: [`DAMAGED_RUNS_MAX`] runs of consecutive names in each set. Past it the smallest gap between two runs of one writer is closed, so
//!   that sound objects in between are stored once more: distrust costs bytes, trust would cost a point.
//!
//! Does not: look for damage, or know which rows refer to what (`restore::affected`). Source: ours.

use std::collections::BTreeSet;

use super::limits::{DAMAGED_RUNS_MAX, POINTS_MAX, RUNNING_MAX, SWEEP_KEY_BYTES_MAX};
use super::names::NameSet;
use crate::format::cursor::{Reader, Wire, WireFault, emit_bytes, emit_list};
use crate::format::record::{DamageNews, Swept};
use crate::id::{BackupId, ObjectId};

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Damage {
    /// Objects and segments that the store does not have any more.
    pub missing: NameSet,
    /// Objects and segments whose bytes are not what was written.
    pub damaged: NameSet,
    /// Points, and backups that will be points, that need one of them.
    pub points: BTreeSet<BackupId>,
    /// When all live names were last compared with what the store lists, wall clock in nanoseconds; 0: never.
    pub swept_ns: i64,
    /// Key behind which a sweep that was interrupted goes on; empty: none was.
    pub sweep_after: String,
}

impl Damage {
    /// Whether nothing new may refer to this object.
    pub fn distrusts(&self, id: &ObjectId) -> bool {
        self.missing.contains(id) || self.damaged.contains(id)
    }

    /// Whether any object or segment is known to be bad.
    pub fn is_any(&self) -> bool {
        !self.missing.is_empty() || !self.damaged.is_empty()
    }

    /// Takes in what was found. Names that are not `live` any more and points that are neither there nor running (`exists`) are passed over: they
    /// went during the check. Returns whether anything bad is left of it.
    pub(super) fn add(
        &mut self,
        news: &DamageNews,
        live: &NameSet,
        exists: &dyn Fn(&BackupId) -> bool,
    ) -> bool {
        let mut is_bad = false;
        self.missing.subtract(&news.present);
        for (found, set) in [(&news.missing, &mut self.missing), (&news.damaged, &mut self.damaged)] {
            let found = found.and(live);
            is_bad |= !found.is_empty();
            set.add(&found);
            set.shrink(DAMAGED_RUNS_MAX);
        }
        self.points.retain(|point| !news.points_sound.contains(point));
        for point in news.points.iter().filter(|point| exists(point)) {
            is_bad = true;
            self.points.insert(*point);
        }
        is_bad
    }

    /// A sweep went on, or ended.
    pub(super) fn swept(&mut self, swept: &Swept) {
        self.sweep_after.clone_from(&swept.after);
        if swept.after.is_empty() {
            self.swept_ns = swept.wall_ns;
        }
    }

    /// A name left the tables.
    pub(super) fn forget(&mut self, id: &ObjectId) {
        self.missing.remove(id);
        self.damaged.remove(id);
    }
}

impl Wire for Damage {
    const BYTES_MIN: usize = 24;

    fn emit(&self, out: &mut Vec<u8>) {
        self.missing.emit(out);
        self.damaged.emit(out);
        emit_list(out, &self.points.iter().copied().collect::<Vec<_>>());
        self.swept_ns.emit(out);
        emit_bytes(out, self.sweep_after.as_bytes());
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, WireFault> {
        let (missing, damaged): (NameSet, NameSet) = (reader.value()?, reader.value()?);
        if missing.runs().max(damaged.runs()) > DAMAGED_RUNS_MAX {
            return Err(WireFault::Value);
        }
        let points: Vec<BackupId> = reader.list(POINTS_MAX + RUNNING_MAX)?;
        if points.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(WireFault::Value);
        }
        Ok(Damage {
            missing,
            damaged,
            points: points.into_iter().collect(),
            swept_ns: reader.value()?,
            sweep_after: reader.text(SWEEP_KEY_BYTES_MAX)?,
        })
    }
}
