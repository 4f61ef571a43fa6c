//! Tables against a model: reads at every cut, coalescing, rebuild from objects alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_agent::format::key::KeyRef;
use windlass_agent::format::row::{BlockPlace, Digest, EntryRow, LocationRow, Place, Row, RowKind};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::id::{BackupId, Lin, ObjectId, Slot, VolumeId};
use windlass_agent::log::state::{Running, State};
use windlass_agent::read::lookup::Lookup;
use windlass_agent::restore::affected;
use windlass_agent::table::lost::known;
use windlass_agent::table::merge::{Coalesce, Progress, Scope};
use windlass_agent::table::read::TableReader;
use windlass_agent::table::rebuild::{RebuildSettings, rebuild};
use windlass_agent::table::segment::{SEGMENT_META_BYTES, SegmentMeta, SegmentWriter};
use windlass_agent::table::source::{Source, TableFault, TableLimits, TailRef};
use windlass_agent::table::stream::Stream;
use windlass_agent::work::MergeOrder;
use windlass_agent::worker::merge::{self, MergeFault};
use windlass_tests::history::{History, Known, Memory, N, TABLE_KINDS, history};
use windlass_tests::prng::Prng;

fn keys() -> Keys {
    Keys::new(&Secret::new([5; 32]), Sealing::Aes256Gcm)
}

fn limits(p: &mut Prng) -> TableLimits {
    // Tiny caches on purpose: every bound is hit.
    TableLimits {
        index_cache_bytes: 1 << (10 + p.below(8)),
        block_cache_bytes: 1 << (10 + p.below(8)),
        ahead_bytes: p.below(1 << 16) as usize,
        sources: 64,
    }
}

fn writer(p: &mut Prng) -> SegmentWriter {
    SegmentWriter::new(1, 2000 + p.below(30_000), &keys()).unwrap()
}

/// Checks the cut against the model, in every way that a caller can ask.
fn check(memory: &Memory, segments: &[SegmentMeta], history: &History, cut: u32, p: &mut Prng, inodes: u64) {
    let state = &history.cuts[cut as usize];
    let at = BackupId(cut);
    let limits = limits(p);
    let mut reader = TableReader::new(memory.clone(), &keys(), limits, segments).unwrap();
    let mut items = reader.items(VolumeId(1), 0, at);
    let mut live = Vec::new();
    while let Some(item) = items.next(&mut reader).unwrap() {
        live.push(item);
    }
    assert_eq!(live, state.values().map(|known| known.row.clone()).collect::<Vec<_>>(), "items at {cut}");
    for inode in 0..=inodes + 1 {
        let lin = Lin { volume: VolumeId(1), inode };
        let item = reader.item(lin, at).unwrap();
        let Some(known) = state.get(&lin) else {
            assert_eq!(item, None);
            continue;
        };
        assert_eq!(item.as_ref(), Some(&known.row));
        let rows_from = known.row.item.as_ref().unwrap().rows_from;
        let mut names = reader.names(lin, rows_from);
        for name in &known.names {
            assert_eq!(names.next(&mut reader).unwrap().as_ref(), Some(name));
            assert_eq!(reader.lookup(lin, rows_from, &name.name).unwrap().as_ref(), Some(name));
        }
        assert_eq!(names.next(&mut reader).unwrap(), None);
        for absent in [&b"a"[..], b"n1-0500x", b"z"] {
            assert_eq!(reader.lookup(lin, rows_from, absent).unwrap(), None);
        }
        let from = p.below(3) * N;
        let mut locations = reader.locations(lin, from, rows_from, at);
        for row in known.locations.range(from..).map(|(_, row)| row) {
            assert_eq!(locations.next(&mut reader).unwrap().as_ref(), Some(row), "{lin} at {cut}");
        }
        assert_eq!(locations.next(&mut reader).unwrap(), None);
    }
    assert!(reader.source().cached_bytes() <= limits.index_cache_bytes + limits.block_cache_bytes);
}

fn coalesce(
    memory: &Memory,
    segments: &[SegmentMeta],
    cuts: &[BackupId],
    scope: Scope,
    p: &mut Prng,
) -> (Vec<SegmentMeta>, (u64, u64)) {
    let tails: Vec<TailRef> = segments.iter().map(TailRef::from).collect();
    let mut run = Coalesce::new(tails, cuts, scope, writer(p));
    let mut source = Source::new(memory.clone(), &keys(), limits(p)).unwrap();
    let mut out = memory.output();
    while run.step(&mut source, &mut out, 1 + p.below(50) as u32).unwrap() == Progress::More {}
    (out.metas, run.rows())
}

