//! What people see of a cluster: one JSON document, bounded, made when it is asked for.
//!
//! | field | what |
//! |---|---|
//! | `node`, `coordinator` | who answers; who holds the lease: node, epoch, resting; without one why, and since when |
//! | `store` | what is wrong with the store as the node sees it that answers, and since when |
//! | `age_s` | how old the numbers of backups and points are: without a coordinator, since the log was read |
//! | `here` | the node that was asked, where that is another and something is wrong with it: its store, a machine with its number |
//! | `clock_ahead_s` | by how many seconds the clock of the node that answers is ahead of the store's, when they do not agree |
//! | `nodes` | each node: up, since when, why not; weight, memory, lanes, rate, volumes, number of assignments, as far as they are known |
//! | `backups` | each running backup, and those that were stopped: items, bytes, rate, time left, assignments; for what it waits, and until when |
//! | `queue` | policies whose backup has not begun, in the order in which they will |
//! | `points` | the newest recovery points: how they went, and the volumes that they are without |
//! | `garbage` | the last run, what is still to come back, and what the run does that is under way |
//! | `errors` | the newest faults: when, on which node, what |
//!
//! Source: ours.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::jobs::Job;
use super::{Contact, Coordinator, Now, share};
use crate::format::record::{PointStatus, Tried};
use crate::id::{BackupId, Epoch, NodeId, VolumeId};
use crate::log::state::{Point, Running, State};
use crate::work::{Found, Present};

/// Errors that are kept.
const ERRORS_MAX: usize = 16;
/// Points that are shown.
const POINTS_SHOWN: usize = 8;
/// Missing volumes that are named of a point: a name may have 512 bytes, and the document must fit a message. All are counted.
const MISSING_SHOWN: usize = 4;
/// Assignments shown of a backup; more are counted.
const ASSIGNMENTS_SHOWN: usize = 128;

/// The newest faults: when, of which node, what, and of which policy's backups, whose next complete point ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors(VecDeque<(i64, Option<NodeId>, String, Option<String>)>);

impl Errors {
    pub(super) fn add(&mut self, wall_ns: i64, node: Option<NodeId>, what: String) {
        self.put((wall_ns, node, what, None));
    }

    /// One that a complete point of the policy makes up for.
    pub(super) fn add_of(&mut self, policy: &str, wall_ns: i64, node: Option<NodeId>, what: String) {
        self.put((wall_ns, node, what, (!policy.is_empty()).then(|| policy.to_owned())));
    }

    fn put(&mut self, error: (i64, Option<NodeId>, String, Option<String>)) {
        if self.0.len() == ERRORS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(error);
    }

    /// The policy has a complete point: what kept its backups from one is over.
    pub(super) fn over(&mut self, policy: &str) {
        self.0.retain(|(_, _, _, of)| of.as_deref() != Some(policy));
    }

    pub(super) fn last(&self) -> Option<&str> {
        self.0.back().map(|(_, _, what, _)| what.as_str())
    }

    fn to_json(&self) -> Vec<Value> {
        let one = |(wall_ns, node, what, policy): &(i64, Option<NodeId>, String, Option<String>)| {
            let node = node.map(|node| node.0);
            json!({ "wall_ns": wall_ns, "node": node, "policy": policy, "what": what })
        };
        self.0.iter().map(one).collect()
    }
}

/// A point: how it went, and the volumes of its policy that it is without.
pub fn point(state: &State, point: &Point) -> Value {
    let volume = |id: &VolumeId| {
        let device = state.volumes.get(id).map(|known| known.device.as_str());
        json!({ "volume": id.0, "device": device })
    };
    json!({
        "backup": point.backup.0,
        "policy": point.policy,
        "status": match point.status {
            _ if state.damage.points.contains(&point.backup) => "damaged",
            PointStatus::Complete => "complete",
            PointStatus::WithErrors => "with_errors",
        },
        "items": point.totals.items,
        "bytes": point.totals.bytes_logical,
        "faults": point.totals.faults,
        "volumes_missing": point.missing.iter().take(MISSING_SHOWN).map(volume).collect::<Vec<_>>(),
        "volumes_missing_count": point.missing.len(),
        "wall_end_ns": point.wall_ns.1,
    })
}

