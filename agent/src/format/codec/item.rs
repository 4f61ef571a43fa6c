//! Item rows as bytes. The fields and their order are in the table of `codec`.
//!
//! Does not: check limits. Source: ours.

use windlass_hal::volume::{Hints, ItemKind, Timestamp};

use super::{Decoder, State, WHAT};
use crate::format::fault::FormatFault;
use crate::format::row::{Gone, ItemAttributes, ItemRow, RowPayload};
use crate::format::varint::{Reader, put, put_bytes, put_signed};
use crate::id::{BackupId, Lin, VolumeId};
use crate::limits::{ITEM_FAULT_BYTES_MAX, ITEM_GAPS_MAX, ITEM_XATTRS_MAX, ROW_BYTES_MAX};

/// Flags of item rows; the common ones are the low bits, so that most rows have two bytes of flags.
mod flag {
    pub const SIZE: u64 = 1 << 0;
    pub const NANOS: u64 = 1 << 1;
    pub const CTIME: u64 = 1 << 2;
    pub const ATIME: u64 = 1 << 3;
    pub const BTIME: u64 = 1 << 4;
    pub const BTIME_DIFFERS: u64 = 1 << 5;
    pub const GENERATION: u64 = 1 << 6;
    pub const KIND_MODE: u64 = 1 << 7;
    pub const OWNER: u64 = 1 << 8;
    pub const LINKS: u64 = 1 << 9;
    pub const PARENT: u64 = 1 << 10;
    pub const XATTRS_SAME: u64 = 1 << 11;
    pub const DELETED: u64 = 1 << 12;
    pub const ROWS_FROM: u64 = 1 << 13;
    pub const BACKUP: u64 = 1 << 14;
    pub const VOLUME: u64 = 1 << 15;
    pub const RDEV: u64 = 1 << 16;
    pub const ALLOCATED: u64 = 1 << 17;
    pub const FLAGS: u64 = 1 << 18;
    pub const PROJECT: u64 = 1 << 19;
    pub const XATTRS: u64 = 1 << 20;
    pub const TARGET: u64 = 1 << 21;
    pub const INLINE: u64 = 1 << 22;
    pub const FAULT: u64 = 1 << 23;
    pub const UNSURE: u64 = 1 << 24;
    pub const GAPS: u64 = 1 << 25;
    pub const HINTS: u64 = 1 << 26;
    pub const LISTING: u64 = 1 << 27;
    pub const GONE: u64 = 1 << 28;
    pub const ALL: u64 = (1 << 29) - 1;
}

