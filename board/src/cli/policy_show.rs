//! `policy show`: what counts for a policy, where each value comes from, and when its next backups are.
//!
//! | FROM | means |
//! |---|---|
//! | policy | the policy says so |
//! | repository | it is the same for all policies of the repository (`repo set`) |
//! | default | nothing says so |
//!
//! Limits of a node are in its profile (`board explain`), and the lower one holds. Source: ours.

use windlass_agent::log::lease::Timing;
use windlass_agent::log::state::State;
use windlass_agent::policy::Policy;
use windlass_agent::units::{format_bytes, format_duration_ms};

use crate::cli::args::global::Global;
use crate::cli::output::{Align, Output};
use crate::engine::host::HostClock;
use crate::engine::policy::{next, required, to_json};
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::site_time;

const NS_PER_MS: u64 = 1_000_000;

/// `policy show`.
pub fn run(global: &Global, name: &str, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let policy = required(&state, name)?;
    output
        .table(&[("VALUE", Align::Left), ("IS", Align::Left), ("FROM", Align::Left)], &rows(&state, &policy));
    let next = next(&state, &policy);
    if let Some(first) = next.first() {
        output.say("the next backups by schedule, while an agent runs:");
        let now = HostClock.wall_ns();
        let due = if *first <= now {
            "  due now; then".to_owned()
        } else {
            format!("  {}", policy.zone.show(*first))
        };
        output.say(due);
        next.iter().skip(1).for_each(|&time| output.say(format_args!("  {}", policy.zone.show(time))));
    }
    output.document(&to_json(&policy));
    Ok(Exit::Done)
}

fn rows(state: &State, policy: &Policy) -> Vec<Vec<String>> {
    let plain = Policy::new(&policy.name, policy.volumes.clone());
    let from = |is_default: bool| if is_default { "default" } else { "policy" };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String, from: &str| {
        rows.push(vec![name.to_owned(), value, from.to_owned()]);
    };
    let volumes = policy.volumes.iter().map(|volume| format!("{}={}", volume.device, volume.reader));
    row("volumes", volumes.collect::<Vec<_>>().join(", "), "policy");
    let all = |patterns: &[String], none: &str| {
        if patterns.is_empty() { none.to_owned() } else { patterns.join(" ") }
    };
    row("include", all(&policy.include, "everything"), from(policy.include.is_empty()));
    row("exclude", all(&policy.exclude, "nothing"), from(policy.exclude.is_empty()));
    row("block size", format_bytes(policy.block_size), from(policy.block_size == plain.block_size));
    row("object size", format_bytes(policy.object_size), from(policy.object_size == plain.object_size));
    let flush = policy.flush_interval;
    row("flush interval", format_duration_ms(flush), from(flush == plain.flush_interval));
    row("compression", policy.compression.to_string(), from(policy.compression == plain.compression));
    let rate =
        |limit: Option<u64>| limit.map_or("none".to_owned(), |bytes| format!("{}/s", format_bytes(bytes)));
    let limits = &policy.limits;
    row("upload limit", rate(limits.upload), from(limits.upload.is_none()));
    row("download limit", rate(limits.download), from(limits.download.is_none()));
    let iops = limits.device_iops.map_or("none".to_owned(), |iops| iops.to_string());
    row("device IOPS limit", iops, from(limits.device_iops.is_none()));
    for hours in &limits.hours {
        row("limits by time", hours.to_string(), "policy");
    }
    row("verify", format!("{} items", policy.verify), from(policy.verify == 0));
    let blocks = if policy.all_blocks { "stored" } else { "left out of images" };
    row("free blocks", blocks.to_owned(), from(!policy.all_blocks));
    let schedule = policy.schedule.as_ref().map_or("none: on request".to_owned(), ToString::to_string);
    row("schedule", schedule, from(policy.schedule.is_none()));
    if let Some(since) = policy.schedule.as_ref().and_then(|schedule| schedule.since) {
        row("schedule since", site_time::shown(since), "policy");
    }
    row("zone", policy.zone.to_string(), from(policy.zone.is_utc()));
    let rules = &policy.retention;
    row("retention", retention(policy), from(rules.is_none()));
    let safety = &policy.safety;
    let span = |ms: u64| if ms == 0 { "none".to_owned() } else { format_duration_ms(ms) };
    row("minimum age", span(safety.min_age), from(safety.min_age == 0));
    row("undo", span(safety.undo), from(safety.undo == 0));
    let approval = match safety.approval {
        None => "by one subject".to_owned(),
        Some(0) => "a second subject approves".to_owned(),
        Some(ms) => format!("a second subject approves, {} later at the earliest", format_duration_ms(ms)),
    };
    row("removal", approval, from(safety.approval.is_none()));
    row("priority", policy.priority.to_string(), from(policy.priority == 0));
    let lease = state.lease_ns.unwrap_or(Timing::default().lease_ns) / NS_PER_MS;
    row("lease", format_duration_ms(lease), if state.lease_ns.is_some() { "repository" } else { "default" });
    rows
}

/// The rules as the options that make them.
fn retention(policy: &Policy) -> String {
    // Rules are plain data with string keys: they always have a JSON form.
    let rules = serde_json::to_value(&policy.retention).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let each = rules.as_object().into_iter().flatten().map(|(rule, value)| format!("{rule} {}", text(value)));
    let rules: Vec<String> = each.collect();
    if rules.is_empty() { "none: all points stay".to_owned() } else { rules.join(", ") }
}