#[test]
fn reads_agree_with_the_model_at_every_cut_before_and_after_coalescing() {
    for seed in 0..25 {
        let p = &mut Prng::new(seed);
        let (backups, inodes) = (2 + p.below(7) as u32, 5 + p.below(60));
        let history = history(p, backups, inodes);
        let memory = Memory::default();
        let mut segments = Vec::new();
        for written in &history.written {
            segments.push(memory.put_segments(written, &mut writer(p)).unwrap());
        }
        let all: Vec<SegmentMeta> = segments.iter().flatten().copied().collect();
        for cut in 0..=backups {
            check(&memory, &all, &history, cut, p, inodes);
        }

        let live: Vec<u32> = (1..backups).filter(|_| p.one_in(2)).collect();
        let cuts: Vec<BackupId> = live.iter().copied().map(BackupId).collect();
        // A part: the segments of some backups, which leaves the others as they are.
        let (some, rest): (Vec<_>, Vec<_>) = segments.into_iter().partition(|_| p.one_in(2));
        let some: Vec<SegmentMeta> = some.into_iter().flatten().collect();
        let (mut merged, _) = coalesce(&memory, &some, &cuts, Scope::Part, p);
        merged.extend(rest.into_iter().flatten());
        for cut in live.iter().copied().chain([backups]) {
            check(&memory, &merged, &history, cut, p, inodes);
        }

        let (merged, rows) = coalesce(&memory, &merged, &cuts, Scope::Full, p);
        assert!(rows.1 <= rows.0);
        for cut in live.iter().copied().chain([backups]) {
            check(&memory, &merged, &history, cut, p, inodes);
        }
        // What is left is what some cut sees, and nothing else; of item rows, deletions may remain too.
        for kind in TABLE_KINDS {
            let mut left = all_rows(&memory, &merged, kind);
            left.retain(|row| !matches!(row, Row::Item(item) if item.item.is_none()));
            let seen = live.iter().copied().chain([backups]).map(|cut| &history.cuts[cut as usize]);
            assert_eq!(left, rows_of(seen.flat_map(|state| state.values()), kind), "seed {seed}");
        }
        let (last, rows) = coalesce(&memory, &merged, &[], Scope::Full, p);
        check(&memory, &last, &history, backups, p, inodes);
        // With only the newest cut, exactly its rows are left.
        let state = &history.cuts[backups as usize];
        let expected: usize = state.values().map(|known| 1 + known.names.len() + known.locations.len()).sum();
        assert_eq!(rows.1, expected as u64, "seed {seed}");
    }
}