pub(super) fn encode(row: &ItemRow, state: &mut State, body: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut flags = 0;
    let mut bit = |which, condition| {
        if condition {
            flags |= which;
        }
        condition
    };
    // Fields go to a second buffer, because the flags come first and their length is not known yet.
    let mut fields = Vec::with_capacity(64);
    let f = &mut fields;
    if bit(flag::VOLUME, row.lin.volume != state.lin.volume) {
        put(f, row.lin.volume.0.into());
        put(f, row.lin.inode);
    } else {
        put(f, row.lin.inode.wrapping_sub(state.lin.inode));
    }
    if bit(flag::BACKUP, row.backup != state.backup) {
        put_signed(f, i64::from(row.backup.0) - i64::from(state.backup.0));
    }
    state.lin = row.lin;
    state.backup = row.backup;
    let mut xattrs_in_fields = None;
    if let Some(a) = &row.item {
        if bit(flag::ROWS_FROM, a.rows_from != row.backup) {
            put_signed(f, i64::from(row.backup.0) - i64::from(a.rows_from.0));
        }
        let mode = (kind_byte(a.kind), a.mode);
        if bit(flag::KIND_MODE, mode != state.mode) {
            f.push(mode.0);
            f.extend_from_slice(&mode.1.to_le_bytes());
        }
        if bit(flag::OWNER, (a.uid, a.gid) != state.owner) {
            put(f, a.uid.into());
            put(f, a.gid.into());
        }
        if bit(flag::GENERATION, a.generation != state.generation) {
            f.extend_from_slice(&a.generation.to_le_bytes());
        }
        if bit(flag::LINKS, a.links != state.links) {
            put(f, a.links.into());
        }
        if bit(flag::RDEV, a.rdev != (0, 0)) {
            put(f, a.rdev.0.into());
            put(f, a.rdev.1.into());
        }
        if bit(flag::SIZE, a.size != 0) {
            put(f, a.size);
        }
        if bit(flag::ALLOCATED, a.allocated_to != 0) {
            put(f, a.allocated_to);
        }
        if bit(flag::GAPS, !a.gaps.is_empty()) {
            put(f, a.gaps.len() as u64);
            let mut last = a.size;
            for &(from, to) in &a.gaps {
                put(f, from.wrapping_sub(last));
                put(f, to.wrapping_sub(from));
                last = to;
            }
        }
        let times = [Some(a.mtime), Some(a.ctime), Some(a.atime), a.btime];
        let nanos = bit(flag::NANOS, times.iter().flatten().any(|time| time.nanos != 0));
        put_time(f, a.mtime, state.mtime_secs, nanos);
        if bit(flag::CTIME, a.ctime != a.mtime) {
            put_time(f, a.ctime, a.mtime.secs, nanos);
        }
        if bit(flag::ATIME, a.atime != a.mtime) {
            put_time(f, a.atime, a.mtime.secs, nanos);
        }
        if let Some(btime) = a.btime {
            bit(flag::BTIME, true);
            if bit(flag::BTIME_DIFFERS, btime != a.mtime) {
                put_time(f, btime, a.mtime.secs, nanos);
            }
        }
        if bit(flag::FLAGS, a.flags != state.flags) {
            put(f, a.flags.into());
        }
        if bit(flag::PROJECT, a.project != state.project) {
            put(f, a.project.into());
        }
        if bit(flag::HINTS, a.hints != state.hints) {
            put(f, a.hints.flags.into());
            put(f, a.hints.extent_bytes);
            put(f, a.hints.cow_extent_bytes);
        }
        if bit(flag::PARENT, a.parent != 0) {
            put_signed(f, a.parent.wrapping_sub(row.lin.inode) as i64);
        }
        if bit(flag::LISTING, a.listing != 0) {
            f.extend_from_slice(&a.listing.to_le_bytes());
        }
        match &a.payload {
            RowPayload::None => {}
            RowPayload::Target(bytes) => {
                bit(flag::TARGET, true);
                put_bytes(f, bytes);
            }
            RowPayload::Inline(bytes) => {
                bit(flag::INLINE, true);
                put_bytes(f, bytes);
            }
        }
        if !a.xattrs.is_empty() {
            let mut coded = Vec::new();
            put(&mut coded, a.xattrs.len() as u64);
            for (name, value) in &a.xattrs {
                put_bytes(&mut coded, name);
                put_bytes(&mut coded, value);
            }
            if !bit(flag::XATTRS_SAME, body.get(state.xattrs.clone()) == Some(&coded[..])) {
                bit(flag::XATTRS, true);
                put(f, coded.len() as u64);
                xattrs_in_fields = Some(f.len()..f.len() + coded.len());
                f.extend_from_slice(&coded);
            }
        }
        bit(flag::UNSURE, a.unsure);
        if bit(flag::FAULT, !a.fault.is_empty()) {
            put_bytes(f, a.fault.as_bytes());
        }
        state.mode = mode;
        state.owner = (a.uid, a.gid);
        state.generation = a.generation;
        state.links = a.links;
        state.mtime_secs = a.mtime.secs;
        state.flags = a.flags;
        state.project = a.project;
        state.hints = a.hints;
    } else {
        bit(flag::DELETED, true);
        if let Some(gone) = &row.gone {
            bit(flag::GONE, true);
            let mode = (kind_byte(gone.kind), gone.mode);
            if bit(flag::KIND_MODE, mode != state.mode) {
                f.push(mode.0);
                f.extend_from_slice(&mode.1.to_le_bytes());
            }
            if bit(flag::OWNER, (gone.uid, gone.gid) != state.owner) {
                put(f, gone.uid.into());
                put(f, gone.gid.into());
            }
            if bit(flag::SIZE, gone.size != 0) {
                put(f, gone.size);
            }
            let nanos = bit(flag::NANOS, gone.mtime.nanos != 0);
            put_time(f, gone.mtime, state.mtime_secs, nanos);
            put_signed(f, gone.found_secs.wrapping_sub(gone.mtime.secs));
            if bit(flag::PARENT, gone.parent != 0) {
                put_signed(f, gone.parent.wrapping_sub(row.lin.inode) as i64);
            }
            state.mode = mode;
            state.owner = (gone.uid, gone.gid);
            state.mtime_secs = gone.mtime.secs;
        }
    }
    put(out, flags);
    if let Some(range) = xattrs_in_fields {
        let base = body.len() + (out.len() - start);
        state.xattrs = base + range.start..base + range.end;
    }
    out.extend_from_slice(&fields);
}

