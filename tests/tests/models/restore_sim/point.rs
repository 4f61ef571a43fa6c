//! A recovery point made up from a seed: a tree, its rows and objects in a store, and what a restore of it must give.
//!
//! Invariants: every kind of item and of block comes up within some seeds; the same seed gives the same point. Source: ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_agent::format::frame::{FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, seal};
use windlass_agent::format::row::{
    BlockPlace, ItemAttributes, ItemRow, LocationRow, NameRow, Place, Row, RowPayload, RunKind,
};
use windlass_agent::format::seal::{Keys, Sealing, Secret};
use windlass_agent::id::{BackupId, Boot, Epoch, Lin, NodeId, ObjectId, VolumeId};
use windlass_agent::store::memory::MemoryStore;
use windlass_agent::store::{PutMode, Store, StoreFault};
use windlass_agent::table::segment::{SegmentMeta, SegmentSink, SegmentWriter};
use windlass_hal::volume::{Hints, ItemKind, Timestamp};
use windlass_tests::prng::Prng;

pub const VOLUME: VolumeId = VolumeId(1);
pub const BACKUP: BackupId = BackupId(3);
pub const ROOT: Lin = Lin { volume: VOLUME, inode: 2 };
pub const BLOCK: usize = 4096;
/// Blocks of a location row.
const ROW_BLOCKS: usize = 4;
/// Most blocks of a file.
const BLOCKS_MAX: u64 = 9;
/// No dump; immutable, which only the last two have: flags that are set at the end.
const FLAGS: [u32; 4] = [0x40, 0x40, 0x10, 0x50];

/// What must be there under a path.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub inode: u64,
    pub item: ItemAttributes,
    /// Bytes of a file, target of a symlink.
    pub contents: Vec<u8>,
}

/// What is odd about names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    None,
    /// Some of a directory differ from another one only in case.
    Cases,
    /// Some have 60 bytes.
    Long,
}

/// A frame in the store and which inodes need it.
pub struct FrameAt {
    pub object: ObjectId,
    pub offset: u32,
    pub bytes: u32,
    pub inodes: BTreeSet<u64>,
}

pub struct Point {
    pub store: Arc<MemoryStore>,
    pub keys: Keys,
    pub metas: Vec<SegmentMeta>,
    /// By path; the root's is empty.
    pub wanted: BTreeMap<Vec<u8>, Wanted>,
    pub frames: Vec<FrameAt>,
}

fn id(count: u32) -> ObjectId {
    ObjectId { epoch: Epoch(1), node: NodeId(0), boot: Boot(9), count }
}

fn attributes(p: &mut Prng, flags: &[u32], kind: ItemKind, size: u64, payload: RowPayload) -> ItemAttributes {
    let time =
        |p: &mut Prng| Timestamp { secs: p.below(1 << 31) as i64, nanos: p.below(1_000_000_000) as u32 };
    let privileged = if kind == ItemKind::File && p.one_in(4) { 0o4000 } else { 0 };
    let is_special = !matches!(kind, ItemKind::File | ItemKind::Directory);
    let mut xattrs = Vec::new();
    if !is_special && p.one_in(3) {
        if kind == ItemKind::File && p.one_in(2) {
            xattrs.push((b"security.capability".to_vec(), p.bytes(20)));
        }
        let bytes = p.below(60) as usize;
        xattrs.push((b"user.one".to_vec(), p.bytes(bytes)));
    }
    let flags = if is_special || !p.one_in(4) { 0 } else { flags[p.below(flags.len() as u64) as usize] };
    let past = kind == ItemKind::File && p.one_in(6);
    ItemAttributes {
        kind,
        rows_from: BACKUP,
        generation: 0,
        mode: match kind {
            ItemKind::Symlink => 0o777,
            _ => privileged | [0o644, 0o600, 0o751, 0o777][p.below(4) as usize],
        },
        uid: [0, 1000][p.below(2) as usize],
        gid: [0, 1000][p.below(2) as usize],
        links: 1,
        rdev: if kind == ItemKind::CharDevice { (1, 3) } else { (0, 0) },
        size,
        allocated_to: if past { size + 20_000 } else { 0 },
        gaps: Vec::new(),
        atime: time(p),
        mtime: time(p),
        ctime: time(p),
        btime: None,
        flags,
        project: if !is_special && p.one_in(8) { 7 } else { 0 },
        hints: Hints::NONE,
        parent: 0,
        listing: 0,
        payload,
        xattrs,
        unsure: false,
        fault: String::new(),
    }
}

/// Blocks on their way into frames and objects.
struct Packer<'p> {
    p: &'p mut Prng,
    keys: Keys,
    store: Arc<MemoryStore>,
    object: u32,
    body: Vec<u8>,
    frame: Vec<u8>,
    /// Of the frame: whose, and where in it.
    blocks: Vec<(u64, u32, u32)>,
    frames: Vec<FrameAt>,
    /// Places of the blocks so far, in order.
    places: Vec<Place>,
}