/// Reads an item at a cut with a reader that tolerates damage; what it gives must be what the model says. `None`: some of it is lost.
fn tolerant(lookup: &mut Lookup<Memory>, lin: Lin, state: Option<&Known>) -> Result<Option<()>, TableFault> {
    let Ok(item) = known(lookup.item(lin))? else { return Ok(None) };
    assert_eq!(item.as_ref(), state.and_then(|known| known.row.item.as_ref()), "{lin}: another version");
    let (Some(item), Some(state)) = (item, state) else { return Ok(Some(())) };
    let (mut names, mut listing) = (Vec::new(), lookup.names(lin, &item));
    let listed = loop {
        match known(lookup.next_name(&mut listing))? {
            Ok(Some(row)) => names.push(row),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    assert!(names.iter().all(|name| state.names.contains(name)), "{lin}: a name from elsewhere");
    for name in &state.names {
        if let Ok(found) = known(lookup.lookup(lin, &item, &name.name))? {
            assert_eq!(found.as_ref(), Some(name));
        }
    }
    let mut rows = Vec::new();
    let located = known(lookup.locations(lin, &item, &mut |row| {
        rows.push(row);
        Ok(())
    }))?;
    if listed {
        assert_eq!(names, state.names);
    }
    if located.is_ok() {
        assert!(rows.iter().eq(state.locations.values()), "{lin}: other rows");
    }
    Ok((listed && located.is_ok()).then_some(()))
}

#[test]
fn lost_rows_cost_the_items_that_may_have_had_them_and_nothing_else_is_wrong() {
    let (mut whole, mut partly) = (0, 0);
    for seed in 200..208 {
        let p = &mut Prng::new(seed);
        let (backups, inodes) = (2 + p.below(5) as u32, 20 + p.below(60));
        let history = history(p, backups, inodes);
        let memory = Memory::default();
        let mut segments = Vec::new();
        for written in &history.written {
            segments.extend(memory.put_segments(written, &mut writer(p)).unwrap());
        }
        let read = |memory: &Memory, p: &mut Prng| {
            let mut lost = 0;
            for cut in 1..=backups {
                let reader = TableReader::new(memory.clone(), &keys(), limits(p), &segments).unwrap();
                let mut lookup = Lookup::new(reader, BackupId(cut));
                for inode in 0..=inodes + 1 {
                    let lin = Lin { volume: VolumeId(1), inode };
                    let state = history.cuts[cut as usize].get(&lin);
                    lost += usize::from(tolerant(&mut lookup, lin, state).unwrap().is_none());
                }
            }
            lost
        };
        assert_eq!(read(&memory, p), 0);
        for victim in &segments {
            // In a row block, in the index, in the trailer; then all of it.
            let mut most = 0;
            for at in [10, victim.bytes as usize / 2, victim.bytes as usize - 9] {
                memory.flip(&victim.id, at);
                let lost = read(&memory, p);
                memory.flip(&victim.id, at);
                most = most.max(lost);
            }
            let bytes = memory.take(&victim.id).unwrap();
            let gone = read(&memory, p);
            assert!(gone >= most && gone > 0, "seed {seed}: {gone} of a segment, {most} of a part");
            whole += usize::from(gone < backups as usize * inodes as usize);
            partly += usize::from(most > 0);
            memory.put_back(&victim.id, bytes);
        }
        // Damage that is gone when the same is asked for over another connection is none.
        memory.flip_first_reads();
        assert_eq!(read(&memory, p), 0);
    }
    assert!(whole > 5 && partly > 5, "{whole} segments cost less than all, {partly} were damaged in part");
}

#[test]
fn the_points_that_need_a_lost_object_are_those_of_the_model() {
    let mut sizes = [0; 3];
    for seed in 300..340 {
        let p = &mut Prng::new(seed);
        let (backups, inodes) = (2 + p.below(6) as u32, 5 + p.below(30));
        let history = history(p, backups, inodes);
        let memory = Memory::default();
        let mut segments = Vec::new();
        for written in &history.written {
            segments.extend(memory.put_segments(written, &mut writer(p)).unwrap());
        }
        let objects = |cut: BackupId| -> BTreeSet<ObjectId> {
            let rows = history.cuts[cut.0 as usize].values().flat_map(|known| known.locations.values());
            let stored = |block: &BlockPlace| match block {
                BlockPlace::Stored(place) => Some(place.object),
                _ => None,
            };
            rows.flat_map(|row| &row.blocks).filter_map(stored).collect()
        };
        let cuts: Vec<BackupId> = (1..=backups).filter(|_| !p.one_in(4)).map(BackupId).collect();
        let all: BTreeSet<ObjectId> = cuts.iter().flat_map(|&cut| objects(cut)).collect();
        let some: Vec<ObjectId> = all.into_iter().filter(|_| p.one_in(3)).collect();
        for lost in &some {
            let reader = TableReader::new(memory.clone(), &keys(), limits(p), &segments).unwrap();
            let is_lost = |id: &ObjectId| id == lost;
            let found = affected::points(reader, VolumeId(1), &segments, &cuts, &is_lost, &|| false).unwrap();
            let expected: BTreeSet<BackupId> =
                cuts.iter().copied().filter(|&cut| objects(cut).contains(lost)).collect();
            assert_eq!(found, expected, "seed {seed}, {lost}");
            sizes[found.len().min(2)] += 1;
        }
        // A segment may have had rows of all points from its first backup on.
        let lost = segments[p.below(segments.len() as u64) as usize];
        for known in [true, false] {
            let bytes = memory.take(&lost.id).unwrap();
            let reader = TableReader::new(memory.clone(), &keys(), limits(p), &segments).unwrap();
            let is_lost = |id: &ObjectId| known && *id == lost.id;
            let found = affected::points(reader, VolumeId(1), &segments, &cuts, &is_lost, &|| false).unwrap();
            memory.put_back(&lost.id, bytes);
            assert!(found.iter().copied().eq(cuts.iter().copied().filter(|&cut| cut >= lost.backup_min)));
        }
    }
    assert!(sizes[1] > 5 && sizes[2] > 5, "objects that one point needs, and that several do: {sizes:?}");
}

#[test]
fn tables_are_rebuilt_from_objects_alone() {
    for seed in 100..115 {
        let p = &mut Prng::new(seed);
        let (backups, inodes) = (2 + p.below(5) as u32, 5 + p.below(60));
        // The last one was given up.
        let mut history = history(p, backups + 1, inodes);
        let given_up = [BackupId(backups + 1)];
        let memory = Memory::default();
        let mut objects = Vec::new();
        for tails in &history.tails {
            // Rows of a backup are spread over objects, and some are there twice, as after a failover.
            let parts = 1 + p.below(6) as usize;
            for part in 0..parts {
                let mut rows: Vec<Row> = Vec::new();
                for (at, row) in tails.iter().enumerate() {
                    if at % parts == part || p.one_in(10) {
                        rows.push(row.clone());
                    }
                }
                rows.sort_by(|a, b| {
                    (a.as_ref().kind(), a.as_ref().key()).cmp(&(b.as_ref().kind(), b.as_ref().key()))
                });
                objects.push(memory.put_object(&rows, &keys()).unwrap());
            }
        }
        let missing = memory.name();
        objects.push(missing);
        let mut direct = Vec::new();
        history.written.pop();
        for written in &history.written {
            direct.extend(memory.put_segments(written, &mut writer(p)).unwrap());
        }
        let settings = RebuildSettings {
            given_up: &given_up,
            location_blocks: N as u8,
            zstd_level: 1,
            segment_bytes_max: 5000,
            fan_in: 2 + p.below(4) as usize,
        };
        let (mut scratch, mut out) = (memory.output(), memory.output());
        let mut source = Source::new(memory.clone(), &keys(), limits(p)).unwrap();
        let done = rebuild(&mut source, &keys(), &objects, &settings, &mut scratch, &mut out).unwrap();
        assert_eq!(done.skipped.iter().map(|skipped| skipped.0).collect::<Vec<_>>(), [missing]);
        assert_eq!(done.scratch, scratch.metas.iter().map(|meta| meta.id).collect::<Vec<_>>());
        for kind in TABLE_KINDS {
            assert_eq!(all_rows(&memory, &out.metas, kind), all_rows(&memory, &direct, kind), "seed {seed}");
        }
    }
}

/// Blocks of a location row with their numbers in the item.
fn numbered(row: &LocationRow) -> impl Iterator<Item = (u64, Place)> {
    (row.base..).zip(&row.blocks).filter_map(|(number, block)| match block {
        BlockPlace::Stored(place) => Some((number, *place)),
        _ => None,
    })
}

fn put_into(row: &mut Row, owners: &BTreeMap<Digest, ObjectId>) {
    let of = |block: &mut BlockPlace| {
        if let BlockPlace::Stored(place) = block {
            place.object = owners[&place.digest];
        }
    };
    match row {
        Row::Location(row) => row.blocks.iter_mut().for_each(of),
        Row::Entry(row) => of(&mut row.place),
        Row::Item(_) | Row::Name(_) => {}
    }
}

#[test]
fn tables_made_anew_find_blocks_that_were_moved() {
    let (mut moved, mut gone) = (0, 0);
    for seed in 400..430 {
        let p = &mut Prng::new(seed);
        let (backups, inodes) = (2 + p.below(5) as u32, 5 + p.below(40));
        let mut history = history(p, backups, inodes);
        let memory = Memory::default();
        // Each block is in an object of the backup that stored it. Most objects have entries of their own blocks and nothing else.
        let mut owners: BTreeMap<Digest, ObjectId> = BTreeMap::new();
        let (mut there, mut pure) = (BTreeSet::new(), BTreeSet::new());
        for tails in &mut history.tails {
            let backup = tails.first().map_or(BackupId(0), Row::backup);
            let parts: Vec<ObjectId> = (0..2 + p.below(8)).map(|_| memory.name()).collect();
            let mut says: BTreeMap<ObjectId, Vec<Row>> = BTreeMap::new();
            for row in tails.iter_mut() {
                let part = parts[1 + p.below(parts.len() as u64 - 1) as usize];
                if let Row::Entry(entry) = row
                    && let BlockPlace::Stored(place) = entry.place
                {
                    owners.insert(place.digest, part);
                }
                put_into(row, &owners);
                let is_own = matches!(row, Row::Entry(entry) if matches!(entry.place, BlockPlace::Stored(_)));
                // As an entry of a block that was stored once already: it is in another object.
                let home = if is_own && !p.one_in(8) { part } else { parts[0] };
                says.entry(home).or_default().push(row.clone());
            }
            for id in &parts {
                let mut rows = says.remove(id).unwrap_or_default();
                let key = |row: &Row| (row.as_ref().kind(), row.as_ref().key().to_owned());
                rows.sort_by(|a, b| key(a).0.cmp(&key(b).0).then(a.as_ref().key().cmp(&b.as_ref().key())));
                memory.put_object_as(*id, &rows, &keys(), backup).unwrap();
                there.insert(*id);
                if *id != parts[0] {
                    pure.insert(*id);
                }
            }
        }
        let mut tables: Vec<LocationRow> = Vec::new();
        for row in history.written.iter_mut().flatten() {
            put_into(row, &owners);
            if let Row::Location(row) = row {
                tables.push(row.clone());
            }
        }
        for _ in 0..p.below(8) {
            // Points expire, and a garbage run moves what is live in some objects, not in all rows: a backup that began before has the old places.
            tables.retain(|_| !p.one_in(6));
            let named = |tables: &[LocationRow]| -> BTreeSet<ObjectId> {
                tables.iter().flat_map(numbered).map(|(_, place)| place.object).collect()
            };
            let victims: BTreeSet<ObjectId> = named(&tables).into_iter().filter(|_| p.one_in(2)).collect();
            let all = p.one_in(2);
            let new = memory.name();
            let mut entries: BTreeMap<(Lin, u64, Digest), EntryRow> = BTreeMap::new();
            for row in tables.iter_mut().filter(|_| all || !p.one_in(4)) {
                let (lin, base, backup, block_bytes) = (row.lin, row.base, row.backup, row.block_bytes);
                for (at, block) in (base..).zip(&mut row.blocks) {
                    let BlockPlace::Stored(place) = block else { continue };
                    if victims.contains(&place.object) {
                        place.object = new;
                        let (digest, place) = (place.digest, BlockPlace::Stored(*place));
                        let entry = EntryRow { lin, block: at, backup, block_bytes, place };
                        let first = entries.entry((lin, at, digest)).or_insert_with(|| entry.clone());
                        first.backup = first.backup.min(backup);
                        moved += 1;
                    }
                }
            }
            let mut rows: Vec<Row> = entries.into_values().map(Row::Entry).collect();
            rows.sort_by(|a, b| a.as_ref().key().cmp(&b.as_ref().key()));
            memory.put_object_as(new, &rows, &keys(), BackupId(0)).unwrap();
            there.insert(new);
            pure.insert(new);
            let named = named(&tables);
            let dead: Vec<ObjectId> = pure.iter().filter(|id| !named.contains(id)).copied().collect();
            for id in dead.iter().filter(|_| !p.one_in(4)) {
                memory.take(id);
                pure.remove(id);
                there.remove(id);
                gone += 1;
            }
        }
        let settings = RebuildSettings {
            given_up: &[],
            location_blocks: N as u8,
            zstd_level: 1,
            segment_bytes_max: 5000,
            fan_in: 2 + p.below(6) as usize,
        };
        let (mut scratch, mut out) = (memory.output(), memory.output());
        let mut source = Source::new(memory.clone(), &keys(), limits(p)).unwrap();
        let objects: Vec<ObjectId> = there.iter().copied().collect();
        let done = rebuild(&mut source, &keys(), &objects, &settings, &mut scratch, &mut out).unwrap();
        assert_eq!(done.skipped, []);
        let mut found = BTreeMap::new();
        for row in all_rows(&memory, &out.metas, RowKind::Location) {
            if let Row::Location(row) = row {
                found.insert((row.lin, row.base, row.backup), row);
            }
        }
        for row in &tables {
            let of = &found[&(row.lin, row.base, row.backup)];
            let mut same = of.clone();
            for (block, was) in same.blocks.iter_mut().zip(&row.blocks) {
                if let (BlockPlace::Stored(place), BlockPlace::Stored(was)) = (&mut *block, was) {
                    assert!(there.contains(&place.object), "seed {seed}: {row:?}, but {of:?}");
                    assert_eq!((place.digest, place.len), (was.digest, was.len), "seed {seed}: {row:?}");
                    *place = *was;
                }
            }
            assert_eq!(&same, row, "seed {seed}");
        }
    }
    assert!(moved > 1000 && gone > 50, "{moved} blocks moved, {gone} objects are gone");
}

/// The rows of `kind` that the model knows of, each once, in order.
fn rows_of<'a>(items: impl Iterator<Item = &'a Known>, kind: RowKind) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for known in items {
        match kind {
            RowKind::Item => rows.push(Row::Item(known.row.clone())),
            RowKind::Name => rows.extend(known.names.iter().cloned().map(Row::Name)),
            _ => rows.extend(known.locations.values().cloned().map(Row::Location)),
        }
    }
    rows.sort_by(|a, b| a.as_ref().key().cmp(&b.as_ref().key()));
    rows.dedup();
    rows
}