/// What a repository's log says of garbage: the last run, and what is still to come back.
pub fn garbage(state: &State) -> Value {
    let (garbage, settings) = (&state.garbage, state.garbage.settings());
    let done = garbage.done.unwrap_or_default();
    json!({
        "window_ms": settings.window_ns / 1_000_000,
        "every_ms": settings.every_ns / 1_000_000,
        "is_wanted": garbage.wanted.is_some(),
        "ended_wall_ns": garbage.done.map(|done| done.wall_ns),
        "objects": done.objects,
        "live_bytes": done.live_bytes,
        "deleted": done.deleted,
        "deleted_bytes": done.deleted_bytes,
        "later": done.later,
        "kept": done.kept,
        "faults": done.faults,
        "moved_bytes": garbage.moves.unwrap_or_default().bytes,
        "moved_objects": garbage.moves.unwrap_or_default().objects,
        "condemned": garbage.condemned.len(),
        "waiting_objects": garbage.objects.len(),
        "waiting_bytes": garbage.waiting_bytes(),
        "waiting_names": state.retired.len(),
    })
}

/// What became of a try, as an error is shown.
fn tried(tried: &Tried) -> Value {
    json!({ "wall_ns": tried.wall_ns, "node": Value::Null, "policy": tried.policy, "what": tried.why })
}

/// The newest points, newest last.
fn points(state: &State) -> Vec<Value> {
    // One that has expired is none, though it may be brought back.
    let there = state.points.values().rev().filter(|point| state.leaving(point.backup).is_none());
    let mut newest: Vec<Value> = there.take(POINTS_SHOWN).map(|of| point(state, of)).collect();
    newest.reverse();
    newest
}

/// What a node sees itself, whichever node coordinates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The node.
    pub node: NodeId,
    /// What is wrong with the store, and since when, in nanoseconds since 1970.
    pub store: Option<(String, i64)>,
    /// Another machine with its number was met.
    pub namesake: Option<String>,
}

impl Here {
    /// Whether all is well.
    pub fn is_well(&self) -> bool {
        self.store.is_none() && self.namesake.is_none()
    }

    fn store_json(&self) -> Value {
        self.store.as_ref().map_or(Value::Null, |(why, since)| json!({ "why": why, "since_wall_ns": since }))
    }

    /// Adds to a status that another node has made. What is no status stays as it is.
    pub fn add_to(&self, status: String) -> String {
        let Ok(mut document) = serde_json::from_str::<Value>(&status) else { return status };
        let Some(fields) = document.as_object_mut() else { return status };
        let here = json!({ "node": self.node.0, "store": self.store_json(), "namesake": self.namesake });
        fields.insert("here".to_owned(), here);
        document.to_string()
    }
}

/// What a node says while no node within its reach coordinates.
#[derive(Clone, Copy, Debug)]
pub struct NoCoordinator<'a> {
    /// What it sees itself.
    pub here: &'a Here,
    /// The highest epoch that it knows.
    pub epoch: Epoch,
    /// Whether the lease was let go, as there was nothing to do.
    pub resting: bool,
    /// Why no node coordinates; `None`: there is nothing to do.
    pub why: Option<&'a str>,
    /// Since when, in nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// How old what it knows of backups and points is, in seconds; `None`: it knows nothing of them.
    pub age_s: Option<u64>,
    /// What the node has itself.
    pub present: &'a Present,
    /// Whom it can reach.
    pub contacts: &'a BTreeMap<NodeId, Contact>,
    /// How far its clock is ahead of the store's, when the two do not agree.
    pub clock_ahead_ns: Option<i64>,
    /// Backups of which this node has let go, as none of the nodes that are up can go on with them, and for what they wait.
    pub left: &'a BTreeMap<BackupId, String>,
    /// In how many seconds it looks at them again.
    pub again_s: Option<u64>,
}

