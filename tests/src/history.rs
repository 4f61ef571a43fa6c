//! A made-up history of backups, what the tables should say of it at every cut, and a store in memory to keep them in.
//!
//! Invariants: `rows_from` never falls; a listing is always written whole; the same seed gives the same history.
//! Source: the reading rules of `windlass_agent::format::row`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use windlass_agent::format::row::{
    BlockPlace, EntryRow, ItemAttributes, ItemRow, LocationRow, NameRow, Place, Row, RowKind,
};
use windlass_agent::format::seal::Keys;
use windlass_agent::format::tail::{TailBuilder, TailHead, TailKind};
use windlass_agent::id::{BackupId, Boot, Epoch, Lin, NodeId, ObjectId, VolumeId};
use windlass_agent::store::{ByteRange, StoreFault, StoreFaultKind};
use windlass_agent::table::segment::{SegmentMeta, SegmentSink, SegmentWriter, WriteFault};
use windlass_agent::table::source::Fetch;

use crate::prng::Prng;
use crate::rows;

/// Blocks per location row in made-up histories.
pub const N: u64 = 4;

/// One item at one cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its row.
    pub row: ItemRow,
    /// Its listing.
    pub names: Vec<NameRow>,
    /// Its location rows by base.
    pub locations: BTreeMap<u64, LocationRow>,
}

/// What happened.
pub struct History {
    /// Rows that each backup wrote, in order of backups; sorted by LIN, kind, key.
    pub written: Vec<Vec<Row>>,
    /// Rows that each backup wrote into tails of objects: entries instead of most location rows.
    pub tails: Vec<Vec<Row>>,
    /// State after each backup: index 0 is before the first.
    pub cuts: Vec<BTreeMap<Lin, Known>>,
}

/// Makes a history of `backups` backups over at most `inodes` inodes.
pub fn history(p: &mut Prng, backups: u32, inodes: u64) -> History {
    let mut state: BTreeMap<Lin, Known> = BTreeMap::new();
    let mut history = History { written: Vec::new(), tails: Vec::new(), cuts: vec![BTreeMap::new()] };
    for number in 1..=backups {
        let backup = BackupId(number);
        let (mut written, mut tails) = (Vec::new(), Vec::new());
        for inode in 1..=inodes {
            let lin = Lin { volume: VolumeId(1), inode };
            let change = p.below(if number == 1 { 2 } else { 12 });
            let known = state.get(&lin).cloned();
            match (change, known) {
                (0, Some(_)) => {
                    state.remove(&lin);
                    let row = Row::Item(ItemRow { lin, backup, item: None, gone: None });
                    written.push(row.clone());
                    tails.push(row);
                }
                (0 | 1, _) => {
                    let known = rewritten(p, lin, backup);
                    written.push(Row::Item(known.row.clone()));
                    written.extend(known.names.iter().cloned().map(Row::Name));
                    written.extend(known.locations.values().cloned().map(Row::Location));
                    tails.push(Row::Item(known.row.clone()));
                    tails.extend(known.names.iter().cloned().map(Row::Name));
                    tails.extend(
                        known.locations.values().flat_map(|row| entries_of(row, &[])).map(Row::Entry),
                    );
                    state.insert(lin, known);
                }
                (2, Some(mut known)) => {
                    if let Some(item) = &mut known.row.item {
                        item.mode ^= 0o7;
                    }
                    known.row.backup = backup;
                    written.push(Row::Item(known.row.clone()));
                    tails.push(Row::Item(known.row.clone()));
                    state.insert(lin, known);
                }
                (3, Some(mut known)) => {
                    let bases: Vec<u64> = known.locations.keys().copied().collect();
                    if bases.is_empty() {
                        continue;
                    }
                    known.row.backup = backup;
                    written.push(Row::Item(known.row.clone()));
                    tails.push(Row::Item(known.row.clone()));
                    for base in bases {
                        let Some(row) = known.locations.get_mut(&base) else {
                            continue;
                        };
                        if p.one_in(2) {
                            continue;
                        }
                        let before = row.blocks.clone();
                        let at = p.below(row.blocks.len() as u64) as usize;
                        row.backup = backup;
                        if p.one_in(4) {
                            row.blocks[at] = BlockPlace::Empty;
                            row.runs = vec![(windlass_agent::format::row::RunKind::Hole, p.below(99))];
                            tails.push(Row::Location(row.clone()));
                        } else {
                            row.blocks[at] = stored(p);
                            tails.extend(entries_of(row, &before).into_iter().map(Row::Entry));
                        }
                        written.push(Row::Location(row.clone()));
                    }
                    state.insert(lin, known);
                }
                _ => {}
            }
        }
        history.written.push(written);
        history.tails.push(tails);
        history.cuts.push(state.clone());
    }
    history
}