fn all_rows(memory: &Memory, segments: &[SegmentMeta], kind: RowKind) -> Vec<Row> {
    let mut reader = TableReader::new(memory.clone(), &keys(), TableLimits::default(), segments).unwrap();
    let mut stream = reader.rows(kind, KeyRef::first_of(Lin::default()));
    let mut rows = Vec::new();
    while let Some(row) = stream.next(reader.source()).unwrap() {
        rows.push(row);
    }
    rows
}

#[test]
fn the_tail_of_an_object_costs_one_request_unless_it_is_long() {
    let p = &mut Prng::new(7);
    let history = history(p, 1, 4000);
    let memory = Memory::default();
    let sorted = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort_by(|a, b| {
            let of = |row: &Row| row.as_ref().kind();
            of(a).cmp(&of(b)).then(a.as_ref().key().cmp(&b.as_ref().key()))
        });
        rows
    };
    for (rows, requests) in [(sorted(&history.tails[0][..500]), 1..2), (sorted(&history.tails[0]), 3..40)] {
        let id = memory.put_object(&rows, &keys()).unwrap();
        let mut source = Source::new(memory.clone(), &keys(), TableLimits::default()).unwrap();
        let before = memory.fetches().0;
        let (trailer, tail) = source.object_whole(&id).unwrap();
        let mut found = Vec::new();
        for kind in RowKind::ALL {
            let mut stream = Stream::new(kind, KeyRef::first_of(Lin::default()), [tail]);
            while let Some(row) = stream.next(&mut source).unwrap() {
                found.push(row);
            }
        }
        let asked = memory.fetches().0 - before;
        assert!(found == rows && requests.contains(&asked), "{asked} requests for {} rows", rows.len());
        assert_eq!(source.object(&id).unwrap(), (trailer, tail));
    }
}

