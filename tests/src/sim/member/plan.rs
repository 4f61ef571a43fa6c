//! What a seed decides of volumes, policies and users, and the volumes as they are. Source: ours.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use windlass_agent::coordinator::bounds::Room;
use windlass_agent::format::record::BackupVolume;
use windlass_agent::id::{Key, ObjectId, VolumeId};
use windlass_agent::log::call::Body;
use windlass_agent::table::plan::Bounds;
use windlass_agent::work::Found;
use windlass_hal::buf::Pool;
use windlass_hal::sim::prng::Prng;

use super::super::options::{MS, Options, SECOND};
use super::super::pieces::state_of;

/// Volumes at most.
const VOLUMES_MAX: u64 = 4;
/// Inodes or blocks between cuts.
pub const GRAIN: u64 = 64;
/// Grains of a volume at most.
const GRAINS_MAX: u64 = 24;
/// Volumes of the one policy where each is slow to open.
const SLOW_VOLUMES: usize = 18;
/// Policies that are due at one moment.
const PUNCTUAL_POLICIES: usize = 6;
/// One seed in so many has volumes with bytes in them, and jobs that back them up.
const DATA_SEEDS: u64 = 20;
/// Seeds with rich reports, modulo 4: from this one on. None of them is kept for something else.
const RICH_SEEDS: u64 = 2;
/// Blocks of such a volume at most.
const BLOCKS_MAX: u64 = 48;
/// Bytes of a block there.
pub const BLOCK_BYTES: u32 = 4096;
/// Blocks in a location row there.
pub const ROW_BLOCKS: u32 = 4;

/// A volume.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What it is called in board profiles.
    pub device: String,
    /// Inodes, or blocks of an image.
    pub units: u64,
    /// Whether it is an image.
    pub image: bool,
    /// Whether anything proves that it has not changed.
    pub has_state: bool,
    /// Nodes that can read it.
    pub owners: Vec<usize>,
    /// Its contents: counts changes.
    pub version: u64,
    /// The bytes of each version from 1; empty when this is not a seed with data.
    pub history: Vec<Vec<u8>>,
}

impl Disk {
    /// Its bytes now.
    pub fn bytes(&self) -> &[u8] {
        self.history.last().map(Vec::as_slice).unwrap_or_default()
    }

    /// Writes some blocks: zeros, old contents of others, or new ones.
    fn write(&mut self, prng: &mut Prng) {
        let block = BLOCK_BYTES as usize;
        let mut bytes = self.bytes().to_vec();
        bytes.resize(self.units as usize * block, 0);
        let blocks = self.units;
        for _ in 0..=prng.below(blocks) {
            let to = prng.below(blocks) as usize * block;
            let from = prng.below(blocks) as usize * block;
            match prng.below(6) {
                0 => bytes[to..to + block].fill(0),
                1 => bytes.copy_within(from..from + block, to),
                _ => {
                    let value = prng.next_u64().to_le_bytes();
                    bytes[to..to + block].as_chunks_mut::<8>().0.iter_mut().for_each(|chunk| *chunk = value);
                }
            }
        }
        self.history.push(bytes);
    }

    /// What the log says of it, as `volume`.
    pub fn found(&self, volume: VolumeId) -> BackupVolume {
        let state = self.has_state.then(|| state_of(self.version));
        BackupVolume { volume, fs_uuid: [7; 16], state, ..BackupVolume::default() }
    }

    /// What a probe says of it.
    pub fn probed(&self, volume: VolumeId) -> Found {
        let (grain, end) = if self.history.is_empty() {
            (GRAIN, self.units)
        } else {
            (u64::from(ROW_BLOCKS), self.units.next_multiple_of(u64::from(ROW_BLOCKS)))
        };
        let end: Key = if self.image { (1, end) } else { (end, 0) };
        Found {
            volume: self.found(volume),
            end,
            grain,
            items: self.units,
            bytes: self.units,
            ..Found::default()
        }
    }

