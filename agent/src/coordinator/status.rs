//! What people see of a cluster: one JSON document, bounded, made when it is asked for.
//!
//! | field | what |
//! |---|---|
//! | `node`, `coordinator` | who answers; who holds the lease: node, epoch, resting |
//! | `nodes` | each node: up, weight, memory, lanes, rate, volumes, number of assignments |
//! | `backups` | each running backup: items, bytes, rate, time left, assignments |
//! | `queue` | policies whose backup has not begun |
//! | `points` | the newest recovery points |
//! | `errors` | the newest faults: when, on which node, what |
//!
//! Source: ours.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::{Coordinator, Now, share};
use crate::backplane::message::Found;
use crate::id::{BackupId, Epoch, NodeId, VolumeId};
use crate::log::state::State;

/// Errors that are kept.
const ERRORS_MAX: usize = 16;
/// Points that are shown.
const POINTS_SHOWN: usize = 8;
/// Assignments shown of a backup; more are counted.
const ASSIGNMENTS_SHOWN: usize = 128;

/// The newest faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors(VecDeque<(i64, Option<NodeId>, String)>);

impl Errors {
    pub(super) fn add(&mut self, wall_ns: i64, node: Option<NodeId>, what: String) {
        if self.0.len() == ERRORS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((wall_ns, node, what));
    }

    fn to_json(&self) -> Vec<Value> {
        let one = |(wall_ns, node, what): &(i64, Option<NodeId>, String)| json!({ "wall_ns": wall_ns, "node": node.map(|node| node.0), "what": what });
        self.0.iter().map(one).collect()
    }
}

/// The newest points, newest last.
fn points(state: &State) -> Vec<Value> {
    let mut newest: Vec<Value> = state
        .points
        .values()
        .rev()
        .take(POINTS_SHOWN)
        .map(|point| {
            json!({
                "backup": point.backup.0,
                "policy": point.policy,
                "status": match point.totals.faults {
                    _ if state.damage.points.contains(&point.backup) => "damaged",
                    0 => "complete",
                    _ => "with_errors",
                },
                "items": point.totals.items,
                "bytes": point.totals.bytes_logical,
                "wall_end_ns": point.wall_ns.1,
            })
        })
        .collect();
    newest.reverse();
    newest
}

/// What a node without a coordinator can say: the log as it last read it.
pub fn resting(node: NodeId, epoch: Epoch, resting: bool, state: &State) -> String {
    json!({
        "node": node.0,
        "coordinator": { "node": Value::Null, "epoch": epoch.0, "resting": resting },
        "nodes": [],
        "backups": state.at_work().map(|(backup, running)| json!({
            "backup": backup.0,
            "policy": running.policy,
            "items_done": running.totals.items,
            "bytes_done": running.totals.bytes_logical,
            "assignments": [],
        })).collect::<Vec<_>>(),
        "queue": [],
        "points": points(state),
        "errors": [],
    })
    .to_string()
}

impl Coordinator {
    pub(super) fn status(&self, now: Now<'_>) -> String {
        let nodes: Vec<Value> = self
            .roster
            .iter()
            .map(|(id, node)| {
                let present = node.present.clone().unwrap_or_default();
                json!({
                    "node": id.0,
                    "up": node.up,
                    "boot": format!("{:016x}", present.boot.0),
                    "weight": present.weight,
                    "memory_bytes": present.memory_bytes,
                    "lanes": present.lanes,
                    "rate": present.rate,
                    "volumes": present.volumes,
                    "assignments": self.held_or_reported(id),
                })
            })
            .collect();
        let backups: Vec<Value> = self
            .jobs
            .iter()
            .filter_map(|(policy, job)| Some(self.backup_json(now, policy, job.backup()?, job.found())))
            .collect();
        let waiting = self.jobs.iter().filter(|(_, job)| job.backup().is_none() && !job.is_stopped());
        json!({
            "node": self.settings.me.0,
            "coordinator": { "node": self.settings.me.0, "epoch": self.epoch.0, "resting": false },
            "nodes": nodes,
            "backups": backups,
            "queue": waiting.map(|(policy, _)| policy.as_str()).collect::<Vec<_>>(),
            "points": points(now.state),
            "errors": self.errors.to_json(),
        })
        .to_string()
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
            "items_done": totals.items,
            "items_total": items_total,
            "bytes_done": bytes_done,
            "bytes_total": bytes_total,
            "rate": rate,
            "eta_s": left.checked_div(rate),
            "assignments": assignments,
        })
    }
}