#[test]
fn too_many_overlapping_segments_are_refused_by_name() {
    let p = &mut Prng::new(1);
    let history = history(p, 6, 40);
    let memory = Memory::default();
    let mut segments = Vec::new();
    for written in &history.written {
        segments.extend(memory.put_segments(written, &mut writer(p)).unwrap());
    }
    let limits = TableLimits { sources: 2, ..TableLimits::default() };
    let mut reader = TableReader::new(memory.clone(), &keys(), limits, &segments).unwrap();
    let mut items = reader.items(VolumeId(1), 0, BackupId(6));
    let fault = loop {
        match items.next(&mut reader) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("six overlapping backups fit two sources"),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault, TableFault::TooManySegments(3));
}

#[test]
fn merges_of_a_running_backup_keep_locations_whose_item_is_still_to_come() {
    let p = &mut Prng::new(6);
    let history = history(p, 1, 100);
    let locations: Vec<Row> =
        history.written[0].iter().filter(|row| matches!(row, Row::Location(_))).cloned().collect();
    let memory = Memory::default();
    let segments: Vec<SegmentMeta> =
        locations.chunks(9).flat_map(|rows| memory.put_segments(rows, &mut writer(p)).unwrap()).collect();
    let order = MergeOrder {
        volume: VolumeId(1),
        segments: segments.iter().map(|segment| segment.id).collect(),
        ..MergeOrder::default()
    };
    let mut state = State::default();
    state.segments.insert(VolumeId(1), Arc::new(segments));
    for runs in [true, false] {
        if runs {
            let running = Running {
                policy: "p".to_owned(),
                slot: Slot(1),
                volumes: Vec::new(),
                missing: Vec::new(),
                wall_start_ns: 0,
                done: Default::default(),
                totals: Default::default(),
                newest_secs: Default::default(),
                is_stopped: false,
            };
            state.running.insert(BackupId(1), running);
        } else {
            state.running.clear();
        }
        let mut out = memory.output();
        merge::run(memory.clone(), &keys(), &state, &order, &mut out, &|| false).unwrap();
        let kept = all_rows(&memory, &out.metas, RowKind::Location);
        // Of a backup that has ended they would belong to nothing.
        assert_eq!(kept, if runs { locations.clone() } else { Vec::new() });
    }
    let why = merge::run(memory.clone(), &keys(), &State::default(), &order, &mut memory.output(), &|| false);
    assert_eq!(why, Err(MergeFault::Gone(order.segments[0])));
}