    /// The key so many units behind `from`, and whether that is the end of everything.
    pub fn after(&self, from: Key, units: u64) -> (Key, bool) {
        let at = if self.image { from.1 } else { from.0 } + units;
        let key = if self.image { (1, at) } else { (at, 0) };
        (key, at >= self.units)
    }
}

/// In seeds with this remainder by eight, the coordinator's queue is small.
const FULL_QUEUE_SEEDS: u64 = 3;
/// In seeds with this one, the tables may have few segments and retired names.
const FULL_TABLES_SEEDS: u64 = 6;

/// What a node is like.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// How much of the work it wants.
    pub weight: u32,
    /// Pack lanes.
    pub lanes: u32,
}

/// What a seed decides, and the volumes as they are.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Volumes.
    pub disks: Vec<Disk>,
    /// Volumes of each policy, by index.
    pub policies: Vec<Vec<usize>>,
    /// Nodes.
    pub profiles: Vec<Profile>,
    /// Idle time after which the lease is let go.
    pub rest_ns: u64,
    /// When tables are in order: soon out of it in most seeds.
    pub merges: Bounds,
    /// How near to bounds a coordinator comes: with a small queue in some seeds, so that reports are not taken and come again, and with few
    /// segments and retired names in others, so that backups wait for merges and epochs are renewed.
    pub room: Room,
    /// How long a command waits.
    pub request_ns: u64,
    /// A piece of a stretch takes so long to read at most.
    pub read_ns: u64,
    /// Grains in a piece at most.
    pub piece_grains: u64,
    /// Attempts to store something.
    pub tries: u32,
    /// Which volume each node reads now. It does not change meanwhile.
    pub reading: BTreeMap<usize, usize>,
    /// Whether reports have several objects and segments, faults, and totals in all their parts.
    pub rich: bool,
    /// Whether volumes have bytes in them.
    pub data: bool,
    /// What the store has acknowledged, in seeds with data.
    pub bodies: BTreeMap<String, Body>,
    /// The volume that may be gone for good: its policy has others.
    pub gone: Option<usize>,
    /// Objects that the store has lost since.
    pub lost: BTreeSet<ObjectId>,
    /// Each node's buffers for frames and pieces, in seeds with data: those of its next life too, as they are large.
    pub pools: BTreeMap<usize, (Pool, Pool)>,
    prng: Prng,
}

/// The one ground of a world.
pub type Shared = Rc<RefCell<Ground>>;

