//! `table items`, `table blocks`: the rows of the two cloud tables that a point goes by.
//!
//! | table | columns |
//! |---|---|
//! | items | policy, LIN, path, snapshot, time, permissions, type, group, user, modified, size, parent LIN |
//! | blocks | LIN, base, and for each block of the row: object, offset, size |
//!
//! Type is 1 file, 2 alternate data stream, 3 directory, 4 deleted file, 5 deleted directory; and of ours 6 symlink, 7 character device,
//! 8 block device, 9 pipe, 10 socket. A block's offset is that of the frame in which it is sealed; a block without an object is zero, or a hole.
//!
//! Source: US 10,089,187, figures 3 and 11; `agent/doc/architecture.md`.

use serde_json::{Map, Value, json};
use windlass_agent::civil::iso_utc;
use windlass_agent::format::row::{BlockPlace, ItemAttributes};
use windlass_agent::id::{BackupId, Lin};
use windlass_agent::log::state::{Point, State};
use windlass_agent::restore::browse::{self, BrowseFault, Met};
use windlass_agent::restore::deleted::{Deleted, deleted};
use windlass_hal::volume::ItemKind;

use crate::cli::args::global::Global;
use crate::cli::args::rows::{Of, Table};
use crate::cli::browse::{Opened, VolumePath, exact, find_item, volume_paths};
use crate::cli::damage;
use crate::cli::output::Output;
use crate::engine::points;
use crate::engine::restore::PointLookup;
use crate::failure::{Exit, Failure};
use crate::text;

/// `table items` and `table blocks`.
pub fn run(global: &Global, args: &Table, output: &Output) -> Result<Exit, Failure> {
    let of = match args {
        Table::Items(of) | Table::Blocks(of) => of,
    };
    let opened = Opened::new(global)?;
    let point = points::pick(&opened.state, &of.at.target)?;
    damage::warn(&opened.state, point.backup);
    let mut rows = 0u64;
    let writer = Writer { output, state: &opened.state, point };
    match args {
        Table::Items(_) => writer.head(&[
            "policy",
            "lin",
            "path",
            "snapshot",
            "time",
            "permissions",
            "type",
            "gid",
            "uid",
            "modified",
            "size",
            "parent",
        ]),
        Table::Blocks(_) => writer.head(&["lin", "base", "object", "offset", "size"]),
    }
    for mut place in volume_paths(&opened.state, point, &of.at, &of.path)? {
        let mut lookup = opened.lookup(point, &place)?;
        let (lin, item) = find_item(&mut lookup, &mut place)?.map_err(|fault| place.fail(fault))?;
        let done = match args {
            Table::Items(of) => items(&writer, of, &place, &mut lookup, lin, &item),
            Table::Blocks(_) => blocks(&writer, &place, &mut lookup, lin, &item),
        };
        rows += done.map_err(|fault| place.fail(fault))?;
    }
    output.event("done", json!({ "point": point.backup.0, "rows": rows }));
    Ok(Exit::Done)
}

struct Writer<'a> {
    output: &'a Output,
    state: &'a State,
    point: &'a Point,
}

/// A field of a line of CSV: quoted where it must be.
fn field(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

impl Writer<'_> {
    fn head(&self, columns: &[&str]) {
        self.output.say(columns.join(","));
    }

    fn line(&self, values: &[Value]) {
        self.output.say(values.iter().map(field).collect::<Vec<_>>().join(","));
    }

    /// When a backup began, as long as its point is there.
    fn begun(&self, backup: BackupId) -> Option<String> {
        let point = self.state.points.get(&backup)?;
        Some(iso_utc(point.wall_ns.0.div_euclid(1_000_000_000)))
    }

    #[allow(clippy::too_many_arguments, reason = "the columns of a row")]
    fn item(
        &self,
        path: &[u8],
        lin: Lin,
        (snapshot, time): (BackupId, Option<String>),
        (mode, kind): (Option<u16>, Option<u8>),
        (gid, uid): (Option<u32>, Option<u32>),
        modified: String,
        size: u64,
        parent: Option<Lin>,
    ) {
        let fields = [
            ("policy", self.point.policy.as_str().into()),
            ("lin", lin.to_string().into()),
            ("path", String::from_utf8_lossy(path).into()),
            ("snapshot", snapshot.0.into()),
            ("time", time.into()),
            ("permissions", mode.map(|mode| format!("{mode:04o}")).into()),
            ("type", kind.into()),
            ("gid", gid.into()),
            ("uid", uid.into()),
            ("modified", modified.into()),
            ("size", size.into()),
            ("parent", parent.map(|lin| lin.to_string()).into()),
        ];
        if self.output.is_json() {
            let mut object: Map<String, Value> =
                fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect();
            text::put_bytes(&mut object, "path", path);
            self.output.event("row", Value::Object(object));
        } else {
            let shown = text::printable(path).to_string();
            let values: Vec<Value> = fields
                .into_iter()
                .map(
                    |(name, value): (&str, Value)| if name == "path" { shown.as_str().into() } else { value },
                )
                .collect();
            self.line(&values);
        }
    }
}