impl Packer<'_> {
    fn block(&mut self, inode: u64, bytes: &[u8]) -> usize {
        self.blocks.push((inode, self.frame.len() as u32, bytes.len() as u32));
        self.frame.extend_from_slice(bytes);
        let number = self.places.len() + self.blocks.len() - 1;
        if self.p.one_in(2) {
            self.end_frame();
        }
        number
    }

    fn end_frame(&mut self) {
        if self.blocks.is_empty() {
            return;
        }
        let (raw, object, offset) = (self.frame.len(), id(self.object), self.body.len() as u32);
        let mut buffer = vec![0; raw + FRAME_OVERHEAD_BYTES];
        buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + raw].copy_from_slice(&self.frame);
        let bytes = seal(&mut buffer, raw, raw, false, &self.keys.object(&object), offset.into()) as u32;
        self.body.extend_from_slice(&buffer);
        let inodes = self.blocks.iter().map(|block| block.0).collect();
        self.frames.push(FrameAt { object, offset, bytes, inodes });
        for (_, inner_offset, len) in std::mem::take(&mut self.blocks) {
            let digest = self.keys.digest(&self.frame[inner_offset as usize..][..len as usize]);
            let (frame_offset, frame_bytes) = (offset, bytes);
            self.places.push(Place { object, frame_offset, frame_bytes, inner_offset, len, digest });
        }
        self.frame.clear();
        if self.p.one_in(3) {
            self.end_object();
        }
    }

    fn end_object(&mut self) {
        if !self.body.is_empty() {
            self.store.put(&id(self.object).object_key(), &[&self.body], PutMode::Replace).unwrap();
            self.body.clear();
            self.object += 1;
        }
    }
}

/// A block of a location row: stored ones by number until all are packed.
enum Planned {
    Stored(usize),
    Other(BlockPlace),
}

/// Location rows of an inode: base, blocks, runs.
type PlannedRow = (u64, u64, Vec<Planned>, Vec<(RunKind, u64)>);

/// Makes a file of some blocks; its contents and rows.
fn blocks_of(packer: &mut Packer<'_>, inode: u64, rows: &mut Vec<PlannedRow>) -> Vec<u8> {
    let count = 1 + packer.p.below(BLOCKS_MAX) as usize;
    let size = count * BLOCK - if packer.p.one_in(2) { packer.p.below(BLOCK as u64) as usize } else { 0 };
    let mut contents = vec![0; size];
    for base in (0..count).step_by(ROW_BLOCKS) {
        let with_runs = packer.p.one_in(4);
        let (mut blocks, mut runs) = (Vec::new(), Vec::new());
        for block in base..count.min(base + ROW_BLOCKS) {
            let (from, to) = (block * BLOCK, size.min((block + 1) * BLOCK));
            let kind = packer.p.below(6);
            blocks.push(match kind {
                0 => Planned::Other(BlockPlace::Empty),
                1 => Planned::Other(BlockPlace::Zero),
                _ => {
                    let bytes = packer.p.bytes(to - from);
                    contents[from..to].copy_from_slice(&bytes);
                    Planned::Stored(packer.block(inode, &bytes))
                }
            });
            let run = match kind {
                0 if packer.p.one_in(2) => RunKind::Unwritten,
                0 => RunKind::Hole,
                _ => RunKind::Data,
            };
            runs.push((run, (to - from) as u64));
        }
        // Without runs all of it is data, but for what is empty.
        rows.push((inode, base as u64, blocks, if with_runs { runs } else { Vec::new() }));
    }
    contents
}

struct Sink<'s>(&'s MemoryStore, Vec<SegmentMeta>, Vec<u8>);

impl SegmentSink for Sink<'_> {
    fn begin(&mut self) -> ObjectId {
        self.2.clear();
        id(9000 + self.1.len() as u32)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.2.extend_from_slice(bytes);
    }

    fn end(&mut self, meta: &SegmentMeta) -> Result<(), StoreFault> {
        self.1.push(*meta);
        self.0.put(&meta.id.segment_key(), &[&self.2], PutMode::Replace)
    }
}

/// Joins a name to a path.
fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = [path, name].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(&b'/')
}

impl Point {
    /// `with_immutable`: of files that cannot be changed, too.
    pub fn new(p: &mut Prng, with_immutable: bool) -> Point {
        Point::make(p, with_immutable, Oddity::None)
    }

