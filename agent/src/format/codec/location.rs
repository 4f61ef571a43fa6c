//! Location and entry rows as bytes. The fields, their order and the block tag are in the table of `codec`.
//!
//! Does not: check limits when encoding. Source: ours.

use super::{Decoder, State, when};
use crate::format::fault::FormatFault;
use crate::format::row::{BlockPlace, EntryRow, LocationRow, Place, RunKind};
use crate::format::varint::{Reader, put, put_signed};
use crate::id::{BackupId, Lin, ObjectId, VolumeId};
use crate::limits::{LOCATION_BLOCKS_MAX, LOCATION_RUNS_MAX};

/// Flags of location and entry rows.
mod flag {
    pub const SAME_LIN: u64 = 1 << 0;
    pub const VOLUME: u64 = 1 << 1;
    pub const BACKUP: u64 = 1 << 2;
    pub const BASE: u64 = 1 << 3;
    pub const BLOCK_BYTES: u64 = 1 << 4;
    pub const COUNT: u64 = 1 << 5;
    pub const UNIFORM: u64 = 1 << 6;
    pub const RUNS: u64 = 1 << 7;
    pub const ALL: u64 = (1 << 8) - 1;
}

const STORED: u8 = 3;
const TAG_OBJECT: u8 = 1 << 2;
const TAG_FRAME: u8 = 3 << 3;
const FRAME_SAME: u8 = 0;
const FRAME_NEXT: u8 = 1 << 3;
const FRAME_NEXT_SAME_BYTES: u8 = 2 << 3;
const FRAME_ELSEWHERE: u8 = 3 << 3;
const TAG_INNER: u8 = 1 << 5;
const TAG_LEN: u8 = 1 << 6;
const TAG_RESERVED: u8 = 1 << 7;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlaceState {
    object: usize,
    offset: u32,
    bytes: u32,
    inner: u32,
    len: u32,
}

/// What location and entry rows have in common.
pub(super) struct LocationHead {
    pub(super) lin: Lin,
    pub(super) base: u64,
    pub(super) backup: BackupId,
    pub(super) block_bytes: u32,
}

/// `runs` is `None` for an entry.
pub(super) fn encode(
    head: &LocationHead,
    blocks: &[BlockPlace],
    runs: Option<&[(RunKind, u64)]>,
    state: &mut State,
    objects: &mut Vec<ObjectId>,
    out: &mut Vec<u8>,
) {
    let same_lin = head.lin == state.lin;
    let volume = head.lin.volume != state.lin.volume;
    let backup = head.backup != state.backup;
    let base = head.base != if same_lin { state.base_next } else { 0 };
    let block_bytes = head.block_bytes != state.block_bytes;
    let count = runs.is_some() && blocks.len() != state.count;
    let has_runs = runs.is_some_and(|runs| !runs.is_empty());

    let mut tags = [0u8; LOCATION_BLOCKS_MAX];
    let mut places = state.place;
    for (tag, block) in tags.iter_mut().zip(blocks) {
        *tag = tag_of(block, head.block_bytes, &mut places, objects);
    }
    let tags = &tags[..blocks.len()];
    let uniform = blocks.len() > 1 && tags.iter().all(|tag| *tag == tags[0]);
    let flags = when(same_lin, flag::SAME_LIN)
        | when(volume, flag::VOLUME)
        | when(backup, flag::BACKUP)
        | when(base, flag::BASE)
        | when(block_bytes, flag::BLOCK_BYTES)
        | when(count, flag::COUNT)
        | when(uniform, flag::UNIFORM)
        | when(has_runs, flag::RUNS);
    put(out, flags);
    if volume {
        put(out, head.lin.volume.0.into());
        put(out, head.lin.inode);
    } else if !same_lin {
        put(out, head.lin.inode.wrapping_sub(state.lin.inode));
    }
    if backup {
        put_signed(out, i64::from(head.backup.0) - i64::from(state.backup.0));
    }
    if base {
        put(out, head.base);
    }
    if block_bytes {
        put(out, head.block_bytes.into());
    }
    if count {
        put(out, blocks.len() as u64);
    }
    if uniform {
        out.push(tags[0]);
    }
    for (tag, block) in tags.iter().zip(blocks) {
        if !uniform {
            out.push(*tag);
        }
        let BlockPlace::Stored(place) = block else {
            continue;
        };
        if tag & TAG_OBJECT != 0 {
            put(out, objects.iter().position(|id| *id == place.object).unwrap_or(0) as u64);
        }
        match tag & TAG_FRAME {
            FRAME_NEXT => put(out, place.frame_bytes.into()),
            FRAME_ELSEWHERE => {
                put(out, place.frame_offset.into());
                put(out, place.frame_bytes.into());
            }
            _ => {}
        }
        if tag & TAG_INNER != 0 {
            put(out, place.inner_offset.into());
        }
        if tag & TAG_LEN != 0 {
            put(out, place.len.into());
        }
        out.extend_from_slice(&place.digest);
    }
    if let Some(runs) = runs.filter(|runs| !runs.is_empty()) {
        put(out, runs.len() as u64);
        for (kind, len) in runs {
            out.push(match kind {
                RunKind::Data => 0,
                RunKind::Hole => 1,
                RunKind::Unwritten => 2,
                RunKind::Lost => 3,
            });
            put(out, *len);
        }
    }
    state.lin = head.lin;
    state.backup = head.backup;
    state.base_next = head.base.wrapping_add(blocks.len() as u64);
    state.block_bytes = head.block_bytes;
    state.count = blocks.len();
    state.place = places;
}

