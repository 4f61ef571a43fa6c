//! `repo init`, `probe`, `info`, `rebuild`.
//!
//! Source: ours.

use serde_json::json;
use windlass_agent::format::repo::Lock;
use windlass_agent::format::wrap::SlotKind;
use windlass_agent::store::{Store, Versioning, probe};
use windlass_agent::units::{Grouped, HumanTime};

use crate::args::RepoInit;
use crate::args::global::Global;
use crate::calendar::iso_utc;
use crate::failure::{Exit, Failure};
use crate::host::{self, HostClock};
use crate::output::Output;
use crate::repository::{Opened, Repository};
use crate::text;

/// `repo init`.
pub fn init(global: &Global, args: &RepoInit, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::init(global, !args.no_encryption, args.location_blocks)?;
    let place = repository.opened.store.describe();
    let id = text::uuid(&repository.format.uuid);
    output.say(format_args!("repository {id} made at {place}, {}", lock_text(&repository.format.lock)));
    output.document(&json!({
        "repository": id,
        "store": place,
        "lock": lock_text(&repository.format.lock),
        "location_blocks": repository.format.location_blocks,
    }));
    Ok(Exit::Done)
}

/// How the master key is kept, in words.
fn lock_text(lock: &Lock) -> String {
    match lock {
        Lock::Clear(_) => "not encrypted".to_owned(),
        Lock::Slots(slots) => {
            let words = slots.iter().map(|slot| match slot.kind {
                SlotKind::KeyFile => "key file",
                SlotKind::Passphrase { .. } => "passphrase",
            });
            format!("encrypted, opened by {}", words.collect::<Vec<_>>().join(" or "))
        }
    }
}

/// `repo probe`.
pub fn probe(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let opened = Opened::new(global)?;
    let place = opened.store.describe();
    let report = probe::probe(&*opened.store, &*HostClock::shared(), host::boot()?.0)
        .map_err(|fault| Failure::at(&place, fault))?;
    let versioning = match report.versioning {
        Versioning::On => "on",
        Versioning::Suspended => "suspended",
        Versioning::Off => "off",
        Versioning::NotTold => "not told",
    };
    for (check, ns) in &report.checks {
        output.say(format_args!("ok    {:<50} {}", check.to_string(), HumanTime(*ns)));
    }
    output.say(format_args!("{place} does all that a repository needs"));
    if matches!(report.versioning, Versioning::On | Versioning::Suspended) {
        output.say(
            "note: the bucket keeps versions, so deletes free no space; let a lifecycle rule remove old ones",
        );
    }
    let checks: Vec<_> =
        report.checks.iter().map(|(check, ns)| json!({"check": check.to_string(), "ns": ns})).collect();
    output.document(&json!({
        "store": place,
        "ok": true,
        "versioning": versioning,
        "races_repeated": report.races_repeated,
        "checks": checks,
    }));
    Ok(Exit::Done)
}

/// `repo info`.
pub fn info(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let view = repository.view()?;
    let (format, state) = (&repository.format, &view.state);
    let (place, id) = (repository.opened.store.describe(), text::uuid(&format.uuid));
    let policies = state.policies.values().filter(|policy| !policy.removed).count();
    let segments: usize = state.segments.values().map(|list| list.len()).sum();
    output.say(format_args!("repository  {id}"));
    output.say(format_args!("store       {place}"));
    if format.store_identity != place {
        output.say(format_args!("made at     {} (this is a copy, or it was moved)", format.store_identity));
    }
    output.say(format_args!("made        {}", iso_utc(format.created_secs)));
    output.say(format_args!("lock        {}", lock_text(&format.lock)));
    output.say(format_args!("log         slot {}, epoch {}", view.head, state.epoch));
    output.say(format_args!("policies    {policies}"));
    output.say(format_args!("points      {}", Grouped(state.points.len() as u64)));
    output.say(format_args!("running     {}", state.running.len()));
    output.say(format_args!("segments    {}", Grouped(segments as u64)));
    output.document(&json!({
        "repository": id,
        "store": place,
        "made_at": format.store_identity,
        "created": iso_utc(format.created_secs),
        "lock": lock_text(&format.lock),
        "location_blocks": format.location_blocks,
        "slot": view.head.0,
        "epoch": state.epoch.0,
        "policies": policies,
        "points": state.points.len(),
        "running": state.running.len(),
        "segments": segments,
    }));
    Ok(Exit::Done)
}

/// `repo rebuild`.
pub fn rebuild(global: &Global, _output: &Output) -> Result<Exit, Failure> {
    let _ = Repository::open(global)?;
    Err(Failure::new("repo rebuild: not wired yet"))
}