impl NoCoordinator<'_> {
    /// Why nothing goes on of a backup that has not ended.
    fn waits(&self, backup: BackupId, running: &Running) -> Option<String> {
        let policy = &running.policy;
        if running.is_stopped {
            return Some(stopped_text(policy));
        }
        if !self.resting {
            return None;
        }
        let Some(why) = self.left.get(&backup) else {
            return Some(format!(
                "no node works on it: it waits for volumes that none of the nodes that are up can open; \
                 `windlass backup {policy}` goes on with it"
            ));
        };
        let again = self.again_s.map_or_else(String::new, |left_s| format!(" in {left_s} s, and"));
        Some(format!("waits, and is looked at again{again} when a node comes: {why}"))
    }
}

/// Nothing goes on of a backup.
fn stopped_text(policy: &str) -> String {
    format!("it was stopped; `windlass backup {policy}` goes on with it where it was")
}

/// The status without a coordinator: the node's connections, and the log as it last read it.
pub fn without(none: &NoCoordinator<'_>, state: &State) -> String {
    let node = none.here.node;
    let mut own = node_json(node, true, Some(none.present), None, 0);
    own["why"] = none.here.namesake.clone().into();
    let me = (node, own);
    let peer = |(&id, contact): (&NodeId, &Contact)| (id, node_json(id, contact.up, None, Some(contact), 0));
    let nodes: BTreeMap<NodeId, Value> = none.contacts.iter().map(peer).chain([me]).collect();
    json!({
        "node": node.0,
        "coordinator": {
            "node": Value::Null,
            "epoch": none.epoch.0,
            "resting": none.resting,
            "why": none.why,
            "since_wall_ns": none.since_ns,
        },
        "store": none.here.store_json(),
        "age_s": none.age_s,
        "clock_ahead_s": none.clock_ahead_ns.map(|ns| ns / 1_000_000_000),
        "nodes": nodes.into_values().collect::<Vec<_>>(),
        "backups": state.at_work().map(|(backup, running)| json!({
            "backup": backup.0,
            "policy": running.policy,
            "items_done": running.totals.items,
            "bytes_done": running.totals.bytes_logical,
            "stopped": running.is_stopped,
            "waits": none.waits(backup, running),
            "assignments": [],
        })).collect::<Vec<_>>(),
        "queue": [],
        "points": points(state),
        "garbage": garbage(state),
        "errors": state.tried.values().rev().take(ERRORS_MAX).map(tried).collect::<Vec<_>>(),
    })
    .to_string()
}

/// A node: what it says it has, and what is known of the connection with it.
fn node_json(
    id: NodeId,
    up: bool,
    present: Option<&Present>,
    contact: Option<&Contact>,
    assignments: usize,
) -> Value {
    let mut node = json!({
        "node": id.0,
        "up": up,
        "state": contact.filter(|contact| contact.up == up).map_or(if up { "up" } else { "down" }, Contact::state),
        "since_wall_ns": contact.map(|contact| contact.twins_since_ns.unwrap_or(contact.since_ns)),
        "why": contact.and_then(Contact::trouble),
        "assignments": assignments,
    });
    if let Some(present) = present {
        node["boot"] = format!("{:016x}", present.boot.0).into();
        node["weight"] = present.weight.into();
        node["memory_bytes"] = present.memory_bytes.into();
        node["lanes"] = present.lanes.into();
        // What was measured when it worked last says nothing of now.
        node["rate"] = if assignments == 0 { 0 } else { present.rate }.into();
        node["volumes"] = json!(present.volumes);
    }
    node
}