#[test]
fn of_many_segments_of_one_large_file_few_are_open_at_once() {
    let p = &mut Prng::new(4);
    let history = history(p, 1, 200);
    let some = history.written[0].iter().find_map(|row| match row {
        Row::Location(row) => Some(row.clone()),
        _ => None,
    });
    let some = some.unwrap();
    let memory = Memory::default();
    let row = |base: u64| Row::Location(LocationRow { base: base * N, ..some.clone() });
    // As workers report them: each with a stretch of the file, in no order.
    let mut parts: Vec<u64> = (0..300).collect();
    parts.sort_by_cached_key(|_| p.next_u64());
    let mut segments = Vec::new();
    for part in parts {
        let rows: Vec<Row> = (0..3).map(|at| row(part * 3 + at)).collect();
        segments.extend(memory.put_segments(&rows, &mut writer(p)).unwrap());
    }
    let limits = TableLimits { sources: 2, ..TableLimits::default() };
    let mut reader = TableReader::new(memory.clone(), &keys(), limits, &segments).unwrap();
    for from in [0, 1, 450, 899, 900] {
        let mut locations = reader.locations(some.lin, from * N, some.backup, some.backup);
        for base in from..900 {
            assert_eq!(locations.next(&mut reader).unwrap().map(Row::Location), Some(row(base)));
        }
        assert_eq!(locations.next(&mut reader).unwrap(), None);
    }
}

