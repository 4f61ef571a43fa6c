//! Recovery points: which one `NAME@POINT` means, its volumes, and which retention rules keep it.
//!
//! Source: ours.

use std::collections::BTreeMap;

use windlass_agent::coordinator::expire::judge_policy;
use windlass_agent::id::{BackupId, VolumeId};
use windlass_agent::log::state::{Point, State};
use windlass_agent::policy::retention::Reason;

use crate::engine::host::HostClock;
use crate::engine::policy;
use crate::failure::Failure;
use crate::point::{PointRef, Target};
use crate::{logger, site_time, text};

/// Which retention rules keep each point; empty without a rule.
pub type Kept = BTreeMap<BackupId, Vec<String>>;

/// What the rules of a policy say of its points now.
pub fn kept_by(state: &State, name: &str) -> Result<Kept, Failure> {
    let Some(policy) = policy::existing(state, name)?.filter(|policy| !policy.retention.is_empty()) else {
        return Ok(Kept::new());
    };
    let verdicts = judge_policy(state, &policy, HostClock.wall_ns());
    Ok(verdicts.iter().map(|verdict| (verdict.backup, reasons(&verdict.reasons))).collect())
}

/// Why a point stays, as it is shown.
pub fn reasons(reasons: &[Reason]) -> Vec<String> {
    reasons.iter().map(ToString::to_string).collect()
}

fn secs(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(1_000_000_000)
}

/// Refuses a point that is held, or younger than its minimum age, by what keeps it.
pub fn may_expire(state: &State, name: &str, backup: BackupId, now_ns: i64) -> Result<(), Failure> {
    if state.is_held(backup) {
        let why = state.marks.get(&backup).map_or("", |mark| mark.hold.as_str());
        return Err(Failure::new(format_args!(
            "point {backup} of {name} is held ({why}); `windlass point release {name}@{backup}` first"
        )));
    }
    let until_ns = state.guard_of(backup).map_or(0, |guard| guard.until_ns);
    if until_ns > now_ns {
        let until = site_time::shown(until_ns.div_euclid(1_000_000_000));
        return Err(Failure::new(format_args!(
            "point {backup} of {name} stays until {until}: its policy gave it a minimum age, which no command shortens"
        )));
    }
    Ok(())
}

/// The point that expired and that a target means: by its number.
pub fn pick_leaving(state: &State, target: &Target) -> Result<BackupId, Failure> {
    let name = &target.policy;
    let PointRef::Number(number) = target.point else {
        return Err(Failure::usage(format_args!("write the point's number, as in {name}@17")));
    };
    let backup = BackupId(number);
    let is_of = state.points.get(&backup).is_some_and(|point| point.policy == *name);
    match state.leaving(backup) {
        Some(_) if is_of => Ok(backup),
        _ if is_of => Err(Failure::new(format_args!("point {number} of {name} has not expired"))),
        _ => Err(Failure::new(format_args!(
            "policy {name} has no point {number} that can be brought back; `windlass points {name}` lists those that can"
        ))),
    }
}

/// The point that a target means. One that has expired is none, though it may still be brought back.
pub fn pick<'a>(state: &'a State, target: &Target) -> Result<&'a Point, Failure> {
    let is_of = |point: &&Point| point.policy == target.policy && state.leaving(point.backup).is_none();
    let of_policy = || state.points.values().filter(is_of);
    let picked = target.point.pick(of_policy().map(|point| (point.backup.0, secs(point.wall_ns.0))));
    if let Some(point) = picked.and_then(|number| of_policy().find(|point| point.backup.0 == number)) {
        return Ok(point);
    }
    let name = &target.policy;
    if let PointRef::Number(number) = target.point
        && pick_leaving(state, target).is_ok()
    {
        return Err(Failure::new(format_args!(
            "point {number} of {name} has expired; `windlass point undo {name}@{number}` brings it back"
        )));
    }
    match of_policy().next_back() {
        Some(_) => {
            let oldest = of_policy().next().map(|point| site_time::shown(secs(point.wall_ns.0)));
            let what = match (&target.point, oldest) {
                (PointRef::Time(time), Some(oldest)) => {
                    format!("policy {name} has no point begun by {time}; its oldest was begun {oldest}")
                }
                (point, _) => format!("policy {name} has no point {point}"),
            };
            Err(Failure::new(format_args!("{what}; `windlass points {name}` lists them")))
        }
        None if state.policies.contains_key(name) => Err(Failure::new(policy::no_point(state, name))),
        None => Err(policy::missing(state, name)),
    }
}

/// The points of a policy that have a volume and have not expired, up to one of them, ascending.
pub fn with_volume(state: &State, policy: &str, volume: VolumeId, newest: BackupId) -> Vec<BackupId> {
    let has = |point: &&Point| {
        state.leaving(point.backup).is_none() && point.volumes.iter().any(|found| found.volume == volume)
    };
    let up_to = state.points.range(..=newest).map(|(_, point)| point);
    up_to.filter(|point| point.policy == policy).filter(has).map(|point| point.backup).collect()
}

/// The point and the volume in it that the options mean.
pub fn pick_volume<'a>(
    state: &'a State,
    target: &Target,
    volume: Option<&str>,
) -> Result<(&'a Point, VolumeId), Failure> {
    let point = pick(state, target)?;
    let device = |id: VolumeId| state.volumes.get(&id).map_or("?", |volume| volume.device.as_str());
    let fits = |id: &VolumeId| match volume {
        Some(wanted) => device(*id) == wanted || id.to_string() == wanted,
        None => true,
    };
    let fitting: Vec<VolumeId> = point.volumes.iter().map(|volume| volume.volume).filter(fits).collect();
    if let [id] = fitting[..] {
        return Ok((point, id));
    }
    let wants_missing = volume.is_some() && point.missing.iter().any(fits);
    let what = match volume {
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
