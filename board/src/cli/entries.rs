//! `log`: who did what, and when, as the commit log says it.
//!
//! Source: ours; `log::entries`.

use std::collections::VecDeque;

use serde_json::{Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::id::Slot;
use windlass_agent::log::entries::{Entry, LEASE, Lineage};

use crate::cli::args::global::Global;
use crate::cli::args::role::Log;
use crate::cli::output::{Align, Output};
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

const NS_PER_SEC: i64 = 1_000_000_000;
/// Entries about policies that are kept until it is known which of them are about the one that is asked for: some 10 MiB. The oldest go, and
/// count as not shown.
const CANDIDATES_MAX: usize = 32_768;

/// An entry; `None` in place of one that says nothing of its time: not before the last that does.
struct Dated {
    entry: Entry,
    not_before_ns: Option<i64>,
    /// Which policy it is about.
    of: Option<u32>,
}

/// `log`.
pub fn run(global: &Global, args: &Log, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    // Of another repository, or older than what was seen of it, nothing is shown.
    repository.view()?;
    let failed = |fault| Failure::at("the commit log", fault);
    let mut newest: VecDeque<Dated> = VecDeque::new();
    let (mut lost, mut left_out, mut not_before_ns): (Vec<Slot>, u64, Option<i64>) = (Vec::new(), 0, None);
    let mut lineage = match &args.policy {
        Some(_) => Lineage::new(repository.first_state().map_err(failed)?.as_ref()),
        None => Lineage::default(),
    };
    // What a policy is called in the end is known in the end.
    let most = if args.policy.is_some() { CANDIDATES_MAX } else { args.last as usize };
    let boundary = repository
        .read_entries(&mut |said| match said {
            Err(slot) => lost.push(slot),
            Ok(found) => {
                for entry in found {
                    not_before_ns = entry.wall_ns.or(not_before_ns);
                    let of = lineage.of(&entry);
                    if (of.is_none() && args.policy.is_some()) || (entry.what == LEASE && !args.all) {
                        continue;
                    }
                    newest.push_back(Dated { entry, not_before_ns, of });
                    if newest.len() > most {
                        newest.pop_front();
                        left_out += 1;
                    }
                }
            }
        })
        .map_err(failed)?;
    if let Some(policy) = &args.policy {
        let wanted = Some(lineage.of_name(policy));
        newest.retain(|dated| dated.of == wanted);
        let more = newest.len().saturating_sub(args.last as usize);
        newest.drain(..more);
        left_out += more as u64;
    }
    let heads = [
        ("ENTRY", Align::Right),
        ("TIME", Align::Left),
        ("NODE", Align::Right),
        ("WHO", Align::Left),
        ("WHAT", Align::Left),
    ];
    output.table(&heads, &newest.iter().map(row).collect::<Vec<_>>());
    if boundary.0 > 0 || left_out > 0 {
        let hint = if left_out > 0 { "; --last N shows more" } else { "" };
        output.say(format_args!(
            "the log reaches back to entry {}, {left_out} older lines are not shown{hint}",
            boundary.0 + 1
        ));
    }
    for slot in &lost {
        output.say(format_args!("entry {slot} cannot be read; `windlass check` says more"));
    }
    let documents: Vec<Value> = newest.iter().map(document).collect();
    output.document(&json!({
        "first": boundary.0 + 1,
        "left_out": left_out,
        "lost": lost.iter().map(|slot| slot.0).collect::<Vec<_>>(),
        "entries": documents,
    }));
    Ok(if lost.is_empty() { Exit::Done } else { Exit::Partial })
}

fn row(dated: &Dated) -> Vec<String> {
    let entry = &dated.entry;
    let time = |ns: i64| site_time::shown(ns.div_euclid(NS_PER_SEC));
    let when = match (entry.wall_ns, dated.not_before_ns) {
        (Some(ns), _) => time(ns),
        (None, Some(ns)) => format!("after {}", time(ns)),
        (None, None) => "-".to_owned(),
    };
    let who = match &entry.by {
        Some((subject, node)) if *node != entry.writer => format!("{subject} at node {node}"),
        Some((subject, _)) => subject.clone(),
        None => "-".to_owned(),
    };
    let who = text::printable(who.as_bytes());
    vec![entry.slot.to_string(), when, entry.writer.to_string(), who, text::printable(entry.text.as_bytes())]
}

fn document(dated: &Dated) -> Value {
    let entry = &dated.entry;
    let time = |ns: i64| iso_utc(ns.div_euclid(NS_PER_SEC));
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
