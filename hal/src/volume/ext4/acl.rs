//! POSIX ACLs: from the form on disk to the one that `getxattr` returns.
//!
//! ```text
//!  on disk                                  getxattr
//!  0  4  version 1                          0  4  version 2
//!  per entry: tag 2, permissions 2,         per entry: tag 2, permissions 2,
//!    and for a named user or group id 4       id 4 (0xFFFFFFFF where there is none)
//! ```
//!
//! Source: kernel `fs/ext4/acl.c` (`ext4_acl_from_disk`), `include/uapi/linux/posix_acl_xattr.h`.

use super::field::{u16_at, u32_at};

const DISK_VERSION: u32 = 1;
const XATTR_VERSION: u32 = 2;
const NO_ID: u32 = !0;

/// Appends the `getxattr` form of `disk` to `out`; `None` (and `out` as it was) when `disk` is not a sound ACL.
pub(super) fn convert(disk: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let done = append(disk, out);
    if done.is_none() {
        out.truncate(start);
    }
    done
}

fn append(disk: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if disk.len() < 4 || u32_at(disk, 0) != DISK_VERSION {
        return None;
    }
    out.extend_from_slice(&XATTR_VERSION.to_le_bytes());
    let mut rest = &disk[4..];
    while !rest.is_empty() {
        let tag = u16_at(rest, 0);
        let len = match tag {
            0x01 | 0x04 | 0x10 | 0x20 => 4, // owner, owning group, mask, other
            0x02 | 0x08 => 8,               // named user, named group
            _ => return None,
        };
        let (entry, later) = rest.split_at_checked(len)?;
        out.extend_from_slice(&entry[..4]);
        let id = if len == 8 { u32_at(entry, 4) } else { NO_ID };
        out.extend_from_slice(&id.to_le_bytes());
        rest = later;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_and_refuses() {
        let disk = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 7, 0, 0xE8, 3, 0, 0, 0x20, 0, 4, 0];
        let mut out = vec![9];
        assert!(convert(&disk, &mut out).is_some());
        let want = [
            9, 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xE8, 3, 0, 0, 0x20, 0, 4, 0, 255,
            255, 255, 255,
        ];
        assert_eq!(out, want);
        for bad in [&disk[..3], &disk[..6], &disk[..14], &[2, 0, 0, 0][..], &[1, 0, 0, 0, 3, 0, 0, 0][..]] {
            assert!(convert(bad, &mut out).is_none());
            assert_eq!(out, want);
        }
    }
}
