//! The used-block map, from the free-space trees: what no tree calls free is used.
//!
//! So two kinds of blocks count as used though they hold no data: blocks that a group reserves for its trees,
//! and everything behind the last block of the file system up to the end of the device.
//!
//! A group's tree is walked twice: first to see that it is sound and adds up to what the group's header
//! counts, then to report it. A group whose tree fails this counts as used as a whole, and the map is a
//! superset. With an unknown ro_compat feature the trees may mean something else, and the whole device is
//! reported.
//!
//! Source: kernel `fs/xfs/libxfs/xfs_alloc_btree.c`.

use std::ops::Range;

use super::btree::{self, FREE, Leaf};
use super::field::u32_at;
use super::group::{self, Root};
use super::map::Io;
use crate::block::FaultKind;
use crate::volume::ranges::Joiner;
use crate::volume::{UsedQuality, VolumeFault};

const RECORD_BYTES: usize = 8;

/// Calls `each` with the used byte ranges of the device.
pub(super) fn used(io: &mut Io<'_>, each: &mut dyn FnMut(Range<u64>)) -> Result<UsedQuality, VolumeFault> {
    let sb = io.sb;
    let device_bytes = io.device.geometry().size_bytes;
    if !sb.free_space_known() {
        each(0..device_bytes);
        return Ok(UsedQuality::Unknown);
    }
    let mut quality = UsedQuality::Exact;
    let mut joiner = Joiner::new(0..0, each);
    for number in 0..sb.groups {
        let start = sb.group_start(number);
        let mut at = start;
        match sound(io, number) {
            Ok(root) => walk(io, &root, &mut |free| {
                joiner.add(sb.offset(at)..sb.offset(free.start));
                at = free.end;
            })?,
            Err(VolumeFault::Device(fault)) if fault.kind != FaultKind::Media => return Err(fault.into()),
            Err(_) => quality = UsedQuality::Superset,
        }
        joiner.add(sb.offset(at)..sb.offset(start + sb.group_len(number)));
    }
    joiner.add(sb.offset(sb.blocks_count)..device_bytes);
    joiner.flush();
    Ok(quality)
}

/// The free-space tree of a group, when it is sound and whole.
fn sound(io: &mut Io<'_>, number: u32) -> Result<Root, VolumeFault> {
    let root = group::free_space(io.sb, io.device, number)?;
    let mut total = 0;
    walk(io, &root, &mut |free| total += free.end - free.start)?;
    match total == u64::from(root.total) {
        true => Ok(root),
        false => Err(broken(number, "does not hold the blocks that its header counts")),
    }
}

fn broken(number: u32, rule: &str) -> VolumeFault {
    VolumeFault::Damaged { what: format!("xfs group {number}: free-space tree {rule}"), device_offset: 0 }
}

/// Calls `each` with the free extents of a group, ascending, in linear blocks.
fn walk(io: &mut Io<'_>, root: &Root, each: &mut dyn FnMut(Range<u64>)) -> Result<(), VolumeFault> {
    let sb = io.sb;
    let mut leaf = Leaf::default();
    let mut end = 0;
    let mut next = Some(0);
    while let Some(key) = next {
        btree::leaf(sb, io.device, io.cache, FREE, root, key, &mut leaf)?;
        for record in leaf.records.chunks_exact(RECORD_BYTES) {
            let (first, len) = (u64::from(u32_at(record, 0)), u64::from(u32_at(record, 4)));
            let place = sb.in_group(root.group, first, len).filter(|_| len > 0 && first >= end);
            let Some(place) = place else {
                return Err(broken(root.group, "has extents that overlap or are outside"));
            };
            end = first + len;
            each(place..place + len);
        }
        next = leaf.next;
    }
    Ok(())
}