    /// The same, with names that not every file system takes.
    pub fn make(p: &mut Prng, with_immutable: bool, oddity: Oddity) -> Point {
        let flags = if with_immutable { &FLAGS[..] } else { &FLAGS[..2] };
        let store = Arc::new(MemoryStore::default());
        let keys = Keys::new(&Secret::new([5; 32]), Sealing::Off);
        let mut items: BTreeMap<u64, (ItemAttributes, Vec<u8>)> = BTreeMap::new();
        let mut names: Vec<(u64, Vec<u8>, u64)> = Vec::new();
        let mut located = Vec::new();
        let mut dirs = vec![(ROOT.inode, Vec::new())];
        let mut root = attributes(p, flags, ItemKind::Directory, 0, RowPayload::None);
        // An immutable root could not be restored into a second time.
        (root.parent, root.flags) = (ROOT.inode, 0);
        items.insert(ROOT.inode, (root, Vec::new()));
        let mut paths = vec![(Vec::new(), ROOT.inode)];
        let mut draws = Prng::new(p.next_u64());
        let mut packer = Packer {
            p: &mut draws,
            keys: keys.clone(),
            store: Arc::clone(&store),
            object: 1,
            body: Vec::new(),
            frame: Vec::new(),
            blocks: Vec::new(),
            frames: Vec::new(),
            places: Vec::new(),
        };
        for inode in 10..12 + p.below(14) {
            let (parent, path) = dirs[p.below(dirs.len() as u64) as usize].clone();
            let mut name = format!("n{:02}-{inode}", p.below(90)).into_bytes();
            if oddity == Oddity::Long && inode % 3 == 0 {
                name.resize(60, b'x');
            }
            if oddity == Oddity::Cases
                && inode % 2 == 0
                && let Some((_, other, _)) =
                    names.iter().rev().find(|(of, other, _)| *of == parent && other[0] == b'n')
            {
                let upper = other.to_ascii_uppercase();
                if !names.iter().any(|(of, other, _)| *of == parent && *other == upper) {
                    name = upper;
                }
            }
            let (kind, size, payload, contents) = match p.below(10) {
                0 | 1 => (ItemKind::Directory, 0, RowPayload::None, Vec::new()),
                2 => {
                    let target = b"some/where".to_vec();
                    (ItemKind::Symlink, 10, RowPayload::Target(target.clone()), target)
                }
                3 => (ItemKind::Fifo, 0, RowPayload::None, Vec::new()),
                4 => (ItemKind::CharDevice, 0, RowPayload::None, Vec::new()),
                5 => {
                    let (stored, zeros) = (1 + p.below(60) as usize, p.below(2) * p.below(90));
                    let bytes = p.bytes(stored);
                    let mut contents = bytes.clone();
                    contents.resize(stored + zeros as usize, 0);
                    (ItemKind::File, contents.len() as u64, RowPayload::Inline(bytes), contents)
                }
                _ => {
                    let contents = blocks_of(&mut packer, inode, &mut located);
                    (ItemKind::File, contents.len() as u64, RowPayload::None, contents)
                }
            };
            let mut item = attributes(p, flags, kind, size, payload);
            let full = below(&path, &name);
            if kind == ItemKind::Directory {
                (item.parent, item.flags) = (parent, item.flags & 0x40);
                dirs.push((inode, full.clone()));
            } else {
                while p.one_in(4) && item.links < 4 {
                    let (other, other_path) = dirs[p.below(dirs.len() as u64) as usize].clone();
                    let again = format!("x{inode}{}", item.links).into_bytes();
                    paths.push((below(&other_path, &again), inode));
                    names.push((other, again, inode));
                    item.links += 1;
                }
            }
            paths.push((full, inode));
            names.push((parent, name, inode));
            items.insert(inode, (item, contents));
        }
        packer.end_frame();
        packer.end_object();
        let (frames, places) = (packer.frames, packer.places);
        names.sort();
        let mut rows = Vec::new();
        for (&inode, (item, _)) in &items {
            let lin = Lin { volume: VOLUME, inode };
            rows.push(Row::Item(ItemRow { lin, backup: BACKUP, item: Some(item.clone()), gone: None }));
            for (_, name, named) in names.iter().filter(|(parent, ..)| *parent == inode) {
                let (name, inode) = (name.clone(), *named);
                rows.push(Row::Name(NameRow { parent: lin, backup: BACKUP, run: 0, name, inode }));
            }
            for (_, base, blocks, runs) in located.iter().filter(|(of, ..)| *of == inode) {
                let place = |block: &Planned| match block {
                    Planned::Stored(number) => BlockPlace::Stored(places[*number]),
                    Planned::Other(place) => *place,
                };
                let blocks = blocks.iter().map(place).collect();
                let (base, runs, block_bytes) = (*base, runs.clone(), BLOCK as u32);
                rows.push(Row::Location(LocationRow {
                    lin,
                    base,
                    backup: BACKUP,
                    block_bytes,
                    blocks,
                    runs,
                }));
            }
        }
        let mut sink = Sink(&store, Vec::new(), Vec::new());
        let mut writer = SegmentWriter::new(1, 1 << 20, &keys).unwrap();
        rows.iter().for_each(|row| writer.push(row.as_ref(), &mut sink).unwrap());
        writer.finish(&mut sink).unwrap();
        let metas = sink.1;
        let wanted = |(path, inode): (Vec<u8>, u64)| {
            let (item, contents) = items[&inode].clone();
            (path, Wanted { inode, item, contents })
        };
        let wanted = paths.into_iter().map(wanted).collect();
        Point { store, keys, metas, wanted, frames }
    }

    /// Paths of these inodes.
    pub fn paths_of(&self, inodes: &BTreeSet<u64>) -> BTreeSet<Vec<u8>> {
        let of = self.wanted.iter().filter(|(_, wanted)| inodes.contains(&wanted.inode));
        of.map(|(path, _)| path.clone()).collect()
    }
}
