//! `volume info` and `volume check`: what is on a device, and whether it is sound, without a repository.
//!
//! Source: ours.

use std::path::Path;

use serde_json::json;
use windlass_agent::policy::{Reader, paths};
use windlass_agent::units::{Counted, Grouped, Human};
use windlass_hal::volume::check::{self, Finding};
use windlass_hal::volume::{Cursor, ItemFault, Swept, Window};

use crate::cli::args::global::Global;
use crate::cli::output::Output;
use crate::engine::machinery::{open_device, open_volume, warn_written};
use crate::failure::{Exit, Failure};
use crate::{site_time, text};
use windlass_agent::civil::iso_utc;

/// `volume info`. A volume that is refused is a failure whose line says why and what to do.
pub fn info(global: &Global, path: &Path, reader: Reader, output: &Output) -> Result<Exit, Failure> {
    let mut device = open_device(path, global.device_iops_max, &[])?;
    let is_written = warn_written(path);
    let (geometry, identity) = (device.geometry(), device.identity().clone());
    output.say(format_args!("device    {} ({})", text::printable(identity.name.as_bytes()), identity.stable));
    output.say(format_args!(
        "size      {} ({} bytes), blocks of {} bytes{}",
        Human(geometry.size_bytes),
        Grouped(geometry.size_bytes),
        geometry.logical_block_bytes,
        if geometry.rotational { ", rotational" } else { "" },
    ));
    let volume = open_volume(path, &mut *device, reader)?;
    let info = volume.info();
    let label = text::printable(&info.label);
    output.say(format_args!("volume    {} {}", info.kind, text::uuid(&info.uuid)));
    if !label.is_empty() {
        output.say(format_args!("label     {label}"));
    }
    output.say(format_args!(
        "used      {} of {}, {} inodes, blocks of {} bytes",
        Human(info.used_bytes),
        Human(info.size_bytes),
        Grouped(info.inodes_used),
        info.block_bytes
    ));
    if info.written_secs != 0 {
        output.say(format_args!("written   {}", site_time::shown(info.written_secs)));
    }
    if !info.features.is_empty() {
        output.say(format_args!("features  {}", info.features.join(" ")));
    }
    output.say(if is_written {
        "backup    refused while it is in use; see the warning"
    } else if info.state.is_some() {
        "backup    can be read; an interrupted backup of it goes on where it stopped"
    } else {
        "backup    can be read; an interrupted backup of it starts over (nothing proves that it did not change)"
    });
    output.document(&json!({
        "device": identity.name,
        "identity": identity.stable,
        "size_bytes": geometry.size_bytes,
        "logical_block_bytes": geometry.logical_block_bytes,
        "rotational": geometry.rotational,
        "kind": info.kind.to_string(),
        "uuid": text::uuid(&info.uuid),
        "label": String::from_utf8_lossy(&info.label),
        "block_bytes": info.block_bytes,
        "used_bytes": info.used_bytes,
        "volume_bytes": info.size_bytes,
        "inodes_used": info.inodes_used,
        "written": (info.written_secs != 0).then(|| iso_utc(info.written_secs)),
        "features": info.features,
        "resumable": info.state.is_some(),
        "in_use": is_written,
    }));
    Ok(Exit::Done)
}

/// Memory for finding what no single item shows, in bytes: 256 GiB of blocks, 64 million inodes a pass.
const CHECK_MEMORY_BYTES: usize = 16 << 20;
/// Findings that are named; the rest are counted.
const FINDINGS_MAX: usize = 1000;

/// Something that is wrong with a volume.
enum Wrong {
    Item(u64, ItemFault),
    Between(Finding),
}

impl Wrong {
    /// The item that a path is wanted of.
    fn inode(&self) -> u64 {
        match self {
            Wrong::Item(inode, _)
            | Wrong::Between(Finding::Shared { inode, .. } | Finding::Nameless { inode }) => *inode,
            Wrong::Between(Finding::Nowhere { directory, .. } | Finding::Twice { directory, .. }) => {
                *directory
            }
        }
    }

    /// In a sentence, without the path.
    fn what(&self) -> String {
        match self {
            Wrong::Item(_, fault) => fault.to_string(),
            Wrong::Between(Finding::Shared { bytes, .. }) => {
                format!("device bytes {} to {} are claimed more than once", bytes.start, bytes.end)
            }
            Wrong::Between(Finding::Nowhere { name, inode, .. }) => {
                format!("its entry {} leads to inode {inode}, which is no item", text::printable(name))
            }
            Wrong::Between(Finding::Twice { name, inode, .. }) => {
                format!(
                    "two entries are called {}; the later one leads to inode {inode}",
                    text::printable(name)
                )
            }
            Wrong::Between(Finding::Nameless { .. }) => "no directory has a name for it".to_owned(),
        }
    }
}

/// `volume check`.
pub fn check(global: &Global, path: &Path, reader: Reader, output: &Output) -> Result<Exit, Failure> {
    if reader == Reader::Image {
        return Err(Failure::usage(
            "--reader image: an image has no items to look at; choose auto, raw, ext4 or mounted",
        ));
    }
    let fail = |fault| Failure::at(text::printable(path.as_os_str().as_encoded_bytes()), fault);
    let mut device = open_device(path, global.device_iops_max, &[])?;
    warn_written(path);
    let mut volume = open_volume(path, &mut *device, reader)?;
    let (mut found, mut count, mut items) = (Vec::new(), 0u64, 0u64);
    let mut add = |wrong| {
        count += 1;
        if found.len() < FINDINGS_MAX {
            found.push(wrong);
        }
    };
    let (mut window, mut from) = (Window::default(), Cursor::default());
    loop {
        let swept = volume.sweep(&mut *device, from, &mut window).map_err(fail)?;
        for item in &window.items {
            items += u64::from(item.part.last);
            if let Some(fault) = &item.fault {
                add(Wrong::Item(item.inode, fault.clone()));
            }
        }
        match swept {
            Swept::More(next) => from = next,
            Swept::Done => break,
        }
    }
    let mut between = |finding: &Finding| add(Wrong::Between(finding.clone()));
    check::check(&mut *volume, &mut *device, CHECK_MEMORY_BYTES, &mut between).map_err(fail)?;
    // Without a path there is still the number.
    let inodes: Vec<u64> = found.iter().map(Wrong::inode).collect();
    let known = paths::find(&mut *volume, &mut *device, inodes.into_iter()).unwrap_or_default();
    for wrong in &found {
        let inode = wrong.inode();
        let place = match known.get(&inode) {
            Some(path) => format!("/{} (inode {inode})", text::printable(path)),
            None => format!("inode {inode}"),
        };
        output.say(format_args!("{place}: {}", wrong.what()));
        output.event("finding", json!({ "inode": inode, "place": place, "what": wrong.what() }));
    }
    output.say(format_args!(
        "{} looked at: {}",
        Counted(items, "item"),
        match count {
            0 => "sound".to_owned(),
            _ => Counted(count, "finding").to_string(),
        }
    ));
    output.event("done", json!({ "device": path.display().to_string(), "items": items, "findings": count }));
    Ok(if count == 0 { Exit::Done } else { Exit::Partial })
}
