//! `point diff`: what two points of a policy differ in.
//!
//! Source: ours; `read::diff`.

use serde_json::{Map, Value, json};
use windlass_agent::id::VolumeId;
use windlass_agent::log::state::Point;
use windlass_agent::read::diff::{self, Change, Differs};
use windlass_agent::restore::browse;
use windlass_agent::units::{Counted, Grouped, Human};
use windlass_hal::volume::ItemKind;

use crate::cli::args::global::Global;
use crate::cli::args::point::Diff;
use crate::cli::browse::{Opened, VolumePath, kind_word};
use crate::cli::damage;
use crate::cli::output::Output;
use crate::engine::points;
use crate::failure::{Exit, Failure};
use crate::{logger, text};

/// Names counted by how they differ.
#[derive(Default)]
struct Counts {
    added: u64,
    removed: u64,
    contents: u64,
    attributes: u64,
    renamed: u64,
    bytes_added: u64,
    bytes_removed: u64,
}

/// `point diff`.
pub fn run(global: &Global, args: &Diff, output: &Output) -> Result<Exit, Failure> {
    let opened = Opened::new(global)?;
    let (old, new) = (points::pick(&opened.state, &args.old)?, points::pick(&opened.state, &args.new)?);
    let mut counts = Counts::default();
    let has = |point: &Point, id: VolumeId| point.volumes.iter().any(|volume| volume.volume == id);
    let several = new.volumes.len() + new.missing.len() > 1 || old.volumes.len() + old.missing.len() > 1;
    for point in [old, new] {
        damage::warn(&opened.state, point.backup);
    }
    let mut common = 0u64;
    for id in old
        .volumes
        .iter()
        .chain(&new.volumes)
        .map(|volume| volume.volume)
        .collect::<std::collections::BTreeSet<_>>()
    {
        if !has(old, id) || !has(new, id) {
            let without = if has(old, id) { new.backup } else { old.backup };
            logger::say(format_args!(
                "windlass: point {without} is without volume {id}, so it is not compared"
            ));
            continue;
        }
        common += 1;
        let prefix = if several { id.to_string().into_bytes() } else { Vec::new() };
        let place = VolumePath { volume: id, path: Vec::new(), prefix };
        let (mut a, mut b) = (opened.lookup(old, &place)?, opened.lookup(new, &place)?);
        let (from, _) = browse::root(&mut a, id).map_err(|fault| place.fail(fault))?;
        let (to, _) = browse::root(&mut b, id).map_err(|fault| place.fail(fault))?;
        let compared = diff::diff((&mut a, from), (&mut b, to), b"", &mut |differs| {
            count(&mut counts, &differs);
            line(output, &place, &differs);
            true
        });
        compared.map_err(|fault| place.fail(fault.into()))?;
    }
    if common == 0 {
        return Err(Failure::new(format_args!(
            "points {} and {} have no volume in common; nothing is compared",
            old.backup, new.backup
        )));
    }
    output.say(format_args!(
        "{} added ({}), {} removed ({}), {} with other contents, {} with other attributes, {} renamed",
        Counted(counts.added, "name"),
        Human(counts.bytes_added),
        Grouped(counts.removed),
        Human(counts.bytes_removed),
        Grouped(counts.contents),
        Grouped(counts.attributes),
        Grouped(counts.renamed),
    ));
    output.event(
        "done",
        json!({
            "old_point": old.backup.0,
            "new_point": new.backup.0,
            "added": counts.added,
            "removed": counts.removed,
            "contents": counts.contents,
            "attributes": counts.attributes,
            "renamed": counts.renamed,
            "bytes_added": counts.bytes_added,
            "bytes_removed": counts.bytes_removed,
        }),
    );
    Ok(Exit::Done)
}

fn count(counts: &mut Counts, differs: &Differs<'_>) {
    let size = |item: Option<&windlass_agent::format::row::ItemAttributes>| {
        item.filter(|item| matches!(item.kind, ItemKind::File | ItemKind::Image)).map_or(0, |item| item.size)
    };
    match differs.change {
        Change::Added => {
            counts.added += 1;
            counts.bytes_added += size(differs.new);
        }
        Change::Removed => {
            counts.removed += 1;
            counts.bytes_removed += size(differs.old);
        }
        Change::Contents => counts.contents += 1,
        Change::Attributes => counts.attributes += 1,
        Change::Renamed => counts.renamed += 1,
    }
}

/// Prints a name that differs.
fn line(output: &Output, place: &VolumePath, differs: &Differs<'_>) {
    let path = place.shown(differs.path);
    let item = differs.new.or(differs.old);
    if output.is_json() {
        let mut object = Map::new();
        text::put_bytes(&mut object, "path", &path);
        if let Some(from) = differs.from {
            text::put_bytes(&mut object, "from", &place.shown(from));
        }
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("change", word(differs.change).into());
        put("type", item.map(|item| kind_word(item.kind)).into());
        put("old_size", differs.old.map(|item| item.size).into());
        put("new_size", differs.new.map(|item| item.size).into());
        output.event("entry", Value::Object(object));
        return;
    }
    let letter = match differs.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Contents => 'M',
        Change::Attributes => 'U',
        Change::Renamed => 'R',
    };
    let slash = if item.is_some_and(|item| item.kind == ItemKind::Directory) { "/" } else { "" };
    let from =
        differs.from.map_or(String::new(), |from| format!("{} -> ", text::printable(&place.shown(from))));
    let sizes = match (differs.change, differs.old, differs.new) {
        (Change::Contents, Some(old), Some(new)) if old.kind == ItemKind::File => {
            format!("  ({} -> {} bytes)", Grouped(old.size), Grouped(new.size))
        }
        _ => String::new(),
    };
    output.say(format_args!("{letter} {from}{}{slash}{sizes}", text::printable(&path)));
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Contents => "contents",
        Change::Attributes => "attributes",
        Change::Renamed => "renamed",
    }
}
