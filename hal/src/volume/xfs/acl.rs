//! POSIX ACLs: from the form on disk to the one that `getxattr` returns.
//!
//! ```text
//!  on disk, big-endian                          getxattr, little-endian
//!  0  4  entries                                0  4  version 2
//!  per entry: tag 4, id 4, permissions 2,       per entry: tag 2, permissions 2,
//!    unused 2                                     id 4 (0xFFFFFFFF where there is none)
//! ```
//!
//! Source: kernel `fs/xfs/xfs_acl.c` (`xfs_acl_from_disk`), `include/uapi/linux/posix_acl_xattr.h`.

use super::field::{u16_at, u32_at};

const XATTR_VERSION: u32 = 2;
const NO_ID: u32 = !0;
const ENTRY_BYTES: usize = 12;

/// Appends the `getxattr` form of `disk` to `out`; `None` (and `out` as it was) when `disk` is not a sound ACL.
pub(super) fn convert(disk: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let entries = disk.get(4..).filter(|rest| rest.len() == u32_at(disk, 0) as usize * ENTRY_BYTES)?;
    let start = out.len();
    out.extend_from_slice(&XATTR_VERSION.to_le_bytes());
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let tag = u32_at(entry, 0);
        let id = match tag {
            0x01 | 0x04 | 0x10 | 0x20 => NO_ID, // owner, owning group, mask, other
            0x02 | 0x08 => u32_at(entry, 4),    // named user, named group
            _ => {
                out.truncate(start);
                return None;
            }
        };
        out.extend_from_slice(&(tag as u16).to_le_bytes());
        out.extend_from_slice(&u16_at(entry, 8).to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_and_refuses() {
        let disk = [0, 0, 0, 2, 0, 0, 0, 1, 9, 9, 9, 9, 0, 6, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0xE8, 0, 7, 0, 0];
        let mut out = vec![9];
        assert!(convert(&disk, &mut out).is_some());
        let want = [9, 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xE8, 3, 0, 0];
        assert_eq!(out, want);
        let mut odd = disk;
        odd[7] = 3;
        for bad in [&disk[..3], &disk[..27], &odd[..], &[0, 0, 0, 1][..], &[0xFF; 4][..]] {
            assert!(convert(bad, &mut out).is_none());
            assert_eq!(out, want);
        }
    }
}