#[test]
fn segment_entries_round_trip() {
    let p = &mut Prng::new(3);
    let history = history(p, 2, 200);
    let memory = Memory::default();
    for meta in memory.put_segments(&history.written[0], &mut writer(p)).unwrap() {
        let bytes = meta.emit();
        assert_eq!(SegmentMeta::parse(&bytes), Ok(meta));
        assert!(SegmentMeta::parse(&bytes[..SEGMENT_META_BYTES - 1]).is_err());
    }
}

#[test]
fn rows_that_come_out_of_order_are_a_fault_of_their_segment() {
    let mut faults = 0;
    for seed in 0..20 {
        let p = &mut Prng::new(seed);
        let history = history(p, 3, 40);
        let memory = Memory::default();
        let mut segments: Vec<SegmentMeta> = Vec::new();
        for written in &history.written {
            segments.extend(memory.put_segments(written, &mut writer(p)).unwrap());
        }
        // A log that says of a segment that it begins where it ends: it is opened when others have gone past its first rows.
        let late = segments.iter_mut().find(|segment| segment.first_inode < segment.last_inode).unwrap();
        late.first_inode = late.last_inode;
        let tails: Vec<TailRef> = segments.iter().map(TailRef::from).collect();
        let mut run = Coalesce::new(tails, &[BackupId(3)], Scope::Full, writer(p));
        let mut source = Source::new(memory.clone(), &keys(), limits(p)).unwrap();
        let mut out = memory.output();
        loop {
            match run.step(&mut source, &mut out, 50) {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => break,
                Err(fault) => {
                    assert!(fault.to_string().contains("rows are not in order"), "{fault}");
                    faults += 1;
                    break;
                }
            }
        }
    }
    assert!(faults > 0);
}
