//! What the points of a policy hold: all volumes of them, and the names of one point.
//!
//! Does not: print. Source: ours; `read::usage`, `read::suffix`.

use std::collections::BTreeMap;

use windlass_agent::id::BackupId;
use windlass_agent::log::state::{Point, State};
use windlass_agent::read::suffix::Suffixes;
use windlass_agent::read::usage::{Usage, usage};
use windlass_agent::restore::browse::{self, BrowseFault, Met};
use windlass_hal::volume::ItemKind;

use crate::engine::points;
use crate::engine::repository::Repository;
use crate::engine::restore::open_lookup;
use crate::failure::Failure;

/// What was found.
#[derive(Debug, Default)]
pub struct Stats {
    /// What the points hold, and items of the one that is looked at.
    pub usage: Usage,
    /// Names of files of that one.
    pub names: Suffixes,
}

/// Reads the tables of all volumes of `point`, whose items are counted, and of the other points of its policy.
///
/// # Errors
/// The tables cannot be read, or rows of them are lost.
pub fn of_point(repository: &Repository, state: &State, point: &Point) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    let newest = state.points.keys().next_back().copied().unwrap_or(point.backup);
    let mut volumes: BTreeMap<_, ()> = BTreeMap::new();
    for of in state.points.values().filter(|of| of.policy == point.policy) {
        volumes.extend(of.volumes.iter().map(|volume| (volume.volume, ())));
        stats.usage.points.entry(of.backup).or_default();
    }
    for volume in volumes.into_keys() {
        let failed = |fault: BrowseFault| Failure::at(format_args!("volume {volume}"), fault);
        let has = points::with_volume(state, &point.policy, volume, newest);
        let is_in = has.contains(&point.backup);
        let at = if is_in { point.backup } else { BackupId(0) };
        let mut lookup = open_lookup(repository, state, point, volume)?;
        let counted = usage(lookup.reader(), volume, &has, at, &mut stats.usage);
        counted.map_err(|fault| failed(fault.into()))?;
        if !is_in {
            continue;
        }
        let (root, item) = browse::root(&mut lookup, volume).map_err(failed)?;
        if item.kind != ItemKind::Directory {
            continue;
        }
        let walked = browse::walk(&mut lookup, root, &item, b"", &mut |_, visit| {
            if let Met::Item(item) = visit.met
                && item.kind == ItemKind::File
            {
                let name = visit.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
                stats.names.add(name, item.size, item.links);
            }
            Ok::<_, BrowseFault>(true)
        });
        walked.map_err(failed)?;
    }
    stats.usage.kinds.sort_by_key(|of| std::cmp::Reverse((of.bytes, of.items)));
    Ok(stats)
}
