//! Live blocks leave objects that are mostly dead: they go into new objects, and the rows of the tables follow (G5).
//!
//! ```text
//!  sparse objects --weigh--> those worth it --copy--> frames of live blocks, and in the tail whose they are --> new objects
//!                                                '--> rows with new places --> new segments, in the place of those that had the old places
//! ```
//!
//! A rewrite is a merge of segments that also changes where rows say that blocks are. The old object is left as it is: when no row names it any
//! more, the next look through the tables finds it dead, and it goes as each dead object goes (G4).
//!
//! | gate | value | why |
//! |---|---|---|
//! | share of dead bytes | one part in 12 ([`Gates`]) | what is left stays below 1.1 times the live bytes |
//! | space to gain | 64 KiB | less is not worth the requests |
//!
//! Live bytes of a frame are an upper bound: its plain length is not in the rows of the tables, so it counts as no longer than these, the rows in
//! the object's tail, and its body show.
//!
//! | what happens | what follows |
//! |---|---|
//! | a crash, a fault, a refusal before the commit | new objects and segments are orphans; nothing else has changed |
//! | a crash between two commits of one object | some rows name the new places, some the old: both objects stay until no row names them |
//! | a backup has read rows from before, and refers to the old object | its rows keep it; it is sparser than before, and a later run moves the rest |
//! | a reader has the state from before | the old segments and objects are there until their window and its pin are over |
//! | a block cannot be read, or is not what its row says | that object stays, and is named |
//! | a segment was merged meanwhile | the log refuses the commit; no merge is ordered meanwhile, so only one of a coordinator before can do that |
//!
//! The tail of a new object has an entry for each block that it holds and each place of an item that the block is at, as if the first backup
//! whose row was changed had stored it there. So tables that are made anew from objects find each block in an object that is there, whichever
//! of the two that is (`table::rebuild`), and when a new object goes in its turn, `gc::carry` keeps the rows that stand on its entries.
//!
//! Memory: [`MOVE_HOMES_MAX`] places of blocks, an object, a segment, [`GET_BYTES_MAX`] of frames, and what a merge has. Does not: commit, or
//! touch rows of running backups. Source: ours; `agent/doc/commit-log.md`, G5.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::carry::ObjectSink;
use super::mark::{cuts, locations};
use super::types::{GarbageFault, Move, Moved, is_of_object};
use crate::format::compress::Compressor;
use crate::format::frame::{self, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES};
use crate::format::key::KeyRef;
use crate::format::row::{BlockPlace, Digest, EntryRow, LocationRow, Place, Row, RowKind};
use crate::format::seal::Keys;
use crate::format::tail::{TailBuilder, TailHead, TailKind};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::limits::READ_GAP_BYTES;
use crate::log::state::State;
use crate::pack::FRAME_BYTES;
use crate::read::decode::Decoder;
use crate::store::{ByteRange, StoreFault};
use crate::table::merge::{Coalesce, Progress};
use crate::table::plan::{FAN_IN, GROUP_BYTES_MAX, SEGMENT_BYTES, scope};
use crate::table::segment::{SegmentMeta, SegmentSink, SegmentWriter};
use crate::table::source::{Fetch, Source, TableFault, TailRef};
use crate::table::stream::Stream;

/// Objects of one step: the location rows of a volume are looked through once for so many.
pub const MOVE_OBJECTS_MAX: usize = 256;
/// Places of items that the blocks of one step are at: 12 MiB of them; as many as the largest object has blocks. An object of which more is
/// live, as equal blocks are stored once, stays.
pub const MOVE_HOMES_MAX: usize = 1 << 16;
/// Plain bytes of one step, unless a single object has more: what a crash repeats, and less new objects than a commit may name.
const MOVE_BYTES_MAX: u64 = 1 << 30;
/// Entries in a tail at which its object is closed: half a MiB.
const OBJECT_HOMES_MAX: usize = 8192;
/// Bytes of frames in one GET.
const GET_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a new object: one is held in memory.
const OBJECT_BYTES_MAX: u64 = 8 << 20;
/// zstd level of new frames and row blocks where it pays: what policies have that name none.
const ZSTD_LEVEL: i32 = 1;
/// No item is greater.
const LIN_MAX: Lin = Lin { volume: VolumeId(u32::MAX), inode: u64::MAX };
/// Rows between two looks at whether to stop.
const STEP_ROWS: u32 = 4096;

