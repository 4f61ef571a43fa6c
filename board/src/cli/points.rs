//! `points`, and picking the point that `NAME@POINT` means.
//!
//! Source: ours.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_agent::coordinator::expire::judge_policy;
use windlass_agent::format::mark::Mark;
use windlass_agent::format::record::PointStatus;
use windlass_agent::id::{BackupId, VolumeId};
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::check_name;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};

use crate::cli::args::global::Global;
use crate::cli::args::{At, Points};
use crate::cli::output::{Align, Output};
use crate::cli::point::mark_json;
use crate::cli::policy;
use crate::cli::retention::reasons;
use crate::engine::host::HostClock;
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::point::{PointRef, Target};
use crate::{logger, text};
use windlass_agent::civil::{iso_utc, table_utc};

/// `points`.
pub fn run(global: &Global, args: &Points, output: &Output) -> Result<Exit, Failure> {
    check_name(&args.name).map_err(Failure::usage)?;
    let mut notes = Vec::new();
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let points: Vec<&Point> = state.points.values().filter(|point| point.policy == args.name).collect();
    if points.is_empty() && !state.policies.contains_key(&args.name) {
        return Err(policy::missing(&state, &args.name));
    }
    for point in points.iter().filter(|point| !point.missing.is_empty()) {
        let device = |id: &VolumeId| state.volumes.get(id).map_or("?", |volume| volume.device.as_str());
        let devices: Vec<&str> = point.missing.iter().map(device).collect();
        notes.push(format!(
            "point {} is without {}, which could not be opened",
            point.backup,
            devices.join(", ")
        ));
    }
    let kept = kept_by(&state, &args.name)?;
    if points.is_empty() {
        output
            .say(format_args!("policy {0} has no point yet; make one with `windlass backup {0}`", args.name));
    } else {
        table(&state, &points, &kept, output);
    }
    notes.iter().for_each(|note| output.say(format_args!("{note}")));
    let documents: Vec<Value> = points.iter().map(|point| to_json(&state, point, &kept)).collect();
    output.document(&json!({ "policy": args.name, "points": documents }));
    Ok(Exit::Done)
}

/// Which retention rules keep each point; empty without a rule.
type Kept = BTreeMap<BackupId, Vec<String>>;

fn kept_by(state: &State, name: &str) -> Result<Kept, Failure> {
    let Some(policy) = policy::existing(state, name)?.filter(|policy| !policy.retention.is_empty()) else {
        return Ok(Kept::new());
    };
    let verdicts = judge_policy(state, name, &policy.retention, HostClock.wall_ns());
    Ok(verdicts.iter().map(|verdict| (verdict.backup, reasons(&verdict.reasons))).collect())
}

/// Prints points as a table; with retention rules it says which keep each.
fn table(state: &State, points: &[&Point], kept: &Kept, output: &Output) {
    let mut heads = vec![
        ("POINT", Align::Right),
        ("BEGUN (UTC)", Align::Left),
        ("TOOK", Align::Right),
        ("ITEMS", Align::Right),
        ("CHANGED", Align::Right),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
        ("STATE", Align::Left),
    ];
    if !kept.is_empty() {
        heads.push(("KEPT BY", Align::Left));
    }
    let has_marks = points.iter().any(|point| state.marks.contains_key(&point.backup));
    if has_marks {
        heads.push(("SAID OF IT", Align::Left));
    }
    output.table(&heads, &points.iter().map(|point| row(state, point, kept, has_marks)).collect::<Vec<_>>());
}

fn secs(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(1_000_000_000)
}

fn row(state: &State, point: &Point, kept: &Kept, has_marks: bool) -> Vec<String> {
    let (begun, ended) = point.wall_ns;
    let totals = &point.totals;
    let rules = kept.get(&point.backup).map(|rules| match rules.as_slice() {
        [] => "- expires with the next backup".to_owned(),
        rules => rules.join(", "),
    });
    let cells = [
        point.backup.to_string(),
        table_utc(secs(begun)),
        HumanTime(u64::try_from(ended.saturating_sub(begun)).unwrap_or(0)).to_string(),
        Grouped(totals.items).to_string(),
        Grouped(totals.items_changed).to_string(),
        Human(totals.bytes_logical).to_string(),
        Human(totals.bytes_stored).to_string(),
        state_text(state, point),
    ];
    let said = has_marks.then(|| said(state.marks.get(&point.backup)));
    cells.into_iter().chain(rules).chain(said).collect()
}

/// Hold, note and tags of a point, for people.
fn said(mark: Option<&Mark>) -> String {
    let Some(mark) = mark else { return String::new() };
    let hold = mark.is_held().then(|| format!("held: {}", mark.hold));
    let note = (!mark.note.is_empty()).then(|| mark.note.clone());
    let tags = (!mark.tags.is_empty()).then(|| format!("[{}]", mark.tags.join(", ")));
    let parts: Vec<String> = hold.into_iter().chain(note).chain(tags).collect();
    text::printable(parts.join("; ").as_bytes()).to_string()
}