fn tag_of(block: &BlockPlace, block_bytes: u32, last: &mut PlaceState, objects: &mut Vec<ObjectId>) -> u8 {
    let place = match block {
        BlockPlace::Empty => return 0,
        BlockPlace::Zero => return 1,
        BlockPlace::Lost => return 2,
        BlockPlace::Stored(place) => place,
    };
    // Blocks of a row are nearly always in the object of the block before: the dictionary is searched on a change only.
    let object = if objects.get(last.object) == Some(&place.object) {
        last.object
    } else {
        objects.iter().position(|id| *id == place.object).unwrap_or_else(|| {
            objects.push(place.object);
            objects.len() - 1
        })
    };
    let frame = (place.frame_offset, place.frame_bytes);
    let frame_tag = if frame == (last.offset, last.bytes) && object == last.object {
        FRAME_SAME
    } else if last.offset.checked_add(last.bytes) != Some(place.frame_offset) {
        FRAME_ELSEWHERE
    } else if place.frame_bytes == last.bytes {
        FRAME_NEXT_SAME_BYTES
    } else {
        FRAME_NEXT
    };
    let inner = if frame_tag == FRAME_SAME { last.inner.checked_add(last.len) } else { Some(0) };
    let mut tag = STORED | frame_tag;
    if object != last.object {
        tag |= TAG_OBJECT;
    }
    if inner != Some(place.inner_offset) {
        tag |= TAG_INNER;
    }
    if place.len != block_bytes {
        tag |= TAG_LEN;
    }
    *last = PlaceState {
        object,
        offset: place.frame_offset,
        bytes: place.frame_bytes,
        inner: place.inner_offset,
        len: place.len,
    };
    tag
}

