//! Points that are guarded: how long each stays at least, and how it leaves.
//!
//! ```text
//!  point --(leave, not before `until`)--> leaving --(leave, not before its time to be brought back is over)--> gone
//!    ^                                       |
//!    `----------------(undo)-----------------'
//! ```
//!
//! A point that is leaving is in the state with all that it needs: merges, checks and garbage know nothing of it. A guard is never
//! weakened: a policy that asks for less counts for points that are made later. A "leave" says the time; the coordinator
//! puts in its own, which it holds against the store's.
//!
//! Invariants: each guarded or leaving backup is a point; a held point does not leave. Does not: read a clock. Source: ours.

use std::collections::BTreeMap;

use super::state::{Refusal, State};
use crate::format::cursor::{Reader, Wire, WireFault};
use crate::format::guard::{Guard, GuardPart, PointGuard};
use crate::id::BackupId;
use crate::log::limits::POINTS_MAX;

/// What the state knows of guarded points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guarded {
    /// Points with a guard.
    pub guards: BTreeMap<BackupId, Guard>,
    /// Points that expired and can be brought back, until when: wall clock in nanoseconds.
    pub leaving: BTreeMap<BackupId, i64>,
}

impl Guarded {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Guarded::default()
    }

    /// Guards a point, at least so; never less than before.
    pub(super) fn add(&mut self, backup: BackupId, guard: Guard) {
        let before = self.guards.entry(backup).or_default();
        *before = before.or_longer(guard);
    }

    /// Forgets all points but these.
    pub(super) fn keep(&mut self, is_point: impl Fn(&BackupId) -> bool) {
        self.guards.retain(|backup, _| is_point(backup));
        self.leaving.retain(|backup, _| is_point(backup));
    }

    /// Forgets a point that is gone.
    pub(super) fn forget(&mut self, backup: &BackupId) {
        self.guards.remove(backup);
        self.leaving.remove(backup);
    }

    /// Appends both maps, ascending.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        u32::try_from(self.guards.len()).unwrap_or(u32::MAX).emit(out);
        for (backup, guard) in &self.guards {
            backup.emit(out);
            guard.emit(out);
        }
        u32::try_from(self.leaving.len()).unwrap_or(u32::MAX).emit(out);
        for (backup, until_ns) in &self.leaving {
            backup.emit(out);
            until_ns.emit(out);
        }
    }

    /// Inverse of [`Guarded::emit`].
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Guarded, WireFault> {
        let guards: Vec<(BackupId, Guard)> = reader.list(POINTS_MAX)?;
        let leaving: Vec<(BackupId, i64)> = reader.list(POINTS_MAX)?;
        let ascends = guards.is_sorted_by(|a, b| a.0 < b.0) && leaving.is_sorted_by(|a, b| a.0 < b.0);
        if !ascends {
            return Err(WireFault::Value);
        }
        Ok(Guarded { guards: guards.into_iter().collect(), leaving: leaving.into_iter().collect() })
    }
}

fn require(holds: bool, why: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(why) }
}

impl State {
    /// Until when a point that expired can be brought back, wall clock in nanoseconds; `None`: it has not expired.
    #[must_use]
    pub fn leaving(&self, backup: BackupId) -> Option<i64> {
        self.guarded.leaving.get(&backup).copied()
    }

    /// What guards a point.
    #[must_use]
    pub fn guard_of(&self, backup: BackupId) -> Option<Guard> {
        self.guarded.guards.get(&backup).copied()
    }