fn stored(p: &mut Prng) -> BlockPlace {
    BlockPlace::Stored(Place {
        object: rows::object(p),
        frame_offset: p.below(1 << 26) as u32,
        frame_bytes: p.below(1 << 17) as u32,
        inner_offset: 0,
        len: 4096,
        digest: p.bytes(16).try_into().unwrap_or_default(),
    })
}

fn rewritten(p: &mut Prng, lin: Lin, backup: BackupId) -> Known {
    let item = ItemAttributes { rows_from: backup, ..rows::wild_attributes(p) };
    let mut known = Known {
        row: ItemRow { lin, backup, item: Some(item), gone: None },
        names: Vec::new(),
        locations: BTreeMap::new(),
    };
    if p.one_in(3) {
        for run in 0..p.below(4) as u32 {
            let mut names: Vec<u64> = (0..p.below(30)).map(|_| p.below(1000)).collect();
            names.sort();
            names.dedup();
            known.names.extend(names.into_iter().map(|name| NameRow {
                parent: lin,
                backup,
                run,
                name: format!("n{run}-{name:04}").into_bytes(),
                inode: name,
            }));
        }
    } else {
        for base in (0..p.below(6)).map(|row| row * N) {
            let blocks = (0..1 + p.below(N)).map(|_| if p.one_in(5) { BlockPlace::Zero } else { stored(p) });
            let row = LocationRow {
                lin,
                base,
                backup,
                block_bytes: 4096,
                blocks: blocks.collect(),
                runs: Vec::new(),
            };
            known.locations.insert(base, row);
        }
    }
    known
}

/// Entries of the blocks of `row` that differ from `before`.
fn entries_of(row: &LocationRow, before: &[BlockPlace]) -> Vec<EntryRow> {
    let blocks = row.blocks.iter().enumerate().filter(|(at, block)| before.get(*at) != Some(*block));
    blocks
        .map(|(at, block)| EntryRow {
            lin: row.lin,
            block: row.base + at as u64,
            backup: row.backup,
            block_bytes: row.block_bytes,
            place: *block,
        })
        .collect()
}

/// A store in memory, which counts. Clones share it.
#[derive(Clone, Default)]
pub struct Memory(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    stored: BTreeMap<ObjectId, Vec<u8>>,
    fetches: u64,
    fetched_bytes: u64,
    count: u32,
    first_reads_flipped: bool,
}

impl Memory {
    /// A name that was not given before.
    pub fn name(&self) -> ObjectId {
        let count = &mut self.0.borrow_mut().count;
        *count += 1;
        ObjectId { epoch: Epoch(1), node: NodeId(0), boot: Boot(9), count: *count }
    }

    /// GETs so far, and their bytes.
    pub fn fetches(&self) -> (u64, u64) {
        let inner = self.0.borrow();
        (inner.fetches, inner.fetched_bytes)
    }

    /// Removes what is stored under `id`.
    pub fn take(&self, id: &ObjectId) -> Option<Vec<u8>> {
        self.0.borrow_mut().stored.remove(id)
    }

    /// Stores it again.
    pub fn put_back(&self, id: &ObjectId, bytes: Vec<u8>) {
        self.0.borrow_mut().stored.insert(*id, bytes);
    }

    /// Flips a bit of what is stored under `id`.
    pub fn flip(&self, id: &ObjectId, at: usize) {
        if let Some(byte) = self.0.borrow_mut().stored.get_mut(id).and_then(|bytes| bytes.get_mut(at)) {
            *byte ^= 4;
        }
    }

