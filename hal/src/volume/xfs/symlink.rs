//! Symlink targets: in the inode, or in one to three extents that start with a header each.
//!
//! ```text
//!  0  4  magic "XSLM"         16  16 uuid
//!  4  4  offset in the target 32  8  inode
//!  8  4  bytes                40  8  address in basic blocks
//!  12 4  crc of the extent    48  8  lsn
//!                             56     bytes
//! ```
//!
//! Source: kernel `fs/xfs/libxfs/xfs_symlink_remote.c`, `xfs_symlink_shortform_verify`.

use super::checksum;
use super::field::{slice_at, u32_at};
use super::inode::{Format, Inode};
use super::map::{Io, Map, Owner, damaged, map};
use super::xattr::belongs;
use crate::volume::ItemFault;

const MAGIC: &[u8; 4] = b"XSLM";
const HEAD_BYTES: usize = 56;
/// Longest target in bytes.
const TARGET_BYTES_MAX: u64 = 1024;
/// Extents that a target may be in.
const EXTENTS_MAX: usize = 3;

/// Reads the target of symlink `inode` into `out`, which is empty.
pub(super) fn target(
    io: &mut Io<'_>,
    inode: &Inode,
    owner: &Owner<'_>,
    scratch: &mut Map,
    out: &mut Vec<u8>,
) -> Result<(), ItemFault> {
    let sb = io.sb;
    let size = inode.size as usize;
    if inode.size == 0 || inode.size > TARGET_BYTES_MAX {
        return Err(damaged(owner.at, "symlink target length out of range"));
    }
    if inode.data.format == Format::Local {
        out.extend_from_slice(inode.data.bytes(owner.raw).get(..size).unwrap_or_default());
    } else {
        map(io, owner, 0, EXTENTS_MAX, Some(0), scratch);
        if let Some(fault) = scratch.fault.take() {
            return Err(fault);
        }
        for run in &scratch.runs {
            let offset = sb.offset(run.physical);
            let blocks = size.div_ceil(sb.block_bytes() - HEAD_BYTES) as u64;
            if run.unwritten || run.logical + run.len > blocks {
                return Err(damaged(owner.at, "symlink target in blocks that it does not need"));
            }
            let mut bytes = Vec::with_capacity((run.len as usize) << sb.block_bits);
            for block in run.physical..run.physical + run.len {
                bytes.extend_from_slice(io.load(block, "symlink target")?);
            }
            let now = (bytes.len() - HEAD_BYTES).min(size - out.len());
            if !bytes.starts_with(MAGIC) || !checksum::holds(&bytes, 12) {
                return Err(damaged(offset, "symlink target checksum does not match"));
            }
            if u32_at(&bytes, 4) as usize != out.len()
                || u32_at(&bytes, 8) as usize != now
                || !belongs(sb, inode.number, run.physical, &bytes, [16, 32, 40])
            {
                return Err(damaged(offset, "symlink target belongs elsewhere"));
            }
            out.extend_from_slice(slice_at(&bytes, HEAD_BYTES, now).unwrap_or_default());
        }
    }
    match out.len() == size && !out.contains(&0) {
        true => Ok(()),
        false => Err(damaged(owner.at, "symlink target is not whole, or holds a NUL")),
    }
}
