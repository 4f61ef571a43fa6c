//! Policies as the log has them, and the records that change them.
//!
//! A policy is changed by a record of the commit log, so two people who change it at once cannot both win unseen. Source: ours.

use serde_json::Value;
use windlass_agent::format::guard::{GuardPart, PointGuard};
use windlass_agent::format::record::{PolicyChange, Record};
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::{Refusal, State};
use windlass_agent::policy::schedule::{next_due, next_times};
use windlass_agent::policy::{Policy, check_name};
use windlass_agent::units::format_bytes;

use crate::engine::host::HostClock;
use crate::failure::Failure;

/// The policy as it is, unless there is none or it was removed.
pub fn existing(state: &State, name: &str) -> Result<Option<Policy>, Failure> {
    let Some(entry) = state.policies.get(name).filter(|entry| !entry.removed) else { return Ok(None) };
    Policy::parse(&entry.body).map(Some).map_err(|fault| Failure::at(format_args!("policy {name}"), fault))
}

/// The policy as it is, or a failure that says how to make one.
pub fn required(state: &State, name: &str) -> Result<Policy, Failure> {
    check_name(name).map_err(Failure::usage)?;
    existing(state, name)?.ok_or_else(|| missing(state, name))
}

/// There is no such policy: says which there are.
pub fn missing(state: &State, name: &str) -> Failure {
    let known: Vec<&str> =
        state.policies.iter().filter(|(_, entry)| !entry.removed).map(|(name, _)| name.as_str()).collect();
    if known.is_empty() {
        Failure::new(format_args!(
            "there is no policy {name}; make it with `windlass policy set {name} --volume DEV`"
        ))
    } else {
        Failure::new(format_args!("there is no policy {name}; there is {}", known.join(", ")))
    }
}

/// What is said of a policy that was made once and has no point.
pub fn no_point(state: &State, name: &str) -> String {
    match state.policies.get(name) {
        Some(entry) if entry.removed => format!(
            "policy {name} was deleted, and has no point any more; `windlass policy set {name} --volume DEV` makes it anew"
        ),
        _ => format!("policy {name} has no point yet; make one with `windlass backup {name}`"),
    }
}

/// Points count in blocks: their size stays.
pub fn check_block_size(state: &State, before: Option<&Policy>, policy: &Policy) -> Result<(), Failure> {
    match before {
        Some(before)
            if before.block_size != policy.block_size && state.last_point(&policy.name).is_some() =>
        {
            Err(Failure::usage(format_args!(
                "policy {}: its points count in blocks of {}; make a policy of another name for another block size",
                policy.name,
                format_bytes(before.block_size)
            )))
        }
        _ => Ok(()),
    }
}

/// The record. A device that the policy has or had keeps its number, so its points go on.
pub fn change(state: &State, policy: &Policy) -> Result<PolicyChange, Failure> {
    let body = policy.emit().map_err(Failure::usage)?;
    let revision = state.policies.get(&policy.name).map_or(0, |entry| entry.revision) + 1;
    let mut next = state.next_volume();
    let mut volumes: Vec<(VolumeId, String)> = Vec::with_capacity(policy.volumes.len());
    for volume in &policy.volumes {
        let mut all = state.volumes.iter();
        let known = all.find(|(_, known)| known.policy == policy.name && known.device == volume.device);
        let id = match (known, next) {
            (Some((id, _)), _) => *id,
            (None, Some(id)) => {
                next = id.0.checked_add(1).map(VolumeId);
                id
            }
            (None, None) => return Err(Failure::new("all volume numbers of the repository are used up")),
        };
        volumes.push((id, volume.device.clone()));
    }
    Ok(PolicyChange { name: policy.name.clone(), revision, body, volumes })
}

/// Backups by schedule that are shown.
const NEXT: usize = 3;

/// When the next backups of a policy by schedule are due, in nanoseconds since 1970; none without a schedule.
pub fn next(state: &State, policy: &Policy) -> Vec<i64> {
    let now = HostClock.wall_ns();
    let tried = state.tried.get(&policy.name).map(|tried| tried.wall_ns);
    let last = tried.or(state.last_start_ns(&policy.name));
    let Some(first) = next_due(policy, last, now) else { return Vec::new() };
    std::iter::once(first).chain(next_times(policy, first.max(now))).take(NEXT).collect()
}

/// A policy as `--json` prints it, and `policy set --from` takes it.
pub fn to_json(policy: &Policy) -> Value {
    // A policy is plain data with string keys: it always has a JSON form.
    serde_json::to_value(policy).unwrap_or(Value::Null)
}

/// Points that are there already stay as long as the policy says now, where that is longer.
pub fn longer_guards(state: &State, policy: &Policy) -> Vec<Record> {
    let points = state.points.values().filter(|point| point.policy == policy.name);
    let longer = points.filter_map(|point| {
        let before = state.guard_of(point.backup).unwrap_or_default();
        let guard = before.or_longer(policy.safety.guard(point.wall_ns.1));
        let part = GuardPart::Guard(guard);
        (guard != before).then_some(Record::PointGuarded(PointGuard { backup: point.backup, part }))
    });
    longer.collect()
}

/// The records that give a policy another name.
///
/// # Errors
/// There is no such policy, or the new name is taken.
pub fn renaming(state: &State, old: &str, new: &str) -> Result<Vec<Record>, Failure> {
    check_name(new).map_err(Failure::usage)?;
    let policy = Policy { name: new.to_owned(), ..required(state, old)? };
    if state.policies.contains_key(new) {
        return Err(Failure::new(format_args!("{new}: {}", Refusal::NameTaken)));
    }
    let entry = state.policies.get(old);
    let revision = entry.map_or(0, |entry| entry.revision) + 1;
    let body = policy.emit().map_err(Failure::usage)?;
    let device =
        |id: &VolumeId| state.volumes.get(id).map_or_else(String::new, |volume| volume.device.clone());
    let volumes = entry.map_or(&[][..], |entry| &entry.volumes).iter().map(|id| (*id, device(id))).collect();
    let change = PolicyChange { name: new.to_owned(), revision: revision + 1, body, volumes };
    let renamed = Record::PolicyRenamed { from: old.to_owned(), to: new.to_owned(), revision };
    Ok(vec![renamed, Record::PolicyChanged(change)])
}