impl Coordinator {
    /// What people see while this node coordinates. `contacts`: its connections with the others; `here`: what it sees itself.
    pub fn status(&self, now: Now<'_>, contacts: &BTreeMap<NodeId, Contact>, here: &Here) -> String {
        let nodes: Vec<Value> = self
            .roster
            .iter()
            .map(|(id, node)| {
                let assignments = self.held_or_reported(id);
                let mut json = node_json(id, node.up, node.present.as_ref(), contacts.get(&id), assignments);
                if id == self.settings.me {
                    json["why"] = here.namesake.clone().into();
                }
                json
            })
            .collect();
        // One that this coordinator has taken over runs also while its volumes are looked at.
        let backup_of = |policy: &str, job: &Job| {
            let running = || Some(now.state.running_of(policy)?.0);
            job.backup().or_else(running).filter(|_| !job.is_stopped() && !job.is_queued())
        };
        let mut backups: Vec<Value> = self
            .jobs
            .iter()
            .filter_map(|(policy, job)| {
                let mut backup = self.backup_json(now, policy, backup_of(policy, job)?, job.found());
                backup["waits"] = self.waits_text(now, job).into();
                Some(backup)
            })
            .collect();
        let is_at_work = |policy: &str| self.jobs.get(policy).is_some_and(|job| !job.is_stopped());
        for (id, running) in now.state.at_work().filter(|(_, running)| !is_at_work(&running.policy)) {
            let mut backup = self.backup_json(now, &running.policy, id, None);
            (backup["rate"], backup["eta_s"]) = (0.into(), Value::Null);
            backup["stopped"] = true.into();
            backup["waits"] = stopped_text(&running.policy).into();
            backups.push(backup);
        }
        let waits = |(policy, job): &(&String, &Job)| backup_of(policy, job).is_none() && !job.is_stopped();
        let mut waiting: Vec<_> =
            self.jobs.iter().filter(waits).map(|(policy, job)| (job.place(), policy.as_str())).collect();
        waiting.sort_unstable();
        json!({
            "node": self.settings.me.0,
            "coordinator": {
                "node": self.settings.me.0,
                "epoch": self.epoch.0,
                "resting": false,
                "lease_left_ms": self.lease_end_ns.map(|end| end.saturating_sub(now.ns) / 1_000_000),
            },
            "store": here.store_json(),
            "age_s": 0,
            "clock_ahead_s": self.clock_ahead_ns.map(|ns| ns / 1_000_000_000),
            "nodes": nodes,
            "backups": backups,
            "queue": waiting.into_iter().map(|(_, policy)| policy).collect::<Vec<_>>(),
            "points": points(now.state),
            "garbage": self.garbage_json(now),
            "errors": self.errors.to_json(),
        })
        .to_string()
    }

    /// What the log says of garbage, and what the run does that is under way.
    fn garbage_json(&self, now: Now<'_>) -> Value {
        let mut document = garbage(now.state);
        if self.garbage.is_at_work() {
            let done = self.garbage.done();
            document["phase"] = self.garbage.text().into();
            document["run_deleted"] = done.deleted.into();
            document["run_deleted_bytes"] = done.deleted_bytes.into();
            document["run_moved_bytes"] = self.garbage.moved().bytes.into();
        }
        document
    }

