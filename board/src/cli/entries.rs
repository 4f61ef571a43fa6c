//! `log`: who did what, and when, as the commit log says it.
//!
//! Source: ours; `log::entries`.

use crate::cli::args::global::Global;
use crate::cli::args::role::Log;
use crate::cli::output::{Align, Output};
use crate::engine::documents::{Dated, Entries, Wanted};
use crate::engine::repository::Repository;
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

const NS_PER_SEC: i64 = 1_000_000_000;

/// `log`.
pub fn run(global: &Global, args: &Log, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    // Of another repository, or older than what was seen of it, nothing is shown.
    repository.view()?;
    let wanted = Wanted { last: args.last as usize, policy: args.policy.as_deref(), all: args.all };
    let found = Entries::read(&repository, &wanted)?;
    let Entries { newest, lost, left_out, boundary } = &found;
    let heads = [
        ("ENTRY", Align::Right),
        ("TIME", Align::Left),
        ("NODE", Align::Right),
        ("WHO", Align::Left),
        ("WHAT", Align::Left),
    ];
    output.table(&heads, &newest.iter().map(row).collect::<Vec<_>>());
    if boundary.0 > 0 || *left_out > 0 {
        let hint = if *left_out > 0 { "; --last N shows more" } else { "" };
        output.say(format_args!(
            "the log reaches back to entry {}, {left_out} older lines are not shown{hint}",
            boundary.0 + 1
        ));
    }
    for slot in lost {
        output.say(format_args!("entry {slot} cannot be read; `windlass check` says more"));
    }
    output.document(&found.document());
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
