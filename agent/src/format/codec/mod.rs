//! How one row becomes bytes: each field against the row before it in the block.
//!
//! Every row starts with a varint of flags; a field follows only when its flag says that it differs from what is expected.
//! Fields follow in this order (v = varint, z = zigzag varint, n = bytes of fixed size):
//!
//! | row | fields |
//! |---|---|
//! | item | flags v; volume v, inode v (VOLUME) or inode delta v; backup delta z; then, unless DELETED: rows_from as backup - rows_from z; kind 1, mode 2; uid v, gid v; generation 4; links v; major v, minor v; size v; allocated_to v; gaps: count v, then distance from the size or the last gap v and length v each; mtime, ctime, atime, btime; FS flags v; project v; hints: flags v, extent size v, extent size of copies v; parent - inode z; listing 8; target or inline contents v + n; xattrs: count v, then name v + n, value v + n each, preceded by their length v; fault v + n; `unsure` is a flag alone |
//! | item, DELETED and GONE | after the backup: kind 1, mode 2; uid v, gid v; size v; mtime; found seconds - mtime seconds z; parent - inode z. Without GONE (older programs) nothing |
//! | time | seconds z, against the row before (mtime) or against mtime (others); nanoseconds 4 when NANOS |
//! | name | shared << 4 and flags v; volume v (VOLUME); directory delta v (absolute after VOLUME); backup delta z; run v; rest of the name v + n; inode delta z |
//! | location, entry | flags v; volume v, inode v (VOLUME) or inode delta v (not when SAME_LIN); backup delta z; base v; block_bytes v; count v (never in entries); blocks; runs: count v, then kind 1 (0 data, 1 hole, 2 unwritten, 3 lost) and length v each |
//! | block | tag 1 (once for the row when UNIFORM); object index v; frame offset v; frame bytes v; inner offset v; length v; digest 16 |
//!
//! Block tag: bits 0-1 place (0 empty, 1 zero, 2 lost, 3 stored); bit 2 another object than the last block's; bits 3-4 frame (0 the
//! last block's, 1 the next one, 2 the next one and of the same size, 3 elsewhere); bit 5 inner offset is not the expected one
//! (end of the last block, or 0 in another frame); bit 6 length is not the block size.
//!
//! Invariant: decoding never panics, whatever the bytes; all arithmetic on them is wrapping (deltas) or checked.
//! Does not: check row limits when encoding (`block` does). Source: ours.
//!
//! | module | what |
//! |---|---|
//! | `item` | item rows |
//! | `location` | location and entry rows, and places of blocks |

mod item;
mod location;

use std::ops::Range;

use windlass_hal::volume::Hints;

use self::location::{LocationHead, PlaceState};
use super::fault::FormatFault;
use super::key::KeyRef;
use super::row::{NameRow, Row, RowKind, RowRef};
use super::varint::{Reader, put, put_bytes, put_signed};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::limits::NAME_BYTES_MAX;

/// Flags of name rows, below the shared length.
mod name_flag {
    pub const VOLUME: u64 = 1;
    pub const PARENT: u64 = 2;
    pub const BACKUP: u64 = 4;
    pub const RUN: u64 = 8;
    pub const BITS: u32 = 4;
}

/// What the next row is coded against. Copied before a row is encoded, so that a row that does not fit leaves no trace.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    lin: Lin,
    backup: BackupId,
    mode: (u8, u16),
    owner: (u32, u32),
    generation: u32,
    links: u32,
    mtime_secs: i64,
    flags: u32,
    project: u32,
    hints: Hints,
    /// Where the last explicit attributes are in the body.
    xattrs: Range<usize>,
    run: u32,
    inode: u64,
    base_next: u64,
    block_bytes: u32,
    count: usize,
    place: PlaceState,
}

/// Appends `row` to `out`. `body` holds the rows so far (`out` will be appended to it); `last_name` is the last row's name;
/// `objects` is the block's dictionary, which grows as needed.
pub(super) fn encode(
    row: RowRef<'_>,
    state: &mut State,
    body: &[u8],
    last_name: &[u8],
    objects: &mut Vec<ObjectId>,
    out: &mut Vec<u8>,
) {
    match row {
        RowRef::Item(row) => item::encode(row, state, body, out),
        RowRef::Name(row) => encode_name(row, state, last_name, out),
        RowRef::Location(row) => {
            let head = LocationHead {
                lin: row.lin,
                base: row.base,
                backup: row.backup,
                block_bytes: row.block_bytes,
            };
            location::encode(&head, &row.blocks, Some(&row.runs), state, objects, out);
        }
        RowRef::Entry(row) => {
            let head = LocationHead {
                lin: row.lin,
                base: row.block,
                backup: row.backup,
                block_bytes: row.block_bytes,
            };
            location::encode(&head, std::slice::from_ref(&row.place), None, state, objects, out);
        }
    }
}

