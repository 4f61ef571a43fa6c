//! The last look before objects are retired: no row refers to them, their tails say the same, and rows whose only home they are go on living
//! in the tail of a new object, so that the tables can still be rebuilt from objects alone.
//!
//! | row in the tail of an object that goes | what follows |
//! |---|---|
//! | an item, names of a listing | the tables have that row: it is carried on |
//! | a deletion | always: older rows of the item may be in other tails |
//! | a block that this object holds | nothing; but a location row there that refers to this object stops everything: it stays |
//! | the same, where a garbage run moved the block here | location rows from that backup on that have the same block in an older object are carried on, whole: they may stand on this entry alone |
//! | a block without bytes of its own here (zero, empty, lost, stored elsewhere) | location rows that have the block so, wherever it is, are carried on, whole |
//! | a whole location row | location rows of its place from that backup on are carried on, whole |
//!
//! A rebuild lays entries over the row before; a whole row needs nothing before it, so what came of the entries that go is kept.
//!
//! Invariants: what cannot be read, or contradicts the tables, stays; the state that is looked at has no backup that began before the
//! objects were condemned, so that none can refer to them later (G4).
//! Memory: keys of the rows of some objects ([`CARRY_ROWS_MAX`]), the streams of a look-up, a tail. Does not: commit. Source: ours.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::mark::locations;
use super::types::{Carried, GarbageFault, is_of_object};
use crate::format::key::{BACKUP_NEWEST, KeyRef};
use crate::format::row::{BlockPlace, LocationRow, Place, Row, RowKind, RowRef};
use crate::format::seal::Keys;
use crate::format::tail::{TailBuilder, TailHead, TailKind};
use crate::id::{BackupId, Lin, ObjectId, Slot, VolumeId};
use crate::log::state::State;
use crate::store::{StoreFault, StoreFaultKind};
use crate::table::segment::SegmentMeta;
use crate::table::source::{Fetch, Source, TableFault, TailRef};
use crate::table::stream::Stream;

/// Rows of tails that are held at once: 48 MiB at the most, of objects with nothing but small rows; usually a tenth.
pub const CARRY_ROWS_MAX: u64 = 1 << 18;
/// Bytes of an object with carried rows.
const OBJECT_BYTES_MAX: u64 = 8 << 20;
/// zstd level of carried row blocks: as of those that workers write.
const ZSTD_LEVEL: i32 = 1;

/// Where objects with carried rows go; each must be stored when `end` returns `Ok`.
pub trait ObjectSink {
    /// A new object begins; its name.
    fn begin(&mut self) -> ObjectId;
    /// Its next bytes.
    fn put(&mut self, bytes: &[u8]);
    /// It ends.
    fn end(&mut self, id: ObjectId) -> Result<(), StoreFault>;
}

/// What a tail says of a location row of a backup, or of one of its blocks, by its index in the row.
enum Says {
    Whole,
    Block(u64, BlockPlace),
    /// A garbage run moved the block here.
    Moved(u64, Place),
}

impl Says {
    /// Whether a row stands on it.
    fn is_so(&self, row: &LocationRow) -> bool {
        let block = |at: &u64| usize::try_from(*at).ok().and_then(|at| row.blocks.get(at)).copied();
        let same = |a: &Place, b: &Place| (a.len, a.digest) == (b.len, b.digest);
        match self {
            Says::Whole => true,
            // It may have been moved since.
            Says::Block(at, BlockPlace::Stored(place)) => {
                matches!(block(at), Some(BlockPlace::Stored(has)) if same(&has, place))
            }
            Says::Block(at, place) => block(at).unwrap_or(BlockPlace::Empty) == *place,
            Says::Moved(at, place) => {
                matches!(block(at), Some(BlockPlace::Stored(has))
                    if same(&has, place) && !is_newer(&has.object, &place.object))
            }
        }
    }
}

/// Whether an object is newer than another for sure: all that garbage runs write in an epoch is of one author.
fn is_newer(id: &ObjectId, than: &ObjectId) -> bool {
    let is_later = (id.node, id.boot) == (than.node, than.boot) && id.count > than.count;
    id.epoch > than.epoch || id.epoch == than.epoch && is_later
}

