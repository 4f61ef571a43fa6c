//! A profile with its defaults filled in, and the memory sum: as lines for people, as a document for programs.
//!
//! Source: ours.

use std::path::PathBuf;

use serde_json::{Value, json};
use windlass_agent::units::{Human, format_duration_ms};

use super::read::At;
use super::{LeasePlace, Profile};

/// Width of the names' column.
const NAMES: usize = 30;

/// The lines.
pub fn lines(profile: &Profile) -> Vec<String> {
    let mut out = Table(Vec::with_capacity(64));
    out.head("node");
    out.put("id", profile.node.id);
    out.put("name", &profile.node.name.value);
    repository(profile, &mut out);
    out.head("work");
    let work = &profile.work;
    out.put("weight", format_args!("{} of 1000", work.weight));
    let all = if work.cores.is_none() { " (all of this machine)" } else { "" };
    out.put("cores", format_args!("{}{all}", profile.cores()));
    out.put("uplinks", work.uplinks);
    out.head("limits");
    out.put("upload_kib_s", none_or(profile.limits.upload_kib_s.as_ref()));
    out.put("download_kib_s", none_or(profile.limits.download_kib_s.as_ref()));
    out.put("device_iops", none_or(profile.limits.device_iops.as_ref()));
    cluster(profile, &mut out);
    for volume in &profile.volume {
        out.head(&format!("volume {}", volume.title()));
        out.put("device", volume.device.display());
        out.put("reader", volume.reader);
        let unknown =
            "none: an interrupted backup goes on only where the volume itself proves that it did not change";
        out.put("snapshot", volume.snapshot.as_deref().unwrap_or(unknown));
    }
    memory(profile, &mut out);
    out.0
}

/// The same for programs, in the sections of the file; what is not set is null.
pub fn document(profile: &Profile) -> Value {
    let (own, work, limits, timing) = (&profile.repository, &profile.work, &profile.limits, profile.timing());
    let path = |path: &Option<At<PathBuf>>| path.as_ref().map(|path| path.display().to_string());
    let ms = |ns: u64| ns / 1_000_000;
    let block_bytes = profile.block_bytes_max();
    // The reader of a profile has refused a budget that is too small.
    let parts: Vec<Value> = profile.budget().map_or_else(
        |_| Vec::new(),
        |budget| {
            let sum = budget.sum(profile.memory_bytes(), block_bytes);
            sum.iter().map(|part| json!({ "what": part.what, "bytes": part.bytes })).collect()
        },
    );
    let backplane = profile.backplane.as_ref().map(|plane| {
        json!({
            "listen": plane.listen.value.to_string(),
            "cert_file": plane.cert_file.display().to_string(),
            "key_file": plane.key_file.display().to_string(),
            "ca_file": plane.ca_file.display().to_string(),
        })
    });
    let api = profile.api.as_ref().map(|api| {
        json!({
            "listen": api.listen.as_ref().map(|listen| listen.value.to_string()),
            "cert_file": path(&api.cert_file),
            "key_file": path(&api.key_file),
            "client_ca_file": path(&api.client_ca_file),
            "socket": path(&api.socket),
            "group": api.group,
        })
    });
    let peers = profile
        .peer
        .iter()
        .map(|peer| json!({ "node": peer.node.value, "address": peer.address.value.to_string() }));
    let volumes = profile.volume.iter().map(|volume| {
        json!({
            "name": volume.title(),
            "device": volume.device.display().to_string(),
            "reader": volume.reader.to_string(),
            "snapshot": volume.snapshot,
        })
    });
    json!({
        "node": { "id": profile.node.id, "name": profile.node.name.value },
        "repository": {
            "url": own.url.as_ref().map(|url| &url.value),
            "key_file": path(&own.key_file),
            "passphrase_file": path(&own.passphrase_file),
            "endpoint": own.endpoint,
            "region": own.region,
            "ca_file": path(&own.ca_file),
            "credentials_file": path(&own.credentials_file),
            "credentials_profile": own.credentials_profile,
            "path_style": own.path_style,
        },
        "work": { "weight": work.weight, "cores": profile.cores(), "uplinks": work.uplinks },
        "limits": {
            "upload_kib_s": limits.upload_kib_s,
            "download_kib_s": limits.download_kib_s,
            "device_iops": limits.device_iops,
        },
        "backplane": backplane,
        "peers": peers.collect::<Vec<_>>(),
        "control": { "socket": profile.control.socket.display().to_string(), "group": profile.control.group },
        "api": api,
        "lease": {
            "store": match &profile.lease.store.value {
                LeasePlace::Repository => "repository",
                LeasePlace::Own(url) => url,
            },
            "lease_ms": ms(timing.lease_ns),
            "beat_ms": ms(timing.beat_ns),
            "margin_ms": ms(timing.margin_ns),
        },
        "volumes": volumes.collect::<Vec<_>>(),
        "memory": {
            "budget_mib": profile.memory.budget_mib.value,
            "block_kib_max": profile.memory.block_kib_max.value,
            "parts": parts,
        },
    })
}