fn type_of(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::File | ItemKind::Image => 1,
        ItemKind::Directory => 3,
        ItemKind::Symlink => 6,
        ItemKind::CharDevice => 7,
        ItemKind::BlockDevice => 8,
        ItemKind::Fifo => 9,
        ItemKind::Socket => 10,
    }
}

fn deleted_type_of(kind: ItemKind) -> u8 {
    if kind == ItemKind::Directory { 5 } else { 4 }
}

fn items(
    writer: &Writer<'_>,
    of: &Of,
    place: &VolumePath,
    lookup: &mut PointLookup,
    lin: Lin,
    item: &ItemAttributes,
) -> Result<u64, BrowseFault> {
    let mut rows = 0;
    let mut put =
        |lookup: &mut PointLookup, path: &[u8], lin: Lin, item: &ItemAttributes, parent: Option<Lin>| {
            rows += 1;
            let written = lookup.reader().item_version(lin, writer.point.backup)?;
            let written = written.map_or(writer.point.backup, |row| row.backup);
            writer.item(
                &place.shown(path),
                lin,
                (written, writer.begun(written)),
                (Some(item.mode), Some(type_of(item.kind))),
                (Some(item.gid), Some(item.uid)),
                exact(item.mtime),
                item.size,
                parent,
            );
            Ok::<(), BrowseFault>(())
        };
    let own = (item.kind == ItemKind::Directory).then_some(Lin { inode: item.parent, ..lin });
    put(lookup, &place.path, lin, item, own)?;
    if item.kind != ItemKind::Directory {
        return Ok(rows);
    }
    browse::walk(lookup, lin, item, &place.path, &mut |lookup, visit| match visit.met {
        Met::Item(item) => put(lookup, visit.path, visit.lin, item, Some(visit.dir)).map(|()| true),
        _ => Ok(true),
    })?;
    if of.without_deleted {
        return Ok(rows);
    }
    let points = points::with_volume(writer.state, &writer.point.policy, lin.volume, writer.point.backup);
    deleted(lookup, (lin, item), &place.path, &points, true, &mut |found: &Deleted<'_>| {
        if found.lives_on {
            return Ok(true);
        }
        rows += 1;
        let time = found.found_secs.map(iso_utc).or_else(|| writer.begun(found.missed_by));
        writer.item(
            &place.shown(found.path),
            found.lin,
            (found.missed_by, time),
            (None, found.kind.map(deleted_type_of)),
            (None, None),
            exact(found.mtime),
            found.size,
            Some(found.dir),
        );
        Ok(true)
    })?;
    Ok(rows)
}

fn blocks(
    writer: &Writer<'_>,
    place: &VolumePath,
    lookup: &mut PointLookup,
    lin: Lin,
    item: &ItemAttributes,
) -> Result<u64, BrowseFault> {
    let mut rows = 0;
    let mut put = |lookup: &mut PointLookup, lin: Lin, item: &ItemAttributes| {
        if !matches!(item.kind, ItemKind::File | ItemKind::Image) {
            return Ok(());
        }
        let mut list = lookup.locations_from(lin, item, 0);
        while let Some(row) = lookup.next_location(&mut list)? {
            rows += 1;
            let block = |block: &BlockPlace| match block {
                BlockPlace::Stored(place) => json!({
                    "object": place.object.to_string(), "offset": place.frame_offset, "size": place.len,
                }),
                _ => json!({ "object": null, "offset": null, "size": row.block_bytes }),
            };
            let blocks: Vec<Value> = row.blocks.iter().map(block).collect();
            if writer.output.is_json() {
                let fields = json!({ "lin": lin.to_string(), "base": row.base, "blocks": blocks });
                writer.output.event("row", fields);
            } else {
                let mut line = vec![lin.to_string().into(), row.base.into()];
                for block in &blocks {
                    line.extend(["object", "offset", "size"].map(|name| block[name].clone()));
                }
                writer.line(&line);
            }
        }
        Ok::<(), BrowseFault>(())
    };
    put(lookup, lin, item)?;
    if item.kind == ItemKind::Directory {
        browse::walk(lookup, lin, item, &place.path, &mut |lookup, visit| match visit.met {
            Met::Item(item) => put(lookup, visit.lin, item).map(|()| true),
            _ => Ok(true),
        })?;
    }
    Ok(rows)
}