    /// From now on every read comes with a flipped bit, unless it is over a connection of its own.
    pub fn flip_first_reads(&self) {
        self.0.borrow_mut().first_reads_flipped = true;
    }

    /// Stores an upload object of a hundred bytes of frames and a tail of `rows`, by kind and in key order.
    pub fn put_object(&self, rows: &[Row], keys: &Keys) -> Option<ObjectId> {
        let backup = rows.first().map_or(BackupId(0), |row| row.as_ref().key().backup);
        let id = self.name();
        self.put_object_as(id, rows, keys, backup)
    }

    /// The same, as an object with this name that `backup` wrote; 0: a garbage run did.
    pub fn put_object_as(
        &self,
        id: ObjectId,
        rows: &[Row],
        keys: &Keys,
        backup: BackupId,
    ) -> Option<ObjectId> {
        let mut builder = TailBuilder::new(1)?;
        let head = TailHead { kind: TailKind::Object, id, policy: 1, backup, volume: VolumeId(1) };
        builder.start(head, keys);
        let mut bytes = vec![0xee; 100];
        for row in rows {
            builder.push(row, &mut |part| bytes.extend_from_slice(part)).ok()?;
        }
        builder.finish(100, &mut |part| bytes.extend_from_slice(part));
        self.0.borrow_mut().stored.insert(id, bytes);
        Some(id)
    }

    /// Stores rows as segments and returns their entries.
    pub fn put_segments(
        &self,
        rows: &[Row],
        writer: &mut SegmentWriter,
    ) -> Result<Vec<SegmentMeta>, WriteFault> {
        let mut output = self.output();
        for row in rows {
            writer.push(row.as_ref(), &mut output)?;
        }
        writer.finish(&mut output)?;
        Ok(output.metas)
    }

    /// Where segments can be written to.
    pub fn output(&self) -> Output {
        Output { memory: self.clone(), metas: Vec::new(), writing: None }
    }
}

/// Stores segments in a [`Memory`].
pub struct Output {
    memory: Memory,
    /// Entries of what was stored.
    pub metas: Vec<SegmentMeta>,
    writing: Option<(ObjectId, Vec<u8>)>,
}

impl SegmentSink for Output {
    fn begin(&mut self) -> ObjectId {
        let id = self.memory.name();
        self.writing = Some((id, Vec::new()));
        id
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some((_, body)) = &mut self.writing {
            body.extend_from_slice(bytes);
        }
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        if let Some((id, body)) = self.writing.take() {
            assert_eq!(
                (id, body.len() as u64),
                (meta.id, meta.bytes),
                "a segment is as long as its entry says"
            );
            self.memory.0.borrow_mut().stored.insert(id, body);
            self.metas.push(*meta);
        }
        Ok(())
    }
}

impl Fetch for Memory {
    fn fetch(
        &mut self,
        id: &ObjectId,
        _: TailKind,
        range: ByteRange,
        afresh: bool,
    ) -> Result<Vec<u8>, StoreFault> {
        let fault = |kind| StoreFault { kind, call: format!("GET {id}"), detail: String::new() };
        let mut inner = self.0.borrow_mut();
        let body = inner.stored.get(id).ok_or(fault(StoreFaultKind::NotFound))?;
        let range = match range {
            ByteRange::Whole(_) => 0..body.len(),
            ByteRange::From { offset, len } => offset as usize..(offset + len) as usize,
            ByteRange::Last(len) => body.len().saturating_sub(len as usize)..body.len(),
        };
        let mut bytes = body.get(range).ok_or(fault(StoreFaultKind::Rejected))?.to_vec();
        inner.fetches += 1;
        inner.fetched_bytes += bytes.len() as u64;
        if let (true, false, Some(byte)) = (inner.first_reads_flipped, afresh, bytes.last_mut()) {
            *byte ^= 1;
        }
        Ok(bytes)
    }
}

/// Kinds that the tables have.
pub const TABLE_KINDS: [RowKind; 3] = [RowKind::Item, RowKind::Name, RowKind::Location];
