//! What the last look at an object keeps, so that tables can be made anew from tails although blocks were moved.
//!
//! ```text
//!  backup 1 stores block 0 in `old`, but its entry is in the tail of `gone`; a garbage run moves the block to `new`
//!  backup 2 has read rows from before that, runs meanwhile, and stores block 1 in `own`: its row says that block 0 is in `old`
//!  `gone` was deleted, point 1 expires: no row names `new`, whose tail alone says what block 0 of the item is
//! ```
//!
//! Source: ours; `agent/doc/commit-log.md`, G5.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests, and their helpers")]

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_agent::format::key::KeyRef;
use windlass_agent::format::row::{BlockPlace, EntryRow, LocationRow, Place, Row, RowKind};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::gc::carry::{ObjectSink, carry};
use windlass_agent::gc::types::Carried;
use windlass_agent::id::{BackupId, Lin, ObjectId, Slot, VolumeId};
use windlass_agent::log::state::State;
use windlass_agent::store::StoreFault;
use windlass_agent::table::rebuild::{RebuildSettings, rebuild};
use windlass_agent::table::segment::{SegmentMeta, SegmentWriter};
use windlass_agent::table::source::{Source, TableLimits};
use windlass_agent::table::stream::Stream;
use windlass_tests::history::{Memory, N};

const LIN: Lin = Lin { volume: VolumeId(1), inode: 7 };

fn keys() -> Keys {
    Keys::new(&Secret::new([5; 32]), Sealing::Aes256Gcm)
}

fn source(memory: &Memory) -> Source<Memory> {
    Source::new(memory.clone(), &keys(), TableLimits::default()).unwrap()
}

/// Block `what`, whose digest it is, in an object.
fn at(object: ObjectId, what: u8) -> BlockPlace {
    let (frame_offset, frame_bytes, digest) = (0, 4128, [what; 16]);
    BlockPlace::Stored(Place { object, frame_offset, frame_bytes, inner_offset: 0, len: 4096, digest })
}

fn entry(block: u64, backup: u32, place: BlockPlace) -> Row {
    Row::Entry(EntryRow { lin: LIN, block, backup: BackupId(backup), block_bytes: 4096, place })
}

fn row(backup: u32, blocks: Vec<BlockPlace>) -> LocationRow {
    let backup = BackupId(backup);
    LocationRow { lin: LIN, base: 0, backup, block_bytes: 4096, blocks, runs: Vec::new() }
}

/// Objects with carried rows go into the memory.
struct Sink(Memory, Vec<u8>, Vec<ObjectId>);

impl ObjectSink for Sink {
    fn begin(&mut self) -> ObjectId {
        self.1.clear();
        self.0.name()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.1.extend_from_slice(bytes);
    }

    fn end(&mut self, id: ObjectId) -> Result<(), StoreFault> {
        self.0.put_back(&id, std::mem::take(&mut self.1));
        self.2.push(id);
        Ok(())
    }
}

/// The last look at `gone`, where these objects and segments are live.
fn last_look(
    memory: &Memory,
    objects: &[ObjectId],
    segments: Vec<SegmentMeta>,
    gone: ObjectId,
    sink: &mut Sink,
) -> Carried {
    let mut state = State::default();
    let live = Arc::make_mut(&mut state.live);
    for id in objects.iter().chain(segments.iter().map(|segment| &segment.id)) {
        live.insert(id);
    }
    state.segments.insert(VolumeId(1), Arc::new(segments));
    state.garbage.condemned = Arc::new(BTreeMap::from([(gone, Slot(3))]));
    let seen = (&state, Slot(4));
    carry(&mut source(memory), &keys(), seen, &[gone], N as u32, sink, &|| false).unwrap()
}

/// The location rows of tables made anew.
fn made_anew(memory: &Memory, objects: &[ObjectId]) -> Vec<LocationRow> {
    let settings = RebuildSettings {
        given_up: &[],
        location_blocks: N as u8,
        zstd_level: 1,
        segment_bytes_max: 5000,
        fan_in: 4,
    };
    let (mut scratch, mut out) = (memory.output(), memory.output());
    rebuild(&mut source(memory), &keys(), objects, &settings, &mut scratch, &mut out).unwrap();
    let mut rows = Vec::new();
    for meta in &out.metas {
        let tail = meta.into();
        let from = KeyRef::first_of(Lin::default());
        let mut stream = Stream::new(RowKind::Location, from, [tail]);
        while let Some(Row::Location(row)) = stream.next(&mut source(memory)).unwrap() {
            rows.push(row);
        }
    }
    rows
}

#[test]
fn rows_that_stand_on_a_moved_block_alone_outlive_its_object() {
    let memory = Memory::default();
    let (old, own, new) = (memory.name(), memory.name(), memory.name());
    memory.put_object_as(old, &[], &keys(), BackupId(1)).unwrap();
    memory.put_object_as(own, &[entry(1, 2, at(own, 2))], &keys(), BackupId(2)).unwrap();
    memory.put_object_as(new, &[entry(0, 1, at(new, 1))], &keys(), BackupId(0)).unwrap();
    let of_two = row(2, vec![at(old, 1), at(own, 2)]);
    assert!(
        !made_anew(&memory, &[old, own]).contains(&of_two),
        "the tail of the new object alone says what block 0 is"
    );

    let mut writer = SegmentWriter::new(1, 5000, &keys()).unwrap();
    let segments = memory.put_segments(&[Row::Location(of_two.clone())], &mut writer).unwrap();
    let mut sink = Sink(memory.clone(), Vec::new(), Vec::new());
    let carried = last_look(&memory, &[old, own, new], segments, new, &mut sink);
    assert_eq!((carried.retired.len(), carried.rows), (1, 1), "{carried:?}");
    memory.take(&new);
    let left: Vec<ObjectId> = [old, own].into_iter().chain(sink.2).collect();
    assert!(made_anew(&memory, &left).contains(&of_two), "{:?}", made_anew(&memory, &left));
}

#[test]
fn rows_whose_block_has_moved_outlive_the_object_that_said_what_it_was() {
    let memory = Memory::default();
    // Block 0 became another one and then what it was, which was stored: the entry is in the tail of `teller`. Then it moved.
    let (old, own, new, teller) = (memory.name(), memory.name(), memory.name(), memory.name());
    memory.put_object_as(own, &[entry(0, 2, at(own, 2))], &keys(), BackupId(2)).unwrap();
    memory.put_object_as(new, &[entry(0, 1, at(new, 1))], &keys(), BackupId(0)).unwrap();
    memory.put_object_as(teller, &[entry(0, 3, at(old, 1))], &keys(), BackupId(3)).unwrap();
    let rows = [row(3, vec![at(new, 1)]), row(2, vec![at(own, 2)]), row(1, vec![at(new, 1)])];
    assert_eq!(made_anew(&memory, &[own, new, teller]), rows, "a block is found where it is");

    let mut writer = SegmentWriter::new(1, 5000, &keys()).unwrap();
    let segments = memory.put_segments(&rows.clone().map(Row::Location), &mut writer).unwrap();
    let mut sink = Sink(memory.clone(), Vec::new(), Vec::new());
    let carried = last_look(&memory, &[own, new, teller], segments, teller, &mut sink);
    assert_eq!((carried.retired.len(), carried.rows), (1, 1), "{carried:?}");
    memory.take(&teller);
    let left: Vec<ObjectId> = [own, new].into_iter().chain(sink.2).collect();
    assert_eq!(made_anew(&memory, &left), rows);
}