/// When an object is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// One part in so many is dead at least: with 12, all others together have at most 1/11 more than what is live in them.
    pub dead_parts: u64,
    /// Bytes that it must give back at least: below 64 KiB they are not worth the requests.
    pub gain_bytes_min: u64,
}

impl Default for Gates {
    fn default() -> Gates {
        Gates { dead_parts: 12, gain_bytes_min: 64 << 10 }
    }
}

impl Gates {
    /// Whether an object is worth it, with so many bytes of which so many are live.
    pub fn is_worth(&self, bytes: u64, live_bytes: u64) -> bool {
        let dead = bytes.saturating_sub(live_bytes);
        dead >= self.gain_bytes_min && dead.saturating_mul(self.dead_parts) >= bytes
    }
}

/// A block: its object by its place in the order, its frame's offset, its place in the frame.
type At = (u16, u32, u32);

/// What a row says of a block, and where it goes.
struct Wanted {
    frame_bytes: u32,
    len: u32,
    digest: Digest,
    /// New object, frame offset, frame bytes, place in the frame.
    new: Option<(ObjectId, u32, u32, u32)>,
}

/// Where blocks are: block, item, its block. With the first backup whose row says so, and its block size.
type Homes = BTreeMap<(At, Lin, u64), (BackupId, u32)>;

/// What is known of a frame.
#[derive(Default)]
struct Frame {
    bytes: u32,
    live: u64,
    end: u64,
}

impl Frame {
    /// Stored bytes that are live, at most. `end`: where the last block ends that the object's tail knows of.
    fn live_bytes(&self, end: u64) -> u64 {
        let bytes = u64::from(self.bytes);
        let plain = self.end.max(end).max(bytes.saturating_sub(FRAME_OVERHEAD_BYTES as u64)).max(1);
        (bytes * self.live).div_ceil(plain).min(bytes)
    }
}

/// The objects of a step, ascending.
fn index_of(names: &[ObjectId], id: &ObjectId) -> Option<u16> {
    names.binary_search(id).ok().and_then(|at| u16::try_from(at).ok())
}

/// Blocks of a row that are in one of `names`: which, their place, their number in the item.
fn stored<'r>(row: &'r LocationRow, names: &'r [ObjectId]) -> impl Iterator<Item = (At, &'r Place, u64)> {
    (row.base..).zip(&row.blocks).filter_map(|(number, block)| match block {
        BlockPlace::Stored(place) => index_of(names, &place.object)
            .map(|at| ((at, place.frame_offset, place.inner_offset), place, number)),
        BlockPlace::Empty | BlockPlace::Zero | BlockPlace::Lost => None,
    })
}

/// Whether an object may be moved at all.
pub fn may_move(state: &State, id: &ObjectId) -> bool {
    state.may_refer(id) && !state.damage.distrusts(id) && !state.garbage.carriers.contains(id)
}