/// What the tails of some objects say.
#[derive(Default)]
struct Homes {
    items: BTreeSet<(Lin, BackupId)>,
    deletions: BTreeMap<(Lin, Reverse<BackupId>), Row>,
    names: BTreeSet<(Lin, BackupId)>,
    /// What is said of blocks that the objects do not hold; without a block: of the whole row.
    places: BTreeMap<(Lin, u64), Vec<(BackupId, Says)>>,
    /// Places of blocks that the objects hold.
    own: BTreeSet<(Lin, u64)>,
    rows: u64,
}

impl Homes {
    /// `by`: the backup that wrote the object; 0: a garbage run did.
    fn add(&mut self, row: Row, object: &ObjectId, by: BackupId, row_blocks: u64, counts: bool) {
        self.rows += 1;
        let backup = row.backup();
        match row {
            Row::Entry(entry) => {
                let base = entry.block / row_blocks * row_blocks;
                match entry.place {
                    BlockPlace::Stored(place) if place.object == *object => {
                        self.own.insert((entry.lin, base));
                        if by.0 == 0 {
                            let says = (backup, Says::Moved(entry.block - base, place));
                            self.places.entry((entry.lin, base)).or_default().push(says);
                        }
                    }
                    place if counts => {
                        let says = (backup, Says::Block(entry.block - base, place));
                        self.places.entry((entry.lin, base)).or_default().push(says);
                    }
                    _ => {}
                }
            }
            Row::Item(item) if counts && item.item.is_none() => {
                self.deletions.insert((item.lin, Reverse(backup)), Row::Item(item));
            }
            Row::Item(item) if counts => drop(self.items.insert((item.lin, backup))),
            Row::Name(name) if counts => drop(self.names.insert((name.parent, backup))),
            Row::Location(row) if counts => {
                self.places.entry((row.lin, row.base)).or_default().push((backup, Says::Whole));
            }
            Row::Item(_) | Row::Name(_) | Row::Location(_) => {}
        }
    }

    /// All items that they say something of, ascending.
    fn lins(&self) -> BTreeSet<Lin> {
        let items = self.items.iter().map(|key| key.0).chain(self.deletions.keys().map(|key| key.0));
        let names = self.names.iter().map(|key| key.0);
        let blocks = self.places.keys().map(|key| key.0).chain(self.own.iter().map(|key| key.0));
        items.chain(names).chain(blocks).collect()
    }

    /// Whether a location row of the tables stands on what they say.
    fn has_home_of(&self, row: &LocationRow) -> bool {
        let says = self.places.get(&(row.lin, row.base));
        says.into_iter().flatten().any(|(backup, says)| row.backup >= *backup && says.is_so(row))
    }
}

/// Writes carried rows.
struct Carrier<'a> {
    tail: TailBuilder,
    keys: &'a Keys,
    sink: &'a mut dyn ObjectSink,
    open: Option<ObjectId>,
    /// Objects that are stored, with their bytes.
    done: Vec<(ObjectId, u64)>,
    rows: u64,
}