    pub(super) fn guard(&mut self, news: &PointGuard) -> Result<(), Refusal> {
        let backup = news.backup;
        require(self.points.contains_key(&backup), Refusal::NoPoint)?;
        match news.part {
            GuardPart::Guard(guard) => {
                std::sync::Arc::make_mut(&mut self.guarded).add(backup, guard);
            }
            GuardPart::Leave { wall_ns } => {
                require(!self.is_held(backup), Refusal::Held)?;
                let guard = self.guard_of(backup).unwrap_or_default();
                require(wall_ns >= guard.until_ns, Refusal::Young)?;
                match self.leaving(backup) {
                    None if guard.undo_ns > 0 => {
                        let undo_ns = i64::try_from(guard.undo_ns).unwrap_or(i64::MAX);
                        let until_ns = wall_ns.saturating_add(undo_ns);
                        std::sync::Arc::make_mut(&mut self.guarded).leaving.insert(backup, until_ns);
                    }
                    until_ns => {
                        require(until_ns.is_none_or(|until_ns| wall_ns >= until_ns), Refusal::Leaving)?;
                        self.remove_point(backup);
                    }
                }
            }
            GuardPart::Undo => {
                require(self.leaving(backup).is_some(), Refusal::NotLeaving)?;
                std::sync::Arc::make_mut(&mut self.guarded).leaving.remove(&backup);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::mark::Mark;
    use crate::log::state::Point;

    const POINT: BackupId = BackupId(7);

    fn state(guard: Option<Guard>) -> State {
        let mut state = State::default();
        let point = Point {
            backup: POINT,
            policy: "p".to_owned(),
            volumes: Vec::new(),
            missing: Vec::new(),
            wall_ns: (0, 0),
            status: crate::format::record::PointStatus::Complete,
            totals: crate::format::record::Totals::default(),
        };
        Arc::make_mut(&mut state.points).insert(POINT, point);
        guard.into_iter().for_each(|guard| tell(&mut state, GuardPart::Guard(guard)).unwrap());
        state
    }

    fn tell(state: &mut State, part: GuardPart) -> Result<(), Refusal> {
        state.guard(&PointGuard { backup: POINT, part })
    }

    fn leave(state: &mut State, wall_ns: i64) -> Result<(), Refusal> {
        tell(state, GuardPart::Leave { wall_ns })
    }

    #[test]
    fn a_point_leaves_after_its_age_and_is_gone_after_its_window() {
        let mut state = state(Some(Guard { until_ns: 100, undo_ns: 10 }));
        assert_eq!(leave(&mut state, 99), Err(Refusal::Young));
        assert_eq!(leave(&mut state, 100), Ok(()));
        assert_eq!(state.leaving(POINT), Some(110));
        assert!(state.points.contains_key(&POINT), "all that it needs is there");
        assert_eq!(leave(&mut state, 109), Err(Refusal::Leaving));
        assert_eq!(tell(&mut state, GuardPart::Undo), Ok(()));
        assert_eq!(tell(&mut state, GuardPart::Undo), Err(Refusal::NotLeaving));
        assert_eq!(leave(&mut state, 200), Ok(()), "the window begins anew");
        assert_eq!(leave(&mut state, 209), Err(Refusal::Leaving));
        assert_eq!(leave(&mut state, 210), Ok(()));
        assert!(!state.points.contains_key(&POINT) && state.guarded.is_empty());
        assert_eq!(leave(&mut state, 210), Err(Refusal::NoPoint));
    }

    #[test]
    fn a_guard_is_never_weakened_and_without_a_window_a_point_is_gone_at_once() {
        let mut state = state(Some(Guard { until_ns: 100, undo_ns: 0 }));
        tell(&mut state, GuardPart::Guard(Guard { until_ns: 50, undo_ns: 0 })).unwrap();
        assert_eq!(leave(&mut state, 99), Err(Refusal::Young));
        assert_eq!(leave(&mut state, 100), Ok(()));
        assert!(state.points.is_empty());
    }

    #[test]
    fn a_held_point_does_not_leave() {
        let mut state = state(None);
        state.marks.insert(POINT, Mark { hold: "why".to_owned(), ..Mark::default() });
        assert_eq!(leave(&mut state, i64::MAX), Err(Refusal::Held));
    }

    #[test]
    fn both_maps_come_back_as_they_were_and_have_points_only() {
        let mut state = state(Some(Guard { until_ns: 1, undo_ns: 2 }));
        leave(&mut state, 3).unwrap();
        let guarded = Arc::make_mut(&mut state.guarded);
        guarded.add(BackupId(8), Guard { until_ns: 1, undo_ns: 0 });
        guarded.keep(|&backup| backup == POINT);
        assert!(guarded.guards.len() == 1 && guarded.leaving.len() == 1);
        let mut bytes = Vec::new();
        state.guarded.emit(&mut bytes);
        assert_eq!(Guarded::parse(&mut Reader::new(&bytes)).as_ref(), Ok(&*state.guarded));
    }
}