/// Moves what is live out of objects; see the module. Blocks; `stop` ends it early. `frames` reads objects.
///
/// # Errors
/// Rows cannot be read, or the store does not answer: nothing may be committed then.
pub fn rewrite<F: Fetch>(
    source: &mut Source<F>,
    frames: &mut F,
    keys: &Keys,
    state: &State,
    (order, gates): (&Move, Gates),
    (objects, segments): (&mut dyn ObjectSink, &mut dyn SegmentSink),
    stop: &dyn Fn() -> bool,
) -> Result<Moved, GarbageFault> {
    let mut names: Vec<ObjectId> =
        order.names.iter().filter(|id| may_move(state, id)).take(MOVE_OBJECTS_MAX).copied().collect();
    names.sort_unstable();
    names.dedup();
    let all = state.segments.get(&order.volume).map(|list| list.as_slice()).unwrap_or_default();
    let is_running = |segment: &&SegmentMeta| state.running.contains_key(&segment.backup_max);
    let (running, settled): (Vec<&SegmentMeta>, Vec<&SegmentMeta>) = all.iter().partition(is_running);
    let mut moved = Moved::default();
    if order.after.is_none() {
        let gates = (gates, order.bytes_max.min(MOVE_BYTES_MAX));
        names = weigh(source, gates, (&running, &settled), &names, &mut moved, stop)?;
    }
    let (mut wanted, mut homes): (BTreeMap<At, Wanted>, Homes) = Default::default();
    let (mut group, mut bytes, mut plain) = (Vec::new(), 0, 0u64);
    for (at, segment) in settled.iter().enumerate() {
        let place = (segment.first_inode, segment.id);
        if names.is_empty() || order.after.is_some_and(|after| place <= after) {
            continue;
        }
        let mut new = BTreeSet::new();
        let mut has_some = false;
        locations(source, TailRef::from(*segment), &mut |row| {
            for (at, place, number) in stored(row, &names) {
                has_some = true;
                let block = wanted.entry(at).or_insert_with(|| {
                    new.insert(at);
                    plain += u64::from(place.len);
                    let (frame_bytes, len, digest) = (place.frame_bytes, place.len, place.digest);
                    Wanted { frame_bytes, len, digest, new: None }
                });
                if (block.len, block.digest) == (place.len, place.digest) {
                    let first = homes.entry((at, row.lin, number)).or_insert((row.backup, row.block_bytes));
                    *first = (row.backup, row.block_bytes).min(*first);
                }
            }
        })?;
        if stop() {
            return Err(GarbageFault::Stopped);
        }
        if !has_some {
            continue;
        }
        if bytes + segment.bytes > GROUP_BYTES_MAX && !group.is_empty() {
            moved.after = settled.get(at.wrapping_sub(1)).map(|last| (last.first_inode, last.id));
            // What it alone has is copied with it.
            wanted.retain(|at, _| !new.contains(at));
            break;
        }
        bytes += segment.bytes;
        group.push(**segment);
        if (group.len() >= FAN_IN || plain >= order.bytes_max) && at + 1 < settled.len() {
            moved.after = Some(place);
            break;
        }
    }
    if !group.is_empty() {
        let mut copier = Copier::new(keys, objects, &homes)?;
        for (at, id) in names.iter().enumerate() {
            if let Err(why) = copier.copy(frames, (at, id), &mut wanted, &mut moved)? {
                moved.kept.push((*id, why));
            }
            if stop() {
                return Err(GarbageFault::Stopped);
            }
        }
        copier.flush(&mut wanted)?;
        copier.finish()?;
        (moved.objects, moved.bytes) = (copier.done, copier.plain);
    }
    if wanted.values().any(|block| block.new.is_some()) {
        moved.removed = group.iter().map(|segment| segment.id).collect();
        let tails: Vec<TailRef> = group.iter().map(TailRef::from).collect();
        let writer = SegmentWriter::new(ZSTD_LEVEL, SEGMENT_BYTES, keys).ok_or(GarbageFault::Memory)?;
        let mut run = Coalesce::new(tails, &cuts(state, order.volume), scope(&group, all), writer);
        let mut sink = Noted { sink: segments, made: Vec::new() };
        let on = &mut |row: &mut Row| {
            if let Row::Location(row) = row {
                replace(row, &names, &wanted);
            }
            Ok(())
        };
        while run.step_with(source, &mut sink, STEP_ROWS, on)? == Progress::More {
            if stop() {
                return Err(GarbageFault::Stopped);
            }
        }
        moved.added = sink.made;
        moved.requests += (moved.objects.len() + moved.added.len()) as u64;
    }
    moved.names = names;
    Ok(moved)
}