fn put_time(out: &mut Vec<u8>, time: Timestamp, against_secs: i64, nanos: bool) {
    put_signed(out, time.secs.wrapping_sub(against_secs));
    if nanos {
        out.extend_from_slice(&time.nanos.to_le_bytes());
    }
}

impl Decoder {
    pub(super) fn item(&mut self, r: &mut Reader<'_>, raw: &[u8]) -> Result<ItemRow, FormatFault> {
        let flags = r.u64()?;
        let has = |which| flags & which != 0;
        if flags & !flag::ALL != 0 {
            return Err(r.damaged("unknown flags of an item row"));
        }
        if has(flag::VOLUME) {
            self.state.lin = Lin { volume: VolumeId(r.u32()?), inode: r.u64()? };
        } else {
            self.state.lin.inode = self.state.lin.inode.wrapping_add(r.u64()?);
        }
        let lin = self.state.lin;
        let backup = self.backup(has(flag::BACKUP), r)?;
        if has(flag::DELETED) {
            let gone = if has(flag::GONE) { Some(Box::new(self.gone(r, flags)?)) } else { None };
            return Ok(ItemRow { lin, backup, item: None, gone });
        }
        if has(flag::GONE) {
            return Err(r.damaged("an item row is there and is gone"));
        }
        let s = &mut self.state;
        let rows_from = if has(flag::ROWS_FROM) {
            let value =
                i64::from(backup.0).checked_sub(r.signed()?).and_then(|value| u32::try_from(value).ok());
            BackupId(value.ok_or(r.damaged("backup number out of range"))?)
        } else {
            backup
        };
        if has(flag::KIND_MODE) {
            s.mode = (r.u8()?, r.u16_le()?);
        }
        let kind = kind_of(s.mode.0).ok_or(r.damaged("unknown kind of item"))?;
        if has(flag::OWNER) {
            s.owner = (r.u32()?, r.u32()?);
        }
        if has(flag::GENERATION) {
            s.generation = r.u32_le()?;
        }
        if has(flag::LINKS) {
            s.links = r.u32()?;
        }
        let rdev = if has(flag::RDEV) { (r.u32()?, r.u32()?) } else { (0, 0) };
        let size = if has(flag::SIZE) { r.u64()? } else { 0 };
        let allocated_to = if has(flag::ALLOCATED) { r.u64()? } else { 0 };
        let gaps = if has(flag::GAPS) { gaps(r, size, allocated_to)? } else { Vec::new() };
        let nanos = has(flag::NANOS);
        let mtime = time(r, s.mtime_secs, nanos)?;
        s.mtime_secs = mtime.secs;
        let ctime = if has(flag::CTIME) { time(r, mtime.secs, nanos)? } else { mtime };
        let atime = if has(flag::ATIME) { time(r, mtime.secs, nanos)? } else { mtime };
        let btime = match (has(flag::BTIME), has(flag::BTIME_DIFFERS)) {
            (true, true) => Some(time(r, mtime.secs, nanos)?),
            (true, false) => Some(mtime),
            (false, _) => None,
        };
        if has(flag::FLAGS) {
            s.flags = r.u32()?;
        }
        if has(flag::PROJECT) {
            s.project = r.u32()?;
        }
        if has(flag::HINTS) {
            s.hints = Hints { flags: r.u32()?, extent_bytes: r.u64()?, cow_extent_bytes: r.u64()? };
        }
        let parent = if has(flag::PARENT) { lin.inode.wrapping_add(r.signed()? as u64) } else { 0 };
        let listing = if has(flag::LISTING) { r.u64_le()? } else { 0 };
        let payload = if has(flag::TARGET) {
            RowPayload::Target(r.bytes(ROW_BYTES_MAX)?.to_vec())
        } else if has(flag::INLINE) {
            RowPayload::Inline(r.bytes(ROW_BYTES_MAX)?.to_vec())
        } else {
            RowPayload::None
        };
        if has(flag::XATTRS) {
            let coded = r.bytes(ROW_BYTES_MAX)?;
            let end = raw.len() - r.len();
            s.xattrs = end - coded.len()..end;
        }
        let xattrs = if has(flag::XATTRS) || has(flag::XATTRS_SAME) {
            xattrs_of(raw.get(s.xattrs.clone()).unwrap_or_default())?
        } else {
            Vec::new()
        };
        let fault = if has(flag::FAULT) {
            let text = std::str::from_utf8(r.bytes(ITEM_FAULT_BYTES_MAX)?);
            text.map_err(|_| r.damaged("fault text is not UTF-8"))?.to_owned()
        } else {
            String::new()
        };
        let attributes = ItemAttributes {
            kind,
            rows_from,
            generation: s.generation,
            mode: s.mode.1,
            uid: s.owner.0,
            gid: s.owner.1,
            links: s.links,
            rdev,
            size,
            allocated_to,
            gaps,
            atime,
            mtime,
            ctime,
            btime,
            flags: s.flags,
            project: s.project,
            hints: s.hints,
            parent,
            listing,
            payload,
            xattrs,
            unsure: has(flag::UNSURE),
            fault,
        };
        Ok(ItemRow { lin, backup, item: Some(attributes), gone: None })
    }