impl Ground {
    /// Draws everything from the seed.
    pub fn draw(options: &Options) -> Ground {
        let mut prng = Prng::new(options.seed ^ 0x6E0D_E000_0000_0000);
        let lease = options.writer.timing.lease_ns;
        let data = prng.one_in(DATA_SEEDS) || options.garbage;
        let mut profiles: Vec<Profile> = (0..options.nodes)
            .map(|_| Profile {
                weight: if prng.one_in(5) { 0 } else { 1 + prng.below(1000) as u32 },
                lanes: 1 + prng.below(4) as u32,
            })
            .collect();
        // Somebody must be there to work.
        let worker = prng.below(options.nodes as u64) as usize;
        profiles[worker].weight = profiles[worker].weight.max(1);
        let mut disks: Vec<Disk> = (0..=prng.below(VOLUMES_MAX))
            .map(|index| Ground::disk(index, worker, data, options, &mut prng))
            .collect();
        let mut policies = vec![Vec::new(); 1 + prng.below(2) as usize];
        for disk in 0..disks.len() {
            let of = prng.below(policies.len() as u64) as usize;
            policies[of].push(disk);
        }
        policies.retain(|volumes| !volumes.is_empty());
        let mut extra = Prng::new(options.seed ^ 0x5C4E_D01E);
        if options.weather.punctual {
            // A policy for each volume, and volumes enough that many are due at once.
            while disks.len() < PUNCTUAL_POLICIES {
                disks.push(Ground::disk(disks.len() as u64, worker, data, options, &mut extra));
            }
            policies = (0..disks.len()).map(|disk| vec![disk]).collect();
        }
        if options.weather.slow_open_ns > 0 {
            while disks.len() < SLOW_VOLUMES {
                let mut disk = Ground::disk(disks.len() as u64, worker, data, options, &mut extra);
                // It is about the time until they are open.
                disk.units = disk.units.min(GRAIN);
                disks.push(disk);
            }
            policies = vec![(0..disks.len()).collect()];
        }
        if options.weather.busy {
            disks.truncate(1);
            policies = vec![vec![0]];
            if !data {
                disks[0].units = disks[0].units.min(GRAIN / 2);
            }
        }
        if let Some((victim, _)) = options.weather.grave {
            let heir = (victim + 1) % options.nodes;
            profiles[heir].weight = profiles[heir].weight.max(1);
            for disk in &mut disks {
                if !disk.owners.contains(&heir) {
                    disk.owners.push(heir);
                }
            }
        }
        let company = policies.iter().find(|volumes| volumes.len() > 1);
        let gone = options.weather.gone.and_then(|_| company?.first().copied());
        let slowest_ns = if prng.one_in(3) { lease } else { SECOND };
        Ground {
            disks,
            policies,
            profiles,
            rest_ns: lease / 4 + prng.below(4 * lease),
            request_ns: lease + prng.below(20 * lease),
            merges: Bounds { deep: 1 + prng.below(8) as usize, run: 2 + prng.below(12) as usize },
            room: Ground::room(options.seed),
            read_ns: 10 * MS + prng.below(slowest_ns),
            piece_grains: 1 + prng.below(8),
            tries: 1 + prng.below(8) as u32,
            reading: BTreeMap::new(),
            rich: options.seed % 4 >= RICH_SEEDS,
            data,
            bodies: BTreeMap::new(),
            gone,
            lost: BTreeSet::new(),
            pools: BTreeMap::new(),
            prng,
        }
    }

    /// Not drawn: the other seeds stay as they are.
    fn room(seed: u64) -> Room {
        let usual = Room::default();
        let few = (seed / 8 % 8) as usize;
        match seed % 8 {
            FULL_QUEUE_SEEDS => Room { queue: 1 + few / 2, ..usual },
            FULL_TABLES_SEEDS => {
                Room { segments: 4 + 4 * few, retired_old: 2, retired_own: 4 + 2 * few, ..usual }
            }
            _ => usual,
        }
    }

    fn disk(index: u64, worker: usize, data: bool, options: &Options, prng: &mut Prng) -> Disk {
        let all = prng.one_in(3);
        let mut disk = Disk {
            device: format!("vol{index}"),
            units: GRAIN * (1 + prng.below(GRAINS_MAX)) - if prng.one_in(2) { prng.below(GRAIN) } else { 0 },
            image: prng.one_in(4),
            has_state: !prng.one_in(6),
            owners: (0..options.nodes).filter(|&node| node == worker || all || prng.one_in(2)).collect(),
            version: 1,
            history: Vec::new(),
        };
        if data {
            (disk.image, disk.units) = (true, 1 + prng.below(BLOCKS_MAX));
            disk.write(prng);
        }
        disk
    }

    /// Which volume has this name.
    pub fn disk_of(&self, device: &str) -> Option<usize> {
        self.disks.iter().position(|disk| disk.device == device)
    }

    /// Volumes in a node's profile.
    pub fn devices_of(&self, node: usize) -> Vec<String> {
        let of = |disk: &&Disk| disk.owners.contains(&node);
        self.disks.iter().filter(of).map(|disk| disk.device.clone()).collect()
    }

    /// Somebody writes to a volume that nobody reads.
    pub fn change(&mut self, disk: usize) {
        if !self.reading.values().any(|&other| other == disk) {
            self.disks[disk].version += 1;
            if self.data {
                self.disks[disk].write(&mut self.prng);
            }
        }
    }
}