impl<'a> Carrier<'a> {
    fn new(keys: &'a Keys, sink: &'a mut dyn ObjectSink) -> Result<Carrier<'a>, GarbageFault> {
        let tail = TailBuilder::new(ZSTD_LEVEL).ok_or(GarbageFault::Memory)?;
        Ok(Carrier { tail, keys, sink, open: None, done: Vec::new(), rows: 0 })
    }

    /// Adds a row; rows of a kind ascend.
    fn push(&mut self, row: RowRef<'_>) -> Result<(), GarbageFault> {
        let is_full = |tail: &TailBuilder| tail.is_full() || tail.bytes_max_with(row) > OBJECT_BYTES_MAX;
        if self.open.is_some() && is_full(&self.tail) {
            self.finish()?;
        }
        if self.open.is_none() {
            let id = self.sink.begin();
            let head =
                TailHead { kind: TailKind::Object, id, policy: 0, backup: BackupId(0), volume: VolumeId(0) };
            self.tail.start(head, self.keys);
            self.open = Some(id);
        }
        self.rows += 1;
        let sink = &mut *self.sink;
        let pushed = self.tail.push(row, &mut |bytes| sink.put(bytes));
        pushed.map_err(|refused| GarbageFault::Table(TableFault::Write(refused)))
    }

    /// Stores what there is.
    fn finish(&mut self) -> Result<(), GarbageFault> {
        let Some(id) = self.open.take() else { return Ok(()) };
        let sink = &mut *self.sink;
        let trailer = self.tail.finish(0, &mut |bytes| sink.put(bytes));
        self.sink.end(id)?;
        self.done.push((id, trailer.total_bytes()));
        Ok(())
    }
}

/// Looks at condemned objects for the last time; `state` is as of `seen`. Blocks; `stop` ends it early.
///
/// # Errors
/// A backup may still refer to one of them; rows of the tables cannot be read; a new object cannot be stored. Nothing may be retired then.
#[allow(clippy::too_many_arguments, reason = "what a look needs, each once")]
pub fn carry<F: Fetch>(
    source: &mut Source<F>,
    keys: &Keys,
    (state, seen): (&State, Slot),
    names: &[ObjectId],
    row_blocks: u32,
    sink: &mut dyn ObjectSink,
    stop: &dyn Fn() -> bool,
) -> Result<Carried, GarbageFault> {
    let condemned = &state.garbage.condemned;
    let names: Vec<ObjectId> = names.iter().filter(|id| condemned.contains_key(id)).copied().collect();
    if names.iter().any(|id| condemned.get(id).is_none_or(|since| !state.is_quiet(*since))) {
        return Err(GarbageFault::Busy);
    }
    let mut carried = Carried { seen, ..Carried::default() };
    let mut spared: BTreeSet<ObjectId> = BTreeSet::new();
    for segment in state.segments.values().flat_map(|list| list.iter()) {
        locations(source, TailRef::from(segment), &mut |row| named(row, &names, &mut spared))?;
        if stop() {
            return Err(GarbageFault::Stopped);
        }
    }
    let mut carrier = Carrier::new(keys, sink)?;
    let row_blocks = u64::from(row_blocks.max(1));
    let (mut homes, mut group) = (Homes::default(), Vec::new());
    let mut retired: Vec<(ObjectId, u64)> = Vec::new();
    let dead: Vec<ObjectId> = names.iter().filter(|id| !spared.contains(id)).copied().collect();
    for (at, id) in dead.iter().enumerate() {
        match read_tail(source, state, id, row_blocks, &mut homes) {
            Ok(bytes) => {
                retired.push((*id, bytes));
                group.push(*id);
            }
            // It is known to be missing: there is nothing that could be carried on.
            Err(GarbageFault::Table(TableFault::Store(fault)))
                if fault.kind == StoreFaultKind::NotFound && state.damage.missing.contains(id) =>
            {
                retired.push((*id, 0));
            }
            Err(GarbageFault::Table(TableFault::Store(fault))) if !is_of_object(fault.kind) => {
                return Err(fault.into());
            }
            Err(fault) => carried.kept.push((*id, fault.to_string())),
        }
        if homes.rows >= CARRY_ROWS_MAX || at + 1 == dead.len() {
            carry_group(source, state, &homes, &group, &mut carrier, &mut spared)?;
            carrier.finish()?;
            (homes, group) = (Homes::default(), Vec::new());
        }
        if stop() {
            return Err(GarbageFault::Stopped);
        }
    }
    retired.retain(|(id, _)| !spared.contains(id));
    (carried.objects, carried.rows) = (carrier.done, carrier.rows);
    (carried.retired, carried.spared) = (retired, spared.into_iter().collect());
    Ok(carried)
}