/// Which of `names` are worth it: all rows of the volume are looked at, so that nothing live is overlooked.
fn weigh<F: Fetch>(
    source: &mut Source<F>,
    (gates, plain_max): (Gates, u64),
    (running, settled): (&[&SegmentMeta], &[&SegmentMeta]),
    names: &[ObjectId],
    moved: &mut Moved,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<ObjectId>, GarbageFault> {
    // Blocks with their bytes, and the places of items that they are at.
    let mut seen: BTreeMap<At, u32> = BTreeMap::new();
    let mut homes: BTreeSet<(At, Lin, u64)> = BTreeSet::new();
    let mut plain = 0u64;
    let mut of: BTreeMap<(u16, u32), Frame> = BTreeMap::new();
    let mut first_out = names.len();
    let mut waits: BTreeSet<u16> = BTreeSet::new();
    for segment in running {
        locations(source, TailRef::from(*segment), &mut |row| {
            waits.extend(stored(row, names).map(|at| at.0.0))
        })?;
    }
    for segment in settled {
        locations(source, TailRef::from(*segment), &mut |row| {
            for (at, place, number) in stored(row, names) {
                if usize::from(at.0) >= first_out {
                    continue;
                }
                homes.insert((at, row.lin, number));
                if seen.insert(at, place.len).is_none() {
                    plain += u64::from(place.len);
                    let frame = of.entry((at.0, at.1)).or_default();
                    frame.bytes = frame.bytes.max(place.frame_bytes);
                    frame.live += u64::from(place.len);
                    frame.end = frame.end.max(u64::from(place.inner_offset) + u64::from(place.len));
                }
            }
            // The last of them wait for a later step.
            while homes.len() > MOVE_HOMES_MAX || plain > plain_max && first_out > 1 {
                first_out -= 1;
                homes.retain(|(at, ..)| usize::from(at.0) < first_out);
                seen.retain(|at, _| usize::from(at.0) < first_out);
                plain = seen.values().map(|len| u64::from(*len)).sum();
            }
        })?;
        if stop() {
            return Err(GarbageFault::Stopped);
        }
    }
    match (first_out, names.split_first()) {
        (0, Some((first, rest))) => {
            moved.kept.push((*first, "its blocks are at too many places".to_owned()));
            moved.later = rest.to_vec();
        }
        _ => moved.later = names[first_out..].to_vec(),
    }
    let mut worth = Vec::new();
    for (at, id) in names.iter().enumerate().take(first_out) {
        let Ok(number) = u16::try_from(at) else { break };
        if waits.contains(&number) {
            continue;
        }
        moved.requests += 1;
        let (data_bytes, ends) = match frames_of(source, id) {
            Ok(found) => found,
            Err(TableFault::Store(fault)) if !is_of_object(fault.kind) => {
                return Err(fault.into());
            }
            Err(fault) => {
                moved.kept.push((*id, fault.to_string()));
                continue;
            }
        };
        let end_of = |offset: &u32| ends.get(offset).copied().unwrap_or(0);
        let frames = of.range((number, 0)..=(number, u32::MAX));
        let live: u64 = frames.map(|(at, frame)| frame.live_bytes(end_of(&at.1))).sum();
        if live > 0 && gates.is_worth(data_bytes, live) {
            worth.push(*id);
        }
    }
    Ok(worth)
}

/// Bytes of all frames of an object; and of each that its tail knows blocks of, by its offset, where the last of these ends.
fn frames_of<F: Fetch>(
    source: &mut Source<F>,
    id: &ObjectId,
) -> Result<(u64, BTreeMap<u32, u64>), TableFault> {
    let (trailer, tail) = source.object_whole(id)?;
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let mut note = |block: &BlockPlace| match block {
        BlockPlace::Stored(place) if place.object == *id => {
            let end = ends.entry(place.frame_offset).or_default();
            *end = (u64::from(place.inner_offset) + u64::from(place.len)).max(*end);
        }
        BlockPlace::Stored(_) | BlockPlace::Empty | BlockPlace::Zero | BlockPlace::Lost => {}
    };
    for kind in [RowKind::Location, RowKind::Entry] {
        let mut rows = Stream::new(kind, KeyRef::first_of(Lin::default()), [tail]);
        while let Some(row) = rows.next(source)? {
            match &row {
                Row::Location(row) => row.blocks.iter().for_each(&mut note),
                Row::Entry(row) => note(&row.place),
                Row::Item(_) | Row::Name(_) => {}
            }
        }
    }
    Ok((trailer.data_bytes, ends))
}

/// Gives a row the new places of its blocks.
fn replace(row: &mut LocationRow, names: &[ObjectId], wanted: &BTreeMap<At, Wanted>) {
    for block in &mut row.blocks {
        let BlockPlace::Stored(place) = block else { continue };
        let Some(at) = index_of(names, &place.object) else { continue };
        let found = wanted.get(&(at, place.frame_offset, place.inner_offset));
        let is_same = |block: &&Wanted| (block.len, block.digest) == (place.len, place.digest);
        if let Some((object, frame_offset, frame_bytes, inner_offset)) =
            found.filter(is_same).and_then(|block| block.new)
        {
            *place = Place { object, frame_offset, frame_bytes, inner_offset, ..*place };
        }
    }
}

/// Segments are passed on and remembered.
struct Noted<'a> {
    sink: &'a mut dyn SegmentSink,
    made: Vec<SegmentMeta>,
}

