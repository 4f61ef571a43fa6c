//! What a backup did, as text and as documents, for each face that makes one. Source: ours.

use serde_json::{Map, Value, json};
use windlass_agent::policy::Policy;
use windlass_agent::policy::select::unmatched_include;
use windlass_agent::units::{Counted, Grouped, Human, HumanTime};
use windlass_hal::volume::verify::Difference;

use crate::cli::output::Output;
use crate::engine::alone::Outcome;
use crate::engine::compare::line;
use crate::engine::host;
use crate::text;

/// PUT requests for a TiB of contents at the rate of `puts` for `bytes`.
pub fn puts_per_tib(puts: u64, bytes: u64) -> u64 {
    if bytes == 0 {
        0
    } else {
        u64::try_from(u128::from(puts) * (1 << 40) / u128::from(bytes)).unwrap_or(u64::MAX)
    }
}

fn per_second(bytes: u64, ns: u64) -> u64 {
    (u128::from(bytes) * 1_000_000_000 / u128::from(ns.max(1))) as u64
}

/// Prints what a backup did.
pub fn tell(policy: &Policy, outcome: &Outcome, output: &Output) {
    let totals = &outcome.report.totals;
    output.say(format_args!(
        "point {} of {}: {}, {} in {} ({}/s){}",
        outcome.report.backup,
        policy.name,
        Counted(totals.items, "item"),
        Human(totals.item_bytes),
        HumanTime(outcome.elapsed_ns),
        Human(per_second(totals.item_bytes, outcome.elapsed_ns)),
        match outcome.report.kept_bytes {
            0 => String::new(),
            kept => format!(", with {} that an unfinished run had stored", Human(kept)),
        },
    ));
    output.say(format_args!(
        "  {} new or changed, {} unchanged, {} deleted; read {}, stored {} in {} and {}, {}",
        Grouped(totals.items.saturating_sub(totals.items_same)),
        Grouped(totals.items_same),
        Grouped(totals.items_deleted),
        Human(totals.read_bytes),
        Human(totals.stored_bytes),
        Counted(totals.objects, "object"),
        Counted(totals.segments, "segment"),
        Counted(outcome.requests.puts(), "PUT"),
    ));
    for why in &outcome.report.in_use {
        output.say(format_args!(
            "  put to use while it was read, so do not trust this point, make another: {why}"
        ));
    }
    if !outcome.expired.is_empty() {
        let named: Vec<String> = outcome.expired.iter().map(ToString::to_string).collect();
        let points = if named.len() == 1 { "point" } else { "points" };
        output.say(format_args!("  by the rules of the policy {points} {} expired", named.join(", ")));
    }
    if outcome.free_bytes > 0 {
        output.say(format_args!(
            "  {} of free space are left out and restore as zeros; --all-blocks of `policy set` keeps them",
            Human(outcome.free_bytes)
        ));
    }
    if outcome.report.merged.removed > 0 {
        output.say(format_args!(
            "  {} segments of the tables became {}",
            Grouped(outcome.report.merged.removed),
            Grouped(outcome.report.merged.added)
        ));
    }
    let proven = &outcome.report.proven;
    if proven.frames > 0 {
        output.say(format_args!(
            "  {} of {} frames were opened again and compared before they were sent, in {} on the lanes",
            Grouped(proven.frames),
            Grouped(proven.of),
            HumanTime(proven.ns),
        ));
    }
    for (path, what) in &outcome.not_whole {
        output.say(format_args!("  not whole: {}: {what}", text::printable(path)));
    }
    if totals.fault_count > 0 {
        output.say(format_args!("  {} could not be read in full", Counted(totals.fault_count, "item")));
    }
    for text in &outcome.unmatched {
        output.say(format_args!("  {}", unmatched_include(text)));
    }
    for (device, _) in &outcome.missing {
        let device = text::printable(device.as_bytes());
        output.say(format_args!("  without {device}, which could not be opened; see above"));
    }
    if outcome.damaged {
        output.say(format_args!("  {DAMAGED}"));
    }
    tell_compared(outcome, output);
}

/// What is said of a new point that needs something lost.
pub const DAMAGED: &str = "this point is damaged: something that it needs is missing from the store, or was changed there, and \
                           that was noticed after the backup began; make another one, which stores it again";

/// Prints what the comparison with the kernel found.
fn tell_compared(outcome: &Outcome, output: &Output) {
    for compared in &outcome.compared {
        for (path, difference) in &compared.differences {
            output.say(format_args!("  differs: {}", line(path, difference)));
            output.event("difference", self::difference(path, difference));
        }
        output.say(format_args!(
            "  {} of {} compared with the file system as the kernel shows it: {}",
            Counted(compared.sums.items, "item"),
            text::printable(compared.device.as_os_str().as_encoded_bytes()),
            Counted(compared.sums.differences, "difference"),
        ));
    }
}

/// The fields of the last event.
pub fn to_json(policy: &Policy, outcome: &Outcome) -> Value {
    let (report, totals) = (&outcome.report, &outcome.report.totals);
    let not_whole: Vec<Value> = outcome
        .not_whole
        .iter()
        .map(|(path, what)| {
            let mut object = Map::new();
            text::put_bytes(&mut object, "path", path);
            object.insert("what".to_owned(), what.as_str().into());
            Value::Object(object)
        })
        .collect();
    let compared: Vec<Value> = outcome
        .compared
        .iter()
        .map(|compared| {
            json!({
                "device": compared.device.display().to_string(),
                "items": compared.sums.items,
                "bytes": compared.sums.bytes,
                "differences": compared.sums.differences,
            })
        })
        .collect();
    json!({
        "policy": policy.name,
        "point": report.backup.0,
        "resumed": report.resumed,
        "bytes_kept": report.kept_bytes,
        "volumes_missing": outcome.missing.iter().map(|(device, why)| json!({ "device": device, "what": why })).collect::<Vec<_>>(),
        "elapsed_ms": outcome.elapsed_ns / 1_000_000,
        "items": totals.items,
        "items_same": totals.items_same,
        "items_deleted": totals.items_deleted,
        "bytes": totals.item_bytes,
        "bytes_read": totals.read_bytes,
        "bytes_free": outcome.free_bytes,
        "reads": totals.reads,
        "bytes_stored_plain": totals.stored_plain_bytes,
        "bytes_stored": totals.stored_bytes,
        "frames": report.proven.of,
        "frames_proven": report.proven.frames,
        "bytes_proven": report.proven.bytes,
        "proven_ms": report.proven.ns / 1_000_000,
        "objects": totals.objects,
        "segments": totals.segments,
        "segments_merged": outcome.report.merged.removed,
        "requests": outcome.requests.to_json(),
        "peak_memory_bytes": host::peak_memory_bytes(),
        "faults": totals.fault_count,
        "fault_list": not_whole,
        "includes_unmatched": outcome.unmatched,
        "compared": compared,
        "in_use": outcome.report.in_use,
        "damaged": outcome.damaged,
        "expired": outcome.expired.iter().map(|backup| backup.0).collect::<Vec<_>>(),
    })
}

/// A difference between the raw reader and the kernel, for programs.
pub fn difference(path: &[u8], difference: &Difference) -> Value {
    let mut object = Map::new();
    text::put_bytes(&mut object, "path", path);
    object.insert("inode".to_owned(), difference.inode.into());
    object.insert("field".to_owned(), difference.field.into());
    object.insert("raw".to_owned(), difference.raw.as_str().into());
    object.insert("mounted".to_owned(), difference.mounted.as_str().into());
    Value::Object(object)
}
