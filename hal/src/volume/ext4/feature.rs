//! Feature bits of the superblock: their names, and what a reader does about each.
//!
//! ```text
//!  word       unknown bit   known and refused                                    everything else
//!  compat     ignored       -                                                    read
//!  incompat   refused       compression, needs_recovery, journal_dev, dirdata    read
//!  ro_compat  read          -                                                    read
//! ```
//!
//! An unknown ro_compat bit is by the format's definition safe for a program that only reads; what may differ
//! then is the allocation bitmap, so `used` reports the whole device as
//! [`UsedQuality::Unknown`](crate::volume::UsedQuality).
//!
//! Source: kernel `fs/ext4/ext4.h`, e2fsprogs `lib/e2p/feature.c` for the names.

use crate::volume::VolumeFault;
use crate::volume::features::feature_names;

/// Bits of `s_feature_compat` that the reader looks at.
pub(super) mod compat {
    pub(in super::super) const HAS_JOURNAL: u32 = 0x4;
    pub(in super::super) const SPARSE_SUPER2: u32 = 0x200;
    pub(in super::super) const ORPHAN_FILE: u32 = 0x1000;
}

/// Bits of `s_feature_incompat` that the reader looks at.
pub(super) mod incompat {
    pub(in super::super) const FILETYPE: u32 = 0x2;
    pub(in super::super) const RECOVER: u32 = 0x4;
    pub(in super::super) const JOURNAL_DEV: u32 = 0x8;
    pub(in super::super) const META_BG: u32 = 0x10;
    pub(in super::super) const BITS64: u32 = 0x80;
    pub(in super::super) const EA_INODE: u32 = 0x400;
    pub(in super::super) const CSUM_SEED: u32 = 0x2000;
    pub(in super::super) const LARGE_DIR: u32 = 0x4000;
}

/// Bits of `s_feature_ro_compat` that the reader looks at.
pub(super) mod ro_compat {
    pub(in super::super) const SPARSE_SUPER: u32 = 0x1;
    pub(in super::super) const GDT_CSUM: u32 = 0x10;
    pub(in super::super) const BIGALLOC: u32 = 0x200;
    pub(in super::super) const METADATA_CSUM: u32 = 0x400;
    pub(in super::super) const PROJECT: u32 = 0x2000;
    pub(in super::super) const SHARED_BLOCKS: u32 = 0x4000;
    pub(in super::super) const ORPHAN_PRESENT: u32 = 0x10000;
}

const COMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (0x4, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (0x20, "dir_index"),
    (0x40, "lazy_bg"),
    (0x100, "snapshot_bitmap"),
    (0x200, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];

const INCOMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x2, "filetype"),
    (0x4, "needs_recovery"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x10000, "encrypt"),
    (0x20000, "casefold"),
];

const RO_COMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "sparse_super"),
    (0x2, "large_file"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x80, "has_snapshot"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x10000, "orphan_present"),
];

const INCOMPAT_READ: u32 =
    0x2 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000;
const RO_COMPAT_KNOWN: u32 = 0x1FFF3 | 0x8;

/// What to do about a journal that holds changes.
pub(super) const RECOVER_WAY_OUT: &str =
    "mount and unmount it once, or freeze it with fsfreeze and snapshot it";

/// Names of the features that are on, in the order that dumpe2fs prints; an unknown bit as word and hex value.
pub(super) fn names(compat: u32, incompat: u32, ro_compat: u32) -> Vec<String> {
    feature_names(&[
        ("compat", compat, COMPAT_NAMES),
        ("incompat", incompat, INCOMPAT_NAMES),
        ("ro_compat", ro_compat, RO_COMPAT_NAMES),
    ])
    .collect()
}

/// Refuses what this reader must not read, by name.
pub(super) fn admit(incompat: u32) -> Result<(), VolumeFault> {
    let refused = |what: String, way_out| Err(VolumeFault::Refused { what, way_out });
    if incompat & incompat::JOURNAL_DEV != 0 {
        return refused(
            "ext4 feature journal_dev: an external journal, not a file system".into(),
            "back up the file system that it belongs to",
        );
    }
    if incompat & incompat::RECOVER != 0 {
        return refused("ext4 feature needs_recovery: the journal holds changes".into(), RECOVER_WAY_OUT);
    }
    let bad = incompat & !INCOMPAT_READ;
    if bad != 0 {
        let what = format!("ext4 feature {}", names(0, bad, 0).join(", "));
        return refused(what, "back it up mounted, or as an image");
    }
    Ok(())
}

/// Whether this reader knows every ro_compat bit, so that it interprets the bitmaps correctly.
pub(super) fn bitmaps_known(ro_compat: u32) -> bool {
    const HAS_SNAPSHOT: u32 = 0x80;
    ro_compat & !RO_COMPAT_KNOWN == 0 && ro_compat & HAS_SNAPSHOT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_by_name() {
        assert!(admit(0x2 | 0x40 | 0x200).is_ok());
        for (bits, name) in [
            (4, "needs_recovery"),
            (8, "journal_dev"),
            (1, "compression"),
            (0x1000, "dirdata"),
            (1 << 30, "0x40000000"),
        ] {
            match admit(bits) {
                Err(VolumeFault::Refused { what, .. }) => assert!(what.contains(name), "{what}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn every_named_ro_compat_is_known() {
        assert!(RO_COMPAT_NAMES.iter().all(|(bit, _)| RO_COMPAT_KNOWN & bit != 0));
        assert!(!bitmaps_known(1 << 20));
    }
}
