//! Feature bits of the superblock: their names, and what a reader does about each.
//!
//! ```text
//!  word          unknown bit   known and refused             everything else
//!  compat        ignored       -                             -
//!  ro_compat     read          -                             read
//!  incompat      refused       needsrepair, metadir, zoned,  read
//!                              zone-gaps
//!  log_incompat  ignored       -                             -    (the log's contents are judged themselves)
//! ```
//!
//! An unknown ro_compat bit is by the format's definition safe for a program that only reads: the kernel
//! mounts read-only. What may be off then are the free-space trees, so `used` reports the whole device as
//! [`UsedQuality::Unknown`](crate::volume::UsedQuality).
//!
//! Source: kernel `fs/xfs/libxfs/xfs_format.h`; the names are those of xfs_info and mkfs.xfs.

use crate::volume::VolumeFault;
use crate::volume::features::feature_names;

/// Bits of `sb_features_incompat` that the reader looks at.
pub(super) mod incompat {
    pub(in super::super) const FTYPE: u32 = 0x1;
    pub(in super::super) const SPINODES: u32 = 0x2;
    pub(in super::super) const META_UUID: u32 = 0x4;
    pub(in super::super) const BIGTIME: u32 = 0x8;
    pub(in super::super) const NEEDSREPAIR: u32 = 0x10;
    pub(in super::super) const NREXT64: u32 = 0x20;
    pub(in super::super) const PARENT: u32 = 0x80;
}

const RO_COMPAT_NAMES: &[(u32, &str)] =
    &[(0x1, "finobt"), (0x2, "rmapbt"), (0x4, "reflink"), (0x8, "inobtcount")];

const INCOMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "ftype"),
    (0x2, "sparse"),
    (0x4, "meta_uuid"),
    (0x8, "bigtime"),
    (0x10, "needsrepair"),
    (0x20, "nrext64"),
    (0x40, "exchange"),
    (0x80, "parent"),
    (0x100, "metadir"),
    (0x200, "zoned"),
    (0x400, "zone-gaps"),
];

const RO_COMPAT_KNOWN: u32 = 0xF;
const INCOMPAT_READ: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80;

/// What to do about a volume that this reader does not read.
pub(super) const WAY_OUT: &str = "back it up mounted, or as an image";

/// Names of the features that are on, in the order of the bits; an unknown bit as word and hex value.
pub(super) fn names(compat: u32, ro_compat: u32, incompat: u32) -> Vec<String> {
    let mut out = vec!["crc".to_owned()];
    out.extend(feature_names(&[
        ("compat", compat, &[]),
        ("ro_compat", ro_compat, RO_COMPAT_NAMES),
        ("incompat", incompat, INCOMPAT_NAMES),
    ]));
    out
}

/// Refuses what this reader must not read, by name.
pub(super) fn admit(incompat: u32) -> Result<(), VolumeFault> {
    if incompat & incompat::NEEDSREPAIR != 0 {
        return Err(VolumeFault::Refused {
            what: "xfs feature needsrepair: a repair or an upgrade was not finished".into(),
            way_out: "run xfs_repair on it, or back it up as an image",
        });
    }
    let bad = incompat & !INCOMPAT_READ;
    if bad != 0 {
        let names = names(0, 0, bad).split_off(1).join(", ");
        return Err(VolumeFault::Refused { what: format!("xfs feature {names}"), way_out: WAY_OUT });
    }
    Ok(())
}

/// Whether this reader knows every ro_compat bit, so that it interprets the free-space trees correctly.
pub(super) fn free_space_known(ro_compat: u32) -> bool {
    ro_compat & !RO_COMPAT_KNOWN == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_by_name() {
        assert!(admit(INCOMPAT_READ).is_ok());
        for (bits, name) in
            [(0x10, "needsrepair"), (0x100, "metadir"), (0x200, "zoned"), (1 << 30, "0x40000000")]
        {
            match admit(bits | 1) {
                Err(VolumeFault::Refused { what, .. }) => assert!(what.contains(name), "{what}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn names_are_those_of_the_tools() {
        assert_eq!(
            names(0, 0xF, 0x2B).join(" "),
            "crc finobt rmapbt reflink inobtcount ftype sparse bigtime nrext64"
        );
        assert!(RO_COMPAT_NAMES.iter().all(|(bit, _)| RO_COMPAT_KNOWN & bit != 0));
        assert!(!free_space_known(0x10));
    }
}