struct Table(Vec<String>);

impl Table {
    fn head(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push(String::new());
        }
        self.0.push(format!("[{name}]"));
    }

    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push(format!("  {name:<NAMES$} {value}"));
    }
}

fn none_or<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), T::to_string)
}

fn repository(profile: &Profile, out: &mut Table) {
    let own = &profile.repository;
    let path = |path: &Option<At<PathBuf>>| path.as_ref().map(|path| path.display().to_string());
    out.head("repository");
    let texts = [
        ("url", own.url.as_ref().map(|url| url.value.clone()), "from WINDLASS_REPO"),
        ("key_file", path(&own.key_file), "none, or from WINDLASS_KEY_FILE"),
        ("passphrase_file", path(&own.passphrase_file), "none, or from WINDLASS_PASSPHRASE_FILE"),
        ("endpoint", own.endpoint.clone(), "AWS, Azure or Google, or from WINDLASS_ENDPOINT"),
        ("region", own.region.clone(), "us-east-1, or from WINDLASS_REGION"),
        ("ca_file", path(&own.ca_file), "the system's, or from WINDLASS_CA_FILE"),
        (
            "credentials_file",
            path(&own.credentials_file),
            "the usual chain, or from WINDLASS_CREDENTIALS_FILE",
        ),
        ("credentials_profile", own.credentials_profile.clone(), "default, or from WINDLASS_PROFILE"),
    ];
    for (name, value, missing) in texts {
        out.put(name, value.as_deref().unwrap_or(missing));
    }
    out.put("path_style", own.path_style);
}

fn cluster(profile: &Profile, out: &mut Table) {
    out.head("backplane");
    match &profile.backplane {
        None => out.put("listen", "none: this node is a cluster of its own"),
        Some(plane) => {
            out.put("listen", plane.listen.value);
            out.put("cert_file", plane.cert_file.display());
            out.put("key_file", plane.key_file.display());
            out.put("ca_file", plane.ca_file.display());
        }
    }
    for peer in &profile.peer {
        out.put(&format!("peer {}", peer.node.value), peer.address.value);
    }
    out.head("control");
    out.put("socket", profile.control.socket.display());
    let group = profile.control.group.as_deref();
    out.put("group", group.unwrap_or("none: root and the agent's own user alone may connect"));
    out.head("api");
    match &profile.api {
        None => out.put("listen", "none: programs and browsers do not reach this node"),
        Some(api) => {
            let shown = |file: &Option<At<PathBuf>>| {
                file.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string())
            };
            out.put("listen", none_or(api.listen.as_ref().map(|listen| &listen.value)));
            out.put("cert_file", shown(&api.cert_file));
            out.put("key_file", shown(&api.key_file));
            out.put("client_ca_file", shown(&api.client_ca_file));
            out.put("socket", shown(&api.socket));
            out.put("group", none_or(api.group.as_ref()));
        }
    }
    out.head("lease");
    match &profile.lease.store.value {
        LeasePlace::Repository => out.put("store", "the repository's own"),
        LeasePlace::Own(url) => out.put("store", url),
    }
    let timing = profile.timing();
    let ms = |ns: u64| format_duration_ms(ns / 1_000_000);
    out.put("lease_ms", ms(timing.lease_ns));
    out.put("beat_ms", ms(timing.beat_ns));
    out.put("margin_ms", ms(timing.margin_ns));
    out.put(
        "a dead coordinator is replaced",
        format_args!("after {} or a little more", ms(timing.wait_ns())),
    );
}

fn memory(profile: &Profile, out: &mut Table) {
    out.head("memory");
    out.put("block_kib_max", profile.memory.block_kib_max.value);
    // The reader of a profile has refused a budget that is too small.
    let Ok(budget) = profile.budget() else { return };
    let block_bytes = profile.block_bytes_max();
    let line = |bytes: u64, what: &str| format!("  {:>10}  {what}", Human(bytes).to_string());
    for part in budget.sum(profile.memory_bytes(), block_bytes) {
        out.0.push(line(part.bytes, part.what));
    }
    out.0.push(line(profile.memory_bytes(), "budget_mib"));
    out.put("pack lanes", budget.lanes);
    out.put("upload objects up to", Human(budget.object_bytes.into()));
    out.put("segments of", Human(budget.segment_bytes.into()));
}