/// How a point is, in a few words.
fn state_text(state: &State, point: &Point) -> String {
    if state.damage.points.contains(&point.backup) {
        return "damaged".to_owned();
    }
    let counts =
        [(point.totals.faults, "item", "incomplete"), (point.missing.len() as u64, "volume", "missing")];
    let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
    let parts: Vec<String> = counts.map(|(count, of, how)| format!("{} {how}", Counted(count, of))).collect();
    if parts.is_empty() { "complete".to_owned() } else { parts.join(", ") }
}

fn to_json(state: &State, point: &Point, kept: &Kept) -> Value {
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
        "status": match point.status {
            _ if state.damage.points.contains(&point.backup) => "damaged",
            PointStatus::Complete => "complete",
            PointStatus::WithErrors => "with_errors",
        },
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

/// The point that a target means.
pub fn pick<'a>(state: &'a State, target: &Target) -> Result<&'a Point, Failure> {
    let of_policy = || state.points.values().filter(|point| point.policy == target.policy);
    let picked = target.point.pick(of_policy().map(|point| (point.backup.0, secs(point.wall_ns.0))));
    if let Some(point) = picked.and_then(|number| of_policy().find(|point| point.backup.0 == number)) {
        return Ok(point);
    }
    let name = &target.policy;
    match of_policy().next_back() {
        Some(_) => {
            let oldest = of_policy().next().map(|point| table_utc(secs(point.wall_ns.0)));
            let what = match (&target.point, oldest) {
                (PointRef::Time(time), Some(oldest)) => {
                    format!("policy {name} has no point begun by {time}; its oldest was begun {oldest} (UTC)")
                }
                (point, _) => format!("policy {name} has no point {point}"),
            };
            Err(Failure::new(format_args!("{what}; `windlass points {name}` lists them")))
        }
        None if state.policies.contains_key(name) => Err(Failure::new(format_args!(
            "policy {name} has no point yet; make one with `windlass backup {name}`"
        ))),
        None => Err(policy::missing(state, name)),
    }
}

/// The point and the volume in it that the options mean.
pub fn pick_volume<'a>(state: &'a State, at: &At) -> Result<(&'a Point, VolumeId), Failure> {
    let point = pick(state, &at.target)?;
    let device = |id: VolumeId| state.volumes.get(&id).map_or("?", |volume| volume.device.as_str());
    let fits = |id: &VolumeId| match &at.volume {
        Some(wanted) => device(*id) == wanted || id.to_string() == *wanted,
        None => true,
    };
    let fitting: Vec<VolumeId> = point.volumes.iter().map(|volume| volume.volume).filter(fits).collect();
    if let [id] = fitting[..] {
        return Ok((point, id));
    }
    let wants_missing = at.volume.is_some() && point.missing.iter().any(fits);
    let what = match &at.volume {
        Some(wanted) if wants_missing => {
            let other = point
                .missing
                .iter()
                .find(|id| fits(id))
                .and_then(|&id| state.last_point_of(&point.policy, id));
            let hint = other.map_or(String::new(), |(backup, _)| format!("; point {backup} has it"));
            format!("volume {wanted} could not be opened when point {} was made{hint}", point.backup)
        }
        Some(wanted) => format!("point {} has no volume {wanted}", point.backup),
        None => format!("point {} has several volumes, say which with --volume", point.backup),
    };
    Err(Failure::usage(format_args!("{what}; it has {}", volume_list(state, point))))
}

/// Says which volumes of its policy a point is without, and which point has each; whether there are any.
pub fn warn_missing(state: &State, point: &Point) -> bool {
    for &id in &point.missing {
        let device = state.volumes.get(&id).map_or("?", |volume| volume.device.as_str());
        let has = state.last_point_of(&point.policy, id);
        let hint = has.map_or(String::new(), |(backup, _)| format!("; point {backup} has it"));
        logger::say(format_args!(
            "windlass: point {} is without volume {id} ({}), which could not be opened when it was made{hint}",
            point.backup,
            text::printable(device.as_bytes())
        ));
    }
    !point.missing.is_empty()
}

/// Whether a point, as its policy was when it was made, has one volume, so that its paths begin at that one's root.
pub fn has_one_volume(point: &Point) -> bool {
    point.volumes.len() == 1 && point.missing.is_empty()
}

/// The volumes of a point for people: number and device of each.
pub fn volume_list(state: &State, point: &Point) -> String {
    let one = |id: VolumeId| {
        let device = state.volumes.get(&id).map_or("?", |known| known.device.as_str());
        format!("{id} ({})", text::printable(device.as_bytes()))
    };
    point.volumes.iter().map(|volume| one(volume.volume)).collect::<Vec<_>>().join(", ")
}
