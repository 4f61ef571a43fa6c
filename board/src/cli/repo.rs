//! `repo init`, `probe`, `info`, `set`.
//!
//! Source: ours.

use serde_json::{Value, json};
use windlass_agent::coordinator::merges::RETIRED_BY_MERGES_MAX;
use windlass_agent::coordinator::status;
use windlass_agent::format::garbage::{self, GarbageNews};
use windlass_agent::format::record::Record;
use windlass_agent::format::repo::Lock;
use windlass_agent::format::wrap::SlotKind;
use windlass_agent::id::BackupId;
use windlass_agent::log::lease::Timing;
use windlass_agent::log::limits::{LEASE_NS_MAX, LEASE_NS_MIN};
use windlass_agent::log::state::{Running, State};
use windlass_agent::store::probe::Report;
use windlass_agent::store::{Store, Versioning};
use windlass_agent::units::{Grouped, Human, HumanTime};

use crate::cli::args::global::Global;
use crate::cli::args::repo::{RepoInit, RepoProbe, RepoSet};
use crate::cli::args::value::Duration;
use crate::cli::output::Output;
use crate::cli::through::{self, Through};
use crate::engine::repository::{Opened, Repository};
use crate::engine::settings::Access;
use crate::failure::{Exit, Failure};
use crate::{site_time, text};
use windlass_agent::civil::iso_utc;

/// `repo init`.
pub fn init(global: &Global, args: &RepoInit, output: &Output) -> Result<Exit, Failure> {
    let access = Access { also_endpoints: args.also_endpoint.clone(), ..Access::from(global) };
    let repository = Repository::init(access, !args.no_encryption, args.location_blocks, args.force)?;
    let place = repository.opened.store.describe();
    let id = text::uuid(&repository.format.uuid);
    output.say(format_args!(
        "repository {id} made at {place}; encryption: {}",
        encryption(&repository.format.lock)
    ));
    output.document(&json!({
        "repository": id,
        "store": place,
        "opened_by": opened_by(&repository.format.lock),
        "location_blocks": repository.format.location_blocks,
    }));
    Ok(Exit::Done)
}

/// What opens the repository; nothing when it is not encrypted.
fn opened_by(lock: &Lock) -> Vec<&'static str> {
    match lock {
        Lock::Clear(_) => Vec::new(),
        Lock::Slots(slots) => slots
            .iter()
            .map(|slot| match slot.kind {
                SlotKind::KeyFile => "key file",
                SlotKind::Passphrase { .. } => "passphrase",
            })
            .collect(),
    }
}

/// The same in words.
fn encryption(lock: &Lock) -> String {
    match opened_by(lock).join(" or ") {
        nothing if nothing.is_empty() => "no".to_owned(),
        keys => format!("yes ({keys})"),
    }
}

/// `repo probe`.
pub fn probe(global: &Global, args: &RepoProbe, output: &Output) -> Result<Exit, Failure> {
    let access = Access { also_endpoints: args.also_endpoint.clone(), ..Access::from(global) };
    let opened = Opened::new(access)?;
    let place = opened.store.describe();
    let probed = opened.probe()?;
    let mut document = probe_document(&probed.log);
    show_report(&opened.log_place(), &probed.log, output);
    if let Some(report) = &probed.objects {
        show_report(&opened.objects_place(), report, output);
        document["log_store"] = opened.log_place().into();
        document["objects"] = probe_document(report);
    }
    output.say(format_args!("{place} does all that a repository needs"));
    document["store"] = place.into();
    document["ok"] = true.into();
    output.document(&document);
    Ok(Exit::Done)
}

fn probe_document(report: &Report) -> Value {
    let versioning = match report.versioning {
        Versioning::On => "on",
        Versioning::Suspended => "suspended",
        Versioning::Off => "off",
        Versioning::NotTold => "not told",
    };
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|(check, ns)| json!({ "check": check.to_string(), "elapsed_ms": ns / 1_000_000 }))
        .collect();
    json!({
        "versioning": versioning, "races_repeated": report.races_repeated, "ways": report.ways, "checks": checks,
    })
}

