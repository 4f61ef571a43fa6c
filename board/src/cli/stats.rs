//! `stats`: how large policies and their points are, what each point alone holds, and what the files of one are.
//!
//! Source: ours; `engine::stats`.

use serde_json::{Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::id::BackupId;
use windlass_agent::log::state::{Point, State};
use windlass_agent::read::suffix::{Files, group};
use windlass_agent::units::{Counted, Grouped, Human};

use crate::cli::args::global::Global;
use crate::cli::args::stats::Stats as Arguments;
use crate::cli::damage;
use crate::cli::output::{Align, Output};
use crate::engine::points;
use crate::engine::repository::Repository;
use crate::engine::stats::{Stats, of_point};
use crate::failure::{Exit, Failure};
use crate::{site_time, text};

/// Extensions that are shown to people.
const SHOWN: usize = 10;
/// Extensions that `--json` prints.
const PRINTED: usize = 100;

/// `stats`.
pub fn run(global: &Global, args: &Arguments, output: &Output) -> Result<Exit, Failure> {
    let repository = Repository::open(global)?;
    let state = repository.view()?.state;
    let Some(target) = &args.target else {
        policies(&state, output);
        return Ok(Exit::Done);
    };
    let point = points::pick(&state, target)?;
    damage::warn(&state, point.backup);
    let stats = of_point(&repository, &state, point)?;
    show(&state, point, &stats, output);
    output.document(&document(&state, point, &stats));
    Ok(Exit::Done)
}

fn begun(point: &Point) -> i64 {
    point.wall_ns.0.div_euclid(1_000_000_000)
}

/// How much smaller what is stored is; nothing without either.
fn ratio(data: u64, stored: u64) -> Option<f64> {
    // Two digits behind the point are enough.
    (data > 0 && stored > 0).then(|| (data as f64 / stored as f64 * 100.0).round() / 100.0)
}

/// All policies that have points, by the log alone.
fn policies(state: &State, output: &Output) {
    let mut names: Vec<&str> = state.points.values().map(|point| point.policy.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for name in &names {
        let of: Vec<&Point> = state.points.values().filter(|point| point.policy == *name).collect();
        if let (Some(oldest), Some(newest)) = (of.first(), of.last()) {
            row(name, oldest, newest, &of, &mut rows, &mut documents);
        }
    }
    let stored: u64 = state.points.values().map(|point| point.totals.bytes_stored).sum();
    if names.is_empty() {
        output.say("no policy has a point yet");
    } else {
        let heads = [
            ("POLICY", Align::Left),
            ("POINTS", Align::Right),
            ("OLDEST", Align::Left),
            ("NEWEST", Align::Left),
            ("ITEMS", Align::Right),
            ("SIZE", Align::Right),
            ("STORED", Align::Right),
        ];
        output.table(&heads, &rows);
    }
    let done = state.garbage.done;
    if let Some(done) = done {
        output.say(format_args!(
            "{} in {} were live at the last garbage run, {} are still to come back",
            Human(done.live_bytes),
            Counted(done.objects, "object"),
            Human(state.garbage.waiting_bytes())
        ));
    }
    output.document(&json!({
        "policies": documents,
        "bytes_stored": stored,
        "live_bytes": done.map(|done| done.live_bytes),
        "waiting_bytes": state.garbage.waiting_bytes(),
    }));
}

/// A policy, by its points: items and size are those of the newest, what is stored is what all of their backups stored.
fn row(
    name: &str,
    oldest: &Point,
    newest: &Point,
    of: &[&Point],
    rows: &mut Vec<Vec<String>>,
    documents: &mut Vec<Value>,
) {
    let stored: u64 = of.iter().map(|point| point.totals.bytes_stored).sum();
    rows.push(vec![
        text::printable(name.as_bytes()).to_string(),
        Grouped(of.len() as u64).to_string(),
        site_time::shown(begun(oldest)),
        site_time::shown(begun(newest)),
        Grouped(newest.totals.items).to_string(),
        Human(newest.totals.bytes_logical).to_string(),
        Human(stored).to_string(),
    ]);
    documents.push(json!({
        "policy": name,
        "points": of.len(),
        "oldest": iso_utc(begun(oldest)),
        "newest": iso_utc(begun(newest)),
        "items": newest.totals.items,
        "bytes": newest.totals.bytes_logical,
        "bytes_stored": stored,
    }));
}

fn size_of(state: &State, point: BackupId) -> u64 {
    state.points.get(&point).map_or(0, |point| point.totals.bytes_logical)
}

fn show(state: &State, point: &Point, stats: &Stats, output: &Output) {
    let usage = &stats.usage;
    let heads = [
        ("POINT", Align::Right),
        ("BEGUN", Align::Left),
        ("SIZE", Align::Right),
        ("DATA", Align::Right),
        ("STORED", Align::Right),
        ("ALONE", Align::Right),
    ];
    let rows = usage.points.iter().map(|(id, of)| {
        vec![
            id.to_string(),
            state.points.get(id).map(|point| site_time::shown(begun(point))).unwrap_or_default(),
            Human(size_of(state, *id)).to_string(),
            Human(of.data).to_string(),
            Human(of.stored).to_string(),
            Human(of.alone_stored).to_string(),
        ]
    });
    output.table(&heads, &rows.collect::<Vec<_>>());
    let smaller = ratio(usage.data, usage.stored).map(|by| format!(", {by} to 1")).unwrap_or_default();
    output.say(format_args!(
        "{} of {}: {} of data, {} stored{smaller}",
        Counted(usage.points.len() as u64, "point"),
        text::printable(point.policy.as_bytes()),
        Human(usage.data),
        Human(usage.stored)
    ));
    let mine = usage.points.get(&point.backup).copied().unwrap_or_default();
    let smaller = ratio(mine.data, mine.stored).map(|by| format!(", {by} to 1")).unwrap_or_default();
    let in_rows = match usage.in_rows {
        0 => String::new(),
        bytes => format!("; {} of small files are in the tables", Human(bytes)),
    };
    output.say(format_args!(
        "point {}: {} of data, {} stored{smaller}{in_rows}; {} go when it goes",
        point.backup,
        Human(mine.data),
        Human(mine.stored),
        Human(mine.alone_stored)
    ));
    output.say("");
    let columns = |first| [(first, Align::Left), ("ITEMS", Align::Right), ("SIZE", Align::Right)];
    let line =
        |name: String, of: Files| vec![name, Grouped(of.files).to_string(), Human(of.bytes).to_string()];
    let kinds = usage
        .kinds
        .iter()
        .map(|of| line(text::kind_word(of.kind).to_owned(), Files { files: of.items, bytes: of.bytes }));
    output.table(&columns("TYPE"), &kinds.collect::<Vec<_>>());
    let groups = stats.names.groups();
    if groups.is_empty() {
        return;
    }
    output.say("");
    let groups = groups.into_iter().map(|(name, of)| line(name.to_owned(), of));
    output.table(&columns("FILES"), &groups.collect::<Vec<_>>());
    let (largest, others) = stats.names.largest(SHOWN);
    if !largest.is_empty() {
        output.say("");
        let rows: Vec<_> = largest.into_iter().map(|(name, of)| line(format!(".{name}"), of)).collect();
        output.table(&columns("EXTENSION"), &rows);
    }
    if others > 0 {
        output.say(format_args!("and {}", Counted(others as u64, "other extension")));
    }
}

fn document(state: &State, point: &Point, stats: &Stats) -> Value {
    let usage = &stats.usage;
    let points = usage.points.iter().map(|(id, of)| {
        json!({
            "point": id.0,
            "begun": state.points.get(id).map(|point| iso_utc(begun(point))),
            "bytes": size_of(state, *id),
            "bytes_data": of.data,
            "bytes_stored": of.stored,
            "alone_bytes_data": of.alone_data,
            "alone_bytes_stored": of.alone_stored,
        })
    });
    let points: Vec<Value> = points.collect();
    let types = usage
        .kinds
        .iter()
        .map(|of| json!({ "type": text::kind_word(of.kind), "items": of.items, "bytes": of.bytes }));
    let types: Vec<Value> = types.collect();
    let groups = stats.names.groups().into_iter();
    let groups: Vec<Value> =
        groups.map(|(name, of)| json!({ "group": name, "files": of.files, "bytes": of.bytes })).collect();
    let (largest, others) = stats.names.largest(PRINTED);
    let extensions: Vec<Value> = largest
        .into_iter()
        .map(|(name, of)| {
            json!({ "extension": name, "group": group(Some(name)), "files": of.files, "bytes": of.bytes })
        })
        .collect();
    json!({
        "policy": point.policy,
        "point": point.backup.0,
        "bytes_data": usage.data,
        "bytes_stored": usage.stored,
        "bytes_in_tables": usage.in_rows,
        "ratio": ratio(usage.data, usage.stored),
        "points": points,
        "types": types,
        "groups": groups,
        "extensions": extensions,
        "extensions_left_out": others,
    })
}
