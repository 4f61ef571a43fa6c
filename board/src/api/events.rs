//! What happened, as the log says it: changes from one state to the next, in a ring from which clients go on where they were.
//!
//! | event | fields |
//! |---|---|
//! | `backup_begun` | policy, job |
//! | `backup_failed` | policy, failures, why |
//! | `point_made` | policy, point, status |
//! | `point_expired`, `point_damaged` | policy, point |
//! | `policy_changed`, `policy_removed` | policy, revision |
//! | `garbage_run` | deleted, deleted_bytes, faults |
//! | `coordinator` | epoch |
//! | `roles_changed` | none |
//! | `missed` | none: some are no more in the ring, or did not fit: read again what you show |
//!
//! Invariants: each change is one event; numbers of events ascend, and begin anew with each start of the agent, which their first part names.
//! Does not: see what is not in the log. Source: ours; WHATWG, server-sent events.

use std::collections::VecDeque;

use serde_json::{Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::log::state::State;

use crate::engine::documents::status_word;

/// Events that are kept: hours of a busy cluster.
const EVENTS_MAX: usize = 256;
/// Events of one look at most; of a state that is far ahead the rest is `missed`.
const AT_ONCE_MAX: usize = 64;
/// Bytes of a text in an event.
const WHY_BYTES_MAX: usize = 512;

/// See the module.
#[derive(Debug)]
pub struct Ring {
    boot: u64,
    next: u64,
    events: VecDeque<(u64, String)>,
}

impl Ring {
    /// An empty one.
    #[must_use]
    pub fn new(boot: u64) -> Ring {
        Ring { boot, next: 1, events: VecDeque::new() }
    }

    /// The number that the next event gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Where a client goes on that has seen the event of this id last, and whether it missed some. Without an id: with the next event.
    #[must_use]
    pub fn after(&self, id: Option<&str>) -> (u64, bool) {
        let Some(id) = id else { return (self.next, false) };
        let number = id.split_once('-').and_then(|(boot, number)| {
            (u64::from_str_radix(boot, 16) == Ok(self.boot)).then(|| number.parse::<u64>().ok())?
        });
        let first = self.next - self.events.len() as u64;
        match number.map(|number| number.saturating_add(1)) {
            Some(next) if next >= first && next <= self.next => (next, false),
            // It is of another start, or too old.
            _ => (first, true),
        }
    }

    /// The text of an event.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&str> {
        let first = self.next - self.events.len() as u64;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.events.get(at).map(|(_, text)| text.as_str())
    }

    /// What a client is told that missed some, and goes on with the event of this number.
    #[must_use]
    pub fn missed(&self, next: u64) -> String {
        format!("event: missed\nid: {:x}-{}\ndata: {{}}\n\n", self.boot, next.saturating_sub(1))
    }

    fn put(&mut self, name: &str, mut data: Value, wall_ns: i64) {
        data["time"] = iso_utc(wall_ns.div_euclid(1_000_000_000)).into();
        let text = format!("id: {:x}-{}\nevent: {name}\ndata: {data}\n\n", self.boot, self.next);
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((self.next, text));
        self.next += 1;
    }

    /// Adds what changed.
    pub fn add(&mut self, before: &State, after: &State, wall_ns: i64) {
        let mut changes = changes(before, after);
        let more = changes.len() > AT_ONCE_MAX;
        changes.truncate(AT_ONCE_MAX);
        changes.into_iter().for_each(|(name, data)| self.put(name, data, wall_ns));
        if more {
            self.put("missed", json!({}), wall_ns);
        }
    }
}

fn changes(before: &State, after: &State) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    if before.epoch != after.epoch {
        out.push(("coordinator", json!({ "epoch": after.epoch.0 })));
    }
    for (name, entry) in &after.policies {
        let known = before.policies.get(name);
        if known.is_some_and(|known| known.revision == entry.revision && known.removed == entry.removed) {
            continue;
        }
        let event = if entry.removed { "policy_removed" } else { "policy_changed" };
        out.push((event, json!({ "policy": name, "revision": entry.revision })));
    }
    if before.access.roles != after.access.roles {
        out.push(("roles_changed", json!({})));
    }
    for (backup, running) in after.running.iter().filter(|(backup, _)| !before.running.contains_key(backup)) {
        out.push(("backup_begun", json!({ "policy": running.policy, "job": backup.0 })));
    }
    for (policy, tried) in &after.tried {
        if tried.failures > 0 && before.tried.get(policy) != Some(tried) {
            let why = tried.why.get(..tried.why.floor_char_boundary(WHY_BYTES_MAX)).unwrap_or_default();
            out.push(("backup_failed", json!({ "policy": policy, "failures": tried.failures, "why": why })));
        }
    }
    for (backup, point) in after.points.iter().filter(|(backup, _)| !before.points.contains_key(backup)) {
        // It began and ended between two looks.
        if !before.running.contains_key(backup) {
            out.push(("backup_begun", json!({ "policy": point.policy, "job": backup.0 })));
        }
        let status = status_word(after, point);
        out.push(("point_made", json!({ "policy": point.policy, "point": backup.0, "status": status })));
    }
    for (backup, point) in before.points.iter() {
        let went = !after.points.contains_key(backup) || after.leaving(*backup).is_some();
        if went && before.leaving(*backup).is_none() {
            out.push(("point_expired", json!({ "policy": point.policy, "point": backup.0 })));
        }
    }
    for backup in after.damage.points.iter().filter(|backup| !before.damage.points.contains(backup)) {
        let policy = after.points.get(backup).map(|point| point.policy.as_str());
        out.push(("point_damaged", json!({ "policy": policy, "point": backup.0 })));
    }
    if let Some(done) = after.garbage.done.filter(|_| before.garbage.done != after.garbage.done) {
        let data =
            json!({ "deleted": done.deleted, "deleted_bytes": done.deleted_bytes, "faults": done.faults });
        out.push(("garbage_run", data));
    }
    out
}

#[cfg(test)]
mod tests {
    use windlass_agent::id::Epoch;

    use super::*;

    fn state(epoch: u64) -> State {
        State { epoch: Epoch(epoch), ..State::default() }
    }

    #[test]
    fn a_client_goes_on_where_it_was_or_is_told_that_it_missed_some() {
        let mut ring = Ring::new(0xab);
        assert_eq!(ring.after(None), (1, false));
        for epoch in 1..=3 {
            ring.add(&state(epoch - 1), &state(epoch), 0);
        }
        assert!(
            ring.get(1).unwrap().starts_with("id: ab-1\nevent: coordinator\ndata: {"),
            "{:?}",
            ring.get(1)
        );
        assert_eq!((ring.after(None), ring.after(Some("ab-1"))), ((4, false), (2, false)));
        assert_eq!(ring.after(Some("ab-3")), (4, false));
        for other in ["ab-4", "ac-1", "x", "", "ab-", "ab-99999999999999999999"] {
            assert_eq!(ring.after(Some(other)), (1, true), "{other}");
        }
        for epoch in 4..=(EVENTS_MAX as u64 + 2) {
            ring.add(&state(epoch - 1), &state(epoch), 0);
        }
        assert_eq!((ring.after(Some("ab-1")), ring.after(Some("ab-2"))), ((3, true), (3, false)));
        assert!(ring.get(2).is_none() && ring.get(3).is_some());
    }
}