impl SegmentSink for Noted<'_> {
    fn begin(&mut self) -> ObjectId {
        self.sink.begin()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.sink.put(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.sink.end(meta)?;
        self.made.push(*meta);
        Ok(())
    }
}

/// Reads frames, and packs what is live in them into frames of new objects.
struct Copier<'a> {
    keys: &'a Keys,
    sink: &'a mut dyn ObjectSink,
    decoder: Decoder<'a>,
    compressor: Compressor,
    tail: TailBuilder,
    homes: &'a Homes,
    /// What the tail of the open object will say.
    entries: Vec<EntryRow>,
    /// Plain bytes of the frame to come, and the blocks in it.
    raw: Vec<u8>,
    blocks: Vec<(At, u32)>,
    packed: Vec<u8>,
    open: Option<ObjectId>,
    /// Bytes of the open object.
    at: u64,
    done: Vec<(ObjectId, u64)>,
    plain: u64,
}

impl<'a> Copier<'a> {
    fn new(
        keys: &'a Keys,
        sink: &'a mut dyn ObjectSink,
        homes: &'a Homes,
    ) -> Result<Copier<'a>, GarbageFault> {
        Ok(Copier {
            keys,
            sink,
            decoder: Decoder::new(keys).ok_or(GarbageFault::Memory)?,
            compressor: Compressor::new(ZSTD_LEVEL).ok_or(GarbageFault::Memory)?,
            tail: TailBuilder::new(ZSTD_LEVEL).ok_or(GarbageFault::Memory)?,
            homes,
            entries: Vec::new(),
            raw: Vec::new(),
            blocks: Vec::new(),
            packed: Vec::new(),
            open: None,
            at: 0,
            done: Vec::new(),
            plain: 0,
        })
    }

    /// Copies what is wanted of one object; `Ok(Err)`: some of it cannot be read, and stays where it is.
    fn copy<F: Fetch>(
        &mut self,
        frames: &mut F,
        (at, id): (usize, &ObjectId),
        wanted: &mut BTreeMap<At, Wanted>,
        moved: &mut Moved,
    ) -> Result<Result<(), String>, GarbageFault> {
        let Ok(number) = u16::try_from(at) else { return Ok(Ok(())) };
        let of: Vec<(At, u32, u32, Digest)> = wanted
            .range((number, 0, 0)..=(number, u32::MAX, u32::MAX))
            .map(|(at, block)| (*at, block.frame_bytes, block.len, block.digest))
            .collect();
        let frame_list: Vec<&[(At, u32, u32, Digest)]> = of.chunk_by(|a, b| a.0.1 == b.0.1).collect();
        let begin = |frame: &[(At, u32, u32, Digest)]| u64::from(frame[0].0.1);
        let end = |frame: &[(At, u32, u32, Digest)]| begin(frame) + u64::from(frame[0].1);
        let mut rest = frame_list.as_slice();
        while let Some(first) = rest.first() {
            let near = rest.windows(2).take_while(|pair| {
                begin(pair[1]).saturating_sub(end(pair[0])) <= READ_GAP_BYTES
                    && end(pair[1]).saturating_sub(begin(first)) <= GET_BYTES_MAX
            });
            let (now, later) = rest.split_at(1 + near.count());
            rest = later;
            let last = now.last().unwrap_or(first);
            let range =
                ByteRange::From { offset: begin(first), len: end(last).saturating_sub(begin(first)).max(1) };
            for afresh in [false, true] {
                moved.requests += 1;
                let mut bytes = match frames.fetch(id, TailKind::Object, range, afresh) {
                    Ok(bytes) => bytes,
                    Err(fault) if is_of_object(fault.kind) && afresh => {
                        return Ok(Err(fault.to_string()));
                    }
                    Err(fault) if is_of_object(fault.kind) => continue,
                    Err(fault) => return Err(fault.into()),
                };
                match self.take(id, begin(first), &mut bytes, now, wanted)? {
                    Ok(()) => break,
                    Err(why) if afresh => return Ok(Err(why)),
                    Err(_) => {}
                }
            }
        }
        Ok(Ok(()))
    }

    /// Takes the blocks of frames out of `bytes`, which begin at `from` of the object.
    fn take(
        &mut self,
        id: &ObjectId,
        from: u64,
        bytes: &mut [u8],
        frames: &[&[(At, u32, u32, Digest)]],
        wanted: &mut BTreeMap<At, Wanted>,
    ) -> Result<Result<(), String>, GarbageFault> {
        for frame in frames {
            let offset = frame[0].0.1;
            let begin = u64::from(offset).saturating_sub(from) as usize;
            let Some(body) = bytes.get_mut(begin..begin.saturating_add(frame[0].1 as usize)) else {
                return Ok(Err("the object is cut short".to_owned()));
            };
            let mut copies: Vec<(At, Vec<u8>)> = Vec::new();
            {
                let plain = match self.decoder.open(id, offset, body) {
                    Ok(plain) => plain,
                    Err(fault) => return Ok(Err(fault.to_string())),
                };
                for &(at, _, len, digest) in *frame {
                    let is_new = wanted.get(&at).is_some_and(|block| block.new.is_none())
                        && !self.blocks.iter().any(|block| block.0 == at);
                    if is_new {
                        match plain.block(at.2, len, &digest) {
                            Ok(block) => copies.push((at, block.to_vec())),
                            Err(fault) => return Ok(Err(fault.to_string())),
                        }
                    }
                }
            }
            for (at, block) in copies {
                if !self.raw.is_empty() && self.raw.len() + block.len() > FRAME_BYTES {
                    self.flush(wanted)?;
                }
                self.blocks.push((at, self.raw.len() as u32));
                self.raw.extend_from_slice(&block);
            }
        }
        Ok(Ok(()))
    }

    /// Seals the frame to come.
    fn flush(&mut self, wanted: &mut BTreeMap<At, Wanted>) -> Result<(), GarbageFault> {
        let used = self.raw.len();
        if used == 0 {
            return Ok(());
        }
        self.packed.resize(used + FRAME_OVERHEAD_BYTES, 0);
        let body = &mut self.packed[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + used];
        let compressed = self.compressor.compress(&self.raw, body);
        if compressed.is_none() {
            body.copy_from_slice(&self.raw);
        }
        let body_bytes = compressed.unwrap_or(used);
        let total = (body_bytes + FRAME_OVERHEAD_BYTES) as u64;
        let is_full = self.at + total > OBJECT_BYTES_MAX || self.entries.len() >= OBJECT_HOMES_MAX;
        if self.open.is_some() && is_full {
            self.finish()?;
        }
        let id = match self.open {
            Some(id) => id,
            None => {
                self.at = 0;
                *self.open.insert(self.sink.begin())
            }
        };
        let key = self.keys.object(&id);
        frame::seal(&mut self.packed, body_bytes, used, compressed.is_some(), &key, self.at);
        self.sink.put(&self.packed[..total as usize]);
        for (at, inner) in self.blocks.drain(..) {
            let Some(block) = wanted.get_mut(&at) else { continue };
            let (frame_offset, frame_bytes) = (self.at as u32, total as u32);
            block.new = Some((id, frame_offset, frame_bytes, inner));
            let (len, digest) = (block.len, block.digest);
            let place = Place { object: id, frame_offset, frame_bytes, inner_offset: inner, len, digest };
            let place = BlockPlace::Stored(place);
            let all = (at, Lin::default(), 0)..=(at, LIN_MAX, u64::MAX);
            let entry = |(&(_, lin, block), &(backup, block_bytes))| EntryRow {
                lin,
                block,
                backup,
                block_bytes,
                place,
            };
            self.entries.extend(self.homes.range(all).map(entry));
        }
        self.plain += used as u64;
        self.at += total;
        self.raw.clear();
        Ok(())
    }

    fn finish(&mut self) -> Result<(), GarbageFault> {
        let Some(id) = self.open.take() else { return Ok(()) };
        let head =
            TailHead { kind: TailKind::Object, id, policy: 0, backup: BackupId(0), volume: VolumeId(0) };
        self.tail.start(head, self.keys);
        let sink = &mut *self.sink;
        self.entries.sort_by_key(|entry| (entry.lin, entry.block, Reverse(entry.backup)));
        for entry in self.entries.drain(..) {
            let pushed = self.tail.push(&entry, &mut |bytes| sink.put(bytes));
            pushed.map_err(|refused| GarbageFault::Table(TableFault::Write(refused)))?;
        }
        let trailer = self.tail.finish(self.at, &mut |bytes| sink.put(bytes));
        self.sink.end(id)?;
        self.done.push((id, trailer.total_bytes()));
        Ok(())
    }
}