impl Decoder {
    pub(super) fn location(&mut self, r: &mut Reader<'_>) -> Result<LocationRow, FormatFault> {
        let (flags, base) = self.location_head(r, flag::ALL)?;
        let count = if flags & flag::COUNT != 0 { r.u64()? } else { self.state.count as u64 };
        if count > LOCATION_BLOCKS_MAX as u64 {
            return Err(r.damaged("more blocks in a row than there can be"));
        }
        let count = count as usize;
        let uniform = if flags & flag::UNIFORM != 0 { Some(r.u8()?) } else { None };
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let tag = match uniform {
                Some(tag) => tag,
                None => r.u8()?,
            };
            blocks.push(self.place(tag, r)?);
        }
        let mut runs = Vec::new();
        if flags & flag::RUNS != 0 {
            let count = r.u64()?;
            if count == 0 || count > LOCATION_RUNS_MAX as u64 {
                return Err(r.damaged("number of runs out of range"));
            }
            for _ in 0..count {
                let kind = match r.u8()? {
                    0 => RunKind::Data,
                    1 => RunKind::Hole,
                    2 => RunKind::Unwritten,
                    3 => RunKind::Lost,
                    _ => return Err(r.damaged("unknown kind of run")),
                };
                runs.push((kind, r.u64()?));
            }
        }
        self.state.base_next = base.wrapping_add(count as u64);
        self.state.count = count;
        let State { lin, backup, block_bytes, .. } = self.state;
        Ok(LocationRow { lin, base, backup, block_bytes, blocks, runs })
    }

    pub(super) fn entry(&mut self, r: &mut Reader<'_>) -> Result<EntryRow, FormatFault> {
        let allowed = flag::ALL & !(flag::COUNT | flag::UNIFORM | flag::RUNS);
        let (_, block) = self.location_head(r, allowed)?;
        let tag = r.u8()?;
        let place = self.place(tag, r)?;
        self.state.base_next = block.wrapping_add(1);
        let State { lin, backup, block_bytes, .. } = self.state;
        Ok(EntryRow { lin, block, backup, block_bytes, place })
    }

    fn location_head(&mut self, r: &mut Reader<'_>, allowed: u64) -> Result<(u64, u64), FormatFault> {
        let flags = r.u64()?;
        let has = |which| flags & which != 0;
        if flags & !allowed != 0 {
            return Err(r.damaged("unknown flags of a location row"));
        }
        if has(flag::VOLUME) {
            self.state.lin = Lin { volume: VolumeId(r.u32()?), inode: r.u64()? };
        } else if !has(flag::SAME_LIN) {
            self.state.lin.inode = self.state.lin.inode.wrapping_add(r.u64()?);
        }
        self.backup(has(flag::BACKUP), r)?;
        let base = if has(flag::BASE) {
            r.u64()?
        } else if has(flag::SAME_LIN) {
            self.state.base_next
        } else {
            0
        };
        if has(flag::BLOCK_BYTES) {
            self.state.block_bytes = r.u32()?;
        }
        Ok((flags, base))
    }

    fn place(&mut self, tag: u8, r: &mut Reader<'_>) -> Result<BlockPlace, FormatFault> {
        match tag {
            0 => return Ok(BlockPlace::Empty),
            1 => return Ok(BlockPlace::Zero),
            2 => return Ok(BlockPlace::Lost),
            tag if tag & 3 == STORED && tag & TAG_RESERVED == 0 => {}
            _ => return Err(r.damaged("unknown kind of block")),
        }
        let last = &mut self.state.place;
        if tag & TAG_OBJECT != 0 {
            last.object = usize::try_from(r.u64()?).unwrap_or(usize::MAX);
        }
        let object = *self.objects.get(last.object).ok_or(r.damaged("object outside the dictionary"))?;
        let next = last.offset.checked_add(last.bytes);
        let mut inner = Some(0);
        match tag & TAG_FRAME {
            FRAME_SAME => inner = last.inner.checked_add(last.len),
            FRAME_NEXT => {
                last.offset = next.ok_or(r.damaged("frame past 4 GiB"))?;
                last.bytes = r.u32()?;
            }
            FRAME_NEXT_SAME_BYTES => last.offset = next.ok_or(r.damaged("frame past 4 GiB"))?,
            _ => {
                last.offset = r.u32()?;
                last.bytes = r.u32()?;
            }
        }
        last.inner =
            if tag & TAG_INNER != 0 { r.u32()? } else { inner.ok_or(r.damaged("block past 4 GiB"))? };
        last.len = if tag & TAG_LEN != 0 { r.u32()? } else { self.state.block_bytes };
        Ok(BlockPlace::Stored(Place {
            object,
            frame_offset: last.offset,
            frame_bytes: last.bytes,
            inner_offset: last.inner,
            len: last.len,
            digest: r.array()?,
        }))
    }
}