/// Notes which of `names`, ascending, a location row refers to.
fn named(row: &LocationRow, names: &[ObjectId], found: &mut BTreeSet<ObjectId>) {
    for block in &row.blocks {
        if let BlockPlace::Stored(place) = block
            && names.binary_search(&place.object).is_ok()
        {
            found.insert(place.object);
        }
    }
}

/// Reads what the tail of an object says; returns the object's bytes.
fn read_tail<F: Fetch>(
    source: &mut Source<F>,
    state: &State,
    id: &ObjectId,
    row_blocks: u64,
    homes: &mut Homes,
) -> Result<u64, GarbageFault> {
    let (trailer, tail) = source.object_whole(id)?;
    // A rebuild leaves out what backups have stored that were given up.
    let counts = !state.abandoned.contains(&trailer.head.backup);
    let mut rows = Vec::new();
    for kind in RowKind::ALL {
        let mut stream = Stream::new(kind, KeyRef::first_of(Lin::default()), [tail]);
        while let Some(row) = stream.next(source)? {
            rows.push(row);
        }
    }
    let by = trailer.head.backup;
    rows.into_iter().for_each(|row| homes.add(row, id, by, row_blocks, counts));
    Ok(trailer.total_bytes())
}

/// Segments that may hold rows of an item, but for those of running backups, which are carried by nothing: they may be given up.
fn tails_of(state: &State, lin: Lin) -> Vec<TailRef> {
    let list = state.segments.get(&lin.volume).map(|list| list.as_slice()).unwrap_or_default();
    let may =
        |segment: &&SegmentMeta| segment.covers(lin) && !state.running.contains_key(&segment.backup_max);
    list.iter().filter(may).map(TailRef::from).collect()
}

fn carry_group<F: Fetch>(
    source: &mut Source<F>,
    state: &State,
    homes: &Homes,
    group: &[ObjectId],
    carrier: &mut Carrier<'_>,
    spared: &mut BTreeSet<ObjectId>,
) -> Result<(), GarbageFault> {
    for lin in homes.lins() {
        let tails = tails_of(state, lin);
        let mut items: BTreeMap<Reverse<BackupId>, Row> = BTreeMap::new();
        let of = homes.deletions.range((lin, Reverse(BACKUP_NEWEST))..=(lin, Reverse(BackupId(0))));
        items.extend(of.map(|(key, row)| (key.1, row.clone())));
        if homes.items.range((lin, BackupId(0))..=(lin, BACKUP_NEWEST)).next().is_some() {
            let mut stream = Stream::new(RowKind::Item, KeyRef::first_of(lin), tails.iter().copied());
            while let Some(row) = stream.next(source)?.filter(|row| row.lin() == lin) {
                if homes.items.contains(&(lin, row.backup())) {
                    items.insert(Reverse(row.backup()), row);
                }
            }
        }
        items.values().try_for_each(|row| carrier.push(row.as_ref()))?;
        let listings = homes.names.range((lin, BackupId(0))..=(lin, BACKUP_NEWEST));
        for &(_, backup) in listings.rev() {
            let from = KeyRef::at(lin, 0, backup);
            let mut stream = Stream::new(RowKind::Name, from, tails.iter().copied());
            let is_of = |row: &Row| row.lin() == lin && row.backup() == backup;
            while let Some(row) = stream.next(source)?.filter(is_of) {
                carrier.push(row.as_ref())?;
            }
        }
        let range = (lin, 0)..=(lin, u64::MAX);
        let places = homes.places.range(range.clone()).map(|(key, _)| key.1);
        let bases: BTreeSet<u64> = places.chain(homes.own.range(range).map(|key| key.1)).collect();
        for base in bases {
            let from = KeyRef::at(lin, base, BACKUP_NEWEST);
            let mut stream = Stream::new(RowKind::Location, from, tails.iter().copied());
            while let Some(Row::Location(row)) = stream.next(source)? {
                if (row.lin, row.base) != (lin, base) {
                    break;
                }
                named(&row, group, spared);
                if homes.has_home_of(&row) {
                    carrier.push(RowRef::Location(&row))?;
                }
            }
        }
    }
    Ok(())
}