fn show_report(place: &str, report: &Report, output: &Output) {
    output.say(place);
    for (check, ns) in &report.checks {
        output.say(format_args!("ok    {:<50} {}", check.to_string(), HumanTime(*ns)));
    }
    if report.ways > 1 {
        output.say(format_args!("raced over {} addresses or servers", report.ways));
    }
    if matches!(report.versioning, Versioning::On | Versioning::Suspended) {
        output.say(
            "note: the bucket keeps versions, so deletes free no space; let a lifecycle rule remove old ones",
        );
    }
}

/// `repo set`.
pub fn set(
    global: &Global,
    args: &RepoSet,
    through: Option<Through>,
    output: &Output,
) -> Result<Exit, Failure> {
    if args.lease.is_none() && args.gc_every.is_none() && args.gc_window.is_none() {
        return Err(Failure::usage("say what to set: --lease, --gc-every, --gc-window"));
    }
    let lease_ns = args.lease.map(|lease| lease.0.saturating_mul(1_000_000));
    if let Some(lease_ns) = lease_ns {
        check_lease(lease_ns)?;
    }
    let sets_gc = args.gc_every.is_some() || args.gc_window.is_some();
    let ns = |said: Option<Duration>, or: u64| said.map_or(or, |said| said.0.saturating_mul(1_000_000));
    let (lease_before_ns, gc_before, gc) = through::submit(global, through, |state, _| {
        let before = state.garbage.settings();
        let gc = garbage::Settings {
            every_ns: ns(args.gc_every, before.every_ns),
            window_ns: ns(args.gc_window, before.window_ns),
        };
        let lease = lease_ns.map(|lease_ns| Record::LeaseSet { lease_ns }).into_iter();
        let gc_record = sets_gc.then_some(Record::Garbage(GarbageNews::Settings(gc)));
        Ok((lease.chain(gc_record).collect(), (lease_of(state), before, gc)))
    })?;
    if let Some(lease_ns) = lease_ns {
        output.say(format_args!(
            "lease {}, from the next time that the lock is taken (it was {}); it goes before lease_ms of board profiles",
            HumanTime(lease_ns),
            HumanTime(lease_before_ns)
        ));
    }
    if sets_gc {
        output.say(format_args!("gc     {} (it was {})", gc_text(gc), gc_text(gc_before)));
    }
    output.document(&json!({
        "lease_ms": lease_ns.unwrap_or(lease_before_ns) / 1_000_000,
        "lease_ms_before": lease_before_ns / 1_000_000,
        "gc_every_ms": gc.every_ns / 1_000_000,
        "gc_every_ms_before": gc_before.every_ns / 1_000_000,
        "gc_window_ms": gc.window_ns / 1_000_000,
        "gc_window_ms_before": gc_before.window_ns / 1_000_000,
    }));
    Ok(Exit::Done)
}

/// How garbage is treated, for people.
fn gc_text(settings: garbage::Settings) -> String {
    let every = match settings.every_ns {
        0 => "only by command".to_owned(),
        every_ns => format!("every {}", HumanTime(every_ns)),
    };
    format!("{every}, names are kept for {}", HumanTime(settings.window_ns))
}

fn check_lease(lease_ns: u64) -> Result<(), Failure> {
    let (least, most) = (HumanTime(LEASE_NS_MIN), HumanTime(LEASE_NS_MAX));
    if lease_ns < LEASE_NS_MIN {
        return Err(Failure::usage(format_args!(
            "--lease {}: {least} is the shortest: a store that takes a moment to answer would cost the lock",
            HumanTime(lease_ns)
        )));
    }
    if lease_ns > LEASE_NS_MAX {
        return Err(Failure::usage(format_args!(
            "--lease {}: {most} is the longest: nobody can take over from what died before that",
            HumanTime(lease_ns)
        )));
    }
    Ok(())
}