/// `flag` when `condition`, else 0.
fn when(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

fn encode_name(row: &NameRow, state: &mut State, last_name: &[u8], out: &mut Vec<u8>) {
    let shared = row.name.iter().zip(last_name).take_while(|(a, b)| a == b).count();
    let volume = row.parent.volume != state.lin.volume;
    let parent = volume || row.parent.inode != state.lin.inode;
    let backup = row.backup != state.backup;
    let run = row.run != state.run;
    let flags = when(volume, name_flag::VOLUME)
        | when(parent, name_flag::PARENT)
        | when(backup, name_flag::BACKUP)
        | when(run, name_flag::RUN);
    put(out, ((shared as u64) << name_flag::BITS) | flags);
    if volume {
        put(out, row.parent.volume.0.into());
    }
    if parent {
        put(out, if volume { row.parent.inode } else { row.parent.inode.wrapping_sub(state.lin.inode) });
    }
    if backup {
        put_signed(out, i64::from(row.backup.0) - i64::from(state.backup.0));
    }
    if run {
        put(out, row.run.into());
    }
    put_bytes(out, &row.name[shared..]);
    put_signed(out, row.inode.wrapping_sub(state.inode) as i64);
    state.lin = row.parent;
    state.backup = row.backup;
    state.run = row.run;
    state.inode = row.inode;
}

/// Reads rows one after another. Holds no reference to the body, so that a cursor can own both.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    kind: RowKind,
    state: State,
    name: Vec<u8>,
    objects: Vec<ObjectId>,
    /// Where rows start in the body, and where the next one does.
    at: usize,
    left: u32,
    started: bool,
    key_base: u64,
}

const WHAT: &str = "row block";

impl Decoder {
    /// Over the plain bytes of a block of `rows` rows: reads the dictionary.
    pub(super) fn new(kind: RowKind, rows: u32, raw: &[u8]) -> Result<Decoder, FormatFault> {
        let mut reader = Reader::new(raw, WHAT);
        let mut objects = Vec::new();
        if matches!(kind, RowKind::Location | RowKind::Entry) {
            let count = reader.u64()?;
            if count > reader.len() as u64 {
                return Err(reader.damaged("dictionary past the end"));
            }
            objects.reserve_exact(count as usize);
            for _ in 0..count {
                objects.push(ObjectId::from_bytes(&reader.array()?));
            }
        }
        let at = raw.len() - reader.len();
        Ok(Decoder {
            kind,
            state: State::default(),
            name: Vec::new(),
            objects,
            at,
            left: rows,
            started: false,
            key_base: 0,
        })
    }

    /// The next row of `raw`, which must be the bytes that `new` got.
    pub(super) fn next(&mut self, raw: &[u8]) -> Result<Option<Row>, FormatFault> {
        let rest = raw.get(self.at..).ok_or(FormatFault::truncated(WHAT))?;
        let mut reader = Reader::new(rest, WHAT);
        if self.left == 0 {
            return if rest.is_empty() { Ok(None) } else { Err(reader.damaged("bytes after the last row")) };
        }
        let last = (self.state.lin, self.key_base, self.state.backup, self.state.run);
        let last_name = (self.kind == RowKind::Name).then(|| self.name.clone());
        let row = match self.kind {
            RowKind::Item => Row::Item(self.item(&mut reader, raw)?),
            RowKind::Name => Row::Name(self.name(&mut reader)?),
            RowKind::Location => Row::Location(self.location(&mut reader)?),
            RowKind::Entry => Row::Entry(self.entry(&mut reader)?),
        };
        let key = row.as_ref().key();
        if self.started {
            let name = last_name.as_deref().unwrap_or_default();
            let last = KeyRef { lin: last.0, base: last.1, backup: last.2, run: last.3, name };
            if key <= last {
                return Err(reader.damaged("rows are not in order"));
            }
        }
        self.started = true;
        self.key_base = key.base;
        self.left -= 1;
        self.at = raw.len() - reader.len();
        Ok(Some(row))
    }

    fn backup(&mut self, differs: bool, reader: &mut Reader<'_>) -> Result<BackupId, FormatFault> {
        if differs {
            let value = i64::from(self.state.backup.0).checked_add(reader.signed()?);
            let value = value.and_then(|value| u32::try_from(value).ok());
            self.state.backup = BackupId(value.ok_or(reader.damaged("backup number out of range"))?);
        }
        Ok(self.state.backup)
    }

    fn name(&mut self, r: &mut Reader<'_>) -> Result<NameRow, FormatFault> {
        let flags = r.u64()?;
        let has = |flag| flags & flag != 0;
        let shared = flags >> name_flag::BITS;
        if has(name_flag::VOLUME) {
            self.state.lin = Lin { volume: VolumeId(r.u32()?), inode: 0 };
        }
        if has(name_flag::PARENT) {
            self.state.lin.inode = self.state.lin.inode.wrapping_add(r.u64()?);
        }
        let backup = self.backup(has(name_flag::BACKUP), r)?;
        if has(name_flag::RUN) {
            self.state.run = r.u32()?;
        }
        let rest = r.bytes(NAME_BYTES_MAX)?;
        if shared > self.name.len() as u64 {
            return Err(r.damaged("a name shares more than there is"));
        }
        self.name.truncate(shared as usize);
        self.name.extend_from_slice(rest);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(r.damaged("length of a name out of range"));
        }
        self.state.inode = self.state.inode.wrapping_add(r.signed()? as u64);
        Ok(NameRow {
            parent: self.state.lin,
            backup,
            run: self.state.run,
            name: self.name.clone(),
            inode: self.state.inode,
        })
    }
}
