//! Bounds of the log's state that a cluster comes near to only when merges cannot keep up, and what is done long before one is reached.
//!
//! | state | what follows |
//! |---|---|
//! | [`Room::segments`] live segments | no stretch is handed out, those that are out are taken back; nodes without work merge |
//! | half as many again, or there is nothing to merge | backups go on where they were |
//! | [`Room::retired_old`] retired names of epochs that are over, and all nodes work under this one | the orphan floor is raised: such names need no entry any more (G2) |
//! | [`Room::retired_own`] retired names that only a floor of the next epoch takes | the lease goes from this node to itself, so that the epoch is over; not where deletions take them |
//! | points as many as there may be | a backup is refused before it begins |
//!
//! Does not: enforce bounds, which the log does (`Refusal::Full`).
//! Source: ours; `agent/doc/commit-log.md`, G2.

use super::merges::{self, RETIRED_BY_MERGES_MAX, RETIRED_FLOOR_MIN};
use super::{Coordinator, Now, Pending};
use crate::format::record::Record;
use crate::log::limits::{ABANDONED_MAX, Bound, NAME_RUNS_MAX, POINTS_MAX, SEGMENTS_MAX, UNFINISHED_MAX};
use crate::log::state::State;

/// How near to the log's bounds a coordinator lets its state come. `Default` is what the bounds ask for; tests shrink it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Commits that wait for their turn: two for each assignment of a large cluster. A report that comes when it is full is not taken, and
    /// comes again with one of the worker's next beats.
    pub queue: usize,
    /// Live segments from which on nothing but merges adds to them: half of what there may be, as reports on their way still come. Backups
    /// go on with half as many.
    pub segments: usize,
    /// Retired names of epochs that are over, from which on a floor is raised.
    pub retired_old: usize,
    /// Retired names that no floor of this epoch takes away, from which on it is worth a new one: half of those at which merges stop.
    pub retired_own: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            queue: 1024,
            segments: SEGMENTS_MAX / 2,
            retired_old: RETIRED_FLOOR_MIN,
            retired_own: RETIRED_BY_MERGES_MAX / 2,
        }
    }
}

const _: () = assert!(RETIRED_FLOOR_MIN < RETIRED_BY_MERGES_MAX / 2);

fn segments(state: &State) -> usize {
    state.segments.values().map(|list| list.len()).sum()
}

/// Why no backup may begin now: what is full, or will be before it ends.
pub fn refusal(state: &State) -> Option<Bound> {
    let full = [
        (state.points.len() >= POINTS_MAX, Bound::Points),
        (state.abandoned.len() + UNFINISHED_MAX > ABANDONED_MAX, Bound::Abandoned),
        // A backup of many restarts may add some.
        (state.live.runs() >= NAME_RUNS_MAX - NAME_RUNS_MAX / 16, Bound::NameRuns),
    ];
    full.into_iter().find_map(|(is_full, bound)| is_full.then_some(bound))
}

impl Coordinator {
    /// Whether backups wait for merges.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn turn_bounds(&mut self, now: Now<'_>) {
        let count = segments(now.state);
        if !self.paused && count >= self.pause_from {
            self.paused = true;
            let what = format!(
                "the tables have {count} segments, of at most {SEGMENTS_MAX}: backups wait until nodes have merged them"
            );
            self.errors.add(now.wall_ns, None, what);
            self.revoke_proven();
        } else if self.paused && count < self.pause_from / 2 {
            (self.paused, self.pause_from) = (false, self.settings.room.segments);
        }
        if now.ns >= self.floor_look_ns {
            self.floor_look_ns = now.ns.saturating_add(self.settings.beat_ns);
            self.raise_floor(now);
        }
    }

    /// After merges were given out: when there is nothing to merge, waiting longer does not help.
    pub(super) fn end_pause(&mut self, now: Now<'_>) {
        let merges_end = self.pending().any(|p| matches!(p, Pending::Merge(..)));
        if !self.paused || merges_end || !self.at_work().is_empty() || self.roster.workers().next().is_none()
        {
            return;
        }
        let bounds = self.settings.merges;
        if now.state.segments.keys().any(|&volume| self.merges.plan(now.state, volume, bounds).is_some()) {
            // A node has not said yet that it is done with the one before.
            return;
        }
        let count = segments(now.state);
        self.paused = false;
        self.pause_from = self.settings.room.segments.max(count + SEGMENTS_MAX.saturating_sub(count) / 2);
        self.wake_at(now.ns);
    }

    /// Takes back what may be gone on with later: of a volume that nothing proves to be as it was, a stretch goes on.
    fn revoke_proven(&mut self) {
        let proven = self.assigned.values().filter(|a| a.assignment.volume.state.is_some());
        let out: Vec<_> = proven.filter(|a| !a.reported).map(|a| (a.node, a.assignment.id)).collect();
        for (node, id) in out {
            self.revoke(node, id);
        }
    }

    /// Makes room for further retired names: see the table above.
    fn raise_floor(&mut self, now: Now<'_>) {
        let state = now.state;
        if state.retired.len() < self.settings.room.retired_old
            || self.pending().any(|p| matches!(p, Pending::Own(Record::OrphanFloor { .. })))
        {
            return;
        }
        let nothing_older = self.has_nothing_older(now);
        if let Some(record) = merges::floor(state, self.settings.room.retired_old, nothing_older) {
            self.queue.push_back(Pending::Own(record));
        } else if state.retired.len() >= self.settings.room.retired_own
            && state.orphan_floor.0.saturating_add(1) >= self.epoch.0
            && state.pins.is_empty()
            && !state.keeps_retired()
        {
            // No floor of this epoch takes them: not those named in it, nor those below the floor that were retired since.
            log::info!("log: the epoch is renewed retired={}", state.retired.len());
            self.release(Some(self.settings.me));
        } else {
            self.warn_of_retired(now);
        }
    }

    /// Whether no node can report a name of an epoch before this one any more.
    pub(super) fn has_nothing_older(&self, now: Now<'_>) -> bool {
        self.roster.is_complete()
            && now.ns >= self.adopt_until_ns
            && self.assigned.keys().all(|id| id.epoch == self.epoch)
            && self.pending().all(|pending| self.is_of_epoch(pending))
    }

    fn is_of_epoch(&self, pending: &Pending) -> bool {
        match pending {
            Pending::Report(_, report) => report.assignment.id.epoch == self.epoch,
            Pending::Merge(_, order, _) => order.id.epoch == self.epoch,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::record::{PointStatus, Totals};
    use crate::id::BackupId;
    use crate::log::state::Point;

    #[test]
    fn a_repository_with_all_its_points_refuses_a_backup_before_it_begins() {
        let mut state = State::default();
        let point = |backup| Point {
            backup,
            policy: "p".to_owned(),
            volumes: Vec::new(),
            missing: Vec::new(),
            wall_ns: (0, 0),
            status: PointStatus::Complete,
            totals: Totals::default(),
        };
        let points = (1..=POINTS_MAX as u32).map(|number| (BackupId(number), point(BackupId(number))));
        state.points = Arc::new(points.collect());
        let why = refusal(&state).map(|bound| bound.to_string()).unwrap_or_default();
        assert!(why.contains("16384 recovery points") && why.contains("windlass repo init"), "{why}");
        Arc::make_mut(&mut state.points).pop_first();
        assert_eq!(refusal(&state), None);
    }
}
