//! Attributes of a block device in sysfs: a stable identity, whether seeks cost, whether discard works; and
//! the devices above it.
//!
//! Invariants
//! - A missing or empty attribute is no error: sysfs differs by driver and kernel, and a container may not have it.
//! - A partition answers with its disk's attributes and its own number.
//!
//! Does not: touch the device.
//!
//! Source: Linux Documentation/ABI/stable/sysfs-block and sysfs-block-dm; NVMe and SCSI `wwid` attributes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
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

/// A device or partition by itself, and what stands on it.
pub(super) struct BlockNode {
    dir: PathBuf,
}

impl BlockNode {
    /// Finds the directory of the device `major:minor`; `None` when sysfs is not there.
    pub(super) fn find(major: u64, minor: u64) -> Option<BlockNode> {
        let dir = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        Some(BlockNode { dir })
    }

    /// Its usual path below `/dev`.
    pub(super) fn path(&self) -> String {
        match attribute(&self.dir, "dm/name") {
            Some(name) => format!("/dev/mapper/{name}"),
            // The kernel writes a `/` in a name as `!`.
            None => format!(
                "/dev/{}",
                self.dir.file_name().unwrap_or_default().to_string_lossy().replace('!', "/")
            ),
        }
    }

    /// Whether the kernel refuses to write to it.
    pub(super) fn is_read_only(&self) -> bool {
        attribute(&self.dir, "ro").is_some_and(|v| v == "1")
    }

    /// Its partitions and the devices that are made of it (device-mapper, md, bcache), as `major:minor`.
    pub(super) fn above(&self) -> Vec<String> {
        let entries =
            |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let partitions = entries(&self.dir).filter(|dir| attribute(dir, "partition").is_some());
        let holders = entries(&self.dir.join("holders"));
        partitions.chain(holders).filter_map(|dir| attribute(&dir, "dev")).collect()
    }
}

/// Loop devices in use: `major:minor`, and the path of what each stands on.
pub(super) fn loops() -> Vec<(String, PathBuf)> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    let in_use = |dir: PathBuf| {
        let mut backing = fs::read(dir.join("loop/backing_file")).ok()?;
        backing.pop_if(|last| *last == b'\n');
        Some((attribute(&dir, "dev")?, PathBuf::from(OsString::from_vec(backing))))
    };
    devices.filter_map(in_use).collect()
}

/// An attribute's value without blanks around it; `None` when it is absent or empty.
fn attribute(dir: &Path, file: &str) -> Option<String> {
    let value = fs::read_to_string(dir.join(file)).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
