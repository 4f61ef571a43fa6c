//! What sysfs says about a block device: a stable identity, whether seeks cost, whether discard does something.
//!
//! Invariants
//! - A missing or empty attribute is no error: sysfs differs by driver and kernel, and a container may not have it.
//! - A partition answers with its disk's attributes and its own number.
//!
//! Does not: touch the device.
//!
//! Source: Linux Documentation/ABI/stable/sysfs-block and sysfs-block-dm; NVMe and SCSI `wwid` attributes.

use std::fs;
use std::path::{Path, PathBuf};

/// A block device's directory in sysfs.
pub(super) struct BlockAttributes {
    /// The whole disk's directory.
    disk: PathBuf,
    /// Partition number, when the device is one.
    partition: Option<String>,
}

impl BlockAttributes {
    /// Finds the directory of the device `major:minor`; `None` when sysfs is not there.
    pub(super) fn find(major: u64, minor: u64) -> Option<BlockAttributes> {
        let own = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        let partition = attribute(&own, "partition");
        let disk = match partition {
            Some(_) => own.parent()?.to_path_buf(),
            None => own,
        };
        Some(BlockAttributes { disk, partition })
    }

    /// The identity that the device carries itself, wherever it is plugged in; `None` when it has none.
    pub(super) fn identity(&self) -> Option<String> {
        const SOURCES: [(&str, &str); 6] = [
            ("dm/uuid", "dm"),
            ("md/uuid", "md"),
            ("wwid", "wwid"),
            ("device/wwid", "wwid"),
            ("device/serial", "serial"),
            ("serial", "serial"),
        ];
        let (value, scheme) =
            SOURCES.iter().find_map(|(file, scheme)| Some((attribute(&self.disk, file)?, scheme)))?;
        // SCSI pads its identifiers with blanks.
        let value = value.split_whitespace().collect::<Vec<_>>().join("_");
        let partition = self.partition.as_ref().map(|n| format!("-part{n}")).unwrap_or_default();
        Some(format!("{scheme}:{value}{partition}"))
    }

    /// Whether the device is a spinning disk; false when unknown.
    pub(super) fn rotational(&self) -> bool {
        attribute(&self.disk, "queue/rotational").is_some_and(|v| v == "1")
    }

    /// Whether the device takes discards; false when unknown.
    pub(super) fn can_discard(&self) -> bool {
        attribute(&self.disk, "queue/discard_max_bytes").is_some_and(|v| v != "0")
    }

    /// The device's sector in bytes; `None` when unknown.
    pub(super) fn logical_block_bytes(&self) -> Option<u32> {
        attribute(&self.disk, "queue/logical_block_size")?.parse().ok()
    }
}

/// An attribute's value without blanks around it; `None` when it is absent or empty.
fn attribute(dir: &Path, file: &str) -> Option<String> {
    let value = fs::read_to_string(dir.join(file)).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