/// How long a lease of the repository lasts, in nanoseconds.
fn lease_of(state: &State) -> u64 {
    state.lease_ns.unwrap_or(Timing::default().lease_ns)
}

/// Backups that began and did not end, by policy: at work, or stopped and to be gone on with.
fn unfinished(state: &State) -> String {
    let each = |(backup, running): (BackupId, &Running)| {
        format!("backup {backup} of {}, {} stored", running.policy, Human(running.totals.bytes_stored))
    };
    let all: Vec<String> = state.at_work().map(each).collect();
    if all.is_empty() { "none".to_owned() } else { all.join("; ") }
}

/// `repo info`.
pub fn info(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let view = repository.view()?;
    let (format, state) = (&repository.format, &view.state);
    let (place, id) = (repository.opened.objects_place(), text::uuid(&format.uuid));
    let lease_store = repository.opened.split.as_ref().map(|split| split.log().describe());
    let policies = state.policies.values().filter(|policy| !policy.removed).count();
    let segments: usize = state.segments.values().map(|list| list.len()).sum();
    output.say(format_args!("repository  {id}"));
    output.say(format_args!("store       {place}"));
    if format.store_identity != place {
        output.say(format_args!("made at     {} (this is a copy, or it was moved)", format.store_identity));
    }
    let credentials = repository.opened.store.credentials();
    if let Some(credentials) = &credentials {
        output.say(format_args!("credentials {credentials}"));
    }
    if let Some(log) = &lease_store {
        output.say(format_args!("log store   {log}"));
    }
    output.say(format_args!("made        {}", site_time::shown(format.created_secs)));
    output.say(format_args!("encryption  {}", encryption(&format.lock)));
    output.say(format_args!("log         entry {}, lock taken {} times", view.head, state.epoch));
    output.say(format_args!("lease       {}", HumanTime(lease_of(state))));
    output.say(format_args!("policies    {policies}"));
    output.say(format_args!("points      {}", Grouped(state.points.len() as u64)));
    output.say(format_args!("unfinished  {}", unfinished(state)));
    output.say(format_args!("segments    {}", Grouped(segments as u64)));
    output.say(format_args!(
        "retired     {} of {} names that merges may leave",
        Grouped(state.retired.len() as u64),
        Grouped(RETIRED_BY_MERGES_MAX as u64)
    ));
    output.say(format_args!("gc          {}", gc_text(state.garbage.settings())));
    if let Some(done) = state.garbage.done {
        output.say(format_args!(
            "garbage     {} live at the last run, {} deleted by it, {} still to come back",
            Human(done.live_bytes),
            Human(done.deleted_bytes),
            Human(state.garbage.waiting_bytes())
        ));
    }
    let mut features: Vec<&str> =
        format.features.keys().chain(state.features.keys()).map(|name| name.as_str()).collect();
    features.sort_unstable();
    features.dedup();
    if !features.is_empty() {
        output.say(format_args!("features    {}", features.join(", ")));
    }
    output.document(&json!({
        "features": features,
        "repository": id,
        "store": place,
        "credentials": credentials,
        "log_store": lease_store,
        "made_at": format.store_identity,
        "created": iso_utc(format.created_secs),
        "opened_by": opened_by(&format.lock),
        "location_blocks": format.location_blocks,
        "slot": view.head.0,
        "epoch": state.epoch.0,
        "lease_ms": lease_of(state) / 1_000_000,
        "policies": policies,
        "points": state.points.len(),
        "unfinished": state.at_work().count(),
        "segments": segments,
        "retired": state.retired.len(),
        "retired_by_merges_max": RETIRED_BY_MERGES_MAX,
        "garbage": status::garbage(state),
    }));
    Ok(Exit::Done)
}
