//! Documents about what the log says, for programs: what `--json` prints and the API answers.
//!
//! | function | table of `board/doc/json.md` |
//! |---|---|
//! | [`policies`] | policy list |
//! | [`points`] | points |
//! | [`retention`] | retention run |
//! | [`roles`] | role list |
//! | [`Entries`] | log |
//!
//! Does not: read a log, or print. Source: ours.

use std::collections::VecDeque;

use serde_json::{Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::format::access::Grant;
use windlass_agent::format::mark::Mark;
use windlass_agent::format::record::PointStatus;
use windlass_agent::id::{BackupId, Slot, VolumeId};
use windlass_agent::log::entries::{Entry, LEASE, Lineage};
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::retention::Verdict;

use super::points::{Kept, kept_by, reasons};
use super::policy::{existing, next, to_json};
use super::repository::Repository;
use crate::failure::Failure;

const NS_PER_SEC: i64 = 1_000_000_000;
/// Entries about policies that are kept until it is known which of them are about the one that is asked for: some 10 MiB. The oldest go, and
/// count as not shown.
const CANDIDATES_MAX: usize = 32_768;

fn secs(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(NS_PER_SEC)
}

/// All policies, and those that were removed and have points.
pub fn policies(state: &State) -> Result<Value, Failure> {
    let mut documents = Vec::new();
    for (name, entry) in &state.policies {
        let points = count(state, name);
        let Some(policy) = existing(state, name)? else {
            // Its points can be listed and restored by this name.
            if points > 0 {
                documents.push(json!({ "removed": name, "revision": entry.revision, "points": points }));
            }
            continue;
        };
        let mut document = json!({ "policy": to_json(&policy), "revision": entry.revision, "points": points,
                "next": next(state, &policy).iter().map(|ns| iso_utc(secs(*ns))).collect::<Vec<_>>() });
        if let Some(tried) = state.tried.get(name) {
            document["tried"] =
                json!({ "wall_ns": tried.wall_ns, "failures": tried.failures, "why": tried.why });
        }
        documents.push(document);
    }
    Ok(json!({ "policies": documents }))
}

/// How many points a policy has that have not expired.
pub fn count(state: &State, name: &str) -> usize {
    let is_of = |point: &&Point| point.policy == name && state.leaving(point.backup).is_none();
    state.points.values().filter(is_of).count()
}

/// Which points of a policy are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Those with smaller numbers.
    pub before: BackupId,
    /// At most so many, the newest.
    pub limit: usize,
}

impl Page {
    /// All.
    pub const ALL: Page = Page { before: BackupId(u32::MAX), limit: usize::MAX };
}

/// Points of a policy, oldest first; with a page, `next` names the one before it, or is null.
pub fn points(state: &State, name: &str, page: Page) -> Result<Value, Failure> {
    let kept = kept_by(state, name)?;
    let all = state.points.range(..page.before).map(|(_, point)| point).filter(|point| point.policy == name);
    let mut there: Vec<&Point> = all.filter(|point| state.leaving(point.backup).is_none()).collect();
    let more = there.len().saturating_sub(page.limit);
    let shown = there.split_off(more);
    let documents: Vec<Value> = shown.iter().map(|point| point_json(state, point, &kept)).collect();
    let leaving = state.points.values().filter(|point| point.policy == name);
    let leaving = leaving.filter_map(|point| Some((point, state.leaving(point.backup)?)));
    let expired = leaving.map(|(point, until_ns)| {
        let (begun, until) = (iso_utc(secs(point.wall_ns.0)), iso_utc(secs(until_ns)));
        json!({ "point": point.backup.0, "begun": begun, "undo_until": until })
    });
    let mut document = json!({ "policy": name, "points": documents, "expired": expired.collect::<Vec<_>>() });
    if page.limit < usize::MAX {
        let first = shown.first().filter(|_| more > 0).map(|point| point.backup.0);
        document["next"] = first.into();
    }
    Ok(document)
}

/// A point's state in a word.
pub fn status_word(state: &State, point: &Point) -> &'static str {
    match point.status {
        _ if state.damage.points.contains(&point.backup) => "damaged",
        PointStatus::Complete => "complete",
        PointStatus::WithErrors => "with_errors",
    }
}

fn point_json(state: &State, point: &Point, kept: &Kept) -> Value {
    let volume = |id: VolumeId| {
        let device = state.volumes.get(&id).map(|known| known.device.clone());
        json!({ "volume": id.0, "device": device })
    };
    let volumes: Vec<Value> = point.volumes.iter().map(|found| volume(found.volume)).collect();
    let missing: Vec<Value> = point.missing.iter().map(|&id| volume(id)).collect();
    let totals = &point.totals;
    json!({
        "point": point.backup.0,
        "begun": iso_utc(secs(point.wall_ns.0)),
        "ended": iso_utc(secs(point.wall_ns.1)),
        "status": status_word(state, point),
        "volumes": volumes,
        "volumes_missing": missing,
        "items": totals.items,
        "items_changed": totals.items_changed,
        "items_deleted": totals.items_deleted,
        "bytes": totals.bytes_logical,
        "bytes_read": totals.bytes_read,
        "bytes_reused": totals.bytes_reused,
        "bytes_stored": totals.bytes_stored,
        "objects": totals.objects,
        "segments": totals.segments,
        "faults": totals.faults,
        "kept_by": kept.get(&point.backup),
        "mark": mark_json(state.marks.get(&point.backup)),
    })
}

