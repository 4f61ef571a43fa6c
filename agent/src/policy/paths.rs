//! From inodes back to paths, for messages: a person can act on "not whole: /home/ann/x", not on an inode
//! number.
//!
//! Names are only found from above, so each sweep of the volume finds the names of what is wanted and the directories they are in, which
//! the next sweep looks for, until the root. A few inodes in a tree of depth d cost d sweeps, and no memory that grows with the volume.
//!
//! Bounds: [`WANTED_MAX`] inodes, [`DEPTH_MAX`] levels; what is deeper keeps a path that begins with "...". Source: ours.

use std::collections::BTreeMap;

use windlass_hal::block::BlockDevice;
use windlass_hal::volume::{Cursor, Swept, Volume, VolumeFault, Window};

/// Most inodes looked for at once.
pub const WANTED_MAX: usize = 1000;
/// Most sweeps.
pub const DEPTH_MAX: usize = 64;

/// Finds a path from the root for each of `inodes`, without a slash in front; what has no name is missing in the answer.
pub fn find(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    inodes: impl Iterator<Item = u64>,
) -> Result<BTreeMap<u64, Vec<u8>>, VolumeFault> {
    let root = volume.info().root;
    let wanted: Vec<u64> = inodes.take(WANTED_MAX).collect();
    // Inode: its directory and its name there.
    let mut known: BTreeMap<u64, (u64, Vec<u8>)> = BTreeMap::new();
    let mut missing: Vec<u64> = wanted.clone();
    let mut window = Window::default();
    for _ in 0..DEPTH_MAX {
        missing.retain(|inode| *inode != root && !known.contains_key(inode));
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            break;
        }
        let found = sweep(volume, device, &mut window, &missing)?;
        missing = found.values().map(|(directory, _)| *directory).collect();
        known.extend(found);
    }
    Ok(wanted.into_iter().filter_map(|inode| Some((inode, path(&known, root, inode)?))).collect())
}

/// The first name of each of `wanted` (sorted), with its directory.
fn sweep(
    volume: &mut dyn Volume,
    device: &mut dyn BlockDevice,
    window: &mut Window,
    wanted: &[u64],
) -> Result<BTreeMap<u64, (u64, Vec<u8>)>, VolumeFault> {
    let mut found = BTreeMap::new();
    let mut cursor = Cursor::default();
    loop {
        let swept = volume.sweep(device, cursor, window)?;
        for item in &window.items {
            let names = &window.names[item.names.start as usize..item.names.end as usize];
            for name in names.iter().filter(|name| wanted.binary_search(&name.inode).is_ok()) {
                found.entry(name.inode).or_insert_with(|| (item.inode, window.get(&name.name).to_vec()));
            }
        }
        match swept {
            Swept::More(next) => cursor = next,
            Swept::Done => return Ok(found),
        }
    }
}

/// Puts a path together from below.
fn path(known: &BTreeMap<u64, (u64, Vec<u8>)>, root: u64, inode: u64) -> Option<Vec<u8>> {
    let (directory, name) = known.get(&inode)?;
    let mut directory = *directory;
    let mut parts: Vec<&[u8]> = vec![name];
    while directory != root {
        let above = known.get(&directory).filter(|_| parts.len() < DEPTH_MAX);
        let Some((next, name)) = above else {
            parts.push(b"...");
            break;
        };
        parts.push(name);
        directory = *next;
    }
    parts.reverse();
    Some(parts.join(&b'/'))
}
