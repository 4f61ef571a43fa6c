//! `volume info`: what is on a device, without a repository.
//!
//! Source: ours.

use std::path::Path;

use serde_json::json;
use windlass_agent::policy::Reader;
use windlass_agent::units::{Grouped, Human};

use crate::args::global::Global;
use crate::calendar::iso_utc;
use crate::failure::{Exit, Failure};
use crate::machinery::{open_device, open_volume};
use crate::output::Output;
use crate::text;

/// `volume info`. A volume that is refused is a failure whose line says why and what to do.
pub fn info(global: &Global, path: &Path, reader: Reader, output: &Output) -> Result<Exit, Failure> {
    let mut device = open_device(path, global.device_iops_max, &[])?;
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
        output.say(format_args!("written   {}", iso_utc(info.written_secs)));
    }
    if !info.features.is_empty() {
        output.say(format_args!("features  {}", info.features.join(" ")));
    }
    output.say(if info.state.is_some() {
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
    }));
    Ok(Exit::Done)
}