/// What is said of a point.
fn mark_json(mark: Option<&Mark>) -> Value {
    let of = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    let mark = mark.cloned().unwrap_or_default();
    json!({ "hold": of(&mark.hold), "note": of(&mark.note), "tags": mark.tags })
}

/// What the rules of a policy say of its points; `gone` of them expire or did.
pub fn retention(name: &str, verdicts: &[Verdict], gone: usize, is_dry: bool) -> Value {
    let documents: Vec<Value> = verdicts.iter().map(verdict).collect();
    json!({ "policy": name, "dry_run": is_dry, "expired": gone, "points": documents })
}

/// What rules say of a point.
pub fn verdict(verdict: &Verdict) -> Value {
    json!({
        "point": verdict.backup.0,
        "begun": iso_utc(secs(verdict.wall_ns)),
        "kept_by": reasons(&verdict.reasons),
    })
}

/// Roles of a subject.
pub fn grants(grants: &[Grant]) -> Vec<Value> {
    let policy =
        |grant: &Grant| if grant.policy.is_empty() { Value::Null } else { grant.policy.clone().into() };
    grants.iter().map(|grant| json!({ "role": grant.role.to_string(), "policy": policy(grant) })).collect()
}

/// Subjects with roles, and those that were refused something.
pub fn roles(state: &State) -> Value {
    let roles = state.access.roles.iter();
    let subjects: Vec<Value> =
        roles.map(|(subject, roles)| json!({ "subject": subject, "roles": grants(roles) })).collect();
    let refused = state.access.refused.iter().map(|(subject, refused)| {
        let last = iso_utc(secs(refused.wall_ns));
        json!({ "subject": subject, "count": refused.count, "last": last, "what": refused.what })
    });
    json!({ "subjects": subjects, "refused": refused.collect::<Vec<_>>() })
}

/// An entry of the log; `None` in place of one that says nothing of its time: not before the last that does.
pub struct Dated {
    /// What was done.
    pub entry: Entry,
    /// The last time that one up to it says.
    pub not_before_ns: Option<i64>,
    /// Which policy it is about.
    of: Option<u32>,
}

/// The newest entries of the log.
#[derive(Default)]
pub struct Entries {
    /// Oldest first.
    pub newest: VecDeque<Dated>,
    /// Entries that cannot be read.
    pub lost: Vec<Slot>,
    /// Older ones that would be shown.
    pub left_out: u64,
    /// The log begins behind this one.
    pub boundary: Slot,
}

/// Which entries are wanted.
pub struct Wanted<'a> {
    /// At most so many.
    pub last: usize,
    /// Of this policy and its points.
    pub policy: Option<&'a str>,
    /// Also who began and ceased to coordinate.
    pub all: bool,
}

impl Entries {
    /// Reads them.
    ///
    /// # Errors
    /// The log cannot be listed or read.
    pub fn read(repository: &Repository, wanted: &Wanted<'_>) -> Result<Entries, Failure> {
        let failed = |fault| Failure::at("the commit log", fault);
        let mut found = Entries::default();
        let mut not_before_ns: Option<i64> = None;
        let mut lineage = match wanted.policy {
            Some(_) => Lineage::new(repository.first_state().map_err(failed)?.as_ref()),
            None => Lineage::default(),
        };
        // What a policy is called in the end is known in the end.
        let most = if wanted.policy.is_some() { CANDIDATES_MAX } else { wanted.last };
        let boundary = repository.read_entries(&mut |said| match said {
            Err(slot) => found.lost.push(slot),
            Ok(entries) => {
                for entry in entries {
                    not_before_ns = entry.wall_ns.or(not_before_ns);
                    let of = lineage.of(&entry);
                    if (of.is_none() && wanted.policy.is_some()) || (entry.what == LEASE && !wanted.all) {
                        continue;
                    }
                    found.newest.push_back(Dated { entry, not_before_ns, of });
                    if found.newest.len() > most {
                        found.newest.pop_front();
                        found.left_out += 1;
                    }
                }
            }
        });
        found.boundary = boundary.map_err(failed)?;
        if let Some(policy) = wanted.policy {
            let named = Some(lineage.of_name(policy));
            found.newest.retain(|dated| dated.of == named);
            let more = found.newest.len().saturating_sub(wanted.last);
            found.newest.drain(..more);
            found.left_out += more as u64;
        }
        Ok(found)
    }

    /// For programs.
    pub fn document(&self) -> Value {
        json!({
            "first": self.boundary.0 + 1,
            "left_out": self.left_out,
            "lost": self.lost.iter().map(|slot| slot.0).collect::<Vec<_>>(),
            "entries": self.newest.iter().map(entry_json).collect::<Vec<_>>(),
        })
    }
}

fn entry_json(dated: &Dated) -> Value {
    let entry = &dated.entry;
    let time = |ns: i64| iso_utc(secs(ns));
    json!({
        "entry": entry.slot.0,
        "epoch": entry.epoch.0,
        "node": entry.writer.0,
        "subject": entry.by.as_ref().map(|by| by.0.clone()),
        "asked_at": entry.by.as_ref().map(|by| by.1.0),
        "time": entry.wall_ns.map(time),
        "not_before": dated.not_before_ns.map(time),
        "what": entry.what,
        "policy": entry.policy,
        "point": entry.backup.map(|backup| backup.0),
        "text": entry.text,
    })
}