    fn backup_json(
        &self,
        now: Now<'_>,
        policy: &str,
        backup: BackupId,
        found: Option<&BTreeMap<VolumeId, Found>>,
    ) -> Value {
        let running = now.state.running.get(&backup);
        let totals = running.map(|running| running.totals).unwrap_or_default();
        let sum = |of: fn(&Found) -> u64| -> u64 {
            // What nodes found may be as large as numbers are.
            found.into_iter().flat_map(|found| found.values()).map(of).fold(0, u64::saturating_add)
        };
        let (items_total, bytes_total) = (sum(|found| found.items), sum(|found| found.bytes));
        let elapsed_ns =
            running.map_or(0, |running| now.wall_ns.saturating_sub(running.wall_start_ns)).max(1) as u64;
        // An image is one item, which is counted when its end is there; until then it counts by its blocks.
        let done_of = |(volume, found): (&VolumeId, &Found)| {
            let done = running.map(|running| running.done.of(*volume)).unwrap_or_default();
            share::image_bytes_done(found, done)
        };
        let images: Vec<Option<u64>> = found.into_iter().flatten().map(done_of).collect();
        let of_images = images.iter().flatten().copied().fold(0, u64::saturating_add);
        let of_files =
            if images.iter().any(Option::is_none) || images.is_empty() { totals.bytes_logical } else { 0 };
        let bytes_done =
            if of_images == 0 { of_files } else { of_files.saturating_add(of_images).min(bytes_total) };
        let rate = (u128::from(bytes_done) * 1_000_000_000 / u128::from(elapsed_ns)) as u64;
        let left = bytes_total.saturating_sub(bytes_done);
        let assigned = self.assigned.values().filter(|a| a.assignment.backup == backup);
        let assignments: Vec<Value> = assigned
            .take(ASSIGNMENTS_SHOWN)
            .map(|a| {
                let key = |key: (u64, u64)| [key.0, key.1];
                json!({
                    "node": a.node.0,
                    "volume": a.assignment.volume.volume.0,
                    "from": key(a.assignment.from),
                    "to": key(a.assignment.to),
                    "done": key(a.done),
                })
            })
            .collect();
        json!({
            "backup": backup.0,
            "policy": policy,
            "stopped": false,
            "items_done": totals.items,
            "items_total": items_total,
            "bytes_done": bytes_done,
            "bytes_total": bytes_total,
            "rate": rate,
            // Nothing is left to count, and it has not ended: it is not known for how long.
            "eta_s": if left == 0 { None } else { left.checked_div(rate) },
            "assignments": assignments,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::record::Totals;
    use crate::log::state::Volume;

    #[test]
    fn what_kept_a_policy_from_a_point_is_over_when_it_has_one() {
        let mut errors = Errors::default();
        errors.add_of("home", 1, Some(NodeId(1)), "the store is gone".to_owned());
        errors.add_of("mail", 2, None, "no reader".to_owned());
        errors.add(3, None, "a merge".to_owned());
        errors.over("home");
        let left: Vec<Value> = errors.to_json().iter().map(|error| error["what"].clone()).collect();
        assert_eq!(left, [json!("no reader"), json!("a merge")]);
    }

    /// Points 1 to 3 of a policy: whole, without a volume, and with an item that is not whole.
    fn state() -> State {
        let mut state = State::default();
        let volume = Volume { policy: "homes".to_owned(), device: "lun-7".to_owned() };
        state.volumes.insert(VolumeId(2), volume);
        let with_errors = PointStatus::WithErrors;
        let points = [
            (1, PointStatus::Complete, vec![], 0),
            (2, with_errors, vec![VolumeId(2)], 0),
            (3, with_errors, vec![], 1),
        ];
        for (number, status, missing, faults) in points {
            let point = Point {
                backup: BackupId(number),
                policy: "homes".to_owned(),
                volumes: Vec::new(),
                missing,
                wall_ns: (1, 2),
                status,
                totals: Totals { faults, ..Totals::default() },
            };
            Arc::make_mut(&mut state.points).insert(point.backup, point);
        }
        state
    }

    #[test]
    fn a_point_without_a_volume_is_not_complete_and_names_it() {
        let mut state = state();
        let of = |state: &State, number| {
            let point = point(state, &state.points[&BackupId(number)]);
            let told = (
                point["status"].clone(),
                point["volumes_missing"].clone(),
                point["volumes_missing_count"].clone(),
            );
            (told.0.as_str().unwrap_or_default().to_owned(), told.1, told.2)
        };
        assert_eq!(of(&state, 1), ("complete".to_owned(), json!([]), json!(0)));
        let missing = json!([{ "volume": 2, "device": "lun-7" }]);
        assert_eq!(of(&state, 2), ("with_errors".to_owned(), missing, json!(1)));
        assert_eq!(of(&state, 3), ("with_errors".to_owned(), json!([]), json!(0)));
        Arc::make_mut(&mut state.damage).points.insert(BackupId(1));
        assert_eq!(of(&state, 1).0, "damaged");
        let many = (1..=9).map(VolumeId).collect();
        Arc::make_mut(&mut state.points).get_mut(&BackupId(2)).unwrap().missing = many;
        let (_, named, count) = of(&state, 2);
        assert_eq!((named.as_array().map(Vec::len), count), (Some(MISSING_SHOWN), json!(9)));
    }
}
