//! Inode tables as a list of inodes: those that each group's descriptor calls touched.
//!
//! Tables of neighbouring groups (flex_bg puts 16 side by side) become one read where the untouched inodes between them are few.
//!
//! Invariants: inodes that a group's descriptor calls untouched are never read, but between two tables. Source: ours.

use super::group::Groups;
use super::superblock::Superblock;
use crate::block::BlockDevice;
use crate::volume::VolumeFault;
use crate::volume::piece::{List, Spans};

/// Groups looked at in one go when they hold nothing.
const GROUPS_PER_LOOK_MAX: u32 = 1024;

/// The tables.
pub(super) struct Tables<'a> {
    pub(super) sb: &'a Superblock,
    pub(super) groups: &'a mut Groups,
}

impl List for Tables<'_> {
    fn list(
        &mut self,
        device: &mut dyn BlockDevice,
        number: u64,
        spans: &mut Spans,
    ) -> Result<Option<u64>, VolumeFault> {
        let Tables { sb, groups } = self;
        let per_group = u64::from(sb.inodes_per_group);
        let mut next = number;
        for _ in 0..GROUPS_PER_LOOK_MAX {
            if next > u64::from(sb.inodes_count) {
                return Ok(None);
            }
            let (group, index) = ((next - 1) / per_group, (next - 1) % per_group);
            let group = groups.get(sb, device, group as u32)?;
            let touched = u64::from(group.inodes_touched);
            if index < touched {
                let place = sb.offset(group.inode_table) + index * sb.inode_bytes as u64;
                let count = (touched - index).min(u64::from(spans.room(place)));
                if count == 0 {
                    return Ok(Some(next));
                }
                spans.push(next, count as u32, place, 0);
                if index + count < touched {
                    return Ok(Some(next + count));
                }
            }
            next += per_group - index;
        }
        Ok(Some(next))
    }
}
