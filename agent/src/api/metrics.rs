//! Numbers of a node as Prometheus text 0.0.4 or OpenMetrics 1.0: what a node knows of its cluster, and what it did itself.
//!
//! A scrape costs no request to the store. Labels are names of policies, numbers of nodes and words of this file; paths and numbers of backups
//! are none, so the number of series does not grow with time. Of more policies than fit, those that are worst off are there, and
//! `windlass_policies_left_out` says how many are not.
//!
//! Invariants: at most [`SERIES_MAX`] series, each once; times are seconds since 1970, not ages, so that a scrape that comes late says the same.
//! Does not: keep anything: counters begin at 0 with each start of the agent. Source: OpenMetrics 1.0; prometheus.io, naming.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::health::{Health, Protection};

/// Series of a node at most: a fleet of ten thousand clusters is paid for by series.
pub const SERIES_MAX: usize = 300;
/// Policies that have series of their own, six each.
const POLICIES_SHOWN: usize = 28;
/// Running backups that have series, five each. No more run at once in a cluster of this size.
const RUNNING_SHOWN: usize = 4;
/// Nodes that have series, one each.
const NODES_SHOWN: usize = 32;

/// Requests to a store, and how they ended, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// By what was asked: name and count.
    pub requests: [(&'static str, u64); 7],
    /// Requests that failed, by the kind of fault.
    pub faults: [(&'static str, u64); 11],
    /// Bytes sent and received.
    pub bytes: (u64, u64),
}

/// What the API did since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCounts {
    /// Connections at present.
    pub connections: u64,
    /// Connections that were taken.
    pub accepted: u64,
    /// Connections that were closed by rule: name of the rule, and count.
    pub closed: [(&'static str, u64); 8],
    /// Requests by the class of their answer's status: 2xx to 5xx.
    pub answers: [(&'static str, u64); 4],
    /// Events that clients missed because they were slow.
    pub missed: u64,
}

/// What is told of a node.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Version of the program.
    pub version: &'a str,
    /// The node's number.
    pub node: u32,
    /// When the agent started, in seconds since 1970.
    pub started_secs: i64,
    /// The status that the coordinator gave, or the node itself.
    pub status: &'a Value,
    /// How old it is, in seconds.
    pub status_age_secs: f64,
    /// Whether this node coordinates.
    pub coordinates: bool,
    /// Health of the policies, worst first.
    pub health: &'a [Health],
    /// Things that wait in the node's queues.
    pub waits: u64,
    /// Requests to the store.
    pub store: StoreCounts,
    /// What the API did.
    pub api: ApiCounts,
    /// Memory of the process now and at most, in bytes, and its budget.
    pub memory_bytes: (u64, u64),
}

/// The kinds of families.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Info,
}

struct Text {
    out: String,
    is_open: bool,
    kind: Kind,
    name: &'static str,
    series: usize,
}

impl Text {
    /// Begins a family. `name` is without `_total` and `_info`.
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        (self.name, self.kind) = (name, kind);
        let (shown, word) = match (kind, self.is_open) {
            (Kind::Gauge, _) => (name.to_owned(), "gauge"),
            (Kind::Counter, true) => (name.to_owned(), "counter"),
            (Kind::Counter, false) => (format!("{name}_total"), "counter"),
            (Kind::Info, true) => (name.to_owned(), "info"),
            (Kind::Info, false) => (format!("{name}_info"), "gauge"),
        };
        // Writing to a string does not fail.
        let _ = write!(self.out, "# HELP {shown} {help}\n# TYPE {shown} {word}\n");
    }

    fn put(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) {
        if self.series >= SERIES_MAX {
            return;
        }
        self.series += 1;
        self.out.push_str(self.name);
        self.out.push_str(match self.kind {
            Kind::Gauge => "",
            Kind::Counter => "_total",
            Kind::Info => "_info",
        });
        for (nth, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{name}=\"", if nth == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A family of one series.
    fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.put(&[], value);
    }
}

fn secs(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(1_000_000_000)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The text, and how many series it has. `is_open`: OpenMetrics.
#[must_use]
pub fn text(facts: &Facts<'_>, is_open: bool) -> (String, usize) {
    let mut out =
        Text { out: String::with_capacity(8 << 10), is_open, kind: Kind::Gauge, name: "", series: 0 };
    out.family("windlass_build", Kind::Info, "Version of the program, and the number of the node.");
    out.put(&[("version", facts.version), ("node", &facts.node.to_string())], 1);
    out.one("windlass_start_timestamp_seconds", Kind::Gauge, "When the agent started.", facts.started_secs);
    cluster(facts, &mut out);
    policies(facts.health, &mut out);
    running(facts.status, &mut out);
    garbage(&facts.status["garbage"], &mut out);
    node(facts, &mut out);
    if is_open {
        out.out.push_str("# EOF\n");
    }
    (out.out, out.series)
}

fn cluster(facts: &Facts<'_>, out: &mut Text) {
    let coordinator = &facts.status["coordinator"];
    let is_held = coordinator["node"].is_u64();
    out.one(
        "windlass_coordinator_known",
        Kind::Gauge,
        "1: a node coordinates, or none needs to as there is nothing to do.",
        u8::from(is_held || coordinator["resting"] == true),
    );
    out.one(
        "windlass_coordinator_held",
        Kind::Gauge,
        "1: this node coordinates.",
        u8::from(facts.coordinates),
    );
    out.one("windlass_epoch", Kind::Gauge, "How often the lease was taken.", number(&coordinator["epoch"]));
    out.one(
        "windlass_status_age_seconds",
        Kind::Gauge,
        "How old what is said here of the cluster is.",
        facts.status_age_secs + number(&facts.status["age_s"]) as f64,
    );
    out.one(
        "windlass_store_healthy",
        Kind::Gauge,
        "0: the store fails, as the node sees it that answers.",
        u8::from(facts.status["store"].is_null()),
    );
    if let Some(ahead) = facts.status["clock_ahead_s"].as_i64() {
        out.one(
            "windlass_clock_ahead_seconds",
            Kind::Gauge,
            "How far the clock is ahead of the store's; missing: the two agree.",
            ahead,
        );
    }
    let nodes = list(&facts.status["nodes"]);
    out.family("windlass_node_up", Kind::Gauge, "1: the node that answers is connected to this one.");
    for node in nodes.iter().take(NODES_SHOWN) {
        out.put(&[("peer", &number(&node["node"]).to_string())], u8::from(node["up"] == true));
    }
    out.one("windlass_nodes", Kind::Gauge, "Nodes of the cluster, as far as they are known.", nodes.len());
    out.one(
        "windlass_errors",
        Kind::Gauge,
        "Faults that GET /v1/status lists and that nothing has ended yet.",
        list(&facts.status["errors"]).len(),
    );
}

fn policies(health: &[Health], out: &mut Text) {
    let shown = || health.iter().take(POLICIES_SHOWN);
    out.one("windlass_policies", Kind::Gauge, "Policies that there are.", health.len());
    let left_out = health.len().saturating_sub(POLICIES_SHOWN);
    out.one("windlass_policies_left_out", Kind::Gauge, "Policies without series of their own.", left_out);
    let bad = health.iter().filter(|one| one.protection.is_bad()).count();
    out.one(
        "windlass_policies_unprotected",
        Kind::Gauge,
        "Policies that are late, flawed or never had a good point.",
        bad,
    );
    out.family(
        "windlass_policy_last_good_point_timestamp_seconds",
        Kind::Gauge,
        "When the last complete point ended; 0: there is none.",
    );
    shown().for_each(|one| out.put(&[("policy", &one.policy)], one.good.map_or(0, |good| secs(good.2))));
    out.family(
        "windlass_policy_due_timestamp_seconds",
        Kind::Gauge,
        "When the backup after that is due by schedule; missing without one.",
    );
    for (one, due) in shown().filter_map(|one| Some((one, one.due_ns?))) {
        out.put(&[("policy", &one.policy)], secs(due));
    }
    out.family("windlass_policy_protected", Kind::Gauge, "0: late, flawed, or never had a good point.");
    shown().for_each(|one| out.put(&[("policy", &one.policy)], u8::from(!one.protection.is_bad())));
    out.family("windlass_policy_points", Kind::Gauge, "Points that the policy has.");
    shown().for_each(|one| out.put(&[("policy", &one.policy)], one.points));
    out.family("windlass_policy_last_point_bytes", Kind::Gauge, "Bytes of contents of the newest point.");
    shown().for_each(|one| out.put(&[("policy", &one.policy)], one.newest.map_or(0, |newest| newest.0)));
    out.family(
        "windlass_policy_last_point_faults",
        Kind::Gauge,
        "Items and volumes that the newest point is without, in whole or in part.",
    );
    shown().for_each(|one| out.put(&[("policy", &one.policy)], one.newest.map_or(0, |newest| newest.2)));
    out.family("windlass_policies_by_protection", Kind::Gauge, "Policies by how they are.");
    for kind in
        [Protection::Never, Protection::Late, Protection::Flawed, Protection::Unused, Protection::Good]
    {
        let count = health.iter().filter(|one| one.protection == kind).count();
        out.put(&[("protection", kind.name())], count);
    }
}

fn running(status: &Value, out: &mut Text) {
    let all = list(&status["backups"]);
    out.one("windlass_backups_running", Kind::Gauge, "Backups that run.", all.len());
    out.one(
        "windlass_backups_queued",
        Kind::Gauge,
        "Policies whose backup has not begun.",
        list(&status["queue"]).len(),
    );
    let families: [(&'static str, &str, &str); 4] = [
        (
            "windlass_backup_done_bytes",
            "bytes_done",
            "Bytes of contents that the running backup of a policy has done.",
        ),
        ("windlass_backup_expected_bytes", "bytes_total", "Bytes of contents that it has; 0: not known."),
        ("windlass_backup_done_items", "items_done", "Items that it has done."),
        ("windlass_backup_rate_bytes_per_second", "rate", "How fast it is since it began."),
    ];
    for (name, field, help) in families {
        out.family(name, Kind::Gauge, help);
        for backup in all.iter().take(RUNNING_SHOWN) {
            out.put(&[("policy", backup["policy"].as_str().unwrap_or_default())], number(&backup[field]));
        }
    }
    out.family("windlass_backup_waiting", Kind::Gauge, "1: nothing goes on of it at present.");
    for backup in all.iter().take(RUNNING_SHOWN) {
        let waits = u8::from(backup["waits"].is_string());
        out.put(&[("policy", backup["policy"].as_str().unwrap_or_default())], waits);
    }
}

fn garbage(garbage: &Value, out: &mut Text) {
    out.one(
        "windlass_garbage_waiting_bytes",
        Kind::Gauge,
        "Bytes of objects that nothing needs and that are still to be deleted.",
        number(&garbage["waiting_bytes"]),
    );
    out.one(
        "windlass_garbage_waiting_names",
        Kind::Gauge,
        "The same in names.",
        number(&garbage["waiting_names"]),
    );
    out.one(
        "windlass_live_bytes",
        Kind::Gauge,
        "Bytes in use, as the last garbage run found.",
        number(&garbage["live_bytes"]),
    );
    out.one(
        "windlass_garbage_run_timestamp_seconds",
        Kind::Gauge,
        "When the last garbage run ended; 0: there was none.",
        garbage["ended_wall_ns"].as_i64().map_or(0, secs),
    );
    out.one(
        "windlass_garbage_run_faults",
        Kind::Gauge,
        "Steps of the last garbage run that failed.",
        number(&garbage["faults"]),
    );
}

fn node(facts: &Facts<'_>, out: &mut Text) {
    out.one(
        "windlass_queue_length",
        Kind::Gauge,
        "Orders, commands and calls that wait in this node.",
        facts.waits,
    );
    out.family(
        "windlass_store_requests",
        Kind::Counter,
        "Requests of this node to the store, repeats included.",
    );
    facts.store.requests.iter().for_each(|(kind, count)| out.put(&[("kind", kind)], count));
    out.family("windlass_store_faults", Kind::Counter, "Requests that failed, by kind of fault.");
    facts.store.faults.iter().for_each(|(kind, count)| out.put(&[("kind", kind)], count));
    out.one(
        "windlass_store_sent_bytes",
        Kind::Counter,
        "Bytes of bodies sent to the store.",
        facts.store.bytes.0,
    );
    out.one(
        "windlass_store_received_bytes",
        Kind::Counter,
        "Bytes of bodies received from the store.",
        facts.store.bytes.1,
    );
    out.one("windlass_memory_bytes", Kind::Gauge, "Memory of the agent at its peak.", facts.memory_bytes.0);
    out.one(
        "windlass_memory_budget_bytes",
        Kind::Gauge,
        "What its profile lets it have.",
        facts.memory_bytes.1,
    );
    out.one("windlass_api_connections", Kind::Gauge, "Clients of the API at present.", facts.api.connections);
    out.one("windlass_api_accepted", Kind::Counter, "Connections that the API took.", facts.api.accepted);
    out.family("windlass_api_closed", Kind::Counter, "Connections that the API closed by rule.");
    facts.api.closed.iter().for_each(|(rule, count)| out.put(&[("rule", rule)], count));
    out.family("windlass_api_answers", Kind::Counter, "Answers of the API by class of status.");
    facts.api.answers.iter().for_each(|(class, count)| out.put(&[("class", class)], count));
    out.one(
        "windlass_api_events_missed",
        Kind::Counter,
        "Events that slow clients of the API missed.",
        facts.api.missed,
    );
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