    /// What a deletion keeps; the row's item is the last one of the state.
    fn gone(&mut self, r: &mut Reader<'_>, flags: u64) -> Result<Gone, FormatFault> {
        let has = |which| flags & which != 0;
        let s = &mut self.state;
        if has(flag::KIND_MODE) {
            s.mode = (r.u8()?, r.u16_le()?);
        }
        let kind = kind_of(s.mode.0).ok_or(r.damaged("unknown kind of item"))?;
        if has(flag::OWNER) {
            s.owner = (r.u32()?, r.u32()?);
        }
        let size = if has(flag::SIZE) { r.u64()? } else { 0 };
        let mtime = time(r, s.mtime_secs, has(flag::NANOS))?;
        s.mtime_secs = mtime.secs;
        let found_secs = mtime.secs.wrapping_add(r.signed()?);
        let parent = if has(flag::PARENT) { s.lin.inode.wrapping_add(r.signed()? as u64) } else { 0 };
        Ok(Gone { kind, mode: s.mode.1, uid: s.owner.0, gid: s.owner.1, size, mtime, parent, found_secs })
    }
}

fn time(r: &mut Reader<'_>, against_secs: i64, nanos: bool) -> Result<Timestamp, FormatFault> {
    let secs = against_secs.wrapping_add(r.signed()?);
    Ok(Timestamp { secs, nanos: if nanos { r.u32_le()? } else { 0 } })
}

/// The gaps between an item's end and the end of what is allocated past it.
fn gaps(r: &mut Reader<'_>, size: u64, allocated_to: u64) -> Result<Vec<(u64, u64)>, FormatFault> {
    let count = r.u64()?;
    if count == 0 || count > ITEM_GAPS_MAX as u64 {
        return Err(r.damaged("number of gaps out of range"));
    }
    let mut gaps = Vec::new();
    let mut last = size;
    for _ in 0..count {
        let (distance, len) = (r.u64()?, r.u64()?);
        let from = last.checked_add(distance);
        let to = from.and_then(|from| from.checked_add(len));
        let (Some(from), Some(to)) = (from, to) else {
            return Err(r.damaged("gap past the end of all numbers"));
        };
        let apart = distance > 0 || gaps.is_empty();
        if !apart || len == 0 || to >= allocated_to {
            return Err(r.damaged("gap empty, or not before what is allocated"));
        }
        gaps.push((from, to));
        last = to;
    }
    Ok(gaps)
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs_of(coded: &[u8]) -> Result<Xattrs, FormatFault> {
    let mut r = Reader::new(coded, WHAT);
    let count = r.u64()?;
    if count == 0 || count > ITEM_XATTRS_MAX as u64 {
        return Err(r.damaged("number of extended attributes out of range"));
    }
    let mut xattrs = Vec::new();
    for _ in 0..count {
        xattrs.push((r.bytes(ROW_BYTES_MAX)?.to_vec(), r.bytes(ROW_BYTES_MAX)?.to_vec()));
    }
    if r.is_empty() { Ok(xattrs) } else { Err(r.damaged("bytes after the last extended attribute")) }
}

const KINDS: [ItemKind; 8] = [
    ItemKind::File,
    ItemKind::Directory,
    ItemKind::Symlink,
    ItemKind::CharDevice,
    ItemKind::BlockDevice,
    ItemKind::Fifo,
    ItemKind::Socket,
    ItemKind::Image,
];

/// Kinds count from 1 in the order of [`KINDS`]; 0 is "none yet".
fn kind_byte(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::File => 1,
        ItemKind::Directory => 2,
        ItemKind::Symlink => 3,
        ItemKind::CharDevice => 4,
        ItemKind::BlockDevice => 5,
        ItemKind::Fifo => 6,
        ItemKind::Socket => 7,
        ItemKind::Image => 8,
    }
}

fn kind_of(byte: u8) -> Option<ItemKind> {
    KINDS.get(usize::from(byte).checked_sub(1)?).copied()
}
